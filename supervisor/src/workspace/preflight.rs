//! Step `check`: everything that can be known before anything is spent.

use std::time::Duration;

use orchestrator_contract::names::Transport;
use orchestrator_contract::task::{Mode, PullRequestPolicy};
use orchestrator_contract::{BranchName, Kind, Reason, RepositoryUrl};

use super::branch::branch_of;
use super::lock::{LockError, WorkspaceLock, lock_workspace};
use super::retry::with_retries;
use crate::context::{Context, RepositoryRole};
use crate::failure::Failure;
use crate::git::{Credentials, Remote, RemoteRefs};
use crate::mcp::catalog::Catalog;
use crate::mcp::installed::find_command;
use crate::publish::patterns::Patterns;

/// The remotes as they were at the start, and our hold on the workspace.
#[derive(Debug)]
pub struct Preflight {
    /// The workspace is ours as long as this lives.
    pub lock: WorkspaceLock,
    /// The target's branches.
    pub target: RemoteRefs,
    /// The base branch.
    pub base: String,
    /// The branch of this attempt.
    pub branch: String,
    /// The platform's branch.
    pub platform_branch: String,
    /// The agent's program.
    pub claude: std::path::PathBuf,
}

/// Checks everything; the first fault found ends the run.
///
/// # Errors
/// What is missing or refused, with the reason.
pub async fn check(context: &Context) -> Result<Preflight, Failure> {
    make_folders(context)?;
    let lock = lock(context).await?;
    let claude = find_claude(context)?;
    check_model(context)?;
    catalogue(context)?;
    Patterns::new(context.task.protected_paths.iter().map(String::as_str))
        .map_err(|error| Failure::from_error(error.reason(), &error))?;
    check_forge(context)?;
    let (remotes, host) = tokio::join!(list_remotes(context), check_repository_access(context));
    let (target, platform) = remotes?;
    host?;
    let task = &context.task;
    let base = choose_branch(&task.target.url, task.target.base.as_ref(), &target)?;
    let platform_branch = match task.kind {
        Kind::Implementation => choose_branch(&task.platform.url, task.platform.branch.as_ref(), &platform)?,
        Kind::Docs => base.clone(),
    };
    let branch = branch_of(context, |branch| target.branch(branch).is_some())?;
    if (task.kind, task.mode) == (Kind::Implementation, Mode::First) && target.branch(&branch).is_some() {
        return Err(Failure::new(
            Reason::BranchExists,
            format!(
                "the branch `{branch}` is already on `{}`, although no attempt is known: \
                     submit with retry to build on it, or with fresh to start over on a new one",
                task.target.url
            ),
        ));
    }
    Ok(Preflight { lock, target, base, branch, platform_branch, claude })
}

fn make_folders(context: &Context) -> Result<(), Failure> {
    let layout = &context.layout;
    for folder in [
        layout.supervisor_dir(),
        layout.runs(),
        context.record.folder().to_owned(),
        layout.agent_home(&context.task.run),
        layout.agent_memory(),
        layout.agent_cache(),
        layout.agent_tmp(),
    ] {
        std::fs::create_dir_all(&folder).map_err(|error| {
            let mut failure = Failure::io(&folder, &error);
            if failure.reason == Reason::IoError {
                failure.reason = Reason::WorkspaceUnwritable;
            }
            failure
        })?;
    }
    Ok(())
}

async fn lock(context: &Context) -> Result<WorkspaceLock, Failure> {
    let limit =
        Duration::try_from_secs_f64(context.task.limits.queue_minutes * 60.0).unwrap_or(Duration::MAX);
    let journal = &context.journal;
    let waiting = |holder: &str| journal.waiting_for(holder);
    lock_workspace(&context.layout, &context.task.run, limit, waiting).await.map_err(|error| match &error {
        LockError::Busy { .. } => Failure::from_error(Reason::WorkspaceBusy, &error),
        LockError::Unusable { .. } => Failure::from_error(Reason::WorkspaceUnwritable, &error),
    })
}

fn find_claude(context: &Context) -> Result<std::path::PathBuf, Failure> {
    let named = context.settings.claude.to_string_lossy();
    find_command(&named, &context.inherited.path()).ok_or_else(|| {
        let message = format!("the Claude Code CLI `{named}` is not there, or is no program that may be run");
        Failure::new(Reason::AgentCliNotFound, message)
    })
}

fn check_model(context: &Context) -> Result<(), Failure> {
    let model =
        context.secrets.model().map_err(|error| Failure::from_error(Reason::CredentialMissing, &error))?;
    model.map(drop).ok_or_else(|| {
        let message = "there is no credential for the model: give ANTHROPIC_API_KEY, a file of it, \
                       CLAUDE_CODE_OAUTH_TOKEN, ANTHROPIC_AUTH_TOKEN with ANTHROPIC_BASE_URL, Bedrock or Vertex";
        Failure::new(Reason::CredentialMissing, message)
    })
}

