//! The browser as the client's outside world: fetch, the Cache API, IndexedDB, performance.now, a macrotask.

use std::cell::RefCell;
use std::collections::BTreeMap;

use backstitch_client::port::{Cache, Port, Request, Response};
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use js_sys::{Function, Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::Closure;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    AbortSignal, CacheStorage, MessageChannel, Performance, ReadableStreamDefaultReader,
    RequestCache, RequestInit,
};

use crate::storage::Storage;

/// The Cache API's store of immutable files.
const CACHE: &str = "backstitch-blobs-v1";

/// The browser of this page or worker.
pub(crate) struct BrowserPort {
    storage: Storage,
    performance: Option<Performance>,
    caches: Option<CacheStorage>,
    /// The store of files, once it was opened.
    files: RefCell<Option<web_sys::Cache>>,
    /// What the page asked for before this module was there: an address and the promise of its answer.
    early: RefCell<Option<(String, Promise)>>,
    /// Cancels requests while a library is opened.
    signal: RefCell<Option<AbortSignal>>,
}

impl BrowserPort {
    /// Opens the device's storage; in memory where the page wants that or the browser has none to give.
    pub(crate) async fn open(persist: bool, signal: Option<AbortSignal>) -> Self {
        let global = |name: &str| Reflect::get(&js_sys::global(), &name.into()).ok();
        // Absent outside of secure contexts.
        let caches: Option<CacheStorage> =
            global("caches").filter(|_| persist).and_then(|c| c.dyn_into().ok());
        let files = async { open_files(caches.as_ref()?).await };
        let (storage, files) = futures::join!(Storage::open(persist), files);
        Self {
            storage,
            performance: global("performance").and_then(|p| p.dyn_into().ok()),
            caches,
            files: RefCell::new(files),
            early: RefCell::default(),
            signal: RefCell::new(signal),
        }
    }

    /// The first GET of this address gets this answer.
    pub(crate) fn hand_over(&self, url: String, answer: Promise) {
        self.early.replace(Some((url, answer)));
    }

    pub(crate) fn forget_signal(&self) {
        self.signal.replace(None);
    }

    /// Deletes the stored copies of immutable files: which versions they are tells when somebody was here.
    pub(crate) async fn forget_files(&self) {
        if let Some(caches) = &self.caches {
            self.files.replace(None);
            let _nothing_there_is_fine = JsFuture::from(caches.delete(CACHE)).await;
        }
    }

    async fn ask(&self, request: &Request) -> Result<web_sys::Response, Problem> {
        let promise = match self.early.take() {
            Some((url, answer)) if url == request.url => answer,
            _ => self.begin(request)?,
        };
        let answer = JsFuture::from(promise).await;
        answer.and_then(JsCast::dyn_into).map_err(|e| self.network_or_aborted(&request.url, &e))
    }

    fn begin(&self, request: &Request) -> Result<Promise, Problem> {
        let init = RequestInit::new();
        init.set_method(request.method.as_str());
        init.set_signal(self.signal.borrow().as_ref());
        if request.cache == Cache::Replace {
            // What the browser kept of the damaged answer must not come back.
            init.set_cache(RequestCache::Reload);
        }
        let headers = web_sys::Headers::new().map_err(|e| network(&request.url, &e))?;
        for (name, value) in &request.headers {
            headers.set(name, value).map_err(|e| network(&request.url, &e))?;
        }
        init.set_headers(&headers);
        if let Some(body) = &request.body {
            init.set_body(&Uint8Array::from(body.as_slice()));
        }
        let asked = web_sys::Request::new_with_str_and_init(&request.url, &init);
        let asked = asked.map_err(|e| network(&request.url, &e))?;
        // Workers and pages both have it, under types that web-sys keeps apart.
        let fetch = Reflect::get(&js_sys::global(), &"fetch".into())
            .ok()
            .and_then(|f| f.dyn_into::<Function>().ok());
        let promise = fetch
            .ok_or(JsValue::from("this environment has no fetch"))
            .and_then(|fetch| fetch.call1(&JsValue::UNDEFINED, &asked))
            .map_err(|e| network(&request.url, &e))?;
        Ok(Promise::from(promise))
    }

