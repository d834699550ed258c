//! Addresses of repositories as people write them: also `owner/name`, and pages of a git host.

use orchestrator_contract::names::{InvalidName, Transport};
use orchestrator_contract::{RepositoryUrl, http_url};
use serde::{Deserialize, Deserializer};

/// The public GitHub: the server of an address without one, unless another API is configured.
pub const GITHUB: &str = "https://github.com";

/// Abbreviations of GitHub.
const ABBREVIATIONS: [&str; 2] = ["gh:", "github:"];

/// Hosts whose repositories are below `owner/name`.
const FORGES: [&str; 3] = [GITHUB_HOST, "gitlab.com", "bitbucket.org"];

/// Hosts without nested groups: an address has an owner and a name.
const TWO_PARTS: [&str; 2] = [GITHUB_HOST, "bitbucket.org"];

const GITHUB_HOST: &str = "github.com";

/// First part of a page's path below a repository on GitHub. Elsewhere a repository may have such a path.
const PAGES: [&str; 18] = [
    "actions",
    "blame",
    "blob",
    "branches",
    "commit",
    "commits",
    "compare",
    "discussions",
    "issues",
    "projects",
    "pull",
    "pulls",
    "raw",
    "releases",
    "security",
    "settings",
    "tags",
    "tree",
];

/// Why an address is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidAddress {
    /// The address cannot be parsed.
    #[error(transparent)]
    Malformed(#[from] InvalidName),
    /// The address leads to a host, an owner or a page, but to no repository.
    #[error("`{0}` is not the address of a repository: expected an owner and a name after the host")]
    NoRepository(RepositoryUrl),
}

/// Parses an address and returns that of the repository: without page and fragment.
///
/// `github` is the server of an address without one.
///
/// # Errors
/// Returns an error if the text is no address, or leads to no repository.
pub fn parse(text: &str, github: &str) -> Result<RepositoryUrl, InvalidAddress> {
    let text = text.trim();
    let url = RepositoryUrl::new(repository_of(&complete(text, github).unwrap_or_else(|| text.to_owned())))?;
    let parts = url.path().split('/').filter(|part| !part.is_empty()).count();
    let host = url.host().unwrap_or_default();
    let is_repository = match url.transport() {
        Transport::Local => true,
        Transport::Http | Transport::Ssh if TWO_PARTS.contains(&host.as_str()) => parts == 2,
        Transport::Http | Transport::Ssh if FORGES.contains(&host.as_str()) => parts >= 2,
        Transport::Http | Transport::Ssh => parts >= 1,
    };
    if is_repository { Ok(url) } else { Err(InvalidAddress::NoRepository(url)) }
}

/// Returns the server of the repositories of a GitHub API: `api.github.com` serves `github.com`, and a GitHub
/// Enterprise Server serves both.
#[must_use]
pub fn server_of(api_url: Option<&str>) -> String {
    let Some(url) = api_url.and_then(http_url::parse) else { return GITHUB.to_owned() };
    let Some(host) = url.host_str() else { return GITHUB.to_owned() };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), host.strip_prefix("api.").unwrap_or(host))
}

/// Completes `owner/name`, `gh:owner/name` and `github:owner/name` with the server; `None` for other texts.
#[must_use]
pub fn complete(text: &str, github: &str) -> Option<String> {
    let text = text.trim();
    let text = text.strip_prefix("git+").unwrap_or(text);
    let abbreviated = ABBREVIATIONS.iter().find_map(|head| text.strip_prefix(head));
    let path = match abbreviated {
        Some(path) => path.trim_start_matches('/'),
        None if is_owner_and_name(text) => text,
        None => return None,
    };
    Some(format!("{github}/{}", without_page(without_suffixes(path))))
}

/// Returns whether a text without scheme names an owner and a repository, such as `myorg/trader`.
#[must_use]
pub fn is_owner_and_name(text: &str) -> bool {
    let text = without_suffixes(text);
    let parts: Vec<&str> = text.trim_end_matches('/').split('/').collect();
    let [owner, name, page @ ..] = parts.as_slice() else { return false };
    is_owner(owner) && is_name(name) && page.first().is_none_or(|page| PAGES.contains(page))
}

