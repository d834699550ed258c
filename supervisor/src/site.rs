//! Where the programs of a role run, and who works on the files that they can write.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use orchestrator_contract::Reason;
use orchestrator_contract::containers::ContainerRole;

use crate::container::{ContainerError, ContainerHost, ContainerProgram, Facts};
use crate::endpoint::ListenPlace;
use crate::failure::Failure;
use crate::guest::{Guest, GuestOptions};
use crate::process::{kill_descendants, kill_orphans};
use crate::program::{Program, ProgramSpec};
use crate::sandbox::{Kind, confined_arguments};

/// The running program, also after its file was replaced.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// Place of the programs of a role.
#[derive(Clone, Debug)]
pub enum Site {
    /// This machine, where each program gets a sandbox.
    Machine {
        /// The program of guests, and the one that makes sandboxes.
        program: PathBuf,
        /// Its path in sandboxes.
        supervisor: PathBuf,
    },
    /// A container of the run, whose process 1 is a guest.
    Container(ContainerSite),
}

/// Container of the run.
#[derive(Clone, Debug)]
pub struct ContainerSite {
    host: Arc<ContainerHost>,
    /// Directory of its socket, which no other container of untrusted programs has.
    sockets: PathBuf,
    facts: Arc<OnceLock<Facts>>,
}

impl ContainerSite {
    /// Returns what the guest reported about its container; [`Site::connect`] waits for it.
    #[must_use]
    pub fn facts(&self) -> Option<&Facts> {
        self.facts.get()
    }
}

impl Site {
    /// Listens for the guest of a container, on a socket in `folder`.
    ///
    /// # Errors
    /// Returns an error if the socket cannot be created.
    pub fn container(role: ContainerRole, folder: &Path) -> Result<Self, Failure> {
        let host = ContainerHost::listen(role, folder).map_err(|error| Failure::io(folder, &error))?;
        Ok(Self::Container(ContainerSite {
            host: Arc::new(host),
            sockets: folder.to_owned(),
            facts: Arc::default(),
        }))
    }

    /// Waits for the guest, if the place is a container.
    ///
    /// # Errors
    /// Returns `SandboxUnavailable` if none connects in time, or if it is another build; an error too if it is
    /// lost.
    pub async fn connect(&self) -> Result<(), Failure> {
        let Self::Container(ContainerSite { host, facts, .. }) = self else { return Ok(()) };
        let waiting = Arc::clone(host);
        let connected = tokio::task::spawn_blocking(move || waiting.facts()).await;
        let connected = connected.map_err(|error| Failure::from_error(Reason::InternalError, &error))?;
        let found = connected.map_err(|error| Failure::from_error(error.reason(), &error))?;
        // A second call finds the same container.
        drop(facts.set(found));
        Ok(())
    }

    /// Returns the path of the supervisor's program there.
    #[must_use]
    pub fn supervisor(&self) -> PathBuf {
        match self {
            Self::Machine { supervisor, .. } => supervisor.clone(),
            Self::Container(site) => site.facts().map(|facts| facts.program.clone()).unwrap_or_default(),
        }
    }

    /// Returns where to listen for programs of this place, so that those of no other place can connect.
    #[must_use]
    pub fn listen_place(&self) -> ListenPlace {
        match self {
            Self::Machine { .. } => ListenPlace::Loopback,
            Self::Container(site) => ListenPlace::Directory(site.sockets.clone()),
        }
    }

    /// Returns whether programs run as root there.
    #[must_use]
    pub fn is_root(&self) -> bool {
        match self {
            Self::Machine { .. } => rustix::process::geteuid().is_root(),
            Self::Container(site) => site.facts().is_some_and(|facts| facts.uid == 0),
        }
    }

    /// Starts a guest that works in a folder.
    ///
    /// # Errors
    /// Returns an error if the folder does not exist or the guest does not start.
    pub fn open(&self, folder: &Path) -> Result<Guest, Failure> {
        let guest = match self {
            Self::Machine { program, .. } => Guest::start(program, folder, GuestOptions::default()),
            Self::Container(site) => site.host.open_guest(folder, GuestOptions::default()),
        };
        guest.map_err(|error| Failure::from_error(error.reason(), &error))
    }

    /// Returns the program with its arguments that runs another one in its sandbox within a container.
    ///
    /// `None` if none is needed: [`Self::start`] makes the sandboxes of this machine.
    #[must_use]
    pub fn confined(&self, spec: &ProgramSpec<'_>) -> Option<(PathBuf, Vec<OsString>)> {
        let Self::Container(site) = self else { return None };
        let facts = site.facts().filter(|_| spec.sandbox.kind != Kind::Off)?;
        let arguments = confined_arguments(spec.sandbox, spec.program, spec.arguments, facts.pid);
        Some((facts.program.clone(), arguments))
    }

    /// Starts a program.
    ///
    /// # Errors
    /// Returns an error if it cannot be started.
    pub async fn start(&self, spec: ProgramSpec<'_>) -> Result<Program, Failure> {
        let failed = |error: &dyn std::error::Error| Failure::from_error(Reason::InternalError, error);
        match self {
            Self::Machine { program, .. } => Program::spawn(program, spec).map_err(|error| failed(&error)),
            Self::Container(site) => {
                let ProgramSpec { program, arguments, environment, directory, sandbox: _, input } = spec;
                let program = ContainerProgram {
                    program: program.to_owned(),
                    arguments: arguments.to_vec(),
                    environment: environment.clone(),
                    directory: directory.to_owned(),
                    stdin: input,
                };
                let started = call(site, move |host| host.start(&program)).await?;
                Program::in_container(started).map_err(|error| failed(&error))
            }
        }
    }

    /// Kills every program, but no guest; returns what remains.
    pub async fn kill_all(&self) -> Vec<String> {
        match self {
            Self::Machine { .. } => describe(Ok(kill_descendants().await)),
            // Nothing was started there.
            Self::Container(site) if site.facts().is_none() => Vec::new(),
            Self::Container(site) => describe(call(site, ContainerHost::kill_all).await),
        }
    }

    /// Kills what started programs left behind; returns what remains.
    pub async fn kill_orphans(&self) -> Vec<String> {
        match self {
            Self::Machine { .. } => describe(Ok(kill_orphans().await)),
            Self::Container(site) => describe(call(site, ContainerHost::kill_orphans).await),
        }
    }
}

/// Calls a container's guest on a thread that may wait for it.
async fn call<T: Send + 'static>(
    site: &ContainerSite,
    work: impl FnOnce(&ContainerHost) -> Result<T, ContainerError> + Send + 'static,
) -> Result<T, Failure> {
    let host = Arc::clone(&site.host);
    let done = tokio::task::spawn_blocking(move || work(&host)).await;
    done.map_err(|error| Failure::from_error(Reason::InternalError, &error))?
        .map_err(|error| Failure::from_error(error.reason(), &error))
}

impl ContainerSite {
    /// Returns the path of an executable in the container: absolute, or found in its search path.
    ///
    /// # Errors
    /// Returns an error if the container does not answer.
    pub fn find_program(&self, name: &str) -> Result<Option<PathBuf>, Failure> {
        self.host.find_program(name).map_err(|error| Failure::from_error(error.reason(), &error))
    }
}

fn describe(processes: Result<Vec<u32>, Failure>) -> Vec<String> {
    match processes {
        Ok(processes) => processes.into_iter().map(|process| process.to_string()).collect(),
        Err(failure) => vec![failure.message],
    }
}
