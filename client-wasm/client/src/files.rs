//! The files of a library: fetched some at a time, from the device's cache where it has them, each checked against its
//! digest.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use backstitch_onnx::Digest;
use backstitch_protocol::Problem;
use backstitch_protocol::catalog::{Blob, Catalog};
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::catalog::{Address, blob};
use crate::port::Port;

/// Told how loading goes: what is loaded now, bytes so far and in all.
pub type Loading<'a> = dyn Fn(&'static str, &str, u64, u64) + 'a;

/// Files that are on their way at the same time. Each costs a round trip, or two turns of the browser's storage.
const AT_ONCE: usize = 8;

/// The files of a library, checked against their digests.
pub struct Files {
    by_digest: BTreeMap<Digest, Vec<u8>>,
    /// Of all of them.
    pub bytes: u64,
}

impl Files {
    /// Fetches every file that a catalog names, some at a time. `vocabulary` is that of its preprocessing.
    pub async fn fetch<P: Port>(
        port: &P,
        address: &Address,
        catalog: &Catalog,
        vocabulary: Option<&Blob>,
        loading: &Loading<'_>,
    ) -> Result<Self, Problem> {
        let wanted = wanted(catalog, vocabulary);
        let total = wanted.iter().map(|w| w.blob.bytes).fold(0, u64::saturating_add);
        let done = Cell::new(0);
        let fetched = wanted.iter().map(|w| async {
            loading(w.stage, w.name, done.get(), total);
            let bytes = blob(port, address, w.blob).await?;
            done.set(done.get() + w.blob.bytes);
            loading(w.stage, w.name, done.get(), total);
            Ok::<_, Problem>((w.blob.digest, bytes))
        });
        let by_digest = stream::iter(fetched).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(Self { by_digest, bytes: total })
    }

    /// A file that was wanted.
    pub fn of(&self, blob: &Blob) -> &[u8] {
        self.by_digest.get(&blob.digest).map(Vec::as_slice).unwrap_or_default()
    }
}

/// A file of a library: the stage of loading and the part that it belongs to.
struct Wanted<'a> {
    stage: &'static str,
    name: &'a str,
    blob: &'a Blob,
}

/// Every file of a library once: versions of a patch share what is the same.
fn wanted<'a>(catalog: &'a Catalog, vocabulary: Option<&'a Blob>) -> Vec<Wanted<'a>> {
    let primary = &catalog.primary;
    let library = catalog.library.as_str();
    let of_primary = [Some((library, &primary.model)), vocabulary.map(|blob| (library, blob))];
    let of_probes = primary.probes.iter().map(|probe| (probe.name.as_str(), &probe.model));
    let of_patches = catalog.patches.iter().flat_map(|entry| {
        let blobs = [Some(&entry.manifest), Some(&entry.graph), entry.weights.as_ref()];
        blobs.into_iter().flatten().map(|blob| (entry.name.as_str(), blob))
    });
    let of_primary = of_primary.into_iter().flatten().chain(of_probes);
    let staged = of_primary
        .map(|(name, blob)| Wanted { stage: "primary", name, blob })
        .chain(of_patches.map(|(name, blob)| Wanted { stage: "patch", name, blob }));
    let mut known = BTreeSet::new();
    staged.filter(|wanted| known.insert(wanted.blob.digest)).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use backstitch_protocol::catalog::PatchEntry;
    use backstitch_protocol::id::Name;
    use backstitch_protocol::problem::Code;
    use futures::executor::block_on;

    use super::*;
    use crate::memory::MemoryPort;
    use crate::port::Response;

    const CONTENTS: [&[u8]; 4] = [b"model", b"manifest", b"graph", b"weights"];

    fn blob_of(content: &[u8]) -> Blob {
        Blob { digest: Digest::of(content), bytes: content.len() as u64 }
    }

    /// Two versions of one patch, which differ in their weights alone.
    fn catalog() -> Catalog {
        let entry = |version, weights| PatchEntry {
            name: Name::new("help").unwrap(),
            version,
            aliases: vec![],
            manifest: blob_of(CONTENTS[1]),
            graph: blob_of(CONTENTS[2]),
            weights,
        };
        let patches = vec![entry(1, None), entry(2, Some(blob_of(CONTENTS[3])))];
        Catalog { patches, ..crate::test_library::catalog(1, 0) }
    }

    fn fetch(
        served: &'static [&'static [u8]],
    ) -> (MemoryPort, Vec<(u64, u64)>, Result<Files, Problem>) {
        let port = MemoryPort::new(1, move |request| {
            let found = served.iter().find(|c| request.url.ends_with(&Digest::of(c).hex()));
            Ok(match found {
                Some(content) => {
                    Response { status: 200, body: content.to_vec(), ..Response::default() }
                }
                None => Response { status: 404, ..Response::default() },
            })
        });
        let seen = RefCell::new(Vec::new());
        let address = Address::new("https://host/v1/libraries/fashion").unwrap();
        let loading = |_: &'static str, _: &str, done, total| seen.borrow_mut().push((done, total));
        let files = block_on(Files::fetch(&port, &address, &catalog(), None, &loading));
        (port, seen.into_inner(), files)
    }

    #[test]
    fn what_versions_share_is_fetched_once() {
        let (port, seen, files) = fetch(&CONTENTS);
        let files = files.unwrap();
        assert!(CONTENTS.iter().all(|content| files.of(&blob_of(content)) == *content));
        assert_eq!(port.requests.borrow().len(), CONTENTS.len());
        let total = CONTENTS.iter().map(|c| c.len() as u64).sum();
        assert!(seen.is_sorted() && seen.iter().all(|(_, of)| *of == total), "{seen:?}");
        assert_eq!((seen.first(), seen.last()), (Some(&(0, total)), Some(&(total, total))));
    }

    #[test]
    fn a_file_that_is_missing_is_told() {
        let (_, _, files) = fetch(&CONTENTS[..3]);
        assert!(files.err().unwrap().is(Code::NotFound));
    }
}
