//! Killed at any moment while it is pulled from, pushed to, deleted from, short of room, scrubbing and collecting garbage:
//! afterwards it starts by itself, has all that it acknowledged, serves nothing wrong, and is within its limit.
//!
//! `LARDER_KILLS` is how often, 12 unless said otherwise; `just soak` takes 200.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use larder::oci::Digest;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use crate::power_cut::{Given, pull, push};
use crate::support::binary::{self, Binary};
use crate::support::client::{Call, Connection};
use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::larder::{assert_sound, used};

const LIMIT: u64 = 4 << 20;

/// What one push was told that it has: its blobs, and last its manifest if it came to that.
type Pushed = Vec<(String, Vec<u8>)>;

/// Asks for something of which only the beginning matters.
async fn order(at: SocketAddr, method: &'static str, path: String) -> Given {
    if let Ok(mut connection) = Connection::open(at).await {
        let _begun = connection.call(&Call::new(method, &path).header("X-Larder-Request", "1")).await;
    }
    Given::default()
}

/// Collects garbage where no server runs, and is killed over it.
async fn collect(home: &Path, patience: Duration) {
    let mut command = binary::larder();
    let mut child = command.args(["gc", "--config"]).arg(home.join("larder.toml")).spawn().unwrap();
    tokio::time::sleep(patience).await;
    child.kill().unwrap();
    child.wait().unwrap();
}

fn is_whole(pushed: &Pushed) -> bool {
    pushed.last().is_some_and(|(path, _)| path.contains("/manifests/"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_any_load_it_loses_nothing_that_was_acknowledged_and_keeps_its_limit() {
    let kills = std::env::var("LARDER_KILLS").map_or(12, |kills| kills.parse::<u64>().unwrap());
    let (hub, home) = (Hub::plain().await, tempfile::tempdir().unwrap());
    let data = home.path().join("data");
    let config = format!(
        "data_dir = {data:?}\n[mirror]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [cache]\nmax_size = \"{LIMIT}B\"\nmin_free = \"0\"\n\
         [registry]\nlisten = \"127.0.0.1:0\"\nanonymous = \"push\"\n\
         [[registry.repository]]\npattern = \"golden/**\"\npush = [\"*\"]\ndelete = [\"*\"]\n\
         [[upstream]]\nname = \"docker.io\"\nurl = \"{}\"\n",
        hub.registry_url()
    );
    let mut random = StdRng::seed_from_u64(9);
    let mut given: Vec<Pushed> = Vec::new();
    let (mut acknowledged, mut hosted, mut checked) = (0, 0, 0);
    for kill in 0..kills {
        let larder = Binary::start(home.path(), &config, "warn,larder=info");
        assert_sound(&data);
        let own = larder.registry.unwrap();
        for (path, content) in given.iter().flatten() {
            let answer = Call::get(path).send(own).await;
            assert_eq!(
                (answer.status, answer.complete),
                (200, true),
                "kill {kill}: {path} was acknowledged, and is lost"
            );
            assert!(answer.body == *content, "kill {kill}: {path} is wrong");
            checked += 1;
        }
        // A push that nobody heard the end of may be here, too: at most two of each round. What was deleted may be here still.
        let unheard = kill * 2 * 500_000;
        let on_disk = used(&data);
        assert!(on_disk <= LIMIT + hosted + unheard, "kill {kill}: {on_disk} bytes, {hosted} of them hosted");
        let mut load = JoinSet::new();
        for n in 0..4 {
            let seed = 60_000 + random.random_range(0..30u64);
            let image = Image::oci(seed, &[400_000, 70_000, 3_000]);
            hub.push("library/alpha", &format!("v{seed}"), &image);
            load.spawn(pull(larder.mirror, format!("v{seed}"), image, Arc::default()));
            if n < 2 {
                let seed = 70_000 + kill * 2 + n;
                load.spawn(push(own, format!("v{seed}"), Image::oci(seed, &[300_000, 70_000, 900])));
            }
        }
        load.spawn(order(larder.admin, "POST", "/api/scrub".to_owned()));
        load.spawn(order(larder.admin, "POST", "/api/gc".to_owned()));
        if random.random_bool(0.7)
            && let Some(which) = given.iter().position(is_whole)
        {
            let digest = Digest::sha256(&given.remove(which).pop().unwrap().1);
            load.spawn(order(own, "DELETE", format!("/v2/golden/app/manifests/{digest}")));
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(20..400))).await;
        larder.kill();
        while let Some(done) = load.join_next().await {
            let Given { pushed, .. } = done.unwrap();
            acknowledged += pushed.len();
            hosted +=
                pushed.iter().map(|(_, content)| (content.len() as u64).div_ceil(4096) * 4096 + 4096).sum::<u64>();
            given.push(pushed);
        }
        if kill % 3 == 2 {
            // Without a server nobody is in the middle of a push: a blob that no manifest names is garbage at once.
            given.retain(is_whole);
            collect(home.path(), Duration::from_millis(random.random_range(5..150))).await;
        }
    }
    assert!(acknowledged > 5, "too little was acknowledged before the kills");
    say(&format!("{kills} kills, {acknowledged} acknowledged, {checked} looked at afterwards, none lost or wrong"));
}

/// Figures are for a person who runs this with `--nocapture`.
#[allow(clippy::print_stderr)]
fn say(what: &str) {
    eprintln!("{what}");
}
