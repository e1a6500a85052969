//! New patches of the usual kinds, which change nothing until they are trained (a new head aside).

use std::collections::BTreeMap;

use super::{Attachment, Cost, Manifest, Mode, Patch, Training, check};
use crate::cost::cost;
use crate::engine::{Dims, Shapes, declare, infer, smallest};
use crate::error::{Code, Error, Result};
use crate::model::{Attribute, Digest, Dim, Graph, Model, Node, ValueInfo};
use crate::tensor::{DType, Tensor};

/// Operator set of new patches: the oldest with one form of every operator.
const OPSET: i64 = 13;

/// The logit of a class that a head of fewer classes does not have: its softmax is 0 in float32.
const IMPOSSIBLE: f32 = -1e4;

/// What a head of fewer classes fills its output up with, and how far.
pub(super) const LOW: &str = "fixed.low";
pub(super) const AFTER: &str = "fixed.after";

/// What kind of patch to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// T := T · gain + bias, one gain and bias per channel.
    Affine,
    /// T₂ := T₂ + up(down(T₁)), a product of two thin matrices (Hu et al., *LoRA*, 2021, eq. 3).
    Lora,
    /// T := T + up(relu(down(T))), a bottleneck (Houlsby et al., *Parameter-Efficient Transfer Learning*, 2019, §2.1).
    Adapter,
    /// T := T + conv(T), with kernels of three.
    Conv,
    /// T₂ := T₁ · weight + bias, instead of the primary's last layer.
    Head,
    /// T₂ := block(T₁), where the block is the primary's own between both, free to be trained.
    ReplaceBlock,
}

impl Kind {
    const ALL: [(&'static str, Self); 6] = [
        ("affine", Self::Affine),
        ("lora", Self::Lora),
        ("adapter", Self::Adapter),
        ("conv", Self::Conv),
        ("head", Self::Head),
        ("replace-block", Self::ReplaceBlock),
    ];

    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

impl std::str::FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind).ok_or_else(|| {
            Error::new(Code::ManifestInvalid, format!("`{text}` is no kind of patch"))
                .with_hint("use affine, lora, adapter, conv, head or replace-block")
        })
    }
}

/// What a new patch is made for.
#[derive(Clone, Copy, Debug)]
pub struct Template<'a> {
    /// Its kind.
    pub kind: Kind,
    /// Its name in the manifest.
    pub name: &'a str,
    /// The site that it reads and the one that it changes; one name stands for both.
    pub sites: &'a [&'a str],
    /// Width of the bottleneck of `lora` and `adapter`.
    pub rank: usize,
    /// Of a head: the classes that it tells apart. They take the first places of its output, the others are as good as
    /// impossible. As many as the output has where it is left out.
    pub classes: Option<usize>,
}

