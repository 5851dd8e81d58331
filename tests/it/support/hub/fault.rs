//! What can go wrong at the hub, and the rules that say when it does. Never touches an answer itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hyper::header::{HeaderName, RETRY_AFTER};
use serde_json::json;
use tokio::sync::watch;

use super::endpoint::Target;
use super::seen::Seen;
use crate::support::client::PATIENCE;

/// One thing that goes wrong. An offset at or behind the end of a body means: before its last byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This answer, and nothing of the true one. See the constructors below.
    Instead {
        /// Its status.
        status: u16,
        /// Its headers; `Content-Length` comes by itself.
        headers: Vec<(HeaderName, String)>,
        /// Its body.
        body: Bytes,
    },
    /// The request is read, and never answered; on [`Rule::release`], the connection ends without an answer.
    BlackHole,
    /// A TCP reset instead of an answer.
    Reset,
    /// The answer waits, before its first byte, for [`Rule::release`]. It is the answer of when the request came.
    Hold,
    /// The body waits at this offset for [`Rule::release`], the socket open.
    Stall(u64),
    /// The connection ends, orderly, after so many bytes of the body that `Content-Length` had promised more of.
    ShortBody(u64),
    /// A TCP reset after so many bytes of the body.
    ResetAfter(u64),
    /// Half the body, and a `Content-Length` that agrees with it.
    Truncated,
    /// So many bytes too many, and a `Content-Length` that agrees with them.
    LongBody(u64),
    /// One bit in the middle of the body is another one.
    WrongBytes,
    /// A chunked body that repeats itself for ever.
    Endless,
    /// The body is chunked, and its length is not announced.
    NoContentLength,
    /// The body comes at so many bytes per second.
    Slow(u64),
    /// The body is gzipped, as a middlebox would do unasked.
    GzipEncoding,
    /// A range request gets everything, with 200.
    IgnoreRange,
    /// A range request gets 206 with another range: `Content-Range` says truly which.
    WrongContentRange,
    /// `Docker-Content-Digest` is the digest of something else.
    LyingDigestHeader,
    /// Another `Content-Type`, or none.
    WrongContentType(Option<String>),
    /// The challenge names this realm.
    Realm(String),
    /// Any header, in any answer but a challenge: replaced, or with `None` removed.
    Header(HeaderName, Option<String>),
}

impl Fault {
    /// Another answer altogether.
    pub fn status(status: u16, content_type: &str, body: impl Into<Bytes>) -> Fault {
        let headers = vec![(hyper::header::CONTENT_TYPE, content_type.to_owned())];
        Fault::Instead { status, headers, body: body.into() }
    }

    /// An error with a body as registries write it.
    pub fn error(status: u16, code: &str) -> Fault {
        let body = json!({"errors": [{"code": code, "message": format!("scripted: {code}"), "detail": null}]});
        Fault::status(status, "application/json", body.to_string())
    }

    /// The pull limit: 429 in JSON.
    pub fn too_many_requests(retry_after: Option<u64>) -> Fault {
        let mut fault = Fault::error(429, "TOOMANYREQUESTS");
        if let (Fault::Instead { headers, .. }, Some(seconds)) = (&mut fault, retry_after) {
            headers.push((RETRY_AFTER, seconds.to_string()));
        }
        fault
    }

    /// The abuse limit: 429 in bare text.
    pub fn abuse_limit() -> Fault {
        Fault::status(429, "text/plain", "Too Many Requests")
    }

    /// A gateway's 5xx in HTML.
    pub fn gateway(status: u16) -> Fault {
        Fault::status(status, "text/html", "<html><body><h1>We are having trouble</h1></body></html>")
    }

    /// Somebody's login page, with 200.
    pub fn captive_portal() -> Fault {
        Fault::status(200, "text/html; charset=utf-8", "<html><body>Please log in to the WLAN</body></html>")
    }

    /// The CDN's 403.
    pub fn cdn_denies() -> Fault {
        let body = "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code></Error>";
        Fault::status(403, "application/xml", body)
    }

    /// A redirect to wherever.
    pub fn redirect_to(url: &str) -> Fault {
        let headers = vec![(hyper::header::LOCATION, url.to_owned())];
        Fault::Instead { status: 307, headers, body: Bytes::new() }
    }

    /// Only for the first `n` requests that it applies to.
    pub fn times(self, n: u64) -> Plan {
        Plan::from(self).times(n)
    }

    /// Only behind the first `n` requests that it would apply to.
    pub fn after(self, n: u64) -> Plan {
        Plan::from(self).after(n)
    }

    fn needs(&self) -> Needs {
        match self {
            Fault::Instead { .. } | Fault::BlackHole | Fault::Reset => Needs::Nothing,
            Fault::Hold | Fault::Header(..) => Needs::NoChallenge,
            Fault::Realm(_) => Needs::Challenge,
            _ => Needs::Success,
        }
    }
}

/// A fault, and how often.
#[derive(Clone, Debug)]
pub struct Plan {
    fault: Fault,
    needs: Needs,
    after: u64,
    times: u64,
    optional: bool,
}

impl From<Fault> for Plan {
    fn from(fault: Fault) -> Plan {
        Plan { needs: fault.needs(), fault, after: 0, times: u64::MAX, optional: false }
    }
}

impl Plan {
    /// Only for the first `n` requests that it applies to.
    pub fn times(self, n: u64) -> Plan {
        Plan { times: n, ..self }
    }

    /// Only behind the first `n` requests that it would apply to.
    pub fn after(self, n: u64) -> Plan {
        Plan { after: n, ..self }
    }

