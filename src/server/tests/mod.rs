//! The listener against real sockets: one file per kind of trouble.

mod clients;
mod draining;
mod fixture;
mod speed;
mod tls;
