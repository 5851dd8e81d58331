//! The whole program: builds the floors from the ground up, serves, and takes them down from the roof.
//!
//! The only place that knows both the configuration and what it configures.

mod activity;
mod announcement;
mod backup;
mod error;
mod intake;
mod pins;
mod stopped;
mod systemd;
mod wiring;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use self::activity::KeptActivity;
use self::announcement::{Addresses, announce, mirror_url};
pub use self::backup::{StoppedError, back_up_stopped, restore};
pub use self::error::Error;
pub use self::intake::{Intake, IntakeError};
pub use self::stopped::open_stopped;
use self::wiring::{cache_settings, listener, open_store, origins, ours, routes, show_cap, upstreams};
use crate::admin::{Admin, Permission, Served};
use crate::cache::{Cache, ScrubProgress};
use crate::clock::Clock;
use crate::config::Config;
use crate::hosted::Hosted;
use crate::http::{self, Mirror};
use crate::server::{self, Drain, Listener};
use crate::storage::Store;
use crate::task;

/// How long answers that are under way may take after the signal to stop.
const GRACE: Duration = Duration::from_secs(30);
/// How long an operator's request may take after that.
const LAST_GRACE: Duration = Duration::from_secs(1);

/// A running server.
pub struct Server {
    /// Where the mirror listens.
    pub mirror: SocketAddr,
    /// Where the registry listens, if there is one.
    pub registry: Option<SocketAddr>,
    /// Where the operator's pages are.
    pub admin: SocketAddr,
    /// What is hosted, if there is a registry.
    pub hosted: Option<Hosted>,
    drain: Drain,
    clients: Vec<JoinHandle<usize>>,
    tidying: Vec<JoinHandle<()>>,
    operators: JoinHandle<usize>,
    // Begun when the last client has gone: until then `/readyz` says that we are stopping.
    last: Drain,
    kept_activity: KeptActivity,
    store: Store,
}

impl Server {
    /// Builds everything and begins to serve. No upstream is asked anything: they may all be gone.
    ///
    /// # Errors
    /// An address is taken, the data directory cannot be used, or a file that the configuration names cannot be read.
    pub async fn start(config: &Config, clock: Clock) -> Result<Server, Error> {
        let (registry, drain, last) = (Registry::new(), Drain::new(), Drain::new());
        let listeners = server::Metrics::new(&registry);
        // Addresses first: nothing else has to be undone when one is taken.
        let mirror =
            Listener::bind(listener("mirror", &config.mirror.listen, config.mirror.tls.as_ref()), &listeners).await?;
        let own = match &config.registry {
            Some(own) => Some(Listener::bind(listener("registry", &own.listen, own.tls.as_ref()), &listeners).await?),
            None => None,
        };
        let admin = Listener::bind(listener("admin", &config.admin.listen, None), &listeners).await?;
        let origins = origins(config, upstreams(config, &clock, &registry)?)?;
        let store = open_store(config, &clock, &registry).await?;

        let ours = match &config.registry {
            Some(own) => Some(ours(config, own, &store, &clock).await?),
            None => None,
        };
        let routes = routes(config)?;
        let (settings, pins) = (cache_settings(config), pins::open(config, &store, &routes, ours.as_ref()).await?);
        let cache = Arc::new(Cache::new(store.clone(), origins, settings, pins, clock.clone(), &registry));
        let scrubber = cache.scrubber().clone();
        let pinned = pins::keep(&cache, routes.clone(), ours.clone());
        let figures = http::Metrics::new(&registry);
        let clients_url = mirror_url(config, mirror.local_addr());
        let activity = figures.activity().clone();
        let kept_activity = KeptActivity::take_up(activity.clone(), store.clone()).await;
        let hosted = ours.clone();
        let served = Served { cache: cache.clone(), routes, ours: hosted, activity, mirror: clients_url };
        let remembering = task::spawn("activity", kept_activity.clone().keep(clock.clone()));
        let door = Mirror::new(cache, served.routes.clone(), ours.clone(), clock.clone(), figures.clone());
        show_cap(config, &registry);
        let permission = Permission::new(config.admin.token.clone());
        let pages = Admin::new(registry, permission, drain.clone(), served, clock.clone());
        let addresses = Addresses {
            mirror: mirror.local_addr(),
            admin: admin.local_addr(),
            registry: own.as_ref().map(Listener::local_addr),
        };
        announce(config, &addresses);

        let mirror = mirror.serve(
            move |request, peer| {
                let door = door.clone();
                async move { door.handle(request, peer).await }
            },
            drain.clone(),
        );
        let mut clients = vec![task::spawn("mirror", mirror)];
        if let Some((own, ours)) = own.zip(ours.clone()) {
            let door = http::Registry::new(ours, clock, figures);
            let registry = own.serve(
                move |request, peer| {
                    let door = door.clone();
                    async move { door.handle(request, peer).await }
                },
                drain.clone(),
            );
            clients.push(task::spawn("registry", registry));
        }
        let hosted = ours.map(|ours| ours.hosted);
        let tidy = hosted.clone().map(|hosted| task::spawn("hosted", hosted.tidy()));
        let upkeep = [remembering, task::spawn("scrub", scrubber.work()), task::spawn("pins", pinned)];
        let tidying = tidy.into_iter().chain(upkeep).collect();
        let admin = admin.serve(
            move |request, peer: server::Peer| {
                let pages = pages.clone();
                async move { pages.handle(request, peer.address.ip()).await }
            },
            last.clone(),
        );
        let operators = task::spawn("admin", admin);
        let Addresses { mirror, admin, registry } = addresses;
        Ok(Server { mirror, registry, admin, hosted, drain, clients, tidying, operators, last, kept_activity, store })
    }

