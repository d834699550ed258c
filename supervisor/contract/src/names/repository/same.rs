//! Whether two URLs are spellings of one repository.

use url::Url;

use super::{RepositoryUrl, ScpAddress, Transport};

/// Login name that git hosts use for all accounts.
const SHARED_USER: &str = "git";

/// What is equal in all spellings of a repository's URL.
#[derive(Debug, Eq, PartialEq)]
struct Location<'a> {
    /// Lower-case host; `None` for a local path.
    host: Option<String>,
    /// Port, unless it is the default of the scheme.
    port: Option<u16>,
    /// Login name, if the path may be relative to its home directory.
    user: Option<String>,
    path: &'a str,
}

impl RepositoryUrl {
    /// Returns whether `other` is another spelling of this repository's URL.
    ///
    /// Spellings differ in `.git`, a slash at the end, the case of the host, the default port, or the
    /// scheme of the same host: `https`, `ssh` or `user@host:path`. Paths keep their case, because
    /// hosts may distinguish it. Local paths differ in a slash at the end only.
    #[must_use]
    pub fn is_same_repository(&self, other: &Self) -> bool {
        match (self.location(), other.location()) {
            (Some(one), Some(two)) => one == two,
            (_, _) => self == other,
        }
    }

    fn location(&self) -> Option<Location<'_>> {
        if self.transport() == Transport::Local {
            let path = self.as_str().trim_end_matches('/');
            return Some(Location { host: None, port: None, user: None, path });
        }
        if let Some(address) = self.scp_address() {
            let user = address.user.filter(|user| *user != SHARED_USER).map(str::to_owned);
            let host = Some(address.host.to_ascii_lowercase());
            return Some(Location { host, port: None, user, path: self.path() });
        }
        let url = Url::parse(self.as_str()).ok()?;
        let default_port = match url.scheme() {
            "https" => 443,
            "http" => 80,
            "ssh" => 22,
            _ => return None,
        };
        let user = Some(url.username()).filter(|user| !user.is_empty() && *user != SHARED_USER);
        Some(Location {
            host: url.host_str().map(str::to_ascii_lowercase),
            port: url.port().filter(|port| *port != default_port),
            user: user.map(str::to_owned),
            path: self.path(),
        })
    }

    fn scp_address(&self) -> Option<ScpAddress<'_>> {
        let text = self.as_str();
        if text.contains("://") { None } else { ScpAddress::parse(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_same(one: &str, two: &str) -> bool {
        let [one, two] = [one, two].map(|text| RepositoryUrl::new(text).unwrap());
        assert_eq!(one.is_same_repository(&two), two.is_same_repository(&one), "{one} {two}");
        one.is_same_repository(&two)
    }

    #[test]
    fn spellings_of_one_repository_are_same() {
        for other in [
            "https://github.com/acme/trader.git",
            "https://github.com/acme/trader/",
            "https://github.com/acme/trader.git/",
            "https://GitHub.com/acme/trader",
            "https://github.com:443/acme/trader",
            "ssh://git@github.com/acme/trader.git",
            "ssh://git@github.com:22/acme/trader",
            "ssh://github.com/acme/trader",
            "git@github.com:acme/trader.git",
            "git@GITHUB.com:/acme/trader",
        ] {
            assert!(is_same("https://github.com/acme/trader", other), "{other}");
        }
        assert!(is_same("/srv/git/trader", "/srv/git/trader/"));
        assert!(is_same("http://127.0.0.1:8080/acme/trader", "http://127.0.0.1:8080/acme/trader.git"));
    }

    #[test]
    fn other_repositories_are_not_same() {
        for other in [
            "https://github.com/acme/trader2",
            "https://github.com/acme/Trader",
            "https://github.com:8443/acme/trader",
            "https://github.example/acme/trader",
            "https://github.com/trader",
            "ssh://alice@github.com/acme/trader",
            "alice@github.com:acme/trader",
            "ssh://git@github.com:2222/acme/trader",
            "/acme/trader",
        ] {
            assert!(!is_same("https://github.com/acme/trader", other), "{other}");
        }
        // Both may exist side by side.
        assert!(!is_same("/srv/git/trader", "/srv/git/trader.git"));
        assert!(!is_same("http://127.0.0.1:8080/acme/trader", "http://127.0.0.1:8081/acme/trader"));
    }
}
