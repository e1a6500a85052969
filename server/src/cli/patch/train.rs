//! `backstitch patch train`: trains a patch on examples, with the gradients and the trainer of the client.

use std::path::PathBuf;
use std::sync::Arc;

use backstitch_client::examples::Example;
use backstitch_client::training::{Activation, Descent, Pace, Score, Trainer};
use backstitch_onnx::patch::{Manifest, Patch, Training};
use clap::Args;
use serde_json::{Value as Json, json};

use super::condition::Condition;
use super::data::{self, DataArgs, Examples};
use super::evaluate::with_manifest;
use super::primary::{Primary, PrimaryArgs};
use super::progress::Progress;
use crate::cli::files::{self, Outcome};

/// Train a patch on examples; its weights are written whenever they are the best so far.
#[derive(Debug, Args)]
#[command(after_help = format!("Examples:
  backstitch patch train my-head --primary model.onnx --data pictures --epochs 30
  backstitch patch train denoiser --primary primary.onnx --data data/pool --noise 0.3 --optimizer adam --learning-rate 0.002

{}

A training that is interrupted goes on from the best weights so far when it is started again; --fresh begins anew.", data::FORMS))]
pub(in crate::cli) struct Train {
    /// The patch's folder.
    #[arg(value_name = "PATCH_DIR")]
    patch: PathBuf,
    #[command(flatten)]
    primary: PrimaryArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    condition: Condition,
    #[command(flatten)]
    settings: Settings,
    /// Begin with the weights of patch.onnx, not with those of an earlier training.
    #[arg(long)]
    fresh: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// How to train; what is left out, the manifest says.
#[derive(Debug, Args)]
struct Settings {
    /// softmax_cross_entropy, sigmoid_cross_entropy, mean_squared_error or entropy.
    #[arg(long)]
    loss: Option<String>,
    /// Most passes over the examples.
    #[arg(long)]
    epochs: Option<usize>,
    /// Examples per step.
    #[arg(long)]
    batch: Option<usize>,
    /// Step size.
    #[arg(long)]
    learning_rate: Option<f32>,
    /// sgd or adam.
    #[arg(long)]
    optimizer: Option<String>,
    /// Share of the last step that is repeated; for sgd.
    #[arg(long)]
    momentum: Option<f32>,
    /// Share of the examples that only judges.
    #[arg(long, default_value_t = 0.2)]
    validation: f64,
    /// Epochs without a better judgement after which training ends.
    #[arg(long, default_value_t = 5)]
    patience: usize,
    /// Decides the split and the order of the examples.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Examples after the frozen part of the model.
type Activations = Vec<Arc<Activation>>;

/// A training, and how good its weights were.
struct Trained {
    before: Score,
    best: Score,
    best_epoch: usize,
    epochs: usize,
}

/// Runs the command.
pub(super) fn run(command: &Train) -> Outcome<()> {
    let primary = command.primary.read(Some(&command.data))?;
    let patch = command.open()?;
    primary.check(std::slice::from_ref(&patch))?;
    let trainer = Arc::new(Trainer::compile(&primary.session(&[].into())?, &[&patch])?);
    if trainer.training().loss == "softmax_cross_entropy"
        && trainer.training().output.is_none()
        && let Some(logits) = primary.before_softmax()
    {
        eprintln!(
            "note: the loss takes the softmax of `{}`, which is one already: `--output {logits}` trains better",
            primary.output
        );
    }
    let examples = command.data.read(&primary)?;
    if trainer.names_classes() {
        let read = trainer.training().output.as_deref().unwrap_or(&primary.output);
        examples.within(primary.places(read), &format!("`{read}`"))?;
        let own = patch.classes_at(read);
        own.map_or(Ok(()), |own| {
            examples.within(own, &format!("the head `{}`", patch.manifest().name))
        })?;
    }
    let (judging, learning) = examples.split(command.settings.validation, command.settings.seed)?;
    let (learning_count, judging_count) = (learning.len(), judging.len());
    let judging = activate(&trainer, command.in_condition(judging)?)?;
    let learning = activate(&trainer, command.in_condition(learning)?)?;
    let trained = command.train(&trainer, &patch, learning, &judging)?;
    if trained.best_epoch == 0 {
        return Err(format!(
            "{} epochs made nothing better than the start ({}); try a lower --learning-rate, more examples, or --patience above {}",
            trained.epochs,
            words(&trained.before),
            command.settings.patience
        )
        .into());
    }
    command.describe(&patch, &primary, &examples.labels, &trained, learning_count)?;
    let report = json!({
        "patch": patch.manifest().name, "parameters": trainer.parameter_count(),
        "examples": learning_count, "validation_examples": judging_count,
        "before": trained.before, "after": trained.best, "best_epoch": trained.best_epoch, "epochs": trained.epochs,
        "labels": examples.labels,
    });
    match command.json {
        true => files::print_json(&report),
        false => {
            println!(
                "{}: {} weights trained on {learning_count} examples, judged on {judging_count}: {} before, {} after epoch {} of {}",
                patch.manifest().name,
                trainer.parameter_count(),
                words(&trained.before),
                words(&trained.best),
                trained.best_epoch,
                trained.epochs
            );
            Ok(())
        }
    }
}

fn words(score: &Score) -> String {
    match score.accuracy > 0.0 {
        true => format!("{:.2} % right at loss {:.4}", 100.0 * score.accuracy, score.loss),
        false => format!("loss {:.4}", score.loss),
    }
}

fn activate(trainer: &Trainer, examples: Examples) -> Outcome<Activations> {
    let progress = Progress::new();
    let all = examples.len();
    let shape = examples.shape;
    let mut activations = Vec::with_capacity(all);
    for (index, (values, target)) in examples.inputs.into_iter().zip(examples.targets).enumerate() {
        progress.count("preparing example", index, all);
        let example = Example { id: index as u64, shape: shape.clone(), values, target };
        let activation = trainer.activate(&example);
        activations.push(Arc::new(activation.map_err(|e| format!("example {index}: {e}"))?));
    }
    Ok(activations)
}

impl Train {
    /// The patch, with the settings that this command changes.
    fn open(&self) -> Outcome<Patch> {
        if self.fresh {
            let weights = self.patch.join("weights.safetensors");
            if weights.exists() {
                std::fs::remove_file(&weights)
                    .map_err(|e| format!("cannot remove {}: {e}", weights.display()))?;
            }
        }
        let patch = files::read_patch(&self.patch)?;
        let mut manifest = patch.manifest().clone();
        if manifest.trainable.is_empty() {
            return Err(format!("the patch `{}` has no trainable tensor; list them under `trainable` in its manifest", manifest.name).into());
        }
        let training = manifest.training.get_or_insert_with(|| Training {
            loss: "softmax_cross_entropy".to_owned(),
            learning_rate: 0.05,
            batch: 16,
            epochs: 20,
            clip_norm: 1.0,
            optimizer: None,
            momentum: None,
            proximal: None,
            output: None,
            classes: None,
        });
        self.settings.change(training)?;
        with_manifest(&self.patch, &manifest)
    }

