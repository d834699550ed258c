//! Plans the MCP servers of a run and renders the agent's configuration. Pure.
//!
//! Plans and configurations never contain secrets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::{McpServer, McpStatus};
use orchestrator_contract::variables::MCP_RELAY_TOKEN;

use super::catalog::{Catalog, RunsIn, ServerConfig, WorkspaceAccess};
use crate::endpoint::Endpoint;
use crate::homes::{CreateError, Home};

/// The absolute paths that replace placeholders.
#[derive(Clone, Debug)]
pub struct Placeholders {
    /// The worktree.
    pub workspace: PathBuf,
    /// The directory that the agent works in.
    pub target: PathBuf,
    /// The directory of the servers' files, with a subdirectory per server.
    pub files: PathBuf,
}

/// What is available on this host.
#[derive(Clone, Copy)]
pub struct HostCapabilities<'a> {
    /// The paths that replace placeholders.
    pub places: &'a Placeholders,
    /// Returns whether a secret is available.
    pub has_secret: &'a dyn Fn(&str) -> bool,
    /// Where servers with a sandbox of their own run.
    pub own: Location<'a>,
    /// Where servers of the agent's sandbox run.
    pub agent: Location<'a>,
}

/// Place of servers.
#[derive(Clone, Copy)]
pub struct Location<'a> {
    /// Returns why a server cannot run there.
    pub refuse: &'a dyn Fn(&ServerConfig) -> Option<String>,
    /// Creates the fresh directory of a server.
    pub create_home: &'a dyn Fn() -> Result<Home, CreateError>,
    /// Returns the path of a program; see [`super::installed::find_command`].
    pub find_command: &'a dyn Fn(&str) -> Option<PathBuf>,
    /// Returns whether a Rust toolchain is installed; see [`super::installed::has_toolchain`].
    pub has_toolchain: &'a dyn Fn(&str) -> bool,
}

/// A server to start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlannedServer {
    pub name: String,
    pub command: PathBuf,
    pub args: Vec<String>,
    /// Additional environment variables, without secrets.
    pub env: BTreeMap<String, String>,
    /// Environment variables that contain secrets, with the names of the secrets.
    pub secrets: BTreeMap<String, String>,
    /// Environment variables that contain paths of secret files, with the names of the secrets.
    pub secret_files: BTreeMap<String, String>,
    /// Files to write before the server is started.
    pub files: BTreeMap<PathBuf, String>,
    /// Its fresh directory.
    pub home: Home,
    /// The sandbox that it runs in.
    pub runs_in: RunsIn,
    /// What it sees of the repository, in its own sandbox.
    pub workspace: WorkspaceAccess,
    /// Files in its home directory that are kept across tasks.
    pub keep: Vec<String>,
    /// Whether the run fails without this server.
    pub required: bool,
    /// The timeout of a tool call.
    pub tool_timeout: Option<Duration>,
    /// Whether the model sees the server's tools from the start.
    pub always_load: bool,
}

/// A server that is not available to the agent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SkippedServer {
    pub name: String,
    /// The missing requirement.
    pub why: String,
}

impl SkippedServer {
    /// Returns its entry in the outcome.
    #[must_use]
    pub fn report(&self) -> McpServer {
        let Self { name, why } = self;
        McpServer {
            name: name.clone(),
            status: McpStatus::Skipped,
            server: None,
            tools: 0,
            note: Some(why.clone()),
        }
    }
}

/// The servers to start and the servers that are skipped.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServerPlan {
    pub servers: Vec<PlannedServer>,
    pub skipped: Vec<SkippedServer>,
}

/// Why the servers cannot be planned.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ComposeError {
    /// A chosen server does not exist.
    #[error("unknown MCP server `{name}` (available: {})", known.join(", "))]
    Unknown {
        name: String,
        /// The available servers.
        known: Vec<String>,
    },
    /// A requirement of a required server is missing.
    #[error("cannot start required MCP server `{name}`: {why}")]
    RequiredMissing {
        name: String,
        /// The missing requirement.
        why: String,
    },
}

impl ComposeError {
    /// Returns the reason that the run ends with.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unknown { .. } => Reason::InvalidConfiguration,
            Self::RequiredMissing { .. } => Reason::McpServerFailed,
        }
    }
}

/// Plans the chosen servers, or the default ones.
///
/// # Errors
/// Returns an error if a chosen server is unknown or a required one cannot start.
pub fn compose(
    catalog: &Catalog,
    chosen: Option<&[String]>,
    host: &HostCapabilities<'_>,
) -> Result<ServerPlan, ComposeError> {
    let servers: Vec<&ServerConfig> = match chosen {
        None => catalog.servers().filter(|server| server.is_default(host.has_secret)).collect(),
        Some(names) => {
            let known = || catalog.servers().map(|server| server.name.clone()).collect();
            let unknown = |name: &String| ComposeError::Unknown { name: name.clone(), known: known() };
            let mut servers = Vec::new();
            for name in names {
                let server = catalog.get(name).ok_or_else(|| unknown(name))?;
                if !servers.contains(&server) {
                    servers.push(server);
                }
            }
            servers
        }
    };
    let mut plan = ServerPlan::default();
    for server in servers {
        let name = server.name.clone();
        match plan_server(server, host) {
            Ok(planned) => plan.servers.push(planned),
            Err(why) if server.required => return Err(ComposeError::RequiredMissing { name, why }),
            Err(why) => plan.skipped.push(SkippedServer { name, why }),
        }
    }
    Ok(plan)
}

