//! Inputs of a run: its task, secrets and MCP configurations. They are in a volume of the run, so that
//! they do not show up in the container's environment or labels.
//!
//! ```text
//! /run/secrets/
//!     task.json               the task spec
//!     mcp-configs/NAME.json   MCP server configurations, if configured
//!     orchestrator/           the secrets, one file each; removed once the run is seen to have ended
//!         github-token ...
//!         environment/NAME    variables that may be secret
//!     stop                    created to request a stop
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use bollard::Docker as Client;
use orchestrator_contract::names::Transport;
use orchestrator_contract::secrets::{ENVIRONMENT_DIR, GITHUB_TOKEN};
use orchestrator_contract::{Reason, TaskSpec, variables};

use super::archive::{self, Archive};
use super::spec::{INPUT_MOUNT_PATH, MCP_CONFIGS, SECRETS, STOP, TASK};
use crate::backend::credentials;
use crate::config::{Config, EnvDelivery, User};
use crate::error::Error;
use crate::files;
use crate::task::stop_mode::StopMode;

/// Maximum bytes of a secret.
const MAX_SECRET_BYTES: u64 = 1024 * 1024;

/// Returns the owner of the inputs: root, so that no process in the container can change them.
const fn root(user: User) -> User {
    User { uid: 0, gid: user.gid }
}

/// The inputs of a run.
pub(super) struct RunInputs {
    /// Environment variables, without secrets.
    pub(super) environment: BTreeMap<String, String>,
    /// Whether a folder of MCP configurations is configured.
    pub(super) has_mcp_configs: bool,
    secrets: BTreeMap<String, Vec<u8>>,
    mcp_configs: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for RunInputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunInputs").field("secrets", &self.secrets.keys()).finish_non_exhaustive()
    }
}

impl RunInputs {
    /// Collects the configured inputs of a run.
    ///
    /// # Errors
    /// Returns an error if a configured file cannot be read, or a repository is a local folder.
    pub(super) async fn collect(config: &Config, task: &TaskSpec) -> Result<Self, Error> {
        for url in [&task.target.url, &task.platform.url] {
            if url.transport() == Transport::Local {
                return Err(Error::invalid_request(format!(
                    "repository {url} is a local folder, which a container cannot access"
                ))
                .with_hint("Use a URL that the container can reach, or the `local` backend."));
            }
        }
        let mut inputs = Self {
            environment: BTreeMap::new(),
            has_mcp_configs: false,
            secrets: BTreeMap::new(),
            mcp_configs: BTreeMap::new(),
        };
        for (name, value, delivery) in config.environment.container_vars() {
            match delivery {
                EnvDelivery::Plain => drop(inputs.environment.insert(name.to_owned(), value.to_owned())),
                EnvDelivery::SecretFile => {
                    drop(inputs.secrets.insert(format!("{ENVIRONMENT_DIR}/{name}"), value.into()));
                }
            }
        }
        let agent = config.agent(&task.agent)?;
        if !agent.git_hosts.is_empty() {
            inputs.environment.insert(variables::GIT_HOSTS.to_owned(), agent.git_hosts.join(","));
        }
        if let Some(url) = &config.github_api_url {
            inputs.environment.insert(variables::GITHUB_API_URL.to_owned(), url.clone());
        }
        if let Some(sandbox) = config.sandbox {
            inputs.environment.insert(variables::SANDBOX.to_owned(), sandbox.name().to_owned());
        }
        // Folders first: individually configured files override their content.
        let (named, folders): (Vec<_>, Vec<_>) =
            credentials::files(config, task)?.into_iter().partition(|file| file.kind.name().is_some());
        for folder in folders {
            inputs.add_folder(&folder.path)?;
        }
        for file in named {
            let name = file.kind.name().unwrap_or_default();
            inputs.secrets.insert(name.to_owned(), read(&file.path)?);
        }
        if !inputs.secrets.contains_key(GITHUB_TOKEN)
            && let Some(token) = credentials::gh_auth_token_if_needed(config, task).await
        {
            inputs.secrets.insert(GITHUB_TOKEN.to_owned(), token.into());
        }
        if let Some(folder) = &config.mcp_config_dir {
            for name in files::list_names(folder)?.into_iter().filter(|name| name.ends_with(".json")) {
                inputs.mcp_configs.insert(name.clone(), read(&folder.join(&name))?);
            }
            inputs.has_mcp_configs = true;
        }
        Ok(inputs)
    }

    fn add_folder(&mut self, folder: &Path) -> Result<(), Error> {
        for name in files::list_names(folder)? {
            let path = folder.join(&name);
            if path.is_file() {
                self.secrets.insert(name, read(&path)?);
            }
        }
        let variables = folder.join(ENVIRONMENT_DIR);
        for name in files::list_names(&variables)? {
            self.secrets.insert(format!("{ENVIRONMENT_DIR}/{name}"), read(&variables.join(&name))?);
        }
        Ok(())
    }

