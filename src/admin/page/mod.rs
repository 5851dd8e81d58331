//! The web page for the operator: three files that are compiled in, and the rules under which a browser shows them.
//!
//! It knows nothing: what it shows it asks of `/api/…`, and what it changes passes `permission` as any command does.

use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::told::{Body, text};

/// Where the page is.
pub(super) const PAGE: &str = "/";
/// Where its style is.
pub(super) const STYLE: &str = "/page.css";
/// Where its script is.
pub(super) const SCRIPT: &str = "/page.js";

/// Nothing but these files and the answers of this address: a name that is really markup gets nowhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// The file at `path`; the page itself, if it is none of the others.
pub(super) fn file(path: &str) -> Response<Body> {
    let (kind, file) = match path {
        STYLE => ("text/css; charset=utf-8", include_str!("page.css")),
        SCRIPT => ("text/javascript; charset=utf-8", include_str!("page.js")),
        _ => ("text/html; charset=utf-8", include_str!("page.html")),
    };
    let mut response = text(StatusCode::OK, file);
    let rules: [(HeaderName, &'static str); 5] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Another version's script must not meet this one's page.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    for (name, value) in rules {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
