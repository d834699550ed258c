//! `dispatcher setup claude`, checked with the real CLI.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use orchestrator_tests::binaries::Binaries;
use orchestrator_tests::tools::Tools;

/// Returns a command with its own home and an empty environment.
fn command_with_home(home: &Path, program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(home).stdin(Stdio::null()).env_clear();
    for (name, value) in [
        ("PATH", "/usr/bin:/bin"),
        ("DISABLE_AUTOUPDATER", "1"),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    ] {
        command.env(name, value);
    }
    command.env("HOME", home);
    command
}

fn stdout(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn setup(home: &Path, arguments: &str) -> String {
    let arguments: Vec<&str> = std::iter::once("setup").chain(arguments.split_whitespace()).collect();
    stdout(command_with_home(home, &Binaries::get().dispatcher, &arguments))
}

fn claude(home: &Path, arguments: &[&str]) -> String {
    stdout(command_with_home(home, &Tools::get().claude, arguments))
}

#[test]
fn claude_code_finds_server_keeping_own_settings() {
    let home = tempfile::tempdir().unwrap();
    // The CLI creates its file; the dispatcher edits it.
    claude(home.path(), &["mcp", "list"]);
    let file = home.path().join(".claude.json");
    let before: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let stdout = setup(home.path(), "claude");
    assert!(stdout.contains(file.to_str().unwrap()), "{stdout}");
    let mut after: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let servers = after.as_object_mut().unwrap().remove("mcpServers").unwrap();
    assert_eq!(after, before);
    assert_eq!(servers.as_object().unwrap().len(), 1);

    let list = claude(home.path(), &["mcp", "list"]);
    let line =
        list.lines().find(|line| line.starts_with("orchestrator:")).unwrap_or_else(|| panic!("{list}"));
    let dispatcher = Binaries::get().dispatcher.display();
    assert!(line.contains(&format!("{dispatcher} mcp")), "{line}");
    assert!(claude(home.path(), &["mcp", "get", "orchestrator"]).contains("User config"));
    assert!(setup(home.path(), "claude").contains("already"));
}

#[test]
fn claude_code_connects_to_server() {
    let home = tempfile::tempdir().unwrap();
    setup(home.path(), "claude");
    let list = claude(home.path(), &["mcp", "list"]);
    let line =
        list.lines().find(|line| line.starts_with("orchestrator:")).unwrap_or_else(|| panic!("{list}"));
    assert!(line.ends_with("Connected"), "{line}");
}

#[test]
fn claude_code_reads_shared_server_token_from_environment() {
    let home = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    setup(home.path(), &format!("claude --url {url} --token-env TEAM_TOKEN"));
    assert!(!std::fs::read_to_string(home.path().join(".claude.json")).unwrap().contains("s3cret"));

    let sent = authorization_of_cli(home.path(), listener, &[("TEAM_TOKEN", "s3cret")]).unwrap_or_default();
    assert!(sent.ends_with(" Bearer s3cret"), "{sent}");
}

/// Returns the `Authorization` header that the CLI sends to a server at `listener`.
fn authorization_of_cli(home: &Path, listener: TcpListener, variables: &[(&str, &str)]) -> Option<String> {
    let mut list = command_with_home(home, &Tools::get().claude, &["mcp", "list"]);
    let mut list = list.envs(variables.iter().copied()).stdout(Stdio::null()).spawn().unwrap();
    let (stream, _) = listener.accept().unwrap();
    let headers: Vec<String> =
        BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    // The server is gone, so that the CLI does not wait for it.
    drop(listener);
    list.kill().unwrap();
    list.wait().unwrap();
    headers.into_iter().find(|line| line.to_ascii_lowercase().starts_with("authorization:"))
}

#[test]
fn claude_code_reads_token_file_of_local_server() {
    let home = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = home.path().join(".config/orchestrator");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("serve-token"), "0123456789abcdef\n").unwrap();
    setup(home.path(), &format!("claude --url http://{}/mcp", listener.local_addr().unwrap()));
    assert!(!std::fs::read_to_string(home.path().join(".claude.json")).unwrap().contains("0123456789abcdef"));
    let sent = authorization_of_cli(home.path(), listener, &[]).unwrap_or_default();
    assert!(sent.ends_with(" Bearer 0123456789abcdef"), "{sent}");
}

#[test]
fn project_file_has_no_token_and_no_path_of_user() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".config/orchestrator");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("serve-token"), "0123456789abcdef\n").unwrap();
    for (client, file) in
        [("claude", ".mcp.json"), ("cursor", ".cursor/mcp.json"), ("vscode", ".vscode/mcp.json")]
    {
        setup(home.path(), &format!("{client} --scope project --url http://127.0.0.1:8750/mcp"));
        let text = std::fs::read_to_string(home.path().join(file)).unwrap();
        assert!(text.contains("ORCHESTRATOR_SERVE_TOKEN"), "{text}");
        assert!(
            !text.contains("0123456789abcdef") && !text.contains(home.path().to_str().unwrap()),
            "{text}"
        );
    }
}

#[test]
fn claude_code_reads_project_scope_entry() {
    let home = tempfile::tempdir().unwrap();
    setup(home.path(), "claude --scope project");
    // Claude Code does not start a server of a directory before its user has agreed.
    let get = claude(home.path(), &["mcp", "get", "orchestrator"]);
    assert!(get.contains("Project config"), "{get}");
}
