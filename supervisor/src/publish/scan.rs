//! Step `policy`: checks everything that a push would publish.

use std::ops::ControlFlow;

use orchestrator_contract::Reason;
use tokio_util::sync::CancellationToken;

use super::policy::{Finding, Policy, ScannedBlob, ScannedCommit, policy_failure};
use super::save::SavedWork;
use crate::context::{Context, RepositoryRole};
use crate::failure::Failure;
use crate::git::{ControlRepository, NewObject, Oid};
use crate::workspace::fetch::open;

/// Findings after which the scan ends; the message shows only the first few.
const MAX_FINDINGS: usize = 20;

/// Maximum files that the notes name as unreadable.
const MAX_UNREAD: usize = 10;

/// Maximum bytes that are unpacked beyond a multiple of the size of each blob, for all of them.
const MAX_UNPACKED: u64 = 2 * 1024 * 1024 * 1024;

/// Checks every commit, path and blob between base and tip; returns notes about what it cannot read.
///
/// # Errors
/// Returns a failure that names the findings, or an error if an object cannot be read or the scan is
/// cancelled.
pub fn scan(
    context: &Context,
    base: Oid,
    saved: &SavedWork,
    cancel: &CancellationToken,
) -> Result<Vec<String>, Failure> {
    if let Some(path) = saved.changed_lfs.first() {
        let message =
            format!("cannot push the change of Git LFS file `{path}`: its content is not a pointer");
        return Err(Failure::new(Reason::UnsupportedRepository, message));
    }
    let control = open(context, RepositoryRole::Target)?;
    let task = &context.task;
    let policy = Policy::new(context.redactor.clone(), &task.protected_paths, &task.protected_paths_allow)
        .map_err(|error| Failure::from_error(error.reason(), &error))?;
    let (findings, unread) = scan_objects(&control, &policy, (base, saved.tip), cancel)?;
    match policy_failure(&findings) {
        Some((reason, message)) => Err(Failure::new(reason, message)),
        None => Ok(unread_note(&unread).into_iter().collect()),
    }
}

/// Returns a note about files that could not be read.
fn unread_note(unread: &[String]) -> Option<String> {
    let named = unread.iter().take(MAX_UNREAD).cloned().collect::<Vec<_>>().join(", ");
    let more = unread.len().saturating_sub(MAX_UNREAD);
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    (!unread.is_empty()).then(|| format!("could not look for secrets inside {named}{more}"))
}

/// Checks the objects between two commits; returns findings, and files that could not be read.
///
/// # Errors
/// Returns an error if an object cannot be read, or the scan is cancelled: between blobs it ends early.
pub fn scan_objects(
    control: &ControlRepository,
    policy: &Policy,
    (base, tip): (Oid, Oid),
    cancel: &CancellationToken,
) -> Result<(Vec<Finding>, Vec<String>), Failure> {
    let (mut findings, mut unread) = (Vec::new(), Vec::new());
    let mut left = MAX_UNPACKED;
    let mut visit = |object: NewObject<'_>| {
        match object {
            NewObject::Commit { oid, header, message, author, committer } => {
                findings.extend(policy.check_commit(&ScannedCommit {
                    oid: &oid.to_string(),
                    header,
                    message,
                    author: (author.name, author.email),
                    committer: (committer.name, committer.email),
                }));
            }
            NewObject::Blob { path, oid: _, size: _, data } => {
                let checked = policy.inspect_blob(&ScannedBlob { path, data }, left);
                left = left.saturating_sub(checked.decoded);
                findings.extend(checked.findings);
                unread.extend(checked.unread);
            }
            // A path can contain a secret too. Protected paths are checked below, for the whole branch.
            NewObject::Path(path) => findings.extend(policy.check_name(path)),
        }
        if findings.len() >= MAX_FINDINGS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let git = |error: crate::git::GitError| Failure::from_error(error.reason(), &error);
    control.walk_new(Some(base), tip, &|| !cancel.is_cancelled(), &mut visit).map_err(git)?;
    if cancel.is_cancelled() {
        return Err(Failure::new(Reason::Stopped, "the check of the commits was cancelled"));
    }
    for path in control.changed_paths(base, tip).map_err(git)? {
        findings.extend(policy.check_path(&path));
    }
    Ok((findings, unread))
}
