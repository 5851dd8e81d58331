//! Clients that are slow to take, or slow to give.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep};

use super::fixture::{CHUNK, Server, quick};

/// More than the kernel takes from a server for a client that reads nothing.
const MANY: usize = 256;

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let server = Server::start(quick()).await;
    for what in ["chunks", "files"] {
        let mut client = server.connect().await;
        client.get(&format!("/{what}/{MANY}")).await;
        server.has_connections(1).await;
        let start = Instant::now();
        server.has_connections(0).await;
        assert!(start.elapsed() > Duration::from_millis(300), "cut before its time was up");
        let broken = client.stream.read_to_end(&mut Vec::new()).await;
        assert_eq!(broken.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_client_that_takes_little_at_a_time_is_not_cut() {
    let server = Server::start(quick()).await;
    for what in ["chunks", "files"] {
        let mut client = server.connect().await;
        client.get(&format!("/{what}/32")).await;
        let (start, mut piece, mut taken) = (Instant::now(), vec![0; CHUNK / 2], 0);
        while taken < 32 * CHUNK {
            sleep(Duration::from_millis(25)).await;
            let read = client.stream.read(&mut piece).await.unwrap();
            assert!(read > 0, "closed after {taken} bytes");
            taken += read;
        }
        assert!(start.elapsed() > Duration::from_millis(1200), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_slow_service_is_not_taken_for_a_slow_client() {
    let server = Server::start(quick()).await;
    let mut client = server.connect().await;
    client.say("GET /ticks/12 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await;
    let (said, took) = client.rest().await;
    assert!(said.ends_with("0\r\n\r\n") && took > Duration::from_millis(600), "{took:?}");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let server = Server::start(quick()).await;
    let mut client = server.connect().await;
    client.say("PUT /length HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc").await;
    let (said, _took) = client.rest().await;
    assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("stalled"), "{said}");
}

#[tokio::test]
async fn a_dripping_body_is_given_up_and_a_slow_one_is_not() {
    let server = Server::start(quick()).await;
    for (piece, wanted) in [(1, "HTTP/1.1 408 "), (200, "HTTP/1.1 200 ")] {
        let mut client = server.connect().await;
        let length = 10 * piece;
        client.say(format!("PUT /length HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n")).await;
        for _ in 0..10 {
            sleep(Duration::from_millis(80)).await;
            if tokio::io::AsyncWriteExt::write_all(&mut client.stream, &vec![b'x'; piece]).await.is_err() {
                break;
            }
        }
        let said = client.until("\r\n\r\n").await;
        assert!(said.starts_with(wanted), "{said}");
    }
}
