//! The parent: spawns a transfer process per operation and enforces its deadlines.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use git2::Oid;
use orchestrator_contract::{BranchName, Reason, RepositoryUrl};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::{Instant, timeout_at};

use super::message::{Fetched, Operation, Progress, PushOutcome, RemoteRefs, Reply, Request, SUBCOMMAND};
use crate::process::{Child, Environment, ProcessGroup, command, spawn};
use crate::tls::CertificatePaths;

/// Minimum bytes that count as progress; a trickle of single bytes does not.
const MIN_PROGRESS_BYTES: u64 = 1024;

/// Credentials for a remote; read again for each operation, so that they can be rotated.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Token for HTTP.
    pub token: Option<SecretString>,
    /// User name for the token (default: `x-access-token`) or for SSH.
    pub username: Option<String>,
    /// Path of the private key for SSH.
    pub ssh_key: Option<PathBuf>,
    /// Path of a known hosts file, in addition to the published keys of the large hosts.
    pub known_hosts: Option<PathBuf>,
}

/// Connection settings.
#[derive(Clone, Debug)]
pub struct RemoteSettings {
    /// Program with the hidden subcommand: the supervisor.
    pub program: PathBuf,
    /// Path of the SSH program.
    pub ssh_program: PathBuf,
    /// URL of the HTTP proxy.
    pub proxy: Option<String>,
    /// Hosts for which the proxy is not used (`NO_PROXY`).
    pub no_proxy: Option<String>,
    /// Trusted certificate authorities.
    pub certificates: CertificatePaths,
    /// Timeout for a connection.
    pub connect: Duration,
    /// Timeout without progress.
    pub idle_timeout: Duration,
    /// Timeout for the operation.
    pub total_timeout: Duration,
}

impl RemoteSettings {
    /// Returns the defaults, with `program` as the transfer process.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            ssh_program: PathBuf::from("/usr/bin/ssh"),
            proxy: None,
            no_proxy: None,
            certificates: CertificatePaths::default(),
            connect: Duration::from_secs(20),
            // A server may count objects for a minute before it sends the first one.
            idle_timeout: Duration::from_secs(120),
            total_timeout: Duration::from_secs(3600),
        }
    }

    /// Returns the defaults, with the running program as the transfer process.
    ///
    /// # Errors
    /// Returns an error if the path of the running program is unknown.
    pub fn of_this_program() -> std::io::Result<Self> {
        std::env::current_exe().map(Self::new)
    }
}

/// Failed remote operation.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The remote, the network or the local repository failed.
    #[error("cannot {operation} `{url}`: {message}")]
    Failed {
        /// Operation, as an infinitive phrase.
        operation: &'static str,
        url: RepositoryUrl,
        reason: Reason,
        message: String,
    },
    /// The operation was idle or took too long, and was killed.
    #[error("cannot {operation} `{url}`: {}", if *.idle { format!("no progress for {seconds} s") } else { format!("not finished after {seconds} s") })]
    TimedOut {
        /// Operation, as an infinitive phrase.
        operation: &'static str,
        url: RepositoryUrl,
        /// Whether the idle timeout expired, not the total one.
        idle: bool,
        /// The timeout.
        seconds: u64,
    },
    /// The transfer process could not be spawned or exited without a reply.
    #[error("cannot {operation} `{url}`: the transfer process failed")]
    Child {
        /// Operation, as an infinitive phrase.
        operation: &'static str,
        url: RepositoryUrl,
        source: std::io::Error,
    },
}

impl TransferError {
    /// Returns the reason for a run that this error ends.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Failed { reason, .. } => *reason,
            Self::TimedOut { .. } => Reason::RemoteUnavailable,
            Self::Child { .. } => Reason::InternalError,
        }
    }

    /// Returns whether a retry may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.reason(), Reason::NetworkUnavailable | Reason::RemoteUnavailable)
    }
}

