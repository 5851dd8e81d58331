//! What the log of the built program answers: where everything is, what to write into a client, and which line belongs to
//! which request.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::binary::Binary;
use crate::support::client::{Call, PATIENCE};
use crate::support::hub::{Fault, Hub, Target};
use crate::support::image::Image;

const REPO: &str = "library/alpha";

fn config(home: &Path, hub: &Hub, listen: &str) -> String {
    format!(
        "data_dir = {:?}\n[mirror]\nlisten = {listen:?}\n[admin]\nlisten = \"127.0.0.1:0\"\n[cache]\nmax_size = \"3GiB\"\n\
         [[upstream]]\nname = \"docker.io\"\nurl = \"{}\"\n",
        home.join("data"),
        hub.registry_url()
    )
}

fn lines(server: &Binary) -> Vec<Value> {
    server.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Waits for a line, which is written a little after its answer.
fn line(server: &Binary, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = lines(server).into_iter().find(&wanted) {
            return found;
        }
        assert!(Instant::now() < deadline, "no such line:\n{}", server.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_start_says_where_everything_is_and_what_to_write_into_a_client() {
    let hub = Hub::plain().await;
    for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
        let home = tempfile::tempdir().unwrap();
        let server = Binary::start(home.path(), &config(home.path(), &hub, listen), "info");
        let serving = line(&server, |line| line["message"] == "serving");
        assert_eq!(serving["data_dir"], home.path().join("data").to_str().unwrap());
        assert_eq!(serving["max_size"], "3GiB");
        assert_eq!(serving["upstreams"], format!("docker.io ({})", hub.registry_url()));
        let advice = line(&server, |line| line["message"].as_str().is_some_and(|text| text.contains("daemon.json")));
        let text = advice["message"].as_str().unwrap();
        let (from, to) = (text.find('{').unwrap(), text.find('}').unwrap());
        let snippet: Value = serde_json::from_str(&text[from..=to]).unwrap();
        let mirror = snippet["registry-mirrors"][0].as_str().unwrap();
        assert!(mirror.ends_with(&format!(":{}", server.mirror.port())), "{mirror}");
        assert!(!mirror.contains("0.0.0.0"), "nobody can reach {mirror}");
        assert!(text.contains(&format!("--mirror {mirror} --write")), "{text}");
        let address = mirror.strip_prefix("http://").unwrap().parse().unwrap();
        assert_eq!(Call::get("/v2/").send(address).await.status, 200, "{mirror} is not where it is");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_has_one_name_in_its_answer_in_its_line_and_in_the_lines_of_what_it_causes() {
    let (hub, home) = (Hub::plain().await, tempfile::tempdir().unwrap());
    let image = Image::small(1);
    hub.push(REPO, "latest", &image);
    hub.fault(Target::Cdn, Fault::WrongBytes);
    let server = Binary::start(home.path(), &config(home.path(), &hub, "127.0.0.1:0"), "info");
    // A client's own name for it is not believed.
    let digest = image.blob_digests().pop().unwrap();
    let call = Call::get(&format!("/v2/{REPO}/blobs/{digest}")).header("x-request-id", "forged");
    let answer = call.send(server.mirror).await;
    let id = answer.header("x-request-id").unwrap().to_owned();
    assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");

    let access = line(&server, |line| line["message"] == "request" && line["request"] == *id);
    assert_eq!(access["path"], format!("/v2/{REPO}/blobs/{digest}"));
    let failed = line(&server, |line| line["message"] == "a fill failed");
    assert_eq!(failed["request"], *id, "{failed}");
    // The server's own lines are nobody's.
    assert_eq!(line(&server, |line| line["message"] == "serving")["request"], Value::Null);
    let other = Call::get("/v2/").send(server.mirror).await;
    assert_ne!(other.header("x-request-id"), Some(id.as_str()));
}
