//! The world of a native node: HTTP by ureq, storage in memory or in a folder, the system's clock and generator.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use backstitch_client::port::{Cache, Method, Port, Request, Response};
use backstitch_onnx::Digest;
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;

/// How long one request may take in all.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What several nodes of one process share: the connections, and content that never changes under its address.
#[derive(Clone)]
pub struct Network {
    agent: ureq::Agent,
    content: Arc<Mutex<BTreeMap<String, Response>>>,
}

impl Default for Network {
    fn default() -> Self {
        // An error status is an answer: the client reads the problem in its body.
        let config =
            ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false);
        Self { agent: config.build().into(), content: Arc::default() }
    }
}

enum Storage {
    Memory(Mutex<BTreeMap<String, Vec<u8>>>),
    Folder(PathBuf),
}

/// The port of one node. Its futures are ready at once: a node may block.
pub struct NativePort {
    network: Network,
    storage: Storage,
    started: Instant,
}

impl NativePort {
    /// A node that forgets everything when it ends.
    pub fn in_memory(network: Network) -> Self {
        Self { network, storage: Storage::Memory(Mutex::default()), started: Instant::now() }
    }

    /// A node that keeps its state in a folder, which is made where it does not exist.
    pub fn in_folder(network: Network, folder: impl Into<PathBuf>) -> Result<Self, Problem> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder).map_err(storage_failed)?;
        Ok(Self { network, storage: Storage::Folder(folder), started: Instant::now() })
    }

    fn ask(&self, request: &Request) -> Result<Response, Problem> {
        let failed = |e: ureq::Error| {
            Problem::new(
                Code::NetworkFailed,
                format!("{} {}: {e}", request.method.as_str(), request.url),
            )
            .with_hint("check the address and that the server runs, then try again")
        };
        let answer = match request.method {
            Method::Get => {
                let call = self.network.agent.get(&request.url);
                request
                    .headers
                    .iter()
                    .fold(call, |call, (name, value)| call.header(*name, value))
                    .call()
            }
            Method::Post => {
                let call = self.network.agent.post(&request.url);
                let call = request
                    .headers
                    .iter()
                    .fold(call, |call, (name, value)| call.header(*name, value));
                call.send(request.body.as_deref().unwrap_or_default())
            }
        };
        let mut answer = answer.map_err(failed)?;
        let headers = answer.headers().iter().filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        });
        let headers = headers.collect();
        let limit = u64::try_from(request.max_bytes).unwrap_or(u64::MAX);
        let body = answer.body_mut().with_config().limit(limit).read_to_vec().map_err(failed)?;
        Ok(Response { status: answer.status().as_u16(), headers, body })
    }
}

impl Port for NativePort {
    async fn fetch(&self, request: Request) -> Result<Response, Problem> {
        let content = || self.network.content.lock().unwrap_or_else(PoisonError::into_inner);
        if request.cache == Cache::Immutable
            && let Some(known) = content().get(&request.url)
        {
            return Ok(known.clone());
        }
        let response = self.ask(&request)?;
        if request.cache != Cache::Bypass && response.status == 200 {
            content().insert(request.url, response.clone());
        }
        Ok(response)
    }

    async fn load(&self, key: &str) -> Result<Option<Vec<u8>>, Problem> {
        match &self.storage {
            Storage::Memory(map) => {
                Ok(map.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
            }
            Storage::Folder(folder) => match std::fs::read(folder.join(file_of(key))) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(storage_failed(e)),
            },
        }
    }

    async fn store(&self, key: &str, bytes: &[u8]) -> Result<(), Problem> {
        match &self.storage {
            Storage::Memory(map) => {
                map.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(key.to_owned(), bytes.to_vec());
                Ok(())
            }
            Storage::Folder(folder) => {
                write_durably(&folder.join(file_of(key)), bytes).map_err(storage_failed)
            }
        }
    }

    async fn remove(&self, key: &str) -> Result<(), Problem> {
        match &self.storage {
            Storage::Memory(map) => {
                map.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
                Ok(())
            }
            Storage::Folder(folder) => match std::fs::remove_file(folder.join(file_of(key))) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(storage_failed(e)),
                _ => Ok(()),
            },
        }
    }

    fn now_ms(&self) -> f64 {
        self.started.elapsed().as_secs_f64() * 1000.0
    }

    fn unix_seconds(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_secs()).unwrap_or_default()
    }

    fn random(&self, bytes: &mut [u8]) -> Result<(), Problem> {
        getrandom::fill(bytes)
            .map_err(|e| Problem::new(Code::Internal, format!("no randomness: {e}")))
    }

    async fn pause(&self) {}
}

/// A key may hold any characters; its digest is a name on every file system.
fn file_of(key: &str) -> String {
    Digest::of(key.as_bytes()).hex()
}

/// A crash leaves either the old bytes or the new ones.
fn write_durably(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = std::fs::File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

fn storage_failed(error: std::io::Error) -> Problem {
    Problem::new(Code::StorageFailed, format!("the node's folder: {error}"))
        .with_hint("check that the folder may be written and has room")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    #[test]
    fn memory_and_folder_keep_and_forget_alike() {
        let folder = std::env::temp_dir().join(format!("backstitch-port-{}", std::process::id()));
        let ports = [
            NativePort::in_memory(Network::default()),
            NativePort::in_folder(Network::default(), &folder).unwrap(),
        ];
        for port in &ports {
            block_on(async {
                assert_eq!(port.load("a/b ü").await.unwrap(), None);
                port.store("a/b ü", b"one").await.unwrap();
                port.store("a/b ü", b"two").await.unwrap();
                assert_eq!(port.load("a/b ü").await.unwrap().as_deref(), Some(b"two".as_slice()));
                port.remove("a/b ü").await.unwrap();
                port.remove("a/b ü").await.unwrap();
                assert_eq!(port.load("a/b ü").await.unwrap(), None);
            });
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_server_that_is_not_there_is_a_typed_problem() {
        let port = NativePort::in_memory(Network::default());
        let problem = block_on(port.fetch(Request::get("http://127.0.0.1:9/", 10))).unwrap_err();
        assert!(problem.is(Code::NetworkFailed), "{problem}");
    }
}
