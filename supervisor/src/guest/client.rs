//! The supervisor's side of a guest.
//!
//! Two threads read the sockets and only store what they read, within the credit of each stream;
//! the threads that ask wait for it. Time counts only while the guest owes an answer.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use orchestrator_contract::Reason;
use orchestrator_contract::containers::ContainerRole;

use super::message::{BUILD_ID, SUBCOMMAND, error_of, kind};
use super::received::{End, Expected, Pending, Shared, lock};
use super::server::WITHOUT_OPENAT2;
use super::wire::{BULK_MAX, CONTROL_MAX, CREDIT, Decoder, Encode as _, write_frame};
use crate::process::{
    BlockingChild, Environment, ProcessGroup, SpawnError, blocking_command, spawn_blocking,
};

/// How long a guest may owe its answers, all together.
const TOTAL_PATIENCE: Duration = Duration::from_secs(1800);

/// Bytes for which a guest gets one more second.
const BYTES_PER_SECOND: u64 = 1 << 20;

/// Reason of a run that loses a container. Most often its memory ended; a retry saves the work first.
pub const LOST_CONTAINER: Reason = Reason::AgentOutOfMemory;

/// Limits and place of a guest.
#[derive(Clone, Copy, Debug)]
pub struct GuestOptions {
    /// How long the guest may take to answer a request, and one second more for each MiB of data.
    pub patience: Duration,
    /// Whether the guest opens files component by component, as on a kernel without `openat2`.
    pub without_openat2: bool,
    /// The container that the guest works in, if it is in one.
    pub container: Option<ContainerRole>,
}

impl Default for GuestOptions {
    fn default() -> Self {
        Self { patience: Duration::from_secs(60), without_openat2: false, container: None }
    }
}

/// Failed guest. Every later request fails with the same error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GuestError {
    /// It could not be started.
    #[error("cannot start the guest of `{}`", root.display())]
    Start { root: PathBuf, source: Arc<SpawnError> },
    /// It cannot open its folder.
    #[error("cannot open `{}`", root.display())]
    Root { root: PathBuf, source: Arc<io::Error> },
    /// It died, stalled or broke the protocol.
    #[error("the guest of `{}` {why}", root.display())]
    Broken { root: PathBuf, why: String },
    /// It is in a container, and lost: alone, or with the container.
    #[error("lost the guest of `{}` in the `{}` container: it {why}", root.display(), role.name())]
    Lost { root: PathBuf, role: ContainerRole, why: String },
    /// Its container has none.
    #[error("cannot start the guest of `{}`: {why}", root.display())]
    NoContainer { root: PathBuf, why: String },
}

impl GuestError {
    /// Returns the reason for a run that this error ends.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Start { .. } | Self::Broken { .. } => Reason::InternalError,
            Self::Root { .. } => Reason::IoError,
            Self::Lost { .. } => LOST_CONTAINER,
            Self::NoContainer { .. } => Reason::SandboxUnavailable,
        }
    }

    fn of_failure(root: &Path, options: GuestOptions, why: String) -> Self {
        let root = root.to_owned();
        match options.container {
            Some(role) => Self::Lost { root, role, why },
            None => Self::Broken { root, why },
        }
    }
}

/// Process that does file operations in one folder.
#[derive(Debug)]
pub struct Guest {
    shared: Arc<Shared>,
    root: PathBuf,
    options: GuestOptions,
    next: AtomicU32,
    readers: Vec<JoinHandle<()>>,
    child: Option<BlockingChild>,
}

impl Guest {
    /// Starts `program` as a plain child that works in `root`.
    ///
    /// # Errors
    /// Returns an error if it cannot be started, is another build, or cannot open `root`.
    pub fn start(program: &Path, root: &Path, options: GuestOptions) -> Result<Self, GuestError> {
        let mut command = blocking_command(program, &Environment::new(), ProcessGroup::New);
        command.arg(SUBCOMMAND);
        Self::start_command(command, root, options)
    }

