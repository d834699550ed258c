//! The catalog of MCP servers: built-in ones and those of a directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use orchestrator_contract::Reason;
use serde::Deserialize;

/// The files `mcp-configs/*.json`, as (file name, text).
const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/mcp_configs.rs"));

/// The placeholders of `command`, `args` and `env`, written in braces.
pub(super) const PLACEHOLDERS: [&str; 5] = ["workspace", "memory", "target", "cache", "files"];

/// Maximum number of files that a server keeps.
const KEEP_MAX_FILES: usize = 8;

/// The sandbox that a server runs in.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum RunsIn {
    /// A sandbox of its own; the agent reaches it through a relay.
    #[default]
    OwnSandbox,
    /// The agent's sandbox, as a child of the agent CLI: for a server that runs code of the repository.
    AgentSandbox,
}

/// What a server in its own sandbox sees of the repository that the agent works in.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceAccess {
    #[default]
    None,
    Read,
    Write,
}

/// The configuration file of a server; `mcp-configs/README.md` documents the fields.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    pub name: String,
    /// What the agent can use the server for.
    pub description: String,
    /// A program in the search path, or an absolute path.
    pub command: String,
    #[serde(default)]
    pub args: Vec<String>,
    /// Additional environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Environment variables that contain secrets, with the names of the secrets.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// Environment variables that contain paths of secret files, with the names of the secrets.
    #[serde(default)]
    pub secret_files: BTreeMap<String, String>,
    /// Files to write for the server, by name; only for servers with secrets. The agent cannot read them.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// The sandbox that the server runs in.
    #[serde(default)]
    pub runs_in: RunsIn,
    /// What the server sees of the repository, in its own sandbox.
    #[serde(default)]
    pub workspace: WorkspaceAccess,
    /// Files in the server's home directory that are kept across the tasks of a service, by name.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Whether the run fails without this server.
    #[serde(default)]
    pub required: bool,
    /// Requirements beside its command and secrets.
    #[serde(default)]
    pub requires: Requirements,
    /// The timeout of a tool call, 1 to 3600 seconds.
    #[serde(default)]
    pub tool_timeout_seconds: Option<u32>,
    /// Whether services without an explicit choice get this server.
    #[serde(default)]
    pub enabled_by_default: bool,
    /// Suppresses the warning when this default server is skipped for a missing secret.
    #[serde(default)]
    pub skip_silently: bool,
    /// Whether the model sees the server's tools from the start.
    #[serde(default)]
    pub always_load: bool,
    /// Whether concurrent instances would overwrite each other's data.
    ///
    /// Runs with concurrent sessions skip such a server unless it is chosen by name.
    #[serde(default)]
    pub exclusive: bool,
}

impl ServerConfig {
    /// Returns the names of the required secrets.
    pub fn needed_secrets(&self) -> impl Iterator<Item = &str> {
        self.secrets.values().chain(self.secret_files.values()).map(String::as_str)
    }

    /// Returns whether the server is a default one, given the available secrets.
    pub fn is_default(&self, has_secret: impl Fn(&str) -> bool) -> bool {
        self.enabled_by_default && (!self.skip_silently || self.needed_secrets().all(has_secret))
    }
}

/// Requirements of a server beside its command and secrets.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Requirements {
    /// A Rust toolchain, without the host triple: `nightly`.
    #[serde(default)]
    pub toolchain: Option<String>,
}

/// Why a configuration file is rejected.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The directory or one of its files cannot be read.
    #[error("cannot read MCP configuration `{path}`")]
    Unreadable { path: PathBuf, source: io::Error },
    /// The file is invalid JSON, or does not match the schema.
    #[error("cannot parse MCP configuration `{file}`")]
    Malformed {
        file: String,
        /// The cause and its position.
        source: serde_json::Error,
    },
    /// A value is invalid.
    #[error("MCP configuration `{file}`, server `{server}`: {problem}")]
    Invalid {
        file: String,
        server: String,
        /// The invalid value.
        problem: String,
    },
}

impl CatalogError {
    /// Returns the reason that the run ends with.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::InvalidConfiguration
    }
}

/// The available servers, by name.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    servers: BTreeMap<String, ServerConfig>,
}

impl Catalog {
    /// Returns the built-in servers.
    ///
    /// # Errors
    /// Returns an error if a built-in file is invalid, which a test rules out.
    pub fn built_in() -> Result<Self, CatalogError> {
        let mut catalog = Self::default();
        for (file, text) in BUILT_IN {
            catalog.add(file, text)?;
        }
        Ok(catalog)
    }

