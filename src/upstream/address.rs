//! Which addresses an upstream may lead us to.
//!
//! The host that the operator configured may be anywhere. Any other host, a realm or a redirect, is the upstream's
//! choice, and must not be further inside than the upstream itself is: otherwise a registry in the world could make us
//! ask the router, a database, or the cloud's metadata service. Asked with resolved addresses, so that what a name
//! meant a moment ago decides nothing. Pure: never resolves or connects.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

use hyper::Uri;
use thiserror::Error;

/// How far inside an address is. Ordered from the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Depth {
    Global,
    Private,
    Loopback,
}

/// A place that an upstream may not send us to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{host} is at {address}, which is no address that this upstream may send us to")]
pub struct ForbiddenAddress {
    host: String,
    address: IpAddr,
}

/// The rule for one upstream.
#[derive(Debug)]
pub struct AddressPolicy {
    own_host: String,
    own_literal: Option<IpAddr>,
    /// A `Depth`; what the own host has been seen at, and only ever moves outwards.
    own_depth: AtomicU8,
}

const UNSEEN: u8 = u8::MAX;

impl AddressPolicy {
    /// The rule for the upstream at `url`.
    pub fn new(url: &Uri) -> AddressPolicy {
        let own_literal = literal(url);
        let own_depth = own_literal.map_or(UNSEEN, |address| depth(address).unwrap_or(Depth::Global) as u8);
        let own_host = url.host().unwrap_or_default().to_ascii_lowercase();
        AddressPolicy { own_host, own_literal, own_depth: AtomicU8::new(own_depth) }
    }

    /// Whether `url`, if its host is an address, may be connected to. A connector asks no resolver about such a host.
    pub fn admit_literal(&self, url: &Uri) -> Result<(), ForbiddenAddress> {
        match literal(url) {
            Some(address) if Some(address) != self.own_literal && !self.is_allowed(address) => {
                Err(ForbiddenAddress { host: url.host().unwrap_or_default().into(), address })
            }
            _ => Ok(()),
        }
    }

