//! Pushing blobs whole, mounting them, and pulling them.

use larder::oci::{Algorithm, Digest};

use super::{REPO, Registry};
use crate::support::client::{Call, Connection};
use crate::support::larder::files;
use crate::support::pushing::{refusal, with_digest};

#[tokio::test]
async fn a_blob_is_pushed_by_post_and_put_and_is_where_location_says() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let (bytes, digest) = (b"hello".as_slice(), Digest::sha256(b"hello"));
    let begun = repo.ask("POST", "blobs/uploads/").await;
    assert_eq!((begun.status, begun.header("range"), begun.header("content-length")), (202, Some("0-0"), Some("0")));
    let location = begun.header("location").unwrap();
    assert!(location.starts_with("/v2/team/app/blobs/uploads/"), "relative, for proxies: {location}");
    assert!(location.ends_with(begun.header("docker-upload-uuid").unwrap()));

    let created = repo.complete(location, digest, bytes).await;
    assert_eq!(created.status, 201);
    assert_eq!(created.header("docker-content-digest"), Some(digest.to_string().as_str()));
    let pulled = repo.send(Call::get(created.header("location").unwrap())).await;
    assert_eq!((pulled.status, &pulled.body[..]), (200, bytes));
    assert_eq!(pulled.header("docker-content-digest"), Some(digest.to_string().as_str()));
    assert_eq!(pulled.header("docker-distribution-api-version"), Some("registry/2.0"));
    let head = repo.head(&format!("blobs/{digest}")).await;
    assert_eq!(
        (head.status, head.header("content-length"), head.header("accept-ranges")),
        (200, Some("5"), Some("bytes"))
    );
    assert_eq!(registry.hub.connections(), 0, "no upstream is asked about what is ours");
}

#[tokio::test]
async fn a_blob_is_pushed_by_one_post() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let digest = Digest::sha256(b"one post");
    let post = Call::new("POST", &repo.path(&format!("blobs/uploads/?digest={digest}"))).body(b"one post");
    let created = repo.send(post).await;
    assert_eq!((created.status, created.header("docker-content-digest")), (201, Some(digest.to_string().as_str())));
    assert_eq!(repo.send(Call::get(created.header("location").unwrap())).await.body, b"one post");
}

#[tokio::test]
async fn a_blob_is_streamed_without_a_range_and_with_its_digest_encoded() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    let location = repo.begin().await;
    // As Docker sends it: chunked transfer, no length, no range.
    let mut chunked = Vec::new();
    for piece in bytes.chunks(100_000) {
        chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let patched = repo.send(Call::new("PATCH", &location).header("Transfer-Encoding", "chunked").body(&chunked)).await;
    assert_eq!((patched.status, patched.header("range")), (202, Some("0-2999999")));
    let digest = Digest::sha256(&bytes);
    let encoded = digest.to_string().replace(':', "%3A");
    let created = repo.complete(patched.header("location").unwrap(), encoded, b"").await;
    assert_eq!(created.status, 201, "{}", created.text());
    assert_eq!(repo.get(&format!("blobs/{digest}")).await.body, bytes);
}

