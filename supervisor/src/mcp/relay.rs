//! Servers with secrets: the supervisor's children, which the agent reaches by a socket.
//!
//! [`RelayHost`] listens; [`relay_main`] is the small program that the agent's CLI starts.
//! The secret stays on this side, and each server has only its own.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use orchestrator_contract::Reason;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::child::{ProcessGroups, ServerProcess};
pub use super::child::{SecretPaths, SecretSource, ServerEnv};
use super::compose::{PlannedServer, ServerPlan};

/// The longest path of a socket, unix(7): 108 bytes with the NUL.
const SUN_PATH_MAX: usize = 107;

/// How long a server may take to end after its input was closed.
const GRACE_PERIOD: Duration = Duration::from_secs(2);

/// How long the agent's side waits for the last answers after its input was closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The relay cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// No folder or socket can be made.
    #[error("cannot listen for MCP server `{name}` in `{folder}`")]
    Listen {
        /// The server.
        name: String,
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket's path is longer than the system allows.
    #[error("cannot listen for MCP server `{name}`: the path `{path}` is longer than {SUN_PATH_MAX} bytes")]
    PathTooLong {
        /// The server.
        name: String,
        /// The path.
        path: PathBuf,
    },
}

impl RelayError {
    /// Why the run ends.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::McpServerFailed
    }
}

/// Listens for the agent and gives each connection a server of its own.
///
/// When it is dropped, every server is killed with all it started, and the sockets are gone.
#[derive(Debug)]
pub struct RelayHost {
    ending: CancellationToken,
    listeners: JoinSet<()>,
    groups: ProcessGroups,
    sockets: BTreeMap<String, PathBuf>,
    /// None where no server has secrets.
    folder: Option<TempDir>,
}

impl RelayHost {
    /// Listens for every server with secrets, in a private folder within `parent`, whose
    /// path should be short. Needs a tokio runtime.
    ///
    /// # Errors
    /// A socket cannot be made.
    pub fn start(composed: &ServerPlan, ground: &ServerEnv, parent: &Path) -> Result<Self, RelayError> {
        let mut host = Self {
            ending: CancellationToken::new(),
            listeners: JoinSet::new(),
            groups: ProcessGroups::default(),
            sockets: BTreeMap::new(),
            folder: None,
        };
        for server in composed.servers.iter().filter(|server| server.has_secrets()) {
            host.listen(server, ground, parent)?;
        }
        Ok(host)
    }

    fn listen(
        &mut self,
        server: &PlannedServer,
        ground: &ServerEnv,
        parent: &Path,
    ) -> Result<(), RelayError> {
        let name = &server.name;
        let failed = |source| RelayError::Listen { name: name.clone(), folder: parent.to_owned(), source };
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => private_folder(parent).map_err(failed)?,
        };
        let path = self.folder.insert(folder).path().join(format!("{name}.sock"));
        if path.as_os_str().len() > SUN_PATH_MAX {
            return Err(RelayError::PathTooLong { name: name.clone(), path });
        }
        let listener = UnixListener::bind(&path).map_err(failed)?;
        self.sockets.insert(name.clone(), path);
        let connection = Connection {
            server: server.clone(),
            ground: ground.clone(),
            groups: self.groups.clone(),
            ending: self.ending.clone(),
        };
        self.listeners.spawn(accept(listener, connection));
        Ok(())
    }

    /// The socket of a server, for [`Composed::agent_config`].
    #[must_use]
    pub fn socket(&self, name: &str) -> Option<PathBuf> {
        self.sockets.get(name).cloned()
    }

    /// The folder of the sockets, which the agent must be able to reach; none where no
    /// server has secrets.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_ref().map(TempDir::path)
    }

    /// Ends every server and waits until each is reaped.
    pub async fn close(mut self) {
        self.ending.cancel();
        self.groups.kill();
        while self.listeners.join_next().await.is_some() {}
    }
}

impl Drop for RelayHost {
    fn drop(&mut self) {
        self.ending.cancel();
        self.groups.kill();
        self.listeners.detach_all();
    }
}

fn private_folder(parent: &Path) -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("mcp-")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)
}

/// What a connection needs to start its server.
#[derive(Clone)]
struct Connection {
    server: PlannedServer,
    ground: ServerEnv,
    groups: ProcessGroups,
    ending: CancellationToken,
}

async fn accept(listener: UnixListener, connection: Connection) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = connection.ending.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection.clone().serve(stream));
                }
                // Out of descriptors, for one: it passes.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
}

impl Connection {
    /// Its own server, bytes both ways, until either side ends.
    async fn serve(self, stream: UnixStream) {
        let Self { server, ground, groups, ending } = self;
        if ending.is_cancelled() {
            return;
        }
        let mut child = match ServerProcess::start(&server, &ground, &groups, Stdio::null()) {
            Ok(child) => child,
            Err(error) => {
                tracing::warn!(server = server.name, %error, "cannot start MCP server");
                return;
            }
        };
        if let (Some(stdin), Some(stdout)) = (child.child.take_stdin(), child.child.take_stdout()) {
            tokio::select! {
                () = copy_bidirectional(stream, stdin, stdout) => {}
                () = ending.cancelled() => {}
            }
        }
        child.end().await;
    }
}

async fn copy_bidirectional(stream: UnixStream, mut stdin: ChildStdin, mut stdout: ChildStdout) {
    let (mut from_agent, mut to_agent) = stream.into_split();
    // Owns its pipe, so that the server's input is closed with the agent's.
    let up = async move { tokio::io::copy(&mut from_agent, &mut stdin).await.ok() };
    let down = async move { tokio::io::copy(&mut stdout, &mut to_agent).await.ok() };
    tokio::pin!(down);
    tokio::select! {
        _ = up => {
            tokio::time::timeout(GRACE_PERIOD, &mut down).await.ok();
        }
        _ = &mut down => {}
    }
}

/// Connects standard input and output with a socket; ends when either side does.
///
/// Plain threads do the reading: a runtime would wait at its end for a read of standard
/// input that never returns.
pub async fn relay_main(socket: &Path) -> ExitCode {
    let connected = std::os::unix::net::UnixStream::connect(socket)
        .and_then(|stream| Ok((stream.try_clone()?, stream.try_clone()?, stream)));
    let (mut to_host, mut from_host, stream) = match connected {
        Ok(streams) => streams,
        Err(error) => {
            let line = format!("cannot reach the MCP server at `{}`: {error}\n", socket.display());
            io::stderr().write_all(line.as_bytes()).ok();
            return ExitCode::from(Reason::McpServerFailed.exit_code());
        }
    };
    let (up_ended, up) = tokio::sync::oneshot::channel();
    let (down_ended, mut down) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        copy_and_flush(&mut io::stdin().lock(), &mut to_host).ok();
        to_host.shutdown(Shutdown::Write).ok();
        up_ended.send(()).ok();
    });
    std::thread::spawn(move || {
        copy_and_flush(&mut from_host, &mut io::stdout().lock()).ok();
        down_ended.send(()).ok();
    });
    tokio::select! {
        _ = up => {
            tokio::time::timeout(DRAIN_TIMEOUT, &mut down).await.ok();
        }
        _ = &mut down => {}
    }
    stream.shutdown(Shutdown::Both).ok();
    ExitCode::SUCCESS
}

/// Copies and flushes after each read: a message must not wait for the next one.
fn copy_and_flush(from: &mut impl io::Read, to: &mut impl io::Write) -> io::Result<()> {
    let mut chunk = [0; 65536];
    loop {
        let length = match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(chunk.get(..length).unwrap_or_default())?;
        to.flush()?;
    }
}
