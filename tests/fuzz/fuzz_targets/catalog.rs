//! A catalog from the network, or from what a device kept of one, is believed or refused in words. What a believed one says
//! is weighed up without a panic, is believed again, and nothing older is.
#![no_main]

use backstitch_client::catalog::{Address, Source};
use backstitch_client::device::Scope;
use backstitch_client::ledger::Ledger;
use backstitch_client::memory::MemoryPort;
use backstitch_client::port::Response;
use backstitch_client::preprocessing::Preprocessing;
use backstitch_protocol::catalog::Catalog;
use backstitch_protocol::trust::{Certificate, ReleaseKey, SignedCatalog, Trust};
use ed25519_dalek::SigningKey;
use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;

/// The clock of the memory port.
const NOW: u64 = 1_800_000_000;

fuzz_target!(|bytes: &[u8]| {
    from_outside(bytes);
    let Ok(catalog) = serde_json::from_slice::<Catalog>(bytes) else { return };
    let signed = signed(&catalog);
    let mut trust = Trust::default();
    let Ok(believed) = trust.accept(&signed, NOW) else { return };
    trust.accept(&signed, NOW).expect("the same catalog is believed again");
    if let Some(older) = believed.version.checked_sub(1) {
        let older = self::signed(&Catalog { version: older, ..believed.clone() });
        assert!(trust.accept(&older, NOW).is_err(), "an older catalog was believed");
    }
    for task in &believed.tasks {
        let _ = Ledger::default().permit(task, NOW);
        let _ = (task.frame_values(), task.cost().epsilon(task.delta), task.budget());
    }
    for experiment in &believed.experiments {
        let _ = Ledger::default().permit_report(&believed.reports, experiment, NOW);
        let _ = backstitch_client::experiment::assign(experiment, &[7; 32]);
    }
    let _ = Preprocessing::from_json(&believed.primary.preprocessing);
    from_outside(&serde_json::to_vec(&signed).expect("a catalog is JSON"));
});

/// The whole way of a client: fetched, then remembered; and the same bytes in place of what it remembers.
fn from_outside(bytes: &[u8]) {
    const URL: &str = "https://host/v1/libraries/fashion";
    let body = bytes.to_vec();
    let serving = move |_: &_| {
        Ok(Response { status: 200, body: body.clone(), ..Response::default() })
    };
    let (port, scope) = (MemoryPort::new(1, serving), Scope::of(URL));
    let address = Address::new(URL).expect("an address");
    for _ in 0..2 {
        if let Ok(mut source) = block_on(Source::open(&port, address.clone(), &scope, None)) {
            let _ = block_on(source.current(&port));
        }
        port.stored().insert(scope.key("catalog"), bytes.to_vec());
    }
}

fn signed(catalog: &Catalog) -> SignedCatalog {
    let (root, release) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
    let key = ReleaseKey {
        format: 1,
        key: hex::encode(release.verifying_key().to_bytes()),
        serial: 1,
        issued_at: 0,
        expires_at: u64::MAX,
    };
    let certificate = Certificate::sign(&key, &root).expect("a certificate");
    SignedCatalog::sign(catalog, &release, certificate).expect("a signed catalog")
}