/// A new patch for a primary: manifest and graph, ready to be written. `primary_digest` is that of the primary's
/// file. The same arguments give the same patch.
pub fn template(primary: &Model, primary_digest: Digest, template: &Template<'_>) -> Result<Patch> {
    let (from, to) = match (template.sites, template.kind) {
        ([site], Kind::Head | Kind::ReplaceBlock) => {
            return Err(mismatch(format!(
                "{} needs two sites, not only `{site}`",
                template.kind.as_str()
            ))
            .with_hint("name what it reads and what it replaces: --site features,logits"));
        }
        ([site], _) => (*site, *site),
        ([from, to], Kind::Lora | Kind::Head | Kind::ReplaceBlock) => (*from, *to),
        (sites, kind) => {
            return Err(mismatch(format!("{} sites are given for {}", sites.len(), kind.as_str()))
                .with_hint(
                    "lora takes one or two sites, head and replace-block two, the other kinds one",
                ));
        }
    };
    if template.rank == 0 || template.rank > 4096 {
        return Err(mismatch(format!("the rank {} is outside 1..=4096", template.rank)));
    }
    let types = declare(primary)?;
    let source = Site::new(primary, &types, from)?;
    let target = Site::new(primary, &types, to)?;
    if template.classes.is_some() && template.kind != Kind::Head {
        return Err(mismatch(format!("{} has no classes of its own", template.kind.as_str()))
            .with_hint("leave them out, or make a head"));
    }
    let mut sketch = Sketch { graph: Graph { name: template.name.to_owned(), ..Graph::default() } };
    sketch.graph.inputs.push(ValueInfo { name: "x".to_owned(), ..source.info.clone() });
    sketch.graph.outputs.push(ValueInfo { name: "y".to_owned(), ..target.info.clone() });
    let (mode, function) = match template.kind {
        Kind::Affine => affine(&mut sketch, &source),
        Kind::Lora => lora(&mut sketch, &source, &target, template.rank)?,
        Kind::Adapter => adapter(&mut sketch, &source, template.rank),
        Kind::Conv => conv(&mut sketch, &source)?,
        Kind::Head => head(&mut sketch, primary, (from, &source), (to, &target), template.classes)?,
        Kind::ReplaceBlock => block(&mut sketch, primary, from, to)?,
    };
    // A block keeps the operators of its primary.
    let opset = if template.kind == Kind::ReplaceBlock { primary.opset } else { OPSET };
    let model = Model { opset, graph: sketch.graph };
    let (_, shapes) = smallest(primary)?;
    let manifest = manifest(template, primary_digest, &model, (mode, from, to), function, &shapes)?;
    let patch = Patch::from_parts(&manifest.to_bytes(), &model.to_bytes(), None)?;
    check(&patch, primary, primary_digest, &shapes)?;
    Ok(patch)
}

fn mismatch(message: String) -> Error {
    Error::new(Code::PatchMismatch, message)
}

fn manifest(
    template: &Template<'_>,
    primary: Digest,
    model: &Model,
    (mode, from, to): (Mode, &str, &str),
    function: String,
    shapes: &Shapes,
) -> Result<Manifest> {
    let dims = shapes
        .get(from)
        .map(|(_, shape)| Dims::from([("x".to_owned(), shape.clone())]))
        .unwrap_or_default();
    let counted = cost(model, &infer(model, &dims)?)?.total;
    Ok(Manifest {
        format: 1,
        name: template.name.to_owned(),
        function,
        primary,
        attachments: vec![Attachment {
            mode,
            inputs: BTreeMap::from([("x".to_owned(), from.to_owned())]),
            output: BTreeMap::from([("y".to_owned(), to.to_owned())]),
            scale: None,
        }],
        trainable: trainable(&model.graph),
        training: Some(Training {
            loss: "softmax_cross_entropy".to_owned(),
            learning_rate: 0.05,
            batch: 16,
            epochs: 1,
            clip_norm: 1.0,
            optimizer: None,
            momentum: None,
            proximal: None,
            output: None,
            classes: None,
        }),
        selector: None,
        io: None,
        performance: Vec::new(),
        cost: Some(Cost {
            macs: counted.macs,
            parameter_bytes: counted.parameter_bytes,
            download_bytes: model.to_bytes().len() as u64,
            measured_ms: Vec::new(),
        }),
        licence: None,
        provenance: None,
    })
}

/// Every float initializer but those whose name begins with `fixed`, and the statistics of a batch norm.
fn trainable(graph: &Graph) -> Vec<String> {
    let statistics: Vec<&str> = graph
        .nodes
        .iter()
        .filter(|node| node.op == "BatchNormalization")
        .flat_map(|node| [node.input(3), node.input(4)])
        .flatten()
        .collect();
    let free = graph.initializers.iter().filter(|(name, tensor)| {
        tensor.dtype() == DType::F32
            && !name.starts_with("fixed")
            && !statistics.contains(&name.as_str())
    });
    free.map(|(name, _)| name.clone()).collect()
}