/// Remote repository. Dropping the future of an operation kills its transfer process.
#[derive(Clone, Debug)]
pub struct Remote {
    url: RepositoryUrl,
    settings: RemoteSettings,
}

/// Callback for the progress of a transfer.
pub type OnProgress<'p> = &'p mut (dyn FnMut(&Progress) + Send);

impl Remote {
    /// Creates a remote without connecting to it.
    #[must_use]
    pub fn new(url: RepositoryUrl, settings: RemoteSettings) -> Self {
        Self { url, settings }
    }

    /// Returns its URL, as configured.
    #[must_use]
    pub fn url(&self) -> &RepositoryUrl {
        &self.url
    }

    /// Lists its refs and default branch.
    ///
    /// # Errors
    /// Returns an error if it cannot be reached or read.
    pub async fn list_refs(&self, credentials: &Credentials) -> Result<RemoteRefs, TransferError> {
        let name = "read";
        let reply = self.run(name, Operation::List, credentials, &mut |_| {}).await?;
        if let Reply::Listed(refs) = reply { Ok(refs) } else { Err(self.unexpected(name)) }
    }

    /// Checks that pushing is allowed, without pushing.
    ///
    /// # Errors
    /// Returns an error if it is not allowed or the remote cannot be reached.
    pub async fn check_push(&self, credentials: &Credentials) -> Result<RemoteRefs, TransferError> {
        let name = "get push access to";
        let reply = self.run(name, Operation::CheckPush, credentials, &mut |_| {}).await?;
        if let Reply::Listed(refs) = reply { Ok(refs) } else { Err(self.unexpected(name)) }
    }

    /// Fetches refspecs into a control repository.
    ///
    /// Refs are updated after all objects were received. `depth` does not apply to a local path.
    ///
    /// # Errors
    /// Returns an error if the remote cannot be reached or read, or the repository not written.
    pub async fn fetch(
        &self,
        repository: &Path,
        refspecs: &[String],
        depth: Option<u32>,
        credentials: &Credentials,
        progress: OnProgress<'_>,
    ) -> Result<Fetched, TransferError> {
        let name = "fetch from";
        let operation =
            Operation::Fetch { repository: repository.to_owned(), refspecs: refspecs.to_vec(), depth };
        let reply = self.run(name, operation, credentials, progress).await?;
        if let Reply::Fetched(fetched) = reply { Ok(fetched) } else { Err(self.unexpected(name)) }
    }

    /// Pushes a commit to a branch if the branch is at `expected` (`None`: it does not exist).
    ///
    /// Never forces and never deletes.
    ///
    /// # Errors
    /// Returns an error if the remote cannot be reached. A rejected push is an outcome.
    pub async fn push(
        &self,
        repository: &Path,
        branch: &BranchName,
        oid: Oid,
        expected: Option<Oid>,
        credentials: &Credentials,
        progress: OnProgress<'_>,
    ) -> Result<PushOutcome, TransferError> {
        let name = "push to";
        let operation = Operation::Push {
            repository: repository.to_owned(),
            reference: format!("refs/heads/{branch}"),
            oid: oid.to_string(),
            expected: expected.map(|oid| oid.to_string()),
        };
        let reply = self.run(name, operation, credentials, progress).await?;
        if let Reply::Pushed(outcome) = reply { Ok(outcome) } else { Err(self.unexpected(name)) }
    }

