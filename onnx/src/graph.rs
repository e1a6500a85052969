//! Edits of a graph that keep it acyclic and single-assignment: order, pruning, fresh names, promotion of
//! weights to inputs, and extraction of the part between two sets of tensors.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use crate::dtypes;
use crate::engine::{self, Shapes};
use crate::error::{Code, Error, Result};
use crate::model::{Attribute, Dim, Graph, Model, Node, ValueInfo};
use crate::tensor::DType;

impl Node {
    /// The tensors this node reads: its inputs, and what its subgraphs read from around them.
    pub fn reads(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.inputs.iter().map(String::as_str).filter(|s| !s.is_empty()).collect();
        for subgraph in self.subgraphs() {
            names.extend(subgraph.captures());
        }
        names
    }

    /// The tensors this node makes, without absent optional ones.
    pub fn makes(&self) -> impl Iterator<Item = &str> {
        self.outputs.iter().map(String::as_str).filter(|s| !s.is_empty())
    }

    /// Renames every tensor this node reads, also in its subgraphs.
    pub fn rename_reads(&mut self, rename: &dyn Fn(&str) -> Option<String>) {
        for input in self.inputs.iter_mut().filter(|name| !name.is_empty()) {
            if let Some(new) = rename(input) {
                *input = new;
            }
        }
        for attribute in self.attributes.values_mut() {
            if let Attribute::Graph(subgraph) = attribute {
                let own: BTreeSet<String> =
                    subgraph.tensor_names().into_iter().map(str::to_owned).collect();
                for node in &mut subgraph.nodes {
                    node.rename_reads(&|name| if own.contains(name) { None } else { rename(name) });
                }
            }
        }
    }
}

impl Graph {
    /// For every tensor that a node makes, the index of that node.
    pub fn producers(&self) -> BTreeMap<&str, usize> {
        self.nodes
            .iter()
            .enumerate()
            .flat_map(|(index, node)| node.makes().map(move |name| (name, index)))
            .collect()
    }

