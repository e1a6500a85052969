//! kill −9 at every write: a real server process ends in the middle of its n-th write to a file, for every n, is
//! started again, and the books are right. The shim `die.c` is preloaded to do that.
//!
//! The quick test takes points that are spread over all; `just crash-matrix` takes every one.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Row as _};

use crate::server::{Process, Stage, command, copy, frame};

/// Devices of the first round, which is released, and of the second, which stays open.
const DEVICES: [&[u8]; 2] = [&[1, 2], &[3]];

/// What every run starts from, and the shim.
fn set() -> Stage {
    let stage = Stage::set(|task| {
        task["goal"] = DEVICES[0].len().into();
        // Room for a release that is debited twice.
        task["epsilon"] = 9.0.into();
    });
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/die.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(stage.path("die.so"))
        .args([source, "-ldl"])
        .status()
        .unwrap();
    assert!(built.success(), "the shim does not compile");
    stage
}

/// What the devices keep: the bytes that they send, and whether they were told that these count.
#[derive(Default)]
struct Devices(Vec<(u8, Vec<u8>, bool)>);

impl Devices {
    /// Sends what there is to send until everything counts; `None` where the server dies meanwhile.
    fn drive(&mut self, server: &Process) -> Option<()> {
        for (index, devices) in DEVICES.iter().enumerate() {
            let round = index as u64 + 1;
            let deadline = Instant::now() + Duration::from_secs(60);
            let task = loop {
                let task = server.catalog()?.tasks.remove(0);
                if task.round >= round {
                    break task;
                }
                assert!(Instant::now() < deadline, "round {round} does not open");
                std::thread::sleep(Duration::from_millis(20));
            };
            for device in *devices {
                if !self.0.iter().any(|(known, ..)| known == device) {
                    // One coordinate of its own, so that a sum shows who is in it and how often.
                    let bytes = frame(&task, *device, &[(usize::from(*device), 0.01)]);
                    self.0.push((*device, bytes, false));
                }
                let (_, bytes, told) = self.0.iter_mut().find(|(d, ..)| d == device).unwrap();
                let token = match task.round == round {
                    // Where the round has just ended, the device's contribution counts already.
                    true => server.draw(&task, *device)?.unwrap_or_else(|refusal| {
                        assert!(refusal.contains("round_closed"), "{refusal}");
                        String::new()
                    }),
                    false => String::new(),
                };
                let answer = server.contribute(bytes, &token)?;
                assert!(answer.contains("\"accepted\":true"), "device {device}: {answer}");
                // Once told, always told: it is on the disk.
                assert!(!*told || answer.contains("\"duplicate\":true"), "lost: {answer}");
                *told = true;
            }
        }
        Some(())
    }
}

/// Runs until the n-th write, starts again, finishes, and checks. Whether the n-th write came.
fn die_at(stage: &Stage, n: u64) -> bool {
    let data = stage.path(&format!("run-{n}"));
    copy(&stage.path("data"), &data);
    let path = |name: &str| stage.path(name).to_str().unwrap().to_owned();
    let (shim, count, at) = (path("die.so"), path("count"), n.to_string());
    let mut devices = Devices::default();
    let first =
        Process::start(&data, &[("LD_PRELOAD", &shim), ("DIE_AT", &at), ("DIE_COUNT", &count)]);
    let finished = first.as_ref().and_then(|server| devices.drive(server)).is_some();
    let mut died = !finished;
    if let Some(mut server) = first {
        // A last write may come just now, by the release's own thread.
        std::thread::sleep(Duration::from_millis(20));
        died |= server.child.try_wait().unwrap().is_some();
        if !died {
            died = server.end();
        }
    }
    let again = Process::start(&data, &[]).expect("it does not start again");
    devices.drive(&again).expect("it dies again");
    drop(again);
    check_books(&data, n);
    std::fs::remove_dir_all(&data).unwrap();
    died
}

/// 0 contributions lost or counted twice, 0 double releases, 0 lost debits, and a chain that holds.
#[tokio::main(flavor = "current_thread")]
async fn check_books(data: &Path, n: u64) {
    let path = data.join("backstitch.db");
    let mut books = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    let counted: i64 =
        sqlx::query_scalar("SELECT count(*) FROM nullifiers").fetch_one(&mut books).await.unwrap();
    assert_eq!(counted, 3, "write {n}");
    let rounds =
        sqlx::query("SELECT round, phase, contributions, sum, noised FROM rounds ORDER BY round")
            .fetch_all(&mut books)
            .await
            .unwrap();
    let facts: Vec<(i64, String, i64)> =
        rounds.iter().map(|r| (r.get(0), r.get(1), r.get(2))).collect();
    assert_eq!(facts, [(1, "published".into(), 2), (2, "open".into(), 1)], "write {n}");
    assert!(rounds[0].get::<Option<Vec<u8>>, _>("sum").is_none(), "the raw sum is erased");
    // The open sum holds the third device once, and nobody else.
    let sum: Vec<u8> = rounds[1].get("sum");
    let sum: Vec<i64> = sum.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
    let parties: Vec<usize> = (0..sum.len()).filter(|i| sum[*i] != 0).collect();
    assert_eq!(parties, [3], "write {n}");
    let one = (0.01 / 0.5 * 32_767.0f64).trunc() as i64;
    assert!((sum[3] - one).abs() <= 1, "write {n}: {}", sum[3]);
    let records = sqlx::query("SELECT kind, rho, detail FROM ledger ORDER BY sequence")
        .fetch_all(&mut books)
        .await
        .unwrap();
    let of = |kind: &str| records.iter().filter(|r| r.get::<String, _>(0) == kind).count();
    assert_eq!((of("noise"), of("publish")), (1, 1), "write {n}: released twice or never");
    assert_eq!(of("reserve"), 1 + of("lose"), "write {n}: a debit is missing");
    let noised: Vec<u8> = rounds[0].get("noised");
    let stated: Vec<String> = records.iter().map(|r| r.get("detail")).collect();
    let digest = backstitch_onnx::Digest::of(&noised).to_string();
    assert!(stated.iter().any(|d| d.contains(&digest)), "write {n}: another result is published");
    let versions: i64 =
        sqlx::query_scalar("SELECT count(*) FROM patch_versions WHERE round IS NOT NULL")
            .fetch_one(&mut books)
            .await
            .unwrap();
    assert_eq!(versions, 1, "write {n}");
    command(&["privacy", "show"], data);
}

/// The writes of a run that nothing interrupts.
fn writes(stage: &Stage) -> u64 {
    assert!(!die_at(stage, u64::MAX / 2));
    std::fs::read_to_string(stage.path("count")).unwrap().parse().unwrap()
}

#[test]
fn a_server_killed_in_a_write_keeps_its_books() {
    let stage = set();
    let writes = writes(&stage);
    assert!(writes > 50, "{writes}: the shim does not see the writes");
    // The first start makes secrets, so the first writes are points of their own.
    for point in (1..=10).chain((1..=6).map(|part| writes * part / 7)) {
        assert!(die_at(&stage, point), "write {point}");
    }
}

#[test]
#[ignore = "minutes: just crash-matrix"]
fn a_server_killed_at_every_write_keeps_its_books() {
    let stage = set();
    let writes = writes(&stage);
    let died = (1..=writes).filter(|n| die_at(&stage, *n)).count();
    println!("killed at {died} of {writes} writes; every restart kept its books");
    assert!(died as u64 > writes * 9 / 10);
}
