//! The authoring kit as its user meets it: a patch is made, trained, measured, packed and imported.

#![allow(clippy::unwrap_used, reason = "a failed step of a test ends it")]

use std::path::Path;
use std::process::Command;

use backstitch_onnx::{Attribute, DType, Dim, Graph, Model, Node, Tensor, ValueInfo};
use npyz::WriterBuilder as _;
use serde_json::Value as Json;

const FASHION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../onnx/models/fashion");

/// The command with these words; no path here has a space in it.
fn command(line: &str) -> (i32, String, String) {
    let words = line.split_whitespace();
    let output = Command::new(env!("CARGO_BIN_EXE_backstitch")).args(words).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn done(line: &str) -> String {
    let (code, out, error) = command(line);
    assert!(code == 0 && error.is_empty(), "{line}: {error}");
    out
}

fn json(line: &str) -> Json {
    serde_json::from_str(&done(&format!("{line} --json"))).unwrap()
}

fn refused(line: &str, why: &str) {
    let (code, _, error) = command(line);
    assert!(code == 1 && error.contains(why), "{line}: {error}");
}

fn manifest(patch: &str) -> Json {
    serde_json::from_slice(&std::fs::read(format!("{patch}/patch.json")).unwrap()).unwrap()
}

/// The committed primary alone in a folder, with its library's description or without.
fn primary(folder: &Path, with_library: bool) -> String {
    std::fs::copy(format!("{FASHION}/primary.onnx"), folder.join("primary.onnx")).unwrap();
    if with_library {
        std::fs::copy(format!("{FASHION}/library.json"), folder.join("library.json")).unwrap();
    }
    folder.join("primary.onnx").to_str().unwrap().to_owned()
}

#[test]
fn a_patch_goes_from_nothing_to_a_library_that_a_server_imports() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let primary = primary(folder.path(), false);
    let data = format!("{FASHION}/data/pool");
    let (patch, library, store) = (at("turned"), at("my-library"), at("store"));
    done(&format!(
        "patch new --kind adapter --site features --rank 16 --primary {primary} --out {patch}"
    ));
    let trained = json(&format!(
        "patch train {patch} --primary {primary} --data {data} --limit 400 --tilt 25 \
         --optimizer adam --learning-rate 0.005 --epochs 6"
    ));
    let right = |when: &str| trained[when]["accuracy"].as_f64().unwrap();
    assert!(right("after") > right("before") + 0.05, "{trained}");
    let measured = json(&format!(
        "patch eval {patch} --primary {primary} --data {data} --limit 600 \
         --slice none --slice tilt=25 --fit-share 0.5 --write"
    ));
    let rows = measured["rows"].as_array().unwrap();
    let gain = |slice: &str| {
        let row = rows.iter().find(|r| r["slice"] == slice).unwrap();
        row["patched"].as_f64().unwrap() - row["base"].as_f64().unwrap()
    };
    assert!(gain("tilt 25") > 0.1, "{measured}");
    assert!(gain("as they are, selected automatically") > -0.01, "{measured}");
    assert!(gain("tilt 25, selected automatically") > 0.05, "{measured}");
    let manifest = manifest(&patch);
    assert_eq!(manifest["performance"].as_array().unwrap().len(), 4);
    assert!(manifest["cost"]["measured_ms"][0]["p50"].as_f64().unwrap() > 0.0);
    assert!(!manifest["selector"]["gain"]["weights"].as_object().unwrap().is_empty());

    let packed = json(&format!("patch pack {patch} --primary {primary} --out {library}"));
    assert_eq!(packed["files"].as_array().unwrap().len(), 5);
    let imported = json(&format!("library import {library} --data {store}"));
    assert_eq!(imported["library"], "my-library");
    assert_eq!(imported["versions"][0][0], "turned");
}

