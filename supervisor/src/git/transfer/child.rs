//! The transfer process: runs one operation and exits.

use std::cell::RefCell;
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use git2::{AutotagOption, Direction, FetchOptions, Oid, PushOptions, Remote, RemoteCallbacks, Repository};
use orchestrator_contract::Reason;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior, set_parent_process_death_signal,
    setrlimit,
};
use secrecy::SecretString;

use super::message::{Fetched, Operation, Progress, PushOutcome, RemoteRef, RemoteRefs, Reply, Request};
use crate::git::control::open_bare;
use crate::git::error::reason_of_library;
use crate::git::transport::{self, Context, TransportFailure};

/// Maximum memory of a transfer for data. A pack says how large its objects are, and may lie.
const MAX_DATA_BYTES: u64 = 2 << 30;

/// Minimum interval between progress reports.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Temporary ref of the commit to push: libgit2 pushes refs only.
const PUSH_REF: &str = "refs/orchestrator/push";

/// Maximum bytes of server messages to keep.
const MAX_SERVER_TEXT_BYTES: usize = 16 * 1024;

/// Entry point of the hidden subcommand.
#[must_use]
pub fn transfer_main() -> ExitCode {
    // First of all: after exec, processes with the same uid can read this one.
    if set_dumpable_behavior(DumpableBehavior::NotDumpable).is_err()
        || set_parent_process_death_signal(Some(Signal::KILL)).is_err()
    {
        return ExitCode::FAILURE;
    }
    send_reply(&Reply::Ready);
    let mut line = String::new();
    let request =
        std::io::stdin().lock().read_line(&mut line).ok().and_then(|_| serde_json::from_str(&line).ok());
    drop(line);
    let Some(request) = request else { return ExitCode::FAILURE };
    let reply = run(request)
        .unwrap_or_else(|failure| Reply::Failed { reason: failure.reason, message: failure.message });
    let failed = matches!(reply, Reply::Failed { .. });
    send_reply(&reply);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn send_reply(reply: &Reply) {
    if let Ok(mut line) = serde_json::to_vec(reply) {
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        // If the parent has exited, this process is killed with it.
        drop(out.write_all(&line).and_then(|()| out.flush()));
    }
}

fn run(request: Request) -> Result<Reply, TransportFailure> {
    let Request {
        operation,
        url,
        token,
        username,
        ssh_key,
        known_hosts,
        ssh_program,
        proxy,
        no_proxy,
        certificates,
        connect_seconds,
        read_seconds,
    } = request;
    crate::git::init::init()
        .map_err(|error| TransportFailure { reason: error.reason(), message: error.to_string() })?;
    // libgit2 needs a URL; the SSH transport reads the literal address from the context.
    let address = if url.contains("://") || url.starts_with('/') {
        url.clone()
    } else {
        format!("ssh://{}", url.replacen(':', "/", 1))
    };
    // The program of the SSH transport needs what the filter denies.
    if !address.starts_with("ssh://") {
        crate::sandbox::confine_transfer();
    }
    let data = Rlimit { current: Some(MAX_DATA_BYTES), maximum: Some(MAX_DATA_BYTES) };
    // Fails only if the limit is lower already.
    let _ = setrlimit(Resource::Data, data);
    transport::set_context(Context {
        url,
        token: token.map(SecretString::from),
        username,
        ssh_key,
        known_hosts,
        ssh_program,
        proxy,
        no_proxy,
        certificates,
        connect_timeout: Duration::from_secs_f64(connect_seconds),
        read_timeout: Duration::from_secs_f64(read_seconds),
    });
    let result = match operation {
        Operation::List => list(&address, Direction::Fetch).map(Reply::Listed),
        Operation::CheckPush => list(&address, Direction::Push).map(Reply::Listed),
        Operation::Fetch { repository, refspecs, depth } => {
            fetch(&repository, &address, &refspecs, depth).map(Reply::Fetched)
        }
        Operation::Push { repository, reference, oid, expected } => {
            push(&repository, &address, &reference, &oid, expected.as_deref()).map(Reply::Pushed)
        }
    };
    result.map_err(|error| transport::take_failure().unwrap_or_else(|| to_failure(&error, &address)))
}

fn to_failure(error: &git2::Error, address: &str) -> TransportFailure {
    let text = error.message();
    let local = address.starts_with('/');
    let local_reason = reason_of_library(error);
    let is_missing = error.code() == git2::ErrorCode::NotFound || (local && !Path::new(address).exists());
    let reason = if local_reason != Reason::IoError {
        local_reason
    } else if is_missing {
        Reason::RepositoryNotFound
    } else if text.contains("early EOF") || text.contains("hung up") {
        Reason::NetworkUnavailable
    } else if !local && error.class() == git2::ErrorClass::Net {
        Reason::RemoteUnavailable
    } else {
        local_reason
    };
    TransportFailure { reason, message: text.to_owned() }
}

/// Reports progress at most once per [`PROGRESS_INTERVAL`].
struct ProgressReporter {
    last: RefCell<(Option<Instant>, Progress)>,
}

impl ProgressReporter {
    fn new() -> Self {
        Self { last: RefCell::new((None, Progress::default())) }
    }

    fn update(&self, change: impl FnOnce(&mut Progress)) {
        let mut last = self.last.borrow_mut();
        change(&mut last.1);
        let now = Instant::now();
        if last.0.is_none_or(|then| now.duration_since(then) >= PROGRESS_INTERVAL) {
            last.0 = Some(now);
            last.1.bytes = last.1.bytes.max(transport::bytes_moved());
            send_reply(&Reply::Progress(last.1.clone()));
        }
    }
}

/// Reports the bytes moved while libgit2 blocks in one call, such as a long upload.
fn report_bytes() {
    let started = std::thread::Builder::new().name("progress".into()).spawn(|| {
        let mut reported = 0;
        loop {
            std::thread::park_timeout(PROGRESS_INTERVAL * 4);
            let bytes = transport::bytes_moved();
            if bytes > reported {
                reported = bytes;
                send_reply(&Reply::Progress(Progress { bytes, ..Progress::default() }));
            }
        }
    });
    // Without the thread a long upload looks idle; the operation still works.
    drop(started);
}

fn list(address: &str, direction: Direction) -> Result<RemoteRefs, git2::Error> {
    report_bytes();
    let mut remote = Remote::create_detached(address)?;
    remote.connect_auth(direction, None, None)?;
    if direction == Direction::Push
        && address.starts_with('/')
        && rustix::fs::access(format!("{address}/objects"), rustix::fs::Access::WRITE_OK).is_err()
        && rustix::fs::access(format!("{address}/.git/objects"), rustix::fs::Access::WRITE_OK).is_err()
    {
        return Err(git2::Error::from_str("the repository is not writable"));
    }
    refs_of(&remote)
}

fn refs_of(remote: &Remote<'_>) -> Result<RemoteRefs, git2::Error> {
    let mut found = RemoteRefs::default();
    for head in remote.list()? {
        if head.name() == "HEAD" {
            found.default_branch = head.symref_target().map(str::to_owned);
        }
        if !head.name().ends_with("^{}") {
            found.refs.push(RemoteRef { name: head.name().to_owned(), oid: head.oid() });
        }
    }
    Ok(found)
}

fn open_repository(repository: &Path) -> Result<Repository, git2::Error> {
    open_bare(repository).map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        git2::Error::from_str(&format!("{error}: {source}"))
    })
}

