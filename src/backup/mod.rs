//! Copies of what is hosted and of what is pinned, out of the house and back: a backup is an OCI image layout that other
//! tools read, too.
//!
//! Content leaves only as what its digest says, and comes back only so. Knows neither HTTP nor the command line: where a
//! backup's content comes from is a [`Source`], which a store on this machine is, and a running server elsewhere.

mod below;
mod entry;
mod error;
mod local;
mod pinned;
mod progress;
mod report;
mod restoration;
mod source;
mod writer;

pub use entry::Listing;
pub use error::BackupError;
pub use local::Local;
pub use pinned::IsPinned;
pub use progress::Progress;
pub use report::{BackupReport, Damage, RestoreReport};
pub use restoration::restore;
pub use source::{PIECE, Source, SourceError};
pub use writer::{Options, back_up};
