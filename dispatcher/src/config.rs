//! The only reader of the environment and of `orchestrator.toml`.
//!
//! File, `ORCHESTRATOR_*` environment, flags: the later wins. Every key has a
//! default.

mod backend;
mod docker;
mod environment;
mod file;
pub mod kubernetes;
mod layers;
mod serve;

use std::path::{Path, PathBuf};

use orchestrator_contract::{AgentName, RepositoryUrl, ServiceName};

pub use backend::BackendKind;
pub use docker::{Cpus, DockerSettings, Memory, NetworkName, User};
pub use environment::{EnvDelivery, Environment};
use layers::Layers;

pub use file::{AgentSettings, FileSettings, Secrets};
pub use serve::{ServeSettings, parse_address};

use crate::error::Error;
use crate::folder::ProjectFolder;
use crate::task::request::DEFAULT_AGENT;
use crate::task::settings::{Defaults, ServiceSettings};

/// What the command line says about the dispatcher itself.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// Where runs run.
    pub backend: Option<BackendKind>,
    /// The state's root.
    pub state_dir: Option<PathBuf>,
    /// The supervisor.
    pub supervisor: Option<PathBuf>,
    /// The Claude Code CLI.
    pub claude: Option<PathBuf>,
    /// The folder of MCP server configurations.
    pub mcp_config_dir: Option<PathBuf>,
}

/// The configuration in effect.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder that the user works in.
    pub folder: ProjectFolder,
    /// The files that were read, the last of which goes before the others.
    pub files: Vec<PathBuf>,
    /// Where runs run.
    pub backend: BackendKind,
    /// The state's root.
    pub state_dir: PathBuf,
    /// The supervisor, where it was named.
    pub supervisor: Option<PathBuf>,
    /// The Claude Code CLI, where it was named.
    pub claude: Option<PathBuf>,
    /// The folder of MCP server configurations, where it was named.
    pub mcp_config_dir: Option<PathBuf>,
    /// The address of the GitHub API, where it is not the public one.
    pub github_api_url: Option<String>,
    /// The folder of this program, where a supervisor may lie as well.
    pub executable_dir: Option<PathBuf>,
    /// The environment.
    pub environment: Environment,
    settings: FileSettings,
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// A file that cannot be read or understood, or a value that cannot be used;
    /// the message names file, line and column, or the variable.
    pub fn load(environment: Environment, flags: Flags, cwd: &Path) -> Result<Self, Error> {
        let folder = ProjectFolder::find(&environment, cwd);
        let named =
            flags.config.map(|path| cwd.join(path)).or_else(|| environment.path("ORCHESTRATOR_CONFIG"));
        let home = environment.path("HOME");
        let Layers { mut settings, files } = match named {
            Some(path) => layers::read_named(&path, home.as_deref()),
            None => {
                let user = environment.user_config_folder();
                layers::read_found(&folder.path, user.as_deref(), home.as_deref())
            }
        }?;
        environment.overlay(&mut settings)?;
        let flag = |flag: Option<PathBuf>| flag.map(|path| cwd.join(path));
        let state_dir = flag(flags.state_dir)
            .or_else(|| settings.state_dir.clone())
            .or_else(|| environment.default_state_dir())
            .ok_or_else(|| {
                Error::configuration("cannot tell where to keep runs: neither HOME nor XDG_STATE_HOME is set")
                    .with_hint("Name a folder with --state-dir or ORCHESTRATOR_STATE_DIR.")
            })?;
        Ok(Self {
            folder,
            files,
            backend: flags.backend.or(settings.backend).unwrap_or_default(),
            state_dir,
            supervisor: flag(flags.supervisor).or_else(|| settings.supervisor.clone()),
            claude: flag(flags.claude).or_else(|| settings.claude.clone()),
            mcp_config_dir: flag(flags.mcp_config_dir).or_else(|| settings.mcp_config_dir.clone()),
            github_api_url: settings.github_api_url.clone(),
            executable_dir: std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)),
            environment,
            settings,
        })
    }

    /// The same configuration for callers over the network: they have no open folder.
    #[must_use]
    pub fn for_remote_callers(self) -> Self {
        Self { folder: self.folder.for_callers_elsewhere(), ..self }
    }

    /// What a run gets if nobody says otherwise.
    #[must_use]
    pub fn defaults(&self) -> &Defaults {
        &self.settings.defaults
    }

    /// Who works if nobody says otherwise.
    ///
    /// # Errors
    /// Never, as long as [`DEFAULT_AGENT`] is a valid name.
    pub fn default_agent(&self) -> Result<AgentName, Error> {
        match &self.settings.defaults.agent {
            Some(agent) => Ok(agent.clone()),
            None => AgentName::new(DEFAULT_AGENT).map_err(|error| Error::invalid_request(error.to_string())),
        }
    }

    /// The services that have an entry.
    pub fn service_names(&self) -> impl Iterator<Item = &ServiceName> {
        self.settings.services.keys()
    }

    /// The agents that have an entry.
    pub fn agent_names(&self) -> impl Iterator<Item = &AgentName> {
        self.settings.agents.keys()
    }

    /// The entry of a service.
    #[must_use]
    pub fn service(&self, service: &ServiceName) -> ServiceSettings {
        self.settings.services.get(service).cloned().unwrap_or_default()
    }

    /// The entry of an agent, with what the environment says over it.
    ///
    /// # Errors
    /// A variable cannot be used.
    pub fn agent(&self, agent: &AgentName) -> Result<AgentSettings, Error> {
        let mut settings = self.settings.agents.get(agent).cloned().unwrap_or_default();
        self.environment.overlay_agent(&mut settings)?;
        Ok(settings)
    }

    /// The files that hold secrets of no agent in particular.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.settings.secrets
    }

    /// How runs in containers are run.
    #[must_use]
    pub fn docker(&self) -> &DockerSettings {
        &self.settings.docker
    }

    /// How `dispatcher serve` is reached.
    #[must_use]
    pub fn serve(&self) -> &ServeSettings {
        &self.settings.serve
    }

    /// How runs run in a cluster.
    #[must_use]
    pub fn kubernetes(&self) -> &kubernetes::KubernetesSettings {
        &self.settings.kubernetes
    }

    /// How messages call the configuration.
    #[must_use]
    pub fn source_description(&self) -> String {
        let names: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        if names.is_empty() {
            return "the configuration (there is no orchestrator.toml)".to_owned();
        }
        names.join(", ")
    }
}

/// Reads a repository's address as people write it: what the contract knows, a
/// relative path, or `file://`.
///
/// # Errors
/// Says what is wrong with the address.
pub fn parse_repository(text: &str, relative_to: &Path) -> Result<RepositoryUrl, Error> {
    let local = text.strip_prefix("file://").unwrap_or(text);
    let relative = local == "." || local == ".." || local.starts_with("./") || local.starts_with("../");
    let path = if relative {
        let path = relative_to.join(local);
        path.canonicalize().unwrap_or(path).to_string_lossy().into_owned()
    } else {
        local.to_owned()
    };
    RepositoryUrl::new(path).map_err(|error| Error::invalid_request(error.to_string()))
}
