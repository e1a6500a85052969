//! `library.json`: what a library consists of, and the tasks that train its patches.

use std::collections::BTreeMap;

use backstitch_protocol::Problem;
use backstitch_protocol::catalog::{Blob, FeatureText};
use backstitch_protocol::id::Name;
use backstitch_protocol::measure::{self, Measure};
use backstitch_protocol::privacy::{ClipNorm, Delta, Epsilon, NoiseMultiplier, ReportBudget};
use backstitch_protocol::problem::Code;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::privacy::{Band, Promise};

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LibraryDescriptor {
    /// 1.
    pub format: u32,
    /// The library's name.
    pub name: Name,
    /// For people.
    pub title: String,
    /// For people.
    pub description: String,
    /// `image`, `text` or `series`.
    pub modality: String,
    /// The primary model.
    pub primary: PrimaryDescriptor,
    /// Patches in stitching order; each is a folder in `patches`.
    pub patches: Vec<Name>,
    /// Federated tasks.
    #[serde(default)]
    pub tasks: Vec<TaskDescriptor>,
    /// What the reports of all experiments may tell about one device within a period.
    #[serde(default)]
    pub reports: ReportBudget,
    /// File with built-in samples.
    #[serde(default)]
    pub samples: Option<String>,
}

/// The primary model and how to feed and read it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrimaryDescriptor {
    /// The ONNX file, within the library.
    pub file: String,
    /// The graph input that takes the user's data.
    pub input: String,
    /// The tensor of the graph that answers: an output, or one inside, such as the logits before a softmax.
    pub output: String,
    /// Names of the classes, in order.
    #[serde(default)]
    pub labels: Vec<String>,
    /// How raw input becomes the tensor. A value `{"file": path}` names a file of the library.
    #[serde(default)]
    pub preprocessing: serde_json::Value,
    /// Small models that read the primary's own activations and add features before patches are chosen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<ProbeDescriptor>,
}

/// A learned probe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeDescriptor {
    /// The probe's name.
    pub name: Name,
    /// The tensor of the primary that it reads.
    pub site: String,
    /// The ONNX file, within the library.
    pub file: String,
    /// Names of the features, in the order of the probe's output; each begins with `probe.`.
    pub features: Vec<String>,
    /// What people read of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub described: BTreeMap<String, FeatureText>,
    /// What an import made of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<Blob>,
}

impl ProbeDescriptor {
    /// Checks the names; `taken` are the features of the probes before it.
    fn check(&self, taken: &mut Vec<String>) -> Result<()> {
        let named = |feature: &&String| feature.len() > 6 && feature.starts_with("probe.");
        if self.features.is_empty() || !self.features.iter().all(|feature| named(&feature)) {
            return Err(invalid(format!(
                "the features {:?} of probe {} are not names that begin with `probe.`",
                self.features, self.name
            )));
        }
        for feature in &self.features {
            if taken.contains(feature) {
                return Err(invalid(format!("two probes make the feature `{feature}`")));
            }
            taken.push(feature.clone());
        }
        if let Some(other) = self.described.keys().find(|name| !self.features.contains(name)) {
            let detail = format!("probe {} describes `{other}`, which it does not make", self.name);
            return Err(invalid(detail));
        }
        Ok(())
    }
}

/// One federated task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskDescriptor {
    /// The task's name.
    pub name: Name,
    /// Patches that are trained together, in parameter order.
    pub patches: Vec<Name>,
    /// Contributions that close a round, and the fixed divisor of the mean.
    pub goal: u32,
    /// L2 bound on one device's update.
    pub clip_norm: ClipNorm,
    /// σ / C of a release.
    pub noise_multiplier: NoiseMultiplier,
    /// k: rounds of a period that one device may be in.
    pub max_participations: u32,
    /// Days of a period.
    pub period_days: u32,
    /// Fewest releases between two contributions of one device.
    pub min_separation: u32,
    /// Releases in a row that share noise, at most `min_separation`; 1: every release has noise of its own.
    #[serde(default = "alone")]
    pub noise_band: u32,
    /// What devices measure beside the update, in the same frame and at the same cost.
    #[serde(default)]
    pub measures: Vec<Measure>,
    /// The share of devices whose update should be within the clip norm, in (0, 1): after each release the clip
    /// norm moves that way. Needs the measure `within_clip`.
    #[serde(default)]
    pub clip_quantile: Option<f64>,
    /// ε of the promise for one device and period.
    pub epsilon: Epsilon,
    /// δ of the promise.
    pub delta: Delta,
    /// Public examples on which every release is measured before it is promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<HeldOut>,
    /// The least cosine, in [−1, 1), between a contribution and the gradient on the public examples; one below it
    /// counts as zeros. Honest devices with unusual data are below 0 as well: look before you set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosine_gate: Option<f64>,
    /// How contributions become one update.
    #[serde(default)]
    pub aggregation: Aggregation,
    /// Factor on the mean update.
    pub server_learning_rate: f64,
    /// Share of the last step that is repeated, in [0, 1).
    pub server_momentum: f64,
    /// Whether a contribution needs a token, which a profile can draw once per release.
    #[serde(default = "required")]
    pub tokens: bool,
}

