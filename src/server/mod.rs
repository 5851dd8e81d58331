//! A listener: it accepts, speaks TLS, keeps limits, and drains. It knows nothing of registries, and nothing of what a
//! request means: a service function answers each.
//!
//! No client holds anything for ever. Every wait for one has a limit (first byte, handshake, head, body, write, close),
//! and so has the number of connections, for each client and in all. Of HTTP there is version 1 only.

mod body;
mod canned;
mod complaint;
mod connection;
mod drain;
mod expiry;
mod file_sink;
mod limits;
mod listener;
mod malformed;
mod metrics;
mod seats;
mod socket;
#[cfg(test)]
mod tests;
mod tls;

pub use body::{BodyError, RequestBody};
pub use connection::Peer;
pub use drain::Drain;
pub use file_sink::{FileSink, Region};
pub use limits::Limits;
pub use listener::{BindError, Listener, Settings};
pub use malformed::{Malformed, refuse};
pub use metrics::Metrics;
pub use tls::{TlsError, TlsFiles};
