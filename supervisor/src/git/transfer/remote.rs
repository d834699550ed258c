//! The parent: starts a child for each operation and sees to it that it ends.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use git2::Oid;
use orchestrator_contract::{BranchName, Reason, RepositoryUrl};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::{Instant, timeout_at};

use super::SUBCOMMAND;
use super::message::{Fetched, Operation, Progress, PushOutcome, RemoteRefs, Reply, Request};
use crate::process::{Child, Environment, ProcessGroup, command, spawn};

/// Bytes that count as progress: a trickle of single bytes does not.
const MIN_PROGRESS_BYTES: u64 = 1024;

/// What opens a remote; read anew for each operation, so that it can be rotated.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// A token for HTTP.
    pub token: Option<SecretString>,
    /// The user that goes with it (`x-access-token`), or the SSH user.
    pub username: Option<String>,
    /// A private key for SSH.
    pub ssh_key: Option<PathBuf>,
    /// Host keys beyond the published ones of the large hosts.
    pub known_hosts: Option<PathBuf>,
}

/// How a remote is reached.
#[derive(Clone, Debug)]
pub struct RemoteSettings {
    /// The program that has the hidden subcommand: this one.
    pub program: PathBuf,
    /// The SSH program.
    pub ssh_program: PathBuf,
    /// An HTTP proxy.
    pub proxy: Option<String>,
    /// Hosts that are reached without it.
    pub no_proxy: Option<String>,
    /// Certificate authorities instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// How long a connection may take.
    pub connect: Duration,
    /// How long nothing may move.
    pub idle_timeout: Duration,
    /// How long an operation may take whatever moves.
    pub total_timeout: Duration,
}

impl RemoteSettings {
    /// Defaults, with `program` as the child.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            ssh_program: PathBuf::from("/usr/bin/ssh"),
            proxy: None,
            no_proxy: None,
            ca_file: None,
            connect: Duration::from_secs(20),
            // A server may count objects for a minute before it sends the first.
            idle_timeout: Duration::from_secs(120),
            total_timeout: Duration::from_secs(3600),
        }
    }

    /// Defaults, with the running program as the child.
    ///
    /// # Errors
    /// The system does not say where the program is.
    pub fn of_this_program() -> std::io::Result<Self> {
        std::env::current_exe().map(Self::new)
    }
}

/// A remote operation failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The remote, the network or our repository refused.
    #[error("cannot {operation} `{url}`: {message}")]
    Failed {
        /// What was tried.
        operation: &'static str,
        /// With which remote.
        url: RepositoryUrl,
        /// In the terms of the contract.
        reason: Reason,
        /// What was said.
        message: String,
    },
    /// Nothing moved for too long, or it took too long; the operation was killed.
    #[error("cannot {operation} `{url}`: {}", if *.quiet { format!("nothing moved for {seconds} s") } else { format!("not finished after {seconds} s") })]
    TimedOut {
        /// What was tried.
        operation: &'static str,
        /// With which remote.
        url: RepositoryUrl,
        /// Whether nothing moved, as opposed to too slowly.
        quiet: bool,
        /// The limit.
        seconds: u64,
    },
    /// The child could not be started or ended without an answer.
    #[error("cannot {operation} `{url}`: the transfer process failed")]
    Child {
        /// What was tried.
        operation: &'static str,
        /// With which remote.
        url: RepositoryUrl,
        /// How.
        source: std::io::Error,
    },
}

impl TransferError {
    /// The reason that a run ends with when this ends it.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Failed { reason, .. } => *reason,
            Self::TimedOut { .. } => Reason::RemoteUnavailable,
            Self::Child { .. } => Reason::InternalError,
        }
    }

    /// Whether the same operation may succeed a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.reason(), Reason::NetworkUnavailable | Reason::RemoteUnavailable)
    }
}

/// A repository elsewhere. Dropping the future of an operation kills its child.
#[derive(Clone, Debug)]
pub struct Remote {
    url: RepositoryUrl,
    settings: RemoteSettings,
}

/// Called as a transfer advances.
pub type OnProgress<'p> = &'p mut (dyn FnMut(&Progress) + Send);

impl Remote {
    /// A remote; nothing is done yet.
    #[must_use]
    pub fn new(url: RepositoryUrl, settings: RemoteSettings) -> Self {
        Self { url, settings }
    }

    /// Its literal address.
    #[must_use]
    pub fn url(&self) -> &RepositoryUrl {
        &self.url
    }

    /// Its refs and default branch.
    ///
    /// # Errors
    /// It cannot be reached or read.
    pub async fn list_refs(&self, credentials: &Credentials) -> Result<RemoteRefs, TransferError> {
        let name = "read";
        let reply = self.perform(name, Operation::List, credentials, &mut |_| {}).await?;
        if let Reply::Listed(refs) = reply { Ok(refs) } else { Err(self.unexpected(name)) }
    }

