//! Connections, bodies, and how they fail.

use super::*;
use crate::upstream::Span;
use crate::upstream::{BlobBody, Part, Phase, UpstreamError};

async fn manifest_error(reply: impl Fn() -> Reply + Send + Sync + 'static) -> (UpstreamError, usize) {
    let peer = Peer::new(move |_, _| reply()).await;
    let error = peer.upstream().manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap_err();
    (error, peer.heads().len())
}

async fn blob_from(from: u64, reply: impl Fn() -> Reply + Send + Sync + 'static) -> Result<BlobBody, UpstreamError> {
    Peer::new(move |_, _| reply())
        .await
        .upstream()
        .blob(&alpine(), &digest(), Span { start: from, end: None }, &flow())
        .await
}

async fn read(mut body: BlobBody) -> Result<Vec<u8>, UpstreamError> {
    let mut whole = Vec::new();
    while let Some(piece) = body.next().await? {
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}

#[tokio::test]
async fn a_stale_connection_is_replaced_once() {
    // The second request comes over the first one's connection, and the third over a new one.
    let peer =
        Peer::new(|number, _| if number == 1 { Reply::Hang(String::new()) } else { Reply::Say(json("{}")) }).await;
    let upstream = peer.upstream();
    upstream.manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap();
    upstream.manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap();
    assert_eq!(peer.heads().len(), 3);

    let (error, attempts) = manifest_error(|| Reply::Hang(String::new())).await;
    assert!(matches!(error, UpstreamError::Unreachable { part: Part::Registry, .. }), "{error}");
    assert_eq!(attempts, 2);
}

#[tokio::test]
async fn silence_ends_in_time_and_is_not_repeated() {
    let (error, attempts) = manifest_error(|| Reply::Stall(String::new())).await;
    assert_eq!(error, UpstreamError::TimedOut { part: Part::Registry, phase: Phase::Head });
    assert_eq!(attempts, 1);
    let (error, _) = manifest_error(|| Reply::Stall("HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\n{".into())).await;
    assert_eq!(error, UpstreamError::TimedOut { part: Part::Registry, phase: Phase::Body });
}

#[tokio::test]
async fn a_server_that_says_nothing_to_a_handshake_is_left_in_time() {
    let peer = Peer::new(|_, _| Reply::Stall(String::new())).await;
    let url = format!("https://{}", peer.address).parse().unwrap();
    let limit = Duration::from_millis(200);
    let settings = Settings { url, extra_ca: some_ca(), connect_timeout: limit, ..peer.settings() };
    let error = upstream(settings).manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap_err();
    assert_eq!(error, UpstreamError::TimedOut { part: Part::Registry, phase: Phase::Connect });
}

#[tokio::test]
async fn a_closed_port_is_named() {
    let peer = Peer::new(|_, _| Reply::Stall(String::new())).await;
    let settings = Settings { url: "http://hub.localhost:1".parse().unwrap(), ..peer.settings() };
    let error = upstream(settings).manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap_err();
    assert!(error.to_string().contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn bodies_that_end_early_are_cut() {
    for text in [
        "HTTP/1.1 200 x\r\ncontent-length: 10\r\n\r\n01234",
        "HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n01234\r\n",
    ] {
        let body = blob_from(0, move || Reply::Hang(text.into())).await.unwrap();
        let error = read(body).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Cut { part: Part::Registry, .. }), "{error}");
    }
    // Well-formed, and still shorter than the range that it announces.
    let short =
        "HTTP/1.1 206 x\r\ntransfer-encoding: chunked\r\ncontent-range: bytes 4-9/10\r\n\r\n1\r\n4\r\n0\r\n\r\n";
    let error = read(blob_from(4, move || Reply::Say(short.into())).await.unwrap()).await.unwrap_err();
    assert_eq!(error, UpstreamError::Cut { part: Part::Registry, reason: "5 bytes are missing".into() });
    let long =
        "HTTP/1.1 206 x\r\ntransfer-encoding: chunked\r\ncontent-range: bytes 9-9/10\r\n\r\n2\r\n9A\r\n0\r\n\r\n";
    let error = read(blob_from(9, move || Reply::Say(long.into())).await.unwrap()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Invalid { .. }), "{error}");
}

