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

/// Directory that the agent works in, and why this one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct WorkPlace {
    /// Path relative to the root of the repository; empty is the root.
    pub path: String,
    pub choice: Choice,
}

/// Why a directory was chosen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Choice {
    /// The request or the configuration names it.
    Requested,
    /// It has the name of the service.
    Service,
    /// The repository is named like the service and has no directory of that name.
    OwnRepository,
    /// The repository has no directory with the name of the service.
    #[default]
    NoDirectory,
}

impl WorkPlace {
    /// Returns the path for people: `.` is the root of the repository.
    #[must_use]
    pub fn shown(&self) -> &str {
        if self.path.is_empty() { "." } else { &self.path }
    }

    /// Describes the place: "at the root of acme/trader".
    #[must_use]
    pub fn describe(&self, url: &RepositoryUrl) -> String {
        let repository = url.path();
        if self.path.is_empty() {
            format!("at the root of {repository}")
        } else {
            format!("in `{}/` of {repository}", self.path)
        }
    }

    /// Returns a note for people if they may have expected another directory.
    #[must_use]
    pub fn note(&self, service: &ServiceName, url: &RepositoryUrl) -> Option<String> {
        match self.choice {
            Choice::Requested | Choice::Service | Choice::OwnRepository => None,
            Choice::NoDirectory => Some(format!(
                "{} has no directory `{service}`; the agent worked at the root (set `working_directory` to change that)",
                url.path()
            )),
        }
    }
}

/// Decides the working directory.
///
/// In order: the requested directory, which is created if it is missing; the directory at the root
/// with the name of the service, in any case of letters if just one matches; the root.
/// `directories` are the names of the directories at the root.
///
/// # Errors
/// Returns an error if a component is a file or a link, which could lead out of the repository.
pub fn decide_working_directory(
    requested: Option<&WorkingDirectory>,
    service: &ServiceName,
    url: &RepositoryUrl,
    directories: &[String],
    kind_of: impl Fn(&str) -> PathKind,
) -> Result<WorkPlace, NotADirectory> {
    if let Some(requested) = requested {
        let path = requested.relative().to_owned();
        check_components(&path, kind_of)?;
        return Ok(WorkPlace { path, choice: Choice::Requested });
    }
    if let Some(path) = find_directory(service.as_str(), directories) {
        return Ok(WorkPlace { path: path.to_owned(), choice: Choice::Service });
    }
    let name = url.name().to_ascii_lowercase();
    let is_own = name == service.as_str() || name.ends_with(&format!("-{service}"));
    let choice = if is_own { Choice::OwnRepository } else { Choice::NoDirectory };
    Ok(WorkPlace { path: String::new(), choice })
}

/// Returns the directory with a name, else the only one that differs in the case of letters.
fn find_directory<'a>(name: &str, directories: &'a [String]) -> Option<&'a str> {
    if let Some(exact) = directories.iter().find(|directory| *directory == name) {
        return Some(exact);
    }
    let mut similar = directories.iter().filter(|directory| directory.eq_ignore_ascii_case(name));
    let first = similar.next()?;
    similar.next().is_none().then_some(first)
}

fn check_components(path: &str, kind_of: impl Fn(&str) -> PathKind) -> Result<(), NotADirectory> {
    let mut part = String::new();
    for component in path.split('/').filter(|component| !component.is_empty()) {
        if !part.is_empty() {
            part.push('/');
        }
        part.push_str(component);
        match kind_of(&part) {
            PathKind::Directory => {}
            PathKind::Missing => break,
            PathKind::File => return Err(NotADirectory { path: path.to_owned(), part }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(
        requested: Option<&str>,
        repository: &str,
        folders: &[&str],
    ) -> Result<WorkPlace, NotADirectory> {
        let requested = requested.map(|path| WorkingDirectory::new(path).unwrap());
        let url = RepositoryUrl::new(format!("https://github.com/myorg/{repository}")).unwrap();
        let directories: Vec<String> = folders.iter().map(|&folder| folder.to_owned()).collect();
        let kind_of = |path: &str| {
            if folders.contains(&path) {
                PathKind::Directory
            } else if path == "link" {
                PathKind::File
            } else {
                PathKind::Missing
            }
        };
        let service = ServiceName::new("auth").unwrap();
        decide_working_directory(requested.as_ref(), &service, &url, &directories, kind_of)
    }

    #[test]
    fn directory_of_service_is_found_else_root_is_used() {
        let cases: [(&str, &[&str], &str, Choice); 9] = [
            ("mono", &["auth"], "auth", Choice::Service),
            ("auth", &["auth"], "auth", Choice::Service),
            ("mono", &["Auth", "other"], "Auth", Choice::Service),
            ("mono", &["AUTH", "auth"], "auth", Choice::Service),
            // Which of the two is meant is not known.
            ("mono", &["AUTH", "Auth"], "", Choice::NoDirectory),
            ("platform-auth", &[], "", Choice::OwnRepository),
            ("Auth", &[], "", Choice::OwnRepository),
            ("oauth", &["src"], "", Choice::NoDirectory),
            ("engine", &[], "", Choice::NoDirectory),
        ];
        for (repository, folders, path, choice) in cases {
            let found = decide(None, repository, folders).unwrap();
            assert_eq!((found.path.as_str(), found.choice), (path, choice), "{repository} {folders:?}");
        }
    }

    #[test]
    fn requested_directory_is_used_even_if_missing() {
        for (requested, path) in [("backend/api", "backend/api"), (".", "")] {
            let found = decide(Some(requested), "mono", &["auth"]).unwrap();
            assert_eq!((found.path.as_str(), found.choice), (path, Choice::Requested));
        }
    }

    #[test]
    fn only_surprising_place_has_note() {
        let url = RepositoryUrl::new("https://github.com/acme/engine".to_owned()).unwrap();
        let service = ServiceName::new("auth").unwrap();
        let place = |path: &str, choice| WorkPlace { path: path.to_owned(), choice };
        for choice in [Choice::Requested, Choice::Service, Choice::OwnRepository] {
            assert_eq!(place("auth", choice).note(&service, &url), None);
        }
        let root = place("", Choice::NoDirectory);
        let note = root.note(&service, &url).unwrap();
        assert!(
            note.starts_with("acme/engine has no directory `auth`; the agent worked at the root"),
            "{note}"
        );
        assert_eq!(root.describe(&url), "at the root of acme/engine");
        assert_eq!(place("auth", Choice::Service).describe(&url), "in `auth/` of acme/engine");
    }

    #[test]
    fn working_directory_through_symlink_is_rejected() {
        let error = decide(Some("link/inside"), "mono", &[]).unwrap_err();
        assert_eq!(error.part, "link");
    }
}
