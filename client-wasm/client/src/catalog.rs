//! Fetches the signed catalog and the blobs it vouches for. Nothing is used before its signature or digest is checked.

use std::collections::BTreeSet;

use backstitch_protocol::Problem;
use backstitch_protocol::catalog::{Blob, Catalog};
use backstitch_protocol::problem::{Code, ProblemBody};
use backstitch_protocol::trust::{SignedCatalog, Trust};
use serde::{Deserialize, Serialize};

use crate::device::Scope;
use crate::port::{Cache, Port, Request, Response, update};
use crate::selection::MAX_CANDIDATES;

/// Largest catalog.
const CATALOG_BYTES: usize = 4 << 20;

/// Largest blob.
const BLOB_BYTES: u64 = 512 << 20;

/// The addresses of one library and of its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    library: String,
    root: String,
}

impl Address {
    /// Takes `https://host/v1/libraries/name`.
    pub fn new(library_url: &str) -> Result<Self, Problem> {
        let library = library_url.trim_end_matches('/');
        let parts = library.rsplit_once("/libraries/").filter(|(root, name)| {
            (root.starts_with("https://") || root.starts_with("http://"))
                && backstitch_protocol::id::Name::new(*name).is_ok()
        });
        let (root, _) = parts.ok_or_else(|| {
            Problem::new(Code::InputInvalid, format!("`{library_url}` is no library address"))
                .with_hint("expected https://host/v1/libraries/name")
        })?;
        Ok(Self { library: library.to_owned(), root: root.to_owned() })
    }

    /// The library's own address.
    pub fn library(&self) -> &str {
        &self.library
    }

    /// The address of the library's catalog.
    pub fn catalog(&self) -> String {
        format!("{}/catalog", self.library)
    }

    /// The address of something below `/v1/`.
    pub fn below(&self, path: &str) -> String {
        format!("{}/{path}", self.root)
    }
}

/// What is remembered between visits.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    trust: Trust,
    etag: Option<String>,
    signed: Option<SignedCatalog>,
}

/// The source of catalogs: remembers what was seen, so that an older one or one of another root is refused.
pub struct Source {
    address: Address,
    key: String,
    memory: Memory,
}

impl Source {
    /// Reads what was seen before. `public_key` pins the root (64 hex digits); without it the first one is pinned.
    pub async fn open<P: Port>(
        port: &P,
        address: Address,
        scope: &Scope,
        public_key: Option<&str>,
    ) -> Result<Self, Problem> {
        let key = scope.key("catalog");
        let stored = port.load(&key).await?;
        // What cannot be read is forgotten: it holds nothing but caution, and the pinned key is the caller's.
        let mut memory: Memory =
            stored.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        if let Some(pinned) = public_key {
            let trust = Trust::pinned(pinned);
            if memory.trust.root != trust.root {
                memory = Memory { trust, ..Memory::default() };
            }
        }
        Ok(Self { address, key, memory })
    }

    /// The addresses.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Hex of the pinned root key.
    pub fn key(&self) -> Option<&str> {
        self.memory.trust.root.as_deref()
    }

    /// The current catalog: from the server, or the last good one where the server cannot be reached.
    pub async fn current<P: Port>(&mut self, port: &P) -> Result<Catalog, Problem> {
        let older = |p: &Problem| p.is(Code::CatalogRollback) || p.is(Code::LedgerRegression);
        let mut answer = self.refresh(port, true).await;
        if answer.as_ref().is_err_and(older) {
            // It may have been asked for before another page saw a later one; whoever serves old ones does so again.
            answer = self.refresh(port, true).await;
        }
        match answer {
            Ok(Some(catalog)) => Ok(catalog),
            Ok(None) => self.remembered(port),
            Err(problem) if problem.is(Code::NetworkFailed) || problem.is(Code::Unavailable) => {
                self.remembered(port).map_err(|_| problem)
            }
            Err(problem) => Err(problem),
        }
    }

