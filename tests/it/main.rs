//! The integration tests: the real server against a fake Docker Hub with scripted faults, and against real programs.
//!
//! One binary, so that it links once. Every test uses port 0 and a temporary directory of its own, and runs in parallel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod accounts_in_the_log;
mod architecture;
mod backup;
mod bandwidth;
mod budget;
mod cert_command;
mod clients;
mod completeness;
mod config;
mod conformance;
mod contract;
mod copy;
mod deploy;
mod doctor;
mod documents;
mod eviction;
mod export;
mod full_disk;
mod full_registry;
mod garbage;
mod gc_command;
mod gone;
mod grafana;
mod herd;
mod hot_path;
mod hub_itself;
mod idlers;
mod import;
mod inventory;
mod keeping;
mod killed;
mod large_store;
mod live_backup;
mod logs;
mod lying_upstream;
mod malformed;
mod model;
mod operator;
mod outage;
mod page;
mod permission;
mod pins;
mod power_cut;
mod private;
mod process;
mod pull;
mod pushed;
mod recovery;
mod resume;
mod rights;
mod rot;
mod setup;
mod several_upstreams;
mod stale;
mod status;
mod storm;
mod support;
mod systemd;
mod upgrade;
mod user_command;
mod warm;
mod working_set;
