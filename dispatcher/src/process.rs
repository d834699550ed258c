//! The only module that spawns other programs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

/// Returns a command with an empty environment and no stdin.
pub(crate) fn command(program: &Path) -> std::process::Command {
    #[expect(clippy::disallowed_methods, reason = "all children are prepared here")]
    let mut command = std::process::Command::new(program);
    command.env_clear().stdin(Stdio::null());
    command
}

/// Returns a command with an empty environment that shares this program's stdin, stdout and stderr.
pub(crate) fn foreground_command(program: &Path) -> std::process::Command {
    let mut command = command(program);
    command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    command
}

/// Starts a program that outlives this one, without output.
pub(crate) fn start_detached(mut command: std::process::Command) -> std::io::Result<()> {
    use std::os::unix::process::CommandExt as _;
    // Ctrl-C must not reach it.
    command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    tokio::process::Command::from(command).spawn().map(drop)
}

/// Returns a program's trimmed stdout if it succeeds within `limit`, else why it did not, in one line.
///
/// Kills the program on timeout.
pub(crate) async fn output_with_timeout(
    command: std::process::Command,
    limit: Duration,
) -> Result<String, String> {
    wait_for_output(command, limit, |status, stderr| {
        format!("{status}: {}", stderr.lines().next().unwrap_or_default())
    })
    .await
}

/// Returns a program's trimmed stdout if it succeeds within `limit`, else its stderr.
///
/// Kills the program on timeout.
pub(crate) async fn full_output_with_timeout(
    command: std::process::Command,
    limit: Duration,
) -> Result<String, String> {
    wait_for_output(command, limit, |_, stderr| stderr.to_owned()).await
}

async fn wait_for_output(
    mut command: std::process::Command,
    limit: Duration,
    failed: fn(std::process::ExitStatus, &str) -> String,
) -> Result<String, String> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let output = match tokio::time::timeout(limit, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("timed out after {} s", limit.as_secs())),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(failed(output.status, &String::from_utf8_lossy(&output.stderr)))
}

/// Runs a program to its end, without time limit, and returns its output.
///
/// Never kills it: an interruption or termination of this program is forwarded, and the program ends on its
/// own.
pub(crate) async fn output_forwarding_signals(
    mut command: std::process::Command,
) -> std::io::Result<std::process::Output> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = tokio::process::Command::from(command).spawn()?;
    let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
    let output = child.wait_with_output();
    tokio::pin!(output);
    loop {
        let forwarded = tokio::select! {
            // A child that was reaped must not be signaled.
            biased;
            output = &mut output => return output,
            _ = interrupts.recv() => rustix::process::Signal::INT,
            _ = terminations.recv() => rustix::process::Signal::TERM,
        };
        if let Some(pid) = pid {
            // Fails if it has exited.
            let _ = rustix::process::kill_process(pid, forwarded);
        }
    }
}

/// Finds a program in the folders of `PATH`.
pub(crate) fn find(program: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(path?)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(|file| is_program(file))
}

/// Returns whether a file is executable.
pub(crate) fn is_program(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}