    /// For every tensor that is read, the indices of the nodes that read it, each once, in order.
    pub fn consumers(&self) -> BTreeMap<&str, Vec<usize>> {
        let mut consumers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            for name in node.reads() {
                let readers = consumers.entry(name).or_default();
                if readers.last() != Some(&index) {
                    readers.push(index);
                }
            }
        }
        consumers
    }

    /// Every tensor of this graph: inputs, initializers and what nodes make. Subgraphs are not included.
    pub fn tensor_names(&self) -> BTreeSet<&str> {
        let made = self.nodes.iter().flat_map(Node::makes);
        let inputs = self.inputs.iter().map(|info| info.name.as_str());
        made.chain(inputs).chain(self.initializers.keys().map(String::as_str)).collect()
    }

    /// Whether this graph has a tensor of that name.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.initializers.contains_key(name)
            || self.inputs.iter().any(|info| info.name == name)
            || self.nodes.iter().any(|node| node.makes().any(|made| made == name))
    }

    /// The declared input of that name.
    pub fn input(&self, name: &str) -> Option<&ValueInfo> {
        self.inputs.iter().find(|info| info.name == name)
    }

    /// The declared output of that name.
    pub fn output(&self, name: &str) -> Option<&ValueInfo> {
        self.outputs.iter().find(|info| info.name == name)
    }

    /// A tensor name that neither this graph nor a subgraph uses: `base`, or `base` with a number.
    pub fn fresh(&self, base: &str) -> String {
        let mut taken = BTreeSet::new();
        self.all_names(&mut taken);
        if !taken.contains(base) {
            return base.to_owned();
        }
        let mut number = 1usize;
        loop {
            let name = format!("{base}.{number}");
            if !taken.contains(name.as_str()) {
                return name;
            }
            number += 1;
        }
    }

    /// The names that this graph reads from the graph around it.
    pub fn captures(&self) -> BTreeSet<&str> {
        let own = self.tensor_names();
        self.nodes.iter().flat_map(Node::reads).filter(|name| !own.contains(name)).collect()
    }

    /// Puts the nodes into topological order, keeping their order where it is free; also in subgraphs.
    /// Refuses a cycle, naming a node on it.
    pub fn sort(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            for attribute in node.attributes.values_mut() {
                if let Attribute::Graph(subgraph) = attribute {
                    subgraph.sort()?;
                }
            }
        }
        let order = self.topological_order()?;
        if order.iter().enumerate().all(|(position, index)| position == *index) {
            return Ok(());
        }
        let mut nodes: Vec<Option<Node>> =
            std::mem::take(&mut self.nodes).into_iter().map(Some).collect();
        self.nodes = order.into_iter().filter_map(|index| nodes[index].take()).collect();
        Ok(())
    }

    /// Removes nodes that lead to no output and initializers that nobody reads; keeps all inputs.
    pub fn prune(&mut self) {
        let outputs: Vec<&str> = self.outputs.iter().map(|info| info.name.as_str()).collect();
        let needed = self.ancestors(&outputs, &BTreeSet::new());
        let mut index = 0;
        self.nodes.retain(|_| {
            index += 1;
            needed.contains(&(index - 1))
        });
        let read: BTreeSet<String> = self
            .nodes
            .iter()
            .flat_map(Node::reads)
            .chain(self.outputs.iter().map(|info| info.name.as_str()))
            .map(str::to_owned)
            .collect();
        self.initializers.retain(|name, _| read.contains(name));
    }

    /// Turns initializers into graph inputs, appended in the given order, so that their values can be fed.
    pub fn promote(&mut self, names: &[&str]) -> Result<()> {
        for name in names {
            let tensor = self.initializers.remove(*name).ok_or_else(|| {
                Error::new(Code::UnknownTensor, format!("`{name}` is no initializer of the model"))
                    .with_hint(format!("initializers are {}", some_of(self.initializers.keys())))
            })?;
            self.inputs.push(ValueInfo::fixed(*name, tensor.dtype(), tensor.shape()));
        }
        Ok(())
    }

    /// The indices, in order, of the nodes that `tensors` depend on; the walk stops at the tensors in `stop`.
    pub(crate) fn ancestors(&self, tensors: &[&str], stop: &BTreeSet<&str>) -> BTreeSet<usize> {
        let producers = self.producers();
        let mut found = BTreeSet::new();
        let mut open: Vec<&str> = tensors.to_vec();
        while let Some(name) = open.pop() {
            if stop.contains(name) {
                continue;
            }
            if let Some(index) = producers.get(name)
                && found.insert(*index)
            {
                open.extend(self.nodes[*index].reads());
            }
        }
        found
    }

    /// The part of this graph made of the nodes at `indices`, with the initializers they read, and with these
    /// inputs and outputs, of which `types` says what the graph does not declare.
    pub(crate) fn part(
        &self,
        indices: &BTreeSet<usize>,
        inputs: &[&str],
        outputs: &[&str],
        types: &Types,
    ) -> Self {
        let nodes: Vec<Node> = indices.iter().map(|index| self.nodes[*index].clone()).collect();
        let mut read: BTreeSet<&str> = nodes.iter().flat_map(Node::reads).collect();
        read.extend(outputs);
        let fed: BTreeSet<&str> = inputs.iter().copied().collect();
        let initializers = self
            .initializers
            .iter()
            .filter(|(name, _)| read.contains(name.as_str()) && !fed.contains(name.as_str()))
            .map(|(name, tensor)| (name.clone(), tensor.clone()))
            .collect();
        let info = |name: &&str| self.value_info(name, types);
        Self {
            name: self.name.clone(),
            initializers,
            inputs: inputs.iter().map(info).collect(),
            outputs: outputs.iter().map(info).collect(),
            nodes,
        }
    }

    /// What is known about a tensor: as declared, unless inference found otherwise, else as inferred.
    fn value_info(&self, name: &str, types: &Types) -> ValueInfo {
        let inferred = types.inferred.get(name);
        if let Some(info) = self.input(name).or_else(|| self.output(name)) {
            return inferred.filter(|found| !agree(info, found)).unwrap_or(info).clone();
        }
        if let Some(tensor) = self.initializers.get(name) {
            return ValueInfo::fixed(name, tensor.dtype(), tensor.shape());
        }
        inferred.cloned().unwrap_or_else(|| ValueInfo {
            name: name.to_owned(),
            dtype: types.dtypes.get(name).copied().unwrap_or(DType::F32),
            shape: None,
        })
    }

    fn all_names<'a>(&'a self, taken: &mut BTreeSet<&'a str>) {
        taken.extend(self.tensor_names());
        for node in &self.nodes {
            taken.extend(node.inputs.iter().map(String::as_str));
            for subgraph in node.subgraphs() {
                subgraph.all_names(taken);
            }
        }
    }

    /// Kahn's algorithm over a heap of node indices: among the nodes that are ready, the earliest goes first.
    fn topological_order(&self) -> Result<Vec<usize>> {
        let producers = self.producers();
        let mut waiting = vec![0usize; self.nodes.len()];
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            for name in node.reads() {
                if let Some(producer) = producers.get(name) {
                    waiting[index] += 1;
                    readers[*producer].push(index);
                }
            }
        }
        let mut ready: BinaryHeap<Reverse<usize>> = waiting
            .iter()
            .enumerate()
            .filter(|(_, count)| **count == 0)
            .map(|(index, _)| Reverse(index))
            .collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(Reverse(index)) = ready.pop() {
            order.push(index);
            for reader in &readers[index] {
                waiting[*reader] -= 1;
                if waiting[*reader] == 0 {
                    ready.push(Reverse(*reader));
                }
            }
        }
        if let Some(stuck) = waiting.iter().position(|count| *count > 0) {
            return Err(Error::new(
                Code::ModelInvalid,
                format!("{} depends on its own result", self.nodes[stuck].describe()),
            )
            .with_hint("a graph must have no cycle"));
        }
        Ok(order)
    }
}

