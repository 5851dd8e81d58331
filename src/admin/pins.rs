//! What is pinned: told, added to and taken from. Turns what a person writes into the pattern that is kept.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::served::{Home, Served, home};
use crate::cache::{PinError, Pins};
use crate::http::Ours;
use crate::oci::{ImageName, ImageNameError, Reference};
use crate::routing::{RouteError, Routes};
use crate::task;

/// What makes a text a pattern.
const WILD: [char; 4] = ['*', '?', '[', '{'];

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// A name, or a pattern of names.
    pub pattern: String,
}

/// What is pinned, as it is told.
#[derive(Debug, Serialize)]
pub struct Pinned {
    pattern: String,
    /// Whether the configuration says so; else the operator did.
    configured: bool,
}

/// What became of a wish.
#[derive(Debug, Serialize)]
pub struct Changed {
    pattern: String,
    changed: bool,
}

/// Why it is not pinned, or not unpinned.
#[derive(Debug, Error)]
pub enum WishError {
    /// No pattern was given.
    #[error("write it like /api/pins?pattern=library/alpine:3.20")]
    Query,
    /// It names no image.
    #[error(transparent)]
    Name(#[from] ImageNameError),
    /// It is nowhere here.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// It is ours.
    #[error("{0} is in your own registry, where nothing is ever thrown away: it needs no pin")]
    Hosted(String),
    /// It is not pinned.
    #[error("{0} is not pinned by itself: `larder pin` without a name shows what is")]
    NotPinned(String),
    /// It cannot be.
    #[error(transparent)]
    Pin(#[from] PinError),
}

impl WishError {
    /// How it is answered.
    pub fn status(&self) -> StatusCode {
        match self {
            WishError::Query | WishError::Name(_) | WishError::Pin(PinError::NoPattern(_)) => StatusCode::BAD_REQUEST,
            WishError::Route(_) | WishError::NotPinned(_) => StatusCode::NOT_FOUND,
            WishError::Hosted(_) | WishError::Pin(PinError::TooMany | PinError::Configured(_)) => StatusCode::CONFLICT,
            WishError::Pin(PinError::Storage(_)) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// All that is pinned, the configuration's first.
pub fn list(pins: &Pins) -> Vec<Pinned> {
    let told = |pattern: &String, configured| Pinned { pattern: pattern.clone(), configured };
    let configured = pins.configured().iter().map(|pattern| told(pattern, true));
    configured.chain(pins.ours().iter().map(|pattern| told(pattern, false))).collect()
}

/// Pins. Durable when it is answered.
pub async fn add(served: &Served, text: &str) -> Result<Changed, WishError> {
    let pattern = meant(&served.routes, served.ours.as_ref(), text)?;
    change(served, pattern, Pins::add).await
}

/// Takes back what [`add`] did.
pub async fn remove(served: &Served, text: Option<String>) -> Result<Changed, WishError> {
    let (text, pins) = (text.ok_or(WishError::Query)?, served.cache.inventory().pins());
    let stands = pins.configured().contains(&text) || pins.ours().contains(&text);
    let pattern = if stands { text } else { meant(&served.routes, served.ours.as_ref(), &text)? };
    match change(served, pattern, Pins::remove).await? {
        Changed { changed: false, pattern } => Err(WishError::NotPinned(pattern)),
        changed => Ok(changed),
    }
}

async fn change(
    served: &Served,
    pattern: String,
    work: impl FnOnce(&Pins, &str) -> Result<bool, PinError> + Send + 'static,
) -> Result<Changed, WishError> {
    let (pins, meant) = (served.cache.inventory().pins().clone(), pattern.clone());
    let changed = task::blocking(move || work(&pins, &meant)).await?;
    Ok(Changed { pattern, changed })
}

/// The pattern that is kept: a name becomes the one image that it means, with its registry; of a pattern the name, where it
/// is one, likewise.
///
/// # Errors
/// It names no image, or one that is nowhere here or ours.
pub fn meant(routes: &Routes, ours: Option<&Ours>, text: &str) -> Result<String, WishError> {
    let tag = text.rfind(':').filter(|colon| !text[*colon..].contains('/') && !text.contains('@'));
    let (name, tag) = tag.map_or((text, None), |colon| (&text[..colon], Some(&text[colon + 1..])));
    if name.contains(WILD) {
        // What covers several names covers all their tags, unless it says which.
        return Ok(tag.map_or_else(|| format!("{text}:*"), |_| text.to_owned()));
    }
    let wild_tag = tag.filter(|tag| tag.contains(WILD));
    let image: ImageName = if wild_tag.is_some() { name } else { text }.parse()?;
    let repository = match home(routes, ours, &image)? {
        Home::Ours(_, name) => return Err(WishError::Hosted(name.to_string())),
        Home::Mirrored(repository) => repository,
    };
    Ok(match (wild_tag, image.reference()) {
        (Some(tag), _) => format!("{repository}:{tag}"),
        (None, Reference::Tag(tag)) => format!("{repository}:{tag}"),
        (None, Reference::Digest(digest)) => format!("{repository}@{digest}"),
    })
}
