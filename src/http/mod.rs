//! The mirror's door: parse → route → do → render, the whole order in one function.
//!
//! A request becomes typed values on its way in, and only here do results become statuses and headers. The mirror is
//! anonymous and read-only: no `Authorization` is looked at, no `WWW-Authenticate` is ever sent, for Docker would answer
//! a challenge with the user's Docker Hub password.

mod activity;
mod answer;
mod blob;
mod body;
mod endpoint;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod headers;
mod hosted;
mod listing;
mod manifest;
mod metrics;
mod nonce;
mod probe;
mod record;
mod registry;
mod render;

use std::sync::Arc;

use hyper::header::HeaderValue;
use hyper::{Method, Request, Response};

pub use self::activity::{Activity, Lately};
use self::hosted::Asked;
pub use self::hosted::Ours;
pub use self::metrics::Metrics;
pub use self::registry::Registry;

use self::answer::Answer;
use self::endpoint::{Endpoint, Target, TargetError};
use self::error::ApiError;
use self::nonce::Nonce;
use self::probe::Arrivals;
use self::record::{Record, Recorded};
use self::render::{base, render};
use crate::cache::Cache;
use crate::clock::Clock;
use crate::oci::RepoName;
use crate::routing::{Route, Routes};
use crate::server::{self, Peer};
use crate::task;

/// Answers requests to the mirror. Clones share everything.
#[derive(Clone)]
pub struct Mirror {
    inner: Arc<Inner>,
}

struct Inner {
    cache: Arc<Cache>,
    routes: Routes,
    // None: there is no private registry, and every name is an upstream's.
    ours: Option<Ours>,
    arrivals: Arrivals,
    clock: Clock,
    metrics: Metrics,
}

impl Mirror {
    /// The door to `cache`. Names that are `ours` are never looked for there.
    pub fn new(cache: Arc<Cache>, routes: Routes, ours: Option<Ours>, clock: Clock, metrics: Metrics) -> Mirror {
        let arrivals = Arrivals::new(clock.clone());
        Mirror { inner: Arc::new(Inner { cache, routes, ours, arrivals, clock, metrics }) }
    }

    /// Answers one request. A request's body is never read.
    pub async fn handle<B>(&self, request: Request<B>, peer: Peer) -> Response<Recorded> {
        let inner = &self.inner;
        let mut record = Record::begin(inner.clock.clone(), inner.metrics.clone(), peer.address, &request);
        let mut response = match task::caused_by(record.id(), inner.answer(&request, &mut record, peer)).await {
            Ok(Answer { mut response, outcome, subject, is_fallback }) => {
                if let Some(outcome) = outcome {
                    response.headers_mut().insert(headers::CACHE, HeaderValue::from_static(outcome.as_str()));
                    record.served(outcome, subject, is_fallback);
                }
                response
            }
            Err(error) => {
                record.failed(error.to_string(), error.is_failure);
                render(&error, request.method())
            }
        };
        response.headers_mut().insert(headers::API_VERSION, headers::API_VERSION_VALUE);
        record.attach(response)
    }
}

impl Inner {
    async fn answer<B>(&self, request: &Request<B>, record: &mut Record, peer: Peer) -> Result<Answer, ApiError> {
        if let Some(reason) = server::refuse(request) {
            return Err(ApiError::bad_request(&reason.to_string()));
        }
        let (method, headers) = (request.method(), request.headers());
        if method != Method::GET && method != Method::HEAD {
            return Err(match &self.ours {
                Some(ours) => ApiError::not_hosted_by_mirror(ours.access.patterns()),
                None => ApiError::read_only(),
            });
        }
        let target = Target::parse(request.uri().path(), request.uri().query())?;
        record.endpoint(target.endpoint.name());
        let Peer { address, files, .. } = peer;
        let (ns, client) = (target.ns.as_deref(), address.ip());
        if let Some(nonce) = target.endpoint.repository().and_then(Nonce::of) {
            return Err(self.arrivals.note(nonce, headers));
        }
        if let Some((ours, name)) = self.our_name(&target.endpoint, ns) {
            record.pulls(&name, &target.endpoint);
            return hosted::shown(ours, &name, &target.endpoint, Asked { method, headers }, files).await;
        }
        let cache = &self.cache;
        match &target.endpoint {
            Endpoint::Base => base(method),
            Endpoint::Probe(nonce) => self.arrivals.tell(*nonce, headers, method),
            Endpoint::Catalog(page) => listing::catalog(cache, page, method).await,
            Endpoint::Uploads(..) | Endpoint::Upload(..) => Err(TargetError::NotFound.into()),
            Endpoint::Manifest(name, reference) => {
                let Route { repository, namespace } = self.routes.route(name, ns)?;
                record.pulls(&repository, &target.endpoint);
                let answer = manifest::get(cache, &repository, reference, method, headers, client).await;
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
            Endpoint::Referrers(name, digest, wanted) => {
                let Route { repository, namespace } = self.routes.route(name, ns)?;
                let kind = wanted.artifact_type.as_deref();
                let answer = listing::referrers(cache, &repository, digest, kind, method, client).await;
                in_namespace(answer, namespace)
            }
        }
    }
}

impl Inner {
    /// The name that a request is about, if it is one of ours: so it is never looked up anywhere else. What goes to the
    /// default upstream is compared as that would be asked, too, for there `alpine` is `library/alpine`.
    fn our_name(&self, endpoint: &Endpoint, ns: Option<&str>) -> Option<(&Ours, RepoName)> {
        let (ours, asked) = (self.ours.as_ref()?, endpoint.repository()?);
        if ours.access.is_hosted(asked) {
            return Some((ours, asked.clone()));
        }
        let routed = self.routes.route(asked, ns).ok()?.repository;
        let hosted = self.routes.is_default(&routed.registry) && ours.access.is_hosted(&routed.name);
        hosted.then_some((ours, routed.name))
    }
}

/// Tells the client that its `ns` decided (distribution-spec, "Proxying").
fn in_namespace(answer: Result<Answer, ApiError>, namespace: Option<String>) -> Result<Answer, ApiError> {
    let mut answer = answer?;
    if let Some(namespace) = namespace.and_then(|namespace| HeaderValue::try_from(namespace).ok()) {
        answer.response.headers_mut().insert(headers::NAMESPACE, namespace);
    }
    Ok(answer)
}
