//! The device's own privacy ledger: how often it took part in each task, when, and what it cost.
//!
//! It is append-only and hash-chained. A device that has taken part before and finds its ledger missing, shortened
//! or altered refuses to take part again: it fails closed. Nothing here is sent anywhere.

use backstitch_protocol::Problem;
use backstitch_protocol::catalog::{ExperimentEntry, TaskEntry};
use backstitch_protocol::id::Name;
use backstitch_protocol::privacy::{ReportBudget, RhoQuanta};
use backstitch_protocol::problem::Code;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const DOMAIN: &[u8] = b"backstitch device ledger v1\0";

const DAY_SECONDS: u64 = 86_400;

/// What an entry records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A contribution, written before it is sent.
    Contribution,
    /// The server's word that the contribution of this round was not added.
    Refused,
    /// An experiment's randomised report.
    Report,
}

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What happened.
    pub kind: Kind,
    /// The task or experiment.
    pub task: Name,
    /// The round; 0 for a report.
    pub round: u64,
    /// Seconds since 1970.
    pub at: u64,
    /// What it costs.
    pub rho: RhoQuanta,
    /// Hex of the hash over the previous hash and this entry.
    hash: String,
}

/// The length and the last hash, kept apart from the ledger, so that a missing or shortened one is noticed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    /// Entries when the marker was written.
    pub entries: usize,
    /// Hex of the last entry's hash; empty for none.
    pub head: String,
}

/// The ledger, its chain checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    entries: Vec<Entry>,
}

impl Ledger {
    /// Reads a ledger and checks its chain, and that it continues what the marker saw.
    pub fn read(bytes: Option<&[u8]>, marker: &Marker) -> Result<Self, Problem> {
        let corrupt = |what: String| {
            Problem::new(Code::LedgerCorrupt, what).with_hint(
                "this device no longer contributes; clearing the site's data starts a new profile",
            )
        };
        let Some(bytes) = bytes else {
            return match marker.entries {
                0 => Ok(Self::default()),
                n => Err(corrupt(format!("the ledger is missing, it had {n} entries"))),
            };
        };
        let entries: Vec<Entry> = serde_json::from_slice(bytes)
            .map_err(|e| corrupt(format!("the ledger cannot be read: {e}")))?;
        let mut previous = String::new();
        for (index, entry) in entries.iter().enumerate() {
            if entry.hash != entry.chained(&previous) {
                return Err(corrupt(format!("entry {index} of the ledger was altered")));
            }
            previous.clone_from(&entry.hash);
        }
        let seen = match marker.entries {
            0 => Some(""),
            n => entries.get(n - 1).map(|e| e.hash.as_str()),
        };
        // A crash between the ledger and its marker leaves the ledger ahead; it never may be behind.
        match seen == Some(marker.head.as_str()) {
            true => Ok(Self { entries }),
            false => Err(corrupt(format!(
                "the ledger has {} entries and does not continue the {} seen before",
                entries.len(),
                marker.entries
            ))),
        }
    }

    /// Appends an entry. Time never goes back in a ledger, whatever the device's clock does.
    pub fn append(&mut self, kind: Kind, task: Name, round: u64, at: u64, rho: RhoQuanta) {
        let at = at.max(self.latest());
        let previous = self.entries.last().map(|e| e.hash.clone()).unwrap_or_default();
        let mut entry = Entry { kind, task, round, at, rho, hash: String::new() };
        entry.hash = entry.chained(&previous);
        self.entries.push(entry);
    }

    /// The bytes to store.
    pub fn encode(&self) -> Result<Vec<u8>, Problem> {
        serde_json::to_vec(&self.entries).map_err(|e| {
            Problem::new(Code::StorageFailed, format!("the ledger does not serialise: {e}"))
        })
    }

