//! A model as a value: bytes in, checked; bytes out, standard ONNX. Hostile input is refused here, so that
//! every other module may trust what it gets.

use std::collections::BTreeMap;
use std::fmt;

use prost::Message;
use sha2::{Digest as _, Sha256};

use crate::decode;
use crate::encode;
use crate::error::{Code, Error, Result};
use crate::proto;
use crate::tensor::{DType, Tensor};

/// Limits on what is accepted from outside; checked before anything large is allocated.
pub mod limits {
    /// Bytes of one model file.
    pub const MODEL_BYTES: usize = 512 << 20;
    /// Nodes of one graph, subgraphs included.
    pub const NODES: usize = 100_000;
    /// Dimensions of one tensor.
    pub const RANK: usize = 8;
    /// Elements of one tensor.
    pub const ELEMENTS: usize = 1 << 28;
    /// Depth of subgraphs in subgraphs.
    pub const DEPTH: usize = 8;
    /// Oldest operator set that is accepted; those before 13 are rewritten when a model is read.
    pub const OPSET_MIN: i64 = 7;
    /// Newest operator set that is accepted.
    pub const OPSET_MAX: i64 = 21;
}

/// SHA-256 of a model's bytes, written `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A digest from its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits without the prefix, as in a blob's address.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Digest {
    type Err = Error;

    /// Accepts `sha256:<hex>` and bare hex.
    fn from_str(text: &str) -> Result<Self> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| {
            Error::new(Code::ManifestInvalid, format!("`{text}` is no digest"))
                .with_hint("expected sha256: and 64 hex digits")
        })?;
        Ok(Self(bytes))
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One dimension of a value's declared shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// A known size.
    Fixed(usize),
    /// A named size, fixed when the model is compiled.
    Symbol(String),
    /// Not declared.
    Unknown,
}

/// The declared name, dtype and shape of a graph input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueInfo {
    /// The tensor's name.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its declared shape, or `None` where even the rank is open.
    pub shape: Option<Vec<Dim>>,
}

impl ValueInfo {
    /// A value of fixed shape.
    pub fn fixed(name: impl Into<String>, dtype: DType, shape: &[usize]) -> Self {
        Self {
            name: name.into(),
            dtype,
            shape: Some(shape.iter().map(|d| Dim::Fixed(*d)).collect()),
        }
    }
}

/// The value of a node's attribute.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the variants are those of the ONNX specification")]
pub enum Attribute {
    Int(i64),
    Float(f32),
    String(String),
    Tensor(Tensor),
    Graph(Box<Graph>),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Strings(Vec<String>),
}

/// One operator application. An absent optional input or output is the empty string.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// For messages; unique where the model's author made it so.
    pub name: String,
    /// The operator, such as `Conv`.
    pub op: String,
    /// The operator's domain; empty for the standard one.
    pub domain: String,
    /// Names of the tensors read.
    pub inputs: Vec<String>,
    /// Names of the tensors made.
    pub outputs: Vec<String>,
    /// By name.
    pub attributes: BTreeMap<String, Attribute>,
}

impl Node {
    /// A node of the standard domain without attributes, named after its first output.
    pub fn new(op: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        Self {
            name: outputs.first().map(|o| format!("{op}:{o}")).unwrap_or_default(),
            op: op.to_owned(),
            domain: String::new(),
            inputs: inputs.iter().map(|s| (*s).to_owned()).collect(),
            outputs: outputs.iter().map(|s| (*s).to_owned()).collect(),
            attributes: BTreeMap::new(),
        }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, name: &str, value: Attribute) -> Self {
        self.attributes.insert(name.to_owned(), value);
        self
    }

    /// The name of input `index`, or `None` where it is absent.
    pub fn input(&self, index: usize) -> Option<&str> {
        self.inputs.get(index).map(String::as_str).filter(|s| !s.is_empty())
    }

    /// The integer attribute, or the default of the specification.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        match self.attributes.get(name) {
            Some(Attribute::Int(value)) => *value,
            _ => default,
        }
    }

    /// The float attribute, or the default of the specification.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        match self.attributes.get(name) {
            Some(Attribute::Float(value)) => *value,
            _ => default,
        }
    }

    /// The integer-list attribute, if given.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attributes.get(name) {
            Some(Attribute::Ints(values)) => Some(values),
            _ => None,
        }
    }

    /// The string attribute, or the default of the specification.
    pub fn string<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        match self.attributes.get(name) {
            Some(Attribute::String(value)) => value,
            _ => default,
        }
    }

    /// The subgraphs of this node, such as the branches of `If`.
    pub fn subgraphs(&self) -> impl Iterator<Item = &Graph> {
        self.attributes.values().filter_map(|a| match a {
            Attribute::Graph(graph) => Some(&**graph),
            _ => None,
        })
    }

    /// How messages name this node: operator, name and first output.
    pub fn describe(&self) -> String {
        let output = self.outputs.first().map(String::as_str).unwrap_or_default();
        if self.name.is_empty() {
            format!("{} → `{output}`", self.op)
        } else {
            format!("{} `{}` → `{output}`", self.op, self.name)
        }
    }
}

/// A dataflow graph. After [`Model::from_bytes`] its nodes stand in topological order, every tensor has one
/// producer, and every name that is read exists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// For messages.
    pub name: String,
    /// In topological order.
    pub nodes: Vec<Node>,
    /// Constant tensors by name. A graph input of the same name is not listed among [`Graph::inputs`].
    pub initializers: BTreeMap<String, Tensor>,
    /// What a caller must feed, in order.
    pub inputs: Vec<ValueInfo>,
    /// What the graph yields, in order.
    pub outputs: Vec<ValueInfo>,
}

/// A whole ONNX model of the standard operator domain.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The version of the standard operator set.
    pub opset: i64,
    /// The main graph.
    pub graph: Graph,
}

impl Model {
    /// Decodes and checks a model. Nothing of the bytes is trusted: sizes, counts, ranks, names, order,
    /// data types and external data are checked, value_info is dropped because it may be stale.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > limits::MODEL_BYTES {
            return Err(Error::new(
                Code::ModelTooLarge,
                format!(
                    "the model has {} bytes, the limit is {}",
                    bytes.len(),
                    limits::MODEL_BYTES
                ),
            ));
        }
        let proto = proto::ModelProto::decode(bytes).map_err(|e| {
            Error::new(Code::ModelInvalid, format!("not an ONNX model: {e}"))
                .with_hint("expected the bytes of an .onnx file")
        })?;
        decode::model(proto)
    }

    /// Encodes as an ONNX file. The same value gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode::model(self).encode_to_vec()
    }

    /// The digest of [`Model::to_bytes`].
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }
}
