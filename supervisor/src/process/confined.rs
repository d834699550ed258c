//! Runs programs of the agent in a sandbox.
//!
//! The supervisor runs itself as `supervisor confined`. This hidden subcommand drops
//! capabilities, sets resource limits, applies the Landlock rules (kernel
//! documentation: userspace-api/landlock) and executes the program. Nothing here
//! needs privileges, and nothing can be reverted.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit, Signal};

use super::command::{Environment, ProcessGroup, blocking_command, command};

/// The newest supported Landlock ABI; older kernels apply the subset that they support.
const LANDLOCK: ABI = ABI::V6;

/// Exit codes of the wrapper, as in env(1): program not found, or not executable.
const NOT_FOUND: u8 = 127;
const CANNOT_RUN: u8 = 126;

/// The sandbox of a program.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Confinement {
    /// Paths that may be read and executed. Missing ones are ignored.
    pub readable: Vec<PathBuf>,
    /// Paths with full access.
    pub writable: Vec<PathBuf>,
    /// Whether the sandbox is enabled.
    pub sandbox: bool,
}

/// Builds a command that runs `program` confined, in a new process group.
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

/// Returns whether the kernel supports Landlock.
#[must_use]
pub fn landlock_available() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok()
}

/// Runs the hidden subcommand: confines itself and executes the program. Returns only on failure.
#[must_use]
pub fn confined_main(arguments: impl Iterator<Item = OsString>) -> std::process::ExitCode {
    let mut arguments = arguments;
    let mut confinement = Confinement { sandbox: true, ..Confinement::default() };
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--read") => confinement.readable.extend(arguments.next().map(PathBuf::from)),
            Some("--write") => confinement.writable.extend(arguments.next().map(PathBuf::from)),
            Some("--open") => confinement.sandbox = false,
            // `--` ends the wrapper's own arguments.
            _ => break,
        }
    }
    let Some(program) = arguments.next() else { return CANNOT_RUN.into() };
    if confinement.sandbox {
        drop_capabilities();
    }
    // If the parent exits before this call, the pipes are closed already.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // A core file would contain the model credential.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(Resource::Core, none);
    // The kernel kills the agent before the supervisor, which can then still save the work.
    drop(std::fs::write("/proc/self/oom_score_adj", "500"));
    if confinement.sandbox && apply(&confinement).is_err() {
        return CANNOT_RUN.into();
    }
    let environment: Environment = std::env::vars_os().collect();
    // The program inherits the wrapper's standard input, process group and session.
    let error = blocking_command(&program, &environment, ProcessGroup::Inherit)
        .args(arguments)
        .stdin(std::process::Stdio::inherit())
        .exec();
    if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND.into() } else { CANNOT_RUN.into() }
}

/// Drops all capabilities, see capabilities(7).
///
/// With `CAP_PERFMON` root could read the environment of every process in spite of Landlock
/// (`mm_access` in the kernel). Landlock sets `no_new_privs`, so no program can regain them.
fn drop_capabilities() {
    let none = rustix::thread::CapabilitySets {
        effective: rustix::thread::CapabilitySet::empty(),
        permitted: rustix::thread::CapabilitySet::empty(),
        inheritable: rustix::thread::CapabilitySet::empty(),
    };
    // Dropping capabilities cannot fail.
    let _ = rustix::thread::set_capabilities(None, none);
}

/// Applies the rules that the kernel supports.
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
        // Confined programs cannot signal processes outside of the sandbox.
        .scope(Scope::Signal)?
        .create()?
        .add_rules(rules(&confinement.readable, read))?
        .add_rules(rules(&confinement.writable, write))?
        .restrict_self()?;
    Ok(status.ruleset)
}
