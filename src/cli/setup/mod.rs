//! `larder setup`: the configuration with which a client of this machine pulls through a mirror, printed or put in place.

mod clients;
mod plan;
mod snippet;
mod writing;

use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::cli::failure::Failure;
use crate::cli::mirror_url::{MirrorUrl, text_of};
use crate::clock::Clock;
use crate::config::{BaseUrl, UpstreamName};
use plan::{Plan, Wish};
use writing::{Step, Written};

/// Configure a client of this machine to pull through a mirror.
///
/// Prints which files it needs and what to do then. With --write the files are written: what else is in them stays, what
/// they were is kept beside them, and what is right already is left alone.
#[derive(Debug, Args)]
#[command(after_help = "Example: larder setup docker --mirror http://mirror.lan:5000\n         \
                        sudo larder setup containerd --mirror https://mirror.lan:5000 --ca ca.pem --registry docker.io --registry ghcr.io --write")]
pub(super) struct Setup {
    /// Which client.
    client: Client,
    /// Where the mirror is.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:5000", value_parser = text_of::<BaseUrl>)]
    mirror: BaseUrl,
    /// The certificate of the authority that signed the mirror's, if this machine does not trust it already (PEM).
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A registry to pull through the mirror, which must have it among its upstreams. Repeat it for more.
    #[arg(long = "registry", value_name = "NAME", default_value = "docker.io", value_parser = text_of::<UpstreamName>)]
    registries: Vec<UpstreamName>,
    /// Write the files. Usually as root.
    #[arg(long)]
    write: bool,
    /// Also replace files that somebody else wrote. A copy is kept.
    #[arg(long, requires = "write")]
    force: bool,
    /// Write below this directory, as if it were /: for images of machines.
    #[arg(long, value_name = "DIR", default_value = "/", requires = "write")]
    root: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Client {
    /// Docker: /etc/docker/daemon.json.
    Docker,
    /// containerd, and with it Kubernetes and nerdctl: /etc/containerd/certs.d/REGISTRY/hosts.toml.
    Containerd,
    /// Podman, Buildah, skopeo and CRI-O: /etc/containers/registries.conf.d/50-larder-REGISTRY.conf.
    Podman,
}

impl Setup {
    pub(super) fn run(self) -> Result<(), Failure> {
        let wish = self.wish()?;
        let mut plan = match self.client {
            Client::Docker => clients::docker(&wish),
            Client::Containerd => clients::containerd(&wish),
            Client::Podman => clients::podman(&wish),
        };
        plan.then.push(format!("Is it proven?  sudo larder doctor --mirror {}", wish.mirror));
        let text = if self.write { self.carry_out(&plan, &wish)? } else { shown(&plan) };
        match std::io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::failed(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn wish(&self) -> Result<Wish, Failure> {
        let mirror = MirrorUrl::new(self.mirror.clone());
        if self.ca.is_some() && !mirror.is_https() {
            return Err(Failure::wrong_use(format_args!("--ca is for a mirror with https://, not {}", mirror)));
        }
        Ok(Wish { mirror, registries: self.registries.clone(), ca: self.ca.as_deref().map(read_ca).transpose()? })
    }

    /// All is decided before the first file is touched.
    fn carry_out(&self, plan: &Plan, wish: &Wish) -> Result<String, Failure> {
        if self.client == Client::Podman {
            let names: Vec<String> = wish.registries.iter().map(ToString::to_string).collect();
            writing::check_registries_conf(&self.root, &names, self.force).map_err(Failure::failed)?;
        }
        let steps = plan.files.iter().map(|file| Step::decide(file, &self.root, &wish.mirror, self.force));
        let steps = steps.collect::<Result<Vec<Step>, _>>().map_err(Failure::failed)?;
        let now = Clock::system().wall();
        let mut text = String::new();
        let mut is_new = false;
        for step in steps {
            let written = step.carry_out(now).map_err(Failure::failed)?;
            is_new |= written != Written::Unchanged;
            let path = step.path().display();
            let _ = match written {
                Written::Unchanged => writeln!(text, "{path} says so already"),
                Written::New => writeln!(text, "{path} is written"),
                Written::Changed { before } => writeln!(text, "{path} is changed; it was {}", before.display()),
            };
        }
        if is_new {
            text.push_str(&instructions(plan));
        }
        Ok(text)
    }
}

fn read_ca(path: &Path) -> Result<String, Failure> {
    let text =
        fs::read_to_string(path).map_err(|error| Failure::failed(format_args!("{}: {error}", path.display())))?;
    // A key in its place would be copied to where everybody can read it.
    if text.contains("PRIVATE KEY") || !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(Failure::wrong_use(format_args!("{}: is not a certificate in PEM", path.display())));
    }
    Ok(text)
}

fn shown(plan: &Plan) -> String {
    let mut text = String::new();
    for file in &plan.files {
        // Nobody types a certificate in: --write puts it there, or cp does.
        let is_certificate = file.rule == plan::Rule::Certificate;
        let content = if is_certificate { "(a copy of the --ca file)\n" } else { &file.text };
        let _ = writeln!(text, "==> {}\n{content}", file.path.display());
    }
    text + &instructions(plan) + "\n--write puts this into the files, and keeps what is in them.\n"
}

fn instructions(plan: &Plan) -> String {
    let lines: String = plan.then.iter().flat_map(|line| ["  ", line, "\n"]).collect();
    format!("Then:\n{lines}")
}
