//! Warnings about local work that a run does not see: unpushed commits and uncommitted changes.
//!
//! Runs the user's git with `--no-optional-locks`, without hooks and file system monitor, so that it
//! writes nothing, not even the index.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use orchestrator_contract::{BranchName, TaskId, WorkingDirectory};

use super::Checkout;
use crate::config::Environment;
use crate::process;

/// Time limit of each git command: the user waits for the submission.
const GIT_TIMEOUT: Duration = Duration::from_millis(700);

/// Maximum number of changed files to list.
const MAX_LISTED_FILES: usize = 5;

impl Checkout {
    /// Returns warnings about local work that a run on `branch` of the remote does not see.
    pub async fn warnings(
        &self,
        environment: &Environment,
        branch: &BranchName,
        tasks: Option<&WorkingDirectory>,
    ) -> Vec<String> {
        let Some(git) = process::find("git", environment.os("PATH")) else {
            return vec![unknown_state("`git` not found in PATH")];
        };
        let folder = tasks.map_or("", WorkingDirectory::relative);
        let tasks = Path::new(folder).join(".taskmaster").display().to_string();
        let remote = format!("refs/remotes/origin/{branch}");
        let ahead = format!("{remote}..refs/heads/{branch}");
        let known = ["rev-parse", "--verify", "--quiet", &remote];
        let count = ["rev-list", "--count", &ahead];
        let status = ["status", "--porcelain", "--untracked-files=all", "--", &tasks];
        let (known, ahead, changed) = tokio::join!(
            self.query(&git, environment, &known),
            self.query(&git, environment, &count),
            self.query(&git, environment, &status),
        );
        let mut warnings = Vec::new();
        match (known, ahead) {
            (Err(_), _) => warnings.push(format!(
                "branch `{branch}` is not on the remote as far as this clone knows: push it, or the run \
                 will not find it"
            )),
            (Ok(_), Ok(count)) if count == "0" => {}
            (Ok(_), Ok(count)) if count == "1" => {
                warnings.push(format!("1 commit of `{branch}` is not pushed; the agent does not see it"));
            }
            (Ok(_), Ok(count)) => {
                warnings.push(format!(
                    "{count} commits of `{branch}` are not pushed; the agent does not see them"
                ));
            }
            (Ok(_), Err(error)) => warnings.push(unknown_state(&error)),
        }
        match changed {
            Ok(text) if text.is_empty() => {}
            Ok(text) => {
                let files = changed_files(&text);
                warnings.push(format!("uncommitted changes that the agent does not see: {files}"));
            }
            Err(error) => warnings.push(unknown_state(&error)),
        }
        warnings
    }

    /// Returns warnings about local documents of a task that a run does not see, if git can tell.
    ///
    /// `folders` are those that may hold `.taskmaster`.
    pub async fn document_warnings(
        &self,
        environment: &Environment,
        task: TaskId,
        folders: &[WorkingDirectory],
    ) -> Vec<String> {
        let Some(git) = process::find("git", environment.os("PATH")) else { return Vec::new() };
        let files = [format!("docs/task-{task}"), "tasks/tasks.json".to_owned()];
        let in_folder = |folder: &WorkingDirectory| {
            let folder = Path::new(folder.relative()).join(".taskmaster");
            files.clone().map(|file| folder.join(file).display().to_string())
        };
        let paths: Vec<String> = folders.iter().flat_map(in_folder).collect();
        let with_paths = |query: &[&'static str]| -> Vec<String> {
            query.iter().map(|word| (*word).to_owned()).chain(paths.iter().cloned()).collect()
        };
        let status = with_paths(&["status", "--porcelain", "--untracked-files=all", "--"]);
        let ahead = with_paths(&["rev-list", "--count", "HEAD", "--not", "--remotes", "--"]);
        let (changed, ahead) =
            tokio::join!(self.query(&git, environment, &status), self.query(&git, environment, &ahead));
        let mut warnings = Vec::new();
        if let Some(text) = changed.ok().filter(|text| !text.is_empty()) {
            let files = changed_files(&text);
            warnings.push(format!(
                "uncommitted documents of task {task} that the run does not see: {files}; commit and push them"
            ));
        }
        match ahead.ok().and_then(|count| count.parse().ok()) {
            None | Some(0_u32) => {}
            Some(1) => {
                warnings.push(format!(
                    "1 commit with documents of task {task} is not pushed: the run does not see it"
                ));
            }
            Some(count) => warnings.push(format!(
                "{count} commits with documents of task {task} are not pushed: the run does not see them"
            )),
        }
        warnings
    }

    async fn query(
        &self,
        git: &Path,
        environment: &Environment,
        arguments: &[impl AsRef<OsStr>],
    ) -> Result<String, String> {
        let mut command = process::command(git);
        for name in ["HOME", "PATH", "XDG_CONFIG_HOME", "LANG"] {
            if let Some(value) = environment.os(name) {
                command.env(name, value);
            }
        }
        command
            .arg("--no-optional-locks")
            .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"])
            .arg("-C")
            .arg(&self.root)
            .args(arguments)
            .env("GIT_TERMINAL_PROMPT", "0");
        process::output_with_timeout(command, GIT_TIMEOUT).await
    }
}

/// Returns the first files that `git status --porcelain` lists.
fn changed_files(text: &str) -> String {
    let files: Vec<&str> =
        text.lines().filter_map(|line| line.trim().split_once(' ')).map(|(_, file)| file.trim()).collect();
    let more = files.len().saturating_sub(MAX_LISTED_FILES);
    let named = files[..files.len().min(MAX_LISTED_FILES)].join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

fn unknown_state(why: &str) -> String {
    format!(
        "cannot detect unpushed or uncommitted changes ({why}); the agent sees only what is on \
         the remote"
    )
}
