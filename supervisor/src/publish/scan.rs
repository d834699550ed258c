//! Step `policy`: checks everything that a push would publish.

use std::ops::ControlFlow;

use orchestrator_contract::Reason;

use super::policy::{Policy, ScannedBlob, ScannedCommit, policy_failure};
use super::save::SavedWork;
use crate::context::{Context, RepositoryRole};
use crate::failure::Failure;
use crate::git::{ControlRepository, NewObject, Oid};
use crate::workspace::fetch::open;

/// Findings after which the scan ends; the message shows only the first few.
const MAX_FINDINGS: usize = 20;

/// Checks every commit, path and blob between base and tip.
///
/// # Errors
/// Returns a failure that names the findings, or an error if an object cannot be read.
pub fn scan(context: &Context, base: Oid, saved: &SavedWork) -> Result<(), Failure> {
    if let Some(path) = saved.changed_lfs.first() {
        let message =
            format!("cannot push the change of Git LFS file `{path}`: its content is not a pointer");
        return Err(Failure::new(Reason::UnsupportedRepository, message));
    }
    let control = open(context, RepositoryRole::Target)?;
    let policy = Policy::new(context.redactor.clone(), &context.task.protected_paths)
        .map_err(|error| Failure::from_error(error.reason(), &error))?;
    let findings = scan_objects(&control, &policy, base, saved.tip)?;
    match policy_failure(&findings) {
        Some((reason, message)) => Err(Failure::new(reason, message)),
        None => Ok(()),
    }
}

fn scan_objects(
    control: &ControlRepository,
    policy: &Policy,
    base: Oid,
    tip: Oid,
) -> Result<Vec<super::policy::Finding>, Failure> {
    let mut findings = Vec::new();
    let mut visit = |object: NewObject<'_>| {
        match object {
            NewObject::Commit { oid, header: _, message, author, committer } => {
                findings.extend(policy.check_commit(&ScannedCommit {
                    oid: &oid.to_string(),
                    message,
                    author: (author.name, author.email),
                    committer: (committer.name, committer.email),
                }));
            }
            NewObject::Blob { path, oid: _, size: _, data } => {
                findings.extend(policy.check_blob(&ScannedBlob { path, data }));
            }
            // A path can contain a secret too. Protected paths are checked below, for the whole branch.
            NewObject::Path(path) => findings.extend(policy.check_blob(&ScannedBlob { path, data: path })),
        }
        if findings.len() >= MAX_FINDINGS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let git = |error: crate::git::GitError| Failure::from_error(error.reason(), &error);
    control.walk_new(Some(base), tip, &mut visit).map_err(git)?;
    for path in control.changed_paths(base, tip).map_err(git)? {
        findings.extend(policy.check_path(&path));
    }
    Ok(findings)
}
