//! The upstream: Debian's `docker-registry`, holding the rig's images, standing where Docker Hub does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::http::{self, Response};
use super::images::Image;
use super::process::{Process, Program};
use super::scratch::Scratch;

pub(super) const DOCKER_REGISTRY: Program = Program::new("docker-registry", "docker-registry");

/// A running registry. Its log tells who asked it for what.
pub(super) struct Registry {
    process: Process,
    address: SocketAddr,
    _home: Scratch,
}

impl Registry {
    /// A registry that holds `images`.
    pub(super) fn holding(images: &[Image]) -> Self {
        let home = Scratch::new("reg");
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {:?}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
            home.join("data")
        );
        let config = home.write("config.yml", &config);
        let mut command = DOCKER_REGISTRY.command(home.path());
        command.arg("serve").arg(config);
        let mut process = Process::spawn(DOCKER_REGISTRY.name, &mut command, home.join("log"));
        let address = process.wait_until_ready(|process| listening_on(&process.log()));
        let registry = Self { process, address, _home: home };
        images.iter().for_each(|image| registry.push(image));
        registry
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn stop(&mut self) {
        self.process.stop();
        assert!(http::get(self.address, "/v2/").is_err(), "the upstream still answers");
    }

    /// How often each of these blobs was read with success, whole or in part, from whichever repository.
    pub(super) fn reads(&self, digests: &BTreeSet<String>) -> BTreeMap<String, usize> {
        let log = self.process.log();
        let mut counts: BTreeMap<String, usize> = digests.iter().map(|digest| (digest.clone(), 0)).collect();
        for access in log.lines().filter_map(Access::parse) {
            let blob = access.uri.split_once("/blobs/").and_then(|(_, digest)| counts.get_mut(digest));
            if let Some(count) = blob
                && access.method == "GET"
                && matches!(access.status, "200" | "206")
            {
                *count += 1;
            }
        }
        counts
    }

    /// The user agents of everybody who pulled from it.
    pub(super) fn readers(&self) -> BTreeSet<String> {
        let log = self.process.log();
        let reads = log.lines().filter_map(Access::parse).filter(|access| matches!(access.method, "GET" | "HEAD"));
        reads.map(|access| access.agent.to_owned()).collect()
    }

    fn push(&self, image: &Image) {
        for manifest in image.manifests() {
            for blob in &manifest.blobs {
                self.push_blob(image.repository, &blob.digest, &blob.bytes);
            }
            let is_top = manifest.digest == image.top.digest;
            let reference = if is_top { image.tag } else { &manifest.digest };
            let path = image.manifest_path(reference);
            let answer = http::send(self.address, "PUT", &path, manifest.media_type, &manifest.bytes).unwrap();
            expect(&answer, 201, &path);
            assert_eq!(answer.header("docker-content-digest"), Some(manifest.digest.as_str()));
        }
    }

    fn push_blob(&self, repository: &str, digest: &str, bytes: &[u8]) {
        let kind = "application/octet-stream";
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        let session = http::send(self.address, "POST", &uploads, kind, &[]).unwrap();
        expect(&session, 202, &uploads);
        let location = session.header("location").unwrap();
        let path = location.strip_prefix(&self.url()).unwrap_or(location);
        let joint = if path.contains('?') { '&' } else { '?' };
        let answer = http::send(self.address, "PUT", &format!("{path}{joint}digest={digest}"), kind, bytes).unwrap();
        expect(&answer, 201, path);
    }
}

fn expect(answer: &Response, status: u16, what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", String::from_utf8_lossy(&answer.body));
}

fn listening_on(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("listening on ")?;
    rest.split('"').next()?.parse().ok()
}

/// One line of the registry's access log, which is in Apache's combined format.
struct Access<'a> {
    method: &'a str,
    uri: &'a str,
    status: &'a str,
    agent: &'a str,
}

impl<'a> Access<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (_, rest) = line.split_once("] \"")?;
        let mut quoted = rest.split('"');
        let mut request = quoted.next()?.split(' ');
        let status = quoted.next()?.split_whitespace().next()?;
        let (_referrer, _) = (quoted.next()?, quoted.next()?);
        Some(Self { method: request.next()?, uri: request.next()?, status, agent: quoted.next()? })
    }
}
