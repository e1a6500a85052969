//! Shows what would be contributed, decides whether it may be, and sends it exactly once.

use std::sync::Arc;

use backstitch_onnx::patch::Patch;
use backstitch_protocol::Problem;
use backstitch_protocol::catalog::TaskEntry;
use backstitch_protocol::contribution::{HEADER_BYTES, MEDIA_TYPE};
use backstitch_protocol::privacy::RhoQuanta;
use backstitch_protocol::problem::Code;
use backstitch_protocol::token::Token;
use serde::Deserialize;

use super::admission::is_refusal;
use super::train::Material;
use super::{Adapted, Client};
use crate::catalog::success;
use crate::contribution::{
    MIN_EXAMPLES, Pending, Prepared, Verdict, prepare, seed, verdict, within_clip,
};
use crate::device::Device;
use crate::ledger::{Kind, Ledger};
use crate::library::Version;
use crate::port::{Port, Request};
use crate::report::{ContributeResult, JudgedOn, PatchVersion, Preview, Reason};
use crate::training::{Comparison, Course, Pace};

/// The server's answer to a contribution.
#[derive(Deserialize)]
struct Receipt {
    #[serde(default)]
    duplicate: bool,
}

/// A contribution with the evidence for it.
struct Draft {
    prepared: Prepared,
    material: Material,
    comparison: Comparison,
    patches: Vec<PatchVersion>,
}

impl<P: Port> Client<P> {
    /// Trains from the shared weights, as [`Client::contribute`] would, and shows the exact bytes that would leave
    /// this device, what they cost, and why they would be refused now, if so. Nothing is sent.
    pub async fn preview(&self) -> Result<Preview, Problem> {
        self.check_open()?;
        let live = self.live();
        let task = first_task(&live)?.clone();
        let device = self.device.lock().await;
        let device = device.as_ref().map_err(Clone::clone)?;
        let draft = self.draft(&live, &task, device).await?;
        let ledger = device.ledger(&self.port).await;
        let consent = device.consent(&self.port).await;
        let refusal = self.refusal(consent, &ledger, &task, &draft);
        let spent =
            ledger.as_ref().map(|l| l.spent(&task, self.port.unix_seconds())).unwrap_or_default();
        let after = spent.checked_add(task.cost()).unwrap_or(RhoQuanta(u64::MAX));
        let frame = draft.prepared.contribution.encode();
        Ok(Preview {
            round: task.round,
            patches: draft.patches,
            parameters: task.parameters as usize,
            examples: draft.material.split.training,
            norm: draft.prepared.norm,
            clip_norm: task.clip_norm.value(),
            clipped: draft.prepared.clipped,
            frame_bytes: frame.len(),
            header_bytes: HEADER_BYTES,
            frame,
            values: draft.prepared.contribution.values().to_vec(),
            rho: task.cost().rho(),
            epsilon_after: after.epsilon(task.delta),
            shared: draft.comparison.before,
            trained: draft.comparison.after,
            refusal: refusal.as_ref().err().map(Reason::from),
            task: task.name,
        })
    }

    /// Contributes to the library's task, where consent, the device's ledger, the round and the training allow it;
    /// says why not otherwise. What was begun and never answered is sent again, byte for byte.
    ///
    /// Fails where the server could not be reached or refused: then calling again is safe.
    pub async fn contribute(&self) -> Result<ContributeResult, Problem> {
        self.check_open()?;
        // The round may have moved; a server that cannot be reached will say so below.
        let _unreachable = self.refresh().await;
        let live = self.live();
        let task = first_task(&live)?.clone();
        let device = self.device.lock().await;
        let sent = match device.as_ref() {
            Ok(device) => self.contribute_as(device, &live, &task).await,
            Err(problem) => Ok(Err(problem.clone())),
        };
        Ok(match sent? {
            Ok((receipt, bytes)) => ContributeResult {
                contributed: true,
                task: task.name,
                round: task.round,
                duplicate: receipt.duplicate,
                bytes,
                reason: None,
            },
            Err(refusal) => ContributeResult {
                contributed: false,
                task: task.name,
                round: task.round,
                duplicate: false,
                bytes: 0,
                reason: Some(Reason::from(&refusal)),
            },
        })
    }