#[test]
fn a_patch_that_wins_wherever_it_was_measured_is_chosen_until_it_is_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let primary = primary(folder.path(), false);
    let (data, patch) = (format!("{FASHION}/data/pool"), at("turned"));
    done(&format!(
        "patch new --kind adapter --site features --rank 8 --primary {primary} --out {patch}"
    ));
    let turned = format!("{patch} --primary {primary} --data {data} --limit 300 --tilt 25");
    let train = format!("patch train {turned} --optimizer adam --learning-rate 0.005 --epochs 3");
    done(&train);
    // What was measured to be won, and what the selector says of every input.
    let measure = || {
        let measured = json(&format!("patch eval {turned} --write"));
        let number = |name: &str| measured["rows"][0][name].as_f64().unwrap();
        let said = manifest(&patch)["selector"]["gain"]["intercept"].as_f64().unwrap();
        (number("patched") - number("base"), said)
    };
    let (gain, said) = measure();
    assert!(gain > 0.05 && (gain - said).abs() < 1e-9, "{gain} {said}");
    let (code, _, error) = command(&train);
    assert!(code == 0 && error.contains("measure again"), "{error}");
    assert!(manifest(&patch)["performance"].is_null(), "{}", manifest(&patch));
    let (anew, said) = measure();
    assert!(anew != gain && (anew - said).abs() < 1e-9, "{gain} {anew} {said}");
    let (code, _, error) = command(&format!("patch eval {turned} --noise=-1"));
    assert!(code == 2 && error.contains("at least 0"), "{error}");
}

/// Bright on the left and bright on the right: as pictures of two classes, and as rows of a table.
fn two_sides(folder: &Path) {
    let mut table =
        format!("{},side\n", (0..784).map(|i| format!("p{i}")).collect::<Vec<_>>().join(","));
    for (class, name) in ["left", "right"].iter().enumerate() {
        std::fs::create_dir_all(folder.join("pictures").join(name)).unwrap();
        for index in 0..12u32 {
            let level = |x: u32, y: u32| {
                let lit = (x < 14) == (class == 0);
                if lit { 120 + ((x * 7 + y * 3 + index * 11) % 100) as u8 } else { 10 }
            };
            let pixels: Vec<u8> = (0..784).map(|i| level(i % 28, i / 28)).collect();
            let path = folder.join(format!("pictures/{name}/{index}.png"));
            let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), 28, 28);
            encoder.set_color(png::ColorType::Grayscale);
            encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
            let cells = pixels.iter().map(|p| (f32::from(*p) / 255.0).to_string());
            table.push_str(&format!("{},{name}\n", cells.collect::<Vec<_>>().join(",")));
        }
    }
    std::fs::write(folder.join("table.csv"), table).unwrap();
}

#[test]
fn a_table_and_a_folder_of_pictures_train_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let primary = primary(folder.path(), true);
    let head = at("two-things");
    done(&format!(
        "patch new --kind head --site features,logits --classes 2 --primary {primary} --out {head}"
    ));
    two_sides(folder.path());
    for data in [at("pictures"), at("table.csv")] {
        let trained = json(&format!(
            "patch train {head} --primary {primary} --data {data} --fresh --learning-rate 0.2 \
             --epochs 20"
        ));
        assert_eq!(trained["labels"], serde_json::json!(["left", "right"]));
        assert!(trained["after"]["accuracy"].as_f64().unwrap() > 0.8, "{data}: {trained}");
    }
    assert_eq!(
        manifest(&head)["io"]["outputs"]["y"]["labels"],
        serde_json::json!(["left", "right"])
    );

    // What cannot be read says so.
    std::fs::write(folder.path().join("pictures/left/broken.png"), b"no picture").unwrap();
    std::fs::write(folder.path().join("short.csv"), "a,b\n1,x\n").unwrap();
    let train = |patch: &str, data: &str, why: &str| {
        refused(&format!("patch train {patch} --primary {primary} --data {data}"), why)
    };
    train(&head, &at("pictures"), "broken.png is no readable PNG or JPEG");
    train(&head, &at("short.csv"), "the primary takes [1, 1, 28, 28]");
    train(&head, &at("nothing"), "no examples there");
    let fixed = format!("{FASHION}/patches/noise-reduction");
    train(&fixed, &at("pictures"), "no trainable tensor");
}

/// Twice a convolution, the second with a stride, on pictures of any size.
fn strided(path: &Path) {
    let kernel = |outputs: usize, inputs: usize| {
        Tensor::new(vec![outputs, inputs, 3, 3], &vec![0.1f32; outputs * inputs * 9]).unwrap()
    };
    let pads = || Attribute::Ints(vec![1; 4]);
    let open = |sizes: &[Dim]| Some(sizes.to_vec());
    let any = |symbol: &str| Dim::Symbol(symbol.to_owned());
    let graph = Graph {
        nodes: vec![
            Node::new("Conv", &["x", "w"], &["a"]).with("pads", pads()),
            Node::new("Conv", &["a", "v"], &["b"])
                .with("pads", pads())
                .with("strides", Attribute::Ints(vec![2, 2])),
            Node::new("GlobalAveragePool", &["b"], &["y"]),
        ],
        initializers: [("w".to_owned(), kernel(4, 3)), ("v".to_owned(), kernel(4, 4))].into(),
        inputs: vec![ValueInfo {
            name: "x".to_owned(),
            dtype: DType::F32,
            shape: open(&[any("N"), Dim::Fixed(3), any("H"), any("W")]),
        }],
        outputs: vec![ValueInfo { name: "y".to_owned(), dtype: DType::F32, shape: None }],
        ..Graph::default()
    };
    std::fs::write(path, Model { opset: 17, graph }.to_bytes()).unwrap();
}

