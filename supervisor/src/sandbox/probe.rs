//! Makes a sandbox and looks around in it.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use super::command::confined_arguments;
use super::roles::{Places, machine};
use super::spec::{Kind, Role};
use crate::process::{Environment, ProcessGroup, blocking_command, read_pipe};

/// The hidden subcommand that looks around.
const SUBCOMMAND: &str = "sandbox-probe";

/// How long a probe may take; usually it takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How often to look for its end.
const INTERVAL: Duration = Duration::from_millis(1);

/// Makes a sandbox of this kind and runs this program in it.
///
/// # Errors
/// Returns an error that says what the kernel refused, in one line.
pub(super) fn probe(supervisor: &Path, kind: Kind) -> Result<(), String> {
    let places = Places { supervisor: supervisor.to_owned(), ..Places::default() };
    let spec = machine(Role::Tool, kind, &places);
    let arguments = [OsString::from(SUBCOMMAND), kind.name().into()];
    let mut command = blocking_command(supervisor, &Environment::new(), ProcessGroup::New);
    command.args(confined_arguments(&spec, supervisor, &arguments, std::process::id()));
    command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot start the supervisor: {error}"))?;
    let deadline = Instant::now() + TIMEOUT;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => pause(),
            Ok(None) => {
                drop(child.kill());
                drop(child.wait());
                return Err("it hangs".to_owned());
            }
            Err(error) => return Err(error.to_string()),
        }
    };
    if status.success() {
        return Ok(());
    }
    let text = child.stderr.take().map(read_pipe).unwrap_or_default();
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it failed");
    Err(line.trim_start_matches("supervisor confined: ").to_owned())
}

fn pause() {
    let interval = rustix::thread::Timespec { tv_sec: 0, tv_nsec: INTERVAL.subsec_nanos().into() };
    let _ = rustix::thread::nanosleep(&interval);
}

/// Runs the hidden subcommand in a sandbox: checks that it confines, and that programs can work.
#[must_use]
pub fn probe_main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let kind = arguments.next().and_then(|name| Kind::from_name(name.to_str()?));
    let checked = match kind {
        Some(Kind::Namespaces) => check_namespaces(),
        Some(Kind::Landlock) => check_landlock(),
        Some(Kind::Off) => Ok(()),
        None => Err("unknown kind".to_owned()),
    };
    match checked {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            drop(writeln!(std::io::stderr(), "{problem}"));
            ExitCode::FAILURE
        }
    }
}

fn check_namespaces() -> Result<(), String> {
    let failed = |what: &str, error: std::io::Error| format!("cannot {what} in the sandbox: {error}");
    std::fs::write("/tmp/probe", "").map_err(|error| failed("write /tmp", error))?;
    std::fs::write("/dev/null", "").map_err(|error| failed("write /dev/null", error))?;
    std::fs::File::open("/dev/ptmx").map_err(|error| failed("open a terminal", error))?;
    let processes = std::fs::read_dir("/proc").map_err(|error| failed("read /proc", error))?;
    let processes = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // The init and this process.
    if processes.count() > 2 || std::process::id() > 2 {
        return Err("processes of others are visible in the sandbox".to_owned());
    }
    Ok(())
}

fn check_landlock() -> Result<(), String> {
    if std::fs::write("/tmp/probe", "").is_ok() || std::fs::read_dir("/").is_ok() {
        return Err("files of others are accessible in the sandbox".to_owned());
    }
    if std::os::unix::net::UnixDatagram::unbound().is_ok() {
        return Err("Unix sockets of others are accessible in the sandbox".to_owned());
    }
    Ok(())
}
