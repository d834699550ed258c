//! How commits relate: ancestors, merge bases and merges.

use git2::{ErrorCode, Oid};

use super::control::ControlRepository;
use super::error::GitError;

/// Result of a merge.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MergeResult {
    /// Merged tree.
    Clean(Oid),
    /// Conflicting paths, sorted.
    Conflicts(Vec<Vec<u8>>),
}

impl ControlRepository {
    /// Returns whether `ancestor` is `commit` or one of its ancestors.
    ///
    /// # Errors
    /// Returns an error if the history cannot be read.
    pub fn is_ancestor(&self, ancestor: Oid, commit: Oid) -> Result<bool, GitError> {
        if ancestor == commit {
            return Ok(true);
        }
        if !self.contains(ancestor) {
            return Ok(false);
        }
        self.repository
            .graph_descendant_of(commit, ancestor)
            .map_err(GitError::library(format!("compare {commit} with {ancestor}")))
    }

    /// Returns the merge base, or `None` if the fetched history has none.
    ///
    /// # Errors
    /// Returns an error if the history cannot be read.
    pub fn merge_base(&self, one: Oid, other: Oid) -> Result<Option<Oid>, GitError> {
        match self.repository.merge_base(one, other) {
            Ok(oid) => Ok(Some(oid)),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(GitError::library(format!("compare {one} with {other}"))(error)),
        }
    }

    /// Returns the number of commits of `head` that `base` does not have.
    ///
    /// # Errors
    /// Returns an error if the history cannot be read.
    pub fn ahead(&self, base: Oid, head: Oid) -> Result<u32, GitError> {
        let (ahead, _) = self
            .repository
            .graph_ahead_behind(head, base)
            .map_err(GitError::library(format!("compare {head} with {base}")))?;
        Ok(u32::try_from(ahead).unwrap_or(u32::MAX))
    }

    /// Merges two commits in memory; writes only the resulting tree.
    ///
    /// # Errors
    /// Returns an error if a commit cannot be read or the tree cannot be written.
    pub fn merge(&self, ours: Oid, theirs: Oid) -> Result<MergeResult, GitError> {
        let fail = || GitError::library(format!("merge {theirs} into {ours}"));
        let mut index = self
            .repository
            .merge_commits(&self.commit_object(ours)?, &self.commit_object(theirs)?, None)
            .map_err(fail())?;
        if index.has_conflicts() {
            let mut paths = Vec::new();
            for conflict in index.conflicts().map_err(fail())? {
                let conflict = conflict.map_err(fail())?;
                let side = conflict.our.or(conflict.their).or(conflict.ancestor);
                paths.extend(side.map(|entry| entry.path));
            }
            paths.sort();
            paths.dedup();
            return Ok(MergeResult::Conflicts(paths));
        }
        Ok(MergeResult::Clean(index.write_tree_to(&self.repository).map_err(fail())?))
    }
}