const fn required() -> bool {
    true
}

/// How contributions become one update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// The sum over the public goal: one contribution moves it by C at most.
    #[default]
    Mean,
    /// The contribution that is nearest to most others (Blanchard et al. 2017).
    Krum,
    /// Coordinate by coordinate (Yin et al. 2018).
    Median,
    /// The mean without the extremes of each coordinate (Yin et al. 2018).
    TrimmedMean,
}

/// Labelled examples, within the library. They are public: nobody's device has them alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOut {
    /// `.npy`, [n, …] without the batch dimension of the primary's input: f32, or u8 that stands for 0 to 1.
    pub inputs: String,
    /// `.npy`, n class numbers as i64.
    pub targets: String,
}

impl LibraryDescriptor {
    /// Reads and checks the file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let library: Self = serde_json::from_slice(bytes).when_reading("library.json")?;
        library.check()?;
        Ok(library)
    }

    fn check(&self) -> Result<()> {
        if self.format != 1 {
            return Err(invalid(format!("format {} is not 1", self.format)));
        }
        if !["image", "text", "series"].contains(&self.modality.as_str()) {
            return Err(invalid(format!(
                "modality `{}` is not image, text or series",
                self.modality
            )));
        }
        if self.reports.period_days == 0 {
            return Err(invalid("reports.period_days must be at least 1"));
        }
        unique("patch", &self.patches)?;
        let probes = &self.primary.probes;
        unique("probe", &probes.iter().map(|probe| probe.name.clone()).collect::<Vec<_>>())?;
        let mut features = Vec::new();
        probes.iter().try_for_each(|probe| probe.check(&mut features))?;
        unique("task", &self.tasks.iter().map(|t| t.name.clone()).collect::<Vec<_>>())?;
        self.tasks.iter().try_for_each(|task| task.check(&self.patches))?;
        // Two tasks would move the same champion under each other's rounds.
        let trained: Vec<Name> = self.tasks.iter().flat_map(|task| task.patches.clone()).collect();
        unique("trained patch", &trained)
    }
}

impl TaskDescriptor {
    /// What the task promises to each device.
    pub fn promise(&self) -> Promise {
        Promise {
            noise_multiplier: self.noise_multiplier,
            max_participations: self.max_participations,
            period_days: self.period_days,
            epsilon: self.epsilon,
            delta: self.delta,
        }
    }

    /// Values of a frame for this many parameters.
    pub fn frame_values(&self, parameters: u32) -> u32 {
        parameters.saturating_add(self.measures.len() as u32)
    }

    /// What the noise needs to be as promised.
    fn check_noise(&self) -> Result<()> {
        let task = &self.name;
        let refused =
            |what: String| Problem::new(Code::PrivacyInvalid, format!("task {task}: {what}"));
        Band::new(self.noise_band)?;
        measure::check(&self.measures)?;
        if self.noise_band > self.min_separation.max(1) {
            return Err(refused(format!(
                "noise_band {} is more than min_separation {}: two contributions of one device would meet in a release",
                self.noise_band, self.min_separation
            ))
            .with_hint("raise min_separation to noise_band, or lower noise_band"));
        }
        // They look at all contributions at once: the proof of the noise, which is about sums, does not hold for them.
        if self.aggregation != Aggregation::Mean {
            return Err(refused(format!(
                "aggregation {:?} contradicts differential privacy, which every task has: one contribution can move it by more than the clip norm",
                self.aggregation
            ))
            .with_hint("use mean; the norm bound, cosine_gate and evaluation keep attackers in bounds"));
        }
        if let Some(least) = self.cosine_gate {
            if !(-1.0..1.0).contains(&least) {
                return Err(refused(format!("cosine_gate {least} is not in [−1, 1)")));
            }
            if self.evaluation.is_none() {
                return Err(refused("cosine_gate needs public examples to compare with".into())
                    .with_hint("name their files in evaluation"));
            }
        }
        let Some(quantile) = self.clip_quantile else { return Ok(()) };
        if !(quantile > 0.0 && quantile < 1.0) {
            return Err(refused(format!("clip_quantile {quantile} is not in (0, 1)")));
        }
        if !self.measures.iter().any(|m| m.kind == measure::Kind::WithinClip) {
            return Err(refused("clip_quantile needs the measure within_clip".into())
                .with_hint(r#"add {"kind": "within_clip", "share": 0.1} to measures"#));
        }
        if self.noise_band > 1 {
            return Err(refused(
                "clip_quantile moves the clip norm at every release, noise_band needs it to stay".into(),
            )
            .with_hint("find the clip norm in a few rounds with noise_band 1, then fix it and widen the band"));
        }
        Ok(())
    }

    fn check(&self, patches: &[Name]) -> Result<()> {
        let task = &self.name;
        if self.patches.is_empty() || self.goal == 0 {
            return Err(invalid(format!(
                "task {task} needs at least one patch and a goal of at least 1"
            )));
        }
        unique("patch", &self.patches)?;
        if let Some(stranger) = self.patches.iter().find(|p| !patches.contains(p)) {
            return Err(invalid(format!(
                "task {task} trains `{stranger}`, which the library does not have"
            )));
        }
        self.check_noise()?;
        let rate = self.server_learning_rate;
        if !(rate.is_finite() && rate > 0.0 && (0.0..1.0).contains(&self.server_momentum)) {
            return Err(invalid(format!(
                "task {task}: server_learning_rate {rate} must be positive and server_momentum {} in [0, 1)",
                self.server_momentum
            )));
        }
        self.promise().check()
    }
}

fn alone() -> u32 {
    1
}

fn unique(what: &str, names: &[Name]) -> Result<()> {
    match names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        Some((_, name)) => Err(invalid(format!("{what} `{name}` is named twice"))),
        None => Ok(()),
    }
}

pub(super) fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(Code::RequestInvalid, format!("library.json: {}", detail.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        r#"{ "format": 1, "name": "toy", "title": "T", "description": "D", "modality": "image",
             "primary": { "file": "primary.onnx", "input": "x", "output": "y" }, "patches": ["style"],
             "tasks": [ { "name": "style", "patches": ["style"], "goal": 8, "clip_norm": 1.0, "noise_multiplier": 2.54,
                          "max_participations": 4, "period_days": 30, "min_separation": 1, "epsilon": 4.0, "delta": 1e-6,
                          "server_learning_rate": 1.0, "server_momentum": 0.5 } ] }"#
            .to_owned()
    }

