//! Findings about the mirror itself, which every engine would meet.

use crate::cli::doctor::facts::{Distrust, MirrorFacts, Reach};
use crate::cli::doctor::finding::Finding;

/// From how many seconds on the clocks differ: certificates and tokens are dated.
const ASKEW_S: i64 = 120;

pub(super) fn findings(mirror: &MirrorFacts) -> Vec<Finding> {
    let mut findings = vec![reached(mirror)];
    if let Some(ahead) = mirror.ahead_s.filter(|ahead| ahead.abs() > ASKEW_S) {
        let direction = if ahead > 0 { "ahead of" } else { "behind" };
        findings.push(
            Finding::warn("mirror", format!("this machine's clock is {} s {direction} the mirror's", ahead.abs()))
                .because("certificates and tokens are only valid at their time")
                .then("timedatectl set-ntp true, on the one that is wrong"),
        );
    }
    // What this machine does not trust an engine may: it says so itself. These no engine forgives.
    let spoilt = mirror.certificate.as_ref().and_then(|judged| judged.as_ref().err());
    let spoilt = spoilt.and_then(|distrust| match distrust {
        Distrust::Expired => {
            Some(("its certificate has expired", "larder cert makes a new one; the server takes it up by itself"))
        }
        Distrust::NotYetValid => Some(("its certificate is not valid yet", "look at both clocks: date")),
        Distrust::WrongName => Some((
            "its certificate is for another name",
            "name the mirror as the certificate does, or make one for this name: larder cert --name HOST",
        )),
        Distrust::UnknownAuthority | Distrust::Other(_) => None,
    });
    if let Some((what, then)) = spoilt {
        findings.push(Finding::fail("mirror", what).because(format!("asked as {}", mirror.url.host())).then(then));
    }
    findings
}

fn reached(mirror: &MirrorFacts) -> Finding {
    let MirrorFacts { url, named_by, reach, elsewhere, .. } = mirror;
    let fail = |what: String| Finding::fail("mirror", what);
    let named = format!("so says {named_by}");
    let finding = match reach {
        Reach::Larder => {
            let guarded = if mirror.asks_certificate { ", to who shows a certificate" } else { "" };
            return Finding::ok("mirror", format!("{url} answers{guarded}, and is a Larder ({named})"));
        }
        Reach::Registry => Finding::warn("mirror", format!("{url} answers, and does not know of probes"))
            .because("it is another registry, or an older Larder: no pull can be proven")
            .then("larder --version, on the server"),
        Reach::Challenges => fail(format!("{url} wants a login")).because(
            "this is a registry's address and no mirror's: engines answer it with nothing, or with your Docker Hub password",
        ),
        Reach::Status(status) => {
            fail(format!("{url} answers {status} to /v2/")).because("this is not the address of a mirror")
        }
        Reach::SpeaksTls => fail(format!("{url} speaks HTTPS, not HTTP")).because(named),
        Reach::SpeaksPlain => fail(format!("{url} speaks HTTP, not HTTPS")).because(named),
        Reach::WantsCertificate => fail(format!("{url} wants a certificate of its clients"))
            .because("mirror.tls.client_ca is set there")
            .then("see the findings about the engines: where each wants its client.cert and client.key"),
        Reach::NoAddress(reason) => fail(format!("{} has no address", url.host()))
            .because(reason.as_str())
            .then("correct the name, or give it one in DNS or /etc/hosts"),
        Reach::Refused => fail(format!("nobody listens at {url}")).because(format!("connection refused ({named})")),
        Reach::Silent => fail(format!("{url} does not answer")).because(format!("nothing came back in time ({named})")),
        Reach::Broken(reason) => fail(format!("{url} cannot be asked")).because(reason.as_str()),
    };
    match elsewhere.first() {
        _ if !finding.then.is_empty() => finding,
        Some(other) => {
            finding.then(format!("a Larder answers at {other}: sudo larder setup ENGINE --mirror {other} --write"))
        }
        None => {
            let silent = matches!(reach, Reach::Silent);
            let firewall = if silent { ", and a firewall in between" } else { "" };
            finding.then(format!(
                "is larder running there (systemctl status larder), and is that its [mirror] address and port{firewall}?"
            ))
        }
    }
}
