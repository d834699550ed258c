//! How `dispatcher serve` is reached.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// How `dispatcher serve` is reached.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServeSettings {
    /// Where it listens, as `IP:PORT`: 127.0.0.1:8750 if not given. Any address but loopback needs a token.
    #[serde(deserialize_with = "address")]
    #[schemars(with = "Option<String>")]
    pub address: Option<SocketAddr>,
    /// Where it tells Prometheus what is counted, as `IP:PORT`: nowhere if not given. Whoever reaches it may
    /// read it.
    #[serde(deserialize_with = "address")]
    #[schemars(with = "Option<String>")]
    pub metrics_address: Option<SocketAddr>,
    /// The file that holds the token that callers must show, one on each line; read at every call.
    pub token_file: Option<PathBuf>,
    /// The names, with or without a port, by which callers may call it; loopback names always work.
    pub allowed_hosts: Vec<String>,
    /// The web pages that may call it, as `https://name:port`; none if not given.
    pub allowed_origins: Vec<String>,
}

/// Reads an address as `IP:PORT`, or `localhost:PORT`.
///
/// # Errors
/// Says what it should look like. Names are not resolved: what they mean may
/// change, and whether a token is needed depends on it.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let literal = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    literal.as_deref().unwrap_or(text).parse().map_err(|_| {
        format!(
            "`{text}` is no address: give IP and port, such as 127.0.0.1:8750, [::1]:8750 or 0.0.0.0:8750"
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
