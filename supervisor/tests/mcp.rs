//! Probe and relay with MCP servers as real processes.
//!
//! Tests with the published servers need `ORCHESTRATOR_TEST_TOOLS`, a directory that contains
//! `mcp-server-memory` and `brave-search-mcp-server`; without it they are skipped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator_contract::outcome::McpStatus;
use supervisor::mcp::catalog::Catalog;
use supervisor::mcp::compose::{HostCapabilities, Placeholders, PlannedServer, ServerPlan, compose};
use supervisor::mcp::installed::find_command;
use supervisor::mcp::probe::{PROBE_TIMEOUT, ServerEnv, probe};
use supervisor::mcp::relay::{RelayHost, relay_main};
use supervisor::process::{Environment, ProcessGroup, command};
use supervisor::redact::{Redactor, Secrets};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

const KEY: &str = "dummy-key-8c1f0e";

#[expect(clippy::disallowed_methods, reason = "settings of the tests")]
fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

fn server_env(directory: &Path) -> ServerEnv {
    let path = variable("PATH").unwrap_or_default();
    ServerEnv {
        environment: Environment::from([("PATH".into(), path)]),
        directory: directory.into(),
        secrets: Arc::new(|_| Some(KEY.into())),
        secret_files: Arc::new(|name| Some(Path::new("/run/secrets").join(name))),
    }
}

fn redactor() -> Redactor {
    Redactor::new(Secrets::new().with("brave key", KEY.into()))
}

fn shell(name: &str, script: &str, required: bool, secret: bool) -> PlannedServer {
    let secrets = secret.then(|| ("KEY".to_owned(), "brave-api-key".to_owned()));
    PlannedServer {
        name: name.to_owned(),
        command: "/bin/sh".into(),
        args: vec!["-c".to_owned(), script.to_owned()],
        env: BTreeMap::new(),
        secrets: secrets.into_iter().collect(),
        secret_files: BTreeMap::new(),
        files: BTreeMap::new(),
        required,
        tool_timeout: None,
        always_load: false,
    }
}

fn plan_of(servers: Vec<PlannedServer>) -> ServerPlan {
    ServerPlan { servers, skipped: Vec::new() }
}

/// Waits until a process has exited; returns whether it has.
async fn has_exited(pid: &str) -> bool {
    let state = PathBuf::from(format!("/proc/{pid}/stat"));
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        match std::fs::read_to_string(&state) {
            // A zombie counts as exited.
            Ok(text) if !text.contains(") Z ") => tokio::time::sleep(Duration::from_millis(10)).await,
            Ok(_) | Err(_) => return true,
        }
    }
    false
}

#[tokio::test]
async fn built_in_servers_list_tools_directly_or_via_relay() {
    let Some(tools) = variable("ORCHESTRATOR_TEST_TOOLS") else {
        println!("skipped: ORCHESTRATOR_TEST_TOOLS is not set");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let placeholders = Placeholders {
        workspace: path.clone(),
        memory: path.clone(),
        target: path.clone(),
        cache: path.clone(),
        files: path.clone(),
    };
    let host_capabilities = HostCapabilities {
        places: &placeholders,
        has_secret: &|_| true,
        find_command: &|name| find_command(name, &tools),
        has_toolchain: &|_| false,
    };
    let mut plan = compose(&Catalog::built_in().unwrap(), None, &host_capabilities).unwrap();
    let server_env = server_env(&path);
    let servers = probe(&mut plan, &server_env, &redactor(), PROBE_TIMEOUT).await.unwrap();
    let seen: Vec<_> =
        servers.iter().map(|server| (server.name.as_str(), server.status, server.tools)).collect();
    assert_eq!(
        seen,
        [
            ("brave", McpStatus::Connected, 8),
            ("memory", McpStatus::Connected, 9),
            ("rustdocs", McpStatus::Skipped, 0)
        ],
        "{servers:?}"
    );

    let host = RelayHost::start(&plan, &server_env, &path).unwrap();
    let config = plan.agent_config(Path::new("supervisor"), |name| host.socket(name)).to_string();
    assert!(!config.contains(KEY), "{config}");
    let (read, mut write) = UnixStream::connect(host.socket("brave").unwrap()).await.unwrap().into_split();
    let request = concat!(
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","#,
        r#""capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#,
        "\n"
    );
    write.write_all(request.as_bytes()).await.unwrap();
    let mut line = String::new();
    BufReader::new(read).read_line(&mut line).await.unwrap();
    assert!(line.contains("serverInfo"), "{line}");
    host.close().await;
}

#[tokio::test]
async fn failed_optional_server_note_has_redacted_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = plan_of(vec![shell("bad", "echo \"no such key: $KEY\" >&2; exit 3", false, true)]);
    let servers = probe(&mut plan, &server_env(folder.path()), &redactor(), PROBE_TIMEOUT).await.unwrap();
    assert!(plan.servers.is_empty());
    assert_eq!(servers[0].status, McpStatus::Failed);
    let note = servers[0].note.clone().unwrap();
    assert!(note.contains("no such key: [redacted brave key]"), "{note}");
}