fn plan_server(server: &ServerConfig, host: &HostCapabilities<'_>) -> Result<PlannedServer, String> {
    let HostCapabilities { places, has_secret, own, agent } = host;
    let Location { refuse, create_home, find_command, has_toolchain } = match server.runs_in {
        RunsIn::OwnSandbox => own,
        RunsIn::AgentSandbox => agent,
    };
    if let Some(why) = refuse(server) {
        return Err(why);
    }
    let directory = places.files.join(&server.name);
    // Created last: a skipped server needs none.
    let command = expand(&server.command, places, &directory, None);
    let found = find_command(&command).ok_or_else(|| format!("program `{command}` is not installed"))?;
    if let Some(toolchain) = server.requires.toolchain.as_ref().filter(|toolchain| !has_toolchain(toolchain))
    {
        return Err(format!(
            "Rust toolchain `{toolchain}` is not installed (rustup toolchain install {toolchain})"
        ));
    }
    if let Some(secret) = server.needed_secrets().find(|secret| !has_secret(secret)) {
        return Err(format!("missing secret `{secret}`"));
    }
    let home = create_home().map_err(|error| format!("cannot create its directory: {error}"))?;
    let expand = |text: &str| expand(text, places, &directory, Some(&home));
    let expanded = |(name, value): (&String, &String)| (name.clone(), expand(value));
    Ok(PlannedServer {
        name: server.name.clone(),
        command: found,
        args: server.args.iter().map(|text| expand(text)).collect(),
        env: server.env.iter().map(expanded).collect(),
        secrets: server.secrets.clone(),
        secret_files: server.secret_files.clone(),
        files: server.files.iter().map(|(name, text)| (directory.join(name), text.clone())).collect(),
        runs_in: server.runs_in,
        workspace: server.workspace,
        keep: server.keep.clone(),
        home: home.clone(),
        required: server.required,
        tool_timeout: server.tool_timeout_seconds.map(|seconds| Duration::from_secs(seconds.into())),
        always_load: server.always_load,
    })
}

/// Replaces placeholders in one pass, so that braces in the inserted paths are kept.
fn expand(text: &str, places: &Placeholders, files: &Path, home: Option<&Home>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        expanded.push_str(before);
        let (name, next) = after.split_once('}').unwrap_or((after, ""));
        let path = match (name, home) {
            ("workspace", _) => places.workspace.clone(),
            ("target", _) => places.target.clone(),
            ("files", _) => files.to_owned(),
            ("memory", Some(home)) => home.home(),
            ("cache", Some(home)) => home.cache(),
            // The catalog rejects other placeholders, and these in a command.
            _ => PathBuf::new(),
        };
        expanded.push_str(&path.to_string_lossy());
        rest = next;
    }
    expanded + rest
}

/// How the agent's relay reaches a server.
#[derive(Clone, Debug)]
pub struct RelayEndpoint {
    /// Address of the relay host.
    pub address: Endpoint,
    /// Admits one conversation to one server.
    pub token: String,
}

impl ServerPlan {
    /// Returns the servers that the agent reaches through a relay.
    pub fn relayed(&self) -> impl Iterator<Item = &PlannedServer> {
        self.servers.iter().filter(|server| server.runs_in == RunsIn::OwnSandbox)
    }

    /// Renders the `mcp.json` of one conversation.
    ///
    /// A server in its own sandbox is reached through `{supervisor} mcp-relay NAME`. The token is
    /// in the relay's environment, because other processes can read its command line.
    #[must_use]
    pub fn agent_config(
        &self,
        supervisor: &Path,
        endpoint: impl Fn(&str) -> Option<RelayEndpoint>,
    ) -> serde_json::Value {
        let mut servers = serde_json::Map::new();
        for server in &self.servers {
            let mut entry = match server.runs_in {
                RunsIn::AgentSandbox => serde_json::json!({
                    "type": "stdio",
                    "command": server.command,
                    "args": server.args,
                    "env": server.env,
                }),
                RunsIn::OwnSandbox => {
                    let Some(RelayEndpoint { address, token }) = endpoint(&server.name) else { continue };
                    serde_json::json!({
                        "type": "stdio",
                        "command": supervisor,
                        "args": ["mcp-relay", server.name, "--address", address.to_string()],
                        "env": { MCP_RELAY_TOKEN: token },
                    })
                }
            };
            if let Some(entry) = entry.as_object_mut().filter(|_| server.always_load) {
                entry.insert("alwaysLoad".to_owned(), true.into());
            }
            servers.insert(server.name.clone(), entry);
        }
        serde_json::json!({ "mcpServers": servers })
    }

