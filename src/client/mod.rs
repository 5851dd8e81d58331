//! A client of a registry, for commands that ask a running Larder what any engine would ask it: pulls with every digest
//! checked, and pushes. Never trusts what it is sent, never keeps anything.

mod connection;
mod error;
mod pushing;
mod registry;
mod whole;

pub use error::ClientError;
pub use pushing::Pushing;
pub use registry::{Client, Download, Fetched};
pub use whole::Whole;
