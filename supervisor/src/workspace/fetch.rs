//! Steps `fetch_platform` and `fetch_target`: fetch only what is needed, into control repositories.

use orchestrator_contract::outcome::Revision;
use orchestrator_contract::task::Mode;
use orchestrator_contract::{Reason, RepositoryUrl};

use super::transient::with_retries;
use crate::context::{Context, RepositoryRole};
use crate::failure::Failure;
use crate::git::checkout::export_tree;
use crate::git::{ControlRepository, Credentials, Oid, Remote};

/// Fetch depths to try, in order, until branch and base have a merge base.
const DEEPEN_STEPS: [u32; 3] = [50, 500, i32::MAX as u32];

/// Fetched target.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Branch of this attempt.
    pub branch: String,
    /// Base branch, at the fetched commit.
    pub base: Revision,
    /// Commit of the base branch.
    pub base_oid: Oid,
    /// Commit of the branch on the remote, for a retry.
    pub remote_tip: Option<Oid>,
}

/// Returns the tracking ref of a remote branch in a control repository.
pub(crate) fn tracking(branch: &str) -> String {
    format!("refs/remotes/origin/{branch}")
}

fn refspec(branch: &str) -> String {
    format!("+refs/heads/{branch}:{}", tracking(branch))
}

/// Opens a control repository, or creates it.
pub(crate) fn open(context: &Context, role: RepositoryRole) -> Result<ControlRepository, Failure> {
    let url = match role {
        RepositoryRole::Platform => &context.task.platform.url,
        RepositoryRole::Target => &context.task.target.url,
    };
    let opened = ControlRepository::open(&context.control_repository_path(role), url)
        .map_err(|error| Failure::from_error(error.reason(), &error))?;
    Ok(opened.into_repository())
}

async fn fetch_into(
    context: &Context,
    role: RepositoryRole,
    branches: &[&str],
    depth: u32,
) -> Result<(), Failure> {
    let control = context.control_repository_path(role);
    let refspecs: Vec<String> = branches.iter().map(|branch| refspec(branch)).collect();
    let fetch = |remote: Remote, credentials: Credentials| {
        let (control, refspecs) = (&control, &refspecs);
        async move { remote.fetch(control, refspecs, Some(depth), &credentials, &mut |_| {}).await }
    };
    with_retries(context, role, fetch).await.map(drop)
}

fn tip(control: &ControlRepository, url: &RepositoryUrl, branch: &str) -> Result<Oid, Failure> {
    let found = control
        .resolve_ref(&tracking(branch))
        .map_err(|error| Failure::from_error(error.reason(), &error))?;
    found.ok_or_else(|| {
        Failure::new(Reason::BranchNotFound, format!("`{url}` no longer has branch `{branch}`"))
    })
}

/// Fetches a branch of the platform repository and exports it for the agent to read.
///
/// # Errors
/// Returns an error if it cannot be fetched or written.
pub async fn fetch_platform(context: &Context, branch: &str) -> Result<Revision, Failure> {
    let url = &context.task.platform.url;
    drop(open(context, RepositoryRole::Platform)?);
    fetch_into(context, RepositoryRole::Platform, &[branch], 1).await?;
    let oid = {
        let context = context.clone();
        let branch = branch.to_owned();
        blocking(move || {
            let control = open(&context, RepositoryRole::Platform)?;
            let oid = tip(&control, &context.task.platform.url, &branch)?;
            export_tree(&control, oid, &context.layout.platform_repo())
                .map_err(|error| Failure::from_error(error.reason(), &error))?;
            Ok(oid)
        })
        .await?
    };
    Ok(Revision { url: url.to_string(), branch: branch.to_owned(), oid: oid.to_string() })
}

/// Fetches the base branch, and for a retry the task branch, deep enough for a merge base.
///
/// # Errors
/// Returns an error if a branch cannot be fetched.
pub async fn fetch_target(
    context: &Context,
    base: &str,
    branch: &str,
    branch_on_remote: impl Fn(&str) -> bool,
) -> Result<Fetched, Failure> {
    let url = &context.task.target.url;
    drop(open(context, RepositoryRole::Target)?);
    let fetch_branch = context.task.mode == Mode::Retry && branch_on_remote(branch);
    let mut branches = vec![base];
    if fetch_branch {
        branches.push(branch);
    }
    let mut depth = context.task.target.depth;
    if context.task.mode == Mode::Retry {
        depth = depth.max(DEEPEN_STEPS[0]);
    }
    fetch_into(context, RepositoryRole::Target, &branches, depth).await?;
    for deeper in DEEPEN_STEPS.into_iter().filter(|deeper| fetch_branch && *deeper > depth) {
        let control = open(context, RepositoryRole::Target)?;
        let (branch_tip, base_tip) = (tip(&control, url, branch)?, tip(&control, url, base)?);
        if control
            .merge_base(branch_tip, base_tip)
            .map_err(|error| Failure::from_error(error.reason(), &error))?
            .is_some()
        {
            break;
        }
        drop(control);
        fetch_into(context, RepositoryRole::Target, &branches, deeper).await?;
    }
    let control = open(context, RepositoryRole::Target)?;
    let base_oid = tip(&control, url, base)?;
    let remote_tip = if fetch_branch { Some(tip(&control, url, branch)?) } else { None };
    let base = Revision { url: url.to_string(), branch: base.to_owned(), oid: base_oid.to_string() };
    Ok(Fetched { branch: branch.to_owned(), base, base_oid, remote_tip })
}

/// Runs blocking work on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Failure::new(Reason::InternalError, format!("a step panicked: {error}"))))
}
