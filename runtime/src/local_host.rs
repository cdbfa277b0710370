//! Which hosts are this machine.

use std::net::IpAddr;

/// Whether `host`, a name, an address or the path of a socket, is this machine itself: what is sent there
/// crosses no network, and nobody else can be taken for it.
pub(crate) fn is_local_host(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.starts_with('/')
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback() || address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

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
