//! Cuts a model into segments that run one after the other over one map of named tensors, so that patches can
//! run between them, and splits off the part that no trainable weight reaches.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::Shapes;
use crate::error::{Code, Error, Result};
use crate::graph::{Types, some_of};
use crate::model::{Graph, Model};

/// Cuts the main graph at tensors. Segment `k` computes what the first `k` sites (in the order in which the
/// graph makes them) depend on and no earlier segment computed; the last one computes the rest. Running the
/// segments in order over one map of named tensors equals running the whole.
///
/// A segment's inputs are graph inputs and tensors of earlier segments; its outputs are what later segments
/// read, the sites, and the model's outputs. Tensors that depend on weights or shapes alone are computed again
/// in each segment that reads them, because the engine folds them and needs many of them as constants.
/// A site that no node makes (a graph input), or whose value is fixed by weights and shapes, cuts nothing.
/// Unknown sites are refused, and so is a model whose nodes have subgraphs: what those read from around them is not
/// part of the node's own list.
pub fn cut(model: &Model, sites: &[&str]) -> Result<Vec<Model>> {
    cut_typed(model, sites, || Types::of(model))
}

/// Like [`cut`], for the shapes that [`crate::engine::infer`] gave: the segments declare these, and no shape is
/// inferred again.
pub fn cut_for(model: &Model, sites: &[&str], shapes: &Shapes) -> Result<Vec<Model>> {
    cut_typed(model, sites, || Types::from_shapes(shapes))
}

fn cut_typed(model: &Model, sites: &[&str], types: impl FnOnce() -> Types) -> Result<Vec<Model>> {
    let graph = &model.graph;
    for site in sites {
        model.require(site)?;
    }
    if !sites.is_empty() {
        refuse_subgraphs(graph)?;
    }
    let sites: BTreeSet<&str> = sites.iter().copied().collect();
    let parts = Parts::new(graph, &BTreeSet::new());
    let mut stops: Vec<(usize, &str)> =
        sites.iter().filter_map(|site| Some((*parts.producers.get(site)?, *site))).collect();
    stops.sort_unstable();
    let mut owned: Vec<BTreeSet<usize>> = Vec::new();
    let mut done = BTreeSet::new();
    for (_, site) in &stops {
        owned.push(parts.claim(&[site], &mut done));
    }
    let outputs: Vec<&str> = graph.outputs.iter().map(|info| info.name.as_str()).collect();
    let mut rest = parts.claim(&outputs, &mut done);
    // Outputs that depend on weights alone belong to nobody; the last segment yields them.
    let loose: Vec<&str> = outputs.iter().copied().filter(|name| parts.is_constant(name)).collect();
    if !loose.is_empty() && rest.is_empty() {
        rest = owned.pop().unwrap_or_default();
    }
    owned.push(rest);
    owned.retain(|nodes| !nodes.is_empty());
    if owned.is_empty() && !loose.is_empty() {
        owned.push(BTreeSet::new());
    }
    let last = owned.len().saturating_sub(1);
    let whole: Vec<BTreeSet<usize>> = owned
        .iter()
        .enumerate()
        .map(|(index, nodes)| parts.with_constants(nodes, if index == last { &loose } else { &[] }))
        .collect();
    let types = types();
    let mut segments = Vec::with_capacity(owned.len());
    for index in 0..owned.len() {
        let mut wanted: BTreeSet<&str> =
            sites.iter().copied().chain(outputs.iter().copied()).collect();
        for later in &whole[index + 1..] {
            wanted.extend(later.iter().flat_map(|node| graph.nodes[*node].reads()));
        }
        let extra = if index == last { loose.as_slice() } else { &[] };
        segments.push(Model {
            opset: model.opset,
            graph: parts.segment(&owned[index], &whole[index], &wanted, extra, &types),
        });
    }
    Ok(segments)
}

