//! The reference meaning of stitching: a primary and patches become one plain model, which any runtime executes
//! and which the segment-wise run must agree with.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Code, Error, Result};
use crate::model::{Attribute, Graph, Model, Node};
use crate::patch::{Attachment, Mode, Patch};
use crate::tensor::{DType, Tensor};
use crate::upgrade;

/// Part of every version id: changes when the same parts would be stitched to something else.
pub const STITCH_FORMAT: u32 = 1;

/// Stitches patches into a primary.
///
/// On one site: `replace` first, then `series` in the given order, then T + Σ scale · `parallel`; every parallel
/// that reads its own site reads the value before the sum. A patch that reads another site reads that site's
/// final value. Inputs, outputs and all tensors keep the names under which they are read; tensors of a patch
/// get the prefix `<patch name>/`. Primary nodes that nobody needs any more are removed. Unknown sites, cycles,
/// two patches of one name and two replacements of one site are refused.
pub fn stitch(primary: &Model, patches: &[&Patch]) -> Result<Model> {
    let mut names = BTreeSet::new();
    if let Some(patch) = patches.iter().find(|patch| !names.insert(&patch.manifest().name)) {
        return Err(mismatch(format!("the patch `{}` is given twice", patch.manifest().name)));
    }
    let opset = patches.iter().map(|patch| patch.model().opset).fold(primary.opset, i64::max);
    let mut model = primary.clone();
    upgrade::to_opset(&mut model, opset)?;
    let sites = by_site(primary, patches)?;
    let mut stitcher = Stitcher::new(model.graph, sites.keys().copied())?;
    for (site, attachments) in &sites {
        stitcher.site(site, attachments, opset)?;
    }
    let mut graph = stitcher.graph;
    graph.sort().map_err(|e| {
        mismatch(format!("the patches close a cycle: {}", e.message()))
            .with_hint("a patch reads at or before the place where it writes")
    })?;
    graph.prune();
    let mut model = Model { opset, graph };
    model.declare_outputs();
    Ok(model)
}

fn mismatch(message: String) -> Error {
    Error::new(Code::PatchMismatch, message)
}

/// One attachment of one patch.
struct Stitch<'a> {
    patch: &'a Patch,
    index: usize,
    attachment: &'a Attachment,
}

/// The attachments of each site, in the order in which they act.
fn by_site<'a>(
    primary: &Model,
    patches: &[&'a Patch],
) -> Result<BTreeMap<&'a str, Vec<Stitch<'a>>>> {
    let mut sites: BTreeMap<&str, Vec<Stitch<'_>>> = BTreeMap::new();
    for patch in patches {
        for (index, attachment) in patch.manifest().attachments.iter().enumerate() {
            let place = format!("patch `{}`, attachment {index}", patch.manifest().name);
            for site in attachment.inputs.values().chain([&attachment.site().to_owned()]) {
                primary.require(site).map_err(|e| e.context(&place))?;
            }
            let site = attachment.site();
            if primary.graph.initializers.contains_key(site) {
                return Err(mismatch(format!(
                    "{place}: the site `{site}` is a weight of the primary"
                )));
            }
            if primary.graph.input(site).is_some() && primary.graph.output(site).is_some() {
                return Err(mismatch(format!(
                    "{place}: the site `{site}` is an input that is also an output"
                )));
            }
            sites.entry(site).or_default().push(Stitch { patch, index, attachment });
        }
    }
    for (site, attachments) in &mut sites {
        attachments.sort_by_key(|stitch| match stitch.attachment.mode {
            Mode::Replace => 0,
            Mode::Series => 1,
            Mode::Parallel => 2,
        });
        if attachments.iter().filter(|stitch| stitch.attachment.mode == Mode::Replace).count() > 1 {
            return Err(mismatch(format!("two patches replace `{site}`"))
                .with_hint("select at most one of them"));
        }
    }
    Ok(sites)
}

/// The graph while it is stitched.
struct Stitcher {
    graph: Graph,
    /// For every site: the tensor with its value before any patch, and the one with its final value.
    values: BTreeMap<String, (String, String)>,
    /// Tensors that are taken, so that attachments that share nodes do not make one twice.
    taken: BTreeSet<String>,
    /// Names of nodes that are taken. A node may have none; two of one name are refused by onnxruntime.
    nodes: BTreeSet<String>,
}

