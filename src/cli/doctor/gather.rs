//! The order in which things are found out: the engines, which mirror, how it is reached, and then the proof. Judges nothing.

use std::path::PathBuf;

use super::certificates::Identity;
use super::containerd;
use super::docker;
use super::facts::{ConfigFile, Engine, Facts, Hosts, Kind, MirrorFacts, Particulars, Probe, ProxyVariables, Reach};
use super::reach::{Reached, elsewhere, reach};
use super::{certificates, podman, probe, variables};
use crate::cli::mirror_url::MirrorUrl;
use crate::clock::Clock;

/// Where to look.
#[derive(Debug)]
pub(super) struct Places {
    /// Docker's socket.
    pub(super) docker: PathBuf,
    /// Whether that is where a rootless Docker of this user listens.
    pub(super) docker_is_users: bool,
    /// This user's folder of configurations: `$XDG_CONFIG_HOME`, or `~/.config`.
    pub(super) configs: Option<PathBuf>,
    /// This user's home.
    pub(super) home: Option<PathBuf>,
    /// containerd's.
    pub(super) containerd: PathBuf,
    /// What this process runs with.
    pub(super) proxies: ProxyVariables,
}

impl Places {
    /// Where the engines' own clients would look.
    pub(super) fn of_this_process() -> Places {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let docker = variable("DOCKER_HOST").and_then(|host| host.strip_prefix("unix://").map(PathBuf::from));
        let containerd = variable("CONTAINERD_ADDRESS").map(PathBuf::from);
        let all =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let home = variable("HOME").map(PathBuf::from);
        let configs = variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(".config")));
        // A user's own daemon before the machine's: this user could not ask that one anyway, or would say so.
        let own = variable("XDG_RUNTIME_DIR").map(|folder| PathBuf::from(folder).join("docker.sock"));
        let own = own.filter(|socket| docker.is_none() && socket.exists());
        Places {
            docker_is_users: own.is_some(),
            docker: docker.or(own).unwrap_or_else(|| docker::SOCKET.into()),
            configs,
            home,
            containerd: containerd.unwrap_or_else(|| containerd::SOCKET.into()),
            proxies: variables::among(all),
        }
    }
}

/// The mirror of a machine where nobody has said anything: where Larder listens by itself.
const USUAL: &str = "http://127.0.0.1:5000";

/// Finds out all there is to find out. `None`: there is no mirror to ask about, which the usual one prevents.
pub(super) async fn gather(
    mirror: Option<MirrorUrl>,
    only: Option<Kind>,
    places: &Places,
    clock: &Clock,
) -> Option<Facts> {
    let mut engines = engines(only, places).await;
    let named = mirror.map(|mirror| (mirror, "--mirror".to_owned()));
    let named = named.or_else(|| engines.iter().find_map(mirror_of));
    let usual =
        || MirrorUrl::parse(USUAL).map(|mirror| (mirror, "nobody: it is where Larder listens by itself".to_owned()));
    let (url, named_by) = named.or_else(usual)?;

    let nonce = probe::nonce();
    let mut reached = reach(&url, None, &nonce, clock).await;
    let now = clock.wall();
    let (chain, home) = (reached.chain.clone(), places.home.as_deref());
    for engine in &mut engines {
        match &mut engine.particulars {
            Particulars::Docker(docker) => docker::look_for_authorities(docker, &url, chain.as_ref(), now),
            Particulars::Containerd(found) => containerd::look_for_authorities(found, chain.as_ref(), now),
            Particulars::Podman(podman) => podman::look_for_authorities(podman, &url, home, chain.as_ref(), now),
        }
    }
    let asks_certificate = reached.reach == Reach::WantsCertificate;
    let mut identity = None;
    if asks_certificate {
        for engine in &mut engines {
            if let Some((let_in, shown)) = show_passports(&url, engine, &nonce, clock).await {
                (reached, identity) = (let_in, Some(shown));
            }
        }
    }
    let Reached { reach, ahead_s, chain } = reached;
    let certificate = chain.as_ref().map(|chain| chain.judged_by(certificates::of_this_machine(), now));
    let elsewhere = if reach == Reach::Larder { Vec::new() } else { elsewhere(&url, &nonce).await };
    // One after the other: so that a nonce is one engine's.
    for engine in &mut engines {
        engine.probe = match reach {
            _ if mirror_of(engine).is_none() => Probe::Pointless,
            Reach::Larder => prove(&url, identity.as_ref(), engine).await,
            Reach::Registry => Probe::NotTried("what answers there does not know of probes"),
            _ => Probe::NotTried("the mirror cannot be reached"),
        };
    }
    let mirror = MirrorFacts { url, named_by, reach, ahead_s, asks_certificate, certificate, elsewhere };
    Some(Facts { mirror, engines, only })
}

