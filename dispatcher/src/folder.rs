//! The project folder that the user works in, and its git remote.
//!
//! Read without the git program and without writing.

mod checkout;
mod git_config;
mod local_changes;
mod run_branch;
mod task_ids;

use std::path::{Path, PathBuf};

use orchestrator_contract::names::InvalidName;
use orchestrator_contract::{RepositoryUrl, http_url};

pub use checkout::Checkout;
pub use run_branch::{PushedBranch, RunBranch};

use crate::config::Environment;

/// The project folder that the user works in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProjectFolder {
    pub path: PathBuf,
    owner: FolderOwner,
}

/// Owner of the project folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum FolderOwner {
    /// The caller's own.
    Caller,
    /// The server's; remote callers work elsewhere.
    Server,
}

/// The git remote of a project folder.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Remote {
    /// URL without credentials; `None` if there is no usable one.
    pub url: Option<RepositoryUrl>,
    /// Why the URL is missing or was changed.
    pub warning: Option<String>,
}

impl ProjectFolder {
    /// Finds the folder: `CLAUDE_PROJECT_DIR`, the first of `WORKSPACE_FOLDER_PATHS`, or `cwd`,
    /// whichever exists first.
    #[must_use]
    pub fn find(environment: &Environment, cwd: &Path) -> Self {
        let project = environment.path("CLAUDE_PROJECT_DIR").filter(|path| path.is_dir());
        let path = project.or_else(|| first_folder(environment.text("WORKSPACE_FOLDER_PATHS")?));
        Self { path: path.unwrap_or_else(|| cwd.to_owned()), owner: FolderOwner::Caller }
    }

    /// Returns the folder for remote callers, ignoring its git remote.
    #[must_use]
    pub fn for_remote_callers(self) -> Self {
        Self { owner: FolderOwner::Server, ..self }
    }

    /// Returns whether the callers work elsewhere, with configurations of their own.
    #[must_use]
    pub fn serves_remote_callers(&self) -> bool {
        self.owner == FolderOwner::Server
    }

    /// Returns the clone that contains the folder; `None` for remote callers.
    #[must_use]
    pub fn checkout(&self) -> Option<Checkout> {
        match self.owner {
            FolderOwner::Caller => Checkout::around(&self.path),
            FolderOwner::Server => None,
        }
    }

    /// Returns the remote `origin`, else the first one.
    #[must_use]
    pub fn remote(&self) -> Remote {
        if self.owner == FolderOwner::Server {
            return Remote { url: None, warning: Some("a call over HTTP has no project folder".to_owned()) };
        }
        let Some(checkout) = Checkout::around(&self.path) else { return Remote::default() };
        let (root, config) = (checkout.root.as_path(), checkout.config().unwrap_or_default());
        let remotes = git_config::remotes(&config);
        let Some((name, url)) = remotes.iter().find(|(name, _)| name == "origin").or(remotes.first()) else {
            return Remote::default();
        };
        let (url, stripped) = without_credentials(url);
        let mut warnings = Vec::new();
        if stripped {
            warnings.push(format!(
                "remote `{name}` of {} contains credentials, which are not used: provide the token in a file \
                 or as GITHUB_TOKEN",
                root.display()
            ));
        }
        // A relative path in a remote starts at the root of the working tree.
        let url = parse_remote(&url, root)
            .map_err(|problem| {
                warnings.push(format!("cannot use remote `{name}` of {}: {problem}", root.display()));
            })
            .ok();
        Remote { url, warning: (!warnings.is_empty()).then(|| warnings.join("; ")) }
    }
}

/// Returns the first folder of a list. Editors separate folders by comma, semicolon or colon, which
/// may also be part of a folder's name.
fn first_folder(text: &str) -> Option<PathBuf> {
    let candidates = [',', ';', ':'].iter().filter_map(|separator| text.split(*separator).next());
    std::iter::once(text)
        .chain(candidates)
        .map(|text| PathBuf::from(text.trim()))
        .find(|path| path.is_absolute() && path.is_dir())
}

/// Parses the URL of a git remote as git reads it: unlike a user's text, it is never completed or shortened.
fn parse_remote(url: &str, root: &Path) -> Result<RepositoryUrl, InvalidName> {
    let local = url.strip_prefix("file://").unwrap_or(url);
    let is_relative = local == "." || local == ".." || local.starts_with("./") || local.starts_with("../");
    if is_relative {
        let path = root.join(local);
        return RepositoryUrl::new(path.canonicalize().unwrap_or(path).to_string_lossy().into_owned());
    }
    RepositoryUrl::new(local)
}

