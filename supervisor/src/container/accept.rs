//! Takes connections to the socket of a container and finds out what they are.
//!
//! Untrusted programs can connect too. A connection has to identify itself soon: as the guest, of which
//! there is one at a time, or as a stream that the supervisor asked for. If too many connections wait,
//! the oldest is dropped, since a wanted one identifies itself immediately.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::connection::{Connection, lock};
use super::message::{FIRST_MAX, Facts, Hello, Token, kind};
use crate::guest::BUILD_ID;
use crate::guest::wire::{Frame, read_frame, write_frame};

/// How long a connection may take to identify itself.
const IDENTIFY_LIMIT: Duration = Duration::from_secs(10);

/// Connections that have not identified themselves, at most.
const MAX_UNIDENTIFIED: usize = 64;

/// How long to wait if the system has no resources for a connection.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// What the threads of a host have in common.
#[derive(Debug, Default)]
pub(super) struct Lobby {
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// The guest, while it is connected.
    pub(super) connection: Option<Arc<Connection>>,
    /// Guests so far.
    pub(super) guests: u32,
    /// Whether the first one was of another build.
    pub(super) other_build: bool,
    /// When the last guest was lost.
    pub(super) lost: Option<Instant>,
    /// Streams that the guest was asked for; the connection once it is there.
    pub(super) streams: HashMap<Token, Option<UnixStream>>,
    unidentified: VecDeque<(u64, UnixStream)>,
    accepted: u64,
    closed: bool,
}

impl Lobby {
    /// Ends all connections.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        for (_, socket) in state.unidentified.drain(..) {
            drop(socket.shutdown(Shutdown::Both));
        }
        let connection = state.connection.clone();
        drop(state);
        if let Some(connection) = connection {
            connection.fail("is not needed any longer");
        }
        self.changed.notify_all();
    }

    /// Accepts connections until the lobby is closed, then waits for the threads.
    pub(super) fn accept(self: &Arc<Self>, listener: &UnixListener) {
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        loop {
            let accepted = listener.accept();
            if lock(&self.state).closed {
                break;
            }
            threads.retain(|thread| !thread.is_finished());
            let Ok((socket, _)) = accepted else {
                std::thread::park_timeout(RETRY_INTERVAL);
                continue;
            };
            let Ok(number) = self.admit(&socket) else { continue };
            let lobby = Arc::clone(self);
            let thread = std::thread::Builder::new().name("container".into());
            match thread.spawn(move || lobby.identify(number, socket)) {
                Ok(thread) => threads.push(thread),
                Err(_) => self.identified(number),
            }
        }
        for thread in threads {
            // It does not panic.
            drop(thread.join());
        }
    }

    fn admit(&self, socket: &UnixStream) -> io::Result<u64> {
        let other = socket.try_clone()?;
        let mut state = lock(&self.state);
        if state.unidentified.len() >= MAX_UNIDENTIFIED
            && let Some((_, oldest)) = state.unidentified.pop_front()
        {
            drop(oldest.shutdown(Shutdown::Both));
        }
        state.accepted += 1;
        let number = state.accepted;
        state.unidentified.push_back((number, other));
        Ok(number)
    }

    fn identified(&self, number: u64) {
        lock(&self.state).unidentified.retain(|(other, _)| *other != number);
    }

    fn identify(self: Arc<Self>, number: u64, socket: UnixStream) {
        let deadline = Instant::now() + IDENTIFY_LIMIT;
        let frame = read_frame(&mut Timed { socket: &socket, deadline }, FIRST_MAX);
        self.identified(number);
        // The other side may not read.
        let limited = socket.set_write_timeout(Some(IDENTIFY_LIMIT));
        let (Ok(Some(Frame { kind, payload, .. })), Ok(())) = (frame, limited) else { return };
        match kind {
            kind::STREAM => self.take_stream(&payload, socket),
            kind::HELLO => self.take_guest(&payload, socket),
            _ => {}
        }
    }

    fn take_stream(&self, token: &[u8], mut socket: UnixStream) {
        let Ok(token) = Token::try_from(token) else { return };
        let mut state = lock(&self.state);
        let Some(wanted @ None) = state.streams.get_mut(&token) else { return };
        let ready = socket.set_read_timeout(None).and_then(|()| socket.set_write_timeout(None));
        // The buffer of a new socket takes the answer.
        if ready.is_ok() && write_frame(&mut socket, 0, kind::ACCEPTED, &[]).is_ok() {
            *wanted = Some(socket);
        }
    }

    fn take_guest(&self, hello: &[u8], mut socket: UnixStream) {
        let Ok(hello) = serde_json::from_slice::<Hello>(hello) else { return };
        if hello.build != BUILD_ID {
            let mut state = lock(&self.state);
            // A program in the container could connect later and fail the run.
            state.other_build = state.guests == 0;
            drop(state);
            self.changed.notify_all();
            drop(write_frame(&mut socket, 0, kind::OTHER_BUILD, BUILD_ID.as_bytes()));
            return;
        }
        let Some(facts) = serde_json::from_value(hello.facts).ok().filter(Facts::are_valid) else { return };
        let Some(connection) = self.connect(socket, facts) else { return };
        connection.read();
        let mut state = lock(&self.state);
        state.connection = None;
        state.lost = Some(Instant::now());
        for (_, stream) in state.streams.drain() {
            drop(stream);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Makes this the guest's connection, unless there is one.
    fn connect(&self, mut socket: UnixStream, facts: Facts) -> Option<Arc<Connection>> {
        let mut state = lock(&self.state);
        if state.closed {
            return None;
        }
        if state.connection.is_some() {
            drop(state);
            drop(write_frame(&mut socket, 0, kind::BUSY, &[]));
            return None;
        }
        write_frame(&mut socket, 0, kind::ACCEPTED, &[]).ok()?;
        let connection = Arc::new(Connection::new(socket, facts).ok()?);
        state.connection = Some(Arc::clone(&connection));
        state.guests += 1;
        state.other_build = false;
        drop(state);
        self.changed.notify_all();
        Some(connection)
    }
}

/// Reads from a socket until a deadline, however slowly the other side writes.
struct Timed<'s> {
    socket: &'s UnixStream,
    deadline: Instant,
}

impl Read for Timed<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.socket.set_read_timeout(Some(left))?;
        Read::read(&mut self.socket, bytes)
    }
}