fn fetch(
    repository: &Path,
    address: &str,
    refspecs: &[String],
    depth: Option<u32>,
) -> Result<Fetched, git2::Error> {
    report_bytes();
    let repository = open_repository(repository)?;
    let mut remote = repository.remote_anonymous(address)?;
    let meter = ProgressReporter::new();
    let mut callbacks = RemoteCallbacks::new();
    callbacks.transfer_progress(|stats| {
        meter.update(|progress| {
            progress.bytes = stats.received_bytes() as u64;
            progress.objects = stats.received_objects() as u64;
            progress.total = stats.total_objects() as u64;
            progress.steps = (stats.indexed_objects() + stats.indexed_deltas()) as u64;
        });
        true
    });
    callbacks.sideband_progress(|_| {
        meter.update(|progress| progress.steps += 1);
        true
    });
    let mut options = FetchOptions::new();
    options.download_tags(AutotagOption::None).update_fetchhead(false).remote_callbacks(callbacks);
    // libgit2 cannot fetch a local path with a depth.
    if let Some(depth) = depth
        && !address.starts_with('/')
    {
        options.depth(i32::try_from(depth).unwrap_or(i32::MAX));
    }
    remote.fetch(refspecs, Some(&mut options), Some("fetch"))?;
    let (bytes, objects) = {
        let stats = remote.stats();
        (stats.received_bytes() as u64, stats.received_objects() as u64)
    };
    Ok(Fetched { bytes, objects, refs: refs_of(&remote).unwrap_or_default().refs })
}

