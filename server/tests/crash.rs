//! kill −9 at every write: a real server process ends in the middle of its n-th write to a file, for every n, is
//! started again, and the books are right. The shim `crash/die.c` is preloaded to do that.
//!
//! The quick test takes points that are spread over all; `just crash-matrix` takes every one.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step of a test ends it")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backstitch_protocol::catalog::{Catalog, TaskEntry};
use backstitch_protocol::contribution::{Contribution, Nullifier};
use backstitch_protocol::delta::Delta;
use backstitch_protocol::id::Name;
use backstitch_protocol::token::{Blinding, Profile, TokenAnswer, TokenRequest, TokenScope};
use backstitch_protocol::trust::SignedCatalog;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Row as _};

/// Devices of the first round, which is released, and of the second, which stays open.
const DEVICES: [&[u8]; 2] = [&[1, 2], &[3]];

fn fashion() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../onnx/models/fashion")
}

/// A folder with what every run starts from: the shim, and the data of a server that has imported its library.
struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    fn set() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/crash/die.c");
        let shim = folder.path().join("die.so");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o", shim.to_str().unwrap(), source, "-ldl"])
            .status()
            .unwrap();
        assert!(built.success(), "the shim does not compile");
        let library = folder.path().join("library");
        copy(&fashion(), &library);
        let text = std::fs::read(library.join("library.json")).unwrap();
        let mut descriptor: serde_json::Value = serde_json::from_slice(&text).unwrap();
        descriptor["tasks"][0]["goal"] = DEVICES[0].len().into();
        // Room for a release that is debited twice.
        descriptor["tasks"][0]["epsilon"] = 9.0.into();
        std::fs::write(library.join("library.json"), descriptor.to_string()).unwrap();
        let imported = Command::new(env!("CARGO_BIN_EXE_backstitch"))
            .args(["library", "import", library.to_str().unwrap(), "--data"])
            .arg(folder.path().join("data"))
            .output()
            .unwrap();
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// A server process; dropped, it is killed.
struct Process {
    child: Child,
    port: u16,
}

impl Process {
    /// `None` where it dies before it listens.
    fn start(data: &Path, shim: Option<(&Path, u64, &Path)>) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_backstitch"));
        command
            .args(["serve", "--data", data.to_str().unwrap()])
            .env("BACKSTITCH_LIBRARIES", "[]")
            .env("BACKSTITCH_PUBLIC__LISTEN", format!("127.0.0.1:{port}"))
            .env("BACKSTITCH_ADMIN__LISTEN", "127.0.0.1:0")
            .env("BACKSTITCH_LOG__FILTER", "error")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some((shim, die_at, count)) = shim {
            command.env("LD_PRELOAD", shim).env("DIE_AT", die_at.to_string());
            command.env("DIE_COUNT", count);
        }
        let mut process = Self { child: command.spawn().unwrap(), port };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if process.child.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(Instant::now() < deadline, "the server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(process)
    }

    /// The answer to a request; `None` where the server is gone.
    fn ask(&self, head: &str, body: &[u8]) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(format!("{head}host: x\r\nconnection: close\r\n\r\n").as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }

    fn catalog(&self) -> Option<Catalog> {
        let text = self.ask("GET /v1/libraries/fashion/catalog HTTP/1.1\r\n", b"")?;
        let signed: SignedCatalog = serde_json::from_str(&text).ok()?;
        Some(serde_json::from_str(&signed.payload).unwrap())
    }

    /// The header with a device's token for the open round; empty where the round has ended, which only happens when
    /// the device's contribution counts already.
    fn draw(&self, task: &TaskEntry, device: u8) -> Option<String> {
        let library = Name::new("fashion").unwrap();
        let blinding = Blinding::derive(&[device; 32], &task.name, task.round).unwrap();
        let request = TokenRequest {
            task: format!("{library}.{}", task.name),
            round: task.round,
            profile: Profile::derive(&[device; 32]),
            blinded: blinding.blinded().clone(),
            voucher: None,
        };
        let body = serde_json::to_vec(&request).unwrap();
        let head = format!(
            "POST /v1/tokens HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        );
        let text = self.ask(&head, &body).filter(|answer| !answer.is_empty())?;
        let Ok(answer) = serde_json::from_str::<TokenAnswer>(&text) else {
            assert!(text.contains("round_closed"), "{text}");
            return Some(String::new());
        };
        let scope = TokenScope { library: &library, task: &task.name, round: task.round };
        let token = blinding.finish(&answer, task.token_key.as_ref().unwrap(), &scope).unwrap();
        Some(format!("authorization: Bearer {}\r\n", token.hex()))
    }

    fn contribute(&self, frame: &[u8], token: &str) -> Option<String> {
        let head = format!(
            "POST /v1/tasks/fashion.personal-style/contributions HTTP/1.1\r\n{token}content-type: application/vnd.backstitch.contribution\r\ncontent-length: {}\r\n",
            frame.len()
        );
        self.ask(&head, frame).filter(|answer| !answer.is_empty())
    }

    /// Asks it to stop. Whether it was killed instead: a shutdown writes as well.
    fn end(mut self) -> bool {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.child.wait().unwrap().signal() == Some(9)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The frame of a device: one coordinate of its own, so that a sum shows who is in it and how often.
fn frame(task: &TaskEntry, device: u8) -> Vec<u8> {
    let zeros = vec![0.0; task.parameters as usize];
    let mut trained = zeros.clone();
    trained[usize::from(device)] = 0.01;
    let delta = Delta::between(&zeros, &trained).unwrap().clip(task.clip_norm).unwrap();
    Contribution::new(task.base, Nullifier::derive(&[device; 32], &task.name, task.round), delta)
        .encode()
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
                    self.0.push((*device, frame(&task, *device), false));
                }
                let (_, bytes, told) = self.0.iter_mut().find(|(d, ..)| d == device).unwrap();
                let token = match task.round == round {
                    true => server.draw(&task, *device)?,
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
    let (shim, count) = (stage.path("die.so"), stage.path("count"));
    let mut devices = Devices::default();
    let first = Process::start(&data, Some((&shim, n, &count)));
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
    let again = Process::start(&data, None).expect("it does not start again");
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
    let shown = Command::new(env!("CARGO_BIN_EXE_backstitch"))
        .args(["privacy", "show", "--data", data.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
}

/// The writes of a run that nothing interrupts.
fn writes(stage: &Stage) -> u64 {
    assert!(!die_at(stage, u64::MAX / 2));
    std::fs::read_to_string(stage.path("count")).unwrap().parse().unwrap()
}

#[test]
fn a_server_killed_in_a_write_keeps_its_books() {
    let stage = Stage::set();
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
    let stage = Stage::set();
    let writes = writes(&stage);
    let died = (1..=writes).filter(|n| die_at(&stage, *n)).count();
    println!("killed at {died} of {writes} writes; every restart kept its books");
    assert!(died as u64 > writes * 9 / 10);
}
