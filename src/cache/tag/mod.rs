//! What tags mean: asked, remembered (`memory`), served although nobody confirms it, and confirmed when an outage is over
//! (`backlog`, `recovery`); and the lists of them (`list`).

mod backlog;
mod list;
mod memory;
pub mod recovery;
mod tags;

pub use self::list::{TagList, TagLists};
pub use self::tags::{Tags, WeakTags};
