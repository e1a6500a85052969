//! Rounds under every interruption: each step of the machine is a point at which the process may end.

use std::path::Path;

use backstitch_onnx::Digest;
use backstitch_protocol::contribution::Contribution;
use backstitch_protocol::problem::Code;
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};

use super::machine::{Accepted, Machine, Posted};
use super::state::{self, Phase};
use crate::failure::Result;
use crate::privacy::{Kind, State};
use crate::registry::{self, Source};
use crate::services::Services;
use crate::task::TaskId;
use crate::tests::{Hands, PARAMETERS, config, frame, write_library};

pub(super) fn task() -> TaskId {
    "toy.style".parse().unwrap()
}

pub(super) async fn services(folder: &Path, goal: u32, hands: &Hands) -> Services {
    services_of(folder, goal, hands, |_| {}).await
}

/// The same with another library.json.
async fn services_of(
    folder: &Path,
    goal: u32,
    hands: &Hands,
    edit: impl Fn(&mut serde_json::Value),
) -> Services {
    let config = config(folder, goal);
    write_library(Path::new(&config.libraries[0]), goal, edit);
    std::fs::create_dir_all(&config.data).unwrap();
    let services = crate::server::services(&config, hands.clock()).await.unwrap();
    let source = Source::parse(&config.libraries[0]).unwrap();
    let now = services.clock.now();
    registry::import(&services.store, &services.blobs, &source, now).await.unwrap();
    services
}

pub(super) async fn machine(services: &Services) -> Machine {
    Machine::open(services.clone(), task()).await.unwrap()
}

pub(super) fn posted(bytes: &[u8]) -> Posted {
    Posted {
        contribution: Contribution::decode(bytes, PARAMETERS).unwrap(),
        digest: Digest::of(bytes),
        round: None,
    }
}

pub(super) fn one_hot(index: usize) -> [f32; 8] {
    std::array::from_fn(|i| if i == index { 1.0 } else { 0.0 })
}

async fn post(machine: &mut Machine, device: u64, values: &[f32; 8]) -> Result<Accepted> {
    let bytes = frame(machine.round().base, device, machine.round().number, values);
    machine.accept(&[posted(&bytes)]).await.unwrap().pop().unwrap()
}

async fn fill(machine: &mut Machine, first_device: u64) {
    for device in 0..u64::from(machine.round().terms.goal) {
        post(machine, first_device + device, &one_hot(device as usize % 8)).await.unwrap();
    }
    assert_eq!(machine.round().phase, Phase::Full);
}

#[tokio::test]
async fn a_round_runs_from_open_to_the_next_version() {
    let folder = tempfile::tempdir().unwrap();
    let services = services(folder.path(), 3, &Hands::default()).await;
    let mut machine = machine(&services).await;
    assert!(!machine.advance().await.unwrap(), "an open round under its goal is never released");
    let base = machine.round().base;
    fill(&mut machine, 0).await;
    let mut phases = Vec::new();
    while machine.advance().await.unwrap() {
        phases.push(machine.round().phase);
    }
    assert_eq!(phases, [Phase::Reserved, Phase::Noised, Phase::Published, Phase::Open]);
    assert_eq!((machine.round().number, machine.round().base_versions[0]), (2, 2));
    assert_ne!(machine.round().base, base);
    let mut reading = services.store.read().await.unwrap();
    let first = &state::history(&mut reading, &task(), 2).await.unwrap()[1];
    assert_eq!(first.versions, Some(vec![2]));
    assert!(first.update_norm.unwrap() > 0.0);
    // Neither the raw sum nor anything else that is not noised is left behind.
    let (sum, noised) = state::vectors(&mut reading, &task(), 1).await.unwrap();
    assert!(sum.is_none() && noised.is_some());
    let kinds: Vec<Kind> =
        services.ledger.newest("toy", 9).await.unwrap().iter().map(|(r, _)| r.kind).collect();
    assert_eq!(kinds, [Kind::Publish, Kind::Noise, Kind::Reserve]);
    services.ledger.verify().await.unwrap();
}

