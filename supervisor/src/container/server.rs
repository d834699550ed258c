//! The guest of a container: its process 1, which starts and ends programs for the supervisor.
//!
//! It holds no credential and decides nothing. Requests that can take time run on threads of their own, so
//! that nothing delays a signal.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::children::{Children, Report, Role, Victims};
use super::connection::lock;
use super::facts::{facts, find_program};
use super::message::{Facts, Hello, Start, StartFiles, Token, encode, kind};
use super::streams::{connect, copy_input, copy_output};
use crate::config::ProcessEnv;
use crate::guest::wire::{CONTROL_MAX, Frame, read_frame, write_frame};
use crate::guest::{BUILD_ID, SUBCOMMAND, WITHOUT_OPENAT2, harden};
use crate::process::{
    Environment, ProcessGroup, become_subreaper, blocking_command, is_terminated, outlive_sigterm,
};

/// Argument that makes this process 1 of a container.
const CONNECT: &str = "--connect";

/// How long the supervisor may take to listen, or to listen again.
const CONNECT_LIMIT: Duration = Duration::from_secs(120);

/// How often to connect meanwhile.
const CONNECT_INTERVAL: Duration = Duration::from_millis(50);

/// How long the supervisor may take to answer the first frame.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// Entry point of the subcommand, for guests of files too.
#[must_use]
pub fn guest_main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.peekable();
    if arguments.next_if(|argument| argument == CONNECT).is_none() {
        return crate::guest::guest_main(arguments);
    }
    let Some(socket) = arguments.next() else { return ExitCode::FAILURE };
    match serve(Path::new(&socket)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log of the container is the only place for it.
            drop(io::Write::write_fmt(&mut io::stderr(), format_args!("guest: {error}\n")));
            ExitCode::FAILURE
        }
    }
}

fn serve(socket: &Path) -> io::Result<()> {
    // The supervisor saves work through this guest after SIGTERM; without a supervisor nothing keeps it.
    outlive_sigterm();
    let program = std::env::current_exe()?;
    if !harden() {
        return Err(io::Error::other("cannot deny other processes access to its memory"));
    }
    // Before the first thread, so that all of them and every program have it.
    crate::sandbox::confine_container().map_err(io::Error::other)?;
    become_subreaper();
    let children = Arc::new(Children::default());
    let reaper = Arc::clone(&children);
    std::thread::Builder::new().name("reaper".into()).spawn(move || reaper.reap())?;
    let facts = Arc::new(facts(ProcessEnv::read().all(), program));
    let mut deadline = Instant::now() + CONNECT_LIMIT;
    while !is_terminated() {
        match greet(socket, &facts)? {
            Some(control) => {
                let connection = Arc::new(Connection {
                    socket: socket.to_owned(),
                    facts: Arc::clone(&facts),
                    control: Mutex::new(control.try_clone()?),
                    epoch: children.new_epoch(),
                    children: Arc::clone(&children),
                });
                // However it ended: the supervisor may connect again.
                drop(connection.read(control));
                children.end_epoch();
                deadline = Instant::now() + CONNECT_LIMIT;
            }
            None if Instant::now() >= deadline => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no supervisor listens on `{}`", socket.display()),
                ));
            }
            None => std::thread::park_timeout(CONNECT_INTERVAL),
        }
    }
    Ok(())
}

