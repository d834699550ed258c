//! Settings of `dispatcher serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// Settings of `dispatcher serve`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServeSettings {
    /// Address to listen on, as `IP:PORT` (default: 127.0.0.1:8750). Other than loopback requires a configured token.
    #[serde(deserialize_with = "address")]
    #[schemars(with = "Option<String>")]
    pub address: Option<SocketAddr>,
    /// Address to serve Prometheus metrics on, as `IP:PORT`, without authentication (default: disabled).
    #[serde(deserialize_with = "address")]
    #[schemars(with = "Option<String>")]
    pub metrics_address: Option<SocketAddr>,
    /// File with the accepted bearer tokens, one per line; read on every request (default:
    /// `~/.config/orchestrator/serve-token`, which the server creates).
    pub token_file: Option<PathBuf>,
    /// Accepted `Host` names, with or without a port; loopback names are always accepted.
    pub allowed_hosts: Vec<String>,
    /// Web origins that may call the server, as `https://name:port` (default: none).
    pub allowed_origins: Vec<String>,
}

/// Parses an address as `IP:PORT`, or `localhost:PORT`.
///
/// Other names are not resolved: whether a token is required depends on the address.
///
/// # Errors
/// Returns a message with valid examples.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let literal = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    literal.as_deref().unwrap_or(text).parse().map_err(|_| {
        format!(
            "invalid address `{text}`: use IP and port, such as 127.0.0.1:8750, [::1]:8750 or 0.0.0.0:8750"
        )
    })
}

fn address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_address(&text).map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serve_address_requires_ip_with_port() {
        for (text, expected) in [
            ("127.0.0.1:8750", Some("127.0.0.1:8750")),
            ("localhost:0", Some("127.0.0.1:0")),
            ("[::1]:80", Some("[::1]:80")),
            ("0.0.0.0:8750", Some("0.0.0.0:8750")),
            ("::1:80:x", None),
            ("127.0.0.1", None),
            (":8750", None),
            ("example.com:8750", None),
            ("", None),
        ] {
            assert_eq!(
                parse_address(text).ok().map(|address| address.to_string()).as_deref(),
                expected,
                "{text}"
            );
        }
    }
}
