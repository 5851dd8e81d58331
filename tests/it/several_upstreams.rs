//! Several registries behind one mirror: neither ever answers for the other, and what they share is kept once.

use larder::oci::Digest;

use crate::support::hub::{Hub, Target};
use crate::support::image::{Image, noise};
use crate::support::larder::{Larder, files};

const REPO: &str = "team/app";

/// Docker Hub and ghcr.io, each with an image under the same name, and a mirror of both.
async fn two() -> (Hub, Hub, Image, Image, Larder) {
    let (docker, github) = (Hub::plain().await, Hub::plain().await);
    let (ours, theirs) = (Image::small(1), Image::small(2));
    docker.push(REPO, "latest", &ours);
    github.push(REPO, "latest", &theirs);
    let larder =
        Larder::mirroring_all(&[("docker.io", &docker, ""), ("ghcr.io", &github, "deny = [\"secret/**\"]")], "").await;
    (docker, github, ours, theirs, larder)
}

fn manifest(prefix: &str, reference: impl ToString, query: &str) -> String {
    format!("/v2/{prefix}{REPO}/manifests/{}{query}", reference.to_string())
}

#[tokio::test]
async fn one_name_in_two_registries_is_two_images() {
    let (_docker, _github, ours, theirs, larder) = two().await;
    for round in ["cold", "warm"] {
        for (path, image) in [
            (manifest("", "latest", ""), &ours),
            (manifest("docker.io/", "latest", ""), &ours),
            (manifest("", "latest", "?ns=docker.io"), &ours),
            (manifest("", "latest", "?ns=registry-1.docker.io"), &ours),
            (manifest("", "latest", "?ns=ghcr.io"), &theirs),
            (manifest("ghcr.io/", "latest", ""), &theirs),
            // A prefix says it in the name itself: it goes before what a client adds.
            (manifest("ghcr.io/", "latest", "?ns=docker.io"), &theirs),
        ] {
            let answer = larder.get(&path).await;
            assert_eq!((answer.status, &answer.body[..]), (200, &image.manifest[..]), "{round} {path}");
            let is_named = path.contains("?ns=") && !path.contains("ghcr.io/team");
            assert_eq!(answer.header("oci-namespace").is_some(), is_named, "{round} {path}: {:?}", answer.headers);
        }
    }
}

