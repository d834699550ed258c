//! Which credentials a run gets: files that the configuration names, and the token of `gh`.

use std::path::PathBuf;
use std::time::Duration;

use orchestrator_contract::names::Transport;
use orchestrator_contract::{Reason, TaskSpec, secrets};

use crate::config::Config;
use crate::error::Error;
use crate::process;

/// How long `gh` may take to tell its token.
const GH_TIMEOUT: Duration = Duration::from_secs(5);

/// What a file holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileKind {
    /// The token for the target.
    GithubToken,
    /// The token for the platform.
    PlatformToken,
    /// The private SSH key.
    SshKey,
    /// The known hosts for SSH.
    KnownHosts,
    /// The key of the model.
    AnthropicApiKey,
    /// The key of the Brave search.
    BraveApiKey,
    /// A folder with one file for each secret.
    Folder,
}

impl FileKind {
    /// The supervisor's flag for such a file.
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

    /// Its name in a folder of secrets; none for the folder itself.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::GithubToken => Some(secrets::GITHUB_TOKEN),
            Self::PlatformToken => Some(secrets::PLATFORM_TOKEN),
            Self::SshKey => Some(secrets::SSH_KEY),
            Self::KnownHosts => Some(secrets::KNOWN_HOSTS),
            Self::AnthropicApiKey => Some(secrets::ANTHROPIC_API_KEY),
            Self::BraveApiKey => Some(secrets::BRAVE_API_KEY),
            Self::Folder => None,
        }
    }
}

/// A file, or a folder of files, that the configuration names.
#[derive(Clone, Debug)]
pub struct CredentialFile {
    /// What it holds.
    pub kind: FileKind,
    /// Where it is.
    pub path: PathBuf,
}

/// The files that the configuration names for a run.
///
/// # Errors
/// One that is named is not there.
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

/// The programs and folders of this machine that the configuration names for a supervisor, with their
/// flags.
///
/// # Errors
/// One that is named is not there.
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
    move |whose| {
        let name = flag.trim_start_matches('-').replace('-', "_");
        Error::new(reason, format!("`{name}` names {}, which does not exist{whose}", path.display()))
            .with_hint(format!("Make the file, or mend {}.", config.source_description()))
    }
}

/// The token that `gh` has, where a repository is on a server and the environment has none.
pub async fn gh_auth_token_if_needed(config: &Config, task: &TaskSpec) -> Option<String> {
    let remote = [&task.target.url, &task.platform.url].iter().any(|url| url.transport() != Transport::Local);
    let has = |name: &&str| config.environment.os(name).is_some();
    if !remote || secrets::variables(secrets::GITHUB_TOKEN).iter().any(has) {
        return None;
    }
    gh_auth_token(config).await.ok()
}

/// The token that `gh` has, if it is there and logged in.
///
/// # Errors
/// Says why there is none.
pub async fn gh_auth_token(config: &Config) -> Result<String, String> {
    let gh = process::find("gh", config.environment.os("PATH")).ok_or("there is no `gh` in PATH")?;
    let mut command = process::command(&gh);
    // gh finds its login by HOME, or in the folders and keyring that these name.
    for name in ["HOME", "PATH", "XDG_CONFIG_HOME", "GH_CONFIG_DIR", "DBUS_SESSION_BUS_ADDRESS"] {
        if let Some(value) = config.environment.os(name) {
            command.env(name, value);
        }
    }
    command.args(["auth", "token"]);
    let token = process::output_with_timeout(command, GH_TIMEOUT).await?;
    if token.is_empty() { Err("`gh auth token` says nothing".to_owned()) } else { Ok(token) }
}
