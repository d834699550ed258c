//! Step `push`: pushes the work, with fallbacks, and returns its location.

use std::time::Duration;

use orchestrator_contract::names::sibling_branch;
use orchestrator_contract::outcome::{Work, WorkLocation};
use orchestrator_contract::{BranchName, Reason};

use super::fallback::{PushFailure, PushTarget, next_target};
use crate::context::{Context, RepositoryRole};
use crate::failure::{Failure, error_chain};
use crate::git::{GitError, NewCommit, Oid, PushOutcome};
use crate::workspace::branch::PreparedBranch;
use crate::workspace::fetch::{blocking, open, tracking};

/// Waits between attempts while the remote is unavailable.
const BACKOFF: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(12)];

/// Maximum time to write a bundle.
const BUNDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// The same after a stop request: the commit is safe in the control repository without a bundle.
const BUNDLE_TIMEOUT_OF_STOP: Duration = Duration::from_secs(4);

/// Result of a push with fallbacks.
#[derive(Clone, Debug, Default)]
pub struct PushResult {
    /// Location of the work.
    pub work: Work,
    /// Why the work is not on its branch, if it is elsewhere.
    pub failure: Option<Failure>,
    /// Notes for people.
    pub notes: Vec<String>,
}

/// Pushes `tip` to `target`, then tries fallbacks in order.
///
/// Never fails: the last fallback keeps the work in the workspace.
pub async fn push_with_fallbacks(
    context: &Context,
    prepared: &PreparedBranch,
    tip: Oid,
    target: PushTarget,
) -> PushResult {
    let mut target = target;
    let mut first_failure: Option<Failure> = None;
    let mut notes = Vec::new();
    loop {
        let result = match &target {
            PushTarget::Branch => push(context, &prepared.branch, tip, prepared.remote_tip).await,
            PushTarget::SiblingBranch => match BranchName::new(prepared.branch.clone()) {
                Ok(branch) => {
                    let sibling = sibling_branch(&branch, &context.task.run);
                    push(context, sibling.as_str(), tip, None).await
                }
                Err(error) => Err(PushFailure::Error(Failure::from_error(Reason::InternalError, &error))),
            },
            PushTarget::WithoutRejectedPaths(paths) => {
                push_without(context, prepared, tip, paths, &mut notes).await
            }
            PushTarget::Workspace => {
                let work = write_rescue_bundle(context, prepared, tip, BUNDLE_TIMEOUT, &mut notes).await;
                return PushResult { work, failure: first_failure, notes };
            }
        };
        match result {
            Ok(work) => return PushResult { work, failure: first_failure, notes },
            Err(error) => {
                let failure = error.failure(&prepared.branch);
                context.journal.warn(format!("push failed: {}", failure.message));
                match &first_failure {
                    None => first_failure = Some(failure),
                    Some(_) => notes.push(failure.message),
                }
                target = next_target(&target, &error);
            }
        }
    }
}

/// Keeps the work in the workspace, with the failure that says why it is not pushed.
pub async fn keep_in_workspace(
    context: &Context,
    prepared: &PreparedBranch,
    tip: Oid,
    why: Failure,
) -> PushResult {
    let mut notes = Vec::new();
    let limit = if why.reason == Reason::Stopped { BUNDLE_TIMEOUT_OF_STOP } else { BUNDLE_TIMEOUT };
    let work = write_rescue_bundle(context, prepared, tip, limit, &mut notes).await;
    PushResult { work, failure: Some(why), notes }
}

