//! Labelled inputs on disk as a device is taught them: what a camera, a sensor or a person gave, before preprocessing.

use std::path::Path;

use backstitch_client::input::Input;
use backstitch_edge::node::Labelled;
use backstitch_onnx::DType;
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;

use super::patch::pictures;
use super::{files, npy};
use crate::failure::{Failure, Result};

/// Pictures in a folder for each label, `x.npy` with `y.npy`, or a table of texts.
pub(super) fn read(path: &Path, labels: &[String]) -> Result<Vec<Labelled>> {
    let read = match path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv")) {
        true => texts(path, labels)?,
        false if path.join("x.npy").exists() => arrays(path)?,
        false => folders(path, labels)?,
    };
    match read.is_empty() {
        true => Err(bad(format!("there is no example in {}", path.display()))),
        false => Ok(read),
    }
}

fn folders(path: &Path, labels: &[String]) -> Result<Vec<Labelled>> {
    let listed = |folder: &Path| -> Result<Vec<_>> {
        let entries = std::fs::read_dir(folder).when_reading(folder.display())?;
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        Ok(paths)
    };
    let mut read = Vec::new();
    for folder in listed(path)?.into_iter().filter(|entry| entry.is_dir()) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let class = class(&name, labels)?;
        for file in listed(&folder)?.into_iter().filter(|file| pictures::is_picture(file)) {
            let input = pictures::open(&file).map_err(|e| bad(e.to_string()))?;
            read.push(Labelled::new(input, class));
        }
    }
    Ok(read)
}

fn arrays(path: &Path) -> Result<Vec<Labelled>> {
    let tensor = |name: &str| npy::read(&path.join(name)).map_err(|e| bad(e.to_string()));
    let numbers = |tensor: &backstitch_onnx::Tensor| tensor.to_f64().when_reading(path.display());
    let (inputs, targets) = (tensor("x.npy")?, tensor("y.npy")?);
    let (count, shape) = inputs.shape().split_first().unwrap_or((&0, &[]));
    let (values, classes) = (numbers(&inputs)?, numbers(&targets)?);
    let size: usize = shape.iter().product();
    let whole = classes.iter().all(|class| *class >= 0.0 && class.fract() == 0.0);
    if targets.shape() != [*count] || !whole || size == 0 {
        return Err(bad(format!(
            "{}: y.npy needs one class number from 0 for each of the {count} inputs",
            path.display()
        )));
    }
    let bytes = inputs.dtype() == DType::U8;
    let one = |(row, class): (&[f64], &f64)| {
        let shape = shape.to_vec();
        let input = match bytes {
            true => Input::bytes(shape, row.iter().map(|v| *v as u8).collect()),
            false => Input::tensor(shape, row.iter().map(|v| *v as f32).collect()),
        };
        Ok(Labelled::new(input?, *class as usize))
    };
    values.chunks(size).zip(&classes).map(one).collect()
}

fn texts(path: &Path, labels: &[String]) -> Result<Vec<Labelled>> {
    let bytes = files::read(path).map_err(|e| bad(e.to_string()))?;
    let mut reader = csv::Reader::from_reader(std::io::Cursor::new(bytes));
    let headings = reader.headers().when_reading(path.display())?.clone();
    let column = |name: &str| {
        headings.iter().position(|heading| heading == name).ok_or_else(|| {
            bad(format!("{} has no column `{name}`", path.display()))
                .with_hint("the heading of a table of texts is text,label")
        })
    };
    let (text, label) = (column("text")?, column("label")?);
    let mut read = Vec::new();
    for record in reader.records() {
        let record = record.when_reading(path.display())?;
        let input = Input::text(record.get(text).unwrap_or_default().to_owned())?;
        read.push(Labelled::new(input, class(record.get(label).unwrap_or_default(), labels)?));
    }
    Ok(read)
}

/// The number of a label; a number stands for itself.
fn class(name: &str, labels: &[String]) -> Result<usize> {
    // A name with a slash cannot be a folder's.
    let same = |label: &String| label == name || label.replace('/', "-") == name;
    let known = labels.iter().position(same).or_else(|| name.parse().ok());
    known.filter(|class| *class < labels.len()).ok_or_else(|| {
        bad(format!("`{name}` is no label of the library"))
            .with_hint(format!("the labels are {}", labels.join(", ")))
    })
}

fn bad(detail: String) -> Problem {
    Problem::new(Code::InputInvalid, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Vec<String> {
        vec!["no".to_owned(), "T-shirt/top".to_owned()]
    }

    #[test]
    fn texts_are_read_by_name_or_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.csv");
        std::fs::write(&path, "label,text\nno,\"bad, bad\"\n1,good\n").unwrap();
        let read = read(&path, &labels()).unwrap();
        let classes: Vec<usize> = read.iter().filter_map(Labelled::class).collect();
        assert_eq!(classes, [0, 1]);
        assert_eq!(read[0].input, Input::text("bad, bad".to_owned()).unwrap());
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            read(&path, &labels()).unwrap_err()
        };
        assert!(refused("a.csv", "words,label\nx,no\n").hint().unwrap().contains("text,label"));
        let label = refused("b.csv", "text,label\nx,maybe\n");
        assert!(label.hint().unwrap().contains("T-shirt/top"), "{label}");
        assert!(refused("c.csv", "text,label\nx,7\n").detail().contains('7'));
        assert!(refused("d.csv", "text,label\n").detail().contains("no example"));
        std::fs::create_dir_all(folder.path().join("pictures/T-shirt-top")).unwrap();
        assert!(read(&folder.path().join("pictures"), &labels()).is_err(), "no pictures in it");
    }
}
