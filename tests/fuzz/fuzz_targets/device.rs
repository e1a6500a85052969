//! What a device keeps about itself, altered by whoever can write to its storage: it is read or refused in words, an intact
//! ledger reads back, an altered one does not, and whatever stands in it permits or refuses without a panic.
#![no_main]

use arbitrary::Arbitrary;
use backstitch_client::device::{Device, Scope};
use backstitch_client::ledger::{Kind, Ledger, Marker};
use backstitch_client::memory::MemoryPort;
use backstitch_protocol::catalog::TaskEntry;
use backstitch_protocol::id::Name;
use backstitch_protocol::privacy::RhoQuanta;
use backstitch_protocol::problem::{Code, Problem};
use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Rows<'a> {
    record: Option<&'a [u8]>,
    ledger: Option<&'a [u8]>,
    marker: (usize, &'a str),
    entries: Vec<(u8, bool, u64, u64, u64)>,
    task: (u64, u32, u32, u32, u32),
    now: u64,
    damage: (usize, u8),
}

fuzz_target!(|rows: Rows<'_>| {
    let marker = Marker { entries: rows.marker.0, head: rows.marker.1.to_owned() };
    let _ = Ledger::read(rows.ledger, &marker);
    stored(&rows);
    let Some(task) = task(&rows) else { return };
    let mut ledger = Ledger::default();
    for (kind, own, round, at, rho) in rows.entries.iter().take(32) {
        let kind = [Kind::Contribution, Kind::Refused, Kind::Report][usize::from(kind % 3)];
        let name = if *own { task.name.clone() } else { Name::new("other").expect("a name") };
        ledger.append(kind, name, *round, *at, RhoQuanta(*rho));
    }
    let _ = (ledger.permit(&task, rows.now), ledger.spent(&task, rows.now), ledger.sent());
    let _ = ledger.reported(&Default::default(), rows.now);
    let (bytes, marker) = (ledger.encode().expect("JSON"), ledger.marker());
    assert_eq!(Ledger::read(Some(&bytes), &marker).expect("what was written reads"), ledger);
    let mut damaged = bytes.clone();
    let at = rows.damage.0 % damaged.len();
    damaged[at] = rows.damage.1;
    if let Ok(read) = Ledger::read(Some(&damaged), &marker) {
        assert_eq!(read, ledger, "an altered ledger was read");
    }
});

fn stored(rows: &Rows<'_>) {
    let offline = |_: &_| Err(Problem::new(Code::NetworkFailed, "offline"));
    let (port, scope) = (MemoryPort::new(1, offline), Scope::of("https://host/v1/libraries/a"));
    for (key, bytes) in [("device", rows.record), ("ledger", rows.ledger)] {
        if let Some(bytes) = bytes {
            port.stored().insert(scope.key(key), bytes.to_vec());
        }
    }
    if let Ok(device) = block_on(Device::open(&port, scope)) {
        let _ = block_on(device.ledger(&port));
        let _ = block_on(device.set_consent(&port, true));
    }
}

fn task(rows: &Rows<'_>) -> Option<TaskEntry> {
    let (round, k, days, separation, band) = rows.task;
    let text = serde_json::json!({
        "name": "style", "patches": [], "base_versions": [],
        "base": format!("sha256:{}", "0".repeat(64)), "parameters": 1, "round": round, "goal": 8,
        "clip_norm": 1.0, "noise_multiplier": 2.54, "max_participations": k, "period_days": days,
        "min_separation": separation, "noise_band": band, "epsilon": 4.0, "delta": 1e-6,
        "period_spent": 0, "token_key": null, "open": true, "closed_reason": null,
    });
    serde_json::from_value(text).ok()
}
