//! Upstreams behind a proxy that says whatever a test wants. A real one is in `tests/it/clients/proxy.rs`.

use super::*;
use crate::upstream::{Part, Span, UpstreamError};

fn through(proxy: &Peer, url: &str) -> Settings {
    let proxy = Some(Secret::new(format!("http://me:hunter2@{}", proxy.address)));
    let proxies = Proxies { http: proxy.clone(), https: proxy, not_for: "direct.localhost".into() };
    Settings { url: url.parse().unwrap(), proxies, extra_ca: some_ca(), ..settings_of(0) }
}

/// Of a peer at that port, which need not be there.
fn settings_of(port: u16) -> Settings {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    Peer { address, heads: Arc::default() }.settings()
}

#[tokio::test]
async fn a_plain_upstream_is_asked_for_by_its_whole_url() {
    // The name does not exist: it is for the proxy to look it up.
    let proxy = Peer::new(|_, head| match head.contains("/blobs/") {
        true => Reply::Say(answer(307, "location: http://cdn.invalid/b\r\n", "")),
        false if head.contains("cdn.invalid") => Reply::Say(answer(200, "", "0123456789")),
        false => Reply::Say(json("{}")),
    })
    .await;
    let upstream = upstream(through(&proxy, "http://hub.invalid:5000"));
    upstream.manifest(&alpine(), &latest(), Reach::Registry).await.unwrap();
    upstream.blob(&alpine(), &digest(), Span::WHOLE, &flow()).await.unwrap();
    let heads = proxy.heads();
    assert!(heads[0].starts_with("GET http://hub.invalid:5000/v2/library/alpine/manifests/latest "), "{}", heads[0]);
    assert!(heads[2].starts_with("GET http://cdn.invalid/b "), "{}", heads[2]);
    // me:hunter2
    assert_eq!(proxy.count("proxy-authorization: Basic bWU6aHVudGVyMg==\r\n"), 3);
}

#[tokio::test]
async fn the_rules_about_where_we_go_hold_behind_a_proxy() {
    for location in ["http://169.254.169.254/latest", "http://10.0.0.1/b", "http://127.0.0.1:1/b"] {
        let proxy = Peer::new(move |_, _| Reply::Say(answer(307, &format!("location: {location}\r\n"), ""))).await;
        let error =
            upstream(through(&proxy, "http://hub.invalid")).blob(&alpine(), &digest(), Span::WHOLE, &flow()).await;
        assert!(matches!(error.err(), Some(UpstreamError::Forbidden { part: Part::Cdn, .. })), "{location}");
        assert_eq!(proxy.count("169.254") + proxy.count("10.0.0.1") + proxy.count("127.0.0.1:1"), 0);
    }
}

#[tokio::test]
async fn who_needs_no_proxy_is_reached_directly() {
    let proxy = Peer::new(|_, _| Reply::Say(answer(500, "", ""))).await;
    let peer = Peer::new(|_, _| Reply::Say(json("{}"))).await;
    let url = format!("http://direct.localhost:{}", peer.address.port());
    upstream(through(&proxy, &url)).manifest(&alpine(), &latest(), Reach::Registry).await.unwrap();
    assert_eq!((proxy.heads().len(), peer.count("proxy-authorization")), (0, 0));
}

#[tokio::test]
async fn a_proxy_that_fails_is_named_and_its_account_is_not() {
    for (case, reply) in [
        ("wants another account", "HTTP/1.1 407 x\r\n\r\n"),
        ("cannot reach it", "HTTP/1.1 502 x\r\n\r\n"),
        ("hangs up", ""),
    ] {
        let proxy = Peer::new(move |_, _| Reply::Hang(reply.into())).await;
        let upstream = upstream(through(&proxy, "https://hub.invalid"));
        let error = upstream.manifest(&alpine(), &latest(), Reach::Registry).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Unreachable { part: Part::Registry, .. }), "{case}: {error}");
        let text = format!("{error} {error:?}");
        assert!(text.contains(&proxy.address.to_string()), "{case}: {text}");
        assert!(!text.contains("hunter2") && !text.contains("bWU6"), "{case}: {text}");
        let head = &proxy.heads()[0];
        assert!(head.starts_with("CONNECT hub.invalid:443 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("Proxy-Authorization: Basic bWU6aHVudGVyMg==\r\n"), "{head}");
    }
    let nobody = Peer { address: SocketAddr::from(([127, 0, 0, 1], 1)), heads: Arc::default() };
    for url in ["http://hub.invalid", "https://hub.invalid"] {
        let error = upstream(through(&nobody, url)).manifest(&alpine(), &latest(), Reach::Registry).await.unwrap_err();
        assert!(
            error.to_string().contains("the proxy at 127.0.0.1:1: ") && error.to_string().contains("refused"),
            "{error}"
        );
    }
}
