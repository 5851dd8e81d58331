//! Pushing a blob in chunks: in order, out of order, asked about, gone on with, given up.

use std::time::Duration;

use larder::oci::{Algorithm, Digest};

use super::{REPO, Registry};
use crate::support::client::{Call, Connection};
use crate::support::larder::files;
use crate::support::pushing::{refusal, with_digest};

#[tokio::test]
async fn chunks_in_order_make_the_blob() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let (bytes, digest) = (b"0123456789", Digest::sha256(b"0123456789"));
    let mut location = repo.begin().await;
    for (first, last) in [(0, 3), (4, 7)] {
        let answer = repo.patch(&location, Some((first, last)), &bytes[first..=last]).await;
        assert_eq!((answer.status, answer.header("range")), (202, Some(format!("0-{last}").as_str())));
        location = answer.header("location").unwrap().to_owned();
    }
    let last = Call::new("PUT", &with_digest(&location, digest)).header("Content-Range", "8-9").body(&bytes[8..]);
    assert_eq!(repo.send(last).await.status, 201);
    assert_eq!(repo.get(&format!("blobs/{digest}")).await.body, bytes);
    assert_eq!(refusal(&repo.send(Call::get(&location)).await), (404, "BLOB_UPLOAD_UNKNOWN".into()), "it is over");
}

/// Whatever the digest's algorithm, and whether or not it was said at the beginning; down to nothing at all.
#[tokio::test]
async fn chunks_make_a_blob_of_any_algorithm_and_size() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    for (n, bytes) in [b"0123456789".as_slice(), b"x", b""].into_iter().enumerate() {
        for algorithm in Algorithm::ALL {
            for query in ["", "?digest-algorithm=sha256", "?digest-algorithm=sha512"] {
                let content = [bytes, query.as_bytes(), &[n as u8]].concat();
                let content = if bytes.is_empty() { bytes } else { &content };
                let begun = repo.ask("POST", &format!("blobs/uploads/{query}")).await;
                let mut location = begun.header("location").unwrap().to_owned();
                for (first, chunk) in content.chunks(5).enumerate().map(|(n, chunk)| (n * 5, chunk)) {
                    let patched = repo.patch(&location, Some((first, first + chunk.len() - 1)), chunk).await;
                    assert_eq!(patched.status, 202, "{}", patched.text());
                    location = patched.header("location").unwrap().to_owned();
                }
                if bytes.is_empty() {
                    assert_eq!(repo.patch(&location, None, b"").await.header("range"), Some("0-0"));
                }
                let digest = Digest::of(algorithm, content);
                let created = repo.complete(&location, digest, b"").await;
                assert_eq!(created.status, 201, "{algorithm:?} {query}: {}", created.text());
                assert_eq!(repo.get(&format!("blobs/{digest}")).await.body, content);
            }
        }
    }
    assert_eq!(files(&registry.larder.data().join("uploads")).len(), 0);
}

#[tokio::test]
async fn a_chunk_may_be_one_byte_and_they_may_be_many() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let bytes: Vec<u8> = (0..300u32).map(|n| n as u8).collect();
    let location = repo.begin().await;
    let mut connection = Connection::open(repo.at).await.unwrap();
    for (n, byte) in bytes.iter().enumerate() {
        let patch = Call::new("PATCH", &location).header("Content-Range", &format!("{n}-{n}")).body(&[*byte]);
        assert_eq!(connection.call(&patch).await.status, 202);
    }
    assert_eq!(repo.complete(&location, Digest::sha256(&bytes), b"").await.status, 201);
    assert_eq!(repo.get(&format!("blobs/{}", Digest::sha256(&bytes))).await.body, bytes);
}

#[tokio::test]
async fn a_chunk_out_of_order_is_416_and_the_upload_goes_on() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let digest = Digest::sha256(b"0123456789");
    let location = repo.begin().await;
    assert_eq!(repo.patch(&location, Some((4, 7)), b"4567").await.status, 416, "the first chunk begins at 0");
    assert_eq!(repo.patch(&location, Some((0, 3)), b"0123").await.status, 202);
    for (first, last, bytes) in [(6, 9, b"6789"), (0, 3, b"0123"), (3, 6, b"3456")] {
        let answer = repo.patch(&location, Some((first, last)), bytes).await;
        assert_eq!((answer.status, answer.header("range")), (416, Some("0-3")), "{first}");
        assert_eq!(answer.header("location"), Some(location.as_str()));
    }
    let put = Call::new("PUT", &with_digest(&location, digest)).header("Content-Range", "6-9").body(b"6789");
    assert_eq!(repo.send(put).await.status, 416);
    let status = repo.send(Call::get(&location)).await;
    assert_eq!((status.status, status.header("range")), (204, Some("0-3")));
    let answer = repo.patch(status.header("location").unwrap(), Some((4, 9)), b"456789").await;
    assert_eq!(answer.status, 202);
    assert_eq!(repo.complete(&location, digest, b"").await.status, 201);
    assert_eq!(repo.get(&format!("blobs/{digest}")).await.body, b"0123456789");
}

