//! Pulling through the mirror when all is well: what is fetched, what is kept, what clients see.

use std::time::Duration;

use larder::oci::{Digest, MediaType};

use crate::support::client::{Answer, Call};
use crate::support::hub::{Fault, Hub, Seen, Target};
use crate::support::image::{Image, noise};
use crate::support::larder::{Larder, files};

const REPO: &str = "library/alpha";

fn manifest(reference: impl ToString) -> String {
    format!("/v2/{REPO}/manifests/{}", reference.to_string())
}

fn blob(digest: &Digest) -> String {
    format!("/v2/{REPO}/blobs/{digest}")
}

/// Pulls as a client does: the tag, then everything below it.
async fn pull(larder: &Larder, image: &Image) -> Vec<Answer> {
    let mut answers = vec![larder.get(&manifest("latest")).await];
    for digest in image.blob_digests() {
        answers.push(larder.get(&blob(&digest)).await);
    }
    answers
}

fn outcomes(answers: &[Answer]) -> Vec<&str> {
    answers.iter().map(|answer| answer.header("x-larder-cache").unwrap()).collect()
}

#[tokio::test]
async fn a_cold_pull_fetches_each_piece_once_and_a_warm_one_nothing() {
    for hub in [Hub::plain().await, Hub::tls().await] {
        let image = Image::oci(1, &[300_000, 70_000, 10]);
        hub.push(REPO, "latest", &image);
        let mut larder = Larder::mirroring(&hub).await;

        let cold = pull(&larder, &image).await;
        // Its layers are on their way before they are asked for, so whether it joins or finds them is a race.
        assert_eq!(outcomes(&cold)[0], "miss");
        assert_eq!(cold[0].body, image.manifest);
        for (answer, expected) in cold[1..].iter().zip(&image.blobs) {
            assert!(answer.complete && answer.body == *expected);
        }
        assert_eq!((hub.count(Target::ManifestGet), hub.count(Target::Cdn)), (1, 4));

        hub.clear();
        assert_eq!(outcomes(&pull(&larder, &image).await), ["hit"; 5]);
        larder.restart().await;
        assert_eq!(outcomes(&pull(&larder, &image).await), ["hit"; 5]);
        assert_eq!(hub.requests().len(), 0, "what is fresh is served without a word to upstream");
        crate::support::larder::assert_sound(&larder.data());
    }
}

