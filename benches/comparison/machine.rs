//! What the figures were measured on.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::SystemTime;

/// One sentence: when, and on what.
pub fn describe(home: &Path) -> String {
    let date = humantime::format_rfc3339_seconds(SystemTime::now());
    let cores = available_parallelism().map_or(0, usize::from);
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let memory = field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    let memory = memory.map_or(0.0, |kibibytes| kibibytes / f64::from(1 << 20));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let disk = file_system(home).unwrap_or_else(|| "an unknown file system".to_owned());
    format!("{date}, {cores} cores ({processor}), {memory:.0} GiB of memory, Linux {}, {disk}", kernel.trim())
}

/// What a program prints about its version, from the first digit on.
pub fn version(program: &str) -> String {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let Ok(output) = Command::new(program).env("PATH", path).args(["-v"]).output() else { return String::new() };
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let number = text.trim().split([' ', '/']).rfind(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    number.unwrap_or_default().to_owned()
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let (_, value) = text.lines().find(|line| line.starts_with(name))?.split_once(':')?;
    Some(value.trim().to_owned())
}

/// The type of the file system that holds a directory: the longest mount point above it.
fn file_system(path: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let fields = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let above = fields.filter(|(point, _)| path.starts_with(point));
    above.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind.to_owned())
}