#[tokio::test]
async fn failed_required_server_error_reports_all_servers() {
    let folder = tempfile::tempdir().unwrap();
    let mut missing = shell("missing", "", true, false);
    missing.command = "/nonexistent/server".into();
    let mut plan = plan_of(vec![missing, shell("quiet", "exit 0", false, false)]);
    let error = probe(&mut plan, &server_env(folder.path()), &redactor(), PROBE_TIMEOUT).await.unwrap_err();
    assert_eq!(error.reason(), orchestrator_contract::Reason::McpServerFailed);
    assert!(error.to_string().starts_with("required MCP server `missing` failed: cannot start"));
    assert_eq!(error.servers.len(), 2);
}

#[tokio::test]
async fn unresponsive_server_is_killed_with_descendants() {
    let folder = tempfile::tempdir().unwrap();
    let script = "sleep 600 & echo $! >pid; echo $$ >>pid; trap '' TERM; wait";
    let mut plan = plan_of(vec![shell("silent", script, false, false)]);
    let begin = Instant::now();
    let limit = Duration::from_millis(500);
    let servers = probe(&mut plan, &server_env(folder.path()), &redactor(), limit).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(servers[0].status, McpStatus::Failed);
    for pid in std::fs::read_to_string(folder.path().join("pid")).unwrap().lines() {
        assert!(has_exited(pid).await, "{pid}");
    }
}

#[tokio::test]
async fn relay_connection_gets_own_server_with_secret() {
    let folder = tempfile::tempdir().unwrap();
    let script = "echo \"$$ $KEY\"; exec cat";
    let plan = plan_of(vec![shell("echo", script, false, true), shell("plain", "cat", false, false)]);
    let host = RelayHost::start(&plan, &server_env(folder.path()), folder.path()).unwrap();
    assert_eq!(host.socket("plain"), None);
    let mut pids = Vec::new();
    for round in 0..2 {
        let stream = UnixStream::connect(host.socket("echo").unwrap()).await.unwrap();
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        let first = lines.next_line().await.unwrap().unwrap();
        let (pid, key) = first.split_once(' ').unwrap();
        assert_eq!(key, KEY);
        pids.push(pid.to_owned());
        write.write_all(format!("message {round}\n").as_bytes()).await.unwrap();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), format!("message {round}"));
        drop(write);
        assert_eq!(lines.next_line().await.unwrap(), None);
    }
    assert_ne!(pids[0], pids[1]);
    for pid in pids {
        assert!(has_exited(&pid).await);
    }
}

#[tokio::test]
async fn dropped_relay_host_leaves_no_server_or_socket() {
    let folder = tempfile::tempdir().unwrap();
    let script = "sleep 600 & echo $!; echo $$; trap '' TERM; wait";
    let plan = plan_of(vec![shell("stays", script, false, true)]);
    let host = RelayHost::start(&plan, &server_env(folder.path()), folder.path()).unwrap();
    let socket = host.socket("stays").unwrap();
    let stream = UnixStream::connect(&socket).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let pids = [lines.next_line().await.unwrap().unwrap(), lines.next_line().await.unwrap().unwrap()];
    drop(host);
    for pid in pids {
        assert!(has_exited(&pid).await, "{pid}");
    }
    assert!(!socket.exists());
    let mut rest = Vec::new();
    lines.into_inner().read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn relay_socket_directory_is_private_within_path_limit() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let plan = plan_of(vec![shell("echo", "cat", false, true)]);
    let host = RelayHost::start(&plan, &server_env(folder.path()), folder.path()).unwrap();
    let mode = std::fs::metadata(host.folder().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let deep = folder.path().join("d".repeat(100));
    std::fs::create_dir(&deep).unwrap();
    let error = RelayHost::start(&plan, &server_env(folder.path()), &deep).unwrap_err();
    assert!(error.to_string().contains("longer than 107 bytes"), "{error}");
}

#[tokio::test]
#[ignore = "started as a child by the next test"]
async fn relay_program() {
    if let Some(socket) = variable("TEST_RELAY_SOCKET") {
        let _code = relay_main(Path::new(&socket)).await;
    }
}

#[tokio::test]
async fn relay_program_copies_until_either_side_closes() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan_of(vec![shell("echo", "exec cat", false, true), shell("short", "echo bye", false, true)]);
    let host = RelayHost::start(&plan, &server_env(folder.path()), folder.path()).unwrap();
    for (name, expected, closes) in [("echo", "hello", true), ("short", "bye", false)] {
        let socket = host.socket(name).unwrap();
        let environment = Environment::from([("TEST_RELAY_SOCKET".into(), socket.into_os_string())]);
        let mut program = command(std::env::current_exe().unwrap(), &environment, ProcessGroup::New)
            .args(["--exact", "relay_program", "--ignored", "--nocapture"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = program.stdin.take().unwrap();
        if closes {
            stdin.write_all(b"hello\n").await.unwrap();
        }
        let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
        loop {
            let line = lines.next_line().await.unwrap().expect("the relay exited early");
            if line == expected {
                break;
            }
        }
        let open = (!closes).then_some(stdin);
        let end = tokio::time::timeout(Duration::from_secs(10), program.wait()).await;
        assert!(end.expect("the relay did not exit").unwrap().success());
        drop(open);
    }
}
