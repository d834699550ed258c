//! Where in the repository the agent works. Pure over a look at the tree.

use orchestrator_contract::{RepositoryUrl, ServiceName, WorkingDirectory};

/// What a path is in the commit that the agent starts from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PathKind {
    /// A folder.
    Directory,
    /// A file, a symlink or a submodule.
    File,
    /// Nothing.
    Missing,
}

/// The asked-for folder cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "the working directory `{path}` cannot be used: `{part}` is no folder of the repository but a file or a link"
)]
pub struct NotADirectory {
    /// What was asked for.
    pub path: String,
    /// The part that is in the way.
    pub part: String,
}

/// Decides the folder, relative to the root; empty is the root.
///
/// As asked for; else the service's name if there is such a folder; else the
/// root if the repository is the service's own; else a new folder `{service}`.
///
/// # Errors
/// A part of the path is a file or a symlink, which could lead out of the repository.
pub fn decide_working_directory(
    asked: Option<&WorkingDirectory>,
    service: &ServiceName,
    url: &RepositoryUrl,
    look: impl Fn(&str) -> PathKind,
) -> Result<String, NotADirectory> {
    let own = url.name() == service.as_str() || url.name().ends_with(&format!("-{service}"));
    let path = match asked {
        Some(asked) => asked.relative().to_owned(),
        None if look(service.as_str()) == PathKind::Directory => service.to_string(),
        None if own => String::new(),
        None => service.to_string(),
    };
    let mut part = String::new();
    for component in path.split('/').filter(|component| !component.is_empty()) {
        if !part.is_empty() {
            part.push('/');
        }
        part.push_str(component);
        match look(&part) {
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

    fn decide(asked: Option<&str>, repository: &str, folders: &[&str]) -> Result<String, NotADirectory> {
        let asked = asked.map(|asked| WorkingDirectory::new(asked).unwrap());
        let url = RepositoryUrl::new(format!("https://github.com/myorg/{repository}")).unwrap();
        let look = |path: &str| {
            if folders.contains(&path) {
                PathKind::Directory
            } else if path == "link" {
                PathKind::File
            } else {
                PathKind::Missing
            }
        };
        decide_working_directory(asked.as_ref(), &ServiceName::new("auth").unwrap(), &url, look)
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
