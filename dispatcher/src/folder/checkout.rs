//! A git clone: its root, its branch and the folder of its tasks.
//!
//! Read from files, without the git program and without writing.

use std::path::{Path, PathBuf};

use orchestrator_contract::{BranchName, TaskId, WorkingDirectory};

use crate::files;

/// Task Master's folder.
const TASKMASTER: &str = ".taskmaster";

/// A git working tree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checkout {
    /// Root of the working tree.
    pub root: PathBuf,
    /// Git directory of this working tree.
    git: PathBuf,
}

impl Checkout {
    /// Finds the working tree that contains `folder`.
    #[must_use]
    pub fn around(folder: &Path) -> Option<Self> {
        folder.ancestors().find_map(|root| Some(Self { root: root.to_owned(), git: git_dir(root)? }))
    }

    /// Returns the text of the repository's git configuration.
    pub(super) fn config(&self) -> Option<String> {
        // A linked working tree shares its repository's configuration.
        let common = match files::read(&self.git.join("commondir")).ok()? {
            Some(text) => self.git.join(text.trim()),
            None => self.git.clone(),
        };
        files::read(&common.join("config")).ok()?
    }

    /// Returns the checked-out branch; `None` for a detached HEAD or an unsupported name.
    #[must_use]
    pub fn branch(&self) -> Option<BranchName> {
        let head = files::read(&self.git.join("HEAD")).ok()??;
        BranchName::new(head.trim().strip_prefix("ref: refs/heads/")?).ok()
    }

    /// Returns the folder that holds `.taskmaster`, relative to the root.
    ///
    /// Searches `named` (absolute, or relative to `folder` or the root) if given, else the nearest
    /// folder upwards from `folder`.
    #[must_use]
    pub fn tasks(&self, folder: &Path, named: Option<&Path>) -> Option<WorkingDirectory> {
        let holds = |candidate: &PathBuf| candidate.join(TASKMASTER).is_dir();
        let found = match named {
            Some(named) => [folder.join(named), self.root.join(named)].into_iter().find(holds),
            None => folder.ancestors().map(Path::to_owned).find(|candidate| {
                // Do not leave the repository.
                candidate.starts_with(&self.root) && holds(candidate)
            }),
        }?;
        let (found, root) = (found.canonicalize().ok()?, self.root.canonicalize().ok()?);
        let relative = found.strip_prefix(root).ok()?.to_str()?;
        WorkingDirectory::new(if relative.is_empty() { "." } else { relative }).ok()
    }

    /// Returns whether the working tree has the documents of a task.
    #[must_use]
    pub fn has_documents(&self, tasks: Option<&WorkingDirectory>, task: TaskId) -> bool {
        let folder = tasks.map_or("", WorkingDirectory::relative);
        self.root.join(folder).join(format!("{TASKMASTER}/docs/task-{task}/task.md")).is_file()
    }
}

/// Returns the git directory of a working tree; `None` if `root` is not the root of one.
fn git_dir(root: &Path) -> Option<PathBuf> {
    let dot_git = root.join(".git");
    if dot_git.is_dir() {
        return Some(dot_git);
    }
    let text = files::read(&dot_git).ok()??;
    Some(root.join(text.strip_prefix("gitdir:")?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clone(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let path = folder.path().canonicalize().unwrap();
        (folder, path)
    }

    #[test]
    fn current_branch_is_read_from_head() {
        let (_folder, root) = clone(&[(".git/HEAD", "ref: refs/heads/feature/new docs\n"), ("a/b", "")]);
        assert_eq!(Checkout::around(&root).unwrap().branch(), None, "no name of a branch");
        std::fs::write(root.join(".git/HEAD"), "ref: refs/heads/feature/docs\n").unwrap();
        let found = Checkout::around(&root.join("a")).unwrap();
        assert_eq!(
            (found.root.as_path(), found.branch().unwrap().as_str()),
            (root.as_path(), "feature/docs")
        );
        std::fs::write(root.join(".git/HEAD"), "0123456789012345678901234567890123456789\n").unwrap();
        assert_eq!(found.branch(), None);
    }

    #[test]
    fn linked_worktree_has_own_branch() {
        let (_folder, root) = clone(&[
            ("main/.git/HEAD", "ref: refs/heads/main\n"),
            ("main/.git/config", "[remote \"origin\"]\n"),
            ("main/.git/worktrees/w/HEAD", "ref: refs/heads/other\n"),
            ("main/.git/worktrees/w/commondir", "../..\n"),
            ("w/.git", "gitdir: ../main/.git/worktrees/w\n"),
        ]);
        let linked = Checkout::around(&root.join("w")).unwrap();
        assert_eq!(linked.branch().unwrap().as_str(), "other");
        assert_eq!(linked.config().unwrap(), "[remote \"origin\"]\n");
    }

    #[test]
    fn tasks_folder_is_named_or_nearest_ancestor() {
        let (_folder, root) = clone(&[
            (".git/HEAD", "ref: refs/heads/main\n"),
            (".taskmaster/tasks/tasks.json", ""),
            ("trader/.taskmaster/tasks/tasks.json", ""),
            ("trader/src/lib.rs", ""),
            ("other/x", ""),
        ]);
        let checkout = Checkout::around(&root).unwrap();
        let tasks = |folder: &str, named: Option<&str>| {
            let found = checkout.tasks(&root.join(folder), named.map(Path::new))?;
            Some(found.relative().to_owned())
        };
        assert_eq!(tasks("", None).as_deref(), Some(""));
        assert_eq!(tasks("trader/src", None).as_deref(), Some("trader"));
        assert_eq!(tasks("other", None).as_deref(), Some(""));
        assert_eq!(tasks("other", Some("trader")).as_deref(), Some("trader"));
        assert_eq!(tasks("other", Some("../trader")).as_deref(), Some("trader"));
        assert_eq!(tasks("", Some(root.join("trader").to_str().unwrap())).as_deref(), Some("trader"));
        assert_eq!(tasks("", Some("other")), None);
        assert_eq!(tasks("", Some("/")), None);
    }
}
