//! Step `push`: brings the work to a safe place, rung by rung, and says where it is.

use std::time::Duration;

use git2::Oid;
use orchestrator_contract::names::sibling_branch;
use orchestrator_contract::outcome::{Work, WorkLocation};
use orchestrator_contract::{BranchName, Reason};

use super::fallback::{PushFailure, PushTarget, next_target};
use crate::context::{Context, RepositoryRole};
use crate::failure::{Failure, error_chain};
use crate::git::{GitError, NewCommit, PushOutcome};
use crate::workspace::branch::PreparedBranch;
use crate::workspace::fetch::{blocking, open, tracking};

/// Waits between tries against a remote that is away.
const BACKOFF: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(12)];

/// Where the work is now.
#[derive(Clone, Debug, Default)]
pub struct PushResult {
    /// For the outcome.
    pub work: Work,
    /// Why it is not simply on its branch.
    pub failure: Option<Failure>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Brings `tip` home, beginning with `rung`. Never fails: the last rung is the workspace as it is.
pub async fn push_with_fallbacks(
    context: &Context,
    prepared: &PreparedBranch,
    tip: Oid,
    rung: PushTarget,
) -> PushResult {
    let mut rung = rung;
    let mut first_trouble: Option<Failure> = None;
    let mut notes = Vec::new();
    loop {
        let done = match &rung {
            PushTarget::Branch => push(context, &prepared.branch, tip, prepared.remote_tip).await,
            PushTarget::SiblingBranch => match BranchName::new(prepared.branch.clone()) {
                Ok(branch) => {
                    let sibling = sibling_branch(&branch, &context.task.run);
                    push(context, sibling.as_str(), tip, None).await
                }
                Err(error) => Err(PushFailure::Error(Failure::from_error(Reason::InternalError, &error))),
            },
            PushTarget::WithoutRefusedPaths(paths) => {
                push_without(context, prepared, tip, paths, &mut notes).await
            }
            PushTarget::Workspace => {
                let work = write_rescue_bundle(context, prepared, tip, &mut notes).await;
                return PushResult { work, failure: first_trouble, notes };
            }
        };
        match done {
            Ok(work) => return PushResult { work, failure: first_trouble, notes },
            Err(trouble) => {
                let failure = trouble.failure(&prepared.branch);
                context.journal.warn(format!("the work cannot go there: {}", failure.message));
                match &first_trouble {
                    None => first_trouble = Some(failure),
                    Some(_) => notes.push(failure.message),
                }
                rung = next_target(&rung, &trouble);
            }
        }
    }
}

/// Keeps the work in the workspace because it may not be pushed.
pub async fn keep_in_workspace(
    context: &Context,
    prepared: &PreparedBranch,
    tip: Oid,
    why: Failure,
) -> PushResult {
    let mut notes = Vec::new();
    let work = write_rescue_bundle(context, prepared, tip, &mut notes).await;
    PushResult { work, failure: Some(why), notes }
}

async fn push(context: &Context, branch: &str, oid: Oid, expected: Option<Oid>) -> Result<Work, PushFailure> {
    let name = BranchName::new(branch)
        .map_err(|error| PushFailure::Error(Failure::from_error(Reason::InternalError, &error)))?;
    let control = context.control_repository_path(RepositoryRole::Target);
    let mut tries = BACKOFF.into_iter();
    loop {
        let credentials = context.credentials(RepositoryRole::Target).map_err(PushFailure::Error)?;
        let pushed = context
            .remote(RepositoryRole::Target)
            .push(&control, &name, oid, expected, &credentials, &mut |_| {})
            .await;
        match pushed {
            Ok(PushOutcome::Pushed | PushOutcome::UpToDate) => {
                remember(context, branch, oid).await;
                return Ok(Work {
                    location: WorkLocation::Remote,
                    branch: Some(branch.to_owned()),
                    oid: Some(oid.to_string()),
                    path: None,
                });
            }
            // A push whose answer was lost has arrived all the same.
            Ok(PushOutcome::NonFastForward { remote_oid: Some(found) }) if found == oid => {}
            Ok(PushOutcome::NonFastForward { .. }) => return Err(PushFailure::NonFastForward),
            Ok(PushOutcome::Rejected { message }) => return Err(PushFailure::Rejected(message)),
            Err(error) => {
                let wait = tries.next().filter(|_| error.is_transient());
                let Some(wait) = wait else {
                    return Err(PushFailure::Error(Failure::from_error(error.reason(), &error)));
                };
                context.journal.warn(format!(
                    "{}; trying again in {} s",
                    error_chain(&error),
                    wait.as_secs()
                ));
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Records what the remote has. Nothing depends on it: the next run asks the remote.
async fn remember(context: &Context, branch: &str, oid: Oid) {
    let (context, branch) = (context.clone(), branch.to_owned());
    let recorded = blocking(move || {
        let control = open(&context, RepositoryRole::Target)?;
        control
            .update_ref(&tracking(&branch), oid, "pushed")
            .map_err(|error| Failure::from_error(error.reason(), &error))
    });
    drop(recorded.await);
}

async fn push_without(
    context: &Context,
    prepared: &PreparedBranch,
    tip: Oid,
    paths: &[String],
    notes: &mut Vec<String>,
) -> Result<Work, PushFailure> {
    let patch = context.record.rescue().join("refused.patch");
    let (inner, start, refused, file) = (context.clone(), prepared.start, paths.to_vec(), patch.clone());
    let reduced = blocking(move || {
        let git = |error: GitError| Failure::from_error(error.reason(), &error);
        let control = open(&inner, RepositoryRole::Target)?;
        let folder = inner.record.rescue();
        std::fs::create_dir_all(&folder).map_err(|error| Failure::io(&folder, &error))?;
        let tree = control.tree_reverting(tip, start, &refused).map_err(git)?;
        let identity = inner.task.commit_identity_or_default();
        let message = format!(
            "Work of {} without what the server refuses\n\nLeft out: {}\n",
            inner.task.run,
            refused.join(", ")
        );
        let seconds = jiff::Timestamp::now().as_second();
        let new = NewCommit {
            tree,
            parents: &[start],
            author: &identity,
            committer: &identity,
            message: &message,
            seconds,
        };
        let reduced = control.commit(&new).map_err(git)?;
        control.write_patch(reduced, tip, &file).map_err(git)?;
        Ok(reduced)
    })
    .await
    .map_err(PushFailure::Error)?;
    let work = push(context, &prepared.branch, reduced, prepared.remote_tip).await?;
    notes.push(format!(
        "the server refuses {}; everything else is on the branch, that part is kept as `{}`",
        paths.join(", "),
        patch.display()
    ));
    Ok(Work { path: Some(patch.display().to_string()), ..work })
}

/// A ref and a bundle in the workspace; where even that fails, the tree as it is.
async fn write_rescue_bundle(
    context: &Context,
    prepared: &PreparedBranch,
    tip: Oid,
    notes: &mut Vec<String>,
) -> Work {
    let bundle = context.record.rescue().join("work.bundle");
    let branch = format!("refs/heads/{}", prepared.branch);
    let (inner, base, file, name) = (context.clone(), prepared.base, bundle.clone(), branch.clone());
    let kept = blocking(move || {
        let folder = inner.record.rescue();
        std::fs::create_dir_all(&folder).map_err(|error| Failure::io(&folder, &error))?;
        let control = open(&inner, RepositoryRole::Target)?;
        control
            .write_bundle(&[base], &[(name.as_str(), tip)], &file)
            .map_err(|error| Failure::from_error(error.reason(), &error))
    })
    .await;
    let path = match kept {
        Ok(()) => bundle,
        Err(failure) => {
            notes.push(format!("the work could not be bundled: {}", failure.message));
            context.worktree()
        }
    };
    Work {
        location: WorkLocation::Workspace,
        branch: Some(prepared.branch.clone()),
        oid: Some(tip.to_string()),
        path: Some(path.display().to_string()),
    }
}
