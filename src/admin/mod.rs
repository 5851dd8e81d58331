//! The operator's address: `/metrics`, `/livez`, `/readyz`, `/api/…`, and the page at `/`. Not for clients, and on loopback unless said otherwise.
//!
//! `/livez` says only that the process answers: it touches neither disk nor upstream, so that no outage of theirs gets
//! the process restarted. `/readyz` says whether clients should be sent here; an outage of an upstream does not change
//! that, because what is cached is served. What changes something passes `permission` first.

mod backup;
pub mod client;
mod copy;
pub mod garbage;
mod images;
mod intake;
mod page;
mod permission;
mod pins;
pub mod query;
mod remote;
mod remote_cache;
mod served;
mod status;
mod told;

use std::error::Error;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use prometheus::{Encoder, Registry, TextEncoder};

pub use self::images::MAX_PAGE as MOST_IMAGES;
pub use self::permission::Permission;
pub use self::pins::meant;
pub use self::remote::Remote;
pub use self::remote_cache::RemoteCache;
pub use self::served::{Served, is_mirrored};

use self::copy::{Copy, CopyError, Order};
use self::garbage::Report;
use self::images::ImagesError;
use self::permission::Refusal;
use self::pins::{Wish, WishError};
use self::status::{Budget, Status};
use self::told::{Body, json, text as answer};
use crate::backup::Local;
use crate::clock::Clock;
use crate::metric;
use crate::server::Drain;
use crate::storage::{self, StorageError};

/// Answers the operator. Clones share everything.
#[derive(Clone)]
pub struct Admin {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    permission: Permission,
    drain: Drain,
    served: Served,
    clock: Clock,
    began: Instant,
}

/// Longest body of a request, in bytes.
const MAX_BODY: usize = 64 << 10;

impl Admin {
    /// Shows what is counted in `registry`, and what is `served`; who may change that, `permission` says.
    pub fn new(registry: Registry, permission: Permission, drain: Drain, served: Served, clock: Clock) -> Admin {
        let build =
            metric::gauges(&registry, "larder_build_info", "Always 1; the label has the version.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let process = prometheus::process_collector::ProcessCollector::for_self();
        // Refused only if it stood there already, and then it is there.
        let _ = registry.register(Box::new(process));
        let began = clock.tick();
        Admin { inner: Arc::new(Inner { registry, permission, drain, served, clock, began }) }
    }

    /// Answers one request of `peer`.
    pub async fn handle<B>(&self, request: Request<B>, peer: IpAddr) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        if let Err(refusal) = self.inner.permission.check(request.method(), request.headers(), peer) {
            return refused(refusal);
        }
        let read = request.method() == Method::GET || request.method() == Method::HEAD;
        let (post, delete) = (request.method() == Method::POST, request.method() == Method::DELETE);
        let served = &self.inner.served;
        let cache = &served.cache;
        match request.uri().path() {
            "/livez" if read => answer(StatusCode::OK, "alive\n"),
            "/readyz" if read => self.ready(),
            "/metrics" if read => self.metrics(),
            "/api/scrub" if read => json(&cache.scrubber().progress()),
            "/api/scrub" if post => self.scrub(&request),
            "/api/status" if read => json(&self.status()),
            "/api/activity" if read => json(&self.inner.served.activity.lately()),
            "/api/budget" if read => json(&Budget::of(cache)),
            "/api/gc" if read => self.garbage(Report::look).await,
            "/api/gc" if post => self.garbage(Report::collect).await,
            "/api/copy" if post => self.copy(request, peer).await,
            "/api/images" if read => told(images::list(served, request.uri().query()).await, ImagesError::status),
            "/api/images" if delete => told(images::remove(served, request.uri().query()).await, ImagesError::status),
            "/api/pins" if read => json(&pins::list(cache.inventory().pins())),
            "/api/pins" if post => self.pin(request).await,
            "/api/pins" if delete => {
                let pattern = query::value(request.uri().query(), "pattern");
                told(pins::remove(served, pattern).await, WishError::status)
            }
            path if post && path.starts_with(backup::PREFIX) => self.backup(&request).await,
            path if post && path.starts_with(intake::PREFIX) => intake::take(served, request).await,
            page::PAGE | page::STYLE | page::SCRIPT if read => page::file(request.uri().path()),
            page::PAGE
            | page::STYLE
            | page::SCRIPT
            | "/livez"
            | "/readyz"
            | "/metrics"
            | "/api/status"
            | "/api/activity"
            | "/api/budget"
            | "/api/gc"
            | "/api/scrub" => answer(StatusCode::METHOD_NOT_ALLOWED, "this page is only read\n"),
            "/api/images" => answer(StatusCode::METHOD_NOT_ALLOWED, "GET what is cached, or DELETE ?image=NAME\n"),
            "/api/pins" => answer(StatusCode::METHOD_NOT_ALLOWED, "GET, POST {\"pattern\": …}, or DELETE ?pattern=…\n"),
            "/api/copy" => answer(StatusCode::METHOD_NOT_ALLOWED, "POST what is to be copied\n"),
            _ => answer(StatusCode::NOT_FOUND, format!("no such page: see {PAGES}\n")),
        }
    }

