//! Brings the branch of a run into the open clone, as a branch of its own.
//!
//! Runs the user's git, which has the user's credentials, without hooks: the branch is what an agent wrote.

use std::path::{Path, PathBuf};
use std::time::Duration;

use orchestrator_contract::{BranchName, Reason, RepositoryUrl, RunName};

use super::{Checkout, git_config, parse_remote, without_credentials};
use crate::config::Environment;
use crate::error::Error;
use crate::process;

/// Time limit of the fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(120);

/// Time limit of each command that only reads or writes refs.
const GIT_TIMEOUT: Duration = Duration::from_secs(60);

/// Exit code of `git switch` that refuses to overwrite files, and has then changed nothing.
const REFUSED: i32 = 1;

/// Maximum number of files to list.
const MAX_LISTED_FILES: usize = 5;

/// Variables that git needs to reach the remote as the user's own commands do.
const GIT_VARS: [&str; 18] = [
    "HOME",
    "PATH",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "SSH_AUTH_SOCK",
    "GIT_SSH_COMMAND",
    "GIT_ASKPASS",
    "GH_TOKEN",
    "GITHUB_TOKEN",
    "SSL_CERT_FILE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "TMPDIR",
];

/// The pushed branch of a run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PushedBranch {
    pub run: RunName,
    /// The repository that has it.
    pub repository: RepositoryUrl,
    pub name: BranchName,
    /// Commit that the run pushed, in hexadecimal; a later attempt may have continued on the branch.
    pub oid: String,
}

/// The branch of a run in the clone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RunBranch {
    pub name: String,
    /// Whether files of git-lfs were left as they are in the commit, without their content.
    pub uses_lfs: bool,
}

/// A clone, with the git program to use there.
struct Clone<'a> {
    git: PathBuf,
    root: &'a Path,
    environment: &'a Environment,
}

impl Checkout {
    /// Fetches the branch of a run and checks it out as a branch of its own.
    ///
    /// An existing branch of that name is checked out as it is.
    ///
    /// # Errors
    /// Returns an error if the clone is not of the run's repository, the branch cannot be fetched or lacks the
    /// run's commit, or files of the working tree would be overwritten. Then nothing has changed.
    pub async fn check_out_run(
        &self,
        environment: &Environment,
        branch: &PushedBranch,
    ) -> Result<RunBranch, Error> {
        let git = process::find("git", environment.os("PATH"))
            .ok_or_else(|| Error::configuration("`git` not found in PATH").with_hint("Install git."))?;
        let clone = Clone { git, root: &self.root, environment };
        let remote = self.remote_of(&branch.repository).ok_or_else(|| {
            let root = self.root.display();
            Error::invalid_request(format!("the clone {root} has no remote for {}", branch.repository))
                .with_hint("Run the command in a clone of the run's repository.")
        })?;
        let own = format!("orchestrator/{}", branch.run);
        let reference = format!("refs/heads/{own}");
        let exists = clone.succeeds(&["rev-parse", "--verify", "--quiet", &reference]).await;
        if !exists {
            clone.fetch(&remote, branch, &reference).await?;
        }
        if let Err((code, text)) = clone.switch(&own).await {
            // After anything but a refusal, the clone may be on the branch already.
            if !exists && code == Some(REFUSED) {
                drop(clone.run(&["update-ref", "-d", &reference], GIT_TIMEOUT).await);
            }
            return Err(cannot_switch(&own, &self.root, &text));
        }
        let file = format!("{reference}:.gitattributes");
        let attributes = clone.run(&["cat-file", "blob", &file], GIT_TIMEOUT).await;
        let uses_lfs = attributes.is_ok_and(|text| text.contains("filter=lfs"));
        Ok(RunBranch { name: own, uses_lfs })
    }

    /// Returns the name of the remote with this repository.
    fn remote_of(&self, repository: &RepositoryUrl) -> Option<String> {
        let config = self.config()?;
        let is_same = |(_, url): &(String, String)| {
            let (url, _) = without_credentials(url);
            parse_remote(&url, &self.root).is_ok_and(|url| url.is_same_repository(repository))
        };
        git_config::remotes(&config).into_iter().find(is_same).map(|(name, _)| name)
    }
}

