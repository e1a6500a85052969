//! `library.json`: what a library consists of, and the tasks that train its patches.

use backstitch_protocol::Problem;
use backstitch_protocol::id::Name;
use backstitch_protocol::privacy::{ClipNorm, Delta, Epsilon, NoiseMultiplier};
use backstitch_protocol::problem::Code;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::privacy::Promise;

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
    /// The graph output that is shown.
    pub output: String,
    /// Names of the classes, in order.
    #[serde(default)]
    pub labels: Vec<String>,
    /// How raw input becomes the tensor.
    #[serde(default)]
    pub preprocessing: serde_json::Value,
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
    /// ε of the promise for one device and period.
    pub epsilon: Epsilon,
    /// δ of the promise.
    pub delta: Delta,
    /// Factor on the mean update.
    pub server_learning_rate: f64,
    /// Share of the last step that is repeated, in [0, 1).
    pub server_momentum: f64,
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
        unique("patch", &self.patches)?;
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

fn unique(what: &str, names: &[Name]) -> Result<()> {
    match names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        Some((_, name)) => Err(invalid(format!("{what} `{name}` is named twice"))),
        None => Ok(()),
    }
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(Code::RequestInvalid, format!("library.json: {}", detail.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        r#"{ "format": 1, "name": "toy", "title": "T", "description": "D", "modality": "image",
             "primary": { "file": "primary.onnx", "input": "x", "output": "y" }, "patches": ["style"],
             "tasks": [ { "name": "style", "patches": ["style"], "goal": 8, "clip_norm": 1.0, "noise_multiplier": 2.39,
                          "max_participations": 4, "period_days": 30, "min_separation": 1, "epsilon": 4.0, "delta": 1e-6,
                          "server_learning_rate": 1.0, "server_momentum": 0.5 } ] }"#
            .to_owned()
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
            ("2.39", "0.0"),
        ] {
            assert!(text().contains(from));
            assert!(
                LibraryDescriptor::from_bytes(text().replace(from, to).as_bytes()).is_err(),
                "{to}"
            );
        }
    }
}
