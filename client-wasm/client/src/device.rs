//! What a device keeps about itself: a secret that never leaves, the user's consent, and its ledger's marker.

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use serde::{Deserialize, Serialize};

use crate::ledger::{Ledger, Marker};
use crate::port::{Port, update};

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
///
/// Its consent, marker and ledger are read anew each time: another page of the same profile may have changed them.
pub struct Device {
    scope: Scope,
    secret: [u8; 32],
}

impl Device {
    /// Reads the device's record, or makes a new one with a fresh secret.
    ///
    /// Fails with `ledger_corrupt` where the record exists but cannot be read, because then nobody can say what
    /// this device has contributed already.
    pub async fn open<P: Port>(port: &P, scope: Scope) -> Result<Self, Problem> {
        let mut secret = [0; 32];
        port.random(&mut secret)?;
        let fresh =
            Record { secret: hex::encode(secret), consent: false, marker: Marker::default() };
        // Of two pages that open at the same time, one makes the record.
        let choose = |stored: Option<&[u8]>| match stored {
            Some(bytes) => Ok((bytes.to_vec(), parsed(bytes)?)),
            None => Ok((encoded(&fresh)?, fresh.clone())),
        };
        let record = update(port, &scope.key("device"), choose).await?;
        Ok(Self { secret: secret_of(&record)?, scope })
    }

    /// The secret that names this device's arms and nullifiers.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Whether the user agrees to contribute, by what is stored now. A record that is gone agrees to nothing.
    pub async fn consent<P: Port>(&self, port: &P) -> bool {
        self.record(port).await.is_ok_and(|record| record.consent)
    }

    /// Records the user's decision, durably.
    pub async fn set_consent<P: Port>(&self, port: &P, consent: bool) -> Result<(), Problem> {
        self.change(port, |record| record.consent = consent).await
    }

    /// The ledger as it is stored now.
    pub async fn ledger<P: Port>(&self, port: &P) -> Result<Ledger, Problem> {
        let marker = self.record(port).await?.marker;
        let bytes = port.load(&self.scope.key("ledger")).await?;
        Ledger::read(bytes.as_deref(), &marker)
    }

    /// Changes the ledger as it is stored now, then the marker that vouches for it. What `change` refuses is not
    /// written; it is asked again where another page has written meanwhile.
    pub async fn change_ledger<P: Port>(
        &self,
        port: &P,
        change: impl Fn(&mut Ledger) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let seen = self.record(port).await?.marker;
        let append = |stored: Option<&[u8]>| {
            let mut ledger = Ledger::read(stored, &seen)?;
            change(&mut ledger)?;
            Ok((ledger.encode()?, ledger.marker()))
        };
        let marker = update(port, &self.scope.key("ledger"), append).await?;
        // A page that was slower must not take the marker back.
        let forward = |record: &mut Record| {
            if record.marker.entries < marker.entries {
                record.marker.clone_from(&marker);
            }
        };
        self.change(port, forward).await
    }

    async fn record<P: Port>(&self, port: &P) -> Result<Record, Problem> {
        let stored = port.load(&self.scope.key("device")).await?;
        self.own(stored.as_deref())
    }

    async fn change<P: Port>(&self, port: &P, change: impl Fn(&mut Record)) -> Result<(), Problem> {
        let changed = |stored: Option<&[u8]>| {
            let mut record = self.own(stored)?;
            change(&mut record);
            Ok((encoded(&record)?, ()))
        };
        update(port, &self.scope.key("device"), changed).await
    }

    /// The stored record, if it still is that of this device: where the store was cleared, or another profile has
    /// begun in it, nobody can say what this one has contributed.
    fn own(&self, stored: Option<&[u8]>) -> Result<Record, Problem> {
        let gone = |what: &str| {
            Problem::new(Code::LedgerCorrupt, format!("the device's record {what}"))
                .with_hint("reload the page to start a new profile")
        };
        let record = parsed(stored.ok_or_else(|| gone("is gone"))?)?;
        match secret_of(&record)? == self.secret {
            true => Ok(record),
            false => Err(gone("is that of another profile")),
        }
    }
}