#[tokio::test]
async fn a_range_is_what_was_asked_for_or_the_whole() {
    let whole = blob_from(4, || Reply::Say(answer(200, "", "0123456789"))).await.unwrap();
    assert_eq!((whole.start, whole.total), (0, Some(10)));
    assert_eq!(read(whole).await.unwrap(), b"0123456789");
    let unknown = blob_from(4, || Reply::Say(answer(206, "content-range: bytes 4-9/*\r\n", "456789"))).await.unwrap();
    assert_eq!((unknown.start, unknown.total), (4, None));
    for range in ["bytes 3-9/10", "bytes 5-9/10", "bytes 4-8/10", "bytes 4-10/11", "bytes */10", ""] {
        let line = format!("content-range: {range}\r\n");
        let error = blob_from(4, move || Reply::Say(answer(206, &line, "456789"))).await.err().unwrap();
        assert!(matches!(error, UpstreamError::Invalid { .. }), "{range}: {error}");
    }
    let behind = blob_from(10, || Reply::Say(answer(416, "content-range: bytes */10\r\n", ""))).await;
    assert_eq!(behind.err().unwrap(), UpstreamError::OutOfRange { part: Part::Registry });
    let unasked = blob_from(0, || Reply::Say(answer(206, "content-range: bytes 0-9/10\r\n", "0123456789"))).await;
    assert_eq!(unasked.err().unwrap(), UpstreamError::Status { part: Part::Registry, status: 206 });
}

#[tokio::test]
async fn answers_that_are_none_are_told_apart() {
    let registry = Part::Registry;
    let status = |status| UpstreamError::Status { part: registry, status };
    for (code, lines, expected) in [
        (404, "content-type: application/json\r\n", UpstreamError::NotFound),
        (404, "", UpstreamError::NotFound),
        (404, "content-type: text/plain\r\n", status(404)),
        (404, "content-type: text/html\r\n", status(404)),
        (403, "content-type: application/json\r\n", UpstreamError::Refused { status: 403 }),
        (403, "content-type: text/html\r\n", status(403)),
        (401, "", UpstreamError::Refused { status: 401 }),
        (401, "content-type: text/html\r\nwww-authenticate: Basic\r\n", status(401)),
        (405, "content-type: text/html\r\n", status(405)),
        (503, "", status(503)),
        (307, "", status(307)),
        (429, "", UpstreamError::RateLimited { part: registry, retry_after: None }),
        (
            429,
            "retry-after: 30\r\n",
            UpstreamError::RateLimited { part: registry, retry_after: Some(Duration::from_secs(30)) },
        ),
    ] {
        assert_eq!(manifest_error(move || Reply::Say(answer(code, lines, "x"))).await.0, expected, "{code} {lines}");
    }
}

#[tokio::test]
async fn answers_that_cannot_be_used_are_refused() {
    for lines in ["content-type: text/html; charset=utf-8\r\n", "content-encoding: gzip\r\n"] {
        let (error, _) = manifest_error(move || Reply::Say(answer(200, lines, "<html>"))).await;
        assert!(matches!(error, UpstreamError::Invalid { .. }), "{error}");
    }
    let large = "x".repeat((4 << 20) + 1);
    let chunked = format!("HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n400001\r\n{large}\r\n0\r\n\r\n");
    for text in [answer(200, "", &large), chunked] {
        let (error, _) = manifest_error(move || Reply::Say(text.clone())).await;
        assert!(error.to_string().contains("larger than"), "{error}");
    }
    for location in ["http://169.254.169.254/x", "ftp://hub.localhost/x", "http://me:word@hub.localhost/x"] {
        let lines = format!("location: {location}\r\n");
        let (error, _) = manifest_error(move || Reply::Say(answer(302, &lines, ""))).await;
        assert!(matches!(error, UpstreamError::Forbidden { part: Part::Cdn, .. }), "{location}: {error}");
    }
    let (error, hops) = manifest_error(|| Reply::Say(answer(302, "location: /v2/again\r\n", ""))).await;
    assert!(error.to_string().contains("redirects"), "{error}");
    assert_eq!(hops, 6);
}

