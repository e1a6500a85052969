//! What a server costs: a round of large contributions, and reads while rounds run, over real sockets, with the server
//! in a process of its own. `just bench --only server` builds it optimised and puts its figures into docs/BENCHMARKS.md.
//!
//! Prints one JSON object: CPU in seconds and from `/proc`, sizes in bytes, latencies in milliseconds. The load comes from
//! the same machine, so rates per second are what is left of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step ends the bench")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backstitch_onnx::{DType, Digest, Dim, Graph, Model, Node, Tensor, ValueInfo};
use backstitch_protocol::catalog::{Catalog, TaskEntry};
use backstitch_protocol::contribution::{Contribution, Nullifier};
use backstitch_protocol::delta::Delta;
use backstitch_protocol::id::Name;
use backstitch_protocol::privacy::ClipNorm;
use backstitch_protocol::token::{Blinding, Profile, TokenAnswer, TokenRequest, TokenScope};
use backstitch_protocol::trust::SignedCatalog;
use backstitch_server::aggregate::Aggregate;
use serde_json::json;

/// Contributions of a round.
const DEVICES: u32 = 1000;
/// Connections that contribute, and that read.
const LINES: u32 = 8;
/// A patch of so many numbers more than a hundred thousand: a bottleneck of width 50 on a thousand features.
const FEATURES: usize = 1000;
const WIDTH: usize = 50;
const READING: Duration = Duration::from_secs(5);
const NAME: &str = "large";

fn main() {
    // `cargo test --benches` only wants to know whether it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = library(folder.path());
    let server = Process::start(&data);
    let round = contribute(&server);
    let reads = server.files().map(|(what, path)| read(&server, what, &path));
    println!("{}", json!({ "round": round, "reads": reads, "sum_bytes_per_s": sum_rate() }));
}

/// A library with a large patch and a task for it, imported by the command; yields the server's data folder.
fn library(folder: &Path) -> PathBuf {
    let (library, data) = (folder.join("library"), folder.join("data"));
    std::fs::create_dir_all(&library).unwrap();
    let weights = vec![0.01f32; FEATURES * 10];
    let open = |size: usize| Some(vec![Dim::Symbol("N".to_owned()), Dim::Fixed(size)]);
    let info = |name: &str, size| ValueInfo {
        name: name.to_owned(),
        dtype: DType::F32,
        shape: open(size),
    };
    let graph = Graph {
        nodes: vec![
            Node::new("Relu", &["x"], &["features"]),
            Node::new("MatMul", &["features", "w"], &["logits"]),
        ],
        initializers: [("w".to_owned(), Tensor::new(vec![FEATURES, 10], &weights).unwrap())].into(),
        inputs: vec![info("x", FEATURES)],
        outputs: vec![info("logits", 10)],
        ..Graph::default()
    };
    let primary = library.join("primary.onnx");
    std::fs::write(&primary, Model { opset: 17, graph }.to_bytes()).unwrap();
    let (primary, patch) = (primary.to_str().unwrap(), library.join("patches").join(NAME));
    let new = ["patch", "new", "--kind", "adapter", "--site", "features", "--primary", primary];
    run(&[&new[..], &["--rank", &WIDTH.to_string(), "--out", patch.to_str().unwrap()]].concat());
    let descriptor = json!({
        "format": 1, "name": NAME, "title": "Large", "description": "A patch of a hundred thousand numbers.",
        "modality": "series", "primary": { "file": "primary.onnx", "input": "x", "output": "logits" },
        "patches": [NAME],
        "tasks": [{
            "name": NAME, "patches": [NAME], "goal": DEVICES, "clip_norm": 1.0, "noise_multiplier": 5.0,
            "max_participations": 1, "period_days": 30, "min_separation": 1, "epsilon": 4.0, "delta": 1e-6,
            "server_learning_rate": 1.0, "server_momentum": 0.0,
        }],
    });
    std::fs::write(library.join("library.json"), descriptor.to_string()).unwrap();
    run(&["library", "import", library.to_str().unwrap(), "--data", data.to_str().unwrap()]);
    data
}

