//! A library adapted to this device: its arms of running experiments, and what was trained here.

use std::sync::Arc;

use backstitch_onnx::stitch::STITCH_FORMAT;
use backstitch_protocol::Problem;
use backstitch_protocol::catalog::ExperimentEntry;
use backstitch_protocol::id::{Name, Part, VersionId};

use crate::experiment::assign;
use crate::library::{Library, Version};
use crate::personal::Personal;

/// One patch as this device may run it.
#[derive(Clone)]
pub struct Slot {
    /// The version that the catalog, or this device's arm, says.
    pub shared: Arc<Version>,
    /// The same with what was trained here.
    pub personal: Option<Trained>,
}

/// A version with weights that were trained here.
#[derive(Clone)]
pub struct Trained {
    /// The version.
    pub version: Arc<Version>,
    /// Whether runs use it.
    pub in_use: bool,
    /// Examples that it was trained on.
    pub examples: usize,
}

/// One immutable snapshot of everything that a run needs.
#[derive(Clone)]
pub struct Adapted {
    /// The library.
    pub library: Arc<Library>,
    /// Its patches, in stitching order.
    pub slots: Vec<Slot>,
}

impl Adapted {
    /// Chooses the versions. Without a secret the device is in no experiment.
    pub fn of(
        library: Arc<Library>,
        secret: Option<&[u8; 32]>,
        personal: &Personal,
    ) -> Result<Self, Problem> {
        let mut slots = Vec::new();
        for name in library.names() {
            let Some(number) = version_number(&library, secret, name)? else { continue };
            // A version that does not work here is left out: the primary answers without it.
            let Some(shared) = library.versions.get(&(name.clone(), number)).cloned() else {
                continue;
            };
            let trained = trained(&library, &shared, personal)?;
            slots.push(Slot { shared, personal: trained });
        }
        Ok(Self { library, slots })
    }

    /// The slot of a patch.
    pub fn slot(&self, name: &Name) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.shared.name == *name)
    }

    /// The version id of these versions stitched into the primary, in this order.
    pub fn version_id<'a>(&self, versions: impl IntoIterator<Item = &'a Version>) -> VersionId {
        let parts: Vec<Part> = versions.into_iter().map(Version::part).collect();
        VersionId::of(&self.library.session.digest(), &parts, STITCH_FORMAT)
    }
}

/// The version of a patch on this device: an experiment's arm decides, else the champion, else the newest. `None`
/// where an arm removes the patch.
fn version_number(
    library: &Library,
    secret: Option<&[u8; 32]>,
    name: &Name,
) -> Result<Option<u32>, Problem> {
    for experiment in &library.catalog.experiments {
        let arm = match secret {
            Some(secret) => assign(experiment, secret)?,
            None => None,
        };
        if let Some(number) = arm.and_then(|arm| arm.versions.get(name)) {
            return Ok((*number != 0).then_some(*number));
        }
    }
    let champion = library.alias(name, "champion").map(|version| version.number);
    let newest =
        || library.versions.keys().filter(|(n, _)| n == name).map(|(_, number)| *number).max();
    Ok(champion.or_else(newest))
}

fn trained(
    library: &Library,
    shared: &Version,
    personal: &Personal,
) -> Result<Option<Trained>, Problem> {
    let Some(change) = personal.change(&shared.name) else { return Ok(None) };
    let Some(tensors) = change.on(&shared.patch)? else { return Ok(None) };
    let version = Arc::new(shared.with_weights(&library.session, tensors)?);
    Ok(Some(Trained { version, in_use: change.in_use, examples: change.examples }))
}

/// The experiments that this device takes part in, with its arm.
pub(super) fn arms<'a>(
    library: &'a Library,
    secret: &[u8; 32],
) -> Result<Vec<(&'a ExperimentEntry, &'a backstitch_protocol::catalog::ArmEntry)>, Problem> {
    let mut arms = Vec::new();
    for experiment in &library.catalog.experiments {
        arms.extend(assign(experiment, secret)?.map(|arm| (experiment, arm)));
    }
    Ok(arms)
}
