//! Whether an engine asks a mirror through a proxy, by the rules of Go's `net/http`, which all of them use. Pure.

use std::net::IpAddr;

use super::facts::ProxyVariables;
use crate::cli::mirror_url::MirrorUrl;

/// The proxy through which `mirror` is asked, and the variable that names it.
pub(super) fn proxy_for<'a>(mirror: &MirrorUrl, variables: &'a ProxyVariables) -> Option<(&'static str, &'a str)> {
    let (name, proxy) =
        if mirror.is_https() { ("HTTPS_PROXY", &variables.https) } else { ("HTTP_PROXY", &variables.http) };
    let passed_by = variables.not_for.split(',').any(|entry| is_covered(mirror, entry.trim()));
    (!proxy.is_empty() && !is_loopback(mirror.host()) && !passed_by).then_some((name, proxy))
}

/// Loopback is never proxied, and Docker checks no certificate there.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_covered(mirror: &MirrorUrl, entry: &str) -> bool {
    let entry = entry.to_ascii_lowercase();
    if entry == "*" {
        return true;
    }
    let host = mirror.host();
    if let Some((network, bits)) = entry.split_once('/') {
        return match (network.parse(), bits.parse(), host.parse()) {
            (Ok(network), Ok(bits), Ok(address)) => contains(network, bits, address),
            _ => false,
        };
    }
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (entry.as_str(), None),
    };
    if port.is_some_and(|port| port.parse() != Ok(mirror.port())) {
        return false;
    }
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let name = name.strip_prefix('*').unwrap_or(name);
    match name.strip_prefix('.') {
        // With a dot it is what lies below, without one the name itself, too.
        Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
        None => host == name || host.strip_suffix(name).is_some_and(|rest| !name.is_empty() && rest.ends_with('.')),
    }
}

fn contains(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    let bits_of = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let ((network, size), (address, other)) = (bits_of(network), bits_of(address));
    size == other && bits <= size && (bits == 0 || (network ^ address) >> (128 - bits) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_proxy_covers_is_what_go_thinks_it_covers() {
        for (mirror, not_for, is_proxied) in [
            ("http://mirror.lan:5000", "", true),
            ("http://mirror.lan:5000", "mirror.lan", false),
            ("http://mirror.lan:5000", "other.lan, Mirror.LAN", false),
            ("http://mirror.lan:5000", "lan", false),
            ("http://mirror.lan:5000", ".lan", false),
            ("http://mirror.lan:5000", "*.lan", false),
            ("http://mirror.lan:5000", ".mirror.lan", true),
            ("http://mirror.lan:5000", "ror.lan", true),
            ("http://mirror.lan:5000", "mirror.lan:5000", false),
            ("http://mirror.lan:5000", "mirror.lan:5001", true),
            ("http://mirror.lan:5000", "*", false),
            ("http://10.1.2.3:5000", "10.0.0.0/8", false),
            ("http://10.1.2.3:5000", "10.2.0.0/16", true),
            ("http://10.1.2.3:5000", "0.0.0.0/0", false),
            ("http://10.1.2.3:5000", "::/0", true),
            ("http://10.1.2.3:5000", "10.1.2.3", false),
            ("http://[fd00::1]:5000", "fd00::/8", false),
            ("http://[fd00::1]:5000", "[fd00::1]:5000", false),
            ("http://[fd00::1]:5000", "fd00::1", false),
            ("http://127.0.0.1:5000", "", false),
            ("http://localhost:5000", "", false),
            ("https://mirror.lan", "", false),
        ] {
            let mirror = MirrorUrl::parse(mirror).unwrap();
            let variables =
                ProxyVariables { http: "http://proxy:3128".into(), https: String::new(), not_for: not_for.into() };
            assert_eq!(proxy_for(&mirror, &variables).is_some(), is_proxied, "{mirror} {not_for}");
        }
    }
}