    /// Starts a command whose last program is the guest.
    ///
    /// # Errors
    /// Returns an error if it cannot be started, is another build, or cannot open `root`.
    pub fn start_command(
        mut command: std::process::Command,
        root: &Path,
        options: GuestOptions,
    ) -> Result<Self, GuestError> {
        let failed =
            |source: SpawnError| GuestError::Start { root: root.to_owned(), source: Arc::new(source) };
        let pair = || {
            let pair = UnixStream::pair();
            pair.map_err(|source| failed(SpawnError { program: SUBCOMMAND.to_owned(), source }))
        };
        let ((control, their_control), (bulk, their_bulk)) = (pair()?, pair()?);
        if options.without_openat2 {
            command.arg(WITHOUT_OPENAT2);
        }
        command.stdin(OwnedFd::from(their_control)).stdout(OwnedFd::from(their_bulk)).stderr(Stdio::null());
        let child = spawn_blocking(command).map_err(failed)?;
        Self::connect(control, bulk, Some(child), root, options)
    }

    /// Speaks with a guest on the other end of two sockets.
    ///
    /// # Errors
    /// Returns an error if the guest does not answer, is another build, or cannot open `root`.
    pub fn connect(
        control: UnixStream,
        bulk: UnixStream,
        child: Option<BlockingChild>,
        root: &Path,
        options: GuestOptions,
    ) -> Result<Self, GuestError> {
        let failed =
            |source: io::Error| GuestError::Broken { root: root.to_owned(), why: source.to_string() };
        for socket in [&control, &bulk] {
            socket.set_write_timeout(Some(options.patience)).map_err(failed)?;
        }
        let readers = [
            (control.try_clone().map_err(failed)?, CONTROL_MAX, false),
            (bulk.try_clone().map_err(failed)?, BULK_MAX, true),
        ];
        let shared = Arc::new(Shared {
            control: Mutex::new(control),
            bulk: Mutex::new(bulk),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let mut guest = Self {
            shared: Arc::clone(&shared),
            root: root.to_owned(),
            options,
            next: AtomicU32::new(1),
            readers: Vec::new(),
            child,
        };
        guest.register(0, Expected::Result);
        for (socket, max, from_bulk) in readers {
            let shared = Arc::clone(&shared);
            let reader = std::thread::Builder::new().name("guest".into());
            let reader = reader.spawn(move || shared.read(socket, max, from_bulk)).map_err(failed)?;
            guest.readers.push(reader);
        }
        guest.shake_hands()?;
        Ok(guest)
    }

    fn shake_hands(&self) -> Result<(), GuestError> {
        let End::Done(build) = self.wait_end(0)? else { return Err(self.broken("refused the connection")) };
        if build != BUILD_ID.as_bytes() {
            return Err(self.broken(
                "is another build of the supervisor: its program file was replaced while the run was active",
            ));
        }
        self.register(0, Expected::Result);
        let mut hello = Vec::new();
        hello.put_bytes(BUILD_ID.as_bytes());
        hello.put_bytes(self.root.as_os_str().as_bytes());
        self.send_control(0, kind::HELLO, &hello)?;
        match self.wait_end(0)? {
            End::Done(_) => Ok(()),
            End::Failed(number) => {
                Err(GuestError::Root { root: self.root.clone(), source: Arc::new(error_of(number)) })
            }
        }
    }

    /// Returns the folder that it works in.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the process id of the guest, if it is a child.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(BlockingChild::pid)
    }

    /// Marks the guest as broken; returns the error that all requests get now.
    pub(super) fn broken(&self, why: impl Into<String>) -> GuestError {
        self.shared.fail(why.into());
        for socket in [&self.shared.control, &self.shared.bulk] {
            // Wakes the readers; a socket that is closed already needs no waking.
            if let Ok(socket) = socket.try_lock() {
                drop(socket.shutdown(Shutdown::Both));
            }
        }
        let why = lock(&self.shared.state).failed.clone().unwrap_or_default();
        GuestError::of_failure(&self.root, self.options, why)
    }

    fn register(&self, id: u32, expected: Expected) {
        let allowed = if expected == Expected::Data { CREDIT.into() } else { 0 };
        let pending =
            Pending { expected, allowed, credit: 0, data: VecDeque::new(), end: None, abandoned: false };
        lock(&self.shared.state).requests.insert(id, pending);
    }

    fn send(&self, socket: &Mutex<UnixStream>, id: u32, kind: u8, payload: &[u8]) -> Result<(), GuestError> {
        let mut out =
            Patient { socket: &lock(socket), started: Instant::now(), patience: self.options.patience };
        write_frame(&mut out, id, kind, payload).map_err(|error| {
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
                self.broken("takes no data")
            } else {
                self.broken(format!("broke the connection: {error}"))
            }
        })
    }

