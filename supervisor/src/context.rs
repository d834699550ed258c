//! What every step of a run needs and none of them changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use orchestrator_contract::layout::{Layout, RunDir};
use orchestrator_contract::names::Transport;
use orchestrator_contract::outcome::{McpServer, Revision};
use orchestrator_contract::{Kind, Reason, RepositoryUrl, TaskSpec};

use secrecy::SecretString;

use crate::config::{ProcessEnv, RunArguments, SecretError, SecretSource, token_allowed_for_host};
use crate::docs::collect::DocsBranch;
use crate::docs::plan::Plan;
use crate::docs::usage::PreviousDocs;
use crate::git::{Credentials, Remote, RemoteSettings};
use crate::mcp::relay::RelayHost;
use crate::record::EventLog;
use crate::redact::Redactor;
use crate::run::Failure;
use crate::workspace::documents::TaskDocuments;

/// What every step of a run needs.
#[derive(Clone, Debug)]
pub struct Context {
    /// The task.
    pub task: TaskSpec,
    /// The settings of this process.
    pub settings: RunArguments,
    /// The environment as it was at the start.
    pub inherited: ProcessEnv,
    /// Where things are in the workspace.
    pub layout: Layout,
    /// Where the run's record is.
    pub record: RunDir,
    /// Where credentials are read, at every use.
    pub secrets: SecretSource,
    /// Masks them.
    pub redactor: Redactor,
    /// Where events go.
    pub journal: EventLog,
    /// Our own program, which we call for network git, confinement and relays.
    pub supervisor: PathBuf,
    /// How remotes are reached.
    pub remotes: RemoteSettings,
}

/// Which repository is meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RepositoryRole {
    /// The task's documents.
    Platform,
    /// The code.
    Target,
}

impl Context {
    /// A repository elsewhere.
    #[must_use]
    pub fn remote(&self, side: RepositoryRole) -> Remote {
        Remote::new(self.remote_url(side).clone(), self.remotes.clone())
    }

    fn remote_url(&self, side: RepositoryRole) -> &RepositoryUrl {
        match side {
            RepositoryRole::Platform => &self.task.platform.url,
            RepositoryRole::Target => &self.task.target.url,
        }
    }

    /// Whether the token for a repository is for its host.
    fn token_allowed(&self, side: RepositoryRole) -> bool {
        let url = self.remote_url(side);
        match url.transport() {
            Transport::Http => url.host().is_some_and(|host| {
                token_allowed_for_host(&host, &self.settings.github_api_url, &self.settings.git_hosts)
            }),
            // No token goes there anyway.
            Transport::Ssh | Transport::Local => true,
        }
    }

    /// The credentials for a repository, read now.
    ///
    /// # Errors
    /// A named file cannot be read.
    pub fn credentials(&self, side: RepositoryRole) -> Result<Credentials, Failure> {
        let token = match side {
            RepositoryRole::Platform => self.secrets.platform_token(),
            RepositoryRole::Target => self.target_token(),
        };
        let mut token = token.map_err(|error| failure(Reason::CredentialMissing, &error))?;
        if token.is_some() && !self.token_allowed(side) {
            let host = self.remote_url(side).host().unwrap_or_else(|| self.remote_url(side).to_string());
            match side {
                RepositoryRole::Target => {
                    return Err(Failure::new(
                        Reason::CredentialMissing,
                        format!(
                            "the git token is not shown to `{host}`: it is for github.com. If it is for that \
                             host, name it with --git-hosts, ORCHESTRATOR_GIT_HOSTS or `git_hosts` of the agent"
                        ),
                    ));
                }
                // Documentation that everybody may read needs none.
                RepositoryRole::Platform => token = None,
            }
        }
        if let Some(token) = &token {
            // A rotated token must be masked from its first use on.
            self.redactor.add("github token", token.clone());
        }
        Ok(Credentials {
            token,
            username: None,
            ssh_key: self.secrets.path(orchestrator_contract::secrets::SSH_KEY),
            known_hosts: self.secrets.path(orchestrator_contract::secrets::KNOWN_HOSTS),
        })
    }

