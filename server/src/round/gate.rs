//! The gate before a promotion: a candidate answers public held-out examples, and what is worse than the champion is
//! not promoted. The examples are the operator's own, so this costs no privacy.
//!
//! The same examples can point out which way a contribution should go at all: their gradient is the root that an
//! optional cosine gate compares every contribution with (Cao et al. 2021, FLTrust). That filter looks at one
//! contribution alone, and one that it refuses counts as zeros, so nobody's sensitivity changes.

use std::collections::BTreeMap;

use backstitch_onnx::autodiff::{Loss, Objective, differentiate};
use backstitch_onnx::patch::Patch;
use backstitch_onnx::stitch::stitch;
use backstitch_onnx::{Dim, Dims, Model, Program, Value};
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;

use crate::blob::Blobs;
use crate::failure::{Failure, Result, internal};
use crate::npy;
use crate::registry::LibraryDescriptor;
use crate::store::Connection;
use crate::task::TaskId;

/// Examples of one run of the engine.
const BATCH: usize = 64;

/// Examples of the root gradient.
const ROOT: usize = 256;

/// One-sided quantile of the normal distribution at 95 %.
const BEYOND_CHANCE: f64 = 1.645;

/// Two-sided quantile of the normal distribution at 95 %.
const INTERVAL: f64 = 1.96;

/// What a candidate came to beside the champion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// `accuracy`.
    pub metric: String,
    /// The champion's.
    pub base: f64,
    /// The candidate's.
    pub patched: f64,
    /// Examples.
    pub n: u64,
    /// 95 % interval of the difference, from the same examples under both.
    pub ci95: [f64; 2],
    /// Whether the candidate may be promoted: it is not worse beyond chance.
    pub passed: bool,
}

/// A task's primary with its public examples.
pub(crate) struct Gate {
    primary: Model,
    input: String,
    output: String,
    examples: Examples,
}

/// Labelled inputs, one after another.
pub(crate) struct Examples {
    /// Of one input, with a batch of one.
    shape: Vec<usize>,
    values: Vec<f32>,
    classes: Vec<usize>,
}

impl Examples {
    /// Reads two `.npy` files: inputs [n, …] as f32, or as bytes that stand for 0 to 1, and n class numbers as i64.
    pub(crate) fn read(inputs: &[u8], targets: &[u8]) -> Result<Self> {
        let inputs = npy::open(inputs).when_reading("the held-out inputs")?;
        let targets = npy::open(targets).when_reading("the held-out targets")?;
        let shape: Vec<usize> = inputs.shape().iter().map(|n| *n as usize).collect();
        if inputs.order() == npyz::Order::Fortran && shape.len() > 1 {
            return Err(Problem::new(
                Code::RequestInvalid,
                "the held-out inputs are stored in Fortran order",
            )
            .with_hint("save numpy.ascontiguousarray of them"));
        }
        let values = match inputs.try_data::<f32>() {
            Ok(data) => data.collect::<std::io::Result<Vec<f32>>>(),
            Err(inputs) => inputs
                .into_vec::<u8>()
                .map(|bytes| bytes.into_iter().map(|byte| f32::from(byte) / 255.0).collect()),
        }
        .when_reading("the held-out inputs, which must be f32 or u8")?;
        let classes =
            targets.into_vec::<i64>().when_reading("the held-out targets, which must be i64")?;
        let classes: Option<Vec<usize>> =
            classes.into_iter().map(|class| usize::try_from(class).ok()).collect();
        match (shape.split_first(), classes) {
            (Some((n, rest)), Some(classes)) if *n == classes.len() && !values.is_empty() => {
                Ok(Self { shape: [&[1], rest].concat(), values, classes })
            }
            _ => Err(Problem::new(
                Code::RequestInvalid,
                format!(
                    "held-out inputs of shape {shape:?} need as many targets, all of them class numbers"
                ),
            )),
        }
    }

    /// A batch from `first` on, filled up from the start where the examples end.
    fn batch(&self, first: usize, size: usize) -> (Vec<usize>, Vec<f32>, Vec<i64>) {
        let each: usize = self.shape.iter().product();
        let rows: Vec<usize> = (first..first + size).map(|row| row % self.classes.len()).collect();
        let values = rows.iter().flat_map(|row| &self.values[row * each..][..each]).copied();
        let classes = rows.iter().map(|row| self.classes[*row] as i64).collect();
        let mut shape = self.shape.clone();
        shape[0] = size;
        (shape, values.collect(), classes)
    }
}

