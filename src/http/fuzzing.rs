//! What a client's words pass through at the door, for who throws random words at it.

use super::endpoint::{Endpoint, Target};

/// A request's target: a value or a refusal, and no name that leaves its directory.
pub fn endpoint(text: &str) {
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    let Ok(target) = Target::parse(path, query) else { return };
    let (Endpoint::Manifest(name, _) | Endpoint::Blob(name, _) | Endpoint::Tags(name, _)) = &target.endpoint else {
        return;
    };
    assert!(name.components().all(|part| !part.is_empty() && !part.starts_with(['.', '_'])), "{name}");
}