/// Tries what the engine would show. The last that lets us in, and what was learnt with it.
async fn show_passports(
    mirror: &MirrorUrl,
    engine: &mut Engine,
    nonce: &str,
    clock: &Clock,
) -> Option<(Reached, Identity)> {
    engine.passports = match &engine.particulars {
        Particulars::Docker(docker) => docker::passports(docker, mirror),
        Particulars::Containerd(found) => containerd::passports(found, mirror),
        Particulars::Podman(podman) => podman::passports(podman),
    };
    let mut found = None;
    for passport in &mut engine.passports {
        let Some(identity) = Identity::read(&passport.cert, &passport.key) else { continue };
        let reached = reach(mirror, Some(&identity), nonce, clock).await;
        passport.lets_in = matches!(reached.reach, Reach::Larder | Reach::Registry);
        if passport.lets_in {
            found = Some((reached, identity));
        }
    }
    found
}

async fn engines(only: Option<Kind>, places: &Places) -> Vec<Engine> {
    let wanted = |kind: Kind| only.is_none_or(|only| only == kind);
    let found = |particulars, proxies| {
        let (passports, probe) = (Vec::new(), Probe::NotTried(""));
        Engine { particulars, proxies, passports, probe }
    };
    let mut engines = Vec::new();
    if wanted(Kind::Docker)
        && let Some((docker, proxies)) =
            docker::find(&places.docker, places.docker_is_users, places.configs.as_deref()).await
    {
        engines.push(found(Particulars::Docker(docker), proxies));
    }
    if wanted(Kind::Containerd)
        && let Some((containerd, proxies)) = containerd::find(&places.containerd).await
    {
        engines.push(found(Particulars::Containerd(containerd), proxies));
    }
    if wanted(Kind::Podman)
        && let Some(podman) = podman::find(places.configs.as_deref()).await
    {
        let proxies = Some(places.proxies.clone());
        engines.push(found(Particulars::Podman(podman), proxies));
    }
    engines
}

/// The first mirror that an engine's configuration names, and which file that was.
fn mirror_of(engine: &Engine) -> Option<(MirrorUrl, String)> {
    let of_hosts = |hosts: &ConfigFile<Hosts>| match hosts {
        ConfigFile::Says(Hosts { path, hosts }) => {
            hosts.iter().find_map(|host| MirrorUrl::parse(&host.url)).map(|url| (url, path.display().to_string()))
        }
        ConfigFile::Missing | ConfigFile::Broken(_) => None,
    };
    match &engine.particulars {
        Particulars::Docker(docker) => {
            let first = |urls: &[String]| urls.iter().find_map(|url| MirrorUrl::parse(url));
            let running = docker.daemon.as_ref().ok();
            let running = running.and_then(|daemon| first(&daemon.mirrors));
            let written = match &docker.daemon_json {
                ConfigFile::Says(mirrors) => first(mirrors),
                ConfigFile::Missing | ConfigFile::Broken(_) => None,
            };
            let running = running.map(|url| (url, "docker info".to_owned()));
            let written = written.map(|url| (url, docker.files.daemon_json.display().to_string()));
            // What was written last is what somebody wants.
            written.or(running).or_else(|| of_hosts(&docker.hub_hosts))
        }
        Particulars::Containerd(containerd) => of_hosts(&containerd.hosts),
        Particulars::Podman(podman) => {
            let mirror = podman.info.as_ref().ok()?.mirrors.first()?;
            let scheme = if mirror.insecure { "http" } else { "https" };
            let authority = mirror.location.split('/').next().unwrap_or_default();
            Some((MirrorUrl::parse(&format!("{scheme}://{authority}"))?, "podman info".to_owned()))
        }
    }
}

async fn prove(mirror: &MirrorUrl, identity: Option<&Identity>, engine: &Engine) -> Probe {
    let nonce = probe::nonce();
    let image = probe::image(&nonce);
    let tagged = format!("{image}:latest");
    match &engine.particulars {
        Particulars::Docker(docker) if docker.daemon.is_err() => Probe::NotTried("the daemon cannot be asked"),
        Particulars::Docker(docker) => {
            let pull = docker::pull(&docker.socket, &image, probe::PATIENCE);
            probe::confirm(mirror, identity, &nonce, pull).await
        }
        Particulars::Containerd(containerd) if containerd.client.is_none() => {
            Probe::NotTried("there is neither crictl nor ctr to ask it with")
        }
        Particulars::Containerd(containerd) => {
            let pull = containerd::pull(containerd, engine.proxies.as_ref(), &tagged, probe::PATIENCE);
            probe::confirm(mirror, identity, &nonce, pull).await
        }
        Particulars::Podman(podman) if podman.info.is_err() => Probe::NotTried("podman does not run"),
        Particulars::Podman(_) => {
            probe::confirm(mirror, identity, &nonce, podman::pull(&tagged, probe::PATIENCE)).await
        }
    }
}