    /// Asks the server for a newer catalog; `None` where there is none. Unless `first`, a catalog that the server
    /// sends again counts as none.
    pub async fn refresh<P: Port>(
        &mut self,
        port: &P,
        first: bool,
    ) -> Result<Option<Catalog>, Problem> {
        let mut request = Request::get(self.address.catalog(), CATALOG_BYTES);
        if let Some(etag) = self.memory.etag.as_ref().filter(|_| self.memory.signed.is_some()) {
            request = request.header("if-none-match", etag.clone());
        }
        let response = port.fetch(request).await?;
        if response.status == 304 {
            return Ok(None);
        }
        let body = success(response, "the catalog")?;
        let signed: SignedCatalog = serde_json::from_slice(&body.body).map_err(|e| {
            Problem::new(Code::CatalogInvalid, format!("the catalog cannot be read: {e}"))
                .with_hint("check that the address is that of a Backstitch library")
        })?;
        let mut trust = self.memory.trust.clone();
        let catalog = trust.accept(&signed, port.unix_seconds())?;
        check(&catalog, &self.address)?;
        let repeated = self.memory.signed.as_ref() == Some(&signed);
        let etag = body.headers.get("etag").cloned();
        self.memory = Memory { trust, etag, signed: Some(signed) };
        // A device without room remembers until the page is closed; that is no reason not to open.
        let _full = self.remember(port).await;
        Ok((first || !repeated).then_some(catalog))
    }

    /// Stores what was seen, unless another page has seen a later catalog of the same root meanwhile.
    async fn remember<P: Port>(&self, port: &P) -> Result<(), Problem> {
        let later = |stored: Option<&[u8]>| {
            let own = serde_json::to_vec(&self.memory)
                .map_err(|e| Problem::new(Code::StorageFailed, format!("the catalog: {e}")))?;
            let seen = stored.and_then(|bytes| serde_json::from_slice::<Memory>(bytes).ok());
            let (root, version) = (&self.memory.trust.root, self.memory.trust.version);
            let later = |m: &Memory| m.trust.root == *root && m.trust.version > version;
            Ok((stored.filter(|_| seen.is_some_and(|m| later(&m))).map_or(own, <[u8]>::to_vec), ()))
        };
        update(port, &self.key, later).await
    }

    fn remembered<P: Port>(&mut self, port: &P) -> Result<Catalog, Problem> {
        let signed = self.memory.signed.clone().ok_or_else(|| {
            Problem::new(
                Code::NetworkFailed,
                "nothing was loaded before and the server cannot be reached",
            )
        })?;
        let catalog = self.memory.trust.accept(&signed, port.unix_seconds())?;
        check(&catalog, &self.address)?;
        Ok(catalog)
    }
}

/// The bytes of a blob, their length and digest checked. A damaged copy in the device's cache is fetched again.
pub async fn blob<P: Port>(port: &P, address: &Address, blob: &Blob) -> Result<Vec<u8>, Problem> {
    if blob.bytes > BLOB_BYTES {
        return Err(Problem::new(
            Code::CatalogInvalid,
            format!("a blob of {} bytes is above the limit of {BLOB_BYTES}", blob.bytes),
        ));
    }
    let url = address.below(&format!("blobs/{}", blob.digest.hex()));
    let matches = |bytes: &[u8]| {
        bytes.len() as u64 == blob.bytes && backstitch_onnx::Digest::of(bytes) == blob.digest
    };
    for cache in [Cache::Immutable, Cache::Replace] {
        let request = Request::get(url.clone(), blob.bytes as usize).cached(cache);
        let bytes = success(port.fetch(request).await?, "a blob")?.body;
        if matches(&bytes) {
            return Ok(bytes);
        }
    }
    Err(Problem::new(Code::BlobMismatch, format!("{} did not come as promised", blob.digest))
        .with_hint("try again; if it stays, the server's storage is damaged"))
}

/// The response, or the problem that it carries.
pub fn success(response: Response, what: &str) -> Result<Response, Problem> {
    if response.status == 200 {
        return Ok(response);
    }
    if let Ok(body) = serde_json::from_slice::<ProblemBody>(&response.body) {
        return Err(Problem::from_body(&body));
    }
    let code = match response.status {
        404 => Code::NotFound,
        429 => Code::RateLimited,
        502..=504 => Code::Unavailable,
        _ => Code::NetworkFailed,
    };
    Err(Problem::new(code, format!("asking for {what} gave HTTP {}", response.status)))
}

