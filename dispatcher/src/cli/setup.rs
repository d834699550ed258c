//! `dispatcher setup`.

use std::path::Path;

use orchestrator_contract::{Reason, http_url};
use serde_json::{Value, json};

use super::context::{GlobalArgs, load_environment};
use crate::config::Environment;
use crate::error::Error;
use crate::folder::ProjectFolder;
use crate::output::Output;
use crate::serve::own_token;
use crate::setup::edit::{Edit, plan_edit};
use crate::setup::entry::{ServerTransport, TokenReference, build_entry, cursor_link, describe_entry};
use crate::setup::{Client, SERVER, Scope, paths, write};

/// Add this MCP server to Claude Code, Cursor or VS Code
///
/// Writes the entry `orchestrator` to the client's MCP configuration and leaves the rest of the file
/// unchanged. Global options that are set, such as --config, become part of the entry.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher setup claude
  dispatcher setup cursor --scope project
  dispatcher setup vscode --print
  dispatcher setup claude --url http://127.0.0.1:8750/mcp
  dispatcher setup claude --url https://orchestrator.example.com/mcp --token-env TEAM_TOKEN

Files: claude: ~/.claude.json, .mcp.json; cursor: ~/.cursor/mcp.json, .cursor/mcp.json;
vscode: mcp.json of the user's profile, .vscode/mcp.json.")]
pub(super) struct Arguments {
    /// MCP client to configure
    #[arg(value_enum)]
    client: Client,
    /// Whether to configure the server for you or for the project
    #[arg(long, value_enum, default_value_t, value_name = "SCOPE")]
    scope: Scope,
    /// Connect to a running server at this URL instead of starting this program
    ///
    /// For a server of this machine the entry says where the server's own token file is, for Claude Code in
    /// your own scope, or names the variable `ORCHESTRATOR_SERVE_TOKEN`.
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    url: Option<String>,
    /// Environment variable of the client that holds the bearer token for --url
    #[arg(long, value_name = "VAR", requires = "url", value_parser = parse_variable)]
    token_env: Option<String>,
    /// Print the entry and its file; write nothing
    #[arg(long)]
    print: bool,
}

fn parse_url(text: &str) -> Result<String, String> {
    if http_url::split_user_info(text).is_some() {
        return Err("the URL contains credentials: use --token-env instead".to_owned());
    }
    if http_url::parse_secure(text).is_none() {
        return Err(
            "use a URL such as https://orchestrator.example.com/mcp, or http://127.0.0.1:8750/mcp for a \
                    server of this machine: http would show the token to the network"
                .to_owned(),
        );
    }
    Ok(text.to_owned())
}

fn parse_variable(text: &str) -> Result<String, String> {
    let valid = !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if valid { Ok(text.to_owned()) } else { Err("use the name of a variable, not its value".to_owned()) }
}

pub(super) fn run(global: GlobalArgs, arguments: Arguments) -> Result<u8, Error> {
    let (environment, output, cwd) = load_environment(global.output)?;
    let Arguments { client, scope, url, token_env, print } = arguments;
    let transport = match url {
        Some(url) => {
            let token = token_reference(&url, token_env, client, scope, &environment);
            ServerTransport::Http { url, token }
        }
        None => this_program(&cwd, global)?,
    };
    let entry = build_entry(client, &transport);
    let folder = ProjectFolder::find(&environment, &cwd).path;
    let path = paths::config_path(client, scope, &folder, &environment)?;
    let found = write::find(&path)?;
    let name = client.name();
    let edit = plan_edit(client, found.text.as_deref().unwrap_or_default(), &entry).map_err(|error| {
        Error::configuration(format!("{}: {error}; the file was not changed", path.display()))
            .with_hint("Fix the file, or add the entry yourself: see --print.")
    });
    if print {
        // Useful even if the file cannot be edited.
        return show(&output, client, &path, &entry);
    }
    let (change, summary) = match edit? {
        Edit::Unchanged => ("same", format!("{name} is already configured")),
        Edit::Added(text) => {
            write::replace(&found, &text)?;
            ("added", format!("{name} is configured"))
        }
        Edit::Replaced { text, before } => {
            write::replace(&found, &text)?;
            ("replaced", format!("{name} is configured; the previous entry was: {}", describe_entry(&before)))
        }
    };
    let result = json!({ "client": name, "path": path, "change": change, "server": SERVER, "entry": entry });
    output.result(&result, || {
        format!("{summary}\n{SERVER}: {}\nin {}\n", describe_entry(&entry), path.display())
    })?;
    match (client, scope, change) {
        (_, _, "same") => {}
        (Client::Claude, Scope::Project, _) => {
            output.note("Claude Code asks for approval on its next start");
        }
        (Client::Claude | Client::Cursor | Client::Vscode, _, _) => {
            output.note(&format!("restart {name} if it is running"));
        }
    }
    if let ServerTransport::Http { token: TokenReference::Variable(variable), .. } = &transport
        && variable == SERVE_TOKEN_VARIABLE
        && let Some(file) = own_token::path(&environment)
    {
        output.note(&format!("{name} needs the token: export {variable}=\"$(cat '{}')\"", file.display()));
    }
    Ok(0)
}

