//! Starts what an agent starts: through ourselves, so that limits and sandbox
//! are in place before its first instruction.
//!
//! The hidden subcommand `confined` lowers what must be lowered, applies the
//! Landlock rules (kernel documentation: userspace-api/landlock) and executes
//! the program. Nothing here needs privileges, and nothing can be taken back.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit, Signal};

use super::command::{Environment, ProcessGroup, blocking_command, command};

/// The newest set of rules that we know how to ask for; older kernels get what they have.
const LANDLOCK: ABI = ABI::V6;

/// Exit codes of the wrapper itself, as in env(1): the program is missing, or cannot be run.
const NOT_FOUND: u8 = 127;
const CANNOT_RUN: u8 = 126;

/// What a confined program may touch.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Confinement {
    /// May be read and executed. What does not exist is passed over.
    pub readable: Vec<PathBuf>,
    /// May be changed in every way.
    pub writable: Vec<PathBuf>,
    /// Whether the rules are applied at all.
    pub sandbox: bool,
}

/// A command that runs `program` confined, in a process group of its own.
#[must_use]
pub fn confined_command(
    supervisor: &Path,
    confinement: &Confinement,
    program: &Path,
    arguments: &[OsString],
    environment: &Environment,
) -> tokio::process::Command {
    let mut command = command(supervisor, environment, ProcessGroup::New);
    command.arg("confined");
    if confinement.sandbox {
        for path in &confinement.readable {
            command.arg("--read").arg(path);
        }
        for path in &confinement.writable {
            command.arg("--write").arg(path);
        }
    } else {
        command.arg("--open");
    }
    command.arg("--").arg(program).args(arguments);
    command
}

/// Whether the kernel has Landlock.
#[must_use]
pub fn landlock_available() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok()
}

/// The hidden subcommand: confines itself and becomes the program. Returns only on failure.
#[must_use]
pub fn confined_main(arguments: impl Iterator<Item = OsString>) -> std::process::ExitCode {
    let mut arguments = arguments;
    let mut confinement = Confinement { sandbox: true, ..Confinement::default() };
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--read") => confinement.readable.extend(arguments.next().map(PathBuf::from)),
            Some("--write") => confinement.writable.extend(arguments.next().map(PathBuf::from)),
            Some("--open") => confinement.sandbox = false,
            // `--` ends our own arguments.
            _ => break,
        }
    }
    let Some(program) = arguments.next() else { return CANNOT_RUN.into() };
    if confinement.sandbox {
        drop_capabilities();
    }
    // The parent may be gone before this takes effect; then its death already closed our pipes.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // A core file would hold the model's credential.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(Resource::Core, none);
    // When memory runs out the agent goes first, so that its work can still be saved.
    drop(std::fs::write("/proc/self/oom_score_adj", "500"));
    if confinement.sandbox && apply(&confinement).is_err() {
        return CANNOT_RUN.into();
    }
    let environment: Environment = std::env::vars_os().collect();
    // The wrapper's own standard input, group and session are the program's.
    let error = blocking_command(&program, &environment, ProcessGroup::Inherit)
        .args(arguments)
        .stdin(std::process::Stdio::inherit())
        .exec();
    if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND.into() } else { CANNOT_RUN.into() }
}

/// Root keeps its name and loses its powers: with them it could read the environment of every
/// process, Landlock or not (`mm_access` of the kernel asks for `CAP_PERFMON` first).
///
/// Landlock sets `no_new_privs`, so that no program gets them back.
fn drop_capabilities() {
    let none = rustix::thread::CapabilitySets {
        effective: rustix::thread::CapabilitySet::empty(),
        permitted: rustix::thread::CapabilitySet::empty(),
        inheritable: rustix::thread::CapabilitySet::empty(),
    };
    // Who has none cannot fail to give them up.
    let _ = rustix::thread::set_capabilities(None, none);
}

/// Applies the rules as far as the kernel knows them.
fn apply(confinement: &Confinement) -> Result<RulesetStatus, landlock::RulesetError> {
    let read = AccessFs::from_read(LANDLOCK);
    let write = AccessFs::from_all(LANDLOCK);
    let rules = |paths: &[PathBuf], access| {
        let beneath = move |path: &PathBuf| {
            let file = PathFd::new(path).ok()?;
            let access = if path.is_dir() { access } else { access & AccessFs::from_file(LANDLOCK) };
            Some(Ok::<_, landlock::RulesetError>(PathBeneath::new(file, access)))
        };
        paths.iter().filter_map(beneath).collect::<Vec<_>>()
    };
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(write)?
        // Nothing confined can signal us, or whatever else runs beside us.
        .scope(Scope::Signal)?
        .create()?
        .add_rules(rules(&confinement.readable, read))?
        .add_rules(rules(&confinement.writable, write))?
        .restrict_self()?;
    Ok(status.ruleset)
}
