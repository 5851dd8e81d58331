//! Each way in which a machine can be set up wrongly, as facts, and the one finding that names it.

use super::diagnose;
use crate::cli::doctor::facts::{
    Authority, ConfigFile, Containerd, CriConfig, Daemon, Distrust, Docker, DockerFiles, Engine, Facts, Host, Hosts,
    Kind, MirrorFacts, NoDaemon, Particulars, Passport, Podman, PodmanInfo, PodmanMirror, Probe, ProxyVariables,
    Puller, Reach,
};
use crate::cli::doctor::finding::Mark;
use crate::cli::mirror_url::MirrorUrl;

const HTTP: &str = "http://mirror.lan:5000";
const HTTPS: &str = "https://mirror.lan:5000";

fn arrived() -> Probe {
    Probe::Arrived { agent: "engine/1".into(), via_proxy: false }
}

fn mirror(url: &str) -> MirrorFacts {
    let url = MirrorUrl::parse(url).unwrap();
    let certificate = url.is_https().then_some(Ok(()));
    MirrorFacts {
        url,
        named_by: "--mirror".into(),
        reach: Reach::Larder,
        ahead_s: Some(0),
        asks_certificate: false,
        certificate,
        elsewhere: Vec::new(),
    }
}

fn hosts(url: &str) -> ConfigFile<Hosts> {
    let host = Host { url: url.into(), serves_pulls: true, skip_verify: false, ca: Vec::new(), client: Vec::new() };
    ConfigFile::Says(Hosts { path: "/d/docker.io/hosts.toml".into(), hosts: vec![host] })
}

fn docker(url: &str) -> Docker {
    Docker {
        socket: "/var/run/docker.sock".into(),
        files: DockerFiles::of_the_machine(),
        daemon: Ok(Daemon { version: "28.2.2".into(), mirrors: vec![format!("{url}/")], ..Daemon::default() }),
        daemon_json: ConfigFile::Says(vec![url.into()]),
        hub_hosts: ConfigFile::Missing,
        by_mirror: Vec::new(),
        by_registry: Vec::new(),
    }
}

fn containerd(url: &str) -> Containerd {
    Containerd {
        address: "/run/containerd/containerd.sock".into(),
        version: "2.1.0".into(),
        client: Some(Puller::Crictl),
        config: ConfigFile::Says(CriConfig { config_path: "/etc/containerd/certs.d".into(), ..CriConfig::default() }),
        folder: "/etc/containerd/certs.d".into(),
        hosts: hosts(url),
        named: Vec::new(),
    }
}

fn podman(location: &str, insecure: bool) -> Podman {
    let mirror = PodmanMirror { location: location.into(), insecure, pull_from: String::new() };
    let info = PodmanInfo { version: "5.0".into(), storage: "overlay".into(), blocked: false, mirrors: vec![mirror] };
    let folder = "/etc/containers/certs.d/mirror.lan:5000".into();
    Podman { info: Ok(info), own_conf: None, folder, by_mirror: Vec::new() }
}

fn machine(mirror: MirrorFacts, particulars: Particulars, probe: Probe) -> Facts {
    let engine = Engine { particulars, proxies: Some(ProxyVariables::default()), passports: Vec::new(), probe };
    Facts { mirror, engines: vec![engine], only: None }
}

fn with_docker(docker: Docker, probe: Probe) -> Facts {
    machine(mirror(HTTP), Particulars::Docker(docker), probe)
}

/// That exactly one finding is worse than good but for the probe's own, and what it says.
#[track_caller]
fn assert_named(facts: &Facts, mark: Mark, wanted: &[&str]) {
    let findings = diagnose(facts);
    let named = findings.iter().filter(|finding| finding.mark == mark && !finding.what.contains("probe"));
    let lines: Vec<String> = named.map(|finding| finding.line(false)).collect();
    let is_named = lines.iter().any(|line| wanted.iter().all(|word| line.contains(word)));
    assert!(is_named, "no {mark:?} says {wanted:?}: {findings:#?}");
    let worse = findings.iter().filter(|finding| finding.mark == Mark::Fail).count();
    assert_eq!(worse > 0, mark == Mark::Fail, "{findings:#?}");
}

