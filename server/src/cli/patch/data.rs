//! Examples on disk: pictures in a folder for each class, NumPy arrays, a table, or the idx files of the MNIST family.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backstitch_client::analysis::{FeatureVector, Subject, analyse};
use backstitch_client::examples::Target;
use backstitch_client::input::Input;
use backstitch_client::preprocessing::Picture;
use backstitch_client::random::SplitMix;
use backstitch_edge::data::Pictures;
use backstitch_onnx::Tensor;
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use clap::Args;

use super::pictures;
use super::primary::Primary;
use super::progress::Progress;
use crate::cli::files::{self, Outcome};
use crate::cli::npy;

/// What `--data` accepts; for the help of the commands.
pub(super) const FORMS: &str = "--data names
  a folder with a subfolder of .png and .jpg files for each class,
  a folder with x.npy (inputs, one after another) and y.npy (class numbers, or targets of the output's shape),
  a .csv file with a heading: the numbers of one input in each row, and its class in the last column or in --target,
  or the start of a pair of idx files: data/test for data/test-images-idx3-ubyte.gz and data/test-labels-idx1-ubyte.gz.
Pictures are fitted to the primary's input; how, a library.json beside the primary or --preprocessing says.";

/// Names of arrays of inputs and targets.
const ARRAYS: [(&str, &str); 2] = [("x.npy", "y.npy"), ("inputs.npy", "targets.npy")];

/// Where examples come from.
#[derive(Debug, Args)]
pub(super) struct DataArgs {
    /// Examples.
    #[arg(long, value_name = "PATH")]
    pub(super) data: PathBuf,
    /// Tables: the column that holds the class; the last one where it is left out.
    #[arg(long, value_name = "COLUMN")]
    target: Option<String>,
    /// Take only the first examples.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// Inputs of the primary, one after another, and what it should answer.
#[derive(Clone, Debug)]
pub(super) struct Examples {
    /// Of one input, with a batch of one.
    pub(super) shape: Vec<usize>,
    /// Each row-major.
    pub(super) inputs: Vec<Vec<f32>>,
    pub(super) targets: Vec<Target>,
    /// Names of the classes that were found, in their order; empty where classes are numbers.
    pub(super) labels: Vec<String>,
    /// How the inputs were made of pictures.
    pub(super) picture: Option<Picture>,
}

impl DataArgs {
    /// What to call the data in a manifest.
    pub(super) fn title(&self) -> String {
        name_of(&self.data)
    }

    /// The shape of one input, where it is an array's.
    pub(super) fn shape(&self) -> Option<Vec<usize>> {
        let path = ARRAYS.iter().map(|(inputs, _)| self.data.join(inputs)).find(|p| p.exists())?;
        let tensor = npy::read(&path).ok()?;
        tensor.shape().split_first().map(|(_, rest)| rest.to_vec())
    }

    pub(super) fn read(&self, primary: &Primary) -> Outcome<Examples> {
        self.read_from(&self.data, primary)
    }

    /// The same from another place.
    pub(super) fn read_from(&self, path: &Path, primary: &Primary) -> Outcome<Examples> {
        let mut examples = self.examples(path, primary)?;
        let count = self.limit.unwrap_or(usize::MAX);
        examples.inputs.truncate(count);
        examples.targets.truncate(count);
        match examples.inputs.is_empty() {
            true => Err(format!("there is no example in {}", path.display()).into()),
            false => Ok(examples),
        }
    }

    fn examples(&self, path: &Path, primary: &Primary) -> Outcome<Examples> {
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv")) {
            return from_table(path, self.target.as_deref(), primary);
        }
        for (inputs, targets) in ARRAYS {
            if path.join(inputs).exists() {
                return from_arrays(&path.join(inputs), &path.join(targets), primary);
            }
        }
        match path.is_dir() {
            true => from_folders(path, primary),
            false => from_idx(path, primary),
        }
    }
}

impl Examples {
    pub(super) fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Refuses examples of a class beyond so many, which `of` has: they would count as wrong, or train the others away.
    pub(super) fn within(&self, classes: usize, of: &str) -> Outcome<()> {
        let Some(beyond) = self.targets.iter().filter_map(class).filter(|c| *c >= classes).min()
        else {
            return Ok(());
        };
        let name = self.labels.get(beyond).map(|name| format!(" (`{name}`)")).unwrap_or_default();
        let count = self.targets.iter().filter(|t| class(t).is_some_and(|c| c >= classes)).count();
        Err(Problem::new(
            Code::InputInvalid,
            format!(
                "{of} has {classes} classes, from 0; {count} of {} examples are of class {beyond}{name} or above",
                self.len()
            ),
        )
        .with_hint("make a head for as many classes (patch new --kind head --classes), or take these examples out")
        .into())
    }

    /// These of them.
    pub(super) fn pick(&self, indices: &[usize]) -> Self {
        Self {
            shape: self.shape.clone(),
            inputs: indices.iter().map(|i| self.inputs[*i].clone()).collect(),
            targets: indices.iter().map(|i| self.targets[*i].clone()).collect(),
            labels: self.labels.clone(),
            picture: self.picture.clone(),
        }
    }

    /// These and others of the same kind.
    pub(super) fn and(mut self, others: Self) -> Self {
        self.inputs.extend(others.inputs);
        self.targets.extend(others.targets);
        self
    }

    /// A part of `share` of each class, drawn by the seed, and the rest. Fails where one of both is empty.
    pub(super) fn split(&self, share: f64, seed: u64) -> Outcome<(Self, Self)> {
        let mut classes: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
        for (index, target) in self.targets.iter().enumerate() {
            classes.entry(class(target)).or_default().push(index);
        }
        let mut draws = SplitMix::new(seed);
        let (mut part, mut rest) = (Vec::new(), Vec::new());
        for mut members in classes.into_values() {
            draws.shuffle(&mut members);
            let count = (share * members.len() as f64).round() as usize;
            rest.extend(members.split_off(count.min(members.len())));
            part.extend(members);
        }
        if part.is_empty() || rest.is_empty() {
            return Err(format!(
                "{} examples cannot be split: {} % would be {} of them; give more examples, or another share",
                self.len(),
                100.0 * share,
                part.len()
            )
            .into());
        }
        part.sort_unstable();
        rest.sort_unstable();
        Ok((self.pick(&part), self.pick(&rest)))
    }

    /// What the client's analysis sees in one of them, and the primary's probes.
    pub(super) fn features(&self, primary: &Primary, index: usize) -> Outcome<FeatureVector> {
        let values = self.inputs[index].clone();
        let subject = match &self.picture {
            Some(picture) => picture.prepare(&Input::tensor(self.shape.clone(), values)?)?.subject,
            None => Subject::Numbers,
        };
        let mut features = analyse(&subject);
        if let Some(probed) = &primary.probed {
            probed.add(&self.inputs[index], &mut features)?;
        }
        Ok(features)
    }
}

/// The class, where the target is one.
pub(super) fn class(target: &Target) -> Option<usize> {
    match target {
        Target::Class(class) => Some(*class),
        Target::Values(_) => None,
    }
}

pub(super) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn from_arrays(inputs_path: &Path, targets_path: &Path, primary: &Primary) -> Outcome<Examples> {
    let (inputs, targets) = (npy::read(inputs_path)?, npy::read(targets_path)?);
    let (count, rest) = inputs.shape().split_first().unwrap_or((&0, &[]));
    let shape = primary.shape_like(rest).map_err(|e| format!("{}: {e}", inputs_path.display()))?;
    let size: usize = rest.iter().product();
    let values: Vec<f32> = inputs.to_f64()?.into_iter().map(|v| v as f32).collect();
    all_finite(inputs_path, &inputs, &values)?;
    let numbers = targets.to_f64()?;
    all_finite(targets_path, &targets, &numbers.iter().map(|v| *v as f32).collect::<Vec<_>>())?;
    let targets: Vec<Target> = match targets.shape() {
        [rows] if rows == count && numbers.iter().all(|t| *t >= 0.0 && t.fract() == 0.0) => {
            numbers.into_iter().map(|t| Target::Class(t as usize)).collect()
        }
        [rows, rest @ ..] if rows == count && !rest.is_empty() => {
            let of = |row: &[f64]| Target::Values(row.iter().map(|v| *v as f32).collect());
            numbers.chunks(rest.iter().product::<usize>().max(1)).map(of).collect()
        }
        other => {
            return Err(format!(
                "{} has the shape {:?}, {} has {other:?}: expected one class number from 0, or one row of targets, for each input",
                inputs_path.display(),
                inputs.shape(),
                targets_path.display(),
            )
            .into());
        }
    };
    let inputs = values.chunks(size.max(1)).map(<[f32]>::to_vec).collect();
    Ok(Examples { shape, inputs, targets, labels: Vec::new(), picture: primary.picture.clone() })
}

/// Refuses an array with NaN or infinity: a model may answer it all the same, and learn from it.
fn all_finite(path: &Path, tensor: &Tensor, values: &[f32]) -> Outcome<()> {
    let Some(odd) = values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
    let mut rest = odd;
    let mut place: Vec<usize> = tensor
        .shape()
        .iter()
        .rev()
        .map(|size| {
            let index = rest % size;
            rest /= size;
            index
        })
        .collect();
    place.reverse();
    let (row, column) = place.split_first().unwrap_or((&odd, &[]));
    let count = values.iter().filter(|value| !value.is_finite()).count();
    Err(Problem::new(
        Code::InputInvalid,
        format!(
            "{}: row {row}, column {column:?} is {}; {count} of {} numbers are not finite",
            path.display(),
            values[odd],
            values.len()
        ),
    )
    .with_hint("fill gaps or take these rows out: arrays are what the model takes, gaps are bridged only in a page")
    .into())
}

fn from_table(path: &Path, target: Option<&str>, primary: &Primary) -> Outcome<Examples> {
    let at = |e: csv::Error| format!("{}: {e}", path.display());
    let mut reader = csv::Reader::from_reader(std::io::Cursor::new(files::read(path)?));
    let headings = reader.headers().map_err(at)?.clone();
    let column = match target {
        Some(name) => headings
            .iter()
            .position(|h| h == name)
            .ok_or_else(|| format!("{} has no column `{name}`", path.display()))?,
        None => headings.len().saturating_sub(1),
    };
    let (mut inputs, mut answers) = (Vec::new(), Vec::new());
    for (row, record) in reader.records().enumerate() {
        let record = record.map_err(at)?;
        let mut numbers = Vec::with_capacity(record.len());
        for (index, cell) in record.iter().enumerate().filter(|(index, _)| *index != column) {
            numbers.push(cell.trim().parse::<f32>().ok().filter(|v| v.is_finite()).ok_or_else(
                || {
                    format!(
                        "{}, row {}: `{cell}` in `{}` is no number",
                        path.display(),
                        row + 2,
                        headings.get(index).unwrap_or_default()
                    )
                },
            )?);
        }
        inputs.push(numbers);
        let answer = record.get(column).unwrap_or_default().trim();
        if answer.is_empty() || answer.eq_ignore_ascii_case("nan") {
            return Err(format!(
                "{}, row {}: there is no class in `{}`",
                path.display(),
                row + 2,
                headings.get(column).unwrap_or_default()
            )
            .into());
        }
        answers.push(answer.to_owned());
    }
    let width = inputs.first().map_or(0, Vec::len);
    let shape = primary.shape_like(&[width]).map_err(|e| format!("{}: {e}", path.display()))?;
    let (targets, labels) = classes(&answers, primary)?;
    Ok(Examples { shape, inputs, targets, labels, picture: primary.picture.clone() })
}

/// Class numbers of class names: numbers count as themselves, names that the library has take its order, others
/// the alphabet's.
fn classes(names: &[String], primary: &Primary) -> Outcome<(Vec<Target>, Vec<String>)> {
    if let Ok(numbers) = names.iter().map(|n| n.parse()).collect::<Result<Vec<usize>, _>>() {
        return Ok((numbers.into_iter().map(Target::Class).collect(), Vec::new()));
    }
    let mut known: Vec<String> = names.to_vec();
    known.sort_unstable();
    known.dedup();
    let in_library = known.iter().all(|name| primary.labels.contains(name));
    let labels = if in_library { primary.labels.clone() } else { known };
    let of = |name: &String| labels.iter().position(|l| l == name).map(Target::Class);
    let targets = names.iter().map(|n| of(n).ok_or("a class got lost".into()));
    Ok((targets.collect::<Outcome<_>>()?, labels))
}

fn from_folders(folder: &Path, primary: &Primary) -> Outcome<Examples> {
    let picture = primary.picture.as_ref().ok_or_else(|| {
        format!(
            "{} holds no x.npy, and the primary's input of shape {:?} is no picture; {FORMS}",
            folder.display(),
            primary.shape
        )
    })?;
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    for class in entries(folder)?.into_iter().filter(|p| p.is_dir()) {
        let pictures = entries(&class)?.into_iter().filter(|p| pictures::is_picture(p));
        files.extend(pictures.map(|file| (name_of(&class), file)));
    }
    if files.is_empty() {
        return Err(format!(
            "{} holds no pictures in folders of classes; {FORMS}",
            folder.display()
        )
        .into());
    }
    let progress = Progress::new();
    let mut inputs = Vec::with_capacity(files.len());
    for (index, (_, file)) in files.iter().enumerate() {
        progress.count("reading picture", index, files.len());
        inputs.push(picture.prepare(&pictures::open(file)?)?.values);
    }
    let names: Vec<String> = files.into_iter().map(|(class, _)| class).collect();
    let (targets, labels) = classes(&names, primary)?;
    let shape = primary.shape.clone();
    Ok(Examples { shape, inputs, targets, labels, picture: Some(picture.clone()) })
}

fn entries(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let read = |cause| format!("cannot read {}: {cause}", folder.display());
    let mut paths = std::fs::read_dir(folder)
        .map_err(read)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(read)?;
    paths.sort();
    Ok(paths)
}

fn from_idx(start: &Path, primary: &Primary) -> Outcome<Examples> {
    let file = |kind: &str| {
        let mut name = start.as_os_str().to_owned();
        name.push(kind);
        files::read(Path::new(&name))
    };
    let images =
        file("-images-idx3-ubyte.gz").map_err(|e| format!("no examples there: {e}; {FORMS}"))?;
    let pictures = Pictures::read(&images, &file("-labels-idx1-ubyte.gz")?)?;
    let shape = primary
        .shape_like(&[1, pictures.height, pictures.width])
        .map_err(|e| format!("{}: {e}", start.display()))?;
    let scaled = |index: usize| {
        let levels = pictures.luminance(index);
        primary.picture.as_ref().map_or(levels.clone(), |p| p.values(&[levels]))
    };
    let inputs = (0..pictures.len()).map(scaled).collect();
    let targets = pictures.labels().iter().map(|c| Target::Class(usize::from(*c))).collect();
    Ok(Examples { shape, inputs, targets, labels: Vec::new(), picture: primary.picture.clone() })
}
