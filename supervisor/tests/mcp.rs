//! Probe and relay with MCP servers as real processes.
//!
//! Tests with the published servers need `ORCHESTRATOR_TEST_TOOLS`, a directory that contains
//! `mcp-server-memory` and `brave-search-mcp-server`; without it they are skipped.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use orchestrator_contract::outcome::McpStatus;
use supervisor::endpoint::{Endpoint, ListenPlace, Stream};
use supervisor::guest::{Guest, GuestOptions};
use supervisor::homes::Home;
use supervisor::mcp::catalog::{Catalog, RunsIn, WorkspaceAccess};
use supervisor::mcp::compose::{
    HostCapabilities, Location, Placeholders, PlannedServer, RelayEndpoint, ServerPlan, compose,
};
use supervisor::mcp::installed::find_command;
use supervisor::mcp::probe::{PROBE_TIMEOUT, ServerEnv, probe};
use supervisor::mcp::relay::{RelayGrant, RelayHost, TOKEN_TIMEOUT};
use supervisor::mcp::sandbox::ToolSandbox;
use supervisor::process::{Environment, ProcessGroup, command};
use supervisor::redact::{Redactor, Secrets};
use supervisor::sandbox::{Kind, Places, Requirement, Role, machine, select};
use supervisor::site::Site;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UnixStream};

const KEY: &str = "dummy-key-8c1f0e";

const SUPERVISOR: &str = env!("CARGO_BIN_EXE_supervisor");

fn create_home(folder: &Path) -> Home {
    let guest = Guest::start(Path::new(SUPERVISOR), folder, GuestOptions::default()).unwrap();
    let home = Home::new(folder);
    home.create(&guest).unwrap();
    home
}

#[expect(clippy::disallowed_methods, reason = "settings of the tests")]
fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

/// Returns the strongest kind of sandbox of this machine.
fn sandbox_kind() -> Kind {
    static KIND: OnceLock<Kind> = OnceLock::new();
    let supervisor = Path::new(SUPERVISOR);
    *KIND.get_or_init(|| select(Requirement::Required, None, supervisor).kind)
}

fn server_env(directory: &Path) -> ServerEnv {
    let path = variable("PATH").unwrap_or_default();
    let supervisor = PathBuf::from(SUPERVISOR);
    let places = Places { path: path.clone(), supervisor, ..Places::default() };
    ServerEnv {
        machine: Environment::from([("PATH".into(), path)]),
        sandbox: ToolSandbox {
            supervisor: SUPERVISOR.into(),
            shared: machine(Role::Tool, sandbox_kind(), &places),
            workspace: directory.join("target-repo"),
        },
        site: Site::Machine { program: SUPERVISOR.into(), supervisor: SUPERVISOR.into() },
        agent: None,
        listen: ListenPlace::Loopback,
        kept: directory.join("kept"),
        secrets: Arc::new(|_| Some(KEY.into())),
        secret_files: Arc::new(|name| Some(vec![Path::new("/run/secrets").join(name)])),
    }
}

/// The first request of an MCP client.
const INITIALIZE: &str = concat!(
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","#,
    r#""capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#,
    "\n"
);

fn redactor() -> Redactor {
    Redactor::new(Secrets::new().with("brave key", KEY.into()))
}

fn shell(folder: &Path, name: &str, script: &str) -> PlannedServer {
    PlannedServer {
        name: name.to_owned(),
        command: "/bin/sh".into(),
        args: vec!["-c".to_owned(), script.to_owned()],
        env: BTreeMap::new(),
        secrets: BTreeMap::from([("KEY".to_owned(), "brave-api-key".to_owned())]),
        secret_files: BTreeMap::new(),
        files: BTreeMap::new(),
        home: create_home(folder),
        runs_in: RunsIn::OwnSandbox,
        workspace: WorkspaceAccess::None,
        keep: Vec::new(),
        required: false,
        tool_timeout: None,
        always_load: false,
    }
}

async fn open(address: &Endpoint) -> std::io::Result<Stream> {
    match address {
        Endpoint::Loopback(address) => TcpStream::connect(address).await.map(Stream::Left),
        Endpoint::Socket(path) => UnixStream::connect(path).await.map(Stream::Right),
    }
}