impl Gate {
    /// The gate of a task, `None` where its library has no held-out examples for it.
    pub(crate) async fn load(
        connection: &mut Connection,
        blobs: &Blobs,
        task: &TaskId,
    ) -> Result<Option<Self>> {
        let row = sqlx::query("SELECT libraries.descriptor AS library_descriptor, primary_digest, evaluation FROM libraries JOIN tasks USING (library) WHERE library = ? AND task = ?")
            .bind(task.library.as_str())
            .bind(task.name.as_str())
            .fetch_one(connection)
            .await
            .while_doing("reading a task's held-out examples")?;
        let Some(files) = row.get::<Option<String>, _>("evaluation") else { return Ok(None) };
        let [inputs, targets]: [String; 2] =
            serde_json::from_str(&files).while_doing("reading a task's held-out examples")?;
        let library: LibraryDescriptor =
            serde_json::from_str(&row.get::<String, _>("library_descriptor"))
                .while_doing("reading a library")?;
        let blob = async |digest: &str| blobs.get(&digest.parse()?).await;
        let primary = blob(&row.get::<String, _>("primary_digest")).await?;
        let examples = Examples::read(&blob(&inputs).await?, &blob(&targets).await?)?;
        Ok(Some(Self::new(Model::from_bytes(&primary)?, &library, examples)))
    }

    pub(crate) fn new(primary: Model, library: &LibraryDescriptor, examples: Examples) -> Self {
        let (input, output) = (library.primary.input.clone(), library.primary.output.clone());
        Self { primary, input, output, examples }
    }

    /// Both on every example. Blocking work: half a second for a few hundred pictures.
    pub(crate) fn judge(&self, champion: &[Patch], candidate: &[Patch]) -> Result<Evaluation> {
        Ok(Evaluation::of(&self.right(champion)?, &self.right(candidate)?))
    }

    /// Whether each example is answered right.
    fn right(&self, patches: &[Patch]) -> Result<Vec<bool>> {
        let model = self.stitched(patches)?;
        let size = self.batch_size().min(BATCH);
        let dims = Dims::from([(self.input.clone(), self.examples.batch(0, size).0)]);
        let program = Program::compile(&model, &dims)?;
        let mut right = Vec::with_capacity(self.examples.classes.len());
        for first in (0..self.examples.classes.len()).step_by(size) {
            let (shape, values, classes) = self.examples.batch(first, size);
            let fed = BTreeMap::from([(self.input.clone(), Value::f32(&shape, &values)?)]);
            let outputs = program.run(&fed)?;
            let scores = outputs
                .get(&self.output)
                .ok_or_else(|| internal(format!("there is no output `{}`", self.output)))?
                .f32s()?;
            let rows = scores.chunks(scores.len() / size).zip(classes);
            right.extend(rows.map(|(row, class)| largest(row) == Some(class as usize)));
        }
        right.truncate(self.examples.classes.len());
        Ok(right)
    }

    /// The direction of steepest descent of the patches' trainable values on the public examples.
    pub(crate) fn root(&self, patches: &[Patch]) -> Result<Vec<f32>> {
        let model = self.stitched(patches)?;
        let loss =
            patches.iter().find_map(|p| p.manifest().training.as_ref()).map(|t| t.loss.as_str());
        if loss != Some("softmax_cross_entropy") {
            return Err(Problem::new(
                Code::RequestInvalid,
                "the cosine gate needs patches that are trained by softmax_cross_entropy",
            ));
        }
        let names: Vec<String> = patches
            .iter()
            .flat_map(|p| {
                p.weights().into_keys().map(move |name| format!("{}/{name}", p.manifest().name))
            })
            .collect();
        let trainable: Vec<&str> = names.iter().map(String::as_str).collect();
        let size = self.batch_size().min(ROOT).min(self.examples.classes.len());
        let mut dims = Dims::from([(self.input.clone(), self.examples.batch(0, size).0)]);
        let objective = Objective {
            loss: Loss::SoftmaxCrossEntropy,
            output: &self.output,
            trainable: &trainable,
        };
        let gradient = differentiate(&model, &objective, &dims)?;
        dims.insert("target".to_owned(), vec![size]);
        let program = Program::compile(&gradient, &dims)?;
        let mut direction: Vec<f32> = Vec::new();
        // A primary with a fixed batch is fed example by example.
        for first in (0..ROOT.min(self.examples.classes.len())).step_by(size) {
            let (shape, values, classes) = self.examples.batch(first, size);
            let mut fed = BTreeMap::from([
                (self.input.clone(), Value::f32(&shape, &values)?),
                ("target".to_owned(), Value::i64(&[size], &classes)?),
            ]);
            for patch in patches {
                for (name, tensor) in patch.weights() {
                    let name = format!("{}/{name}", patch.manifest().name);
                    fed.insert(name, Value::f32(tensor.shape(), &tensor.values::<f32>()?)?);
                }
            }
            let outputs = program.run(&fed)?;
            let mut one = Vec::new();
            for name in &names {
                let slope = outputs
                    .get(&format!("grad.{name}"))
                    .ok_or_else(|| internal(format!("there is no gradient of `{name}`")))?;
                one.extend(slope.f32s()?.iter().map(|v| -v));
            }
            direction.resize(one.len(), 0.0);
            direction.iter_mut().zip(one).for_each(|(sum, v)| *sum += v);
        }
        Ok(direction)
    }

