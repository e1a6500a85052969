//! A whole server over real sockets: slow and broken clients, events, shutdown, and a process that is killed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step of a test ends it")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backstitch_server::{Config, Server};

fn config(folder: &Path) -> Config {
    let mut config = Config::in_folder(folder);
    config.public.header_timeout_s = 1;
    config.public.drain_s = 2;
    config
}

fn send(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(wanted) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(n) => text.push_str(&String::from_utf8_lossy(&buffer[..n])),
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_headers_are_cut_off_and_others_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let running = Server::start(config(folder.path())).await.unwrap();
    let address = running.public_addr;
    tokio::task::spawn_blocking(move || {
        let mut slow = send(address, "GET /v1/libraries HTTP/1.1\r\nhost: x\r\n");
        let started = Instant::now();
        let mut healthy = send(address, "GET /v1/libraries HTTP/1.1\r\nhost: x\r\n\r\n");
        assert!(read_until(&mut healthy, "fashion").contains("200 OK"));
        // Closed without an answer, well before our own timeout.
        read_until(&mut slow, "never");
        assert!(started.elapsed() < Duration::from_secs(4));
        // An upload that stops in the middle: a typed problem or a closed line, never a hanging server.
        let head = "POST /v1/tasks/fashion.personal-style/contributions HTTP/1.1\r\nhost: x\r\ncontent-type: application/vnd.backstitch.contribution\r\ncontent-length: 732\r\n\r\nBSC1";
        drop(send(address, head));
        let mut after = send(address, "GET /v1/libraries HTTP/1.1\r\nhost: x\r\n\r\n");
        assert!(read_until(&mut after, "fashion").contains("200 OK"));
    })
    .await
    .unwrap();
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_begin_with_the_catalog_and_end_with_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let running = Server::start(config(folder.path())).await.unwrap();
    let address = running.public_addr;
    let mut stream = send(address, "GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut stream = tokio::task::spawn_blocking(move || {
        let text = read_until(&mut stream, "\n\n");
        assert!(
            text.contains("event: catalog") && text.contains("\"library\":\"fashion\""),
            "{text}"
        );
        stream
    })
    .await
    .unwrap();
    let second = Server::start(config(folder.path())).await;
    assert!(second.is_err_and(|problem| problem.detail().contains("another process")));
    let started = Instant::now();
    running.shutdown().await;
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "an open stream does not hold the shutdown up"
    );
    assert!(!read_until(&mut stream, "never").contains("event: state"));
    // The data folder is free again, and the catalog's version has grown.
    let again = Server::start(config(folder.path())).await.unwrap();
    assert!(again.services().catalogs.all()[0].catalog.version > 1);
    again.shutdown().await;
}

fn backstitch(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstitch"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn serve(folder: &Path, port: u16) -> Child {
    serve_with_log(folder, port, "warn")
}

