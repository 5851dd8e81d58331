//! The hub's ports refuse, fall silent, lose their certificate, and come back where they were.

use std::io;

use tokio::net::TcpSocket;

use super::{Guest, REPO, ask, both, connect};
use crate::support::client::{Call, Connection};
use crate::support::hub::{Fault, Hub, PortState, Role, Target};
use crate::support::image::noise;

#[tokio::test]
async fn a_stopped_hub_refuses_cuts_off_and_comes_back() {
    for hub in both().await {
        let mut connection = connect(&hub, Role::Registry).await.unwrap();
        assert_eq!(connection.call(&Call::get("/v2/")).await.status, 401);
        hub.stop().await;
        assert_eq!(connection.call(&Call::get("/v2/")).await.status, 0);
        for role in [Role::Registry, Role::Token, Role::Cdn] {
            let error = connect(&hub, role).await.err().unwrap();
            assert_eq!((error.kind(), hub.addr(role).port() > 0), (io::ErrorKind::ConnectionRefused, true));
        }
        hub.start_again().await;
        assert_eq!(ask(&hub, Role::Registry, Call::get("/v2/")).await.status, 401);
    }
}

#[tokio::test]
async fn a_refusing_port_is_nobody_elses() {
    let hub = Hub::plain().await;
    hub.stop().await;
    // Without SO_REUSEADDR, as port 0 does it: only a port that nobody has is given away.
    let error = TcpSocket::new_v4().unwrap().bind(hub.addr(Role::Registry)).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    hub.start_again().await;
}

#[tokio::test]
async fn one_host_can_fail_alone() {
    for hub in both().await {
        let digest = hub.add_blob(REPO, noise(7, 10));
        let guest = Guest::of(&hub).await;
        hub.port_state(Role::Cdn, PortState::Refusing).await;
        guest.redirected(&digest).await;
        assert!(connect(&hub, Role::Cdn).await.is_err());
        hub.port_state(Role::Cdn, PortState::Open).await;
        assert_eq!(guest.cdn(&digest).await.body, noise(7, 10));
    }
}

#[tokio::test]
async fn a_silent_port_takes_everything_and_says_nothing() {
    for hub in both().await {
        hub.port_state(Role::Registry, PortState::Silent).await;
        let (answered, ()) = tokio::join!(
            async {
                // The end of the hub's silence ends the connection, at the latest in the TLS handshake.
                match connect(&hub, Role::Registry).await {
                    Ok(mut connection) => connection.call(&Call::get("/v2/")).await.status != 0,
                    Err(_) => false,
                }
            },
            async {
                hub.until_open(Role::Registry, 1).await;
                hub.port_state(Role::Registry, PortState::Open).await;
            }
        );
        assert!(!answered);
        assert_eq!(hub.requests().len(), 0);
    }
}

#[tokio::test]
async fn an_untrusted_certificate_is_refused_by_who_looks() {
    let hub = Hub::tls().await;
    hub.port_state(Role::Registry, PortState::Untrusted).await;
    let error = connect(&hub, Role::Registry).await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    assert!(std::fs::read_to_string(hub.ca_file()).unwrap() == hub.ca_pem());
    hub.port_state(Role::Registry, PortState::Open).await;
    assert!(connect(&hub, Role::Registry).await.is_ok());
}

#[tokio::test]
async fn a_dropped_hub_lets_go_of_what_it_holds() {
    let hub = Hub::plain().await;
    let rule = hub.fault(Target::Ping, Fault::BlackHole);
    let mut connection = Connection::open(hub.addr(Role::Registry)).await.unwrap();
    let ((), answer) = tokio::join!(
        async move {
            rule.until_hit(1).await;
            drop(hub);
        },
        async move { connection.call(&Call::get("/v2/")).await }
    );
    assert_eq!(answer.status, 0);
}
