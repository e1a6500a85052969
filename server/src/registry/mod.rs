//! Libraries, immutable patch versions, aliases with their history, and the signed catalog of it all.

pub(crate) mod alias;
mod catalog;
mod changes;
mod descriptor;
mod import;
mod key;
mod primary;
mod secret;
mod source;
pub(crate) mod version;

pub(crate) use catalog::libraries;
pub use catalog::{Catalogs, Issued, News};
pub use changes::Change;
pub use descriptor::{HeldOut, LibraryDescriptor, PrimaryDescriptor, TaskDescriptor};
pub(crate) use import::set_terms;
pub use import::{Imported, import};
pub use key::{Keys, RELEASE_DAYS, Signer, certify, create_root, public, read_root};
pub(crate) use secret::{private_folder, random_bytes, replace, seed, token};
pub use source::{SAMPLES, Source};
