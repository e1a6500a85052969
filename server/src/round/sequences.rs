//! Random sequences of what can happen to a round, each contribution one-hot: whatever happens, every coordinate of
//! the sum is 0 or one contribution, and every round is debited, noised and published as it should be.

use std::path::PathBuf;
use std::time::Instant;

use super::machine::Machine;
use super::state::{self, Phase};
use super::tests::{machine, one_hot, posted, services, task};
use crate::failure::Result;
use crate::privacy::Kind;
use crate::services::Services;
use crate::tests::{Hands, frame};
use backstitch_onnx::Digest;
use backstitch_protocol::problem::Code;

/// Contributions of a round.
const GOAL: u32 = 3;

/// What one contribution at the clip norm is in the sum.
const ONE: i64 = 32_766;

/// Sequences in one store: the ledger is read whole for every release.
const PER_STORE: u64 = 100;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// One round under random operations.
struct Sequence<'a> {
    services: &'a Services,
    hands: &'a Hands,
    machine: Machine,
    /// Frames of devices that count, by their number in the round.
    counted: Vec<Vec<u8>>,
    operations: u64,
}

impl Sequence<'_> {
    /// Until the round is published and the next one open.
    async fn run(&mut self, draws: &mut Draws) {
        let round = self.machine.round().number;
        while self.machine.round().number == round {
            self.operations += 1;
            match draws.below(10) {
                0..=2 => self.contribute(draws).await,
                3 => self.repeat(draws).await,
                4 => self.contradict(draws).await,
                5 => self.stale().await,
                6 => self.machine = machine(self.services).await,
                _ => self.advance().await,
            }
            self.check_sum(round).await;
        }
        self.check_books(round).await;
    }

    /// A device that has not been in this round.
    async fn contribute(&mut self, draws: &mut Draws) {
        let round = self.machine.round();
        let number = self.counted.len();
        let values = one_hot(number.min(7));
        // Devices are told apart by their secret; a refused one may try again with other bytes.
        let device = round.number * 1000 + number as u64 * 10 + draws.below(2);
        let bytes = frame(round.base, device, round.number, &values);
        let open = round.phase == Phase::Open;
        let known = self.counted.iter().any(|counted| counted[36..68] == bytes[36..68]);
        match self.post(&bytes).await {
            Ok(accepted) if accepted.duplicate => assert!(known),
            Ok(_) => {
                assert!(open && !known, "only an open round takes a new device");
                self.counted.push(bytes);
            }
            Err(refused) => assert!(!open, "{refused}"),
        }
    }

    /// The same bytes again.
    async fn repeat(&mut self, draws: &mut Draws) {
        if let Some(bytes) = self.pick(draws) {
            let answer = self.post(&bytes).await.unwrap();
            assert!(answer.duplicate, "counted twice");
        }
    }

    /// Other values by a device that counts.
    async fn contradict(&mut self, draws: &mut Draws) {
        if let Some(mut bytes) = self.pick(draws) {
            let at = bytes.len() - 2;
            bytes[at] ^= 1;
            assert!(self.post(&bytes).await.unwrap_err().is(Code::NullifierReused));
        }
    }

    /// Trained from something else.
    async fn stale(&mut self) {
        let number = self.machine.round().number;
        let bytes = frame(Digest::of(b"another"), 999_999, number, &one_hot(0));
        assert!(self.post(&bytes).await.unwrap_err().is(Code::VersionStale));
    }

    async fn advance(&mut self) {
        match self.machine.advance().await {
            Ok(_) => {}
            // Lost reservations have used the period up; the sum waits for the next one.
            Err(refused) if refused.is(Code::BudgetExhausted) => self.hands.forward_days(31),
            Err(other) => panic!("{other}"),
        }
    }

    async fn post(&mut self, bytes: &[u8]) -> Result<super::Accepted> {
        let mut answers = self.machine.accept(&[posted(bytes)]).await.unwrap();
        match answers.pop().unwrap() {
            Err(refused) if refused.is(Code::BudgetExhausted) => {
                self.hands.forward_days(31);
                Box::pin(self.post(bytes)).await
            }
            answer => answer,
        }
    }

    fn pick(&self, draws: &mut Draws) -> Option<Vec<u8>> {
        let count = self.counted.len() as u64;
        (count > 0).then(|| self.counted[draws.below(count) as usize].clone())
    }

    /// Every coordinate of a stored raw sum is 0 or 1 contribution: none is lost, none is in it twice.
    async fn check_sum(&self, round: u64) {
        let mut reading = self.services.store.read().await.unwrap();
        let (sum, noised) = state::vectors(&mut reading, &task(), round).await.unwrap();
        let Some(sum) = sum else { return assert!(noised.is_some()) };
        for (index, bytes) in sum.as_chunks::<8>().0.iter().enumerate() {
            let expected = if index < self.counted.len() { ONE } else { 0 };
            assert_eq!(i64::from_le_bytes(*bytes), expected, "coordinate {index} of round {round}");
        }
    }

    /// One result, one publication, one debit for each attempt.
    async fn check_books(&self, round: u64) {
        let records = self.services.ledger.newest("toy", 40).await.unwrap();
        let of =
            |kind: Kind| records.iter().filter(|(r, _)| r.round == round && r.kind == kind).count();
        assert_eq!((of(Kind::Noise), of(Kind::Publish)), (1, 1), "round {round}");
        assert_eq!(of(Kind::Reserve), 1 + of(Kind::Lose), "round {round}");
        assert_eq!(self.counted.len(), GOAL as usize);
    }
}

/// In memory where that is possible: a transaction then costs no disk.
fn fast_folder() -> tempfile::TempDir {
    let memory = PathBuf::from("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

/// Runs this many sequences, and gives the number of operations.
async fn sequences(count: u64, seed: u64) -> u64 {
    let (mut done, mut operations) = (0, 0);
    let mut draws = Draws(seed);
    while done < count {
        let folder = fast_folder();
        let hands = Hands::default();
        let services = services(folder.path(), GOAL, &hands).await;
        for _ in 0..PER_STORE.min(count - done) {
            let machine = machine(&services).await;
            let mut sequence = Sequence {
                services: &services,
                hands: &hands,
                machine,
                counted: Vec::new(),
                operations: 0,
            };
            sequence.run(&mut draws).await;
            operations += sequence.operations;
            hands.forward_days(31);
        }
        services.ledger.verify().await.unwrap();
        services.store.close().await;
        done += PER_STORE;
    }
    operations
}

#[tokio::test]
async fn random_sequences_keep_the_sum_and_the_books() {
    sequences(60, 1).await;
}

#[test]
#[ignore = "minutes: just sequences"]
fn a_hundred_thousand_random_sequences_keep_the_sum_and_the_books() {
    let started = Instant::now();
    let threads: Vec<_> = (0..4u64)
        .map(|seed| {
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(sequences(25_000, 100 + seed))
            })
        })
        .collect();
    let operations: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    println!(
        "100,000 sequences, {operations} operations, {:.0} s",
        started.elapsed().as_secs_f64()
    );
}
