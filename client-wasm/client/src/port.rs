//! The world, as the client sees it: network, storage, clock and randomness behind one trait.
//!
//! The browser implements it with fetch, the Cache API and IndexedDB; a native node with HTTP and files;
//! tests with [`crate::memory::MemoryPort`]. Nothing else of this crate touches the outside.

use std::collections::BTreeMap;

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;

pub mod contract;

/// What is asked of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// How.
    pub method: Method,
    /// Absolute.
    pub url: String,
    /// Name and value.
    pub headers: Vec<(&'static str, String)>,
    /// Posted bytes.
    pub body: Option<Vec<u8>>,
    /// Whether stored bytes may answer.
    pub cache: Cache,
    /// A longer answer is refused while it streams in.
    pub max_bytes: usize,
}

/// HTTP methods that the client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of RFC 9110")]
pub enum Method {
    Get,
    Post,
}

impl Method {
    /// As it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// Whether an answer may come from, and go to, the device's store of immutable content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Always from the server.
    Bypass,
    /// The content never changes under its address: stored bytes answer.
    Immutable,
    /// The stored bytes were damaged: fetch again and replace them.
    Replace,
}

impl Request {
    /// A GET of content that may change.
    pub fn get(url: impl Into<String>, max_bytes: usize) -> Self {
        Self {
            method: Method::Get,
            url: url.into(),
            headers: Vec::new(),
            body: None,
            cache: Cache::Bypass,
            max_bytes,
        }
    }

    /// A POST of these bytes.
    pub fn post(url: impl Into<String>, media_type: &str, body: Vec<u8>) -> Self {
        Self {
            method: Method::Post,
            url: url.into(),
            headers: vec![("content-type", media_type.to_owned())],
            body: Some(body),
            cache: Cache::Bypass,
            max_bytes: 64 << 10,
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets where the answer may come from.
    #[must_use]
    pub fn cached(mut self, cache: Cache) -> Self {
        self.cache = cache;
        self
    }
}

/// What a server answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// Times that a change is tried again because others wrote in between; each time, somebody got on.
const ATTEMPTS: usize = 1000;

/// Changes what is stored under a key so that nothing is lost which another page of this device writes at the same
/// time. `change` gets what is stored and gives what shall be, and is asked again where that has moved.
pub async fn update<P: Port, T>(
    port: &P,
    key: &str,
    mut change: impl FnMut(Option<&[u8]>) -> Result<(Vec<u8>, T), Problem>,
) -> Result<T, Problem> {
    for _ in 0..ATTEMPTS {
        let from = port.load(key).await?;
        let (to, result) = change(from.as_deref())?;
        if from.as_deref() == Some(to.as_slice()) || port.swap(key, from.as_deref(), &to).await? {
            return Ok(result);
        }
    }
    let detail = format!("`{key}` was changed by others {ATTEMPTS} times in a row");
    Err(Problem::new(Code::Conflict, detail).with_hint("close other pages of this site"))
}

/// The outside world. Its futures need not be `Send`: a client lives on one thread.
#[allow(async_fn_in_trait, reason = "a client lives on one thread; no caller needs Send futures")]
pub trait Port {
    /// Asks a server. `network_failed` where there is no answer; an error status is an answer.
    async fn fetch(&self, request: Request) -> Result<Response, Problem>;

    /// The bytes stored under a key, or `None` where there are none.
    async fn load(&self, key: &str) -> Result<Option<Vec<u8>>, Problem>;

    /// Stores bytes under a key, durably before it returns. `storage_full` where there is no room, and then everything
    /// else stays as it was.
    async fn store(&self, key: &str, bytes: &[u8]) -> Result<(), Problem>;

    /// Stores bytes under a key if that still holds `from`, where `None` stands for nothing, and says whether it did:
    /// another page, worker or process of this device may have written meanwhile. No other write comes in between.
    async fn swap(&self, key: &str, from: Option<&[u8]>, to: &[u8]) -> Result<bool, Problem>;

    /// Removes a key; one that does not exist is no error.
    async fn remove(&self, key: &str) -> Result<(), Problem>;

    /// Milliseconds on a clock that never goes back.
    fn now_ms(&self) -> f64;

    /// Seconds since 1970.
    fn unix_seconds(&self) -> u64;

    /// Fills the bytes with cryptographic randomness.
    fn random(&self, bytes: &mut [u8]) -> Result<(), Problem>;

    /// Lets everything else that waits on this thread run first.
    async fn pause(&self);
}
