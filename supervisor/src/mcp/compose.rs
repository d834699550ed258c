//! One configuration for the agent out of the servers it is to have.
//!
//! Pure; no secret is ever in what it makes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::{McpServer, McpStatus};

use super::catalog::{Catalog, ServerConfig};

/// What the placeholders stand for; absolute paths.
#[derive(Clone, Debug)]
pub struct Placeholders {
    /// The working tree.
    pub workspace: PathBuf,
    /// Kept across the tasks of a service.
    pub memory: PathBuf,
    /// Where the agent works.
    pub target: PathBuf,
    /// Caches of programs.
    pub cache: PathBuf,
    /// Where files for servers are written, a folder each.
    pub files: PathBuf,
}

/// What there is, for servers to need.
#[derive(Clone, Copy)]
pub struct HostCapabilities<'a> {
    /// What the placeholders stand for.
    pub places: &'a Placeholders,
    /// Whether there is a secret of this name.
    pub has_secret: &'a dyn Fn(&str) -> bool,
    /// The path of a command; see [`super::installed::find_command`].
    pub find_command: &'a dyn Fn(&str) -> Option<PathBuf>,
    /// Whether there is a Rust toolchain; see [`super::installed::has_toolchain`].
    pub has_toolchain: &'a dyn Fn(&str) -> bool,
}

/// A server as it is to be started.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlannedServer {
    /// Its name.
    pub name: String,
    /// Its program.
    pub command: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment beyond the agent's, without secrets.
    pub env: BTreeMap<String, String>,
    /// Environment variable to name of a secret.
    pub secrets: BTreeMap<String, String>,
    /// Environment variable to name of a secret whose file's path it gets.
    pub secret_files: BTreeMap<String, String>,
    /// What is to be written before it is started.
    pub files: BTreeMap<PathBuf, String>,
    /// Whether a run without it makes no sense.
    pub required: bool,
    /// How long one call of a tool may take.
    pub tool_timeout: Option<Duration>,
    /// Whether the model sees its tools at once.
    pub always_load: bool,
}

impl PlannedServer {
    /// Whether it is the supervisor's child, outside of the agent's sandbox.
    #[must_use]
    pub fn has_secrets(&self) -> bool {
        !self.secrets.is_empty() || !self.secret_files.is_empty()
    }
}

/// A server that the agent does not have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SkippedServer {
    /// Its name.
    pub name: String,
    /// What is missing.
    pub why: String,
}

impl SkippedServer {
    /// What the outcome says about it.
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

/// The servers that the agent is to have, and those that it cannot have.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServerPlan {
    /// To be started.
    pub servers: Vec<PlannedServer>,
    /// Left out, and why.
    pub skipped: Vec<SkippedServer>,
}

/// The agent cannot have the servers that were asked for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ComposeError {
    /// A chosen server is not known.
    #[error("no MCP server `{name}`: there are {}", known.join(", "))]
    Unknown {
        /// The name.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A required server lacks something.
    #[error("MCP server `{name}` is required, and {why}")]
    RequiredMissing {
        /// The server.
        name: String,
        /// What is missing.
        why: String,
    },
}