#[tokio::test]
async fn downloads_wait_for_each_other_and_manifests_do_not_wait_for_them() {
    let peer = Peer::new(|_, head| match head.contains("/blobs/") {
        true => Reply::Say(answer(200, "", "0123456789")),
        false => Reply::Say(json("{}")),
    })
    .await;
    let upstream = upstream(Settings { max_connections: 1, ..peer.settings() });
    let held = upstream.blob(&alpine(), &digest(), Span::WHOLE, &flow()).await.unwrap();
    upstream.manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap();
    let (repo, digest, flow) = (alpine(), digest(), flow());
    let second = upstream.blob(&repo, &digest, Span::WHOLE, &flow);
    tokio::pin!(second);
    assert!(tokio::time::timeout(Duration::from_millis(600), &mut second).await.is_err());
    drop(held);
    assert_eq!(read(second.await.unwrap()).await.unwrap(), b"0123456789");
}

#[tokio::test]
async fn what_nobody_waits_for_leaves_a_place_to_clients_and_may_use_it_when_one_joins() {
    let peer = Peer::new(|_, _| Reply::Say(answer(200, "", "0123456789"))).await;
    let upstream = upstream(Settings { max_connections: 2, ..peer.settings() });
    let (repo, digest) = (alpine(), digest());
    let (ahead, also) = (upstream.flow(Priority::Background), upstream.flow(Priority::Background));
    let held = upstream.blob(&repo, &digest, Span::WHOLE, &ahead).await.unwrap();
    let mut second = Box::pin(upstream.blob(&repo, &digest, Span::WHOLE, &also));
    for _ in 0..100 {
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    upstream.blob(&repo, &digest, Span::WHOLE, &flow()).await.unwrap();
    assert_eq!(peer.heads().len(), 2);
    also.raise();
    second.await.unwrap();
    drop(held);
}

#[tokio::test]
async fn a_wait_for_a_share_of_the_line_is_no_stall() {
    let peer = Peer::new(|_, _| Reply::Say(answer(200, "", "0123456789"))).await;
    // The first piece is read at once; what it costs is paid for in one second, which is longer than the stall timeout.
    let upstream = upstream(Settings { bandwidth: Some(10), ..peer.settings() });
    assert_eq!(
        read(upstream.blob(&alpine(), &digest(), Span::WHOLE, &flow()).await.unwrap()).await.unwrap(),
        b"0123456789"
    );
    assert_eq!(
        read(upstream.blob(&alpine(), &digest(), Span::WHOLE, &flow()).await.unwrap()).await.unwrap(),
        b"0123456789"
    );
}

#[tokio::test]
async fn each_question_reads_its_answer() {
    let limits = "ratelimit-limit: 100;w=21600\r\nratelimit-remaining: 20;w=21600\r\n";
    let peer = Peer::new(move |_, head| {
        let path = head.split(' ').nth(1).unwrap().to_owned();
        Reply::Say(match path {
            _ if head.starts_with("HEAD /v2/library/alpine/manifests/latest") => format!(
                "HTTP/1.1 200 x\r\ncontent-length: 42\r\ncontent-type: a/b\r\ndocker-content-digest: {}\r\n{limits}\r\n",
                digest()
            ),
            _ if path.ends_with("/tags/list?n=2&last=1%2E0") => {
                answer(200, "link: </v2/next>; rel=\"next\"\r\n", r#"{"tags":["2.0","not a tag","3.0"]}"#)
            }
            _ if path.ends_with("/tags/list") => json(r#"{"name":"library/alpine","tags":null}"#),
            _ if path.contains("/referrers/") => {
                answer(200, "content-type: application/vnd.oci.image.index.v1+json\r\n", r#"{"manifests":[]}"#)
            }
            _ => answer(500, "", ""),
        })
    })
    .await;
    let upstream = peer.upstream();
    let head = upstream.head_manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap();
    assert_eq!(head.digest, Some(digest()));
    let told = &upstream.report().registry.accounts[0];
    assert_eq!((told.name.as_str(), told.limit, told.remaining), ("anonymous", Some(100), Some(20)));
    assert!(peer.heads()[0].contains("accept: application/vnd.oci.image.index.v1+json, application/vnd.docker"));
    assert!(peer.heads()[0].contains("user-agent: larder/"));
    let page = upstream.tags(&alpine(), Some(2), Some("1.0")).await.unwrap();
    assert_eq!((page.tags, page.more), (vec!["2.0".parse().unwrap(), "3.0".parse().unwrap()], true));
    let page = upstream.tags(&alpine(), None, None).await.unwrap();
    assert_eq!((page.tags, page.more), (vec![], false));
    assert_eq!(upstream.referrers(&alpine(), &digest()).await.unwrap(), r#"{"manifests":[]}"#);
}

#[tokio::test]
async fn what_happens_is_counted() {
    let limits = "ratelimit-limit: 100;w=21600\r\nratelimit-remaining: 20;w=21600\r\n";
    let peer = Peer::new(move |_, head| match head {
        _ if head.contains("/manifests/latest") => Reply::Say(answer(200, limits, "{}")),
        _ if head.contains("/manifests/slow") => Reply::Stall(String::new()),
        _ if head.contains("/manifests/") => Reply::Say(answer(503, "", "")),
        _ => Reply::Say(answer(307, "location: http://cdn.localhost:1/\r\n", "")),
    })
    .await;
    let figures = prometheus::Registry::new();
    let metrics = Metrics::new(&figures);
    let named = |name: &str| {
        let settings = Settings { name: name.parse().unwrap(), ..peer.settings() };
        Upstream::new(settings, Clock::system(), metrics.clone()).unwrap()
    };
    let text = || prometheus::TextEncoder::new().encode_to_string(&figures.gather()).unwrap();
    let has = |lines: &[&str]| lines.iter().for_each(|line| assert!(text().contains(line), "{line}\n{}", text()));

    let hub = named("hub.test");
    has(&[r#"larder_upstream_up{part="cdn",upstream="hub.test"} 1"#]);
    hub.manifest(&alpine(), &latest(), Reach::Fallbacks).await.unwrap();
    hub.blob(&alpine(), &digest(), Span::WHOLE, &flow()).await.err().unwrap();
    has(&[
        r#"larder_upstream_up{part="registry",upstream="hub.test"} 1"#,
        r#"larder_upstream_up{part="cdn",upstream="hub.test"} 0"#,
        r#"larder_upstream_bytes_total{upstream="hub.test"} 2"#,
        r#"larder_upstream_ratelimit_limit{upstream="hub.test"} 100"#,
        r#"larder_upstream_ratelimit_remaining{upstream="hub.test"} 20"#,
        r#"larder_upstream_requests_total{kind="manifest",status="200",upstream="hub.test"} 1"#,
        r#"larder_upstream_requests_total{kind="blob",status="307",upstream="hub.test"} 1"#,
        r#"larder_upstream_requests_total{kind="blob",status="error",upstream="hub.test"} 1"#,
        r#"larder_upstream_request_duration_seconds_count{kind="manifest",upstream="hub.test"} 1"#,
    ]);
    for (name, tag, status) in [("ill.test", "ill", "503"), ("slow.test", "slow", "timeout")] {
        named(name).manifest(&alpine(), &tag.parse().unwrap(), Reach::Fallbacks).await.unwrap_err();
        has(&[
            &format!(r#"larder_upstream_up{{part="registry",upstream="{name}"}} 0"#),
            &format!(r#"larder_upstream_requests_total{{kind="manifest",status="{status}",upstream="{name}"}} "#),
        ]);
    }
}

#[test]
fn settings_that_cannot_work_are_refused_and_a_dead_network_is_no_reason() {
    let settings = |url: &str| Settings {
        name: "hub.test".parse().unwrap(),
        url: url.parse().unwrap(),
        fallbacks: Vec::new(),
        accounts: Vec::new(),
        reserve: 10,
        proxies: Proxies::default(),
        extra_ca: some_ca(),
        connect_timeout: Duration::from_secs(1),
        header_timeout: Duration::from_secs(1),
        stall_timeout: Duration::from_secs(1),
        max_connections: 1,
        parallel: 1,
        bandwidth: None,
    };
    let new = |settings| Upstream::new(settings, Clock::system(), Metrics::new(&prometheus::Registry::new()));
    for url in ["https://no-such-host.invalid", "http://10.0.0.1:5000/hub/", "https://[::1]:5000"] {
        assert!(new(settings(url)).is_ok(), "{url}");
    }
    for url in ["registry.example", "/v2/", "ftp://a", "https://me:hunter2@a", "https://a:b", "https://a?x"] {
        let error = new(settings(url)).err().unwrap().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
    for pem in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(new(Settings { extra_ca: Some(pem.into()), ..settings("https://a") }).is_err());
    }
}