    /// The outer result is that of sending, the inner one that of the gate before it.
    async fn contribute_as(
        &self,
        device: &Device,
        live: &Adapted,
        task: &TaskEntry,
    ) -> Result<Result<(Receipt, usize), Problem>, Problem> {
        if !device.consent(&self.port).await {
            return Ok(Err(consent_missing()));
        }
        let ledger = match device.ledger(&self.port).await {
            Ok(ledger) => ledger,
            Err(problem) => return Ok(Err(problem)),
        };
        let key = self.scope.key(&format!("pending/{}", task.name));
        let stored = self.port.load(&key).await?;
        let pending: Option<Pending> =
            stored.as_deref().and_then(|bytes| serde_json::from_slice(bytes).ok());
        let begun = pending.and_then(|pending| pending.frame(task));
        let frame = match begun {
            Some(frame) => frame,
            None => {
                // Cheap refusals come before any training.
                if let Err(refusal) = ledger.permit(task, self.port.unix_seconds()) {
                    return Ok(Err(refusal));
                }
                let draft = match self.draft(live, task, device).await {
                    Ok(draft) => draft,
                    Err(problem) => return Ok(Err(problem)),
                };
                if let Err(refusal) = worth_it(&draft) {
                    return Ok(Err(refusal));
                }
                draft.prepared.contribution.encode()
            }
        };
        // Before anything is written down: a token that is refused costs this device nothing.
        let token = match self.token(device, task).await {
            Err(problem) if is_refusal(&problem) => return Ok(Err(problem)),
            drawn => drawn?,
        };
        if !ledger.took_part(&task.name, task.round)
            && let Err(refusal) = self.write_down(device, task, (&key, stored), &frame).await
        {
            return Ok(Err(refusal));
        }
        self.send(device, task, &key, (frame, token)).await.map(Ok)
    }

    /// Writes the contribution and then the ledger: a crash in between costs nothing or is resumed, and never counts
    /// less. Of two pages that contribute at the same time, one is refused here.
    async fn write_down(
        &self,
        device: &Device,
        task: &TaskEntry,
        (key, stored): (&str, Option<Vec<u8>>),
        frame: &[u8],
    ) -> Result<(), Problem> {
        let pending = serde_json::to_vec(&Pending::new(task, frame))
            .map_err(|e| Problem::new(Code::StorageFailed, format!("the contribution: {e}")))?;
        let now = self.port.unix_seconds();
        device.ledger(&self.port).await?.permit(task, now)?;
        if !self.port.swap(key, stored.as_deref(), &pending).await? {
            let what = "another page of this device contributes just now";
            return Err(Problem::new(Code::Conflict, what).with_hint("look at what it says"));
        }
        let append = |ledger: &mut Ledger| {
            ledger.permit(task, now)?;
            ledger.append(Kind::Contribution, task.name.clone(), task.round, now, task.cost());
            Ok(())
        };
        device.change_ledger(&self.port, append).await
    }

    async fn send(
        &self,
        device: &Device,
        task: &TaskEntry,
        key: &str,
        (frame, token): (Vec<u8>, Option<Token>),
    ) -> Result<(Receipt, usize), Problem> {
        let library = &self.library().catalog.library;
        let url = self.address.below(&format!("tasks/{library}.{}/contributions", task.name));
        let bytes = frame.len();
        let mut post = Request::post(url, MEDIA_TYPE, frame);
        if let Some(token) = token {
            post = post.header("authorization", format!("Bearer {}", token.hex()));
        }
        let answer = self.port.fetch(post).await;
        match answer.and_then(|response| success(response, "the contribution")) {
            Ok(response) => {
                self.port.remove(key).await?;
                self.drop_token(task).await?;
                let receipt =
                    serde_json::from_slice(&response.body).unwrap_or(Receipt { duplicate: false });
                Ok((receipt, bytes))
            }
            Err(problem) => {
                match verdict(&problem) {
                    Verdict::NotAdded => {
                        let now = self.port.unix_seconds();
                        let refuse = |ledger: &mut Ledger| {
                            let (name, free) = (task.name.clone(), RhoQuanta::default());
                            ledger.append(Kind::Refused, name, task.round, now, free);
                            Ok(())
                        };
                        device.change_ledger(&self.port, refuse).await?;
                        self.port.remove(key).await?;
                        if problem.is(Code::TokenInvalid) {
                            self.drop_token(task).await?;
                        }
                    }
                    Verdict::AddedOther => self.port.remove(key).await?,
                    Verdict::Unknown => {}
                }
                Err(problem)
            }
        }
    }