/// A float tensor of the primary with a known number of channels.
struct Site {
    info: ValueInfo,
    rank: usize,
    /// Dimension 1 of images and series, the last dimension of rows and sequences.
    channels: usize,
    /// Size of the dimension after the channels of an image, where it is known.
    height: Option<usize>,
}

impl Site {
    fn new(primary: &Model, types: &BTreeMap<String, ValueInfo>, name: &str) -> Result<Self> {
        primary.require(name)?;
        let open = || mismatch(format!("the shape of `{name}` is not known"));
        let info = types.get(name).cloned().ok_or_else(open)?;
        let shape = info.shape.clone().ok_or_else(open)?;
        if info.dtype != DType::F32 {
            return Err(mismatch(format!("`{name}` is {}", info.dtype.name()))
                .with_hint("patches change float32 tensors"));
        }
        let fixed = |dim: Option<&Dim>| match dim {
            Some(Dim::Fixed(size)) => Some(*size),
            _ => None,
        };
        let axis = if shape.len() == 4 { 1 } else { shape.len().saturating_sub(1) };
        let channels = fixed(shape.get(axis)).filter(|_| shape.len() >= 2).ok_or_else(|| {
            mismatch(format!("`{name}` of shape {shape:?} has no fixed number of channels"))
                .with_hint(
                    "choose a site of two to four dimensions, channels last or, for images, second",
                )
        })?;
        Ok(Self { rank: shape.len(), channels, height: fixed(shape.get(2)), info })
    }

    fn is_image(&self) -> bool {
        self.rank == 4
    }
}

/// The graph of a patch while it is drawn.
struct Sketch {
    graph: Graph,
}

impl Sketch {
    fn node(&mut self, op: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) {
        let mut node = Node::new(op, inputs, &[output]);
        node.attributes =
            attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        self.graph.nodes.push(node);
    }

    fn weight(&mut self, name: &str, shape: &[usize], fill: Fill) {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = match fill {
            Fill::Value(value) => vec![value; count],
            Fill::Random { inputs } => uniform(name, count, (1.0 / inputs.max(1) as f32).sqrt()),
        };
        if let Ok(tensor) = Tensor::new(shape.to_vec(), &values) {
            self.graph.initializers.insert(name.to_owned(), tensor);
        }
    }

    /// The output: a tensor of this rank, and after its last dimension so many logits that no softmax will choose.
    fn fill_up(&mut self, x: &str, rank: usize, rest: usize) {
        let mut after = vec![0i64; 2 * rank];
        if let Some(last) = after.last_mut() {
            *last = rest as i64;
        }
        self.graph.initializers.insert(AFTER.to_owned(), Tensor::vector(&after));
        self.graph.initializers.insert(LOW.to_owned(), Tensor::scalar(IMPOSSIBLE));
        self.node("Pad", &[x, AFTER, LOW], "y", &[]);
    }

    /// A linear map of the channels without bias: 1 × 1 convolution of an image, product of the last dimension else.
    fn map(&mut self, x: &str, weight: &str, y: &str, image: bool, stride: i64) {
        if image {
            let strides = Attribute::Ints(vec![stride, stride]);
            self.node("Conv", &[x, weight], y, &[("strides", strides)]);
        } else {
            self.node("MatMul", &[x, weight], y, &[]);
        }
    }
}

enum Fill {
    Value(f32),
    /// Uniform in ±1/√inputs.
    Random {
        inputs: usize,
    },
}

