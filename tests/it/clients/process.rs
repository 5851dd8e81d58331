//! Programs as the rig runs them: found, started, waited for, ended by their own pid, and never left behind.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::scratch::own_ip;

/// How long any one command of a client may take. Long, because two cores may run six daemons.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// Daemons live in `sbin`, which is not on everybody's `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A port where nobody listens, so that what does not come through the mirror fails at once and the same everywhere:
/// with the Internet at hand, without it, and behind a firewall that swallows packets. Loopback is not proxied.
const NO_WAY_OUT: &str = "http://127.0.0.1:1";

/// How much of a daemon's log a failure shows: Go programs write very long lines, and very many.
const TAIL_LINES: usize = 25;
const TAIL_WIDTH: usize = 240;

/// A program that a test drives, and the Debian package that holds it.
#[derive(Clone, Copy)]
pub(super) struct Program {
    pub(super) name: &'static str,
    package: &'static str,
}

impl Program {
    pub(super) const fn new(name: &'static str, package: &'static str) -> Self {
        Self { name, package }
    }

    fn path(self) -> Option<PathBuf> {
        PATH.split(':').map(|folder| Path::new(folder).join(self.name)).find(|path| path.is_file())
    }

    /// The same on a machine whose `/etc` has, over what is there, the files of `etc`: the places where users have them.
    pub(super) fn command_over_etc(self, home: &Path, etc: &Path) -> Command {
        command_over_etc(self.installed(), home, etc)
    }

    /// The program with a clean environment: no credentials, proxies or settings of whoever runs the tests.
    pub(super) fn command(self, home: &Path) -> Command {
        command(self.installed(), home)
    }

    fn installed(self) -> PathBuf {
        self.path().unwrap_or_else(|| panic!("no {}: apt-get install {}", self.name, self.package))
    }
}

/// A program that sees the files of `etc` over this machine's `/etc`.
pub(super) fn command_over_etc(program: impl AsRef<OsStr>, home: &Path, etc: &Path) -> Command {
    let top = home.join("etc-top");
    fs::create_dir_all(&top).unwrap();
    let mut command = command("unshare", home);
    command.args(["--mount", "sh", "-c", OVER_ETC]).arg(etc).arg(top).arg(program);
    command
}

/// Lays a directory over this machine's `/etc`, for one program and its children. What they write there is gone with
/// them.
const OVER_ETC: &str = "mount -t tmpfs none \"$1\" && mkdir \"$1/up\" \"$1/work\" && \
    mount -t overlay -o \"lowerdir=$0:/etc,upperdir=$1/up,workdir=$1/work\" overlay /etc && shift && exec \"$@\"";

/// A command that ends with the test that started it, even if the test process is killed.
pub(super) fn command(program: impl AsRef<OsStr>, home: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(program);
    command.env_clear().env("PATH", PATH).env("HTTPS_PROXY", NO_WAY_OUT);
    // Nor is this machine itself.
    command.env("NO_PROXY", own_ip().map(|ip| ip.to_string()).unwrap_or_default());
    // Podman keeps what it downloads in TMPDIR, and both it and docker look for credentials in these places.
    command.env("HOME", home).env("TMPDIR", home).env("XDG_RUNTIME_DIR", home).current_dir(home);
    command.stdin(Stdio::null());
    command
}

/// Whether the test is to run. A missing program is a failure: a client nobody tried is not a client that works.
pub(super) fn wanted(programs: &[Program]) -> bool {
    if std::env::var_os("LARDER_SKIP_CLIENTS").is_some_and(|value| value == "1") {
        // Past the test harness, which keeps what a passing test prints to itself.
        let _ = writeln!(io::stderr(), "SKIP: LARDER_SKIP_CLIENTS=1, no real client was tried");
        return false;
    }
    let escape = "(or set LARDER_SKIP_CLIENTS=1 to go without the real clients)";
    assert!(rustix::process::geteuid().is_root(), "container daemons need root: run the tests as root {escape}");
    let missing: Vec<&str> = programs.iter().filter(|one| one.path().is_none()).map(|one| one.package).collect();
    assert!(missing.is_empty(), "run: apt-get install {} {escape}", missing.join(" "));
    true
}

/// A daemon. Dropping it ends and reaps it, and shows the end of its log if the test is failing.
pub(super) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    log_before: usize,
}

impl Process {
    pub(super) fn spawn(name: &str, command: &mut Command, log: PathBuf) -> Self {
        // Appended, so that a restart keeps what came before and both streams share one file.
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let log_before = usize::try_from(file.metadata().unwrap().len()).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} did not start: {error}"));
        Self { name: name.to_owned(), child, log, log_before }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged since this start; a line of an earlier one must not pass for news.
    pub(super) fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.log_before..).unwrap_or_default()).into_owned()
    }

    pub(super) fn wait_until_ready<T>(&mut self, mut ready: impl FnMut(&Self) -> Option<T>) -> T {
        let limit = Duration::from_secs(60);
        let deadline = Instant::now() + limit;
        loop {
            if let Some(value) = ready(self) {
                return value;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended before it was ready: {status}\n{}", self.name, self.log_tail());
            }
            assert!(Instant::now() < deadline, "{} was not ready within {limit:?}", self.name);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks it to end, insists after a while, and reaps it.
    pub(super) fn stop(&mut self) {
        let pid = Pid::from_child(&self.child);
        for (signal, limit) in [(Signal::TERM, Duration::from_secs(20)), (Signal::KILL, Duration::from_secs(10))] {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            let _ = kill_process(pid, signal);
            let deadline = Instant::now() + limit;
            while Instant::now() < deadline {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let mut tail = format!("--- the end of {}'s log ---\n", self.name);
        for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
            let _ = writeln!(tail, "{}", line.chars().take(TAIL_WIDTH).collect::<String>());
        }
        tail
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "the output of a failing test is where this belongs")]
    fn drop(&mut self) {
        self.stop();
        if thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
    }
}

/// Runs a command to its end and gives what it printed; a failure panics with both streams.
pub(super) fn run(command: &mut Command) -> String {
    match attempt(command) {
        Ok([stdout, _]) => stdout,
        Err(failure) => panic!("{failure}"),
    }
}

/// Runs a command to its end, and says whether that was a failure over a certificate.
pub(super) fn fails(command: &mut Command) -> bool {
    match attempt(command) {
        // A client may find another way and succeed, but not without a word.
        Ok([_, stderr]) => stderr.contains(UNTRUSTED),
        Err(failure) => {
            assert!(failure.contains(UNTRUSTED), "{failure}");
            true
        }
    }
}

/// What every client says of a certificate that it was not told to trust.
pub(super) const UNTRUSTED: &str = "certificate signed by unknown authority";

/// Runs a command to its end and gives both streams, or how it failed with both.
pub(super) fn attempt(command: &mut Command) -> Result<[String; 2], String> {
    let mut output = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
    command.stdout(output[0].try_clone().unwrap()).stderr(output[1].try_clone().unwrap());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        thread::sleep(Duration::from_millis(10));
    };
    let [stdout, stderr] = output.each_mut().map(|file| {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    match status {
        Some(status) if status.success() => Ok([stdout, stderr]),
        Some(status) => Err(format!("{command:?}: {status}\n{stdout}{stderr}")),
        None => panic!("{command:?}: not done within {PATIENCE:?}\n{stdout}{stderr}"),
    }
}
