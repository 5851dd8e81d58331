//! The hub without faults: tokens, manifests, blobs, lists, and what it writes down.

use larder::oci::{Digest, Manifest, MediaType};

use super::{Guest, REPO, ask, both, token};
use crate::support::client::{Call, Connection, get};
use crate::support::hub::{Hub, Role, Target};
use crate::support::image::{Image, noise};

#[tokio::test]
async fn only_a_token_for_the_repository_opens_it() {
    for hub in both().await {
        hub.push(REPO, "3", &Image::small(1));
        hub.push("library/other", "1", &Image::small(2));
        let path = format!("/v2/{REPO}/manifests/3");
        let with = |token: String| {
            Call::get(&path).header("Authorization", &format!("Bearer {token}")).header("Accept", MediaType::ACCEPT)
        };

        let answer = ask(&hub, Role::Registry, Call::get(&path)).await;
        assert_eq!(answer.status, 401);
        let challenge =
            format!("Bearer realm=\"{}\",service=\"registry.docker.io\",scope=\"repository:{REPO}:pull\"", hub.realm());
        assert_eq!(answer.header("www-authenticate"), Some(challenge.as_str()));
        let ping = ask(&hub, Role::Registry, Call::get("/v2/")).await;
        assert!(!ping.header("www-authenticate").unwrap().contains("scope"));

        for (token, error) in
            [("no".into(), "invalid_token"), (token(&hub, "library/other").await, "insufficient_scope")]
        {
            let answer = ask(&hub, Role::Registry, with(token)).await;
            assert_eq!(answer.status, 401);
            assert!(answer.header("www-authenticate").unwrap().contains(error));
        }
        let good = token(&hub, REPO).await;
        assert_eq!(ask(&hub, Role::Registry, with(good.clone())).await.status, 200);
        hub.expire_tokens();
        assert_eq!(ask(&hub, Role::Registry, with(good)).await.status, 401);
        let unknown = Call::get("/v2/library/nothing/manifests/1");
        let token = format!("Bearer {}", token(&hub, "library/nothing").await);
        assert_eq!(ask(&hub, Role::Registry, unknown.header("Authorization", &token)).await.status, 401);
    }
}

#[tokio::test]
async fn a_private_repository_needs_an_account() {
    let hub = Hub::plain().await;
    hub.push(REPO, "3", &Image::small(1));
    hub.make_private(REPO);
    hub.settings(|settings| {
        settings.accounts.insert("me".into(), "secret!".into());
        settings.says_token = false;
        settings.expires_in = None;
    });
    let ask_token = Call::get(&format!("/token?service=registry.docker.io&scope=repository:{REPO}:pull"));
    let mut statuses = Vec::new();
    // me:secret! and me:secret
    for login in [None, Some("bWU6c2VjcmV0IQ=="), Some("bWU6c2VjcmV0")] {
        let call = login
            .map_or(ask_token.clone(), |login| ask_token.clone().header("Authorization", &format!("Basic {login}")));
        let answer = call.send(hub.addr(Role::Token)).await;
        if answer.status != 200 {
            statuses.push(answer.status);
            continue;
        }
        let body = answer.json();
        assert!(body.get("token").is_none() && body.get("expires_in").is_none());
        let token = format!("Bearer {}", body["access_token"].as_str().unwrap());
        let call = Call::get(&format!("/v2/{REPO}/manifests/3")).header("Accept", MediaType::ACCEPT);
        statuses.push(call.header("Authorization", &token).send(hub.addr(Role::Registry)).await.status);
    }
    assert_eq!(statuses, [401, 200, 401]);
}

#[tokio::test]
async fn manifests_are_negotiated_as_docker_hub_does() {
    let hub = Hub::plain().await;
    hub.settings(|settings| settings.auth = false);
    let images = [Image::docker(1, &[10]), Image::docker(2, &[10])];
    let (index, list) = (Image::index(&images), Image::docker_list(&images));
    hub.push(REPO, "index", &index);
    hub.push(REPO, "list", &list);
    let ask = async |method, reference: &str, accept: &str| {
        let call = Call::new(method, &format!("/v2/{REPO}/manifests/{reference}"));
        call.header("Accept", "text/plain").header("Accept", accept).send(hub.addr(Role::Registry)).await
    };
    let narrow = format!("{}, */*", MediaType::DockerManifest);
    assert_eq!(ask("GET", "index", MediaType::ACCEPT).await.body, index.manifest);
    assert_eq!(ask("GET", "index", &narrow).await.status, 404);
    assert_eq!(ask("GET", "list", MediaType::ACCEPT).await.body, list.manifest);
    assert_eq!(ask("GET", "list", &narrow).await.body, images[0].manifest);
    assert_eq!(ask("GET", "nothing", MediaType::ACCEPT).await.status, 404);

    let got = ask("GET", &index.digest().to_string(), MediaType::ACCEPT).await;
    let head = ask("HEAD", "index", MediaType::ACCEPT).await;
    assert!(head.complete && head.body.is_empty());
    for name in ["content-type", "content-length", "docker-content-digest", "etag", "ratelimit-limit"] {
        assert_eq!(head.header(name), got.header(name), "{name}");
        assert!(head.header(name).is_some(), "{name}");
    }
    let etag = head.header("etag").unwrap();
    let call = Call::get(&format!("/v2/{REPO}/manifests/index")).header("Accept", MediaType::ACCEPT);
    let unchanged = call.header("If-None-Match", etag).send(hub.addr(Role::Registry)).await;
    assert_eq!((unchanged.status, unchanged.complete, unchanged.body.len()), (304, true, 0));
}