    /// Adds every `*.json` of a directory; a server with an existing name replaces the old one.
    ///
    /// # Errors
    /// Returns an error if the directory or a file cannot be read, or a file is invalid.
    pub fn add_directory(&mut self, directory: &Path) -> Result<(), CatalogError> {
        let unreadable = |path: &Path, source| CatalogError::Unreadable { path: path.to_owned(), source };
        let mut paths = fs::read_dir(directory)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>())
            .map_err(|source| unreadable(directory, source))?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        for path in paths {
            let text = fs::read_to_string(&path).map_err(|source| unreadable(&path, source))?;
            self.add(&path.file_name().unwrap_or_default().to_string_lossy(), &text)?;
        }
        Ok(())
    }

    /// Parses and adds a server.
    ///
    /// # Errors
    /// Returns an error with the names of file and server if the file is invalid.
    pub fn add(&mut self, file: &str, text: &str) -> Result<(), CatalogError> {
        let server: ServerConfig = serde_json::from_str(text)
            .map_err(|source| CatalogError::Malformed { file: file.to_owned(), source })?;
        if let Some(problem) = validate(file, &server) {
            let (file, server) = (file.to_owned(), server.name);
            return Err(CatalogError::Invalid { file, server, problem });
        }
        self.servers.insert(server.name.clone(), server);
        Ok(())
    }

    /// Returns the server with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ServerConfig> {
        self.servers.get(name)
    }

    /// Returns all servers, sorted by name.
    pub fn servers(&self) -> impl Iterator<Item = &ServerConfig> {
        self.servers.values()
    }
}

/// Returns the first problem of a configuration.
fn validate(file: &str, server: &ServerConfig) -> Option<String> {
    let ServerConfig {
        name,
        description,
        command,
        args: _,
        env,
        secrets,
        secret_files,
        files,
        runs_in: _,
        workspace: _,
        keep,
        required: _,
        requires: Requirements { toolchain },
        tool_timeout_seconds,
        enabled_by_default: _,
        skip_silently: _,
        always_load: _,
        exclusive: _,
    } = server;
    let is_name = |name: &str| {
        (1..=40).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let is_variable = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if !is_name(name) {
        return Some("`name` is not 1 to 40 lowercase letters, digits or `-`".to_owned());
    }
    if file.strip_suffix(".json") != Some(name) {
        return Some(format!("file is not named `{name}.json`"));
    }
    if description.trim().is_empty() {
        return Some("`description` is empty".to_owned());
    }
    if command.is_empty() || (command.contains('/') && !command.starts_with(['/', '{'])) {
        return Some("`command` is neither a program name nor an absolute path".to_owned());
    }
    if let Some(name) =
        env.keys().chain(secrets.keys()).chain(secret_files.keys()).find(|name| !is_variable(name))
    {
        return Some(format!("invalid environment variable name `{name}`"));
    }
    if let Some(name) = secrets.keys().chain(secret_files.keys()).find(|name| env.contains_key(*name)) {
        return Some(format!("`{name}` is in both `env` and `secrets`"));
    }
    if let Some(name) = secret_files.keys().find(|name| secrets.contains_key(*name)) {
        return Some(format!("`{name}` is in both `secrets` and `secret_files`"));
    }
    if let Some(secret) = server.needed_secrets().find(|secret| !is_name(secret)) {
        return Some(format!("invalid secret name `{secret}` (expected the name, not the value)"));
    }
    let is_file = |name: &String| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
    };
    if let Some(name) = files.keys().chain(keep).find(|name| !is_file(name)) {
        return Some(format!("invalid file name `{name}`"));
    }
    if !files.is_empty() && server.needed_secrets().next().is_none() {
        return Some("`files` requires `secrets` or `secret_files`".to_owned());
    }
    if keep.len() > KEEP_MAX_FILES {
        return Some(format!("`keep` has more than {KEEP_MAX_FILES} files"));
    }
    if let Some(problem) = sandbox_problem(server) {
        return Some(problem);
    }
    if toolchain.as_ref().is_some_and(|name| name.is_empty() || name.contains('/')) {
        return Some("invalid toolchain name in `requires.toolchain`".to_owned());
    }
    if tool_timeout_seconds.is_some_and(|seconds| !(1..=3600).contains(&seconds)) {
        return Some("`tool_timeout_seconds` is not 1 to 3600".to_owned());
    }
    texts(server).filter_map(|text| placeholder_problem(text)).next()
}

/// Returns the texts that may contain placeholders.
fn texts(server: &ServerConfig) -> impl Iterator<Item = &String> {
    std::iter::once(&server.command).chain(&server.args).chain(server.env.values())
}

/// Returns what a server asks for that its sandbox does not have.
fn sandbox_problem(server: &ServerConfig) -> Option<String> {
    if ["{memory}", "{cache}"].iter().any(|name| server.command.contains(name)) {
        return Some("`command` is in a directory that is empty when the server starts".to_owned());
    }
    let uses = |name: &str| texts(server).any(|text| text.contains(&format!("{{{name}}}")));
    let unavailable: &[&str] = match (server.runs_in, server.workspace) {
        (RunsIn::AgentSandbox, WorkspaceAccess::Read | WorkspaceAccess::Write) => {
            return Some(
                "`workspace` is for servers in their own sandbox; the agent's has the repository".to_owned(),
            );
        }
        (RunsIn::AgentSandbox, WorkspaceAccess::None) => {
            if server.needed_secrets().next().is_some() || !server.keep.is_empty() {
                return Some("a server in the agent's sandbox has neither secrets nor kept files".to_owned());
            }
            &["memory", "cache", "files"]
        }
        (RunsIn::OwnSandbox, WorkspaceAccess::None) => &["workspace", "target"],
        (RunsIn::OwnSandbox, WorkspaceAccess::Read | WorkspaceAccess::Write) => &[],
    };
    let name = unavailable.iter().find(|name| uses(name))?;
    Some(match server.runs_in {
        RunsIn::OwnSandbox => format!("`{{{name}}}` requires `\"workspace\": \"read\"` or `\"write\"`"),
        RunsIn::AgentSandbox => format!("`{{{name}}}` does not exist in the agent's sandbox"),
    })
}