#[tokio::test]
async fn a_wrong_digest_is_refused_on_every_way_and_leaves_nothing() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let wrong = Digest::sha256(b"something else");
    let put = {
        let location = repo.begin().await;
        repo.complete(&location, wrong, b"content").await
    };
    let post = Call::new("POST", &repo.path(&format!("blobs/uploads/?digest={wrong}"))).body(b"content");
    let post = repo.send(post).await;
    let streamed = {
        let location = repo.begin().await;
        repo.patch(&location, None, b"content").await;
        repo.complete(&location, wrong, b"").await
    };
    let chunked = {
        let location = repo.begin().await;
        repo.patch(&location, Some((0, 3)), b"cont").await;
        let last = Call::new("PUT", &with_digest(&location, wrong)).header("Content-Range", "4-6").body(b"ent");
        repo.send(last).await
    };
    for answer in [put, post, streamed, chunked] {
        assert_eq!(refusal(&answer), (400, "DIGEST_INVALID".into()));
    }
    for digest in ["sha256:abc", "sha256:", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha512:00"] {
        let location = repo.begin().await;
        let answer = repo.complete(&location, digest, b"content").await;
        assert_eq!(refusal(&answer), (400, "DIGEST_INVALID".into()), "{digest}");
        assert_eq!(repo.ask("DELETE", location.strip_prefix("/v2/team/app/").unwrap()).await.status, 204);
    }
    let missing = {
        let location = repo.begin().await;
        repo.send(Call::new("PUT", &location).body(b"content")).await
    };
    assert_eq!(refusal(&missing), (400, "DIGEST_INVALID".into()));
    assert_eq!(repo.head(&format!("blobs/{wrong}")).await.status, 404);
    assert_eq!(files(&registry.larder.data().join("blobs")).len(), 0);
    let left = files(&registry.larder.data().join("uploads"));
    assert_eq!(left.len(), 2, "the one upload whose digest was not named, and its state: {left:?}");
}

#[tokio::test]
async fn every_algorithm_is_verified_by_itself() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let digest = Digest::of(Algorithm::Sha512, b"long");
    for query in ["", "?digest-algorithm=sha512"] {
        let begun = repo.ask("POST", &format!("blobs/uploads/{query}")).await;
        assert_eq!(begun.status, 202);
        let created = repo.complete(begun.header("location").unwrap(), digest, b"long").await;
        assert_eq!((created.status, created.header("docker-content-digest")), (201, Some(digest.to_string().as_str())));
        let pulled = repo.get(&format!("blobs/{digest}")).await;
        assert_eq!((pulled.status, &pulled.body[..]), (200, b"long".as_slice()));
    }
    let unknown = repo.ask("POST", "blobs/uploads/?digest-algorithm=md5").await;
    assert_eq!(refusal(&unknown), (400, "DIGEST_INVALID".into()));
    assert_eq!(repo.head(&format!("blobs/{}", Digest::sha256(b"long"))).await.status, 404);
}

#[tokio::test]
async fn ranges_of_a_blob_are_exact() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let bytes: Vec<u8> = (0..2048u32).map(|n| (n % 251) as u8).collect();
    let blob = format!("blobs/{}", repo.push_blob(&bytes).await);
    for (asked, first, last) in [
        ("bytes=500-1499", 500, 1499),
        ("bytes=500-", 500, 2047),
        ("bytes=-500", 1548, 2047),
        ("bytes=2000-5000", 2000, 2047),
    ] {
        let part = repo.send(Call::get(&repo.path(&blob)).header("Range", asked)).await;
        assert_eq!((part.status, &part.body[..]), (206, &bytes[first..=last]), "{asked}");
        assert_eq!(part.header("content-range"), Some(format!("bytes {first}-{last}/2048").as_str()));
        assert_eq!(part.header("content-length"), Some((last - first + 1).to_string().as_str()));
    }
    for asked in ["bytes=500-0", "bytes=5000-10000"] {
        let none = repo.send(Call::get(&repo.path(&blob)).header("Range", asked)).await;
        // RFC 9110 lets a range that ends before it begins be ignored; the conformance suite wants 416.
        assert_eq!((none.status, none.header("content-range")), (416, Some("bytes */2048")), "{asked}");
    }
    let known = repo.head(&blob).await.header("etag").unwrap().to_owned();
    assert_eq!(repo.send(Call::get(&repo.path(&blob)).header("If-None-Match", &known)).await.status, 304);
}

/// Legal, costly, and what lazy snapshotters can read; a part alone would be wrong. However many are asked for.
#[tokio::test]
async fn several_ranges_at_once_are_answered_with_the_whole() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let bytes: Vec<u8> = (0..2048u32).map(|n| (n % 251) as u8).collect();
    let blob = format!("blobs/{}", repo.push_blob(&bytes).await);
    let many: Vec<String> = (0..1000).map(|n| format!("{n}-{n}")).collect();
    for ranges in ["0-9,20-29".to_owned(), "0-9, -5".to_owned(), "0-2047,0-2047".to_owned(), many.join(",")] {
        let answer = repo.send(Call::get(&repo.path(&blob)).header("Range", &format!("bytes={ranges}"))).await;
        assert_eq!((answer.status, &answer.body[..], answer.header("content-range")), (200, &bytes[..], None));
    }
}