    /// The examples as they are and, where a condition is asked for, each in that condition too.
    fn in_condition(&self, examples: Examples) -> Outcome<Examples> {
        match self.condition.is_none() {
            true => Ok(examples),
            false => {
                let changed = self.condition.apply(&examples, self.settings.seed)?;
                Ok(examples.and(changed))
            }
        }
    }

    /// Trains until nothing gets better, and writes the best weights as they come.
    fn train(
        &self,
        trainer: &Arc<Trainer>,
        patch: &Patch,
        learning: Activations,
        judging: &Activations,
    ) -> Outcome<Trained> {
        let judging: Vec<&Activation> = judging.iter().map(|a| &**a).collect();
        let start = trainer.weights_of(&[patch])?;
        let before = trainer.score(&judging, &start)?;
        let epochs = trainer.training().epochs;
        let pace = Pace { epochs, seed: self.settings.seed };
        let mut descent = Descent::start(trainer.clone(), learning, start, pace)?;
        let progress = Progress::new();
        let mut trained = Trained { before, best: before, best_epoch: 0, epochs: 0 };
        let (mut loss, mut steps) = (0.0, 0);
        while let Some(step) = descent.step()? {
            (loss, steps) = (loss + f64::from(step), steps + 1);
            progress.say(&format!(
                "epoch {} of {epochs}, step {} of {}: loss {:.4}; best so far {}",
                trained.epochs + 1,
                descent.taken(),
                descent.steps(),
                loss / f64::from(steps),
                words(&trained.best)
            ));
            if !descent.is_between_epochs() {
                continue;
            }
            trained.epochs += 1;
            (loss, steps) = (0.0, 0);
            let score = trainer.score(&judging, descent.weights())?;
            if score.is_better_than(&trained.best) {
                (trained.best, trained.best_epoch) = (score, trained.epochs);
                let better = trainer.apply(patch, descent.weights())?;
                files::write(&self.patch.join("weights.safetensors"), &better.weights_bytes())?;
            } else if trained.epochs - trained.best_epoch >= self.settings.patience {
                break;
            }
        }
        Ok(trained)
    }

