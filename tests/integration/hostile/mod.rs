//! Hostile clients against a running server, over real sockets and from networks of their own (127.0.x.0/24): whatever
//! they send, the model stays within the proved bound and healthy devices are served.

mod device;
mod two;
mod wire;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backstitch_onnx::patch::Patch;
use backstitch_protocol::catalog::Catalog;
use backstitch_protocol::contribution::HEADER_BYTES;
use backstitch_server::{Config, Running, Server};
use tokio_rustls::rustls::pki_types::CertificateDer;

use self::device::{Device, PARAMETERS};
use self::wire::{Network, Reply};
use crate::whole_loop::library;

/// Contributions of a round: nine honest ones and three of the attacker.
const GOAL: u32 = 12;
const ATTACKERS: usize = 3;

/// So little noise that the bound shows: σ = 0.002 · C.
const NOISE_MULTIPLIER: f64 = 0.002;

const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
const ONLOOKER: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 1);

/// A server with the limits that a test needs, and its temporary folders.
struct Bench {
    running: Running,
    _folders: [tempfile::TempDir; 2],
}

impl Bench {
    async fn new(edit: impl Fn(&mut Config)) -> Self {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut config = Config::in_folder(folders[0].path());
        config.libraries = vec![ungated(folders[1].path())];
        config.public.header_timeout_s = 1;
        config.public.request_timeout_s = 3;
        config.public.cors_origins = vec!["https://shop.example".into()];
        edit(&mut config);
        Self { running: Server::start(config).await.unwrap(), _folders: folders }
    }

