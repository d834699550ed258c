//! Step `preflight`: checks access and credentials before the model is used.

use std::time::Duration;

use orchestrator_contract::names::Transport;
use orchestrator_contract::task::{Mode, PullRequestPolicy};
use orchestrator_contract::{BranchName, Kind, Reason, RepositoryUrl, http_url, variables};

use super::branch::branch_of;
use super::fetch::blocking;
use super::lock::{LockError, WorkspaceLock, lock_workspace};
use super::reserve;
use super::transient::with_retries;
use crate::config::{ModelAuth, ModelCredential};
use crate::context::{Context, RepositoryRole};
use crate::failure::Failure;
use crate::git::{Credentials, Remote, RemoteRefs};
use crate::mcp::catalog::Catalog;
use crate::mcp::installed::find_command;
use crate::publish::policy::Policy;
use crate::sandbox::Requirement;
use crate::site::Site;

/// State of the remotes at the start of the run, and the workspace lock.
#[derive(Debug)]
pub struct Preflight {
    /// Lock on the workspace, held until this is dropped.
    pub lock: WorkspaceLock,
    /// Refs of the target.
    pub target: RemoteRefs,
    /// Base branch.
    pub base: String,
    /// Branch of this attempt.
    pub branch: String,
    /// Branch of the platform repository.
    pub platform_branch: String,
    /// Path of the Claude Code CLI.
    pub claude: std::path::PathBuf,
}

/// Runs all checks.
///
/// # Errors
/// Returns the first failed check, with its reason.
pub async fn check(context: &Context) -> Result<Preflight, Failure> {
    if let Some(refused) = &context.sandbox.refused {
        return Err(Failure::new(Reason::SandboxUnavailable, refused.clone()));
    }
    check_urls(context)?;
    make_folders(context)?;
    let lock = lock(context).await?;
    context.clock.start();
    if let Err(error) = reserve::allocate(&context.layout) {
        context.journal.warn(format!("no disk reserve for the end of the run: {error}"));
    }
    for site in context.sites() {
        site.connect().await?;
    }
    let claude = find_claude(context).await?;
    check_model(context)?;
    catalogue(context)?;
    Policy::new(context.redactor.clone(), &context.task.protected_paths, &context.task.protected_paths_allow)
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
                "branch `{branch}` already exists on `{}`, but no earlier attempt is recorded: \
                     submit with retry to continue it, or with fresh to use a new branch",
                task.target.url
            ),
        ));
    }
    Ok(Preflight { lock, target, base, branch, platform_branch, claude })
}

/// Rejects URLs that would show a credential to the network. Repository URLs were checked when they were parsed.
fn check_urls(context: &Context) -> Result<(), Failure> {
    let settings = &context.settings;
    for (name, url) in [
        (variables::GITHUB_API_URL, settings.github_api_url.trim()),
        ("ANTHROPIC_BASE_URL", context.inherited.text("ANTHROPIC_BASE_URL").unwrap_or_default().trim()),
    ] {
        if !url.is_empty() && http_url::parse_secure(url).is_none() {
            let message = format!(
                "invalid {name} `{url}`: it receives a credential; use https, or http to a loopback address"
            );
            return Err(Failure::new(Reason::InvalidConfiguration, message));
        }
    }
    Ok(())
}