/// What a signature cannot promise: that the catalog makes sense.
fn check(catalog: &Catalog, address: &Address) -> Result<(), Problem> {
    let invalid = |what: String| Err(Problem::new(Code::CatalogInvalid, what));
    if !address.library.ends_with(&format!("/libraries/{}", catalog.library)) {
        return invalid(format!("the catalog is that of `{}`", catalog.library));
    }
    let versions: BTreeSet<_> = catalog.patches.iter().map(|p| (&p.name, p.version)).collect();
    if versions.len() != catalog.patches.len() {
        return invalid("a patch version stands twice in the catalog".to_owned());
    }
    let names: BTreeSet<_> = catalog.patches.iter().map(|p| &p.name).collect();
    if names.len() > MAX_CANDIDATES {
        return invalid(format!("{} patches, the limit is {MAX_CANDIDATES}", names.len()));
    }
    for task in &catalog.tasks {
        if let Some(unknown) = task.patches.iter().find(|p| !names.contains(p)) {
            return invalid(format!("task {} trains the unknown patch {unknown}", task.name));
        }
        if task.base_versions.len() != task.patches.len() {
            return invalid(format!("task {} has not one base version per patch", task.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use backstitch_onnx::Digest;
    use backstitch_protocol::id::Name;
    use ed25519_dalek::SigningKey;
    use futures::executor::block_on;

    use super::*;
    use crate::memory::MemoryPort;
    use crate::port::Method;
    use crate::test_library::catalog;

    const URL: &str = "https://host/v1/libraries/fashion";

    /// Signed by the release key of this root.
    fn signed(catalog: &Catalog, root: u8) -> SignedCatalog {
        crate::test_library::signed(catalog, root)
    }

    type Answer = Rc<RefCell<Result<Vec<u8>, Problem>>>;

    /// A server whose answer to everything can be changed.
    fn serving(first: Vec<u8>) -> (MemoryPort, Answer) {
        let answer = Rc::new(RefCell::new(Ok(first)));
        let shared = answer.clone();
        let port = MemoryPort::new(1, move |request| {
            assert_eq!(request.method, Method::Get);
            let body = shared.borrow().clone()?;
            let etag = format!("\"{}\"", Digest::of(&body).hex());
            if request.headers.iter().any(|(n, v)| *n == "if-none-match" && *v == etag) {
                return Ok(Response { status: 304, ..Response::default() });
            }
            Ok(Response { status: 200, headers: [("etag".to_owned(), etag)].into(), body })
        });
        (port, answer)
    }

    fn json(signed: &SignedCatalog) -> Vec<u8> {
        serde_json::to_vec(signed).unwrap()
    }

    fn open(port: &MemoryPort, pinned: Option<&str>) -> Source {
        let address = Address::new(URL).unwrap();
        block_on(Source::open(port, address, &Scope::of(URL), pinned)).unwrap()
    }

    #[test]
    fn addresses_are_checked() {
        assert_eq!(
            Address::new("http://h:1/v1/libraries/a/").unwrap().below("blobs/x"),
            "http://h:1/v1/blobs/x"
        );
        for bad in [
            "",
            "fashion",
            "ftp://h/v1/libraries/a",
            "https://h/v1/libraries/",
            "https://h/v1/libraries/A b",
        ] {
            assert!(Address::new(bad).unwrap_err().is(Code::InputInvalid), "{bad}");
        }
    }

    #[test]
    fn a_newer_catalog_is_picked_up_and_an_older_never() {
        let (port, answer) = serving(json(&signed(&catalog(3, 5), 1)));
        let mut source = open(&port, None);
        assert_eq!(block_on(source.current(&port)).unwrap().version, 3);
        assert_eq!(block_on(source.refresh(&port, false)).unwrap(), None);
        let serve =
            |catalog: Catalog, key: u8| *answer.borrow_mut() = Ok(json(&signed(&catalog, key)));
        serve(catalog(4, 6), 1);
        assert_eq!(block_on(source.refresh(&port, false)).unwrap().unwrap().version, 4);
        let refused = [
            (catalog(3, 6), 1, Code::CatalogRollback),
            (catalog(5, 5), 1, Code::LedgerRegression),
            (catalog(5, 7), 2, Code::SignatureInvalid),
            (Catalog { expires_at: 10, ..catalog(5, 7) }, 1, Code::CatalogExpired),
            (
                Catalog { library: Name::new("other").unwrap(), ..catalog(5, 7) },
                1,
                Code::CatalogInvalid,
            ),
        ];
        for (catalog, key, code) in refused {
            serve(catalog, key);
            assert!(block_on(source.refresh(&port, false)).unwrap_err().is(code));
            // A restart remembers too.
            assert!(block_on(open(&port, None).current(&port)).unwrap_err().is(code));
        }
    }

    #[test]
    fn an_answer_that_another_page_has_overtaken_is_asked_for_again() {
        let versions = Rc::new(RefCell::new(vec![4, 3]));
        let left = versions.clone();
        let port = MemoryPort::new(1, move |_| {
            let version = left.borrow_mut().pop().unwrap_or(4);
            Ok(Response {
                status: 200,
                body: json(&signed(&catalog(version, 5), 1)),
                ..Response::default()
            })
        });
        // Another page has stored version 4 while this one's answer was under way.
        let (other, _) = serving(json(&signed(&catalog(4, 5), 1)));
        block_on(open(&other, None).current(&other)).unwrap();
        port.stored().extend(other.stored().clone());
        assert_eq!(block_on(open(&port, None).current(&port)).unwrap().version, 4);
        assert_eq!(port.requests.borrow().len(), 2);
        *versions.borrow_mut() = vec![3, 3];
        let refused = block_on(open(&port, None).current(&port)).unwrap_err();
        assert!(refused.is(Code::CatalogRollback));
    }

    #[test]
    fn the_last_good_catalog_serves_offline() {
        let (port, answer) = serving(json(&signed(&catalog(3, 5), 1)));
        block_on(open(&port, None).current(&port)).unwrap();
        *answer.borrow_mut() = Err(Problem::new(Code::NetworkFailed, "gone"));
        assert_eq!(block_on(open(&port, None).current(&port)).unwrap().version, 3);
        port.stored().clear();
        assert!(block_on(open(&port, None).current(&port)).unwrap_err().is(Code::NetworkFailed));
    }

    #[test]
    fn a_pinned_key_refuses_every_other() {
        let (port, _) = serving(json(&signed(&catalog(3, 5), 1)));
        let other = hex::encode(SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes());
        assert!(
            block_on(open(&port, Some(&other)).current(&port))
                .unwrap_err()
                .is(Code::SignatureInvalid)
        );
        let right = hex::encode(SigningKey::from_bytes(&[1; 32]).verifying_key().to_bytes());
        assert!(block_on(open(&port, Some(&right)).current(&port)).is_ok());
    }

    #[test]
    fn damaged_blobs_are_fetched_again_and_wrong_ones_refused() {
        let (port, answer) = serving(b"model".to_vec());
        let address = Address::new(URL).unwrap();
        let wanted = catalog(1, 0).primary.model;
        assert_eq!(block_on(blob(&port, &address, &wanted)).unwrap(), b"model");
        assert_eq!(block_on(blob(&port, &address, &wanted)).unwrap(), b"model");
        assert_eq!(port.requests.borrow().len(), 1);
        port.cached().values_mut().for_each(|r| r.body[0] = b'X');
        assert_eq!(block_on(blob(&port, &address, &wanted)).unwrap(), b"model");
        *answer.borrow_mut() = Ok(b"other".to_vec());
        port.cached().clear();
        assert!(block_on(blob(&port, &address, &wanted)).unwrap_err().is(Code::BlobMismatch));
    }

    #[test]
    fn problems_of_the_server_keep_their_code() {
        let body = serde_json::to_vec(&Problem::new(Code::RoundClosed, "x").body()).unwrap();
        let response =
            |status, body: &[u8]| Response { status, body: body.to_vec(), ..Response::default() };
        assert!(success(response(409, &body), "x").unwrap_err().is(Code::RoundClosed));
        assert!(success(response(404, b"<html>"), "x").unwrap_err().is(Code::NotFound));
        assert!(success(response(503, b""), "x").unwrap_err().is(Code::Unavailable));
    }
}