    /// Asks whether pushing is allowed, without pushing anything.
    ///
    /// # Errors
    /// It is not, or the remote cannot be reached.
    pub async fn check_push(&self, credentials: &Credentials) -> Result<RemoteRefs, TransferError> {
        let name = "get push access to";
        let reply = self.perform(name, Operation::CheckPush, credentials, &mut |_| {}).await?;
        if let Reply::Listed(refs) = reply { Ok(refs) } else { Err(self.unexpected(name)) }
    }

    /// Fetches refspecs into a control repository. Refs change only when all
    /// objects are there. A local path is fetched whole, whatever the depth.
    ///
    /// # Errors
    /// The remote cannot be reached or read, or the repository not written.
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
        let reply = self.perform(name, operation, credentials, progress).await?;
        if let Reply::Fetched(fetched) = reply { Ok(fetched) } else { Err(self.unexpected(name)) }
    }

    /// Pushes one commit to one branch if that branch is where it is expected
    /// (none: it does not exist). Never forces, never deletes.
    ///
    /// # Errors
    /// The remote cannot be reached. A refusal is an outcome, not an error.
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
        let reply = self.perform(name, operation, credentials, progress).await?;
        if let Reply::Pushed(outcome) = reply { Ok(outcome) } else { Err(self.unexpected(name)) }
    }

    async fn perform(
        &self,
        name: &'static str,
        operation: Operation,
        credentials: &Credentials,
        progress: OnProgress<'_>,
    ) -> Result<Reply, TransferError> {
        let RemoteSettings {
            program,
            ssh_program,
            proxy,
            no_proxy,
            ca_file,
            connect,
            idle_timeout: quiet,
            total_timeout: cap,
        } = &self.settings;
        let failed = |source| TransferError::Child { operation: name, url: self.url.clone(), source };
        let Credentials { token, username, ssh_key, known_hosts } = credentials;
        let request = Request {
            operation,
            url: self.url.to_string(),
            token: token.as_ref().map(|token| token.expose_secret().to_owned()),
            username: username.clone(),
            ssh_key: ssh_key.clone(),
            known_hosts: known_hosts.clone(),
            ssh_program: ssh_program.clone(),
            proxy: proxy.clone(),
            no_proxy: no_proxy.clone(),
            ca_file: ca_file.clone(),
            connect_seconds: connect.as_secs_f64(),
            read_seconds: quiet.as_secs_f64(),
        };
        let mut running = TransferProcess::start(program).map_err(failed)?;
        let end = Instant::now() + *cap;
        let mut deadline = Instant::now() + *quiet;
        let mut last = Progress::default();
        let mut request = Some(request);
        loop {
            let until = deadline.min(end);
            let line = match timeout_at(until, running.lines.next_line()).await {
                Ok(line) => line.map_err(failed)?,
                Err(_) => {
                    let quiet_ended = deadline <= end;
                    let limit = if quiet_ended { quiet } else { cap };
                    return Err(TransferError::TimedOut {
                        operation: name,
                        url: self.url.clone(),
                        quiet: quiet_ended,
                        seconds: limit.as_secs(),
                    });
                }
            };
            let Some(line) = line else {
                return Err(failed(std::io::Error::other("it ended without an answer")));
            };
            match serde_json::from_str(&line).map_err(|error| failed(error.into()))? {
                Reply::Ready => {
                    // Only now is the child unreadable for the agent's processes.
                    let Some(request) = request.take() else { continue };
                    let text = serde_json::to_vec(&request).map_err(|error| failed(error.into()))?;
                    running.send(text).await.map_err(failed)?;
                }
                Reply::Progress(now) => {
                    if now.bytes >= last.bytes + MIN_PROGRESS_BYTES
                        || now.objects > last.objects
                        || now.steps > last.steps
                    {
                        deadline = Instant::now() + *quiet;
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

    fn unexpected(&self, operation: &'static str) -> TransferError {
        let source = std::io::Error::other("it answered another question");
        TransferError::Child { operation, url: self.url.clone(), source }
    }
}

/// A child with everything it starts; none of it outlives this value.
struct TransferProcess {
    /// Killed with its group when it is dropped.
    _child: Child,
    input: Option<tokio::process::ChildStdin>,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl TransferProcess {
    fn start(program: &Path) -> std::io::Result<Self> {
        let mut command = command(program, &Environment::new(), ProcessGroup::New);
        command.arg(SUBCOMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = spawn(command).map_err(|error| error.source)?;
        let missing = || std::io::Error::other("a pipe is missing");
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
