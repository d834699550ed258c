//! The servers that may be had: those built in, and those of a directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use orchestrator_contract::Reason;
use serde::Deserialize;

/// `mcp-configs/*.json`, as (file name, text).
const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/mcp_configs.rs"));

/// What may stand in braces in `command`, `args` and `env`.
pub(super) const PLACEHOLDERS: [&str; 5] = ["workspace", "memory", "target", "cache", "files"];

/// A server, as its file describes it; `mcp-configs/README.md` says what the fields mean.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Its name in the configuration.
    pub name: String,
    /// What the agent has it for.
    pub description: String,
    /// A program on the search path, or an absolute path.
    pub command: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its environment beyond the agent's.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Environment variable to name of a secret.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// Environment variable to name of a secret whose file's path it gets.
    #[serde(default)]
    pub secret_files: BTreeMap<String, String>,
    /// Files that are written for it, by name: for servers with secrets, out of the agent's reach.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Whether a run without it makes no sense.
    #[serde(default)]
    pub required: bool,
    /// What must be there beside its command and secrets.
    #[serde(default)]
    pub requires: Needs,
    /// How long one call of a tool may take.
    #[serde(default)]
    pub tool_timeout_seconds: Option<u32>,
    /// Whether services have it that choose nothing.
    #[serde(default)]
    pub enabled_by_default: bool,
    /// Whether nothing is said when services that choose nothing do without it for want of a secret.
    #[serde(default)]
    pub skip_silently: bool,
    /// Whether the model sees its tools at once.
    #[serde(default)]
    pub always_load: bool,
    /// Whether two of it at once would write over each other: runs with several conversations
    /// do without it unless it is chosen by name.
    #[serde(default)]
    pub exclusive: bool,
}

impl ServerConfig {
    /// The names of the secrets that it needs.
    pub fn needed_secrets(&self) -> impl Iterator<Item = &str> {
        self.secrets.values().chain(self.secret_files.values()).map(String::as_str)
    }

    /// Whether services have it that choose nothing, where these secrets are given.
    pub fn is_default(&self, has_secret: impl Fn(&str) -> bool) -> bool {
        self.enabled_by_default && (!self.skip_silently || self.needed_secrets().all(has_secret))
    }
}

/// What a server needs beside its command and secrets.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Needs {
    /// A Rust toolchain, by the beginning of its name.
    #[serde(default)]
    pub toolchain: Option<String>,
}

/// A server's file is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The directory or a file of it cannot be read.
    #[error("cannot read MCP configuration `{path}`")]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no JSON of the right form.
    #[error("cannot understand MCP configuration `{file}`")]
    Malformed {
        /// The file.
        file: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A value is not allowed.
    #[error("MCP configuration `{file}`, server `{server}`: {problem}")]
    Invalid {
        /// The file.
        file: String,
        /// The server.
        server: String,
        /// What is wrong.
        problem: String,
    },
}

impl CatalogueError {
    /// Why the run ends.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::InvalidConfiguration
    }
}

/// The servers that may be had, by name.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    servers: BTreeMap<String, ServerConfig>,
}

impl Catalog {
    /// The servers that are built in.
    ///
    /// # Errors
    /// One of them is not valid, which a test rules out.
    pub fn built_in() -> Result<Self, CatalogueError> {
        let mut catalogue = Self::default();
        for (file, text) in BUILT_IN {
            catalogue.add(file, text)?;
        }
        Ok(catalogue)
    }

    /// Adds every `*.json` of a directory; a server of a known name replaces it.
    ///
    /// # Errors
    /// The directory or a file of it cannot be read, or is not valid.
    pub fn add_directory(&mut self, directory: &Path) -> Result<(), CatalogueError> {
        let unreadable = |path: &Path, source| CatalogueError::Unreadable { path: path.to_owned(), source };
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

    /// Adds the server that a file describes.
    ///
    /// # Errors
    /// The file is not valid; the error names it and the server.
    pub fn add(&mut self, file: &str, text: &str) -> Result<(), CatalogueError> {
        let server: ServerConfig = serde_json::from_str(text)
            .map_err(|source| CatalogueError::Malformed { file: file.to_owned(), source })?;
        if let Some(problem) = validate(file, &server) {
            let (file, server) = (file.to_owned(), server.name);
            return Err(CatalogueError::Invalid { file, server, problem });
        }
        self.servers.insert(server.name.clone(), server);
        Ok(())
    }

    /// The server of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ServerConfig> {
        self.servers.get(name)
    }

    /// Every server, by name.
    pub fn servers(&self) -> impl Iterator<Item = &ServerConfig> {
        self.servers.values()
    }
}

