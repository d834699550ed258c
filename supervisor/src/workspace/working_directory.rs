//! Decides the directory that the agent works in (pure).

use orchestrator_contract::{RepositoryUrl, ServiceName, WorkingDirectory};

/// Kind of a path at the start commit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PathKind {
    Directory,
    /// File, symbolic link or submodule.
    File,
    Missing,
}

/// A component of the working directory is not a directory.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("cannot use working directory `{path}`: `{part}` is not a directory but a file or link")]
pub struct NotADirectory {
    /// Working directory.
    pub path: String,
    /// Path of the component.
    pub part: String,
}

/// Returns the working directory, relative to the root of the repository; empty is the root.
///
/// In order: the requested directory; the existing directory `{service}`; the root, if the
/// repository is named like the service; a new directory `{service}`.
///
/// # Errors
/// Returns an error if a component is a file or a link, which could lead out of the repository.
pub fn decide_working_directory(
    requested: Option<&WorkingDirectory>,
    service: &ServiceName,
    url: &RepositoryUrl,
    kind_of: impl Fn(&str) -> PathKind,
) -> Result<String, NotADirectory> {
    let is_own_repository = url.name() == service.as_str() || url.name().ends_with(&format!("-{service}"));
    let path = match requested {
        Some(requested) => requested.relative().to_owned(),
        None if kind_of(service.as_str()) == PathKind::Directory => service.to_string(),
        None if is_own_repository => String::new(),
        None => service.to_string(),
    };
    let mut part = String::new();
    for component in path.split('/').filter(|component| !component.is_empty()) {
        if !part.is_empty() {
            part.push('/');
        }
        part.push_str(component);
        match kind_of(&part) {
            PathKind::Directory => {}
            PathKind::Missing => break,
            PathKind::File => return Err(NotADirectory { path, part }),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(requested: Option<&str>, repository: &str, folders: &[&str]) -> Result<String, NotADirectory> {
        let requested = requested.map(|path| WorkingDirectory::new(path).unwrap());
        let url = RepositoryUrl::new(format!("https://github.com/myorg/{repository}")).unwrap();
        let kind_of = |path: &str| {
            if folders.contains(&path) {
                PathKind::Directory
            } else if path == "link" {
                PathKind::File
            } else {
                PathKind::Missing
            }
        };
        decide_working_directory(requested.as_ref(), &ServiceName::new("auth").unwrap(), &url, kind_of)
    }

    #[test]
    fn working_directory_rules_apply_in_order() {
        assert_eq!(decide(Some("backend/api"), "auth", &["auth"]).unwrap(), "backend/api");
        assert_eq!(decide(None, "mono", &["auth"]).unwrap(), "auth");
        assert_eq!(decide(None, "platform-auth", &["auth"]).unwrap(), "auth");
        assert_eq!(decide(None, "platform-auth", &[]).unwrap(), "");
        assert_eq!(decide(None, "auth", &[]).unwrap(), "");
        assert_eq!(decide(None, "oauth", &[]).unwrap(), "auth");
        assert_eq!(decide(Some("."), "mono", &[]).unwrap(), "");
    }

    #[test]
    fn working_directory_through_symlink_is_rejected() {
        let error = decide(Some("link/inside"), "mono", &[]).unwrap_err();
        assert_eq!(error.part, "link");
    }
}
