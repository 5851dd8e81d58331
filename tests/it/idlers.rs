//! A crowd that connects and says nothing, or next to nothing, or never comes to an end (reliability.md, S6): each is closed
//! by itself, and who has something to ask is answered meanwhile.

use futures_util::future::join_all;

use super::support::client::Connection;
use super::support::hub::Hub;
use super::support::image::Image;
use super::support::larder::Larder;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_idlers_is_closed_and_nobody_waits_for_it() {
    const EACH: usize = 200;
    let hub = Hub::plain().await;
    let image = Image::small(1);
    hub.push("library/alpha", "latest", &image);
    let larder = Larder::mirroring(&hub).await;
    let manifest = "/v2/library/alpha/manifests/latest";
    assert_eq!(larder.get(manifest).await.status, 200);
    let kinds: [&[u8]; 4] = [b"", b"G", b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"\x16\x03\x01"];
    let mut crowd = Vec::new();
    for said in kinds {
        for _ in 0..EACH {
            let mut idler = Connection::open(larder.mirror()).await.unwrap();
            idler.write(said).await;
            crowd.push(idler);
        }
    }
    while larder.metric("larder_connections", "listener=\"mirror\"").await < (EACH * 2) as f64 {
        tokio::task::yield_now().await;
    }
    let closing = join_all(crowd.into_iter().map(|idler| idler.until_closed()));
    let asking = async {
        for _ in 0..200 {
            let answer = larder.get(manifest).await;
            assert_eq!((answer.status, &answer.body[..]), (200, &image.manifest[..]));
        }
    };
    tokio::join!(closing, asking);
    while larder.metric("larder_connections", "listener=\"mirror\"").await > 0.0 {
        tokio::task::yield_now().await;
    }
}