#[test]
fn what_fits_one_size_alone_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let model = at("strided.onnx");
    strided(Path::new(&model));
    let new = |patch: &str, kind: &str| {
        done(&format!("patch new --kind {kind} --primary {model} --out {}", at(patch)));
        format!("patch check {} --primary {model}", at(patch))
    };
    done(&new("scale", "affine --site b"));
    // At one pixel the stride does not show.
    refused(&new("skip", "lora --rank 2 --site a,b"), "must keep the dtype and shape");

    // Too few numbers would do for a constant, and are still no picture.
    let mut file = Vec::new();
    let mut writer = npyz::WriteOptions::new()
        .default_dtype()
        .shape(&[1, 4])
        .writer(&mut file)
        .begin_nd()
        .unwrap();
    writer.extend([0f32; 4]).unwrap();
    writer.finish().unwrap();
    std::fs::write(at("x.npy"), file).unwrap();
    refused(
        &format!("onnx run {model} --input x={} --out {}", at("x.npy"), at("out")),
        "the shape [1, 4] of `x` does not fit",
    );
}

#[test]
fn cutting_says_what_the_engine_could_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let model = |last: &str| {
        let mut distinct = Node::new(last, &["a"], &["y"]);
        distinct.name = "distinct".into();
        let info = |name: &str| ValueInfo::fixed(name, DType::F32, &[4]);
        let graph = Graph {
            nodes: vec![Node::new("Relu", &["x"], &["a"]), distinct],
            inputs: vec![info("x")],
            outputs: vec![info("y")],
            ..Graph::default()
        };
        let path = at(&format!("{last}.onnx"));
        std::fs::write(&path, Model { opset: 17, graph }.to_bytes()).unwrap();
        path
    };
    let cut = |last: &str| json(&format!("onnx cut {} --at a --out {}", model(last), at(last)));
    assert_eq!(cut("Abs")["engine"], Json::Null);
    // Another runtime has it: the files are written all the same.
    let told = cut("Unique");
    assert!(told["engine"].as_str().unwrap().contains("Unique `distinct`"), "{told}");
    assert_eq!(told["segments"].as_array().unwrap().len(), 2);
    let text = done(&format!("onnx cut {} --at a --out {}", at("Unique.onnx"), at("again")));
    assert!(text.contains("the engine here cannot run the model: Unique `distinct`"), "{text}");
}

/// Writes an array of `float32`, or of class numbers as `int64`.
fn npy<T: npyz::AutoSerialize + Copy>(path: &str, shape: &[u64], values: &[T]) {
    let mut file = Vec::new();
    let options = npyz::WriteOptions::new().default_dtype().shape(shape);
    let mut writer = options.writer(&mut file).begin_nd().unwrap();
    writer.extend(values.iter().copied()).unwrap();
    writer.finish().unwrap();
    std::fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
    std::fs::write(path, file).unwrap();
}

fn info(name: &str, shape: Option<Vec<Dim>>) -> ValueInfo {
    ValueInfo { name: name.to_owned(), dtype: DType::F32, shape }
}

/// `[N, 4]` to `features`, to three `logits`, to `y`, their softmax.
fn classifier(path: &str) {
    let weight = |rows: usize, columns: usize| {
        let values: Vec<f32> = (0..rows * columns).map(|i| (i % 7) as f32 / 7.0 - 0.4).collect();
        Tensor::new(vec![rows, columns], &values).unwrap()
    };
    let graph = Graph {
        nodes: vec![
            Node::new("MatMul", &["x", "w"], &["sums"]),
            Node::new("Tanh", &["sums"], &["features"]),
            Node::new("MatMul", &["features", "v"], &["logits"]),
            Node::new("Softmax", &["logits"], &["y"]),
        ],
        initializers: [("w".to_owned(), weight(4, 5)), ("v".to_owned(), weight(5, 3))].into(),
        inputs: vec![info("x", Some(vec![Dim::Symbol("N".to_owned()), Dim::Fixed(4)]))],
        outputs: vec![info("y", None)],
        ..Graph::default()
    };
    std::fs::write(path, Model { opset: 13, graph }.to_bytes()).unwrap();
}

