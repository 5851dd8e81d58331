//! A server as the comparison runs it: ended by its pid, measured through `/proc` with all of its workers.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Outcome;

/// `/proc` counts processor time in hundredths of a second on every Linux there is (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
/// Daemons live in `sbin`, which is not on everybody's `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A running server. Dropped, it is ended and waited for.
pub struct Process {
    child: Child,
}

/// A command with a clean environment that ends with the thread that starts it, however that ends.
pub fn command(program: &str, home: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--", program]);
    command.env_clear().env("PATH", PATH).env("HOME", home).env("TMPDIR", home).current_dir(home);
    command.stdin(Stdio::null());
    command
}

impl Process {
    /// Starts a server that logs into `home`, and waits until it is ready.
    pub fn start(command: &mut Command, home: &Path, ready: impl Fn() -> bool) -> Outcome<Process> {
        let log = home.join("log");
        let file = File::create(&log)?;
        command.stdout(file.try_clone()?).stderr(file);
        let mut process = Process { child: command.spawn()? };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !ready() {
            if process.child.try_wait()?.is_some() || Instant::now() > deadline {
                let text = fs::read_to_string(&log).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(5).collect();
                return Err(format!("{command:?} did not become ready: {tail:?}").into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(process)
    }

    /// Processor time that it has used, in seconds.
    pub fn cpu(&self) -> f64 {
        let ticks = |pid: &u32| {
            // Counted from the state on: the program's name before it may hold anything.
            let after_name = stat(*pid)?;
            let fields: Vec<&str> = after_name.split_whitespace().collect();
            Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
        };
        self.members().iter().filter_map(ticks).sum::<f64>() / TICKS_PER_SECOND
    }

    /// Forgets the peak of memory.
    pub fn forget_peak(&self) -> io::Result<()> {
        self.members().iter().try_for_each(|pid| {
            let mut file = File::options().write(true).open(format!("/proc/{pid}/clear_refs"))?;
            file.write_all(b"5")
        })
    }

    /// The most memory that was resident since, in bytes.
    pub fn peak(&self) -> f64 {
        let peak = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
            line.split_whitespace().nth(1)?.parse::<f64>().ok()
        };
        self.members().iter().filter_map(peak).sum::<f64>() * 1024.0
    }

    /// Its pid and those of its children: nginx has workers.
    fn members(&self) -> Vec<u32> {
        let own = self.child.id();
        let parent = |pid: u32| stat(pid)?.split_whitespace().nth(1)?.parse::<u32>().ok();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|&pid| pid == own || parent(pid) == Some(own)).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        for (signal, limit) in [(Signal::TERM, Duration::from_secs(5)), (Signal::KILL, Duration::from_secs(5))] {
            let _ = kill_process(Pid::from_child(&self.child), signal);
            let deadline = Instant::now() + limit;
            while Instant::now() < deadline {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// What stands in `/proc/<pid>/stat` behind the program's name.
fn stat(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ").map(|(_, rest)| rest.to_owned())
}
