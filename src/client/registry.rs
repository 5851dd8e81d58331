//! One registry over HTTP: its manifests and blobs (distribution-spec, "Pull"). Never follows a redirect: Larder sends none.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, HeaderName};
use hyper::{Method, Request, Response, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::time::timeout;

use super::connection::{STALL, Tasks, base, connector, described, message};
use super::error::ClientError;
use crate::oci::manifest::MAX_MANIFEST;
use crate::oci::{Digest, Hasher, ImageName, Manifest, MediaType, Reference};

/// How long the head of an answer may take: a mirror may have to ask three upstreams in a row.
const HEAD: Duration = Duration::from_secs(120);

/// How Larder says where an answer comes from.
const CACHE: HeaderName = HeaderName::from_static("x-larder-cache");

/// A registry that can be asked. Clones share its connections.
#[derive(Clone)]
pub struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    base: String,
}

/// A manifest that is what its digest says.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Bytes,
    /// What they say.
    pub manifest: Manifest,
}

/// A blob on its way. Whoever has read it to its end knows that it is right.
pub struct Download {
    /// What it said of where it comes from: `hit`, `miss`, …
    pub outcome: String,
    body: Incoming,
    hasher: Option<Hasher>,
    digest: Digest,
}

impl Client {
    /// A client of the registry at `url` (scheme, host, port), which may show a certificate of one of the CAs in `ca` (PEM).
    ///
    /// # Errors
    /// That is no such address, or the CA cannot be used.
    pub fn new(url: &str, ca: Option<&[u8]>) -> Result<Client, ClientError> {
        Ok(Client { http: legacy::Client::builder(Tasks).build(connector(ca)?), base: base(url)? })
    }

    /// A manifest of `image`.
    ///
    /// # Errors
    /// It cannot be had, or is not what was asked for.
    pub async fn manifest(&self, image: &ImageName, reference: &Reference) -> Result<Fetched, ClientError> {
        let answer = self.ask(image, "manifests", &reference.to_string()).await?;
        let body = Limited::new(answer.into_body(), MAX_MANIFEST).collect();
        let body = timeout(STALL, body).await.map_err(|_elapsed| ClientError::Silent)?;
        let bytes = body.map_err(|error| ClientError::Broken(error.to_string()))?.to_bytes();
        let digest = match reference {
            Reference::Digest(digest) if digest.matches(&bytes) => *digest,
            Reference::Digest(digest) => return Err(ClientError::Mismatch(*digest)),
            Reference::Tag(_) => Digest::sha256(&bytes),
        };
        let manifest = Manifest::parse(&bytes).map_err(|error| ClientError::Broken(error.to_string()))?;
        Ok(Fetched { digest, bytes, manifest })
    }

    /// A blob of `image`.
    ///
    /// # Errors
    /// It cannot be had.
    pub async fn blob(&self, image: &ImageName, digest: &Digest) -> Result<Download, ClientError> {
        let answer = self.ask(image, "blobs", &digest.to_string()).await?;
        let outcome = answer.headers().get(CACHE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let hasher = Some(Hasher::new(digest.algorithm()));
        Ok(Download { outcome, body: answer.into_body(), hasher, digest: *digest })
    }

    /// The registry is asked in its own name (`ns`), so that one of several upstreams is meant and never another.
    async fn ask(&self, image: &ImageName, kind: &str, last: &str) -> Result<Response<Incoming>, ClientError> {
        let ns = image.registry.as_ref().map(|registry| format!("?ns={registry}")).unwrap_or_default();
        let uri = format!("{}/v2/{}/{kind}/{last}{ns}", self.base, image.name);
        let request = Request::builder().method(Method::GET).uri(&uri).header(ACCEPT, MediaType::ACCEPT);
        let request = request.body(Empty::new()).map_err(|_| ClientError::Url(uri))?;
        let unreachable = |error: legacy::Error| ClientError::Unreachable(self.base.clone(), described(&error));
        let answer = timeout(HEAD, self.http.request(request)).await.map_err(|_elapsed| ClientError::Silent)?;
        let answer = answer.map_err(unreachable)?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            status => Err(ClientError::Refused(status.as_u16(), message(answer).await)),
        }
    }
}

impl Download {
    /// The next bytes; none: that was all, and it was right.
    ///
    /// # Errors
    /// There is more and it does not come, or it is not what its digest says.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = timeout(STALL, self.body.frame()).await.map_err(|_elapsed| ClientError::Silent)?;
            let Some(frame) = frame else {
                let digest = self.hasher.take().map(Hasher::finish);
                return if digest == Some(self.digest) { Ok(None) } else { Err(ClientError::Mismatch(self.digest)) };
            };
            let frame = frame.map_err(|error| ClientError::Broken(error.to_string()))?;
            if let (Ok(bytes), Some(hasher)) = (frame.into_data(), &mut self.hasher) {
                hasher.update(&bytes);
                return Ok(Some(bytes));
            }
        }
    }
}
