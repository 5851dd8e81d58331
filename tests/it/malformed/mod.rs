//! Ten thousand requests that no client of good will sends, and what every one of them must come to.
//!
//! The corpus is the same in every run. A failure names the request by its number: `corpus().nth(number)` is it.

mod alone;
mod answers;
mod corpus;
mod heads;
mod targets;

pub use answers::assert_all_answered;
pub use corpus::corpus;