/// Deterministic numbers in ±bound, so that the same template gives the same patch (SplitMix64, Steele et al. 2014).
fn uniform(seed: &str, count: usize, bound: f32) -> Vec<f32> {
    let mut state = seed.bytes().fold(0x9e37_79b9_7f4a_7c15u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    (0..count).map(|_| ((next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * bound).collect()
}

/// Shape of one value per channel that broadcasts over a site.
fn per_channel(site: &Site) -> Vec<usize> {
    if site.is_image() { vec![1, site.channels, 1, 1] } else { vec![site.channels] }
}

fn map_shape(site: &Site, inputs: usize, outputs: usize) -> Vec<usize> {
    if site.is_image() { vec![outputs, inputs, 1, 1] } else { vec![inputs, outputs] }
}

fn affine(sketch: &mut Sketch, site: &Site) -> (Mode, String) {
    sketch.weight("gain", &per_channel(site), Fill::Value(1.0));
    sketch.weight("bias", &per_channel(site), Fill::Value(0.0));
    sketch.node("Mul", &["x", "gain"], "scaled", &[]);
    sketch.node("Add", &["scaled", "bias"], "y", &[]);
    (Mode::Series, "Scales and shifts every channel.".to_owned())
}

fn lora(sketch: &mut Sketch, source: &Site, target: &Site, rank: usize) -> Result<(Mode, String)> {
    if source.rank != target.rank {
        return Err(mismatch(format!(
            "the sites have {} and {} dimensions",
            source.rank, target.rank
        ))
        .with_hint("choose two sites of one layout"));
    }
    let stride = match (source.height, target.height) {
        (Some(tall), Some(short)) if source.is_image() && short > 0 => tall.div_ceil(short) as i64,
        _ => 1,
    };
    let image = source.is_image();
    sketch.weight(
        "down",
        &map_shape(source, source.channels, rank),
        Fill::Random { inputs: source.channels },
    );
    sketch.weight("up", &map_shape(target, rank, target.channels), Fill::Value(0.0));
    sketch.map("x", "down", "inner", image, stride);
    sketch.map("inner", "up", "y", image, 1);
    Ok((Mode::Parallel, format!("Adds a correction of rank {rank}.")))
}

fn adapter(sketch: &mut Sketch, site: &Site, rank: usize) -> (Mode, String) {
    let image = site.is_image();
    let narrow = if image { vec![1, rank, 1, 1] } else { vec![rank] };
    sketch.weight(
        "down",
        &map_shape(site, site.channels, rank),
        Fill::Random { inputs: site.channels },
    );
    sketch.weight("down.bias", &narrow, Fill::Value(0.0));
    sketch.weight("up", &map_shape(site, rank, site.channels), Fill::Value(0.0));
    sketch.weight("up.bias", &per_channel(site), Fill::Value(0.0));
    sketch.map("x", "down", "narrow", image, 1);
    sketch.node("Add", &["narrow", "down.bias"], "shifted", &[]);
    sketch.node("Relu", &["shifted"], "active", &[]);
    sketch.map("active", "up", "wide", image, 1);
    sketch.node("Add", &["wide", "up.bias"], "change", &[]);
    sketch.node("Add", &["x", "change"], "y", &[]);
    (Mode::Series, format!("Adds a bottleneck of width {rank}."))
}

fn conv(sketch: &mut Sketch, site: &Site) -> Result<(Mode, String)> {
    if !site.is_image() {
        return Err(mismatch(format!("the site has {} dimensions", site.rank))
            .with_hint("conv patches change images: batch, channels, height, width"));
    }
    sketch.weight("weight", &[site.channels, site.channels, 3, 3], Fill::Value(0.0));
    sketch.weight("bias", &[site.channels], Fill::Value(0.0));
    sketch.node(
        "Conv",
        &["x", "weight", "bias"],
        "change",
        &[("pads", Attribute::Ints(vec![1; 4]))],
    );
    sketch.node("Add", &["x", "change"], "y", &[]);
    Ok((Mode::Series, "Adds a convolution with kernels of three.".to_owned()))
}

/// Starts from the primary's own last layer where that reads the features directly.
fn head(
    sketch: &mut Sketch,
    primary: &Model,
    (from, source): (&str, &Site),
    (to, target): (&str, &Site),
    classes: Option<usize>,
) -> Result<(Mode, String)> {
    if source.is_image() || target.is_image() || source.rank != target.rank {
        return Err(mismatch("a head maps rows to rows".to_owned())
            .with_hint("read the features after pooling and flattening"));
    }
    let outputs = classes.unwrap_or(target.channels);
    if outputs == 0 || outputs > target.channels {
        return Err(mismatch(format!("{outputs} classes are outside 1..={}", target.channels))
            .with_hint(format!("`{to}` has {} places", target.channels)));
    }
    sketch.weight("weight", &[source.channels, outputs], Fill::Random { inputs: source.channels });
    sketch.weight("bias", &[outputs], Fill::Value(0.0));
    let mut start = "at random";
    if let Some((weight, bias)) = own_layer(primary, from, to)
        && classes.is_none()
        && weight.len() == source.channels * target.channels
        && bias.len() == target.channels
    {
        let shape = vec![source.channels, target.channels];
        sketch.graph.initializers.insert("weight".to_owned(), Tensor::new(shape, &weight)?);
        sketch.graph.initializers.insert("bias".to_owned(), Tensor::vector(&bias));
        start = "from the primary's own layer";
    }
    sketch.node("MatMul", &["x", "weight"], "product", &[]);
    let rest = target.channels - outputs;
    sketch.node("Add", &["product", "bias"], if rest == 0 { "y" } else { "own" }, &[]);
    if rest > 0 {
        sketch.fill_up("own", source.rank, rest);
    }
    Ok((Mode::Replace, format!("Replaces the last layer, starting {start}.")))
}

/// The primary's own nodes and weights between two tensors.
fn block(sketch: &mut Sketch, primary: &Model, from: &str, to: &str) -> Result<(Mode, String)> {
    if from == to {
        return Err(mismatch(format!("no block leads from `{from}` to itself"))
            .with_hint("name the tensor that the block reads, then the one that it makes"));
    }
    let part = primary.extract(&[from], &[to]).map_err(|e| {
        mismatch(format!("the block from `{from}` to `{to}` cannot be taken out: {}", e.message()))
            .with_hint("choose a tensor that everything up to the second one passes through")
    })?;
    let rename = |name: &str| match name {
        name if name == from => Some("x".to_owned()),
        name if name == to => Some("y".to_owned()),
        // The primary may have its own `x` and `y`.
        "x" | "y" => Some(format!("inner.{name}")),
        _ => None,
    };
    sketch.graph.initializers = part
        .graph
        .initializers
        .into_iter()
        .map(|(name, tensor)| (rename(&name).unwrap_or(name), tensor))
        .collect();
    for mut node in part.graph.nodes {
        node.rename_reads(&rename);
        for output in &mut node.outputs {
            if let Some(new) = rename(output) {
                *output = new;
            }
        }
        sketch.graph.nodes.push(node);
    }
    Ok((Mode::Replace, format!("Replaces what leads from {from} to {to}, starting as it is.")))
}

/// Weight, as [inputs, outputs], and bias of the `Gemm` between two tensors.
fn own_layer(primary: &Model, from: &str, to: &str) -> Option<(Vec<f32>, Vec<f32>)> {
    let graph = &primary.graph;
    let node = graph.nodes.iter().find(|node| node.makes().any(|name| name == to))?;
    let plain = node.int("transA", 0) == 0
        && node.float("alpha", 1.0) == 1.0
        && node.float("beta", 1.0) == 1.0;
    if node.op != "Gemm" || node.input(0) != Some(from) || !plain {
        return None;
    }
    let weight = graph.initializers.get(node.input(1)?)?;
    let [rows, columns] = *weight.shape() else { return None };
    let values = weight.values::<f32>().ok()?;
    let transposed = node.int("transB", 0) == 1;
    let weight = if transposed {
        (0..columns)
            .flat_map(|column| (0..rows).map(move |row| (row, column)))
            .map(|(row, column)| values[row * columns + column])
            .collect()
    } else {
        values
    };
    let outputs = if transposed { rows } else { columns };
    let bias = match node.input(2) {
        Some(name) => graph.initializers.get(name)?.values::<f32>().ok()?,
        None => vec![0.0; outputs],
    };
    Some((weight, bias))
}
