//! Immutable inputs of a run, shared by all steps.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use orchestrator_contract::layout::{Layout, RunDir};
use orchestrator_contract::names::Transport;
use orchestrator_contract::{Kind, Reason, RepositoryUrl, TaskSpec, variables};
use secrecy::SecretString;

use crate::agent::gateway::budget::Spending;
use crate::config::{ProcessEnv, RunArguments, SecretError, SecretSource, token_allowed_for_host};
use crate::failure::Failure;
use crate::git::{Credentials, Remote, RemoteSettings};
use crate::process::Environment;
use crate::record::EventLog;
use crate::redact::Redactor;
use crate::sandbox::{Places, Role, RunPlaces, SandboxSpec, SelectedSandbox, build};
use crate::site::Site;
use crate::workspace::clock::RunClock;

/// Task, settings and handles of one run; no step changes them.
#[derive(Clone, Debug)]
pub struct Context {
    pub task: TaskSpec,
    pub settings: RunArguments,
    /// Environment of this process at its start.
    pub inherited: ProcessEnv,
    pub layout: Layout,
    /// Directory of this run's record in the workspace.
    pub record: RunDir,
    /// Source of credentials, read again at every use.
    pub secrets: SecretSource,
    pub redactor: Redactor,
    pub journal: EventLog,
    /// Path of this executable, spawned for network git, confinement and relays.
    pub supervisor: PathBuf,
    /// Proxy and TLS settings of remotes.
    pub remotes: RemoteSettings,
    /// The sandbox of programs on this machine, chosen at the start.
    pub sandbox: SelectedSandbox,
    /// Where the agent and setup commands run.
    pub agent_site: Site,
    /// Where MCP servers run.
    pub tool_site: Site,
    /// Where verify commands run.
    pub verify_site: Site,
    /// Time since the run holds the workspace.
    pub clock: RunClock,
    /// What the conversations of the run spend, within its cost limit.
    pub spending: Spending,
}

/// What programs find where they run.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The search path for programs.
    pub path: OsString,
    pub rustup_home: Option<PathBuf>,
    /// Further variables; none is secret.
    pub variables: Environment,
}

/// Role of a repository in a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RepositoryRole {
    /// The repository that holds `.taskmaster`.
    Platform,
    /// The repository to change.
    Target,
}

impl Context {
    /// Returns the remote of a repository.
    #[must_use]
    pub fn remote(&self, role: RepositoryRole) -> Remote {
        Remote::new(self.remote_url(role).clone(), self.remotes.clone())
    }

    fn remote_url(&self, role: RepositoryRole) -> &RepositoryUrl {
        match role {
            RepositoryRole::Platform => &self.task.platform.url,
            RepositoryRole::Target => &self.task.target.url,
        }
    }

    /// Returns whether the repository's host may receive its token.
    fn token_allowed(&self, role: RepositoryRole) -> bool {
        let url = self.remote_url(role);
        match url.transport() {
            Transport::Http => url.host().is_some_and(|host| {
                token_allowed_for_host(&host, &self.settings.github_api_url, &self.settings.git_hosts)
            }),
            // These transports send no token.
            Transport::Ssh | Transport::Local => true,
        }
    }

    /// Reads the current credentials of a repository.
    ///
    /// # Errors
    /// Returns `CredentialMissing` if a secret file cannot be read, or if the target's host is
    /// not allowed to receive the token.
    pub fn credentials(&self, role: RepositoryRole) -> Result<Credentials, Failure> {
        let token = match role {
            RepositoryRole::Platform => self.secrets.platform_token(),
            RepositoryRole::Target => self.target_token(),
        };
        let mut token = token.map_err(|error| Failure::from_error(Reason::CredentialMissing, &error))?;
        if token.is_some() && !self.token_allowed(role) {
            match role {
                RepositoryRole::Target => {
                    let message = match self.remote_url(role).host() {
                        Some(host) => format!(
                            "host `{host}` is not allowed to receive the git token; add it to `git_hosts` of \
                             [agents.{}] in orchestrator.toml (in a cluster, the controller's), or to \
                             ORCHESTRATOR_GIT_HOSTS or --git-hosts of a supervisor that you start yourself",
                            self.task.agent
                        ),
                        None => format!(
                            "the host of `{}` is ambiguous, so it does not receive the git token; write it as a \
                             name or a full IP address",
                            self.remote_url(role)
                        ),
                    };
                    return Err(Failure::new(Reason::CredentialMissing, message));
                }
                // A public platform repository needs no token.
                RepositoryRole::Platform => token = None,
            }
        }
        if let Some(token) = &token {
            // Redact a rotated token before its first use.
            self.redactor.add("github token", token.clone());
        }
        Ok(Credentials {
            token,
            username: None,
            ssh_key: self.secrets.path(orchestrator_contract::secrets::SSH_KEY),
            known_hosts: self.secrets.path(orchestrator_contract::secrets::KNOWN_HOSTS),
        })
    }

