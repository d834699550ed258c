//! Separates what setup commands changed in a worktree from the work of the agent.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use git2::{Index, Oid, Tree};

use super::control::ControlRepository;
use super::error::GitError;

impl ControlRepository {
    /// Returns `tree` with the paths that still are as setup left them set back to `start`.
    ///
    /// `setup` is the tree after the setup commands, which started from the tree `start`. A path that
    /// was changed further stays as it is.
    ///
    /// # Errors
    /// Returns an error if a tree cannot be read or written.
    pub fn tree_without_setup(&self, tree: Oid, start: Oid, setup: Oid) -> Result<Oid, GitError> {
        if setup == start {
            return Ok(tree);
        }
        let fail = || GitError::library(format!("separate the changes of setup in {tree}"));
        let find = |oid: Oid| self.repository.find_tree(oid);
        let (now, before, after) =
            (find(tree).map_err(fail())?, find(start).map_err(fail())?, find(setup).map_err(fail())?);
        let diff = self.repository.diff_tree_to_tree(Some(&before), Some(&after), None).map_err(fail())?;
        let paths = diff.deltas().filter_map(|delta| {
            let path = delta.new_file().path_bytes().or_else(|| delta.old_file().path_bytes())?;
            Some(path.to_vec())
        });
        let mut paths: Vec<Vec<u8>> = paths.collect();
        paths.retain(|path| entry(&now, path) == entry(&after, path));
        let (mut old, mut index) = (Index::new().map_err(fail())?, Index::new().map_err(fail())?);
        old.read_tree(&before).map_err(fail())?;
        index.read_tree(&now).map_err(fail())?;
        for path in &paths {
            if index.get_path(as_path(path), 0).is_some() {
                index.remove(as_path(path), 0).map_err(fail())?;
            }
        }
        for path in &paths {
            // The agent may have put a file where a directory was.
            let is_below_file = as_path(path)
                .ancestors()
                .skip(1)
                .any(|above| !above.as_os_str().is_empty() && index.get_path(above, 0).is_some());
            if let Some(entry) = old.get_path(as_path(path), 0).filter(|_| !is_below_file) {
                index.add(&entry).map_err(fail())?;
            }
        }
        index.write_tree_to(&self.repository).map_err(fail())
    }
}

fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

/// Returns mode and object of a path, or `None` if the tree does not have it.
fn entry(tree: &Tree<'_>, path: &[u8]) -> Option<(i32, Oid)> {
    tree.get_path(as_path(path)).ok().map(|entry| (entry.filemode(), entry.id()))
}
