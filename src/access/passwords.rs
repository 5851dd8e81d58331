//! Is this the password? Slow on purpose, so it is done one at a time, remembered, and not for everyone at once.
//!
//! Docker repeats a password on every request. A right one is believed for a while, a wrong one disbelieved for a moment,
//! both under a keyed hash that says nothing to who reads our memory's dump without the key. The two memories are apart:
//! no flood of wrong passwords pushes a right one out. The account's hash is part of what is remembered, so a new
//! password ends what was believed of the old one. Whether a name exists cannot be told from the work done: an unknown
//! one, and one whose hash is cheaper, cost as much as the dearest.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use ring::hmac;
use tokio::sync::{Semaphore, watch};

use super::error::{AccessError, SetupError};
use super::htpasswd::{MAX_PASSWORD, PasswordHash};
use crate::clock::Clock;
use crate::secret::Secret;
use crate::task;

/// How long a right password is believed.
pub const BELIEVED: Duration = Duration::from_secs(300);
/// How long a wrong one is not asked about again.
pub const DISBELIEVED: Duration = Duration::from_secs(10);
/// Passwords that wait for the one that is being checked.
pub const QUEUE: usize = 32;
/// Of one client, waiting or being checked.
pub const PER_CLIENT: usize = 8;
/// Wrong passwords of one client within [`WINDOW`].
pub const FAILURES: u32 = 20;
/// After so long its wrong passwords are forgotten.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Entries in each memory.
const REMEMBERED: u64 = 10_000;

type Fingerprint = [u8; 32];
type Verdict = Option<bool>;

/// Checks passwords. Clones share everything.
#[derive(Clone)]
pub struct Passwords {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    key: hmac::Key,
    right: Cache<Fingerprint, Instant>,
    wrong: Cache<Fingerprint, Instant>,
    failures: Cache<IpAddr, Failures>,
    /// Being checked or waiting for it.
    flights: Mutex<HashMap<Fingerprint, Flight>>,
    turn: Semaphore,
    /// bcrypt's work so far, in runs of cost 0.
    work: AtomicU64,
}

struct Flight {
    client: IpAddr,
    verdict: watch::Receiver<Verdict>,
}

#[derive(Clone, Copy)]
struct Failures {
    since: Instant,
    count: u32,
}

/// One password to check.
pub struct Question {
    /// Whose it should be.
    pub user: String,
    /// What was shown.
    pub password: Secret,
    /// What it is held against; none: there is no such account.
    pub hash: Option<PasswordHash>,
    /// The highest cost among all accounts.
    pub highest_cost: u32,
}

impl Passwords {
    /// Nothing remembered yet, under a key of this process.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(clock: Clock) -> Result<Passwords, SetupError> {
        let random = ring::rand::SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random).map_err(|_| SetupError::Random)?;
        // The oldest goes first: what is in there matters because it is recent.
        let memory = || Cache::builder().max_capacity(REMEMBERED).eviction_policy(EvictionPolicy::lru()).build();
        let failures = Cache::builder().max_capacity(REMEMBERED).eviction_policy(EvictionPolicy::lru()).build();
        let inner = Inner {
            clock,
            key,
            right: memory(),
            wrong: memory(),
            failures,
            flights: Mutex::default(),
            turn: Semaphore::new(1),
            work: AtomicU64::new(0),
        };
        Ok(Passwords { inner: Arc::new(inner) })
    }

    /// Whether the password is the account's. Waits for [`QUEUE`] others at most.
    ///
    /// # Errors
    /// There are too many, or the check failed.
    pub async fn check(&self, question: Question, client: IpAddr) -> Result<bool, AccessError> {
        // Decided without looking for the account, so that nothing can be learnt from it.
        let password = question.password.expose();
        if password.is_empty() || password.len() > MAX_PASSWORD || password.contains('\0') {
            return Ok(false);
        }
        let fingerprint = self.inner.fingerprint(&question);
        if let Some(known) = self.inner.known(&fingerprint) {
            return Ok(known);
        }
        let mut verdict = self.board(fingerprint, question, network(client))?;
        let verdict = verdict.wait_for(Option::is_some).await.map_err(|_| AccessError::Unavailable)?;
        verdict.ok_or(AccessError::Unavailable)
    }

    /// Joins those who wait for the same answer, or asks.
    fn board(
        &self,
        fingerprint: Fingerprint,
        question: Question,
        client: IpAddr,
    ) -> Result<watch::Receiver<Verdict>, AccessError> {
        let inner = &self.inner;
        let mut flights = inner.flights();
        if let Some(flight) = flights.get(&fingerprint) {
            return Ok(flight.verdict.clone());
        }
        let busy = AccessError::TooMany { retry_after: Duration::from_secs(2) };
        let own = flights.values().filter(|flight| flight.client == client).count();
        if flights.len() > QUEUE || own >= PER_CLIENT {
            return Err(busy);
        }
        inner.tolerate(client, own)?;
        let (sender, verdict) = watch::channel(None);
        flights.insert(fingerprint, Flight { client, verdict: verdict.clone() });
        drop(flights);
        let inner = inner.clone();
        // Its own task: the client who asked first may leave, and the work counts all the same.
        task::spawn("password", async move {
            let landing = Landing { inner: inner.clone(), fingerprint };
            // Nobody closes the semaphore.
            let Ok(_turn) = inner.turn.acquire().await else { return };
            let checker = inner.clone();
            let right = task::blocking(move || checker.compare(&question)).await;
            inner.remember(fingerprint, client, right);
            drop(landing);
            sender.send_replace(Some(right));
        });
        Ok(verdict)
    }

    /// bcrypt's work so far, in runs of cost 0.
    #[cfg(test)]
    pub fn work(&self) -> u64 {
        self.inner.work.load(Ordering::SeqCst)
    }
}

