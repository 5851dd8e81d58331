//! The whole program: builds the floors from the ground up, serves, and takes them down from the roof.
//!
//! The only place that knows both the configuration and what it configures.

mod announcement;
mod backup;
mod intake;
mod stopped;
mod systemd;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use globset::GlobSet;
use prometheus::Registry;
use sd_notify::NotifyState;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use self::announcement::{Addresses, announce};
pub use self::backup::{StoppedError, back_up_stopped, restore};
pub use self::intake::{Intake, IntakeError};
pub use self::stopped::open_stopped;
use crate::access::{self, Access, TokenKey};
use crate::admin::{Admin, Permission, Served};
use crate::cache::{self, Cache, Lifetimes, OnDeleted, Origin, Pace, ScrubProgress};
use crate::clock::Clock;
use crate::config::{self, Config, Pattern};
use crate::hosted::Hosted;
use crate::http::{self, Mirror, Ours};
use crate::metric;
use crate::routing::{Mirrored, Routes};
use crate::secret::Secret;
use crate::server::{self, BindError, Drain, Limits, Listener, TlsFiles};
use crate::storage::{self, OpenError, StorageError, Store};
use crate::task;
use crate::upstream::{self, SetupError, Upstream};

/// How long answers that are under way may take after the signal to stop.
const GRACE: Duration = Duration::from_secs(30);
/// How long an operator's request may take after that.
const LAST_GRACE: Duration = Duration::from_secs(1);
/// Memory for the index's own cache, in bytes. sled takes about twice as much.
const INDEX_CACHE: u64 = 64 << 20;