fn push(
    repository: &Path,
    address: &str,
    reference: &str,
    oid: &str,
    expected: Option<&str>,
) -> Result<PushOutcome, git2::Error> {
    report_bytes();
    let oid = Oid::from_str(oid)?;
    let expected = expected.map(Oid::from_str).transpose()?;
    let repository = open_repository(repository)?;
    repository.reference(PUSH_REF, oid, true, "push")?;
    let mut remote = repository.remote_anonymous(address)?;

    let observed = PushObservations::new();
    let mut options = PushOptions::new();
    options.remote_callbacks(observed.callbacks(expected));
    // Without a plus, so that the remote rejects a non-fast-forward too.
    let pushed = remote.push(&[format!("{PUSH_REF}:{reference}")], Some(&mut options));
    drop(options);
    drop(remote);
    if let Ok(mut carrier) = repository.find_reference(PUSH_REF) {
        drop(carrier.delete());
    }
    observed.outcome(pushed.err(), oid, expected, || list_branch(address, reference))
}

/// What libgit2's callbacks reported during a push.
struct PushObservations {
    /// Commit of the remote branch, once it is negotiated.
    current: RefCell<Option<Option<Oid>>>,
    rejection: RefCell<Option<String>>,
    server_text: RefCell<Vec<u8>>,
    meter: ProgressReporter,
}

impl PushObservations {
    fn new() -> Self {
        Self {
            current: RefCell::new(None),
            rejection: RefCell::new(None),
            server_text: RefCell::new(Vec::new()),
            meter: ProgressReporter::new(),
        }
    }

    /// Returns callbacks that record here, and end the push if the branch is not at `expected`.
    fn callbacks(&self, expected: Option<Oid>) -> RemoteCallbacks<'_> {
        let mut callbacks = RemoteCallbacks::new();
        callbacks.push_negotiation(move |updates| {
            let current = updates.first().map(git2::PushUpdate::src).filter(|oid| !oid.is_zero());
            *self.current.borrow_mut() = Some(current);
            if current == expected { Ok(()) } else { Err(git2::Error::from_str("the branch has moved")) }
        });
        callbacks.push_update_reference(|_, status| {
            if let Some(status) = status {
                *self.rejection.borrow_mut() = Some(status.to_owned());
            }
            Ok(())
        });
        callbacks.sideband_progress(|text| {
            let mut server_text = self.server_text.borrow_mut();
            if server_text.len() < MAX_SERVER_TEXT_BYTES {
                server_text.extend_from_slice(text);
            }
            self.meter.update(|progress| progress.steps += 1);
            true
        });
        callbacks.pack_progress(|_, done, _| self.meter.update(|progress| progress.steps = done as u64));
        callbacks.push_transfer_progress(|done, total, bytes| {
            self.meter.update(|progress| {
                progress.objects = done as u64;
                progress.total = total as u64;
                progress.bytes = bytes as u64;
            });
        });
        callbacks
    }

    /// Decides the outcome of a push that ended with `error`, if any.
    fn outcome(
        self,
        error: Option<git2::Error>,
        oid: Oid,
        expected: Option<Oid>,
        list_branch: impl FnOnce() -> Result<Option<Oid>, git2::Error>,
    ) -> Result<PushOutcome, git2::Error> {
        let negotiated = self.current.into_inner();
        if let Some(current) = negotiated {
            if current == Some(oid) {
                return Ok(PushOutcome::UpToDate);
            }
            if current != expected {
                return Ok(PushOutcome::NonFastForward { remote_oid: current });
            }
        }
        let text = String::from_utf8_lossy(&self.server_text.into_inner()).trim().to_owned();
        if let Some(status) = self.rejection.into_inner() {
            let message = if text.is_empty() { status } else { format!("{status}: {text}") };
            return Ok(PushOutcome::Rejected { message });
        }
        // Ask the remote: a response can be lost after the push was applied.
        match (list_branch(), error) {
            (Ok(Some(shown)), _) if shown == oid => {
                // libgit2 skips the negotiation if there is nothing to push.
                Ok(if negotiated.is_some() { PushOutcome::Pushed } else { PushOutcome::UpToDate })
            }
            (Ok(shown), _) if shown != expected => Ok(PushOutcome::NonFastForward { remote_oid: shown }),
            (Ok(_), Some(error)) if error.code() == git2::ErrorCode::NotFastForward => {
                Ok(PushOutcome::Rejected { message: error.message().to_owned() })
            }
            (_, Some(error)) | (Err(error), None) => Err(error),
            (Ok(_), None) => Ok(PushOutcome::Rejected {
                message: if text.is_empty() {
                    "the remote accepted the push but did not update the branch".into()
                } else {
                    text
                },
            }),
        }
    }
}

fn list_branch(address: &str, reference: &str) -> Result<Option<Oid>, git2::Error> {
    let mut remote = Remote::create_detached(address)?;
    remote.connect_auth(Direction::Fetch, None, None)?;
    let refs = refs_of(&remote)?.refs;
    Ok(refs.into_iter().find(|known| known.name == reference).map(|known| known.oid))
}
