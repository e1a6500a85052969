//! Bytes become a [`Model`] here, and nowhere else: whatever is hostile, too large, unsupported or inconsistent
//! is refused, before anything large is allocated.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Code, Error, Result};
use crate::model::{Attribute, Dim, Graph, Model, Node, ValueInfo, limits};
use crate::proto::{self, attribute_proto::AttributeType, tensor_proto};
use crate::tensor::{DType, Tensor, element_count};
use crate::upgrade;

/// Oldest and newest IR version that is read.
const IR_VERSIONS: std::ops::RangeInclusive<i64> = 3..=13;

/// The checked model of a protobuf message. Node order, names, sizes, counts and data types are checked.
pub(crate) fn model(proto: proto::ModelProto) -> Result<Model> {
    let ir_version = proto.ir_version.unwrap_or_default();
    if !IR_VERSIONS.contains(&ir_version) {
        return Err(unsupported(format!("IR version {ir_version} is outside {IR_VERSIONS:?}"))
            .with_hint("expected an .onnx file; export it again with a current exporter"));
    }
    if !proto.functions.is_empty() {
        return Err(unsupported(format!("the model defines {} functions", proto.functions.len()))
            .with_hint("inline the functions with onnx.inliner before loading it"));
    }
    if !proto.training_info.is_empty() {
        return Err(unsupported("the model carries training info".to_owned())
            .with_hint("export the inference graph; gradients are made here"));
    }
    let opset = opset(&proto.opset_import)?;
    let graph = proto.graph.ok_or_else(|| invalid("the model has no graph".to_owned()))?;
    let mut budget = Budget { nodes: limits::NODES };
    let graph = decode_graph(graph, 0, &mut budget)?;
    let mut model = Model { opset, graph };
    upgrade::to_opset_13(&mut model)?;
    check_names(&model.graph, &BTreeSet::new(), "the model")?;
    model.graph.sort()?;
    Ok(model)
}

fn invalid(message: String) -> Error {
    Error::new(Code::ModelInvalid, message)
}

fn unsupported(message: String) -> Error {
    Error::new(Code::ModelUnsupported, message)
}

fn too_large(message: String) -> Error {
    Error::new(Code::ModelTooLarge, message)
}