    /// Those of the addresses `found` for `host` that may be connected to; an error if that leaves none.
    pub fn admit(&self, host: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, ForbiddenAddress> {
        let first = found.first().map(SocketAddr::ip);
        let is_own = host.eq_ignore_ascii_case(&self.own_host);
        let admitted: Vec<SocketAddr> = found
            .into_iter()
            .filter(|found| if is_own { depth(found.ip()).is_some() } else { self.is_allowed(found.ip()) })
            .collect();
        if is_own && let Some(outermost) = admitted.iter().filter_map(|found| depth(found.ip())).min() {
            // Once seen outside, never again inside: a name that moves inwards must not open the inside to others.
            self.own_depth.fetch_min(outermost as u8, Ordering::Relaxed);
        }
        match first {
            Some(address) if admitted.is_empty() => Err(ForbiddenAddress { host: host.into(), address }),
            _ => Ok(admitted),
        }
    }

    fn is_allowed(&self, address: IpAddr) -> bool {
        let own = match self.own_depth.load(Ordering::Relaxed) {
            UNSEEN => Depth::Global as u8,
            seen => seen,
        };
        depth(address).is_some_and(|depth| depth as u8 <= own)
    }
}

/// The address that a URL's host is, unless it is a name.
fn literal(url: &Uri) -> Option<IpAddr> {
    url.host()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// How far inside `address` is; `None` for what nobody may be sent to.
fn depth(address: IpAddr) -> Option<Depth> {
    match address {
        IpAddr::V4(address) => depth_v4(address),
        IpAddr::V6(address) => depth_v6(address),
    }
}

/// The IANA IPv4 special-purpose address registry, and the metadata services that lie elsewhere.
fn depth_v4(address: Ipv4Addr) -> Option<Depth> {
    match address.octets() {
        [127, ..] => Some(Depth::Loopback),
        // Alibaba's and Azure's metadata services are outside link-local.
        [100, 100, 100, 200] | [168, 63, 129, 16] => None,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Some(Depth::Private),
        // Benchmarking, and what local proxies with invented addresses answer for every name.
        [198, 18..=19, ..] => Some(Depth::Private),
        [0, ..] | [169, 254, ..] | [192, 0, 0, _] | [224..=255, ..] => None,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => None,
        _ => Some(Depth::Global),
    }
}

/// The IANA IPv6 special-purpose address registry; an embedded IPv4 address decides where there is one.
fn depth_v6(address: Ipv6Addr) -> Option<Depth> {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return depth_v4(mapped);
    }
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(Depth::Loopback),
        [0, 0, 0, 0, 0, 0, ..] => None,
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => depth_v4(v4(high, low)),
        [0x64, 0xff9b, 1, ..] => Some(Depth::Private),
        [0x2002, high, low, ..] => depth_v4(v4(high, low)),
        // Amazon's and Google's metadata services.
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => None,
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Some(Depth::Private),
        [0x100, 0, 0, 0, ..] | [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, ..] => None,
        [0x2000..=0x3fff, ..] => Some(Depth::Global),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(url: &str) -> AddressPolicy {
        AddressPolicy::new(&url.parse().unwrap())
    }

    fn found(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect()
    }

    #[test]
    fn how_far_inside_an_address_is() {
        for (address, expected) in [
            ("1.1.1.1", Some(Depth::Global)),
            ("172.15.0.1", Some(Depth::Global)),
            ("172.32.0.1", Some(Depth::Global)),
            ("2606:4700::1", Some(Depth::Global)),
            ("64:ff9b::1.1.1.1", Some(Depth::Global)),
            ("2002:101:101::1", Some(Depth::Global)),
            ("10.0.0.1", Some(Depth::Private)),
            ("172.16.0.1", Some(Depth::Private)),
            ("172.31.255.255", Some(Depth::Private)),
            ("192.168.1.1", Some(Depth::Private)),
            ("100.64.0.1", Some(Depth::Private)),
            ("100.127.255.255", Some(Depth::Private)),
            ("198.18.0.7", Some(Depth::Private)),
            ("fc00::1", Some(Depth::Private)),
            ("fdff::1", Some(Depth::Private)),
            ("::ffff:192.168.0.1", Some(Depth::Private)),
            ("64:ff9b::10.0.0.1", Some(Depth::Private)),
            ("2002:a00:1::1", Some(Depth::Private)),
            ("127.0.0.1", Some(Depth::Loopback)),
            ("127.255.0.3", Some(Depth::Loopback)),
            ("::1", Some(Depth::Loopback)),
            ("::ffff:127.0.0.1", Some(Depth::Loopback)),
            ("64:ff9b::127.0.0.1", Some(Depth::Loopback)),
            ("0.0.0.0", None),
            ("0.1.2.3", None),
            ("169.254.169.254", None),
            ("::ffff:169.254.169.254", None),
            ("64:ff9b::169.254.169.254", None),
            ("2002:a9fe:a9fe::1", None),
            ("100.100.100.200", None),
            ("168.63.129.16", None),
            ("192.0.0.192", None),
            ("192.0.2.1", None),
            ("224.0.0.1", None),
            ("240.0.0.1", None),
            ("255.255.255.255", None),
            ("::", None),
            ("::127.0.0.1", None),
            ("fe80::1", None),
            ("ff02::1", None),
            ("fd00:ec2::254", None),
            ("fd20:ce::254", None),
            ("2001:db8::1", None),
            ("2001::1", None),
            ("100::1", None),
            ("4000::1", None),
        ] {
            assert_eq!(depth(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn a_registry_of_the_world_leads_only_into_the_world() {
        let policy = policy("https://registry.example");
        for own in [["127.0.0.1"], ["1.1.1.1"], ["127.0.0.1"]] {
            policy.admit("Registry.Example", found(&own)).unwrap();
        }
        assert!(policy.admit("cdn.example", found(&["8.8.8.8"])).is_ok());
        // A name that answers with both is only ever met at the outer one.
        assert_eq!(policy.admit("cdn.example", found(&["10.0.0.1", "8.8.8.8", "::1"])).unwrap(), found(&["8.8.8.8"]));
        for inner in ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "fd00::1"] {
            assert!(policy.admit("cdn.example", found(&[inner])).is_err(), "{inner}");
        }
        for inner in ["https://10.0.0.1/", "https://[::1]:443/", "https://[::ffff:7f00:1]/", "https://169.254.169.254/"]
        {
            assert!(policy.admit_literal(&inner.parse().unwrap()).is_err(), "{inner}");
        }
        assert!(policy.admit_literal(&"https://8.8.8.8/".parse().unwrap()).is_ok());
        assert!(policy.admit_literal(&"https://name.example/".parse().unwrap()).is_ok());
    }

    #[test]
    fn before_the_own_host_was_seen_it_counts_as_outside() {
        assert!(policy("http://x.localhost").admit("cdn.example", found(&["127.0.0.1"])).is_err());
    }

    #[test]
    fn a_registry_inside_may_lead_as_far_inside_as_it_is() {
        let office = policy("https://10.1.2.3:5000");
        assert!(office.admit("s3.office", found(&["192.168.0.4"])).is_ok());
        assert!(office.admit("cdn.example", found(&["8.8.8.8"])).is_ok());
        assert!(office.admit("s3.office", found(&["127.0.0.1"])).is_err());
        assert!(office.admit("s3.office", found(&["169.254.169.254"])).is_err());

        let here = policy("http://hub.localhost:5000");
        here.admit("hub.localhost", found(&["::1", "127.0.0.1"])).unwrap();
        assert!(here.admit("cdn.hub.localhost", found(&["127.0.0.1"])).is_ok());
        assert!(here.admit_literal(&"http://127.0.0.1:9/".parse().unwrap()).is_ok());
        assert!(here.admit_literal(&"http://0.0.0.0:9/".parse().unwrap()).is_err());
    }

    #[test]
    fn a_link_local_registry_is_reached_only_when_it_is_written_down() {
        let literal = policy("http://[fe80::1]:5000");
        assert!(literal.admit_literal(&"http://[fe80::1]:5000/v2/".parse().unwrap()).is_ok());
        assert!(literal.admit_literal(&"http://[fe80::2]:5000/v2/".parse().unwrap()).is_err());
        assert!(literal.admit_literal(&"http://10.0.0.1/".parse().unwrap()).is_err());
        assert!(policy("http://box.local").admit("box.local", found(&["fe80::1"])).is_err());
    }
}
