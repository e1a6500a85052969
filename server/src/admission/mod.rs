//! Who may contribute: a profile enrols, draws one token for a release, and redeems it without being recognised.
//!
//! Drawing is where k, the minimum separation and one-per-release are enforced, by profile. Redeeming is where a
//! contribution is let in, by token alone: the PRF hides which profile drew it.

mod draws;
mod enrolment;
mod network;
#[cfg(test)]
mod tests;

use backstitch_onnx::Digest;
use backstitch_protocol::Problem;
use backstitch_protocol::contribution::Nullifier;
use backstitch_protocol::problem::Code;
use backstitch_protocol::token::{Issuer, Token, TokenAnswer, TokenKey, TokenRequest, TokenScope};

pub use enrolment::Enrolment;
pub use network::Network;

use crate::clock::Clock;
use crate::failure::{Result, not_found};
use crate::registry::random_bytes;
use crate::round::state::{self, Phase, Round};
use crate::store::{Connection, Store, commit};
use crate::task::TaskId;

/// Issues and recognises tokens.
pub struct Admission {
    issuer: Issuer,
    enrolment: Enrolment,
    store: Store,
    clock: Clock,
}

impl Admission {
    /// The admission by the key of this seed.
    pub fn new(seed: &[u8; 32], enrolment: Enrolment, store: Store, clock: Clock) -> Result<Self> {
        Ok(Self { issuer: Issuer::from_seed(seed)?, enrolment, store, clock })
    }

    /// The key that the signed catalog states.
    pub fn key(&self) -> TokenKey {
        self.issuer.public_key()
    }

    /// Whether this is the token of this nullifier for this round of this task.
    pub fn accepts(&self, task: &TaskId, round: u64, nullifier: &Nullifier, token: &Token) -> bool {
        let scope = TokenScope { library: &task.library, task: &task.name, round };
        self.issuer.accepts(nullifier, &scope, token)
    }

    /// Evaluates a profile's blinded element for the open round, where the profile may still take part in it. It is
    /// on the disk before this answers; the same request gets the same token again.
    pub async fn issue(&self, request: &TokenRequest, network: Network) -> Result<TokenAnswer> {
        let task: TaskId = request.task.parse()?;
        let now = self.clock.now();
        let profile = self.enrolment.profile(&task.library, request, now)?;
        let blinded = Digest::of(request.blinded.as_bytes());
        let scope = TokenScope { library: &task.library, task: &task.name, round: request.round };
        // What cannot be evaluated must not use up the profile's turn.
        let answer = self.issuer.evaluate(&request.blinded, &scope, random_bytes()?)?;
        let mut writing = self.store.write().await?;
        let round = open_round(&mut writing, &task, request.round).await?;
        match draws::drawn(&mut writing, &task, &profile, round.number).await? {
            Some(known) if known == blinded => return Ok(answer),
            Some(_) => {
                return Err(Problem::new(
                    Code::TokenSpent,
                    format!("this profile drew its token for round {} before", round.number),
                )
                .with_hint("wait for the next round"));
            }
            None => {}
        }
        if let Some(closed) = state::closed(&mut writing, &task, &round, now).await? {
            return Err(closed);
        }
        self.permit(&mut writing, &task, &round, &profile, network).await?;
        draws::forget(&mut writing, &task, &round, now).await?;
        draws::draw(&mut writing, &task, &profile, round.number, &blinded).await?;
        commit(writing).await?;
        metrics::counter!("backstitch_tokens_issued_total", "task" => request.task.clone())
            .increment(1);
        Ok(answer)
    }

    /// k in every period, the minimum separation, and enrolment for whoever is new.
    async fn permit(
        &self,
        connection: &mut Connection,
        task: &TaskId,
        round: &Round,
        profile: &Digest,
        network: Network,
    ) -> Result<()> {
        let (terms, now) = (&round.terms, self.clock.now());
        let limit = |detail: String, hint: &str| {
            Err(Problem::new(Code::ParticipationLimit, detail).with_hint(hint))
        };
        let history = draws::history(connection, task, profile, round, now).await?;
        let Some(last) = history.last else { return self.enrolment.admit(network) };
        if history.counting >= terms.max_participations {
            return limit(
                format!(
                    "this profile drew {} tokens within {} days, the limit is {}",
                    history.counting, terms.period_days, terms.max_participations
                ),
                "a token counts from its draw until a period after its round's release",
            );
        }
        if round.number.saturating_sub(last) < u64::from(terms.min_separation) {
            return limit(
                format!(
                    "this profile drew a token for round {last}; {} rounds must lie between",
                    terms.min_separation
                ),
                "wait for a later round",
            );
        }
        Ok(())
    }
}

/// The round of this number, if it is the one that is open.
async fn open_round(connection: &mut Connection, task: &TaskId, wanted: u64) -> Result<Round> {
    let round =
        state::newest(connection, task).await?.ok_or_else(|| not_found(format!("task {task}")))?;
    if !round.terms.tokens {
        return Err(Problem::new(
            Code::RequestInvalid,
            format!("task {task} takes contributions without tokens"),
        ));
    }
    if round.number != wanted || round.phase != Phase::Open {
        return Err(Problem::new(
            Code::RoundClosed,
            format!("round {wanted} takes no tokens, the newest round is {}", round.number),
        )
        .with_hint("read the catalog again and train from its current version"));
    }
    Ok(round)
}