/// Twenty rows of four numbers; the first tells which of two classes a row is of.
fn rows(folder: &str) {
    let values: Vec<f32> = (0..80)
        .map(|i| if i % 4 == 0 { (i / 4 % 2) as f32 * 2.0 - 1.0 } else { (i % 5) as f32 / 10.0 })
        .collect();
    let classes: Vec<i64> = (0..20).map(|row| row % 2).collect();
    npy(&format!("{folder}/x.npy"), &[20, 4], &values);
    npy(&format!("{folder}/y.npy"), &[20], &classes);
}

fn descriptor(library: &str) -> Json {
    serde_json::from_slice(&std::fs::read(format!("{library}/library.json")).unwrap()).unwrap()
}

#[test]
fn a_library_answers_with_the_tensor_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (model, head, data, library) = (at("m.onnx"), at("head"), at("data"), at("own"));
    classifier(&model);
    rows(&data);
    let sites = "--site features,logits";
    done(&format!("patch new --kind head --classes 2 {sites} --primary {model} --out {head}"));
    done(&format!(
        "patch train {head} --primary {model} --output logits --data {data} --learning-rate 0.5"
    ));
    let (code, _, error) = command(&format!("patch train {head} --primary {model} --data {data}"));
    assert!(error.contains("`--output logits` trains better"), "{code} {error}");
    done(&format!("patch eval {head} --primary {model} --output logits --data {data} --write"));
    let pack = |more: &str| format!("patch pack {head} --primary {model} --out {library} {more}");
    let described = "--title Rows --modality series --labels low,high";
    let (code, _, error) = command(&pack(&format!("--output logits {described}")));
    assert!(code == 0 && error.contains("first of 3 places"), "{error}");
    assert_eq!(descriptor(&library)["primary"]["output"], "logits");
    let import = format!("library import {library} --data {}", at("store"));
    assert_eq!(done(&import), "own: head version 1\n");

    // What the library says already stays, and who asks for something else is told.
    refused(&pack("--output y"), "answers with `logits`, not `y`");
    let (code, _, error) = command(&pack("--title Other"));
    assert!(code == 0 && error.contains("--title is for a new library"), "{error}");
    assert_eq!(done(&import), "own: nothing new\n");
    let write = |key: &str, value: Json| {
        let mut changed = descriptor(&library);
        changed["primary"][key] = value;
        std::fs::write(format!("{library}/library.json"), changed.to_string()).unwrap();
    };
    write("labels", serde_json::json!(["a", "b"]));
    assert_eq!(done(&import), "own: labels changed from [\"low\",\"high\"] to [\"a\",\"b\"]\n");
    write("labels", serde_json::json!(["a", "b", "c", "d"]));
    refused(&import, "request_invalid: library.json: primary.labels names 4 classes");
    write("labels", serde_json::json!(["a", "b"]));
    assert_eq!(done(&import), "own: nothing new\n", "what was refused has changed nothing");
}

#[test]
fn what_would_train_wrongly_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (model, head, data) = (at("m.onnx"), at("head"), at("data"));
    classifier(&model);
    rows(&data);
    let sites = "--site features,logits";
    done(&format!("patch new --kind head --classes 2 {sites} --primary {model} --out {head}"));
    let train = format!("patch train {head} --primary {model} --output logits --data");
    let mut classes: Vec<i64> = (0..20).map(|row| row % 2).collect();
    for (class, why) in [
        (2, "the head `head` has 2 classes, from 0; 1 of 20 examples are of class 2 or above"),
        (3, "`logits` has 3 classes, from 0; 1 of 20 examples are of class 3 or above"),
    ] {
        classes[7] = class;
        npy(&format!("{data}/y.npy"), &[20], &classes);
        refused(&format!("{train} {data}"), why);
    }
    std::fs::write(at("names.csv"), "a,b,c,d,k\n1,2,3,4,cat\n1,2,3,5,dog\n4,3,2,1,fox\n").unwrap();
    refused(&format!("{train} {}", at("names.csv")), "class 2 (`fox`)");
    for (odd, why) in [
        ("a,b,c,d,k\n1,2,3,4,cat\n1,nan,3,4,dog\n", "row 3: `nan` in `b` is no number"),
        ("a,b,c,d,k\n1,2,3,4,0\n1,2,3,inf,1\n", "row 3: `inf` in `d` is no number"),
        ("a,b,c,d,k\n1,2,3,4,0\n1,2,3,4,NaN\n", "row 3: there is no class in `k`"),
    ] {
        std::fs::write(at("odd.csv"), odd).unwrap();
        refused(&format!("{train} {}", at("odd.csv")), why);
    }
    rows(&data);
    let mut values = vec![0.5f32; 80];
    values[4 * 6 + 2] = f32::NAN;
    npy(&format!("{data}/x.npy"), &[20, 4], &values);
    refused(&format!("{train} {data}"), "row 6, column [2] is NaN; 1 of 80 numbers");
}

