//! What the integration tests stand on: a fake Docker Hub with scripted faults, images, and a client that sees the wire.
//!
//! Nothing here knows how Larder works inside.

#![allow(dead_code, reason = "a stock of tools: no test uses all of them")]

pub mod binary;
pub mod client;
pub mod hub;
pub mod image;
pub mod larder;
pub mod pushing;

/// Whether the long tests are to have their full size: `LARDER_SOAK=1`, as `just soak` says it.
pub fn is_soak() -> bool {
    std::env::var_os("LARDER_SOAK").is_some_and(|value| value == "1")
}
