//! Talking to a running server at its admin address, for the commands that can. Never knows what is asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::failure::Failure;
use super::process_environment::larder_variables;
use crate::config::Config;

/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 16 << 20;

/// Which server.
#[derive(Debug, Args)]
pub(super) struct Operated {
    /// The admin address of the running server; the one of the configuration if it is not given.
    #[arg(long, value_name = "URL")]
    admin: Option<Uri>,
    /// The server's configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "LARDER_CONFIG")]
    config: Option<PathBuf>,
}

/// A server's admin address.
pub(super) struct Operator {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Operated {
    /// What the server was started with.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        let environment = larder_variables()?;
        Config::load(self.config.as_deref(), environment.into_iter()).map_err(Failure::wrong_use)
    }

    /// Whether it was said which server, so that no other will do.
    pub(super) fn names_a_server(&self) -> bool {
        self.admin.is_some()
    }

    /// The way to it. To be called where a runtime is.
    pub(super) fn operator(&self, config: &Config) -> Operator {
        let base = match &self.admin {
            Some(admin) => admin.to_string().trim_end_matches('/').to_owned(),
            None => format!("http://{}", reachable(config.admin.listen.addr())),
        };
        Operator { base, client: Client::builder(TokioExecutor::new()).build_http() }
    }
}

/// The address by which a server on this machine is reached that listens there.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

impl Operator {
    /// What it answers; nothing if nobody listens there.
    ///
    /// # Errors
    /// Someone does, and does not answer as it should.
    pub(super) async fn ask(&self, method: Method, path: &str) -> Result<Option<(StatusCode, Bytes)>, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("{}{path}: {error}", self.base));
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let request = request.body(Full::default()).map_err(Failure::wrong_use)?;
        let answer = match self.client.request(request).await {
            Ok(answer) => answer,
            Err(error) if error.is_connect() => return Ok(None),
            Err(error) => return Err(failed(&error)),
        };
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        Ok(Some((status, body.map_err(|error| failed(&error))?.to_bytes())))
    }

    /// Where it is.
    pub(super) fn address(&self) -> &str {
        &self.base
    }
}
