//! The integration tests: the real server against a fake Docker Hub with scripted faults, and against real programs.
//!
//! One binary, so that it links once. Every test uses port 0 and a temporary directory of its own, and runs in parallel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod architecture;
mod clients;
mod completeness;
mod config;
mod eviction;
mod gone;
mod hot_path;
mod hub_itself;
mod lying_upstream;
mod malformed;
mod operator;
mod outage;
mod process;
mod pull;
mod recovery;
mod resume;
mod several_upstreams;
mod stale;
mod support;