#[tokio::test]
async fn a_contribution_counts_once_and_a_retry_learns_that_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let services = services(folder.path(), 2, &Hands::default()).await;
    let mut machine = machine(&services).await;
    let bytes = frame(machine.round().base, 1, 1, &one_hot(0));
    let other = frame(machine.round().base, 1, 1, &one_hot(1));
    let answers = machine.accept(&[posted(&bytes), posted(&bytes), posted(&other)]).await.unwrap();
    assert_eq!(
        answers[0].clone().unwrap(),
        Accepted { accepted: true, round: 1, duplicate: false }
    );
    assert_eq!(answers[1].clone().unwrap(), Accepted { accepted: true, round: 1, duplicate: true });
    assert!(answers[2].clone().unwrap_err().is(Code::NullifierReused));
    assert_eq!(machine.round().contributions, 1);
    let stale = frame(Digest::of(b"old"), 2, 1, &one_hot(0));
    assert!(
        machine.accept(&[posted(&stale)]).await.unwrap()[0]
            .clone()
            .unwrap_err()
            .is(Code::VersionStale)
    );
    // One group may hold more than the round takes.
    let more: Vec<Posted> =
        (2..5).map(|device| posted(&frame(machine.round().base, device, 1, &one_hot(0)))).collect();
    let answers = machine.accept(&more).await.unwrap();
    assert!(answers[0].is_ok());
    assert!(answers[1].clone().unwrap_err().is(Code::RoundClosed));
    while machine.advance().await.unwrap() {}
    // After the release, the retry is still answered, and nothing is added to round 2.
    let again = machine.accept(&[posted(&bytes)]).await.unwrap().pop().unwrap().unwrap();
    assert_eq!((again.round, again.duplicate), (1, true));
    assert_eq!((machine.round().number, machine.round().contributions), (2, 0));
}

/// Runs two rounds; before each step for which `crash` says so, the process "ends" and starts again.
async fn two_rounds_with_crashes(crash: &[bool]) {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::default();
    let mut services = services(folder.path(), 2, &hands).await;
    let mut crashes = crash.iter().copied();
    let mut running = machine(&services).await;
    let mut noised_before: Option<Vec<u8>> = None;
    while running.round().number < 3 {
        if crashes.next().unwrap_or(false) {
            drop(running);
            services.store.close().await;
            services = self::services(folder.path(), 2, &hands).await;
            running = machine(&services).await;
        }
        let number = running.round().number;
        let (_, noised) =
            state::vectors(&mut services.store.read().await.unwrap(), &task(), number)
                .await
                .unwrap();
        if running.round().phase == Phase::Noised {
            // What is published is what was stored, whatever happened in between.
            assert!(noised_before.is_none() || noised_before == noised);
            noised_before = noised;
        } else {
            noised_before = None;
        }
        let step = match running.round().phase {
            Phase::Open => {
                let device = 10 * number + u64::from(running.round().contributions);
                let counted = post(&mut running, device, &one_hot(0)).await;
                // The same bytes once more: they must not count twice.
                post(&mut running, device, &one_hot(0)).await.ok();
                counted.map(|_| true)
            }
            _ => running.advance().await,
        };
        match step {
            Ok(_) => {}
            // Lost reservations have used the period up; the sum waits for the next one.
            Err(refused) if refused.is(Code::BudgetExhausted) => hands.forward_days(31),
            Err(other) => panic!("{other}"),
        }
    }
    check_books(&services).await;
}

/// 0 contributions lost or counted twice, 0 double releases, 0 lost debits.
async fn check_books(services: &Services) {
    let mut reading = services.store.read().await.unwrap();
    let history = state::history(&mut reading, &task(), 9).await.unwrap();
    assert!(history.iter().skip(1).all(|r| r.phase == Phase::Published && r.contributions == 2));
    let counted: i64 = sqlx::query_scalar("SELECT count(*) FROM nullifiers")
        .fetch_one(&mut *reading)
        .await
        .unwrap();
    assert_eq!(counted, 4);
    drop(reading);
    let records = services.ledger.newest("toy", 100).await.unwrap();
    for round in [1, 2] {
        let of =
            |kind: Kind| records.iter().filter(|(r, _)| r.round == round && r.kind == kind).count();
        assert_eq!((of(Kind::Noise), of(Kind::Publish)), (1, 1));
        assert_eq!(of(Kind::Reserve), 1 + of(Kind::Lose));
    }
    let lost = records.iter().filter(|(r, s)| r.kind == Kind::Reserve && *s == State::Lost).count();
    assert_eq!(lost, records.iter().filter(|(r, _)| r.kind == Kind::Lose).count());
    services.ledger.verify().await.unwrap();
}

