//! The registry's door: parse → who → may they → do → render, the whole order in one function.
//!
//! It asks for a password where the mirror's must not, and it is the only one through which anything is changed. Nothing
//! here ever reaches an upstream.

mod admission;
mod manifests;
mod payload;
mod token;
mod uploads;

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Body;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};
use serde::Serialize;

use self::admission::Asker;
use self::payload::Payload;
use crate::access::{Action, Wanted};
use crate::clock::Clock;
use crate::hosted::HostedError;
use crate::http::answer::Answer;
use crate::http::endpoint::{Endpoint, Page, Target, TargetError};
use crate::http::error::ApiError;
use crate::http::headers;
use crate::http::hosted::{self, Asked, Ours};
use crate::http::listing::{MAX_PAGE, json, next_page};
use crate::http::metrics::Metrics;
use crate::http::record::{Record, Recorded};
use crate::http::render::{base, render};
use crate::oci::RepoName;
use crate::server::{self, Peer};
use crate::task;

/// Answers requests to the registry. Clones share everything.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    ours: Ours,
    clock: Clock,
    metrics: Metrics,
}

impl Registry {
    /// The door to what is ours.
    pub fn new(ours: Ours, clock: Clock, metrics: Metrics) -> Registry {
        Registry { inner: Arc::new(Inner { ours, clock, metrics }) }
    }

    /// Answers one request.
    pub async fn handle<B>(&self, request: Request<B>, peer: Peer) -> Response<Recorded>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let inner = &self.inner;
        let mut record = Record::begin(inner.clock.clone(), inner.metrics.clone(), peer.address, &request);
        let malformed = server::refuse(&request);
        let (parts, body) = request.into_parts();
        let mut payload = Payload::new(body);
        let answered = match malformed {
            Some(reason) => Err(ApiError::bad_request(&reason.to_string())),
            None => task::caused_by(record.id(), inner.answer(&parts, &mut payload, &mut record, &peer)).await,
        };
        let mut response = match answered {
            Ok(Answer { response, subject, .. }) => {
                record.about(subject);
                response
            }
            Err(error) => {
                record.failed(error.to_string(), error.is_failure);
                payload.drain(&parts.headers).await;
                render(&error, &parts.method)
            }
        };
        response.headers_mut().insert(headers::API_VERSION, headers::API_VERSION_VALUE);
        record.attach(response)
    }
}

/// What an endpoint wants the right to, by method; `None`: it has no such method.
fn action(endpoint: &Endpoint, method: &Method) -> Result<Option<Action>, &'static str> {
    let read = method == Method::GET || method == Method::HEAD;
    match (endpoint, method) {
        (Endpoint::Base | Endpoint::Catalog(_) | Endpoint::Probe(_), _) if read => Ok(None),
        (Endpoint::Base | Endpoint::Catalog(_) | Endpoint::Probe(_), _) => Err("GET, HEAD"),
        (Endpoint::Manifest(..) | Endpoint::Blob(..), &Method::DELETE) => Ok(Some(Action::Delete)),
        (Endpoint::Manifest(..), &Method::PUT) => Ok(Some(Action::Push)),
        (Endpoint::Uploads(..), &Method::POST) => Ok(Some(Action::Push)),
        (Endpoint::Uploads(..), _) => Err("POST"),
        (Endpoint::Upload(..), &Method::PATCH | &Method::PUT | &Method::DELETE) => Ok(Some(Action::Push)),
        (Endpoint::Upload(..), _) if read => Ok(Some(Action::Push)),
        (Endpoint::Upload(..), _) => Err("GET, HEAD, PATCH, PUT, DELETE"),
        (Endpoint::Manifest(..) | Endpoint::Blob(..) | Endpoint::Tags(..) | Endpoint::Referrers(..), _) if read => {
            Ok(Some(Action::Pull))
        }
        (Endpoint::Manifest(..), _) => Err("GET, HEAD, PUT, DELETE"),
        (Endpoint::Blob(..), _) => Err("GET, HEAD, DELETE"),
        (Endpoint::Tags(..) | Endpoint::Referrers(..), _) => Err("GET, HEAD"),
    }
}