#[track_caller]
fn assert_good(facts: &Facts) {
    let findings = diagnose(facts);
    assert!(findings.iter().all(|finding| finding.mark == Mark::Ok), "{findings:#?}");
    assert!(findings.iter().any(|finding| finding.what.contains("probe arrived")), "{findings:#?}");
}

#[test]
fn a_good_set_up_is_proven_with_each_engine() {
    for url in [HTTP, HTTPS] {
        assert_good(&machine(mirror(url), Particulars::Docker(docker(url)), arrived()));
        assert_good(&machine(mirror(url), Particulars::Containerd(containerd(url)), arrived()));
        assert_good(&machine(mirror(url), Particulars::Podman(podman("mirror.lan:5000", url == HTTP)), arrived()));
    }
}

#[test]
fn what_the_mirror_does_instead_of_answering_is_named() {
    let elsewhere = MirrorUrl::parse("http://mirror.lan:5001").unwrap();
    for (reach, elsewhere, wanted) in [
        (Reach::Refused, vec![], vec!["nobody listens at http://mirror.lan:5000", "is larder running"]),
        (Reach::Refused, vec![elsewhere.clone()], vec!["nobody listens", "a Larder answers at http://mirror.lan:5001"]),
        (Reach::SpeaksTls, vec![elsewhere], vec!["speaks HTTPS, not HTTP", "--mirror http://mirror.lan:5001"]),
        (Reach::SpeaksPlain, vec![], vec!["speaks HTTP, not HTTPS"]),
        (Reach::Challenges, vec![], vec!["wants a login", "no mirror's"]),
        (Reach::Status(404), vec![], vec!["answers 404"]),
        (Reach::WantsCertificate, vec![], vec!["client_ca", "findings about the engines"]),
        (Reach::NoAddress("nxdomain".into()), vec![], vec!["has no address", "DNS"]),
        (Reach::Silent, vec![], vec!["does not answer", "firewall"]),
        (Reach::Broken("odd".into()), vec![], vec!["cannot be asked", "odd"]),
    ] {
        let mut facts = with_docker(docker(HTTP), Probe::NotTried("the mirror cannot be reached"));
        (facts.mirror.reach, facts.mirror.elsewhere) = (reach, elsewhere);
        assert_named(&facts, Mark::Fail, &wanted);
    }
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_named_with_the_place_for_its_authority() {
    let authority = |path: &str, vouches| Authority { path: path.into(), vouches };
    let untrusted = || MirrorFacts { certificate: Some(Err(Distrust::UnknownAuthority)), ..mirror(HTTPS) };
    let lost = || Probe::Lost("x509".into());

    let classic = |by_mirror| Docker { by_mirror, ..docker(HTTPS) };
    let none = machine(untrusted(), Particulars::Docker(classic(vec![])), lost());
    assert_named(&none, Mark::Fail, &["does not trust", "/etc/docker/certs.d/mirror.lan:5000/larder-ca.crt"]);
    let wrong = machine(untrusted(), Particulars::Docker(classic(vec![authority("/x.crt", false)])), lost());
    assert_named(&wrong, Mark::Fail, &["does not trust", "/x.crt is another one"]);
    assert_good(&machine(untrusted(), Particulars::Docker(classic(vec![authority("/x.crt", true)])), arrived()));

    // The containerd store ignores what lies below the mirror's name.
    let mut store = Docker { by_mirror: vec![authority("/m/ca.crt", true)], ..docker(HTTPS) };
    store.daemon.as_mut().unwrap().containerd_store = true;
    let ignored = machine(untrusted(), Particulars::Docker(store), lost());
    assert_named(&ignored, Mark::Fail, &["ignores /m/ca.crt", "/etc/docker/certs.d/docker.io/larder-ca.crt"]);

    let by_hosts = machine(untrusted(), Particulars::Containerd(containerd(HTTPS)), lost());
    assert_named(&by_hosts, Mark::Fail, &["does not trust", "docker.io/larder-ca.pem"]);
    let by_conf = machine(untrusted(), Particulars::Podman(podman("mirror.lan:5000", false)), lost());
    assert_named(&by_conf, Mark::Fail, &["does not trust", "/etc/containers/certs.d/mirror.lan:5000/larder-ca.crt"]);

    let loopback =
        MirrorFacts { certificate: Some(Err(Distrust::UnknownAuthority)), ..mirror("https://127.0.0.1:5000") };
    assert_good(&machine(loopback, Particulars::Docker(docker("https://127.0.0.1:5000")), arrived()));
    for (distrust, wanted) in [
        (Distrust::Expired, "has expired"),
        (Distrust::NotYetValid, "not valid yet"),
        (Distrust::WrongName, "for another name"),
    ] {
        let spoilt = MirrorFacts { certificate: Some(Err(distrust)), ..mirror(HTTPS) };
        assert_named(&machine(spoilt, Particulars::Docker(docker(HTTPS)), lost()), Mark::Fail, &[wanted]);
    }
}

#[test]
fn a_proxy_that_is_asked_for_the_mirror_is_named() {
    let proxied = ProxyVariables { http: "http://me:secret@proxy.lan:3128".into(), ..ProxyVariables::default() };
    for particulars in [
        Particulars::Docker(docker(HTTP)),
        Particulars::Containerd(containerd(HTTP)),
        Particulars::Podman(podman("mirror.lan:5000", true)),
    ] {
        let mut facts = machine(mirror(HTTP), particulars, Probe::Lost("403".into()));
        facts.engines[0].proxies = Some(proxied.clone());
        assert_named(&facts, Mark::Fail, &["through the proxy http://proxy.lan:3128", "add mirror.lan to NO_PROXY"]);
        assert!(!format!("{:?}", diagnose(&facts)).contains("secret"));
        facts.engines[0].proxies = Some(ProxyVariables { not_for: ".lan".into(), ..proxied.clone() });
        facts.engines[0].probe = arrived();
        assert_good(&facts);
    }
    let unseen = with_docker(docker(HTTP), Probe::Arrived { agent: "x".into(), via_proxy: true });
    assert_named(&unseen, Mark::Fail, &["reach the mirror through a proxy"]);
    let mut unknown = machine(mirror(HTTP), Particulars::Containerd(containerd(HTTP)), arrived());
    unknown.engines[0].proxies = None;
    assert_named(&unknown, Mark::Warn, &["proxy variables cannot be read", "as root"]);
}

#[test]
fn a_daemon_that_does_not_know_what_its_file_says_is_named() {
    let not_reloaded = |mirrors: &[&str], written: ConfigFile<Vec<String>>| {
        let mirrors = mirrors.iter().map(|&mirror| mirror.to_owned()).collect();
        let daemon = Daemon { mirrors, ..Daemon::default() };
        with_docker(Docker { daemon: Ok(daemon), daemon_json: written, ..docker(HTTP) }, Probe::Lost("denied".into()))
    };
    let says = || ConfigFile::Says(vec![HTTP.to_owned()]);
    assert_named(&not_reloaded(&[], says()), Mark::Fail, &["was not read since", "systemctl reload docker"]);
    assert_named(&not_reloaded(&["http://old:5000/"], says()), Mark::Fail, &["was not read since"]);
    let other = not_reloaded(&["http://old:5000/"], ConfigFile::Missing);
    assert_named(&other, Mark::Fail, &["is not configured", "it uses http://old:5000/", "larder setup docker"]);
    let broken = not_reloaded(&[], ConfigFile::Broken("it is not a JSON object".into()));
    assert_named(&broken, Mark::Fail, &["daemon.json cannot be used", "not a JSON object"]);
    let mut second = not_reloaded(&["http://old:5000/", "http://mirror.lan:5000/"], says());
    second.engines[0].probe = arrived();
    assert_named(&second, Mark::Warn, &["asks http://old:5000/ before the mirror"]);
}

#[test]
fn a_hosts_file_that_leads_past_the_mirror_is_named() {
    let mut store = Docker { hub_hosts: hosts("http://other:5000"), ..docker(HTTP) };
    store.daemon.as_mut().unwrap().containerd_store = true;
    let facts = with_docker(store, Probe::Lost("x".into()));
    assert_named(&facts, Mark::Fail, &["hosts.toml leads past the mirror", "registry-mirrors are ignored"]);
    let classic = Docker { hub_hosts: hosts("http://other:5000"), ..docker(HTTP) };
    assert_named(&with_docker(classic, arrived()), Mark::Warn, &["hosts.toml is ignored"]);

    let past = machine(mirror(HTTP), Particulars::Containerd(containerd("http://other:5000")), Probe::Lost("x".into()));
    assert_named(&past, Mark::Fail, &["is not configured to use http://mirror.lan:5000", "names http://other:5000"]);
    for (config, mark, wanted) in [
        (CriConfig::default(), Mark::Warn, "config_path = \"/etc/containerd/certs.d\""),
        (CriConfig { has_old_form: true, ..CriConfig::default() }, Mark::Fail, "registry.mirrors"),
    ] {
        let found = Containerd { config: ConfigFile::Says(config), ..containerd(HTTP) };
        assert_named(&machine(mirror(HTTP), Particulars::Containerd(found), arrived()), mark, &[wanted]);
    }
    let http_only =
        machine(mirror(HTTP), Particulars::Podman(podman("mirror.lan:5000", false)), Probe::Lost("x".into()));
    assert_named(&http_only, Mark::Fail, &["over HTTPS only", "insecure = true"]);
}

#[test]
fn who_has_no_mirror_at_all_fails_only_when_asked_about() {
    let none = Docker { daemon: Ok(Daemon::default()), daemon_json: ConfigFile::Missing, ..docker(HTTP) };
    let mut facts = with_docker(none, Probe::Lost("denied".into()));
    let alone = diagnose(&facts);
    assert_eq!(alone.iter().filter(|finding| finding.mark == Mark::Warn).count(), 1, "{alone:#?}");
    assert_eq!(alone.last().unwrap().what, "no engine of this machine uses the mirror");
    facts.engines.push(Engine {
        particulars: Particulars::Podman(podman("mirror.lan:5000", true)),
        proxies: Some(ProxyVariables::default()),
        passports: Vec::new(),
        probe: arrived(),
    });
    assert_named(&facts, Mark::Warn, &["docker", "is not configured"]);
    facts.only = Some(Kind::Docker);
    facts.engines.pop();
    assert_named(&facts, Mark::Fail, &["docker", "is not configured"]);
    facts.engines.clear();
    assert_named(&facts, Mark::Fail, &["there is no docker here"]);
}

#[test]
fn a_clock_or_a_daemon_that_is_off_is_named() {
    for ahead in [-500, 500] {
        let mut facts = with_docker(docker(HTTP), arrived());
        facts.mirror.ahead_s = Some(ahead);
        assert_named(&facts, Mark::Warn, &["clock is 500 s"]);
    }
    for (no_daemon, wanted) in [
        (NoDaemon::NotRunning, "systemctl start docker"),
        (NoDaemon::NotAllowed, "as root"),
        (NoDaemon::Odd("500".into()), "500"),
    ] {
        let facts = with_docker(Docker { daemon: Err(no_daemon), ..docker(HTTP) }, Probe::NotTried("x"));
        assert_named(&facts, Mark::Fail, &["cannot be asked", wanted]);
    }
    let broken = Podman { info: Err("bad registries.conf".into()), ..podman("mirror.lan:5000", true) };
    assert_named(
        &machine(mirror(HTTP), Particulars::Podman(broken), Probe::NotTried("x")),
        Mark::Fail,
        &["bad registries.conf"],
    );
}

#[test]
fn a_mirror_that_wants_a_certificate_is_told_apart_from_an_engine_that_has_none() {
    let passport = |lets_in| Passport { cert: "/c/client.cert".into(), key: "/c/client.key".into(), lets_in };
    for (particulars, place) in [
        (Particulars::Docker(docker(HTTPS)), "/etc/docker/certs.d/mirror.lan:5000"),
        (Particulars::Containerd(containerd(HTTPS)), "client = [["),
        (Particulars::Podman(podman("mirror.lan:5000", false)), "/etc/containers/certs.d/mirror.lan:5000"),
    ] {
        let mut facts = machine(mirror(HTTPS), particulars, Probe::NotTried("the mirror cannot be reached"));
        (facts.mirror.asks_certificate, facts.mirror.reach) = (true, Reach::WantsCertificate);
        assert_named(&facts, Mark::Fail, &["has no certificate to show", "client_ca", place]);
        facts.engines[0].passports = vec![passport(false)];
        assert_named(&facts, Mark::Fail, &["does not let in /c/client.cert", "another CA", place]);
        facts.engines[0].passports = vec![passport(true)];
        (facts.mirror.reach, facts.engines[0].probe) = (Reach::Larder, arrived());
        assert_good(&facts);
    }
    let mut store = docker(HTTPS);
    store.daemon.as_mut().unwrap().containerd_store = true;
    let mut facts = machine(mirror(HTTPS), Particulars::Docker(store), Probe::Lost("x".into()));
    facts.mirror.asks_certificate = true;
    assert_named(&facts, Mark::Fail, &["has no certificate to show", "/etc/docker/certs.d/docker.io"]);
}

#[test]
fn who_runs_an_engine_of_their_own_is_sent_to_their_own_files() {
    let files = DockerFiles::of_a_user("/home/ann/.config".as_ref());
    let rootless = |daemon: Daemon, daemon_json| Docker {
        files: files.clone(),
        daemon: Ok(Daemon { is_rootless: true, ..daemon }),
        daemon_json,
        ..docker(HTTP)
    };
    let none = with_docker(rootless(Daemon::default(), ConfigFile::Missing), Probe::Lost("x".into()));
    let none = Facts { only: Some(Kind::Docker), ..none };
    assert_named(&none, Mark::Fail, &["is not configured", "/home/ann/.config/docker/daemon.json", "systemctl --user"]);
    let written = ConfigFile::Says(vec![HTTP.to_owned()]);
    let stale = with_docker(rootless(Daemon::default(), written), Probe::Lost("x".into()));
    assert_named(
        &stale,
        Mark::Fail,
        &["/home/ann/.config/docker/daemon.json names it", "systemctl --user restart docker"],
    );
    let stopped = Docker { daemon: Err(NoDaemon::NotRunning), ..rootless(Daemon::default(), ConfigFile::Missing) };
    assert_named(&with_docker(stopped, Probe::Pointless), Mark::Fail, &["systemctl --user start docker"]);

    let mut own = podman("mirror.lan:5000", true);
    own.info.as_mut().unwrap().mirrors.clear();
    own.own_conf = Some("/home/ann/.config/containers/registries.conf".into());
    let own = Facts { only: Some(Kind::Podman), ..machine(mirror(HTTP), Particulars::Podman(own), Probe::Pointless) };
    assert_named(
        &own,
        Mark::Fail,
        &["/home/ann/.config/containers/registries.conf has no mirror", "larder setup podman"],
    );
}
