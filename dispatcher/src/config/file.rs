//! `orchestrator.toml`: its keys, its schema, and errors with line and column.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use orchestrator_contract::{AgentName, ServiceName};
use schemars::{JsonSchema, Schema};
use serde::Deserialize;

use super::backend::BackendKind;
use super::docker::DockerSettings;
use super::kubernetes::KubernetesSettings;
use super::sandbox::SandboxMode;
use super::serve::ServeSettings;
use crate::error::Error;
use crate::task::settings::{AgentProfile, Defaults, ServiceSettings};
use crate::task::suggest;

pub(super) const NAME: &str = "orchestrator.toml";

/// The schema's id, in the API group's domain; it is not downloadable.
const SCHEMA_ID: &str = "https://orchestrator.io/v1alpha1/orchestrator.schema.json";

/// Configuration of the orchestrator. Relative paths start at the file's folder, `~/` at the home
/// folder. A file in a project folder may not name programs, images, secrets, `backend`, `docker`,
/// `sandbox`, `state_dir` and `github_api_url`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FileSettings {
    /// Backend that executes runs (default: `local`).
    pub backend: Option<BackendKind>,
    /// Folder of runs and workspaces of the local backend (default: `~/.local/state/orchestrator`).
    pub state_dir: Option<PathBuf>,
    /// Path of the supervisor, the program that executes one run.
    pub supervisor: Option<PathBuf>,
    /// Path of the Claude Code CLI.
    pub claude: Option<PathBuf>,
    /// Folder of MCP server configurations.
    pub mcp_config_dir: Option<PathBuf>,
    /// Whether runs need a sandbox around the programs of the agent (default: `required`).
    pub sandbox: Option<SandboxMode>,
    /// Base URL of the GitHub API (default: `https://api.github.com`).
    pub github_api_url: Option<String>,
    /// Defaults of all runs; the service's entry and the request override them.
    pub defaults: Defaults,
    /// Settings of runs by service.
    pub services: BTreeMap<ServiceName, ServiceSettings>,
    /// Accounts and credentials by agent.
    pub agents: BTreeMap<AgentName, AgentSettings>,
    /// Secret files that all agents share.
    pub secrets: Secrets,
    /// Settings of the docker backend.
    pub docker: DockerSettings,
    /// Settings of `dispatcher serve`.
    pub serve: ServeSettings,
    /// Settings of the kubernetes backend.
    pub kubernetes: KubernetesSettings,
}

/// Account and credentials of one agent.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AgentSettings {
    /// Account on the git host (default: the agent's name).
    pub github_user: Option<String>,
    /// Author name of commits (default: the account).
    pub commit_name: Option<String>,
    /// Author email address of commits.
    pub commit_email: Option<String>,
    /// File with the token for the target repository.
    pub github_token_file: Option<PathBuf>,
    /// File with the token for the platform repository (default: the target's token).
    pub platform_token_file: Option<PathBuf>,
    /// File with the private SSH key.
    pub ssh_key_file: Option<PathBuf>,
    /// Additional hosts that may receive the tokens; github.com and the host of `github_api_url`
    /// always may.
    pub git_hosts: Vec<String>,
}

/// Secret files that all agents share.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Secrets {
    /// SSH known hosts file.
    pub known_hosts_file: Option<PathBuf>,
    /// File with the Anthropic API key.
    pub anthropic_api_key_file: Option<PathBuf>,
    /// File with the Brave Search API key.
    pub brave_api_key_file: Option<PathBuf>,
    /// Folder with one file for each secret that MCP servers require.
    pub secrets_dir: Option<PathBuf>,
}

impl AgentSettings {
    /// Returns the agent's account and commit identity, without credentials.
    #[must_use]
    pub fn profile(&self) -> AgentProfile {
        AgentProfile {
            github_user: self.github_user.clone(),
            commit_name: self.commit_name.clone(),
            commit_email: self.commit_email.clone(),
        }
    }
}

