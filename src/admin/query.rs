//! The query of an operator's request. Knows no key's meaning.

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The value of `key`, decoded; of one given twice the first. A value that is no text counts as not given.
pub fn value(query: Option<&str>, key: &str) -> Option<String> {
    let mut pairs = query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, text) = pairs.find(|(name, _)| *name == key)?;
    percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

/// A path with a query of these.
pub fn with(path: &str, pairs: &[(&str, &str)]) -> String {
    let pair = |(key, value): &(&str, &str)| format!("{key}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
    format!("{path}?{}", pairs.iter().map(pair).collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let path = with("/api/pins", &[("pattern", "a/b:*?&=+ %"), ("n", "1")]);
        let query = path.split_once('?').map(|(_, query)| query);
        assert_eq!(value(query, "pattern").as_deref(), Some("a/b:*?&=+ %"));
        assert_eq!(value(query, "n").as_deref(), Some("1"));
        assert_eq!((value(query, "x"), value(None, "n"), value(Some("n=%ff"), "n")), (None, None, None));
    }
}