fn placeholder_problem(text: &str) -> Option<String> {
    if text.contains('\0') {
        return Some("value contains a NUL byte".to_owned());
    }
    if text.contains("${") {
        return Some(format!("`{text}` would be expanded by the agent CLI (placeholders have no `$`)"));
    }
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('{') {
        let (name, next) = after.split_once('}').unwrap_or((after, ""));
        if !PLACEHOLDERS.contains(&name) {
            return Some(format!(
                "unknown placeholder `{{{name}}}` (known: {{{}}})",
                PLACEHOLDERS.join("}, {")
            ));
        }
        rest = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(file: &str, text: &str) -> String {
        let error = Catalog::default().add(file, text).unwrap_err();
        match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    }

    #[test]
    fn built_in_servers_are_enabled_by_default() {
        let catalog = Catalog::built_in().unwrap();
        let names: Vec<_> =
            catalog.servers().filter(|server| server.enabled_by_default).map(|server| &server.name).collect();
        assert_eq!(names, ["brave", "kubernetes", "memory", "rustdocs"]);
    }

    #[test]
    fn invalid_config_error_names_file_or_server() {
        let with = |field: &str| format!(r#"{{"name":"x","description":"d","command":"c",{field}}}"#);
        let cases = [
            (with(r#""wat":1"#), "`x.json`: unknown field `wat`"),
            (with(r#""requires":{"gpu":1}"#), "unknown field `gpu`"),
            (with(r#""env":{"A":"{nowhere}"}"#), "server `x`: unknown placeholder `{nowhere}`"),
            (with(r#""args":["${HOME}"]"#), "would be expanded by the agent"),
            (with(r#""env":{"A-B":""}"#), "invalid environment variable name `A-B`"),
            (with(r#""env":{"K":""},"secrets":{"K":"key"}"#), "in both `env` and `secrets`"),
            (
                with(r#""secrets":{"K":"key"},"secret_files":{"K":"key"}"#),
                "in both `secrets` and `secret_files`",
            ),
            (with(r#""secret_files":{"K":"/etc/key"}"#), "invalid secret name"),
            (with(r#""secrets":{"K":"key"},"files":{"../x":""}"#), "invalid file name `../x`"),
            (with(r#""files":{"x":""}"#), "`files` requires `secrets`"),
            (with(r#""secrets":{"K":"BSA_value"}"#), "invalid secret name"),
            (with(r#""tool_timeout_seconds":0"#), "not 1 to 3600"),
            (with(r#""keep":["../memory.json"]"#), "invalid file name `../memory.json`"),
            (with(r#""keep":[".bashrc"]"#), "invalid file name `.bashrc`"),
            (with(r#""args":["{target}"]"#), r#"`{target}` requires `"workspace": "read"`"#),
            (with(r#""runs_in":"agent_sandbox","keep":["m"]"#), "neither secrets nor kept files"),
            (with(r#""runs_in":"agent_sandbox","secrets":{"K":"key"}"#), "neither secrets nor kept files"),
            (with(r#""runs_in":"agent_sandbox","args":["{memory}"]"#), "`{memory}` does not exist"),
            (
                with(r#""runs_in":"agent_sandbox","workspace":"read"}"#).replace("}}", "}"),
                "in their own sandbox",
            ),
            (with(r#""workspace":"all""#), "unknown variant `all`"),
            (r#"{"name":"y","description":"d","command":"c"}"#.to_owned(), "not named `y.json`"),
            (r#"{"name":"x","description":"d","command":"./c"}"#.to_owned(), "`command` is neither"),
            (r#"{"name":"x","command":"c"}"#.to_owned(), "missing field `description`"),
        ];
        for (text, expected) in cases {
            let error = error_of("x.json", &text);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn config_directory_overrides_built_in_servers() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("extra.json", r#"{"name":"extra","description":"d","command":"c"}"#);
        write("memory.json", r#"{"name":"memory","description":"custom","command":"c"}"#);
        write("README.md", "no JSON");
        let mut catalog = Catalog::built_in().unwrap();
        catalog.add_directory(folder.path()).unwrap();
        assert_eq!(catalog.servers().count(), 5);
        assert_eq!(catalog.get("memory").unwrap().description, "custom");
        assert!(catalog.add_directory(Path::new("/nonexistent")).is_err());
    }
}