#[tokio::test]
async fn a_crash_before_any_single_step_changes_nothing_but_the_debits() {
    // Six steps a round: two contributions, reserve, noise, publish, open.
    for step in 0..12 {
        let crashes: Vec<bool> = (0..=step).map(|i| i == step).collect();
        two_rounds_with_crashes(&crashes).await;
    }
}

#[test]
fn any_pattern_of_crashes_keeps_the_books_right() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let patterns = prop::collection::vec(any::<bool>(), 14);
    TestRunner::new(Cases { cases: 24, failure_persistence: None, ..Cases::default() })
        .run(&patterns, |crash| {
            runtime.block_on(two_rounds_with_crashes(&crash));
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn a_lost_reservation_is_debited_again_and_refused_where_that_is_too_much() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::default();
    let services = services(folder.path(), 2, &hands).await;
    // Five releases of ρ at z = 2.6 are more than ε = 4 allows, four are not: each crash here costs one.
    let mut running = machine(&services).await;
    fill(&mut running, 0).await;
    for attempt in 1..=4 {
        assert!(running.advance().await.unwrap(), "attempt {attempt}");
        assert_eq!(running.round().phase, Phase::Reserved);
        running = machine(&services).await;
        running.advance().await.unwrap();
        assert_eq!(running.round().phase, Phase::Full, "the sum is still there");
    }
    let refused = running.advance().await.unwrap_err();
    assert!(refused.is(Code::BudgetExhausted), "{refused}");
    assert!(refused.detail().contains("ε = 4"), "{refused}");
    let late = frame(running.round().base, 99, 1, &one_hot(0));
    let answer = running.accept(&[posted(&late)]).await.unwrap().pop().unwrap();
    assert!(answer.unwrap_err().is(Code::BudgetExhausted));
    // When the debits have left the period, the same sum is released.
    hands.forward_days(31);
    while running.advance().await.unwrap() {}
    assert_eq!(running.round().number, 2);
}

/// The places in their blocks that the releases of the task had, oldest first.
async fn block_positions(services: &Services) -> Vec<u64> {
    let records = services.ledger.newest("toy", 1000).await.unwrap();
    let noised = records.iter().rev().filter(|(record, _)| record.kind == Kind::Noise);
    noised
        .map(|(record, _)| {
            let detail: serde_json::Value = serde_json::from_str(&record.detail).unwrap();
            detail["block_position"].as_u64().unwrap()
        })
        .collect()
}

async fn release_next(running: &mut Machine, hands: &Hands) {
    hands.forward_days(31);
    let round = running.round().number;
    fill(running, 1000 * round).await;
    while running.advance().await.unwrap() {}
    assert_eq!(running.round().number, round + 1);
}

#[tokio::test]
async fn a_block_is_read_once_and_ends_with_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::default();
    let services = services_of(folder.path(), 2, &hands, |library| {
        library["tasks"][0]["noise_band"] = 3.into();
        library["tasks"][0]["min_separation"] = 3.into();
    })
    .await;
    let mut running = machine(&services).await;
    for _ in 0..4 {
        release_next(&mut running, &hands).await;
    }
    assert_eq!(block_positions(&services).await, [0, 1, 2, 3]);
    // Nothing of it is on the disk, so a restart begins anew.
    running = machine(&services).await;
    release_next(&mut running, &hands).await;
    release_next(&mut running, &hands).await;
    assert_eq!(block_positions(&services).await, [0, 1, 2, 3, 0, 1]);
    // The noise is drawn, and cannot be stored: the block that it read is not read again.
    hands.forward_days(31);
    fill(&mut running, 7_000).await;
    running.advance().await.unwrap();
    assert_eq!(running.round().phase, Phase::Reserved);
    let set = async |phase: &str| {
        let mut writing = services.store.write().await.unwrap();
        sqlx::query("UPDATE rounds SET phase = ? WHERE round = 7")
            .bind(phase)
            .execute(&mut *writing)
            .await
            .unwrap();
        crate::store::commit(writing).await.unwrap();
    };
    set("full").await;
    assert!(running.advance().await.unwrap_err().is(Code::Conflict));
    set("reserved").await;
    while running.advance().await.unwrap() {}
    assert_eq!(block_positions(&services).await, [0, 1, 2, 3, 0, 1, 0]);
    services.ledger.verify().await.unwrap();
}