    /// A server with a certificate of its own, the certificate, and the folder that it lies in.
    async fn with_tls() -> (Self, CertificateDer<'static>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let bench = Self::new(|config| {
            config.public.tls.certificate.clone_from(&certificate);
            config.public.tls.key.clone_from(&key);
        })
        .await;
        (bench, made.cert.der().clone(), folder)
    }

    fn network(&self, source: Ipv4Addr) -> Network {
        Network { source, server: self.running.public_addr }
    }

    async fn catalog(&self) -> Catalog {
        let reply = self.network(ONLOOKER).get("/v1/libraries/fashion/catalog", "").await;
        let signed = serde_json::from_slice(&reply.body).unwrap();
        let mut trust = backstitch_protocol::trust::Trust::pinned(&self.running.public_key);
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        trust.accept(&signed, now).unwrap()
    }

    /// The trainable numbers of the champion, in the order of a frame.
    async fn weights(&self) -> Vec<f32> {
        let catalog = self.catalog().await;
        let champions = catalog.patches.iter().filter(|p| p.name.as_str() == "personal-style");
        let champion = champions.max_by_key(|p| p.version).unwrap();
        let blob = async |digest: &backstitch_onnx::Digest| {
            self.network(ONLOOKER).get(&format!("/v1/blobs/{}", digest.hex()), "").await.body
        };
        let weights = match &champion.weights {
            Some(weights) => Some(blob(&weights.digest).await),
            None => None,
        };
        let manifest = blob(&champion.manifest.digest).await;
        let graph = blob(&champion.graph.digest).await;
        let patch = Patch::from_parts(&manifest, &graph, weights.as_deref()).unwrap();
        patch.weights().into_values().flat_map(|t| t.values::<f32>().unwrap()).collect()
    }

    async fn wait_for_round(&self, round: u64) {
        let started = Instant::now();
        while self.catalog().await.tasks[0].round < round {
            assert!(started.elapsed() < Duration::from_secs(30), "round {round} does not open");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Somebody who reads the catalog all the while, and how long that took.
struct Onlooker {
    ended: Arc<AtomicBool>,
    reading: tokio::task::JoinHandle<(usize, Duration)>,
}

impl Onlooker {
    fn start(network: Network) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        let reading = tokio::spawn(async move {
            let (mut served, mut slowest) = (0, Duration::ZERO);
            while !until.load(Ordering::Relaxed) {
                let started = Instant::now();
                let reply = network.get("/v1/libraries/fashion/catalog", "").await;
                assert_eq!(reply.status, 200, "an onlooker is not served");
                (served, slowest) = (served + 1, slowest.max(started.elapsed()));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (served, slowest)
        });
        Self { ended, reading }
    }

    /// Everything was answered, and nothing took as long as a request may take.
    async fn end(self) {
        self.ended.store(true, Ordering::Relaxed);
        let (served, slowest) = self.reading.await.unwrap();
        assert!(served > 0, "the onlooker read nothing");
        assert!(slowest < Duration::from_secs(3), "the slowest answer took {slowest:?}");
    }
}

/// The sample library without its release gate, which would hold an attacked release back: here the bound itself shows.
fn ungated(folder: &std::path::Path) -> String {
    let path = library(folder, GOAL, NOISE_MULTIPLIER, 4e6);
    let file = folder.join("library.json");
    let text = std::fs::read(&file).unwrap();
    let mut descriptor: serde_json::Value = serde_json::from_slice(&text).unwrap();
    descriptor["tasks"][0].as_object_mut().unwrap().remove("evaluation").unwrap();
    std::fs::write(file, descriptor.to_string()).unwrap();
    path
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

#[tokio::test(flavor = "multi_thread")]
async fn attackers_move_the_model_by_no_more_than_their_share() {
    let bench = Bench::new(|config| config.enrolment.per_network_per_hour = ATTACKERS as u32).await;
    let onlooker = Onlooker::start(bench.network(ONLOOKER));
    let task = bench.catalog().await.tasks[0].clone();
    let before = bench.weights().await;

    // Sybil flood: of sixty profiles of one network, three are enrolled.
    let attacker = bench.network(ATTACKER);
    let mut sybils = Vec::new();
    for seed in 0..60 {
        let device = Device::new(200 + seed, attacker);
        match device.draw(&task).await {
            Ok(token) => sybils.push((device, token)),
            Err(reply) => assert_eq!(reply.code(), "enrolment_refused"),
        }
    }
    assert_eq!(sybils.len(), ATTACKERS);

    let mut honest = vec![0.0; PARAMETERS];
    for number in 0..u64::from(GOAL) - ATTACKERS as u64 {
        let network = bench.network(Ipv4Addr::new(127, 0, 10 + number as u8, 1));
        let device = Device::new(number, network);
        let token = device.draw(&task).await.unwrap();
        let frame = device.frame(&task, |i| if i as u64 % 9 == number { 0.01 } else { 0.0 });
        let reply = device.post(&frame, Some(&token)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        device::add(&mut honest, &frame, &task);
        // A stranger who saw it repeats it, or changes it, without and with a token of its own.
        let (sybil, foreign) = &sybils[0];
        assert!(sybil.post(&frame, None).await.text().contains("\"duplicate\":true"));
        let changed = device.frame(&task, |i| if i as u64 % 9 == number { -0.01 } else { 0.0 });
        assert_eq!(sybil.post(&changed, Some(foreign)).await.code(), "nullifier_reused");
    }

    for (device, token) in &sybils {
        refused(device, token, &task).await;
        // What is left is the strongest attack that the protocol admits: sign flip at the full norm.
        let flipped = device.frame(&task, |_| -1.0);
        assert_eq!(device.post(&flipped, Some(token)).await.status, 200);
        for _ in 0..20 {
            let again = device.post(&flipped, Some(token)).await;
            assert!(again.text().contains("\"duplicate\":true"), "a replay counts once");
        }
    }

    bench.wait_for_round(2).await;
    let after = bench.weights().await;
    let n = f64::from(GOAL);
    let unmoved =
        (0..PARAMETERS).map(|i| f64::from(after[i]) - f64::from(before[i]) - honest[i] / n);
    let moved = norm(&unmoved.collect::<Vec<_>>());
    let (clip, m) = (task.clip_norm.value(), ATTACKERS as f64);
    let bound = m * clip / n;
    // Five deviations of the noise's own norm, and f32 rounding.
    let noise = NOISE_MULTIPLIER * clip / n * ((PARAMETERS as f64).sqrt() + 5.0) + 1e-4;
    assert!(moved <= bound + noise, "moved by {moved:.5}, the bound is {bound:.5} + {noise:.5}");
    assert!(moved > 0.9 * bound, "moved by {moved:.5}: did the attack arrive?");
    onlooker.end().await;
    bench.running.shutdown().await;
}

/// Everything that an enrolled attacker with a valid token may not send.
async fn refused(device: &Device, token: &str, task: &backstitch_protocol::catalog::TaskEntry) {
    let code = async |frame: &[u8]| device.post(frame, Some(token)).await.code();
    // Scaling: a hundred times the norm, in a frame that no client of ours would build.
    let mut scaled = device.frame(task, |_| 1.0);
    scaled[HEADER_BYTES..].chunks_exact_mut(2).for_each(|v| v.copy_from_slice(&[0xff, 0x7f]));
    assert_eq!(code(&scaled).await, "norm_exceeded");
    // NaN: floats in place of integers are longer; cut to the right length they are above the norm.
    let nan: Vec<u8> = f32::NAN.to_le_bytes().repeat(PARAMETERS);
    let header = &scaled[..HEADER_BYTES];
    assert_eq!(code(&[header, &nan].concat()).await, "frame_length");
    assert_eq!(code(&[header, &nan[..2 * PARAMETERS]].concat()).await, "norm_exceeded");
    // Wrong shapes.
    let good = device.frame(task, |_| 1.0);
    assert_eq!(code(&good[..good.len() - 2]).await, "frame_length");
    assert_eq!(code(&[&good[..], &[0, 0]].concat()).await, "frame_length");
    assert_eq!(code(&[]).await, "frame_length");
    let mut lying = good.clone();
    lying[HEADER_BYTES - 4] ^= 1;
    assert_eq!(code(&lying).await, "frame_invalid");
    // A stale version, and a token of nobody.
    let mut stale = good.clone();
    stale[4] ^= 1;
    assert_eq!(device.post(&stale, None).await.code(), "version_stale");
    assert_eq!(device.post(&good, None).await.code(), "token_invalid");
    assert_eq!(device.post(&good, Some(&"ab".repeat(32))).await.code(), "token_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_idle_lines_are_cut_and_leave_places_for_others() {
    let bench = Bench::new(|config| {
        config.public.max_connections = 64;
        config.public.max_connections_per_network = 16;
    })
    .await;
    let onlooker = Onlooker::start(bench.network(ONLOOKER));
    let attacker = bench.network(ATTACKER);
    for _ in 0..3 {
        let mut lines = Vec::new();
        for number in 0..200 {
            // Slow headers, silence, and an upload that never comes.
            let begun: &[u8] = match number % 3 {
                0 => b"GET /v1/libraries HTTP/1.1\r\nhost: x\r\nx-slow: ",
                1 => b"",
                _ => b"POST /v1/tokens HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 300\r\n\r\n{",
            };
            lines.push(attacker.begin(begun).await);
        }
        let started = Instant::now();
        for line in lines.into_iter().flatten() {
            wire::ends(line).await;
        }
        assert!(started.elapsed() < Duration::from_secs(8), "lines outlive their limits");
    }
    onlooker.end().await;
    bench.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_are_limited_by_network_and_others_go_on() {
    let bench = Bench::new(|config| {
        config.public.requests_per_second = 20;
        config.public.uploads_per_second = 2;
    })
    .await;
    let onlooker = Onlooker::start(bench.network(ONLOOKER));
    let attacker = bench.network(ATTACKER);
    let mut limited = [0, 0];
    for _ in 0..300 {
        let upload = attacker.post("/v1/tokens", "application/json", b"{}", "").await;
        limited[0] += usize::from(upload.code() == "rate_limited");
        let forged = attacker.get("/v1/libraries", "x-forwarded-for: 203.0.113.7\r\n").await;
        limited[1] += usize::from(forged.status == 429);
        if limited[1] > 0 {
            assert!(forged.status != 429 || forged.head.contains("retry-after"));
        }
    }
    assert!(limited[0] > 200 && limited[1] > 50, "limited {limited:?} of 300 each");
    onlooker.end().await;
    bench.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_compressed_and_chunked_bodies_are_refused_before_they_are_read() {
    let bench = Bench::new(|_| {}).await;
    let attacker = bench.network(ATTACKER);
    let path = "/v1/tasks/fashion.personal-style/contributions";
    let kind = backstitch_protocol::contribution::MEDIA_TYPE;
    let claimed = async |length: &str, more: &str| {
        // Only the claim is sent: whoever waits for the body would run into the time limit.
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {kind}\r\n{length}{more}\r\n"
        );
        let started = Instant::now();
        let reply = attacker.raw(head.as_bytes()).await;
        assert!(started.elapsed() < Duration::from_secs(2), "the body was waited for");
        reply.code()
    };
    assert_eq!(claimed("content-length: 99999999999\r\n", "").await, "body_too_large");
    assert_eq!(claimed("content-length: 1000\r\n", "").await, "frame_length");
    assert_eq!(claimed("", "transfer-encoding: chunked\r\n").await, "length_required");
    assert_eq!(
        claimed("content-length: 732\r\n", "content-encoding: gzip\r\n").await,
        "length_required"
    );
    let json = vec![b' '; 20 << 10];
    let large = attacker.post("/v1/tokens", "application/json", &json, "").await;
    assert_eq!(large.code(), "body_too_large");
    let headers = format!("x-padding: {}\r\n", "a".repeat(64 << 10));
    assert_eq!(attacker.get("/v1/libraries", &headers).await.status, 431);
    let broken = attacker.raw(b"\x16\x03\x01 this is no HTTP\r\n\r\n").await;
    assert!(matches!(broken.status, 0 | 400), "{broken:?}");
    assert_eq!(bench.network(ONLOOKER).get("/v1/libraries", "").await.status, 200);
    bench.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_pages_may_not_call() {
    let bench = Bench::new(|_| {}).await;
    let page = bench.network(ONLOOKER);
    let allowed = |reply: &Reply| reply.header("access-control-allow-origin");
    let ours = page.get("/v1/libraries", "origin: https://shop.example\r\n").await;
    assert_eq!(allowed(&ours).as_deref(), Some("https://shop.example"));
    assert_eq!(ours.header("access-control-allow-credentials"), None);
    let strangers = [
        "https://evil.example",
        "null",
        "https://shop.example.evil.example",
        "http://shop.example",
        "https://SHOP.example",
        "https://shop.example:8443",
        "*",
    ];
    for origin in strangers {
        let probe = page.get("/v1/libraries", &format!("origin: {origin}\r\n")).await;
        assert_eq!(allowed(&probe), None, "{origin}");
        let preflight = format!(
            "OPTIONS /v1/tokens HTTP/1.1\r\nhost: x\r\nconnection: close\r\norigin: {origin}\r\naccess-control-request-method: POST\r\n\r\n"
        );
        assert_eq!(allowed(&page.raw(preflight.as_bytes()).await), None, "{origin}");
    }
    let preflight = b"OPTIONS /v1/tokens HTTP/1.1\r\nhost: x\r\nconnection: close\r\norigin: https://shop.example\r\naccess-control-request-method: DELETE\r\n\r\n";
    let reply = page.raw(preflight).await;
    let methods = reply.header("access-control-allow-methods");
    assert_eq!(methods.as_deref(), Some("GET,POST"), "{}", reply.head);
    bench.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_3_is_spoken_and_nothing_older() {
    use tokio_rustls::rustls::pki_types::ServerName;
    use tokio_rustls::rustls::version::{TLS12, TLS13};
    let (bench, certificate, _folder) = Bench::with_tls().await;
    assert!(bench.running.public_url().starts_with("https://"));
    let connect = async |version| {
        let connector = wire::connector(certificate.clone(), version, &[]);
        let stream = bench.network(ONLOOKER).connect().await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        connector.connect(name, stream).await
    };
    let mut line = connect(&TLS13).await.unwrap();
    let request = b"GET /v1/libraries HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let reply = wire::exchange(&mut line, request).await;
    assert_eq!((reply.status, reply.text().contains("fashion")), (200, true));
    assert!(reply.header("strict-transport-security").is_some());
    assert!(connect(&TLS12).await.is_err());
    // Plain HTTP gets no answer, and a handshake that stalls is cut.
    assert_eq!(bench.network(ATTACKER).get("/v1/libraries", "").await.status, 0);
    let stalled = bench.network(ATTACKER).begin(b"").await.unwrap();
    let started = Instant::now();
    wire::ends(stalled).await;
    assert!(started.elapsed() < Duration::from_secs(4));
    bench.running.shutdown().await;
}
