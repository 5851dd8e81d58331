//! What is kept: content as files under their digest, tags and links as small files, and an index over them.
//!
//! Files are the truth and the index can always be made again from them; whether something is here is decided by
//! opening its file. Nothing is visible under a digest before it is complete, verified and durable. Everything in here
//! blocks on the disk alone: this floor knows no HTTP and no upstream.

mod activity;
mod blob;
mod cached;
mod census;
mod claim;
mod durable;
mod error;
mod eviction;
mod examination;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod garbage;
mod held;
mod home;
mod hosted;
mod hosted_files;
pub mod index;
mod ingest;
mod layout;
pub mod link;
mod metrics;
mod pins;
mod print;
mod proof;
mod record;
mod repositories;
mod scrub;
mod space;
mod store;
mod sums;
mod suspects;
mod truth;
mod turns;
mod upload;
mod upload_id;
mod vault;

pub use blob::{BlobFile, Extent};
pub use claim::{OpenError, is_data_directory};
pub use error::StorageError;
pub use eviction::{Condemned, Removed};
pub use examination::{Examination, Verdict};
pub use garbage::Collected;
pub use held::Opening;
pub use home::Home;
pub use hosted::{Edit, Holdings, Hosted};
pub use ingest::{Growing, Ingest, Landing};
pub use link::Link;
pub use print::Print;
pub use proof::{Verify, is_lost};
pub use record::{AbsentRecord, PublicRecord, ReferrersRecord, TagRecord};
pub use scrub::{Scrub, ScrubRecord};
pub use space::{Limits, Room, Usage, footprint};
pub use store::{Settings, Store};
pub use suspects::{Garbage, Suspect};
pub use upload::{Upload, UploadRecord, Uploads};
pub use upload_id::UploadId;