    /// A request without a good token gets its challenge all the same, and does not count. Faults that change a true
    /// answer are like that anyway; this is for those that replace it.
    pub fn past_auth(self) -> Plan {
        Plan { needs: Needs::NoChallenge, ..self }
    }

    /// No complaint when it meets requests and changes none of their answers.
    pub fn optional(self) -> Plan {
        Plan { optional: true, ..self }
    }
}

/// What has to be known of the true answer before a fault can apply to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// It need not even be computed.
    Nothing,
    /// It is not a challenge.
    NoChallenge,
    /// It is a challenge.
    Challenge,
    /// Its status is 2xx.
    Success,
}

type Filter = Box<dyn Fn(&Seen) -> bool + Send + Sync>;

/// A fault in force. Clones are the same rule; dropping them does not end it.
#[derive(Clone)]
pub struct Rule(Arc<State>);

struct State {
    filter: Filter,
    plan: Plan,
    considered: AtomicU64,
    matched: AtomicU64,
    hits: watch::Sender<u64>,
    released: watch::Sender<bool>,
    lifted: AtomicBool,
}

impl Rule {
    /// How many answers it has changed, or held, so far.
    pub fn hits(&self) -> u64 {
        *self.0.hits.borrow()
    }

    /// Waits until it has changed, or holds, so many answers.
    pub async fn until_hit(&self, n: u64) {
        let mut hits = self.0.hits.subscribe();
        let waited = tokio::time::timeout(PATIENCE, hits.wait_for(|hits| *hits >= n)).await;
        assert!(waited.is_ok(), "{:?} was hit {} times, not {n}", self.0.plan, self.hits());
    }

    /// Whatever it holds goes on, and it never holds anything again.
    pub fn release(&self) {
        self.0.released.send_replace(true);
    }

    /// It applies to no further request. What it holds, it goes on holding.
    pub fn lift(&self) {
        self.0.lifted.store(true, Ordering::SeqCst);
    }

    /// The fault.
    pub fn fault(&self) -> &Fault {
        &self.0.plan.fault
    }

    /// It has changed an answer.
    pub fn hit(&self) {
        self.0.hits.send_modify(|hits| *hits += 1);
    }

    /// It holds an answer, until it is released.
    pub async fn hold(&self) {
        self.hit();
        // The sender lives as long as this rule does.
        let _ = self.0.released.subscribe().wait_for(|released| *released).await;
    }

    fn applies(&self, seen: &Seen, needs: Needs) -> bool {
        let state = &self.0;
        if state.plan.needs != needs || state.lifted.load(Ordering::SeqCst) || !(state.filter)(seen) {
            return false;
        }
        let number = state.matched.fetch_add(1, Ordering::SeqCst);
        number >= state.plan.after && number - state.plan.after < state.plan.times
    }

    fn consider(&self, seen: &Seen) {
        if (self.0.filter)(seen) {
            self.0.considered.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn is_vacuous(&self) -> bool {
        let state = &self.0;
        !state.plan.optional && state.considered.load(Ordering::SeqCst) > state.plan.after && self.hits() == 0
    }
}

/// All rules, in the order in which they were made; every one that applies does its part.
#[derive(Default)]
pub struct Rules {
    rules: Mutex<Vec<Rule>>,
}

impl Rules {
    /// Puts a rule in force.
    pub fn add(&self, filter: Filter, plan: Plan) -> Rule {
        let rule = Rule(Arc::new(State {
            filter,
            plan,
            considered: AtomicU64::new(0),
            matched: AtomicU64::new(0),
            hits: watch::Sender::new(0),
            released: watch::Sender::new(false),
            lifted: AtomicBool::new(false),
        }));
        self.rules.lock().unwrap().push(rule.clone());
        rule
    }

    /// Lifts all rules and lets go of what they hold.
    pub fn lift_all(&self) {
        for rule in self.rules.lock().unwrap().iter() {
            rule.lift();
            rule.release();
        }
    }

    /// The rules that apply before there is an answer.
    pub fn without_answer(&self, seen: &Seen) -> Vec<Rule> {
        let rules = self.rules.lock().unwrap();
        rules
            .iter()
            .inspect(|rule| rule.consider(seen))
            .filter(|rule| rule.applies(seen, Needs::Nothing))
            .cloned()
            .collect()
    }

    /// The rules that apply to a true answer of this kind.
    pub fn with_answer(&self, seen: &Seen, challenge: bool, success: bool) -> Vec<Rule> {
        let rules = self.rules.lock().unwrap();
        let fits = |rule: &&Rule| match rule.0.plan.needs {
            Needs::Nothing => false,
            Needs::NoChallenge => !challenge && rule.applies(seen, Needs::NoChallenge),
            Needs::Challenge => challenge && rule.applies(seen, Needs::Challenge),
            Needs::Success => success && rule.applies(seen, Needs::Success),
        };
        rules.iter().filter(fits).cloned().collect()
    }

    /// Rules that met requests and changed nothing: the test that made them proves nothing.
    pub fn vacuous(&self) -> Vec<String> {
        let rules = self.rules.lock().unwrap();
        rules.iter().filter(|rule| rule.is_vacuous()).map(|rule| format!("{:?}", rule.0.plan)).collect()
    }
}

/// What selects requests: a [`Target`] or a closure.
pub trait Selects {
    /// As a closure.
    fn filter(self) -> Filter;
}

impl Selects for Target {
    fn filter(self) -> Filter {
        Box::new(move |seen| seen.is(self))
    }
}

impl<F: Fn(&Seen) -> bool + Send + Sync + 'static> Selects for F {
    fn filter(self) -> Filter {
        Box::new(self)
    }
}
