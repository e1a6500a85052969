//! The element types of all tensors, by propagation along the graph: exact and cheap, because ONNX fixes the
//! dtype of every result by its operator and the dtypes it reads.

use std::collections::BTreeMap;

use crate::encode::data_type;
use crate::model::{Attribute, Graph, Node};
use crate::tensor::DType;

const ALL: [DType; 14] = [
    DType::F32,
    DType::F64,
    DType::F16,
    DType::BF16,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::Bool,
    DType::String,
];

/// The dtype of an ONNX data type number, as in the attribute `to` of `Cast`.
pub(crate) fn numbered(number: i64) -> Option<DType> {
    ALL.into_iter().find(|dtype| data_type(*dtype) as i64 == number)
}

/// The dtype of every tensor of the main graph.
pub(crate) fn of(graph: &Graph) -> BTreeMap<String, DType> {
    propagate(graph, &BTreeMap::new())
}

pub(crate) fn propagate(graph: &Graph, outer: &BTreeMap<String, DType>) -> BTreeMap<String, DType> {
    let mut known = outer.clone();
    known.extend(graph.inputs.iter().map(|info| (info.name.clone(), info.dtype)));
    known.extend(graph.initializers.iter().map(|(name, tensor)| (name.clone(), tensor.dtype())));
    for node in &graph.nodes {
        for (index, name) in node.outputs.iter().enumerate() {
            if !name.is_empty() {
                let dtype = result(node, index, &known);
                known.insert(name.clone(), dtype);
            }
        }
    }
    known
}

/// The dtype of output `index` of a node.
pub(crate) fn result(node: &Node, index: usize, known: &BTreeMap<String, DType>) -> DType {
    let read = |input: usize| node.input(input).and_then(|name| known.get(name)).copied();
    let first = || (0..node.inputs.len()).find_map(read).unwrap_or(DType::F32);
    let attribute = |name: &str| match node.attributes.get(name) {
        Some(Attribute::Int(number)) => numbered(*number),
        Some(Attribute::Tensor(tensor)) => Some(tensor.dtype()),
        _ => None,
    };
    match (node.op.as_str(), index) {
        ("Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual", _)
        | ("And" | "Or" | "Xor" | "Not" | "IsNaN" | "IsInf", _)
        | ("Dropout", 1) => DType::Bool,
        ("Shape" | "Size" | "ArgMax" | "ArgMin" | "NonZero" | "NonMaxSuppression", _)
        | ("TopK" | "MaxPool", 1) => DType::I64,
        ("Unique", 1..) => DType::I64,
        ("Cast", _) => attribute("to").unwrap_or_else(first),
        ("CastLike" | "Where", _) => read(1).unwrap_or_else(first),
        ("OneHot", _) => read(2).unwrap_or_else(first),
        ("ConstantOfShape", _) => attribute("value").unwrap_or(DType::F32),
        ("EyeLike" | "RandomNormalLike" | "RandomUniformLike", _) => {
            attribute("dtype").unwrap_or_else(first)
        }
        (
            "RandomNormal" | "RandomUniform" | "HannWindow" | "HammingWindow" | "BlackmanWindow",
            _,
        ) => attribute("dtype").or_else(|| attribute("output_datatype")).unwrap_or(DType::F32),
        ("QuantizeLinear", _) => read(2).or_else(|| attribute("output_dtype")).unwrap_or(DType::U8),
        ("DequantizeLinear", _) => read(1).unwrap_or(DType::F32),
        ("DynamicQuantizeLinear", 1) => DType::F32,
        ("DynamicQuantizeLinear", _) => DType::U8,
        ("QLinearConv" | "QLinearMatMul", _) => read(7).unwrap_or(DType::U8),
        ("ConvInteger" | "MatMulInteger", _) => DType::I32,
        ("If" | "Loop" | "Scan", _) => of_branch(node, index, known).unwrap_or_else(first),
        _ => first(),
    }
}

/// The dtype that the first subgraph of a node gives to its output `index`.
fn of_branch(node: &Node, index: usize, known: &BTreeMap<String, DType>) -> Option<DType> {
    let branch = node.subgraphs().next()?;
    let inner = propagate(branch, known);
    inner.get(&branch.outputs.get(index)?.name).copied()
}
