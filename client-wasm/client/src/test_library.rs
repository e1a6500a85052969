//! Libraries for this crate's tests: the committed sample, and a tiny one with every kind of attachment.

use std::path::PathBuf;

use backstitch_onnx::patch::Patch;
use backstitch_onnx::{DType, Digest, Graph, Model, Node, Tensor, ValueInfo};
use backstitch_protocol::catalog::{Blob, Catalog, LedgerHead, PrimaryEntry};
use backstitch_protocol::id::Name;
use backstitch_protocol::trust::{Certificate, ReleaseKey, SignedCatalog};
use ed25519_dalek::SigningKey;
use serde_json::json;

use crate::random::SplitMix;

/// A primary and patches in stitching order.
pub(crate) struct Library {
    pub(crate) primary: Model,
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
    pub(crate) patches: Vec<Patch>,
    /// `patch.json` and `patch.onnx` of each.
    pub(crate) parts: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The committed library `fashion`.
pub(crate) struct Fashion;

impl Fashion {
    pub(crate) fn folder() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../onnx/models/fashion")
    }

    pub(crate) fn load() -> Library {
        let read = |path: &str| std::fs::read(Self::folder().join(path)).unwrap();
        let parts = ["noise-reduction", "low-contrast", "personal-style"].map(|name| {
            (
                read(&format!("patches/{name}/patch.json")),
                read(&format!("patches/{name}/patch.onnx")),
            )
        });
        Library::new(read("primary.onnx"), parts.to_vec())
    }
}

impl Library {
    fn new(bytes: Vec<u8>, parts: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let patches = parts.iter().map(|(m, g)| Patch::from_parts(m, g, None).unwrap()).collect();
        let primary = Model::from_bytes(&bytes).unwrap();
        Self { primary, digest: Digest::of(&bytes), bytes, patches, parts }
    }
}

/// A catalog of the library `fashion` without patches, whose primary is the five bytes `model`.
pub(crate) fn catalog(version: u64, sequence: u64) -> Catalog {
    Catalog {
        format: 1,
        library: Name::new("fashion").unwrap(),
        title: String::new(),
        description: String::new(),
        modality: "image".to_owned(),
        version,
        issued_at: 0,
        expires_at: 1_900_000_000,
        primary: PrimaryEntry {
            model: Blob { digest: Digest::of(b"model"), bytes: 5 },
            input: "image".to_owned(),
            output: "logits".to_owned(),
            labels: vec![],
            preprocessing: serde_json::Value::Null,
            probes: vec![],
        },
        patches: vec![],
        tasks: vec![],
        experiments: vec![],
        reports: Default::default(),
        ledger: LedgerHead { sequence, head: sequence.to_string(), ..LedgerHead::default() },
        samples: None,
    }
}

fn weight(shape: &[usize], seed: u64) -> Tensor {
    let mut draws = SplitMix::new(seed);
    let values: Vec<f32> =
        (0..shape.iter().product()).map(|_| draws.uniform() as f32 - 0.5).collect();
    Tensor::new(shape.to_vec(), &values).unwrap()
}

fn model(input: &[&str], output: &str, nodes: Vec<Node>, weights: &[(&str, Tensor)]) -> Vec<u8> {
    let value = |name: &str| ValueInfo::fixed(name, DType::F32, &[1, 4]);
    let graph = Graph {
        name: "test".to_owned(),
        nodes,
        initializers: weights.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect(),
        inputs: input.iter().map(|n| value(n)).collect(),
        outputs: vec![value(output)],
    };
    Model { opset: 17, graph }.to_bytes()
}

/// x → a → b → c → out with a second branch x → d joined at out; all [1, 4]. Patches: series at the input, two at
/// `b` (series and scaled parallel), a parallel that reads its own site, a bridge a → c, one into an independent
/// earlier branch (c → d), a replacement of `c`, and one with two attachments.
pub(crate) fn tiny() -> Library {
    let square = |seed| weight(&[4, 4], seed);
    let nodes = vec![
        Node::new("MatMul", &["x", "wd"], &["d"]),
        Node::new("MatMul", &["x", "wa"], &["a"]),
        Node::new("Relu", &["a"], &["ar"]),
        Node::new("MatMul", &["ar", "wb"], &["b"]),
        Node::new("Tanh", &["b"], &["bt"]),
        Node::new("MatMul", &["bt", "wc"], &["c"]),
        Node::new("Add", &["c", "d"], &["sum"]),
        Node::new("Sigmoid", &["sum"], &["out"]),
    ];
    let weights = [("wa", square(1)), ("wb", square(2)), ("wc", square(3)), ("wd", square(4))];
    let primary = model(&["x"], "out", nodes, &weights);
    let digest = Digest::of(&primary);
    let mut parts = Vec::new();
    let mut patch = |name: &str,
                     attachments: serde_json::Value,
                     graph: Vec<u8>,
                     trainable: &[&str]| {
        let manifest = json!({
            "format": 1, "name": name, "function": "Tests.", "primary": digest, "attachments": attachments,
            "trainable": trainable,
            "training": {"loss": "mean_squared_error", "learning_rate": 0.1, "batch": 1, "epochs": 2, "clip_norm": 1.0},
        });
        parts.push((serde_json::to_vec(&manifest).unwrap(), graph));
    };
    let linear = |seed: u64| {
        model(
            &["p"],
            "q",
            vec![Node::new("MatMul", &["p", "w"], &["q"])],
            &[("w", weight(&[4, 4], seed))],
        )
    };
    let at = |mode: &str, from: &str, to: &str| json!({"mode": mode, "inputs": {"p": from}, "output": {"q": to}});
    let scaled = |from: &str, to: &str| json!({"mode": "parallel", "inputs": {"p": from}, "output": {"q": to}, "scale": 0.25});
    patch("at-input", json!([at("series", "x", "x")]), linear(11), &[]);
    patch("series-b", json!([at("series", "b", "b")]), linear(12), &[]);
    patch("parallel-b", json!([scaled("b", "b")]), linear(13), &["w"]);
    patch("bridge", json!([at("parallel", "a", "c")]), linear(14), &["w"]);
    patch("sideways", json!([at("parallel", "c", "d")]), linear(15), &[]);
    patch("shortcut", json!([at("replace", "x", "c")]), linear(16), &[]);
    let two =
        vec![Node::new("MatMul", &["p", "w"], &["q"]), Node::new("MatMul", &["r", "w"], &["s"])];
    let mut both =
        Model::from_bytes(&model(&["p", "r"], "q", two, &[("w", weight(&[4, 4], 17))])).unwrap();
    both.graph.outputs.push(ValueInfo::fixed("s", DType::F32, &[1, 4]));
    let attachments = json!([
        at("parallel", "a", "a"),
        {"mode": "series", "inputs": {"r": "out"}, "output": {"s": "out"}},
    ]);
    // Its two attachments share a weight. The sample decoder keeps only the nodes that an output needs.
    patch("two-places", attachments, both.to_bytes(), &["w"]);
    Library::new(primary, parts)
}

/// A catalog under the release key of this root.
pub(crate) fn signed(catalog: &Catalog, root: u8) -> SignedCatalog {
    let (root, release) =
        (SigningKey::from_bytes(&[root; 32]), SigningKey::from_bytes(&[root + 100; 32]));
    let stated = ReleaseKey {
        format: 1,
        key: hex::encode(release.verifying_key().to_bytes()),
        serial: 1,
        issued_at: 0,
        expires_at: 1_900_000_000,
    };
    let certificate = Certificate::sign(&stated, &root).unwrap();
    SignedCatalog::sign(catalog, &release, certificate).unwrap()
}