fn is_standard(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

fn opset(imports: &[proto::OperatorSetIdProto]) -> Result<i64> {
    let mut versions = imports
        .iter()
        .filter(|import| is_standard(import.domain.as_deref().unwrap_or_default()))
        .map(|import| import.version.unwrap_or_default());
    let version = versions
        .next()
        .ok_or_else(|| invalid("the model imports no standard operator set".to_owned()))?;
    if versions.any(|other| other != version) {
        return Err(invalid(
            "the model imports two versions of the standard operator set".to_owned(),
        ));
    }
    if !(limits::OPSET_MIN..=limits::OPSET_MAX).contains(&version) {
        return Err(unsupported(format!(
            "operator set {version} is outside {}..={}",
            limits::OPSET_MIN,
            limits::OPSET_MAX
        ))
        .with_hint(
            "convert the model with onnx.version_converter, or export it with another opset",
        ));
    }
    Ok(version)
}

/// What may still be allocated while one model is decoded.
struct Budget {
    nodes: usize,
}

fn decode_graph(proto: proto::GraphProto, depth: usize, budget: &mut Budget) -> Result<Graph> {
    if depth > limits::DEPTH {
        return Err(too_large(format!("subgraphs are nested deeper than {}", limits::DEPTH)));
    }
    if !proto.sparse_initializer.is_empty() {
        return Err(unsupported("sparse initializers".to_owned()).with_hint("export dense weights"));
    }
    budget.nodes = budget
        .nodes
        .checked_sub(proto.node.len())
        .ok_or_else(|| too_large(format!("the model has more than {} nodes", limits::NODES)))?;
    let mut initializers = BTreeMap::new();
    for tensor in proto.initializer {
        let name = tensor.name.clone().unwrap_or_default();
        if name.is_empty() {
            return Err(invalid("an initializer has no name".to_owned()));
        }
        let tensor = decode_tensor(tensor, &name)?;
        if initializers.insert(name.clone(), tensor).is_some() {
            return Err(invalid(format!("two initializers are named `{name}`")));
        }
    }
    let mut inputs = Vec::new();
    for info in proto.input {
        let name = info.name.as_deref().unwrap_or_default();
        if !initializers.contains_key(name) {
            inputs.push(decode_value(info, true)?);
        }
    }
    // Branches of `If` may leave the types of their outputs to inference, the main graph may not.
    let outputs = proto
        .output
        .into_iter()
        .map(|info| decode_value(info, depth == 0))
        .collect::<Result<Vec<_>>>()?;
    let mut nodes = Vec::with_capacity(proto.node.len());
    for node in proto.node {
        let node = decode_node(node, depth, budget)?;
        match constant(&node)? {
            Some((name, value)) => {
                if initializers.insert(name.clone(), value).is_some() {
                    return Err(invalid(format!("`{name}` is made twice")));
                }
            }
            None => nodes.push(node),
        }
    }
    let name = proto.name.filter(|n| !n.is_empty()).unwrap_or_else(|| "graph".to_owned());
    Ok(Graph { name, nodes, initializers, inputs, outputs })
}

/// The name and value of a `Constant` node: as an initializer it needs no further treatment anywhere.
fn constant(node: &Node) -> Result<Option<(String, Tensor)>> {
    if node.op != "Constant" {
        return Ok(None);
    }
    let [output] = node.outputs.as_slice() else {
        return Err(invalid(format!(
            "{} has {} outputs instead of one",
            node.describe(),
            node.outputs.len()
        )));
    };
    let mut values = node.attributes.values();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(invalid(format!("{} must have exactly one attribute", node.describe())));
    };
    let tensor = match value {
        Attribute::Tensor(tensor) => tensor.clone(),
        Attribute::Int(value) => Tensor::scalar(*value),
        Attribute::Float(value) => Tensor::scalar(*value),
        Attribute::Ints(values) => Tensor::vector(values),
        Attribute::Floats(values) => Tensor::vector(values),
        Attribute::String(_) | Attribute::Strings(_) | Attribute::Graph(_) => {
            return Err(unsupported(format!("{} holds no numeric tensor", node.describe())));
        }
    };
    Ok(Some((output.clone(), tensor)))
}

fn decode_node(proto: proto::NodeProto, depth: usize, budget: &mut Budget) -> Result<Node> {
    let mut node = Node {
        name: proto.name.unwrap_or_default(),
        op: proto.op_type.unwrap_or_default(),
        domain: String::new(),
        inputs: proto.input,
        outputs: proto.output,
        attributes: BTreeMap::new(),
    };
    let domain = proto.domain.unwrap_or_default();
    if !is_standard(&domain) {
        return Err(unsupported(format!(
            "{} is an operator of the domain `{domain}`",
            node.describe()
        ))
        .with_hint(
            "only operators of the standard domain are supported; export without contrib operators",
        ));
    }
    if node.op.is_empty() {
        return Err(invalid(format!("node {} names no operator", node.describe())));
    }
    if node.outputs.iter().all(String::is_empty) {
        return Err(invalid(format!("{} `{}` makes no tensor", node.op, node.name)));
    }
    for attribute in proto.attribute {
        let name = attribute.name.clone().unwrap_or_default();
        let value = decode_attribute(attribute, depth, budget)
            .map_err(|e| e.context(format!("attribute `{name}` of {}", node.describe())))?;
        if node.attributes.insert(name.clone(), value).is_some() {
            return Err(invalid(format!("{} has two attributes `{name}`", node.describe())));
        }
    }
    Ok(node)
}

