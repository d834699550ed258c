//! Credentials of a run: configured files, and the token of `gh`.

use std::path::PathBuf;
use std::time::Duration;

use orchestrator_contract::names::Transport;
use orchestrator_contract::{Reason, TaskSpec};

use crate::config::Config;
use crate::error::Error;
use crate::process;

/// Timeout of `gh auth token`.
const GH_TIMEOUT: Duration = Duration::from_secs(5);

/// Content of a credential file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileKind {
    /// Token for the target repository.
    GithubToken,
    /// Token for the platform repository.
    PlatformToken,
    SshKey,
    KnownHosts,
    AnthropicApiKey,
    BraveApiKey,
    /// Folder with one file per secret.
    Folder,
}

impl FileKind {
    /// Returns the supervisor's flag for the file.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::GithubToken => "--github-token-file",
            Self::PlatformToken => "--platform-token-file",
            Self::SshKey => "--ssh-key-file",
            Self::KnownHosts => "--known-hosts-file",
            Self::AnthropicApiKey => "--anthropic-api-key-file",
            Self::BraveApiKey => "--brave-api-key-file",
            Self::Folder => "--secrets-dir",
        }
    }

    /// Returns the file's name in a folder of secrets; `None` for the folder itself.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::GithubToken => Some("github-token"),
            Self::PlatformToken => Some("platform-token"),
            Self::SshKey => Some("ssh-privatekey"),
            Self::KnownHosts => Some("known_hosts"),
            Self::AnthropicApiKey => Some("anthropic-api-key"),
            Self::BraveApiKey => Some("brave-api-key"),
            Self::Folder => None,
        }
    }
}

/// A configured file, or folder of files.
#[derive(Clone, Debug)]
pub struct CredentialFile {
    pub kind: FileKind,
    pub path: PathBuf,
}

/// Returns the credential files configured for a run.
///
/// # Errors
/// Returns an error if a configured file does not exist.
pub fn files(config: &Config, task: &TaskSpec) -> Result<Vec<CredentialFile>, Error> {
    let agent = config.agent(&task.agent)?;
    let secrets = config.secrets().clone();
    let named = [
        (FileKind::GithubToken, agent.github_token_file),
        (FileKind::PlatformToken, agent.platform_token_file),
        (FileKind::SshKey, agent.ssh_key_file),
        (FileKind::KnownHosts, secrets.known_hosts_file),
        (FileKind::AnthropicApiKey, secrets.anthropic_api_key_file),
        (FileKind::BraveApiKey, secrets.brave_api_key_file),
        (FileKind::Folder, config.service(&task.service).secrets_dir.or(secrets.secrets_dir)),
    ];
    let given = named.into_iter().filter_map(|(kind, path)| Some(CredentialFile { kind, path: path? }));
    let mut files = Vec::new();
    for file in given {
        if !file.path.exists() {
            let problem = missing(config, Reason::CredentialMissing, file.kind.flag(), &file.path);
            return Err(problem(&format!(" (agent {})", task.agent)));
        }
        files.push(file);
    }
    Ok(files)
}

/// Returns the host's programs and folders configured for a supervisor, with their flags.
///
/// # Errors
/// Returns an error if a configured path does not exist.
pub fn programs(config: &Config) -> Result<Vec<(&'static str, PathBuf)>, Error> {
    let mut given = Vec::new();
    for (flag, path) in [("--claude", &config.claude), ("--mcp-config-dir", &config.mcp_config_dir)] {
        let Some(path) = path else { continue };
        if !path.exists() {
            return Err(missing(config, Reason::InvalidConfiguration, flag, path)(""));
        }
        given.push((flag, path.clone()));
    }
    Ok(given)
}

fn missing<'a>(
    config: &'a Config,
    reason: Reason,
    flag: &'a str,
    path: &'a std::path::Path,
) -> impl Fn(&str) -> Error + 'a {
    move |suffix| {
        let name = flag.trim_start_matches('-').replace('-', "_");
        Error::new(reason, format!("`{name}` is set to {}, which does not exist{suffix}", path.display()))
            .with_hint(format!("Create the file, or fix {}.", config.source_description()))
    }
}

/// Returns the token of `gh`, if a repository is remote and the environment has no token.
pub async fn gh_auth_token_if_needed(config: &Config, task: &TaskSpec) -> Option<String> {
    let remote = [&task.target.url, &task.platform.url].iter().any(|url| url.transport() != Transport::Local);
    let has = |name: &str| config.environment.os(name).is_some();
    if !remote || has("GITHUB_TOKEN") || has("GH_TOKEN") {
        return None;
    }
    gh_auth_token(config).await.ok()
}

/// Returns the token of `gh`.
///
/// # Errors
/// Returns why there is no token.
pub async fn gh_auth_token(config: &Config) -> Result<String, String> {
    let gh = process::find("gh", config.environment.os("PATH")).ok_or("`gh` not found in PATH")?;
    let mut command = process::command(&gh);
    // Variables with which gh finds its login.
    for name in ["HOME", "PATH", "XDG_CONFIG_HOME", "GH_CONFIG_DIR", "DBUS_SESSION_BUS_ADDRESS"] {
        if let Some(value) = config.environment.os(name) {
            command.env(name, value);
        }
    }
    command.args(["auth", "token"]);
    let token = process::output_with_timeout(command, GH_TIMEOUT).await?;
    if token.is_empty() { Err("`gh auth token` printed nothing".to_owned()) } else { Ok(token) }
}
