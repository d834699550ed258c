//! Steps `platform` and `target`: only what is needed is fetched, into repositories of our own.

use git2::Oid;
use orchestrator_contract::outcome::Revision;
use orchestrator_contract::task::Mode;
use orchestrator_contract::{Reason, RepositoryUrl};

use super::retry::with_retries;
use crate::context::{Context, RepositoryRole};
use crate::failure::Failure;
use crate::git::checkout::export_tree;
use crate::git::{ControlRepository, Credentials, Remote};

/// Deepest history that is fetched in the search for a common ancestor, step by step.
const DEEPEN: [u32; 3] = [50, 500, i32::MAX as u32];

/// The code that was fetched.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The branch of this attempt.
    pub branch: String,
    /// The base branch at the commit that the run starts from.
    pub base: Revision,
    /// The base's commit.
    pub base_oid: Oid,
    /// The task's branch on the remote, for a retry.
    pub remote_tip: Option<Oid>,
}

/// Where a remote's branch is kept in a control repository.
pub(crate) fn tracking(branch: &str) -> String {
    format!("refs/remotes/origin/{branch}")
}

fn refspec(branch: &str) -> String {
    format!("+refs/heads/{branch}:{}", tracking(branch))
}

/// Opens one of our control repositories, which may be new.
pub(crate) fn open(context: &Context, side: RepositoryRole) -> Result<ControlRepository, Failure> {
    let url = match side {
        RepositoryRole::Platform => &context.task.platform.url,
        RepositoryRole::Target => &context.task.target.url,
    };
    let opened = ControlRepository::open(&context.control_repository_path(side), url)
        .map_err(|error| Failure::from_error(error.reason(), &error))?;
    Ok(opened.into_repository())
}

async fn fetch_into(
    context: &Context,
    side: RepositoryRole,
    branches: &[&str],
    depth: u32,
) -> Result<(), Failure> {
    let control = context.control_repository_path(side);
    let refspecs: Vec<String> = branches.iter().map(|branch| refspec(branch)).collect();
    let fetch = |remote: Remote, credentials: Credentials| {
        let (control, refspecs) = (&control, &refspecs);
        async move { remote.fetch(control, refspecs, Some(depth), &credentials, &mut |_| {}).await }
    };
    with_retries(context, side, fetch).await.map(drop)
}

fn tip(control: &ControlRepository, url: &RepositoryUrl, branch: &str) -> Result<Oid, Failure> {
    let found = control
        .resolve_ref(&tracking(branch))
        .map_err(|error| Failure::from_error(error.reason(), &error))?;
    found.ok_or_else(|| {
        Failure::new(Reason::BranchNotFound, format!("`{url}` has no branch `{branch}` any more"))
    })
}

/// Fetches the documentation and lays it out for the agent to read.
///
/// # Errors
/// It cannot be fetched or written.
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

/// Fetches the base, and for a retry the task's branch, deep enough to know how they are related.
///
/// # Errors
/// They cannot be fetched.
pub async fn fetch_target(
    context: &Context,
    base: &str,
    branch: &str,
    branch_on_remote: impl Fn(&str) -> bool,
) -> Result<Fetched, Failure> {
    let url = &context.task.target.url;
    drop(open(context, RepositoryRole::Target)?);
    let wanted = context.task.mode == Mode::Retry && branch_on_remote(branch);
    let mut branches = vec![base];
    if wanted {
        branches.push(branch);
    }
    let mut depth = context.task.target.depth;
    if context.task.mode == Mode::Retry {
        depth = depth.max(DEEPEN[0]);
    }
    fetch_into(context, RepositoryRole::Target, &branches, depth).await?;
    for deeper in DEEPEN.into_iter().filter(|deeper| wanted && *deeper > depth) {
        let control = open(context, RepositoryRole::Target)?;
        let (ours, theirs) = (tip(&control, url, branch)?, tip(&control, url, base)?);
        if control
            .merge_base(ours, theirs)
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
    let remote_tip = if wanted { Some(tip(&control, url, branch)?) } else { None };
    let base = Revision { url: url.to_string(), branch: base.to_owned(), oid: base_oid.to_string() };
    Ok(Fetched { branch: branch.to_owned(), base, base_oid, remote_tip })
}

/// Runs work that blocks without holding up the event loop.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Failure::new(Reason::InternalError, format!("a step broke off: {error}")))
    })
}