fn decode_attribute(
    proto: proto::AttributeProto,
    depth: usize,
    budget: &mut Budget,
) -> Result<Attribute> {
    if proto.ref_attr_name.is_some_and(|name| !name.is_empty()) {
        return Err(unsupported("it refers to an attribute of a function".to_owned()));
    }
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes).map_err(|_| invalid("the string is not UTF-8".to_owned()))
    };
    let kind = proto.r#type.unwrap_or_default();
    Ok(match AttributeType::try_from(kind) {
        Ok(AttributeType::Float) => Attribute::Float(proto.f.unwrap_or_default()),
        Ok(AttributeType::Int) => Attribute::Int(proto.i.unwrap_or_default()),
        Ok(AttributeType::String) => Attribute::String(text(proto.s.unwrap_or_default())?),
        Ok(AttributeType::Floats) => Attribute::Floats(proto.floats),
        Ok(AttributeType::Ints) => Attribute::Ints(proto.ints),
        Ok(AttributeType::Strings) => {
            Attribute::Strings(proto.strings.into_iter().map(text).collect::<Result<_>>()?)
        }
        Ok(AttributeType::Tensor) => {
            let tensor = proto.t.ok_or_else(|| invalid("the tensor is missing".to_owned()))?;
            Attribute::Tensor(decode_tensor(tensor, "value")?)
        }
        Ok(AttributeType::Graph) => {
            let graph = proto.g.ok_or_else(|| invalid("the graph is missing".to_owned()))?;
            Attribute::Graph(Box::new(decode_graph(graph, depth + 1, budget)?))
        }
        _ => return Err(unsupported(format!("attributes of type {kind} are not supported"))),
    })
}

/// The dtype of an ONNX data type number.
fn dtype(number: i32) -> Result<DType> {
    use tensor_proto::DataType;
    Ok(match DataType::try_from(number) {
        Ok(DataType::Float) => DType::F32,
        Ok(DataType::Double) => DType::F64,
        Ok(DataType::Float16) => DType::F16,
        Ok(DataType::Bfloat16) => DType::BF16,
        Ok(DataType::Int8) => DType::I8,
        Ok(DataType::Int16) => DType::I16,
        Ok(DataType::Int32) => DType::I32,
        Ok(DataType::Int64) => DType::I64,
        Ok(DataType::Uint8) => DType::U8,
        Ok(DataType::Uint16) => DType::U16,
        Ok(DataType::Uint32) => DType::U32,
        Ok(DataType::Uint64) => DType::U64,
        Ok(DataType::Bool) => DType::Bool,
        Ok(DataType::String) => DType::String,
        Ok(DataType::Undefined) => return Err(invalid("the data type is not given".to_owned())),
        Ok(other) => {
            return Err(unsupported(format!("data type {} is not supported", other.as_str_name()))
                .with_hint("supported are the plain integers, bool, float16, bfloat16, float32 and float64"));
        }
        Err(_) => return Err(invalid(format!("data type {number} does not exist"))),
    })
}

fn decode_value(proto: proto::ValueInfoProto, typed: bool) -> Result<ValueInfo> {
    let name = proto
        .name
        .filter(|n| !n.is_empty())
        .ok_or_else(|| invalid("a graph value has no name".to_owned()))?;
    let place = format!("graph value `{name}`");
    let tensor = match proto.r#type.and_then(|t| t.value) {
        Some(proto::type_proto::Value::TensorType(tensor)) => tensor,
        None if !typed => return Ok(ValueInfo { name, dtype: DType::F32, shape: None }),
        None => return Err(invalid(format!("{place} has no type"))),
        Some(_) => return Err(unsupported(format!("{place} is no dense tensor"))),
    };
    let dtype = dtype(tensor.elem_type.unwrap_or_default()).map_err(|e| e.context(&place))?;
    let shape = tensor.shape.map(|shape| decode_shape(shape, &place)).transpose()?;
    Ok(ValueInfo { name, dtype, shape })
}