/// Pictures of any size with three channels: a convolution, its mean, and two sums.
fn any_size(path: &str) {
    let any = |symbol: &str| Dim::Symbol(symbol.to_owned());
    let weight = |shape: &[usize]| {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|i| (i % 5) as f32 / 5.0 - 0.3).collect();
        Tensor::new(shape.to_vec(), &values).unwrap()
    };
    let graph = Graph {
        nodes: vec![
            Node::new("Conv", &["x", "k"], &["c"]).with("pads", Attribute::Ints(vec![1; 4])),
            Node::new("Relu", &["c"], &["r"]),
            Node::new("GlobalAveragePool", &["r"], &["pooled"]),
            Node::new("Flatten", &["pooled"], &["features"]),
            Node::new("MatMul", &["features", "w"], &["logits"]),
        ],
        initializers: [("k".to_owned(), weight(&[4, 3, 3, 3])), ("w".to_owned(), weight(&[4, 2]))]
            .into(),
        inputs: vec![info("x", Some(vec![any("N"), Dim::Fixed(3), any("H"), any("W")]))],
        outputs: vec![info("logits", None)],
        ..Graph::default()
    };
    std::fs::write(path, Model { opset: 13, graph }.to_bytes()).unwrap();
}

#[test]
fn a_primary_that_leaves_its_size_open_takes_it_from_data_or_description() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (model, head, data, library) = (at("m.onnx"), at("head"), at("data"), at("own"));
    any_size(&model);
    two_sides(folder.path());
    let values: Vec<f32> =
        (0..20 * 108).map(|i| if i / 108 % 2 == 0 { (i % 3) as f32 } else { 0.1 }).collect();
    let classes: Vec<i64> = (0..20).map(|row| row % 2).collect();
    npy(&format!("{data}/x.npy"), &[20, 3, 6, 6], &values);
    npy(&format!("{data}/y.npy"), &[20], &classes);
    let sites = "--site features,logits";
    done(&format!("patch new --kind head {sites} --primary {model} --out {head}"));
    let train = |more: &str| {
        format!("patch train {head} --primary {model} --learning-rate 0.3 --fresh {more}")
    };
    let right = |trained: &Json| trained["after"]["accuracy"].as_f64().unwrap();
    let trained = json(&train(&format!("--data {data} --epochs 40")));
    assert!(right(&trained) > 0.9, "{trained}");
    let pictures = format!("--data {}", at("pictures"));
    let refusal =
        "input_invalid: the primary leaves the size of its input open: `x` is [N, 3, H, W]";
    refused(&train(&pictures), refusal);
    for size in ["--shape 1,3,28,28", r#"--preprocessing {"width":28,"height":28}"#] {
        let trained = json(&train(&format!("{pictures} --epochs 40 {size}")));
        assert!(trained["examples"].as_u64().unwrap() > 10, "{trained}");
    }
    refused(&train(&format!("{pictures} --shape 1,1,28,28")), "takes [N, 3, H, W]");
    let eval = format!("patch eval {head} --primary {model} {pictures} --write");
    assert_eq!(command(&format!("{eval} --shape 1,3,28,28")).0, 0);

    let pack = format!("patch pack {head} --primary {model} --out {library}");
    refused(&pack, refusal);
    let described = r#"--preprocessing {"width":28,"height":28,"scale":1}"#;
    let (code, _, error) = command(&format!("{pack} {described}"));
    assert_eq!(code, 0, "{error}");
    let said = descriptor(&library);
    assert_eq!(said["primary"]["preprocessing"]["channels"], 3, "{said}");
    done(&format!("library import {library} --data {}", at("store")));
    let mut silent = said;
    silent["primary"]["preprocessing"] = serde_json::json!({});
    std::fs::write(format!("{library}/library.json"), silent.to_string()).unwrap();
    refused(
        &format!("library import {library} --data {}", at("store")),
        "does not say the size of `x`",
    );
}