    fn network_or_aborted(&self, url: &str, error: &JsValue) -> Problem {
        match self.signal.borrow().as_ref().is_some_and(AbortSignal::aborted) {
            true => Problem::new(Code::Aborted, "the caller cancelled"),
            false => network(url, error),
        }
    }

    /// Reads a body while it streams in, and stops where it is longer than allowed.
    async fn body(
        &self,
        response: &web_sys::Response,
        request: &Request,
    ) -> Result<Vec<u8>, Problem> {
        let Some(stream) = response.body() else { return Ok(Vec::new()) };
        let reader: ReadableStreamDefaultReader = stream
            .get_reader()
            .dyn_into()
            .map_err(|e: js_sys::Object| network(&request.url, &e))?;
        let mut bytes = Vec::new();
        loop {
            let chunk = JsFuture::from(reader.read()).await;
            let chunk = chunk.map_err(|e| self.network_or_aborted(&request.url, &e))?;
            if Reflect::get(&chunk, &"done".into()).is_ok_and(|done| done.is_truthy()) {
                return Ok(bytes);
            }
            let part = Reflect::get(&chunk, &"value".into())
                .ok()
                .and_then(|v| v.dyn_into::<Uint8Array>().ok());
            bytes.extend(part.map(|part| part.to_vec()).unwrap_or_default());
            if bytes.len() > request.max_bytes {
                let _stopped = reader.cancel();
                return Err(Problem::new(
                    Code::BlobMismatch,
                    format!(
                        "{} is longer than the allowed {} bytes",
                        request.url, request.max_bytes
                    ),
                ));
            }
        }
    }

    /// The stored copy of an immutable file. A cache that fails is as good as none.
    async fn cached(&self, url: &str) -> Option<Vec<u8>> {
        let cache = self.cache().await?;
        let found = JsFuture::from(cache.match_with_str(url)).await.ok()?;
        let response: web_sys::Response = found.dyn_into().ok()?;
        let buffer = JsFuture::from(response.array_buffer().ok()?).await.ok()?;
        Some(Uint8Array::new(&buffer).to_vec())
    }

    async fn keep(&self, url: &str, bytes: &[u8]) -> Option<()> {
        let cache = self.cache().await?;
        let mut copy = bytes.to_vec();
        let response = web_sys::Response::new_with_opt_u8_array(Some(&mut copy)).ok()?;
        JsFuture::from(cache.put_with_str(url, &response)).await.ok()?;
        Some(())
    }

    async fn cache(&self) -> Option<web_sys::Cache> {
        let open = self.files.borrow().clone();
        if open.is_some() {
            return open;
        }
        let cache = open_files(self.caches.as_ref()?).await?;
        self.files.replace(Some(cache.clone()));
        Some(cache)
    }
}

impl Port for BrowserPort {
    async fn fetch(&self, request: Request) -> Result<Response, Problem> {
        if request.cache == Cache::Immutable
            && let Some(body) = self.cached(&request.url).await
        {
            return Ok(Response { status: 200, headers: BTreeMap::new(), body });
        }
        let answer = self.ask(&request).await?;
        let body = self.body(&answer, &request).await?;
        let mut headers = BTreeMap::new();
        for name in ["etag", "content-type", "retry-after"] {
            if let Ok(Some(value)) = answer.headers().get(name) {
                headers.insert(name.to_owned(), value);
            }
        }
        let status = answer.status();
        if request.cache != Cache::Bypass && status == 200 {
            let _full_disk_is_no_failure = self.keep(&request.url, &body).await;
        }
        Ok(Response { status, headers, body })
    }

    async fn load(&self, key: &str) -> Result<Option<Vec<u8>>, Problem> {
        self.storage.load(key).await
    }

    async fn store(&self, key: &str, bytes: &[u8]) -> Result<(), Problem> {
        self.storage.store(key, bytes).await
    }

    async fn swap(&self, key: &str, from: Option<&[u8]>, to: &[u8]) -> Result<bool, Problem> {
        self.storage.swap(key, from, to).await
    }

    async fn remove(&self, key: &str) -> Result<(), Problem> {
        self.storage.remove(key).await
    }

    fn now_ms(&self) -> f64 {
        self.performance.as_ref().map_or_else(js_sys::Date::now, Performance::now)
    }