    /// Begins to stop: no new connections, `grace` for what is under way. A second call means now.
    pub fn begin_to_stop(&self, grace: Duration) {
        self.drain.begin(grace);
    }

    /// Waits until nothing is served any more, and closes the store.
    pub async fn stopped(self) {
        // A listener that panicked has stopped, too.
        for clients in self.clients {
            let _ = clients.await;
        }
        for tidying in self.tidying {
            tidying.abort();
            let _ = tidying.await;
        }
        self.last.begin(LAST_GRACE);
        let _ = self.operators.await;
        self.kept_activity.write().await;
        let store = self.store;
        task::blocking(move || store.close()).await;
    }
}

/// Runs the server until SIGTERM or SIGINT. The second one means now.
///
/// # Errors
/// It could not start; the error tells a person what to do.
pub fn run(config: Config) -> Result<(), Error> {
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let server = Server::start(&config, Clock::system()).await?;
        task::spawn("systemd", async {
            systemd::tell(NotifyState::Ready).await;
            systemd::feed_watchdog().await;
        });
        let drain = server.drain.clone();
        task::spawn("signals", async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!(grace_s = GRACE.as_secs(), again = drain.has_begun(), "told to stop");
                // Past a second systemd is not waited for: clients are.
                let _ = tokio::time::timeout(Duration::from_secs(1), systemd::tell(NotifyState::Stopping)).await;
                drain.begin(GRACE);
            }
        });
        server.stopped().await;
        tracing::info!("stopped");
        Ok(())
    });
    // Fills that nobody waits for must not hold up the end; what they wrote is discarded at the next start.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

/// Reads and checks everything at rest in a data directory that no server uses, and tells `each` how far it is. What is
/// damaged is set aside, and with `repair` fetched anew.
///
/// # Errors
/// As [`Server::start`].
pub async fn scrub(config: &Config, repair: bool, each: impl Fn(&ScrubProgress)) -> Result<ScrubProgress, Error> {
    let (registry, clock) = (Registry::new(), Clock::system());
    let origins = origins(config, upstreams(config, &clock, &registry)?)?;
    let store = open_store(config, &clock, &registry).await?;
    let (settings, pins) = (cache_settings(config), pins::open(config, &store, &routes(config)?, None).await?);
    let cache = Cache::new(store.clone(), origins, settings, pins, clock.clone(), &registry);
    let scrubber = cache.scrubber();
    let mut round = std::pin::pin!(scrubber.once(repair));
    let done = loop {
        tokio::select! {
            done = &mut round => break done,
            () = clock.sleep(Duration::from_millis(200)) => each(&scrubber.progress()),
        }
    };
    task::blocking(move || store.close()).await;
    Ok(done)
}

/// Each connection and each blob that is read takes a descriptor, and the usual soft limit is 1024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
