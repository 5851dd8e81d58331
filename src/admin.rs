//! The operator's address: `/metrics`, `/livez`, `/readyz`. Not for clients, and on loopback unless said otherwise.
//!
//! `/livez` says only that the process answers: it touches neither disk nor upstream, so that no outage of theirs gets
//! the process restarted. `/readyz` says whether clients should be sent here; an outage of an upstream does not change
//! that, because what is cached is served.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use prometheus::{Encoder, Registry, TextEncoder};

use crate::cache::Scrubber;
use crate::metric;
use crate::server::Drain;
use crate::storage::Store;

/// Answers the operator. Clones share everything.
#[derive(Clone)]
pub struct Admin {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    drain: Drain,
    store: Store,
    scrubber: Scrubber,
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl Admin {
    /// Shows what is counted in `registry`.
    pub fn new(registry: Registry, drain: Drain, store: Store, scrubber: Scrubber) -> Admin {
        let build =
            metric::gauges(&registry, "larder_build_info", "Always 1; the label has the version.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let process = prometheus::process_collector::ProcessCollector::for_self();
        // Refused only if it stood there already, and then it is there.
        let _ = registry.register(Box::new(process));
        Admin { inner: Arc::new(Inner { registry, drain, store, scrubber }) }
    }

    /// Answers one request.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Full<Bytes>> {
        let read = request.method() == Method::GET || request.method() == Method::HEAD;
        match request.uri().path() {
            "/livez" if read => answer(StatusCode::OK, "alive\n"),
            "/readyz" if read => self.ready(),
            "/metrics" if read => self.metrics(),
            "/api/scrub" if read => self.scrubbing(StatusCode::OK),
            "/api/scrub" if request.method() == Method::POST => self.scrub(&request),
            "/" if read => answer(StatusCode::OK, "larder: see /metrics, /livez and /readyz\n"),
            "/" | "/livez" | "/readyz" | "/metrics" => {
                answer(StatusCode::METHOD_NOT_ALLOWED, "this address is read-only\n")
            }
            _ => answer(StatusCode::NOT_FOUND, "no such page: see /metrics, /livez and /readyz\n"),
        }
    }

    /// Begins to read and check everything at rest. No page of a browser has that done by passing by.
    fn scrub<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if request.headers().contains_key(header::ORIGIN) {
            return answer(StatusCode::FORBIDDEN, "not for pages of others\n");
        }
        let repair = request.uri().query() == Some("repair=true");
        let status = if self.inner.scrubber.begin(repair) { StatusCode::ACCEPTED } else { StatusCode::CONFLICT };
        self.scrubbing(status)
    }

    fn scrubbing(&self, status: StatusCode) -> Response<Full<Bytes>> {
        // Plain numbers always serialise.
        let mut response = answer(status, serde_json::to_vec(&self.inner.scrubber.progress()).unwrap_or_default());
        response.headers_mut().insert(header::CONTENT_TYPE, JSON);
        response
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        if self.inner.drain.has_begun() {
            return answer(StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
        }
        let index = self.inner.store.index().state();
        answer(StatusCode::OK, format!("ready\nindex: {index}\n"))
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.inner.registry.gather(), &mut text) {
            Ok(()) => answer(StatusCode::OK, text),
            Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")),
        }
    }
}

fn answer(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, TEXT);
    response
}
