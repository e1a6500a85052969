//! What the selectors of patches choose, as a client does that has all the time it wants.

use std::collections::BTreeSet;
use std::sync::Arc;

use backstitch_client::library::Version;
use backstitch_client::selection::{Candidate, Choice, CostLimit, select};
use backstitch_client::session::Compiled;
use backstitch_onnx::patch::Patch;
use backstitch_protocol::id::Name;

use super::data::Examples;
use super::primary::Primary;
use crate::cli::files::Outcome;

/// Patches among which the clients' own selection chooses.
pub(super) struct Chooser<'a> {
    primary: &'a Primary,
    versions: Vec<Version>,
}

impl<'a> Chooser<'a> {
    /// Of patches that fit the primary.
    pub(super) fn new(primary: &'a Primary, patches: &[Patch]) -> Outcome<Self> {
        let attachments = || patches.iter().flat_map(|p| &p.manifest().attachments);
        let sites: BTreeSet<String> = attachments()
            .flat_map(|a| a.inputs.values().map(String::as_str).chain([a.site()]))
            .map(str::to_owned)
            .collect();
        let session = primary.session(&sites)?;
        let version = |patch: &Patch| -> Outcome<Version> {
            let name = Name::new(&*patch.manifest().name)?;
            let compiled = Arc::new(Compiled::new(&session, patch)?);
            let weights = Arc::new(compiled.weights(&session, patch)?);
            Ok(Version::new(&session, name, 1, Arc::new(patch.clone()), compiled, weights)?)
        };
        Ok(Self { primary, versions: patches.iter().map(version).collect::<Outcome<_>>()? })
    }

    /// The patches that are chosen for one input.
    pub(super) fn choose(&self, examples: &Examples, index: usize) -> Outcome<Vec<usize>> {
        let features = examples.features(self.primary, index)?;
        let candidates: Vec<Candidate<'_>> =
            self.versions.iter().map(|v| v.candidate(0.0)).collect();
        let selection = select(&features, &candidates, &CostLimit::default(), 0.0, &Choice::Auto)?;
        Ok(selection.chosen().collect())
    }
}
