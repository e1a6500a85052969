//! `backstitch patch eval`: what a patch wins on labelled data, base and patched on the very same inputs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backstitch_onnx::patch::{Cost, Gain, Manifest, Patch, PerformanceRow, Selector};
use clap::Args;
use serde_json::json;

use super::answers::{Answers, Metric};
use super::choose::Chooser;
use super::condition::Condition;
use super::data::{self, DataArgs, Examples, class};
use super::fit::{Slice, fit};
use super::measure::measure;
use super::primary::{Primary, PrimaryArgs};
use super::statistics::{interval, mean};
use crate::cli::files::{self, Outcome};

/// Measure what patches win, base and patched on the same inputs.
#[derive(Debug, Args)]
#[command(after_help = format!("Examples:
  backstitch patch eval patches/noise-reduction --primary primary.onnx --data data/test --slice none --slice noise=0.3
  backstitch patch eval patches/* --primary primary.onnx --data data/test --select
  backstitch patch eval my-patch --primary primary.onnx --data held-out --fit validation --write

{}", data::FORMS))]
pub(in crate::cli) struct Evaluate {
    /// Folders of patches, stitched together in this order.
    #[arg(required = true, value_name = "PATCH_DIR")]
    patches: Vec<PathBuf>,
    #[command(flatten)]
    primary: PrimaryArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    condition: Condition,
    /// A condition of its own row, such as none, noise=0.3 or contrast=0.3,noise=0.1; may be repeated.
    #[arg(long = "slice", value_name = "CONDITION", conflicts_with_all = ["tilt", "blur", "contrast", "noise"])]
    slices: Vec<Condition>,
    /// Add a row for each class.
    #[arg(long)]
    by_class: bool,
    /// Decides noise, splits and resamples.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Let the patches' own selectors choose for each input, as a client does without a cost limit.
    #[arg(long)]
    select: bool,
    /// Fit the patch's selector on these examples, which must be others than --data; for one patch.
    #[arg(long, value_name = "PATH")]
    fit: Option<PathBuf>,
    /// Fit the patch's selector on this share of --data, and measure on the rest; for one patch.
    #[arg(long, value_name = "SHARE", conflicts_with = "fit")]
    fit_share: Option<f64>,
    /// Write rows, cost and, where one was fitted, the selector into the patch's manifest; for one patch.
    #[arg(long)]
    write: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// What was found.
struct Report {
    rows: Vec<PerformanceRow>,
    selector: Option<Selector>,
    cost: Option<Cost>,
}

/// Runs the command.
pub(super) fn run(command: &Evaluate) -> Outcome<()> {
    let fits = command.fit.is_some() || command.fit_share.is_some();
    if (command.write || fits) && command.patches.len() != 1 {
        return Err("--write and --fit take one patch, whose manifest they change".into());
    }
    let primary = command.primary.read_with_probes(&command.data)?;
    let mut patches: Vec<Patch> =
        command.patches.iter().map(|p| files::read_patch(p)).collect::<Outcome<_>>()?;
    primary.check(&patches)?;
    let (for_fit, examples) = command.examples(&primary)?;
    let mut selector =
        for_fit.map(|examples| command.fit_selector(&primary, &patches, &examples)).transpose()?;
    if selector.is_some() {
        command.select_by(&mut patches, selector.as_ref())?;
    }
    let rows = command.rows(&primary, &patches, &examples)?;
    if command.write && patches[0].manifest().selector.as_ref().is_none_or(is_constant) {
        selector = wins_everywhere(&rows, Metric::of(&examples));
        command.select_by(&mut patches, selector.as_ref())?;
        if selector.is_none() {
            eprintln!(
                "{}: it does not win wherever it was measured, so clients stitch it only by name; --fit finds out when to choose it",
                patches[0].manifest().name
            );
        }
    }
    let cost = match patches.as_slice() {
        [patch] => Some(measure(&primary, patch, download_bytes(&command.patches[0])?)?),
        _ => None,
    };
    let report = Report { rows, selector, cost };
    if command.write {
        write(&command.patches[0], &patches[0], &report)?;
    }
    match command.json {
        true => files::print_json(&json!({
            "rows": report.rows, "selector": report.selector, "cost": report.cost,
        })),
        false => {
            print(&report);
            Ok(())
        }
    }
}

/// Whether it says the same of every input; then what is measured now says it better.
fn is_constant(selector: &Selector) -> bool {
    selector.requires.is_empty() && selector.gain.weights.is_empty()
}

/// The selector of a patch that wins in every row, whatever the input looks like: as much as where it wins least.
fn wins_everywhere(rows: &[PerformanceRow], metric: Metric) -> Option<Selector> {
    let whole = rows.iter().filter(|row| !row.slice.contains(", class "));
    let intercept = whole.map(|row| metric.gain(row.base, row.patched)).reduce(f64::min)?;
    (intercept > 0.0)
        .then(|| Selector { gain: Gain { intercept, ..Gain::default() }, ..Selector::default() })
}

impl Evaluate {
    /// Gives the one patch this selector or none, as its manifest will have it.
    fn select_by(&self, patches: &mut [Patch], selector: Option<&Selector>) -> Outcome<()> {
        let manifest = Manifest { selector: selector.cloned(), ..patches[0].manifest().clone() };
        patches[0] = with_manifest(&self.patches[0], &manifest)?;
        Ok(())
    }

    fn conditions(&self) -> Vec<Condition> {
        if self.slices.is_empty() { vec![self.condition] } else { self.slices.clone() }
    }

    /// Those for the selector, where one is fitted, and those that measure.
    fn examples(&self, primary: &Primary) -> Outcome<(Option<Examples>, Examples)> {
        let all = self.data.read(primary)?;
        match (&self.fit, self.fit_share) {
            (Some(path), _) => Ok((Some(self.data.read_from(path, primary)?), all)),
            (None, Some(share)) => {
                let (part, rest) = all.split(share, self.seed)?;
                Ok((Some(part), rest))
            }
            (None, None) => Ok((None, all)),
        }
    }

    fn fit_selector(
        &self,
        primary: &Primary,
        patches: &[Patch],
        examples: &Examples,
    ) -> Outcome<Selector> {
        let answers = Answers::new(primary, patches);
        let metric = Metric::of(examples);
        let mut slices = Vec::new();
        for condition in self.conditions() {
            // Other noise than the rows are measured with.
            let changed = condition.apply(examples, self.seed.wrapping_add(1))?;
            let base = answers.scores(&changed, metric, &|_| Ok(Vec::new()))?;
            let patched = answers.scores(&changed, metric, &|_| Ok(vec![0]))?;
            let gains = base.iter().zip(&patched).map(|(b, p)| metric.gain(*b, *p)).collect();
            let features =
                (0..changed.len()).map(|i| changed.features(primary, i)).collect::<Outcome<_>>()?;
            slices.push(Slice { is_plain: condition.is_none(), features, gains });
        }
        Ok(fit(&slices))
    }

    fn rows(
        &self,
        primary: &Primary,
        patches: &[Patch],
        examples: &Examples,
    ) -> Outcome<Vec<PerformanceRow>> {
        let answers = Answers::new(primary, patches);
        let metric = Metric::of(examples);
        let all: Vec<usize> = (0..patches.len()).collect();
        let fits = self.fit.is_some() || self.fit_share.is_some();
        let chooses = fits || self.select;
        let chooser = chooses.then(|| Chooser::new(primary, patches)).transpose()?;
        let mut rows = Vec::new();
        for condition in self.conditions() {
            let changed = condition.apply(examples, self.seed)?;
            let base = answers.scores(&changed, metric, &|_| Ok(Vec::new()))?;
            let mut add = |patched: &[f64], how: &str| {
                let slice = format!("{condition}{how}");
                if self.by_class {
                    rows.extend(self.class_rows(&slice, metric, &changed, (&base, patched)));
                }
                rows.push(self.row(slice, metric, &base, patched));
            };
            if fits || !self.select {
                add(&answers.scores(&changed, metric, &|_| Ok(all.clone()))?, "");
            }
            if let Some(chooser) = &chooser {
                let chosen = |index| chooser.choose(&changed, index);
                add(&answers.scores(&changed, metric, &chosen)?, ", selected automatically");
            }
        }
        Ok(rows)
    }

    fn row(&self, slice: String, metric: Metric, base: &[f64], patched: &[f64]) -> PerformanceRow {
        let changes: Vec<f64> = base.iter().zip(patched).map(|(b, p)| p - b).collect();
        PerformanceRow {
            data: self.data.title(),
            slice,
            metric: metric.as_str().to_owned(),
            base: mean(base),
            patched: mean(patched),
            n: base.len() as u64,
            ci95: Some(interval(&changes, self.seed)),
        }
    }

    fn class_rows(
        &self,
        slice: &str,
        metric: Metric,
        examples: &Examples,
        (base, patched): (&[f64], &[f64]),
    ) -> Vec<PerformanceRow> {
        let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, target) in examples.targets.iter().enumerate() {
            members.entry(class(target).unwrap_or_default()).or_default().push(index);
        }
        let of = |(class, members): (usize, Vec<usize>)| {
            let name = examples.labels.get(class).cloned().unwrap_or_else(|| class.to_string());
            let pick = |scores: &[f64]| members.iter().map(|i| scores[*i]).collect::<Vec<_>>();
            self.row(format!("{slice}, class {name}"), metric, &pick(base), &pick(patched))
        };
        members.into_iter().map(of).collect()
    }
}

fn print(report: &Report) {
    for row in &report.rows {
        println!("{}", line(row));
    }
    if let Some(selector) = &report.selector {
        let weights: Vec<String> =
            selector.gain.weights.iter().map(|(name, w)| format!("{w:+} · {name}")).collect();
        println!("selector: expected gain {:+} {}", selector.gain.intercept, weights.join(" "));
    }
    if let Some(cost) = &report.cost {
        let times: Vec<String> = cost
            .measured_ms
            .iter()
            .map(|m| format!("{} ms (95 %: {} ms) on {}", m.p50, m.p95, m.device))
            .collect();
        println!(
            "cost: {} multiply-accumulates, {} bytes of weights, {} bytes to download, {}",
            cost.macs,
            cost.parameter_bytes,
            cost.download_bytes,
            times.join("; ")
        );
    }
}

fn line(row: &PerformanceRow) -> String {
    let [low, high] = row.ci95.unwrap_or_default();
    let (scale, unit, points) = match row.metric.as_str() {
        "accuracy" => (100.0, " %", " points"),
        _ => (1.0, "", ""),
    };
    format!(
        "{}, {}: {} examples, {} {:.2}{unit} base, {:.2}{unit} patched, {:+.2}{points} (95 % between {:+.2} and {:+.2})",
        row.data,
        row.slice,
        row.n,
        row.metric,
        scale * row.base,
        scale * row.patched,
        scale * (row.patched - row.base),
        scale * low,
        scale * high,
    )
}

/// Bytes of the graph and, where a version ships them, of the weights.
fn download_bytes(folder: &Path) -> Outcome<u64> {
    let size = |file: &str| files::read(&folder.join(file)).map(|bytes| bytes.len() as u64);
    let weights = folder.join("weights.safetensors").exists();
    Ok(size("patch.onnx")? + if weights { size("weights.safetensors")? } else { 0 })
}

/// The patch in this folder with another manifest.
pub(super) fn with_manifest(folder: &Path, manifest: &Manifest) -> Outcome<Patch> {
    let weights = folder.join("weights.safetensors");
    let weights = weights.exists().then(|| files::read(&weights)).transpose()?;
    let graph = files::read(&folder.join("patch.onnx"))?;
    Ok(Patch::from_parts(&manifest.to_bytes(), &graph, weights.as_deref())?)
}

/// Replaces the rows of the same data and slice, or adds them.
fn write(folder: &Path, patch: &Patch, report: &Report) -> Outcome<()> {
    let mut manifest = patch.manifest().clone();
    for row in &report.rows {
        let same = |r: &PerformanceRow| {
            (&r.data, &r.slice, &r.metric) == (&row.data, &row.slice, &row.metric)
        };
        manifest.performance.retain(|r| !same(r));
        manifest.performance.push(row.clone());
    }
    manifest.cost.clone_from(&report.cost);
    files::write(&folder.join("patch.json"), &manifest.to_bytes())
}
