//! HTTP URLs that decide which host receives a credential.

use url::{Host, Url};

/// Parses an `http://` or `https://` URL without credentials.
///
/// Returns `None` unless RFC 3986 and the WHATWG URL Standard agree on the host, since other programs
/// that read the same text may follow either. This excludes backslashes, and hosts that are
/// percent-encoded, internationalized or not a dotted IPv4 address (`127.1`).
#[must_use]
pub fn parse(text: &str) -> Option<Url> {
    if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return None;
    }
    let (scheme, _) = text.split_once("://")?;
    let url = Url::parse(text).ok()?;
    let is_http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    (is_http && is_spelled(authority(text)?, &url)).then_some(url)
}

/// Parses a URL that may receive a credential: `https://`, or `http://` to this machine.
///
/// Returns `None` where [`parse`] does, and for `http://` to any other host: the credential would be
/// readable on the network.
#[must_use]
pub fn parse_secure(text: &str) -> Option<Url> {
    parse(text).filter(is_secure)
}

/// Returns whether requests to `url` cannot be read on the network: over `https`, or within this machine.
#[must_use]
pub fn is_secure(url: &Url) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => is_loopback(url),
        _ => false,
    }
}

/// Returns whether the host of `url` is this machine: 127.0.0.0/8, `::1` or `localhost`
/// (RFC 6761, section 6.3).
///
/// Neither a name below `localhost`, nor one with a trailing dot, nor an IPv4 address in an IPv6
/// address: resolvers and proxies treat them differently.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Parses `name`, `name:port`, `[address]` or `[address]:port`, and returns the host in lower case.
#[must_use]
pub fn parse_host(text: &str) -> Option<String> {
    let text = text.trim();
    let url = parse(&format!("http://{text}"))?;
    let is_host_only = !text.contains(['/', '?', '#']);
    url.host_str().filter(|_| is_host_only).map(str::to_owned)
}

/// Splits the user information off a URL: `https://user:secret@host/path` is `user:secret` and
/// `https://host/path`.
///
/// Returns `None` if the URL has none.
#[must_use]
pub fn split_user_info(text: &str) -> Option<(&str, String)> {
    let (user_info, _) = authority(text)?.rsplit_once('@')?;
    let (scheme, rest) = text.split_once("://")?;
    Some((user_info, format!("{scheme}://{}", rest.get(user_info.len() + 1..)?)))
}

/// Returns the authority component (RFC 3986, section 3.2).
pub(crate) fn authority(text: &str) -> Option<&str> {
    text.split_once("://")?.1.split(['/', '?', '#']).next()
}

/// Returns whether an authority is the host of `url`, as the URL Standard writes it, and a port.
///
/// IPv6 addresses may be spelled in any way: brackets leave no doubt.
pub(crate) fn is_spelled(authority: &str, url: &Url) -> bool {
    let end = authority.rfind(']').map(|end| end + 1).or_else(|| authority.find(':'));
    let (host, port) = authority.split_at(end.unwrap_or(authority.len()));
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let is_host = match url.host() {
        Some(Host::Ipv6(_)) => host.starts_with('['),
        Some(Host::Domain(_) | Host::Ipv4(_)) => {
            url.host_str().is_some_and(|its| its.eq_ignore_ascii_case(host))
        }
        None => false,
    };
    is_host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

#[cfg(test)]
mod tests;
