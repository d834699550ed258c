//! Addresses of repositories as people write them: also `owner/name`, and pages of a git host.

use orchestrator_contract::RepositoryUrl;
use orchestrator_contract::names::{InvalidName, ScpAddress, Transport};
use serde::{Deserialize, Deserializer};

/// Host of an address without one.
const DEFAULT_HOST: &str = "github.com";

/// Abbreviations of the default host.
const ABBREVIATIONS: [&str; 2] = ["gh:", "github:"];

/// Hosts whose pages are below `owner/name`.
const FORGES: [&str; 3] = ["github.com", "gitlab.com", "bitbucket.org"];

/// Hosts without nested groups: an address has an owner and a name.
const TWO_PARTS: [&str; 2] = ["github.com", "bitbucket.org"];

/// First part of a page's path below a repository, on every host.
const PAGES: [&str; 12] = [
    "blame",
    "blob",
    "commit",
    "commits",
    "compare",
    "issues",
    "merge_requests",
    "pull",
    "raw",
    "releases",
    "tags",
    "tree",
];

/// Further ones of the public hosts.
const FORGE_PAGES: [&str; 10] = [
    "actions",
    "branches",
    "discussions",
    "projects",
    "pull-requests",
    "pulls",
    "security",
    "settings",
    "src",
    "wiki",
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

/// Parses an address and returns that of the repository: without page, query and fragment.
///
/// # Errors
/// Returns an error if the text is no address, or leads to no repository.
pub fn parse(text: &str) -> Result<RepositoryUrl, InvalidAddress> {
    let url = RepositoryUrl::new(repository_of(text.trim()))?;
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

/// Returns whether a text without scheme names an owner and a repository, such as `myorg/trader`.
#[must_use]
pub fn is_owner_and_name(text: &str) -> bool {
    let text = without_suffixes(text);
    let parts: Vec<&str> = text.trim_end_matches('/').split('/').collect();
    let [owner, name, page @ ..] = parts.as_slice() else { return false };
    is_owner(owner) && is_name(name) && page.first().is_none_or(|page| is_page(page))
}

/// Deserializes an optional address in the configuration.
///
/// # Errors
/// Returns the errors of [`parse`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RepositoryUrl>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse(&text).map_err(serde::de::Error::custom)).transpose()
}

fn repository_of(text: &str) -> String {
    let text = text.strip_prefix("git+").unwrap_or(text);
    if let Some(path) = ABBREVIATIONS.iter().find_map(|head| text.strip_prefix(head)) {
        return repository_of(&format!("https://{DEFAULT_HOST}/{}", path.trim_start_matches('/')));
    }
    if is_owner_and_name(text) {
        return repository_of(&format!("https://{DEFAULT_HOST}/{text}"));
    }
    if starts_with_host(text) {
        return repository_of(&format!("https://{text}"));
    }
    if let Some((scheme @ ("https" | "http" | "ssh"), rest)) = text.split_once("://") {
        let rest = without_suffixes(rest);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let authority = if authority == "www.github.com" { DEFAULT_HOST } else { authority };
        let host = authority.rsplit('@').next().unwrap_or_default();
        return format!("{scheme}://{authority}/{}", repository_path(host, path));
    }
    let is_path = text.starts_with('/') || text.contains("://");
    match ScpAddress::parse(text).filter(|_| !is_path) {
        Some(ScpAddress { host, path, .. }) => {
            let head = &text[..text.len() - path.len()];
            format!("{head}{}", repository_path(host, without_suffixes(path)))
        }
        None => text.to_owned(),
    }
}

/// Returns the path of the repository that a path of a host is in.
fn repository_path(host: &str, path: &str) -> String {
    let path = path.trim_end_matches('/');
    let parts: Vec<&str> = path.split('/').collect();
    // GitLab separates the pages of a repository by a hyphen.
    let separator = parts.iter().position(|part| *part == "-").filter(|at| *at >= 2);
    let end = separator.or_else(|| {
        let page = parts.get(2)?;
        let is_page = if FORGES.contains(&host) {
            is_page(page)
        } else {
            // Another host may have such a directory: it is a page only if more follows.
            let is_source = *page == "src" && matches!(parts.get(3), Some(&"branch" | &"commit" | &"tag"));
            let is_repository = parts.last().is_some_and(|last| last.ends_with(".git"));
            parts.len() > 3 && !is_repository && (PAGES.contains(page) || is_source)
        };
        is_page.then_some(2)
    });
    end.map_or(path.to_owned(), |end| parts[..end].join("/"))
}

fn is_page(part: &str) -> bool {
    PAGES.contains(&part) || FORGE_PAGES.contains(&part)
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
            ("https://host/org/x/tree/main", "https://host/org/x"),
            ("https://host/org/x/pull/3", "https://host/org/x"),
            ("https://host/org/x/src/branch/main", "https://host/org/x"),
            ("https://gitlab.com/a/b/c/-/tree/main", "https://gitlab.com/a/b/c"),
            ("https://bitbucket.org/a/b/src/main/", "https://bitbucket.org/a/b"),
            ("git@github.com:myorg/trader.git", "git@github.com:myorg/trader.git"),
            ("git@github.com:myorg/trader/tree/main", "git@github.com:myorg/trader"),
            ("ssh://git@github.com/myorg/trader/", "ssh://git@github.com/myorg/trader"),
            // Not pages: other hosts may have such directories.
            ("https://host/git/team/src/x", "https://host/git/team/src/x"),
            ("https://host/git/team/tree/x.git", "https://host/git/team/tree/x.git"),
            ("https://host/x", "https://host/x"),
            ("http://127.0.0.1:8080/acme/trader", "http://127.0.0.1:8080/acme/trader"),
            ("git@host:~/x", "git@host:~/x"),
            ("/srv/git/a#b", "/srv/git/a#b"),
            ("/srv/git/tree/x/", "/srv/git/tree/x/"),
        ] {
            assert_eq!(parse(text).map(String::from), Ok(expected.to_owned()), "{text}");
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
            "https://gitlab.com/myorg/",
            "https://host/",
            "git@github.com:trader",
            "ftp://host/org/x",
            "https://user:hunter2@github.com/myorg/trader",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = parse("https://github.com/myorg").unwrap_err().to_string();
        insta::assert_snapshot!(error, @"`https://github.com/myorg` is not the address of a repository: expected an owner and a name after the host");
    }
}