fn run(arguments: &[&str]) {
    let done = Command::new(env!("CARGO_BIN_EXE_backstitch")).args(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A server without limits of rate, in a process of its own; dropped, it is killed.
struct Process {
    child: Child,
    port: u16,
}

/// What a process has used.
struct Usage {
    cpu_s: f64,
    peak_bytes: u64,
}

impl Process {
    fn start(data: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(env!("CARGO_BIN_EXE_backstitch"))
            .args(["serve", "--data", data.to_str().unwrap()])
            .env("BACKSTITCH_LIBRARIES", "[]")
            .env("BACKSTITCH_PUBLIC__LISTEN", format!("127.0.0.1:{port}"))
            .env("BACKSTITCH_PUBLIC__REQUESTS_PER_SECOND", "0")
            .env("BACKSTITCH_PUBLIC__UPLOADS_PER_SECOND", "0")
            .env("BACKSTITCH_ENROLMENT__PER_NETWORK_PER_HOUR", "0")
            .env("BACKSTITCH_ADMIN__LISTEN", "127.0.0.1:0")
            .env("BACKSTITCH_LOG__FILTER", "error")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let process = Self { child, port };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        process
    }

    fn line(&self) -> Line {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        Line(BufReader::with_capacity(1 << 16, stream))
    }

    /// Fields 14 and 15 of `/proc/PID/stat` are ticks of a hundredth of a second; `VmHWM` is the peak of what is resident.
    fn usage(&self) -> Usage {
        let read = |file: &str| {
            std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
        };
        let stat = read("stat");
        let ticks = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
        let ticks: f64 = ticks.map(|field| field.parse::<f64>().unwrap()).sum();
        let status = read("status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        Usage { cpu_s: ticks / 100.0, peak_bytes: kilobytes * 1024 }
    }

    fn catalog(&self) -> Catalog {
        let body = self.line().get(&format!("/v1/libraries/{NAME}/catalog"));
        let signed: SignedCatalog = serde_json::from_slice(&body).unwrap();
        serde_json::from_str(&signed.payload).unwrap()
    }

    /// What a page loads: the catalog, the manifest of a patch, and weights.
    fn files(&self) -> [(&'static str, String); 3] {
        let released = self.catalog().patches.into_iter().find(|patch| patch.weights.is_some());
        let (manifest, weights) = released.map(|patch| (patch.manifest, patch.weights)).unwrap();
        let blob = |digest: Digest| format!("/v1/blobs/{digest}");
        [
            ("the catalog", format!("/v1/libraries/{NAME}/catalog")),
            ("a manifest", blob(manifest.digest)),
            ("weights", blob(weights.unwrap().digest)),
        ]
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A connection that is kept.
struct Line(BufReader<TcpStream>);

impl Line {
    fn get(&mut self, path: &str) -> Vec<u8> {
        self.exchange(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes(), &[])
    }

    fn post(&mut self, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n");
        self.exchange(head.as_bytes(), body)
    }

    fn exchange(&mut self, head: &[u8], body: &[u8]) -> Vec<u8> {
        self.0.get_mut().write_all(&[head, body].concat()).unwrap();
        let (mut line, mut length, mut first) = (String::new(), 0, String::new());
        loop {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            let text = line.trim_end();
            if first.is_empty() {
                first = text.to_owned();
            }
            if text.is_empty() {
                break;
            }
            if let Some(value) = text.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        assert!(first.contains(" 200 "), "{first}: {}", String::from_utf8_lossy(&body));
        body
    }
}

fn secret(device: u32) -> [u8; 32] {
    *Digest::of(&device.to_le_bytes()).as_bytes()
}

/// The headers with the token of a device for a round.
fn draw(line: &mut Line, task: &TaskEntry, device: u32) -> String {
    let library = Name::new(NAME).unwrap();
    let blinding = Blinding::derive(&secret(device), &task.name, task.round).unwrap();
    let request = TokenRequest {
        task: format!("{library}.{}", task.name),
        round: task.round,
        profile: Profile::derive(&secret(device)),
        blinded: blinding.blinded().clone(),
        voucher: None,
    };
    let body = serde_json::to_vec(&request).unwrap();
    let answer = line.post("/v1/tokens", "content-type: application/json\r\n", &body);
    let answer: TokenAnswer = serde_json::from_slice(&answer).unwrap();
    let scope = TokenScope { library: &library, task: &task.name, round: task.round };
    let token = blinding.finish(&answer, task.token_key.as_ref().unwrap(), &scope).unwrap();
    format!(
        "authorization: Bearer {}\r\ncontent-type: application/vnd.backstitch.contribution\r\n",
        token.hex()
    )
}

/// What a device sends.
fn frame(task: &TaskEntry, device: u32) -> Vec<u8> {
    let nullifier = Nullifier::derive(&secret(device), &task.name, task.round);
    let delta = delta(task.parameters as usize, device).clip(task.clip_norm).unwrap();
    Contribution::new(task.base, nullifier, delta).encode()
}

/// A delta that fills its clip norm, of another device another one.
fn delta(parameters: usize, device: u32) -> Delta {
    let zeros = vec![0.0; parameters];
    let trained: Vec<f32> =
        (0..parameters).map(|i| ((i as f32 + device as f32 * 0.7) * 0.1).sin()).collect();
    Delta::between(&zeros, &trained).unwrap()
}

/// A whole round: tokens, contributions, and until its result is in the catalog.
fn contribute(server: &Process) -> serde_json::Value {
    let task = server.catalog().tasks.remove(0);
    let drawing = server.usage();
    let tokens = on_lines(server, |line, device| draw(line, &task, device));
    let drawn = server.usage();
    let frames: Vec<(String, Vec<u8>)> =
        tokens.into_iter().zip(0..).map(|(token, device)| (token, frame(&task, device))).collect();
    let path = format!("/v1/tasks/{NAME}.{}/contributions", task.name);
    let post = |line: &mut Line, device: u32| {
        let (headers, body) = &frames[device as usize];
        line.post(&path, headers, body);
        server.usage().peak_bytes
    };
    let (before, began) = (server.usage(), Instant::now());
    let peaks = on_lines(server, post);
    let (accepted, posted) = (server.usage(), began.elapsed());
    while server.catalog().tasks[0].round == task.round {
        std::thread::sleep(Duration::from_millis(20));
    }
    let published = server.usage();
    json!({
        "contributions": DEVICES, "parameters": task.parameters, "frame_bytes": frames[0].1.len(),
        "tokens_cpu_s": drawn.cpu_s - drawing.cpu_s,
        "accepted_cpu_s": accepted.cpu_s - before.cpu_s,
        "cpu_s": published.cpu_s - before.cpu_s,
        "posted_s": posted.as_secs_f64(), "published_s": began.elapsed().as_secs_f64(),
        "peak_bytes_after_a_tenth": peaks[DEVICES as usize / 10], "peak_bytes": accepted.peak_bytes,
    })
}

/// Asks for every device on its line; answers in the order of the devices.
fn on_lines<T: Send>(server: &Process, ask: impl Fn(&mut Line, u32) -> T + Sync) -> Vec<T> {
    let answers = std::thread::scope(|scope| {
        let work = |own: u32| {
            let ask = &ask;
            scope.spawn(move || {
                let mut line = server.line();
                let devices = (0..DEVICES).filter(|device| device % LINES == own);
                devices.map(|device| (device, ask(&mut line, device))).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..LINES).map(work).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let mut answers = answers;
    answers.sort_by_key(|(device, _)| *device);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// Reads one address as fast as it is answered, while devices of the open round contribute.
fn read(server: &Process, what: &str, path: &str) -> serde_json::Value {
    let ended = AtomicBool::new(false);
    let bytes = server.line().get(path).len();
    let mut latencies: Vec<f64> = std::thread::scope(|scope| {
        scope.spawn(|| contribute_until(server, &ended));
        let read = || {
            let mut line = server.line();
            let (began, mut latencies) = (Instant::now(), Vec::new());
            while began.elapsed() < READING {
                let asked = Instant::now();
                line.get(path);
                latencies.push(asked.elapsed().as_secs_f64() * 1e3);
            }
            latencies
        };
        let threads: Vec<_> = (0..LINES).map(|_| scope.spawn(read)).collect();
        let all = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        ended.store(true, Ordering::Relaxed);
        all
    });
    latencies.sort_by(f64::total_cmp);
    let quantile = |share: f64| latencies[(latencies.len() as f64 * share) as usize];
    json!({
        "what": what, "bytes": bytes, "requests_per_s": latencies.len() as f64 / READING.as_secs_f64(),
        "p50_ms": quantile(0.5), "p99_ms": quantile(0.99),
    })
}

/// Contributions, fifty a second at most, of devices that were in no round yet: too few to close the round meanwhile.
fn contribute_until(server: &Process, ended: &AtomicBool) {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(DEVICES);
    let mut line = server.line();
    while !ended.load(Ordering::Relaxed) {
        let task = server.catalog().tasks.remove(0);
        let device = NEXT.fetch_add(1, Ordering::Relaxed);
        let token = draw(&mut line, &task, device);
        let path = format!("/v1/tasks/{NAME}.{}/contributions", task.name);
        line.post(&path, &token, &frame(&task, device));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Bytes of frames that one core adds to a sum in a second.
fn sum_rate() -> f64 {
    let parameters = 100_000;
    let clipped = delta(parameters, 0).clip(ClipNorm::new(1.0).unwrap()).unwrap();
    let nullifier = Nullifier::derive(&secret(0), &Name::new(NAME).unwrap(), 1);
    let contribution = Contribution::new(Digest::of(b""), nullifier, clipped);
    let bytes = contribution.clone().encode().len();
    let mut aggregate = Aggregate::new(parameters as u32);
    let (began, rounds) = (Instant::now(), 20_000);
    for _ in 0..rounds {
        aggregate.add(std::hint::black_box(&contribution)).unwrap();
    }
    std::hint::black_box(&aggregate);
    (bytes * rounds) as f64 / began.elapsed().as_secs_f64()
}
