//! Pushing to a registry (distribution-spec, "Push"): what is there already is not sent again. Never guesses: what the
//! registry refuses is an error in its own words.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{Method, Request, Response, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::time::timeout;

use super::connection::{Tasks, base, connector, described, message};
use super::error::ClientError;
use crate::oci::{Digest, MediaType, Reference, RepoName};
use crate::secret::Secret;

/// How long the registry may take over anything but a blob.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long it may take over a blob: an hour is a gigabyte at 300 kB/s.
const BLOB: Duration = Duration::from_secs(3600);

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A registry that can be pushed to.
pub struct Pushing {
    http: legacy::Client<HttpsConnector<HttpConnector>, Body>,
    base: String,
    authorization: Option<HeaderValue>,
}

impl Pushing {
    /// To the registry at `url`, as someone with an account.
    ///
    /// # Errors
    /// That is no address, or the CA or the account cannot be used.
    pub fn new(url: &str, ca: Option<&[u8]>, account: Option<(&str, &Secret)>) -> Result<Pushing, ClientError> {
        use base64::Engine as _;
        let authorization = account.map(|(name, password)| {
            let text = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{}", password.expose()));
            let mut value =
                HeaderValue::from_str(&format!("Basic {text}")).map_err(|_| ClientError::Url(url.to_owned()))?;
            value.set_sensitive(true);
            Ok::<_, ClientError>(value)
        });
        let http = legacy::Client::builder(Tasks).build(connector(ca)?);
        Ok(Pushing { http, base: base(url)?, authorization: authorization.transpose()? })
    }

    /// Whether a repository has a blob.
    ///
    /// # Errors
    /// It cannot be asked, or asks who we are.
    pub async fn has(&self, name: &RepoName, digest: &Digest) -> Result<bool, ClientError> {
        let request = self.request(Method::HEAD, &format!("/v2/{name}/blobs/{digest}"));
        match self.send(request.body(empty()), PATIENCE).await? {
            answer if answer.status() == StatusCode::UNAUTHORIZED => Err(refused(answer).await),
            // Why else not, the push is told: an answer to HEAD has no words.
            answer => Ok(answer.status() == StatusCode::OK),
        }
    }

    /// A blob of so many bytes.
    ///
    /// # Errors
    /// It is not taken.
    pub async fn blob(
        &self,
        name: &RepoName,
        digest: &Digest,
        size: u64,
        bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), ClientError> {
        use futures_util::StreamExt;
        let begin = self.request(Method::POST, &format!("/v2/{name}/blobs/uploads/")).header(CONTENT_LENGTH, 0);
        let begun = self.send(begin.body(empty()), PATIENCE).await?;
        if begun.status() != StatusCode::ACCEPTED {
            return Err(refused(begun).await);
        }
        let location = begun.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let location = location.strip_prefix(&self.base).unwrap_or(location);
        if !location.starts_with('/') {
            return Err(ClientError::Broken("it sends an upload to another server".into()));
        }
        let joint = if location.contains('?') { '&' } else { '?' };
        let request = self
            .request(Method::PUT, &format!("{location}{joint}digest={digest}"))
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, size);
        let body = StreamBody::new(bytes.map(|piece| piece.map(Frame::data))).boxed_unsync();
        self.created(self.send(request.body(body), BLOB).await?).await
    }

    /// A manifest.
    ///
    /// # Errors
    /// It is not taken.
    pub async fn manifest(
        &self,
        name: &RepoName,
        reference: &Reference,
        media_type: MediaType,
        bytes: Bytes,
    ) -> Result<(), ClientError> {
        let request = self
            .request(Method::PUT, &format!("/v2/{name}/manifests/{reference}"))
            .header(CONTENT_TYPE, media_type.as_str());
        let body = Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
        self.created(self.send(request.body(body), PATIENCE).await?).await
    }

    async fn created(&self, answer: Response<Incoming>) -> Result<(), ClientError> {
        if answer.status() == StatusCode::CREATED { Ok(()) } else { Err(refused(answer).await) }
    }

    fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization),
            None => request,
        }
    }

    async fn send(
        &self,
        request: Result<Request<Body>, hyper::http::Error>,
        patience: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = request.map_err(|_| ClientError::Url(self.base.clone()))?;
        let answer = timeout(patience, self.http.request(request)).await.map_err(|_elapsed| ClientError::Silent)?;
        answer.map_err(|error| ClientError::Unreachable(self.base.clone(), described(&error)))
    }
}

fn empty() -> Body {
    Full::default().map_err(|never| match never {}).boxed_unsync()
}

async fn refused(answer: Response<Incoming>) -> ClientError {
    let status = answer.status();
    if status == StatusCode::UNAUTHORIZED {
        return ClientError::Refused(401, "it wants to know who you are: --username NAME --password-stdin".into());
    }
    ClientError::Refused(status.as_u16(), message(answer).await)
}
