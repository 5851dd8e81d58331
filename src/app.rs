//! The whole program: builds the floors from the ground up, serves, and takes them down from the roof.
//!
//! The only place that knows both the configuration and what it configures.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use prometheus::Registry;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::admin::Admin;
use crate::cache::{self, Cache, Lifetimes};
use crate::clock::Clock;
use crate::config::{self, Config, Pattern};
use crate::http::Mirror;
use crate::routing::{Mirrored, Routes};
use crate::server::{self, BindError, Drain, Limits, Listener, TlsFiles};
use crate::storage::{self, OpenError, Store};
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
    /// An upstream's `allow` and `deny`.
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
    /// The system refuses threads or signals.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// A running server.
pub struct Server {
    /// Where the mirror listens.
    pub mirror: SocketAddr,
    /// Where the operator's pages are.
    pub admin: SocketAddr,
    drain: Drain,
    clients: JoinHandle<usize>,
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
        let admin = Listener::bind(listener("admin", &config.admin.listen, None), &listeners).await?;
        let upstreams = upstreams(config, &clock, &registry)?;
        let store = open_store(config, &clock, &registry).await?;

        let cache = Cache::new(store.clone(), upstreams, cache_settings(config), clock.clone(), &registry);
        let door = Mirror::new(cache, routes(config)?, clock, &registry);
        let pages = Admin::new(registry, drain.clone(), store.clone());
        let addresses = (mirror.local_addr(), admin.local_addr());
        tracing::info!(mirror = %addresses.0, admin = %addresses.1, data_dir = %config.data_dir.as_path().display(), "serving");

        let mirror = mirror.serve(
            move |request, peer| {
                let door = door.clone();
                async move { door.handle(request, peer).await }
            },
            drain.clone(),
        );
        let admin = admin.serve(
            move |request, _peer| {
                let pages = pages.clone();
                async move { pages.handle(request).await }
            },
            last.clone(),
        );
        let (clients, operators) = (task::spawn("mirror", mirror), task::spawn("admin", admin));
        Ok(Server { mirror: addresses.0, admin: addresses.1, drain, clients, operators, last, store })
    }

    /// Begins to stop: no new connections, `grace` for what is under way. A second call means now.
    pub fn begin_to_stop(&self, grace: Duration) {
        self.drain.begin(grace);
    }

    /// Waits until nothing is served any more, and closes the store.
    pub async fn stopped(self) {
        // A listener that panicked has stopped, too.
        let _ = self.clients.await;
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
        let drain = server.drain.clone();
        task::spawn("signals", async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!(grace_s = GRACE.as_secs(), again = drain.has_begun(), "told to stop");
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
    let tls = tls.map(|tls| TlsFiles { cert: tls.cert.as_path().to_owned(), key: tls.key.as_path().to_owned() });
    server::Settings { name, listen: listen.addr(), tls, limits: Limits::default() }
}

async fn open_store(config: &Config, clock: &Clock, registry: &Registry) -> Result<Store, OpenError> {
    let settings = storage::Settings { data_dir: config.data_dir.as_path().to_owned(), index_cache: INDEX_CACHE };
    let (clock, registry) = (clock.clone(), registry.clone());
    task::blocking(move || Store::open(settings, clock, &registry)).await
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
        let account = upstream.username.as_ref().zip(upstream.password.as_ref());
        let settings = upstream::Settings {
            name: upstream.name.registry().clone(),
            url: upstream.url.as_str().parse().map_err(|_| Error::Url { name: name.clone() })?,
            account: account.map(|(username, password)| upstream::Account {
                username: username.as_str().to_owned(),
                password: password.clone(),
            }),
            extra_ca,
            connect_timeout: upstream.connect_timeout.get(),
            header_timeout: upstream.header_timeout.get(),
            stall_timeout: upstream.stall_timeout.get(),
            max_connections: upstream.max_connections.get() as usize,
            parallel: upstream.parallel.get() as usize,
            bandwidth: upstream.bandwidth.per_second(),
        };
        if settings.account.is_some() {
            tracing::warn!(
                upstream = name,
                "every client of this mirror can pull what this account can read: use one that sees public images only"
            );
        }
        Upstream::new(settings, clock.clone(), metrics.clone())
            .map_err(|source| Error::Upstream { name, source: Box::new(source) })
    };
    config.upstreams.iter().map(make).collect()
}

fn routes(config: &Config) -> Result<Routes, Error> {
    let mirrored = |upstream: &config::Upstream| {
        let globs = |patterns| {
            Pattern::any_of(patterns).map_err(|source| Error::Patterns { name: upstream.name.to_string(), source })
        };
        let registry = upstream.name.registry().clone();
        Ok(Mirrored { registry, allow: globs(&upstream.allow)?, deny: globs(&upstream.deny)? })
    };
    let default = config.upstreams.iter().position(|upstream| upstream.default);
    let mirrored: Result<Vec<Mirrored>, Error> = config.upstreams.iter().map(mirrored).collect();
    Ok(Routes::new(mirrored?, default.unwrap_or_default()))
}
