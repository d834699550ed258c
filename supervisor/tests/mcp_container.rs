//! MCP servers in a container of their own, whose guest is a plain process here.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator_contract::containers::{ContainerRole, SOCKET};
use orchestrator_contract::outcome::McpStatus;
use supervisor::endpoint::ListenPlace;
use supervisor::homes::Home;
use supervisor::mcp::catalog::{RunsIn, WorkspaceAccess};
use supervisor::mcp::compose::{PlannedServer, RelayEndpoint, ServerPlan};
use supervisor::mcp::probe::{ServerEnv, probe};
use supervisor::mcp::relay::{RelayGrant, RelayHost};
use supervisor::mcp::sandbox::ToolSandbox;
use supervisor::process::{Environment, ProcessGroup, blocking_command};
use supervisor::redact::{Redactor, Secrets};
use supervisor::sandbox::{Kind, Places, Role, machine};
use supervisor::site::Site;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;

const KEY: &str = "dummy-key-8c1f0e";

const SUPERVISOR: &str = env!("CARGO_BIN_EXE_supervisor");

/// Time in which everything has to happen, on a slow machine.
const BOUND: Duration = Duration::from_secs(60);

/// Site of a container; its guest is killed at the end.
struct Container {
    folder: tempfile::TempDir,
    site: Site,
    guest: std::process::Child,
}

impl Container {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::container(ContainerRole::Agent, folder.path()).unwrap();
        let guest = guest(folder.path());
        site.connect().await.unwrap();
        Self { folder, site, guest }
    }

    fn restart(&mut self) {
        self.guest.kill().unwrap();
        self.guest.wait().unwrap();
        self.guest = guest(self.folder.path());
    }

    fn env(&self, kind: Kind) -> ServerEnv {
        let path = OsString::from("/usr/bin:/bin");
        let places = Places { path: path.clone(), supervisor: SUPERVISOR.into(), ..Places::default() };
        ServerEnv {
            machine: Environment::from([("PATH".into(), path)]),
            sandbox: ToolSandbox {
                supervisor: SUPERVISOR.into(),
                shared: machine(Role::Tool, kind, &places),
                workspace: self.folder.path().join("target-repo"),
            },
            site: self.site.clone(),
            agent: None,
            listen: ListenPlace::Directory(self.folder.path().to_owned()),
            kept: self.folder.path().join("kept"),
            secrets: Arc::new(|_| Some(KEY.into())),
            secret_files: Arc::new(|name| Some(vec![Path::new("/run/secrets").join(name)])),
        }
    }

    fn server(&self, name: &str, script: &str) -> PlannedServer {
        let home = Home::new(self.folder.path());
        home.create(&self.site.open(self.folder.path()).unwrap()).unwrap();
        PlannedServer {
            name: name.to_owned(),
            command: "/bin/sh".into(),
            args: vec!["-c".to_owned(), script.to_owned()],
            env: BTreeMap::new(),
            secrets: BTreeMap::from([("KEY".to_owned(), "brave-api-key".to_owned())]),
            secret_files: BTreeMap::new(),
            files: BTreeMap::new(),
            home,
            runs_in: RunsIn::OwnSandbox,
            workspace: WorkspaceAccess::None,
            keep: Vec::new(),
            required: false,
            tool_timeout: None,
            always_load: false,
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.guest.kill());
        drop(self.guest.wait());
    }
}

fn guest(folder: &Path) -> std::process::Child {
    let environment = Environment::from([("PATH".into(), "/usr/bin:/bin".into())]);
    let mut command = blocking_command(SUPERVISOR, &environment, ProcessGroup::New);
    command.args([OsString::from("guest"), "--connect".into(), folder.join(SOCKET).into()]);
    command.spawn().unwrap()
}

/// The kind that containers permit: engines deny namespaces, and the guest has `no_new_privs`.
const WALL: Kind = Kind::Landlock;

fn plan_of(servers: Vec<PlannedServer>) -> ServerPlan {
    ServerPlan { servers, skipped: Vec::new() }
}

async fn connect(grant: &RelayGrant, name: &str) -> Lines<BufReader<UnixStream>> {
    let RelayEndpoint { address, token } = grant.endpoint(name).unwrap();
    let mut stream = UnixStream::connect(address.socket().unwrap()).await.unwrap();
    stream.write_all(format!("{token}\n").as_bytes()).await.unwrap();
    BufReader::new(stream).lines()
}

