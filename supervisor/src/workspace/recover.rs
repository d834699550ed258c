//! What an earlier run left in the working tree and nobody saved: it was killed,
//! or the machine went away. It is saved before anything else happens to the tree.

use git2::Oid;
use orchestrator_contract::{Kind, Reason};

use super::fetch::{blocking, open};
use super::state::{TreeState, WorktreeStatus, read_tree_state, write_tree_state};
use crate::context::{Context, RepositoryRole};
use crate::docs;
use crate::failure::Failure;
use crate::git::GitError;
use crate::publish::save::{WorktreeBase, save_tree};

/// What was found and saved.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The run that left it.
    pub run: String,
    /// Its branch.
    pub branch: String,
    /// The commit that has it now.
    pub oid: Oid,
}

/// Saves what an earlier run left. Nothing is pushed: a retry of that task builds on it.
///
/// # Errors
/// The tree cannot be read, or not be saved; it is left as it is then.
pub async fn recover(context: &Context) -> Result<Option<Recovered>, Failure> {
    let state_file = context.tree_state();
    let state = read_tree_state(&state_file).map_err(|error| Failure::io(&state_file, &error))?;
    let Some(state) = state.filter(|state| state.status == WorktreeStatus::Dirty) else { return Ok(None) };
    let context = context.clone();
    blocking(move || {
        let oid = |text: &str| {
            Oid::from_str(text).map_err(|_| {
                let message = format!("`{}` names no commit: `{text}`", context.tree_state().display());
                Failure::new(Reason::InternalError, message)
            })
        };
        let left =
            WorktreeBase { start: oid(&state.start)?, branch: state.branch.clone(), run: state.run.clone() };
        let message = format!("Work left by {}\n\nThe run ended before it could save its work.\n", state.run);
        let saved = match context.task.kind {
            Kind::Implementation => save_tree(&context, &left, &message)?,
            Kind::Docs => {
                let control = open(&context, RepositoryRole::Target)?;
                let git = |error: GitError| Failure::from_error(error.reason(), &error);
                let tip = control.resolve_ref(&format!("refs/heads/{}", left.branch)).map_err(git)?;
                // Another run may have used the branch's name since.
                let ours = tip.filter(|tip| control.is_ancestor(left.start, *tip).unwrap_or(false));
                docs::collect::save(&context, &left, ours.unwrap_or(left.start))?
            }
        };
        let done = TreeState { status: WorktreeStatus::Clean, ..state.clone() };
        write_tree_state(&context.tree_state(), &done)
            .map_err(|error| Failure::io(&context.tree_state(), &error))?;
        let changed = saved.tip != left.start;
        Ok(changed.then_some(Recovered { run: state.run.to_string(), branch: state.branch, oid: saved.tip }))
    })
    .await
}
