//! Measures an input before the model answers, so that patches are chosen for what it is.
//!
//! Every feature is a pure function of its subject, computed in f64, and says what it means, its unit and
//! range and where it comes from: see [`descriptions`].

mod image;
mod series;
mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use series::{Series, Sliding};

use crate::preprocessing::Plane;

/// What an analysis looks at.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Subject {
    /// A picture.
    Picture(Picture),
    /// A text as it was given.
    Text(String),
    /// Samples on a common clock.
    Series(Series),
    /// Numbers without a meaning that is known here: they have no features.
    #[default]
    Numbers,
}

/// A picture as the model sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Its luminance.
    pub luminance: Plane,
    /// Red, green and blue, each 0 to 1 and row by row; `None` where the model takes luminance alone.
    pub colours: Option<[Vec<f32>; 3]>,
}

/// Feature values by name, such as `image.noise`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FeatureVector(pub BTreeMap<String, f64>);

impl FeatureVector {
    /// The value of a feature, or `None` where this input does not have it.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }
}

/// What a feature means, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Description {
    /// The name that selectors use.
    pub name: &'static str,
    /// Some words for people, with which a sentence can begin once its first letter is large.
    pub label: &'static str,
    /// The unit of its values.
    pub unit: &'static str,
    /// The values it can take.
    pub range: &'static str,
    /// What it measures.
    pub about: &'static str,
    /// Where the formula comes from.
    pub source: &'static str,
}

/// A row of a table of features.
const fn describe(
    name: &'static str,
    label: &'static str,
    unit: &'static str,
    range: &'static str,
    about: &'static str,
    source: &'static str,
) -> Description {
    Description { name, label, unit, range, about, source }
}

/// What the features of this kind of data mean: `image`, `text` or `series`. Every other kind has none.
pub fn descriptions(modality: &str) -> &'static [Description] {
    match modality {
        "image" => image::DESCRIPTIONS,
        "text" => text::DESCRIPTIONS,
        "series" => series::DESCRIPTIONS,
        _ => &[],
    }
}

/// The reference of all features as Markdown: `docs/FEATURES.md`.
pub fn reference() -> String {
    let mut text = "# Features\n\nWhat the client measures on an input before it selects patches. A selector's \
        `requires` and `gain` name these. Written by `cargo run -p backstitch-client --example features`.\n"
        .to_owned();
    text += "\nA library may add features of its own, named `probe.…`: small models that read one of the primary's own \
        activations, declared as `probes` in its `library.json` ([PATCHES.md](PATCHES.md)), which also says what pages call them.\n";
    for modality in ["image", "text", "series"] {
        text += &format!("\n## {modality}\n\n");
        text += "| feature | on pages | unit | range | meaning | source |\n";
        text += "| --- | --- | --- | --- | --- | --- |\n";
        for Description { name, label, unit, range, about, source } in descriptions(modality) {
            text += &format!("| `{name}` | {label} | {unit} | {range} | {about} | {source} |\n");
        }
    }
    text
}

/// The features of a subject.
pub fn analyse(subject: &Subject) -> FeatureVector {
    match subject {
        Subject::Picture(picture) => image::features(picture),
        Subject::Text(text) => text::features(text),
        Subject::Series(series) => series::features(series),
        Subject::Numbers => FeatureVector::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_says_what_the_code_says() {
        let committed = include_str!("../../../../docs/FEATURES.md");
        assert!(committed == reference(), "write docs/FEATURES.md anew; its head says how");
    }

    #[test]
    fn every_feature_has_one_name_a_unit_a_range_and_a_source() {
        let modalities = ["image", "text", "series"];
        let all: Vec<&Description> = modalities.iter().flat_map(|m| descriptions(m)).collect();
        let names: std::collections::BTreeSet<&str> = all.iter().map(|d| d.name).collect();
        assert_eq!(names.len(), all.len());
        for modality in modalities {
            assert!(
                descriptions(modality).iter().all(|d| d.name.starts_with(&format!("{modality}.")))
            );
        }
        let texts = all.iter().flat_map(|d| [d.label, d.unit, d.range, d.about, d.source]);
        assert!(texts.clone().all(|text| !text.is_empty() && !text.contains('|')));
        assert!(descriptions("smell").is_empty());
    }
}
