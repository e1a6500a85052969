//! The compiled parts of training: frozen prefix, gradient step, evaluation.

use std::collections::BTreeMap;

use backstitch_onnx::autodiff::{Loss, Objective, differentiate};
use backstitch_onnx::cut::split_frozen_for;
use backstitch_onnx::engine::infer;
use backstitch_onnx::patch::{Patch, Training};
use backstitch_onnx::stitch::stitch;
use backstitch_onnx::{DType, Dim, Dims, Model, Program, Shapes, Tensor, Value};
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;

use super::judging::AnswerPrograms;
use crate::examples::{Example, Target};
use crate::residence::Resident;
use crate::session::{Session, feed};

/// Most examples in one step, whatever a manifest says.
const MAX_BATCH: usize = 256;

/// What the gradient graph reads of one example: the frozen tensors at the border to the trainable part.
#[derive(Clone, Debug)]
pub struct Activation {
    pub(super) tensors: Vec<Tensor>,
    pub(super) target: Target,
}

/// Everything compiled that training a set of patches needs.
#[derive(Debug)]
pub struct Trainer {
    pub(super) training: Training,
    pub(super) parameters: Vec<Parameter>,
    pub(super) batch: usize,
    pub(super) loss: Loss,
    /// The type of the model's input.
    input: Option<DType>,
    prefix: Option<Resident<Program>>,
    /// What the trainable part reads besides weights and target, with the shape of one example.
    border: Vec<Border>,
    /// Inputs: border, target, weights. Outputs: loss, gradients.
    step: Resident<Program>,
    pub(super) answer: AnswerPrograms,
    pub(super) answer_shape: Vec<usize>,
}

/// A trainable tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) patch: String,
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
}

#[derive(Debug)]
struct Border {
    name: String,
    shape: Vec<usize>,
    /// Whether the first dimension counts examples.
    batched: bool,
}

impl Activation {
    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.bytes().len()).sum()
    }
}

impl Trainer {
    /// Stitches the patches into the primary, differentiates what depends on their trainable tensors, and compiles.
    /// The first patch's manifest says how to train.
    ///
    /// Fails where no patch can be trained, or a gradient is missing; see `backstitch_onnx::patch::check_training`.
    pub fn compile(session: &Session, patches: &[&Patch]) -> Result<Self, Problem> {
        let training =
            patches.iter().find_map(|p| p.manifest().training.clone()).ok_or_else(|| {
                Problem::new(
                    Code::NothingToContribute,
                    "the patch's manifest does not say how to train it",
                )
            })?;
        let declared =
            session.model().graph.inputs.first().and_then(|info| info.shape.as_ref()?.first());
        let batch = training.batch.clamp(1, MAX_BATCH);
        let is_fixed = matches!(declared, Some(Dim::Fixed(_)));
        let together = match is_fixed || batch == 1 {
            true => None,
            false => Self::compile_for(session, patches, &training, batch)?,
        };
        // Where the batch is fixed or examples do not stand one after another, they are trained one by one.
        match together {
            Some(trainer) => Ok(trainer),
            None => Self::compile_for(session, patches, &training, 1)?.ok_or_else(|| {
                Problem::new(Code::Internal, "a batch of one cannot be told from one example")
            }),
        }
    }