fn serve_with_log(folder: &Path, port: u16, filter: &str) -> Child {
    let data = folder.to_str().unwrap();
    let child = backstitch(&["serve", "--data", data])
        .env("BACKSTITCH_PUBLIC__LISTEN", format!("127.0.0.1:{port}"))
        .env("BACKSTITCH_ADMIN__LISTEN", "127.0.0.1:0")
        .env("BACKSTITCH_LOG__FILTER", filter)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "the server does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

fn stop(mut server: Child) {
    server.kill().unwrap();
    server.wait().unwrap();
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Posts a frame with a token and returns the answer's body.
fn contribute(port: u16, (frame, token): &(Vec<u8>, String)) -> String {
    let head = format!(
        "POST /v1/tasks/fashion.personal-style/contributions HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-type: application/vnd.backstitch.contribution\r\ncontent-length: {}\r\n\r\n",
        frame.len()
    );
    exchange(port, &[head.as_bytes(), frame].concat())
}

fn exchange(port: u16, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(request).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The token of a device for the open round.
fn draw(port: u16, device: u8, task: &backstitch_protocol::catalog::TaskEntry) -> String {
    use backstitch_protocol::token::{Blinding, Profile, TokenAnswer, TokenRequest, TokenScope};
    let library = backstitch_protocol::id::Name::new("fashion").unwrap();
    let blinding = Blinding::derive(&[device; 32], &task.name, task.round).unwrap();
    let body = serde_json::to_string(&TokenRequest {
        task: format!("{library}.{}", task.name),
        round: task.round,
        profile: Profile::derive(&[device; 32]),
        blinded: blinding.blinded().clone(),
        voucher: None,
    });
    let body = body.unwrap();
    let answer = exchange(port, format!("POST /v1/tokens HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes());
    let answer: TokenAnswer =
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).expect(&answer);
    let scope = TokenScope { library: &library, task: &task.name, round: task.round };
    blinding.finish(&answer, task.token_key.as_ref().unwrap(), &scope).unwrap().hex()
}

/// The frame of a device, and its token.
fn frame(port: u16, device: u8) -> (Vec<u8>, String) {
    use backstitch_protocol::contribution::{Contribution, Nullifier};
    use backstitch_protocol::trust::{SignedCatalog, Trust};
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .write_all(
            b"GET /v1/libraries/fashion/catalog HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let signed: SignedCatalog =
        serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let catalog = Trust::default().accept(&signed, now).unwrap();
    let task = &catalog.tasks[0];
    let zeros = vec![0.0; task.parameters as usize];
    let mut trained = zeros.clone();
    trained[usize::from(device)] = 0.01;
    let delta = backstitch_protocol::delta::Delta::between(&zeros, &trained).unwrap();
    let nullifier = Nullifier::derive(&[device; 32], &task.name, task.round);
    let frame = Contribution::new(task.base, nullifier, delta.clip(task.clip_norm).unwrap());
    (frame.encode(), draw(port, device, task))
}

#[test]
fn what_was_acknowledged_survives_kill_9_and_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut server = serve(folder.path(), port);
    let frames: Vec<(Vec<u8>, String)> = (0..5).map(|device| frame(port, device)).collect();
    for frame in &frames {
        assert!(contribute(port, frame).contains("\"duplicate\":false"));
    }
    server.kill().unwrap();
    server.wait().unwrap();

    let mut server = serve(folder.path(), port);
    for frame in &frames {
        assert!(
            contribute(port, frame).contains("\"duplicate\":true"),
            "acknowledged and then lost"
        );
    }
    server.kill().unwrap();
    server.wait().unwrap();
    let show =
        backstitch(&["privacy", "show", "--json", "--data", folder.path().to_str().unwrap()]);
    let output = { show }.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\"spent_rho\": 0.0"), "a round under its goal is not released: {text}");
}

#[test]
fn the_log_at_its_finest_names_no_device() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut server = serve_with_log(folder.path(), port, "backstitch_server=trace,warn");
    let (contribution, token) = frame(port, 1);
    let forged = (contribution.clone(), "ab".repeat(32));
    assert!(contribute(port, &forged).contains("token_invalid"));
    assert!(contribute(port, &(contribution.clone(), token.clone())).contains("accepted"));
    server.kill().unwrap();
    let mut log = String::new();
    server.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    server.wait().unwrap();
    assert!(log.contains("contribution refused") && log.contains("token_invalid"), "{log}");
    let admin = std::fs::read_to_string(folder.path().join("admin.token")).unwrap();
    let profile = backstitch_protocol::token::Profile::derive(&[1; 32]);
    let nullifier: String = contribution[36..68].iter().map(|b| format!("{b:02x}")).collect();
    let secrets = [token, forged.1, admin, profile.hex(), profile.digest().hex(), nullifier];
    for secret in &secrets {
        assert!(!log.contains(secret.trim()), "the log holds {secret}");
    }
    // The server names its own two addresses, once for people and once in the log, and no client's.
    let named = log.matches("127.0.0.1:").count();
    assert!(named <= 4 && log.contains(&format!("127.0.0.1:{port}")), "{log}");
}

#[test]
fn commands_say_what_is_wrong_in_one_line() {
    let usage = backstitch(&["serve", "--nonsense"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
    let failed = backstitch(&["serve", "--config", "/nonexistent.toml"]).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    let line = String::from_utf8(failed.stderr).unwrap();
    assert!(line.lines().count() == 1 && line.contains("nonexistent.toml"), "{line}");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let keys = backstitch(&["keys", "show", "--data", data]).output().unwrap();
    assert_eq!(keys.status.code(), Some(1));
    let server = serve(folder.path(), free_port());
    stop(server);
    let mut shown = Vec::new();
    for arguments in [["keys", "show"], ["keys", "rotate"], ["keys", "show"]] {
        let output = backstitch(&arguments).args(["--json", "--data", data]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        shown.push(serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap());
    }
    assert_eq!(shown[0]["public_key"], shown[2]["public_key"], "pinned pages go on");
    assert_eq!(
        (&shown[0]["release"]["serial"], &shown[2]["release"]["serial"]),
        (&1.into(), &2.into())
    );
    let imported =
        backstitch(&["library", "import", "embedded:fashion", "--data", data]).output().unwrap();
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    let shown =
        backstitch(&["library", "show", "fashion", "--json", "--data", data]).output().unwrap();
    assert!(String::from_utf8(shown.stdout).unwrap().contains("personal-style"));
    let doctor = backstitch(&["doctor", "--json", "--data", data])
        .env("BACKSTITCH_PUBLIC__LISTEN", "127.0.0.1:0")
        .env("BACKSTITCH_ADMIN__LISTEN", "127.0.0.1:0")
        .output()
        .unwrap();
    assert!(doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
}

/// Exit code, standard output and standard error of one command.
fn command(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_backstitch")).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn patches_win_back_what_their_corruption_cost() {
    let fashion = concat!(env!("CARGO_MANIFEST_DIR"), "/../onnx/models/fashion");
    let measure = |patches: &[&str], options: &[&str]| {
        let patches: Vec<String> =
            patches.iter().map(|p| format!("{fashion}/patches/{p}")).collect();
        let (primary, data) = (format!("{fashion}/primary.onnx"), format!("{fashion}/data/test"));
        let mut arguments = vec!["patch", "eval"];
        arguments.extend(patches.iter().map(String::as_str));
        arguments.extend(["--primary", &primary, "--data", &data, "--limit", "600", "--json"]);
        arguments.extend(options);
        let (code, out, error) = command(&arguments);
        assert_eq!(code, 0, "{error}");
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        let row = &report["rows"][0];
        (row["base"].as_f64().unwrap(), row["patched"].as_f64().unwrap())
    };
    let both = ["noise-reduction", "low-contrast"];
    let (clean, selected) = measure(&both, &["--select"]);
    assert!(clean > 0.9 && selected > clean - 0.01, "{clean} {selected}");
    let (noisy, repaired) = measure(&both, &["--select", "--noise", "0.3"]);
    assert!(repaired - noisy > 0.5 * (clean - noisy), "{clean} {noisy} {repaired}");
    let (flat, lifted) = measure(&["low-contrast"], &["--contrast", "0.3"]);
    assert!(lifted - flat > 0.6 * (clean - flat), "{clean} {flat} {lifted}");
}

#[test]
fn commands_end_with_the_documented_codes() {
    let (code, out, _) = command(&["patch", "eval", "--help"]);
    assert!(code == 0 && out.contains("Examples:"));
    let (code, _, error) = command(&["onnx", "inspect", "/nowhere.onnx"]);
    assert_eq!((code, error.lines().count()), (1, 1), "{error}");
    let (code, _, _) = command(&["patch", "frobnicate"]);
    assert_eq!(code, 2);
}

#[test]
fn an_audit_holds_what_is_promised_and_finds_what_is_not() {
    let audit = |options: &[&str]| {
        let (code, out, error) =
            command(&[&["audit", "--canaries", "200", "--json"], options].concat());
        (code, serde_json::from_str::<serde_json::Value>(&out).unwrap(), error)
    };
    let (code, kept, error) = audit(&["--noise-multiplier", "1"]);
    assert_eq!((code, &kept["holds"]), (0, &true.into()), "{error}");
    assert!((kept["found"]["noise_multiplier"].as_f64().unwrap() - 1.0).abs() < 0.3, "{kept}");
    // A quarter of the noise that ε = 4.9 needs.
    let (code, broken, error) = audit(&["--noise-multiplier", "0.25", "--claim", "4.9"]);
    assert_eq!((code, &broken["holds"]), (1, &false.into()));
    assert!(error.contains("tells more than is claimed"), "{error}");
}
