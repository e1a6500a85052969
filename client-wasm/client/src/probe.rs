//! Learned probes: what the primary's own activations tell about an input, before patches are chosen for it.
//!
//! A probe reads a tensor of the unpatched primary. The segments up to it run first, and the answer takes them over as
//! far as no chosen patch changes what they read; where one does, they run again.

use std::collections::BTreeSet;

use backstitch_onnx::{Program, Value, probe};
use backstitch_protocol::Problem;
use backstitch_protocol::catalog::ProbeEntry;
use backstitch_protocol::problem::Code;

use crate::analysis::FeatureVector;
use crate::session::{Plan, Reusable, Session};

/// The probes of a library, compiled.
#[derive(Default)]
pub struct Probes {
    each: Vec<Probe>,
    segments: BTreeSet<usize>,
}

struct Probe {
    site: String,
    features: Vec<String>,
    program: Program,
}

impl Probes {
    /// Compiles what a catalog names, given each probe's file.
    pub fn compile(session: &Session, entries: &[(ProbeEntry, Vec<u8>)]) -> Result<Self, Problem> {
        let each = entries
            .iter()
            .map(|(entry, file)| {
                let site = session.shapes().get(&entry.site).map(|(_, shape)| shape.as_slice());
                let program = probe::compile(file, site, entry.features.len()).map_err(|e| {
                    let place = format!("the probe {} at `{}`", entry.name, entry.site);
                    Problem::new(Code::CatalogInvalid, e.context(place).to_string())
                })?;
                let (site, features) = (entry.site.clone(), entry.features.clone());
                Ok(Probe { site, features, program })
            })
            .collect::<Result<Vec<_>, Problem>>()?;
        let sites: Vec<&str> = each.iter().map(|probe| probe.site.as_str()).collect();
        let segments = Plan::to(session, &sites)?.segments();
        Ok(Self { each, segments })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// The segments that run before patches are chosen.
    pub fn segments(&self) -> &BTreeSet<usize> {
        &self.segments
    }

    /// Runs the unpatched primary as far as the probes read it, and adds their features.
    pub fn read(
        &self,
        session: &Session,
        input: &Value,
        started: Option<Reusable>,
        features: &mut FeatureVector,
        clock: &dyn Fn() -> f64,
    ) -> Result<Reusable, Problem> {
        let sites: Vec<&str> = self.each.iter().map(|probe| probe.site.as_str()).collect();
        let reached = session.reach(&sites, input, started, clock)?;
        for probe in &self.each {
            let site = reached.tensor(&probe.site).cloned();
            let made = probe.program.run_ordered(&site.into_iter().collect::<Vec<_>>())?;
            let values = made.first().map(Value::f32s).transpose()?.unwrap_or_default();
            let named = probe.features.iter().cloned().zip(values.iter().map(|v| f64::from(*v)));
            // What is not a number counts as not measured.
            features.0.extend(named.filter(|(_, value)| value.is_finite()));
        }
        Ok(reached)
    }
}
