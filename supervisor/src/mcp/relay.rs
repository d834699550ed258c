//! The relay between the agent and the MCP servers in sandboxes of their own.
//!
//! [`RelayHost`] listens for the agent and starts the servers; the agent CLI starts
//! [`super::relay_client`] instead. A connection first sends a token, which admits
//! one conversation to one server. The agent never sees the secrets, and each server gets only its own.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use orchestrator_contract::Reason;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader, ReadHalf, WriteHalf,
};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::admission::Admission;
use super::bounded::Bounded;
pub use super::child::{AgentPlace, SecretPaths, SecretSource, ServerEnv};
use super::child::{RunningServers, ServerProcess};
use super::compose::{PlannedServer, RelayEndpoint, ServerPlan};
use super::tokens::{TOKEN_LENGTH, equal, new_token};
use crate::endpoint::{Endpoint, EndpointListener, Stream};
use crate::program::{ProgramInput, ProgramOutput};

/// How long a server may take to exit after its input is closed.
const GRACE_PERIOD: Duration = Duration::from_secs(2);

/// How long a connection may take to send its token.
pub const TOKEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of connections without a token; the oldest one is closed for a new one.
const MAX_PENDING: usize = 64;

/// How long a refused connection is answered, so that the agent CLI reads why.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of requests that a refused connection gets answers to.
const MAX_REFUSED_REQUESTS: usize = 8;

/// Maximum length of such a request.
const MAX_REFUSED_BYTES: u64 = 64 * 1024;

/// Error code of a refusal, from the range for servers (JSON-RPC 2.0, section 5.1).
const REFUSED: i32 = -32000;

