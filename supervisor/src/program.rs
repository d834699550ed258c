//! A running program of a sandbox: a child of this process, or one that a container's guest started.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::container::{EndedProgram, ProgramHandle, RunningProgram};
use crate::process::{Child, Environment, Exit, SpawnError, kill_tree, oom_kill_count, spawn};
use crate::sandbox::{SandboxSpec, confined_command};

/// Program to start.
#[derive(Clone, Copy, Debug)]
pub struct ProgramSpec<'a> {
    pub program: &'a Path,
    pub arguments: &'a [OsString],
    /// The complete environment.
    pub environment: &'a Environment,
    pub directory: &'a Path,
    /// The sandbox on this machine. A container is one already.
    pub sandbox: &'a SandboxSpec,
    /// Whether standard input is open.
    pub input: bool,
}

/// Standard input of a program.
pub type ProgramInput = Box<dyn AsyncWrite + Send + Unpin>;

/// Output stream of a program.
#[derive(Debug)]
pub enum ProgramOutput {
    Stdout(tokio::process::ChildStdout),
    Stderr(tokio::process::ChildStderr),
    Socket(UnixStream),
}

impl ProgramOutput {
    /// Returns the stream for a thread that reads it.
    ///
    /// # Errors
    /// Returns an error if the stream cannot be made blocking.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        match self {
            Self::Stdout(stdout) => stdout.into_owned_fd(),
            Self::Stderr(stderr) => stderr.into_owned_fd(),
            Self::Socket(socket) => Ok(socket.into()),
        }
    }

    /// Returns the stream for a task that reads it.
    ///
    /// # Errors
    /// Returns an error if the stream cannot be made non-blocking.
    pub fn into_reader(self) -> io::Result<Box<dyn AsyncRead + Send + Unpin>> {
        Ok(match self {
            Self::Stdout(stdout) => Box::new(stdout),
            Self::Stderr(stderr) => Box::new(stderr),
            Self::Socket(socket) => Box::new(non_blocking(socket)?),
        })
    }
}

fn non_blocking(socket: UnixStream) -> io::Result<tokio::net::UnixStream> {
    socket.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(socket)
}

/// How a program ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProgramEnd {
    Exited(Exit),
    /// Its container is gone.
    Lost,
}

/// Running program; dropping it kills its process group.
pub struct Program {
    pub input: Option<ProgramInput>,
    pub stdout: Option<ProgramOutput>,
    pub stderr: Option<ProgramOutput>,
    running: Running,
}

/// Kills a program whose owner has not waited for it yet.
#[derive(Clone, Debug)]
pub struct ProgramKiller(Victim);

#[derive(Clone, Debug)]
enum Victim {
    Child(u32),
    InContainer(ProgramHandle),
}

impl ProgramKiller {
    /// Kills the program: on this machine with all of its descendants, in a container its process group.
    ///
    /// What remains in a container belongs to no program there, so [`crate::site::Site::kill_orphans`] finds it.
    pub fn kill(self) {
        match self.0 {
            Victim::Child(pid) => kill_tree(pid),
            Victim::InContainer(program) => program.signal_group(Signal::KILL),
        }
    }
}

enum Running {
    Child { child: Child, kills_before: Option<u64> },
    InContainer { program: RunningProgram, out_of_memory: bool },
}

impl Program {
    /// Starts a program in its sandbox on this machine.
    ///
    /// # Errors
    /// Returns an error if it cannot be spawned.
    pub fn spawn(supervisor: &Path, spec: ProgramSpec<'_>) -> Result<Self, SpawnError> {
        use std::process::Stdio;
        let ProgramSpec { program, arguments, environment, directory, sandbox, input } = spec;
        let kills_before = oom_kill_count();
        let mut command = confined_command(supervisor, sandbox, program, arguments, environment);
        command.current_dir(directory).stdout(Stdio::piped()).stderr(Stdio::piped());
        if input {
            command.stdin(Stdio::piped());
        }
        let mut child = spawn(command)?;
        Ok(Self {
            input: child.take_stdin().map(|input| Box::new(input) as ProgramInput),
            stdout: child.take_stdout().map(ProgramOutput::Stdout),
            stderr: child.take_stderr().map(ProgramOutput::Stderr),
            running: Running::Child { child, kills_before },
        })
    }

    /// Takes a program that a container's guest started.
    ///
    /// # Errors
    /// Returns an error if a stream cannot be made non-blocking.
    pub fn in_container(mut program: RunningProgram) -> io::Result<Self> {
        let input = program.stdin.take().map(non_blocking).transpose()?;
        Ok(Self {
            input: input.map(|input| Box::new(input) as ProgramInput),
            stdout: program.stdout.take().map(ProgramOutput::Socket),
            stderr: program.stderr.take().map(ProgramOutput::Socket),
            running: Running::InContainer { program, out_of_memory: false },
        })
    }

    /// Waits for the end. Can be called again.
    ///
    /// # Errors
    /// Returns an error if the status cannot be read.
    pub async fn wait(&mut self) -> io::Result<ProgramEnd> {
        match &mut self.running {
            Running::Child { child, .. } => child.wait().await.map(ProgramEnd::Exited),
            Running::InContainer { program, out_of_memory } => Ok(match program.wait().await {
                EndedProgram::Exited { exit, out_of_memory: killed } => {
                    *out_of_memory = killed;
                    ProgramEnd::Exited(exit)
                }
                EndedProgram::Lost => ProgramEnd::Lost,
            }),
        }
    }

    /// Returns what kills the program before [`Self::wait`] is called; `None` if it was called.
    #[must_use]
    pub fn killer(&self) -> Option<ProgramKiller> {
        Some(ProgramKiller(match &self.running {
            Running::Child { child, .. } => Victim::Child(child.pid()?),
            Running::InContainer { program, .. } => Victim::InContainer(program.handle()),
        }))
    }

    /// Sends `signal` to the program's process group.
    pub fn signal_group(&self, signal: Signal) {
        match &self.running {
            Running::Child { child, .. } => child.signal_group(signal),
            Running::InContainer { program, .. } => program.signal_group(signal),
        }
    }

    /// Kills the process group and waits for the end, within 5 seconds.
    pub async fn kill(&mut self) {
        self.signal_group(Signal::KILL);
        // A killed process can hang in the kernel, such as on a dead network file system.
        drop(tokio::time::timeout(std::time::Duration::from_secs(5), self.wait()).await);
    }

    /// Returns whether the kernel killed a process for lack of memory since the program started.
    #[must_use]
    pub fn out_of_memory(&self) -> bool {
        match &self.running {
            Running::Child { kills_before, .. } => oom_kill_count() > *kills_before,
            Running::InContainer { out_of_memory, .. } => *out_of_memory,
        }
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").finish_non_exhaustive()
    }
}
