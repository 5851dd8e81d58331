//! The servers that are compared, each as someone who knows it would set it up, and each with a log line per request.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::Outcome;
use crate::http;
use crate::process::{Process, command};

/// A pull-through mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mirror {
    /// This project.
    Larder,
    /// CNCF distribution as Debian packages it, in proxy mode.
    DockerRegistry,
    /// nginx with a cache and its lock: one request at a time for one address.
    Nginx,
}

impl Mirror {
    /// All of them, in the order of the table's columns.
    pub const ALL: [Mirror; 3] = [Mirror::Larder, Mirror::DockerRegistry, Mirror::Nginx];
}

/// A running server with data of its own, which is removed with it.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// For measuring it.
    pub process: Process,
    // After the process that writes there.
    _home: TempDir,
}

/// Starts servers below one directory.
pub struct Rig {
    home: PathBuf,
}

impl Rig {
    /// A rig that keeps everything below `home`.
    pub fn new(home: &Path) -> Rig {
        Rig { home: home.to_owned() }
    }

    /// A registry that can be pushed to.
    pub fn upstream(&self) -> Outcome<Server> {
        self.start(|home, address| docker_registry(home, address, ""))
    }

    /// An empty mirror of `upstream`, which believes in a tag for `tag_ttl`.
    pub fn mirror(&self, mirror: Mirror, upstream: SocketAddr, tag_ttl: Duration) -> Outcome<Server> {
        let ttl = tag_ttl.as_secs();
        self.start(|home, address| match mirror {
            Mirror::Larder => larder(home, address, upstream, ttl),
            // It has no such setting: it asks for every tag every time.
            Mirror::DockerRegistry => {
                docker_registry(home, address, &format!("proxy: {{remoteurl: 'http://{upstream}'}}\n"))
            }
            Mirror::Nginx => nginx_cache(home, address, upstream, ttl),
        })
    }

    /// nginx as it serves files: the measure of what serving can cost.
    pub fn files(&self, root: &Path) -> Outcome<Server> {
        let location = format!("location / {{ root {}; default_type application/octet-stream; }}", root.display());
        self.start(|home, address| nginx(home, address, "", &location))
    }

    fn start(&self, configured: impl FnOnce(&Path, SocketAddr) -> Outcome<Command>) -> Outcome<Server> {
        let home = tempfile::Builder::new().prefix("server-").tempdir_in(&self.home)?;
        let address = free_address()?;
        let mut command = configured(home.path(), address)?;
        let patience = Duration::from_secs(1);
        // Whatever the answer is: nginx has no /v2/ of its own.
        let ready = || http::get(address, "/v2/", patience, |_| {}).is_ok();
        let process = Process::start(&mut command, home.path(), ready)?;
        Ok(Server { address, process, _home: home })
    }
}

/// A free port of an address that nothing else uses: what connects takes its ports on 127.0.0.1.
pub fn free_address() -> Outcome<SocketAddr> {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let last = 1 + NEXT.fetch_add(1, Ordering::SeqCst) % 250;
    // Debian puts the host's own name on 127.0.1.1.
    let address = Ipv4Addr::new(127, 1 + high % 250, low, last);
    Ok(TcpListener::bind((address, 0))?.local_addr()?)
}

fn larder(home: &Path, address: SocketAddr, upstream: SocketAddr, ttl: u64) -> Outcome<Command> {
    let (file, data, admin) = (home.join("larder.toml"), home.join("data"), free_address()?);
    let config = format!(
        "data_dir = {data:?}\n\
         [mirror]\nlisten = \"{address}\"\n\
         [admin]\nlisten = \"{admin}\"\n\
         [cache]\ntag_ttl = \"{ttl}s\"\n\
         [[upstream]]\nname = \"docker.io\"\nurl = \"http://{upstream}\"\n"
    );
    fs::write(&file, config)?;
    let mut command = command(env!("CARGO_BIN_EXE_larder"), home);
    command.args(["serve", "--config"]).arg(file);
    Ok(command)
}

fn docker_registry(home: &Path, address: SocketAddr, more: &str) -> Outcome<Command> {
    let (file, data) = (home.join("config.yml"), home.join("data"));
    let config = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {data:?}}}}}\nhttp: {{addr: '{address}'}}\n{more}"
    );
    fs::write(&file, config)?;
    let mut command = command("docker-registry", home);
    command.arg("serve").arg(file);
    Ok(command)
}

/// Blobs and manifests by digest never change. Of what has gone old, the old is served while the new is fetched, and when
/// it cannot be.
fn nginx_cache(home: &Path, address: SocketAddr, upstream: SocketAddr, ttl: u64) -> Outcome<Command> {
    let cache = home.join("cache");
    let http = format!(
        "proxy_cache_path {} levels=1:2 keys_zone=images:10m max_size=8g inactive=30d use_temp_path=off;
         upstream hub {{ server {upstream}; keepalive 16; }}",
        cache.display()
    );
    let server = format!(
        "proxy_cache images; proxy_cache_lock on; proxy_cache_lock_timeout 10m; proxy_cache_lock_age 10m;
         proxy_cache_key $uri$http_accept; proxy_cache_background_update on;
         proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504;
         proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host {upstream};
         location / {{ proxy_pass http://hub; proxy_cache_valid 200 {ttl}s; }}
         location ~ sha256: {{ proxy_pass http://hub; proxy_cache_valid 200 30d; }}"
    );
    nginx(home, address, &http, &server)
}

/// With more for its `http` and its `server` block.
fn nginx(home: &Path, address: SocketAddr, http: &str, server: &str) -> Outcome<Command> {
    let (file, here) = (home.join("nginx.conf"), home.display());
    // Its workers must be able to read what root keeps in a temporary directory.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    // As Debian sets it up, apart from places. Connections last, because the others have no limit either; `reuseport`
    // spreads them over the workers, which otherwise may leave all of them to one.
    let config = format!(
        "daemon off; {user} worker_processes auto; worker_rlimit_nofile 8192; pid {here}/pid; error_log {here}/errors;
         events {{ worker_connections 4096; }}
         http {{
           access_log {here}/access; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
           client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/fastcgi;
           uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;
           {http}
           server {{ listen {address} reuseport; {server} }}
         }}\n"
    );
    fs::write(&file, config)?;
    let mut command = command("nginx", home);
    command.arg("-e").arg(home.join("errors")).arg("-c").arg(file);
    Ok(command)
}
