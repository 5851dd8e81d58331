//! TLS: the handshake, what is not one, and new certificates.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::fixture::{Server, quick};
use crate::server::{BindError, Limits, Listener, Metrics, Settings, TlsError, TlsFiles};

const HELLO: &[u8] = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n";

struct Pair {
    certificate: CertificateDer<'static>,
    cert: String,
    key: String,
}

fn pair() -> Pair {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    Pair { certificate: made.cert.der().clone(), cert: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

fn write(directory: &Path, cert: &str, key: &str) -> TlsFiles {
    let files = TlsFiles { cert: directory.join("cert.pem"), key: directory.join("key.pem") };
    for (path, text) in [(&files.cert, cert), (&files.key, key)] {
        // As certbot and Kubernetes do it: a new file in the place of the old one.
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, path).unwrap();
    }
    files
}

async fn serve(pair: &Pair) -> (Server, TempDir) {
    let directory = TempDir::new().unwrap();
    let files = write(directory.path(), &pair.cert, &pair.key);
    let limits = Limits { header_timeout: Duration::from_secs(10), ..quick() };
    (Server::start_with(limits, Some(files)).await, directory)
}

async fn handshake(server: &Server, trusted: &Pair, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.certificate.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(server.address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

async fn hello(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(HELLO).await.unwrap();
    let mut answer = vec![0; 1024];
    let read = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test]
async fn requests_are_answered_over_tls() {
    let pair = pair();
    let (server, _directory) = serve(&pair).await;
    let mut stream = handshake(&server, &pair, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
    assert!(hello(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
    assert!(handshake(&server, &pair, &[]).await.is_ok());
    assert!(handshake(&server, &pair, &["h2"]).await.is_err(), "there is no HTTP/2 here");
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_told_so() {
    let (server, _directory) = serve(&pair()).await;
    let mut client = server.connect().await;
    client.get("/v2/").await;
    let (said, _) = client.rest().await;
    assert!(said.starts_with("HTTP/1.1 400 Bad Request") && said.contains("speaks HTTPS"), "{said}");
}

#[tokio::test]
async fn a_handshake_that_is_never_begun_or_never_ended_is_closed() {
    let (server, _directory) = serve(&pair()).await;
    for said in [&[][..], &[0x16], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]] {
        let mut client = server.connect().await;
        client.say(said).await;
        let (_, took) = client.rest().await;
        assert!(took < Duration::from_secs(1), "{said:?} {took:?}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_served_and_a_bad_one_is_not() {
    let (old, new) = (pair(), pair());
    let (server, directory) = serve(&old).await;
    let mut open = handshake(&server, &old, &[]).await.unwrap();

    for (cert, key) in [(&new.cert, &old.key), (&new.cert, &"nonsense".to_owned()), (&String::new(), &new.key)] {
        write(directory.path(), cert, key);
        sleep(Duration::from_millis(150)).await;
        assert!(handshake(&server, &old, &[]).await.is_ok(), "the old pair is kept");
    }

    write(directory.path(), &new.cert, &new.key);
    let served = async {
        while handshake(&server, &new, &[]).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), served).await.expect("the new pair");
    assert!(hello(&mut open).await.starts_with("HTTP/1.1 200 OK"), "a connection outlives its certificate");
}

#[tokio::test]
async fn a_pair_that_is_none_is_refused_at_the_start_without_showing_the_key() {
    let (one, other) = (pair(), pair());
    let directory = TempDir::new().unwrap();
    let broken_key = one.key.replace("-----END", "----END");
    let bind = async |files: TlsFiles| {
        let settings =
            Settings { name: "mirror", listen: "127.0.0.1:0".parse().unwrap(), tls: Some(files), limits: quick() };
        match Listener::bind(settings, &Metrics::new(&prometheus::Registry::new())).await {
            Err(BindError::Tls { source, .. }) => source,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("bound"),
        }
    };
    let mismatch = bind(write(directory.path(), &one.cert, &other.key)).await;
    assert!(matches!(mismatch, TlsError::Mismatch { .. }), "{mismatch}");
    let broken = bind(write(directory.path(), &one.cert, &broken_key)).await;
    assert!(matches!(broken, TlsError::Pem { wanted: "private key", .. }), "{broken}");
    assert!(!broken.to_string().contains(&one.key[40..60]), "{broken}");
    let files = write(directory.path(), &one.cert, &one.key);
    std::fs::remove_file(&files.key).unwrap();
    let missing = bind(files).await.to_string();
    assert!(missing.contains("key.pem") && missing.contains("No such file"), "{missing}");
}