/// Connects to a server as the relay program does.
async fn connect(grant: &RelayGrant, name: &str) -> Stream {
    let RelayEndpoint { address, token } = grant.endpoint(name).unwrap();
    let mut stream = open(&address).await.unwrap();
    stream.write_all(format!("{token}\n").as_bytes()).await.unwrap();
    stream
}

/// Returns what a connection receives until it is closed.
async fn read_all(mut stream: Stream) -> String {
    let mut text = Vec::new();
    // A reset also ends it.
    stream.read_to_end(&mut text).await.ok();
    String::from_utf8(text).unwrap()
}

fn plan_of(servers: Vec<PlannedServer>) -> ServerPlan {
    ServerPlan { servers, skipped: Vec::new() }
}

/// Counts the processes of servers whose homes are below a folder, by their environment: a sandbox of the kind
/// `namespaces` has process numbers of its own.
fn alive(folder: &Path) -> usize {
    let folder = folder.display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let is_ours = |entry: &std::fs::DirEntry| {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&folder)
    };
    processes.filter(is_ours).count()
}

/// Waits until at most `count` processes of servers below a folder are left; returns whether that is so.
async fn at_most(count: usize, folder: &Path) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while alive(folder) > count {
        if Instant::now() > end {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}

#[tokio::test]
async fn built_in_servers_list_tools_directly_or_via_relay() {
    let Some(tools) = variable("ORCHESTRATOR_TEST_TOOLS") else {
        println!("skipped: ORCHESTRATOR_TEST_TOOLS is not set");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let placeholders =
        Placeholders { workspace: path.clone(), target: path.clone(), files: path.join("files") };
    let location = Location {
        refuse: &|_| None,
        create_home: &|| Ok(create_home(&path)),
        find_command: &|name| find_command(name, &tools),
        has_toolchain: &|_| false,
    };
    let host_capabilities = HostCapabilities {
        places: &placeholders,
        has_secret: &|name| name == "brave-api-key",
        own: location,
        agent: location,
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

    let host = RelayHost::start(&plan, &server_env).unwrap();
    let grant = host.grant().unwrap().unwrap();
    let config = plan.agent_config(Path::new("supervisor"), |name| grant.endpoint(name)).to_string();
    assert!(!config.contains(KEY), "{config}");
    let (read, mut write) = tokio::io::split(connect(&grant, "brave").await);
    write.write_all(INITIALIZE.as_bytes()).await.unwrap();
    let mut line = String::new();
    BufReader::new(read).read_line(&mut line).await.unwrap();
    assert!(line.contains("serverInfo"), "{line}");
    host.close().await;
}

#[tokio::test]
async fn failed_optional_server_note_has_redacted_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let script = "echo \"no such key: $KEY\" >&2; exit 3";
    let mut plan = plan_of(vec![shell(folder.path(), "bad", script)]);
    let servers = probe(&mut plan, &server_env(folder.path()), &redactor(), PROBE_TIMEOUT).await.unwrap();
    assert!(plan.servers.is_empty());
    assert_eq!(servers[0].status, McpStatus::Failed);
    let note = servers[0].note.clone().unwrap();
    assert!(note.contains("exited early (exit code 3)"), "{note}");
    assert!(note.contains("no such key: [redacted brave key]"), "{note}");
}

#[tokio::test]
async fn failed_required_server_error_reports_all_servers() {
    let folder = tempfile::tempdir().unwrap();
    let mut missing = shell(folder.path(), "missing", "");
    (missing.required, missing.command) = (true, "/nonexistent/server".into());
    let mut plan = plan_of(vec![missing, shell(folder.path(), "quiet", "exit 0")]);
    let error = probe(&mut plan, &server_env(folder.path()), &redactor(), PROBE_TIMEOUT).await.unwrap_err();
    assert_eq!(error.reason(), orchestrator_contract::Reason::McpServerFailed);
    assert!(error.to_string().starts_with("required MCP server `missing` failed: "), "{error}");
    assert_eq!(error.servers.len(), 2);
}

#[tokio::test]
async fn unresponsive_server_is_killed_with_descendants() {
    let folder = tempfile::tempdir().unwrap();
    let script =
        "sleep 600 & echo $! >pid; setsid sleep 600 & echo $! >>pid; echo $$ >>pid; trap '' TERM; wait";
    let mut plan = plan_of(vec![shell(folder.path(), "silent", script)]);
    let pids = plan.servers[0].home.home().join("pid");
    let begin = Instant::now();
    let limit = Duration::from_secs(8);
    let servers = probe(&mut plan, &server_env(folder.path()), &redactor(), limit).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(28));
    assert_eq!(servers[0].status, McpStatus::Failed);
    let pids = std::fs::read_to_string(pids).unwrap();
    assert_eq!(pids.lines().count(), 3);
    assert!(at_most(0, folder.path()).await);
}

#[tokio::test]
async fn endless_output_of_probed_server_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = plan_of(vec![shell(folder.path(), "flood", "tr '\\0' x </dev/zero")]);
    let begin = Instant::now();
    let servers = probe(&mut plan, &server_env(folder.path()), &redactor(), PROBE_TIMEOUT).await.unwrap();
    assert!(begin.elapsed() < PROBE_TIMEOUT, "it was read until the timeout");
    assert_eq!(servers[0].status, McpStatus::Failed);
}