    /// The marker of this state.
    pub fn marker(&self) -> Marker {
        let head = self.entries.last().map(|e| e.hash.clone()).unwrap_or_default();
        Marker { entries: self.entries.len(), head }
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether this device has a contribution on record for this round that was not refused.
    pub fn took_part(&self, task: &Name, round: u64) -> bool {
        self.participations(task).any(|e| e.round == round)
    }

    /// Contributions to a task that stand, oldest first.
    pub fn participations<'a>(&'a self, task: &'a Name) -> impl Iterator<Item = &'a Entry> {
        let is = move |e: &&Entry, kind: Kind| e.kind == kind && e.task == *task;
        self.entries.iter().enumerate().filter(move |(_, e)| is(e, Kind::Contribution)).filter_map(
            move |(index, entry)| {
                let refused = self.entries[index..]
                    .iter()
                    .any(|later| is(&later, Kind::Refused) && later.round == entry.round);
                (!refused).then_some(entry)
            },
        )
    }

    /// What left this device, newest first: contributions that were not refused, and reports.
    pub fn sent(&self) -> Vec<&Entry> {
        let stands = |entry: &&Entry| match entry.kind {
            Kind::Contribution => self.took_part(&entry.task, entry.round),
            Kind::Report => true,
            Kind::Refused => false,
        };
        self.entries.iter().rev().filter(stands).collect()
    }

    /// Contributions to a task that stand within the period that ends now.
    pub fn recent<'a>(&'a self, task: &'a TaskEntry, now: u64) -> Vec<&'a Entry> {
        let start =
            now.max(self.latest()).saturating_sub(u64::from(task.period_days) * DAY_SECONDS);
        self.participations(&task.name).filter(|e| e.at >= start).collect()
    }

    /// ρ spent on a task within the period that ends now.
    pub fn spent(&self, task: &TaskEntry, now: u64) -> RhoQuanta {
        let sum = self
            .recent(task, now)
            .iter()
            .try_fold(RhoQuanta::default(), |sum, e| sum.checked_add(e.rho));
        sum.unwrap_or(RhoQuanta(u64::MAX))
    }

    /// Whether this device may contribute to the task's open round now: the round is open and new to it, k per
    /// period, the minimum separation, and the promised ε all hold afterwards.
    pub fn permit(&self, task: &TaskEntry, now: u64) -> Result<(), Problem> {
        if !task.open {
            let reason =
                task.closed_reason.clone().unwrap_or_else(|| "no reason was given".to_owned());
            return Err(Problem::new(
                Code::RoundClosed,
                format!("round {} takes nothing now: {reason}", task.round),
            ));
        }
        let limit = |what: String, hint: String| {
            Err(Problem::new(Code::ParticipationLimit, what).with_hint(hint))
        };
        // A contribution goes into `noise_band` releases; two of one device must not meet in any of them.
        if task.noise_band == 0 || task.noise_band > task.min_separation.max(1) {
            let what = format!(
                "the task's noise spans {} rounds, but only {} lie between two contributions",
                task.noise_band, task.min_separation
            );
            return Err(Problem::new(Code::PrivacyInvalid, what)
                .with_hint("the operator must raise min_separation or lower noise_band"));
        }
        if self.took_part(&task.name, task.round) {
            let what = format!("this device has already contributed to round {}", task.round);
            return limit(what, "wait for the next round".to_owned());
        }
        let recent = self.recent(task, now);
        if recent.len() >= task.max_participations as usize {
            let what = format!(
                "this device has contributed {} times in {} days, the limit is {}",
                recent.len(),
                task.period_days,
                task.max_participations
            );
            // A catalog may allow none at all.
            let oldest = recent.first().map_or(now, |entry| entry.at);
            let frees = oldest.saturating_add(u64::from(task.period_days) * DAY_SECONDS);
            let days = frees.saturating_sub(now).div_ceil(DAY_SECONDS);
            return limit(what, format!("it may contribute again in {days} days"));
        }
        let last = self.participations(&task.name).map(|e| e.round).max();
        if let Some(last) =
            last.filter(|last| task.round.saturating_sub(*last) < u64::from(task.min_separation))
        {
            let what = format!(
                "this device contributed to round {last}, {} rounds must lie between",
                task.min_separation
            );
            return limit(
                what,
                format!(
                    "it may contribute again in round {}",
                    last.saturating_add(u64::from(task.min_separation))
                ),
            );
        }
        let after = self.spent(task, now).checked_add(task.cost());
        if after.is_none_or(|rho| rho > task.budget()) {
            let what = format!(
                "one more contribution would exceed ε = {} for this device",
                task.epsilon.value()
            );
            return Err(
                Problem::new(Code::BudgetExhausted, what).with_hint("wait until the period ends")
            );
        }
        Ok(())
    }

    /// ε of the reports within the period that ends now, of whichever experiments.
    pub fn reported(&self, budget: &ReportBudget, now: u64) -> f64 {
        let start = now.max(self.latest()).saturating_sub(budget.period_s());
        let recent = self.entries.iter().filter(|e| e.kind == Kind::Report && e.at >= start);
        ReportBudget::spent(recent.map(|e| e.rho))
    }

    /// Whether this device may report to an experiment now, whatever the server asks for.
    pub fn permit_report(
        &self,
        budget: &ReportBudget,
        experiment: &ExperimentEntry,
        now: u64,
    ) -> Result<(), Problem> {
        let spent = self.reported(budget, now);
        if budget.permits(spent + experiment.cost().pure_epsilon()) {
            return Ok(());
        }
        let what = format!(
            "a report to {} at ε = {} after {spent:.2} would exceed ε = {} within {} days for this device",
            experiment.name,
            experiment.epsilon.value(),
            budget.epsilon.value(),
            budget.period_days
        );
        Err(Problem::new(Code::BudgetExhausted, what).with_hint("wait until the period ends"))
    }

    fn latest(&self) -> u64 {
        self.entries.last().map_or(0, |e| e.at)
    }
}

impl Entry {
    fn chained(&self, previous: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update(previous);
        hash.update([self.kind as u8]);
        hash.update(self.round.to_le_bytes());
        hash.update(self.at.to_le_bytes());
        hash.update(self.rho.0.to_le_bytes());
        hash.update(self.task.as_str());
        hex::encode(hash.finalize())
    }
}

#[cfg(test)]
mod tests {
    use backstitch_onnx::Digest;
    use backstitch_protocol::privacy::{ClipNorm, Delta, Epsilon, NoiseMultiplier};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn task(round: u64) -> TaskEntry {
        TaskEntry {
            name: Name::new("style").unwrap(),
            patches: vec![],
            base_versions: vec![],
            base: Digest::of(b""),
            parameters: 1,
            round,
            goal: 8,
            clip_norm: ClipNorm::new(1.0).unwrap(),
            noise_multiplier: NoiseMultiplier::new(2.54).unwrap(),
            max_participations: 4,
            period_days: 30,
            min_separation: 2,
            noise_band: 1,
            measures: vec![],
            epsilon: Epsilon::new(4.0).unwrap(),
            delta: Delta::new(1e-6).unwrap(),
            period_spent: RhoQuanta::default(),
            token_key: None,
            open: true,
            closed_reason: None,
        }
    }

