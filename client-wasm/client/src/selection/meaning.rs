//! What features are called where people read of them.

use std::collections::BTreeMap;

use backstitch_protocol::catalog::Catalog;

use super::reason::number;
use crate::analysis::descriptions;
use crate::report::FeatureInfo;

/// The words for the features of one library. A feature without any goes by its name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meanings(BTreeMap<String, FeatureInfo>);

impl Meanings {
    /// No words at all.
    pub const NONE: &'static Self = &Self(BTreeMap::new());

    /// Of what every client measures of such inputs, and of the library's own probes.
    pub fn of(catalog: &Catalog) -> Self {
        Self(features(catalog).into_iter().map(|info| (info.name.clone(), info)).collect())
    }

    /// Its label, with a large letter: `Looks out of focus`.
    pub(super) fn label(&self, feature: &str) -> String {
        let described = self.0.get(feature).filter(|info| info.label != feature);
        let Some(info) = described else { return feature.to_owned() };
        let mut letters = info.label.chars();
        let first = letters.next().map(|letter| letter.to_uppercase().to_string());
        first.unwrap_or_default() + letters.as_str()
    }

    /// A value with what it can be compared with: `0.32 of 1` where the range ends, `12 words` where there is a unit.
    pub(super) fn value(&self, feature: &str, value: f64) -> String {
        let shown = number(value);
        let Some(info) = self.0.get(feature) else { return shown };
        match (info.range.split_once(" to "), info.unit.as_str()) {
            (Some((_, end)), _) if end.parse::<f64>().is_ok() => format!("{shown} of {end}"),
            (_, unit) if unit.is_empty() || unit.contains([' ', ',']) => shown,
            (_, unit) => format!("{shown} {unit}"),
        }
    }
}

/// What features of a library mean: those that every client measures of such inputs, then those of its probes.
pub fn features(catalog: &Catalog) -> Vec<FeatureInfo> {
    let measured = descriptions(&catalog.modality).iter().map(FeatureInfo::from);
    let learned = catalog
        .primary
        .probes
        .iter()
        .flat_map(|probe| probe.features.iter().map(|name| FeatureInfo::of_probe(probe, name)));
    measured.chain(learned).collect()
}