/// The MCP servers there are.
///
/// # Errors
/// A configuration is malformed; file and server are named.
pub fn catalogue(context: &Context) -> Result<Catalog, Failure> {
    let read = || -> Result<Catalog, crate::mcp::catalog::CatalogError> {
        let mut catalogue = Catalog::built_in()?;
        if let Some(folder) = &context.settings.mcp_config_dir {
            catalogue.add_directory(folder)?;
        }
        Ok(catalogue)
    };
    read().map_err(|error| Failure::from_error(error.reason(), &error))
}

/// A pull request on GitHub needs a token for its REST interface, whatever git itself uses.
fn check_forge(context: &Context) -> Result<(), Failure> {
    let url = &context.task.target.url;
    let wanted = context.task.pull_request == PullRequestPolicy::Create;
    let on_github = crate::publish::pull_request::forge_of(context).is_some();
    let token =
        context.target_token().map_err(|error| Failure::from_error(Reason::CredentialMissing, &error))?;
    if wanted && on_github && token.is_none() {
        return Err(Failure::new(
            Reason::CredentialMissing,
            format!(
                "a pull request on `{url}` needs a GitHub token: give GITHUB_TOKEN or --github-token-file, \
                 or ask for no pull request"
            ),
        ));
    }
    if url.transport() == Transport::Ssh
        && context.secrets.path(orchestrator_contract::secrets::SSH_KEY).is_none()
    {
        let message =
            format!("`{url}` needs an SSH key: give --ssh-key-file, or use the https address with a token");
        return Err(Failure::new(Reason::CredentialMissing, message));
    }
    Ok(())
}

/// How long GitHub's REST interface may take to answer: what it says is found out early or, as
/// ever, when the pull request is opened.
const HOST_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks the host itself what git cannot tell: that it is archived, that the token is for git alone.
async fn check_repository_access(context: &Context) -> Result<(), Failure> {
    if context.task.pull_request == PullRequestPolicy::None {
        return Ok(());
    }
    let Some((forge, repository)) = crate::publish::pull_request::forge_of(context) else { return Ok(()) };
    match tokio::time::timeout(HOST_TIMEOUT, forge.check(&repository)).await {
        Ok(Ok(access)) if access.archived => {
            let url = &context.task.target.url;
            let message = format!("`{url}` is archived: nothing can be pushed to it, no pull request opened");
            Err(Failure::new(Reason::PermissionDenied, message))
        }
        // That it is away is no verdict; what it says about token and repository is.
        Ok(Err(error)) if error.check_reason() == Reason::RemoteUnavailable => {
            context
                .journal
                .warn(format!("the host cannot be asked: {}", crate::failure::error_chain(&error)));
            Ok(())
        }
        Ok(Err(error)) => Err(Failure::from_error(error.check_reason(), &error)),
        Ok(Ok(_)) => Ok(()),
        Err(_) => {
            context.journal.warn("the host's REST interface does not answer".to_owned());
            Ok(())
        }
    }
}

/// Asks all at once: the two lists of branches, and whether we may push.
async fn list_remotes(context: &Context) -> Result<(RemoteRefs, RemoteRefs), Failure> {
    let list = |remote: Remote, credentials: Credentials| async move { remote.list_refs(&credentials).await };
    let may_push =
        |remote: Remote, credentials: Credentials| async move { remote.check_push(&credentials).await };
    let (target, push, platform) = tokio::join!(
        with_retries(context, RepositoryRole::Target, list),
        with_retries(context, RepositoryRole::Target, may_push),
        with_retries(context, RepositoryRole::Platform, list),
    );
    let target = target?;
    push?;
    Ok((target, platform?))
}

/// The asked-for branch, or the remote's default.
fn choose_branch(
    url: &RepositoryUrl,
    asked: Option<&BranchName>,
    refs: &RemoteRefs,
) -> Result<String, Failure> {
    let not_found = |message: String| Failure::new(Reason::BranchNotFound, message);
    match asked {
        Some(branch) if refs.branch(branch.as_str()).is_some() => Ok(branch.to_string()),
        Some(branch) => {
            let heads = refs.refs.iter().filter_map(|found| found.name.strip_prefix("refs/heads/"));
            let names: Vec<&str> = heads.take(20).collect();
            Err(not_found(format!("`{url}` has no branch `{branch}`: it has {}", names.join(", "))))
        }
        None => refs
            .default_branch
            .as_deref()
            .map(|name| name.strip_prefix("refs/heads/").unwrap_or(name).to_owned())
            .ok_or_else(|| {
                not_found(format!("`{url}` names no default branch: it is empty, or give the branch"))
            }),
    }
}