    #[test]
    fn probes_make_features_of_their_own_names() {
        let with = |features: &str| {
            let probe = r#"{ "name": "p", "site": "x", "file": "p.onnx", "features": FEATURES }"#;
            let probes =
                format!(r#""output": "y", "probes": [{}]"#, probe.replace("FEATURES", features));
            LibraryDescriptor::from_bytes(text().replace(r#""output": "y""#, &probes).as_bytes())
        };
        assert!(with(r#"["probe.a", "probe.b"]"#).is_ok());
        for odd in ["[]", r#"["image.noise"]"#, r#"["probe."]"#, r#"["probe.a", "probe.a"]"#] {
            assert!(with(odd).unwrap_err().is(Code::RequestInvalid), "{odd}");
        }
    }

    #[test]
    fn a_patch_is_trained_by_one_task() {
        let mut library: serde_json::Value = serde_json::from_str(&text()).unwrap();
        let mut second = library["tasks"][0].clone();
        second["name"] = "again".into();
        library["tasks"].as_array_mut().unwrap().push(second);
        let refused = LibraryDescriptor::from_bytes(library.to_string().as_bytes()).unwrap_err();
        assert!(refused.detail().contains("trained patch `style`"), "{refused}");
    }

    #[test]
    fn a_library_is_read_and_bad_ones_are_refused() {
        let library = LibraryDescriptor::from_bytes(text().as_bytes()).unwrap();
        assert_eq!(library.tasks[0].goal, 8);
        for (from, to) in [
            ("\"format\": 1", "\"format\": 2"),
            ("\"image\"", "\"smell\""),
            ("[\"style\"], \"goal\"", "[\"other\"], \"goal\""),
            ("[\"style\"], \"goal\"", "[], \"goal\""),
            ("\"goal\": 8", "\"goal\": 0"),
            ("\"max_participations\": 4", "\"max_participations\": 5"),
            ("\"server_momentum\": 0.5", "\"server_momentum\": 1.0"),
            ("\"title\"", "\"titel\""),
            ("\"title\"", "\"reports\": {\"epsilon\": -1, \"period_days\": 30}, \"title\""),
            ("\"title\"", "\"reports\": {\"epsilon\": 1, \"period_days\": 0}, \"title\""),
            ("2.54", "0.0"),
            ("\"min_separation\": 1", "\"min_separation\": 2, \"noise_band\": 3"),
            ("\"min_separation\": 1", "\"min_separation\": 1, \"noise_band\": 0"),
            ("\"epsilon\"", "\"aggregation\": \"krum\", \"epsilon\""),
            ("\"epsilon\"", "\"cosine_gate\": 0.0, \"epsilon\""),
            ("\"epsilon\"", "\"clip_quantile\": 0.5, \"epsilon\""),
            (
                "\"epsilon\"",
                "\"measures\": [{\"kind\": \"within_clip\", \"share\": 0.9}], \"epsilon\"",
            ),
        ] {
            assert!(text().contains(from));
            assert!(
                LibraryDescriptor::from_bytes(text().replace(from, to).as_bytes()).is_err(),
                "{to}"
            );
        }
    }
}
