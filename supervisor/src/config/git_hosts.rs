//! Hosts that may receive the git token.

use orchestrator_contract::http_url;

/// Host that may always receive the token.
const GITHUB: &str = "github.com";

/// Returns whether a git host may receive the token.
///
/// Allowed are github.com, the host of the configured GitHub API, and the hosts in `named`.
///
/// A repository URL may come from a directory that another user wrote. As in git's own credential
/// helpers, it must not decide which host receives a token
/// (<https://git-scm.com/docs/gitcredentials#_credential_contexts>).
#[must_use]
pub fn token_allowed_for_host(host: &str, github_api_url: &str, named: &[String]) -> bool {
    let Some(host) = http_url::parse_host(host) else { return false };
    let is_named = |named: &String| http_url::parse_host(named).is_some_and(|named| named == host);
    host == GITHUB || api_host(github_api_url).is_some_and(|api| api == host) || named.iter().any(is_named)
}

/// Returns the git host of a GitHub API: `api.github.com` and `api.NAME.ghe.com` serve the host one level above.
fn api_host(url: &str) -> Option<String> {
    let url = url.trim();
    let host = match http_url::parse(url) {
        Some(url) => url.host_str()?.to_owned(),
        None => http_url::parse_host(url)?,
    };
    Some(host.strip_prefix("api.").map_or(host.clone(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_allowed_for_configured_hosts_only() {
        let public = "https://api.github.com";
        let named = ["git.example.com".to_owned(), "[::1]:80".to_owned(), "127.0.0.2:3000".to_owned()];
        for (host, api, named, allowed) in [
            ("github.com", public, &[][..], true),
            ("GitHub.com", public, &[], true),
            ("github.com:443", public, &[], true),
            ("github.com.evil.example", public, &[], false),
            ("evil-github.com", public, &[], false),
            ("gitlab.com", public, &[], false),
            ("ghe.example.com", "https://ghe.example.com/api/v3", &[], true),
            ("ghe.example.com", " https://GHE.example.com/api/v3\n", &[], true),
            ("ghe.example.com", "ghe.example.com", &[], true),
            ("acme.ghe.com", "https://api.acme.ghe.com", &[], true),
            ("127.0.0.1:8080", "http://127.0.0.1:9090", &[], true),
            ("git.example.com", public, &named, true),
            ("git.example.com:8443", public, &named, true),
            ("example.com", public, &named, false),
            ("[::1]:80", "http://[::1]:81", &[], true),
            ("[0:0::1]", public, &named, true),
            ("127.0.0.2", public, &named, true),
            ("github.com.", public, &[], false),
            ("me@github.com", public, &[], false),
            ("github.com@evil.example", public, &[], false),
            ("github.com\\", public, &[], false),
            ("github.com\\@evil.example", public, &[], false),
            ("git%68ub.com", public, &[], false),
            ("g\u{456}thub.com", public, &[], false),
            ("\u{ff47}ithub.com", public, &[], false),
            ("127.2", public, &named, false),
            ("github.com/", public, &[], false),
            ("", public, &[], false),
            ("", "", &[String::new()], false),
            ("evil.example", "https://api.github.com@evil.example", &[], false),
            ("evil.example", "https://evil.example\\@api.github.com", &[], false),
            ("https", public, &["https://git.example.com".to_owned()], false),
        ] {
            assert_eq!(token_allowed_for_host(host, api, named), allowed, "{host} with {api}");
        }
    }
}