/// Deserializes an optional address in the configuration, whose addresses have a server by then.
///
/// # Errors
/// Returns the errors of [`parse`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RepositoryUrl>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse(&text, GITHUB).map_err(serde::de::Error::custom)).transpose()
}

/// Returns the address of the repository that an HTTP address leads into; other addresses as they are.
fn repository_of(text: &str) -> String {
    let text = text.strip_prefix("git+").unwrap_or(text);
    if starts_with_host(text) {
        return repository_of(&format!("https://{text}"));
    }
    let Some((scheme @ ("https" | "http"), rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let authority = if authority == "www.github.com" { GITHUB_HOST } else { authority };
    let is_forge = FORGES.contains(&authority);
    let path = if is_forge { without_suffixes(path) } else { path }.trim_end_matches('/');
    let path = if authority == GITHUB_HOST { without_page(path) } else { without_separator(path) };
    format!("{scheme}://{authority}/{path}")
}

/// Returns the path of the repository that a path on GitHub is in.
fn without_page(path: &str) -> String {
    let path = path.trim_end_matches('/');
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [owner, name, page, ..] if PAGES.contains(page) && !path.ends_with(".git") => {
            format!("{owner}/{name}")
        }
        [..] => path.to_owned(),
    }
}

/// Returns a path up to `/-/`, with which GitLab starts the pages of a repository.
fn without_separator(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').collect();
    let separator = parts.iter().position(|part| *part == "-").filter(|at| *at >= 2);
    let end = separator.filter(|_| !path.ends_with(".git"));
    end.and_then(|end| parts.get(..end)).map_or_else(|| path.to_owned(), |parts| parts.join("/"))
}

/// Returns a text without query and fragment.
fn without_suffixes(text: &str) -> &str {
    text.split(['?', '#']).next().unwrap_or_default()
}

fn is_owner(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(inner)
}

fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && !text.starts_with("..") && text.chars().all(inner)
}

