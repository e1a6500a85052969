//! `backstitch edge` as a process of its own, against a server.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step of a test ends it")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use backstitch_server::{Config, Server};

fn edge(library: &str, home: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_backstitch"))
        .args(["edge", library, "--folder", home.to_str().unwrap()])
        .args(more)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    let all = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8(all).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_taught_once_asks_before_it_sends_and_contributes_once_a_round() {
    let (data, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let running = Server::start(Config::in_folder(data.path())).await.unwrap();
    let library = running.library_url("fashion");
    let key = running.public_key.clone();
    let work = move || {
        let pictures = home.path().join("pictures");
        std::fs::create_dir(&pictures).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../onnx/models/fashion/data");
        for (from, to) in [("held-out-inputs.npy", "x.npy"), ("held-out-targets.npy", "y.npy")] {
            std::fs::copy(source.join(from), pictures.join(to)).unwrap();
        }
        let device = home.path().join("device");
        let run = |more: &[&str]| {
            let output = edge(&library, &device, more);
            (output.status.success(), text(&output))
        };
        let (ran, said) = run(&[]);
        assert!(!ran && said.contains("--data"), "{said}");
        let (ran, said) = run(&["--data", pictures.to_str().unwrap(), "--public-key", &key]);
        assert!(ran && said.contains("taught 400") && said.contains("nothing was sent"), "{said}");
        let (ran, said) = run(&["--consent", "--contributions", "1"]);
        assert!(ran && said.contains("keeps 400"), "{said}");
        assert!(said.contains("contributed 732 bytes to round 1"), "{said}");
        let (ran, said) = run(&["--json"]);
        assert!(ran && said.contains("\"round\": 1"), "{said}");
        assert!(said.contains("participation_limit"), "the round has this device's update: {said}");
        let (ran, said) = run(&[]);
        assert!(ran && said.contains("nothing could be now: participation_limit"), "{said}");
    };
    tokio::task::spawn_blocking(work).await.unwrap();
    running.shutdown().await;
}

/// Longer than a debug build takes to open a library and train its first clients.
const PATIENCE: Duration = Duration::from_secs(240);

/// Runs the command until it says this on standard error, and ends it; what it said otherwise.
fn says(args: &[&str], wanted: &str) -> Result<String, String> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_backstitch"))
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (hear, heard) = std::sync::mpsc::channel();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| hear.send(line)));
    let (until, mut said) = (Instant::now() + PATIENCE, Vec::new());
    let found = loop {
        match heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) if line.contains(wanted) => break Ok(line),
            Ok(line) => said.push(line),
            Err(ended) => break Err(format!("{ended} after {said:?}")),
        }
    };
    child.kill().unwrap();
    child.wait().unwrap();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_server_does_not_enrol_says_what_it_waits_for() {
    let data = tempfile::tempdir().unwrap();
    let mut config = Config::in_folder(data.path());
    config.enrolment.per_network_per_hour = 1;
    let running = Server::start(config).await.unwrap();
    let url = running.public_url();
    let waiting = tokio::task::spawn_blocking(move || {
        let args = ["simulate", "fashion", "--http", &url, "--clients", "64", "--rounds", "1"];
        says(&args, "waiting for the server: enrolment_refused")
    });
    let said = waiting.await.unwrap().unwrap();
    assert!(said.contains("1 in an hour at most (try again in "), "{said}");
    assert!(said.ends_with("trying again in 30 s"), "{said}");
    running.shutdown().await;
}