    /// Returns an archive of all inputs and the task. The supervisor's group can read it.
    pub(super) fn archive(&self, task: &TaskSpec, user: User) -> Result<Archive, Error> {
        let json = serde_json::to_string_pretty(task)
            .map_err(|error| Error::new(Reason::InternalError, format!("cannot write a task: {error}")))?;
        let owner = root(user);
        let mut archive = Archive::default()
            .file(TASK, owner, 0o440, json)
            .folder(SECRETS, owner, 0o750)
            .folder(&format!("{SECRETS}/environment"), owner, 0o750);
        for (name, value) in &self.secrets {
            archive = archive.file(&format!("{SECRETS}/{name}"), owner, 0o440, value.clone());
        }
        if self.has_mcp_configs {
            archive = archive.folder(MCP_CONFIGS, owner, 0o750);
        }
        for (name, value) in &self.mcp_configs {
            archive = archive.file(&format!("{MCP_CONFIGS}/{name}"), owner, 0o440, value.clone());
        }
        Ok(archive)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |error: std::io::Error| {
        Error::new(Reason::CredentialMissing, files::problem("read", path, &error).message())
            .with_hint("Make the file readable, or configure another one.")
    };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_SECRET_BYTES {
        return Err(Error::configuration(format!("secret {} is too large", path.display())));
    }
    std::fs::read(path).map_err(failed)
}

/// Removes the secrets of a finished run: replaces their folder by an empty file.
///
/// # Errors
/// Returns an error if the engine fails.
pub(super) async fn remove_secrets(client: &Client, container: &str) -> Result<(), Error> {
    let path = format!("{INPUT_MOUNT_PATH}/{SECRETS}");
    if archive::is_folder(client, container, &path).await? != Some(true) {
        return Ok(());
    }
    let owner = User { uid: 0, gid: 0 };
    Archive::default().file(SECRETS, owner, 0o400, "").upload(client, container, INPUT_MOUNT_PATH).await
}

/// Requests a supervisor to stop. A graceful request does not override an earlier immediate one.
///
/// # Errors
/// Returns an error if the engine fails.
pub(super) async fn request_stop(client: &Client, container: &str, mode: StopMode) -> Result<(), Error> {
    let content: &str = match mode {
        StopMode::Graceful => "",
        StopMode::Now => "now",
    };
    let requested = archive::read(client, container, &format!("{INPUT_MOUNT_PATH}/{STOP}")).await?;
    if requested.is_some_and(|requested| content.is_empty() || requested == content.as_bytes()) {
        return Ok(());
    }
    let owner = User { uid: 0, gid: 0 };
    Archive::default().file(STOP, owner, 0o444, content).upload(client, container, INPUT_MOUNT_PATH).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::docker::labels;
    use crate::config::{Environment, Flags};
    use crate::task::advice::render_for_cli;

    fn config(text: &str, folder: &Path) -> Config {
        let file = folder.join("orchestrator.toml");
        std::fs::write(&file, text).unwrap();
        let environment: Environment = [
            ("HOME", "/nowhere"),
            ("GITHUB_TOKEN", "hunter2"),
            ("CLAUDE_CODE_OAUTH_TOKEN", "hunter3"),
            ("ANTHROPIC_MODEL", "opus"),
        ]
        .into_iter()
        .collect();
        Config::load(environment, Flags { config: Some(file), ..Flags::default() }, folder).unwrap()
    }

    #[tokio::test]
    async fn run_inputs_hold_secrets_as_files_not_environment() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("secrets")).unwrap();
        std::fs::write(folder.path().join("secrets/brave-api-key"), "from the folder").unwrap();
        std::fs::write(folder.path().join("secrets/other"), "x").unwrap();
        std::fs::write(folder.path().join("brave"), "named").unwrap();
        let text = "[secrets]\nsecrets_dir = \"secrets\"\nbrave_api_key_file = \"brave\"\n";
        let task = labels::tests::sample().task;
        let inputs = RunInputs::collect(&config(text, folder.path()), &task).await.unwrap();
        assert_eq!(inputs.environment, BTreeMap::from([("ANTHROPIC_MODEL".to_owned(), "opus".to_owned())]));
        assert_eq!(inputs.secrets["brave-api-key"], b"named");
        let archive = inputs.archive(&task, User::DEFAULT).unwrap();
        assert_eq!(
            archive.paths(),
            [
                "task.json",
                "orchestrator",
                "orchestrator/environment",
                "orchestrator/brave-api-key",
                "orchestrator/environment/CLAUDE_CODE_OAUTH_TOKEN",
                "orchestrator/environment/GITHUB_TOKEN",
                "orchestrator/other",
            ]
        );
        assert!(!format!("{inputs:?}").contains("hunter"));
    }

    #[tokio::test]
    async fn local_path_target_is_rejected_for_containers() {
        let folder = tempfile::tempdir().unwrap();
        let mut task = labels::tests::sample().task;
        task.target.url = orchestrator_contract::RepositoryUrl::new("/srv/git/trader").unwrap();
        let problem = RunInputs::collect(&config("", folder.path()), &task).await.unwrap_err();
        assert_eq!(problem.exit_code(), 64);
        assert!(render_for_cli(problem.hint()).contains("`local` backend"), "{problem}");
    }
}