#[tokio::test]
async fn a_measured_quantile_moves_the_clip_norm_within_the_same_debit() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::default();
    let services = services_of(folder.path(), 2, &hands, |library| {
        let task = &mut library["tasks"][0];
        task["measures"] = serde_json::json!([{ "kind": "within_clip", "share": 0.1 }]);
        task["clip_quantile"] = 0.5.into();
        // Hardly any noise: what is tested is which way it moves.
        task["noise_multiplier"] = 0.02.into();
        task["epsilon"] = 100_000.0.into();
    })
    .await;
    let mut running = machine(&services).await;
    let clip_norm = |running: &Machine| running.round().terms.clip_norm.value();
    assert_eq!((clip_norm(&running), running.round().frame_values()), (1.0, 9));
    for (within, expected) in [(1.0, (-0.1f64).exp()), (-1.0, 1.0)] {
        for device in 0..2 {
            let round = running.round();
            let task = backstitch_protocol::id::Name::new("style").unwrap();
            let measured = [(round.terms.measures[0], within)];
            let delta = backstitch_protocol::delta::Delta::between(&[0.0; 8], &one_hot(1)).unwrap();
            let clipped = delta.clip_with(round.terms.clip_norm, &measured).unwrap();
            let secret = [10 * round.number as u8 + device; 32];
            let nullifier =
                backstitch_protocol::contribution::Nullifier::derive(&secret, &task, round.number);
            let contribution = Contribution::new(round.base, nullifier, clipped);
            let digest = Digest::of(&contribution.encode());
            running.accept(&[Posted { contribution, digest, round: None }]).await.unwrap()[0]
                .clone()
                .unwrap();
        }
        while running.advance().await.unwrap() {}
        assert!((clip_norm(&running) - expected).abs() < 0.02, "{}", clip_norm(&running));
    }
    let mut reading = services.store.read().await.unwrap();
    let rounds = state::history(&mut reading, &task(), 9).await.unwrap();
    assert!((rounds[2].measured[0].value - 1.0).abs() < 0.2, "{:?}", rounds[2].measured);
    let records = services.ledger.newest("toy", 9).await.unwrap();
    let debits: Vec<_> =
        records.iter().filter(|(r, _)| r.kind == Kind::Reserve).map(|(r, _)| r.rho).collect();
    assert_eq!(debits, [rounds[1].terms.promise().cost(); 2], "one debit pays for all of a frame");
}

/// Writes held-out examples beside the library: inputs [n, 4] whose class is told by the one feature that is not 0.
fn held_out(folder: &Path, library: &mut serde_json::Value) {
    use npyz::WriterBuilder as _;
    // Feature 2 speaks for two classes alike. The others' class is what the toy primary answers: their row's largest.
    let features: Vec<usize> = (0..60).map(|example| [0, 1, 3][example % 3]).collect();
    let one = |feature: &usize| {
        (0..4).map(move |i| if i == *feature { 1.0f32 } else { 0.0 }).collect::<Vec<_>>()
    };
    macro_rules! write {
        ($name:literal, $shape:expr, $values:expr) => {{
            let mut bytes = Vec::new();
            let mut writer = npyz::WriteOptions::new()
                .default_dtype()
                .shape($shape)
                .writer(&mut bytes)
                .begin_nd()
                .unwrap();
            writer.extend($values).unwrap();
            writer.finish().unwrap();
            std::fs::write(folder.join($name), bytes).unwrap();
        }};
    }
    write!("inputs.npy", &[60, 4], features.iter().flat_map(one));
    write!("targets.npy", &[60], features.iter().map(|feature| [2i64, 2, 0, 0][*feature]));
    let task = &mut library["tasks"][0];
    task["evaluation"] = serde_json::json!({ "inputs": "inputs.npy", "targets": "targets.npy" });
    // Hardly any noise: what is tested is what the gate does.
    task["noise_multiplier"] = 0.01.into();
    task["epsilon"] = 1e8.into();
    task["server_learning_rate"] = 4.0.into();
}

