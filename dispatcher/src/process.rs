//! The only place that starts other programs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// A command with an empty environment and no stdin.
pub(crate) fn command(program: &Path) -> std::process::Command {
    #[expect(clippy::disallowed_methods, reason = "this is the place where children are prepared")]
    let mut command = std::process::Command::new(program);
    command.env_clear().stdin(Stdio::null());
    command
}

/// A command with an empty environment, before whoever started this program.
pub(crate) fn foreground_command(program: &Path) -> std::process::Command {
    let mut command = command(program);
    command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    command
}

/// What a program printed, if it ended well within `limit`; else why it did not.
///
/// The program is killed when the time is over.
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
        Err(_) => return Err(format!("gave no answer in {} s", limit.as_secs())),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint.lines().next().unwrap_or_default().to_owned();
    Err(format!("{}: {complaint}", output.status))
}

/// Finds a program in the folders of a `PATH`.
pub(crate) fn find(program: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(path?)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(|file| is_program(file))
}

/// Whether a file can be executed.
pub(crate) fn is_program(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}
