//! Measures an input before the model answers, so that patches are chosen for what it is.
//!
//! Every feature is a pure function of the prepared input, computed in f64, and says what it means, its unit and
//! range and where it comes from in [`DESCRIPTIONS`].

mod image;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use image::DESCRIPTIONS;

use crate::preprocessing::Prepared;

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
    /// The unit of its values.
    pub unit: &'static str,
    /// The values it can take.
    pub range: &'static str,
    /// What it measures.
    pub about: &'static str,
    /// Where the formula comes from.
    pub source: &'static str,
}

/// The features of a prepared input. An input that is no picture has none.
pub fn analyse(prepared: &Prepared) -> FeatureVector {
    prepared.luminance.as_ref().map(image::features).unwrap_or_default()
}