/// Connects to the supervisor; `None` if it does not listen or has another guest.
fn greet(socket: &Path, facts: &Facts) -> io::Result<Option<UnixStream>> {
    let Ok(mut control) = UnixStream::connect(socket) else { return Ok(None) };
    control.set_read_timeout(Some(HELLO_LIMIT))?;
    let hello = Hello { build: BUILD_ID.to_owned(), facts: serde_json::to_value(facts)? };
    if write_frame(&mut control, 0, kind::HELLO, &encode(&hello)).is_err() {
        return Ok(None);
    }
    match read_frame(&mut control, CONTROL_MAX) {
        Ok(Some(Frame { kind: kind::ACCEPTED, .. })) => {
            control.set_read_timeout(None)?;
            Ok(Some(control))
        }
        Ok(Some(Frame { kind: kind::OTHER_BUILD, .. })) => Err(io::Error::other(
            "the supervisor is another build: the tools of this container are not its own",
        )),
        Ok(_) | Err(_) => Ok(None),
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Connection to the supervisor.
struct Connection {
    socket: PathBuf,
    facts: Arc<Facts>,
    control: Mutex<UnixStream>,
    epoch: u64,
    children: Arc<Children>,
}

impl Connection {
    fn read(self: &Arc<Self>, mut control: UnixStream) -> io::Result<()> {
        while let Some(Frame { id, kind, payload }) = read_frame(&mut control, CONTROL_MAX)? {
            if kind == kind::SIGNAL {
                let number = payload.try_into().map(i32::from_le_bytes).map_err(|_| invalid("signal"))?;
                let signal = Signal::from_named_raw(number).ok_or_else(|| invalid("signal"))?;
                self.children.signal(id, signal);
                continue;
            }
            let connection = Arc::clone(self);
            let thread = std::thread::Builder::new().name("request".into());
            if let Err(error) = thread.spawn(move || connection.perform(id, kind, payload)) {
                self.answer(id, kind::FAILED, error.to_string().as_bytes());
            }
        }
        Ok(())
    }

    /// Sends a frame. If the connection ended, the thread that reads notices it.
    fn answer(&self, id: u32, kind: u8, payload: &[u8]) {
        drop(write_frame(&mut *lock(&self.control), id, kind, payload));
    }

    fn perform(self: &Arc<Self>, id: u32, kind: u8, payload: Vec<u8>) {
        let result = match kind {
            kind::START => self.start(id, &payload),
            kind::START_FILES => self.start_files(&payload),
            kind::KILL_ALL => Ok(encode(&self.children.kill(Victims::Programs))),
            kind::KILL_ORPHANS => Ok(encode(&self.children.kill(Victims::Orphans))),
            kind::FIND => {
                let found = find_program(&self.facts.environment, &OsString::from_vec(payload));
                Ok(encode(&found.map(|path| path.as_os_str().as_bytes().to_vec())))
            }
            _ => Err(invalid("the request is unknown")),
        };
        match result {
            Ok(payload) => self.answer(id, kind::DONE, &payload),
            Err(error) => self.answer(id, kind::FAILED, error.to_string().as_bytes()),
        }
    }

    fn stream(&self, token: Token) -> io::Result<UnixStream> {
        connect(&self.socket, token)
    }

    fn start(self: &Arc<Self>, id: u32, payload: &[u8]) -> io::Result<Vec<u8>> {
        let start: Start = serde_json::from_slice(payload)?;
        let directory = Path::new(&start.directory);
        if !directory.is_dir() {
            let text = format!("the directory `{}` does not exist", directory.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        let stdin = start.stdin.map(|token| self.stream(token)).transpose()?;
        let (stdout, stderr) = (self.stream(start.stdout)?, self.stream(start.stderr)?);
        let environment: Environment = start.environment.into_iter().collect();
        let mut command = blocking_command(&start.program, &environment, ProcessGroup::New);
        command.args(&start.arguments).current_dir(directory);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if stdin.is_some() {
            command.stdin(Stdio::piped());
        }
        let input = stdin.as_ref().map(UnixStream::try_clone).transpose()?;
        let connection = Arc::clone(self);
        let report: Report = Arc::new(move |id, exited| {
            connection.answer(id, kind::EXITED, &encode(&exited));
        });
        let mut child = self.children.spawn(self.epoch, command, Role::Program { id, report }, input)?;
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        let copied: io::Result<()> = (|| {
            if let Some(pipe) = child.stdout.take() {
                thread("stdout").spawn(move || copy_output(pipe, stdout))?;
            }
            if let Some(pipe) = child.stderr.take() {
                thread("stderr").spawn(move || copy_output(pipe, stderr))?;
            }
            if let (Some(socket), Some(pipe)) = (stdin, child.stdin.take()) {
                thread("stdin").spawn(move || copy_input(socket, pipe))?;
            }
            Ok(())
        })();
        if copied.is_err() {
            // It was started, so its exit is reported.
            self.children.signal(id, Signal::KILL);
        }
        Ok(Vec::new())
    }

    fn start_files(&self, payload: &[u8]) -> io::Result<Vec<u8>> {
        let request: StartFiles = serde_json::from_slice(payload)?;
        let (control, bulk) = (self.stream(request.control)?, self.stream(request.bulk)?);
        let mut command = blocking_command(&self.facts.program, &Environment::new(), ProcessGroup::New);
        command.arg(SUBCOMMAND);
        if request.without_openat2 {
            command.arg(WITHOUT_OPENAT2);
        }
        command.stdin(OwnedFd::from(control)).stdout(OwnedFd::from(bulk)).stderr(Stdio::null());
        self.children.spawn(self.epoch, command, Role::Files, None)?;
        Ok(Vec::new())
    }
}
