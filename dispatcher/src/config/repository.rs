//! Repository addresses as the user writes them.

use std::path::Path;

use orchestrator_contract::RepositoryUrl;

use crate::error::Error;
use crate::task::address;

/// Parses a repository address: a URL or page of a git host, `git@host:path`, `owner/name` on GitHub, `file://`,
/// or an absolute or relative path. `github` is the server of `owner/name`. A directory wins over a repository of the same name on GitHub.
///
/// # Errors
/// Returns an error if the address is invalid, or leads to no repository.
pub(super) fn parse_repository(text: &str, relative_to: &Path, github: &str) -> Result<RepositoryUrl, Error> {
    let local = text.strip_prefix("file://").unwrap_or(text);
    let relative = local == "." || local == ".." || local.starts_with("./") || local.starts_with("../");
    let directory = address::is_owner_and_name(local) && relative_to.join(local).is_dir();
    let address = if relative || directory {
        let path = relative_to.join(local);
        path.canonicalize().unwrap_or(path).to_string_lossy().into_owned()
    } else {
        local.to_owned()
    };
    address::parse(&address, github).map_err(|error| {
        Error::invalid_request(error.to_string()).with_hint(
            "Use an address such as https://github.com/myorg/trader, git@github.com:myorg/trader.git or \
             myorg/trader.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn existing_directory_wins_over_name_on_github() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("acme/trader")).unwrap();
        let parse = |text: &str| {
            parse_repository(text, &root, address::GITHUB).map(String::from).map_err(|e| e.to_string())
        };
        let path = |name: &str| Ok(root.join(name).to_str().unwrap().to_owned());
        assert_eq!(parse("acme/trader"), path("acme/trader"));
        assert_eq!(parse("./acme/trader"), path("acme/trader"));
        assert_eq!(parse("acme/auth"), Ok("https://github.com/acme/auth".to_owned()));
        assert_eq!(parse("file:///srv/git/x"), Ok("/srv/git/x".to_owned()));
        assert!(parse("acme").is_err());
    }
}
