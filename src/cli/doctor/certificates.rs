//! The certificate that a mirror shows, and who vouches for it. Connects to whoever is there, because a finding about a
//! certificate needs it first; nothing secret is ever sent on such a connection.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::facts::Distrust;

/// What was shown, the server's own first.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    shown: Vec<CertificateDer<'static>>,
    name: ServerName<'static>,
}

/// Takes whatever is shown, and remembers it.
#[derive(Debug)]
pub(super) struct Capture {
    provider: Arc<CryptoProvider>,
    chain: Mutex<Option<Chain>>,
}

impl Capture {
    pub(super) fn new() -> Arc<Capture> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Arc::new(Capture { provider, chain: Mutex::new(None) })
    }

    /// A TLS client that this one looks on at, and that shows `identity` to who asks for one.
    ///
    /// # Errors
    /// The provider has no protocol that rustls has, or the identity's key is not its certificate's.
    pub(super) fn client(self: &Arc<Capture>, identity: Option<&Identity>) -> Result<ClientConfig, Error> {
        let builder =
            ClientConfig::builder_with_provider(self.provider.clone()).with_safe_default_protocol_versions()?;
        let builder = builder.dangerous().with_custom_certificate_verifier(self.clone());
        let mut config = match identity {
            Some(Identity { chain, key }) => builder.with_client_auth_cert(chain.clone(), key.clone_key())?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    pub(super) fn chain(&self) -> Option<Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Capture {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = [own].into_iter().chain(others).map(|one| one.clone().into_owned()).collect();
        let chain = Chain { shown, name: name.to_owned() };
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = Some(chain);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A certificate of an engine's own, with its key. Shown to the mirror alone, and never printed.
pub(super) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// `None`: one of the files cannot be read, or is something else.
    pub(super) fn read(cert: &Path, key: &Path) -> Option<Identity> {
        let chain = in_file(cert);
        let key = PrivateKeyDer::from_pem_file(key).ok()?;
        (!chain.is_empty()).then_some(Identity { chain, key })
    }
}

/// What this machine trusts.
pub(super) fn of_this_machine() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

/// The certificates in a PEM file; none if there are none that can be read.
pub(super) fn in_file(path: &Path) -> Vec<CertificateDer<'static>> {
    let pem = fs::read(path).unwrap_or_default();
    CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect()
}

impl Chain {
    /// What clients that trust `authorities` think of it.
    ///
    /// # Errors
    /// They do not believe it.
    pub(super) fn judged_by(&self, authorities: Vec<CertificateDer<'static>>, now: SystemTime) -> Result<(), Distrust> {
        let Some((own, others)) = self.shown.split_first() else { return Err(Distrust::UnknownAuthority) };
        // Go takes a certificate that is trusted itself; webpki would want its authority.
        if authorities.contains(own) {
            return Ok(());
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities);
        if roots.is_empty() {
            return Err(Distrust::UnknownAuthority);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = verifier.map_err(|error| Distrust::Other(error.to_string()))?;
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        verifier.verify_server_cert(own, others, &self.name, &[], now).map(drop).map_err(distrust)
    }
}

fn distrust(error: Error) -> Distrust {
    use CertificateError as E;
    match error {
        // A signature that does not fit is another authority of the same name: one that was made anew.
        Error::InvalidCertificate(E::UnknownIssuer | E::BadSignature) => Distrust::UnknownAuthority,
        Error::InvalidCertificate(E::Expired | E::ExpiredContext { .. }) => Distrust::Expired,
        Error::InvalidCertificate(E::NotValidYet | E::NotValidYetContext { .. }) => Distrust::NotYetValid,
        Error::InvalidCertificate(E::NotValidForName | E::NotValidForNameContext { .. }) => Distrust::WrongName,
        other => Distrust::Other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn each_way_not_to_be_believed_has_its_name() {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let ca = authority.self_signed(&ca_key).unwrap().der().clone();
        let mut own = CertificateParams::new(["mirror.lan".to_owned()]).unwrap();
        (own.not_before, own.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
        let own = own.signed_by(&key, &Issuer::new(authority, ca_key)).unwrap().der().clone();
        let stranger = rcgen::generate_simple_self_signed(["mirror.lan".to_owned()]).unwrap().cert.der().clone();
        let chain = |name: &str| Chain { shown: vec![own.clone()], name: name.to_owned().try_into().unwrap() };
        let day = |n: u64| UNIX_EPOCH + Duration::from_secs(n * 86_400);
        let (before, within, after) = (day(20_000), day(20_500), day(21_000));

        assert_eq!(chain("mirror.lan").judged_by(vec![ca.clone()], within), Ok(()));
        assert_eq!(chain("mirror.lan").judged_by(vec![own.clone()], within), Ok(()), "it is trusted itself");
        for (name, authorities, now, why) in [
            ("mirror.lan", vec![], within, Distrust::UnknownAuthority),
            ("mirror.lan", vec![stranger], within, Distrust::UnknownAuthority),
            ("mirror.lan", vec![ca.clone()], before, Distrust::NotYetValid),
            ("mirror.lan", vec![ca.clone()], after, Distrust::Expired),
            ("other.lan", vec![ca], within, Distrust::WrongName),
        ] {
            assert_eq!(chain(name).judged_by(authorities, now), Err(why));
        }
    }
}
