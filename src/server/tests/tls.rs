//! TLS: the handshake, what is not one, and new certificates.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::fixture::{PATIENCE, Server, quick};
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
    let files = TlsFiles { cert: directory.join("cert.pem"), key: directory.join("key.pem"), client_ca: None };
    put(&files.cert, cert);
    put(&files.key, key);
    files
}

/// As certbot and Kubernetes do it: a new file in the place of the old one.
fn put(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

async fn serve(pair: &Pair) -> (Server, TempDir) {
    let directory = TempDir::new().unwrap();
    let files = write(directory.path(), &pair.cert, &pair.key);
    let limits = Limits { header_timeout: Duration::from_secs(10), ..quick() };
    (Server::start_with(limits, Some(files)).await, directory)
}

async fn handshake(server: &Server, trusted: &Pair, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = client(trusted, None);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    connect(server, config).await
}

async fn connect(server: &Server, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(server.address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// A client that trusts a certificate, and shows one of its own if it has one.
fn client(trusted: &Pair, own: Option<&Shown>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.certificate.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match own {
        None => config.with_no_client_auth(),
        Some(Shown { cert, key }) => config.with_client_auth_cert(vec![cert.clone()], key.clone_key()).unwrap(),
    }
}

/// A client's own certificate.
struct Shown {
    cert: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// A CA for clients' certificates.
struct Ca {
    params: CertificateParams,
    key: KeyPair,
}

impl Ca {
    fn new() -> Ca {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ca { params, key: KeyPair::generate().unwrap() }
    }

    fn pem(&self) -> String {
        self.params.self_signed(&self.key).unwrap().pem()
    }

    fn sign(&self, change: impl Fn(&mut CertificateParams)) -> Shown {
        let (mut params, key) = (CertificateParams::new(["client".to_owned()]).unwrap(), KeyPair::generate().unwrap());
        change(&mut params);
        let cert = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        Shown { cert: cert.der().clone(), key: key.into() }
    }
}

/// A server that only clients with a certificate of `ca` get into.
async fn serve_clients_of(ca: &Ca, pair: &Pair) -> (Server, TempDir) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("clients.pem");
    put(&path, &ca.pem());
    let files = TlsFiles { client_ca: Some(path), ..write(directory.path(), &pair.cert, &pair.key) };
    let limits = Limits { header_timeout: Duration::from_secs(10), ..quick() };
    (Server::start_with(limits, Some(files)).await, directory)
}

/// Whether a request is answered. With TLS 1.3 a client hears only then that its certificate is not wanted.
async fn gets_in(server: &Server, config: ClientConfig) -> bool {
    let Ok(mut stream) = connect(server, config).await else { return false };
    let mut answer = vec![0; 1024];
    let read = match stream.write_all(HELLO).await {
        Ok(()) => stream.read(&mut answer).await.unwrap_or(0),
        Err(_) => 0,
    };
    answer[..read].starts_with(b"HTTP/1.1 200 OK")
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
        client.rest().await;
    }
}

#[tokio::test]
async fn a_new_certificate_is_served_and_a_bad_one_is_not() {
    let (old, new) = (pair(), pair());
    let (server, directory) = serve(&old).await;
    let mut open = handshake(&server, &old, &[]).await.unwrap();

    let bad = [(&new.cert, &old.key), (&new.cert, &"nonsense".to_owned()), (&String::new(), &new.key)];
    for (n, (cert, key)) in (1..).zip(bad) {
        write(directory.path(), cert, key);
        server.has_refused(n).await;
        assert!(handshake(&server, &old, &[]).await.is_ok(), "the old pair is kept");
    }

    write(directory.path(), &new.cert, &new.key);
    let served = async {
        while handshake(&server, &new, &[]).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, served).await.expect("the new pair");
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

#[tokio::test]
async fn only_who_shows_a_certificate_of_the_client_ca_gets_in() {
    let (pair, ca, other) = (pair(), Ca::new(), Ca::new());
    let (server, _directory) = serve_clients_of(&ca, &pair).await;
    let good = ca.sign(|_| {});
    let expired = ca.sign(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    assert!(gets_in(&server, client(&pair, Some(&good))).await);
    for refused in [None, Some(&other.sign(|_| {})), Some(&expired)] {
        assert!(!gets_in(&server, client(&pair, refused)).await);
    }
}

#[tokio::test]
async fn a_new_client_ca_counts_for_who_comes_again_too() {
    let (pair, ca, new) = (pair(), Ca::new(), Ca::new());
    let (server, directory) = serve_clients_of(&ca, &pair).await;
    // One client that keeps its tickets.
    let known = client(&pair, Some(&ca.sign(|_| {})));
    assert!(gets_in(&server, known.clone()).await && gets_in(&server, known.clone()).await);
    let mut open = connect(&server, known.clone()).await.unwrap();
    assert_eq!(open.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));

    put(&directory.path().join("clients.pem"), "nonsense");
    server.has_refused(1).await;
    assert!(gets_in(&server, known.clone()).await, "a bad CA is not taken");
    put(&directory.path().join("clients.pem"), &new.pem());
    let theirs = client(&pair, Some(&new.sign(|_| {})));
    let served = async {
        while !gets_in(&server, theirs.clone()).await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, served).await.expect("the new CA");
    assert!(!gets_in(&server, known).await, "a ticket is no certificate");
    assert!(hello(&mut open).await.starts_with("HTTP/1.1 200 OK"), "a connection outlives the CA it came by");
}

#[tokio::test]
async fn a_client_ca_that_is_none_is_refused_at_the_start() {
    let (pair, directory) = (pair(), TempDir::new().unwrap());
    let path = directory.path().join("clients.pem");
    for text in [None, Some(""), Some(pair.key.as_str())] {
        if let Some(text) = text {
            put(&path, text);
        }
        let files = TlsFiles { client_ca: Some(path.clone()), ..write(directory.path(), &pair.cert, &pair.key) };
        let settings =
            Settings { name: "mirror", listen: "127.0.0.1:0".parse().unwrap(), tls: Some(files), limits: quick() };
        let refused = Listener::bind(settings, &Metrics::new(&prometheus::Registry::new())).await.err().unwrap();
        assert!(refused.to_string().contains("clients.pem"), "{refused}");
    }
}

#[tokio::test]
async fn what_comes_again_is_resumed_and_nothing_is_taken_before_the_handshake() {
    let pair = pair();
    let (server, _directory) = serve(&pair).await;
    let mut config = client(&pair, None);
    config.enable_early_data = true;
    assert!(gets_in(&server, config.clone()).await);
    let mut again = connect(&server, config).await.unwrap();
    let session = again.get_mut().1;
    assert_eq!(session.handshake_kind(), Some(HandshakeKind::Resumed));
    assert!(!session.is_early_data_accepted());
    // Asked for by the ticket's own word: it allows no early data at all.
    assert!(session.early_data().is_none());
}

/// A ClientHello that offers no later version than this one, otherwise one that we would take.
fn greeting(version: u16) -> Vec<u8> {
    let extensions: &[&[u8]] = &[
        // supported_groups: X25519, P-256; ec_point_formats: uncompressed; signature_algorithms: ECDSA and RSA with SHA-256.
        &[0, 10, 0, 6, 0, 4, 0, 29, 0, 23],
        &[0, 11, 0, 2, 1, 0],
        &[0, 13, 0, 6, 0, 4, 4, 3, 4, 1],
        // extended_master_secret.
        &[0, 23, 0, 0],
    ];
    let extensions = extensions.concat();
    let mut hello = version.to_be_bytes().to_vec();
    hello.extend([7; 32]);
    // No session; ECDHE-ECDSA with AES-GCM and with AES-CBC, as of TLS 1.2 and before; no compression.
    hello.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x09, 1, 0]);
    hello.extend((extensions.len() as u16).to_be_bytes());
    hello.extend(extensions);
    let mut record = vec![0x16, 3, 1];
    record.extend((hello.len() as u16 + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend((hello.len() as u16).to_be_bytes());
    record.extend(&hello);
    record
}

#[tokio::test]
async fn nothing_older_than_tls_1_2_is_spoken() {
    const ALERT: u8 = 0x15;
    const HANDSHAKE: u8 = 0x16;
    let (server, _directory) = serve(&pair()).await;
    for (version, answered) in [(0x0300, ALERT), (0x0301, ALERT), (0x0302, ALERT), (0x0303, HANDSHAKE)] {
        let mut client = server.connect().await;
        client.say(greeting(version)).await;
        let first = timeout(Duration::from_secs(10), client.stream.read_u8()).await.expect("an answer").unwrap();
        assert_eq!(first, answered, "{version:x}");
    }
}

#[tokio::test]
async fn no_handshake_fails_while_the_certificate_is_renewed_over_and_over() {
    let pair = pair();
    let (server, directory) = serve(&pair).await;
    let mut open = handshake(&server, &pair, &[]).await.unwrap();
    for _ in 0..20 {
        // The same pair as new files: every one of them is read and served.
        write(directory.path(), &pair.cert, &pair.key);
        for _ in 0..5 {
            let mut stream = handshake(&server, &pair, &[]).await.expect("a handshake");
            assert!(hello(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
        }
        assert!(hello(&mut open).await.starts_with("HTTP/1.1 200 OK"));
    }
}