#[tokio::test]
async fn a_chunk_that_is_not_as_long_as_it_says_leaves_no_trace() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let location = repo.begin().await;
    repo.patch(&location, None, b"01").await;
    for range in ["2-4", "2-9"] {
        let announced = Call::new("PATCH", &location).header("Content-Range", range).body(b"23");
        assert_eq!(refusal(&repo.send(announced).await), (400, "SIZE_INVALID".into()), "{range}");
        let chunked = b"1\r\n2\r\n1\r\n3\r\n0\r\n\r\n";
        let unannounced = Call::new("PATCH", &location).header("Transfer-Encoding", "chunked");
        let unannounced = unannounced.header("Content-Range", range).body(chunked);
        assert_eq!(refusal(&repo.send(unannounced).await), (400, "SIZE_INVALID".into()), "{range}");
    }
    let shorter = Call::new("PATCH", &location).header("Transfer-Encoding", "chunked").header("Content-Range", "2-2");
    assert_eq!(refusal(&repo.send(shorter.body(b"2\r\n23\r\n0\r\n\r\n")).await), (400, "SIZE_INVALID".into()));
    for range in ["x", "5-2", "bytes", "-"] {
        let answer = repo.send(Call::new("PATCH", &location).header("Content-Range", range).body(b"23")).await;
        assert_eq!(refusal(&answer), (400, "BLOB_UPLOAD_INVALID".into()), "{range}");
    }
    assert_eq!(repo.send(Call::get(&location)).await.header("range"), Some("0-1"));
    assert_eq!(repo.complete(&location, Digest::sha256(b"0123"), b"23").await.status, 201);
}

#[tokio::test]
async fn an_upload_that_was_cancelled_is_gone() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let location = repo.begin().await;
    repo.patch(&location, None, b"half").await;
    assert_eq!(repo.send(Call::new("DELETE", &location)).await.status, 204);
    for method in ["GET", "PATCH", "DELETE"] {
        let answer = repo.send(Call::new(method, &location)).await;
        assert_eq!(refusal(&answer), (404, "BLOB_UPLOAD_UNKNOWN".into()), "{method}");
    }
    let put = repo.complete(&location, Digest::sha256(b"half"), b"").await;
    assert_eq!(refusal(&put), (404, "BLOB_UPLOAD_UNKNOWN".into()));
    assert_eq!(files(&registry.larder.data().join("uploads")).len(), 0);
}

#[tokio::test]
async fn an_upload_goes_on_after_the_connection_broke_and_after_a_restart() {
    let mut registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let bytes: Vec<u8> = (0..2_500_000u32).map(|n| (n * 7) as u8).collect();
    let location = repo.begin().await;
    let mut connection = Connection::open(repo.at).await.unwrap();
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 2500000\r\n\r\n");
    connection.write(head.as_bytes()).await;
    connection.write(&bytes[..1_200_000]).await;
    drop(connection);
    // What came is there as soon as the next request has its turn.
    let received = loop {
        let status = repo.send(Call::get(&location)).await;
        let last: usize = status.header("range").unwrap().strip_prefix("0-").unwrap().parse().unwrap();
        if last > 0 {
            break last + 1;
        }
    };
    assert!(received <= 1_200_000);
    registry.larder.restart().await;
    let repo = registry.repo(REPO);
    let status = repo.send(Call::get(&location)).await;
    assert_eq!((status.status, status.header("range")), (204, Some(format!("0-{}", received - 1).as_str())));
    let last = bytes.len() - 1;
    assert_eq!(repo.patch(&location, Some((received, last)), &bytes[received..]).await.status, 202);
    assert_eq!(repo.complete(&location, Digest::sha256(&bytes), b"").await.status, 201);
    assert_eq!(repo.get(&format!("blobs/{}", Digest::sha256(&bytes))).await.body, bytes);
}

#[tokio::test]
async fn an_upload_is_its_repositorys_only() {
    let registry = Registry::open().await;
    let (repo, other) = (registry.repo(REPO), registry.repo("other/app"));
    let location = repo.begin().await;
    let id = location.rsplit('/').next().unwrap();
    let elsewhere = other.path(&format!("blobs/uploads/{id}"));
    for method in ["GET", "PATCH", "DELETE"] {
        let answer = other.send(Call::new(method, &elsewhere)).await;
        assert_eq!(refusal(&answer), (404, "BLOB_UPLOAD_UNKNOWN".into()), "{method}");
    }
    assert_eq!(repo.send(Call::get(&location)).await.status, 204);
}

#[tokio::test]
async fn there_are_only_so_many_uploads_and_they_end_when_nobody_goes_on() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let first = repo.begin().await;
    for _ in 1..larder::hosted::MAX_UPLOADS {
        repo.begin().await;
    }
    let refused = repo.ask("POST", "blobs/uploads/").await;
    assert_eq!(refusal(&refused), (429, "TOOMANYREQUESTS".into()));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(repo.send(Call::get(&first)).await.status, 204, "those that are under way go on");
    registry.larder.clock.advance(Duration::from_secs(2 * 3600));
    repo.patch(&first, None, b"going on").await;
    repo.begin().await;
    assert_eq!(repo.send(Call::get(&first)).await.status, 204, "who goes on is not displaced");
    let left = files(&registry.larder.data().join("uploads"));
    assert_eq!(left.len(), 4, "two uploads and their states: {}", left.len());
}

#[tokio::test]
async fn what_is_refused_before_its_body_was_read_does_not_break_the_connection() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let location = repo.begin().await;
    let mut connection = Connection::open(repo.at).await.unwrap();
    for _ in 0..3 {
        let call = Call::new("PATCH", &location).header("Content-Range", "9-1008").body(&[1; 1000]);
        assert_eq!(connection.call(&call).await.status, 416);
    }
    assert_eq!(connection.call(&Call::get(&location)).await.status, 204, "the same connection still pairs them right");
}