#[tokio::test]
async fn answers_carry_the_headers_that_clients_decide_by() {
    let hub = Hub::plain().await;
    let image = Image::docker(2, &[5000]);
    let digest = hub.push(REPO, "latest", &image);
    let larder = Larder::mirroring(&hub).await;
    let layer = image.layer(0).0;
    for path in [manifest("latest"), manifest(digest), blob(&layer)] {
        let (get, head) = (larder.get(&path).await, larder.head(&path).await);
        for name in ["content-type", "content-length", "docker-content-digest", "etag", "cache-control"] {
            assert_eq!(get.header(name), head.header(name), "{name} of {path}");
            assert!(get.header(name).is_some(), "{path} has no {name}");
        }
        assert!(head.body.is_empty());
        assert_eq!(get.header("docker-distribution-api-version"), Some("registry/2.0"));
        assert_eq!(get.header("content-encoding"), None);
        assert_eq!(get.header("www-authenticate"), None);
    }
    let by_tag = larder.get(&manifest("latest")).await;
    assert_eq!(by_tag.header("content-type"), Some(MediaType::DockerManifest.as_str()));
    assert_eq!(by_tag.header("content-length"), Some(image.manifest.len().to_string().as_str()));
    assert_eq!(by_tag.header("docker-content-digest"), Some(digest.to_string().as_str()));
    assert_eq!(by_tag.header("cache-control"), Some("no-cache"));
    let layer = larder.get(&blob(&layer)).await;
    assert_eq!(layer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(layer.header("accept-ranges"), Some("bytes"));
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again() {
    let hub = Hub::plain().await;
    let image = Image::small(3);
    let digest = hub.push(REPO, "latest", &image);
    let larder = Larder::mirroring(&hub).await;
    pull(&larder, &image).await;
    for (path, etag) in [(manifest("latest"), digest), (blob(&image.layer(0).0), image.layer(0).0)] {
        let answer = Call::get(&path).header("If-None-Match", &format!("\"{etag}\"")).send(larder.mirror()).await;
        assert_eq!((answer.status, answer.body.len()), (304, 0));
        assert_eq!(answer.header("etag"), Some(format!("\"{etag}\"").as_str()));
    }
}

#[tokio::test]
async fn a_range_is_exact_on_cached_blobs_and_on_blobs_that_are_being_fetched() {
    let hub = Hub::plain().await;
    let content = noise(4, 300_000);
    let digest = hub.add_blob(REPO, content.clone());
    let larder = Larder::mirroring(&hub).await;
    let ranged = |range: &'static str| Call::get(&blob(&digest)).header("Range", range);
    let cold = ranged("bytes=100000-199999").send(larder.mirror()).await;
    assert_eq!((cold.status, cold.header("x-larder-cache")), (206, Some("miss")));
    assert_eq!(cold.body, content[100_000..200_000]);
    larder.get(&blob(&digest)).await;

    for (range, part) in [
        ("bytes=0-1", 0..2),
        ("bytes=500-1499", 500..1500),
        ("bytes=299999-", 299_999..300_000),
        ("bytes=-500", 299_500..300_000),
        ("bytes=299000-999999999", 299_000..300_000),
    ] {
        let answer = ranged(range).send(larder.mirror()).await;
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.body, content[part.clone()], "{range}");
        let expected = format!("bytes {}-{}/300000", part.start, part.end - 1);
        assert_eq!(answer.header("content-range"), Some(expected.as_str()));
        assert_eq!(answer.header("content-length"), Some(part.len().to_string().as_str()));
    }
    for range in ["bytes=300000-", "bytes=500-0", "bytes=-0"] {
        let answer = ranged(range).send(larder.mirror()).await;
        assert_eq!((answer.status, answer.header("content-range")), (416, Some("bytes */300000")), "{range}");
    }
    for range in ["bytes=0-1,4-5", "items=0-1", "bytes=x"] {
        let answer = ranged(range).send(larder.mirror()).await;
        assert_eq!((answer.status, answer.body.len()), (200, content.len()), "{range}");
    }
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let hub = Hub::plain().await;
    let digest = hub.add_blob(REPO, "");
    let larder = Larder::mirroring(&hub).await;
    for _ in 0..2 {
        let answer = larder.get(&blob(&digest)).await;
        assert_eq!((answer.status, answer.header("content-length"), answer.complete), (200, Some("0"), true));
    }
    assert_eq!(Call::get(&blob(&digest)).header("Range", "bytes=0-").send(larder.mirror()).await.status, 416);
}

#[tokio::test]
async fn fifty_clients_make_one_fetch_and_get_its_bytes_while_they_arrive() {
    let hub = Hub::plain().await;
    let content = noise(5, 2_000_000);
    let digest = hub.add_blob(REPO, content.clone());
    let larder = Larder::mirroring(&hub).await;
    let half = hub.fault(Target::Cdn, Fault::Stall(1_000_000));
    let mut readings = Vec::new();
    for _ in 0..50 {
        readings.push(Call::get(&blob(&digest)).open(larder.mirror()).await);
    }
    // Every client, the last to come included, has bytes while upstream has sent half of them.
    for reading in &mut readings {
        assert_eq!(reading.read(800_000).await, content[..800_000]);
    }
    assert_eq!(larder.metric("larder_fills_in_flight", "").await, 1.0);
    assert_eq!(larder.metric("larder_fill_waiters", "").await, 50.0);
    half.release();
    for reading in readings {
        let answer = reading.rest().await;
        assert!(answer.complete && answer.body == content[800_000..]);
    }
    let sent: Vec<u64> = hub.requests().iter().filter(|seen| seen.is(Target::Cdn)).map(|seen| seen.sent).collect();
    assert_eq!(sent, [content.len() as u64]);
}

#[tokio::test]
async fn clients_that_leave_and_clients_that_sleep_stop_nobody() {
    let hub = Hub::plain().await;
    let content = noise(6, 8_000_000);
    let digest = hub.add_blob(REPO, content.clone());
    let larder = Larder::mirroring(&hub).await;
    let half = hub.fault(Target::Cdn, Fault::Stall(1_000_000));
    let starter = Call::get(&blob(&digest)).open(larder.mirror()).await;
    // Reads its head and nothing more until everyone else is done.
    let sleeper = Call::get(&blob(&digest)).open(larder.mirror()).await;
    let mut leaver = Call::get(&blob(&digest)).open(larder.mirror()).await;
    let stayer = Call::get(&blob(&digest)).open(larder.mirror()).await;
    drop(starter);
    leaver.read(100_000).await;
    drop(leaver);
    half.release();
    assert_eq!(stayer.rest().await.body, content);
    assert_eq!(sleeper.rest().await.body, content);
    assert_eq!(hub.count(Target::Cdn), 1);
}

#[tokio::test]
async fn a_fill_goes_on_when_all_its_clients_have_left() {
    let hub = Hub::plain().await;
    let content = noise(7, 500_000);
    let digest = hub.add_blob(REPO, content.clone());
    let larder = Larder::mirroring(&hub).await;
    let half = hub.fault(Target::Cdn, Fault::Stall(250_000));
    let mut only = Call::get(&blob(&digest)).open(larder.mirror()).await;
    only.read(1000).await;
    drop(only);
    half.release();
    hub.until_count(1, |seen: &Seen| seen.is(Target::Cdn) && seen.over).await;
    let answer = larder.get(&blob(&digest)).await;
    assert_eq!(answer.body, content);
    assert_eq!(hub.count(Target::Cdn), 1, "nothing that was downloaded is downloaded again");
}

#[tokio::test]
async fn knowing_a_digest_is_no_right_to_read_it() {
    let hub = Hub::plain().await;
    let image = Image::small(8);
    let digest = hub.push(REPO, "latest", &image);
    hub.push("org/other", "latest", &Image::small(9));
    let larder = Larder::mirroring(&hub).await;
    pull(&larder, &image).await;
    let layer = image.layer(0).0;
    for path in [format!("/v2/org/other/blobs/{layer}"), format!("/v2/org/other/manifests/{digest}")] {
        assert_eq!(larder.get(&path).await.status, 404, "{path}");
        assert_eq!(larder.head(&path).await.status, 404, "{path}");
    }
    // Once its own upstream says so, it may, and the bytes are not fetched again.
    hub.push("org/other", "same", &image);
    hub.clear();
    let answer = larder.get(&format!("/v2/org/other/blobs/{layer}")).await;
    assert_eq!((answer.status, answer.header("x-larder-cache")), (200, Some("revalidated")));
    let is_download = |seen: &Seen| seen.is(Target::Cdn) && seen.method == hyper::Method::GET;
    assert_eq!(hub.count(is_download), 0);
    hub.stop().await;
    let again = larder.get(&format!("/v2/org/other/blobs/{layer}")).await;
    assert_eq!((again.status, again.header("x-larder-cache")), (200, Some("hit")));
}

#[tokio::test]
async fn names_find_their_registry() {
    let hub = Hub::plain().await;
    let image = Image::small(10);
    hub.push(REPO, "latest", &image);
    let larder = Larder::mirroring(&hub).await;
    for path in [
        "/v2/library/alpha/manifests/latest",
        "/v2/alpha/manifests/latest",
        "/v2/docker.io/library/alpha/manifests/latest",
        "/v2/library/alpha/manifests/latest?ns=docker.io",
        "/v2/library/alpha/manifests/latest?ns=registry-1.docker.io",
    ] {
        let answer = larder.get(path).await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, &image.manifest[..]), "{path}");
        let namespace = path.split_once("ns=").map(|(_, ns)| ns);
        assert_eq!(answer.header("oci-namespace"), namespace, "{path}");
    }
    hub.clear();
    for ns in ["ghcr.io", "169.254.169.254", "localhost:22", "docker.io@evil", "docker.io%00", "%5B::1%5D"] {
        let answer = larder.get(&format!("/v2/library/alpha/manifests/latest?ns={ns}")).await;
        assert_eq!((answer.status, answer.json()["errors"][0]["code"].as_str()), (404, Some("NAME_UNKNOWN")), "{ns}");
    }
    // Layers of the image above may still be on their way.
    assert_eq!(hub.count(Target::Manifest) + hub.count(Target::Tags), 0);
}