/// Takes the flight off the table, whatever happens to it.
struct Landing {
    inner: Arc<Inner>,
    fingerprint: Fingerprint,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.inner.flights().remove(&self.fingerprint);
    }
}

impl Inner {
    fn flights(&self) -> std::sync::MutexGuard<'_, HashMap<Fingerprint, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fingerprint(&self, question: &Question) -> Fingerprint {
        let hash = question.hash.as_ref().map(PasswordHash::expose).unwrap_or_default();
        let mut context = hmac::Context::with_key(&self.key);
        for part in [&question.user, hash, question.password.expose()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut fingerprint = Fingerprint::default();
        fingerprint.copy_from_slice(context.sign().as_ref());
        fingerprint
    }

    fn known(&self, fingerprint: &Fingerprint) -> Option<bool> {
        let now = self.clock.tick();
        let holds = |memory: &Cache<Fingerprint, Instant>| memory.get(fingerprint).is_some_and(|until| now < until);
        if holds(&self.right) {
            return Some(true);
        }
        holds(&self.wrong).then_some(false)
    }

    fn remember(&self, fingerprint: Fingerprint, client: IpAddr, right: bool) {
        let now = self.clock.tick();
        if right {
            self.right.insert(fingerprint, now + BELIEVED);
            return;
        }
        self.wrong.insert(fingerprint, now + DISBELIEVED);
        self.failures.entry(client).and_upsert_with(|before| {
            let before = before.map(|entry| entry.into_value()).filter(|failures| now < failures.since + WINDOW);
            before.map_or(Failures { since: now, count: 1 }, |failures| Failures {
                count: failures.count.saturating_add(1),
                ..failures
            })
        });
    }

    /// Refuses a client who was wrong too often, counting what of it is still being checked.
    fn tolerate(&self, client: IpAddr, own: usize) -> Result<(), AccessError> {
        let now = self.clock.tick();
        let Some(failures) = self.failures.get(&client) else { return Ok(()) };
        let end = failures.since + WINDOW;
        if now < end && failures.count as usize + own >= FAILURES as usize {
            // In whole seconds, and not too early.
            return Err(AccessError::TooMany { retry_after: Duration::from_secs((end - now).as_secs() + 1) });
        }
        Ok(())
    }

    /// Takes as long for every wrong password, whoever it is for.
    fn compare(&self, question: &Question) -> bool {
        let password = question.password.expose();
        let (right, next) = match &question.hash {
            Some(hash) => (self.bcrypt(password, hash.expose(), hash.cost()), hash.cost()),
            None => {
                self.bcrypt(password, &decoy(question.highest_cost), question.highest_cost);
                return false;
            }
        };
        if !right {
            // Costs c, c, c+1, … add up to the highest, for each is as much as all before it.
            for cost in next..question.highest_cost {
                self.bcrypt(password, &decoy(cost), cost);
            }
        }
        right
    }

    fn bcrypt(&self, password: &str, hash: &str, cost: u32) -> bool {
        self.work.fetch_add(1 << cost, Ordering::SeqCst);
        // A hash was parsed before it came here; what bcrypt still refuses is nobody's password.
        bcrypt::verify(password, hash).unwrap_or(false)
    }
}

/// A hash of this cost that is nobody's.
fn decoy(cost: u32) -> String {
    format!("$2b${cost:02}$......................................................")[..60].to_owned()
}

/// A client's address; of IPv6 its network, for one client has all of that.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}
