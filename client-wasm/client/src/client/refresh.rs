//! Picks up a newer catalog while the client runs, and puts personal weights on top of new shared ones.

use std::sync::Arc;

use backstitch_onnx::patch::Patch;
use backstitch_protocol::Problem;

use super::train::score;
use super::{Adapted, Client};
use crate::library::Library;
use crate::personal::Personal;
use crate::port::Port;
use crate::report::{Moved, RefreshResult};

impl<P: Port> Client<P> {
    /// Asks the server for a newer catalog and switches to it. Runs in flight end on what they began with. A catalog
    /// that is older, expired or wrongly signed is refused, and the client goes on as before.
    pub async fn refresh(&self) -> Result<RefreshResult, Problem> {
        self.check_open()?;
        let mut source = self.source.lock().await;
        let before = self.live();
        let Some(catalog) = source.refresh(&self.port, false).await? else {
            let catalog_version = before.library.catalog.version;
            return Ok(RefreshResult {
                changed: false,
                catalog_version,
                patches: Vec::new(),
                swap_ms: 0.0,
            });
        };
        let version = catalog.version;
        let loaded = Library::load(
            &self.port,
            &self.address,
            &self.workshop,
            catalog,
            Some(&before.library),
            &|_, _, _, _| {},
        );
        let library = Arc::new(loaded.await?);
        let mut personal = self.personal.lock().await;
        let began = self.port.now_ms();
        self.adapt(library, &personal).await?;
        let swap_ms = self.port.now_ms() - began;
        self.judge_personal(&mut personal).await?;
        let patches = moved(&before, &self.live());
        Ok(RefreshResult { changed: true, catalog_version: version, patches, swap_ms })
    }

    /// Makes a library the one that runs use, with this device's arms and personal weights.
    pub(super) async fn adapt(
        &self,
        library: Arc<Library>,
        personal: &Personal,
    ) -> Result<(), Problem> {
        let secret = self.device.lock().await.as_ref().ok().map(|device| *device.secret());
        let adapted = Adapted::of(library, secret.as_ref(), personal)?;
        self.live.replace(Arc::new(adapted));
        self.declare_costs();
        Ok(())
    }

    /// Decides anew whether personal weights are better than the shared ones, as these have moved. It rests on the
    /// activations that training has left; where there are none, the former decision stands.
    async fn judge_personal(&self, personal: &mut Personal) -> Result<(), Problem> {
        let live = self.live();
        let held_out: Vec<(u64, bool)> =
            self.examples.lock().await.all().iter().map(|e| (e.id, e.is_held_out())).collect();
        let any_held_out = held_out.iter().any(|(_, held)| *held);
        let mut moved = false;
        for slot in &live.slots {
            let Some(trained) = &slot.personal else { continue };
            let patches: [&Patch; 1] = [&slot.shared.patch];
            let (key, trainer) = self.workshop.trainer(&live.library.session, &patches)?;
            let judging: Vec<_> = {
                let activations = self.activations.borrow();
                let judges = held_out.iter().filter(|(_, held)| *held || !any_held_out);
                judges.filter_map(|(id, _)| activations.get(&(key, *id)).cloned()).collect()
            };
            if judging.is_empty() {
                continue;
            }
            let shared = score(&trainer, &judging, &trainer.weights_of(&patches)?)?;
            let own = score(&trainer, &judging, &trainer.weights_of(&[&trained.version.patch])?)?;
            let in_use = own.is_better_than(&shared);
            moved |= in_use != trained.in_use;
            personal.set_in_use(&self.port, &slot.shared.name, in_use).await?;
        }
        match moved {
            true => self.adapt(live.library.clone(), personal).await,
            false => Ok(()),
        }
    }
}

fn moved(before: &Adapted, after: &Adapted) -> Vec<Moved> {
    let number = |adapted: &Adapted, name| adapted.slot(name).map_or(0, |slot| slot.shared.number);
    let mut names = before.library.names();
    names.extend(after.library.names().into_iter().filter(|name| before.slot(name).is_none()));
    names.sort();
    names.dedup();
    names
        .into_iter()
        .map(|name| Moved {
            name: name.clone(),
            from: number(before, name),
            to: number(after, name),
        })
        .filter(|moved| moved.from != moved.to)
        .collect()
}
