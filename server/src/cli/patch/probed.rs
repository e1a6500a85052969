//! The features that a library's probes add, for the selectors that are fitted on them.

use std::path::Path;

use backstitch_client::analysis::FeatureVector;
use backstitch_client::probe::Probes;
use backstitch_client::session::Session;
use backstitch_onnx::Digest;
use backstitch_protocol::catalog::{Blob, ProbeEntry};

use super::primary::Primary;
use crate::cli::files::{self, Outcome};
use crate::registry::LibraryDescriptor;

/// A primary with the probes of its library.
pub(super) struct Probed {
    session: Session,
    probes: Probes,
}

impl Probed {
    /// `None` where the library has no probe. Files lie beside the primary.
    pub(super) fn read(
        path: &Path,
        library: &LibraryDescriptor,
        primary: &Primary,
    ) -> Outcome<Option<Self>> {
        if library.primary.probes.is_empty() {
            return Ok(None);
        }
        let mut entries = Vec::new();
        for probe in &library.primary.probes {
            let bytes = files::read(&path.with_file_name(&probe.file))?;
            let model = Blob { digest: Digest::of(&bytes), bytes: bytes.len() as u64 };
            let (name, site) = (probe.name.clone(), probe.site.clone());
            entries.push((
                ProbeEntry {
                    name,
                    site,
                    model,
                    features: probe.features.clone(),
                    described: probe.described.clone(),
                },
                bytes,
            ));
        }
        let sites = entries.iter().map(|(entry, _)| entry.site.clone()).collect();
        let session = primary.session(&sites)?;
        let probes = Probes::compile(&session, &entries)?;
        Ok(Some(Self { session, probes }))
    }

    /// Adds the features of one input.
    pub(super) fn add(&self, values: &[f32], features: &mut FeatureVector) -> Outcome<()> {
        let input = self.session.feed(self.session.input().1, values)?;
        self.probes.read(&self.session, &input, None, features, &|| 0.0)?;
        Ok(())
    }
}