fn decode_shape(proto: proto::TensorShapeProto, place: &str) -> Result<Vec<Dim>> {
    use proto::tensor_shape_proto::dimension::Value;
    check_rank(proto.dim.len(), place)?;
    let dims: Vec<Dim> = proto
        .dim
        .into_iter()
        .map(|dim| match dim.value {
            Some(Value::DimValue(size)) => usize::try_from(size).map_or(Dim::Unknown, Dim::Fixed),
            // Exporters write `?` for every open dimension; it names none.
            Some(Value::DimParam(symbol)) if !matches!(symbol.as_str(), "" | "?") => {
                Dim::Symbol(symbol)
            }
            _ => Dim::Unknown,
        })
        .collect();
    let fixed: Vec<usize> = dims
        .iter()
        .map(|dim| match dim {
            Dim::Fixed(size) => *size,
            _ => 1,
        })
        .collect();
    check_elements(&fixed, place)?;
    Ok(dims)
}

fn check_rank(rank: usize, place: &str) -> Result<()> {
    if rank > limits::RANK {
        return Err(too_large(format!(
            "{place} has {rank} dimensions, the limit is {}",
            limits::RANK
        )));
    }
    Ok(())
}

fn check_elements(shape: &[usize], place: &str) -> Result<usize> {
    match element_count(shape) {
        Some(count) if count <= limits::ELEMENTS => Ok(count),
        _ => Err(too_large(format!(
            "{place} of shape {shape:?} has more than {} elements",
            limits::ELEMENTS
        ))),
    }
}

fn decode_tensor(proto: proto::TensorProto, name: &str) -> Result<Tensor> {
    let place = format!("tensor `{name}`");
    check_rank(proto.dims.len(), &place)?;
    let shape = proto
        .dims
        .iter()
        .map(|dim| {
            usize::try_from(*dim).map_err(|_| invalid(format!("{place} has the dimension {dim}")))
        })
        .collect::<Result<Vec<_>>>()?;
    let count = check_elements(&shape, &place)?;
    let external = proto.data_location == Some(tensor_proto::DataLocation::External as i32);
    if external || !proto.external_data.is_empty() {
        return Err(unsupported(format!("{place} lies in another file"))
            .with_hint("save the model with its weights inside: onnx.save(model, path)"));
    }
    if proto.segment.is_some() {
        return Err(unsupported(format!("{place} is segmented")));
    }
    let dtype = dtype(proto.data_type.unwrap_or_default()).map_err(|e| e.context(&place))?;
    if dtype == DType::String {
        return Err(unsupported(format!("{place} holds strings")));
    }
    let mut bytes = match proto.raw_data {
        Some(raw) if !raw.is_empty() => raw,
        _ => typed_bytes(&proto, dtype),
    };
    if count.checked_mul(dtype.size()) != Some(bytes.len()) {
        return Err(invalid(format!(
            "{place} of shape {shape:?} and {} has {} bytes instead of {}",
            dtype.name(),
            bytes.len(),
            count.saturating_mul(dtype.size())
        )));
    }
    if dtype == DType::Bool {
        bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
    }
    Tensor::from_bytes(dtype, shape, bytes)
}

/// The bytes of a tensor whose values stand in the field for their type. As the specification says, narrow
/// types and the bits of half floats stand in `int32_data`.
fn typed_bytes(proto: &proto::TensorProto, dtype: DType) -> Vec<u8> {
    let narrow = |size: usize| -> Vec<u8> {
        proto.int32_data.iter().flat_map(|v| v.to_le_bytes().into_iter().take(size)).collect()
    };
    match dtype {
        DType::F32 => proto.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F64 => proto.double_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::I64 => proto.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::U64 => proto.uint64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::U32 => proto.uint64_data.iter().flat_map(|v| (*v as u32).to_le_bytes()).collect(),
        DType::Bool => proto.int32_data.iter().map(|v| u8::from(*v != 0)).collect(),
        DType::I32 | DType::I16 | DType::U16 | DType::F16 | DType::BF16 | DType::I8 | DType::U8 => {
            narrow(dtype.size())
        }
        DType::String => Vec::new(),
    }
}