/// An update that turns the scales of all features around: bias 0, scale from 1 to −1 and below.
const UPSIDE_DOWN: [f32; 8] = [0.0, 0.0, 0.0, 0.0, -0.5, -0.5, -0.5, -0.5];

#[tokio::test]
async fn a_worse_candidate_is_held_back_and_a_good_one_promoted() {
    use crate::registry::{alias, version};
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::default();
    let library = folder.path().join("library");
    let services =
        services_of(folder.path(), 2, &hands, |descriptor| held_out(&library, descriptor)).await;
    let mut running = machine(&services).await;
    let late = frame(running.round().base, 7, 1, &one_hot(0));
    for device in 0..2 {
        post(&mut running, device, &UPSIDE_DOWN).await.unwrap();
    }
    while running.advance().await.unwrap() {}
    let versions = running.round().base_versions.clone();
    assert_eq!((running.round().number, versions), (2, vec![1]), "the champion stays");
    // From the same weights, but for the round before: its device may be in this one a second time.
    let answer = running.accept(&[posted(&late)]).await.unwrap().pop().unwrap();
    assert!(answer.unwrap_err().is(Code::VersionStale));
    let guessed = frame(running.round().base, 7, 1, &one_hot(0));
    let early = Posted { round: Some(1), ..posted(&guessed) };
    let answer = running.accept(&[early]).await.unwrap().pop().unwrap();
    assert!(answer.unwrap_err().is(Code::RoundClosed), "a token of round 1 is good for round 1");
    let (toy, style) = (task().library, backstitch_protocol::id::Name::new("style").unwrap());
    let mut reading = services.store.read().await.unwrap();
    let bad = version::find(&mut reading, &toy, &style, 2).await.unwrap().evaluation.unwrap();
    assert!(!bad.passed && bad.base == 1.0 && bad.patched < 0.6, "{bad:?}");
    assert_eq!(alias::find(&mut reading, &toy, &style, alias::CHAMPION).await.unwrap(), Some(1));
    drop(reading);
    let records = services.ledger.newest("toy", 9).await.unwrap();
    assert!(records[0].0.detail.contains("\"promoted\":false"), "{}", records[0].0.detail);
    assert_eq!(
        records.iter().filter(|(r, _)| r.kind == Kind::Reserve).count(),
        1,
        "the debit stands"
    );
    hands.forward_days(31);
    for device in 10..12 {
        post(&mut running, device, &[0.0, 0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.1]).await.unwrap();
    }
    while running.advance().await.unwrap() {}
    assert_eq!(running.round().base_versions, [3]);
    let mut reading = services.store.read().await.unwrap();
    let good = version::find(&mut reading, &toy, &style, 3).await.unwrap().evaluation.unwrap();
    assert!(good.passed && good.patched == 1.0, "{good:?}");
}

/// Two releases: the first one's candidate is bad and is held back, then `actor` makes it the champion all the same, as
/// many small steps for the worse would. Gives the versions that the third round starts from.
async fn after_a_bad_champion(actor: &str) -> (Vec<u32>, Services, tempfile::TempDir) {
    use crate::registry::alias::Evidence;
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::default();
    let library = folder.path().join("library");
    let services =
        services_of(folder.path(), 2, &hands, |descriptor| held_out(&library, descriptor)).await;
    let mut running = machine(&services).await;
    let style = backstitch_protocol::id::Name::new("style").unwrap();
    for device in 0..2 {
        post(&mut running, device, &UPSIDE_DOWN).await.unwrap();
    }
    while running.advance().await.unwrap() {}
    hands.forward_days(31);
    let evidence = Evidence { actor, reason: "a test", now: services.clock.now() };
    running.promote(&style, 2, None, &evidence).await.unwrap();
    assert_eq!(running.round().base_versions, [2]);
    for device in 10..12 {
        post(&mut running, device, &[0.001; 8]).await.unwrap();
    }
    while running.advance().await.unwrap() {}
    (running.round().base_versions.clone(), services, folder)
}

