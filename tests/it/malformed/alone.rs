//! The corpus against a listener that stands alone, in front of a registry that knows nothing: what goes wrong here is
//! the listener's doing.

use std::collections::BTreeSet;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Response};
use larder::oci::ErrorCode;
use larder::server::{Drain, Limits, Listener, Metrics, Peer, RequestBody, Settings, refuse};
use larder::task;

use super::{assert_all_answered, corpus};

async fn answer(request: Request<RequestBody>, _peer: Peer) -> Response<Full<Bytes>> {
    let code = match refuse(&request) {
        Some(_) => ErrorCode::Unsupported,
        None if request.uri().path() == "/v2/" => return Response::new(Full::default()),
        None => ErrorCode::NameUnknown,
    };
    let body = format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"{}\"}}]}}", code.meaning());
    Response::builder().status(code.status()).body(Full::from(body)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listener_answers_every_malformed_request_once() {
    let settings =
        Settings { name: "mirror", listen: "127.0.0.1:0".parse().unwrap(), tls: None, limits: Limits::default() };
    let listener = Listener::bind(settings, &Metrics::new(&prometheus::Registry::new())).await.unwrap();
    let (address, drain) = (listener.local_addr(), Drain::new());
    let served = task::spawn("serve", listener.serve(answer, drain.clone()));

    let tally = assert_all_answered(address).await;
    // Of each kind there must be many, or the corpus has become something else.
    assert!(tally.answers[&404] > 3000 && tally.answers[&400] > 500 && tally.answers[&431] > 50, "{tally:?}");
    assert!(tally.followed > 3000 && tally.closed < 1000, "{tally:?}");
    drain.begin(std::time::Duration::from_secs(5));
    assert_eq!(served.await.unwrap(), 0);
}

#[test]
fn the_corpus_is_large_and_the_same_every_time() {
    let first: Vec<Vec<u8>> = corpus().collect();
    assert_eq!(first.len(), 10_000);
    assert!(first.iter().eq(corpus().collect::<Vec<_>>().iter()));
    assert!(first.iter().collect::<BTreeSet<_>>().len() > 8_000, "the same requests again and again");
}