    /// Writes into the manifest how the weights came about, and the names of own classes.
    fn describe(
        &self,
        patch: &Patch,
        primary: &Primary,
        labels: &[String],
        trained: &Trained,
        examples: usize,
    ) -> Outcome<()> {
        let mut manifest: Manifest = patch.manifest().clone();
        let mut provenance = match manifest.provenance.take() {
            Some(Json::Object(known)) => known,
            _ => serde_json::Map::new(),
        };
        provenance.insert(
            "trained".to_owned(),
            json!({
                "data": self.data.title(), "condition": self.condition.to_string(), "examples": examples,
                "epochs": trained.best_epoch, "seed": self.settings.seed, "validation": trained.best,
            }),
        );
        manifest.provenance = Some(Json::Object(provenance));
        if trained.best_epoch > 0 && !manifest.performance.is_empty() {
            manifest.performance.clear();
            eprintln!(
                "{}: what was measured with the weights before is taken out of the manifest; measure again with patch eval --write",
                manifest.name
            );
        }
        if !labels.is_empty() && labels != primary.labels {
            let answering = manifest.attachments.iter().find(|a| a.site() == primary.output);
            if let Some(attachment) = answering {
                let (output, _) = attachment.output();
                let described = json!({ output: { "labels": labels } });
                manifest.io.get_or_insert_default().outputs = Some(described);
            }
        }
        files::write(&self.patch.join("patch.json"), &manifest.to_bytes())
    }
}

impl Settings {
    fn change(&self, training: &mut Training) -> Outcome<()> {
        if !(self.validation > 0.0 && self.validation < 1.0) {
            return Err(format!("--validation {} is outside 0..1", self.validation).into());
        }
        if let Some(optimizer) = &self.optimizer {
            if !["sgd", "adam"].contains(&optimizer.as_str()) {
                return Err(format!("`{optimizer}` is no optimizer; use sgd or adam").into());
            }
            training.optimizer = Some(optimizer.clone());
        }
        if let Some(loss) = &self.loss {
            loss.parse::<backstitch_onnx::autodiff::Loss>()?;
            training.loss.clone_from(loss);
        }
        training.epochs = self.epochs.unwrap_or(training.epochs);
        training.batch = self.batch.unwrap_or(training.batch);
        training.learning_rate = self.learning_rate.unwrap_or(training.learning_rate);
        training.momentum = self.momentum.or(training.momentum);
        Ok(())
    }
}