    /// Trains as the task says, from the weights that its round starts from.
    async fn draft(
        &self,
        live: &Adapted,
        task: &TaskEntry,
        device: &Device,
    ) -> Result<Draft, Problem> {
        let bases = live.library.bases(task)?;
        let patches: Vec<&Patch> = bases.iter().map(|v| &*v.patch).collect();
        let (key, trainer) = self.workshop.trainer(&live.library.session, &patches)?;
        let material = self.material(key, &trainer, &|| false).await?;
        if material.training.len() < MIN_EXAMPLES {
            let count = material.training.len();
            let detail = format!("{count} training examples, {MIN_EXAMPLES} are needed");
            return Err(Problem::new(Code::NothingToContribute, detail)
                .with_hint("teach a few more examples"));
        }
        let base = trainer.weights_of(&patches)?;
        let pace = Pace { epochs: trainer.training().epochs, seed: seed(device.secret(), task) };
        let (training, from) = (material.training.clone(), base.clone());
        let mut course = Course::start(trainer.clone(), training, Vec::new(), from, pace)?;
        let mut breath = self.port.now_ms();
        while course.step()?.is_some() {
            breath = self.breathe(breath, &|| false).await?;
        }
        let version = |v: &&Arc<Version>| PatchVersion { name: v.name.clone(), version: v.number };
        let sent = within_clip(task.clip_norm, &base, course.weights())?;
        let comparison = Comparison::of(&trainer, &material.judging, &base, &sent)?;
        let accuracy = (comparison.before.accuracy, comparison.after.accuracy);
        Ok(Draft {
            prepared: prepare(task, device.secret(), &base, course.weights(), accuracy)?,
            comparison,
            patches: bases.iter().map(version).collect(),
            material,
        })
    }

    /// What agreeing would not change comes first.
    fn refusal(
        &self,
        consent: bool,
        ledger: &Result<Ledger, Problem>,
        task: &TaskEntry,
        draft: &Draft,
    ) -> Result<(), Problem> {
        ledger.as_ref().map_err(Clone::clone)?.permit(task, self.port.unix_seconds())?;
        worth_it(draft)?;
        if consent { Ok(()) } else { Err(consent_missing()) }
    }
}

/// Nobody is helped by an update that is plainly wrong for the one who made it.
fn worth_it(draft: &Draft) -> Result<(), Problem> {
    let Comparison { before, after, loss_change, standard_error } = draft.comparison;
    if !draft.comparison.is_plainly_worse() {
        return Ok(());
    }
    let judges = match draft.material.judged_on {
        JudgedOn::HeldOut => "held-out",
        JudgedOn::Training => "training",
    };
    let detail = format!(
        "on {} {judges} examples the loss rose from {:.3} to {:.3}, by {loss_change:.3} ± {standard_error:.3}",
        before.n, before.loss, after.loss,
    );
    Err(Problem::new(Code::NotImproved, detail)
        .with_hint("teach more examples, and check that they are right"))
}

pub(super) fn consent_missing() -> Problem {
    Problem::new(Code::ConsentMissing, "you have not agreed to contribute")
        .with_hint("switch contributing on; nothing is sent before")
}

fn first_task(live: &Adapted) -> Result<&TaskEntry, Problem> {
    live.library.catalog.tasks.first().ok_or_else(|| {
        Problem::new(Code::NothingToContribute, "this library has no federated task")
    })
}
