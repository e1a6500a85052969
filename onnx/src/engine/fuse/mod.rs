//! Groups of nodes for which the engine has an operator of our own. Done last before a model is compiled, and only where
//! nobody reads what lies between.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Result;
use crate::model::{Graph, Node};
use crate::tensor::Tensor;

mod losses;
mod products;

/// A node of our own, the nodes whose place it takes, the index where it stands, and constants that it reads besides
/// those of the graph.
struct Replacement {
    nodes: Vec<usize>,
    at: usize,
    node: Node,
    constants: Vec<(String, Tensor)>,
}

/// Puts operators of our own where the main graph has what they stand for.
pub(super) fn fuse(graph: &mut Graph) -> Result<()> {
    let reading = Reading::of(graph);
    let mut found = products::find(&reading)?;
    found.extend(losses::find(&reading));
    if found.is_empty() {
        return Ok(());
    }
    let gone: BTreeSet<usize> = found.iter().flat_map(|found| found.nodes.clone()).collect();
    let mut places: BTreeMap<usize, Node> = BTreeMap::new();
    for Replacement { at, node, constants, .. } in found {
        places.insert(at, node);
        graph.initializers.extend(constants);
    }
    let nodes = std::mem::take(&mut graph.nodes).into_iter().enumerate();
    graph.nodes = nodes
        .filter_map(|(index, node)| {
            places.remove(&index).or((!gone.contains(&index)).then_some(node))
        })
        .collect();
    graph.prune();
    Ok(())
}

/// A graph with who makes and who reads each tensor.
struct Reading<'a> {
    graph: &'a Graph,
    producers: BTreeMap<&'a str, usize>,
    consumers: BTreeMap<&'a str, Vec<usize>>,
}

impl<'a> Reading<'a> {
    fn of(graph: &'a Graph) -> Self {
        Self { graph, producers: graph.producers(), consumers: graph.consumers() }
    }

    fn constant(&self, name: &str) -> Option<&'a Tensor> {
        self.graph.initializers.get(name)
    }

    fn made_by(&self, name: &str, op: &str) -> Option<&'a Node> {
        let node = &self.graph.nodes[*self.producers.get(name)?];
        (node.op == op).then_some(node)
    }

    /// The node that alone reads what `node` makes, which is no output of the graph.
    fn only_reader(&self, node: &Node, op: &str) -> Option<(usize, &'a Node)> {
        let made = node.makes().next()?;
        let [reader] = self.consumers.get(made)?.as_slice() else { return None };
        let found = &self.graph.nodes[*reader];
        let shown = self.graph.output(made).is_some();
        (found.op == op && !shown).then_some((*reader, found))
    }
}
