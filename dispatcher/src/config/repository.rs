//! Repository addresses as the user writes them.

use std::path::Path;

use orchestrator_contract::RepositoryUrl;

use crate::error::Error;

/// Parses a repository address: a URL, `git@host:path`, `file://`, or an absolute or relative path.
///
/// # Errors
/// Returns an error if the address is invalid.
pub fn parse_repository(text: &str, relative_to: &Path) -> Result<RepositoryUrl, Error> {
    let local = text.strip_prefix("file://").unwrap_or(text);
    let relative = local == "." || local == ".." || local.starts_with("./") || local.starts_with("../");
    let path = if relative {
        let path = relative_to.join(local);
        path.canonicalize().unwrap_or(path).to_string_lossy().into_owned()
    } else {
        local.to_owned()
    };
    RepositoryUrl::new(path).map_err(|error| Error::invalid_request(error.to_string()))
}