    /// The token of the repository that is written; a docs run writes the platform.
    ///
    /// # Errors
    /// The file that holds it cannot be read.
    pub fn target_token(&self) -> Result<Option<SecretString>, SecretError> {
        match self.task.kind {
            Kind::Implementation => self.secrets.read(orchestrator_contract::secrets::GITHUB_TOKEN),
            Kind::Docs => self.secrets.platform_token(),
        }
    }

    /// The working tree of this kind of run.
    #[must_use]
    pub fn worktree(&self) -> PathBuf {
        match self.task.kind {
            Kind::Implementation => self.layout.target_repo(),
            Kind::Docs => self.layout.docs_repo(),
        }
    }

    /// Where it is recorded what that tree holds.
    #[must_use]
    pub fn tree_state(&self) -> PathBuf {
        match self.task.kind {
            Kind::Implementation => self.layout.state(),
            Kind::Docs => self.layout.docs_state(),
        }
    }

    /// One of our control repositories. A docs run reads and writes the same one.
    #[must_use]
    pub fn control_repository_path(&self, side: RepositoryRole) -> PathBuf {
        match (self.task.kind, side) {
            (Kind::Docs, _) => self.layout.docs_control(),
            (Kind::Implementation, RepositoryRole::Platform) => self.layout.platform_control(),
            (Kind::Implementation, RepositoryRole::Target) => self.layout.target_control(),
        }
    }

    /// The folder in the working tree where the agent works.
    #[must_use]
    pub fn working_directory(&self, relative: &str) -> PathBuf {
        let root = self.worktree();
        if relative.is_empty() { root } else { root.join(relative) }
    }
}

/// What the steps have found out so far; the event loop owns it.
#[derive(Debug, Default)]
pub struct StepOutputs {
    /// The remotes as they were at the start.
    pub checked: Option<crate::workspace::preflight::Preflight>,
    /// The documentation in use.
    pub platform: Option<Revision>,
    /// The code that was fetched.
    pub target: Option<crate::workspace::fetch::Fetched>,
    /// The branch and its tree.
    pub prepared: Option<crate::workspace::branch::PreparedBranch>,
    /// The task's documents.
    pub documents: Option<TaskDocuments>,
    /// In a docs run, the documents that are to be written.
    pub writing: Option<DocsRun>,
    /// The agent's tools.
    pub tools: Option<AgentTools>,
}

/// The documents that a docs run writes.
#[derive(Clone, Debug)]
pub struct DocsRun {
    /// What there is to write.
    pub plan: Arc<Plan>,
    /// What earlier attempts wrote.
    pub earlier: PreviousDocs,
    /// The branch as it grows.
    pub branch: DocsBranch,
}

/// The agent's MCP servers, ready.
#[derive(Debug)]
pub struct AgentTools {
    /// What the outcome says about them.
    pub servers: Vec<McpServer>,
    /// Name and description of those that are there.
    pub described: Vec<(String, String)>,
    /// Runs those with secrets.
    pub relay: RelayHost,
    /// Longest call of a tool, in milliseconds.
    pub tool_timeout_ms: Option<u128>,
}

/// A failure with an error's whole chain as its message.
#[must_use]
pub fn failure(reason: Reason, error: &dyn std::error::Error) -> Failure {
    Failure::new(reason, error_chain(error))
}

/// An error and its causes in one line.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some errors repeat their source.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The reason of an input or output error, where nothing better is known.
#[must_use]
pub fn io_reason(error: &std::io::Error) -> Reason {
    use std::io::ErrorKind;
    if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        Reason::DiskFull
    } else if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) {
        Reason::WorkspaceUnwritable
    } else {
        Reason::IoError
    }
}

/// A failure of the workspace's disk, with the path.
#[must_use]
pub fn io_failure(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(io_reason(error), format!("cannot use `{}`: {error}", path.display()))
}