fn parsed(bytes: &[u8]) -> Result<Record, Problem> {
    serde_json::from_slice(bytes).map_err(|e| {
        Problem::new(Code::LedgerCorrupt, format!("the device's record cannot be read: {e}"))
            .with_hint("clearing the site's data starts a new profile")
    })
}

fn encoded(record: &Record) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(record)
        .map_err(|e| Problem::new(Code::StorageFailed, format!("the device's record: {e}")))
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
        let device = block_on(Device::open(&port, scope.clone())).unwrap();
        assert!(!block_on(device.consent(&port)));
        append(&device, &port, "t", 1).unwrap();
        block_on(device.set_consent(&port, true)).unwrap();
        let again = block_on(Device::open(&port, scope.clone())).unwrap();
        assert!(block_on(again.consent(&port)) && again.secret() == device.secret());
        assert_eq!(block_on(again.ledger(&port)).unwrap().entries().len(), 1);
        port.stored().remove(&scope.key("ledger"));
        assert!(block_on(again.ledger(&port)).unwrap_err().is(Code::LedgerCorrupt));
    }

    fn append(device: &Device, port: &MemoryPort, task: &str, round: u64) -> Result<(), Problem> {
        let add = |ledger: &mut Ledger| {
            ledger.append(Kind::Contribution, Name::new(task).unwrap(), round, 5, RhoQuanta(7));
            Ok(())
        };
        block_on(device.change_ledger(port, add))
    }

    #[test]
    fn two_pages_write_one_ledger_and_one_consent() {
        let (port, scope) = (port(1), Scope::of("x"));
        let open = || Device::open(&port, scope.clone());
        let (one, two) = block_on(async { futures::join!(open(), open()) });
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!(one.secret(), two.secret());
        block_on(async {
            let add = async |device: &Device, task: &str| {
                for round in 0..20 {
                    let task = Name::new(task).unwrap();
                    let add = |ledger: &mut Ledger| {
                        let rho = RhoQuanta(1);
                        ledger.append(Kind::Contribution, task.clone(), round, 5, rho);
                        Ok(())
                    };
                    device.change_ledger(&port, add).await.unwrap();
                }
            };
            futures::join!(add(&one, "a"), add(&two, "b"));
        });
        let ledger = block_on(one.ledger(&port)).unwrap();
        assert_eq!(ledger.entries().len(), 40);
        assert_eq!(block_on(one.record(&port)).unwrap().marker, ledger.marker());
        // Withdrawn in one page is withdrawn in the other.
        block_on(one.set_consent(&port, true)).unwrap();
        assert!(block_on(two.consent(&port)));
        block_on(one.set_consent(&port, false)).unwrap();
        assert!(!block_on(two.consent(&port)));
    }

    #[test]
    fn a_cleared_store_and_a_full_one_fail_closed() {
        let (port, scope) = (port(1), Scope::of("x"));
        let device = block_on(Device::open(&port, scope.clone())).unwrap();
        block_on(device.set_consent(&port, true)).unwrap();
        port.full.set(true);
        assert!(append(&device, &port, "t", 1).unwrap_err().is(Code::StorageFull));
        assert!(block_on(device.ledger(&port)).unwrap().entries().is_empty());
        port.full.set(false);
        port.stored().clear();
        assert!(append(&device, &port, "t", 1).unwrap_err().is(Code::LedgerCorrupt));
        assert!(!block_on(device.consent(&port)));
        // Another page has begun a new profile; this one must not write into its ledger.
        block_on(Device::open(&port, scope)).unwrap();
        assert!(append(&device, &port, "t", 1).unwrap_err().is(Code::LedgerCorrupt));
        assert!(block_on(device.ledger(&port)).unwrap_err().is(Code::LedgerCorrupt));
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