#[tokio::test]
async fn what_does_not_exist_is_404_and_upstream_is_not_asked_again_at_once() {
    let hub = Hub::plain().await;
    hub.push(REPO, "latest", &Image::small(11));
    let larder = Larder::mirroring(&hub).await;
    for path in [manifest("missing"), "/v2/org/nothing/manifests/latest".to_owned()] {
        let answer = larder.get(&path).await;
        assert_eq!((answer.status, answer.json()["errors"][0]["code"].as_str()), (404, Some("MANIFEST_UNKNOWN")));
        let asked = hub.count(Target::Manifest);
        assert_eq!(larder.get(&path).await.status, 404);
        assert_eq!(hub.count(Target::Manifest), asked);
    }
    // And is believed for a while only.
    hub.push(REPO, "missing", &Image::small(12));
    larder.clock.advance(Duration::from_secs(31));
    assert_eq!(larder.get(&manifest("missing")).await.status, 200);
}

#[tokio::test]
async fn each_kind_of_nonsense_has_its_code_and_says_what_to_write() {
    let hub = Hub::plain().await;
    let larder = Larder::mirroring(&hub).await;
    for (path, status, code) in [
        ("/v2/Upper/manifests/latest", 400, "NAME_INVALID"),
        ("/v2/a/../b/manifests/latest", 400, "NAME_INVALID"),
        ("/v2/a/manifests/-bad", 400, "MANIFEST_INVALID"),
        ("/v2/a/manifests/sha256:short", 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/latest", 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", 400, "DIGEST_INVALID"),
        ("/v2/a/referrers/x", 400, "DIGEST_INVALID"),
        ("/v2/a/tags/list?n=many", 400, "UNSUPPORTED"),
        ("/v2/a/unknown/x", 404, "UNSUPPORTED"),
        ("/", 404, "UNSUPPORTED"),
    ] {
        let answer = larder.get(path).await;
        let error = answer.json()["errors"][0].clone();
        assert_eq!((answer.status, error["code"].as_str()), (status, Some(code)), "{path}");
        assert!(error["message"].as_str().unwrap().len() > 20, "{path}: {error}");
    }
    assert_eq!(hub.requests().len(), 0);
}