/// Pushes to a branch, with retries while the remote is unavailable.
async fn push(context: &Context, branch: &str, oid: Oid, expected: Option<Oid>) -> Result<Work, PushFailure> {
    let name = BranchName::new(branch)
        .map_err(|error| PushFailure::Error(Failure::from_error(Reason::InternalError, &error)))?;
    let control = context.control_repository_path(RepositoryRole::Target);
    let mut waits = BACKOFF.into_iter();
    loop {
        let credentials = context.credentials(RepositoryRole::Target).map_err(PushFailure::Error)?;
        let pushed = context
            .remote(RepositoryRole::Target)
            .push(&control, &name, oid, expected, &credentials, &mut |_| {})
            .await;
        match pushed {
            Ok(PushOutcome::Pushed | PushOutcome::UpToDate) => {
                record_pushed(context, branch, oid).await;
                return Ok(Work {
                    location: WorkLocation::Remote,
                    branch: Some(branch.to_owned()),
                    oid: Some(oid.to_string()),
                    path: None,
                });
            }
            // An earlier attempt succeeded, but its response was lost.
            Ok(PushOutcome::NonFastForward { remote_oid: Some(found) }) if found == oid => {}
            Ok(PushOutcome::NonFastForward { .. }) => return Err(PushFailure::NonFastForward),
            Ok(PushOutcome::Rejected { message }) => return Err(PushFailure::Rejected(message)),
            Err(error) => {
                let wait = waits.next().filter(|_| error.is_transient());
                let Some(wait) = wait else {
                    return Err(PushFailure::Error(Failure::from_error(error.reason(), &error)));
                };
                context.journal.warn(format!("{}; retrying in {} s", error_chain(&error), wait.as_secs()));
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Updates the tracking ref. A failure is ignored: the next run lists the remote again.
async fn record_pushed(context: &Context, branch: &str, oid: Oid) {
    let (context, branch) = (context.clone(), branch.to_owned());
    let recorded = blocking(move || {
        let control = open(&context, RepositoryRole::Target)?;
        control
            .update_ref(&tracking(&branch), oid, "pushed")
            .map_err(|error| Failure::from_error(error.reason(), &error))
    });
    drop(recorded.await);
}

/// Pushes the work without the rejected paths, and saves those as a patch.
async fn push_without(
    context: &Context,
    prepared: &PreparedBranch,
    tip: Oid,
    paths: &[String],
    notes: &mut Vec<String>,
) -> Result<Work, PushFailure> {
    let patch = context.record.rescue().join("refused.patch");
    let (inner, start, rejected, file) = (context.clone(), prepared.start, paths.to_vec(), patch.clone());
    let reduced = blocking(move || {
        let git = |error: GitError| Failure::from_error(error.reason(), &error);
        let control = open(&inner, RepositoryRole::Target)?;
        let folder = inner.record.rescue();
        std::fs::create_dir_all(&folder).map_err(|error| Failure::io(&folder, &error))?;
        let tree = control.tree_reverting(tip, start, &rejected).map_err(git)?;
        let identity = inner.task.commit_identity_or_default();
        let message = format!(
            "Work of {} without paths that the server rejects\n\nOmitted: {}\n",
            inner.task.run,
            rejected.join(", ")
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
        "the server rejected {}; pushed everything else, saved that part as `{}`",
        paths.join(", "),
        patch.display()
    ));
    Ok(Work { path: Some(patch.display().to_string()), ..work })
}

/// Writes a bundle in the workspace; if that fails, the control repository is the location of the work.
async fn write_rescue_bundle(
    context: &Context,
    prepared: &PreparedBranch,
    tip: Oid,
    limit: Duration,
    notes: &mut Vec<String>,
) -> Work {
    let bundle = context.record.rescue().join("work.bundle");
    let branch = format!("refs/heads/{}", prepared.branch);
    let (inner, base, file, name) = (context.clone(), prepared.base, bundle.clone(), branch.clone());
    let bundled = blocking(move || {
        let folder = inner.record.rescue();
        std::fs::create_dir_all(&folder).map_err(|error| Failure::io(&folder, &error))?;
        let control = open(&inner, RepositoryRole::Target)?;
        // Renamed when it is complete. Writing one that was cut short continues beside this.
        let partial = file.with_extension(format!("{}.partial", uuid::Uuid::new_v4().simple()));
        control
            .write_bundle(&[base], &[(name.as_str(), tip)], &partial)
            .map_err(|error| Failure::from_error(error.reason(), &error))?;
        std::fs::rename(&partial, &file).map_err(|error| Failure::io(&partial, &error))
    });
    let timed_out = || Failure::new(Reason::IoError, format!("not written within {} s", limit.as_secs()));
    let path = match tokio::time::timeout(limit, bundled).await.unwrap_or_else(|_| Err(timed_out())) {
        Ok(()) => bundle,
        Err(failure) => {
            let control = context.control_repository_path(RepositoryRole::Target);
            notes.push(format!(
                "no bundle ({}); commit {tip} is `{branch}` in `{}`",
                failure.message,
                control.display()
            ));
            control
        }
    };
    Work {
        location: WorkLocation::Workspace,
        branch: Some(prepared.branch.clone()),
        oid: Some(tip.to_string()),
        path: Some(path.display().to_string()),
    }
}
