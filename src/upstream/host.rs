//! One host of an upstream, the registry or a fallback of it: its line, its health, and our accounts there.
//!
//! A question is asked as whoever has budget left, as the next one when that one may not, and once more when it meets a
//! passing disorder. Never decides whether another host is worth asking.

use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use rustls::ClientConfig;

use super::allowance::{Allowance, Who};
use super::asker::Asker;
use super::breaker::State;
use super::credentials::Credentials;
use super::dial::Dialer;
use super::error::{Part, UpstreamError};
use super::flow::Shares;
use super::health::{Health, Outlook};
use super::line::{Answer, Line};
use super::metrics::Meter;
use super::origin::Origin;
use super::probe::Probe;
use super::proxy::ProxyRule;
use super::question::Question;
use super::report::{HostReport, PartReport, PartState};
use super::settings::{Account, Settings};
use super::transport::Transport;
use crate::clock::Clock;

/// Pause before a question is asked once more, in milliseconds.
const PAUSE: std::ops::Range<u64> = 100..300;
/// A failure that took longer is not asked again: who waits has a time limit, too.
const SOON: Duration = Duration::from_secs(1);

/// One host.
pub struct Host {
    name: String,
    asker: Arc<Asker>,
    /// As whom it is asked; the anonymous one if there is no account.
    credentials: Vec<Credentials>,
    /// As nobody, whatever accounts there are.
    stranger: Credentials,
    clock: Clock,
}

impl Host {
    /// The host at `url`, which is asked as one of `accounts`. Connects to nothing yet.
    pub fn new(
        url: &Uri,
        accounts: &[Account],
        settings: &Settings,
        (tls, proxies): (ClientConfig, Arc<ProxyRule>),
        (meter, outlook, clock): (Meter, Outlook, Clock),
        shares: Option<Arc<Shares>>,
    ) -> Host {
        let name = url.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
        let dialer = Dialer::new(url, tls, proxies, settings.connect_timeout);
        let transport = Transport::new(dialer, settings.header_timeout, settings.max_connections);
        let health = Arc::new(Health::new(name.clone(), meter.clone(), clock.clone(), outlook));
        let names = match accounts {
            [] => vec![None],
            accounts => accounts.iter().map(|account| Some(account.username.clone())).collect(),
        };
        let allowance = Arc::new(Allowance::new(names, settings.reserve, meter.clone(), clock.clone()));
        let limits = (settings.stall_timeout, settings.max_connections);
        let line = Arc::new(Line::new(transport, meter, (health, allowance), clock.clone(), limits, shares));
        let access = |who, account| Credentials::new(Origin::of(url), who, account, line.clone(), clock.clone());
        let stranger = access(None, None);
        let credentials: Vec<Credentials> = match accounts {
            [] => vec![access(Some(Who(0)), None)],
            accounts => {
                let numbered = accounts.iter().cloned().enumerate();
                numbered.map(|(at, account)| access(Some(Who(at)), Some(account))).collect()
            }
        };
        let asker = Arc::new(Asker::new(url, line.clone()));
        let patience = settings.connect_timeout + settings.header_timeout;
        Probe::look_after(&asker, credentials.first().unwrap_or(&stranger).clone(), clock.clone(), patience);
        Host { name, asker, credentials, stranger, clock }
    }

    /// Its name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The line to it.
    pub fn line(&self) -> &Arc<Line> {
        self.asker.line()
    }

    /// Its health.
    pub fn health(&self) -> &Arc<Health> {
        self.asker.line().health()
    }

    /// The answer to `question`; every status but success is an error.
    pub async fn ask(&self, question: Question) -> Result<Answer, UpstreamError> {
        let (question, mut refusal) = (Arc::new(question), None);
        // Each account once at most.
        for _ in &self.credentials {
            let who = match self.line().allowance().choose(question.kind) {
                Ok(Who(at)) => self.credentials.get(at).unwrap_or(&self.stranger),
                Err(error) => return Err(refusal.unwrap_or(error)),
            };
            // In a box: this is seldom what a request comes to, and all of them would carry room for it.
            match Box::pin(self.ask_patiently(&question, who)).await {
                Err(error @ (UpstreamError::RateLimited { .. } | UpstreamError::AccountRefused { .. })) => {
                    refusal = Some(error);
                }
                answer => return answer,
            }
        }
        Err(refusal.unwrap_or(UpstreamError::AccountRefused { part: Part::Token }))
    }

    /// The same, asked without any account of ours.
    pub async fn ask_as_stranger(&self, question: Question) -> Result<Answer, UpstreamError> {
        Box::pin(self.ask_patiently(&Arc::new(question), &self.stranger)).await
    }

    async fn ask_patiently(&self, question: &Arc<Question>, who: &Credentials) -> Result<Answer, UpstreamError> {
        let (was_well, began) = (self.health().is_well(), self.clock.tick());
        let error = match self.asker.ask(question, who).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let is_soon = self.clock.tick().saturating_duration_since(began) < SOON;
        if !error.is_transient() || !was_well[error.part() as usize] || !is_soon {
            return Err(error);
        }
        self.clock.sleep(Duration::from_millis(fastrand::u64(PAUSE))).await;
        if self.health().admit(error.part()).is_err() {
            return Err(error);
        }
        self.asker.ask(question, who).await
    }

    /// How it is, for people.
    pub fn report(&self) -> HostReport {
        let parts = Part::ALL.map(|part| {
            let (state, since, reason) = match self.health().state(part) {
                State::Well => (PartState::Up, None, None),
                State::Doubtful { since, reason, .. } => (PartState::Doubtful, Some(since.unix), Some(reason)),
                State::Open { since, reason, is_sure } => {
                    let state = if is_sure { PartState::Down } else { PartState::Doubtful };
                    (state, Some(since.unix), Some(reason))
                }
            };
            PartReport { part: part.as_str(), state, since, reason }
        });
        let (accounts, limited_until) = self.line().allowance().report();
        HostReport { host: self.name.clone(), parts: parts.into(), accounts, limited_until }
    }
}