impl Clone<'_> {
    /// Fetches exactly the branch of the run, and points `reference` to the commit that the run pushed.
    async fn fetch(&self, remote: &str, branch: &PushedBranch, reference: &str) -> Result<(), Error> {
        let fetched = format!("refs/orchestrator/fetch/{}", branch.run);
        let result = self.fetch_to(&fetched, remote, branch, reference).await;
        drop(self.run(&["update-ref", "-d", &fetched], GIT_TIMEOUT).await);
        result
    }

    async fn fetch_to(
        &self,
        fetched: &str,
        remote: &str,
        branch: &PushedBranch,
        reference: &str,
    ) -> Result<(), Error> {
        let PushedBranch { run, repository: _, name, oid } = branch;
        // One of an interrupted command may be left.
        let refspec = format!("+refs/heads/{name}:{fetched}");
        let fetch = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-prune",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--no-auto-maintenance",
            // Updates no remote-tracking branch.
            "--refmap=",
            "--",
            remote,
            &refspec,
        ];
        self.run(&fetch, FETCH_TIMEOUT).await.map_err(|text| {
            let cause = first_line(&text);
            Error::new(Reason::RemoteUnavailable, format!("cannot fetch `{name}` from `{remote}`: {cause}"))
                .with_hint(format!("Check that `git fetch {remote}` works here and that the branch exists."))
        })?;
        // A later attempt may have pushed to the branch.
        if !self.succeeds(&["merge-base", "--is-ancestor", oid, fetched]).await {
            let tip = self.run(&["rev-parse", "--verify", fetched], GIT_TIMEOUT).await.unwrap_or_default();
            return Err(Error::invalid_request(format!(
                "branch `{name}` of `{remote}` is at {tip}, without commit {oid} that `{run}` pushed"
            ))
            .with_hint(format!(
                "The branch was rewritten since; fetch it with `git fetch {remote} {name}` and review it."
            )));
        }
        // The empty value: the branch must not exist.
        let created = self.run(&["update-ref", reference, oid, ""], GIT_TIMEOUT).await;
        created.map(drop).map_err(|text| {
            Error::new(Reason::IoError, format!("cannot write {reference}: {}", first_line(&text)))
        })
    }

    /// Checks out a branch, without time limit: large trees take minutes. Returns the exit code and stderr if
    /// git fails.
    async fn switch(&self, branch: &str) -> Result<(), (Option<i32>, String)> {
        let switch = ["switch", "--quiet", "--no-guess", "--no-overwrite-ignore", branch];
        match process::output_forwarding_signals(self.command(&switch)).await {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                let text = if text.trim().is_empty() { output.status.to_string() } else { text };
                Err((output.status.code(), text))
            }
            Err(error) => Err((None, error.to_string())),
        }
    }

    async fn succeeds(&self, arguments: &[&str]) -> bool {
        self.run(arguments, GIT_TIMEOUT).await.is_ok()
    }

    /// Runs git; returns its stderr if it fails.
    async fn run(&self, arguments: &[&str], limit: Duration) -> Result<String, String> {
        process::full_output_with_timeout(self.command(arguments), limit).await
    }

    /// Returns a git command without hooks.
    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = process::command(&self.git);
        for name in GIT_VARS {
            if let Some(value) = self.environment.os(name) {
                command.env(name, value);
            }
        }
        command
            .args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"])
            .args(["-c", "submodule.recurse=false", "-c", "protocol.ext.allow=never"])
            .arg("-C")
            .arg(self.root)
            .args(arguments)
            .env("GIT_TERMINAL_PROMPT", "0")
            // The branch's `.lfsconfig` names the host that git-lfs would send the user's credentials to.
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            // The messages of other languages cannot be parsed.
            .env("LC_ALL", "C");
        command
    }
}

/// Converts the message of a failed `git switch`.
fn cannot_switch(own: &str, root: &Path, text: &str) -> Error {
    let is_overwrite = text.contains("would be overwritten by");
    if !is_overwrite {
        return Error::invalid_request(format!("cannot check out `{own}`: {}", first_line(text)))
            .with_hint(format!("Check the clone with `git status` in {}.", root.display()));
    }
    let files: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix('\t')).collect();
    let listed = files.iter().take(MAX_LISTED_FILES).copied().collect::<Vec<&str>>().join(", ");
    let more = files.len().saturating_sub(MAX_LISTED_FILES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Error::invalid_request(format!("`{own}` would overwrite changes in your working tree: {listed}{more}"))
        .with_hint("Commit, stash or move them, then check out again.")
}

fn first_line(text: &str) -> &str {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("no message");
    let line = line.trim();
    line.strip_prefix("error: ").or_else(|| line.strip_prefix("fatal: ")).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overwritten_files_are_named_in_one_sentence() {
        let text = "error: Your local changes to the following files would be overwritten by checkout:\n\
                    \tsrc/lib.rs\n\tREADME.md\nPlease commit your changes or stash them.\nAborting\n";
        let error = cannot_switch("orchestrator/x", Path::new("/r"), text);
        assert_eq!(
            error.message(),
            "`orchestrator/x` would overwrite changes in your working tree: src/lib.rs, README.md"
        );
        let error = cannot_switch("orchestrator/x", Path::new("/r"), "fatal: index.lock exists\n");
        assert_eq!(error.message(), "cannot check out `orchestrator/x`: index.lock exists");
    }
}
