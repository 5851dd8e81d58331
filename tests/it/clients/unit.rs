//! The unit that is shipped, under a real systemd: installed as `docs/operations.md` says, with every line of its hardening.
//!
//! One test, because a boot is what it costs.

use std::fs;
use std::net::SocketAddr;

use super::machine::{Machine, NSPAWN};
use super::process::wanted;
use super::scratch::{Scratch, private_address};
use crate::deploy;
use crate::support::client::{Call, Connection};
use crate::support::hub::{Fault, Hub, Target};
use crate::support::image::{Image, noise};

const REPO: &str = "library/alpha";
const UNIT: &str = "larder.service";

/// A service that does what its system-call filter forbids ends here; as shipped, the call would only fail.
const STRICT: &str = "[Service]\nSystemCallErrorNumber=\n";

fn config(hub: &Hub, mirror: SocketAddr, admin: SocketAddr, registry: SocketAddr) -> String {
    let tls = "tls = { cert = \"/etc/larder/certs/server.pem\", key = \"/etc/larder/certs/server-key.pem\" }";
    format!(
        "data_dir = \"/var/lib/larder\"\n[mirror]\nlisten = \"{mirror}\"\n[admin]\nlisten = \"{admin}\"\n\
         [registry]\nlisten = \"{registry}\"\n{tls}\nhtpasswd = \"/etc/larder/htpasswd\"\n\
         [[registry.repository]]\npattern = \"golden/**\"\npush = [\"anna\"]\n\
         [[upstream]]\nname = \"docker.io\"\nurl = \"{}\"\nusername = \"anna\"\n\
         password_file = \"/run/credentials/larder.service/hub\"\n",
        hub.registry_url()
    )
}

/// The unit and its user as the document has them installed, and one key, one account and one password, each its owner's.
fn installed(hub: &Hub, [mirror, admin, registry]: [SocketAddr; 3]) -> Machine {
    let home = Scratch::new("unit");
    let programs = home.join("programs");
    fs::create_dir(&programs).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_larder"), programs.join("larder")).unwrap();
    let machine = Machine::boot(home, &programs);
    let file = |path: &str, text: &str| drop(machine.home.write(&format!("root/etc/{path}"), text));
    file("sysusers.d/larder.conf", &deploy::text("systemd/sysusers.conf"));
    file("systemd/system/larder.service", &deploy::text("systemd/larder.service"));
    file("systemd/system/larder.service.d/strict.conf", STRICT);
    file("systemd/system/larder.service.d/hub.conf", "[Service]\nLoadCredential=hub:/etc/larder/hub-password\n");
    file("larder/larder.toml", &config(hub, mirror, admin, registry));
    machine.shell(
        "systemd-sysusers; systemctl daemon-reload; cd /etc/larder; umask 077
         echo planted > hub-password
         echo a-long-password | larder user add anna --file htpasswd
         larder cert --name 127.0.0.1 --out certs; chmod 755 certs
         chgrp larder htpasswd certs/server-key.pem; chmod 640 htpasswd certs/server-key.pem",
    );
    machine
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_unit_starts_serves_is_watched_and_stops_as_it_says() {
    if !wanted(&[NSPAWN]) {
        return;
    }
    let hub = Hub::plain().await;
    hub.settings(|settings| drop(settings.accounts.insert("anna".into(), "planted".into())));
    let addresses = [private_address(), private_address(), private_address()];
    let [mirror, admin, registry] = addresses;
    let machine = installed(&hub, addresses);

    // `Type=notify`: when this returns, it serves.
    machine.run(&["systemctl", "enable", "--now", UNIT]);
    assert_eq!(Call::get("/readyz").send(admin).await.status, 200);
    let image = Image::small(1);
    hub.push(REPO, "latest", &image);
    let manifest = format!("/v2/{REPO}/manifests/latest");
    assert_eq!(Call::get(&manifest).send(mirror).await.body, image.manifest);
    let (layer, content) = image.layer(0);
    assert_eq!(Call::get(&format!("/v2/{REPO}/blobs/{layer}")).send(mirror).await.body, content);
    let owners = machine.shell("find /var/lib/larder/ -printf '%u:%g\\n' | sort -u");
    assert_eq!(owners.trim(), "larder:larder");
    let ca = fs::read_to_string(machine.home.join("root/etc/larder/certs/ca.pem")).unwrap();
    assert!(Connection::open_tls(registry, "127.0.0.1", &ca).await.is_ok(), "it serves with a key of its group");

    // Told to stop, it finishes what it has begun.
    let slow = noise(2, 1_000_000);
    let digest = hub.add_blob(REPO, slow.clone());
    let half = hub.fault(Target::Cdn, Fault::Stall(500_000));
    let mut body = Call::get(&format!("/v2/{REPO}/blobs/{digest}")).open(mirror).await;
    let begun = body.read(100_000).await;
    machine.run(&["systemctl", "stop", "--no-block", UNIT]);
    machine.until_property(UNIT, "ActiveState", |state| state == "deactivating");
    while Connection::open(mirror).await.is_ok() {
        tokio::task::yield_now().await;
    }
    half.release();
    let rest = body.rest().await;
    assert!(rest.complete && [begun, rest.body].concat() == slow, "a pull under way did not end well");
    machine.until_property(UNIT, "ActiveState", |state| state == "inactive");
    assert_eq!(machine.property(UNIT, "Result"), "success", "{}", machine.journal(UNIT));

    // A port that only root may open, with the lines that the unit names, and its cache without an upstream.
    hub.stop().await;
    let low = SocketAddr::new(mirror.ip(), 443);
    let lines = deploy::text("systemd/larder.service");
    let lines = lines.lines().skip_while(|line| !line.contains("below 1024")).skip(1).take(3);
    let lines: String = lines.map(|line| format!("{}\n", line.trim_start_matches("# "))).collect();
    machine.home.write("root/etc/systemd/system/larder.service.d/port.conf", &format!("[Service]\n{lines}"));
    machine.home.write("root/etc/systemd/system/larder.service.d/watch.conf", "[Service]\nWatchdogSec=8\n");
    machine.home.write("root/etc/larder/larder.toml", &config(&hub, low, admin, registry));
    machine.shell("systemctl daemon-reload; systemctl start larder");
    assert_eq!(Call::get(&manifest).send(low).await.body, image.manifest);

    // It hangs: systemd notices, and starts another.
    let hung = machine.property(UNIT, "MainPID");
    machine.shell(&format!("kill -STOP {hung}"));
    // On a busy machine it may have met more than one that was late.
    machine.until_property(UNIT, "NRestarts", |times| times != "0");
    machine.until_property(UNIT, "ActiveState", |state| state == "active");
    assert_ne!(machine.property(UNIT, "MainPID"), hung);
    assert!(machine.journal(UNIT).contains("Watchdog timeout"), "{}", machine.journal(UNIT));
    assert_eq!(Call::get(&manifest).send(low).await.body, image.manifest);

    // A configuration that cannot be right is said once, and not tried again.
    machine.home.write("root/etc/larder/larder.toml", "listen = 1\n");
    machine.shell("systemctl restart larder || true");
    machine.until_property(UNIT, "ActiveState", |state| state == "failed");
    assert_eq!(
        (machine.property(UNIT, "ExecMainStatus"), machine.property(UNIT, "NRestarts")),
        ("2".into(), "0".into())
    );
}
