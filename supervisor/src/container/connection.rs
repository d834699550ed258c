//! Connection to the guest of a container: requests, and what it reports.
//!
//! One thread reads and only stores. It believes nothing: an answer without a request, or an exit of a
//! program that does not run, ends the connection.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::message::{EndedProgram, Exited, Facts, bounded_text, kind};
use crate::guest::wire::{CONTROL_MAX, Frame, read_frame, write_frame};
use crate::process::Exit;

/// How long the guest may take to read a request.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Locks in spite of a panic in another thread: every change is a single call.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answer to a request; the error is a text of the guest.
pub(super) type Answer = Result<Vec<u8>, String>;

/// Connection to a guest.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) facts: Facts,
    control: Mutex<UnixStream>,
    /// The same socket, to end it while a thread writes.
    socket: UnixStream,
    next: AtomicU32,
    open: Mutex<Open>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Open {
    waiting: HashSet<u32>,
    answers: HashMap<u32, Answer>,
    programs: HashMap<u32, watch::Sender<Option<EndedProgram>>>,
    failed: Option<String>,
}

impl Connection {
    pub(super) fn new(socket: UnixStream, facts: Facts) -> io::Result<Self> {
        socket.set_read_timeout(None)?;
        socket.set_write_timeout(Some(WRITE_LIMIT))?;
        Ok(Self {
            facts,
            control: Mutex::new(socket.try_clone()?),
            socket,
            next: AtomicU32::new(1),
            open: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Reads what the guest sends until the connection ends.
    pub(super) fn read(&self) {
        let why = match self.socket.try_clone() {
            Ok(mut socket) => loop {
                match read_frame(&mut socket, CONTROL_MAX) {
                    Ok(Some(frame)) => {
                        if let Err(why) = self.store(frame) {
                            break why.to_owned();
                        }
                    }
                    Ok(None) => break "ended".to_owned(),
                    Err(error) => break format!("broke the connection: {error}"),
                }
            },
            Err(error) => format!("cannot be read: {error}"),
        };
        self.fail(&why);
    }

    /// Ends the connection; the first cause counts.
    pub(super) fn fail(&self, why: &str) -> String {
        let mut open = lock(&self.open);
        let why = open.failed.get_or_insert_with(|| why.to_owned()).clone();
        for (_, program) in open.programs.drain() {
            program.send_replace(Some(EndedProgram::Lost));
        }
        drop(open);
        // Fails only if it is closed already.
        drop(self.socket.shutdown(Shutdown::Both));
        self.changed.notify_all();
        why
    }

    fn store(&self, Frame { id, kind, payload }: Frame) -> Result<(), &'static str> {
        let mut open = lock(&self.open);
        match kind {
            kind::DONE | kind::FAILED => {
                if !open.waiting.remove(&id) {
                    return Err("answered a request that it did not get");
                }
                let answer = if kind == kind::DONE { Ok(payload) } else { Err(bounded_text(&payload)) };
                open.answers.insert(id, answer);
                self.changed.notify_all();
            }
            kind::EXITED => {
                let exited: Exited = serde_json::from_slice(&payload).map_err(|_| "sent a malformed exit")?;
                let exit = match (exited.code, exited.signal) {
                    (Some(code), None) => Exit::Code(code),
                    (None, Some(signal @ 1..=64)) => Exit::Signal(signal),
                    _ => return Err("sent a malformed exit"),
                };
                let program = open.programs.remove(&id).ok_or("reported an exit of an unknown program")?;
                program
                    .send_replace(Some(EndedProgram::Exited { exit, out_of_memory: exited.out_of_memory }));
            }
            _ => return Err("sent an unknown frame"),
        }
        Ok(())
    }

    /// Returns a new id for a request or program.
    pub(super) fn new_id(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Registers a program before the guest is asked to start it.
    pub(super) fn register(&self, id: u32) -> watch::Receiver<Option<EndedProgram>> {
        let (sender, receiver) = watch::channel(None);
        let mut open = lock(&self.open);
        if open.failed.is_some() {
            sender.send_replace(Some(EndedProgram::Lost));
        } else {
            open.programs.insert(id, sender);
        }
        receiver
    }

    /// Forgets a program that could not be started.
    pub(super) fn unregister(&self, id: u32) {
        lock(&self.open).programs.remove(&id);
    }

    /// Sends a frame; the error says what the guest did.
    pub(super) fn send(&self, id: u32, kind: u8, payload: &[u8]) -> Result<(), String> {
        if payload.len() > CONTROL_MAX {
            return Err("does not take a request of this size".to_owned());
        }
        let socket = lock(&self.control);
        let mut out = Limited { socket: &socket, deadline: Instant::now() + WRITE_LIMIT };
        let sent = write_frame(&mut out, id, kind, payload);
        drop(socket);
        sent.map_err(|error| self.fail(&format!("takes no requests: {error}")))
    }

    /// Sends a request and waits for its answer; the error says what the guest did.
    pub(super) fn request(
        &self,
        id: u32,
        kind: u8,
        payload: &[u8],
        limit: Duration,
    ) -> Result<Answer, String> {
        lock(&self.open).waiting.insert(id);
        if let Err(why) = self.send(id, kind, payload) {
            lock(&self.open).waiting.remove(&id);
            return Err(why);
        }
        let deadline = Instant::now() + limit;
        let mut open = lock(&self.open);
        loop {
            if let Some(answer) = open.answers.remove(&id) {
                return Ok(answer);
            }
            if let Some(why) = &open.failed {
                return Err(why.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(open);
                return Err(self.fail(&format!("did not answer within {} seconds", limit.as_secs())));
            }
            (open, _) = self.changed.wait_timeout(open, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Writes to a socket until a deadline, however slowly the other side reads.
struct Limited<'s> {
    socket: &'s UnixStream,
    deadline: Instant,
}

impl Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if Instant::now() > self.deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Write::write(&mut self.socket, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
