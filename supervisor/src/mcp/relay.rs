//! The relay between the agent and the MCP servers that hold secrets.
//!
//! [`RelayHost`] listens on a socket and runs the servers as children of the supervisor;
//! [`relay_main`] is the program that the agent CLI starts instead. The agent never sees the
//! secrets, and each server gets only its own.

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

/// Maximum length of a socket path, from unix(7): 108 bytes with the NUL.
const SUN_PATH_MAX: usize = 107;

/// How long a server may take to exit after its input is closed.
const GRACE_PERIOD: Duration = Duration::from_secs(2);

/// How long the relay program waits for the last responses after its input is closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the relay cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The directory or socket cannot be created.
    #[error("cannot listen for MCP server `{name}` in `{directory}`")]
    Listen {
        name: String,
        /// The parent directory.
        directory: PathBuf,
        source: io::Error,
    },
    /// The socket path exceeds the limit of the system.
    #[error("cannot listen for MCP server `{name}`: path `{path}` is longer than {SUN_PATH_MAX} bytes")]
    PathTooLong { name: String, path: PathBuf },
}

impl RelayError {
    /// Returns the reason that the run ends with.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::McpServerFailed
    }
}

/// Listens for the agent and starts a separate server for each connection.
///
/// Dropping it kills every server with its descendants and removes the sockets.
#[derive(Debug)]
pub struct RelayHost {
    shutdown: CancellationToken,
    listeners: JoinSet<()>,
    groups: ProcessGroups,
    sockets: BTreeMap<String, PathBuf>,
    /// `None` if no server has secrets.
    directory: Option<TempDir>,
}

impl RelayHost {
    /// Listens for every server with secrets, on sockets in a private directory.
    ///
    /// The directory is created in `parent`, whose path should be short. Needs a tokio runtime.
    ///
    /// # Errors
    /// Returns an error if a socket cannot be created.
    pub fn start(plan: &ServerPlan, server_env: &ServerEnv, parent: &Path) -> Result<Self, RelayError> {
        let mut host = Self {
            shutdown: CancellationToken::new(),
            listeners: JoinSet::new(),
            groups: ProcessGroups::default(),
            sockets: BTreeMap::new(),
            directory: None,
        };
        for server in plan.servers.iter().filter(|server| server.has_secrets()) {
            host.listen(server, server_env, parent)?;
        }
        Ok(host)
    }

    fn listen(
        &mut self,
        server: &PlannedServer,
        server_env: &ServerEnv,
        parent: &Path,
    ) -> Result<(), RelayError> {
        let name = &server.name;
        let failed = |source| RelayError::Listen { name: name.clone(), directory: parent.to_owned(), source };
        let directory = match self.directory.take() {
            Some(directory) => directory,
            None => private_directory(parent).map_err(failed)?,
        };
        let path = self.directory.insert(directory).path().join(format!("{name}.sock"));
        if path.as_os_str().len() > SUN_PATH_MAX {
            return Err(RelayError::PathTooLong { name: name.clone(), path });
        }
        let listener = UnixListener::bind(&path).map_err(failed)?;
        self.sockets.insert(name.clone(), path);
        let connection = Connection {
            server: server.clone(),
            server_env: server_env.clone(),
            groups: self.groups.clone(),
            shutdown: self.shutdown.clone(),
        };
        self.listeners.spawn(accept(listener, connection));
        Ok(())
    }

    /// Returns the socket of a server, for [`ServerPlan::agent_config`].
    #[must_use]
    pub fn socket(&self, name: &str) -> Option<PathBuf> {
        self.sockets.get(name).cloned()
    }

    /// Returns the directory of the sockets, which the agent must be able to read.
    ///
    /// Returns `None` if no server has secrets.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.directory.as_ref().map(TempDir::path)
    }

    /// Kills every server and waits until all are reaped.
    pub async fn close(mut self) {
        self.shutdown.cancel();
        self.groups.kill();
        while self.listeners.join_next().await.is_some() {}
    }
}

impl Drop for RelayHost {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.groups.kill();
        self.listeners.detach_all();
    }
}

fn private_directory(parent: &Path) -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("mcp-")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)
}

#[derive(Clone)]
struct Connection {
    server: PlannedServer,
    server_env: ServerEnv,
    groups: ProcessGroups,
    shutdown: CancellationToken,
}

async fn accept(listener: UnixListener, connection: Connection) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = connection.shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection.clone().serve(stream));
                }
                // A temporary error, such as too many open file descriptors.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
}

impl Connection {
    /// Starts a server and copies bytes in both directions until either side closes.
    async fn serve(self, stream: UnixStream) {
        let Self { server, server_env, groups, shutdown } = self;
        if shutdown.is_cancelled() {
            return;
        }
        let mut child = match ServerProcess::start(&server, &server_env, &groups, Stdio::null()) {
            Ok(child) => child,
            Err(error) => {
                tracing::warn!(server = server.name, %error, "cannot start MCP server");
                return;
            }
        };
        if let (Some(stdin), Some(stdout)) = (child.child.take_stdin(), child.child.take_stdout()) {
            tokio::select! {
                () = copy_bidirectional(stream, stdin, stdout) => {}
                () = shutdown.cancelled() => {}
            }
        }
        child.stop().await;
    }
}

async fn copy_bidirectional(stream: UnixStream, mut stdin: ChildStdin, mut stdout: ChildStdout) {
    let (mut from_agent, mut to_agent) = stream.into_split();
    // Owns the pipe, so that the server's input is closed when the agent's is.
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

/// Connects standard input and output to a socket; exits when either side closes.
///
/// Reads on plain threads: a tokio runtime would wait at shutdown for a read of standard
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
    let (up_closed_tx, up) = tokio::sync::oneshot::channel();
    let (down_closed_tx, mut down) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        copy_and_flush(&mut io::stdin().lock(), &mut to_host).ok();
        to_host.shutdown(Shutdown::Write).ok();
        up_closed_tx.send(()).ok();
    });
    std::thread::spawn(move || {
        copy_and_flush(&mut from_host, &mut io::stdout().lock()).ok();
        down_closed_tx.send(()).ok();
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

/// Copies and flushes after each read, so that no message waits for the next one.
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
