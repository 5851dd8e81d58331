//! Tokens, passwords, and who gets to see them.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::upstream::Span;
use crate::upstream::{Part, UpstreamError};

/// A registry with a token service at the same port; its `n`th token is `t<n>`, and `accepts` says which will do.
async fn hub(accepts: impl Fn(&str) -> bool + Send + Sync + 'static) -> Peer {
    let issued = Mutex::new(0);
    Peer::new(move |_, head| {
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        if head.starts_with("GET /token") {
            let mut issued = issued.lock().unwrap();
            *issued += 1;
            let body = format!(r#"{{"token":"t{issued}","expires_in":300}}"#);
            return Reply::Late(Duration::from_millis(50), json(&body));
        }
        if head.lines().any(|line| line.strip_prefix("authorization: Bearer ").is_some_and(&accepts)) {
            return Reply::Say(json("{}"));
        }
        let challenge = format!("www-authenticate: Bearer realm=\"http://{host}/token\",service=\"hub, test\"\r\n");
        Reply::Say(answer(401, &challenge, r#"{"errors":[]}"#))
    })
    .await
}

async fn ask_at_once(upstream: &Upstream, callers: usize) {
    let ask = |_| {
        let upstream = upstream.clone();
        task::spawn("caller", async move { upstream.manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap() })
    };
    for caller in (0..callers).map(ask).collect::<Vec<_>>() {
        caller.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_callers_share_a_token_and_its_successor() {
    let peer = hub(|_| true).await;
    let clock = Clock::system();
    let settings = Settings { max_connections: 50, header_timeout: Duration::from_secs(5), ..peer.settings() };
    let upstream = Upstream::new(settings, clock.clone(), Metrics::new(&prometheus::Registry::new())).unwrap();
    ask_at_once(&upstream, 50).await;
    assert_eq!(peer.count("GET /token?service=hub%2C%20test&scope=repository%3Alibrary%2Falpine%3Apull "), 1);
    clock.advance(Duration::from_secs(230));
    ask_at_once(&upstream, 50).await;
    assert_eq!(peer.count("GET /token"), 1);
    clock.advance(Duration::from_secs(20));
    ask_at_once(&upstream, 50).await;
    assert_eq!(peer.count("GET /token"), 2);
    assert_eq!(peer.count("authorization: Bearer t2"), 50);

    // Another repository needs another token, but no challenge.
    let before = peer.heads().len();
    upstream.manifest(&"library/nginx".parse().unwrap(), &latest(), Reach::Fallbacks).await.unwrap();
    let heads = peer.heads().split_off(before);
    assert_eq!(heads.len(), 2);
    assert!(heads[0].starts_with("GET /token") && heads[1].contains("authorization: Bearer t3"));
}

#[tokio::test]
async fn a_caller_who_leaves_takes_no_token_away() {
    let peer = hub(|_| true).await;
    let upstream = peer.upstream();
    let (repo, tag) = (alpine(), latest());
    assert!(
        tokio::time::timeout(Duration::from_millis(30), upstream.manifest(&repo, &tag, Reach::Fallbacks))
            .await
            .is_err()
    );
    upstream.manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap();
    assert_eq!(peer.count("GET /token"), 1);
}

#[tokio::test]
async fn a_place_is_not_kept_while_a_token_is_fetched() {
    let peer = hub(|_| true).await;
    let upstream = upstream(Settings { max_connections: 1, ..peer.settings() });
    ask_at_once(&upstream, 5).await;
}

#[tokio::test]
async fn a_cached_token_that_is_refused_is_replaced_once() {
    let revoked = Arc::new(AtomicBool::new(false));
    let is_revoked = revoked.clone();
    let peer = hub(move |token| token != "t1" || !is_revoked.load(Ordering::SeqCst)).await;
    let upstream = peer.upstream();
    upstream.manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap();
    revoked.store(true, Ordering::SeqCst);
    upstream.manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap();
    assert_eq!((peer.count("GET /token"), peer.count("Bearer t1"), peer.count("Bearer t2")), (2, 2, 1));
}

#[tokio::test]
async fn what_no_token_opens_is_absent() {
    let peer = hub(|_| false).await;
    let upstream = peer.upstream();
    for (tokens, requests) in [(1, 3), (2, 6)] {
        let refused = upstream.manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap_err();
        assert_eq!(refused, UpstreamError::Refused { status: 401 });
        assert_eq!((peer.count("GET /token"), peer.heads().len()), (tokens, requests));
    }
}

#[tokio::test]
async fn a_token_outlives_its_service() {
    let is_down = Arc::new(AtomicBool::new(false));
    let down = is_down.clone();
    let peer = Peer::new(move |_, head| {
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        match head {
            _ if head.starts_with("GET /token") && down.load(Ordering::SeqCst) => {
                Reply::Say(answer(503, "content-type: text/html\r\n", "<html>"))
            }
            _ if head.starts_with("GET /token") => Reply::Say(json(r#"{"access_token":"t","expires_in":300}"#)),
            _ if head.contains("authorization") => Reply::Say(json("{}")),
            _ => Reply::Say(answer(401, &format!("www-authenticate: bearer realm=\"http://{host}/token\"\r\n"), "")),
        }
    })
    .await;
    let clock = Clock::system();
    let upstream = Upstream::new(peer.settings(), clock.clone(), Metrics::new(&prometheus::Registry::new())).unwrap();
    upstream.manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap();
    is_down.store(true, Ordering::SeqCst);
    clock.advance(Duration::from_secs(250));
    upstream.manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap();
    upstream.manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap();
    assert_eq!(peer.count("GET /token"), 2);
    clock.advance(Duration::from_secs(50));
    let error = upstream.manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap_err();
    assert_eq!(error, UpstreamError::Status { part: Part::Token, status: 503 });
    assert!(error.is_outage());
}

#[tokio::test]
async fn a_password_goes_to_the_token_service_and_nowhere_else() {
    let peer = hub(|_| true).await;
    let upstream = upstream(Settings { accounts: account(), ..peer.settings() });
    upstream.manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap();
    assert_eq!(peer.count("authorization: Basic"), 1);
    let question = peer.heads().into_iter().find(|head| head.contains("authorization: Basic")).unwrap();
    assert!(question.starts_with("GET /token?") && question.contains("&account=me&client_id=larder "));
}

#[tokio::test]
async fn a_realm_elsewhere_gets_nothing() {
    let elsewhere = Peer::new(|_, _| Reply::Say(json(r#"{"token":"t"}"#))).await;
    let realm = format!("http://localhost:{}/token?word=secret", elsewhere.address.port());
    let peer =
        Peer::new(move |_, _| Reply::Say(answer(401, &format!("www-authenticate: Bearer realm=\"{realm}\"\r\n"), "")))
            .await;
    let upstream = upstream(Settings { accounts: account(), ..peer.settings() });
    let error = upstream.manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Forbidden { part: Part::Token, .. }), "{error}");
    assert!(!error.to_string().contains("secret"));
    assert_eq!((elsewhere.heads().len(), peer.heads().len()), (0, 1));
}

#[tokio::test]
async fn a_registry_may_ask_for_the_password_itself() {
    let peer = Peer::new(|_, head| match head {
        // me:hunter2
        _ if head.contains("authorization: Basic bWU6aHVudGVyMg==\r\n") => Reply::Say(json("{}")),
        _ => Reply::Say(answer(401, "www-authenticate: Basic realm=\"x\"\r\n", "")),
    })
    .await;
    let known = upstream(Settings { accounts: account(), ..peer.settings() });
    known.manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap();
    known.manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap();
    assert_eq!(peer.heads().len(), 3);
    let error = peer.upstream().manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap_err();
    assert_eq!(error, UpstreamError::Refused { status: 401 });
    let wrong = vec![Account { username: "me".into(), password: Secret::new("wrong") }];
    let error = upstream(Settings { accounts: wrong, ..peer.settings() })
        .manifest(&alpine(), &latest(), Reach::Fallbacks)
        .await;
    assert_eq!(error.unwrap_err(), UpstreamError::AccountRefused { part: Part::Registry });
}

#[tokio::test]
async fn a_redirect_takes_the_range_along_and_leaves_the_credentials() {
    let cdn = Peer::new(|number, head| match number {
        0 => Reply::Say(answer(403, "content-type: application/xml\r\n", "<Error/>")),
        _ if head.starts_with("HEAD") => Reply::Say("HTTP/1.1 200 x\r\ncontent-length: 10\r\n\r\n".into()),
        _ => Reply::Say(answer(206, "content-range: bytes 4-9/10\r\n", "456789")),
    })
    .await;
    let signed = cdn.url("/b?signature=secret");
    let peer = Peer::new(move |_, head| match head {
        _ if head.contains("authorization: Basic") => {
            Reply::Say(answer(307, &format!("location: {signed}\r\n"), "see"))
        }
        _ => Reply::Say(answer(401, "www-authenticate: Basic\r\n", "")),
    })
    .await;
    let upstream = upstream(Settings { accounts: account(), ..peer.settings() });
    let mut body = upstream.blob(&alpine(), &digest(), Span { start: 4, end: None }, &flow()).await.unwrap();
    assert_eq!((body.start, body.total), (4, Some(10)));
    assert_eq!(body.next().await.unwrap().unwrap(), "456789");
    assert_eq!(body.next().await.unwrap(), None);
    // The link was refused once, so the registry was asked for another.
    assert_eq!((cdn.heads().len(), peer.count("authorization")), (2, 2));
    for head in cdn.heads() {
        assert!(head.starts_with("GET /b?signature=secret ") && !head.contains("authorization"), "{head}");
        assert!(head.contains("range: bytes=4-\r\n") && head.contains("accept-encoding: identity\r\n"), "{head}");
    }
    assert_eq!(upstream.head_blob(&alpine(), &digest()).await.unwrap(), Some(10));
}

#[tokio::test]
async fn a_redirect_alone_is_no_leave_to_read() {
    for (status, is_absent) in [(404, true), (410, true), (500, false)] {
        let cdn = Peer::new(move |_, _| Reply::Say(answer(status, "", ""))).await;
        let location = format!("location: http://cdn.localhost:{}/b\r\n", cdn.address.port());
        let peer = Peer::new(move |_, _| Reply::Say(answer(307, &location, ""))).await;
        let error = peer.upstream().head_blob(&alpine(), &digest()).await.err().unwrap();
        assert_eq!(error.is_absence(), is_absent, "{status}: {error}");
    }
}

#[tokio::test]
async fn a_certificate_is_believed_only_if_we_were_told_to() {
    let signed = rcgen::generate_simple_self_signed(["hub.localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let peer = Peer::with_tls(config, |_, _| Reply::Say(json("{}"))).await;
    let url = |host: &str| format!("https://{host}:{}", peer.address.port()).parse().unwrap();
    let told = Settings { extra_ca: Some(signed.cert.pem().into()), url: url("hub.localhost"), ..peer.settings() };
    upstream(told.clone()).manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap();
    for settings in [Settings { extra_ca: some_ca(), ..told.clone() }, Settings { url: url("evil.localhost"), ..told }]
    {
        let error = upstream(settings).manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    assert_eq!(peer.heads().len(), 1);
}