#[tokio::test]
async fn relay_connection_gets_own_server_with_secret() {
    let sockets = tempfile::tempdir().unwrap();
    for listen in [ListenPlace::Loopback, ListenPlace::Directory(sockets.path().to_owned())] {
        let folder = tempfile::tempdir().unwrap();
        let script = "echo \"$(od -An -N8 -tx1 /dev/urandom | tr -d ' ') $KEY\"; exec cat";
        let mut plain = shell(folder.path(), "plain", "cat");
        plain.runs_in = RunsIn::AgentSandbox;
        let plan = plan_of(vec![shell(folder.path(), "echo", script), plain]);
        let server_env = ServerEnv { listen, ..server_env(folder.path()) };
        let host = RelayHost::start(&plan, &server_env).unwrap();
        let grant = host.grant().unwrap().unwrap();
        assert!(grant.endpoint("plain").is_none());
        let mut starts = Vec::new();
        for round in 0..2 {
            let (read, mut write) = tokio::io::split(connect(&grant, "echo").await);
            let mut lines = BufReader::new(read).lines();
            let first = lines.next_line().await.unwrap().unwrap();
            let (start, key) = first.split_once(' ').unwrap();
            assert_eq!(key, KEY);
            starts.push(start.to_owned());
            write.write_all(format!("message {round}\n").as_bytes()).await.unwrap();
            assert_eq!(lines.next_line().await.unwrap().unwrap(), format!("message {round}"));
            write.shutdown().await.unwrap();
            assert_eq!(lines.next_line().await.unwrap(), None);
        }
        assert_ne!(starts[0], starts[1]);
        assert!(at_most(0, folder.path()).await);
        host.close().await;
    }
    assert_eq!(std::fs::read_dir(sockets.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn dropped_relay_host_leaves_no_server_or_port() {
    let folder = tempfile::tempdir().unwrap();
    let script = "sleep 600 & setsid sleep 600 & echo started; trap '' TERM; wait";
    let plan = plan_of(vec![shell(folder.path(), "stays", script)]);
    let host = RelayHost::start(&plan, &server_env(folder.path())).unwrap();
    let grant = host.grant().unwrap().unwrap();
    let address = grant.endpoint("stays").unwrap().address;
    let mut lines = BufReader::new(connect(&grant, "stays").await).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "started");
    assert!(alive(folder.path()) >= 3);
    drop(host);
    assert!(at_most(0, folder.path()).await);
    assert!(read_all(lines.into_inner().into_inner()).await.is_empty());
    let end = Instant::now() + Duration::from_secs(10);
    while open(&address).await.is_ok() {
        assert!(Instant::now() < end, "the port is still open");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn connection_without_valid_token_starts_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan_of(vec![
        shell(folder.path(), "one", "echo started >>started; exec cat"),
        shell(folder.path(), "other", "exec cat"),
    ]);
    let started = plan.servers[0].home.home().join("started");
    let host = RelayHost::start(&plan, &server_env(folder.path())).unwrap();
    let (grant, revoked) = (host.grant().unwrap().unwrap(), host.grant().unwrap().unwrap());
    let RelayEndpoint { address, token } = grant.endpoint("one").unwrap();
    let old = revoked.endpoint("one").unwrap().token;
    assert_ne!(token, old);
    assert_ne!(token, grant.endpoint("other").unwrap().token);
    assert!(address.to_string().starts_with("127.0.0.1:"), "{address}");
    drop(revoked);
    let wrong = [
        old,
        "0".repeat(64),
        String::new(),
        token[..63].to_owned(),
        format!("{token}0"),
        format!("\n{token}"),
        token.to_uppercase().replace(|digit: char| digit.is_ascii_digit(), "A"),
        "x".repeat(100_000),
    ];
    for line in wrong {
        let mut stream = open(&address).await.unwrap();
        stream.write_all(format!("{line}\n{INITIALIZE}").as_bytes()).await.ok();
        stream.shutdown().await.ok();
        assert_eq!(read_all(stream).await, "", "{line:?}");
    }
    assert!(!started.exists());
    host.close().await;
}

#[tokio::test]
async fn silent_connections_are_closed_and_hold_no_slot() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan_of(vec![shell(folder.path(), "echo", "exec cat")]);
    let host = RelayHost::start(&plan, &server_env(folder.path())).unwrap();
    let grant = host.grant().unwrap().unwrap();
    let address = grant.endpoint("echo").unwrap().address;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(open(&address).await.unwrap());
    }
    let begin = Instant::now();
    let mut stream = connect(&grant, "echo").await;
    stream.write_all(b"hello\n").await.unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.unwrap();
    assert_eq!(line, "hello\n");
    for stream in silent {
        assert_eq!(read_all(stream).await, "");
    }
    assert!(begin.elapsed() < TOKEN_TIMEOUT + Duration::from_secs(20));
    host.close().await;
}

#[tokio::test]
async fn fortieth_connection_is_refused_with_rpc_error() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan_of(vec![shell(folder.path(), "echo", "echo started >>started; exec cat")]);
    let started = plan.servers[0].home.home().join("started");
    let host = RelayHost::start(&plan, &server_env(folder.path())).unwrap();
    let (grant, other) = (host.grant().unwrap().unwrap(), host.grant().unwrap().unwrap());
    let mut open = Vec::new();
    for number in 0..40 {
        let mut stream = connect(&grant, "echo").await;
        stream.write_all(INITIALIZE.as_bytes()).await.unwrap();
        let mut line = String::new();
        let mut lines = BufReader::new(stream);
        lines.read_line(&mut line).await.unwrap();
        if number < 4 {
            assert_eq!(line, INITIALIZE);
        } else {
            let answer: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!((&answer["id"], &answer["error"]["code"]), (&1.into(), &(-32000).into()), "{line}");
            assert!(line.contains("4 connections"), "{line}");
        }
        open.push(lines);
    }
    // Another conversation has its own limit.
    let mut stream = connect(&other, "echo").await;
    stream.write_all(b"hello\n").await.unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.unwrap();
    assert_eq!(line, "hello\n");
    assert_eq!(std::fs::read_to_string(started).unwrap().lines().count(), 5);
    host.close().await;
}