async fn line(lines: &mut Lines<BufReader<UnixStream>>) -> Option<String> {
    // A reset also ends it.
    tokio::time::timeout(BOUND, lines.next_line()).await.unwrap().unwrap_or(None)
}

/// Waits until no process has the text in its environment.
async fn gone(text: &Path) {
    let text = text.display().to_string();
    let end = Instant::now() + BOUND;
    loop {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let environments = processes.filter_map(|entry| std::fs::read(entry.path().join("environ")).ok());
        let left = environments.filter(|bytes| String::from_utf8_lossy(bytes).contains(&text)).count();
        if left == 0 {
            return;
        }
        assert!(Instant::now() < end, "{left} processes are left");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn server_in_container_gets_its_key_and_answers() {
    let container = Container::start().await;
    for kind in [Kind::Off, WALL] {
        let server = container.server("echo", "echo \"$KEY\"; exec cat");
        let folder = server.home.folder().to_owned();
        let host = RelayHost::start(&plan_of(vec![server]), &container.env(kind)).unwrap();
        let grant = host.grant().unwrap().unwrap();
        let mut lines = connect(&grant, "echo").await;
        assert_eq!(line(&mut lines).await.as_deref(), Some(KEY));
        lines.get_mut().write_all(b"hello\n").await.unwrap();
        assert_eq!(line(&mut lines).await.as_deref(), Some("hello"));
        drop(lines);
        gone(&folder).await;
        host.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_one_container_cannot_read_each_other() {
    let container = Container::start().await;
    let kind = WALL;
    assert_ne!(kind, Kind::Off);
    let first = container.server("first", "echo secret >note; echo written; exec cat");
    let note: PathBuf = first.home.home().join("note");
    let other = container.server("other", &format!("cat {} 2>&1; echo end", note.display()));
    let host = RelayHost::start(&plan_of(vec![first, other]), &container.env(kind)).unwrap();
    let grant = host.grant().unwrap().unwrap();
    let mut lines = connect(&grant, "first").await;
    assert_eq!(line(&mut lines).await.as_deref(), Some("written"));
    assert!(note.is_file());
    let mut lines = connect(&grant, "other").await;
    let read = line(&mut lines).await.unwrap();
    assert!(read.contains("No such file") || read.contains("Permission denied"), "{read}");
    host.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_server_leaves_no_descendant_in_container() {
    let container = Container::start().await;
    for kind in [Kind::Off, WALL] {
        let script = "sleep 600 & setsid sleep 600 & echo started; trap '' TERM; wait";
        let server = container.server("stays", script);
        let folder = server.home.folder().to_owned();
        let host = RelayHost::start(&plan_of(vec![server]), &container.env(kind)).unwrap();
        let grant = host.grant().unwrap().unwrap();
        let mut lines = connect(&grant, "stays").await;
        assert_eq!(line(&mut lines).await.as_deref(), Some("started"));
        drop(grant);
        gone(&folder).await;
        assert_eq!(line(&mut lines).await, None);
        host.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_container_starts_servers_again() {
    let mut container = Container::start().await;
    let server = container.server("echo", "echo started; exec cat");
    let host = RelayHost::start(&plan_of(vec![server]), &container.env(Kind::Off)).unwrap();
    let grant = host.grant().unwrap().unwrap();
    let mut lines = connect(&grant, "echo").await;
    assert_eq!(line(&mut lines).await.as_deref(), Some("started"));
    container.restart();
    assert_eq!(line(&mut lines).await, None);
    let mut lines = connect(&grant, "echo").await;
    assert_eq!(line(&mut lines).await.as_deref(), Some("started"));
    host.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_server_in_container_reports_its_stderr() {
    let container = Container::start().await;
    let mut plan = plan_of(vec![container.server("bad", "echo \"no such key: $KEY\" >&2; exit 3")]);
    let redactor = Redactor::new(Secrets::new().with("brave key", KEY.into()));
    let env = container.env(WALL);
    let servers = probe(&mut plan, &env, &redactor, BOUND).await.unwrap();
    assert_eq!(servers[0].status, McpStatus::Failed);
    let note = servers[0].note.clone().unwrap();
    assert!(note.contains("no such key: [redacted brave key]"), "{note}");
}
