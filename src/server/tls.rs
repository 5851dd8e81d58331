//! Certificate and key, and whose certificates clients must show: read at the start, and again whenever the files change.
//! Never logs any of it, and never drops a connection for a new pair: a handshake takes what is there, and keeps it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use prometheus::{IntCounter, IntGauge};
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use super::expiry::end_of;
use crate::task;

/// Where a certificate and its key are, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and after it those that lead to a root, if any.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The CAs by one of which a client's certificate must be signed; none: clients need not have one.
    pub client_ca: Option<PathBuf>,
}

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path:?} as the user that larder runs as: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path:?} holds no {wanted} in PEM: {reason}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// What the parser says; never a part of the file.
        reason: String,
    },
    /// The key is another certificate's.
    #[error("the key in {key:?} does not belong to the certificate in {cert:?}")]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The CA for clients is none.
    #[error("{path:?} holds no CA that could have signed a client's certificate")]
    ClientCa {
        /// The file.
        path: PathBuf,
    },
    /// Anything else.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// TLS as one listener speaks it. Clones share the certificate.
#[derive(Clone)]
pub struct Tls {
    served: Arc<Served>,
}

/// What handshakes use now.
struct Served {
    files: TlsFiles,
    /// How the files looked when they were read at the start.
    stamp: Stamp,
    config: RwLock<Arc<ServerConfig>>,
    /// When the certificate ends, in seconds since 1970.
    expiry: IntGauge,
    /// How often new files were no good.
    refused: IntCounter,
}

impl Tls {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// There is no pair, its halves do not belong together, or there is no CA where one is named.
    pub fn load(files: TlsFiles, expiry: IntGauge, refused: IntCounter) -> Result<Tls, TlsError> {
        let stamp = stamp(&files);
        let (config, ends) = read_config(&files)?;
        expiry.set(ends);
        let config = RwLock::new(Arc::new(config));
        Ok(Tls { served: Arc::new(Served { files, stamp, config, expiry, refused }) })
    }

    /// Makes a connection of a socket, with what is served now.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.served.config.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Looks at the files for ever, and serves new ones as soon as they stand there for one whole round: what is still
    /// being written is left alone. What is no good is complained about once, and changes nothing.
    pub async fn follow_files(&self, every: Duration) {
        let (mut judged, mut seen) = (self.served.stamp, self.served.stamp);
        loop {
            tokio::time::sleep(every).await;
            let files = self.served.files.clone();
            let now = task::blocking(move || stamp(&files)).await;
            let settled = now == seen;
            seen = now;
            if settled && now != judged {
                judged = now;
                let served = self.served.clone();
                task::blocking(move || served.replace()).await;
            }
        }
    }
}

impl Served {
    fn replace(&self) {
        match read_config(&self.files) {
            Ok((config, ends)) => {
                self.expiry.set(ends);
                *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                tracing::info!(cert = ?self.files.cert, "the certificate was replaced");
            }
            Err(error) => {
                self.refused.inc();
                tracing::warn!(%error, "the new certificate is not used, the old one is kept");
            }
        }
    }
}

/// All that a handshake uses, and when its certificate ends. Tickets end with it: who resumes shows no certificate, and the CA may be another one now.
fn read_config(files: &TlsFiles) -> Result<(ServerConfig, i64), TlsError> {
    let pair = read_pair(files)?;
    // Where that cannot be read it alerts as one that has ended.
    let ends = pair.end_entity_cert().ok().and_then(|own| end_of(own)).unwrap_or_default();
    let pair = SingleCertAndKey::from(pair);
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_client_cert_verifier(read_verifier(files)?)
        .with_cert_resolver(Arc::new(pair));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // What comes before the handshake is over could be sent again by anyone.
    config.max_early_data_size = 0;
    // Docker's classic store opens a connection per request: a ticket saves it most of the handshake.
    config.ticketer = Ticketer::new()?;
    Ok((config, ends))
}

fn read_verifier(files: &TlsFiles) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Some(path) = &files.client_ca else { return Ok(Arc::new(NoClientAuth)) };
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate)?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
        .build()
        .map_err(|_| TlsError::ClientCa { path: path.clone() })
}

/// What changes when a file does: for each file time, size and inode, or nothing if it is not there.
type Stamp = [Option<(SystemTime, u64, u64)>; 3];

fn stamp(files: &TlsFiles) -> Stamp {
    [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()].map(|path| {
        let meta = std::fs::metadata(path?).ok()?;
        Some((meta.modified().ok()?, meta.len(), meta.ino()))
    })
}

fn read_pair(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let TlsFiles { cert, key, .. } = files;
    let certificates = read_certificates(cert)?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| no_pem(key, "private key", &error))?;
    CertifiedKey::from_der(certificates, private, &default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::Mismatch { cert: cert.clone(), key: key.clone() }
        }
        other => TlsError::Rustls(other),
    })
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .and_then(|found| if found.is_empty() { Err(PemError::NoItemsFound) } else { Ok(found) })
        .map_err(|error| no_pem(path, "certificate", &error))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn no_pem(path: &Path, wanted: &'static str, error: &PemError) -> TlsError {
    // Some of the parser's errors repeat the line that they are about, and this may be the key.
    let reason = match error {
        PemError::NoItemsFound => "there is none",
        PemError::MissingSectionEnd { .. } => "its last line is missing",
        PemError::Base64Decode(_) => "it is not base64",
        _ => "it cannot be understood",
    };
    TlsError::Pem { path: path.to_owned(), wanted, reason: reason.to_owned() }
}
