//! Host names and addresses: whether they are local, and how they are written.

use std::net::{IpAddr, Ipv6Addr};

/// Returns whether `host` (a name, an address or the path of a socket) is this machine. Traffic to it crosses
/// no network, and no other machine can impersonate it.
pub(crate) fn is_local_host(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.starts_with('/')
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback() || address.is_unspecified())
}

/// Returns `host` without the brackets of an IPv6 address in a URL, which resolvers do not accept.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) fn without_brackets(host: &str) -> &str {
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match inner {
        Some(address) if address.parse::<Ipv6Addr>().is_ok() => address,
        _ => host,
    }
}

/// Formats `host` and `port` as in a URL: an IPv6 address in brackets.
pub(crate) fn with_port(host: &str, port: u16) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(_) => format!("[{host}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_address_has_brackets_in_front_of_a_port_alone() {
        for (bare, shown) in [
            ("::1", "[::1]:5432"),
            ("db.internal", "db.internal:5432"),
            ("10.0.0.1", "10.0.0.1:5432"),
        ] {
            assert_eq!(with_port(bare, 5432), shown);
        }
    }

    #[cfg(any(feature = "postgres", feature = "mysql"))]
    #[test]
    fn only_an_ipv6_address_loses_its_brackets() {
        for (host, bare) in [
            ("[::1]", "::1"),
            ("::1", "::1"),
            ("db.internal", "db.internal"),
            ("[db", "[db"),
            ("[db]", "[db]"),
        ] {
            assert_eq!(without_brackets(host), bare);
        }
    }

    #[test]
    fn this_machine_is_known_by_its_addresses() {
        for host in [
            "localhost",
            "LocalHost",
            "127.0.0.1",
            "127.0.1.1",
            "0.0.0.0",
            "[::1]",
            "/run/postgresql",
        ] {
            assert!(is_local_host(host), "{host}");
        }
        for host in [
            "10.0.0.1",
            "192.0.2.2",
            "[fd00::2]",
            "db.internal",
            "localhost.example",
            "127.0.0.1.example",
            "",
        ] {
            assert!(!is_local_host(host), "{host}");
        }
    }
}