    /// Returns the longest tool timeout of all servers, for `MCP_TOOL_TIMEOUT`.
    #[must_use]
    pub fn tool_timeout(&self) -> Option<Duration> {
        self.servers.iter().filter_map(|server| server.tool_timeout).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Placeholders {
        Placeholders {
            workspace: "/w/target-repo".into(),
            target: "/w/target-repo/trader".into(),
            files: "/w/.orchestrator/runs/x/mcp".into(),
        }
    }

    fn create_home() -> Result<Home, CreateError> {
        Ok(Home::named(Path::new("/w/agent"), "0123456789abcdef").unwrap())
    }

    struct FakeHost {
        secret: bool,
        toolchain: bool,
        programs: bool,
    }

    const ALL: FakeHost = FakeHost { secret: true, toolchain: true, programs: true };

    fn plan_built_in(host: &FakeHost, chosen: Option<&[&str]>) -> Result<ServerPlan, ComposeError> {
        let chosen: Option<Vec<String>> =
            chosen.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let location = Location {
            refuse: &|_| None,
            create_home: &create_home,
            find_command: &|name| host.programs.then(|| Path::new("/usr/bin").join(name)),
            has_toolchain: &|_| host.toolchain,
        };
        let capabilities = HostCapabilities {
            places: &places(),
            has_secret: &|_| host.secret,
            own: location,
            agent: location,
        };
        compose(&Catalog::built_in().unwrap(), chosen.as_deref(), &capabilities)
    }

    #[test]
    fn agent_mcp_config_matches_snapshot() {
        let plan = plan_built_in(&ALL, None).unwrap();
        let config = plan.agent_config(Path::new("/usr/bin/supervisor"), |name| {
            Some(RelayEndpoint {
                address: "127.0.0.1:4711".parse().unwrap(),
                token: format!("token-of-{name}"),
            })
        });
        insta::assert_snapshot!(serde_json::to_string_pretty(&config).unwrap());
        assert_eq!(plan.tool_timeout(), Some(Duration::from_secs(180)));
    }

    #[test]
    fn server_without_requirement_is_skipped_with_reason() {
        let plan = plan_built_in(&FakeHost { secret: false, toolchain: false, ..ALL }, None).unwrap();
        let names: Vec<_> = plan.servers.iter().map(|server| server.name.as_str()).collect();
        assert_eq!(names, ["memory"]);
        let reasons: Vec<_> = plan.skipped.iter().map(|skipped| skipped.why.as_str()).collect();
        assert_eq!(
            reasons,
            [
                "missing secret `brave-api-key`",
                "Rust toolchain `nightly` is not installed (rustup toolchain install nightly)",
            ]
        );
    }

    #[test]
    fn missing_secret_is_reported_for_chosen_server_only() {
        let without = FakeHost { secret: false, ..ALL };
        let chosen = plan_built_in(&without, Some(&["kubernetes"])).unwrap();
        assert_eq!(chosen.skipped[0].why, "missing secret `kubeconfig`");
        let default_plan = plan_built_in(&without, None).unwrap();
        assert!(default_plan.skipped.iter().all(|skipped| skipped.name != "kubernetes"), "{default_plan:?}");
    }

    #[test]
    fn missing_server_program_is_named() {
        let plan = plan_built_in(&FakeHost { programs: false, ..ALL }, Some(&["memory"])).unwrap();
        assert_eq!(plan.skipped[0].why, "program `mcp-server-memory` is not installed");
    }

    #[test]
    fn plan_contains_only_chosen_known_servers() {
        let one = plan_built_in(&ALL, Some(&["memory", "memory"])).unwrap();
        assert_eq!(one.servers.len(), 1);
        assert_eq!(plan_built_in(&ALL, Some(&[])).unwrap(), ServerPlan::default());
        let error = plan_built_in(&ALL, Some(&["nope"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown MCP server `nope` (available: brave, kubernetes, memory, rustdocs)"
        );
    }

    #[test]
    fn required_server_without_program_fails_run() {
        let mut catalog = Catalog::default();
        let text = r#"{"name":"x","description":"d","command":"c","required":true}"#;
        catalog.add("x.json", text).unwrap();
        let location = Location {
            refuse: &|_| None,
            create_home: &create_home,
            find_command: &|_| None,
            has_toolchain: &|_| true,
        };
        let capabilities =
            HostCapabilities { places: &places(), has_secret: &|_| true, own: location, agent: location };
        let error = compose(&catalog, Some(&["x".to_owned()]), &capabilities).unwrap_err();
        assert_eq!(error.reason(), Reason::McpServerFailed);
    }
}
