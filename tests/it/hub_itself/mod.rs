//! The fake Docker Hub does what it says, over plain HTTP and over TLS, and so does each of its faults: one that did
//! nothing would let a test of Larder pass that proves nothing.

mod behaviour;
mod faults;
mod ports;

use std::io;

use larder::oci::{Digest, MediaType};

use crate::support::client::{Answer, Call, Connection};
use crate::support::hub::{Hub, Role};

const REPO: &str = "library/alpine";

async fn both() -> [Hub; 2] {
    [Hub::plain().await, Hub::tls().await]
}

async fn connect(hub: &Hub, role: Role) -> io::Result<Connection> {
    if hub.is_tls() {
        Connection::open_tls(hub.addr(role), hub.name(role), hub.ca_pem()).await
    } else {
        Connection::open(hub.addr(role)).await
    }
}

async fn ask(hub: &Hub, role: Role, call: Call) -> Answer {
    connect(hub, role).await.unwrap().call(&call).await
}

async fn token(hub: &Hub, repo: &str) -> String {
    let path = format!("/token?service=registry.docker.io&scope=repository:{repo}:pull");
    let answer = ask(hub, Role::Token, Call::get(&path)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["token"].as_str().unwrap().to_owned()
}

/// A client with a token for [`REPO`].
struct Guest<'a> {
    hub: &'a Hub,
    authorization: String,
}

impl Guest<'_> {
    async fn of(hub: &Hub) -> Guest<'_> {
        Guest { hub, authorization: format!("Bearer {}", token(hub, REPO).await) }
    }

    fn sign(&self, call: Call) -> Call {
        call.header("Authorization", &self.authorization).header("Accept", MediaType::ACCEPT)
    }

    async fn registry(&self, call: Call) -> Answer {
        ask(self.hub, Role::Registry, self.sign(call)).await
    }

    async fn get(&self, what: &str) -> Answer {
        self.registry(Call::get(&format!("/v2/{REPO}/{what}"))).await
    }

    /// The signed path of a blob.
    async fn redirected(&self, digest: &Digest) -> String {
        let answer = self.get(&format!("blobs/{digest}")).await;
        assert_eq!(answer.status, 307, "{}", answer.text());
        answer.header("location").unwrap().strip_prefix(self.hub.cdn_url()).unwrap().to_owned()
    }

    async fn cdn(&self, digest: &Digest) -> Answer {
        let path = self.redirected(digest).await;
        ask(self.hub, Role::Cdn, Call::get(&path)).await
    }

    async fn cdn_range(&self, digest: &Digest, range: &str) -> Answer {
        let path = self.redirected(digest).await;
        ask(self.hub, Role::Cdn, Call::get(&path).header("Range", range)).await
    }
}
