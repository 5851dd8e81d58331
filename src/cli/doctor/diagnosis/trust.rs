//! Whether an engine believes the mirror's certificate, and the mirror the engine's; and what is in their way.

use std::path::Path;

use crate::cli::doctor::facts::{Authority, Distrust, Engine, MirrorFacts};
use crate::cli::doctor::finding::Finding;

/// Of a mirror with TLS: what one engine thinks that looks at the authorities in `read`, ignores those in `ignored`, and
/// would like to have one at `place`.
pub(super) fn finding(
    about: &'static str,
    mirror: &MirrorFacts,
    read: &[Authority],
    ignored: &[Authority],
    place: &Path,
) -> Option<Finding> {
    let judged = mirror.certificate.as_ref()?;
    let vouching = read.iter().find(|authority| authority.vouches);
    let then = format!(
        "copy the CA there: sudo cp ca.pem {0}, or sudo larder setup {about} --mirror {1} --ca ca.pem --write",
        place.display(),
        mirror.url
    );
    Some(match (judged, vouching) {
        (Ok(()), _) => Finding::ok(about, "this machine trusts the mirror's certificate"),
        (Err(_), Some(authority)) => {
            Finding::ok(about, format!("{} vouches for the mirror's certificate", authority.path.display()))
        }
        // Told of the mirror already.
        (Err(Distrust::Expired | Distrust::NotYetValid | Distrust::WrongName), None) => return None,
        (Err(_), None) => {
            let finding = Finding::fail(about, "does not trust the mirror's certificate");
            match (ignored.iter().find(|authority| authority.vouches), read.first()) {
                (Some(known), _) => finding.because(format!("it ignores {} for a mirror", known.path.display())),
                (None, Some(wrong)) => {
                    finding.because(format!("its authority is unknown, and {} is another one", wrong.path.display()))
                }
                (None, None) => finding.because("its authority is unknown to this machine"),
            }
            .then(then)
        }
    })
}

/// Of a mirror that lets in only who shows a certificate: whether the engine has one that counts. `place` says where it wants
/// one, and under which names.
pub(super) fn passport(
    about: &'static str,
    mirror: &MirrorFacts,
    engine: &Engine,
    place: impl FnOnce() -> String,
) -> Option<Finding> {
    if !mirror.asks_certificate {
        return None;
    }
    if let Some(shown) = engine.passports.iter().find(|passport| passport.lets_in) {
        return Some(Finding::ok(
            about,
            format!("has a certificate that the mirror lets in: {}", shown.cert.display()),
        ));
    }
    Some(match engine.passports.first() {
        Some(refused) => Finding::fail(about, format!("the mirror does not let in {}", refused.cert.display()))
            .because("it is of another CA than mirror.tls.client_ca, has expired, or it or its key cannot be read")
            .then(format!("one of that CA, readable by this user: {}", place())),
        None => Finding::fail(about, "has no certificate to show to the mirror")
            .because("mirror.tls.client_ca is set there")
            .then(format!("one of that CA: {}", place())),
    })
}
