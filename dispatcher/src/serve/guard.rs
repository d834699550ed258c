//! Protection against DNS rebinding.
//!
//! A web page can make a browser call a server on its user's machine, and by DNS rebinding even read
//! the responses. Such requests carry the page's own name in `Host` and `Origin`; the MCP library
//! compares both with these lists.

use std::net::SocketAddr;

use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};

/// Names that are always accepted.
const LOOPBACK: &[&str] = &["localhost", "127.0.0.1", "::1"];

/// Returns the accepted `Host` values: loopback, the listen address, and the configured names.
#[must_use]
pub fn allowed_hosts(address: SocketAddr, configured: &[String]) -> Vec<String> {
    let mut hosts: Vec<String> = LOOPBACK.iter().map(|host| (*host).to_owned()).collect();
    let ip = address.ip();
    if !ip.is_unspecified() && !ip.to_canonical().is_loopback() {
        hosts.push(ip.to_string());
    }
    hosts.extend(configured.iter().cloned());
    hosts
}

/// Returns whether each checked header occurs at most once: with two, a proxy may have checked the
/// other one.
#[must_use]
pub fn has_single_headers(headers: &HeaderMap) -> bool {
    [HOST, ORIGIN].iter().all(|name| headers.get_all(name).iter().count() <= 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_address_is_allowed_host_unless_unspecified() {
        let of = |address: &str, configured: &[&str]| {
            let configured: Vec<String> = configured.iter().map(|host| (*host).to_owned()).collect();
            allowed_hosts(address.parse().unwrap(), &configured)[LOOPBACK.len()..].to_vec()
        };
        assert!(of("127.0.0.1:1", &[]).is_empty() && of("[::1]:1", &[]).is_empty());
        assert!(of("0.0.0.0:1", &[]).is_empty() && of("[::ffff:127.0.0.1]:1", &[]).is_empty());
        assert_eq!(of("10.1.2.3:1", &["a.example.com:8750"]), ["10.1.2.3", "a.example.com:8750"]);
        assert_eq!(of("[fd00::1]:1", &[]), ["fd00::1"]);
    }

    #[test]
    fn duplicate_header_is_ambiguous() {
        let headers = |values: &[&str]| values.iter().map(|value| (HOST, value.parse().unwrap())).collect();
        assert!(has_single_headers(&headers(&[])) && has_single_headers(&headers(&["a"])));
        assert!(!has_single_headers(&headers(&["localhost", "evil.example.com"])));
    }
}
