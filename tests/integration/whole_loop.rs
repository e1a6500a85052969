//! The whole loop on real pictures: devices train a patch, contribute under differential privacy, the server averages
//! and publishes, and every device runs the new version. What it learns shows on pictures that nobody trained on.

#![allow(clippy::unwrap_used, reason = "a failed step of a test ends it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstitch_client::client::WeightChoice;
use backstitch_client::selection::Choice;
use backstitch_client::workshop::Workshop;
use backstitch_edge::data::{Example, Pictures};
use backstitch_edge::port::Network;
use backstitch_edge::{NativePort, Node};
use backstitch_protocol::id::Name;
use backstitch_server::{Config, Server};

const PATCH: &str = "personal-style";

fn fashion() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../onnx/models/fashion")
}

fn pictures(part: &str) -> Pictures {
    let read =
        |kind: &str| std::fs::read(fashion().join(format!("data/{part}-{kind}-ubyte.gz"))).unwrap();
    Pictures::read(&read("images-idx3"), &read("labels-idx1")).unwrap()
}

/// The sample library with another goal and another noise multiplier.
fn library(folder: &Path, goal: u32, noise_multiplier: f64, epsilon: f64) -> String {
    let copy = |path: &str| {
        let to = folder.join(path);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(fashion().join(path), to).unwrap();
    };
    copy("primary.onnx");
    copy("data/samples.json");
    for patch in ["noise-reduction", "low-contrast", PATCH] {
        for file in std::fs::read_dir(fashion().join("patches").join(patch)).unwrap() {
            copy(&format!("patches/{patch}/{}", file.unwrap().file_name().to_string_lossy()));
        }
    }
    let text = std::fs::read(fashion().join("library.json")).unwrap();
    let mut descriptor: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let task = &mut descriptor["tasks"][0];
    task["goal"] = goal.into();
    task["noise_multiplier"] = noise_multiplier.into();
    task["epsilon"] = epsilon.into();
    std::fs::write(folder.join("library.json"), descriptor.to_string()).unwrap();
    folder.to_str().unwrap().to_owned()
}

/// Pictures of the test set, tilted as people tilt theirs; no device has them.
fn held_out() -> Vec<Example> {
    let test = pictures("test");
    (0..300).map(|i| test.example(i).tilted(20.0 + (i % 11) as f64)).collect()
}

/// Accuracy of the shared patch before the first round and after the last.
fn learn(url: &str, goal: usize, rounds: u64) -> (f64, f64) {
    let (network, workshop) = (Network::default(), Arc::<Workshop>::default());
    let open = || Node::open(url, &network, &workshop).unwrap();
    let onlooker = open();
    let style = Choice::Named(vec![Name::new(PATCH).unwrap()]);
    let held_out = held_out();
    let accuracy = || onlooker.accuracy(&held_out, &style, WeightChoice::Shared).unwrap();
    let before = accuracy();
    // A few more than the goal: some keep an update to themselves because it does not help them.
    let nodes: Vec<Node> = pictures("pool")
        .people(goal + 10, 11)
        .iter()
        .map(|examples| {
            let node = open();
            node.teach(&examples[..30]).unwrap();
            node
        })
        .collect();
    for round in 1..=rounds {
        let mut given = 0;
        for node in &nodes {
            if given < goal {
                let result = node.contribute().unwrap();
                assert_eq!(result.round, round);
                given += usize::from(result.contributed);
            }
        }
        assert_eq!(given, goal, "round {round} does not fill");
        wait_for_round(&onlooker, round + 1);
    }
    (before, accuracy())
}

fn wait_for_round(node: &Node, round: u64) {
    let started = Instant::now();
    loop {
        futures::executor::block_on(node.client().refresh()).unwrap();
        let privacy = futures::executor::block_on(node.client().privacy()).unwrap();
        if privacy.tasks[0].round == round {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "round {round} does not open");
        std::thread::sleep(Duration::from_millis(100));
    }
}

async fn run(goal: u32, noise_multiplier: f64, epsilon: f64, rounds: u64) -> (f64, f64) {
    let (data, models) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut config = Config::in_folder(data.path());
    config.libraries = vec![library(models.path(), goal, noise_multiplier, epsilon)];
    let running = Server::start(config).await.unwrap();
    let url = running.library_url("fashion");
    let result =
        tokio::task::spawn_blocking(move || learn(&url, goal as usize, rounds)).await.unwrap();
    running.shutdown().await;
    result
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_teach_each_other_under_privacy() {
    let (before, after) = run(24, 1.0, 12.0, 4).await;
    assert!(after > before + 0.05, "{before:.3} before, {after:.3} after four rounds");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_tiny_epsilon_the_noise_hides_what_they_know() {
    let (before, after) = run(24, 75.0, 0.1, 2).await;
    assert!(after < before + 0.02, "{before:.3} before, {after:.3} after: is there noise at all?");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_keeps_its_identity_across_restarts_and_survives_a_lost_server() {
    let (data, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let running = Server::start(Config::in_folder(data.path())).await.unwrap();
    let url = running.library_url("fashion");
    let (folder, library_url) = (home.path().to_owned(), url.clone());
    let open = move || {
        let port = NativePort::in_folder(Network::default(), &folder).unwrap();
        Node::with_port(&library_url, port, &Arc::default())
    };
    let people = pictures("pool").people(1, 5);
    let first = tokio::task::spawn_blocking({
        let open = open.clone();
        move || {
            let node = open().unwrap();
            node.teach(&people[0][..30]).unwrap();
            let first = node.contribute().unwrap();
            assert!(first.contributed, "{:?}", first.reason);
            first
        }
    })
    .await
    .unwrap();
    let again =
        tokio::task::spawn_blocking(move || open().unwrap().contribute().unwrap()).await.unwrap();
    assert_eq!(again.round, first.round);
    assert!(!again.contributed);
    assert_eq!(again.reason.unwrap().code, "participation_limit");
    running.shutdown().await;
    let gone = tokio::task::spawn_blocking(move || {
        Node::open(&url, &Network::default(), &Arc::default()).err()
    });
    assert_eq!(gone.await.unwrap().unwrap().code(), "network_failed");
}
