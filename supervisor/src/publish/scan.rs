//! Step `policy`: looks at everything that a push would publish.

use std::ops::ControlFlow;

use git2::Oid;
use orchestrator_contract::Reason;

use super::policy::{Policy, ScannedBlob, ScannedCommit, policy_failure};
use super::save::SavedWork;
use crate::context::{Context, RepositoryRole};
use crate::failure::Failure;
use crate::git::{ControlRepository, NewObject};
use crate::workspace::fetch::open;

/// Findings after which no more are looked for: a person needs the first few.
const FINDINGS: usize = 20;

/// Checks every commit, name and content between base and tip.
///
/// # Errors
/// The findings, or that the objects cannot be read.
pub fn scan(context: &Context, base: Oid, saved: &SavedWork) -> Result<(), Failure> {
    if let Some(path) = saved.changed_lfs.first() {
        let message = format!(
            "`{path}` belongs to large-file storage and was changed: its content cannot be pushed from here"
        );
        return Err(Failure::new(Reason::UnsupportedRepository, message));
    }
    let control = open(context, RepositoryRole::Target)?;
    let policy = Policy::new(context.redactor.clone(), &context.task.protected_paths)
        .map_err(|error| Failure::from_error(error.reason(), &error))?;
    let findings = find(&control, &policy, base, saved.tip)?;
    match policy_failure(&findings) {
        Some((reason, message)) => Err(Failure::new(reason, message)),
        None => Ok(()),
    }
}

fn find(
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
            // A name can be a secret too; whether it may change is asked of the whole change below.
            NewObject::Path(path) => findings.extend(policy.check_blob(&ScannedBlob { path, data: path })),
        }
        if findings.len() >= FINDINGS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let git = |error: crate::git::GitError| Failure::from_error(error.reason(), &error);
    control.walk_new(Some(base), tip, &mut visit).map_err(git)?;
    for path in control.changed_paths(base, tip).map_err(git)? {
        findings.extend(policy.check_path(&path));
    }
    Ok(findings)
}
