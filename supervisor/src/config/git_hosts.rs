//! Which git hosts a token is for.

/// The host whose tokens are meant if nothing else is said.
const GITHUB: &str = "github.com";

/// Whether a git host may see the token: it is github.com, or the host of the GitHub API that the
/// operator named, or the operator named it itself.
///
/// The address of a repository may come from a folder that somebody else made. As with git's own
/// credential helpers, it must not decide who gets to see a token
/// (<https://git-scm.com/docs/gitcredentials#_credential_contexts>).
#[must_use]
pub fn token_allowed_for_host(host: &str, github_api_url: &str, named: &[String]) -> bool {
    let without_port = |host: &str| match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            name.to_ascii_lowercase()
        }
        _ => host.to_ascii_lowercase(),
    };
    let host = without_port(host);
    let api = github_api_url.split_once("://").map_or(github_api_url, |(_, rest)| rest);
    let api = without_port(api.split(['/', '?', '#']).next().unwrap_or_default());
    // api.github.com and api.{name}.ghe.com serve what lies one level above.
    let api = api.strip_prefix("api.").unwrap_or(&api);
    host == GITHUB || host == api || named.iter().any(|named| without_port(named.trim()) == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_allowed_for_configured_hosts_only() {
        let public = "https://api.github.com";
        let named = ["git.example.com".to_owned()];
        for (host, api, named, shown) in [
            ("github.com", public, &[][..], true),
            ("GitHub.com", public, &[], true),
            ("github.com:443", public, &[], true),
            ("github.com.evil.example", public, &[], false),
            ("evil-github.com", public, &[], false),
            ("gitlab.com", public, &[], false),
            ("ghe.example.com", "https://ghe.example.com/api/v3", &[], true),
            ("acme.ghe.com", "https://api.acme.ghe.com", &[], true),
            ("127.0.0.1:8080", "http://127.0.0.1:9090", &[], true),
            ("git.example.com", public, &named, true),
            ("git.example.com:8443", public, &named, true),
            ("example.com", public, &named, false),
            ("[::1]:80", "http://[::1]:81", &[], true),
        ] {
            assert_eq!(token_allowed_for_host(host, api, named), shown, "{host} with {api}");
        }
    }
}
