//! Saves work that a killed run left in the worktree, before the worktree is changed.

use orchestrator_contract::{Kind, Reason};

use super::fetch::{blocking, open};
use super::state::{TreeState, WorktreeStatus, read_tree_state, write_tree_state};
use crate::context::{Context, RepositoryRole};
use crate::docs;
use crate::failure::Failure;
use crate::git::{GitError, Oid};
use crate::publish::save::{WorktreeBase, save_tree};

/// Saved work of an earlier run.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Run that left the work.
    pub run: String,
    /// Branch of that run.
    pub branch: String,
    /// Commit with the work.
    pub oid: Oid,
}

/// Saves unsaved work of an earlier run. Pushes nothing: a retry of that task builds on it.
///
/// # Errors
/// Returns an error if the worktree cannot be read or saved; it is not changed then.
pub async fn recover(context: &Context) -> Result<Option<Recovered>, Failure> {
    let state_file = context.tree_state();
    let state = read_tree_state(&state_file).map_err(|error| Failure::io(&state_file, &error))?;
    let Some(state) = state.filter(|state| state.status == WorktreeStatus::Dirty) else { return Ok(None) };
    let context = context.clone();
    blocking(move || {
        let oid = |text: &str| {
            Oid::from_str(text).map_err(|_| {
                let message = format!("invalid commit `{text}` in `{}`", context.tree_state().display());
                Failure::new(Reason::InternalError, message)
            })
        };
        let base = WorktreeBase {
            start: oid(&state.start)?,
            branch: state.branch.clone(),
            run: state.run.clone(),
            setup: state.setup.as_deref().map(oid).transpose()?,
        };
        let message =
            format!("Unsaved work of {}\n\nThe run was killed before it saved its work.\n", state.run);
        let saved = match context.task.kind {
            Kind::Implementation => save_tree(&context, &base, &message)?,
            Kind::Docs => {
                let control = open(&context, RepositoryRole::Target)?;
                let git = |error: GitError| Failure::from_error(error.reason(), &error);
                let tip = control.resolve_ref(&format!("refs/heads/{}", base.branch)).map_err(git)?;
                // Another run may have reused the branch name.
                let tip = tip.filter(|tip| control.is_ancestor(base.start, *tip).unwrap_or(false));
                docs::collect::save(&context, &base, tip.unwrap_or(base.start))?
            }
        };
        let clean = TreeState { status: WorktreeStatus::Clean, ..state.clone() };
        write_tree_state(&context.tree_state(), &clean)
            .map_err(|error| Failure::io(&context.tree_state(), &error))?;
        let changed = saved.tip != base.start;
        Ok(changed.then_some(Recovered { run: state.run.to_string(), branch: state.branch, oid: saved.tip }))
    })
    .await
}