impl Stitcher {
    /// Frees the names of the sites: what made a site now makes `<site>/unstitched`; what read a graph input
    /// that is a site now reads `<site>/stitched`, because the input itself keeps its name.
    fn new<'a>(mut graph: Graph, sites: impl Iterator<Item = &'a str>) -> Result<Self> {
        let mut values = BTreeMap::new();
        for site in sites {
            if graph.input(site).is_some() {
                let stitched = graph.fresh(&format!("{site}/stitched"));
                for node in &mut graph.nodes {
                    node.rename_reads(&|name| (name == site).then(|| stitched.clone()));
                }
                values.insert(site.to_owned(), (site.to_owned(), stitched));
            } else {
                let unstitched = graph.fresh(&format!("{site}/unstitched"));
                let made = graph
                    .nodes
                    .iter_mut()
                    .flat_map(|node| &mut node.outputs)
                    .find(|name| *name == site);
                if let Some(name) = made {
                    unstitched.clone_into(name);
                }
                values.insert(site.to_owned(), (unstitched, site.to_owned()));
            }
        }
        let mut taken: BTreeSet<String> =
            graph.tensor_names().into_iter().map(str::to_owned).collect();
        taken.extend(values.values().flat_map(|(first, last)| [first.clone(), last.clone()]));
        let nodes = graph.nodes.iter().map(|node| node.name.clone()).collect();
        Ok(Self { graph, values, taken, nodes })
    }

    /// Adds the nodes of all attachments of one site.
    fn site(&mut self, site: &str, stitches: &[Stitch<'_>], opset: i64) -> Result<()> {
        let (mut current, last) = self.values.get(site).cloned().unwrap_or_default();
        let (chain, parallel): (Vec<_>, Vec<_>) =
            stitches.iter().partition(|stitch| stitch.attachment.mode != Mode::Parallel);
        for stitch in chain {
            current = self.instance(stitch, site, &current, opset)?;
        }
        let mut sum = current.clone();
        for stitch in parallel {
            let mut term = self.instance(stitch, site, &current, opset)?;
            let factor = stitch.attachment.factor();
            if factor != 1.0 {
                term = self.scaled(&term, factor);
            }
            let next =
                self.claim(&format!("{}/sum.{}", stitch.patch.manifest().name, stitch.index));
            self.graph.nodes.push(Node::new("Add", &[&sum, &term], &[&next]));
            sum = next;
        }
        self.graph.nodes.push(Node::new("Identity", &[&sum], &[&last]));
        Ok(())
    }

    fn scaled(&mut self, term: &str, factor: f32) -> String {
        let scale = self.claim(&format!("{term}.scale"));
        let scaled = self.claim(&format!("{term}.scaled"));
        self.graph.initializers.insert(scale.clone(), Tensor::scalar(factor));
        self.graph.nodes.push(Node::new("Mul", &[term, &scale], &[&scaled]));
        scaled
    }

    /// Adds the graph of one attachment under its patch's prefix; yields the name of its output. Initializers of
    /// a patch exist once, even where several attachments read them.
    fn instance(
        &mut self,
        stitch: &Stitch<'_>,
        site: &str,
        current: &str,
        opset: i64,
    ) -> Result<String> {
        let patch = &stitch.patch.manifest().name;
        let mut part = stitch.patch.attachment_graph(stitch.index)?;
        upgrade::to_opset(&mut part, opset)?;
        let mut part = part.graph;
        let output = stitch.attachment.output().0.to_owned();
        check_scale(&part, stitch.attachment, &output)?;
        let mut renamed: BTreeMap<String, String> = BTreeMap::new();
        for (input, from) in &stitch.attachment.inputs {
            let value = if from == site {
                current
            } else {
                self.values.get(from).map_or(from.as_str(), |(_, last)| last)
            };
            renamed.insert(input.clone(), value.to_owned());
        }
        for (name, tensor) in std::mem::take(&mut part.initializers) {
            let own = format!("{patch}/{name}");
            self.taken.insert(own.clone());
            self.graph.initializers.insert(own.clone(), tensor);
            renamed.insert(name, own);
        }
        let mut inner = BTreeSet::new();
        made_names(&part, &mut inner);
        for name in inner {
            let mut own = format!("{patch}/{name}");
            if self.taken.contains(&own) {
                own = format!("{patch}/{}/{name}", stitch.index);
            }
            let own = self.claim(&own);
            renamed.insert(name, own);
        }
        for mut node in part.nodes {
            rename_all(&mut node, &renamed);
            if !node.name.is_empty() {
                node.name = self.node_name(&format!("{patch}/{}", node.name));
            }
            self.graph.nodes.push(node);
        }
        renamed
            .remove(&output)
            .ok_or_else(|| mismatch(format!("patch `{patch}`: nothing makes `{output}`")))
    }

    /// A free name of a tensor like `base`, which is taken from now on.
    fn claim(&mut self, base: &str) -> String {
        claim(&mut self.taken, base)
    }

    /// A free name of a node like `base`, which is taken from now on.
    fn node_name(&mut self, base: &str) -> String {
        claim(&mut self.nodes, base)
    }
}

/// A name like `base` that is not taken, and is from now on.
fn claim(taken: &mut BTreeSet<String>, base: &str) -> String {
    let mut name = base.to_owned();
    let mut number = 1usize;
    while !taken.insert(name.clone()) {
        name = format!("{base}.{number}");
        number += 1;
    }
    name
}

/// A scale is a float32, so what it multiplies must be.
fn check_scale(part: &Graph, attachment: &Attachment, output: &str) -> Result<()> {
    let dtype = crate::dtypes::of(part).get(output).copied();
    if attachment.factor() != 1.0 && dtype.is_some_and(|dtype| dtype != DType::F32) {
        return Err(mismatch(format!("`{output}` is not float32, so it cannot be scaled")));
    }
    Ok(())
}

/// Every name that a graph or a subgraph in it makes.
fn made_names(graph: &Graph, names: &mut BTreeSet<String>) {
    for node in &graph.nodes {
        names.extend(node.makes().map(str::to_owned));
        for subgraph in node.subgraphs() {
            names.extend(subgraph.inputs.iter().map(|info| info.name.clone()));
            names.extend(subgraph.initializers.keys().cloned());
            made_names(subgraph, names);
        }
    }
}

/// Renames whatever a node reads and makes, also inside its subgraphs.
fn rename_all(node: &mut Node, renamed: &BTreeMap<String, String>) {
    let rename = |name: &mut String| {
        if let Some(new) = renamed.get(name) {
            new.clone_into(name);
        }
    };
    node.inputs.iter_mut().chain(&mut node.outputs).for_each(rename);
    for attribute in node.attributes.values_mut() {
        if let Attribute::Graph(graph) = attribute {
            graph
                .inputs
                .iter_mut()
                .chain(&mut graph.outputs)
                .for_each(|info| rename(&mut info.name));
            graph.initializers = std::mem::take(&mut graph.initializers)
                .into_iter()
                .map(|(name, tensor)| (renamed.get(&name).cloned().unwrap_or(name), tensor))
                .collect();
            graph.nodes.iter_mut().for_each(|node| rename_all(node, renamed));
        }
    }
}
