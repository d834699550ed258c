//! Checks of the default MCP servers: their programs, toolchains and secrets.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::config::Config;
use crate::process;
use crate::task::check::{Check, CheckStatus};

/// Default servers of the supervisor, and how to install their programs.
const BUILT_IN: [(&str, &str); 3] = [
    (
        include_str!("../../../../mcp-configs/rustdocs.json"),
        "Run `cargo install rustdoc-mcp --locked` and `rustup toolchain install nightly`.",
    ),
    (
        include_str!("../../../../mcp-configs/brave.json"),
        "Run `npm install -g @brave/brave-search-mcp-server`.",
    ),
    (
        include_str!("../../../../mcp-configs/memory.json"),
        "Run `npm install -g @modelcontextprotocol/server-memory`.",
    ),
];

/// The fields of a server's file that are checked.
#[derive(Debug, Deserialize)]
struct Server {
    name: String,
    command: String,
    #[serde(default)]
    secrets: BTreeMap<String, String>,
    #[serde(default)]
    requires: Option<Requirements>,
}

#[derive(Debug, Deserialize)]
struct Requirements {
    toolchain: Option<String>,
}

/// Checks the servers; `toolchains` is the output of `rustup toolchain list`, if available.
pub(super) fn check(config: &Config, toolchains: Option<&str>) -> Vec<Check> {
    let servers = BUILT_IN.iter().filter_map(|(text, fix)| Some((serde_json::from_str(text).ok()?, *fix)));
    servers.map(|(server, fix)| check_one(config, &server, fix, toolchains)).collect()
}

fn check_one(config: &Config, server: &Server, fix: &str, toolchains: Option<&str>) -> Check {
    let name = "mcp server";
    let Server { name: server_name, command, secrets, requires } = server;
    let skipped = |cause: String, fix: String| {
        let message = format!("{server_name}: {cause}; runs skip it");
        Check::failed(name, CheckStatus::Warning, message, fix)
    };
    let Some(program) = process::find(command, config.environment.os("PATH")) else {
        return skipped(format!("`{command}` not found in PATH"), fix.to_owned());
    };
    if let Some(toolchain) = requires.as_ref().and_then(|requires| requires.toolchain.as_deref()) {
        let is_installed = |list: &str| list.lines().any(|line| line.starts_with(toolchain));
        if !toolchains.is_some_and(is_installed) {
            let fix = format!("Run `rustup toolchain install {toolchain}`.");
            return skipped(format!("the Rust toolchain {toolchain} is not installed"), fix);
        }
    }
    let missing = secrets.iter().find(|(variable, secret)| !is_set(config, variable, secret));
    if let Some((variable, secret)) = missing {
        let fix = format!("Set {variable}, or create the file `{secret}` in the `secrets_dir` of [secrets].");
        return skipped(format!("its secret `{secret}` is not set"), fix);
    }
    Check::ok(name, format!("{server_name}: {}", program.display()))
}

fn is_set(config: &Config, variable: &str, secret: &str) -> bool {
    let secrets = config.secrets();
    let holds = |folder: &Path| folder.join(secret).is_file();
    config.environment.os(variable).is_some()
        || (secret == orchestrator_contract::secrets::BRAVE_API_KEY && secrets.brave_api_key_file.is_some())
        || secrets.secrets_dir.as_deref().is_some_and(holds)
        || config.service_names().any(|name| config.service(name).secrets_dir.as_deref().is_some_and(holds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_mcp_servers_are_parsed() {
        for (text, _) in BUILT_IN {
            let server: Server = serde_json::from_str(text).unwrap();
            assert!(!server.command.is_empty() && !server.name.is_empty());
            let toolchain = server.requires.and_then(|requires| requires.toolchain);
            assert_eq!(toolchain.as_deref(), (server.name == "rustdocs").then_some("nightly"));
        }
    }
}
