//! Every fault does what it says, and says when it did nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use hyper::header::{HeaderName, RETRY_AFTER};
use larder::oci::Digest;

use super::{Guest, REPO, ask, both, connect};
use crate::support::client::{Answer, Call};
use crate::support::hub::{Fault, Hub, Role, Seen, Target};
use crate::support::image::{Image, noise};

const SIZE: usize = 200_000;

/// The blob that `fault` was let loose on, and what came of it.
async fn suffered(hub: &Hub, fault: Fault, range: Option<&str>) -> Answer {
    let digest = hub.add_blob(REPO, noise(7, SIZE));
    let guest = Guest::of(hub).await;
    let rule = hub.fault(Target::Cdn, fault.clone());
    let answer = match range {
        None => guest.cdn(&digest).await,
        Some(range) => guest.cdn_range(&digest, range).await,
    };
    assert_eq!(rule.hits(), 1, "{fault:?}");
    rule.lift();
    assert_eq!(guest.cdn(&digest).await.body, noise(7, SIZE), "{fault:?} is over");
    answer
}

fn length(answer: &Answer) -> Option<usize> {
    answer.header("content-length").map(|length| length.parse().unwrap())
}

#[tokio::test]
async fn bodies_end_as_the_fault_says() {
    for hub in both().await {
        for at in [0, 1, 65_536, 150_001] {
            let short = suffered(&hub, Fault::ShortBody(at), None).await;
            assert_eq!((short.status, length(&short), short.complete, short.reset), (200, Some(SIZE), false, false));
            assert_eq!(short.body, noise(7, SIZE)[..at as usize]);
        }
        let short = suffered(&hub, Fault::ShortBody(u64::MAX), None).await;
        assert_eq!((short.body.len(), short.complete), (SIZE - 1, false));
        let reset = suffered(&hub, Fault::ResetAfter(1000), None).await;
        assert_eq!((reset.status, reset.complete, reset.reset), (200, false, true));
        let reset = suffered(&hub, Fault::Reset, None).await;
        assert_eq!((reset.status, reset.complete, reset.reset), (0, false, true));
    }
}

#[tokio::test]
async fn bodies_are_as_wrong_as_the_fault_says() {
    for hub in both().await {
        let wrong = suffered(&hub, Fault::WrongBytes, None).await;
        assert_eq!((wrong.status, wrong.body.len(), wrong.complete), (200, SIZE, true));
        assert_eq!(wrong.body.iter().zip(noise(7, SIZE)).filter(|(a, b)| **a != *b).count(), 1);
        let truncated = suffered(&hub, Fault::Truncated, None).await;
        assert_eq!((length(&truncated), truncated.body.len(), truncated.complete), (Some(SIZE / 2), SIZE / 2, true));
        let long = suffered(&hub, Fault::LongBody(9), None).await;
        assert_eq!((length(&long), long.body.len(), long.complete), (Some(SIZE + 9), SIZE + 9, true));
        assert_eq!(long.body[..SIZE], noise(7, SIZE));
        let unannounced = suffered(&hub, Fault::NoContentLength, None).await;
        assert_eq!((length(&unannounced), unannounced.header("transfer-encoding")), (None, Some("chunked")));
        assert!(unannounced.complete && unannounced.body == noise(7, SIZE));
        let gzipped = suffered(&hub, Fault::GzipEncoding, None).await;
        assert_eq!(gzipped.header("content-encoding"), Some("gzip"));
        let mut plain = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&gzipped.body[..]), &mut plain).unwrap();
        assert_eq!(plain, noise(7, SIZE));
    }
}

#[tokio::test]
async fn ranges_are_ignored_or_misunderstood() {
    for hub in both().await {
        let ignored = suffered(&hub, Fault::IgnoreRange, Some("bytes=10-19")).await;
        assert_eq!((ignored.status, ignored.body.len(), ignored.header("content-range")), (200, SIZE, None));
        for (asked, start, end) in [("bytes=10-19", 11, 20), ("bytes=199999-", 199_998, 200_000)] {
            let other = suffered(&hub, Fault::WrongContentRange, Some(asked)).await;
            let range = format!("bytes {start}-{}/{SIZE}", end - 1);
            assert_eq!((other.status, other.header("content-range")), (206, Some(range.as_str())));
            assert_eq!(other.body, noise(7, SIZE)[start..end]);
        }
        let lie = Fault::Header(hyper::header::CONTENT_RANGE, Some("bytes 0-9/10".into()));
        let answer = suffered(&hub, lie, Some("bytes=10-19")).await;
        assert_eq!(answer.header("content-range"), Some("bytes 0-9/10"));
        assert_eq!(answer.body, noise(7, SIZE)[10..20]);
    }
}

