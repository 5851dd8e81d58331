//! Whether an engine believes the mirror's certificate, and what is in its way.

use std::path::Path;

use crate::cli::doctor::facts::{Authority, Distrust, MirrorFacts};
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