impl ComposeError {
    /// Why the run ends.
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
/// A chosen server is unknown, or a required one lacks something.
pub fn compose(
    catalogue: &Catalog,
    chosen: Option<&[String]>,
    surroundings: &HostCapabilities<'_>,
) -> Result<ServerPlan, ComposeError> {
    let servers: Vec<&ServerConfig> = match chosen {
        None => catalogue.servers().filter(|server| server.is_default(surroundings.has_secret)).collect(),
        Some(names) => {
            let known = || catalogue.servers().map(|server| server.name.clone()).collect();
            let unknown = |name: &String| ComposeError::Unknown { name: name.clone(), known: known() };
            let mut servers = Vec::new();
            for name in names {
                let server = catalogue.get(name).ok_or_else(|| unknown(name))?;
                if !servers.contains(&server) {
                    servers.push(server);
                }
            }
            servers
        }
    };
    let mut composed = ServerPlan::default();
    for server in servers {
        let name = server.name.clone();
        match plan(server, surroundings) {
            Ok(planned) => composed.servers.push(planned),
            Err(why) if server.required => return Err(ComposeError::RequiredMissing { name, why }),
            Err(why) => composed.skipped.push(SkippedServer { name, why }),
        }
    }
    Ok(composed)
}

fn plan(server: &ServerConfig, surroundings: &HostCapabilities<'_>) -> Result<PlannedServer, String> {
    let HostCapabilities { places, has_secret, find_command, has_toolchain } = surroundings;
    let folder = places.files.join(&server.name);
    let expand = |text: &str| expand(text, places, &folder);
    let command = expand(&server.command);
    let found = find_command(&command).ok_or_else(|| format!("the program `{command}` is not installed"))?;
    if let Some(toolchain) = server.requires.toolchain.as_ref().filter(|toolchain| !has_toolchain(toolchain))
    {
        return Err(format!(
            "the Rust toolchain `{toolchain}` is not installed (rustup toolchain install {toolchain})"
        ));
    }
    if let Some(secret) = server.needed_secrets().find(|secret| !has_secret(secret)) {
        return Err(format!("the secret `{secret}` is not given"));
    }
    let expanded = |(name, value): (&String, &String)| (name.clone(), expand(value));
    Ok(PlannedServer {
        name: server.name.clone(),
        command: found,
        args: server.args.iter().map(|text| expand(text)).collect(),
        env: server.env.iter().map(expanded).collect(),
        secrets: server.secrets.clone(),
        secret_files: server.secret_files.clone(),
        files: server.files.iter().map(|(name, text)| (folder.join(name), text.clone())).collect(),
        required: server.required,
        tool_timeout: server.tool_timeout_seconds.map(|seconds| Duration::from_secs(seconds.into())),
        always_load: server.always_load,
    })
}

/// Replaces placeholders in one pass, so that a path with braces is left as it is.
fn expand(text: &str, places: &Placeholders, files: &Path) -> String {
    let Placeholders { workspace, memory, target, cache, files: _ } = places;
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        expanded.push_str(before);
        let (name, next) = after.split_once('}').unwrap_or((after, ""));
        let place = match name {
            "workspace" => workspace,
            "memory" => memory,
            "target" => target,
            "cache" => cache,
            "files" => files,
            // The catalogue refuses others.
            _ => Path::new(""),
        };
        expanded.push_str(&place.to_string_lossy());
        rest = next;
    }
    expanded + rest
}

impl ServerPlan {
    /// The agent's `mcp.json`. A server with secrets is reached through
    /// `{supervisor} mcp-relay NAME --socket PATH`.
    #[must_use]
    pub fn agent_config(
        &self,
        supervisor: &Path,
        socket: impl Fn(&str) -> Option<PathBuf>,
    ) -> serde_json::Value {
        let mut servers = serde_json::Map::new();
        for server in &self.servers {
            let mut entry = if !server.has_secrets() {
                serde_json::json!({
                    "type": "stdio",
                    "command": server.command,
                    "args": server.args,
                    "env": server.env,
                })
            } else {
                let Some(socket) = socket(&server.name) else { continue };
                serde_json::json!({
                    "type": "stdio",
                    "command": supervisor,
                    "args": ["mcp-relay", server.name, "--socket", socket],
                    "env": {},
                })
            };
            if let Some(entry) = entry.as_object_mut().filter(|_| server.always_load) {
                entry.insert("alwaysLoad".to_owned(), true.into());
            }
            servers.insert(server.name.clone(), entry);
        }
        serde_json::json!({ "mcpServers": servers })
    }

