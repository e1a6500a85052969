//! The outside world of a native node: HTTP by ureq, state in memory or in a folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use backstitch_client::port::{Cache, Method, Port, Request, Response};
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;

use crate::storage::Storage;

/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(30);

/// HTTP connections and immutable files, shared by the nodes of one process.
#[derive(Clone)]
pub struct Network {
    agent: ureq::Agent,
    files: Arc<Mutex<BTreeMap<String, Arc<[u8]>>>>,
}

impl Default for Network {
    fn default() -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .user_agent(concat!("backstitch-edge/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into(), files: Arc::default() }
    }
}

/// A native port.
pub struct NativePort {
    network: Network,
    storage: Storage,
    started: Instant,
}

impl NativePort {
    /// A device that forgets everything when it is dropped.
    pub fn in_memory(network: Network) -> Self {
        Self { network, storage: Storage::Memory(Mutex::default()), started: Instant::now() }
    }

    /// A device that keeps its state in a folder.
    pub fn in_folder(network: Network, folder: &Path) -> Result<Self, Problem> {
        Ok(Self { network, storage: Storage::folder(folder)?, started: Instant::now() })
    }

    fn ask(&self, request: &Request) -> Result<Response, Problem> {
        let failed = |e: ureq::Error| {
            Problem::new(Code::NetworkFailed, format!("{}: {e}", request.url))
                .with_hint("check that the server runs and can be reached from here")
        };
        let agent = &self.network.agent;
        let sent = match request.method {
            Method::Get => {
                let mut get = agent.get(&request.url);
                for (name, value) in &request.headers {
                    get = get.header(*name, value);
                }
                get.call()
            }
            Method::Post => {
                let mut post = agent.post(&request.url);
                for (name, value) in &request.headers {
                    post = post.header(*name, value);
                }
                post.send(request.body.as_deref().unwrap_or_default())
            }
        };
        let mut response = sent.map_err(failed)?;
        let mut headers = BTreeMap::new();
        for (name, value) in response.headers() {
            if let Ok(text) = value.to_str() {
                headers.insert(name.as_str().to_owned(), text.to_owned());
            }
        }
        let status = response.status().as_u16();
        // One byte more, so that an answer of exactly the limit passes.
        let limit = request.max_bytes as u64 + 1;
        let body = response.body_mut().with_config().limit(limit).read_to_vec().map_err(failed)?;
        Ok(Response { status, headers, body })
    }

    fn files(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<[u8]>>> {
        self.network.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Port for NativePort {
    async fn fetch(&self, request: Request) -> Result<Response, Problem> {
        if request.cache == Cache::Immutable
            && let Some(body) = self.files().get(&request.url).cloned()
        {
            return Ok(Response { status: 200, headers: BTreeMap::new(), body: body.to_vec() });
        }
        let response = self.ask(&request)?;
        if request.cache != Cache::Bypass && response.status == 200 {
            self.files().insert(request.url, response.body.as_slice().into());
        }
        Ok(response)
    }

    async fn load(&self, key: &str) -> Result<Option<Vec<u8>>, Problem> {
        self.storage.load(key)
    }

    async fn store(&self, key: &str, bytes: &[u8]) -> Result<(), Problem> {
        self.storage.store(key, bytes)
    }

    async fn swap(&self, key: &str, from: Option<&[u8]>, to: &[u8]) -> Result<bool, Problem> {
        self.storage.swap(key, from, to)
    }

    async fn remove(&self, key: &str) -> Result<(), Problem> {
        self.storage.remove(key)
    }

    fn now_ms(&self) -> f64 {
        self.started.elapsed().as_secs_f64() * 1000.0
    }

    fn unix_seconds(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn random(&self, bytes: &mut [u8]) -> Result<(), Problem> {
        getrandom::fill(bytes).map_err(|e| {
            Problem::new(Code::Internal, format!("the system gives no randomness: {e}"))
        })
    }

    async fn pause(&self) {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use backstitch_client::port::{contract, update};
    use futures::executor::block_on;

    use super::*;

    /// Answers `times` requests with these bytes, and returns the address.
    fn serve(answer: &'static [u8], times: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/x", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().take(times) {
                let mut stream = stream.unwrap();
                let mut buffer = [0; 1024];
                let _read = stream.read(&mut buffer);
                stream.write_all(answer).unwrap();
            }
        });
        address
    }

    #[test]
    fn answers_errors_limits_and_absent_servers() {
        let port = NativePort::in_memory(Network::default());
        let get = |url: &str, max| block_on(port.fetch(Request::get(url, max)));
        let url = serve(b"HTTP/1.1 404 Not Found\r\nETag: \"7\"\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno", 2);
        let response = get(&url, 2).unwrap();
        assert_eq!((response.status, response.body.as_slice()), (404, b"no".as_slice()));
        assert_eq!(response.headers["etag"], "\"7\"");
        assert!(get(&url, 0).unwrap_err().is(Code::NetworkFailed));
        assert!(get("http://127.0.0.1:9/x", 2).unwrap_err().is(Code::NetworkFailed));
    }

    #[test]
    fn memory_and_folders_keep_the_contract() {
        let memory = NativePort::in_memory(Network::default());
        block_on(contract::check(&memory, &memory)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let open = || NativePort::in_folder(Network::default(), folder.path()).unwrap();
        block_on(contract::check(&open(), &open())).unwrap();
    }

    #[test]
    fn of_what_two_processes_change_nothing_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let add = || {
            let port = NativePort::in_folder(Network::default(), folder.path()).unwrap();
            for _ in 0..50 {
                let longer = |stored: Option<&[u8]>| {
                    let mut bytes = stored.unwrap_or_default().to_vec();
                    bytes.push(1);
                    Ok((bytes, ()))
                };
                block_on(update(&port, "shared", longer)).unwrap();
            }
        };
        std::thread::scope(|threads| (0..4).for_each(|_| drop(threads.spawn(add))));
        let port = NativePort::in_folder(Network::default(), folder.path()).unwrap();
        assert_eq!(block_on(port.load("shared")).unwrap().unwrap().len(), 200);
    }

    #[test]
    fn immutable_files_are_fetched_once() {
        let port = NativePort::in_memory(Network::default());
        let url = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", 1);
        for _ in 0..3 {
            let request = Request::get(&url, 2).cached(Cache::Immutable);
            assert_eq!(block_on(port.fetch(request)).unwrap().body, b"ok");
        }
    }
}
