//! What a run is given: the task, its secrets, MCP configurations. They get into a volume of the run's
//! own, which nobody sees in the container's environment or labels.
//!
//! ```text
//! /run/secrets/
//!     task.json               what the supervisor is asked to do
//!     mcp-configs/NAME.json   configurations of MCP servers, where the configuration names a folder
//!     orchestrator/           the secrets, one file each; gone as soon as the run was seen to have ended
//!         github-token ...
//!         environment/NAME    variables that may be secret
//!     stop                    appears when somebody wants it to stop
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use bollard::Docker as Client;
use orchestrator_contract::names::Transport;
use orchestrator_contract::{Reason, TaskSpec};

use super::archive::{self, Archive};
use super::spec::{INPUT_MOUNT_PATH, MCP_CONFIGS, SECRETS, STOP, TASK};
use crate::backend::credentials;
use crate::config::{Config, EnvDelivery, User};
use crate::error::Error;
use crate::files;
use crate::task::stop_mode::StopMode;

/// The longest file that is taken as a secret.
const SECRET_MAX: u64 = 1024 * 1024;

/// Who owns what a run is given: nobody in the container can change it.
const fn root(group: User) -> User {
    User { uid: 0, gid: group.gid }
}

/// What a run is given.
pub(super) struct RunInputs {
    /// The variables of its environment: nothing secret.
    pub(super) environment: BTreeMap<String, String>,
    /// Whether there are MCP configurations.
    pub(super) has_mcp_configs: bool,
    secrets: BTreeMap<String, Vec<u8>>,
    mcp_configs: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for RunInputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gift").field("secrets", &self.secrets.keys()).finish_non_exhaustive()
    }
}

impl RunInputs {
    /// Gathers everything that the configuration has for a run.
    ///
    /// # Errors
    /// A file that is named is not there or cannot be read, or no container could do the task.
    pub(super) async fn collect(config: &Config, task: &TaskSpec) -> Result<Self, Error> {
        for url in [&task.target.url, &task.platform.url] {
            if url.transport() == Transport::Local {
                return Err(Error::invalid_request(format!(
                    "the repository {url} is a folder of this machine, which a container does not see"
                ))
                .with_hint("Give an address that the container reaches, or run it here: --backend local."));
            }
        }
        let mut gift = Self {
            environment: BTreeMap::new(),
            has_mcp_configs: false,
            secrets: BTreeMap::new(),
            mcp_configs: BTreeMap::new(),
        };
        for (name, value, way) in config.environment.container_vars() {
            match way {
                EnvDelivery::Plain => drop(gift.environment.insert(name.to_owned(), value.to_owned())),
                EnvDelivery::SecretFile => {
                    drop(gift.secrets.insert(format!("environment/{name}"), value.into()))
                }
            }
        }
        let agent = config.agent(&task.agent)?;
        if !agent.git_hosts.is_empty() {
            gift.environment.insert("ORCHESTRATOR_GIT_HOSTS".to_owned(), agent.git_hosts.join(","));
        }
        if let Some(url) = &config.github_api_url {
            gift.environment.insert("GITHUB_API_URL".to_owned(), url.clone());
        }
        // A folder first: files that are named one by one go before those in it.
        let (named, folders): (Vec<_>, Vec<_>) =
            credentials::files(config, task)?.into_iter().partition(|file| file.kind.name().is_some());
        for folder in folders {
            gift.take_folder(&folder.path)?;
        }
        for file in named {
            let name = file.kind.name().unwrap_or_default();
            gift.secrets.insert(name.to_owned(), read(&file.path)?);
        }
        if !gift.secrets.contains_key("github-token")
            && let Some(token) = credentials::gh_auth_token_if_needed(config, task).await
        {
            gift.secrets.insert("github-token".to_owned(), token.into());
        }
        if let Some(folder) = &config.mcp_config_dir {
            for name in files::list_names(folder)?.into_iter().filter(|name| name.ends_with(".json")) {
                gift.mcp_configs.insert(name.clone(), read(&folder.join(&name))?);
            }
            gift.has_mcp_configs = true;
        }
        Ok(gift)
    }

    fn take_folder(&mut self, folder: &Path) -> Result<(), Error> {
        for name in files::list_names(folder)? {
            let path = folder.join(&name);
            if path.is_file() {
                self.secrets.insert(name, read(&path)?);
            }
        }
        let variables = folder.join("environment");
        for name in files::list_names(&variables)? {
            self.secrets.insert(format!("environment/{name}"), read(&variables.join(&name))?);
        }
        Ok(())
    }

    /// Everything, with the task, as it is in the container. The supervisor's group can read it.
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
            .with_hint("Make it readable for you, or name another file in the configuration.")
    };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > SECRET_MAX {
        return Err(Error::configuration(format!("{} is too large for a secret", path.display())));
    }
    std::fs::read(path).map_err(failed)
}

/// Removes the secrets of a run that has ended: the whole folder gives way to an empty file.
///
/// # Errors
/// The engine cannot tell or cannot do it.
pub(super) async fn remove_secrets(client: &Client, container: &str) -> Result<(), Error> {
    let path = format!("{INPUT_MOUNT_PATH}/{SECRETS}");
    if archive::is_folder(client, container, &path).await? != Some(true) {
        return Ok(());
    }
    let nobody = User { uid: 0, gid: 0 };
    Archive::default().file(SECRETS, nobody, 0o400, "").upload(client, container, INPUT_MOUNT_PATH).await
}

/// Asks a supervisor to stop. Who asked for "now" is not taken back by who asks again.
///
/// # Errors
/// The engine cannot tell or cannot do it.
pub(super) async fn ask_to_stop(client: &Client, container: &str, manner: StopMode) -> Result<(), Error> {
    let wanted: &str = match manner {
        StopMode::Graceful => "",
        StopMode::Now => "now",
    };
    let asked = archive::read(client, container, &format!("{INPUT_MOUNT_PATH}/{STOP}")).await?;
    if asked.is_some_and(|asked| wanted.is_empty() || asked == wanted.as_bytes()) {
        return Ok(());
    }
    let nobody = User { uid: 0, gid: 0 };
    Archive::default().file(STOP, nobody, 0o444, wanted).upload(client, container, INPUT_MOUNT_PATH).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::docker::labels;
    use crate::config::{Environment, Flags};

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
        let gift = RunInputs::collect(&config(text, folder.path()), &task).await.unwrap();
        assert_eq!(gift.environment, BTreeMap::from([("ANTHROPIC_MODEL".to_owned(), "opus".to_owned())]));
        assert_eq!(gift.secrets["brave-api-key"], b"named");
        let archive = gift.archive(&task, User::DEFAULT).unwrap();
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
        assert!(!format!("{gift:?}").contains("hunter"));
    }

    #[tokio::test]
    async fn local_path_target_is_rejected_for_containers() {
        let folder = tempfile::tempdir().unwrap();
        let mut task = labels::tests::sample().task;
        task.target.url = orchestrator_contract::RepositoryUrl::new("/srv/git/trader").unwrap();
        let problem = RunInputs::collect(&config("", folder.path()), &task).await.unwrap_err();
        assert_eq!(problem.exit_code(), 64);
        assert!(problem.to_string().contains("--backend local"), "{problem}");
    }
}