#[tokio::test]
async fn every_answer_comes_in_time_when_upstream_answers_nothing() {
    let hub = Hub::plain().await;
    hub.push(REPO, "latest", &Image::small(20));
    let cached = hub.add_blob(REPO, "cached");
    let limits = "connect_timeout = \"500ms\"\nheader_timeout = \"500ms\"\nmax_connections = 1";
    let larder = Larder::configured(&hub, "", limits).await;
    assert_eq!(larder.get(&blob(&cached)).await.text(), "cached");
    hub.fault(Target::Everything, Fault::BlackHole);
    let digest = Digest::sha256(b"x");
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..60 {
        let paths = [
            (format!("/v2/org/a{n}/manifests/latest"), 503),
            (format!("/v2/org/a{n}/blobs/{digest}"), 404),
            (format!("/v2/org/a{n}/referrers/{digest}"), 200),
            (format!("/v2/org/a{n}/tags/list"), 503),
            // Whether this repository may have what another one brought is a question, too.
            (format!("/v2/org/a{n}/blobs/{cached}"), 404),
        ];
        for (path, status) in paths {
            let mirror = larder.mirror();
            calls.spawn(async move { (Call::get(&path).send(mirror).await.status, status, path) });
        }
    }
    // The client's own patience (30 s) is the bound: behind one connection they would take it in turns for longer.
    while let Some(answer) = calls.join_next().await {
        let (status, expected, path) = answer.unwrap();
        assert_eq!(status, expected, "{path}");
    }
    assert_eq!(files(&larder.data().join("cached")).len(), 1, "what does not exist leaves no trace");
    hub.heal();
}