impl FileSettings {
    /// Returns the JSON Schema of the file, for editors.
    #[must_use]
    pub fn schema() -> Schema {
        let mut schema = schemars::schema_for!(Self);
        schema.insert("$id".to_owned(), SCHEMA_ID.into());
        schema.insert("title".to_owned(), NAME.into());
        schema
    }

    /// Makes all paths absolute: relative to the file's folder, `~` to the home folder.
    pub(super) fn resolve_paths(&mut self, file: &Path, home: Option<&Path>) {
        let base = file.parent().unwrap_or(Path::new("/"));
        for slot in self.paths() {
            *slot = match (slot.strip_prefix("~"), home) {
                (Ok(rest), Some(home)) => home.join(rest),
                (Ok(_), None) | (Err(_), _) => base.join(&*slot),
            };
        }
    }

    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| parse_error(text, path, &error))
    }

    fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let Self { state_dir, supervisor, claude, mcp_config_dir, services, agents, secrets, serve, .. } =
            self;
        let Secrets { known_hosts_file, anthropic_api_key_file, brave_api_key_file, secrets_dir } = secrets;
        let agents = agents.values_mut().flat_map(|agent| {
            [&mut agent.github_token_file, &mut agent.platform_token_file, &mut agent.ssh_key_file]
        });
        let services = services.values_mut().map(|service| &mut service.secrets_dir);
        [state_dir, supervisor, claude, mcp_config_dir]
            .into_iter()
            .chain([&mut serve.token_file])
            .chain([known_hosts_file, anthropic_api_key_file, brave_api_key_file, secrets_dir])
            .chain(services)
            .chain(agents)
            .flatten()
    }
}

/// Returns a parse error with file, line and column.
pub(super) fn parse_error(text: &str, path: &Path, error: &toml::de::Error) -> Error {
    let (line, column) = position(text, error.span().map_or(0, |span| span.start));
    let message = error.message().replace('\n', " ");
    let hint = format!("{}Fix the file, then check it with `dispatcher doctor`.", suggestion(&message));
    Error::configuration(format!("{}:{line}:{column}: {message}", path.display())).with_hint(hint)
}

/// Returns a suggestion for an unknown key or value; the message names it first, then all known ones.
fn suggestion(message: &str) -> String {
    let mut names = message.split('`').skip(1).step_by(2);
    match names.next().filter(|_| message.starts_with("unknown ")) {
        Some(given) => suggest::sentence(given, names),
        None => String::new(),
    }
}