#[tokio::test]
async fn revoked_grant_ends_its_servers_only() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan_of(vec![shell(folder.path(), "echo", "echo started; exec cat")]);
    let host = RelayHost::start(&plan, &server_env(folder.path())).unwrap();
    let (first, second) = (host.grant().unwrap().unwrap(), host.grant().unwrap().unwrap());
    let mut lines = BufReader::new(connect(&first, "echo").await).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "started");
    let mut others = BufReader::new(connect(&second, "echo").await).lines();
    assert_eq!(others.next_line().await.unwrap().unwrap(), "started");
    // Both have the same processes; one that starts them may not have ended yet.
    let of_both = alive(folder.path());
    assert!(of_both > 1);
    drop(first);
    assert!(at_most(of_both / 2, folder.path()).await);
    // A server that ended reads as the end of its stream.
    assert!(!matches!(lines.next_line().await, Ok(Some(_))));
    others.get_mut().write_all(b"alive\n").await.unwrap();
    assert_eq!(others.next_line().await.unwrap().unwrap(), "alive");
    host.close().await;
    assert!(at_most(0, folder.path()).await);
}

#[tokio::test]
async fn server_keeps_named_files_only() {
    let folder = tempfile::tempdir().unwrap();
    let env = server_env(folder.path());
    let run = async |script: &str| {
        let mut server = shell(folder.path(), "notes", script);
        server.keep = vec!["memory.json".to_owned()];
        env.restore_kept(&server).await.unwrap();
        let plan = plan_of(vec![server]);
        let host = RelayHost::start(&plan, &env).unwrap();
        let grant = host.grant().unwrap().unwrap();
        let text = read_all(connect(&grant, "notes").await).await;
        host.close().await;
        text
    };
    let first = "cat memory.json; echo one >>memory.json; echo planted >.bashrc; mkdir .node_modules; ls -A";
    run(first).await;
    let second = run("cat memory.json; ls -A; echo two >>memory.json").await;
    assert_eq!(second, "one\nmemory.json\n");
    let linked = run("cat memory.json; rm memory.json; ln -s /etc/passwd memory.json").await;
    assert_eq!(linked, "one\ntwo\n");
    assert_eq!(run("cat memory.json").await, "one\ntwo\n");
}

