//! `orchestrator.toml`: found, read, and refused with line and column.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use orchestrator_contract::{AgentName, ServiceName};
use schemars::{JsonSchema, Schema};
use serde::Deserialize;

use super::backend::BackendKind;
use super::docker::DockerSettings;
use super::kubernetes::KubernetesSettings;
use super::serve::ServeSettings;
use crate::error::Error;
use crate::task::settings::{AgentProfile, Defaults, ServiceSettings};

pub(super) const NAME: &str = "orchestrator.toml";

/// The schema's name, after the API's group; nothing is fetched from there.
const SCHEMA_ID: &str = "https://orchestrator.io/v1alpha1/orchestrator.schema.json";

/// What `orchestrator.toml` can say. Relative paths start at the file's folder,
/// `~/` at the user's home. A file that comes with a folder may not name programs,
/// images, secrets, `backend`, `docker`, `state_dir` and `github_api_url`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FileSettings {
    /// Where runs run: `local` if not given.
    pub backend: Option<BackendKind>,
    /// Where runs and workspaces are kept.
    pub state_dir: Option<PathBuf>,
    /// The supervisor's program.
    pub supervisor: Option<PathBuf>,
    /// The Claude Code CLI's program.
    pub claude: Option<PathBuf>,
    /// The folder of MCP server configurations.
    pub mcp_config_dir: Option<PathBuf>,
    /// The address of the GitHub API.
    pub github_api_url: Option<String>,
    /// What a run gets if neither the request nor its service says otherwise.
    pub defaults: Defaults,
    /// What the runs of one service get.
    pub services: BTreeMap<ServiceName, ServiceSettings>,
    /// Who works, and with which credentials.
    pub agents: BTreeMap<AgentName, AgentSettings>,
    /// Files that hold secrets of no agent in particular.
    pub secrets: Secrets,
    /// How runs in containers of docker or podman are run.
    pub docker: DockerSettings,
    /// How `dispatcher serve` is reached.
    pub serve: ServeSettings,
    /// How runs run in a cluster.
    pub kubernetes: KubernetesSettings,
}

/// Who works, and with which credentials.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AgentSettings {
    /// The account on the git host: the agent's name if not given.
    pub github_user: Option<String>,
    /// The name on commits: the account if not given.
    pub commit_name: Option<String>,
    /// The e-mail address on commits.
    pub commit_email: Option<String>,
    /// The file that holds the token for the target.
    pub github_token_file: Option<PathBuf>,
    /// The file that holds the token for the platform, where it needs another.
    pub platform_token_file: Option<PathBuf>,
    /// The file that holds the private SSH key.
    pub ssh_key_file: Option<PathBuf>,
    /// Hosts that the tokens are for, besides github.com and the host of `github_api_url`: no
    /// other host gets to see them.
    pub git_hosts: Vec<String>,
}

/// Files that hold secrets of no agent in particular.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Secrets {
    /// The known hosts for SSH.
    pub known_hosts_file: Option<PathBuf>,
    /// The key of the Anthropic API.
    pub anthropic_api_key_file: Option<PathBuf>,
    /// The key of the Brave search API.
    pub brave_api_key_file: Option<PathBuf>,
    /// A folder with one file for each secret that MCP servers ask for.
    pub secrets_dir: Option<PathBuf>,
}

impl AgentSettings {
    /// What is known of the agent, credentials apart.
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
    /// The JSON Schema of the file, for editors.
    #[must_use]
    pub fn schema() -> Schema {
        let mut schema = schemars::schema_for!(Self);
        schema.insert("$id".to_owned(), SCHEMA_ID.into());
        schema.insert("title".to_owned(), NAME.into());
        schema
    }

    /// Makes the paths absolute: they start at the file's folder, or with `~` at the user's home.
    pub(super) fn resolve_paths(&mut self, file: &Path, home: Option<&Path>) {
        let base = file.parent().unwrap_or(Path::new("/"));
        for slot in self.paths() {
            *slot = match (slot.strip_prefix("~"), home) {
                (Ok(rest), Some(home)) => home.join(rest),
                (Ok(_), None) | (Err(_), _) => base.join(&*slot),
            };
        }
    }

    /// Reads a file's text.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| fault(text, path, &error))
    }

    fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let Self {
            state_dir,
            supervisor,
            claude,
            mcp_config_dir: mcp_configs,
            services,
            agents,
            secrets,
            serve,
            ..
        } = self;
        let Secrets { known_hosts_file, anthropic_api_key_file, brave_api_key_file, secrets_dir } = secrets;
        let agents = agents.values_mut().flat_map(|agent| {
            [&mut agent.github_token_file, &mut agent.platform_token_file, &mut agent.ssh_key_file]
        });
        let services = services.values_mut().map(|service| &mut service.secrets_dir);
        [state_dir, supervisor, claude, mcp_configs]
            .into_iter()
            .chain([&mut serve.token_file])
            .chain([known_hosts_file, anthropic_api_key_file, brave_api_key_file, secrets_dir])
            .chain(services)
            .chain(agents)
            .flatten()
    }
}

/// Says what is wrong with a file, and where.
pub(super) fn fault(text: &str, path: &Path, error: &toml::de::Error) -> Error {
    let (line, column) = position(text, error.span().map_or(0, |span| span.start));
    let message = error.message().replace('\n', " ");
    Error::configuration(format!("{}:{line}:{column}: {message}", path.display()))
        .with_hint("Mend the file; `dispatcher doctor` checks it.")
}

/// Line and column of a byte, both from 1, as editors count.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_config_file_error_has_line_and_column() {
        let cases = [
            ("state_dir = \n", "c.toml:1:13: "),
            ("\n[services.trader]\ncolour = 1\n", "c.toml:3:1: unknown field `colour`"),
            ("[services.\"../x\"]\n", "c.toml:1:11: invalid service name `../x`"),
            ("[services.a]\nrepository_url = \"ext::sh\"\n", "c.toml:2:18: repository `ext::sh`"),
            ("[defaults.limits]\ntimeout_minutes = \"long\"\n", "c.toml:2:19: invalid type"),
            ("[services.a]\nimage = \"A B\"\n", "c.toml:2:9: image `A B` is no valid reference"),
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
    fn every_documented_config_key_is_parsed() {
        let text = r#"
            backend = "docker"
            state_dir = "state"
            supervisor = "~/bin/supervisor"
            claude = "/usr/bin/claude"
            mcp_config_dir = "mcp-configs"
            github_api_url = "https://ghe.example.com/api/v3"
            [defaults]
            agent = "claude-agent-1"
            model = "opus"
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
            limits = { timeout_minutes = 90, idle_minutes = 10, turns = 100, queue_minutes = 5, verify_minutes = 5 }
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
        assert!(FileSettings::schema().to_value() == published, "write it anew: just generate");
    }
}