#[tokio::test]
async fn only_a_get_of_a_manifest_counts_against_the_limit() {
    let hub = Hub::plain().await;
    hub.push(REPO, "3", &Image::small(1));
    hub.settings(|settings| settings.rate_limit = Some((100, 1)));
    let guest = Guest::of(&hub).await;
    let path = format!("/v2/{REPO}/manifests/3");
    for (call, status, remaining) in [
        (Call::head(&path), 200, "1;w=21600"),
        (Call::get(&path), 200, "0;w=21600"),
        (Call::get(&path), 429, "0;w=21600"),
        (Call::head(&path), 200, "0;w=21600"),
    ] {
        let answer = guest.registry(call).await;
        assert_eq!((answer.status, answer.header("ratelimit-remaining")), (status, Some(remaining)));
    }
}

#[tokio::test]
async fn blobs_are_redirected_to_a_cdn_that_wants_no_authorization() {
    for hub in both().await {
        let blob = noise(7, 300_000);
        let digest = hub.add_blob(REPO, blob.clone());
        let guest = Guest::of(&hub).await;
        let path = guest.redirected(&digest).await;
        let answer = ask(&hub, Role::Cdn, Call::get(&path)).await;
        assert_eq!((answer.status, answer.complete), (200, true));
        assert_eq!(answer.body, blob);
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        assert!(answer.header("docker-content-digest").is_none());

        assert_eq!(ask(&hub, Role::Cdn, guest.sign(Call::get(&path))).await.status, 400);
        let unsigned = path.split('?').next().unwrap();
        assert_eq!(ask(&hub, Role::Cdn, Call::get(unsigned)).await.status, 403);
        hub.expire_signatures();
        assert_eq!(ask(&hub, Role::Cdn, Call::get(&path)).await.status, 403);

        for (range, start, end) in
            [("bytes=1-4", 1, 5), ("bytes=299999-", 299_999, 300_000), ("bytes=-3", 299_997, 300_000)]
        {
            let part = guest.cdn_range(&digest, range).await;
            assert_eq!((part.status, &part.body[..]), (206, &blob[start..end]));
            let expected = format!("bytes {start}-{}/300000", end - 1);
            assert_eq!(part.header("content-range"), Some(expected.as_str()));
        }
        assert_eq!(guest.cdn_range(&digest, "bytes=300000-").await.status, 416);
        assert_eq!(guest.get(&format!("blobs/{}", Digest::sha256(b"no"))).await.status, 404);
        assert_eq!(hub.bytes_sent(&digest), 300_000 + 4 + 1 + 3 + error_bytes(&hub, &digest));
    }
}

fn error_bytes(hub: &Hub, digest: &Digest) -> u64 {
    let failed = hub.requests().into_iter().filter(|seen| seen.is_for(digest) && seen.status >= Some(400));
    failed.map(|seen| seen.sent).sum()
}

#[tokio::test]
async fn a_registry_without_redirect_has_ranges_itself() {
    let hub = Hub::plain().await;
    let digest = hub.add_blob(REPO, noise(7, 2048));
    hub.settings(|settings| settings.redirect = None);
    let guest = Guest::of(&hub).await;
    let answer = guest.get(&format!("blobs/{digest}")).await;
    assert_eq!((answer.status, answer.body.len()), (200, 2048));
    let call = Call::get(&format!("/v2/{REPO}/blobs/{digest}")).header("Range", "bytes=2000-5000");
    assert_eq!(guest.registry(call).await.header("content-range"), Some("bytes 2000-2047/2048"));
    let call =
        Call::get(&format!("/v2/{REPO}/blobs/{digest}")).header("Range", "bytes=1-").header("If-Range", "\"old\"");
    assert_eq!(guest.registry(call).await.status, 200);
}

