//! What a model takes and answers: the sizes that its input leaves open, and the tensor that is its answer.

use crate::engine::Shapes;
use crate::error::{Code, Error, Result};
use crate::model::{Dim, Model, ValueInfo};

impl Model {
    /// The model that takes inputs of this shape, given for one example. The first dimension stays as it is declared:
    /// it counts examples. Refuses a shape that the declared one excludes.
    pub fn taking(mut self, input: &str, shape: &[usize]) -> Result<Self> {
        self.require(input)?;
        let Some(info) = self.graph.inputs.iter_mut().find(|info| info.name == input) else {
            return Err(Error::new(
                Code::InputMismatch,
                format!("`{input}` is no input of the model"),
            ));
        };
        let declared = info.shape.clone().unwrap_or_else(|| vec![Dim::Unknown; shape.len()]);
        let fits = |(dim, size): (&Dim, &usize)| !matches!(dim, Dim::Fixed(n) if n != size);
        if declared.len() != shape.len() || !declared.iter().zip(shape).all(fits) {
            return Err(Error::new(
                Code::InputMismatch,
                format!(
                    "an input of the shape {shape:?} does not fit `{input}`, which takes {}",
                    in_words(&declared)
                ),
            ));
        }
        let sizes = declared.into_iter().zip(shape).enumerate();
        let fixed =
            sizes.map(|(axis, (dim, size))| if axis == 0 { dim } else { Dim::Fixed(*size) });
        info.shape = Some(fixed.collect());
        Ok(self)
    }

    /// The model whose first output is this tensor, whether or not it was an output before. `shapes` come from
    /// [`crate::engine::infer`].
    pub fn answering(mut self, output: &str, shapes: &Shapes) -> Result<Self> {
        self.require(output)?;
        if let Some(index) = self.graph.outputs.iter().position(|info| info.name == output) {
            self.graph.outputs.swap(0, index);
            return Ok(self);
        }
        let made = self.graph.nodes.iter().any(|node| node.makes().any(|name| name == output));
        let (dtype, _) = shapes.get(output).filter(|_| made).ok_or_else(|| {
            Error::new(
                Code::InputMismatch,
                format!("`{output}` cannot answer: no node makes it, or its type is not known"),
            )
            .with_hint("choose a tensor between the last features and the output")
        })?;
        let info = ValueInfo { name: output.to_owned(), dtype: *dtype, shape: None };
        self.graph.outputs.insert(0, info);
        Ok(self)
    }
}

impl ValueInfo {
    /// Whether a size after the first, which counts examples, is left open.
    pub fn is_open(&self) -> bool {
        let open = |dims: &Vec<Dim>| dims.iter().skip(1).any(|dim| !matches!(dim, Dim::Fixed(_)));
        self.shape.as_ref().is_none_or(open)
    }

    /// Its declared shape, such as `[N, 3, ?, 224]`.
    pub fn shape_in_words(&self) -> String {
        self.shape.as_deref().map_or_else(|| "of any rank".to_owned(), in_words)
    }
}

fn in_words(dims: &[Dim]) -> String {
    let each = dims.iter().map(|dim| match dim {
        Dim::Fixed(size) => size.to_string(),
        Dim::Symbol(symbol) => symbol.clone(),
        Dim::Unknown => "?".to_owned(),
    });
    format!("[{}]", each.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Dims, infer};
    use crate::model::{Graph, Node};
    use crate::tensor::DType;

    /// `[N, 3, H, W]`, pooled, and a softmax of that.
    fn open() -> Model {
        let any = |symbol: &str| Dim::Symbol(symbol.to_owned());
        let info =
            |name: &str, shape| ValueInfo { name: name.to_owned(), dtype: DType::F32, shape };
        let graph = Graph {
            inputs: vec![info("x", Some(vec![any("N"), Dim::Fixed(3), any("H"), any("W")]))],
            outputs: vec![info("y", None)],
            nodes: vec![
                Node::new("GlobalAveragePool", &["x"], &["pooled"]),
                Node::new("Flatten", &["pooled"], &["logits"]),
                Node::new("Softmax", &["logits"], &["y"]),
            ],
            ..Graph::default()
        };
        Model { opset: 13, graph }
    }

    #[test]
    fn open_sizes_become_fixed_and_the_batch_stays_open() {
        assert!(open().graph.inputs[0].is_open());
        let fixed = open().taking("x", &[1, 3, 8, 6]).unwrap();
        assert_eq!(fixed.graph.inputs[0].shape_in_words(), "[N, 3, 8, 6]");
        assert!(!fixed.graph.inputs[0].is_open());
        assert_eq!(infer(&fixed, &Dims::new()).unwrap()["x"].1, [1, 3, 8, 6]);
        for odd in [vec![1, 1, 8, 6], vec![3, 8, 6]] {
            let refused = open().taking("x", &odd).unwrap_err();
            assert!(refused.message().contains("[N, 3, H, W]"), "{refused}");
        }
        assert!(open().taking("y", &[1, 3]).is_err());
    }

    #[test]
    fn a_tensor_inside_can_answer() {
        let shapes = infer(&open(), &Dims::new()).unwrap();
        let model = open().answering("logits", &shapes).unwrap();
        let names: Vec<&str> = model.graph.outputs.iter().map(|o| o.name.as_str()).collect();
        assert_eq!(names, ["logits", "y"]);
        assert_eq!(open().answering("y", &shapes).unwrap(), open());
        assert_eq!(open().answering("x", &shapes).unwrap_err().code(), Code::InputMismatch);
        assert_eq!(open().answering("z", &shapes).unwrap_err().code(), Code::UnknownTensor);
    }
}
