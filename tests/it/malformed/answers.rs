//! What the requests must come to: an answer or a close within fifteen seconds, one answer for one request, no 5xx, and a
//! refusal that a registry's client can read.
//!
//! Behind each request a good one is sent on the same connection, which asks for it to be closed. So nobody has to wait for
//! the end, and a server that sees more requests than were sent shows it by its answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use larder::oci::ErrorCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::corpus::corpus;

const AT_ONCE: usize = 32;
/// Longer than a server waits for a body that was announced, and that it reads.
const PATIENCE: Duration = Duration::from_secs(45);
const FOLLOWER: &[u8] = b"GET /v2/ HTTP/1.1\r\nHost: larder\r\nConnection: close\r\n\r\n";

/// What a test may put where no answer may come from.
pub const CANARY: &str = "nobody may read this canary";

/// What hyper answers by itself, without a body, to what it cannot read.
const UNREADABLE: [u16; 3] = [400, 414, 431];

/// What the requests came to.
#[derive(Debug, Default)]
pub struct Tally {
    /// First answers, by status.
    pub answers: BTreeMap<u16, usize>,
    /// Connections that were closed without a word.
    pub closed: usize,
    /// Requests after which the good one was answered too.
    pub followed: usize,
}

/// One answer as it stood on the wire.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

/// Sends the whole corpus to a mirror. Its upstream must answer, if only with 404: some of the requests are good enough to
/// be passed on.
///
/// Panics with the first few requests that came to something else than they must.
pub async fn assert_all_answered(address: SocketAddr) -> Tally {
    let outcomes = stream::iter(corpus().enumerate())
        .map(|(number, request)| async move { (number, outcome(address, &request).await, request) })
        .buffer_unordered(AT_ONCE);
    let (mut tally, mut wrong) = (Tally::default(), Vec::new());
    let mut outcomes = std::pin::pin!(outcomes);
    while let Some((number, outcome, request)) = outcomes.next().await {
        match outcome {
            Ok(answers) => tally.count(&answers),
            Err(why) => {
                let shown: String = request.escape_ascii().to_string().chars().take(300).collect();
                wrong.push(format!("#{number}: {why}\n    {shown}"));
            }
        }
    }
    let some = wrong.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of the malformed requests; {tally:?}\n{some}", wrong.len());
    tally
}

impl Tally {
    fn count(&mut self, answers: &[Answer]) {
        match answers {
            [] => self.closed += 1,
            [first, rest @ ..] => {
                *self.answers.entry(first.status).or_default() += 1;
                self.followed += rest.len();
            }
        }
    }
}

async fn outcome(address: SocketAddr, request: &[u8]) -> Result<Vec<Answer>, String> {
    let said = timeout(PATIENCE, converse(address, request)).await.map_err(|_| "neither answer nor close")??;
    let answers = parse(&said, request)?;
    for (answer, request) in answers.iter().zip([request, FOLLOWER]) {
        judge(answer, request)?;
    }
    Ok(answers)
}

async fn converse(address: SocketAddr, request: &[u8]) -> Result<Vec<u8>, String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| format!("cannot connect: {error}"))?;
    // The server may have heard enough before the end.
    let _ = stream.write_all(&[request, FOLLOWER].concat()).await;
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await.map_err(|error| format!("{error} after {} bytes", said.len()))?;
    Ok(said)
}

fn parse(mut said: &[u8], request: &[u8]) -> Result<Vec<Answer>, String> {
    let mut answers = Vec::new();
    while !said.is_empty() {
        let end =
            said.windows(4).position(|four| four == b"\r\n\r\n").ok_or("an answer without the end of its head")?;
        let head = String::from_utf8(said[..end].to_vec()).map_err(|_| "an answer's head is not text")?;
        said = &said[end + 4..];
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status: u16 = status.filter(|_| head.starts_with("HTTP/1.")).ok_or(format!("no answer: {head:?}"))?;
        if status == 100 {
            continue;
        }
        // What may stand before the method, and is skipped by whoever reads it.
        let method = request.trim_ascii_start();
        let is_head = answers.is_empty() && method.starts_with(b"HEAD ");
        let length = if is_head || matches!(status, 204 | 304) { Ok(0) } else { content_length(&head) }?;
        let body = said.get(..length).ok_or_else(|| format!("an answer broke off: {head:?}"))?.to_vec();
        said = &said[length..];
        answers.push(Answer { status, head: head.to_ascii_lowercase(), body });
    }
    if answers.len() > 2 {
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        return Err(format!("two requests, and the answers {statuses:?}"));
    }
    Ok(answers)
}

fn content_length(head: &str) -> Result<usize, String> {
    let lower = head.to_ascii_lowercase();
    let mut lengths = lower.lines().filter_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    lengths.next().ok_or_else(|| format!("an answer of unknown length: {head:?}"))
}

fn judge(answer: &Answer, request: &[u8]) -> Result<(), String> {
    let Answer { status, head, body } = answer;
    if !(200..500).contains(status) {
        return Err(format!("status {status}: {}", String::from_utf8_lossy(body)));
    }
    if body.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()) {
        return Err("what lies outside the data directory".to_owned());
    }
    if head.lines().any(|line| line.starts_with("x-injected")) {
        return Err(format!("a header of the client's making: {head:?}"));
    }
    if request.starts_with(b"CONNECT ") && *status < 300 {
        return Err("a tunnel".to_owned());
    }
    let bare = body.is_empty() && (UNREADABLE.contains(status) || request.trim_ascii_start().starts_with(b"HEAD "));
    if *status >= 400 && !bare && is_of_the_api(request) {
        let text = String::from_utf8_lossy(body);
        return is_error_body(body).map_err(|why| format!("status {status} with {why}: {text}"));
    }
    Ok(())
}

fn is_of_the_api(request: &[u8]) -> bool {
    // What begins like a TLS handshake is told that this is none.
    if request.starts_with(b"\x16") {
        return false;
    }
    let target = request.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    target.starts_with(b"/v2/")
}

fn is_error_body(body: &[u8]) -> Result<(), &'static str> {
    let body: serde_json::Value = serde_json::from_slice(body).map_err(|_| "a body that is not JSON")?;
    let errors = body["errors"].as_array().filter(|errors| !errors.is_empty()).ok_or("no errors in its body")?;
    for error in errors {
        let code = error["code"].as_str().ok_or("an error without a code")?;
        if !ErrorCode::all().any(|known| known.as_str() == code) {
            return Err("a code that the specification does not have");
        }
        error["message"].as_str().ok_or("an error without a message")?;
    }
    Ok(())
}
