//! The variables of this process that concern us, read once at start. Never changes one.

use super::failure::Failure;

/// Variables that name proxies; in lower case, too.
const PROXIES: [&str; 4] = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"];

/// The variables that concern us: those whose names begin like ours, and those that name proxies.
///
/// # Errors
/// One of them is not UTF-8: guessing what was meant could open another directory.
pub(super) fn variables() -> Result<Vec<(String, String)>, Failure> {
    let is_proxy = |name: &str| PROXIES.iter().any(|proxy| name == *proxy || name == proxy.to_ascii_lowercase());
    let ours = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok().filter(|name| name.starts_with("LARDER_") || is_proxy(name))?;
        Some((name, value))
    });
    ours.map(|(name, value)| match value.into_string() {
        Ok(value) => Ok((name, value)),
        Err(_) => Err(Failure::wrong_use(format_args!("{name}: is not UTF-8"))),
    })
    .collect()
}
