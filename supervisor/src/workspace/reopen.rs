//! Returns the worktree to the agent after its work was saved and failed verification.

use super::branch::PreparedBranch;
use super::fetch::open;
use super::state::{TreeState, WorktreeStatus, recorded_setup, write_tree_state};
use crate::context::{Context, RepositoryRole};
use crate::failure::Failure;
use crate::git::{GitError, Oid};

/// Records that the agent changes the worktree again, so that a killed run's work is saved.
///
/// The next commit replaces `tip`, which no remote has: its files are in the worktree, and it stays in the
/// workspace as `refs/orchestrator/{run}/unverified`.
///
/// # Errors
/// Returns an error if the record or a ref cannot be written.
pub fn reopen_worktree(context: &Context, prepared: &PreparedBranch, tip: Oid) -> Result<(), Failure> {
    let git = |error: GitError| Failure::from_error(error.reason(), &error);
    let file = context.tree_state();
    let state = TreeState {
        run: context.task.run.clone(),
        status: WorktreeStatus::Dirty,
        branch: prepared.branch.clone(),
        start: prepared.start.to_string(),
        base: prepared.base.to_string(),
        setup: recorded_setup(&file).map(|setup| setup.to_string()),
    };
    write_tree_state(&file, &state).map_err(|error| Failure::io(&file, &error))?;
    let control = open(context, RepositoryRole::Target)?;
    let kept = format!("refs/orchestrator/{}/unverified", context.task.run);
    control.update_ref(&kept, tip, "failed verification").map_err(git)?;
    let branch = format!("refs/heads/{}", prepared.branch);
    control.update_ref(&branch, prepared.start, "the agent continues").map_err(git)
}
