//! The end: what is under way may finish, what is idle closes, what takes too long is cut.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::fixture::{CHUNK, Server, quick};
use crate::server::Limits;

const PATIENT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_body_under_way_finishes_and_then_the_connection_closes() {
    let server = Server::start(quick()).await;
    let mut client = server.connect().await;
    client.get("/ticks/10").await;
    client.until("\r\n\r\n").await;
    server.drain.begin(PATIENT);
    let (body, _) = client.rest().await;
    assert_eq!(body.matches('x').count(), 10 * CHUNK);
    assert_eq!(server.served.await.unwrap(), 0);
    assert!(TcpStream::connect(server.address).await.is_err(), "still accepts");
}

#[tokio::test]
async fn an_idle_connection_and_a_silent_one_close_at_once() {
    let server = Server::start(Limits { header_timeout: PATIENT, ..quick() }).await;
    let (mut idle, mut silent) = (server.connect().await, server.connect().await);
    idle.get("/hello").await;
    idle.until("hello").await;
    server.has_connections(2).await;
    server.drain.begin(PATIENT);
    for client in [&mut idle, &mut silent] {
        assert_eq!(client.rest().await.0, "");
    }
    assert_eq!(server.served.await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_left_at_the_deadline_is_cut_and_counted() {
    let server = Server::start(quick()).await;
    let mut clients = [server.connect().await, server.connect().await];
    for client in &mut clients {
        client.get("/ticks/1000").await;
        client.until("\r\n\r\n").await;
    }
    let start = Instant::now();
    server.drain.begin(Duration::from_millis(200));
    assert_eq!(server.served.await.unwrap(), 2);
    assert!(start.elapsed() >= Duration::from_millis(200) && start.elapsed() < PATIENT);
    for client in &mut clients {
        assert!(!client.rest().await.0.ends_with("0\r\n\r\n"), "a cut body looks complete");
    }
}

#[tokio::test]
async fn a_second_wish_to_stop_is_not_patient() {
    let server = Server::start(quick()).await;
    let mut client = server.connect().await;
    client.get("/ticks/1000").await;
    client.until("\r\n\r\n").await;
    let start = Instant::now();
    server.drain.begin(PATIENT);
    server.drain.begin(PATIENT);
    assert_eq!(server.served.await.unwrap(), 1);
    assert!(start.elapsed() < PATIENT);
}

#[tokio::test]
async fn a_request_that_waits_in_the_kernel_is_answered() {
    let server = Server::start(quick()).await;
    // One thread: the listener has no chance to accept between these lines.
    let stream = std::net::TcpStream::connect(server.address).unwrap();
    std::io::Write::write_all(&mut &stream, b"GET /hello HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    server.drain.begin(PATIENT);
    stream.set_nonblocking(true).unwrap();
    let mut client = super::fixture::Client { stream: TcpStream::from_std(stream).unwrap() };
    let (said, _) = client.rest().await;
    assert!(said.starts_with("HTTP/1.1 200 OK") && said.contains("connection: close"), "{said}");
}
