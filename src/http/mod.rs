//! The mirror's door: parse → route → do → render, the whole order in one function.
//!
//! A request becomes typed values on its way in, and only here do results become statuses and headers. The mirror is
//! anonymous and read-only: no `Authorization` is looked at, no `WWW-Authenticate` is ever sent, for Docker would answer
//! a challenge with the user's Docker Hub password.

mod answer;
mod blob;
mod body;
mod endpoint;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod headers;
mod listing;
mod manifest;
mod metrics;
mod record;

use std::sync::Arc;

use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response};

use self::answer::{Answer, finish};
use self::endpoint::{Endpoint, Target};
use self::error::ApiError;
use self::metrics::Metrics;
use self::record::{Record, Recorded};
use crate::cache::Cache;
use crate::clock::Clock;
use crate::routing::{Route, Routes};
use crate::server::{self, FileSink, Peer};

/// Answers requests to the mirror. Clones share everything.
#[derive(Clone)]
pub struct Mirror {
    inner: Arc<Inner>,
}

struct Inner {
    cache: Cache,
    routes: Routes,
    clock: Clock,
    metrics: Metrics,
}

impl Mirror {
    /// The door to `cache`.
    pub fn new(cache: Cache, routes: Routes, clock: Clock, registry: &prometheus::Registry) -> Mirror {
        Mirror { inner: Arc::new(Inner { cache, routes, clock, metrics: Metrics::new(registry) }) }
    }

    /// Answers one request. A request's body is never read.
    pub async fn handle<B>(&self, request: Request<B>, peer: Peer) -> Response<Recorded> {
        let inner = &self.inner;
        let mut record = Record::begin(inner.clock.clone(), inner.metrics.clone(), peer.address, &request);
        let mut response = match inner.answer(&request, &mut record, peer.files).await {
            Ok(Answer { mut response, outcome, subject }) => {
                if let Some(outcome) = outcome {
                    response.headers_mut().insert(headers::CACHE, HeaderValue::from_static(outcome.as_str()));
                    record.served(outcome, subject);
                }
                response
            }
            Err(error) => {
                record.failed(error.to_string());
                render(&error, request.method())
            }
        };
        response.headers_mut().insert(headers::API_VERSION, headers::API_VERSION_VALUE);
        record.attach(response)
    }
}

impl Inner {
    async fn answer<B>(
        &self,
        request: &Request<B>,
        record: &mut Record,
        files: Option<FileSink>,
    ) -> Result<Answer, ApiError> {
        if let Some(reason) = server::refuse(request) {
            return Err(ApiError::bad_request(&reason.to_string()));
        }
        let (method, headers) = (request.method(), request.headers());
        if method != Method::GET && method != Method::HEAD {
            return Err(ApiError::read_only());
        }
        let target = Target::parse(request.uri().path(), request.uri().query())?;
        record.endpoint(target.endpoint.name());
        let ns = target.ns.as_deref();
        let cache = &self.cache;
        match &target.endpoint {
            Endpoint::Base => base(method),
            Endpoint::Catalog(page) => listing::catalog(cache, page, method).await,
            Endpoint::Manifest(name, reference) => {
                let Route { repository, namespace } = self.routes.route(name, ns)?;
                let answer = manifest::get(cache, &repository, reference, method, headers).await;
                in_namespace(answer, namespace)
            }
            Endpoint::Blob(name, digest) => {
                let Route { repository, namespace } = self.routes.route(name, ns)?;
                in_namespace(blob::get(cache, &repository, digest, request, files).await, namespace)
            }
            Endpoint::Tags(name, page) => {
                let Route { repository, namespace } = self.routes.route(name, ns)?;
                let answer = listing::tags(cache, &repository, name, page, namespace.as_deref(), method).await;
                in_namespace(answer, namespace)
            }
            Endpoint::Referrers(name, digest, artifact_type) => {
                let Route { repository, namespace } = self.routes.route(name, ns)?;
                let answer = listing::referrers(cache, &repository, digest, artifact_type.as_deref(), method).await;
                in_namespace(answer, namespace)
            }
        }
    }
}

/// `/v2/` answers 200 at once, whatever the upstream's state: Docker waits up to 15 s for it on every pull.
fn base(method: &Method) -> Result<Answer, ApiError> {
    let builder =
        Response::builder().header(header::CONTENT_TYPE, "application/json").header(header::CONTENT_LENGTH, 2);
    let body = if method == Method::HEAD { body::empty() } else { body::full("{}") };
    finish(builder, body).map(Answer::plain)
}

/// Tells the client that its `ns` decided (distribution-spec, "Proxying").
fn in_namespace(answer: Result<Answer, ApiError>, namespace: Option<String>) -> Result<Answer, ApiError> {
    let mut answer = answer?;
    if let Some(namespace) = namespace.and_then(|namespace| HeaderValue::try_from(namespace).ok()) {
        answer.response.headers_mut().insert(headers::NAMESPACE, namespace);
    }
    Ok(answer)
}

fn range_of_none(size: u64) -> HeaderValue {
    HeaderValue::try_from(format!("bytes */{size}")).unwrap_or(HeaderValue::from_static("bytes */*"))
}

fn render(error: &ApiError, method: &Method) -> Response<body::Body> {
    let text = error.body();
    let length = text.len();
    let mut response = Response::new(if method == Method::HEAD { body::empty() } else { body::full(text) });
    *response.status_mut() = error.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(size) = error.unsatisfiable {
        headers.insert(header::CONTENT_RANGE, range_of_none(size));
    }
    if let Some(after) = error.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs()));
    }
    if error.code == crate::oci::ErrorCode::Unsupported && error.status == hyper::StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}
