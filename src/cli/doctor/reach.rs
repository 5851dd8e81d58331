//! The mirror as this machine reaches it, without any engine: name, port, protocol, who answers, and what time it is there.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::certificates::{Capture, Chain, Identity};
use super::conversation::{NoReply, Question, Reply, ask, said};
use super::facts::Reach;
use crate::cli::mirror_url::MirrorUrl;
use crate::clock::Clock;

/// How long each step may take. Docker's own limit for the first one is 15 s.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was learnt of the mirror.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) reach: Reach,
    /// Our time minus its, in seconds.
    pub(super) ahead_s: Option<i64>,
    pub(super) chain: Option<Chain>,
}

/// What the mirror says of a probe. The contract with `http/probe`.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    pub(super) arrived: bool,
    #[serde(default)]
    pub(super) agent: String,
    #[serde(default)]
    pub(super) via_proxy: bool,
    pub(super) asked_via_proxy: bool,
}

/// Where the mirror tells of the probe with this nonce.
fn probe_path(nonce: &str) -> String {
    format!("/v2/_larder/probe/{nonce}")
}

/// Asks it what a client asks first, and shows `identity` if it asks for one.
pub(super) async fn reach(mirror: &MirrorUrl, identity: Option<&Identity>, nonce: &str, clock: &Clock) -> Reached {
    let mut reached = Reached { reach: Reach::Larder, ahead_s: None, chain: None };
    match get(mirror, identity, "/v2/", &mut reached.chain).await {
        Err(reach) => reached.reach = reach,
        Ok(reply) => {
            let date = reply.date.as_deref().and_then(|date| httpdate::parse_http_date(date).ok());
            let now = clock.unix_seconds();
            let theirs = date.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok());
            reached.ahead_s = theirs.map(|theirs| now.cast_signed() - theirs.as_secs().cast_signed());
            reached.reach = match reply.status {
                200 => match told(mirror, identity, nonce).await {
                    Ok(_) => Reach::Larder,
                    Err(_) => Reach::Registry,
                },
                401 => Reach::Challenges,
                // What servers say to plain HTTP on a port of TLS.
                400 if !mirror.is_https() && speaks_tls(mirror).await => Reach::SpeaksTls,
                status => Reach::Status(status),
            };
        }
    }
    reached
}

/// Whether a probe has arrived.
///
/// # Errors
/// The mirror does not say; the text is why.
pub(super) async fn told(mirror: &MirrorUrl, identity: Option<&Identity>, nonce: &str) -> Result<Told, String> {
    let reply = get(mirror, identity, &probe_path(nonce), &mut None).await.map_err(|reach| format!("{reach:?}"))?;
    if reply.status != 200 {
        return Err(format!("it answered {}", reply.status));
    }
    serde_json::from_slice(&reply.body).map_err(|error| error.to_string())
}

/// Where on the mirror's host one answers that is a Larder: its usual port, with and without TLS.
pub(super) async fn elsewhere(mirror: &MirrorUrl, nonce: &str) -> Vec<MirrorUrl> {
    let mut found = Vec::new();
    for (scheme, port) in [("http", mirror.port()), ("https", mirror.port()), ("http", 5000), ("https", 5000)] {
        let Some(other) = mirror.at(scheme, port) else { continue };
        if other != *mirror && !found.contains(&other) && told(&other, None, nonce).await.is_ok() {
            found.push(other);
        }
    }
    found
}

async fn get(
    mirror: &MirrorUrl,
    identity: Option<&Identity>,
    path: &str,
    chain: &mut Option<Chain>,
) -> Result<Reply, Reach> {
    let socket = connect(mirror).await?;
    if !mirror.is_https() {
        return match ask(socket, Question::Get(path), mirror.authority(), PATIENCE).await {
            Ok(reply) => Ok(reply),
            Err(NoReply::Broken(_)) if speaks_tls(mirror).await => Err(Reach::SpeaksTls),
            Err(NoReply::Broken(reason)) => Err(Reach::Broken(reason)),
            Err(NoReply::Silent) => Err(Reach::Silent),
        };
    }
    let capture = Capture::new();
    let secured = secure(mirror, identity, socket, &capture).await;
    *chain = capture.chain();
    let secured = match secured {
        Ok(secured) => secured,
        Err(Reach::Broken(reason)) if !wants_certificate(&reason) => {
            return Err(if speaks_plain(mirror).await { Reach::SpeaksPlain } else { Reach::Broken(reason) });
        }
        Err(Reach::Broken(_)) => return Err(Reach::WantsCertificate),
        Err(other) => return Err(other),
    };
    ask(secured, Question::Get(path), mirror.authority(), PATIENCE).await.map_err(|error| match error {
        NoReply::Silent => Reach::Silent,
        NoReply::Broken(reason) if wants_certificate(&reason) => Reach::WantsCertificate,
        NoReply::Broken(reason) => Reach::Broken(reason),
    })
}

async fn connect(mirror: &MirrorUrl) -> Result<TcpStream, Reach> {
    let addresses = match timeout(PATIENCE, lookup_host((mirror.host(), mirror.port()))).await {
        Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
        Ok(Err(error)) => return Err(Reach::NoAddress(error.to_string())),
        Err(_elapsed) => return Err(Reach::NoAddress("no answer in time".into())),
    };
    match timeout(PATIENCE, TcpStream::connect(&addresses[..])).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Err(Reach::Refused),
        Ok(Err(error)) => Err(Reach::Broken(error.to_string())),
        Err(_elapsed) => Err(Reach::Silent),
    }
}

async fn secure(
    mirror: &MirrorUrl,
    identity: Option<&Identity>,
    socket: TcpStream,
    capture: &Arc<Capture>,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Reach> {
    let broken = |error: &dyn std::error::Error| Reach::Broken(said(error));
    let config = capture.client(identity).map_err(|error| broken(&error))?;
    let name = ServerName::try_from(mirror.host().to_owned()).map_err(|error| broken(&error))?;
    match timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, socket)).await {
        Ok(Ok(secured)) => Ok(secured),
        Ok(Err(error)) => Err(broken(&error)),
        Err(_elapsed) => Err(Reach::Silent),
    }
}

/// rustls names the alert; a server that speaks TLS 1.2 sends the more general one.
fn wants_certificate(reason: &str) -> bool {
    reason.contains("CertificateRequired") || reason.contains("HandshakeFailure")
}

async fn speaks_tls(mirror: &MirrorUrl) -> bool {
    let Ok(socket) = connect(mirror).await else { return false };
    let capture = Capture::new();
    secure(mirror, None, socket, &capture).await.is_ok() || capture.chain().is_some()
}

async fn speaks_plain(mirror: &MirrorUrl) -> bool {
    let Ok(socket) = connect(mirror).await else { return false };
    ask(socket, Question::Get("/v2/"), mirror.authority(), PATIENCE).await.is_ok()
}