#[tokio::test]
async fn champions_that_have_fallen_behind_earlier_ones_go_back_to_them() {
    let (versions, services, _folder) = after_a_bad_champion("round 1").await;
    assert_eq!(versions, [1], "the best of the releases before");
    let records = services.ledger.newest("toy", 9).await.unwrap();
    let detail = &records[0].0.detail;
    assert!(detail.contains("\"promoted\":false"), "{detail}");
    assert!(detail.contains("\"rolled_back_to\":[1]"), "{detail}");
    let mut reading = services.store.read().await.unwrap();
    let moves = registry::alias::history(&mut reading, &task().library, 9).await.unwrap();
    let told = moves.iter().find(|m| m.alias == "champion").unwrap();
    assert_eq!((told.version, told.actor.as_str()), (Some(1), "round 2"));
    assert!(told.reason.contains("rolled back:") && told.reason.contains("100.0 % before"));
}

#[tokio::test]
async fn what_somebody_promoted_is_not_undone() {
    let (versions, _services, _folder) = after_a_bad_champion("operator").await;
    assert_eq!(versions, [3], "trained on from what the operator chose");
}

#[tokio::test]
async fn what_goes_against_the_root_gradient_counts_as_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("library");
    let services = services_of(folder.path(), 3, &Hands::default(), |descriptor| {
        held_out(&library, descriptor);
        descriptor["tasks"][0]["cosine_gate"] = 0.0.into();
    })
    .await;
    let mut running = machine(&services).await;
    let up = UPSIDE_DOWN.map(|v| -v);
    // More of a right feature lowers the loss, less of it raises it.
    assert!(post(&mut running, 1, &UPSIDE_DOWN).await.is_ok(), "its sender is not told");
    let sum = async || {
        let mut reading = services.store.read().await.unwrap();
        let (sum, _) = state::vectors(&mut reading, &task(), 1).await.unwrap();
        sum.unwrap()
    };
    assert!(sum().await.iter().all(|byte| *byte == 0), "counted as zeros");
    assert_eq!(running.round().contributions, 1, "but counted");
    post(&mut running, 2, &up).await.unwrap();
    assert!(sum().await.iter().any(|byte| *byte != 0));
    assert_eq!(running.round().contributions, 2);
}

#[tokio::test]
async fn order_and_grouping_do_not_change_the_sum() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut sums = Vec::new();
    for (folder, one_by_one) in folders.iter().zip([true, false]) {
        let services = services(folder.path(), 9, &Hands::default()).await;
        let mut running = machine(&services).await;
        let values = |device: u64| -> [f32; 8] {
            std::array::from_fn(|i| ((device * 7 + i as u64) % 5) as f32 * 0.3 - 0.6)
        };
        let base = running.round().base;
        let mut all: Vec<Posted> =
            (0..8).map(|device| posted(&frame(base, device, 1, &values(device)))).collect();
        if one_by_one {
            all.reverse();
            for contribution in all {
                running.accept(&[contribution]).await.unwrap();
            }
        } else {
            running.accept(&all).await.unwrap();
        }
        let (sum, _) =
            state::vectors(&mut services.store.read().await.unwrap(), &task(), 1).await.unwrap();
        sums.push(sum.unwrap());
    }
    assert_eq!(sums[0], sums[1]);
}

#[tokio::test]
async fn new_terms_wait_for_the_next_round_and_bad_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::default();
    let services = services(folder.path(), 2, &hands).await;
    let mut running = machine(&services).await;
    post(&mut running, 0, &one_hot(0)).await.unwrap();
    let library = folder.path().join("library");
    write_library(&library, 5, |_| {});
    let source = Source::parse(library.to_str().unwrap()).unwrap();
    let import = || registry::import(&services.store, &services.blobs, &source, 1);
    assert!(import().await.unwrap().versions.is_empty(), "the same patches are no new versions");
    let mut running = machine(&services).await;
    assert_eq!(running.round().terms.goal, 2, "what the round's devices were promised");
    post(&mut running, 1, &one_hot(0)).await.unwrap();
    while running.advance().await.unwrap() {}
    assert_eq!(running.round().terms.goal, 5);
    write_library(&library, 5, |library| library["tasks"][0]["max_participations"] = 9.into());
    assert!(import().await.unwrap_err().is(Code::PrivacyInvalid));
    std::fs::write(library.join("patches/style/patch.onnx"), b"garbage").unwrap();
    write_library_json_only(&library);
    assert_eq!(import().await.unwrap_err().code(), "model_invalid");
}

