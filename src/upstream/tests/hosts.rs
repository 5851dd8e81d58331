//! Several hosts, several accounts, and what each of them may be asked.

use super::*;
use crate::upstream::{PartState, Span, UpstreamError};

fn limited(lines: &str, body: &str) -> Reply {
    Reply::Say(answer(429, lines, body))
}

const PULL_LIMIT: &str = "content-type: application/json\r\n";

async fn manifest(upstream: &Upstream) -> Result<bool, UpstreamError> {
    upstream.manifest(&alpine(), &latest(), Reach::Fallbacks).await.map(|fetched| fetched.is_fallback)
}

fn with_fallback(registry: &Peer, fallback: &Peer) -> Settings {
    Settings { fallbacks: vec![fallback.url("/").parse().unwrap()], accounts: account(), ..registry.settings() }
}

#[tokio::test]
async fn a_fallback_answers_for_a_registry_that_does_not() {
    for (case, reply) in [
        ("absent", answer(404, "content-type: application/json\r\n", "{}")),
        ("refused", answer(403, "content-type: application/json\r\n", "{}")),
        ("out of order", answer(503, "", "")),
        ("limited", answer(429, PULL_LIMIT, "{}")),
        ("another's page", answer(200, "content-type: text/html\r\n", "<html>")),
        ("broken off", "HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_owned()),
    ] {
        let registry = Peer::new(move |_, _| Reply::Say(reply.clone())).await;
        let fallback = Peer::new(|_, _| Reply::Say(json("{}"))).await;
        let figures = prometheus::Registry::new();
        let settings = with_fallback(&registry, &fallback);
        let upstream = Upstream::new(settings, Clock::system(), Metrics::new(&figures)).unwrap();
        assert!(manifest(&upstream).await.unwrap(), "{case}");
        assert_eq!(fallback.heads().len(), 1, "{case}");
        let text = prometheus::TextEncoder::new().encode_to_string(&figures.gather()).unwrap();
        assert!(text.contains(r#"larder_upstream_fallback_total{kind="manifest",upstream="hub.test"} 1"#), "{text}");
        upstream.head_manifest(&alpine(), &latest(), Reach::Registry).await.err();
        upstream.tags(&alpine(), None, None).await.err();
        upstream.referrers(&alpine(), &digest()).await.err();
        assert_eq!(fallback.heads().len(), 1, "{case}: what only the registry knows");
    }
}

#[tokio::test]
async fn if_nobody_has_it_the_registry_has_the_last_word() {
    let absent = || Reply::Say(answer(404, "content-type: application/json\r\n", "{}"));
    let ill = || Reply::Say(answer(503, "", ""));
    for (registry_is_ill, fallback_is_ill) in [(false, false), (false, true), (true, false)] {
        let registry = Peer::new(move |_, _| if registry_is_ill { ill() } else { absent() }).await;
        let fallback = Peer::new(move |_, _| if fallback_is_ill { ill() } else { absent() }).await;
        let error = manifest(&upstream(with_fallback(&registry, &fallback))).await.unwrap_err();
        assert_eq!((error.is_outage(), error.is_absence()), (registry_is_ill, !registry_is_ill), "{error}");
    }
}

#[tokio::test]
async fn a_registry_that_is_out_of_order_costs_a_fallbacks_client_nothing() {
    let registry = Peer::new(|_, _| Reply::Stall(String::new())).await;
    let fallback = Peer::new(|_, head| match head.contains("/blobs/") {
        true => Reply::Say(answer(200, "", "0123456789")),
        false => Reply::Say(json("{}")),
    })
    .await;
    let upstream = upstream(with_fallback(&registry, &fallback));
    assert!(manifest(&upstream).await.unwrap());
    for _ in 0..10 {
        assert!(manifest(&upstream).await.unwrap());
        upstream.blob(&alpine(), &digest(), Span::WHOLE, &flow()).await.unwrap();
    }
    assert_eq!(registry.heads().len(), 1);
    assert!(!upstream.is_down(), "content can be had");
    let report = upstream.report();
    assert_eq!((report.registry.parts[0].state, report.fallbacks[0].parts[0].state), (PartState::Down, PartState::Up));
    assert!(report.registry.parts[0].since.is_some() && report.registry.parts[0].reason.is_some());
}

#[tokio::test]
async fn a_head_that_is_refused_is_no_reason_to_believe_an_older_tag() {
    let registry = Peer::new(|_, head| match head.starts_with("HEAD") {
        true => Reply::Say("HTTP/1.1 401 x\r\ncontent-length: 0\r\n\r\n".into()),
        false => Reply::Say(json("{}")),
    })
    .await;
    let fallback = Peer::new(|_, _| Reply::Say(json("{}"))).await;
    let upstream = upstream(with_fallback(&registry, &fallback));
    let error = upstream.head_manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap_err();
    assert!(error.is_doubtful(), "{error}");
    assert!(!manifest(&upstream).await.unwrap());
    assert_eq!(fallback.heads().len(), 0);
}

#[tokio::test]
async fn a_fallback_never_sees_our_account() {
    for challenge in ["Basic realm=\"x\"", "Bearer realm=\"http://HOST/token\""] {
        let registry = Peer::new(|_, _| Reply::Say(answer(503, "", ""))).await;
        let fallback = Peer::new(move |_, head| {
            let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
            match head {
                _ if head.starts_with("GET /token") => Reply::Say(json(r#"{"token":"anyone"}"#)),
                _ if head.contains("authorization: Bearer anyone") => Reply::Say(json("{}")),
                _ => {
                    let challenge = challenge.replace("HOST", host);
                    Reply::Say(answer(401, &format!("www-authenticate: {challenge}\r\n"), "{}"))
                }
            }
        })
        .await;
        let is_given = manifest(&upstream(with_fallback(&registry, &fallback))).await.is_ok();
        assert_eq!(is_given, challenge.starts_with("Bearer"));
        assert_eq!((fallback.count("Basic "), fallback.count("account=")), (0, 0));
    }
}

/// A registry that knows its users by Basic, and answers each by `reply`.
async fn known(reply: impl Fn(&str, &str) -> Reply + Send + Sync + 'static) -> Peer {
    Peer::new(move |_, head| {
        // "a:x" and "b:x".
        let user = ["YTp4", "Yjp4"].into_iter().position(|word| head.contains(&format!("Basic {word}\r\n")));
        match user {
            Some(at) => reply(["a", "b"][at], head),
            None => Reply::Say(answer(401, "www-authenticate: Basic realm=\"x\"\r\n", "")),
        }
    })
    .await
}

fn two_accounts() -> Vec<Account> {
    ["a", "b"].map(|name| Account { username: name.into(), password: Secret::new("x") }).into()
}

#[tokio::test]
async fn a_429_for_one_account_is_asked_again_at_once_as_the_next() {
    let peer = known(|user, _| match user {
        "a" => limited(&format!("{PULL_LIMIT}retry-after: 600\r\n"), "{}"),
        _ => {
            let told = "ratelimit-limit: 200;w=21600\r\nratelimit-remaining: 150;w=21600\r\n";
            Reply::Say(answer(200, told, "{}"))
        }
    })
    .await;
    let clock = Clock::system();
    let settings = Settings { accounts: two_accounts(), ..peer.settings() };
    let upstream = Upstream::new(settings, clock.clone(), Metrics::new(&prometheus::Registry::new())).unwrap();
    manifest(&upstream).await.unwrap();
    manifest(&upstream).await.unwrap();
    assert_eq!((peer.count("Basic YTp4"), peer.count("Basic Yjp4")), (1, 2), "it is not asked as a meanwhile");
    let accounts = upstream.report().registry.accounts;
    assert_eq!((accounts[1].name.as_str(), accounts[1].remaining), ("b", Some(150)));
    assert!(accounts[0].limited_until.is_some() && upstream.has_budget_to_spare());
    clock.advance(Duration::from_secs(601));
    manifest(&upstream).await.unwrap();
    assert_eq!(peer.count("Basic YTp4"), 2, "its time is over");
}

#[tokio::test]
async fn an_account_that_is_not_accepted_makes_way_for_the_next() {
    let peer = Peer::new(|_, head| match head.contains("Basic Yjp4\r\n") {
        true => Reply::Say(json("{}")),
        false => Reply::Say(answer(401, "www-authenticate: Basic realm=\"x\"\r\n", "")),
    })
    .await;
    let upstream = upstream(Settings { accounts: two_accounts(), ..peer.settings() });
    manifest(&upstream).await.unwrap();
    let asked = peer.count("Basic YTp4");
    manifest(&upstream).await.unwrap();
    assert_eq!(peer.count("Basic YTp4"), asked);
    assert!(upstream.report().registry.accounts[0].is_refused && !upstream.is_down());
}

#[tokio::test]
async fn the_pull_limit_stops_pulls_and_the_abuse_limit_everything() {
    for (lines, is_abuse) in [(PULL_LIMIT, false), ("content-type: text/plain\r\n", true)] {
        let peer = Peer::new(move |_, head| match head.starts_with("GET") && head.contains("/manifests/") {
            true => limited(lines, "Too Many Requests"),
            false => Reply::Say(answer(200, "", "0123456789").replace("\r\n0123456789", "\r\n")),
        })
        .await;
        let clock = Clock::system();
        let upstream =
            Upstream::new(peer.settings(), clock.clone(), Metrics::new(&prometheus::Registry::new())).unwrap();
        for _ in 0..5 {
            let error = manifest(&upstream).await.unwrap_err();
            assert!(matches!(error, UpstreamError::RateLimited { .. }), "{error}");
        }
        assert_eq!(peer.count("GET /v2/library/alpine/manifests/"), 1, "once is enough");
        assert!(!upstream.has_budget_to_spare() && !upstream.is_down());
        let head = upstream.head_manifest(&alpine(), &latest(), Reach::Registry).await;
        assert_eq!(head.is_err(), is_abuse, "{head:?}");
        assert_eq!(peer.count("HEAD "), usize::from(!is_abuse));
        let error = manifest(&upstream).await.unwrap_err();
        let UpstreamError::RateLimited { retry_after: Some(left), .. } = error else { panic!("{error}") };
        assert!(left <= Duration::from_secs(30));
        clock.advance(Duration::from_secs(31));
        manifest(&upstream).await.unwrap_err();
        assert_eq!(peer.count("GET /v2/library/alpine/manifests/"), 2);
    }
}

#[tokio::test]
async fn whether_anyone_may_read_is_asked_as_anyone() {
    let peer = Peer::new(|_, head| {
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        let json_lines = "content-type: application/json\r\n";
        match head {
            _ if head.starts_with("GET /token") && head.contains("library%2Fgone") => {
                Reply::Say(answer(403, json_lines, "{}"))
            }
            _ if head.starts_with("GET /token") && head.contains("Basic") => Reply::Say(json(r#"{"token":"ours"}"#)),
            _ if head.starts_with("GET /token") => Reply::Say(json(r#"{"token":"anyones"}"#)),
            _ if head.contains("Bearer ours") => Reply::Say(json(r#"{"tags":[]}"#)),
            _ if head.contains("Bearer anyones") && head.contains("/library/alpine/") => {
                Reply::Say(json(r#"{"tags":["latest"]}"#))
            }
            _ if head.contains("Bearer anyones") && head.contains("/library/nothing/") => {
                Reply::Say(answer(404, json_lines, "{}"))
            }
            _ if head.contains("Bearer anyones") && head.contains("/library/broken/") => {
                Reply::Say(answer(503, "content-type: text/html\r\n", "<html>"))
            }
            _ => {
                let challenge = format!("{json_lines}www-authenticate: Bearer realm=\"http://{host}/token\"\r\n");
                Reply::Say(answer(401, &challenge, r#"{"errors":[]}"#))
            }
        }
    })
    .await;
    let upstream = upstream(Settings { accounts: account(), ..peer.settings() });
    assert!(upstream.has_account() && !peer.upstream().has_account());
    // Our own token is in hand, and must not be what is asked with.
    for repo in ["library/alpine", "me/secret"] {
        upstream.manifest(&repo.parse().unwrap(), &latest(), Reach::Registry).await.unwrap();
    }
    let ours = |peer: &Peer| (peer.count("Basic"), peer.count("account="), peer.count("Bearer ours"));
    let before = ours(&peer);
    let is_public = async |repo: &str| upstream.is_public(&repo.parse().unwrap()).await;
    assert_eq!(is_public("library/alpine").await, Ok(true));
    assert_eq!(is_public("me/secret").await, Ok(false));
    assert_eq!(is_public("library/gone").await, Ok(false));
    assert_eq!(is_public("library/nothing").await, Err(UpstreamError::NotFound));
    assert_eq!(ours(&peer), before);
    // The probe looks into this one, and asks as it always does.
    assert!(is_public("library/broken").await.unwrap_err().is_outage());
}
