//! The real server as a process of its own: what can be done to it is what can be done to any process.

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::client::PATIENCE;

/// A running `larder serve`. Killed when it is dropped.
pub struct Binary {
    child: Child,
    log: PathBuf,
    /// Where clients pull.
    pub mirror: SocketAddr,
    /// Where the operator looks.
    pub admin: SocketAddr,
    /// Where clients push, if there is a registry.
    pub registry: Option<SocketAddr>,
}

/// `larder` in an empty environment.
pub fn larder() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// Runs a command beside this test, whose runtime serves what it asks for: its exit code, and what it says where.
pub async fn beside(mut command: Command) -> (Option<i32>, String, String) {
    let ended = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let [out, err] = [ended.stdout, ended.stderr].map(|said| String::from_utf8(said).unwrap());
    (ended.status.code(), out, err)
}

/// Whether other people's programs (curl, openssl, htpasswd) are to be tried. One that is missing is a failure then.
pub fn tries_other_programs() -> bool {
    let skipped = std::env::var_os("LARDER_SKIP_CLIENTS").is_some_and(|value| value == "1");
    if skipped {
        // Past the test harness, which keeps what a passing test prints to itself.
        let _ = writeln!(std::io::stderr(), "SKIP: LARDER_SKIP_CLIENTS=1, no other program was tried");
    }
    !skipped
}

impl Binary {
    /// Starts with `config` in `home`, which gets its log, too, and waits until it serves.
    pub fn start(home: &Path, config: &str, log_filter: &str) -> Binary {
        let (file, log) = (home.join("larder.toml"), home.join("larder.log"));
        fs::write(&file, config).unwrap();
        let stderr = File::options().create(true).append(true).open(&log).unwrap();
        let before = fs::metadata(&log).unwrap().len() as usize;
        let mut command = larder();
        command.args(["serve", "--log-format", "json", "--log", log_filter, "--config"]).arg(&file);
        let mut child = command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Some([mirror, admin, registry]) = addresses(&text[before.min(text.len())..]) {
                let [mirror, admin] = [mirror, admin].map(Option::unwrap);
                return Binary { child, log, mirror, admin, registry };
            }
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "larder ended with {ended:?}:\n{text}");
            assert!(Instant::now() < deadline, "larder does not serve:\n{text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// As a power cut for the process: nothing of it runs any more when this returns.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        let ended = self.child.wait().unwrap();
        assert_eq!(ended.signal(), Some(9), "it had ended before: {}", self.log());
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Waits for its end.
    pub fn ended(mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "larder does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// All that it has logged, and those before it in the same home.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn addresses(log: &str) -> Option<[Option<SocketAddr>; 3]> {
    let mut lines = log.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let serving = lines.find(|line| line["message"] == "serving")?;
    Some(["mirror", "admin", "registry"].map(|name| serving[name].as_str().map(|text| text.parse().unwrap())))
}
