//! The CLI's arguments and environment. Pure.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::process::Environment;

/// One start of the CLI.
#[derive(Clone, Debug)]
pub struct CliOptions<'a> {
    /// The model by any name that the CLI takes.
    pub model: &'a str,
    /// The conversation.
    pub session: Session<'a>,
    /// The agent's MCP configuration.
    pub mcp_config: &'a Path,
    /// The agent's settings.
    pub settings: &'a Path,
    /// The standing instructions.
    pub system_prompt: &'a Path,
    /// Turns that are left.
    pub turns: Option<u32>,
    /// US dollars that are left.
    pub cost_usd: Option<f64>,
    /// The verdict's schema.
    pub verdict_schema: &'a Value,
}

/// A new conversation, or one that goes on.
#[derive(Clone, Copy, Debug)]
pub enum Session<'a> {
    /// With this id, which must never have been used.
    New(&'a str),
    /// With the history of this one.
    Resume(&'a str),
}

/// The arguments. The prompt is not among them: it comes on standard input.
#[must_use]
pub fn compose_arguments(start: &CliOptions<'_>) -> Vec<OsString> {
    let CliOptions { model, session, mcp_config, settings, system_prompt, turns, cost_usd, verdict_schema } =
        start;
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
    // Only what we compose: a repository's own settings and servers would run with no question asked.
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
        // The earlier run's instructions would stay otherwise.
        arguments.extend(["--system-prompt-snapshot", "off"].map(OsString::from));
    }
    arguments
}

/// The CLI's settings: no co-author lines, which would name an account that is not the agent's.
#[must_use]
pub fn compose_settings() -> Value {
    json!({ "attribution": { "commit": "", "pr": "" } })
}

/// One message on the CLI's standard input.
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

/// Where things are for the agent and for what it starts.
#[derive(Clone, Debug)]
pub struct AgentPaths {
    /// The agent's home in this run.
    pub home: PathBuf,
    /// Its temporary files.
    pub tmp: PathBuf,
    /// Caches of tools, kept across runs.
    pub cache: PathBuf,
    /// Where programs are found.
    pub path: OsString,
    /// The toolchains; a private home would hide them.
    pub rustup_home: Option<PathBuf>,
}

/// The environment of everything that works on the agent's behalf, without any credential.
///
/// `passed` are the few variables of our own environment that describe the
/// machine: language, time zone, certificates, proxies.
#[must_use]
pub fn compose_environment(places: &AgentPaths, passed: &Environment) -> Environment {
    let AgentPaths { home, tmp, cache, path, rustup_home } = places;
    let mut environment = passed.clone();
    let mut set = |name: &str, value: OsString| environment.insert(name.into(), value);
    set("PATH", path.clone());
    set("LANG", "C.UTF-8".into());
    set("HOME", home.clone().into());
    set("TMPDIR", tmp.clone().into());
    set("CARGO_HOME", cache.join("cargo").into());
    set("npm_config_cache", cache.join("npm").into());
    set("XDG_CACHE_HOME", cache.join("xdg").into());
    // Questions on a terminal that is not there would hang until the silence limit.
    set("GIT_TERMINAL_PROMPT", "0".into());
    if let Some(rustup_home) = rustup_home {
        set("RUSTUP_HOME", rustup_home.clone().into());
    }
    environment
}

/// What the CLI itself needs on top: its own folders, its manners, the model's credential.
#[must_use]
pub fn compose_cli_environment(
    base: &Environment,
    places: &AgentPaths,
    model: &Environment,
    root: bool,
) -> Environment {
    let mut environment = base.clone();
    environment.extend(model.clone());
    let mut set = |name: &str, value: OsString| {
        // What the operator set for the model wins over our manners.
        environment.entry(name.into()).or_insert(value);
    };
    set("CLAUDE_CONFIG_DIR", places.home.join(".claude").into());
    set("CLAUDE_CODE_TMPDIR", places.tmp.clone().into());
    set("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".into());
    set("DISABLE_AUTOUPDATER", "1".into());
    // Together they end a stream that stalls; one alone does nothing.
    set("CLAUDE_ENABLE_STREAM_WATCHDOG", "1".into());
    set("CLAUDE_STREAM_IDLE_TIMEOUT_MS", "300000".into());
    set("CLAUDE_ENABLE_BYTE_WATCHDOG", "1".into());
    set("CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS", "300000".into());
    // The first call of the documentation server builds it: 13 to 27 s were seen for one crate.
    set("MCP_TOOL_TIMEOUT", "180000".into());
    set("MCP_TIMEOUT", "30000".into());
    if root {
        // The CLI refuses to bypass permissions as root unless it is told that it is contained.
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
        let start = CliOptions {
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
            compose_arguments(&start).into_iter().map(|word| word.into_string().unwrap()).collect();
        insta::assert_snapshot!(arguments.join("\n"));
    }

    #[test]
    fn base_environment_has_no_model_credential() {
        let places = AgentPaths {
            home: "/w/agent/home/r".into(),
            tmp: "/w/agent/tmp".into(),
            cache: "/w/agent/cache".into(),
            path: "/usr/bin".into(),
            rustup_home: None,
        };
        let base = compose_environment(&places, &Environment::new());
        let model = Environment::from([("ANTHROPIC_API_KEY".into(), "k".into())]);
        assert!(!base.contains_key(std::ffi::OsStr::new("ANTHROPIC_API_KEY")));
        let cli = compose_cli_environment(&base, &places, &model, false);
        assert!(cli.contains_key(std::ffi::OsStr::new("ANTHROPIC_API_KEY")));
        assert!(!cli.contains_key(std::ffi::OsStr::new("IS_SANDBOX")));
    }
}
