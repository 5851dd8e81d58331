//! Reaching a registry: its address, whom to trust, what it says of an error.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::time::timeout;

use super::error::ClientError;
use crate::task;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a body may bring nothing.
pub const STALL: Duration = Duration::from_secs(120);

/// The scheme, host and port of `url`, without a slash at the end; plain HTTP unless it says otherwise.
///
/// # Errors
/// It is no such address.
pub fn base(url: &str) -> Result<String, ClientError> {
    let base = url.strip_suffix('/').unwrap_or(url);
    let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
    let uri: Uri = base.parse().map_err(|_| ClientError::Url(url.to_owned()))?;
    let is_place = matches!(uri.scheme_str(), Some("http" | "https")) && uri.path() == "/" && uri.query().is_none();
    match uri.authority() {
        Some(authority) if is_place && !authority.as_str().contains('@') => Ok(base),
        _ => Err(ClientError::Url(url.to_owned())),
    }
}

/// Makes connections to servers whose certificates this machine trusts, or a CA in `ca` (PEM) signed.
///
/// # Errors
/// The CA cannot be used.
pub fn connector(ca: Option<&[u8]>) -> Result<HttpsConnector<HttpConnector>, ClientError> {
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let builder = HttpsConnectorBuilder::new().with_tls_config(trust(ca)?);
    Ok(builder.https_or_http().enable_http1().wrap_connector(tcp))
}

fn trust(ca: Option<&[u8]>) -> Result<ClientConfig, ClientError> {
    let unusable = |error: &dyn std::fmt::Display| ClientError::Ca(error.to_string());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in ca.into_iter().flat_map(CertificateDer::pem_slice_iter) {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(|error| unusable(&error))?.with_root_certificates(roots).with_no_client_auth())
}

/// What a registry says of an error (distribution-spec, "Error Codes").
pub async fn message(answer: Response<Incoming>) -> String {
    let body = timeout(STALL, Limited::new(answer.into_body(), 64 << 10).collect()).await;
    let bytes = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
    let error: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let text = error.pointer("/errors/0/message").and_then(Value::as_str).unwrap_or("it does not say why");
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An error with what is behind it.
pub fn described(error: &legacy::Error) -> String {
    let mut reason = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(below) = cause {
        reason = format!("{reason}: {below}");
        cause = below.source();
    }
    reason
}

/// Runs connections as tasks of this program.
#[derive(Clone, Copy)]
pub struct Tasks;

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        task::spawn("client-connection", future);
    }
}
