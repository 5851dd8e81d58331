//! What systemd hears from a service of `Type=notify`, and what it says to the unit that is shipped.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::binary::larder;
use crate::support::client::PATIENCE;

/// Whatever the test comes to.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The next thing that systemd is told and that is not the dog being fed.
fn next_news(socket: &UnixDatagram) -> String {
    loop {
        let text = next(socket);
        if text != "WATCHDOG=1" {
            return text;
        }
    }
}

fn next(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 200];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
}

#[test]
fn systemd_hears_when_it_serves_that_it_lives_and_that_it_stops() {
    let home = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(home.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = larder();
    command.arg("serve").current_dir(home.path()).stdout(Stdio::null()).stderr(Stdio::null());
    command.env("LARDER_MIRROR_LISTEN", "127.0.0.1:0").env("LARDER_ADMIN_LISTEN", "127.0.0.1:0");
    command.env("NOTIFY_SOCKET", home.path().join("notify")).env("WATCHDOG_USEC", "20000");
    let mut child = Killed(command.spawn().unwrap());
    assert_eq!(next(&socket), "READY=1");
    // Fed more than once: it is a loop and not a greeting.
    assert_eq!([next(&socket), next(&socket)], ["WATCHDOG=1", "WATCHDOG=1"]);
    kill_process(Pid::from_child(&child.0), Signal::TERM).unwrap();
    assert_eq!(next_news(&socket), "STOPPING=1");
    assert!(child.0.wait().unwrap().success());
}
