//! What an error of other crates comes from, and how to say it. Pure.

use std::error::Error;
use std::iter::successors;

/// What is at the bottom of `error`, in its own words. Those of hyper name no URL.
pub fn describe(error: &(dyn Error + 'static)) -> String {
    let mut words: Vec<String> = Vec::new();
    for layer in layers(error) {
        let layer = layer.to_string();
        if !words.last().is_some_and(|above| above.contains(&layer)) {
            words.push(layer);
        }
    }
    // The outermost layer says only that a request failed, if there is another.
    let skipped = usize::from(words.len() > 1);
    words[skipped..].join(": ")
}

/// What of `error` is a `T`.
pub fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    layers(error).find_map(|layer| layer.downcast_ref())
}

fn layers<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&layer| layer.source())
}