/// Every name that is read exists, every tensor is made once, nothing in a subgraph hides a name around it.
fn check_names(graph: &Graph, outer: &BTreeSet<String>, place: &str) -> Result<()> {
    let mut local = BTreeSet::new();
    let made = graph.nodes.iter().flat_map(|node| &node.outputs).filter(|name| !name.is_empty());
    for name in
        graph.inputs.iter().map(|info| &info.name).chain(graph.initializers.keys()).chain(made)
    {
        if !local.insert(name.clone()) {
            return Err(invalid(format!("`{name}` is made twice in {place}")));
        }
        if outer.contains(name) {
            return Err(invalid(format!(
                "`{name}` in {place} hides a tensor of the graph around it"
            )));
        }
    }
    if graph.outputs.is_empty() {
        return Err(invalid(format!("{place} has no output")));
    }
    let mut seen = BTreeSet::new();
    for output in &graph.outputs {
        if !local.contains(&output.name) {
            return Err(invalid(format!("nothing in {place} makes its output `{}`", output.name)));
        }
        if !seen.insert(&output.name) {
            return Err(invalid(format!("`{}` is an output of {place} twice", output.name)));
        }
    }
    let visible: BTreeSet<String> = outer.union(&local).cloned().collect();
    for node in &graph.nodes {
        for name in node.inputs.iter().filter(|name| !name.is_empty()) {
            if !visible.contains(name) {
                return Err(invalid(format!(
                    "{} reads `{name}`, which nothing makes",
                    node.describe()
                )));
            }
        }
        for subgraph in node.subgraphs() {
            check_names(subgraph, &visible, &format!("a subgraph of {}", node.describe()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode;

    /// y = x · w, as a protobuf message that a test spoils.
    fn message() -> proto::ModelProto {
        let graph = Graph {
            nodes: vec![Node::new("Mul", &["x", "w"], &["y"])],
            initializers: [("w".to_owned(), Tensor::vector(&[2.0f32]))].into(),
            inputs: vec![ValueInfo::fixed("x", DType::F32, &[3])],
            outputs: vec![ValueInfo::fixed("y", DType::F32, &[3])],
            ..Graph::default()
        };
        encode::model(&Model { opset: 13, graph })
    }

    /// The code with which a spoilt message is refused.
    fn refused(spoil: impl FnOnce(&mut proto::ModelProto, &mut proto::GraphProto)) -> Option<Code> {
        let mut message = message();
        let mut graph = message.graph.take().unwrap();
        spoil(&mut message, &mut graph);
        message.graph = Some(graph);
        model(message).err().map(|error| error.code())
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        assert_eq!(refused(|_, _| {}), None);
        assert_eq!(
            refused(|m, _| m.opset_import[0].version = Some(6)),
            Some(Code::ModelUnsupported)
        );
        assert_eq!(refused(|m, _| m.opset_import.clear()), Some(Code::ModelInvalid));
        assert_eq!(
            refused(|m, _| m.functions.push(proto::FunctionProto::default())),
            Some(Code::ModelUnsupported)
        );
        assert_eq!(
            refused(|_, g| g.node[0].domain = Some("com.microsoft".to_owned())),
            Some(Code::ModelUnsupported)
        );
        assert_eq!(refused(|_, g| g.node[0].input[0] = "z".to_owned()), Some(Code::ModelInvalid));
        assert_eq!(refused(|_, g| g.node[0].input[0] = "y".to_owned()), Some(Code::ModelInvalid));
        assert_eq!(refused(|_, g| g.node[0].output[0] = "x".to_owned()), Some(Code::ModelInvalid));
        assert_eq!(
            refused(|_, g| g.output[0].name = Some("z".to_owned())),
            Some(Code::ModelInvalid)
        );
        assert_eq!(refused(|_, g| g.output.clear()), Some(Code::ModelInvalid));
        assert_eq!(refused(|_, g| g.input[0].r#type = None), Some(Code::ModelInvalid));
        assert_eq!(
            refused(|_, g| g.node = vec![g.node[0].clone(); limits::NODES + 1]),
            Some(Code::ModelTooLarge)
        );
    }

    #[test]
    fn hostile_tensors_are_refused_before_they_are_allocated() {
        let tensor =
            |spoil: fn(&mut proto::TensorProto)| refused(|_, g| spoil(&mut g.initializer[0]));
        assert_eq!(tensor(|t| t.dims = vec![1 << 40, 1 << 40]), Some(Code::ModelTooLarge));
        assert_eq!(tensor(|t| t.dims = vec![-1]), Some(Code::ModelInvalid));
        assert_eq!(tensor(|t| t.dims = vec![1; 9]), Some(Code::ModelTooLarge));
        assert_eq!(tensor(|t| t.dims = vec![2]), Some(Code::ModelInvalid));
        assert_eq!(tensor(|t| t.data_location = Some(1)), Some(Code::ModelUnsupported));
        assert_eq!(tensor(|t| t.data_type = Some(8)), Some(Code::ModelUnsupported));
        assert_eq!(tensor(|t| t.data_type = Some(21)), Some(Code::ModelUnsupported));
        assert_eq!(tensor(|t| t.data_type = Some(99)), Some(Code::ModelInvalid));
    }

    #[test]
    fn typed_fields_constants_and_weights_among_the_inputs_are_read() {
        let mut message = message();
        let graph = message.graph.as_mut().unwrap();
        graph.initializer[0].raw_data = None;
        graph.initializer[0].float_data = vec![2.0];
        graph
            .input
            .push(proto::ValueInfoProto { name: Some("w".to_owned()), ..graph.input[0].clone() });
        // A constant that is made after it is read, too: nodes may stand in any order.
        let constant =
            Node::new("Constant", &[], &["c"]).with("value_float", Attribute::Float(3.0));
        let shifted = Node::new("Add", &["y", "c"], &["z"]);
        let added = Graph { nodes: vec![shifted, constant], ..Graph::default() };
        let added = encode::model(&Model { opset: 13, graph: added }).graph.unwrap();
        graph.node.splice(0..0, added.node);
        graph.output[0].name = Some("z".to_owned());
        let model = model(message).unwrap();
        assert_eq!(model.graph.inputs.len(), 1);
        assert_eq!(model.graph.initializers["w"], Tensor::vector(&[2.0f32]));
        assert_eq!(model.graph.initializers["c"], Tensor::scalar(3.0f32));
        let order: Vec<&str> = model.graph.nodes.iter().map(|node| node.op.as_str()).collect();
        assert_eq!(order, ["Mul", "Add"]);
    }

    #[test]
    fn subgraphs_are_counted_nested_and_may_not_hide_names() {
        let nest = |depth: usize, inner: &str| {
            let branch = |node: Node| Graph {
                outputs: vec![ValueInfo::fixed(node.outputs[0].clone(), DType::F32, &[3])],
                nodes: vec![node],
                ..Graph::default()
            };
            let mut graph = branch(Node::new("Identity", &["x"], &[inner]));
            for level in 0..depth {
                let mut node = Node::new("If", &["b"], &[&format!("level{level}")]);
                node.attributes.insert("then_branch".to_owned(), Attribute::Graph(Box::new(graph)));
                graph = branch(node);
            }
            graph.inputs = vec![
                ValueInfo::fixed("x", DType::F32, &[3]),
                ValueInfo::fixed("b", DType::Bool, &[]),
            ];
            model(encode::model(&Model { opset: 13, graph })).err().map(|error| error.code())
        };
        assert_eq!(nest(limits::DEPTH, "inner"), None);
        assert_eq!(nest(limits::DEPTH + 1, "inner"), Some(Code::ModelTooLarge));
        assert_eq!(nest(1, "x"), Some(Code::ModelInvalid));
    }
}
