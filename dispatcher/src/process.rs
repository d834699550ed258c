//! The only module that spawns other programs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

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

/// Returns a program's trimmed stdout if it succeeds within `limit`, else why it did not.
///
/// Kills the program on timeout.
pub(crate) async fn output_with_timeout(
    mut command: std::process::Command,
    limit: Duration,
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
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stderr = stderr.lines().next().unwrap_or_default().to_owned();
    Err(format!("{}: {stderr}", output.status))
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
