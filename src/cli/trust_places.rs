//! Where each client looks for the CA of a registry or a mirror (observed with each of them). Texts only.

use std::fmt::Write;
use std::path::Path;

/// What to do on the clients, for a CA in `ca` and servers at `places` (`host:port`).
pub(super) fn instructions(ca: &Path, places: &[String]) -> String {
    let mut text = format!("Let the clients trust {}. Copy it to each of them, as:\n", ca.display());
    let mut section = |title: &str, paths: &[String]| {
        let _ = write!(text, "\n  {title}\n");
        for path in paths {
            let _ = writeln!(text, "    {path}");
        }
    };
    let each = |make: &dyn Fn(&String) -> String| places.iter().map(make).collect::<Vec<_>>();
    let docker = each(&|place| format!("/etc/docker/certs.d/{place}/ca.crt"));
    section(
        "Docker, for images named HOST:PORT/…, and for a mirror with the classic image store (no restart)",
        &docker,
    );
    section(
        "Docker with the containerd image store, for a mirror: it ignores the directory above",
        &["/etc/docker/certs.d/docker.io/larder-ca.crt".to_owned()],
    );
    let containerd = each(&|place| {
        format!(
            "/etc/containerd/certs.d/{place}/ca.crt    and in hosts.toml beside it: [host.\"https://{place}\"] ca = that path"
        )
    });
    section("containerd; for a mirror, say ca = … in /etc/containerd/certs.d/docker.io/hosts.toml", &containerd);
    let podman = each(&|place| format!("/etc/containers/certs.d/{place}/ca.crt"));
    section("Podman, Buildah, CRI-O, skopeo", &podman);
    section(
        "Everything on a Debian machine at once (then run update-ca-certificates, and restart docker and containerd)",
        &["/usr/local/share/ca-certificates/larder-ca.crt".to_owned()],
    );
    text
}