    async fn run(
        &self,
        name: &'static str,
        operation: Operation,
        credentials: &Credentials,
        progress: OnProgress<'_>,
    ) -> Result<Reply, TransferError> {
        let failed = |source| TransferError::Child { operation: name, url: self.url.clone(), source };
        let RemoteSettings { program, idle_timeout, total_timeout, .. } = &self.settings;
        let request = self.request(operation, credentials);
        let mut running = TransferProcess::start(program).map_err(failed)?;
        let end = Instant::now() + *total_timeout;
        let mut deadline = Instant::now() + *idle_timeout;
        let mut last = Progress::default();
        let mut request = Some(request);
        loop {
            let until = deadline.min(end);
            let line = match timeout_at(until, running.lines.next_line()).await {
                Ok(line) => line.map_err(failed)?,
                Err(_) => {
                    let idle = deadline <= end;
                    let limit = if idle { idle_timeout } else { total_timeout };
                    return Err(TransferError::TimedOut {
                        operation: name,
                        url: self.url.clone(),
                        idle,
                        seconds: limit.as_secs(),
                    });
                }
            };
            let Some(line) = line else {
                return Err(failed(std::io::Error::other("it exited without a reply")));
            };
            match serde_json::from_str(&line).map_err(|error| failed(error.into()))? {
                Reply::Ready => {
                    // Only now is the child protected from processes with the same uid.
                    let Some(request) = request.take() else { continue };
                    let text = serde_json::to_vec(&request).map_err(|error| failed(error.into()))?;
                    running.send(text).await.map_err(failed)?;
                }
                Reply::Progress(now) => {
                    if now.bytes >= last.bytes + MIN_PROGRESS_BYTES
                        || now.objects > last.objects
                        || now.steps > last.steps
                    {
                        deadline = Instant::now() + *idle_timeout;
                        last = Progress {
                            bytes: now.bytes.max(last.bytes),
                            objects: now.objects.max(last.objects),
                            total: now.total.max(last.total),
                            steps: now.steps.max(last.steps),
                        };
                        progress(&last);
                    }
                }
                Reply::Failed { reason, message } => {
                    return Err(TransferError::Failed {
                        operation: name,
                        url: self.url.clone(),
                        reason,
                        message,
                    });
                }
                reply @ (Reply::Listed(_) | Reply::Fetched(_) | Reply::Pushed(_)) => return Ok(reply),
            }
        }
    }

    fn request(&self, operation: Operation, credentials: &Credentials) -> Request {
        let Credentials { token, username, ssh_key, known_hosts } = credentials;
        let RemoteSettings {
            program: _,
            ssh_program,
            proxy,
            no_proxy,
            certificates,
            connect,
            idle_timeout,
            total_timeout: _,
        } = &self.settings;
        Request {
            operation,
            url: self.url.to_string(),
            token: token.as_ref().map(|token| token.expose_secret().to_owned()),
            username: username.clone(),
            ssh_key: ssh_key.clone(),
            known_hosts: known_hosts.clone(),
            ssh_program: ssh_program.clone(),
            proxy: proxy.clone(),
            no_proxy: no_proxy.clone(),
            certificates: certificates.clone(),
            connect_seconds: connect.as_secs_f64(),
            read_seconds: idle_timeout.as_secs_f64(),
        }
    }

    fn unexpected(&self, operation: &'static str) -> TransferError {
        let source = std::io::Error::other("unexpected reply");
        TransferError::Child { operation, url: self.url.clone(), source }
    }
}

/// Transfer process and its descendants; dropping it kills them.
struct TransferProcess {
    /// Kills its process group when dropped.
    _child: Child,
    input: Option<tokio::process::ChildStdin>,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl TransferProcess {
    fn start(program: &Path) -> std::io::Result<Self> {
        let mut command = command(program, &Environment::new(), ProcessGroup::New);
        command.arg(SUBCOMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = spawn(command).map_err(|error| error.source)?;
        let missing = || std::io::Error::other("missing pipe");
        let input = child.take_stdin();
        let lines = BufReader::new(child.take_stdout().ok_or_else(missing)?).lines();
        Ok(Self { _child: child, input, lines })
    }

    async fn send(&mut self, mut text: Vec<u8>) -> std::io::Result<()> {
        text.push(b'\n');
        let Some(mut input) = self.input.take() else { return Ok(()) };
        input.write_all(&text).await?;
        input.shutdown().await
    }
}