/// Whoever sends a body where none belongs gets the answers to his requests all the same, each to its own.
#[tokio::test]
async fn a_body_that_nobody_reads_is_not_taken_for_the_next_request() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let [one, other] = [b"one".as_slice(), b"other"];
    let path = |bytes: &[u8]| repo.path(&format!("blobs/{}", Digest::sha256(bytes)));
    for bytes in [one, other] {
        repo.push_blob(bytes).await;
    }
    let smuggled = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", path(other));
    for method in ["GET", "HEAD", "DELETE"] {
        let mut connection = Connection::open(repo.at).await.unwrap();
        let target = if method == "DELETE" { path(b"absent") } else { path(one) };
        let call = Call::new(method, &target).body(smuggled.as_bytes());
        let first = connection.call(&call).await;
        assert_eq!(
            (first.status, first.body.is_empty()),
            (if method == "DELETE" { 404 } else { 200 }, method == "HEAD")
        );
        let next = connection.call(&Call::get("/v2/")).await;
        assert!(next.status == 0 || next.text() == "{}", "{method}: {} {}", next.status, next.text());
    }
}

#[tokio::test]
async fn a_blob_is_mounted_from_where_it_is_whatever_the_order_of_parameters() {
    let registry = Registry::open().await;
    let (from, to) = (registry.repo("team/base"), registry.repo(REPO));
    let digest = from.push_blob(b"shared").await;
    for (n, query) in
        [format!("mount={digest}&from=team/base"), format!("from=team%2Fbase&mount={digest}")].iter().enumerate()
    {
        let to = registry.repo(&format!("team/app{n}"));
        assert_eq!(to.head(&format!("blobs/{digest}")).await.status, 404, "a digest is no right to read");
        let mounted = to.ask("POST", &format!("blobs/uploads/?{query}")).await;
        assert_eq!((mounted.status, mounted.header("docker-content-digest")), (201, Some(digest.to_string().as_str())));
        assert_eq!(to.send(Call::get(mounted.header("location").unwrap())).await.body, b"shared");
    }
    // Where it is not, or nothing is, an upload begins instead.
    let absent = Digest::sha256(b"absent");
    for query in
        [format!("mount={absent}&from=team/base"), format!("mount={digest}&from=no/where"), format!("mount={absent}")]
    {
        let begun = to.ask("POST", &format!("blobs/uploads/?{query}")).await;
        assert_eq!(begun.status, 202, "{query}");
        assert_eq!(to.send(Call::get(begun.header("location").unwrap())).await.status, 204);
    }
    assert_eq!(to.push_blob(b"absent").await, absent);
    assert_eq!(files(&registry.larder.data().join("blobs")).len(), 2, "one file per digest, however many hold it");
}

#[tokio::test]
async fn a_blob_is_mounted_from_anywhere_if_the_client_does_not_say() {
    let registry = Registry::open().await;
    let digest = registry.repo("team/base").push_blob(b"somewhere").await;
    let to = registry.repo(REPO);
    let mounted = to.ask("POST", &format!("blobs/uploads/?mount={digest}")).await;
    assert_eq!(mounted.status, 201, "{}", mounted.text());
    assert_eq!(to.get(&format!("blobs/{digest}")).await.body, b"somewhere");
}

#[tokio::test]
async fn two_clients_with_the_same_blob_both_succeed() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let bytes = vec![5; 200_000];
    let pushes = (0..8).map(|_| repo.push_blob(&bytes));
    futures_util::future::join_all(pushes).await;
    assert_eq!(repo.get(&format!("blobs/{}", Digest::sha256(&bytes))).await.body, bytes);
    assert_eq!(files(&registry.larder.data().join("uploads")).len(), 0);
}