/// Puts the good library.json back, but leaves the broken patch.
fn write_library_json_only(library: &Path) {
    let broken = std::fs::read(library.join("patches/style/patch.onnx")).unwrap();
    write_library(library, 5, |_| {});
    std::fs::write(library.join("patches/style/patch.onnx"), broken).unwrap();
}

#[tokio::test]
async fn a_tampered_ledger_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let services = services(folder.path(), 2, &Hands::default()).await;
    let mut running = machine(&services).await;
    fill(&mut running, 0).await;
    while running.advance().await.unwrap() {}
    for (tamper, heal) in [
        (
            "UPDATE ledger SET rho = 0 WHERE sequence = 1",
            "UPDATE ledger SET rho = 77562 WHERE sequence = 1",
        ),
        ("DELETE FROM ledger WHERE sequence = 2", ""),
    ] {
        let mut writing = services.store.write().await.unwrap();
        let guarded = sqlx::query(tamper).execute(&mut *writing).await.unwrap_err();
        assert!(guarded.to_string().contains("only grows"));
        for trigger in
            ["DROP TRIGGER IF EXISTS ledger_update", "DROP TRIGGER IF EXISTS ledger_delete"]
        {
            sqlx::query(trigger).execute(&mut *writing).await.unwrap();
        }
        sqlx::query(tamper).execute(&mut *writing).await.unwrap();
        crate::store::commit(writing).await.unwrap();
        assert!(services.ledger.verify().await.unwrap_err().is(Code::LedgerCorrupt), "{tamper}");
        let mut writing = services.store.write().await.unwrap();
        if !heal.is_empty() {
            sqlx::query(heal).execute(&mut *writing).await.unwrap();
        }
        let guards = include_str!("../../migrations/0001_initial.sql")
            .lines()
            .filter(|line| line.starts_with("CREATE TRIGGER ledger"));
        for guard in guards {
            sqlx::query(sqlx::AssertSqlSafe(guard)).execute(&mut *writing).await.unwrap();
        }
        crate::store::commit(writing).await.unwrap();
    }
}

#[tokio::test]
async fn a_rollback_in_mid_round_keeps_what_is_in_the_sum() {
    use crate::registry::alias::{self, Evidence};
    let folder = tempfile::tempdir().unwrap();
    let services = services(folder.path(), 2, &Hands::default()).await;
    let mut running = machine(&services).await;
    fill(&mut running, 0).await;
    while running.advance().await.unwrap() {}
    post(&mut running, 10, &one_hot(0)).await.unwrap();
    let second = running.round().base;
    let style = backstitch_protocol::id::Name::new("style").unwrap();
    let evidence = Evidence { actor: "operator", reason: "worse", now: 1 };
    assert!(running.promote(&style, 1, Some(7), &evidence).await.unwrap_err().is(Code::Conflict));
    assert!(running.promote(&style, 9, None, &evidence).await.unwrap_err().is(Code::NotFound));
    running.promote(&style, 1, Some(2), &evidence).await.unwrap();
    assert_eq!((running.round().number, running.round().contributions), (2, 1));
    assert_ne!(running.round().base, second);
    let stale = frame(second, 11, 2, &one_hot(0));
    assert!(
        running.accept(&[posted(&stale)]).await.unwrap()[0]
            .clone()
            .unwrap_err()
            .is(Code::VersionStale)
    );
    post(&mut running, 11, &one_hot(0)).await.unwrap();
    while running.advance().await.unwrap() {}
    let mut reading = services.store.read().await.unwrap();
    let library = backstitch_protocol::id::Name::new("toy").unwrap();
    let champion = alias::find(&mut reading, &library, &style, alias::CHAMPION).await.unwrap();
    let previous = alias::find(&mut reading, &library, &style, alias::PREVIOUS).await.unwrap();
    assert_eq!((champion, previous), (Some(3), Some(1)));
    let moves = alias::history(&mut reading, &library, 50).await.unwrap();
    assert!(
        moves.iter().any(|m| m.reason == "worse" && m.actor == "operator" && m.previous == Some(2))
    );
}
