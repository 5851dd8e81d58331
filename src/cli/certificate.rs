//! Making a private CA, and server certificates that it signs. Texts in, texts out: opens no file.
//!
//! What a CA signs here is verified as a client would do it before anybody gets it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Longest life of a server certificate: Apple's clients refuse what lives longer.
pub(super) const MAX_DAYS: u32 = 825;
/// A CA is put into many places by hand, so it lives long.
const CA_DAYS: u32 = 3650;
/// Clocks differ: what is made now was good yesterday.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);

/// Why there is no certificate.
#[derive(Debug, Error)]
pub(super) enum CertificateError {
    /// Not a name that a certificate can have.
    #[error(
        "{0:?} is neither a host name nor an IP address; write it without scheme and port, like mirror.lan or 192.168.1.5"
    )]
    Name(String),
    /// The CA's files are not a pair, or not one of ours.
    #[error("the CA there was not made by `larder cert`, or its key is another one's: choose another --out")]
    ForeignCa,
    /// The CA ends too early.
    #[error("the CA there ends before the certificate would: ask for fewer --days, or begin a new CA in another --out")]
    CaTooOld,
    /// The library could not.
    #[error("the certificate could not be made: {0}")]
    Making(#[from] rcgen::Error),
}

/// A certificate and its private key, both in PEM.
pub(super) struct Pair {
    pub(super) cert: String,
    pub(super) key: String,
}

/// A new CA.
///
/// # Errors
/// The library could not make it.
pub(super) fn make_ca(now: SystemTime) -> Result<Pair, CertificateError> {
    let key = KeyPair::generate()?;
    let params = ca_params(&key, now)?;
    Ok(Pair { cert: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// The name comes from the key: two CAs never have the same one, and a CA's name is known from its key alone.
fn ca_params(key: &KeyPair, now: SystemTime) -> Result<CertificateParams, CertificateError> {
    let number: String =
        Sha256::digest(key.subject_public_key_info()).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = named(&format!("Larder private CA {number}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, now, CA_DAYS);
    Ok(params)
}

/// A server's certificate for `names`, signed by `ca`, good for so many days.
///
/// # Errors
/// A name is none, or the CA cannot sign it.
pub(super) fn make_server(ca: &Pair, names: &[String], days: u32, now: SystemTime) -> Result<Pair, CertificateError> {
    let mut server_names = Vec::new();
    for name in names {
        server_names.push(server_name(name).ok_or_else(|| CertificateError::Name(name.clone()))?);
    }
    let ca_key = KeyPair::from_pem(&ca.key).map_err(|_| CertificateError::ForeignCa)?;
    let issuer_params = ca_params(&ca_key, now)?;
    let issuer = Issuer::from_params(&issuer_params, &ca_key);

    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = named(names.first().map(String::as_str).unwrap_or_default());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    valid(&mut params, now, days);
    let cert = params.signed_by(&key, &issuer)?;

    verify(&ca.cert, cert.der(), &server_names, [now, now + days_long(days) - Duration::from_secs(60)])?;
    // The chain: clients that trust the CA by another road may want to see it.
    Ok(Pair { cert: cert.pem() + &ca.cert, key: key.serialize_pem() })
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn days_long(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 24 * 3600)
}

/// From yesterday, so many days in all.
fn valid(params: &mut CertificateParams, now: SystemTime, days: u32) {
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now - BACKDATED + days_long(days)).into();
}

/// A name as a client would check it; a star stands for one label.
fn server_name(name: &str) -> Option<ServerName<'static>> {
    let concrete = match name.strip_prefix("*.") {
        Some(rest) => format!("star.{rest}"),
        None => name.to_owned(),
    };
    ServerName::try_from(concrete).ok()
}

/// Does what a client does that trusts the CA, now and at the end.
fn verify(
    ca_pem: &str,
    cert: &CertificateDer<'_>,
    names: &[ServerName<'_>],
    times: [SystemTime; 2],
) -> Result<(), CertificateError> {
    let foreign = |_| CertificateError::ForeignCa;
    let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|_| CertificateError::ForeignCa)?;
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).map_err(foreign)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
        .build()
        .map_err(|_| CertificateError::ForeignCa)?;
    let at = |time: SystemTime| UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap_or_default());
    for name in names {
        verifier.verify_server_cert(cert, &[], name, &[], at(times[0])).map_err(|error| match error {
            rustls::Error::InvalidCertificate(
                rustls::CertificateError::NotValidForName | rustls::CertificateError::NotValidForNameContext { .. },
            ) => CertificateError::Name(name.to_str().replacen("star.", "*.", 1)),
            other => foreign(other),
        })?;
    }
    // Nobody looks at the dates of a root that is trusted, but for OpenSSL. Verified as if it were a server's, a CA is
    // refused in any case; for its age before anything else.
    let ca_name = names.first().ok_or(CertificateError::ForeignCa)?;
    for time in times {
        let refused = verifier.verify_server_cert(&ca, &[], ca_name, &[], at(time));
        if let Err(rustls::Error::InvalidCertificate(
            rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. },
        )) = refused
        {
            return Err(CertificateError::CaTooOld);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_ca_signs_for_names_and_addresses_and_is_known_by_its_key() {
        let now = Clock::system().wall();
        let (ca, other) = (make_ca(now).unwrap(), make_ca(now).unwrap());
        for wanted in [&["mirror.lan"][..], &["localhost", "127.0.0.1", "::1"], &["*.team.lan", "a.b.c"]] {
            let server = make_server(&ca, &names(wanted), MAX_DAYS, now).unwrap();
            assert_eq!(server.cert.matches("BEGIN CERTIFICATE").count(), 2);
            assert!(server.key.contains("PRIVATE KEY") && !server.cert.contains("PRIVATE KEY"));
        }
        let mixed = Pair { cert: ca.cert.clone(), key: other.key };
        assert!(matches!(make_server(&mixed, &names(&["a"]), 1, now), Err(CertificateError::ForeignCa)));
        for (cert, key) in [("nonsense", ca.key.as_str()), (&ca.cert, "nonsense"), (&ca.key, &ca.key)] {
            let broken = Pair { cert: cert.to_owned(), key: key.to_owned() };
            assert!(matches!(make_server(&broken, &names(&["a"]), 1, now), Err(CertificateError::ForeignCa)));
        }
    }

    #[test]
    fn a_ca_does_not_sign_for_longer_than_it_lives() {
        let now = Clock::system().wall();
        let ca = make_ca(now).unwrap();
        let later = now + days_long(CA_DAYS - 100);
        assert!(make_server(&ca, &names(&["a"]), 90, later).is_ok());
        for (days, when) in [(MAX_DAYS, later), (1, now + days_long(CA_DAYS + 1))] {
            assert!(matches!(make_server(&ca, &names(&["a"]), days, when), Err(CertificateError::CaTooOld)));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let now = Clock::system().wall();
        let ca = make_ca(now).unwrap();
        for bad in ["", "https://mirror.lan", "mirror.lan:5000", "a b", "*", "*.lan", "*.*.lan", "a..b", "m\u{e9}.lan"]
        {
            let refused = make_server(&ca, &names(&["ok", bad]), 1, now).err();
            assert!(matches!(refused, Some(CertificateError::Name(name)) if name == bad), "{bad}");
        }
    }
}
