//! What the log says at the start: where everything is, and what to write into a client. Asks nobody anything.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use crate::config::Config;

/// Where each listener listens.
pub struct Addresses {
    /// For clients that pull.
    pub mirror: SocketAddr,
    /// For operators.
    pub admin: SocketAddr,
    /// For clients that push, if there is a registry.
    pub registry: Option<SocketAddr>,
}

/// Says it.
pub fn announce(config: &Config, addresses: &Addresses) {
    let upstreams: Vec<String> =
        config.upstreams.iter().map(|upstream| format!("{} ({})", upstream.name, upstream.url)).collect();
    tracing::info!(
        mirror = %addresses.mirror,
        admin = %addresses.admin,
        registry = addresses.registry.map(|address| address.to_string()).as_deref(),
        data_dir = %config.data_dir.as_path().display(),
        max_size = %config.cache.max_size,
        upstreams = %upstreams.join(", "),
        "serving"
    );
    let mirror = mirror_url(config, addresses.mirror);
    tracing::info!(
        "clients pull through it with {} in /etc/docker/daemon.json; or: larder setup docker --mirror {mirror} --write",
        daemon_json(&mirror)
    );
}

/// Where clients find the mirror that listens at `mirror`.
pub fn mirror_url(config: &Config, mirror: SocketAddr) -> String {
    let scheme = if config.mirror.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}", reachable(mirror, own_address))
}

fn daemon_json(mirror: &str) -> String {
    format!("{{\"registry-mirrors\": [\"{mirror}\"]}}")
}

/// What others can be told of an address that may mean all of this machine's.
fn reachable(listen: SocketAddr, own: impl Fn(IpAddr) -> Option<IpAddr>) -> SocketAddr {
    if !listen.ip().is_unspecified() {
        return listen;
    }
    // `[::]` takes IPv4, too, and that is what most networks know the machine by.
    let own = own(Ipv4Addr::UNSPECIFIED.into()).or_else(|| own(listen.ip()));
    SocketAddr::new(own.unwrap_or(Ipv4Addr::LOCALHOST.into()), listen.port())
}

/// The address that this machine would send from. Nothing is sent: the system only looks into its routes.
fn own_address(family: IpAddr) -> Option<IpAddr> {
    let anywhere = if family.is_ipv4() { "192.0.2.1:9" } else { "[2001:db8::1]:9" };
    let socket = UdpSocket::bind((family, 0)).ok()?;
    socket.connect(anywhere).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|own| !own.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_an_address_that_they_can_reach() {
        let four: IpAddr = "10.0.0.7".parse().unwrap();
        let six: IpAddr = "fd00::7".parse().unwrap();
        let both = |family: IpAddr| Some(if family.is_ipv4() { four } else { six });
        let only_six = |family: IpAddr| Some(six).filter(|_| family.is_ipv6());
        let none = |_: IpAddr| None;
        let at =
            |listen: &str, own: &dyn Fn(IpAddr) -> Option<IpAddr>| reachable(listen.parse().unwrap(), own).to_string();
        assert_eq!(at("127.0.0.1:5000", &both), "127.0.0.1:5000");
        assert_eq!(at("0.0.0.0:5000", &both), "10.0.0.7:5000");
        assert_eq!(at("[::]:5000", &both), "10.0.0.7:5000");
        assert_eq!(at("[::]:5000", &only_six), "[fd00::7]:5000");
        assert_eq!(at("0.0.0.0:5000", &none), "127.0.0.1:5000");
    }
}
