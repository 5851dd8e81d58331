//! Certificate and key: read at the start, and again whenever the files change. Never logs either, and never drops a
//! connection for a new pair: a handshake takes the pair that is there, and keeps it.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use crate::task;

/// Where a certificate and its key are, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and after it those that lead to a root, if any.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path:?}: {source}")]
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
    /// Anything else.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// TLS as one listener speaks it. Clones share the certificate.
#[derive(Clone)]
pub struct Tls {
    /// Makes connections of sockets.
    pub acceptor: TlsAcceptor,
    served: Arc<Served>,
}

/// The pair that handshakes use now.
struct Served {
    files: TlsFiles,
    /// How the files looked when the pair was read.
    stamp: Stamp,
    pair: RwLock<Arc<CertifiedKey>>,
}

impl Tls {
    /// Reads the pair. Blocks.
    ///
    /// # Errors
    /// There is no pair, or its halves do not belong together.
    pub fn load(files: TlsFiles) -> Result<Tls, TlsError> {
        let stamp = stamp(&files);
        let pair = RwLock::new(Arc::new(read_pair(&files)?));
        let served = Arc::new(Served { files, stamp, pair });
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(served.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Docker's classic store opens a connection per request: a ticket saves it most of the handshake.
        config.ticketer = Ticketer::new()?;
        Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)), served })
    }

    /// Looks at the files for ever, and serves a new pair as soon as it stands there for one whole round: one that is
    /// still being written is left alone. A pair that is no good is complained about once, and changes nothing.
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
        match read_pair(&self.files) {
            Ok(pair) => {
                *self.pair.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
                tracing::info!(cert = ?self.files.cert, "the certificate was replaced");
            }
            Err(error) => tracing::warn!(%error, "the new certificate is not used, the old one is kept"),
        }
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.pair.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

/// What changes when a file does: for each file time, size and inode, or nothing if it is not there.
type Stamp = [Option<(SystemTime, u64, u64)>; 2];

fn stamp(files: &TlsFiles) -> Stamp {
    [&files.cert, &files.key].map(|path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len(), meta.ino()))
    })
}

fn read_pair(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let TlsFiles { cert, key } = files;
    let certificates = CertificateDer::pem_slice_iter(&read(cert)?)
        .collect::<Result<Vec<_>, _>>()
        .and_then(|found| if found.is_empty() { Err(PemError::NoItemsFound) } else { Ok(found) })
        .map_err(|error| no_pem(cert, "certificate", &error))?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| no_pem(key, "private key", &error))?;
    CertifiedKey::from_der(certificates, private, &default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::Mismatch { cert: cert.clone(), key: key.clone() }
        }
        other => TlsError::Rustls(other),
    })
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
