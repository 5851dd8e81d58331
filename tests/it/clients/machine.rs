//! A machine with a systemd of its own: this one's `/usr` below an empty `/etc` and `/var`, booted by `systemd-nspawn`. Its
//! network is this machine's, so that a hub of the test is an upstream for it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::process::{Process, Program, attempt, command, run};
use super::scratch::{Scratch, wait_until};

pub(super) const NSPAWN: Program = Program::new("systemd-nspawn", "systemd-container");

/// Not the first boot of a new machine, at which systemd enables whatever is installed.
const MACHINE_ID: &str = "7d0c0f4a4c8b4f3d9b0a5a6f1c2e3d4b\n";

/// A file that the machine has and this one has not.
const MARK: &str = "/etc/machine-of-a-test";

pub(super) struct Machine {
    leader: String,
    // Dropped in this order: the machine before its files.
    _nspawn: Process,
    pub(super) home: Scratch,
}

impl Machine {
    /// Boots with nothing enabled; `programs` is its `/usr/local/bin`.
    pub(super) fn boot(home: Scratch, programs: &Path) -> Machine {
        let root = home.join("root");
        for folder in ["etc", "usr", "var", "root"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for folder in ["bin", "sbin", "lib", "lib64"] {
            symlink(Path::new("usr").join(folder), root.join(folder)).unwrap();
        }
        for file in ["passwd", "group", "nsswitch.conf", "os-release"] {
            fs::copy(Path::new("/etc").join(file), root.join("etc").join(file)).unwrap();
        }
        fs::write(root.join("etc/machine-id"), MACHINE_ID).unwrap();
        fs::write(root.join(MARK.trim_start_matches('/')), "").unwrap();
        let mut nspawn = NSPAWN.command(home.path());
        nspawn.args(["--quiet", "--boot", "--register=no", "--console=pipe", "--link-journal=no"]);
        nspawn.args(["--resolv-conf=off", "--timezone=off", "--bind-ro=/usr"]);
        // Where systemd runs it would not have a session's scope kept; where it does not, nobody can make another.
        if !Path::new("/run/systemd/system").exists() {
            nspawn.arg("--keep-unit");
        }
        nspawn.arg(format!("--bind-ro={}:/usr/local/bin", programs.display()));
        nspawn.arg(format!("--machine=larder-{}", std::process::id()));
        nspawn.arg("--directory").arg(&root).args(["--", "systemd.unit=basic.target"]);
        let mut nspawn = Process::spawn("systemd-nspawn", &mut nspawn, home.join("nspawn.log"));
        let leader = nspawn.wait_until_ready(|nspawn| {
            let booted = format!("test -e {MARK} && systemctl is-active --quiet basic.target");
            children(nspawn.id()).into_iter().find(|pid| attempt(enter(pid, &home).args(["sh", "-c", &booted])).is_ok())
        });
        Machine { leader, _nspawn: nspawn, home }
    }

    /// Runs a command there as root, and gives what it prints.
    pub(super) fn run(&self, arguments: &[&str]) -> String {
        run(enter(&self.leader, &self.home).args(arguments))
    }

    /// Runs what a document says, as a shell does.
    pub(super) fn shell(&self, script: &str) -> String {
        self.run(&["sh", "-euc", script])
    }

    /// A property of a unit.
    pub(super) fn property(&self, unit: &str, name: &str) -> String {
        self.run(&["systemctl", "show", "--value", "--property", name, unit]).trim().to_owned()
    }

    pub(super) fn until_property(&self, unit: &str, name: &str, holds: impl Fn(&str) -> bool) {
        wait_until(&format!("{unit}: its {name}"), Duration::from_secs(60), || holds(&self.property(unit, name)));
    }

    /// All that a unit has said.
    pub(super) fn journal(&self, unit: &str) -> String {
        self.run(&["journalctl", "--no-pager", "--unit", unit])
    }
}

fn enter(leader: &str, home: &Scratch) -> Command {
    let mut command = command("nsenter", home.path());
    // Its root directory is where this process stands otherwise.
    command.args(["--all", "--target", leader, "--wdns=/", "--"]);
    command
}

fn children(parent: u32) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_child = |pid: &String| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Behind the name, which may hold anything: the state, then the parent.
        let found = stat.rsplit_once(')').and_then(|(_, rest)| rest.split(' ').nth(2)?.parse().ok());
        found == Some(parent)
    };
    processes.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).filter(is_child).collect()
}
