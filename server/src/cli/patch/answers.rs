//! Runs a primary with and without patches over examples, and says how good each answer is.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use backstitch_client::examples::Target;
use backstitch_onnx::engine::infer;
use backstitch_onnx::patch::Patch;
use backstitch_onnx::stitch::stitch;
use backstitch_onnx::{Dim, Dims, Model, Program, Value};

use super::data::Examples;
use super::primary::Primary;
use super::progress::Progress;
use crate::cli::files::Outcome;

/// Examples of one run of the engine, where the primary takes several.
const BATCH: usize = 50;

/// What is measured of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    /// 1 for a right class, 0 for a wrong one.
    Accuracy,
    /// The mean squared difference to the target; less is better.
    SquaredError,
}

impl Metric {
    pub(super) fn of(examples: &Examples) -> Self {
        match examples.targets.first() {
            Some(Target::Values(_)) => Self::SquaredError,
            _ => Self::Accuracy,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::SquaredError => "mean squared error",
        }
    }

    /// What a change is worth: more is better.
    pub(super) fn gain(self, base: f64, patched: f64) -> f64 {
        match self {
            Self::Accuracy => patched - base,
            Self::SquaredError => base - patched,
        }
    }

    fn score(self, answer: &[f32], target: &Target) -> f64 {
        match (self, target) {
            (Self::Accuracy, Target::Class(class)) => {
                let largest = (0..answer.len()).max_by(|a, b| answer[*a].total_cmp(&answer[*b]));
                f64::from(u8::from(largest == Some(*class)))
            }
            (_, Target::Values(wanted)) => {
                let squares = answer.iter().zip(wanted).map(|(a, w)| f64::from(a - w).powi(2));
                squares.sum::<f64>() / wanted.len().max(1) as f64
            }
            _ => f64::NAN,
        }
    }
}

/// Whether an example's answer depends on those beside it: the levels of a `DynamicQuantizeLinear` are chosen by all
/// numbers of its tensor.
fn mixes_examples(model: &Model) -> bool {
    model.graph.nodes.iter().any(|node| node.op == "DynamicQuantizeLinear")
}

/// Whether the answers to several inputs stand one after another. They do not where the time comes first, nor where a
/// size inside is fixed to one example.
fn stacks_answers(primary: &Primary) -> bool {
    // Two batches: something else may be as long as one of them.
    [1, 2].into_iter().all(|batch| {
        let mut shape = primary.shape.clone();
        shape.iter_mut().take(1).for_each(|rows| *rows = batch);
        let shapes = infer(&primary.model, &Dims::from([(primary.input.clone(), shape)]));
        let answer = shapes.ok().and_then(|shapes| shapes.get(&primary.output).cloned());
        answer.is_some_and(|(_, shape)| shape.first() == Some(&batch))
    })
}

/// A program for a set of patches, by their indices, and a batch.
type Programs = BTreeMap<(Vec<usize>, usize), Rc<Program>>;

/// Stitches and compiles every set of patches once.
pub(super) struct Answers<'a> {
    primary: &'a Primary,
    patches: &'a [Patch],
    batch: usize,
    programs: RefCell<Programs>,
}

impl<'a> Answers<'a> {
    pub(super) fn new(primary: &'a Primary, patches: &'a [Patch]) -> Self {
        let first = primary.model.graph.inputs.first();
        let models = patches.iter().map(Patch::model).chain([&primary.model]);
        let batch = match first.and_then(|input| input.shape.as_ref()?.first()) {
            Some(Dim::Fixed(_)) => 1,
            _ if models.into_iter().any(mixes_examples) || !stacks_answers(primary) => 1,
            _ => BATCH,
        };
        Self { primary, patches, batch, programs: RefCell::default() }
    }

    /// The score of each example with the set of patches that `set` gives for it.
    pub(super) fn scores(
        &self,
        examples: &Examples,
        metric: Metric,
        set: &dyn Fn(usize) -> Outcome<Vec<usize>>,
    ) -> Outcome<Vec<f64>> {
        let mut groups: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
        for index in 0..examples.len() {
            groups.entry(set(index)?).or_default().push(index);
        }
        let (progress, mut done) = (Progress::new(), 0);
        let mut scores = vec![0.0; examples.len()];
        for (set, members) in groups {
            for batch in members.chunks(self.batch) {
                progress.say(&format!("running example {done} of {}", examples.len()));
                done += batch.len();
                let program = self.program(&set, batch.len())?;
                let answers = self.answers(&program, examples, batch)?;
                for (index, answer) in batch.iter().zip(&answers) {
                    scores[*index] = metric.score(answer, &examples.targets[*index]);
                }
            }
        }
        Ok(scores)
    }

