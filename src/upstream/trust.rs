//! TLS towards upstreams: whom we believe to be whom. There is no way to switch it off.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::settings::{Settings, SetupError};

/// The TLS side of a client: the system's roots, and the extra ones.
pub fn client_config(settings: &Settings) -> Result<ClientConfig, SetupError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    let (_, refused) = roots.add_parsable_certificates(system.certs);
    if refused > 0 || !system.errors.is_empty() {
        tracing::warn!(refused, errors = ?system.errors, "some of the system's certificates cannot be used");
    }
    if let Some(pem) = &settings.extra_ca {
        add(&mut roots, pem)?;
    }
    let mut urls = [&settings.url].into_iter().chain(&settings.fallbacks);
    if roots.is_empty() && urls.any(|url| url.scheme_str() == Some("https")) {
        return Err(SetupError::NothingTrusted);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// What an operator names must be usable as a whole.
fn add(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), SetupError> {
    let unusable = |reason: String| SetupError::Ca(reason);
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        count += 1;
    }
    if count == 0 { Err(unusable("there is no certificate in it".into())) } else { Ok(()) }
}