impl Inner {
    async fn answer<B>(
        &self,
        parts: &Parts,
        payload: &mut Payload<B>,
        record: &mut Record,
        peer: &Peer,
    ) -> Result<Answer, ApiError>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let Ours { hosted: store, access } = &self.ours;
        if parts.uri.path() == token::PATH {
            record.endpoint("token");
            return token::give(access, parts, payload, peer, record).await;
        }
        let Target { endpoint, tags, .. } = Target::parse(parts.uri.path(), parts.uri.query())?;
        record.endpoint(endpoint.name());
        let (method, headers) = (&parts.method, &parts.headers);
        let action = action(&endpoint, method).map_err(ApiError::method_not_allowed)?;
        let wanted = match (endpoint.repository(), action) {
            (Some(name), Some(action)) => Wanted::Repository(name, action),
            _ if matches!(endpoint, Endpoint::Catalog(_)) => Wanted::Catalog,
            _ => Wanted::Base,
        };
        let asker = Asker::identify(access, headers, peer, wanted).await?;
        let asker = &asker;
        record.account(asker.who.name());
        match wanted {
            Wanted::Base => asker.may_enter()?,
            Wanted::Catalog => asker.may_list()?,
            Wanted::Repository(name, action) => match asker.may(name, action) {
                Ok(()) => {}
                Err(error) => return unseen(error, &endpoint, method),
            },
        }
        match (&endpoint, method) {
            (Endpoint::Base, _) => base(method),
            // Of the mirror's address only.
            (Endpoint::Probe(_), _) => Err(TargetError::NotFound.into()),
            (Endpoint::Catalog(page), _) => self.catalog(asker, page, method).await,
            (Endpoint::Manifest(name, reference), &Method::PUT) => {
                manifests::put(store, access, name, (reference, &tags), headers, payload).await
            }
            (Endpoint::Manifest(name, reference), &Method::DELETE) => manifests::delete(store, name, reference).await,
            (Endpoint::Blob(name, digest), &Method::DELETE) => uploads::delete_blob(store, name, digest).await,
            (Endpoint::Uploads(name, begin), _) => uploads::begin(store, access, asker, name, begin, payload).await,
            (Endpoint::Upload(name, id, _), &Method::PATCH) => {
                uploads::append(store, asker, name, id, headers, payload).await
            }
            (Endpoint::Upload(name, id, digest), &Method::PUT) => {
                uploads::complete(store, asker, name, (id, *digest), headers, payload).await
            }
            (Endpoint::Upload(name, id, _), &Method::DELETE) => uploads::cancel(store, asker, name, id).await,
            (Endpoint::Upload(name, id, _), _) => uploads::status(store, asker, name, id).await,
            (
                Endpoint::Manifest(name, _)
                | Endpoint::Blob(name, _)
                | Endpoint::Tags(name, _)
                | Endpoint::Referrers(name, ..),
                _,
            ) => hosted::read(store, name, &endpoint, Asked { method, headers }, peer.files.clone()).await,
        }
    }

    /// The repositories that the asker may pull.
    async fn catalog(&self, asker: &Asker<'_>, page: &Page, method: &Method) -> Result<Answer, ApiError> {
        #[derive(Serialize)]
        struct Repositories {
            repositories: Vec<RepoName>,
        }
        let n = page.n.unwrap_or(MAX_PAGE).min(MAX_PAGE);
        let last = page.last.as_deref().map(str::parse).transpose();
        let last = last.map_err(|_| ApiError::bad_request("last must be the name of a repository"))?;
        let shows = |name: &RepoName| self.ours.access.shows(&asker.who, name);
        let list = self.ours.hosted.repositories(last, n, shows).await.map_err(ApiError::from_hosted)?;
        let next = list.entries.last().filter(|_| list.more).map(RepoName::as_str);
        let builder = next_page(Response::builder(), "/v2/_catalog", Some(n), next, None);
        json(builder, &Repositories { repositories: list.entries.clone() }, method).map(Answer::plain)
    }
}

/// A name that the asker may not see looks like one where nothing is: of that there is an empty list of referrers, which
/// Docker wants on every pull.
fn unseen(error: ApiError, endpoint: &Endpoint, method: &Method) -> Result<Answer, ApiError> {
    let nothing = ApiError::from_hosted(HostedError::NoRepository);
    match endpoint {
        Endpoint::Referrers(asked, digest, wanted) if error == nothing => {
            hosted::no_referrers(asked, digest, wanted, method)
        }
        _ => Err(error),
    }
}