/// A client's `ns` is a word to look up, and never an address (reliability.md, S5).
#[tokio::test]
async fn no_ns_of_a_clients_choosing_is_ever_connected_to() {
    let (_docker, _github, _ours, _theirs, larder) = two().await;
    let canary = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = canary.local_addr().unwrap().port();
    let hosts = [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0",
        "169.254.169.254",
        "metadata.google.internal",
        "xn--lcalhost-54a",
    ];
    let hosts: Vec<String> = hosts.iter().flat_map(|host| [(*host).to_owned(), format!("{host}:{port}")]).collect();
    let mut tried = 0;
    for host in &hosts {
        for dressed in [
            host.clone(),
            format!("http://{host}"),
            format!("https://{host}/v2/"),
            format!("//{host}"),
            format!("docker.io@{host}"),
            format!("docker.io:x@{host}"),
            format!("docker.io%00{host}"),
            format!("docker.io%0d%0aHost:%20{host}"),
            format!("docker.io%23{host}"),
            format!("docker.io%2f..%2f{host}"),
            format!("{host}%2fdocker.io"),
            format!("{host}%3fdocker.io"),
            format!("docker.io.{host}"),
            format!("file://{host}/etc/passwd"),
            format!("docker.io&ns={host}"),
            format!("{host}&ns=docker.io"),
        ] {
            let answer = larder.get(&manifest("", "latest", &format!("?ns={dressed}"))).await;
            tried += 1;
            let is_ours = dressed.starts_with("docker.io&") || dressed.ends_with("&ns=docker.io");
            assert!(is_ours || [400, 404].contains(&answer.status), "{dressed}: {} {}", answer.status, answer.text());
            assert!(answer.status != 200 || !answer.text().contains("root:"), "{dressed}");
        }
        // Nor by a prefix, a Host, or a target of the whole.
        for path in [format!("{host}/{REPO}"), format!("docker.io@{host}/{REPO}")] {
            let answer = larder.get(&format!("/v2/{path}/tags/list")).await;
            tried += 1;
            assert!([400, 404, 503].contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
        }
    }
    assert!(tried > 400, "{tried}");
    let asked = tokio::time::timeout(std::time::Duration::ZERO, canary.accept()).await;
    assert!(asked.is_err(), "a word of a client's was connected to");
}

#[tokio::test]
async fn what_is_cached_of_one_registry_is_not_the_others() {
    let (docker, github, ours, theirs, larder) = two().await;
    for (query, image) in [("", &ours), ("?ns=ghcr.io", &theirs)] {
        assert_eq!(larder.get(&manifest("", "latest", query)).await.body, image.manifest);
        for digest in image.blob_digests() {
            assert_eq!(larder.get(&format!("/v2/{REPO}/blobs/{digest}{query}")).await.status, 200);
        }
    }
    larder.until_idle().await;
    for is_up in [true, false] {
        if !is_up {
            docker.stop().await;
            github.stop().await;
        }
        for (query, others) in [("", &theirs), ("?ns=ghcr.io", &ours)] {
            let digests = others.blob_digests();
            for digest in &digests {
                let answer = larder.get(&format!("/v2/{REPO}/blobs/{digest}{query}")).await;
                assert_eq!(answer.status, 404, "a blob of the other registry, is_up: {is_up}");
                let range = larder.head(&format!("/v2/{REPO}/blobs/{digest}{query}")).await;
                assert_eq!(range.status, 404, "a blob of the other registry, is_up: {is_up}");
            }
            let answer = larder.get(&manifest("", others.digest(), query)).await;
            let expected = if is_up { 404 } else { 503 };
            assert_eq!(answer.status, expected, "a manifest of the other registry, is_up: {is_up}");
        }
    }
}

#[tokio::test]
async fn a_blob_that_both_have_is_fetched_once_and_kept_once() {
    let (docker, github, _, _, larder) = two().await;
    let content = noise(3, 300_000);
    let digest = docker.add_blob(REPO, content.clone());
    github.add_blob(REPO, content.clone());
    for query in ["", "?ns=ghcr.io"] {
        let answer = larder.get(&format!("/v2/{REPO}/blobs/{digest}{query}")).await;
        assert!(answer.status == 200 && answer.body == content, "{query}");
    }
    // What is more than the blob is the text of a challenge.
    let (from_docker, from_github) = (docker.bytes_sent(&digest), github.bytes_sent(&digest));
    assert!(from_docker < content.len() as u64 + 500 && from_github < 500, "{from_docker} and {from_github} bytes");
    let copies = files(&larder.data()).into_iter().filter(|(_, bytes)| *bytes == content).count();
    assert_eq!(copies, 1);
    // And each may be asked when both are gone.
    docker.stop().await;
    github.stop().await;
    for query in ["", "?ns=ghcr.io"] {
        let answer = larder.get(&format!("/v2/{REPO}/blobs/{digest}{query}")).await;
        assert_eq!((answer.status, answer.header("x-larder-cache")), (200, Some("hit")), "{query}");
    }
}

#[tokio::test]
async fn one_registry_down_leaves_the_other_as_it_was() {
    let (docker, github, ours, theirs, larder) = two().await;
    docker.stop().await;
    assert_eq!(larder.get(&manifest("", "latest", "")).await.status, 503);
    let answer = larder.get(&manifest("ghcr.io/", "latest", "")).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &theirs.manifest[..]));
    assert!(github.count(Target::Manifest) > 0);
    let absent = larder.get(&manifest("ghcr.io/", ours.digest(), "")).await;
    assert_eq!(absent.status, 404, "the one that is well says for itself what it lacks");
}

#[tokio::test]
async fn what_may_not_be_pulled_is_refused_before_anyone_is_asked() {
    let (docker, github, _, _, larder) = two().await;
    github.push("secret/app", "latest", &Image::small(4));
    for path in ["/v2/ghcr.io/secret/app/manifests/latest", "/v2/secret/app/manifests/latest?ns=ghcr.io"] {
        let answer = larder.get(path).await;
        assert_eq!((answer.status, answer.json()["errors"][0]["code"].as_str()), (403, Some("DENIED")), "{path}");
    }
    let blob = format!("/v2/secret/app/blobs/{}?ns=ghcr.io", Digest::sha256(b"x"));
    assert_eq!(larder.get(&blob).await.status, 403);
    let unknown = larder.get("/v2/team/app/manifests/latest?ns=quay.io").await;
    assert_eq!((unknown.status, unknown.json()["errors"][0]["code"].as_str()), (404, Some("NAME_UNKNOWN")));
    assert_eq!((docker.requests().len(), github.requests().len()), (0, 0));
}