/// Whether a declaration has a shape that what inference found does not contradict.
fn agree(declared: &ValueInfo, found: &ValueInfo) -> bool {
    let (Some(declared), Some(found)) = (&declared.shape, &found.shape) else {
        return declared.shape.is_some();
    };
    let same = |(one, other): (&Dim, &Dim)| match (one, other) {
        (Dim::Fixed(one), Dim::Fixed(other)) => one == other,
        (Dim::Fixed(_), _) => false,
        _ => true,
    };
    declared.len() == found.len() && declared.iter().zip(found).all(same)
}

/// What is known about the tensors of a graph beyond its declarations.
pub(crate) struct Types {
    dtypes: BTreeMap<String, DType>,
    inferred: BTreeMap<String, ValueInfo>,
}

impl Types {
    /// By inference; where the engine cannot analyse the model, the dtypes alone.
    pub(crate) fn of(model: &Model) -> Self {
        Self {
            dtypes: dtypes::of(&model.graph),
            inferred: engine::declare(model).unwrap_or_default(),
        }
    }

    /// What a caller inferred for one size of everything.
    pub(crate) fn from_shapes(shapes: &Shapes) -> Self {
        let fixed = |(name, (dtype, shape)): (&String, &(DType, Vec<usize>))| {
            (name.clone(), ValueInfo::fixed(name, *dtype, shape))
        };
        Self { dtypes: BTreeMap::new(), inferred: shapes.iter().map(fixed).collect() }
    }
}

impl Model {
    /// Declares the shapes of outputs that lack one, as far as inference tells; checkers want them.
    pub(crate) fn declare_outputs(&mut self) {
        if self.graph.outputs.iter().all(|info| info.shape.is_some()) {
            return;
        }
        let inferred = engine::declare(self).unwrap_or_default();
        for info in self.graph.outputs.iter_mut().filter(|info| info.shape.is_none()) {
            if let Some(found) = inferred.get(&info.name) {
                found.clone_into(info);
            }
        }
    }

    /// The sub-model that computes `outputs` from `inputs`, which may be any tensors of the main graph. An
    /// initializer among `inputs` becomes an input. Refuses unknown names, and graph inputs that are needed
    /// but not listed.
    pub fn extract(&self, inputs: &[&str], outputs: &[&str]) -> Result<Self> {
        for name in inputs.iter().chain(outputs) {
            self.require(name)?;
        }
        let stop: BTreeSet<&str> = inputs.iter().copied().collect();
        let indices = self.graph.ancestors(outputs, &stop);
        let reads = indices.iter().flat_map(|index| self.graph.nodes[*index].reads());
        for name in reads.chain(outputs.iter().copied()) {
            if self.graph.input(name).is_some() && !stop.contains(name) {
                return Err(Error::new(
                    Code::InputMismatch,
                    format!("{outputs:?} also depend on the input `{name}`"),
                )
                .with_hint("list it among the inputs"));
            }
        }
        let declared =
            |name: &&&str| self.graph.input(name).or_else(|| self.graph.output(name)).is_some();
        let types = if inputs.iter().chain(outputs).all(|name| declared(&name)) {
            Types { dtypes: BTreeMap::new(), inferred: BTreeMap::new() }
        } else {
            Types::of(self)
        };
        Ok(Self { opset: self.opset, graph: self.graph.part(&indices, inputs, outputs, &types) })
    }

    /// An error that names `name` and tensors close to it, where the main graph has none of that name.
    pub(crate) fn require(&self, name: &str) -> Result<()> {
        if self.graph.has_tensor(name) {
            return Ok(());
        }
        let inputs = self.graph.inputs.iter().map(|info| info.name.as_str());
        let names: Vec<&str> =
            inputs.chain(self.graph.nodes.iter().flat_map(Node::makes)).collect();
        let alike = names.iter().filter(|other| other.contains(name) || name.contains(**other));
        let alike: Vec<&&str> = alike.collect();
        let hint =
            if alike.is_empty() { some_of(names.iter()) } else { some_of(alike.into_iter()) };
        Err(Error::new(Code::UnknownTensor, format!("the model has no tensor `{name}`"))
            .with_hint(format!("it has {hint}; `backstitch onnx inspect` lists all")))
    }
}

/// The first few of some names, for a hint.
pub(crate) fn some_of<T: std::fmt::Display>(names: impl Iterator<Item = T>) -> String {
    let shown: Vec<String> = names.take(6).map(|name| format!("`{name}`")).collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}