#[tokio::test]
async fn an_endless_body_goes_on() {
    for hub in both().await {
        let digest = hub.add_blob(REPO, noise(7, 1000));
        let guest = Guest::of(&hub).await;
        hub.fault(Target::Cdn, Fault::Endless);
        let path = guest.redirected(&digest).await;
        let mut reading = connect(&hub, Role::Cdn).await.unwrap().start(&Call::get(&path)).await;
        assert_eq!(reading.head().header("transfer-encoding"), Some("chunked"));
        let body = reading.read(100_500).await;
        assert_eq!((body.len(), &body[100_000..]), (100_500, &noise(7, 1000)[..500]));
        drop(reading);
        hub.until_count(1, |seen: &Seen| seen.is(Target::Cdn) && seen.over).await;
    }
}

#[tokio::test]
async fn a_slow_body_takes_its_time() {
    let hub = Hub::plain().await;
    let digest = hub.add_blob(REPO, noise(7, 3000));
    let guest = Guest::of(&hub).await;
    hub.fault(Target::Cdn, Fault::Slow(10_000));
    let start = Instant::now();
    assert_eq!(guest.cdn(&digest).await.body, noise(7, 3000));
    assert!(start.elapsed() >= Duration::from_millis(290), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_stalled_body_goes_on_when_released() {
    for hub in both().await {
        let digest = hub.add_blob(REPO, noise(7, SIZE));
        let guest = Guest::of(&hub).await;
        let rule = hub.fault(Target::Cdn, Fault::Stall(150_001));
        let path = guest.redirected(&digest).await;
        let mut reading = connect(&hub, Role::Cdn).await.unwrap().start(&Call::get(&path)).await;
        assert_eq!(reading.read(150_001).await.len(), 150_001);
        rule.until_hit(1).await;
        assert_eq!(hub.bytes_sent(&digest), 150_001);
        rule.release();
        let rest = reading.rest().await;
        assert!(rest.complete);
        assert_eq!(rest.body, noise(7, SIZE)[150_001..]);
    }
}

#[tokio::test]
async fn a_held_answer_is_the_one_of_when_it_was_asked_for() {
    for hub in both().await {
        let old = hub.push(REPO, "3", &Image::small(1));
        let new = hub.push_untagged(REPO, &Image::small(2));
        let guest = Guest::of(&hub).await;
        let rule = hub.fault(Target::ManifestTag, Fault::Hold.times(1));
        let (held, ()) = tokio::join!(guest.get("manifests/3"), async {
            rule.until_hit(1).await;
            hub.retag(REPO, "3", new);
            let answer = guest.get("manifests/3").await;
            assert_eq!(answer.header("docker-content-digest"), Some(new.to_string().as_str()));
            assert_eq!(hub.count(|seen: &Seen| seen.is(Target::ManifestTag) && seen.status.is_none()), 1);
            rule.release();
        });
        assert_eq!(held.header("docker-content-digest"), Some(old.to_string().as_str()));
    }
}

#[tokio::test]
async fn a_black_hole_reads_and_never_answers() {
    for hub in both().await {
        let rule = hub.fault(Target::Ping, Fault::BlackHole);
        let (answer, ()) = tokio::join!(ask(&hub, Role::Registry, Call::get("/v2/")), async {
            rule.until_hit(1).await;
            assert_eq!(hub.requests()[0].status, None);
            rule.release();
        });
        assert_eq!((answer.status, answer.reset), (0, false));
    }
}

#[tokio::test]
async fn another_answer_stands_in_for_the_true_one() {
    let hub = Hub::plain().await;
    hub.push(REPO, "3", &Image::small(1));
    for (fault, status, kind, part) in [
        (Fault::gateway(503), 503, Some("text/html"), "trouble"),
        (Fault::captive_portal(), 200, Some("text/html; charset=utf-8"), "WLAN"),
        (Fault::cdn_denies(), 403, Some("application/xml"), "SignatureDoesNotMatch"),
        (Fault::error(404, "MANIFEST_UNKNOWN"), 404, Some("application/json"), "MANIFEST_UNKNOWN"),
        (Fault::too_many_requests(Some(7)), 429, Some("application/json"), "TOOMANYREQUESTS"),
        (Fault::abuse_limit(), 429, Some("text/plain"), "Too Many Requests"),
        (Fault::redirect_to("http://elsewhere.localhost/"), 307, None, ""),
    ] {
        let rule = hub.fault(Target::ManifestTag, fault.clone());
        let answer = ask(&hub, Role::Registry, Call::get(&format!("/v2/{REPO}/manifests/3"))).await;
        assert_eq!((answer.status, answer.header("content-type")), (status, kind));
        assert!(answer.complete && answer.text().contains(part));
        assert_eq!(answer.header("retry-after").is_some(), fault == Fault::too_many_requests(Some(7)));
        assert_eq!(answer.header("location").is_some(), status == 307);
        assert_eq!(rule.hits(), 1);
        rule.lift();
    }
}

#[tokio::test]
async fn headers_lie() {
    let hub = Hub::plain().await;
    let digest = hub.push(REPO, "3", &Image::small(1));
    let challenge = hub.fault(Target::Everything, Fault::Realm("http://evil.localhost/token".into()));
    let refused = ask(&hub, Role::Registry, Call::get("/v2/")).await;
    assert!(
        refused.header("www-authenticate").unwrap().starts_with("Bearer realm=\"http://evil.localhost/token\",service")
    );
    assert_eq!(challenge.hits(), 1);
    let guest = Guest::of(&hub).await;
    for (fault, name, expected) in [
        (Fault::LyingDigestHeader, "docker-content-digest", Some(Digest::sha256(b"something else").to_string())),
        (Fault::WrongContentType(None), "content-type", None),
        (Fault::WrongContentType(Some("text/plain".into())), "content-type", Some("text/plain".into())),
        (Fault::Header(RETRY_AFTER, Some("9".into())), "retry-after", Some("9".into())),
        (Fault::Header(HeaderName::from_static("ratelimit-limit"), None), "ratelimit-limit", None),
    ] {
        let rule = hub.fault(Target::ManifestTag, fault);
        let answer = guest.get("manifests/3").await;
        assert_eq!(answer.header(name), expected.as_deref());
        assert!(digest.matches(&answer.body));
        assert_eq!(rule.hits(), 1);
        rule.lift();
    }
}

#[tokio::test]
async fn a_rule_counts_what_it_applies_to() {
    let hub = Hub::plain().await;
    hub.push(REPO, "3", &Image::small(1));
    let guest = Guest::of(&hub).await;
    let rule = hub.fault(|seen: &Seen| seen.is_for("3"), Fault::gateway(502).after(1).times(2));
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(guest.get("manifests/3").await.status);
    }
    assert_eq!((statuses, rule.hits()), (vec![200, 502, 502, 200, 200], 2));

    let rule = hub.fault(Target::ManifestTag, Fault::gateway(500).times(1).past_auth());
    let refused = ask(&hub, Role::Registry, Call::get(&format!("/v2/{REPO}/manifests/3"))).await;
    assert_eq!((refused.status, rule.hits()), (401, 0));
    assert_eq!(guest.get("manifests/3").await.status, 500);

    // Two at once, each with its part.
    hub.fault(Target::ManifestTag, Fault::NoContentLength);
    hub.fault(Target::ManifestTag, Fault::ShortBody(10));
    let answer = guest.get("manifests/3").await;
    assert_eq!((answer.body.len(), answer.complete, length(&answer)), (10, false, None));
    hub.heal();
    assert!(guest.get("manifests/3").await.complete);
}

#[tokio::test]
async fn a_rule_that_changed_nothing_is_told_on() {
    for (plan, told) in [
        (Fault::IgnoreRange.into(), true),
        (Fault::IgnoreRange.times(1).optional(), false),
        (Fault::WrongBytes.into(), false),
        (Fault::WrongBytes.after(1), false),
    ] {
        let hub = Hub::plain().await;
        let digest = hub.add_blob(REPO, noise(7, 10));
        let guest = Guest::of(&hub).await;
        hub.fault(Target::Cdn, plan);
        guest.cdn(&digest).await;
        assert_eq!(catch_unwind(AssertUnwindSafe(|| drop(hub))).is_err(), told);
    }
}