#[tokio::test]
async fn tags_come_in_pages_and_can_move_and_go() {
    let hub = Hub::plain().await;
    hub.settings(|settings| settings.auth = false);
    let addr = hub.addr(Role::Registry);
    for tag in ["a", "b", "c"] {
        hub.push(REPO, tag, &Image::small(1));
    }
    let first = get(addr, &format!("/v2/{REPO}/tags/list?n=2")).await;
    assert_eq!(first.json(), serde_json::json!({"name": REPO, "tags": ["a", "b"]}));
    let link =
        first.header("link").unwrap().strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
    let second = get(addr, &link).await;
    assert_eq!((second.json()["tags"].clone(), second.header("link")), (serde_json::json!(["c"]), None));

    let other = hub.push_untagged(REPO, &Image::small(2));
    hub.retag(REPO, "a", other);
    hub.remove_tag(REPO, "b");
    let status = async |path: &str| {
        let call = Call::get(&format!("/v2/{REPO}/manifests/{path}")).header("Accept", MediaType::ACCEPT);
        let answer = call.send(addr).await;
        (answer.status, answer.header("docker-content-digest").map(str::to_owned))
    };
    assert_eq!(status("a").await, (200, Some(other.to_string())));
    assert_eq!(status("b").await, (404, None));
    assert_eq!(status(&Image::small(1).digest().to_string()).await.0, 200);
    hub.remove_repo(REPO);
    assert_eq!(status("a").await.0, 404);
}

#[tokio::test]
async fn referrers_are_listed_or_tagged() {
    let hub = Hub::plain().await;
    let subject = Image::small(1);
    hub.push(REPO, "1", &subject);
    let referrer = hub.push_untagged(REPO, &Image::referrer(2, "application/x-sbom", &subject));
    let guest = Guest::of(&hub).await;
    let list = format!("referrers/{}", subject.digest());
    let tag = format!("manifests/sha256-{}", subject.digest().hex());
    let answer = guest.get(&list).await;
    assert_eq!(answer.header("content-type"), Some(MediaType::OciIndex.as_str()));
    assert_eq!(answer.json()["manifests"][0]["digest"], referrer.to_string());
    assert_eq!(answer.json()["manifests"][0]["artifactType"], "application/x-sbom");
    assert_eq!(guest.get(&tag).await.status, 404);
    let none = guest.get(&format!("referrers/{}", Digest::sha256(b"no"))).await;
    assert_eq!((none.status, none.json()["manifests"].as_array().unwrap().len()), (200, 0));

    hub.settings(|settings| settings.referrers_api = false);
    assert_eq!(guest.get(&list).await.status, 404);
    assert_eq!(guest.get(&tag).await.json()["manifests"][0]["digest"], referrer.to_string());
}

#[tokio::test]
async fn everything_asked_is_written_down() {
    let hub = Hub::plain().await;
    let digest = hub.push(REPO, "3", &Image::small(1));
    let guest = Guest::of(&hub).await;
    hub.clear();
    let mut connection = Connection::open(hub.addr(Role::Registry)).await.unwrap();
    for method in ["HEAD", "GET"] {
        let call = guest.sign(Call::new(method, &format!("/v2/{REPO}/manifests/{digest}?ns=docker.io")));
        connection.call(&call.header("Accept-Encoding", "identity")).await;
    }
    hub.until_count(2, |seen: &crate::support::hub::Seen| seen.over).await;
    let seen = hub.requests();
    assert_eq!(seen[0].connection, seen[1].connection);
    assert_eq!((seen[0].status, seen[0].sent), (Some(200), 0));
    assert_eq!((seen[1].status, seen[1].sent), (Some(200), Image::small(1).manifest.len() as u64));
    assert_eq!(seen[1].query("ns").as_deref(), Some("docker.io"));
    assert_eq!(seen[1].header(hyper::header::ACCEPT_ENCODING), Some("identity"));
    assert_eq!(hub.count(Target::ManifestHead), 1);
    assert_eq!(hub.count(Target::ManifestDigest), 2);
    assert_eq!(hub.count(Target::ManifestTag), 0);
    assert_eq!(hub.open_connections(Role::Registry), 1);
    assert_eq!(hub.bytes_sent(&digest), seen[1].sent);
}

#[test]
fn images_are_what_larder_takes_them_for() {
    assert_eq!(Image::small(1).digest(), Image::small(1).digest());
    assert_ne!(Image::small(1).blob_digests(), Image::small(2).blob_digests());
    let image = Image::docker(3, &[5, 70_000]);
    assert_eq!(image.blobs.iter().skip(1).map(bytes::Bytes::len).collect::<Vec<_>>(), [5, 70_000]);
    let parsed = Manifest::parse(&image.manifest).unwrap();
    assert_eq!(parsed.blobs().map(|blob| blob.digest).collect::<Vec<_>>(), image.blob_digests());

    let index = Image::index_with_attestations(&[Image::small(1), Image::unpackable(2)]);
    let parsed = Manifest::parse(&index.manifest).unwrap();
    let attested: Vec<bool> = parsed.manifests.iter().map(larder::oci::Descriptor::is_attestation).collect();
    assert_eq!(attested, [false, false, true, true]);
    for (entry, child) in parsed.manifests.iter().zip(&index.children) {
        assert_eq!(entry.digest, child.digest());
        assert!(Manifest::parse(&child.manifest).is_ok());
    }
}
