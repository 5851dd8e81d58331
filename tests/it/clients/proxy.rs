//! A real proxy, Debian's tinyproxy, between the server and a fake Docker Hub: both kinds of upstream come through it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use super::process::{Process, Program, wanted};
use crate::support::hub::{Hub, Seen};
use crate::support::image::Image;
use crate::support::larder::Larder;

pub(super) const TINYPROXY: Program = Program::new("tinyproxy", "tinyproxy");
const REPO: &str = "library/alpha";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstreams_are_reached_through_a_real_proxy() {
    if !wanted(&[TINYPROXY]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    for is_tls in [false, true] {
        let (proxy, port) = tinyproxy(home.path(), &format!("tinyproxy-{is_tls}"));
        let hub = if is_tls { Hub::tls_by_address().await } else { Hub::plain().await };
        let image = Image::oci(1, &[300_000, 10]);
        hub.push(REPO, "latest", &image);
        let larder = Larder::configured(&hub, "", &format!("proxy = \"http://127.0.0.1:{port}\"")).await;
        let tag = format!("/v2/{REPO}/manifests/latest");
        assert_eq!(larder.get(&tag).await.body, image.manifest, "tls: {is_tls}");
        for (digest, content) in image.blob_digests().iter().zip(&image.blobs) {
            assert_eq!(larder.get(&format!("/v2/{REPO}/blobs/{digest}")).await.body, content[..], "tls: {is_tls}");
        }
        if is_tls {
            let tunnels = proxy.log().matches("CONNECT 127.0.0.1:").count();
            assert!(tunnels >= 3, "registry, token service and CDN each have a tunnel");
        } else {
            let past = hub.count(|seen: &Seen| seen.header(hyper::header::VIA).is_none());
            assert_eq!(past, 0, "requests that no proxy has passed on");
        }

        drop(proxy);
        assert_eq!(larder.get(&tag).await.body, image.manifest, "what is cached needs no proxy");
        let missing = larder.get(&format!("/v2/{REPO}/manifests/other")).await;
        assert_eq!(missing.status, 503);
        let message = missing.text();
        assert!(message.contains(&format!("the proxy at 127.0.0.1:{port}")), "{message}");
    }
}

/// Starts one on loopback, and says at which port.
pub(super) fn tinyproxy(home: &Path, name: &str) -> (Process, u16) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = home.join(format!("{name}.conf"));
    fs::write(
        &config,
        format!("Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 60\nMaxClients 100\nLogLevel Connect\n"),
    )
    .unwrap();
    let mut command = TINYPROXY.command(home);
    command.args(["-d", "-c"]).arg(&config);
    let mut proxy = Process::spawn("tinyproxy", &mut command, home.join(format!("{name}.log")));
    proxy.wait_until_ready(|_| TcpStream::connect(("127.0.0.1", port)).ok());
    (proxy, port)
}