    fn send_control(&self, id: u32, kind: u8, payload: &[u8]) -> Result<(), GuestError> {
        self.send(&self.shared.control, id, kind, payload)
    }

    /// Waits until `take` returns something of a request; `patience` is what is left of the wait.
    fn wait<T>(
        &self,
        id: u32,
        patience: &mut Duration,
        mut take: impl FnMut(&mut Pending) -> Option<T>,
    ) -> Result<T, GuestError> {
        let mut state = lock(&self.shared.state);
        loop {
            if let Some(taken) = state.requests.get_mut(&id).and_then(&mut take) {
                return Ok(taken);
            }
            if let Some(why) = &state.failed {
                return Err(GuestError::of_failure(&self.root, self.options, why.clone()));
            }
            if patience.is_zero() || state.waited > TOTAL_PATIENCE {
                drop(state);
                return Err(self.broken(format!("did not answer within {:.0?}", self.options.patience)));
            }
            let started = Instant::now();
            (state, _) =
                self.shared.changed.wait_timeout(state, *patience).unwrap_or_else(PoisonError::into_inner);
            let waited = started.elapsed();
            state.waited += waited;
            *patience = patience.saturating_sub(waited);
        }
    }

    fn wait_end(&self, id: u32) -> Result<End, GuestError> {
        let mut patience = self.options.patience;
        let end = self.wait(id, &mut patience, |request| request.end.take())?;
        lock(&self.shared.state).requests.remove(&id);
        Ok(end)
    }

    fn new_id(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a request that has a single result; the inner error is that of the operation.
    pub(super) fn call(&self, kind: u8, payload: &[u8]) -> Result<io::Result<Vec<u8>>, GuestError> {
        let id = self.new_id();
        self.register(id, Expected::Result);
        self.send_control(id, kind, payload)?;
        Ok(match self.wait_end(id)? {
            End::Done(payload) => Ok(payload),
            End::Failed(number) => Err(error_of(number)),
        })
    }

    /// Sends a request whose result is a stream.
    pub(super) fn stream(&self, kind: u8, payload: &[u8]) -> Result<Incoming<'_>, GuestError> {
        let id = self.new_id();
        self.register(id, Expected::Data);
        let incoming = Incoming {
            guest: self,
            id,
            pending: Vec::new(),
            at: 0,
            patience: self.options.patience,
            received: 0,
            ended: false,
        };
        self.send_control(id, kind, payload)?;
        Ok(incoming)
    }

    /// Sends a request with data; the inner error is that of the operation.
    pub(super) fn send_data<'d>(
        &self,
        kind: u8,
        payload: &[u8],
        data: impl Iterator<Item = &'d [u8]>,
    ) -> Result<io::Result<Vec<u8>>, GuestError> {
        let id = self.new_id();
        self.register(id, Expected::Credit);
        self.send_control(id, kind, payload)?;
        let mut patience = self.options.patience;
        let mut buffer = Vec::new();
        let mut send = |buffer: &mut Vec<u8>| -> Result<bool, GuestError> {
            let mut rest = buffer.as_slice();
            while !rest.is_empty() {
                let wanted = rest.len().min(BULK_MAX);
                let allowed = self.wait(id, &mut patience, |request| {
                    if request.end.is_some() {
                        return Some(0);
                    }
                    let allowed = wanted.min(usize::try_from(request.credit).unwrap_or(usize::MAX));
                    request.credit -= allowed as u64;
                    (allowed > 0).then_some(allowed)
                })?;
                if allowed == 0 {
                    return Ok(false);
                }
                self.send(&self.shared.bulk, id, kind::DATA, &rest[..allowed])?;
                patience += Duration::from_secs(allowed as u64 / BYTES_PER_SECOND);
                rest = &rest[allowed..];
            }
            buffer.clear();
            Ok(true)
        };
        for part in data {
            buffer.extend_from_slice(part);
            if buffer.len() >= BULK_MAX && !send(&mut buffer)? {
                break;
            }
        }
        _ = send(&mut buffer)?;
        Ok(match self.wait_end(id)? {
            End::Done(payload) => Ok(payload),
            End::Failed(number) => Err(error_of(number)),
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let error = self.broken("is closed");
        drop(error);
        // Kills and reaps it, so that it holds no socket open.
        drop(self.child.take());
        for socket in [&self.shared.control, &self.shared.bulk] {
            drop(lock(socket).shutdown(Shutdown::Both));
        }
        for reader in self.readers.drain(..) {
            drop(reader.join());
        }
    }
}

/// Writes to a socket for a limited time, however slowly the other side reads.
struct Patient<'s> {
    socket: &'s UnixStream,
    started: Instant,
    patience: Duration,
}