    fn contribute(ledger: &mut Ledger, round: u64, at: u64) {
        let task = task(round);
        ledger.permit(&task, at).unwrap();
        ledger.append(Kind::Contribution, task.name.clone(), round, at, task.cost());
    }

    #[test]
    fn four_times_a_month_with_rounds_between() {
        let mut ledger = Ledger::default();
        for round in [1, 3, 5, 7] {
            contribute(&mut ledger, round, NOW + round);
            assert!(
                ledger.permit(&task(round), NOW + round).unwrap_err().is(Code::ParticipationLimit)
            );
            assert!(
                ledger
                    .permit(&task(round + 1), NOW + round)
                    .unwrap_err()
                    .is(Code::ParticipationLimit)
            );
        }
        assert!(
            ledger.permit(&task(9), NOW + 9).unwrap_err().detail().contains("4 times in 30 days")
        );
        // A clock that is set back opens nothing; the end of the period does.
        assert!(ledger.permit(&task(9), NOW - 90 * DAY_SECONDS).is_err());
        ledger.permit(&task(9), NOW + 31 * DAY_SECONDS).unwrap();
    }

    #[test]
    fn a_closed_round_and_a_tight_promise_refuse() {
        let ledger = Ledger::default();
        let closed =
            TaskEntry { open: false, closed_reason: Some("the budget is spent".into()), ..task(1) };
        assert!(ledger.permit(&closed, NOW).unwrap_err().is(Code::RoundClosed));
        for noise_band in [0, 3] {
            let overlapping = TaskEntry { noise_band, ..task(1) };
            assert!(ledger.permit(&overlapping, NOW).unwrap_err().is(Code::PrivacyInvalid));
        }
        assert!(ledger.permit(&TaskEntry { noise_band: 2, ..task(1) }, NOW).is_ok());
        // Nobody has taken part, so that no earlier contribution tells when a place is free again.
        let none = TaskEntry { max_participations: 0, period_days: u32::MAX, ..task(1) };
        assert!(ledger.permit(&none, u64::MAX - 1).unwrap_err().is(Code::ParticipationLimit));
        let tight = TaskEntry { epsilon: Epsilon::new(0.01).unwrap(), ..task(1) };
        assert!(ledger.permit(&tight, NOW).unwrap_err().is(Code::BudgetExhausted));
    }

