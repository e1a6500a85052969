//! `backstitch patch eval`: what a patch wins on labelled data, base and patched on the very same inputs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backstitch_client::analysis::{Picture, Subject, analyse};
use backstitch_client::preprocessing::Plane;
use backstitch_client::random::SplitMix;
use backstitch_client::selection::{Candidate, Choice, CostLimit, select};
use backstitch_edge::data::Pictures;
use backstitch_edge::style::{noisy, tilted};
use backstitch_onnx::engine::infer;
use backstitch_onnx::patch::{Patch, PerformanceRow, check};
use backstitch_onnx::stitch::stitch;
use backstitch_onnx::{Digest, Dims, Model, Program, Value};
use backstitch_protocol::id::Name;
use clap::Args;

use super::files::{self, Outcome};
use super::npy;

/// Examples of one run of the engine.
const BATCH: usize = 50;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 2000;

/// Measure what patches win, base and patched on the same inputs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  backstitch patch eval patches/noise-reduction --primary primary.onnx --data data/test --noise 0.3
  backstitch patch eval patches/* --primary primary.onnx --data data/test --select

--data names a folder with inputs.npy and targets.npy, or the start of a pair of idx files:
data/test stands for data/test-images-idx3-ubyte.gz and data/test-labels-idx1-ubyte.gz.")]
pub struct Evaluate {
    /// Folders of patches, stitched together in this order.
    #[arg(required = true, value_name = "PATCH_DIR")]
    patches: Vec<PathBuf>,
    /// The primary model.
    #[arg(long, value_name = "FILE.onnx")]
    primary: PathBuf,
    /// Labelled examples.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The output whose largest element is the answer; the first one where it is left out.
    #[arg(long, value_name = "TENSOR")]
    output: Option<String>,
    /// Take only the first examples.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Pictures: the part of their contrast that is kept, before noise.
    #[arg(long, value_name = "SHARE")]
    contrast: Option<f64>,
    /// Pictures: turn by degrees, anticlockwise, before anything else.
    #[arg(long, value_name = "DEGREES", allow_negative_numbers = true)]
    tilt: Option<f64>,
    /// Pictures: add Gaussian noise of this deviation (pixels are 0 to 1), then clip.
    #[arg(long, value_name = "SIGMA")]
    noise: Option<f64>,
    /// Decides the noise and the resamples.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Let the patches' own selectors choose for each picture, as a client does without a cost limit.
    #[arg(long)]
    select: bool,
    /// Write the row into the patch's manifest; for one patch.
    #[arg(long)]
    write: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// Labelled inputs, one after another.
struct Examples {
    /// Of one input, with a batch of one.
    shape: Vec<usize>,
    values: Vec<f32>,
    classes: Vec<usize>,
}

/// Runs the command.
pub(super) fn run(command: &Evaluate) -> Outcome<()> {
    if command.write && command.patches.len() != 1 {
        return Err("--write takes one patch, whose manifest it changes".into());
    }
    let (primary, digest) = files::read_model(&command.primary)?;
    let patches: Vec<Patch> =
        command.patches.iter().map(|p| files::read_patch(p)).collect::<Outcome<_>>()?;
    let examples = command.examples()?;
    let answers = Answers::of(command, &primary, digest, &patches)?;
    let base = answers.right(&examples, &|_| Ok(Vec::new()))?;
    let patched = match command.select {
        true => answers.right(&examples, &|index| chosen(&patches, &examples, index))?,
        false => answers.right(&examples, &|_| Ok((0..patches.len()).collect()))?,
    };
    let row = row(command, &base, &patched);
    if command.write {
        write(&command.patches[0], &patches[0], &row)?;
    }
    match command.json {
        true => files::print_json(&serde_json::to_value(&row)?),
        false => {
            println!("{}", line(&row));
            Ok(())
        }
    }
}

impl Evaluate {
    fn slice(&self) -> String {
        let part = |name: &str, value: Option<f64>| value.map(|v| format!("{name} {v}"));
        let parts =
            [part("tilt", self.tilt), part("contrast", self.contrast), part("noise", self.noise)];
        let mut parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() {
            parts.push("as they are".to_owned());
        }
        if self.select {
            parts.push("selected automatically".to_owned());
        }
        parts.join(", ")
    }

    fn examples(&self) -> Outcome<Examples> {
        let mut examples = match self.data.join("inputs.npy").exists() {
            true => from_npy(&self.data)?,
            false => from_idx(&self.data)?,
        };
        let size: usize = examples.shape.iter().product();
        let count = self.limit.unwrap_or(usize::MAX).min(examples.classes.len());
        examples.classes.truncate(count);
        examples.values.truncate(count * size);
        if count == 0 {
            return Err("there is no example".into());
        }
        if self.tilt.or(self.contrast).or(self.noise).is_some() {
            let (width, height) = grey(&examples.shape).ok_or(
                "--tilt, --contrast and --noise need grey pictures of shape [1, 1, height, width]",
            )?;
            let mut draws = SplitMix::new(self.seed);
            for picture in examples.values.chunks_exact_mut(size) {
                let changed = self.change(picture, width, height, &mut draws);
                picture.copy_from_slice(&changed);
            }
        }
        Ok(examples)
    }

    fn change(
        &self,
        picture: &[f32],
        width: usize,
        height: usize,
        draws: &mut SplitMix,
    ) -> Vec<f32> {
        let mut picture = picture.to_vec();
        if let Some(degrees) = self.tilt {
            picture = tilted(&picture, width, height, degrees);
        }
        if let Some(share) = self.contrast {
            let mean = picture.iter().map(|p| f64::from(*p)).sum::<f64>() / picture.len() as f64;
            picture.iter_mut().for_each(|p| *p = (mean + share * (f64::from(*p) - mean)) as f32);
        }
        match self.noise {
            Some(sigma) => noisy(&picture, sigma, draws),
            None => picture,
        }
    }
}

/// Width and height of an input that is one grey picture.
fn grey(shape: &[usize]) -> Option<(usize, usize)> {
    match *shape {
        [1, 1, height, width] => Some((width, height)),
        _ => None,
    }
}

fn from_npy(folder: &Path) -> Outcome<Examples> {
    let inputs = npy::read(&folder.join("inputs.npy"))?;
    let targets = npy::read(&folder.join("targets.npy"))?.to_f64()?;
    let values = inputs.values::<f32>()?;
    match inputs.shape().split_first() {
        Some((count, rest)) if *count == targets.len() && targets.iter().all(|t| *t >= 0.0) => {
            let shape = [&[1], rest].concat();
            Ok(Examples { shape, values, classes: targets.into_iter().map(|t| t as usize).collect() })
        }
        _ => Err(format!(
            "inputs.npy has the shape {:?}, targets.npy {} class numbers; they do not belong together",
            inputs.shape(),
            targets.len()
        )
        .into()),
    }
}

fn from_idx(start: &Path) -> Outcome<Examples> {
    let file = |kind: &str| {
        let mut name = start.as_os_str().to_owned();
        name.push(kind);
        files::read(Path::new(&name))
    };
    let images = file("-images-idx3-ubyte.gz")
        .map_err(|e| format!("{e}; there is no {} either", start.join("inputs.npy").display()))?;
    let pictures = Pictures::read(&images, &file("-labels-idx1-ubyte.gz")?)?;
    let values = (0..pictures.len()).flat_map(|index| pictures.luminance(index)).collect();
    let classes = pictures.labels().iter().map(|c| usize::from(*c)).collect();
    Ok(Examples { shape: vec![1, 1, pictures.height, pictures.width], values, classes })
}

/// The patches that their selectors choose for one picture.
fn chosen(patches: &[Patch], examples: &Examples, index: usize) -> Outcome<Vec<usize>> {
    let (width, height) = grey(&examples.shape).ok_or("--select needs grey pictures")?;
    let size = width * height;
    let pixels = examples.values[index * size..][..size].to_vec();
    let luminance = Plane { width, height, pixels };
    let features = analyse(&Subject::Picture(Picture { luminance, colours: None }));
    let parts = patches
        .iter()
        .map(|p| {
            Ok((Name::new(&*p.manifest().name)?, p.manifest().selector.clone().unwrap_or_default()))
        })
        .collect::<Outcome<Vec<_>>>()?;
    let candidates: Vec<Candidate<'_>> = parts
        .iter()
        .map(|(name, selector)| Candidate {
            name,
            selector,
            has_effect: true,
            cost_ms: 0.0,
            cost_bytes: 0,
            replaces: &[],
            correction: 0.0,
        })
        .collect();
    let selection = select(&features, &candidates, &CostLimit::default(), 0.0, &Choice::Auto)?;
    Ok(selection.chosen().collect())
}

/// Runs every set of patches that is asked for, each stitched once.
struct Answers<'a> {
    primary: &'a Model,
    patches: &'a [Patch],
    output: String,
}

impl<'a> Answers<'a> {
    fn of(
        command: &Evaluate,
        primary: &'a Model,
        digest: Digest,
        patches: &'a [Patch],
    ) -> Outcome<Self> {
        let shapes = infer(primary, &Dims::new())?;
        for patch in patches {
            check(patch, primary, digest, &shapes)?;
        }
        if primary.graph.inputs.len() != 1 {
            return Err(format!(
                "the primary has {} inputs, one is needed",
                primary.graph.inputs.len()
            )
            .into());
        }
        let first = primary.graph.outputs.first().map(|o| o.name.clone());
        let output = command.output.clone().or(first).ok_or("the primary has no output")?;
        Ok(Self { primary, patches, output })
    }

    /// Whether each example is answered right with the set of patches that `set` gives for it.
    fn right(
        &self,
        examples: &Examples,
        set: &dyn Fn(usize) -> Outcome<Vec<usize>>,
    ) -> Outcome<Vec<bool>> {
        let mut groups: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
        for index in 0..examples.classes.len() {
            groups.entry(set(index)?).or_default().push(index);
        }
        let mut right = vec![false; examples.classes.len()];
        for (set, members) in groups {
            let patches: Vec<&Patch> = set.iter().map(|i| &self.patches[*i]).collect();
            let model = stitch(self.primary, &patches)?;
            let full = self.compile(&model, examples, BATCH.min(members.len()))?;
            for batch in members.chunks(BATCH) {
                let rest = match batch.len() < BATCH.min(members.len()) {
                    true => Some(self.compile(&model, examples, batch.len())?),
                    false => None,
                };
                let program = rest.as_ref().unwrap_or(&full);
                for (index, answer) in batch.iter().zip(self.answer(program, examples, batch)?) {
                    right[*index] = answer == examples.classes[*index];
                }
            }
        }
        Ok(right)
    }

    fn input(&self) -> &str {
        &self.primary.graph.inputs[0].name
    }

    fn compile(&self, model: &Model, examples: &Examples, batch: usize) -> Outcome<Program> {
        let shape = [&[batch], &examples.shape[1..]].concat();
        Ok(Program::compile(model, &Dims::from([(self.input().to_owned(), shape)]))?)
    }

    fn answer(
        &self,
        program: &Program,
        examples: &Examples,
        batch: &[usize],
    ) -> Outcome<Vec<usize>> {
        let size: usize = examples.shape.iter().product();
        let shape = [&[batch.len()], &examples.shape[1..]].concat();
        let values: Vec<f32> =
            batch.iter().flat_map(|i| &examples.values[i * size..][..size]).copied().collect();
        let fed = BTreeMap::from([(self.input().to_owned(), Value::f32(&shape, &values)?)]);
        let outputs = program.run(&fed)?;
        let output = outputs
            .get(&self.output)
            .ok_or_else(|| format!("there is no output `{}`", self.output))?;
        let scores = output.f32s()?;
        let largest =
            |row: &[f32]| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(0);
        Ok(scores.chunks(scores.len() / batch.len()).map(largest).collect())
    }
}

fn row(command: &Evaluate, base: &[bool], patched: &[bool]) -> PerformanceRow {
    let share = |right: &[bool]| right.iter().filter(|r| **r).count() as f64 / right.len() as f64;
    let changes: Vec<f64> =
        base.iter().zip(patched).map(|(b, p)| f64::from(i8::from(*p) - i8::from(*b))).collect();
    let data = command.data.file_name().unwrap_or(command.data.as_os_str());
    PerformanceRow {
        data: data.to_string_lossy().into_owned(),
        slice: command.slice(),
        metric: "accuracy".to_owned(),
        base: share(base),
        patched: share(patched),
        n: base.len() as u64,
        ci95: Some(interval(&changes, command.seed)),
    }
}

/// The 95 % percentile interval of the mean by the paired bootstrap (Efron, Tibshirani 1993, chapter 13).
fn interval(changes: &[f64], seed: u64) -> [f64; 2] {
    let mut draws = SplitMix::new(seed);
    let n = changes.len();
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| (0..n).map(|_| changes[draws.below(n)]).sum::<f64>() / n as f64)
        .collect();
    means.sort_by(f64::total_cmp);
    [means[RESAMPLES / 40], means[RESAMPLES - 1 - RESAMPLES / 40]]
}

fn line(row: &PerformanceRow) -> String {
    let [low, high] = row.ci95.unwrap_or_default();
    format!(
        "{}, {}: {} examples, accuracy {:.2} % base, {:.2} % patched, {:+.2} points (95 % between {:+.2} and {:+.2})",
        row.data,
        row.slice,
        row.n,
        100.0 * row.base,
        100.0 * row.patched,
        100.0 * (row.patched - row.base),
        100.0 * low,
        100.0 * high,
    )
}

/// Replaces the row of the same data and slice, or adds it.
fn write(folder: &Path, patch: &Patch, row: &PerformanceRow) -> Outcome<()> {
    let mut manifest = patch.manifest().clone();
    let same =
        |r: &PerformanceRow| (&r.data, &r.slice, &r.metric) == (&row.data, &row.slice, &row.metric);
    manifest.performance.retain(|r| !same(r));
    manifest.performance.push(row.clone());
    files::write(&folder.join("patch.json"), &manifest.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_mean_and_narrows() {
        let changes =
            |n: usize| -> Vec<f64> { (0..n).map(|i| f64::from(i8::from(i % 10 == 0))).collect() };
        let [low, high] = interval(&changes(200), 1);
        assert!(low < 0.1 && 0.1 < high && low > 0.0);
        let [narrow_low, narrow_high] = interval(&changes(5000), 1);
        assert!(narrow_high - narrow_low < (high - low) / 3.0);
        assert_eq!(interval(&[0.0; 50], 1), [0.0, 0.0]);
    }
}
