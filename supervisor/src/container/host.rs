//! The supervisor's side of one container's guest.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use orchestrator_contract::containers::{ContainerRole, SOCKET};

use super::accept::Lobby;
use super::connection::{Connection, lock};
use super::error::ContainerError;
use super::message::{Facts, Start, StartFiles, Token, encode, kind};
use super::program::RunningProgram;
use crate::guest::{Guest, GuestError, GuestOptions};
use crate::process::Environment;

/// How long the first guest may take to connect, from the start of the host.
const FIRST_GUEST: Duration = Duration::from_secs(120);

/// How long another guest may take after the last one was lost.
const NEXT_GUEST: Duration = Duration::from_secs(60);

/// How long a guest may take for a request.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// Program to start in a container. Its standard output and error are always streams.
#[derive(Clone, Debug)]
pub struct ContainerProgram {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    /// The complete environment.
    pub environment: Environment,
    pub directory: PathBuf,
    /// Whether standard input is a stream; otherwise it is closed.
    pub stdin: bool,
}

/// The supervisor's side of one container's guest.
#[derive(Debug)]
pub struct ContainerHost {
    role: ContainerRole,
    socket: PathBuf,
    listener: Arc<UnixListener>,
    lobby: Arc<Lobby>,
    started: Instant,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl ContainerHost {
    /// Listens for the guest of a role, in the directory of its socket.
    ///
    /// # Errors
    /// Returns an error if the socket cannot be created.
    pub fn listen(role: ContainerRole, directory: &Path) -> io::Result<Self> {
        let socket = directory.join(SOCKET);
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = Arc::new(UnixListener::bind(&socket)?);
        // The guest has another uid.
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666))?;
        let lobby = Arc::new(Lobby::default());
        let thread = std::thread::Builder::new().name("containers".into());
        let accepting = {
            let (lobby, listener) = (Arc::clone(&lobby), Arc::clone(&listener));
            thread.spawn(move || lobby.accept(&listener))?
        };
        let accepting = Mutex::new(Some(accepting));
        Ok(Self { role, socket, listener, lobby, started: Instant::now(), accepting })
    }

    /// Returns how many guests connected after the first one.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        lock(&self.lobby.state).guests.saturating_sub(1)
    }

    /// Returns what the guest reports about its container; waits until there is one.
    ///
    /// # Errors
    /// Returns an error if no guest connects in time, or one of another build.
    pub fn facts(&self) -> Result<Facts, ContainerError> {
        Ok(self.connection()?.facts.clone())
    }

    fn connection(&self) -> Result<Arc<Connection>, ContainerError> {
        let role = self.role;
        let mut state = lock(&self.lobby.state);
        loop {
            if let Some(connection) = &state.connection {
                return Ok(Arc::clone(connection));
            }
            if state.other_build {
                return Err(ContainerError::OtherBuild { role });
            }
            let (start, limit) = state.lost.map_or((self.started, FIRST_GUEST), |lost| (lost, NEXT_GUEST));
            let left = (start + limit).saturating_duration_since(Instant::now());
            if left.is_zero() {
                let seconds = limit.as_secs();
                return Err(match state.lost {
                    None => ContainerError::NoGuest { role, limit },
                    Some(_) => self.lost(format!(
                        "ended, and no other connected within {seconds} seconds: the container ran out of memory, \
                         or it was stopped from outside"
                    )),
                });
            }
            (state, _) = self.lobby.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lost(&self, why: String) -> ContainerError {
        ContainerError::Lost { role: self.role, why }
    }

    /// Sends a request and returns its answer, decoded.
    fn request<T: serde::de::DeserializeOwned>(
        &self,
        action: &'static str,
        kind: u8,
        payload: &[u8],
    ) -> Result<T, ContainerError> {
        let connection = self.connection()?;
        let answer = connection.request(connection.new_id(), kind, payload, REQUEST_LIMIT);
        let answer = answer.map_err(|why| self.lost(why))?;
        let answer = answer.map_err(|why| ContainerError::Request { role: self.role, action, why })?;
        serde_json::from_slice(&answer).map_err(|_| self.lost(connection.fail("sent a malformed answer")))
    }

    /// Starts a program.
    ///
    /// # Errors
    /// Returns an error if there is no guest, or if it cannot start the program.
    pub fn start(&self, spec: &ContainerProgram) -> Result<RunningProgram, ContainerError> {
        let connection = self.connection()?;
        let streams = Streams::new(&self.lobby, 2 + usize::from(spec.stdin));
        let start = Start {
            program: spec.program.clone().into(),
            arguments: spec.arguments.clone(),
            environment: spec.environment.clone().into_iter().collect(),
            directory: spec.directory.clone().into(),
            stdin: streams.tokens.get(2).copied(),
            stdout: streams.tokens[0],
            stderr: streams.tokens[1],
        };
        let program = spec.program.to_string_lossy();
        let id = connection.new_id();
        let end = connection.register(id);
        let mut sockets =
            self.ask_to_start(&connection, id, kind::START, &encode(&start), &program, &streams)?;
        let mut next = || sockets.pop();
        let stdin = if spec.stdin { next() } else { None };
        let (stderr, stdout) = (next(), next());
        Ok(RunningProgram { stdin, stdout, stderr, connection, id, end })
    }

    /// Asks for a start and returns the streams, in the order of their tokens.
    fn ask_to_start(
        &self,
        connection: &Connection,
        id: u32,
        kind: u8,
        request: &[u8],
        program: &str,
        streams: &Streams<'_>,
    ) -> Result<Vec<UnixStream>, ContainerError> {
        let answer = connection.request(id, kind, request, REQUEST_LIMIT).and_then(|answer| match answer {
            Ok(_) => streams
                .take()
                .map(Ok)
                .ok_or_else(|| connection.fail("reported a start without opening its streams")),
            Err(why) => Ok(Err(why)),
        });
        let failed = |why| ContainerError::Start { role: self.role, program: program.to_owned(), why };
        let started = answer.map_err(|why| self.lost(why)).and_then(|started| started.map_err(failed));
        if started.is_err() {
            connection.unregister(id);
        }
        started
    }

    /// Starts a guest of files that works in a folder of the container.
    ///
    /// # Errors
    /// Returns an error if there is no guest, or if it cannot open the folder.
    pub fn open_guest(&self, root: &Path, options: GuestOptions) -> Result<Guest, GuestError> {
        let failed = |error: ContainerError| {
            let root = root.to_owned();
            match error {
                ContainerError::Lost { role, why } => GuestError::Lost { root, role, why },
                ContainerError::NoGuest { .. } | ContainerError::OtherBuild { .. } => {
                    GuestError::NoContainer { root, why: error.to_string() }
                }
                ContainerError::Start { .. } | ContainerError::Request { .. } => {
                    GuestError::Broken { root, why: format!("did not start: {error}") }
                }
            }
        };
        let connection = self.connection().map_err(failed)?;
        let streams = Streams::new(&self.lobby, 2);
        let [control, bulk] = [streams.tokens[0], streams.tokens[1]];
        let request = StartFiles { control, bulk, without_openat2: options.without_openat2 };
        let id = connection.new_id();
        let (request, name) = (encode(&request), "supervisor");
        let sockets = self.ask_to_start(&connection, id, kind::START_FILES, &request, name, &streams);
        let mut sockets = sockets.map_err(failed)?.into_iter();
        let (Some(control), Some(bulk)) = (sockets.next(), sockets.next()) else {
            return Err(failed(self.lost("opened no streams".to_owned())));
        };
        let options = GuestOptions { container: Some(self.role), ..options };
        Guest::connect(control, bulk, None, root, options)
    }

    /// Kills everything in the container except its process 1 and guests of files.
    ///
    /// Returns the process ids that remain.
    ///
    /// # Errors
    /// Returns an error if there is no guest, or if it is lost.
    pub fn kill_all(&self) -> Result<Vec<u32>, ContainerError> {
        self.request("kill the processes", kind::KILL_ALL, &[])
    }

    /// Kills what no started program has in its process tree; returns the process ids that remain.
    ///
    /// # Errors
    /// Returns an error if there is no guest, or if it is lost.
    pub fn kill_orphans(&self) -> Result<Vec<u32>, ContainerError> {
        self.request("kill orphans", kind::KILL_ORPHANS, &[])
    }

    /// Finds a program in the `PATH` of the container; an absolute path is only checked.
    ///
    /// # Errors
    /// Returns an error if there is no guest, or if it is lost.
    pub fn find_program(&self, name: &str) -> Result<Option<PathBuf>, ContainerError> {
        let found: Option<Vec<u8>> = self.request("find a program", kind::FIND, name.as_bytes())?;
        let found = found.map(|path| PathBuf::from(OsString::from_vec(path)));
        Ok(found.filter(|path| path.is_absolute()))
    }
}

impl Drop for ContainerHost {
    fn drop(&mut self) {
        self.lobby.close();
        // Each wakes the thread that accepts, depending on the kernel.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        drop(UnixStream::connect(&self.socket));
        if let Some(accepting) = lock(&self.accepting).take() {
            drop(accepting.join());
        }
        drop(std::fs::remove_file(&self.socket));
    }
}

/// Streams that the guest is asked for; forgotten when this is dropped.
struct Streams<'l> {
    lobby: &'l Lobby,
    tokens: Vec<Token>,
}

impl<'l> Streams<'l> {
    fn new(lobby: &'l Lobby, count: usize) -> Self {
        let tokens: Vec<Token> = (0..count).map(|_| *uuid::Uuid::new_v4().as_bytes()).collect();
        lock(&lobby.state).streams.extend(tokens.iter().map(|token| (*token, None)));
        Self { lobby, tokens }
    }

    fn take(&self) -> Option<Vec<UnixStream>> {
        let mut state = lock(&self.lobby.state);
        self.tokens.iter().map(|token| state.streams.remove(token).flatten()).collect()
    }
}

impl Drop for Streams<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.lobby.state);
        for token in &self.tokens {
            drop(state.streams.remove(token));
        }
    }
}
