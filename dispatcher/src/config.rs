//! The only reader of the environment and of `orchestrator.toml`.
//!
//! Flags override `ORCHESTRATOR_*` variables, which override files. Every key has a default.

mod backend;
mod docker;
mod environment;
mod file;
mod ignored;
pub mod kubernetes;
mod layers;
mod repository;
mod sandbox;
mod serve;

use std::path::{Path, PathBuf};

use orchestrator_contract::{AgentName, RepositoryUrl, ServiceName, http_url};

pub use backend::BackendKind;
pub use docker::{Cpus, DockerSettings, Memory, NetworkName, User};
pub use environment::{EnvDelivery, Environment};
use layers::Layers;

pub use file::{AgentSettings, FileSettings, Secrets};
pub use sandbox::SandboxMode;
pub use serve::{ServeSettings, parse_address};

use crate::error::Error;
use crate::folder::ProjectFolder;
use crate::task::address;
use crate::task::request::DEFAULT_AGENT;
use crate::task::settings::{Defaults, ServiceSettings};

/// Global flags of the command line.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub config: Option<PathBuf>,
    pub backend: Option<BackendKind>,
    pub state_dir: Option<PathBuf>,
    pub supervisor: Option<PathBuf>,
    pub claude: Option<PathBuf>,
    pub mcp_config_dir: Option<PathBuf>,
    pub sandbox: Option<SandboxMode>,
}

/// The effective configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub folder: ProjectFolder,
    /// The files that were read; later ones override earlier ones.
    pub files: Vec<PathBuf>,
    pub backend: BackendKind,
    pub state_dir: PathBuf,
    /// Path of the supervisor, if configured.
    pub supervisor: Option<PathBuf>,
    /// Path of the Claude Code CLI, if configured.
    pub claude: Option<PathBuf>,
    /// Folder of MCP server configurations, if configured.
    pub mcp_config_dir: Option<PathBuf>,
    /// Whether runs need a sandbox, if configured; supervisors require one by default.
    pub sandbox: Option<SandboxMode>,
    /// Base URL of the GitHub API, if it is not the public one.
    pub github_api_url: Option<String>,
    /// Folder of this executable; a supervisor beside it is used.
    pub executable_dir: Option<PathBuf>,
    pub environment: Environment,
    settings: FileSettings,
}