#[tokio::test]
async fn server_reaches_no_file_of_agent_or_other_server() {
    assert_ne!(sandbox_kind(), Kind::Off);
    let folder = tempfile::tempdir().unwrap();
    let other = create_home(folder.path());
    let repository = folder.path().join("target-repo");
    std::fs::create_dir(&repository).unwrap();
    std::fs::write(repository.join("code"), "code\n").unwrap();
    std::fs::write(other.home().join("key"), "key\n").unwrap();
    let script = format!(
        "cat {0}/home/key {1}/code; echo x >{0}/home/new; echo x >{1}/new; ls {0}; ls {2} | grep -F {3}; echo end",
        other.folder().display(),
        repository.display(),
        folder.path().display(),
        other.folder().file_name().unwrap().display()
    );
    let mut servers = Vec::new();
    for (name, workspace) in
        [("none", WorkspaceAccess::None), ("read", WorkspaceAccess::Read), ("write", WorkspaceAccess::Write)]
    {
        let mut server = shell(folder.path(), name, &script);
        server.workspace = workspace;
        servers.push(server);
    }
    let host = RelayHost::start(&plan_of(servers), &server_env(folder.path())).unwrap();
    let grant = host.grant().unwrap().unwrap();
    let mut seen = Vec::new();
    for name in ["none", "read", "write"] {
        let text = read_all(connect(&grant, name).await).await;
        seen.push((text, repository.join("new").exists()));
    }
    let text = |text: &str| text.to_owned();
    assert_eq!(seen, [(text("end\n"), false), (text("code\nend\n"), false), (text("code\nend\n"), true)]);
    assert!(!other.home().join("new").exists());
    host.close().await;
}

#[tokio::test]
async fn relay_program_copies_until_either_side_closes() {
    let folder = tempfile::tempdir().unwrap();
    let plan =
        plan_of(vec![shell(folder.path(), "echo", "exec cat"), shell(folder.path(), "short", "echo bye")]);
    let host = RelayHost::start(&plan, &server_env(folder.path())).unwrap();
    let grant = host.grant().unwrap().unwrap();
    for (name, expected, closes) in [("echo", "hello", true), ("short", "bye", false)] {
        let RelayEndpoint { address, token } = grant.endpoint(name).unwrap();
        let environment = Environment::from([("ORCHESTRATOR_MCP_RELAY_TOKEN".into(), token.into())]);
        let mut program = command(SUPERVISOR, &environment, ProcessGroup::New)
            .args(["mcp-relay", name, "--address", &address.to_string()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = program.stdin.take().unwrap();
        if closes {
            stdin.write_all(b"hello\n").await.unwrap();
        }
        let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("the relay exited early");
        assert_eq!(line, expected);
        let open = if closes {
            drop(stdin);
            None
        } else {
            Some(stdin)
        };
        let end = tokio::time::timeout(Duration::from_secs(10), program.wait()).await;
        assert!(end.expect("the relay did not exit").unwrap().success());
        drop(open);
    }
}