fn refuse_subgraphs(graph: &Graph) -> Result<()> {
    match graph.nodes.iter().find(|node| node.subgraphs().next().is_some()) {
        Some(node) => Err(Error::new(
            Code::ModelUnsupported,
            format!("{} has subgraphs: a model with control flow cannot be cut", node.describe()),
        )
        .with_hint("export the model with its branches and loops resolved, or run it whole")),
        None => Ok(()),
    }
}

/// Whether the value of a tensor is fixed by the model's weights and the shapes of its inputs, whatever they hold.
/// No patch may be attached there: such tensors are folded when a model is compiled.
pub fn is_fixed(model: &Model, tensor: &str) -> bool {
    Parts::new(&model.graph, &BTreeSet::new()).is_constant(tensor)
}

/// Splits the model at the frontier of its trainable initializers: the suffix holds the nodes that depend on one
/// of them and lead to an output, with what depends on weights or shapes alone; the prefix computes the frozen
/// tensors that the suffix reads. `None` where the suffix reads graph inputs only.
///
/// The suffix yields those outputs of the model that depend on a trainable initializer.
pub fn split_frozen(model: &Model, trainable: &[&str]) -> Result<(Option<Model>, Model)> {
    split_typed(model, trainable, || Types::of(model))
}

/// Like [`split_frozen`], for the shapes that [`crate::engine::infer`] gave: both parts declare these, and no shape
/// is inferred again.
pub fn split_frozen_for(
    model: &Model,
    trainable: &[&str],
    shapes: &Shapes,
) -> Result<(Option<Model>, Model)> {
    split_typed(model, trainable, || Types::from_shapes(shapes))
}

fn split_typed(
    model: &Model,
    trainable: &[&str],
    types: impl FnOnce() -> Types,
) -> Result<(Option<Model>, Model)> {
    let graph = &model.graph;
    if let Some(name) = trainable.iter().find(|name| !graph.initializers.contains_key(**name)) {
        return Err(Error::new(
            Code::UnknownTensor,
            format!("`{name}` is no initializer of the model"),
        )
        .with_hint(format!("initializers are {}", some_of(graph.initializers.keys()))));
    }
    let mut reached: BTreeSet<&str> = trainable.iter().copied().collect();
    let mut dependent = BTreeSet::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        if node.reads().iter().any(|name| reached.contains(name)) {
            dependent.insert(index);
            reached.extend(node.makes());
        }
    }
    let outputs: Vec<&str> = graph
        .outputs
        .iter()
        .map(|info| info.name.as_str())
        .filter(|name| reached.contains(name))
        .collect();
    let leading = graph.ancestors(&outputs, &BTreeSet::new());
    let owned: BTreeSet<usize> = dependent.intersection(&leading).copied().collect();
    if owned.is_empty() {
        return Err(Error::new(
            Code::GradientUnreachable,
            format!("no output depends on {}", some_of(trainable.iter())),
        )
        .with_hint("name initializers that the outputs are computed from"));
    }
    let parts = Parts::new(graph, &trainable.iter().copied().collect());
    let whole = parts.with_constants(&owned, &[]);
    let wanted: BTreeSet<&str> = outputs.iter().copied().collect();
    let types = types();
    let suffix =
        Model { opset: model.opset, graph: parts.segment(&owned, &whole, &wanted, &[], &types) };
    let frontier: Vec<&str> = suffix
        .graph
        .inputs
        .iter()
        .map(|info| info.name.as_str())
        .filter(|name| graph.input(name).is_none())
        .collect();
    if frontier.is_empty() {
        return Ok((None, suffix));
    }
    let needed = graph.ancestors(&frontier, &BTreeSet::new());
    let read: BTreeSet<&str> =
        needed.iter().flat_map(|index| graph.nodes[*index].reads()).collect();
    let inputs: Vec<&str> = graph
        .inputs
        .iter()
        .map(|info| info.name.as_str())
        .filter(|name| read.contains(name))
        .collect();
    let prefix =
        Model { opset: model.opset, graph: graph.part(&needed, &inputs, &frontier, &types) };
    Ok((Some(prefix), suffix))
}