/// Why the server does not run.
#[derive(Debug, Error)]
pub enum Error {
    /// The data directory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// An upstream's settings.
    #[error("upstream {name}: {source}")]
    Upstream {
        /// What clients call it.
        name: String,
        /// What is wrong.
        source: Box<SetupError>,
    },
    /// An upstream's address.
    #[error("upstream {name}: its url is not one that can be asked")]
    Url {
        /// What clients call it.
        name: String,
    },
    /// An upstream's `allow`, `deny` and `private`.
    #[error("upstream {name}: its patterns are too large together: {source}")]
    Patterns {
        /// What clients call it.
        name: String,
        /// Why.
        source: globset::Error,
    },
    /// An upstream's `ca` file.
    #[error("upstream {name}: cannot read its ca file {path}: {source}")]
    Ca {
        /// What clients call it.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The registry's rules.
    #[error("registry.repository {pattern}: its patterns are too large to compile: {source}")]
    Rule {
        /// Its pattern.
        pattern: String,
        /// Why.
        source: globset::Error,
    },
    /// The registry's accounts and keys.
    #[error(transparent)]
    Access(#[from] access::SetupError),
    /// What was being pushed when the last process ended.
    #[error("data_dir: {0}")]
    Uploads(StorageError),
    /// The system refuses threads or signals.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

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

        let cache = Cache::new(store.clone(), origins, cache_settings(config), clock.clone(), &registry);
        let cache = Arc::new(cache);
        let scrubber = cache.scrubber().clone();
        let ours = match &config.registry {
            Some(own) => Some(ours(config, own, &store, &clock).await?),
            None => None,
        };
        let figures = http::Metrics::new(&registry);
        let served = Served { cache: cache.clone(), routes: routes(config)?, ours: ours.clone() };
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
        let tidying = tidy.into_iter().chain([task::spawn("scrub", scrubber.work())]).collect();
        let admin = admin.serve(
            move |request, peer: server::Peer| {
                let pages = pages.clone();
                async move { pages.handle(request, peer.address.ip()).await }
            },
            last.clone(),
        );
        let operators = task::spawn("admin", admin);
        let Addresses { mirror, admin, registry } = addresses;
        Ok(Server { mirror, registry, admin, hosted, drain, clients, tidying, operators, last, store })
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
    let cache = Cache::new(store.clone(), origins, cache_settings(config), clock.clone(), &registry);
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

fn listener(name: &'static str, listen: &config::Listen, tls: Option<&config::Tls>) -> server::Settings {
    let tls = tls.map(|tls| TlsFiles {
        cert: tls.cert.as_path().to_owned(),
        key: tls.key.as_path().to_owned(),
        client_ca: tls.client_ca.as_ref().map(|path| path.as_path().to_owned()),
    });
    server::Settings { name, listen: listen.addr(), tls, limits: Limits::default() }
}

/// Beside `larder_cache_bytes`, so that a dashboard need not know the configuration.
fn show_cap(config: &Config, registry: &Registry) {
    let help = "The most bytes that cached content may take on disk: cache.max_size.";
    let cap = metric::gauge(registry, "larder_cache_max_bytes", help);
    cap.set(i64::try_from(config.cache.max_size.bytes()).unwrap_or(i64::MAX));
}

fn store_settings(config: &Config) -> storage::Settings {
    let (data_dir, verify) = (config.data_dir.as_path().to_owned(), config.cache.verify.get());
    storage::Settings { data_dir, index_cache: INDEX_CACHE, verify }
}

async fn open_store(config: &Config, clock: &Clock, registry: &Registry) -> Result<Store, OpenError> {
    let (settings, clock, registry) = (store_settings(config), clock.clone(), registry.clone());
    task::blocking(move || Store::open(settings, clock, &registry)).await
}

async fn ours(config: &Config, own: &config::Registry, store: &Store, clock: &Clock) -> Result<Ours, Error> {
    let rules = own.repositories.iter().map(rule).collect::<Result<Vec<access::Rule>, Error>>()?;
    let key = config.data_dir.as_path().join("token.key");
    let settings = access::Settings {
        rules,
        anonymous: match own.anonymous {
            config::Anonymous::None => access::Anonymous::None,
            config::Anonymous::Pull => access::Anonymous::Pull,
            config::Anonymous::Push => access::Anonymous::Push,
        },
        htpasswd: own.htpasswd.as_ref().map(|file| file.as_path().to_owned()),
        token_key: task::blocking(move || TokenKey::open(&key)).await?,
        public: own.public_url.as_ref().and_then(|url| access::Origin::of_url(url.as_str())),
    };
    let access = Access::open(settings, clock.clone()).await?;
    let (store, clock) = (store.clone(), clock.clone());
    let hosted = task::blocking(move || Hosted::open(&store, clock)).await.map_err(Error::Uploads)?;
    Ok(Ours { hosted, access })
}

fn rule(rule: &config::RepositoryRule) -> Result<access::Rule, Error> {
    let pattern = rule.pattern.to_string();
    let globs = |patterns| Pattern::any_of(patterns).map_err(|source| Error::Rule { pattern: pattern.clone(), source });
    let grantees = |users: &[config::UserName]| {
        users.iter().map(|user| access::Grantee::parse(user.as_str())).collect::<Vec<access::Grantee>>()
    };
    Ok(access::Rule {
        names: globs(std::slice::from_ref(&rule.pattern))?,
        immutable_tags: globs(&rule.immutable_tags)?,
        pull: grantees(&rule.pull),
        push: grantees(&rule.push),
        delete: grantees(&rule.delete),
        mirror: rule.mirror,
        pattern,
    })
}

fn cache_settings(config: &Config) -> cache::Settings {
    let slowest =
        config.upstreams.iter().map(|upstream| upstream.connect_timeout.get() + upstream.header_timeout.get());
    cache::Settings {
        lifetimes: Lifetimes {
            tag_ttl: config.cache.tag_ttl.get(),
            revalidate_timeout: config.cache.revalidate_timeout.get(),
            negative_ttl: config.cache.negative_ttl.get(),
        },
        first_byte_timeout: slowest.max().unwrap_or_default(),
        complete_indexes: config.cache.complete_indexes,
        scrub: Pace { every: config.cache.scrub.get(), rate: config.cache.scrub_rate.per_second() },
    }
}

fn upstreams(config: &Config, clock: &Clock, registry: &Registry) -> Result<Vec<Upstream>, Error> {
    let metrics = upstream::Metrics::new(registry);
    let make = |upstream: &config::Upstream| {
        let name = upstream.name.registry().to_string();
        let extra_ca = match &upstream.ca {
            None => None,
            Some(file) => Some(fs::read(file.as_path()).map_err(|source| Error::Ca {
                name: name.clone(),
                path: file.as_path().to_owned(),
                source,
            })?),
        };
        let uri = |url: &config::BaseUrl| url.as_str().parse().map_err(|_| Error::Url { name: name.clone() });
        let accounts = upstream.accounts().map(|(username, password)| upstream::Account {
            username: username.as_str().to_owned(),
            password: password.clone(),
        });
        let settings = upstream::Settings {
            name: upstream.name.registry().clone(),
            url: uri(&upstream.url)?,
            fallbacks: upstream.fallback.iter().map(uri).collect::<Result<_, _>>()?,
            accounts: accounts.collect(),
            reserve: u64::from(upstream.reserve.get()),
            proxies: proxies(&upstream.proxy, &config.proxies),
            extra_ca,
            connect_timeout: upstream.connect_timeout.get(),
            header_timeout: upstream.header_timeout.get(),
            stall_timeout: upstream.stall_timeout.get(),
            max_connections: upstream.max_connections.get() as usize,
            parallel: upstream.parallel.get() as usize,
            bandwidth: upstream.bandwidth.per_second(),
        };
        Upstream::new(settings, clock.clone(), metrics.clone())
            .map_err(|source| Error::Upstream { name, source: Box::new(source) })
    };
    config.upstreams.iter().map(make).collect()
}

fn origins(config: &Config, upstreams: Vec<Upstream>) -> Result<Vec<Origin>, Error> {
    let origin = |(configured, upstream): (&config::Upstream, Upstream)| {
        let on_deleted = match configured.on_deleted {
            config::OnDeleted::Keep => OnDeleted::Keep,
            config::OnDeleted::Drop => OnDeleted::Drop,
        };
        Ok(Origin::new(upstream, on_deleted, globs(configured, &configured.private)?))
    };
    config.upstreams.iter().zip(upstreams).map(origin).collect()
}

fn globs(upstream: &config::Upstream, patterns: &[Pattern]) -> Result<GlobSet, Error> {
    Pattern::any_of(patterns).map_err(|source| Error::Patterns { name: upstream.name.to_string(), source })
}

fn proxies(proxy: &config::Proxy, environment: &config::ProxyVariables) -> upstream::Proxies {
    match proxy {
        config::Proxy::None => upstream::Proxies::default(),
        config::Proxy::Env => upstream::Proxies {
            http: environment.http.clone(),
            https: environment.https.clone(),
            not_for: environment.not_for.clone(),
        },
        config::Proxy::Url(url) => {
            let url = Some(Secret::new(url.as_str()));
            upstream::Proxies { http: url.clone(), https: url, not_for: String::new() }
        }
    }
}

fn routes(config: &Config) -> Result<Routes, Error> {
    let mirrored = |upstream: &config::Upstream| {
        let registry = upstream.name.registry().clone();
        Ok(Mirrored { registry, allow: globs(upstream, &upstream.allow)?, deny: globs(upstream, &upstream.deny)? })
    };
    let default = config.upstreams.iter().position(|upstream| upstream.default);
    let mirrored: Result<Vec<Mirrored>, Error> = config.upstreams.iter().map(mirrored).collect();
    Ok(Routes::new(mirrored?, default.unwrap_or_default()))
}
