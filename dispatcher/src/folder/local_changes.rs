//! What a run that clones a branch does not see of the open folder: commits that were not pushed,
//! and changes that were not committed.
//!
//! Told by the user's own git, which is asked not to write anything, not even its index
//! (git(1), `--no-optional-locks`), and to run no hook and no file system monitor.

use std::path::Path;
use std::time::Duration;

use orchestrator_contract::{BranchName, WorkingDirectory};

use super::Checkout;
use crate::config::Environment;
use crate::process;

/// How long git may take: whoever asks for documents waits for the answer.
const LIMIT: Duration = Duration::from_millis(700);

/// How many files are named.
const NAMED: usize = 5;

impl Checkout {
    /// What somebody should know about a run that reads `branch` from the remote, a sentence each.
    pub async fn warnings(
        &self,
        environment: &Environment,
        branch: &BranchName,
        tasks: Option<&WorkingDirectory>,
    ) -> Vec<String> {
        let Some(git) = process::find("git", environment.os("PATH")) else {
            return vec![unknown_state("there is no `git` in PATH")];
        };
        let folder = tasks.map_or("", WorkingDirectory::relative);
        let tasks = Path::new(folder).join(".taskmaster").display().to_string();
        let remote = format!("refs/remotes/origin/{branch}");
        let ahead = format!("{remote}..refs/heads/{branch}");
        let known = ["rev-parse", "--verify", "--quiet", &remote];
        let count = ["rev-list", "--count", &ahead];
        let status = ["status", "--porcelain", "--untracked-files=all", "--", &tasks];
        let (known, ahead, changed) = tokio::join!(
            self.ask(&git, environment, &known),
            self.ask(&git, environment, &count),
            self.ask(&git, environment, &status),
        );
        let mut told = Vec::new();
        match (known, ahead) {
            (Err(_), _) => told.push(format!(
                "as far as this clone knows, the branch `{branch}` is not on the remote: push it, or the run \
                 will not find it"
            )),
            (Ok(_), Ok(count)) if count == "0" => {}
            (Ok(_), Ok(count)) if count == "1" => {
                told.push(format!("a commit of `{branch}` is not pushed: the agent does not see it"));
            }
            (Ok(_), Ok(count)) => {
                told.push(format!(
                    "{count} commits of `{branch}` are not pushed: the agent does not see them"
                ));
            }
            (Ok(_), Err(error)) => told.push(unknown_state(&error)),
        }
        match changed {
            Ok(text) if text.is_empty() => {}
            Ok(text) => {
                let files: Vec<&str> = text
                    .lines()
                    .filter_map(|line| line.trim().split_once(' '))
                    .map(|(_, file)| file.trim())
                    .collect();
                let more = files.len().saturating_sub(NAMED);
                let named = files[..files.len().min(NAMED)].join(", ");
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                told.push(format!(
                    "changes that are not committed, which the agent does not see: {named}{more}"
                ));
            }
            Err(error) => told.push(unknown_state(&error)),
        }
        told
    }

    async fn ask(&self, git: &Path, environment: &Environment, arguments: &[&str]) -> Result<String, String> {
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
        process::output_with_timeout(command, LIMIT).await
    }
}

fn unknown_state(why: &str) -> String {
    format!(
        "whether everything is committed and pushed could not be told ({why}): the agent sees only what is on \
         the remote"
    )
}
