//! The operator's address: `/metrics`, `/livez`, `/readyz`, `/api/…`. Not for clients, and on loopback unless said otherwise.
//!
//! `/livez` says only that the process answers: it touches neither disk nor upstream, so that no outage of theirs gets
//! the process restarted. `/readyz` says whether clients should be sent here; an outage of an upstream does not change
//! that, because what is cached is served. What changes something passes `permission` first.

pub mod client;
mod permission;
mod status;

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use prometheus::{Encoder, Registry, TextEncoder};
use serde::Serialize;

pub use self::permission::Permission;
use self::permission::Refusal;
use self::status::{Budget, Status};
use crate::cache::Cache;
use crate::clock::Clock;
use crate::metric;
use crate::server::Drain;

/// Answers the operator. Clones share everything.
#[derive(Clone)]
pub struct Admin {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    permission: Permission,
    drain: Drain,
    cache: Arc<Cache>,
    clock: Clock,
    began: Instant,
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl Admin {
    /// Shows what is counted in `registry`, and what `cache` says of itself.
    pub fn new(registry: Registry, permission: Permission, drain: Drain, cache: Arc<Cache>, clock: Clock) -> Admin {
        let build =
            metric::gauges(&registry, "larder_build_info", "Always 1; the label has the version.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let process = prometheus::process_collector::ProcessCollector::for_self();
        // Refused only if it stood there already, and then it is there.
        let _ = registry.register(Box::new(process));
        let began = clock.tick();
        Admin { inner: Arc::new(Inner { registry, permission, drain, cache, clock, began }) }
    }

    /// Answers one request of `peer`.
    pub async fn handle<B>(&self, request: Request<B>, peer: IpAddr) -> Response<Full<Bytes>> {
        if let Err(refusal) = self.inner.permission.check(request.method(), request.headers(), peer) {
            return refused(refusal);
        }
        let read = request.method() == Method::GET || request.method() == Method::HEAD;
        match request.uri().path() {
            "/livez" if read => answer(StatusCode::OK, "alive\n"),
            "/readyz" if read => self.ready(),
            "/metrics" if read => self.metrics(),
            "/api/scrub" if read => json(&self.inner.cache.scrubber().progress()),
            "/api/scrub" if request.method() == Method::POST => self.scrub(&request),
            "/api/status" if read => json(&self.status()),
            "/api/budget" if read => json(&Budget::of(&self.inner.cache)),
            "/" if read => answer(StatusCode::OK, format!("larder: see {PAGES}\n")),
            "/" | "/livez" | "/readyz" | "/metrics" | "/api/status" | "/api/budget" | "/api/scrub" => {
                answer(StatusCode::METHOD_NOT_ALLOWED, "this page is only read\n")
            }
            _ => answer(StatusCode::NOT_FOUND, format!("no such page: see {PAGES}\n")),
        }
    }

    /// Begins to read and check everything at rest.
    fn scrub<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let repair = request.uri().query() == Some("repair=true");
        let scrubber = self.inner.cache.scrubber();
        let status = if scrubber.begin(repair) { StatusCode::ACCEPTED } else { StatusCode::CONFLICT };
        let mut response = json(&scrubber.progress());
        *response.status_mut() = status;
        response
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        if self.inner.drain.has_begun() {
            return answer(StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
        }
        let mut text = format!("ready\nindex: {}\n", self.inner.cache.store().index().state());
        for line in self.inner.cache.upstreams().iter().flat_map(status::parts) {
            // Writing to a text does not fail.
            let _ = writeln!(text, "{line}");
        }
        answer(StatusCode::OK, text)
    }

    fn status(&self) -> Status {
        let Inner { registry, cache, clock, began, .. } = &*self.inner;
        Status::of(cache, registry, clock.unix_seconds(), clock.tick().saturating_duration_since(*began))
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.inner.registry.gather(), &mut text) {
            Ok(()) => answer(StatusCode::OK, text),
            Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")),
        }
    }
}

const PAGES: &str = "/metrics, /livez, /readyz, /api/status, /api/budget and /api/scrub";

fn answer(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, TEXT);
    response
}

fn refused(refusal: Refusal) -> Response<Full<Bytes>> {
    let mut response = answer(refusal.status(), format!("{refusal}\n"));
    if refusal.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"larder\""));
    }
    response
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(text) => {
            let mut response = answer(StatusCode::OK, text);
            response.headers_mut().insert(header::CONTENT_TYPE, JSON);
            response
        }
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}
