//! What is out of order, who finds out, and who does not have to wait for that.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::upstream::{Part, Span, UpstreamError};

/// A switch that a peer looks at.
#[derive(Clone, Default)]
struct Switch(Arc<AtomicBool>);

impl Switch {
    fn set(&self, on: bool) {
        self.0.store(on, Ordering::SeqCst);
    }

    fn is_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

fn unavailable() -> Reply {
    Reply::Say(answer(503, "content-type: text/html\r\n", "<html>"))
}

fn on(clock: &Clock, settings: Settings) -> Upstream {
    Upstream::new(settings, clock.clone(), Metrics::new(&prometheus::Registry::new())).unwrap()
}

/// Moves time until `is_so`.
async fn until(clock: &Clock, is_so: impl Fn() -> bool) {
    while !is_so() {
        clock.advance(Duration::from_millis(100));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn manifest(upstream: &Upstream, tag: &str) -> Result<(), UpstreamError> {
    upstream.manifest(&alpine(), &tag.parse().unwrap(), Reach::Fallbacks).await.map(drop)
}

fn is_down_at(part: Part, answer: Result<(), UpstreamError>) -> bool {
    matches!(answer, Err(UpstreamError::Down { part: down, .. }) if down == part)
}

#[tokio::test]
async fn what_fails_at_once_is_checked_and_nobody_else_has_to_ask() {
    let sick = Switch::default();
    let is_sick = sick.clone();
    let peer = Peer::new(move |_, _| if is_sick.is_on() { Reply::Hang(String::new()) } else { Reply::Say(json("{}")) });
    let (peer, clock) = (peer.await, Clock::system());
    let upstream = on(&clock, peer.settings());
    manifest(&upstream, "latest").await.unwrap();
    let mut recoveries = upstream.recoveries();
    sick.set(true);
    assert!(matches!(manifest(&upstream, "latest").await, Err(UpstreamError::Unreachable { .. })));
    assert!(!upstream.is_down(), "one failure is a doubt");
    until(&clock, || upstream.is_down()).await;
    let asked = peer.count("GET /v2/");
    for _ in 0..20 {
        let down = manifest(&upstream, "latest").await.unwrap_err();
        assert!(down.is_outage() && down.to_string().contains("out of order since 20"), "{down}");
    }
    assert_eq!(peer.count("GET /v2/"), asked);
    assert!(!recoveries.has_changed().unwrap());
    sick.set(false);
    until(&clock, || !upstream.is_down()).await;
    assert!(recoveries.has_changed().unwrap());
    recoveries.mark_unchanged();
    manifest(&upstream, "latest").await.unwrap();
    assert!(peer.count("HEAD /v2/library/alpine/manifests/latest ") >= 3, "the probe asks what costs no pull");
}

#[tokio::test]
async fn a_time_out_opens_at_once_and_the_probe_alone_waits_for_the_next_one() {
    let peer = Peer::new(|_, _| Reply::Stall(String::new())).await;
    let upstream = peer.upstream();
    assert!(matches!(manifest(&upstream, "latest").await, Err(UpstreamError::TimedOut { .. })));
    assert!(upstream.is_down());
    assert!(is_down_at(Part::Registry, manifest(&upstream, "latest").await));
    assert_eq!(peer.heads().len(), 1);
}

#[tokio::test]
async fn who_loses_patience_speaks_for_all_who_have_a_copy_and_any_answer_for_the_upstream() {
    let late = || Reply::Late(Duration::from_millis(300), json("{}"));
    let peer = Peer::new(move |_, head| if head.contains("/latest") { late() } else { Reply::Say(json("{}")) }).await;
    let clock = Clock::system();
    let upstream = on(&clock, peer.settings());
    upstream.lost_patience(Duration::ZERO);
    assert!(!upstream.is_down(), "nobody has been asked");
    for (round, is_answered_meanwhile) in [true, false].into_iter().enumerate() {
        let asking = task::spawn("client", {
            let upstream = upstream.clone();
            async move { manifest(&upstream, "latest").await }
        });
        let is_late = |head: &String| head.contains("/latest");
        until(&Clock::system(), || peer.heads().iter().filter(|head| is_late(head)).count() > round).await;
        upstream.lost_patience(Duration::from_secs(3600));
        assert!(!upstream.is_down(), "it has not had so long");
        upstream.lost_patience(Duration::ZERO);
        assert!(upstream.is_down());
        if is_answered_meanwhile {
            manifest(&upstream, "other").await.expect("it may only be slow: who has nothing asks on");
            assert!(!upstream.is_down(), "it has answered someone");
        }
        asking.await.unwrap().unwrap();
        assert!(!upstream.is_down(), "it has answered");
    }
    upstream.lost_patience(Duration::ZERO);
    assert!(!upstream.is_down(), "nothing is owed");
}

#[tokio::test]
async fn now_and_then_a_failure_is_no_outage_and_no_client_sees_it() {
    let count = AtomicUsize::new(0);
    let peer = Peer::new(move |_, _| match count.fetch_add(1, Ordering::SeqCst) % 10 {
        3 => unavailable(),
        7 => Reply::Hang(String::new()),
        _ => Reply::Say(json("{}")),
    })
    .await;
    let upstream = peer.upstream();
    for n in 0..60 {
        manifest(&upstream, &format!("tag-{n}")).await.unwrap();
        assert!(!upstream.is_down());
    }
    assert!(peer.heads().len() >= 66);
}

#[tokio::test]
async fn a_failure_in_passing_is_asked_again_and_a_limit_is_not() {
    for (status, asked) in [(500, 2), (502, 2), (503, 2), (504, 2), (429, 1), (405, 1), (404, 1)] {
        let peer = Peer::new(move |_, head| match head.starts_with("GET") {
            true => Reply::Say(answer(status, "", "")),
            false => Reply::Say(json("{}")),
        })
        .await;
        let error = manifest(&peer.upstream(), "latest").await.unwrap_err();
        assert!(!matches!(error, UpstreamError::Down { .. }), "{error}");
        assert_eq!(peer.count("GET /v2/"), asked, "{status}");
    }
}

#[tokio::test]
async fn one_image_that_upstream_has_lost_is_no_outage() {
    let peer = Peer::new(|_, head| match head.contains("/manifests/lost") {
        true => unavailable(),
        false => Reply::Say(json("{}")),
    })
    .await;
    let clock = Clock::system();
    let upstream = on(&clock, peer.settings());
    manifest(&upstream, "latest").await.unwrap();
    for _ in 0..3 {
        manifest(&upstream, "lost").await.unwrap_err();
        let checks = peer.count("HEAD /v2/library/alpine/manifests/latest");
        until(&clock, || peer.count("HEAD /v2/library/alpine/manifests/latest") > checks).await;
        manifest(&upstream, "latest").await.unwrap();
        assert!(!upstream.is_down());
    }
}

#[tokio::test]
async fn where_head_alone_is_odd_get_goes_on() {
    let peer = Peer::new(|_, head| match head.starts_with("HEAD") {
        true => Reply::Say("HTTP/1.1 405 x\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n".into()),
        false => Reply::Say(json("{}")),
    })
    .await;
    let clock = Clock::system();
    let upstream = on(&clock, peer.settings());
    upstream.head_manifest(&alpine(), &latest(), Reach::Registry).await.unwrap_err();
    until(&clock, || peer.count("/tags/list?n=1") > 0).await;
    manifest(&upstream, "latest").await.unwrap();
    assert!(!upstream.is_down());
}

#[tokio::test]
async fn nothing_but_bare_404s_is_an_outage() {
    let peer = Peer::new(|_, _| Reply::Say(answer(404, "content-type: text/plain\r\n", "404 page not found"))).await;
    let clock = Clock::system();
    let upstream = on(&clock, peer.settings());
    manifest(&upstream, "latest").await.unwrap_err();
    until(&clock, || upstream.is_down()).await;
}

#[tokio::test]
async fn a_token_in_hand_needs_no_token_service() {
    let sick = Switch::default();
    let is_sick = sick.clone();
    let peer = Peer::new(move |_, head| {
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        match head {
            _ if head.starts_with("GET /token") && is_sick.is_on() => unavailable(),
            _ if head.starts_with("GET /token") => Reply::Say(json(r#"{"token":"t","expires_in":300}"#)),
            _ if head.contains("authorization: Bearer t") => Reply::Say(json("{}")),
            _ => {
                let challenge = format!("www-authenticate: Bearer realm=\"http://{host}/token\"\r\n");
                Reply::Say(answer(401, &challenge, r#"{"errors":[]}"#))
            }
        }
    });
    let (peer, clock) = (peer.await, Clock::system());
    let upstream = on(&clock, peer.settings());
    manifest(&upstream, "latest").await.unwrap();
    sick.set(true);
    let nginx: RepoName = "library/nginx".parse().unwrap();
    upstream.manifest(&nginx, &latest(), Reach::Fallbacks).await.unwrap_err();
    until(&clock, || upstream.is_down()).await;
    let (tokens, all) = (peer.count("library%2Fbusybox"), peer.count("/library/busybox/"));
    let busybox: RepoName = "library/busybox".parse().unwrap();
    let down = upstream.manifest(&busybox, &latest(), Reach::Fallbacks).await.map(drop);
    assert!(is_down_at(Part::Token, down));
    assert_eq!((peer.count("library%2Fbusybox"), peer.count("/library/busybox/")), (tokens, all));
    manifest(&upstream, "latest").await.unwrap();
    sick.set(false);
    until(&clock, || !upstream.is_down()).await;
    upstream.manifest(&busybox, &latest(), Reach::Fallbacks).await.unwrap();
}

#[tokio::test]
async fn a_cdn_that_is_gone_is_met_by_the_probe_for_one_byte() {
    let sick = Switch::default();
    let is_sick = sick.clone();
    let cdn = Peer::new(move |_, head| match head {
        _ if is_sick.is_on() => Reply::Hang(String::new()),
        _ if head.contains("range: bytes=0-0\r\n") => Reply::Say(answer(206, "content-range: bytes 0-0/10\r\n", "0")),
        _ => Reply::Say(answer(200, "", "0123456789")),
    });
    let cdn = cdn.await;
    let signed = cdn.url("/b");
    let peer = Peer::new(move |_, head| match head.contains("/blobs/") {
        true => Reply::Say(answer(307, &format!("location: {signed}\r\n"), "")),
        false => Reply::Say(json("{}")),
    });
    let (peer, clock) = (peer.await, Clock::system());
    let upstream = on(&clock, peer.settings());
    let blob = || async { upstream.blob(&alpine(), &digest(), Span::WHOLE, &flow()).await.map(drop) };
    blob().await.unwrap();
    sick.set(true);
    blob().await.unwrap_err();
    until(&clock, || upstream.is_down()).await;
    let (met, asked) = (cdn.count("range: bytes=0-0"), cdn.heads().len());
    assert!(is_down_at(Part::Cdn, blob().await));
    assert_eq!(cdn.heads().len() - asked, cdn.count("range: bytes=0-0") - met, "only the probe goes there");
    manifest(&upstream, "latest").await.unwrap();
    sick.set(false);
    until(&clock, || !upstream.is_down()).await;
    blob().await.unwrap();
}

#[tokio::test]
async fn a_download_that_breaks_or_stalls_is_taken_up_at_once() {
    for text in ["HTTP/1.1 200 x\r\ncontent-length: 10\r\n\r\n01234", "HTTP/1.1 200 x\r\ncontent-length: 10\r\n\r\n0"] {
        let stalls = text.ends_with("\r\n0");
        let peer = Peer::new(move |_, head| match head.contains("range: ") {
            false if stalls => Reply::Stall(text.into()),
            false => Reply::Hang(text.into()),
            true => Reply::Say(answer(206, "content-range: bytes 5-9/10\r\n", "56789")),
        })
        .await;
        let upstream = peer.upstream();
        let mut body = upstream.blob(&alpine(), &digest(), Span::WHOLE, &flow()).await.unwrap();
        while body.next().await.is_ok() {}
        upstream.blob(&alpine(), &digest(), Span { start: 5, end: None }, &flow()).await.unwrap();
        assert!(!upstream.is_down());
    }
}
