//! The child: performs one operation and ends.

use std::cell::RefCell;
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use git2::{AutotagOption, Direction, FetchOptions, Oid, PushOptions, Remote, RemoteCallbacks, Repository};
use orchestrator_contract::Reason;
use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal};
use secrecy::SecretString;

use super::message::{Fetched, Operation, Progress, PushOutcome, RemoteRef, RemoteRefs, Reply, Request};
use crate::git::control::open_bare;
use crate::git::error::reason_of_library;
use crate::git::transport::{self, Context, TransportFailure};

/// How often progress is reported.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// The ref that carries what is pushed: libgit2 pushes refs only.
const PUSH_REF: &str = "refs/orchestrator/push";

/// The child's whole life: the entry point of the hidden subcommand.
#[must_use]
pub fn transfer_main() -> ExitCode {
    // First of all: exec made this process readable for everybody with our uid.
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
    let reply = perform(request)
        .unwrap_or_else(|failure| Reply::Failed { reason: failure.reason, message: failure.message });
    let failed = matches!(reply, Reply::Failed { .. });
    send_reply(&reply);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn send_reply(reply: &Reply) {
    if let Ok(mut line) = serde_json::to_vec(reply) {
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        // Nobody reads any more: the operation ends with the parent.
        drop(out.write_all(&line).and_then(|()| out.flush()));
    }
}

fn perform(request: Request) -> Result<Reply, TransportFailure> {
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
        ca_file,
        connect_seconds,
        read_seconds,
    } = request;
    crate::git::init()
        .map_err(|error| TransportFailure { reason: error.reason(), message: error.to_string() })?;
    // The address as libgit2 takes it; the SSH transport reads the literal one.
    let address = if url.contains("://") || url.starts_with('/') {
        url.clone()
    } else {
        format!("ssh://{}", url.replacen(':', "/", 1))
    };
    transport::set_context(Context {
        url,
        token: token.map(SecretString::from),
        username,
        ssh_key,
        known_hosts,
        ssh_program,
        proxy,
        no_proxy,
        ca_file,
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
    let known = reason_of_library(error);
    let gone = error.code() == git2::ErrorCode::NotFound || (local && !Path::new(address).exists());
    let reason = if known != Reason::IoError {
        known
    } else if gone {
        Reason::RepositoryNotFound
    } else if text.contains("early EOF") || text.contains("hung up") {
        Reason::NetworkUnavailable
    } else if !local && error.class() == git2::ErrorClass::Net {
        Reason::RemoteUnavailable
    } else {
        known
    };
    TransportFailure { reason, message: text.to_owned() }
}

/// Reports progress, but not more often than is useful.
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

/// Reports what moves while libgit2 waits inside one call, such as a long upload.
fn report_bytes() {
    let started = std::thread::Builder::new().name("progress".into()).spawn(|| {
        let mut told = 0;
        loop {
            std::thread::park_timeout(PROGRESS_INTERVAL * 4);
            let bytes = transport::bytes_moved();
            if bytes > told {
                told = bytes;
                send_reply(&Reply::Progress(Progress { bytes, ..Progress::default() }));
            }
        }
    });
    // Without it a long upload may look silent; nothing else is lost.
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
        return Err(git2::Error::from_str("the repository cannot be written"));
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
    // libgit2's transport for paths knows no shallow fetch.
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

    let seen: RefCell<Option<Option<Oid>>> = RefCell::new(None);
    let refused: RefCell<Option<String>> = RefCell::new(None);
    let said: RefCell<Vec<u8>> = RefCell::new(Vec::new());
    let meter = ProgressReporter::new();
    let mut callbacks = RemoteCallbacks::new();
    callbacks.push_negotiation(|updates| {
        let current = updates.first().map(git2::PushUpdate::src).filter(|oid| !oid.is_zero());
        *seen.borrow_mut() = Some(current);
        if current == expected { Ok(()) } else { Err(git2::Error::from_str("the branch has moved")) }
    });
    callbacks.push_update_reference(|_, status| {
        if let Some(status) = status {
            *refused.borrow_mut() = Some(status.to_owned());
        }
        Ok(())
    });
    callbacks.sideband_progress(|text| {
        let mut said = said.borrow_mut();
        if said.len() < 16 * 1024 {
            said.extend_from_slice(text);
        }
        meter.update(|progress| progress.steps += 1);
        true
    });
    callbacks.pack_progress(|_, done, _| meter.update(|progress| progress.steps = done as u64));
    callbacks.push_transfer_progress(|done, total, bytes| {
        meter.update(|progress| {
            progress.objects = done as u64;
            progress.total = total as u64;
            progress.bytes = bytes as u64;
        });
    });
    let mut options = PushOptions::new();
    options.remote_callbacks(callbacks);
    // Without a plus: the receiving side refuses what is no fast-forward, too.
    let pushed = remote.push(&[format!("{PUSH_REF}:{reference}")], Some(&mut options));
    drop(options);
    drop(remote);
    if let Ok(mut carrier) = repository.find_reference(PUSH_REF) {
        drop(carrier.delete());
    }

    if let Some(current) = *seen.borrow() {
        if current == Some(oid) {
            return Ok(PushOutcome::UpToDate);
        }
        if current != expected {
            return Ok(PushOutcome::NonFastForward { remote_oid: current });
        }
    }
    let text = String::from_utf8_lossy(&said.borrow()).trim().to_owned();
    if let Some(status) = refused.into_inner() {
        let message = if text.is_empty() { status } else { format!("{status}: {text}") };
        return Ok(PushOutcome::Rejected { message });
    }
    // Only what the remote shows counts: an answer can be lost after the push was applied.
    let failed = pushed.err();
    let shown = list_branch(address, reference);
    match (shown, failed) {
        (Ok(Some(shown)), _) if shown == oid => {
            // Without negotiation there was nothing to push.
            Ok(if seen.borrow().is_some() { PushOutcome::Pushed } else { PushOutcome::UpToDate })
        }
        (Ok(shown), _) if shown != expected => Ok(PushOutcome::NonFastForward { remote_oid: shown }),
        (Ok(_), Some(error)) if error.code() == git2::ErrorCode::NotFastForward => {
            Ok(PushOutcome::Rejected { message: error.message().to_owned() })
        }
        (_, Some(error)) | (Err(error), None) => Err(error),
        (Ok(_), None) => Ok(PushOutcome::Rejected {
            message: if text.is_empty() {
                "the remote took the push but does not show it".into()
            } else {
                text
            },
        }),
    }
}

fn list_branch(address: &str, reference: &str) -> Result<Option<Oid>, git2::Error> {
    let mut remote = Remote::create_detached(address)?;
    remote.connect_auth(Direction::Fetch, None, None)?;
    let refs = refs_of(&remote)?.refs;
    Ok(refs.into_iter().find(|known| known.name == reference).map(|known| known.oid))
}