    /// `None` where a batch is not its examples one after another, such as behind a site with the time first.
    fn compile_for(
        session: &Session,
        patches: &[&Patch],
        training: &Training,
        batch: usize,
    ) -> Result<Option<Self>, Problem> {
        let loss: Loss = training.loss.parse()?;
        let parameters = parameters(patches);
        let names: Vec<String> = parameters.iter().map(Parameter::stitched).collect();
        let trainable: Vec<&str> = names.iter().map(String::as_str).collect();
        let (input, shape) = session.input();
        let output = training.output.as_deref().unwrap_or(session.output().0);
        let whole = stitch(session.model(), patches)?.extract(&[input], &[output])?;
        let one = infer(&whole, &Dims::from([(input.to_owned(), shape.to_vec())]))?;
        let mut many_shape = shape.to_vec();
        if let Some(first) = many_shape.first_mut() {
            *first = batch;
        }
        let many = match infer(&whole, &Dims::from([(input.to_owned(), many_shape)])) {
            Ok(many) => many,
            // A size inside may be fixed to one example, whatever the input declares.
            Err(_) if batch > 1 => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Both parts declare the shapes that they are split for.
        let (prefix, mut answer) = split_frozen_for(&whole, &trainable, &one)?;
        let (_, suffix) = split_frozen_for(&whole, &trainable, &many)?;
        let Some(border) = border(&suffix, &one, &many, batch)? else { return Ok(None) };
        // Of both: something else may just be as long as the batch.
        let rows = |shapes: &Shapes| shapes.get(output).and_then(|(_, s)| s.first().copied());
        if (rows(&one), rows(&many)) != (Some(1), Some(batch)) {
            return if batch > 1 { Ok(None) } else { Err(no_row_for_each(output, &one)) };
        }
        let program = |model: Model, dims: Dims| session.residence().program(model, dims);
        let own = |model: &Model| dims_of(model, &one);
        let answer_shape = one.get(output).map_or_else(Vec::new, |(_, shape)| shape.clone());
        let together = (batch > 1).then(|| suffix.clone());
        let prefix = prefix.map(|p| (own(&p), p)).map(|(d, p)| program(p, d)).transpose()?;
        let objective = Objective { loss, output, trainable: &trainable };
        let gradient = differentiate(&suffix, &objective, &dims_of(&suffix, &many))?;
        let mut gradient_dims = dims_of(&gradient, &many);
        gradient_dims
            .extend(target_dims(loss, output, &many).map(|dims| ("target".to_owned(), dims)));
        answer.graph.promote(&trainable)?;
        let one_by_one = program(answer.clone(), own(&answer))?;
        let together = match together {
            Some(mut answer) => {
                answer.graph.promote(&trainable)?;
                let dims = dims_of(&answer, &many);
                Some(session.residence().program_when_needed(answer, dims))
            }
            None => None,
        };
        Ok(Some(Self {
            training: training.clone(),
            parameters,
            batch,
            loss,
            input: session.shapes().get(input).map(|(dtype, _)| *dtype),
            prefix,
            border,
            step: program(gradient, gradient_dims)?,
            answer: AnswerPrograms { one_by_one, together },
            answer_shape,
        }))
    }

    /// How the first patch's manifest wants it trained.
    pub fn training(&self) -> &Training {
        &self.training
    }

    /// Whether an example is one of those that the patch is trained on.
    pub fn learns_from(&self, target: &Target) -> bool {
        match (target, self.training.classes) {
            (Target::Class(class), Some(classes)) => *class < classes,
            _ => true,
        }
    }

    /// Examples that one run of the gradient takes.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Whether an answer can be right or wrong: where the loss is one of numbers, it is only near or far.
    pub fn names_classes(&self) -> bool {
        !matches!(self.loss, Loss::SigmoidCrossEntropy | Loss::MeanSquaredError)
    }

    /// Trainable numbers in all.
    pub fn parameter_count(&self) -> usize {
        self.parameters.iter().map(Parameter::len).sum()
    }

    /// Bytes of one example's activation, at four bytes a number.
    pub fn activation_bytes(&self) -> usize {
        self.border.iter().map(|border| 4 * border.shape.iter().product::<usize>()).sum()
    }

    /// Runs the frozen part on one example. Its result serves every later step and version.
    pub fn activate(&self, example: &Example) -> Result<Activation, Problem> {
        self.check_target(&example.target)?;
        let value = feed(self.input, &example.shape, &example.values)?;
        let made: BTreeMap<String, Value> = match &self.prefix {
            Some(prefix) => {
                let prefix = prefix.take()?;
                let outputs = prefix.run_ordered(std::slice::from_ref(&value))?;
                prefix.output_names().map(str::to_owned).zip(outputs).collect()
            }
            None => BTreeMap::new(),
        };
        // What the frozen part does not make is the model's input itself.
        let tensors = self.border.iter().map(|b| made.get(&b.name).unwrap_or(&value).to_tensor());
        let tensors = tensors.collect::<backstitch_onnx::Result<Vec<_>>>()?;
        Ok(Activation { tensors, target: example.target.clone() })
    }

    /// Loss and gradients of a batch of at most [`Trainer::batch`] examples, averaged over them.
    pub(super) fn gradient(
        &self,
        examples: &[&Activation],
        weights: &[Vec<f32>],
    ) -> Result<(f32, Vec<Value>), Problem> {
        let mut fed = self.stacked(examples)?;
        fed.extend(self.targets(examples)?);
        fed.extend(self.packed(weights)?);
        let mut outputs = self.step.take()?.run_ordered(&fed)?.into_iter();
        let loss = outputs.next().map(|l| l.f32s().map(|v| v[0])).transpose()?.unwrap_or(f32::NAN);
        Ok((loss, outputs.collect()))
    }

    /// The patches' current trainable tensors, in parameter order.
    pub fn weights_of(&self, patches: &[&Patch]) -> Result<Vec<Vec<f32>>, Problem> {
        let by_patch: BTreeMap<&str, BTreeMap<String, Tensor>> =
            patches.iter().map(|p| (p.manifest().name.as_str(), p.weights())).collect();
        self.parameters
            .iter()
            .map(|p| {
                let tensor =
                    by_patch.get(p.patch.as_str()).and_then(|weights| weights.get(&p.name));
                let tensor = tensor.filter(|t| t.shape() == p.shape).ok_or_else(|| {
                    Problem::new(
                        Code::VersionStale,
                        format!("{} has another shape now", p.stitched()),
                    )
                })?;
                Ok(tensor.values::<f32>()?)
            })
            .collect()
    }

    /// The patch with those of these weights that are its own.
    pub fn apply(&self, patch: &Patch, weights: &[Vec<f32>]) -> Result<Patch, Problem> {
        let own =
            self.parameters.iter().zip(weights).filter(|(p, _)| p.patch == patch.manifest().name);
        let tensors =
            own.map(|(p, values)| Ok((p.name.clone(), Tensor::new(p.shape.clone(), values)?)));
        Ok(patch.with_weights(tensors.collect::<backstitch_onnx::Result<_>>()?)?)
    }

    /// The weights as the engine reads them.
    pub(super) fn packed(&self, weights: &[Vec<f32>]) -> Result<Vec<Value>, Problem> {
        let pairs = self.parameters.iter().zip(weights);
        pairs.map(|(parameter, values)| Ok(Value::f32(&parameter.shape, values)?)).collect()
    }

    /// The border of a whole batch of at most so many examples.
    pub(super) fn stacked(&self, examples: &[&Activation]) -> Result<Vec<Value>, Problem> {
        let borders = self.border.iter().enumerate();
        borders.map(|(index, border)| self.stack(examples, index, border)).collect()
    }

    fn stack(
        &self,
        examples: &[&Activation],
        index: usize,
        border: &Border,
    ) -> Result<Value, Problem> {
        let first = &examples[0].tensors[index];
        if !border.batched {
            return Ok(Value::try_from(first)?);
        }
        let mut shape = border.shape.clone();
        // A short batch is filled up; the targets, or who asks, say which rows count.
        let rows = (0..self.batch).map(|row| &examples[row % examples.len()].tensors[index]);
        if let Some(rows) = shape.first_mut() {
            *rows = self.batch;
        }
        Ok(Value::joined(first.dtype(), &shape, rows.map(Tensor::bytes))?)
    }

    fn targets(&self, examples: &[&Activation]) -> Result<Option<Value>, Problem> {
        Ok(match self.loss {
            Loss::Entropy => None,
            Loss::SoftmaxCrossEntropy => {
                // An id of −1 is left out of the mean.
                let class = |row: usize| match examples.get(row).map(|e| &e.target) {
                    Some(Target::Class(class)) => *class as i64,
                    _ => -1,
                };
                let classes: Vec<i64> = (0..self.batch).map(class).collect();
                Some(Value::i64(&[self.batch], &classes)?)
            }
            Loss::SigmoidCrossEntropy | Loss::MeanSquaredError => {
                let count: usize = self.answer_shape.iter().product();
                let mut values = Vec::with_capacity(count * self.batch);
                for row in 0..self.batch {
                    if let Target::Values(target) = &examples[row % examples.len()].target {
                        values.extend(spread(target, count));
                    }
                }
                let mut shape = self.answer_shape.clone();
                if let Some(rows) = shape.first_mut() {
                    *rows = self.batch;
                }
                Some(Value::f32(&shape, &values)?)
            }
        })
    }

    fn check_target(&self, target: &Target) -> Result<(), Problem> {
        let count: usize = self.answer_shape.iter().product();
        let fits = match (self.loss, target) {
            (Loss::Entropy, _) => true,
            (Loss::SoftmaxCrossEntropy, Target::Class(class)) => *class < count,
            (Loss::SigmoidCrossEntropy | Loss::MeanSquaredError, Target::Values(v)) => {
                v.len() == count || (v.len() == 1 && self.training.output.is_some())
            }
            _ => false,
        };
        match fits {
            true => Ok(()),
            false => Err(Problem::new(
                Code::InputInvalid,
                format!(
                    "the target {target:?} does not fit {} over {count} numbers",
                    self.loss.as_str()
                ),
            )),
        }
    }
}

impl Parameter {
    /// Its name in the stitched model.
    fn stitched(&self) -> String {
        format!("{}/{}", self.patch, self.name)
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Trainable tensors in the order that client and server share: patches as given, names in byte order.
fn parameters(patches: &[&Patch]) -> Vec<Parameter> {
    let of = |patch: &&Patch| {
        let name = patch.manifest().name.clone();
        let one = move |(tensor, value): (String, Tensor)| Parameter {
            patch: name.clone(),
            name: tensor,
            shape: value.shape().to_vec(),
        };
        patch.weights().into_iter().map(one).collect::<Vec<_>>()
    };
    patches.iter().flat_map(of).collect()
}

/// `None` where a tensor of several examples is not theirs one after another.
fn border(
    suffix: &Model,
    one: &Shapes,
    many: &Shapes,
    batch: usize,
) -> Result<Option<Vec<Border>>, Problem> {
    let read = |info: &backstitch_onnx::ValueInfo| {
        let shape = |shapes: &Shapes| shapes.get(&info.name).map(|(_, shape)| shape.clone());
        let (Some(single), Some(several)) = (shape(one), shape(many)) else {
            return Err(Problem::new(
                Code::Internal,
                format!("the shape of `{}` is not known", info.name),
            ));
        };
        let mut stacked = single.clone();
        if let Some(rows) = stacked.first_mut() {
            *rows = batch;
        }
        let batched = single.first() == Some(&1) && stacked == several;
        let stacks = batched || single == several;
        Ok(stacks.then(|| Border { name: info.name.clone(), shape: single, batched }))
    };
    suffix.graph.inputs.iter().map(read).collect()
}

fn no_row_for_each(output: &str, one: &Shapes) -> Problem {
    let shape = one.get(output).map(|(_, shape)| shape.as_slice()).unwrap_or_default();
    let detail = format!("`{output}` of the shape {shape:?} has no row for each example");
    backstitch_onnx::Error::new(backstitch_onnx::Code::GradientUnsupported, detail)
        .with_hint("the loss needs a tensor whose first dimension counts examples")
        .into()
}

/// As many numbers as the loss reads: those of the target, or its only one for all of them.
pub(super) fn spread(target: &[f32], count: usize) -> impl Iterator<Item = f32> {
    target.iter().copied().cycle().take(count)
}

fn dims_of(model: &Model, shapes: &Shapes) -> Dims {
    let known = |name: &String| shapes.get(name).map(|(_, shape)| (name.clone(), shape.clone()));
    model.graph.inputs.iter().filter_map(|info| known(&info.name)).collect()
}

fn target_dims(loss: Loss, output: &str, many: &Shapes) -> Option<Vec<usize>> {
    let (dtype, shape) = many.get(output)?;
    match loss {
        Loss::Entropy => None,
        Loss::SoftmaxCrossEntropy => shape.first().map(|rows| vec![*rows]),
        _ if *dtype == DType::F32 => Some(shape.clone()),
        _ => None,
    }
}