#[tokio::test]
async fn the_mirror_is_read_only_and_anonymous() {
    let hub = Hub::plain().await;
    let image = Image::small(13);
    hub.push(REPO, "latest", &image);
    let larder = Larder::mirroring(&hub).await;
    let uploads = format!("/v2/{REPO}/blobs/uploads/");
    for (method, path) in [
        ("POST", uploads.as_str()),
        ("PATCH", &uploads),
        ("PUT", &manifest("latest")),
        ("DELETE", &manifest("latest")),
        ("DELETE", &blob(&image.layer(0).0)),
    ] {
        let answer = Call::new(method, path).send(larder.mirror()).await;
        assert_eq!(
            (answer.status, answer.json()["errors"][0]["code"].as_str()),
            (405, Some("UNSUPPORTED")),
            "{method}"
        );
    }
    // Whatever a client sends to prove who it is goes nowhere.
    for authorization in ["Basic Og==", "Basic dXNlcjpodW50ZXIy", "Bearer stolen"] {
        let call = Call::get(&manifest("latest")).header("Authorization", authorization);
        let answer = call.send(larder.mirror()).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (200, None));
    }
    let sent =
        hub.requests().into_iter().filter_map(|seen| seen.header(hyper::header::AUTHORIZATION).map(str::to_owned));
    assert!(sent.into_iter().all(|value| !value.contains("dXNlcjpodW50ZXIy") && !value.contains("stolen")));
}

#[tokio::test]
async fn tags_are_upstreams_in_pages_and_ours_when_it_is_gone() {
    let hub = Hub::plain().await;
    let image = Image::small(14);
    for tag in ["1.0", "1.1", "2.0", "latest"] {
        hub.push(REPO, tag, &image);
    }
    let larder = Larder::mirroring(&hub).await;
    let list = |path: &'static str| {
        let larder = &larder;
        async move { larder.get(&format!("/v2/{REPO}/tags/list{path}")).await }
    };
    assert_eq!(list("").await.json(), serde_json::json!({"name": REPO, "tags": ["1.0", "1.1", "2.0", "latest"]}));
    let page = list("?n=2").await;
    assert_eq!(page.json()["tags"], serde_json::json!(["1.0", "1.1"]));
    assert_eq!(page.header("link"), Some("</v2/library/alpha/tags/list?n=2&last=1%2E1>; rel=\"next\""));
    let rest = list("?n=2&last=1.1").await;
    assert_eq!((rest.json()["tags"].clone(), rest.header("link")), (serde_json::json!(["2.0", "latest"]), None));
    assert_eq!(list("?n=0").await.json()["tags"], serde_json::json!([]));

    larder.get(&manifest("latest")).await;
    larder.get(&manifest("1.0")).await;
    hub.stop().await;
    let known = list("").await;
    assert_eq!((known.status, known.header("x-larder-cache")), (200, Some("stale")));
    assert_eq!(known.json()["tags"], serde_json::json!(["1.0", "latest"]));
    let page = list("?n=1").await;
    assert_eq!((page.json()["tags"].clone(), page.header("link").is_some()), (serde_json::json!(["1.0"]), true));
    assert_eq!(larder.get("/v2/org/unknown/tags/list").await.status, 503);
}

