//! Whoever can put files back, start a second server or fill a round with poison gets no second release, no second
//! count and no change of the model; those who did nothing wrong are served on.

use std::path::Path;
use std::time::{Duration, Instant};

use backstitch_onnx::patch::Patch;
use backstitch_protocol::catalog::{Catalog, PatchEntry, TaskEntry};
use backstitch_protocol::problem::Code;
use backstitch_protocol::trust::Trust;

use crate::server::{Process, Stage, command, copy, frame};

/// The bias of the first class: by name it comes before the 32 × 10 weights.
const BIAS: usize = 0;

/// One coordinate of a device's own.
fn contribute(server: &Process, device: u8) -> String {
    let task = server.catalog().unwrap().tasks.remove(0);
    send(server, &task, device, &[(usize::from(device), 0.01)])
}

fn send(server: &Process, task: &TaskEntry, device: u8, changes: &[(usize, f32)]) -> String {
    let token = server.draw(task, device).unwrap().unwrap();
    server.contribute(&frame(task, device, changes), &token).unwrap()
}

/// Waits until this round is open.
fn opens(server: &Process, round: u64) -> Catalog {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let catalog = server.catalog().unwrap();
        if catalog.tasks[0].round == round {
            return catalog;
        }
        assert!(Instant::now() < deadline, "round {round} does not open");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn now() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// What the ledger says of the one task.
fn spent(data: &Path) -> serde_json::Value {
    let shown = command(&["privacy", "show", "--json"], data);
    let mut shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    shown["tasks"][0].take()
}

#[test]
fn an_older_copy_of_the_database_is_refused_and_clients_refuse_whoever_forces_it() {
    let stage = Stage::set(|task| {
        task["goal"] = 2.into();
        task["epsilon"] = 9.0.into();
    });
    let data = stage.path("data");
    let file = |name: &str| data.join(name);
    let server = Process::start(&data, &[]).unwrap();
    assert!(contribute(&server, 1).contains("\"accepted\":true"));
    assert!(!server.end());
    copy(&data, &stage.path("older"));

    // The round is released, and a client sees it.
    let server = Process::start(&data, &[]).unwrap();
    assert!(contribute(&server, 2).contains("\"accepted\":true"));
    opens(&server, 2);
    let (mut client, newest) = (Trust::default(), server.signed().unwrap());
    client.accept(&newest, now()).unwrap();
    assert!(!server.end());
    copy(&data, &stage.path("newest"));

    // The raw sum of device 1 is back, and its debit is not.
    std::fs::copy(stage.path("older/backstitch.db"), file("backstitch.db")).unwrap();
    let refusal = Process::refused(&data, &[]);
    assert!(refusal.contains("older copy") && refusal.contains("newest copy"), "{refusal}");
    let doctor = Process::doctor(&data);
    assert!(doctor.contains("FAIL database and ledger") && doctor.contains("older copy"));

    // Forced by taking the note away, it releases device 1's sum a second time; whoever saw the first refuses that.
    std::fs::remove_file(file("ledger.head")).unwrap();
    let forced = Process::start(&data, &[]).unwrap();
    let refused = |server: &Process| client.clone().accept(&server.signed().unwrap(), now());
    assert!(refused(&forced).is_err());
    assert!(contribute(&forced, 3).contains("\"accepted\":true"));
    opens(&forced, 2);
    let problem = refused(&forced).unwrap_err();
    let known = [Code::CatalogRollback, Code::LedgerRegression];
    assert!(known.iter().any(|code| problem.is(*code)), "{problem}");
    assert!(!forced.end());

    // The newest copy goes on: nothing is lost, and the client that refused follows it.
    for name in ["backstitch.db", "ledger.head"] {
        std::fs::copy(stage.path("newest").join(name), file(name)).unwrap();
    }
    let restored = Process::start(&data, &[]).unwrap();
    client.accept(&restored.signed().unwrap(), now()).unwrap();
    assert!(contribute(&restored, 3).contains("\"accepted\":true"));
    assert_eq!(spent(&data)["round"], 2);
}

#[test]
fn a_second_server_on_the_same_books_does_not_start_and_the_first_serves_on() {
    let stage = Stage::set(|task| task["goal"] = 3.into());
    let data = stage.path("data");
    let first = Process::start(&data, &[]).unwrap();
    assert!(contribute(&first, 1).contains("\"accepted\":true"));

    let refusal = Process::refused(&data, &[]);
    assert!(refusal.contains("another process uses"), "{refusal}");
    // A folder of its own, but the first one's database: named as it is, and by another name.
    let store = format!("sqlite://{}", data.join("backstitch.db").display());
    let refusal = Process::refused(&stage.path("second"), &[("BACKSTITCH_STORE", &store)]);
    assert!(refusal.contains("another process uses"), "{refusal}");
    std::fs::create_dir_all(stage.path("third")).unwrap();
    let link = stage.path("third/backstitch.db");
    std::os::unix::fs::symlink(data.join("backstitch.db"), link).unwrap();
    let refusal = Process::refused(&stage.path("third"), &[]);
    assert!(refusal.contains("another process uses"), "{refusal}");

    assert!(contribute(&first, 2).contains("\"accepted\":true"));
    assert_eq!(first.catalog().unwrap().tasks[0].round, 1);
    assert!(!first.end());
    // The lock goes with its process, however that ends.
    drop(Process::start(&data, &[]).unwrap());
    Process::start(&data, &[]).expect("a killed server leaves a lock behind");
}

fn champion(catalog: &Catalog) -> &PatchEntry {
    let holds = |patch: &&PatchEntry| patch.aliases.iter().any(|alias| alias == "champion");
    let mut named = catalog.patches.iter().filter(|p| p.name.as_str() == "personal-style");
    named.find(holds).unwrap()
}

/// The trainable values of a version.
fn weights(server: &Process, version: &PatchEntry) -> Vec<f32> {
    let blob = |digest: &backstitch_onnx::Digest| {
        server.fetch(&format!("GET /v1/blobs/{} HTTP/1.1\r\n", digest.hex()), b"").unwrap()
    };
    let own = version.weights.as_ref().map(|weights| blob(&weights.digest));
    let (manifest, graph) = (blob(&version.manifest.digest), blob(&version.graph.digest));
    let patch = Patch::from_parts(&manifest, &graph, own.as_deref()).unwrap();
    patch.weights().into_values().flat_map(|t| t.values::<f32>().unwrap()).collect()
}

#[test]
fn a_round_full_of_poison_is_held_back_and_nobody_counts_twice_for_it() {
    const RATE: f64 = 6.0;
    const NOISE: f64 = 0.0011;
    let stage = Stage::set(|task| {
        task["goal"] = 3.into();
        // So little noise and such long steps that poison is the whole of what a release does, and that chance does not
        // hold back what is honest.
        task["noise_multiplier"] = NOISE.into();
        task["max_participations"] = 2.into();
        task["epsilon"] = 4e6.into();
        task["server_learning_rate"] = RATE.into();
    });
    let data = stage.path("data");
    let server = Process::start(&data, &[]).unwrap();
    let before = server.catalog().unwrap();
    let (first, shipped) = (before.tasks[0].clone(), weights(&server, champion(&before)));
    // Of round 1, kept for later.
    let late = server.draw(&first, 4).unwrap().unwrap();

    // All of the norm of all devices says that everything is a T-shirt.
    for device in 1..=3 {
        let answer = send(&server, &first, device, &[(BIAS, 1.0)]);
        assert!(answer.contains("\"accepted\":true"), "{answer}");
    }
    let held = opens(&server, 2);
    let second = held.tasks[0].clone();
    assert_eq!(champion(&held), champion(&before), "the champion stays");
    assert_eq!(second.base_versions, first.base_versions);
    let debited = spent(&data)["cumulative_rho"].as_f64().unwrap();
    assert!(debited > 0.0, "what was released is paid for, promoted or not");

    // The weights are those of round 1, and yet nothing of round 1 counts in round 2.
    assert_ne!(second.base, first.base);
    let stale = server.contribute(&frame(&first, 4, &[(0, 0.1)]), &late).unwrap();
    assert!(stale.contains("version_stale"), "{stale}");
    let moved = server.contribute(&frame(&second, 4, &[(0, 0.1)]), &late).unwrap();
    assert!(moved.contains("token_invalid"), "{moved}");
    let closed = server.draw(&first, 5).unwrap().unwrap_err();
    assert!(closed.contains("round_closed"), "{closed}");

    // Honest devices, with small changes, are served and move the model by their mean and no poison.
    for device in 5..=7 {
        let answer = send(&server, &second, device, &[(100 + usize::from(device), 0.02)]);
        assert!(answer.contains("\"accepted\":true"), "{answer}");
    }
    let after = opens(&server, 3);
    assert!(champion(&after).version > champion(&before).version, "a good one is promoted");
    let learned = weights(&server, champion(&after));
    let noise = 8.0 * NOISE * second.clip_norm.value() / 3.0 * RATE;
    for (index, (new, old)) in learned.iter().zip(&shipped).enumerate() {
        let share = if (105..=107).contains(&index) { 0.02 / 3.0 * RATE } else { 0.0 };
        let error = (f64::from(new - old) - share).abs();
        assert!(error < noise, "value {index} is off by {error}, the noise allows {noise}");
    }
    let twice = spent(&data)["cumulative_rho"].as_f64().unwrap();
    assert!((twice / debited - 2.0).abs() < 0.01, "{debited} {twice}");
}
