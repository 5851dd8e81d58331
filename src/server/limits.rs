//! How much of the server one client, or all of them, may hold. Plain values; nothing here enforces them.

use std::time::Duration;

/// The bounds of a listener. The defaults are right for a machine that does little else.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time. Lowered to half of the files that the process may open, if that is less.
    pub max_connections: usize,
    /// Connections at a time from one address, or one /64 of IPv6. Does not hold for loopback: what connects from there
    /// is a reverse proxy, which speaks for many.
    pub max_connections_per_client: usize,
    /// From nothing to a whole request head, and from one answer to the next request.
    pub header_timeout: Duration,
    /// From nothing to the end of the TLS handshake.
    pub tls_timeout: Duration,
    /// How long a client may take nothing of what is there for it.
    pub write_timeout: Duration,
    /// How long a client may send nothing of the request body that it announced.
    pub body_timeout: Duration,
    /// How long a connection that is over stays, so that its last answer is not destroyed by a reset.
    pub linger_timeout: Duration,
    /// Header fields of one request.
    pub max_headers: usize,
    /// Bytes of one request's head.
    pub max_header_bytes: usize,
    /// How often certificate and key are looked at for a change.
    pub certificate_poll: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: 10_000,
            max_connections_per_client: 256,
            header_timeout: Duration::from_secs(15),
            tls_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            linger_timeout: Duration::from_secs(2),
            max_headers: 64,
            max_header_bytes: 32 << 10,
            certificate_poll: Duration::from_secs(2),
        }
    }
}