fn make_folders(context: &Context) -> Result<(), Failure> {
    let layout = &context.layout;
    for folder in [
        layout.supervisor_dir(),
        layout.runs(),
        context.record.folder().to_owned(),
        layout.tools_dir(),
        layout.sessions(),
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
    let on_wait = |holder: &str| journal.waiting_for(holder);
    lock_workspace(&context.layout, &context.task.run, limit, on_wait).await.map_err(|error| match &error {
        LockError::Busy { .. } => Failure::from_error(Reason::WorkspaceBusy, &error),
        LockError::Unusable { .. } => Failure::from_error(Reason::WorkspaceUnwritable, &error),
    })
}

async fn find_claude(context: &Context) -> Result<std::path::PathBuf, Failure> {
    let command = context.settings.claude.to_string_lossy().into_owned();
    let found = match &context.agent_site {
        Site::Machine { .. } => find_command(&command, &context.inherited.path()),
        Site::Container(site) => {
            let (site, name) = (site.clone(), command.clone());
            blocking(move || site.find_program(&name)).await?
        }
    };
    found.ok_or_else(|| {
        let message = format!("Claude Code CLI `{command}` not found, or not executable");
        Failure::new(Reason::AgentCliNotFound, message)
    })
}

fn check_model(context: &Context) -> Result<(), Failure> {
    let model =
        context.secrets.model().map_err(|error| Failure::from_error(Reason::CredentialMissing, &error))?;
    if let Some(credential) = &model {
        refuse_cloud_credential(context.settings.sandbox, credential)?;
    }
    model.map(drop).ok_or_else(|| {
        let message = "missing model credential: set ANTHROPIC_API_KEY, a file with it, \
                       CLAUDE_CODE_OAUTH_TOKEN, ANTHROPIC_AUTH_TOKEN with ANTHROPIC_BASE_URL, Bedrock or Vertex";
        Failure::new(Reason::CredentialMissing, message)
    })
}

/// Refuses a credential that the agent could read, unless the sandbox is not required.
fn refuse_cloud_credential(sandbox: Requirement, credential: &ModelCredential) -> Result<(), Failure> {
    match (sandbox, &credential.auth) {
        (Requirement::Required, ModelAuth::CloudSigned) => Err(Failure::new(
            Reason::InvalidConfiguration,
            format!(
                "{} requests do not pass the gateway, which a required sandbox needs. Set ANTHROPIC_API_KEY or \
                 CLAUDE_CODE_OAUTH_TOKEN, or use `--sandbox best-effort`: then the agent can read the cloud \
                 credential, and the cost limit relies on the figures of the CLI",
                credential.kind
            ),
        )),
        (Requirement::BestEffort | Requirement::Off, ModelAuth::CloudSigned)
        | (_, ModelAuth::ApiKey(_) | ModelAuth::Bearer(_) | ModelAuth::OAuth(_)) => Ok(()),
    }
}

/// Reads the MCP server catalog: built-in servers and those of the configured directory.
///
/// # Errors
/// Returns an error if a configuration is malformed, naming file and server.
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

/// Checks the credentials for the forge: its REST API needs a token, even if git uses SSH.
fn check_forge(context: &Context) -> Result<(), Failure> {
    let url = &context.task.target.url;
    let creates = context.task.pull_request == PullRequestPolicy::Create;
    let on_github = crate::publish::pull_request::forge_of(context).is_some();
    let token =
        context.target_token().map_err(|error| Failure::from_error(Reason::CredentialMissing, &error))?;
    if creates && on_github && token.is_none() {
        return Err(Failure::new(
            Reason::CredentialMissing,
            format!(
                "a pull request on `{url}` needs a GitHub token: set GITHUB_TOKEN or --github-token-file, \
                 or disable the pull request"
            ),
        ));
    }
    if url.transport() == Transport::Ssh
        && context.secrets.path(orchestrator_contract::secrets::SSH_KEY).is_none()
    {
        let message =
            format!("`{url}` needs an SSH key: set --ssh-key-file, or use the https URL with a token");
        return Err(Failure::new(Reason::CredentialMissing, message));
    }
    Ok(())
}

/// Timeout for GitHub's REST API; problems not found by then show when the pull request is opened.
const FORGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks what git cannot: whether the repository is archived and the token works for the API.
async fn check_repository_access(context: &Context) -> Result<(), Failure> {
    if context.task.pull_request == PullRequestPolicy::None {
        return Ok(());
    }
    let Some((forge, repository)) = crate::publish::pull_request::forge_of(context) else { return Ok(()) };
    match tokio::time::timeout(FORGE_TIMEOUT, forge.check(&repository)).await {
        Ok(Ok(access)) if access.archived => {
            let url = &context.task.target.url;
            let message = format!("`{url}` is archived: it accepts neither pushes nor pull requests");
            Err(Failure::new(Reason::PermissionDenied, message))
        }
        // An unavailable API is not a failure; a rejected token or repository is.
        Ok(Err(error)) if error.check_reason() == Reason::RemoteUnavailable => {
            context
                .journal
                .warn(format!("cannot check repository access: {}", crate::failure::error_chain(&error)));
            Ok(())
        }
        Ok(Err(error)) => Err(Failure::from_error(error.check_reason(), &error)),
        Ok(Ok(_)) => Ok(()),
        Err(_) => {
            context.journal.warn("cannot check repository access: no response from the REST API".to_owned());
            Ok(())
        }
    }
}

/// Lists the refs of both repositories and checks push access, concurrently.
async fn list_remotes(context: &Context) -> Result<(RemoteRefs, RemoteRefs), Failure> {
    let list = |remote: Remote, credentials: Credentials| async move { remote.list_refs(&credentials).await };
    let check_push =
        |remote: Remote, credentials: Credentials| async move { remote.check_push(&credentials).await };
    let (target, push, platform) = tokio::join!(
        with_retries(context, RepositoryRole::Target, list),
        with_retries(context, RepositoryRole::Target, check_push),
        with_retries(context, RepositoryRole::Platform, list),
    );
    let target = target?;
    push?;
    Ok((target, platform?))
}

/// Returns the requested branch if it exists, or the default branch.
fn choose_branch(
    url: &RepositoryUrl,
    requested: Option<&BranchName>,
    refs: &RemoteRefs,
) -> Result<String, Failure> {
    let not_found = |message: String| Failure::new(Reason::BranchNotFound, message);
    match requested {
        Some(branch) if refs.branch(branch.as_str()).is_some() => Ok(branch.to_string()),
        Some(branch) => {
            let heads = refs.refs.iter().filter_map(|found| found.name.strip_prefix("refs/heads/"));
            let names: Vec<&str> = heads.take(20).collect();
            Err(not_found(format!("`{url}` has no branch `{branch}`; branches: {}", names.join(", "))))
        }
        None => refs
            .default_branch
            .as_deref()
            .map(|name| name.strip_prefix("refs/heads/").unwrap_or(name).to_owned())
            .ok_or_else(|| {
                not_found(format!("`{url}` has no default branch: specify a branch, unless it is empty"))
            }),
    }
}
