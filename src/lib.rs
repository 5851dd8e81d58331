//! Larder: a pull-through caching mirror for container images, and the registry of a small team.
//!
//! The modules stand in floor order, the ground first; imports go down only (ARCHITECTURE.md has the picture, and
//! `tests/it/architecture.rs` holds it).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

// Ground.
pub mod clock;
pub mod memory;
pub mod metric;
pub mod oci;
pub mod secret;
pub mod task;

// Tools.
pub mod access;
pub mod archive;
pub mod client;
pub mod oci_layout;
pub mod routing;
pub mod server;

// Walls.
pub mod storage;
pub mod upstream;

// Beams.
pub mod backup;
pub mod cache;
pub mod hosted;

// Door.
pub mod http;

// Roof.
pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
