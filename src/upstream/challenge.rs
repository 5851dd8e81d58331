//! Reading `WWW-Authenticate` (RFC 9110, section 11.6.1). Pure: whether to answer a challenge is decided elsewhere.

use hyper::HeaderMap;
use hyper::header::WWW_AUTHENTICATE;

/// Longest header line that is read; Docker Hub's has 150 bytes.
const MAX_LINE: usize = 8 << 10;

/// A challenge that we can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A token from `realm`.
    Bearer {
        /// The token service's URL, as it was written.
        realm: String,
        /// What the token service calls the registry.
        service: Option<String>,
    },
    /// User name and password to the registry itself.
    Basic,
}

/// The challenge to answer among all that an answer carries: a token, rather than a password on every request.
pub fn strongest(headers: &HeaderMap) -> Option<Challenge> {
    let mut basic = None;
    for line in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(line) = line.to_str() else { continue };
        for offer in parse(line) {
            if offer.scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = offer.param("realm")
            {
                let service = offer.param("service").filter(|service| !service.is_empty());
                return Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) });
            }
            if offer.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
    }
    basic
}

/// One challenge as it was written.
#[derive(Debug, PartialEq, Eq)]
struct Offer<'a> {
    scheme: &'a str,
    params: Vec<(&'a str, String)>,
}

impl Offer<'_> {
    /// The first value of a parameter: a second one does not replace what was already read.
    fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// The challenges of one line, up to the first thing that is none.
fn parse(line: &str) -> Vec<Offer<'_>> {
    let mut offers: Vec<Offer> = Vec::new();
    let mut rest = Cursor(line.get(..MAX_LINE).unwrap_or(line));
    loop {
        rest.skip(|b| matches!(b, b' ' | b'\t' | b','));
        let name = rest.take(is_token);
        if name.is_empty() {
            return offers;
        }
        let had_space = rest.skip(is_space);
        if let Some(offer) = offers.last_mut()
            && rest.0.starts_with('=')
        {
            rest.0 = &rest.0[1..];
            rest.skip(is_space);
            let Some(value) = rest.value() else {
                // The rest is not to be trusted, and neither is the challenge that it is part of.
                offers.pop();
                return offers;
            };
            offer.params.push((name, value));
            continue;
        }
        offers.push(Offer { scheme: name, params: Vec::new() });
        if had_space {
            rest.skip_token68();
        }
    }
}

/// What is left of a line.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        // Only ASCII is ever wanted, so this is a boundary of characters.
        let end = self.0.bytes().position(|b| !wanted(b)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn skip(&mut self, unwanted: impl Fn(u8) -> bool) -> bool {
        !self.take(unwanted).is_empty()
    }

    /// A token or a quoted string.
    fn value(&mut self) -> Option<String> {
        if !self.0.starts_with('"') {
            let token = self.take(is_token);
            return (!token.is_empty()).then(|| token.to_owned());
        }
        let mut value = String::new();
        let mut characters = self.0.char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Some(value);
                }
                '\\' => value.push(characters.next()?.1),
                other => value.push(other),
            }
        }
        None
    }

    /// The credential-like text that stands in the place of parameters in `Negotiate YII=`.
    fn skip_token68(&mut self) {
        let mut ahead = Cursor(self.0);
        ahead.skip(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b));
        ahead.skip(|b| b == b'=');
        ahead.skip(is_space);
        if ahead.0.is_empty() || ahead.0.starts_with(',') {
            self.0 = ahead.0;
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(lines: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(line).unwrap());
        }
        strongest(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.into(), service: service.map(Into::into) })
    }

    #[test]
    fn challenges_that_registries_send() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        assert_eq!(read(&[hub]), bearer("https://auth.docker.io/token", Some("registry.docker.io")));
        assert_eq!(read(&[r#"bearer  Realm = "https://a/t" , SERVICE=s"#]), bearer("https://a/t", Some("s")));
        assert_eq!(read(&[r#"Bearer service="a, b",realm="r""#]), bearer("r", Some("a, b")));
        assert_eq!(read(&[r#"Bearer realm="a\"b\\c""#]), bearer(r#"a"b\c"#, None));
        assert_eq!(read(&[r#"Basic realm="x", Bearer realm="r""#]), bearer("r", None));
        assert_eq!(read(&[r#"Basic realm="x""#, r#"BEARER realm="r""#]), bearer("r", None));
        assert_eq!(read(&["Negotiate", r#"Negotiate YII/+=="#, "Basic"]), Some(Challenge::Basic));
        assert_eq!(read(&[r#"NTLM abc==, Digest realm="d", qop="auth", Bearer realm="r""#]), bearer("r", None));
        assert_eq!(read(&[r#", ,Basic realm="x",,"#]), Some(Challenge::Basic));
        assert_eq!(read(&[r#"Bearer realm="first",realm="second""#]), bearer("first", None));
    }

    #[test]
    fn hostile_challenges_are_none() {
        for line in [
            "",
            ",",
            "=",
            "Bearer",
            "Bearer realm",
            "Bearer realm=",
            r#"Bearer realm="unfinished"#,
            r#"Bearer realm="escape\"#,
            r#"Bearer realm=,service="s""#,
            r#"BearerX realm="r""#,
            r#"X-Bearer realm="r""#,
            r#"Digest realm="Bearer realm=r""#,
            r#"realm="r""#,
            "\u{7f}",
        ] {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_str(line) {
                headers.append(WWW_AUTHENTICATE, value);
            }
            assert_eq!(strongest(&headers), None, "{line}");
        }
        let long = format!(r#"Bearer x="{}",realm="r""#, "a".repeat(MAX_LINE));
        assert_eq!(read(&[&long]), None);
    }

    fn quoted(text: &str) -> String {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_a_panic(line in "\\PC{0,200}") {
            parse(&line);
        }

        #[test]
        fn near_misses_are_read_without_a_panic(line in "(Bearer|Basic|realm|=|\"|\\\\|,| |é){0,30}") {
            parse(&line);
        }

        #[test]
        fn what_is_written_is_what_is_read(
            realm in "[ -~]{0,40}", service in "[ -~]{1,40}", before in "(Basic realm=\"x\"|Negotiate a/b==|)",
        ) {
            let line = format!("{before}, Bearer realm={}, service={}", quoted(&realm), quoted(&service));
            prop_assert_eq!(read(&[&line]), bearer(&realm, Some(&service)));
        }
    }
}
