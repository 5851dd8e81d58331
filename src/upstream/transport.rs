//! One request, one answer, over a pool of connections. Knows HTTP/1.1 and how it fails; never what a registry is.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::PROXY_AUTHORIZATION;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::TokioTimer;
use tokio::time::timeout;

use super::address::ForbiddenAddress;
use super::cause::{cause, describe};
use super::dial::{ConnectTimeout, Dialer};
use super::error::{Part, Phase, UpstreamError};
use super::proxy::ProxyFailed;
use crate::task;

/// A request without a body: nothing that we ask has one.
pub type Bodiless = Request<Empty<Bytes>>;

/// How long a connection waits for its next request: less than the minute and more after which NATs and servers forget.
const IDLE: Duration = Duration::from_secs(75);

/// Sends requests.
pub struct Transport {
    pooled: Client<Dialer, Empty<Bytes>>,
    /// Keeps no connections, so that each of its requests has a new one.
    fresh: Client<Dialer, Empty<Bytes>>,
    dialer: Dialer,
    header_timeout: Duration,
}

/// How one attempt ended without an answer.
enum Failure {
    /// The connection broke before the answer: worth another connection.
    Lost(String),
    /// Another attempt would end in the same way, or has no time.
    Final(UpstreamError),
}

impl Transport {
    /// A transport over `dialer`'s connections, of which it keeps `idle` per host.
    pub fn new(dialer: Dialer, header_timeout: Duration, idle: usize) -> Transport {
        let client = |idle| {
            Client::builder(Tasks)
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(idle)
                // The second attempt is ours to make: on a connection that cannot be as stale as the first one.
                .retry_canceled_requests(false)
                .build(dialer.clone())
        };
        Transport { pooled: client(idle), fresh: client(0), dialer, header_timeout }
    }

    /// The head of the answer to `question`; `part` is whom it is for. A connection that breaks before it is replaced
    /// once: everything that we send may be sent twice.
    pub async fn send(&self, part: Part, mut question: Bodiless) -> Result<Response<Incoming>, UpstreamError> {
        if let Some(authorization) = self.dialer.proxy_authorization(question.uri()) {
            question.headers_mut().insert(PROXY_AUTHORIZATION, authorization);
        }
        match self.attempt(&self.pooled, part, question.clone()).await {
            Ok(answer) => Ok(answer),
            Err(Failure::Final(error)) => Err(error),
            Err(Failure::Lost(_)) => self.attempt(&self.fresh, part, question).await.map_err(|failure| match failure {
                Failure::Lost(reason) => UpstreamError::Unreachable { part, reason },
                Failure::Final(error) => error,
            }),
        }
    }

    async fn attempt(
        &self,
        client: &Client<Dialer, Empty<Bytes>>,
        part: Part,
        mut question: Bodiless,
    ) -> Result<Response<Incoming>, Failure> {
        let mut connection = capture_connection(&mut question);
        let mut answer = client.request(question);
        let head = tokio::select! {
            // The dialer bounds this wait.
            () = async { drop(connection.wait_for_connection_metadata().await) } => timeout(self.header_timeout, answer).await,
            head = &mut answer => Ok(head),
        };
        match head {
            Ok(Ok(head)) => Ok(head),
            Ok(Err(error)) => Err(failure(part, &error)),
            Err(_) => Err(Failure::Final(UpstreamError::TimedOut { part, phase: Phase::Head })),
        }
    }
}

fn failure(part: Part, error: &hyper_util::client::legacy::Error) -> Failure {
    let reason = describe(error);
    if let Some(forbidden) = cause::<ForbiddenAddress>(error) {
        return Failure::Final(UpstreamError::Forbidden { part, reason: forbidden.to_string() });
    }
    if cause::<ConnectTimeout>(error).is_some() {
        return Failure::Final(UpstreamError::TimedOut { part, phase: Phase::Connect });
    }
    if let Some(failed) = cause::<ProxyFailed>(error) {
        return Failure::Final(UpstreamError::Unreachable { part, reason: failed.to_string() });
    }
    if error.is_connect() {
        return Failure::Final(UpstreamError::Unreachable { part, reason });
    }
    if cause::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) {
        return Failure::Final(UpstreamError::Invalid { part, reason });
    }
    Failure::Lost(reason)
}

/// Runs connections as tasks of this program.
#[derive(Clone, Copy)]
struct Tasks;

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        task::spawn("upstream-connection", future);
    }
}