fn without_credentials(url: &str) -> (String, bool) {
    let is_http = url.starts_with("https://") || url.starts_with("http://");
    match http_url::split_user_info(url).filter(|_| is_http) {
        Some((user, url)) => (url, user.contains(':') || user.len() > 39),
        None => (url.to_owned(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folder(config: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(".git")).unwrap();
        fs::create_dir_all(root.path().join("src/deep")).unwrap();
        fs::write(root.path().join(".git/config"), config).unwrap();
        root
    }

    fn remote_of(path: &Path) -> Remote {
        ProjectFolder { path: path.to_owned(), owner: FolderOwner::Caller }.remote()
    }

    #[test]
    fn remote_in_subdirectory_is_found() {
        let root = folder("[remote \"origin\"]\n\turl = git@github.com:myorg/trader.git\n");
        let remote = remote_of(&root.path().join("src/deep"));
        assert_eq!(remote.url.unwrap().as_str(), "git@github.com:myorg/trader.git");
    }

    #[test]
    fn remote_credentials_are_removed_with_warning() {
        let root = folder("[remote \"origin\"]\n\turl = https://me:hunter2@github.com/o/r\n");
        let remote = remote_of(root.path());
        assert_eq!(remote.url.unwrap().as_str(), "https://github.com/o/r");
        let warning = remote.warning.unwrap();
        assert!(warning.contains("credentials") && !warning.contains("hunter2"), "{warning}");
    }

    #[test]
    fn remote_is_neither_completed_nor_shortened() {
        for (url, expected) in [
            ("https://gitlab.com/group/sub/tree/x", Some("https://gitlab.com/group/sub/tree/x")),
            ("https://host/git/team/tree/main/x", Some("https://host/git/team/tree/main/x")),
            ("git@github.com:myorg/trader/tree/main", Some("git@github.com:myorg/trader/tree/main")),
            ("acme/trader", None),
            ("gh:acme/trader", Some("gh:acme/trader")),
        ] {
            let root = folder(&format!("[remote \"origin\"]\n\turl = {url}\n"));
            assert_eq!(remote_of(root.path()).url.as_ref().map(RepositoryUrl::as_str), expected, "{url}");
        }
    }

    #[test]
    fn project_folder_for_remote_callers_has_no_remote() {
        let root = folder("[remote \"origin\"]\n\turl = https://h/o/r\n");
        let open = ProjectFolder { path: root.path().to_owned(), owner: FolderOwner::Caller };
        let remote = open.for_remote_callers().remote();
        assert!(remote.url.is_none() && remote.warning.unwrap().contains("no project folder"));
    }

    #[test]
    fn linked_worktree_uses_repository_remote() {
        let root = folder("[remote \"origin\"]\n\turl = https://h/o/r\n");
        let tree = tempfile::tempdir().unwrap();
        let git = root.path().join(".git/worktrees/x");
        fs::create_dir_all(&git).unwrap();
        fs::write(git.join("commondir"), "../..\n").unwrap();
        fs::write(tree.path().join(".git"), format!("gitdir: {}\n", git.display())).unwrap();
        assert_eq!(remote_of(tree.path()).url.unwrap().as_str(), "https://h/o/r");
    }

    #[test]
    fn local_remote_becomes_absolute_path() {
        let root = folder("[remote \"origin\"]\n\turl = ./src\n");
        let expected = root.path().join("src").canonicalize().unwrap();
        assert_eq!(remote_of(root.path()).url.unwrap().as_str(), expected.to_str().unwrap());
        let root = folder("[remote \"origin\"]\n\turl = file:///srv/git/r.git\n");
        assert_eq!(remote_of(root.path()).url.unwrap().as_str(), "/srv/git/r.git");
    }

    #[test]
    fn folder_without_usable_remote_has_no_url() {
        assert_eq!(remote_of(folder("[core]\n\tbare = false\n").path()), Remote::default());
        let odd = remote_of(folder("[remote \"origin\"]\n\turl = ext::sh\n").path());
        assert!(odd.url.is_none() && odd.warning.is_some());
    }

    #[test]
    fn project_folder_lookup_follows_documented_order() {
        let (one, two, cwd) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Path::new("/"));
        let (one, two) = (one.path().to_str().unwrap(), two.path().to_str().unwrap());
        let both = format!("{two},{one}");
        let find = |variables: &[(&str, &str)]| {
            let environment: Environment = variables.iter().copied().collect();
            ProjectFolder::find(&environment, cwd).path.to_str().unwrap().to_owned()
        };
        assert_eq!(find(&[]), "/");
        assert_eq!(find(&[("WORKSPACE_FOLDER_PATHS", &both)]), two);
        assert_eq!(find(&[("WORKSPACE_FOLDER_PATHS", two), ("CLAUDE_PROJECT_DIR", one)]), one);
        assert_eq!(find(&[("CLAUDE_PROJECT_DIR", "/does/not/exist")]), "/");
    }
}