/// Variable of the client with the token of a server of this machine; also that of the server.
const SERVE_TOKEN_VARIABLE: &str = "ORCHESTRATOR_SERVE_TOKEN";

/// Returns where the client finds the token: by default, that of the server of this machine.
fn token_reference(
    url: &str,
    variable: Option<String>,
    client: Client,
    scope: Scope,
    environment: &Environment,
) -> TokenReference {
    let is_local = http_url::parse(url).is_some_and(|url| http_url::is_loopback(&url));
    match (variable, client, scope) {
        (Some(variable), _, _) => TokenReference::Variable(variable),
        (None, _, _) if !is_local => TokenReference::Unset,
        // A project's file is shared: it must not name a path of this user.
        (None, Client::Claude, Scope::User) => own_token::path(environment)
            .and_then(|file| file.to_str().map(|file| TokenReference::File(file.to_owned())))
            .unwrap_or_else(|| TokenReference::Variable(SERVE_TOKEN_VARIABLE.to_owned())),
        (None, Client::Claude | Client::Cursor | Client::Vscode, Scope::User | Scope::Project) => {
            TokenReference::Variable(SERVE_TOKEN_VARIABLE.to_owned())
        }
    }
}

fn show(output: &Output, client: Client, path: &Path, entry: &Value) -> Result<u8, Error> {
    let whole = json!({ client.servers_key(): { SERVER: entry } });
    let link = (client == Client::Cursor).then(|| cursor_link(entry));
    let result = json!({ "client": client.name(), "path": path, "content": whole, "link": link });
    output.result(&result, || {
        let text = serde_json::to_string_pretty(&whole).unwrap_or_default();
        let link = link.as_ref().map_or(String::new(), |link| format!("\ninstall link: {link}\n"));
        format!("{}:\n{text}\n{link}", path.display())
    })?;
    Ok(0)
}

/// Returns the command line of this program, with the global flags and absolute paths.
fn this_program(cwd: &Path, global: GlobalArgs) -> Result<ServerTransport, Error> {
    let GlobalArgs { output: _, config, backend, state_dir, supervisor, claude, mcp_config_dir, sandbox } =
        global;
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| {
            Error::invalid_request(format!("the path {} is not valid UTF-8", path.display()))
                .with_hint("JSON can only hold UTF-8 paths: use another path.")
        })
    };
    let program = std::env::current_exe().map_err(|error| {
        Error::new(Reason::IoError, format!("cannot find the path of this program: {error}"))
    })?;
    let mut arguments = vec!["mcp".to_owned()];
    if let Some(backend) = backend {
        arguments.extend(["--backend".to_owned(), backend.name().to_owned()]);
    }
    if let Some(sandbox) = sandbox {
        arguments.extend(["--sandbox".to_owned(), sandbox.name().to_owned()]);
    }
    for (flag, path) in [
        ("--config", config),
        ("--state-dir", state_dir),
        ("--supervisor", supervisor),
        ("--claude", claude),
        ("--mcp-config-dir", mcp_config_dir),
    ] {
        if let Some(path) = path {
            arguments
                .extend([flag.to_owned(), text(&std::path::absolute(cwd.join(path)).unwrap_or_default())?]);
        }
    }
    Ok(ServerTransport::Stdio { command: text(&program)?, arguments })
}
