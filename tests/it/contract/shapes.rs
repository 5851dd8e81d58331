//! The shapes that outages have had (`protocol.md` 2.6, `reliability.md` section 6), as things to do to a fake Docker Hub.

use crate::support::hub::{Fault, Hub, Plan, PortState, Role, Rule, Target};

/// One way in which upstream fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Nobody listens on any port.
    Refused,
    /// Connections are accepted, and nothing is ever answered.
    Silent,
    /// Requests are read, and never answered.
    BlackHole,
    /// A TCP reset instead of an answer.
    Reset,
    /// 500 as registries write it.
    Error500,
    /// A gateway's 503, in HTML.
    Gateway503,
    /// A router's 404 for what exists, in bare text (2018).
    NotFoundText,
    /// 405 in HTML (2018).
    MethodNotAllowed,
    /// A captive portal: HTML with 200.
    Portal,
    /// A registry that says, as registries do, that it does not have what it has.
    NotFoundSpoken,
    /// 401 although the token is good.
    Unauthorized,
    /// 403 although the token is good.
    Denied,
    /// The pull limit: 429 in JSON for each GET of a manifest.
    PullLimit,
    /// The abuse limit: 429 in text for everything.
    AbuseLimit,
    /// HEAD is 401 and GET works (2024).
    HeadRefused,
    /// The token service answers 503, the registry is well.
    TokenError,
    /// Nobody listens at the token service.
    TokenRefused,
    /// The token service accepts connections and says nothing.
    TokenSilent,
    /// The registry is gone, the token service is well.
    RegistryRefused,
    /// The registry's certificate is one that nobody trusts.
    Untrusted,
    /// Nobody listens at the CDN.
    CdnRefused,
    /// The CDN's address is a black hole (2025).
    CdnSilent,
    /// The CDN answers 403 in XML.
    CdnDenies,
    /// The CDN sends some bytes and then none (2020).
    CdnStalls,
}

impl Shape {
    /// Whether it needs a hub with TLS, whose three hosts have ports of their own.
    pub fn needs_tls(self) -> bool {
        use Shape::*;
        matches!(self, TokenRefused | TokenSilent | RegistryRefused | Untrusted)
    }

    /// Whether content that is not here can be had all the same.
    pub fn is_only_the_cdn(self) -> bool {
        use Shape::*;
        matches!(self, CdnRefused | CdnSilent | CdnDenies | CdnStalls)
    }

    /// Makes it so, until [`Shape::heal`]. The rules are for who wants to look at them.
    pub async fn inflict(self, hub: &Hub) -> Vec<Rule> {
        use Shape::*;
        let fault = |target, plan: Plan| vec![hub.fault(target, plan.optional())];
        match self {
            Refused => {
                hub.stop().await;
                Vec::new()
            }
            Silent => {
                hub.port_state(Role::Registry, PortState::Silent).await;
                hub.port_state(Role::Cdn, PortState::Silent).await;
                Vec::new()
            }
            RegistryRefused => port(hub, Role::Registry, PortState::Refusing).await,
            Untrusted => port(hub, Role::Registry, PortState::Untrusted).await,
            TokenRefused => port(hub, Role::Token, PortState::Refusing).await,
            TokenSilent => port(hub, Role::Token, PortState::Silent).await,
            CdnRefused => port(hub, Role::Cdn, PortState::Refusing).await,
            CdnSilent => port(hub, Role::Cdn, PortState::Silent).await,
            BlackHole => fault(Target::Everything, Fault::BlackHole.into()),
            Reset => fault(Target::Everything, Fault::Reset.into()),
            Error500 => fault(Target::Everything, Fault::error(500, "UNKNOWN").into()),
            Gateway503 => fault(Target::Everything, Fault::gateway(503).into()),
            NotFoundText => fault(
                Target::Everything,
                Fault::status(404, "text/plain; charset=utf-8", "404 page not found\n").into(),
            ),
            MethodNotAllowed => fault(Target::Everything, Fault::gateway(405).into()),
            Portal => fault(Target::Everything, Fault::captive_portal().into()),
            NotFoundSpoken => fault(Target::Manifest, Plan::from(Fault::error(404, "MANIFEST_UNKNOWN")).past_auth()),
            Unauthorized => fault(Target::Manifest, Plan::from(Fault::error(401, "UNAUTHORIZED")).past_auth()),
            Denied => fault(Target::Manifest, Plan::from(Fault::error(403, "DENIED")).past_auth()),
            PullLimit => fault(Target::ManifestGet, Plan::from(Fault::too_many_requests(None)).past_auth()),
            AbuseLimit => fault(Target::Everything, Fault::abuse_limit().into()),
            HeadRefused => fault(Target::ManifestHead, Plan::from(Fault::error(401, "UNAUTHORIZED")).past_auth()),
            TokenError => fault(Target::Token, Fault::gateway(503).into()),
            CdnDenies => fault(Target::Cdn, Fault::cdn_denies().into()),
            CdnStalls => fault(Target::Cdn, Fault::Stall(100).into()),
        }
    }

    /// Upstream is well again.
    pub async fn heal(hub: &Hub) {
        hub.heal();
        hub.start_again().await;
    }
}

async fn port(hub: &Hub, role: Role, state: PortState) -> Vec<Rule> {
    hub.port_state(role, state).await;
    Vec::new()
}
