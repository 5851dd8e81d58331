//! One request, from its first header to its answer: written down, met by faults, answered. Keeps no state of its own.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use super::content::Content;
use super::endpoint::{Endpoint, Role};
use super::fault::{Fault, Rule, Rules};
use super::play::Cut;
use super::reply::Reply;
use super::seen::{Log, Seen};
use super::wire::Line;
use super::{cdn, registry, token};

/// How the hub behaves when nothing is wrong.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether a token is needed. Without, the hub is like `mirror.gcr.io`: unknown is 404.
    pub auth: bool,
    /// Who may log in: name and password.
    pub accounts: HashMap<String, String>,
    /// What the token service says about a token's life. The hub's own clock stands still: see `Hub::expire_tokens`.
    pub expires_in: Option<u64>,
    /// Whether tokens come as `token`.
    pub says_token: bool,
    /// Whether tokens come as `access_token`.
    pub says_access_token: bool,
    /// Limit and what remains of it; a manifest GET takes one, and at 0 gets 429.
    pub rate_limit: Option<(u64, u64)>,
    /// The status of the redirect to the CDN; none: the registry has the bytes itself.
    pub redirect: Option<u16>,
    /// Whether there is a referrers API; without it, there are the fallback tags.
    pub referrers_api: bool,
    /// Most tags in one page.
    pub page: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            auth: true,
            accounts: HashMap::new(),
            expires_in: Some(300),
            says_token: true,
            says_access_token: true,
            rate_limit: Some((100_000, 100_000)),
            redirect: Some(307),
            referrers_api: true,
            page: 100,
        }
    }
}

/// What the three hosts are called.
#[derive(Clone, Debug)]
pub struct Names {
    /// `http://127.0.0.1:1234`
    pub registry: String,
    /// With the path.
    pub realm: String,
    /// Without a path.
    pub cdn: String,
}

/// What all connections work on.
pub struct Shared {
    /// The hosts.
    pub names: Names,
    /// The behaviour.
    pub settings: Mutex<Settings>,
    /// The content.
    pub content: Mutex<Content>,
    /// Tokens that are good, and for which repositories.
    pub tokens: Mutex<HashMap<String, HashSet<String>>>,
    /// Signatures of CDN addresses that are good.
    pub signatures: Mutex<HashSet<String>>,
    /// The requests.
    pub log: Arc<Log>,
    /// The faults.
    pub rules: Rules,
    connections: AtomicU64,
}

impl Shared {
    /// Empty, and well.
    pub fn new(names: Names) -> Shared {
        Shared {
            names,
            settings: Default::default(),
            content: Default::default(),
            tokens: Default::default(),
            signatures: Default::default(),
            log: Default::default(),
            rules: Default::default(),
            connections: AtomicU64::new(0),
        }
    }

    /// A number for a new connection.
    pub fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// How many connections there have been.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    fn true_answer(&self, seen: &Seen) -> Reply {
        if !matches!(seen.method, Method::GET | Method::HEAD) {
            return Reply::error(405, "UNSUPPORTED", "the operation is unsupported");
        }
        match &seen.endpoint {
            Endpoint::Token => token::answer(self, seen),
            Endpoint::Cdn(digest) => cdn::answer(self, seen, digest),
            _ => registry::answer(self, seen),
        }
    }
}

/// Text that nobody can guess.
pub fn random() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Answers one request, or ends its connection.
pub async fn answer(
    shared: Arc<Shared>,
    role: Role,
    line: Line,
    request: Request<Incoming>,
) -> Result<Response<UnsyncBoxBody<Bytes, Cut>>, Cut> {
    let seen = Seen::of(role, line.number(), &request);
    let ticket = shared.log.add(seen.clone());
    let head = seen.method == Method::HEAD;

    let mut instead = Reply::default();
    for rule in shared.rules.without_answer(&seen) {
        befall(&rule, &mut instead, &line, head).await?;
    }
    let mut reply = if instead.status == 0 { shared.true_answer(&seen) } else { instead };
    for rule in shared.rules.with_answer(&seen, reply.challenge, reply.is_success()) {
        befall(&rule, &mut reply, &line, head).await?;
    }

    let (status, headers, play) = reply.finish(head);
    ticket.answered(status);
    let mut response = Response::new(play.body(line, ticket));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    *response.headers_mut() = headers;
    Ok(response)
}

async fn befall(rule: &Rule, reply: &mut Reply, line: &Line, head: bool) -> Result<(), Cut> {
    match rule.fault() {
        Fault::Hold => rule.hold().await,
        Fault::BlackHole => {
            rule.hold().await;
            return Err(Cut);
        }
        Fault::Reset => {
            rule.hit();
            line.reset_when_closed();
            return Err(Cut);
        }
        _ => reply.suffer(rule, head),
    }
    Ok(())
}
