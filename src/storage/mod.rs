//! What is on disk, and what is known about it. Never speaks HTTP, never asks an upstream.

pub mod index;
pub mod link;
