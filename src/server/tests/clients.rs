//! Clients that say nothing, too little, too much, the wrong thing, or come in too great a number.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::fixture::{CHUNK, PATIENCE, Server, quick};
use crate::server::{BindError, Limits, Listener, Metrics, Settings};

#[tokio::test]
async fn a_client_that_says_nothing_is_closed() {
    let server = Server::start(quick()).await;
    let (said, _) = server.connect().await.rest().await;
    assert_eq!(said, "");
    server.has_connections(0).await;
}

#[tokio::test]
async fn a_client_that_says_one_byte_is_closed() {
    let server = Server::start(quick()).await;
    for byte in ["P", "\x17", "\n"] {
        let mut client = server.connect().await;
        client.say(byte).await;
        let (said, _) = client.rest().await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{said}");
    }
}

#[tokio::test]
async fn a_dripping_head_is_closed() {
    let server = Server::start(quick()).await;
    let mut client = server.connect().await;
    let head = "GET /hello HTTP/1.1\r\nHost: test\r\nX-Long: ".bytes().chain(std::iter::repeat(b'a'));
    let dripping = async {
        for byte in head {
            if tokio::io::AsyncWriteExt::write_all(&mut client.stream, &[byte]).await.is_err() {
                break;
            }
            // The client's pace; nothing waits for it.
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, dripping).await.expect("a close");
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_answer() {
    let server = Server::start(quick()).await;
    let mut client = server.connect().await;
    client.get("/hello").await;
    let (said, took) = client.rest().await;
    assert!(said.ends_with("hello"), "{said}");
    assert!(took > Duration::from_millis(300), "{took:?}");
}

#[tokio::test]
async fn a_client_hello_on_a_plain_port_is_answered_in_http() {
    let server = Server::start(quick()).await;
    let mut client = server.connect().await;
    // More than the header says, so that something is left unread when the answer is given.
    client.say([&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], [7; 5000].as_slice()].concat()).await;
    let (said, _) = client.rest().await;
    assert!(said.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{said}");
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    assert!(body.contains("plain HTTP") && head.contains(&format!("Content-Length: {}", body.len())), "{said}");
}

#[tokio::test]
async fn a_pipelined_pair_gets_two_answers_in_order() {
    let server = Server::start(quick()).await;
    let mut client = server.connect().await;
    client
        .say("POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    let said = client.until("hello").await;
    assert_eq!(said.matches("HTTP/1.1 200 OK").count(), 2, "{said}");
    assert!(said.split("HTTP/1.1").nth(1).unwrap().ends_with("\r\n\r\n3"), "{said}");
}

#[tokio::test]
async fn files_and_bytes_on_one_connection_keep_their_order() {
    let server = Server::start(quick()).await;
    let mut client = server.connect().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.say(["/files/3", "/hello", "/files/1", "/files/20", "/hello"].map(get).concat()).await;
    let (said, _) = client.rest().await;
    let bodies: Vec<&str> = said.split("\r\n\r\n").skip(1).collect();
    // Behind each body but the last stands the next answer's head.
    for (body, (length, content)) in
        bodies.iter().zip([(3 * CHUNK, "f"), (5, "hello"), (CHUNK, "f"), (20 * CHUNK, "f")])
    {
        let (body, next) = body.split_at(length);
        assert!(body == content || body.bytes().all(|byte| byte == b'f'), "{length}");
        assert!(next.starts_with("HTTP/1.1 200 OK\r\n"), "{next}");
    }
    assert_eq!((bodies.len(), bodies[4]), (5, "hello"));
}

#[tokio::test]
async fn a_file_longer_than_was_announced_cuts_the_connection_and_nothing_else_is_sent_for_it() {
    let server = Server::start(quick()).await;
    let mut client = server.connect().await;
    client.get("/liar/3").await;
    let (said, _) = client.rest().await;
    let body = said.split("\r\n\r\n").nth(1).unwrap();
    assert!(body.len() <= 2 * CHUNK && body.bytes().all(|byte| byte == b'f'), "{}", body.len());
}

#[tokio::test]
async fn too_long_a_head_gets_431_although_the_rest_of_it_is_unread() {
    let server = Server::start(quick()).await;
    let many: String = (0..65).map(|n| format!("X-{n}: v\r\n")).collect();
    for head in [format!("Cookie: {}\r\n", "c".repeat(200 << 10)), many] {
        let mut client = server.connect().await;
        client.say(format!("GET /hello HTTP/1.1\r\nHost: test\r\n{head}\r\n")).await;
        let (said, _) = client.rest().await;
        assert!(said.starts_with("HTTP/1.1 431 "), "{said}");
    }
}

#[tokio::test]
async fn a_refused_upload_still_gets_its_answer() {
    let server = Server::start(Limits { linger_timeout: 2 * PATIENCE, ..quick() }).await;
    let mut client = server.connect().await;
    client.say("PUT /refuse HTTP/1.1\r\nHost: test\r\nContent-Length: 8000000\r\n\r\n").await;
    client.say(vec![b'x'; 8_000_000]).await;
    let (said, _) = client.rest().await;
    assert!(said.starts_with("HTTP/1.1 403 ") && said.ends_with("refused"), "{said}");
}

#[tokio::test]
async fn continue_is_said_to_a_client_whose_body_is_wanted_and_to_no_other() {
    let server = Server::start(quick()).await;
    let expecting =
        |path| format!("PUT {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    let mut wanted = server.connect().await;
    wanted.say(expecting("/length")).await;
    assert_eq!(wanted.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    wanted.say("ab").await;
    assert!(wanted.until("\r\n\r\n2").await.starts_with("HTTP/1.1 200 OK"));
    let mut unwanted = server.connect().await;
    unwanted.say(expecting("/refuse")).await;
    assert!(unwanted.rest().await.0.starts_with("HTTP/1.1 403 "));
}

#[tokio::test]
async fn one_connection_too_many_gets_503_and_the_next_one_a_seat() {
    let server = Server::start(Limits { max_connections: 2, header_timeout: Duration::from_secs(5), ..quick() }).await;
    let (first, _second) = (server.connect().await, server.connect().await);
    server.has_connections(2).await;
    let mut third = server.connect().await;
    third.get("/hello").await;
    let (said, _) = third.rest().await;
    assert!(said.starts_with("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"), "{said}");
    drop(first);
    server.has_connections(1).await;
    let mut fourth = server.connect().await;
    fourth.get("/hello").await;
    fourth.until("hello").await;
}

#[tokio::test]
async fn a_taken_port_is_named_with_what_to_do() {
    let server = Server::start(quick()).await;
    let settings = Settings { name: "mirror", listen: server.address, tls: None, limits: quick() };
    let error = Listener::bind(settings, &Metrics::new(&prometheus::Registry::new())).await.err().unwrap();
    assert!(matches!(error, BindError::Listen { .. }));
    let said = error.to_string();
    assert!(said.contains(&server.address.to_string()) && said.contains("`listen` in [mirror]"), "{said}");
}