/// Rejects URLs that would show a credential to the network.
fn require_secure_urls(settings: &FileSettings) -> Result<(), Error> {
    let api = settings.github_api_url.as_deref().filter(|url| !url.is_empty());
    let urls =
        [("github_api_url", api), ("kubernetes.api_server", Some(settings.kubernetes.api_server.as_str()))];
    for (name, url) in urls {
        if let Some(url) = url.filter(|url| http_url::parse_secure(url).is_none()) {
            return Err(Error::configuration(format!(
                "invalid {name} `{url}`: it receives a credential, and is not an https URL"
            ))
            .with_hint("Use https://; http:// is accepted for loopback addresses only."));
        }
    }
    Ok(())
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or parsed, or a value is invalid; the message names
    /// file, line and column, or the variable.
    pub fn load(environment: Environment, flags: Flags, cwd: &Path) -> Result<Self, Error> {
        let folder = ProjectFolder::find(&environment, cwd);
        let named =
            flags.config.map(|path| cwd.join(path)).or_else(|| environment.path("ORCHESTRATOR_CONFIG"));
        let home = environment.path("HOME");
        let api = environment.text("ORCHESTRATOR_GITHUB_API_URL").map(str::to_owned);
        let Layers { mut settings, files } = match named {
            Some(path) => layers::read_named(&path, home.as_deref(), api.as_deref()),
            None => {
                let user = environment.user_config_folder();
                layers::read_found(&folder.path, user.as_deref(), home.as_deref(), api.as_deref())
            }
        }?;
        environment.overlay(&mut settings)?;
        require_secure_urls(&settings)?;
        settings.docker.validate()?;
        let flag = |flag: Option<PathBuf>| flag.map(|path| cwd.join(path));
        let state_dir = flag(flags.state_dir)
            .or_else(|| settings.state_dir.clone())
            .or_else(|| environment.default_state_dir())
            .ok_or_else(|| {
                Error::configuration(
                    "cannot find the state directory: neither HOME nor XDG_STATE_HOME is set",
                )
                .with_hint("Set a folder with --state-dir or ORCHESTRATOR_STATE_DIR.")
            })?;
        Ok(Self {
            folder,
            files,
            backend: flags.backend.or(settings.backend).unwrap_or_default(),
            state_dir,
            supervisor: flag(flags.supervisor).or_else(|| settings.supervisor.clone()),
            claude: flag(flags.claude).or_else(|| settings.claude.clone()),
            mcp_config_dir: flag(flags.mcp_config_dir).or_else(|| settings.mcp_config_dir.clone()),
            sandbox: flags.sandbox.or(settings.sandbox),
            github_api_url: settings.github_api_url.clone(),
            executable_dir: std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)),
            environment,
            settings,
        })
    }

    /// Returns the configuration for remote callers, which have no project folder.
    #[must_use]
    pub fn for_remote_callers(self) -> Self {
        Self { folder: self.folder.for_remote_callers(), ..self }
    }

    /// Parses the address of a repository as a user writes it; a relative path starts at `relative_to`.
    ///
    /// # Errors
    /// Returns an error if the address is invalid, or leads to no repository.
    pub fn parse_repository(&self, text: &str, relative_to: &Path) -> Result<RepositoryUrl, Error> {
        let github = address::server_of(self.github_api_url.as_deref());
        repository::parse_repository(text, relative_to, &github)
    }

    /// Returns the defaults of all runs.
    #[must_use]
    pub fn defaults(&self) -> &Defaults {
        &self.settings.defaults
    }

    /// Returns the agent that runs tasks by default.
    ///
    /// # Errors
    /// Never, as long as [`DEFAULT_AGENT`] is a valid name.
    pub fn default_agent(&self) -> Result<AgentName, Error> {
        match &self.settings.defaults.agent {
            Some(agent) => Ok(agent.clone()),
            None => AgentName::new(DEFAULT_AGENT).map_err(|error| Error::invalid_request(error.to_string())),
        }
    }

    /// Returns the services with an entry in the configuration.
    pub fn service_names(&self) -> impl Iterator<Item = &ServiceName> {
        self.settings.services.keys()
    }

    /// Returns the agents with an entry in the configuration.
    pub fn agent_names(&self) -> impl Iterator<Item = &AgentName> {
        self.settings.agents.keys()
    }

    /// Returns the settings of a service; the defaults if it has no entry.
    #[must_use]
    pub fn service(&self, service: &ServiceName) -> ServiceSettings {
        self.settings.services.get(service).cloned().unwrap_or_default()
    }

    /// Returns the settings of an agent, overridden by the environment.
    ///
    /// # Errors
    /// Returns an error if a variable is invalid.
    pub fn agent(&self, agent: &AgentName) -> Result<AgentSettings, Error> {
        let mut settings = self.settings.agents.get(agent).cloned().unwrap_or_default();
        self.environment.overlay_agent(&mut settings)?;
        Ok(settings)
    }

    /// Returns the secret files that all agents share.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.settings.secrets
    }

    /// Returns the settings of the docker backend.
    #[must_use]
    pub fn docker(&self) -> &DockerSettings {
        &self.settings.docker
    }

    /// Returns the settings of `dispatcher serve`.
    #[must_use]
    pub fn serve(&self) -> &ServeSettings {
        &self.settings.serve
    }

    /// Returns the settings of the kubernetes backend.
    #[must_use]
    pub fn kubernetes(&self) -> &kubernetes::KubernetesSettings {
        &self.settings.kubernetes
    }

    /// Describes the configuration's files, for messages.
    #[must_use]
    pub fn source_description(&self) -> String {
        let names: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        if names.is_empty() {
            return "the configuration (no orchestrator.toml found)".to_owned();
        }
        names.join(", ")
    }
}
