//! The MCP servers that services get without choosing: are their programs there.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::{Check, CheckStatus};
use crate::config::Config;
use crate::process;

/// What the supervisor has built in, and how its programs are installed.
const BUILT_IN: [(&str, &str); 3] = [
    (
        include_str!("../../../../mcp-configs/rustdocs.json"),
        "Install it: cargo install rustdoc-mcp --locked, and rustup toolchain install nightly.",
    ),
    (
        include_str!("../../../../mcp-configs/brave.json"),
        "Install it: npm install -g @brave/brave-search-mcp-server.",
    ),
    (
        include_str!("../../../../mcp-configs/memory.json"),
        "Install it: npm install -g @modelcontextprotocol/server-memory.",
    ),
];

/// As much of a server's file as matters here.
#[derive(Debug, Deserialize)]
struct Server {
    name: String,
    command: String,
    #[serde(default)]
    secrets: BTreeMap<String, String>,
    #[serde(default)]
    needs: Option<Needs>,
}

#[derive(Debug, Deserialize)]
struct Needs {
    toolchain: Option<String>,
}

/// Looks for the programs and secrets of the servers. `toolchains` is what rustup lists, if it is there.
pub(super) fn check(config: &Config, toolchains: Option<&str>) -> Vec<Check> {
    let servers = BUILT_IN.iter().filter_map(|(text, mend)| Some((serde_json::from_str(text).ok()?, *mend)));
    servers.map(|(server, mend)| check_one(config, &server, mend, toolchains)).collect()
}

fn check_one(config: &Config, server: &Server, mend: &str, toolchains: Option<&str>) -> Check {
    let name = "mcp server";
    let Server { name: server_name, command, secrets, needs } = server;
    let skipped = |why: String, mend: String| {
        let message = format!("{server_name}: {why}; a run leaves it out");
        Check::failed(name, CheckStatus::Warning, message, mend)
    };
    let Some(program) = process::find(command, config.environment.os("PATH")) else {
        return skipped(format!("there is no `{command}` in PATH"), mend.to_owned());
    };
    if let Some(toolchain) = needs.as_ref().and_then(|needs| needs.toolchain.as_deref()) {
        let there = |list: &str| list.lines().any(|line| line.starts_with(toolchain));
        if !toolchains.is_some_and(there) {
            let mend = format!("Install it: rustup toolchain install {toolchain}.");
            return skipped(format!("Rust's {toolchain} toolchain is not installed"), mend);
        }
    }
    let missing = secrets.iter().find(|(variable, secret)| !is_set(config, variable, secret));
    if let Some((variable, secret)) = missing {
        let mend = format!(
            "Set {variable}, or put the file `{secret}` into the folder that `secrets_dir` in [secrets] names."
        );
        return skipped(format!("its secret `{secret}` is not given"), mend);
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
        }
    }
}