    #[test]
    fn reports_of_all_experiments_share_one_budget() {
        let budget = ReportBudget::default();
        let experiment = |epsilon: f64| ExperimentEntry {
            name: Name::new("e").unwrap(),
            salt: String::new(),
            seed: 1,
            arms: vec![],
            window: 1,
            epsilon: Epsilon::new(epsilon).unwrap(),
        };
        let mut ledger = Ledger::default();
        for at in [NOW, NOW + DAY_SECONDS] {
            ledger.permit_report(&budget, &experiment(2.0), at).unwrap();
            ledger.append(Kind::Report, experiment(2.0).name, 0, at, experiment(2.0).cost());
        }
        let later = NOW + 2 * DAY_SECONDS;
        let refused = ledger.permit_report(&budget, &experiment(0.1), later).unwrap_err();
        assert!(refused.is(Code::BudgetExhausted) && refused.detail().contains("after 4.00"));
        // A clock that is set back opens nothing; the first report leaves the period, the second stays.
        assert!(ledger.permit_report(&budget, &experiment(0.1), NOW - 90 * DAY_SECONDS).is_err());
        let after = NOW + 30 * DAY_SECONDS + 1;
        ledger.permit_report(&budget, &experiment(2.0), after).unwrap();
        assert!(ledger.permit_report(&budget, &experiment(2.1), after).is_err());
        // Contributions draw on their task's budget, not on this one.
        contribute(&mut ledger, 1, after);
        ledger.permit_report(&budget, &experiment(2.0), after).unwrap();
    }

    #[test]
    fn a_refused_contribution_does_not_count() {
        let mut ledger = Ledger::default();
        contribute(&mut ledger, 1, NOW);
        ledger.append(Kind::Refused, task(1).name, 1, NOW, RhoQuanta::default());
        assert!(!ledger.took_part(&task(1).name, 1));
        assert!(ledger.sent().is_empty());
        contribute(&mut ledger, 1, NOW);
        assert_eq!(ledger.recent(&task(1), NOW).len(), 1);
    }

    #[test]
    fn a_round_at_the_end_of_numbers_is_refused_like_any_other() {
        let mut ledger = Ledger::default();
        contribute(&mut ledger, u64::MAX, NOW);
        let refused = ledger.permit(&task(3), NOW).unwrap_err();
        assert!(refused.is(Code::ParticipationLimit), "{refused}");
    }

    #[test]
    fn missing_shortened_altered_and_foreign_ledgers_fail_closed() {
        let mut ledger = Ledger::default();
        contribute(&mut ledger, 1, NOW);
        let shorter = ledger.encode().unwrap();
        contribute(&mut ledger, 3, NOW);
        let (bytes, marker) = (ledger.encode().unwrap(), ledger.marker());
        assert_eq!(Ledger::read(Some(&bytes), &marker).unwrap(), ledger);
        let altered =
            String::from_utf8(bytes.clone()).unwrap().replace("\"round\":3", "\"round\":2");
        let damaged: [Option<&[u8]>; 5] = [
            None,
            Some(&shorter),
            Some(altered.as_bytes()),
            Some(b"[]"),
            Some(&bytes[..bytes.len() - 9]),
        ];
        for bytes in damaged {
            assert!(Ledger::read(bytes, &marker).unwrap_err().is(Code::LedgerCorrupt));
        }
        // A crash before the marker was written.
        assert!(Ledger::read(Some(&bytes), &Marker::default()).is_ok());
        assert!(Ledger::read(None, &Marker::default()).unwrap().entries().is_empty());
    }
}