    fn shape(&self, batch: usize) -> Vec<usize> {
        let mut shape = self.primary.shape.clone();
        if let Some(rows) = shape.first_mut() {
            *rows = batch;
        }
        shape
    }

    fn program(&self, set: &[usize], batch: usize) -> Outcome<Rc<Program>> {
        let key = (set.to_vec(), batch);
        if let Some(known) = self.programs.borrow().get(&key) {
            return Ok(known.clone());
        }
        let patches: Vec<&Patch> = set.iter().map(|i| &self.patches[*i]).collect();
        let whole = stitch(&self.primary.model, &patches)?;
        let model = whole.extract(&[&self.primary.input], &[&self.primary.output])?;
        let dims = Dims::from([(self.primary.input.clone(), self.shape(batch))]);
        let program = Rc::new(Program::compile(&model, &dims)?);
        self.programs.borrow_mut().insert(key, program.clone());
        Ok(program)
    }

    fn answers(
        &self,
        program: &Program,
        examples: &Examples,
        batch: &[usize],
    ) -> Outcome<Vec<Vec<f32>>> {
        let values: Vec<f32> = batch.iter().flat_map(|i| &examples.inputs[*i]).copied().collect();
        let fed = Value::numbers(self.primary.dtype, &self.shape(batch.len()), &values)?;
        let outputs = program.run_ordered(&[fed])?;
        let answer = outputs.first().ok_or("the primary has no output")?.f32s()?;
        Ok(answer.chunks(answer.len().max(1) / batch.len()).map(<[f32]>::to_vec).collect())
    }
}

#[cfg(test)]
mod tests {
    use backstitch_onnx::{Attribute, DType, Digest, Graph, Node, ValueInfo};

    use super::*;

    /// Takes `[N, 2]`, and answers with `y`.
    fn primary(nodes: Vec<Node>) -> Primary {
        let rows = vec![Dim::Symbol("N".to_owned()), Dim::Fixed(2)];
        let info =
            |name: &str, shape| ValueInfo { name: name.to_owned(), dtype: DType::F32, shape };
        let graph = Graph {
            inputs: vec![info("x", Some(rows))],
            outputs: vec![info("y", None)],
            nodes,
            ..Graph::default()
        };
        Primary {
            model: Model { opset: 13, graph },
            digest: Digest::of(b""),
            input: "x".to_owned(),
            dtype: DType::F32,
            shape: vec![1, 2],
            output: "y".to_owned(),
            shapes: BTreeMap::new(),
            labels: Vec::new(),
            preprocessing: serde_json::Value::Null,
            picture: None,
            probed: None,
        }
    }

    /// How far answers are from what was given.
    fn errors(primary: &Primary, inputs: &[[f32; 2]]) -> Vec<f64> {
        let examples = Examples {
            shape: vec![1, 2],
            inputs: inputs.iter().map(|x| x.to_vec()).collect(),
            targets: inputs.iter().map(|x| Target::Values(x.to_vec())).collect(),
            labels: Vec::new(),
            picture: None,
        };
        let answers = Answers::new(primary, &[]);
        answers.scores(&examples, Metric::SquaredError, &|_| Ok(Vec::new())).unwrap()
    }

    #[test]
    fn levels_of_an_example_are_its_own() {
        let quantised = primary(vec![
            Node::new("DynamicQuantizeLinear", &["x"], &["levels", "step", "zero"]),
            Node::new("Cast", &["levels"], &["level"]).with("to", Attribute::Int(1)),
            Node::new("Cast", &["zero"], &["nothing"]).with("to", Attribute::Int(1)),
            Node::new("Sub", &["level", "nothing"], &["steps"]),
            Node::new("Mul", &["steps", "step"], &["y"]),
        ]);
        let errors = |inputs: &[[f32; 2]]| errors(&quantised, inputs);
        // Beside a large example, a step is 100 / 255: the small one would be wrong by 0.1.
        let together = errors(&[[0.5, 0.3], [100.0, 0.0]]);
        assert_eq!(together, [errors(&[[0.5, 0.3]]), errors(&[[100.0, 0.0]])].concat());
        assert!(together[0] < 1e-5, "{together:?}");
    }

    #[test]
    fn answers_with_the_time_first_are_taken_one_by_one() {
        let turned = primary(vec![Node::new("Transpose", &["x"], &["y"])]);
        assert_eq!(errors(&turned, &[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), [0.0; 3]);
    }
}