#[tokio::test]
async fn the_catalogue_lists_what_is_cached() {
    let hub = Hub::plain().await;
    for repo in ["library/alpha", "library/beta", "org/app"] {
        hub.push(repo, "latest", &Image::small(15));
    }
    let larder = Larder::mirroring(&hub).await;
    assert_eq!(larder.get("/v2/_catalog").await.json()["repositories"], serde_json::json!([]));
    for repo in ["org/app", "library/alpha", "library/beta"] {
        assert_eq!(larder.get(&format!("/v2/{repo}/manifests/latest")).await.status, 200);
    }
    let all = serde_json::json!(["docker.io/library/alpha", "docker.io/library/beta", "docker.io/org/app"]);
    let mut listed = larder.get("/v2/_catalog").await.json()["repositories"].clone();
    // The index follows the files in batches.
    while listed != all {
        tokio::task::yield_now().await;
        listed = larder.get("/v2/_catalog").await.json()["repositories"].clone();
    }
    let page = larder.get("/v2/_catalog?n=2").await;
    let next = page.header("link").unwrap().split(['<', '>']).nth(1).unwrap().to_owned();
    assert_eq!(larder.get(&next).await.json()["repositories"], serde_json::json!(["docker.io/org/app"]));
    // A name from the catalogue is one that the mirror can be asked for.
    assert_eq!(larder.get("/v2/docker.io/org/app/manifests/latest").await.status, 200);
}

#[tokio::test]
async fn referrers_are_always_a_list() {
    let hub = Hub::plain().await;
    let image = Image::small(16);
    let digest = hub.push(REPO, "latest", &image);
    hub.push_untagged(REPO, &Image::referrer(1, "application/x.signature", &image));
    hub.push_untagged(REPO, &Image::referrer(2, "application/x.sbom", &image));
    for api in [true, false] {
        hub.settings(|settings| settings.referrers_api = api);
        let larder = Larder::mirroring(&hub).await;
        let path = format!("/v2/{REPO}/referrers/{digest}");
        let types = |answer: &Answer| {
            let listed = answer.json()["manifests"].as_array().unwrap().clone();
            let mut types: Vec<_> = listed.iter().map(|one| one["artifactType"].as_str().unwrap().to_owned()).collect();
            types.sort();
            types
        };
        let answer = larder.get(&path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(MediaType::OciIndex.as_str())));
        assert_eq!(types(&answer), ["application/x.sbom", "application/x.signature"], "api: {api}");
        let one = larder.get(&format!("{path}?artifactType=application/x.sbom")).await;
        assert_eq!((types(&one).len(), one.header("oci-filters-applied")), (1, Some("artifactType")));
        // Nothing known, by upstream or by us.
        let none = larder.get(&format!("/v2/{REPO}/referrers/{}", Digest::sha256(b"none"))).await;
        assert_eq!((none.status, types(&none).len()), (200, 0));
        hub.stop().await;
        larder.clock.advance(Duration::from_secs(3600));
        let stale = larder.get(&path).await;
        assert_eq!((stale.status, stale.header("x-larder-cache"), types(&stale).len()), (200, Some("stale"), 2));
        let unknown = larder.get(&format!("/v2/{REPO}/referrers/{}", Digest::sha256(b"other"))).await;
        assert_eq!((unknown.status, types(&unknown).len()), (200, 0));
        hub.start_again().await;
    }
}

#[tokio::test]
async fn a_sha512_digest_is_as_good_as_a_sha256_one() {
    let hub = Hub::plain().await;
    hub.push(REPO, "latest", &Image::small(17));
    let larder = Larder::mirroring(&hub).await;
    let sha512 = Digest::of(larder::oci::Algorithm::Sha512, &Image::small(17).blobs[0]);
    // This upstream knows its content by sha256 only, and never is one answered for the other.
    assert_eq!(larder.get(&blob(&sha512)).await.status, 404);
}

