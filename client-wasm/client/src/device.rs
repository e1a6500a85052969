//! What a device keeps about itself: a secret that never leaves, the user's consent, and its ledger's marker.

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use serde::{Deserialize, Serialize};

use crate::ledger::{Ledger, Marker};
use crate::port::Port;

/// Storage keys of one library on this device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(String);

impl Scope {
    /// The scope of a library's address, so that two servers never share a secret or a ledger.
    pub fn of(library_url: &str) -> Self {
        Self(backstitch_onnx::Digest::of(library_url.as_bytes()).hex()[..16].to_owned())
    }

    /// A key within the scope.
    pub fn key(&self, name: &str) -> String {
        format!("backstitch/{}/{name}", self.0)
    }
}

/// The stored record.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    secret: String,
    consent: bool,
    marker: Marker,
}

/// One device of one library.
pub struct Device {
    scope: Scope,
    secret: [u8; 32],
    consent: bool,
}

impl Device {
    /// Reads the device's record, or makes a new one with a fresh secret.
    ///
    /// Fails with `ledger_corrupt` where the record exists but cannot be read, because then nobody can say what
    /// this device has contributed already.
    pub async fn open<P: Port>(port: &P, scope: Scope) -> Result<Self, Problem> {
        if let Some(record) = load(port, &scope).await? {
            return Ok(Self { secret: secret_of(&record)?, consent: record.consent, scope });
        }
        let mut secret = [0; 32];
        port.random(&mut secret)?;
        let device = Self { scope, secret, consent: false };
        device.write(port, Marker::default()).await?;
        Ok(device)
    }

    /// The secret that names this device's arms and nullifiers.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Whether the user agreed to contribute.
    pub fn consent(&self) -> bool {
        self.consent
    }

    /// Records the user's decision, durably.
    pub async fn set_consent<P: Port>(&mut self, port: &P, consent: bool) -> Result<(), Problem> {
        let record = load(port, &self.scope).await?;
        self.consent = consent;
        self.write(port, record.map(|r| r.marker).unwrap_or_default()).await
    }

    /// The ledger as it is stored now; another page of the same profile may have written it.
    pub async fn ledger<P: Port>(&self, port: &P) -> Result<Ledger, Problem> {
        let record = load(port, &self.scope).await?.ok_or_else(|| {
            Problem::new(Code::LedgerCorrupt, "the device's record is gone")
                .with_hint("reload the page to start a new profile")
        })?;
        let bytes = port.load(&self.scope.key("ledger")).await?;
        Ledger::read(bytes.as_deref(), &record.marker)
    }

    /// Stores the ledger, then the marker that vouches for it.
    pub async fn write_ledger<P: Port>(&self, port: &P, ledger: &Ledger) -> Result<(), Problem> {
        port.store(&self.scope.key("ledger"), &ledger.encode()?).await?;
        self.write(port, ledger.marker()).await
    }

    async fn write<P: Port>(&self, port: &P, marker: Marker) -> Result<(), Problem> {
        let record = Record { secret: hex::encode(self.secret), consent: self.consent, marker };
        let bytes = serde_json::to_vec(&record)
            .map_err(|e| Problem::new(Code::StorageFailed, format!("the device's record: {e}")))?;
        port.store(&self.scope.key("device"), &bytes).await
    }
}

async fn load<P: Port>(port: &P, scope: &Scope) -> Result<Option<Record>, Problem> {
    let Some(bytes) = port.load(&scope.key("device")).await? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| {
        Problem::new(Code::LedgerCorrupt, format!("the device's record cannot be read: {e}"))
            .with_hint("clearing the site's data starts a new profile")
    })
}

fn secret_of(record: &Record) -> Result<[u8; 32], Problem> {
    let mut secret = [0; 32];
    hex::decode_to_slice(&record.secret, &mut secret)
        .map_err(|_| Problem::new(Code::LedgerCorrupt, "the device's secret cannot be read"))?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;
    use crate::ledger::Kind;
    use crate::memory::MemoryPort;
    use backstitch_protocol::id::Name;
    use backstitch_protocol::privacy::RhoQuanta;

    fn port(seed: u64) -> MemoryPort {
        MemoryPort::new(seed, |_| Err(Problem::new(Code::NetworkFailed, "no network here")))
    }

    #[test]
    fn secret_consent_and_ledger_survive_a_restart() {
        let (port, scope) = (port(1), Scope::of("https://a/v1/libraries/x"));
        let mut device = block_on(Device::open(&port, scope.clone())).unwrap();
        assert!(!device.consent());
        let mut ledger = block_on(device.ledger(&port)).unwrap();
        ledger.append(Kind::Contribution, Name::new("t").unwrap(), 1, 5, RhoQuanta(7));
        block_on(device.write_ledger(&port, &ledger)).unwrap();
        block_on(device.set_consent(&port, true)).unwrap();
        let again = block_on(Device::open(&port, scope.clone())).unwrap();
        assert!(again.consent() && again.secret() == device.secret());
        assert_eq!(block_on(again.ledger(&port)).unwrap(), ledger);
        port.stored().remove(&scope.key("ledger"));
        assert!(block_on(again.ledger(&port)).unwrap_err().is(Code::LedgerCorrupt));
    }

    #[test]
    fn devices_and_servers_have_their_own_secrets() {
        let open = |port: &MemoryPort, url: &str| {
            *block_on(Device::open(port, Scope::of(url))).unwrap().secret()
        };
        let (a, b) = (port(1), port(2));
        assert_ne!(open(&a, "x"), open(&b, "x"));
        assert_ne!(open(&a, "x"), open(&a, "y"));
        assert_eq!(open(&a, "x"), open(&a, "x"));
    }
}