impl io::Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.started.elapsed() > self.patience {
            return Err(io::ErrorKind::TimedOut.into());
        }
        io::Write::write(&mut self.socket, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Data of a request, from the guest.
pub(super) struct Incoming<'g> {
    guest: &'g Guest,
    id: u32,
    pending: Vec<u8>,
    at: usize,
    patience: Duration,
    received: u64,
    ended: bool,
}

impl Incoming<'_> {
    /// Receives more data; the guest may send as much again. Returns false at the end.
    fn receive(&mut self) -> Result<bool, GuestError> {
        enum Received {
            Data(Vec<u8>),
            End(End),
        }
        if self.ended {
            return Ok(false);
        }
        let received = self.guest.wait(self.id, &mut self.patience, |request| {
            let data = request.data.pop_front().map(Received::Data);
            data.or_else(|| request.end.take().map(Received::End))
        })?;
        let data = match received {
            Received::Data(data) => data,
            Received::End(end) => {
                self.ended = true;
                lock(&self.guest.shared.state).requests.remove(&self.id);
                return match end {
                    End::Done(_) => Ok(false),
                    End::Failed(_) => Err(self.guest.broken("gave up a request")),
                };
            }
        };
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        if let Some(request) = lock(&self.guest.shared.state).requests.get_mut(&self.id) {
            request.allowed += u64::from(length);
        }
        self.guest.send_control(self.id, kind::CREDIT, &length.to_le_bytes())?;
        let seconds = |bytes: u64| bytes / BYTES_PER_SECOND;
        let before = seconds(self.received);
        self.received += u64::from(length);
        self.patience += Duration::from_secs(seconds(self.received) - before);
        self.pending.drain(..self.at);
        self.at = 0;
        self.pending.extend_from_slice(&data);
        Ok(true)
    }

    /// Takes exactly `length` bytes, which the caller has bounded.
    pub(super) fn take(&mut self, length: usize) -> Result<&[u8], GuestError> {
        while self.pending.len() - self.at < length {
            if !self.receive()? {
                return Err(self.malformed());
            }
        }
        let start = self.at;
        self.at += length;
        Ok(&self.pending[start..self.at])
    }

    pub(super) fn u8(&mut self) -> Result<u8, GuestError> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32, GuestError> {
        let bytes = self.take(4)?;
        Ok(Decoder::new(bytes).u32().unwrap_or_default())
    }

    /// Returns the length of what follows; the guest is broken if it is more than `max`.
    pub(super) fn length(&mut self, max: usize) -> Result<usize, GuestError> {
        let length = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if length > max { Err(self.malformed()) } else { Ok(length) }
    }

    pub(super) fn malformed(&self) -> GuestError {
        self.guest.broken("sent a malformed result")
    }

    /// Checks that nothing follows.
    pub(super) fn finish(&mut self) -> Result<(), GuestError> {
        if self.pending.len() > self.at || self.receive()? { Err(self.malformed()) } else { Ok(()) }
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut state = lock(&self.guest.shared.state);
        let Some(request) = state.requests.get_mut(&self.id) else { return };
        if request.end.is_some() {
            state.requests.remove(&self.id);
            return;
        }
        request.abandoned = true;
        request.data.clear();
        drop(state);
        // A broken guest needs no cancellation.
        drop(self.guest.send_control(self.id, kind::CANCEL, &[]));
    }
}