#[tokio::test]
async fn an_index_is_completed_with_its_attestations_and_no_other_platform() {
    let hub = Hub::plain().await;
    let index = Image::index_with_attestations(&[Image::small(18), Image::small(19)]);
    hub.push(REPO, "latest", &index);
    let larder = Larder::mirroring(&hub).await;
    larder.get(&manifest("latest")).await;
    let (attestations, platforms): (Vec<&Image>, Vec<&Image>) =
        index.children.iter().partition(|child| child.attests());
    assert_eq!((attestations.len(), platforms.len()), (2, 2));
    let pieces: Vec<Digest> = attestations.iter().flat_map(|image| image.blob_digests()).collect();
    for piece in pieces {
        hub.until_count(1, move |seen: &Seen| seen.is(Target::Cdn) && seen.is_for(piece) && seen.over).await;
    }
    for platform in platforms.into_iter().map(Image::digest) {
        let asked = hub.count(move |seen: &Seen| seen.is_for(platform));
        assert_eq!(asked, 0, "no platform that nobody asked for");
    }
    // What was fetched behind the client's back serves the next one without upstream.
    larder.until_idle().await;
    hub.stop().await;
    for image in attestations {
        assert_eq!(larder.get(&manifest(image.digest())).await.header("x-larder-cache"), Some("hit"));
        for digest in image.blob_digests() {
            assert_eq!(larder.get(&blob(&digest)).await.header("x-larder-cache"), Some("hit"));
        }
    }
}

#[tokio::test]
async fn layers_are_on_their_way_before_they_are_asked_for() {
    let hub = Hub::plain().await;
    let (image, other) = (Image::oci(21, &[200_000, 3_000, 90_000]), Image::small(22));
    hub.push(REPO, "latest", &image);
    hub.push(REPO, "looked-at", &other);
    let larder = Larder::mirroring(&hub).await;
    // Whoever only looks gets nothing fetched.
    assert_eq!(larder.head(&manifest("looked-at")).await.status, 200);
    larder.get(&manifest("latest")).await;
    for digest in image.blob_digests() {
        hub.until_count(1, move |seen: &Seen| seen.is(Target::Cdn) && seen.is_for(digest) && seen.over).await;
    }
    larder.until_idle().await;
    for digest in other.blob_digests() {
        assert_eq!(hub.count(move |seen: &Seen| seen.is_for(digest)), 0);
    }
    hub.stop().await;
    for (digest, content) in image.blob_digests().iter().zip(&image.blobs) {
        let answer = larder.get(&blob(digest)).await;
        assert_eq!((answer.header("x-larder-cache"), &answer.body[..]), (Some("hit"), &content[..]));
    }
}

#[tokio::test]
async fn two_repositories_share_one_fetch_and_both_keep_the_blob() {
    let hub = Hub::plain().await;
    let content = noise(23, 500_000);
    let digest = hub.add_blob(REPO, content.clone());
    hub.add_blob("org/other", content.clone());
    let larder = Larder::mirroring(&hub).await;
    let is_download = |seen: &Seen| seen.is(Target::Cdn) && seen.method == hyper::Method::GET;
    let half = hub.fault(is_download, Fault::Stall(250_000));
    let paths = [blob(&digest), format!("/v2/org/other/blobs/{digest}")];
    let first = Call::get(&paths[0]).open(larder.mirror()).await;
    let second = Call::get(&paths[1]).open(larder.mirror()).await;
    half.release();
    assert_eq!((first.rest().await.body == content, second.rest().await.body == content), (true, true));
    assert_eq!(hub.count(is_download), 1);
    // The second one's link is written beside its body.
    let link = |repo: &str| larder.data().join(format!("cached/docker.io/{repo}/_links/sha256-{}", digest.hex()));
    while !link("org/other").exists() {
        tokio::task::yield_now().await;
    }
    hub.stop().await;
    for path in paths {
        assert_eq!(larder.get(&path).await.header("x-larder-cache"), Some("hit"), "{path}");
    }
}