    fn unix_seconds(&self) -> u64 {
        (js_sys::Date::now() / 1000.0) as u64
    }

    fn random(&self, bytes: &mut [u8]) -> Result<(), Problem> {
        getrandom::fill(bytes).map_err(|e| {
            Problem::new(Code::Internal, format!("the browser gives no randomness: {e}"))
        })
    }

    /// A macrotask by a message channel: unlike a timer it is not slowed down to 4 ms.
    async fn pause(&self) {
        let Ok(channel) = MessageChannel::new() else { return };
        let promise = Promise::new(&mut |resolve, _| {
            let closure = Closure::once_into_js(move |_: JsValue| {
                let _resolved = resolve.call0(&JsValue::UNDEFINED);
            });
            channel.port1().set_onmessage(closure.dyn_ref());
            let _sent = channel.port2().post_message(&JsValue::NULL);
        });
        let _done = JsFuture::from(promise).await;
        channel.port1().close();
    }
}

async fn open_files(caches: &CacheStorage) -> Option<web_sys::Cache> {
    JsFuture::from(caches.open(CACHE)).await.ok()?.dyn_into().ok()
}

fn network(url: &str, error: &JsValue) -> Problem {
    let why = error.dyn_ref::<js_sys::Error>().map(|e| String::from(e.message()));
    let why = why.or_else(|| error.as_string()).unwrap_or_else(|| "the request failed".to_owned());
    Problem::new(Code::NetworkFailed, format!("{url}: {why}"))
        .with_hint("check the connection, and that the server allows this page's origin")
}

#[cfg(test)]
mod tests {
    use backstitch_client::port::contract;
    use wasm_bindgen_test::wasm_bindgen_test;

    use super::*;

    #[wasm_bindgen_test]
    async fn the_browser_gives_time_randomness_and_turns() {
        let port = BrowserPort::open(false, None).await;
        let before = port.now_ms();
        for _ in 0..3 {
            port.pause().await;
        }
        assert!(port.now_ms() >= before && port.unix_seconds() > 1_700_000_000);
        let (mut first, mut second) = ([0; 32], [0; 32]);
        port.random(&mut first).unwrap();
        port.random(&mut second).unwrap();
        assert_ne!(first, second);
    }

    #[wasm_bindgen_test]
    async fn two_pages_keep_the_contract() {
        let open = || BrowserPort::open(true, None);
        contract::check(&open().await, &open().await).await.unwrap();
        let memory = BrowserPort::open(false, None).await;
        contract::check(&memory, &memory).await.unwrap();
    }

    #[wasm_bindgen_test]
    async fn what_was_asked_for_early_answers_once() {
        let port = BrowserPort::open(false, None).await;
        let url = "https://example.invalid/v1/libraries/tiny/catalog";
        let answer = web_sys::Response::new_with_opt_str(Some("early")).unwrap();
        port.hand_over(url.to_owned(), Promise::resolve(&answer).unchecked_into());
        let fetch = || port.fetch(Request::get(url, 10));
        assert_eq!(fetch().await.unwrap().body, b"early");
        assert!(fetch().await.unwrap_err().is(Code::NetworkFailed));
        port.hand_over(url.to_owned(), Promise::reject(&js_sys::Error::new("gone").into()));
        assert!(fetch().await.unwrap_err().is(Code::NetworkFailed));
    }

    #[wasm_bindgen_test]
    async fn immutable_files_are_kept_and_replaced() {
        let port = BrowserPort::open(true, None).await;
        let url = "https://example.invalid/v1/blobs/00";
        if port.keep(url, &[1, 2]).await.is_none() {
            return; // No Cache API in this context; then there is no cache.
        }
        let fetch = || port.fetch(Request::get(url, 10).cached(Cache::Immutable));
        assert_eq!(fetch().await.unwrap().body, [1, 2]);
        port.keep(url, &[3]).await.unwrap();
        assert_eq!(fetch().await.unwrap().body, [3]);
        port.forget_files().await;
        assert_eq!(port.cached(url).await, None);
        let past = port.fetch(Request::get(url, 10).cached(Cache::Bypass)).await;
        assert!(past.unwrap_err().is(Code::NetworkFailed));
    }
}
