//! From the configuration to each floor's own settings, and what is built with them.

use std::fs;

use globset::GlobSet;
use prometheus::Registry;

use super::error::Error;
use crate::access::{self, Access, TokenKey};
use crate::cache::{self, Lifetimes, OnDeleted, Origin, Pace};
use crate::clock::Clock;
use crate::config::{self, Config, Pattern};
use crate::hosted::Hosted;
use crate::http::Ours;
use crate::metric;
use crate::routing::{Mirrored, Routes};
use crate::secret::Secret;
use crate::server::{self, Limits, TlsFiles};
use crate::storage::{self, OpenError, Store};
use crate::task;
use crate::upstream::{self, Upstream};

/// Memory for the index's own cache, in bytes; sled takes more. No hit reads it: small is right, though a million blobs take
/// longer to be indexed anew.
const INDEX_CACHE: u64 = 8 << 20;

/// Where a listener is, and how it speaks.
pub fn listener(name: &'static str, listen: &config::Listen, tls: Option<&config::Tls>) -> server::Settings {
    let tls = tls.map(|tls| TlsFiles {
        cert: tls.cert.as_path().to_owned(),
        key: tls.key.as_path().to_owned(),
        client_ca: tls.client_ca.as_ref().map(|path| path.as_path().to_owned()),
    });
    server::Settings { name, listen: listen.addr(), tls, limits: Limits::default() }
}

/// Beside `larder_cache_bytes`, so that a dashboard need not know the configuration.
pub fn show_cap(config: &Config, registry: &Registry) {
    let help = "The most bytes that cached content may take on disk: cache.max_size.";
    let cap = metric::gauge(registry, "larder_cache_max_bytes", help);
    cap.set(i64::try_from(config.cache.max_size.bytes()).unwrap_or(i64::MAX));
}

/// What is set of the data directory.
pub fn store_settings(config: &Config) -> storage::Settings {
    let limits = storage::Limits { max_size: config.cache.max_size.bytes(), min_free: config.cache.min_free.bytes() };
    let (data_dir, verify) = (config.data_dir.as_path().to_owned(), config.cache.verify.get());
    storage::Settings { data_dir, index_cache: INDEX_CACHE, limits, verify }
}

/// The data directory.
pub async fn open_store(config: &Config, clock: &Clock, registry: &Registry) -> Result<Store, OpenError> {
    let (settings, clock, registry) = (store_settings(config), clock.clone(), registry.clone());
    task::blocking(move || Store::open(settings, clock, &registry)).await
}

/// What is hosted, and who may have it.
pub async fn ours(config: &Config, own: &config::Registry, store: &Store, clock: &Clock) -> Result<Ours, Error> {
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

/// How the cache behaves.
pub fn cache_settings(config: &Config) -> cache::Settings {
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

/// A client for each upstream.
pub fn upstreams(config: &Config, clock: &Clock, registry: &Registry) -> Result<Vec<Upstream>, Error> {
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

/// What the cache knows of each upstream, in the same order.
pub fn origins(config: &Config, upstreams: Vec<Upstream>) -> Result<Vec<Origin>, Error> {
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

/// Which names lead to which upstream.
pub fn routes(config: &Config) -> Result<Routes, Error> {
    let mirrored = |upstream: &config::Upstream| {
        let registry = upstream.name.registry().clone();
        Ok(Mirrored { registry, allow: globs(upstream, &upstream.allow)?, deny: globs(upstream, &upstream.deny)? })
    };
    let default = config.upstreams.iter().position(|upstream| upstream.default);
    let mirrored: Result<Vec<Mirrored>, Error> = config.upstreams.iter().map(mirrored).collect();
    Ok(Routes::new(mirrored?, default.unwrap_or_default()))
}
