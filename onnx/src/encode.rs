//! A [`Model`] becomes an ONNX protobuf message: standard, without value_info, and the same for the same value.

use crate::model::{Attribute, Dim, Graph, Model, Node, ValueInfo};
use crate::proto::{self, attribute_proto::AttributeType, tensor_proto::DataType};
use crate::tensor::{DType, Tensor};

/// The protobuf message of a model.
pub(crate) fn model(model: &Model) -> proto::ModelProto {
    proto::ModelProto {
        // The oldest IR version that may carry the operator set, so that old runtimes read it too.
        ir_version: Some(if model.opset >= 20 { 10 } else { 8 }),
        opset_import: vec![proto::OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(model.opset),
        }],
        producer_name: Some("backstitch".to_owned()),
        graph: Some(graph(&model.graph)),
        ..proto::ModelProto::default()
    }
}

fn graph(graph: &Graph) -> proto::GraphProto {
    let name = if graph.name.is_empty() { "graph" } else { &graph.name };
    proto::GraphProto {
        name: Some(name.to_owned()),
        node: graph.nodes.iter().map(node).collect(),
        initializer: graph.initializers.iter().map(|(name, t)| tensor(Some(name), t)).collect(),
        input: graph.inputs.iter().map(value).collect(),
        output: graph.outputs.iter().map(value).collect(),
        ..proto::GraphProto::default()
    }
}

fn node(node: &Node) -> proto::NodeProto {
    proto::NodeProto {
        input: node.inputs.clone(),
        output: node.outputs.clone(),
        name: (!node.name.is_empty()).then(|| node.name.clone()),
        op_type: Some(node.op.clone()),
        domain: (!node.domain.is_empty()).then(|| node.domain.clone()),
        attribute: node.attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
        ..proto::NodeProto::default()
    }
}

fn attribute(name: &str, value: &Attribute) -> proto::AttributeProto {
    let mut message =
        proto::AttributeProto { name: Some(name.to_owned()), ..proto::AttributeProto::default() };
    let kind = match value {
        Attribute::Int(v) => {
            message.i = Some(*v);
            AttributeType::Int
        }
        Attribute::Float(v) => {
            message.f = Some(*v);
            AttributeType::Float
        }
        Attribute::String(v) => {
            message.s = Some(v.clone().into_bytes());
            AttributeType::String
        }
        Attribute::Tensor(v) => {
            message.t = Some(tensor(None, v));
            AttributeType::Tensor
        }
        Attribute::Graph(v) => {
            message.g = Some(graph(v));
            AttributeType::Graph
        }
        Attribute::Ints(v) => {
            message.ints = v.clone();
            AttributeType::Ints
        }
        Attribute::Floats(v) => {
            message.floats = v.clone();
            AttributeType::Floats
        }
        Attribute::Strings(v) => {
            message.strings = v.iter().map(|s| s.clone().into_bytes()).collect();
            AttributeType::Strings
        }
    };
    message.r#type = Some(kind as i32);
    message
}

fn tensor(name: Option<&str>, tensor: &Tensor) -> proto::TensorProto {
    proto::TensorProto {
        dims: tensor.shape().iter().map(|d| *d as i64).collect(),
        data_type: Some(data_type(tensor.dtype()) as i32),
        name: name.map(str::to_owned),
        raw_data: Some(tensor.bytes().to_vec()),
        ..proto::TensorProto::default()
    }
}

fn value(info: &ValueInfo) -> proto::ValueInfoProto {
    use proto::tensor_shape_proto::{Dimension, dimension::Value};
    let dim = |dim: &Dim| Dimension {
        denotation: None,
        value: match dim {
            Dim::Fixed(size) => Some(Value::DimValue(*size as i64)),
            Dim::Symbol(symbol) => Some(Value::DimParam(symbol.clone())),
            Dim::Unknown => None,
        },
    };
    let tensor = proto::type_proto::Tensor {
        elem_type: Some(data_type(info.dtype) as i32),
        shape: info
            .shape
            .as_ref()
            .map(|dims| proto::TensorShapeProto { dim: dims.iter().map(dim).collect() }),
    };
    proto::ValueInfoProto {
        name: Some(info.name.clone()),
        r#type: Some(proto::TypeProto {
            denotation: None,
            value: Some(proto::type_proto::Value::TensorType(tensor)),
        }),
        ..proto::ValueInfoProto::default()
    }
}

/// The ONNX data type of a dtype; `Cast`'s attribute `to` holds its number.
pub(crate) fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::F32 => DataType::Float,
        DType::F64 => DataType::Double,
        DType::F16 => DataType::Float16,
        DType::BF16 => DataType::Bfloat16,
        DType::I8 => DataType::Int8,
        DType::I16 => DataType::Int16,
        DType::I32 => DataType::Int32,
        DType::I64 => DataType::Int64,
        DType::U8 => DataType::Uint8,
        DType::U16 => DataType::Uint16,
        DType::U32 => DataType::Uint32,
        DType::U64 => DataType::Uint64,
        DType::Bool => DataType::Bool,
        DType::String => DataType::String,
    }
}
