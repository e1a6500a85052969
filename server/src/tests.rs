//! A small library to test with: four features, and one patch with eight trainable numbers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backstitch_onnx::patch::{Kind, Template, template};
use backstitch_onnx::{DType, Digest, Dim, Graph, Model, Node, Tensor, ValueInfo};
use backstitch_protocol::contribution::{Contribution, Nullifier};
use backstitch_protocol::delta::Delta;
use backstitch_protocol::privacy::ClipNorm;

use crate::clock::Clock;
use crate::config::Config;

/// Parameters of the task `toy.style`.
pub(crate) const PARAMETERS: u32 = 8;

/// A clock that tests move.
#[derive(Clone, Default)]
pub(crate) struct Hands(Arc<AtomicU64>);

impl Hands {
    pub(crate) fn clock(&self) -> Clock {
        self.0.fetch_max(1_800_000_000, Ordering::SeqCst);
        let now = Arc::clone(&self.0);
        Clock::of(move || now.load(Ordering::SeqCst))
    }

    pub(crate) fn forward_days(&self, days: u64) {
        self.0.fetch_add(days * 86_400, Ordering::SeqCst);
    }
}

/// Writes the library `toy` into a folder; `edit` may change its library.json.
pub(crate) fn write_library(folder: &Path, goal: u32, edit: impl Fn(&mut serde_json::Value)) {
    let rows = |name: &str, last: usize| ValueInfo {
        name: name.into(),
        dtype: DType::F32,
        shape: Some(vec![Dim::Symbol("N".into()), Dim::Fixed(last)]),
    };
    let weight =
        Tensor::new(vec![4, 3], &[0.1f32, 0.2, 0.3, -0.1, 0.0, 0.1, 0.2, 0.2, -0.3, 0.5, 0.4, 0.1]);
    let graph = Graph {
        name: "toy".into(),
        nodes: vec![Node::new("Relu", &["x"], &["h"]), Node::new("MatMul", &["h", "w"], &["y"])],
        initializers: [("w".to_owned(), weight.unwrap())].into(),
        inputs: vec![rows("x", 4)],
        outputs: vec![rows("y", 3)],
    };
    let primary = Model { opset: 17, graph };
    let bytes = primary.to_bytes();
    std::fs::write(folder.join("primary.onnx"), &bytes).unwrap();
    let style =
        Template { kind: Kind::Affine, name: "style", sites: &["h"], rank: 1, classes: None };
    let patch = template(&primary, Digest::of(&bytes), &style).unwrap();
    let patches = folder.join("patches/style");
    std::fs::create_dir_all(&patches).unwrap();
    std::fs::write(patches.join("patch.onnx"), patch.model().to_bytes()).unwrap();
    std::fs::write(patches.join("patch.json"), patch.manifest().to_bytes()).unwrap();
    let mut library = serde_json::json!({
        "format": 1, "name": "toy", "title": "Toy", "description": "For tests.", "modality": "series",
        "primary": { "file": "primary.onnx", "input": "x", "output": "y" },
        "patches": ["style"],
        "tasks": [{
            "name": "style", "patches": ["style"], "goal": goal, "clip_norm": 1.0,
            "noise_multiplier": 2.6, "max_participations": 4, "period_days": 30, "min_separation": 1,
            "epsilon": 4.0, "delta": 1e-6, "server_learning_rate": 1.0, "server_momentum": 0.5,
            "tokens": false
        }]
    });
    edit(&mut library);
    std::fs::write(folder.join("library.json"), library.to_string()).unwrap();
}

/// A configuration with the library `toy` in `folder/library`, and the data in `folder/data`.
pub(crate) fn config(folder: &Path, goal: u32) -> Config {
    let library = folder.join("library");
    std::fs::create_dir_all(&library).unwrap();
    write_library(&library, goal, |_| {});
    let libraries = vec![library.to_str().unwrap().to_owned()];
    Config { libraries, ..Config::in_folder(folder.join("data")) }
}

/// The frame of device number `device` for a round of `toy.style`.
pub(crate) fn frame(base: Digest, device: u64, round: u64, values: &[f32; 8]) -> Vec<u8> {
    let delta =
        Delta::between(&[0.0; 8], values).unwrap().clip(ClipNorm::new(1.0).unwrap()).unwrap();
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&device.to_le_bytes());
    let task = backstitch_protocol::id::Name::new("style").unwrap();
    Contribution::new(base, Nullifier::derive(&secret, &task, round), delta).encode()
}
