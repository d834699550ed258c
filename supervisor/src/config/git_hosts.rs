//! Decides which git hosts may receive a token.

/// The host that tokens are for by default.
const GITHUB: &str = "github.com";

/// Returns whether a git host may receive the token.
///
/// Allowed are github.com, the host of the configured GitHub API, and the `allowed` hosts of the
/// operator. A repository URL can come from an untrusted directory, so it must not decide which
/// host receives a token; git's credential helpers have the same rule
/// (<https://git-scm.com/docs/gitcredentials#_credential_contexts>).
#[must_use]
pub fn token_allowed_for_host(host: &str, github_api_url: &str, allowed: &[String]) -> bool {
    let without_port = |host: &str| match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            name.to_ascii_lowercase()
        }
        _ => host.to_ascii_lowercase(),
    };
    let host = without_port(host);
    let api = github_api_url.split_once("://").map_or(github_api_url, |(_, rest)| rest);
    let api = without_port(api.split(['/', '?', '#']).next().unwrap_or_default());
    // The API of a host can be on its subdomain: api.github.com, api.{name}.ghe.com.
    let api = api.strip_prefix("api.").unwrap_or(&api);
    host == GITHUB || host == api || allowed.iter().any(|allowed| without_port(allowed.trim()) == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_allowed_for_configured_hosts_only() {
        let public = "https://api.github.com";
        let allowed = ["git.example.com".to_owned()];
        for (host, api, allowed, expected) in [
            ("github.com", public, &[][..], true),
            ("GitHub.com", public, &[], true),
            ("github.com:443", public, &[], true),
            ("github.com.evil.example", public, &[], false),
            ("evil-github.com", public, &[], false),
            ("gitlab.com", public, &[], false),
            ("ghe.example.com", "https://ghe.example.com/api/v3", &[], true),
            ("acme.ghe.com", "https://api.acme.ghe.com", &[], true),
            ("127.0.0.1:8080", "http://127.0.0.1:9090", &[], true),
            ("git.example.com", public, &allowed, true),
            ("git.example.com:8443", public, &allowed, true),
            ("example.com", public, &allowed, false),
            ("[::1]:80", "http://[::1]:81", &[], true),
        ] {
            assert_eq!(token_allowed_for_host(host, api, allowed), expected, "{host} with {api}");
        }
    }
}