    /// The longest that a call of any server's tool may take, for `MCP_TOOL_TIMEOUT`.
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
            memory: "/w/agent/memory".into(),
            target: "/w/target-repo/trader".into(),
            cache: "/w/agent/cache".into(),
            files: "/w/.orchestrator/runs/x/mcp".into(),
        }
    }

    struct FakeHost {
        secret: bool,
        toolchain: bool,
        programs: bool,
    }

    const ALL: FakeHost = FakeHost { secret: true, toolchain: true, programs: true };

    fn composed(there: &FakeHost, chosen: Option<&[&str]>) -> Result<ServerPlan, ComposeError> {
        let chosen: Option<Vec<String>> =
            chosen.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let surroundings = HostCapabilities {
            places: &places(),
            has_secret: &|_| there.secret,
            find_command: &|name| there.programs.then(|| Path::new("/usr/bin").join(name)),
            has_toolchain: &|_| there.toolchain,
        };
        compose(&Catalog::built_in().unwrap(), chosen.as_deref(), &surroundings)
    }

    #[test]
    fn agent_mcp_config_matches_snapshot() {
        let composed = composed(&ALL, None).unwrap();
        let config = composed.agent_config(Path::new("/usr/bin/supervisor"), |name| {
            Some(PathBuf::from(format!("/tmp/mcp-x/{name}.sock")))
        });
        insta::assert_snapshot!(serde_json::to_string_pretty(&config).unwrap());
        assert_eq!(composed.tool_timeout(), Some(Duration::from_secs(180)));
    }

    #[test]
    fn server_without_requirement_is_skipped_with_reason() {
        let composed = composed(&FakeHost { secret: false, toolchain: false, ..ALL }, None).unwrap();
        let names: Vec<_> = composed.servers.iter().map(|server| server.name.as_str()).collect();
        assert_eq!(names, ["memory"]);
        let reasons: Vec<_> = composed.skipped.iter().map(|left| left.why.as_str()).collect();
        assert_eq!(
            reasons,
            [
                "the secret `brave-api-key` is not given",
                "the Rust toolchain `nightly` is not installed (rustup toolchain install nightly)",
            ]
        );
    }

    #[test]
    fn missing_secret_is_reported_for_chosen_server_only() {
        let without = FakeHost { secret: false, ..ALL };
        let chosen = composed(&without, Some(&["kubernetes"])).unwrap();
        assert_eq!(chosen.skipped[0].why, "the secret `kubeconfig` is not given");
        let offered = composed(&without, None).unwrap();
        assert!(offered.skipped.iter().all(|left| left.name != "kubernetes"), "{offered:?}");
    }

    #[test]
    fn missing_server_program_is_named() {
        let composed = composed(&FakeHost { programs: false, ..ALL }, Some(&["memory"])).unwrap();
        assert_eq!(composed.skipped[0].why, "the program `mcp-server-memory` is not installed");
    }

    #[test]
    fn plan_contains_only_chosen_known_servers() {
        let one = composed(&ALL, Some(&["memory", "memory"])).unwrap();
        assert_eq!(one.servers.len(), 1);
        assert_eq!(composed(&ALL, Some(&[])).unwrap(), ServerPlan::default());
        let error = composed(&ALL, Some(&["nope"])).unwrap_err();
        assert_eq!(error.to_string(), "no MCP server `nope`: there are brave, kubernetes, memory, rustdocs");
    }

    #[test]
    fn required_server_without_program_fails_run() {
        let mut catalogue = Catalog::default();
        let text = r#"{"name":"x","description":"d","command":"c","required":true}"#;
        catalogue.add("x.json", text).unwrap();
        let surroundings = HostCapabilities {
            places: &places(),
            has_secret: &|_| true,
            find_command: &|_| None,
            has_toolchain: &|_| true,
        };
        let error = compose(&catalogue, Some(&["x".to_owned()]), &surroundings).unwrap_err();
        assert_eq!(error.reason(), Reason::McpServerFailed);
    }
}
