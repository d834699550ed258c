//! Builds the CLI's arguments and environment. Pure.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::process::Environment;
use crate::workspace::caches;

/// The options of one CLI session.
#[derive(Clone, Debug)]
pub struct CliOptions<'a> {
    /// The model, by any name that the CLI accepts.
    pub model: &'a str,
    /// The session to start or resume.
    pub session: Session<'a>,
    /// The file with the agent's MCP configuration.
    pub mcp_config: &'a Path,
    /// The file with the agent's settings.
    pub settings: &'a Path,
    /// The file with the system prompt to append.
    pub system_prompt: &'a Path,
    /// The remaining turns.
    pub turns: Option<u32>,
    /// The remaining US dollars.
    pub cost_usd: Option<f64>,
    /// The JSON Schema of the verdict.
    pub verdict_schema: &'a Value,
}

/// A new session, or one to resume.
#[derive(Clone, Copy, Debug)]
pub enum Session<'a> {
    /// A new session with this id, which must be unused.
    New(&'a str),
    /// The session with this id.
    Resume(&'a str),
}

/// Builds the arguments. The prompt is not among them; it is sent on standard input.
#[must_use]
pub fn compose_arguments(options: &CliOptions<'_>) -> Vec<OsString> {
    let CliOptions { model, session, mcp_config, settings, system_prompt, turns, cost_usd, verdict_schema } =
        options;
    let mut arguments: Vec<OsString> = Vec::new();
    let mut flag = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
        arguments.push(name.into());
        arguments.push(value.as_ref().to_owned());
    };
    flag("--input-format", &"stream-json");
    flag("--output-format", &"stream-json");
    flag("--model", model);
    match session {
        Session::New(id) => flag("--session-id", id),
        Session::Resume(id) => flag("--resume", id),
    }
    // A repository's own settings and MCP servers would run without a permission prompt.
    flag("--setting-sources", &"user");
    flag("--mcp-config", mcp_config);
    flag("--settings", settings);
    flag("--append-system-prompt-file", system_prompt);
    flag("--json-schema", &verdict_schema.to_string());
    flag("--permission-mode", &"bypassPermissions");
    if let Some(turns) = turns {
        flag("--max-turns", &turns.to_string());
    }
    if let Some(cost) = cost_usd {
        flag("--max-budget-usd", &format!("{cost:.6}"));
    }
    arguments.extend(["-p", "--verbose", "--strict-mcp-config"].map(OsString::from));
    if matches!(session, Session::Resume(_)) {
        // Otherwise the CLI keeps the system prompt of the earlier run.
        arguments.extend(["--system-prompt-snapshot", "off"].map(OsString::from));
    }
    arguments
}

/// Builds the CLI's settings: no co-author trailers, which would name an unrelated account.
#[must_use]
pub fn compose_settings() -> Value {
    json!({ "attribution": { "commit": "", "pr": "" } })
}

/// Builds one message for the CLI's standard input.
#[must_use]
pub fn compose_message(text: &str) -> String {
    let message = json!({
        "type": "user",
        "message": { "role": "user", "content": [{ "type": "text", "text": text }] },
        "parent_tool_use_id": null,
        "session_id": "",
    });
    format!("{message}\n")
}

/// The paths of the agent and the processes that it starts.
#[derive(Clone, Debug)]
pub struct AgentPaths {
    /// The fresh home directory.
    pub home: PathBuf,
    pub tmp: PathBuf,
    /// The private caches of tools.
    pub cache: PathBuf,
    /// The search path for programs.
    pub path: OsString,
    /// The rustup toolchains, which are outside of the agent's home.
    pub rustup_home: Option<PathBuf>,
}

/// Builds the environment of setup and verify commands and of the agent, without credentials.
///
/// `passthrough` are the variables of the supervisor's environment that describe
/// the machine: time zone, certificates, proxies.
#[must_use]
pub fn compose_environment(paths: &AgentPaths, passthrough: &Environment) -> Environment {
    let AgentPaths { home, tmp, cache, path, rustup_home } = paths;
    let mut environment = passthrough.clone();
    environment.extend(caches::environment(cache));
    let mut set = |name: &str, value: OsString| environment.insert(name.into(), value);
    set("PATH", path.clone());
    set("LANG", "C.UTF-8".into());
    set("HOME", home.clone().into());
    set("TMPDIR", tmp.clone().into());
    set("XDG_CACHE_HOME", cache.join("xdg").into());
    // A prompt without a terminal would hang until the idle limit.
    set("GIT_TERMINAL_PROMPT", "0".into());
    if let Some(rustup_home) = rustup_home {
        set("RUSTUP_HOME", rustup_home.clone().into());
    }
    environment
}

/// Builds the CLI's environment: `base`, its own directories and options, the model credential.
#[must_use]
pub fn compose_cli_environment(
    base: &Environment,
    paths: &AgentPaths,
    model: &Environment,
    root: bool,
) -> Environment {
    let mut environment = base.clone();
    environment.extend(model.clone());
    let mut set = |name: &str, value: OsString| {
        // Variables that the operator set take precedence.
        environment.entry(name.into()).or_insert(value);
    };
    set("CLAUDE_CONFIG_DIR", paths.home.join(".claude").into());
    set("CLAUDE_CODE_TMPDIR", paths.tmp.clone().into());
    set("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".into());
    set("DISABLE_AUTOUPDATER", "1".into());
    // Only together do these variables abort a stalled stream.
    set("CLAUDE_ENABLE_STREAM_WATCHDOG", "1".into());
    set("CLAUDE_STREAM_IDLE_TIMEOUT_MS", "300000".into());
    set("CLAUDE_ENABLE_BYTE_WATCHDOG", "1".into());
    set("CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS", "300000".into());
    // The first call of the rustdocs server builds the documentation: 13 to 27 s per crate.
    set("MCP_TOOL_TIMEOUT", "180000".into());
    set("MCP_TIMEOUT", "30000".into());
    if root {
        // As root the CLI bypasses permissions only if it is marked as sandboxed.
        set("IS_SANDBOX", "1".into());
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_session_arguments_match_snapshot() {
        let schema = json!({"type": "object"});
        let options = CliOptions {
            model: "sonnet",
            session: Session::New("6f0d5b7c-0000-4000-8000-000000000000"),
            mcp_config: Path::new("/w/mcp.json"),
            settings: Path::new("/w/settings.json"),
            system_prompt: Path::new("/w/system.md"),
            turns: Some(30),
            cost_usd: Some(1.5),
            verdict_schema: &schema,
        };
        let arguments: Vec<String> =
            compose_arguments(&options).into_iter().map(|argument| argument.into_string().unwrap()).collect();
        insta::assert_snapshot!(arguments.join("\n"));
    }

    #[test]
    fn base_environment_has_no_model_credential() {
        let paths = AgentPaths {
            home: "/w/agent/0123456789abcdef/home".into(),
            tmp: "/w/agent/0123456789abcdef/tmp".into(),
            cache: "/w/agent/0123456789abcdef/cache".into(),
            path: "/usr/bin".into(),
            rustup_home: None,
        };
        let base = compose_environment(&paths, &Environment::new());
        let model = Environment::from([("ANTHROPIC_API_KEY".into(), "k".into())]);
        assert!(!base.contains_key(std::ffi::OsStr::new("ANTHROPIC_API_KEY")));
        let cli = compose_cli_environment(&base, &paths, &model, false);
        assert!(cli.contains_key(std::ffi::OsStr::new("ANTHROPIC_API_KEY")));
        assert!(!cli.contains_key(std::ffi::OsStr::new("IS_SANDBOX")));
    }
}
