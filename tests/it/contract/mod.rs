//! The outage contract (README): what clients get in every shape of failure, cell by cell, through a day of them, and under
//! load.

#![allow(clippy::print_stdout, reason = "what was measured is told, and never asserted")]

mod burst;
mod day;
mod matrix;
mod shapes;
