//! Answers to what is not a request, or too much of it: fixed bytes, for which HTTP never has to begin.

use tokio::io::{AsyncWrite, AsyncWriteExt};

/// A TLS ClientHello on a port that does not speak TLS. containerd changes to plain HTTP when, and only when, what it
/// reads in the place of a ServerHello begins with `HTTP/`; closing without a word makes its pulls fail.
pub const SPEAKS_HTTP: Canned = Canned {
    head: "HTTP/1.1 400 Bad Request",
    text: "this port speaks plain HTTP: ask it with http://, or configure tls for it\n",
};

/// Plain HTTP on a port that speaks TLS.
pub const SPEAKS_HTTPS: Canned =
    Canned { head: "HTTP/1.1 400 Bad Request", text: "this port speaks HTTPS: ask it with https://\n" };

/// No seat left.
pub const FULL: Canned = Canned {
    head: "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1",
    text: "too many connections: try again in a moment\n",
};

/// Status line, perhaps with header fields, and text.
pub struct Canned {
    head: &'static str,
    text: &'static str,
}

impl Canned {
    /// Says it and closes. That the client may be gone is no news.
    pub async fn say(&self, mut to: impl AsyncWrite + Unpin) {
        let answer = self.to_string();
        if to.write_all(answer.as_bytes()).await.is_ok() {
            let _ = to.shutdown().await;
        }
    }
}

impl std::fmt::Display for Canned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Canned { head, text } = self;
        write!(
            f,
            "{head}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}",
            length = text.len()
        )
    }
}
