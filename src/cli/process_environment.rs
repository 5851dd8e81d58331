//! The variables of this process that concern us, read once at start. Never changes one.

use super::failure::Failure;

/// The variables whose names begin like ours.
///
/// # Errors
/// One of them is not UTF-8: guessing what was meant could open another directory.
pub(super) fn larder_variables() -> Result<Vec<(String, String)>, Failure> {
    let ours = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok().filter(|name| name.starts_with("LARDER_"))?;
        Some((name, value))
    });
    ours.map(|(name, value)| match value.into_string() {
        Ok(value) => Ok((name, value)),
        Err(_) => Err(Failure::wrong_use(format_args!("{name}: is not UTF-8"))),
    })
    .collect()
}

/// The variable by which a proxy is set for HTTPS, if one is.
pub(super) fn proxy_variable() -> Option<&'static str> {
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    names.into_iter().find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}