/// What is wrong with a server, if anything.
fn validate(file: &str, server: &ServerConfig) -> Option<String> {
    let ServerConfig {
        name,
        description,
        command,
        args,
        env,
        secrets,
        secret_files,
        files,
        required: _,
        requires: Needs { toolchain },
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
        return Some("the name is not 1 to 40 lower-case letters, digits and `-`".to_owned());
    }
    if file.strip_suffix(".json") != Some(name) {
        return Some(format!("the file is not named `{name}.json`"));
    }
    if description.trim().is_empty() {
        return Some("`description` is empty".to_owned());
    }
    if command.is_empty() || (command.contains('/') && !command.starts_with(['/', '{'])) {
        return Some("`command` is neither a program's name nor an absolute path".to_owned());
    }
    if let Some(name) =
        env.keys().chain(secrets.keys()).chain(secret_files.keys()).find(|name| !is_variable(name))
    {
        return Some(format!("`{name}` is no name of an environment variable"));
    }
    if let Some(name) = secrets.keys().chain(secret_files.keys()).find(|name| env.contains_key(*name)) {
        return Some(format!("`{name}` is in `env` and in `secrets`"));
    }
    if let Some(name) = secret_files.keys().find(|name| secrets.contains_key(*name)) {
        return Some(format!("`{name}` is in `secrets` and in `secret_files`"));
    }
    if let Some(secret) = server.needed_secrets().find(|secret| !is_name(secret)) {
        return Some(format!("`{secret}` is no name of a secret: never write its value here"));
    }
    let is_file = |name: &String| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
    };
    if let Some(name) = files.keys().find(|name| !is_file(name)) {
        return Some(format!("`{name}` is no plain name of a file"));
    }
    if !files.is_empty() && server.needed_secrets().next().is_none() {
        return Some("`files` are for servers with secrets: the agent starts the others itself".to_owned());
    }
    if toolchain.as_ref().is_some_and(|name| name.is_empty() || name.contains('/')) {
        return Some("`requires.toolchain` is no name of a toolchain".to_owned());
    }
    if tool_timeout_seconds.is_some_and(|seconds| !(1..=3600).contains(&seconds)) {
        return Some("`tool_timeout_seconds` is not 1 to 3600".to_owned());
    }
    let texts = std::iter::once(command).chain(args).chain(env.values());
    texts.filter_map(|text| placeholder_problem(text)).next()
}

fn placeholder_problem(text: &str) -> Option<String> {
    if text.contains('\0') {
        return Some("a value has a NUL".to_owned());
    }
    if text.contains("${") {
        return Some(format!("`{text}` would be expanded by the agent: use {{workspace}} and the like"));
    }
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('{') {
        let (name, next) = after.split_once('}').unwrap_or((after, ""));
        if !PLACEHOLDERS.contains(&name) {
            return Some(format!("`{{{name}}}` is none of {{{}}}", PLACEHOLDERS.join("}, {")));
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
        let catalogue = Catalog::built_in().unwrap();
        let names: Vec<_> = catalogue
            .servers()
            .filter(|server| server.enabled_by_default)
            .map(|server| &server.name)
            .collect();
        assert_eq!(names, ["brave", "kubernetes", "memory", "rustdocs"]);
    }

    #[test]
    fn invalid_config_error_names_file_or_server() {
        let with = |field: &str| format!(r#"{{"name":"x","description":"d","command":"c",{field}}}"#);
        let cases = [
            (with(r#""wat":1"#), "`x.json`: unknown field `wat`"),
            (with(r#""requires":{"gpu":1}"#), "unknown field `gpu`"),
            (with(r#""env":{"A":"{nowhere}"}"#), "server `x`: `{nowhere}` is none of"),
            (with(r#""args":["${HOME}"]"#), "would be expanded by the agent"),
            (with(r#""env":{"A-B":""}"#), "`A-B` is no name of an environment variable"),
            (with(r#""env":{"K":""},"secrets":{"K":"key"}"#), "in `env` and in `secrets`"),
            (
                with(r#""secrets":{"K":"key"},"secret_files":{"K":"key"}"#),
                "in `secrets` and in `secret_files`",
            ),
            (with(r#""secret_files":{"K":"/etc/key"}"#), "no name of a secret"),
            (with(r#""secrets":{"K":"key"},"files":{"../x":""}"#), "no plain name of a file"),
            (with(r#""files":{"x":""}"#), "`files` are for servers with secrets"),
            (with(r#""secrets":{"K":"BSA_value"}"#), "no name of a secret"),
            (with(r#""tool_timeout_seconds":0"#), "not 1 to 3600"),
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
        write("memory.json", r#"{"name":"memory","description":"ours","command":"c"}"#);
        write("README.md", "no JSON");
        let mut catalogue = Catalog::built_in().unwrap();
        catalogue.add_directory(folder.path()).unwrap();
        assert_eq!(catalogue.servers().count(), 5);
        assert_eq!(catalogue.get("memory").unwrap().description, "ours");
        assert!(catalogue.add_directory(Path::new("/nonexistent")).is_err());
    }
}