/// Why the relay cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// No port of the loopback interface is available, or the socket cannot be created.
    #[error("cannot listen for the agent's MCP servers")]
    Listen(#[source] io::Error),
    /// The kernel gives no random numbers.
    #[error("cannot create a relay token")]
    Token(#[source] io::Error),
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
/// Dropping it kills every server with its descendants and closes its port or socket.
pub struct RelayHost {
    shared: Arc<Shared>,
    /// Accepts connections; `None` without a server.
    listener: Option<(Endpoint, JoinHandle<()>)>,
}

/// State that the connections share.
struct Shared {
    servers: BTreeMap<String, PlannedServer>,
    server_env: ServerEnv,
    running: RunningServers,
    grants: Mutex<Vec<Grant>>,
    shutdown: CancellationToken,
}

/// Admission of one conversation to one server.
#[derive(Clone)]
struct Grant {
    token: String,
    server: String,
    admission: Admission,
    revoked: CancellationToken,
}

/// The tokens of one conversation; dropping it revokes them and kills the conversation's servers.
pub struct RelayGrant {
    endpoint: Endpoint,
    tokens: BTreeMap<String, String>,
    shared: Arc<Shared>,
    revoked: Option<DropGuard>,
}

impl std::fmt::Debug for RelayHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let servers: Vec<&String> = self.shared.servers.keys().collect();
        f.debug_struct("RelayHost").field("servers", &servers).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RelayGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayGrant").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl RelayHost {
    /// Listens for every relayed server. Needs a tokio runtime.
    ///
    /// # Errors
    /// Returns an error if it cannot listen.
    pub fn start(plan: &ServerPlan, server_env: &ServerEnv) -> Result<Self, RelayError> {
        let servers: BTreeMap<String, PlannedServer> =
            plan.relayed().map(|server| (server.name.clone(), server.clone())).collect();
        let shared = Arc::new(Shared {
            servers,
            server_env: server_env.clone(),
            running: RunningServers::default(),
            grants: Mutex::default(),
            shutdown: CancellationToken::new(),
        });
        let listener = if shared.servers.is_empty() {
            None
        } else {
            let listener = EndpointListener::bind(&server_env.listen, "relay").map_err(RelayError::Listen)?;
            let endpoint = listener.endpoint().clone();
            Some((endpoint, tokio::spawn(accept(listener, Arc::clone(&shared)))))
        };
        Ok(Self { shared, listener })
    }

    /// Admits one more conversation to the servers.
    ///
    /// Returns `None` if there is no relayed server.
    ///
    /// # Errors
    /// Returns an error if no token can be created.
    pub fn grant(&self) -> Result<Option<RelayGrant>, RelayError> {
        let Some((endpoint, _)) = &self.listener else { return Ok(None) };
        let revoked = CancellationToken::new();
        let mut tokens = BTreeMap::new();
        for name in self.shared.servers.keys() {
            let token = new_token().map_err(RelayError::Token)?;
            tokens.insert(name.clone(), token.clone());
            let (server, admission) = (name.clone(), Admission::default());
            self.shared.grants().push(Grant { token, server, admission, revoked: revoked.clone() });
        }
        let (endpoint, shared) = (endpoint.clone(), Arc::clone(&self.shared));
        Ok(Some(RelayGrant { endpoint, tokens, shared, revoked: Some(revoked.drop_guard()) }))
    }

    /// Kills every server, waits until all are reaped, and stores the files that they keep.
    pub async fn close(mut self) {
        self.shared.shutdown.cancel();
        self.shared.running.kill();
        if let Some((_, accepting)) = self.listener.take() {
            drop(accepting.await);
        }
    }
}

impl Drop for RelayHost {
    fn drop(&mut self) {
        self.shared.shutdown.cancel();
        self.shared.running.kill();
    }
}

impl RelayGrant {
    /// Returns how the conversation reaches a server, for [`ServerPlan::agent_config`].
    #[must_use]
    pub fn endpoint(&self, name: &str) -> Option<RelayEndpoint> {
        let token = self.tokens.get(name)?.clone();
        Some(RelayEndpoint { address: self.endpoint.clone(), token })
    }
}

impl Drop for RelayGrant {
    fn drop(&mut self) {
        drop(self.revoked.take());
        self.shared.grants().retain(|grant| !grant.revoked.is_cancelled());
    }
}

impl Shared {
    fn grants(&self) -> MutexGuard<'_, Vec<Grant>> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the grant of a token. Compares all of them, each in constant time.
    fn authenticate(&self, token: &[u8]) -> Option<Grant> {
        let grants = self.grants();
        let found =
            grants.iter().fold(
                None,
                |found, grant| {
                    if equal(grant.token.as_bytes(), token) { Some(grant) } else { found }
                },
            );
        found.cloned()
    }
}

async fn accept(listener: EndpointListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    // Connections that have not sent a token yet, the oldest one first.
    let mut pending: VecDeque<CancellationToken> = VecDeque::new();
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(stream) => {
                    pending.retain(|waiting| !waiting.is_cancelled());
                    if pending.len() >= MAX_PENDING && let Some(oldest) = pending.pop_front() {
                        oldest.cancel();
                    }
                    let waiting = CancellationToken::new();
                    pending.push_back(waiting.clone());
                    connections.spawn(serve(stream, waiting, Arc::clone(&shared)));
                }
                // A temporary error, such as too many open file descriptors.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Serves one connection. `waiting` is cancelled when it has sent its token, or must end without one.
async fn serve(stream: Stream, waiting: CancellationToken, shared: Arc<Shared>) {
    let (read, to_agent) = tokio::io::split(stream);
    let mut from_agent = BufReader::new(read);
    let done = waiting.clone().drop_guard();
    let token = tokio::select! {
        token = tokio::time::timeout(TOKEN_TIMEOUT, read_token(&mut from_agent)) => token.ok().flatten(),
        () = waiting.cancelled() => None,
        () = shared.shutdown.cancelled() => None,
    };
    drop(done);
    let Some(grant) = token.and_then(|token| shared.authenticate(&token)) else { return };
    let ended = async {
        tokio::select! {
            () = grant.revoked.cancelled() => {}
            () = shared.shutdown.cancelled() => {}
        }
    };
    let agent = Agent { from: from_agent, to: to_agent };
    shared.connect(&grant, agent, ended).await;
}

/// Reads the first line of a connection.
async fn read_token(from_agent: &mut BufReader<ReadHalf<Stream>>) -> Option<Vec<u8>> {
    let mut line = vec![0; TOKEN_LENGTH + 1];
    from_agent.read_exact(&mut line).await.ok()?;
    (line.pop() == Some(b'\n')).then_some(line)
}

/// The agent's end of a connection.
struct Agent {
    from: BufReader<ReadHalf<Stream>>,
    to: WriteHalf<Stream>,
}

impl Shared {
    /// Starts a server and copies bytes in both directions until either side closes, or `ended`.
    async fn connect(&self, grant: &Grant, agent: Agent, ended: impl Future<Output = ()>) {
        let Some(server) = self.servers.get(&grant.server) else { return };
        tokio::pin!(ended);
        let starting = async {
            let permit = grant.admission.admit(Instant::now()).map_err(|refusal| refusal.to_string())?;
            let started = ServerProcess::start(server, &self.server_env, &self.running).await;
            let child = started.map_err(|error| format!("the MCP server cannot start: {error}"))?;
            Ok::<_, String>((child, permit))
        };
        // A lost container is waited for, but not after the end.
        let started = tokio::select! {
            started = starting => started,
            () = &mut ended => return,
        };
        let (mut child, permit) = match started {
            Ok(started) => started,
            Err(why) => {
                tracing::warn!(server = server.name, why, "refused a connection to an MCP server");
                drop(tokio::time::timeout(REFUSAL_TIMEOUT, refuse(agent, &why)).await);
                return;
            }
        };
        let reader = |output: Option<ProgramOutput>| output.and_then(|output| output.into_reader().ok());
        let program = &mut child.program;
        let (stdout, stderr) = (reader(program.stdout.take()), reader(program.stderr.take()));
        // A server that writes to it without a reader would wait or fail.
        let discarding = tokio::spawn(async move {
            if let Some(mut stderr) = stderr {
                drop(tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await);
            }
        });
        if let (Some(stdin), Some(stdout)) = (program.input.take(), stdout) {
            tokio::select! {
                () = copy_bidirectional(agent, stdin, stdout) => {}
                () = &mut ended => {}
            }
        }
        child.stop().await;
        discarding.abort();
        self.server_env.collect_kept(server).await;
        drop(permit);
    }
}

async fn copy_bidirectional(agent: Agent, mut stdin: ProgramInput, stdout: impl AsyncRead + Unpin) {
    let (mut from_agent, mut from_server) = (Bounded::lines(agent.from), Bounded::lines(stdout));
    let mut to_agent = agent.to;
    // Owns the pipe, so that the server's input is closed when the agent's is.
    let up = async move { tokio::io::copy(&mut from_agent, &mut stdin).await };
    let down = async move { tokio::io::copy(&mut from_server, &mut to_agent).await };
    tokio::pin!(down);
    let log = |result: io::Result<u64>| {
        if let Err(error) = result {
            tracing::warn!(%error, "a connection to an MCP server failed");
        }
    };
    tokio::select! {
        result = up => {
            log(result);
            tokio::time::timeout(GRACE_PERIOD, &mut down).await.ok();
        }
        result = &mut down => log(result),
    }
}

/// Answers the first requests of a refused connection with an error.
async fn refuse(mut agent: Agent, why: &str) {
    for _ in 0..MAX_REFUSED_REQUESTS {
        let mut line = Vec::new();
        let read = (&mut agent.from).take(MAX_REFUSED_BYTES).read_until(b'\n', &mut line).await;
        if !read.is_ok_and(|read| read > 0) {
            return;
        }
        let request: serde_json::Value = serde_json::from_slice(&line).unwrap_or_default();
        // A notification gets no answer.
        let Some(id) = request.get("id") else { continue };
        let error = serde_json::json!({
            "jsonrpc": "2.0", "id": id, "error": { "code": REFUSED, "message": why },
        });
        if agent.to.write_all(format!("{error}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}