/// Returns whether a text is an https address without its scheme.
fn starts_with_host(text: &str) -> bool {
    let mut parts = without_suffixes(text).split('/');
    let Some(host) = parts.next() else { return false };
    let is_host = host.contains('.') && !host.starts_with('.') && is_name(host);
    is_host && (parts.filter(|part| !part.is_empty()).count() >= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_reduced_to_repository() {
        for (text, expected) in [
            ("myorg/trader", "https://github.com/myorg/trader"),
            ("myorg/trader.git", "https://github.com/myorg/trader.git"),
            ("myorg/trader/", "https://github.com/myorg/trader"),
            ("myorg/trader#readme", "https://github.com/myorg/trader"),
            ("myorg/trader/tree/main", "https://github.com/myorg/trader"),
            ("gh:myorg/trader", "https://github.com/myorg/trader"),
            ("github:myorg/trader?ref=main", "https://github.com/myorg/trader"),
            ("github.com/myorg/trader", "https://github.com/myorg/trader"),
            ("git.example.com/myorg/trader", "https://git.example.com/myorg/trader"),
            ("https://www.github.com/myorg/trader", "https://github.com/myorg/trader"),
            ("git+https://github.com/myorg/trader", "https://github.com/myorg/trader"),
            (" https://github.com/myorg/trader ", "https://github.com/myorg/trader"),
            ("https://github.com/myorg/trader/", "https://github.com/myorg/trader"),
            ("https://github.com/myorg/trader.git/", "https://github.com/myorg/trader.git"),
            ("https://github.com/myorg/trader/tree/main", "https://github.com/myorg/trader"),
            ("https://github.com/myorg/trader/tree/main/src", "https://github.com/myorg/trader"),
            ("https://github.com/myorg/trader/pull/3", "https://github.com/myorg/trader"),
            ("https://github.com/myorg/trader/pulls", "https://github.com/myorg/trader"),
            ("https://github.com/myorg/trader/blob/main/README.md#x", "https://github.com/myorg/trader"),
            ("https://github.com/myorg/trader?tab=readme", "https://github.com/myorg/trader"),
            ("https://github.com/myorg/trader#readme", "https://github.com/myorg/trader"),
            ("https://host/org/x/-/tree/main", "https://host/org/x"),
            ("https://gitlab.com/a/b/c/-/tree/main", "https://gitlab.com/a/b/c"),
            ("git@github.com:myorg/trader.git", "git@github.com:myorg/trader.git"),
            ("ssh://git@github.com/myorg/trader/", "ssh://git@github.com/myorg/trader/"),
            // Not pages: other hosts may have such directories.
            ("https://gitlab.com/group/sub/tree/x", "https://gitlab.com/group/sub/tree/x"),
            ("https://gitlab.com/group/wiki/issues", "https://gitlab.com/group/wiki/issues"),
            ("https://host/org/x/tree/main", "https://host/org/x/tree/main"),
            ("https://host/git/x/-/y.git", "https://host/git/x/-/y.git"),
            ("https://host/git.cgi?repository=x", "https://host/git.cgi?repository=x"),
            ("git@host:group/sub/tree/x", "git@host:group/sub/tree/x"),
            ("git@gitlab.com:a/b/-/c", "git@gitlab.com:a/b/-/c"),
            ("ssh://git@host/group/sub/tree/x/y", "ssh://git@host/group/sub/tree/x/y"),
            ("https://host/git/team/src/x", "https://host/git/team/src/x"),
            ("https://host/git/team/tree/x.git", "https://host/git/team/tree/x.git"),
            ("https://host/x", "https://host/x"),
            ("http://127.0.0.1:8080/acme/trader", "http://127.0.0.1:8080/acme/trader"),
            ("git@host:~/x", "git@host:~/x"),
            ("/srv/git/a#b", "/srv/git/a#b"),
            ("/srv/git/tree/x/", "/srv/git/tree/x/"),
        ] {
            assert_eq!(parse(text, GITHUB).map(String::from), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn address_without_repository_is_refused() {
        for text in [
            "",
            "trader",
            "my org/trader",
            "./trader",
            "a/b/c",
            "-x/y",
            "https://github.com",
            "https://github.com/myorg",
            "https://github.com/myorg/trader/nothing/known",
            "https://github.com/myorg/trader/tree/x.git",
            "git@github.com:myorg/trader/tree/main",
            "https://bitbucket.org/a/b/src/main/",
            "https://gitlab.com/myorg/",
            "https://host/",
            "git@github.com:trader",
            "ftp://host/org/x",
            "https://user:hunter2@github.com/myorg/trader",
        ] {
            let error = parse(text, GITHUB).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = parse("https://github.com/myorg", GITHUB).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"`https://github.com/myorg` is not the address of a repository: expected an owner and a name after the host");
    }

    #[test]
    fn address_without_server_is_on_configured_github() {
        for (api, server) in [
            (None, "https://github.com"),
            (Some("https://api.github.com"), "https://github.com"),
            (Some("https://api.acme.ghe.com"), "https://acme.ghe.com"),
            (Some("https://ghe.example.com/api/v3"), "https://ghe.example.com"),
            (Some("https://ghe.example.com:8443/api/v3"), "https://ghe.example.com:8443"),
        ] {
            assert_eq!(server_of(api), server);
        }
        for text in ["o/x", "gh:o/x", "github:o/x", "o/x/tree/main", "o/x#readme", "gh:o/x?a=b"] {
            let url = parse(text, "https://ghe.example.com").map(String::from);
            assert_eq!(url, Ok("https://ghe.example.com/o/x".to_owned()), "{text}");
        }
        let named = parse("github.com/o/x", "https://ghe.example.com").map(String::from);
        assert_eq!(named, Ok("https://github.com/o/x".to_owned()));
    }
}