    async fn garbage(
        &self,
        work: impl FnOnce(&storage::Hosted) -> Result<Report, StorageError> + Send + 'static,
    ) -> Response<Body> {
        match garbage::blocking(self.inner.served.cache.store().hosted(), work).await {
            Ok(report) => json(&report),
            Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, format!("no garbage is collected: {error}\n")),
        }
    }

    async fn copy<B>(&self, request: Request<B>, client: IpAddr) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let order: Order = match read_json(request).await {
            Ok(order) => order,
            Err(refusal) => return answer(StatusCode::BAD_REQUEST, refusal),
        };
        let inner = self.inner.clone();
        let work = |progress| async move { Copy::prepare(&inner.served, &order, client)?.run(&progress).await };
        told::steps("copy", work, CopyError::status).await
    }

    async fn pin<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        match read_json::<B, Wish>(request).await {
            Ok(wish) => told(pins::add(&self.inner.served, &wish.pattern).await, WishError::status),
            Err(refusal) => answer(StatusCode::BAD_REQUEST, refusal),
        }
    }

    async fn backup<B>(&self, request: &Request<B>) -> Response<Body> {
        let cache = &self.inner.served.cache;
        let pins = cache.inventory().pins().clone();
        let is_pinned = Arc::new(move |repository: &_, reference: &_| pins.cover_reference(repository, reference));
        let local = Local::new(cache.store(), is_pinned);
        let below = request.uri().path().trim_start_matches(backup::PREFIX);
        backup::give(&local, below, request.uri().query()).await
    }

    /// Begins to read and check everything at rest.
    fn scrub<B>(&self, request: &Request<B>) -> Response<Body> {
        let repair = request.uri().query() == Some("repair=true");
        let scrubber = self.inner.served.cache.scrubber();
        let status = if scrubber.begin(repair) { StatusCode::ACCEPTED } else { StatusCode::CONFLICT };
        let mut response = json(&scrubber.progress());
        *response.status_mut() = status;
        response
    }

    fn ready(&self) -> Response<Body> {
        if self.inner.drain.has_begun() {
            return answer(StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
        }
        let mut text = format!("ready\nindex: {}\n", self.inner.served.cache.store().index().state());
        for line in self.inner.served.cache.upstreams().iter().flat_map(status::parts) {
            // Writing to a text does not fail.
            let _ = writeln!(text, "{line}");
        }
        answer(StatusCode::OK, text)
    }

    fn status(&self) -> Status {
        let Inner { registry, served, clock, began, .. } = &*self.inner;
        Status::of(served, registry, clock.unix_seconds(), clock.tick().saturating_duration_since(*began))
    }

    fn metrics(&self) -> Response<Body> {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.inner.registry.gather(), &mut text) {
            Ok(()) => answer(StatusCode::OK, text),
            Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")),
        }
    }
}

const PAGES: &str = "/, /metrics, /livez, /readyz, /api/status, /api/activity, /api/budget, /api/gc, /api/scrub, /api/images and /api/pins";

fn told<E: std::fmt::Display>(
    done: Result<impl serde::Serialize, E>,
    status: impl Fn(&E) -> StatusCode,
) -> Response<Body> {
    match done {
        Ok(value) => json(&value),
        Err(error) => answer(status(&error), format!("{error}\n")),
    }
}

/// What a request asks for, or what is wrong with that.
async fn read_json<B, T>(request: Request<B>) -> Result<T, String>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    T: serde::de::DeserializeOwned,
{
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await.map_err(|error| format!("{error}\n"))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| format!("not what is asked for here: {error}\n"))
}

fn refused(refusal: Refusal) -> Response<Body> {
    let mut response = answer(refusal.status(), format!("{refusal}\n"));
    if refusal.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"larder\""));
    }
    response
}