    /// Reads the token of the repository to push to: the target, in a docs run the platform.
    ///
    /// # Errors
    /// Returns an error if the secret file cannot be read.
    pub fn target_token(&self) -> Result<Option<SecretString>, SecretError> {
        match self.task.kind {
            Kind::Implementation => self.secrets.read(orchestrator_contract::secrets::GITHUB_TOKEN),
            Kind::Docs => self.secrets.platform_token(),
        }
    }

    /// Returns the worktree for this kind of run.
    #[must_use]
    pub fn worktree(&self) -> PathBuf {
        match self.task.kind {
            Kind::Implementation => self.layout.target_repo(),
            Kind::Docs => self.layout.docs_repo(),
        }
    }

    /// Returns the file that records the state of the worktree.
    #[must_use]
    pub fn tree_state(&self) -> PathBuf {
        match self.task.kind {
            Kind::Implementation => self.layout.state(),
            Kind::Docs => self.layout.docs_state(),
        }
    }

    /// Returns the sandbox of a role in this run.
    ///
    /// `home` is its own directory. Callers add what only they know: the agent CLI, the directory of a
    /// docs session.
    #[must_use]
    pub fn sandbox_spec(&self, role: Role, home: &Path) -> SandboxSpec {
        let is_implementation = self.task.kind == Kind::Implementation;
        let run = RunPlaces {
            worktree: self.worktree(),
            // Each docs session adds the directory of its task.
            worktree_writable: is_implementation,
            documents: is_implementation.then(|| self.layout.platform_repo()),
            objects: self.control_repository_path(RepositoryRole::Target).join("objects"),
            caches: self.layout.trusted_caches(),
            home: home.to_owned(),
        };
        build(role, self.sandbox.kind, &self.sandbox_places(), &run)
    }

    /// Returns every place of programs once.
    #[must_use]
    pub fn sites(&self) -> Vec<&Site> {
        let containers = [&self.agent_site, &self.verify_site].into_iter();
        let containers = containers.filter(|site| matches!(site, Site::Container(_)));
        std::iter::once(&self.tool_site).chain(containers).collect()
    }

    /// Returns what programs of a site find there.
    #[must_use]
    pub fn surroundings(&self, site: &Site) -> Surroundings {
        match site {
            Site::Machine { .. } => Surroundings {
                path: self.inherited.path(),
                rustup_home: self.inherited.rustup_home(),
                variables: self.inherited.passthrough(),
            },
            Site::Container(site) => {
                let mut variables = self.inherited.passthrough();
                for name in variables::CERTIFICATES {
                    // They name files of this container.
                    variables.remove(OsStr::new(name));
                }
                let facts = site.facts();
                variables.extend(facts.map(|facts| facts.environment.clone()).unwrap_or_default());
                let path = variables.get(OsStr::new("PATH")).cloned().unwrap_or_default();
                let rustup_home = variables.get(OsStr::new("RUSTUP_HOME")).map(PathBuf::from);
                Surroundings { path, rustup_home, variables }
            }
        }
    }

    /// Returns what all sandboxes of this machine share.
    #[must_use]
    pub fn sandbox_places(&self) -> Places {
        Places {
            path: self.inherited.path(),
            rustup_home: self.inherited.rustup_home(),
            supervisor: self.supervisor.clone(),
            allow_read: self.settings.allow_read.clone(),
        }
    }

    /// Returns the path of a control repository; a docs run uses one for both roles.
    #[must_use]
    pub fn control_repository_path(&self, role: RepositoryRole) -> PathBuf {
        match (self.task.kind, role) {
            (Kind::Docs, _) => self.layout.docs_control(),
            (Kind::Implementation, RepositoryRole::Platform) => self.layout.platform_control(),
            (Kind::Implementation, RepositoryRole::Target) => self.layout.target_control(),
        }
    }

    /// Returns the agent's working directory in the worktree.
    #[must_use]
    pub fn working_directory(&self, relative: &str) -> PathBuf {
        let root = self.worktree();
        if relative.is_empty() { root } else { root.join(relative) }
    }
}
