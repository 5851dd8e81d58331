//! `larder cert`: a private CA and a server certificate, as files, and what to do with them. Never replaces a CA: every
//! client that trusts it would have to be visited again.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::certificate::{MAX_DAYS, Pair, make_ca, make_server};
use super::failure::Failure;
use super::output;
use super::replace_file::replace_file;
use super::trust_places;
use crate::clock::Clock;

/// A certificate may be read by anyone, a key by its owner.
const CERT_MODE: u32 = 0o644;
const KEY_MODE: u32 = 0o600;

/// Make a private CA and a server certificate.
///
/// Writes ca.pem, ca-key.pem, server.pem and server-key.pem. A CA that is there already signs again, so that clients who
/// trust it trust the new certificate, too. Prints where each client wants the CA.
#[derive(Debug, Args)]
#[command(after_help = "Example: larder cert --name registry.lan --name 192.168.1.5 --out /etc/larder/certs")]
pub(super) struct Cert {
    /// A host name or an IP address by which clients reach the server; repeatable.
    #[arg(long = "name", value_name = "HOST", required = true)]
    names: Vec<String>,
    /// Where the files go.
    #[arg(long, value_name = "DIR", default_value = "./larder-certs")]
    out: PathBuf,
    /// How long the server certificate is good for. A CA is good for ten years.
    #[arg(long, default_value_t = MAX_DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS)))]
    days: u32,
    /// The port at which clients reach the server, for what is printed.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Replace a server certificate that is there. The CA is never replaced.
    #[arg(long)]
    force: bool,
}

impl Cert {
    pub(super) fn run(self) -> Result<(), Failure> {
        let now = Clock::system().wall();
        let [ca_cert, ca_key, cert, key] =
            ["ca.pem", "ca-key.pem", "server.pem", "server-key.pem"].map(|name| self.out.join(name));
        let in_the_way = [&cert, &key].into_iter().find(|path| path.exists());
        if let Some(path) = in_the_way.filter(|_| !self.force) {
            let advice = "is there already; --force replaces it, and keeps the CA";
            return Err(Failure::failed(format_args!("{} {advice}", path.display())));
        }
        let (ca, ca_is_new) = match (read(&ca_cert)?, read(&ca_key)?) {
            (Some(cert), Some(key)) => (Pair { cert, key }, false),
            (None, None) => (make_ca(now).map_err(Failure::failed)?, true),
            (Some(_), None) => return Err(half(&ca_key, &ca_cert)),
            (None, Some(_)) => return Err(half(&ca_cert, &ca_key)),
        };
        // Everything is made before anything is written.
        let server = make_server(&ca, &self.names, self.days, now).map_err(|error| match error {
            super::certificate::CertificateError::Name(_) => Failure::wrong_use(error),
            other => Failure::failed(format_args!("{}: {other}", self.out.display())),
        })?;
        let failed = |path: &Path, error| Failure::failed(format_args!("{}: {error}", path.display()));
        fs::create_dir_all(&self.out).map_err(|error| failed(&self.out, error))?;
        let write = |path: &Path, text: &str, mode| replace_file(path, text, mode).map_err(|error| failed(path, error));
        if ca_is_new {
            write(&ca_key, &ca.key, KEY_MODE)?;
            write(&ca_cert, &ca.cert, CERT_MODE)?;
        }
        write(&key, &server.key, KEY_MODE)?;
        write(&cert, &server.cert, CERT_MODE)?;
        output::write(&self.summary(ca_is_new, &absolute(&ca_cert), &absolute(&cert), &absolute(&key)))
    }

    fn summary(&self, ca_is_new: bool, ca: &Path, cert: &Path, key: &Path) -> String {
        let places: Vec<String> = self.names.iter().map(|name| at_port(name, self.port)).collect();
        let made = if ca_is_new { "a new CA" } else { "the CA that was there" };
        format!(
            "{} is good for {} for {} days, signed by {made}.\n\
             Keep ca-key.pem elsewhere: whoever has it can be any site to those who trust ca.pem. The server does not need it.\n\n\
             In larder.toml, for each listener; the user that larder runs as must be able to read the key:\n\n  \
             tls = {{ cert = {cert:?}, key = {key:?} }}\n\n{}",
            cert.display(),
            self.names.join(", "),
            self.days,
            trust_places::instructions(ca, &places),
        )
    }
}

fn at_port(name: &str, port: u16) -> String {
    if name.parse::<Ipv6Addr>().is_ok() { format!("[{name}]:{port}") } else { format!("{name}:{port}") }
}

fn absolute(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::failed(format_args!("{}: {error}", path.display()))),
    }
}

fn half(missing: &Path, there: &Path) -> Failure {
    let advice = "bring it back to sign with this CA, or choose another --out for a new one";
    Failure::failed(format_args!("{} is there and {} is not: {advice}", there.display(), missing.display()))
}