    fn stitched(&self, patches: &[Patch]) -> Result<Model> {
        let patches: Vec<&Patch> = patches.iter().collect();
        Ok(stitch(&self.primary, &patches)?.extract(&[&self.input], &[&self.output])?)
    }

    /// 1 where the primary has a fixed batch.
    fn batch_size(&self) -> usize {
        let shape = self.primary.graph.inputs.iter().find(|i| i.name == self.input);
        match shape.and_then(|info| info.shape.as_ref()?.first()) {
            Some(Dim::Fixed(_)) => 1,
            _ => usize::MAX,
        }
    }
}

impl Evaluation {
    /// Whether the second is worse than the first by more than so many standard errors.
    pub(crate) fn is_worse_by(&self, deviations: f64) -> bool {
        let error = (self.ci95[1] - self.ci95[0]) / (2.0 * INTERVAL);
        self.patched - self.base + deviations * error < 0.0
    }

    /// From whether each example was answered right by the champion and by the candidate.
    fn of(champion: &[bool], candidate: &[bool]) -> Self {
        let n = champion.len() as f64;
        let share = |right: &[bool]| right.iter().filter(|r| **r).count() as f64 / n;
        let change = |(b, p): (&bool, &bool)| f64::from(i8::from(*p) - i8::from(*b));
        let changes: Vec<f64> = champion.iter().zip(candidate).map(change).collect();
        let mean = changes.iter().sum::<f64>() / n;
        let variance = changes.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        let error = (variance / n).sqrt();
        Self {
            metric: "accuracy".into(),
            base: share(champion),
            patched: share(candidate),
            n: champion.len() as u64,
            ci95: [mean - INTERVAL * error, mean + INTERVAL * error],
            passed: mean + BEYOND_CHANCE * error >= 0.0,
        }
    }
}

/// The cosine between an integer update and the root; `None` where one of them is zero.
pub(crate) fn cosine(update: &[i16], root: &[f32]) -> Option<f64> {
    let sum = |terms: &mut dyn Iterator<Item = f64>| terms.sum::<f64>();
    let dot = sum(&mut update.iter().zip(root).map(|(q, r)| f64::from(*q) * f64::from(*r)));
    let length = sum(&mut update.iter().map(|q| f64::from(*q).powi(2))).sqrt();
    let root = sum(&mut root.iter().map(|r| f64::from(*r).powi(2))).sqrt();
    (length > 0.0 && root > 0.0).then(|| dot / (length * root))
}

/// The first of the largest scores.
fn largest(row: &[f32]) -> Option<usize> {
    (0..row.len()).rev().max_by(|a, b| row[*a].total_cmp(&row[*b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worse_beyond_chance_does_not_pass() {
        let answers = |wrong: std::ops::Range<usize>| -> Vec<bool> {
            (0..400).map(|i| !wrong.contains(&i)).collect()
        };
        let champion = answers(0..40);
        let much_worse = Evaluation::of(&champion, &answers(0..70));
        assert!(!much_worse.passed && much_worse.ci95[1] < 0.0, "{much_worse:?}");
        // Two more wrong of 400 is chance, and better is better.
        assert!(Evaluation::of(&champion, &answers(0..42)).passed);
        let better = Evaluation::of(&champion, &answers(0..20));
        assert!(better.passed && (better.patched - better.base - 0.05).abs() < 1e-12, "{better:?}");
        assert!(Evaluation::of(&champion, &champion).passed, "the same is not worse");
        // Eight more wrong of 400 are beyond two and a half deviations, and within four.
        let worse = Evaluation::of(&champion, &answers(0..48));
        assert!(worse.is_worse_by(2.5) && !worse.is_worse_by(4.0), "{worse:?}");
        assert!(!better.is_worse_by(0.0) && !Evaluation::of(&champion, &champion).is_worse_by(0.0));
    }

    #[test]
    fn the_cosine_tells_along_from_against() {
        assert!((cosine(&[3, 4], &[0.3, 0.4]).unwrap() - 1.0).abs() < 1e-6);
        assert!((cosine(&[3, 4], &[-0.3, -0.4]).unwrap() + 1.0).abs() < 1e-6);
        assert_eq!(cosine(&[0, 0], &[1.0, 0.0]), None);
    }

    #[test]
    fn the_first_of_equal_scores_wins() {
        assert_eq!(largest(&[1.0, 3.0, 3.0]), Some(1));
    }
}