/// A graph seen as nodes that are each owned by one part, and constant ones that every part may repeat.
struct Parts<'a> {
    graph: &'a Graph,
    producers: BTreeMap<&'a str, usize>,
    /// Nodes whose results depend on initializers and on the shapes of tensors only.
    constant: BTreeSet<usize>,
}

impl<'a> Parts<'a> {
    /// What makes or reads a tensor of `fixed` is never repeated: its value may change between parts.
    fn new(graph: &'a Graph, fixed: &BTreeSet<&str>) -> Self {
        let mut known: BTreeSet<&str> = graph
            .initializers
            .keys()
            .map(String::as_str)
            .filter(|name| !fixed.contains(name))
            .collect();
        let mut constant = BTreeSet::new();
        for (index, node) in graph.nodes.iter().enumerate() {
            let of_shape = matches!(node.op.as_str(), "Shape" | "Size");
            let random = node.op.starts_with("Random")
                || matches!(node.op.as_str(), "Multinomial" | "Bernoulli");
            if !random
                && node.makes().all(|name| !fixed.contains(name))
                && (of_shape || node.reads().iter().all(|name| known.contains(name)))
            {
                constant.insert(index);
                known.extend(node.makes());
            }
        }
        Self { graph, producers: graph.producers(), constant }
    }

    fn is_constant(&self, name: &str) -> bool {
        self.graph.initializers.contains_key(name)
            || self.producers.get(name).is_some_and(|index| self.constant.contains(index))
    }

    /// The nodes that `tensors` depend on and nobody owns yet.
    fn claim(&self, tensors: &[&str], done: &mut BTreeSet<usize>) -> BTreeSet<usize> {
        let all = self.graph.ancestors(tensors, &BTreeSet::new());
        let new: BTreeSet<usize> = all
            .into_iter()
            .filter(|index| !self.constant.contains(index) && !done.contains(index))
            .collect();
        done.extend(&new);
        new
    }

    /// The nodes with the constant ones that they, or the tensors in `also`, depend on.
    fn with_constants(&self, nodes: &BTreeSet<usize>, also: &[&str]) -> BTreeSet<usize> {
        let mut all = nodes.clone();
        let mut open: Vec<&str> =
            nodes.iter().flat_map(|index| self.graph.nodes[*index].reads()).collect();
        open.extend(also);
        while let Some(name) = open.pop() {
            if let Some(index) = self.producers.get(name)
                && self.constant.contains(index)
                && all.insert(*index)
            {
                open.extend(self.graph.nodes[*index].reads());
            }
        }
        all
    }

    /// The graph of `whole`, reading what it does not make, yielding what of `owned` is wanted, and `extra`.
    fn segment(
        &self,
        owned: &BTreeSet<usize>,
        whole: &BTreeSet<usize>,
        wanted: &BTreeSet<&str>,
        extra: &[&str],
        types: &Types,
    ) -> Graph {
        let made: BTreeSet<&str> =
            whole.iter().flat_map(|index| self.graph.nodes[*index].makes()).collect();
        let read: BTreeSet<&str> =
            whole.iter().flat_map(|index| self.graph.nodes[*index].reads()).collect();
        let outside =
            |name: &&str| !made.contains(name) && !self.graph.initializers.contains_key(*name);
        let fed = self
            .graph
            .inputs
            .iter()
            .map(|info| info.name.as_str())
            .filter(|name| read.contains(name));
        let earlier: BTreeSet<(usize, &str)> = read
            .iter()
            .copied()
            .filter(outside)
            .filter_map(|name| Some((*self.producers.get(name)?, name)))
            .collect();
        let inputs: Vec<&str> = fed.chain(earlier.into_iter().map(|(_, name)| name)).collect();
        let mut outputs: Vec<&str> = owned
            .iter()
            .flat_map(|index| self.graph.nodes[*index].makes())
            .filter(|name| wanted.contains(name))
            .collect();
        outputs.extend(extra);
        self.graph.part(whole, &inputs, &outputs, types)
    }
}
