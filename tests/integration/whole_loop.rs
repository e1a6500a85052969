//! The whole loop on real pictures: devices train a patch, contribute under differential privacy, the server averages
//! and publishes, and every device runs the new version. What it learns shows on pictures that nobody trained on.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backstitch_edge::data::Pictures;
use backstitch_edge::evaluation::{accuracy, turned};
use backstitch_edge::node::{Node, NodeOptions};
use backstitch_edge::person::Person;
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
pub(crate) fn library(folder: &Path, goal: u32, noise_multiplier: f64, epsilon: f64) -> String {
    let copy = |path: &str| {
        let to = folder.join(path);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(fashion().join(path), to).unwrap();
    };
    copy("primary.onnx");
    copy("probes/gains.onnx");
    for file in ["samples.json", "held-out-inputs.npy", "held-out-targets.npy"] {
        copy(&format!("data/{file}"));
    }
    for patch in std::fs::read_dir(fashion().join("patches")).unwrap().map(Result::unwrap) {
        let name = patch.file_name().to_string_lossy().into_owned();
        for file in std::fs::read_dir(patch.path()).unwrap() {
            copy(&format!("patches/{name}/{}", file.unwrap().file_name().to_string_lossy()));
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

/// Accuracy of the shared patch on tilted test pictures, before the first round and after the last.
fn learn(server: &str, goal: usize, rounds: u64) -> (f64, f64) {
    let options = options(server);
    let open = || Node::open(&options).unwrap();
    let onlooker = open();
    let style = Name::new(PATCH).unwrap();
    let held_out = turned(&pictures("test"), 300, 25.0).unwrap();
    let shared = || accuracy(&onlooker, &style, &held_out).unwrap().shared;
    let before = shared();
    // A few more than the goal: some keep an update to themselves because it does not help them.
    let pool = pictures("pool");
    let nodes: Vec<Node> = (0..goal as u64 + 10)
        .map(|seed| {
            let node = open();
            node.teach(Person::draw(&pool, 30, 0.5, seed).unwrap().examples()).unwrap();
            node.consent().unwrap();
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
    (before, shared())
}

fn options(server: &str) -> NodeOptions {
    NodeOptions {
        server_url: server.to_owned(),
        library: "fashion".to_owned(),
        ..NodeOptions::default()
    }
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
    let url = running.public_url();
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
    let (before, after) = run(24, 80.0, 0.1, 2).await;
    assert!(after < before + 0.02, "{before:.3} before, {after:.3} after: is there noise at all?");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_keeps_its_identity_across_restarts_and_survives_a_lost_server() {
    let (data, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let running = Server::start(Config::in_folder(data.path())).await.unwrap();
    let device =
        NodeOptions { folder: Some(home.path().to_owned()), ..options(&running.public_url()) };
    let first = blocking(&device, |device| {
        let (node, pool) = (Node::open(device).unwrap(), pictures("pool"));
        node.teach(Person::draw(&pool, 30, 0.5, 5).unwrap().examples()).unwrap();
        node.consent().unwrap();
        node.contribute().unwrap()
    })
    .await;
    assert!(first.contributed, "{:?}", first.reason);
    // The same folder is the same device, which has had its turn.
    let again = blocking(&device, |device| Node::open(device).unwrap().contribute().unwrap()).await;
    assert_eq!(again.round, first.round);
    assert!(!again.contributed);
    assert_eq!(again.reason.unwrap().code, "participation_limit");
    running.shutdown().await;
    let stranger = NodeOptions { folder: None, network: Default::default(), ..device };
    let gone = blocking(&stranger, |stranger| Node::open(stranger).err().unwrap()).await;
    assert_eq!(gone.code(), "network_failed");
}

/// Nodes block while they work.
async fn blocking<T: Send + 'static>(
    device: &NodeOptions,
    work: impl FnOnce(&NodeOptions) -> T + Send + 'static,
) -> T {
    let device = device.clone();
    tokio::task::spawn_blocking(move || work(&device)).await.unwrap()
}
