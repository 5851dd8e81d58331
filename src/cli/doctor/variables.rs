//! The variables that name proxies, in whoever's environment.

use super::facts::ProxyVariables;

/// Those among `variables`. Of a name in both cases the upper one counts, as it does for Go.
pub(super) fn among(variables: impl Iterator<Item = (String, String)>) -> ProxyVariables {
    let mut proxies = ProxyVariables::default();
    for (name, value) in variables {
        let slot = match name.to_ascii_uppercase().as_str() {
            "HTTP_PROXY" => &mut proxies.http,
            "HTTPS_PROXY" => &mut proxies.https,
            "NO_PROXY" => &mut proxies.not_for,
            _ => continue,
        };
        let is_upper = name.starts_with(char::is_uppercase);
        if slot.is_empty() || is_upper {
            *slot = value;
        }
    }
    proxies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_case_is_the_one_that_go_looks_at_first() {
        let pairs =
            [("PATH", "/bin"), ("http_proxy", "a"), ("HTTP_PROXY", "b"), ("HTTPS_PROXY", "c"), ("https_proxy", "d")];
        let found = among(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!((found.http.as_str(), found.https.as_str(), found.not_for.as_str()), ("b", "c", ""));
    }
}