/// Returns the 1-based line and column of a byte offset, in characters.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::advice::render_for_cli;

    #[test]
    fn malformed_config_file_error_has_line_and_column() {
        let cases = [
            ("state_dir = \n", "c.toml:1:13: "),
            ("\n[services.trader]\ncolor = 1\n", "c.toml:3:1: unknown field `color`"),
            ("[services.\"../x\"]\n", "c.toml:1:11: invalid service name `../x`"),
            ("[services.a]\nrepository_url = \"ext::sh\"\n", "c.toml:2:18: invalid repository URL `ext::sh`"),
            (
                "[services.a]\nrepository_url = \"https://github.com/org\"\n",
                "c.toml:2:18: `https://github.com/org` is not",
            ),
            ("[defaults.limits]\ntimeout_minutes = \"long\"\n", "c.toml:2:19: invalid type"),
            ("[services.a]\nimage = \"A B\"\n", "c.toml:2:9: invalid image reference `A B`"),
            ("sandbox = \"auto\"\n", "c.toml:1:11: unknown variant `auto`"),
            ("[services.a]\npull_request = \"maybe\"\n", "c.toml:2:16: unknown variant `maybe`"),
        ];
        for (text, expected) in cases {
            let problem = FileSettings::parse(text, Path::new("c.toml")).unwrap_err();
            assert_eq!(problem.exit_code(), 78);
            assert!(problem.to_string().starts_with(expected), "{problem}");
            assert!(!problem.to_string().contains('\n'), "{problem}");
        }
    }

    #[test]
    fn misspelt_config_key_or_value_is_suggested() {
        for (text, expected) in [
            ("[defaults]\nmodle = \"opus\"\n", Some("Did you mean `model`? ")),
            ("[service.trader]\n", Some("Did you mean `services`? ")),
            ("[services.trader]\nrepositry_url = \"x\"\n", Some("Did you mean `repository_url`? ")),
            ("backend = \"kubernets\"\n", Some("Did you mean `kubernetes`? ")),
            ("[services.trader]\ncolor = 1\n", None),
        ] {
            let problem = FileSettings::parse(text, Path::new("c.toml")).unwrap_err();
            let hint = render_for_cli(problem.hint());
            let fix = "Fix the file, then check it with `dispatcher doctor`.";
            assert_eq!(hint, format!("{}{fix}", expected.unwrap_or_default()), "{text}");
        }
    }

    #[test]
    fn every_documented_config_key_is_parsed() {
        let text = r#"
            backend = "docker"
            state_dir = "state"
            supervisor = "~/bin/supervisor"
            claude = "/usr/bin/claude"
            mcp_config_dir = "mcp-configs"
            sandbox = "best-effort"
            github_api_url = "https://ghe.example.com/api/v3"
            [defaults]
            agent = "claude-agent-1"
            model = "opus"
            models = ["house-model"]
            platform_repository_url = "https://github.com/myorg/platform"
            platform_branch = "main"
            limits = { timeout_minutes = 60, cost_usd = 5 }
            [services.trader]
            repository_url = "git@github.com:myorg/trader.git"
            working_directory = "trading-engine"
            docs_directory = "projects/trader"
            branch = "main"
            setup = ["cargo fetch"]
            verify = ["cargo test"]
            mcp_servers = ["memory"]
            limits = { timeout_minutes = 90, idle_minutes = 10, turns = 100, queue_minutes = 5, verify_minutes = 5, wait_for_quota_minutes = 60 }
            pull_request = "none"
            clean = "all"
            protected_paths = [".github/"]
            depth = 50
            image = "ghcr.io/myorg/agent:1.4"
            secrets_dir = "~/secrets/trader"
            [agents.claude-agent-1]
            github_user = "octocat"
            commit_name = "Octo Cat"
            commit_email = "o@example.com"
            github_token_file = "token"
            platform_token_file = "/secrets/platform"
            ssh_key_file = "~/.ssh/agent"
            [secrets]
            known_hosts_file = "known_hosts"
            anthropic_api_key_file = "key"
            brave_api_key_file = "brave"
            secrets_dir = "secrets"
            [docker]
            host = "unix:///run/user/1000/podman/podman.sock"
            image = "ghcr.io/myorg/agent:1.4"
            memory = "8g"
            cpus = 2.5
            pids = 2048
            network = "agents"
            user = "10001:0"
            [serve]
            address = "127.0.0.1:8750"
            token_file = "serve-token"
            allowed_hosts = ["orchestrator.example.com"]
            allowed_origins = ["https://ide.example.com:443"]
        "#;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let mut settings = FileSettings::parse(text, &path).unwrap();
        settings.resolve_paths(&path, Some(Path::new("/home/me")));
        assert_eq!(settings.state_dir.unwrap(), folder.path().join("state"));
        assert_eq!(settings.supervisor.unwrap(), Path::new("/home/me/bin/supervisor"));
        assert_eq!(settings.claude.unwrap(), Path::new("/usr/bin/claude"));
        let service = settings.services.into_values().next().unwrap();
        assert_eq!(service.secrets_dir.unwrap(), Path::new("/home/me/secrets/trader"));
        assert_eq!(settings.serve.token_file.unwrap(), folder.path().join("serve-token"));
        let agent = settings.agents.into_values().next().unwrap();
        assert_eq!(agent.github_token_file.unwrap(), folder.path().join("token"));
        assert_eq!(agent.ssh_key_file.unwrap(), Path::new("/home/me/.ssh/agent"));
    }

    #[test]
    fn config_schema_matches_published_file() {
        let published = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/orchestrator.schema.json");
        let published: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(published).unwrap()).unwrap();
        assert!(FileSettings::schema().to_value() == published, "regenerate it: just generate");
    }
}
