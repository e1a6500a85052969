//! Immutable bytes under their SHA-256, in an object store: `sha256/ab/cdef…`.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use axum::body::Bytes;
use backstitch_onnx::Digest;
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use crate::failure::{Failure, Result, not_found};

/// The blob store. Cloning shares it.
#[derive(Clone)]
pub struct Blobs(Arc<dyn ObjectStore>);

impl Blobs {
    /// Blobs in a folder, which is created.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).while_doing(format!("creating {}", folder.display()))?;
        let store = LocalFileSystem::new_with_prefix(folder)
            .while_doing(format!("opening {}", folder.display()))?
            .with_fsync(true);
        Ok(Self(Arc::new(store)))
    }

    /// Stores bytes under their digest, unless they are there, and reads them back to be sure.
    pub async fn put(&self, bytes: impl Into<Bytes>) -> Result<Digest> {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.0.put_opts(&location(&digest), PutPayload::from(bytes), options).await {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(cause) => return Err(cause).while_doing(format!("storing {digest}")),
        }
        self.get(&digest).await?;
        Ok(digest)
    }

    /// The bytes, verified against the digest.
    pub async fn get(&self, digest: &Digest) -> Result<Bytes> {
        let bytes = match self.0.get(&location(digest)).await {
            Ok(found) => found.bytes().await.while_doing(format!("reading {digest}"))?,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(not_found(format!("blob {digest}")));
            }
            Err(cause) => return Err(cause).while_doing(format!("reading {digest}")),
        };
        if Digest::of(&bytes) != *digest {
            return Err(Problem::new(Code::BlobMismatch, format!("the stored bytes of {digest} are damaged"))
                .with_hint("restore the blob folder from a backup, or delete the file and import the library again"));
        }
        Ok(bytes)
    }

    /// The length in bytes.
    pub async fn len(&self, digest: &Digest) -> Result<u64> {
        match self.0.head(&location(digest)).await {
            Ok(found) => Ok(found.size),
            Err(object_store::Error::NotFound { .. }) => Err(not_found(format!("blob {digest}"))),
            Err(cause) => Err(cause).while_doing(format!("looking up {digest}")),
        }
    }

    /// A part of the bytes; unverified, because a hash covers the whole. Clients verify what they assemble.
    pub async fn range(&self, digest: &Digest, range: Range<u64>) -> Result<Bytes> {
        self.0
            .get_range(&location(digest), range)
            .await
            .while_doing(format!("reading a part of {digest}"))
    }
}

fn location(digest: &Digest) -> Location {
    let hex = digest.hex();
    Location::from(format!("sha256/{}/{}", &hex[..2], &hex[2..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn blobs_are_written_once_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::in_folder(folder.path()).unwrap();
        let digest = blobs.put(&b"hello"[..]).await.unwrap();
        assert_eq!(blobs.put(&b"hello"[..]).await.unwrap(), digest);
        assert_eq!(blobs.get(&digest).await.unwrap(), &b"hello"[..]);
        assert_eq!(blobs.range(&digest, 1..3).await.unwrap(), &b"el"[..]);
        assert_eq!(blobs.len(&digest).await.unwrap(), 5);
        assert!(blobs.get(&Digest::of(b"other")).await.unwrap_err().is(Code::NotFound));

        let hex = digest.hex();
        std::fs::write(folder.path().join("sha256").join(&hex[..2]).join(&hex[2..]), b"hullo")
            .unwrap();
        assert!(blobs.get(&digest).await.unwrap_err().is(Code::BlobMismatch));
        assert!(blobs.put(&b"hello"[..]).await.unwrap_err().is(Code::BlobMismatch));
    }
}
