//! Creates and inspects repositories with the git program.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::GitServer;

impl GitServer {
    /// Creates `owner/name` with one commit of these files and returns its oid.
    pub fn create(&self, repository: &str, branch: &str, files: &[(&str, &str)]) -> String {
        let bare = self.path(repository);
        fs::create_dir_all(&bare).expect("a folder");
        git(&bare, &["init", "--quiet", "--bare", "--initial-branch", branch, "."]);
        // The reflog, for tests that inspect moved refs.
        git(&bare, &["config", "core.logAllRefUpdates", "always"]);
        self.commit(repository, branch, "Begin", files)
    }

    /// Commits files to a branch, created from the default branch if it is new.
    pub fn commit(&self, repository: &str, branch: &str, message: &str, files: &[(&str, &str)]) -> String {
        let work = tempfile::tempdir().expect("a folder");
        let bare = self.path(repository);
        git(work.path(), &["clone", "--quiet", &bare.to_string_lossy(), "."]);
        if self.tips(repository).contains_key(branch) {
            git(work.path(), &["checkout", "--quiet", branch]);
        } else if !self.tips(repository).is_empty() {
            git(work.path(), &["checkout", "--quiet", "-b", branch]);
        }
        for (path, text) in files {
            let path = work.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        git(work.path(), &["add", "--all", "--force"]);
        git(work.path(), &["commit", "--quiet", "--allow-empty", "--message", message]);
        git(work.path(), &["push", "--quiet", "origin", &format!("HEAD:refs/heads/{branch}")]);
        git(work.path(), &["rev-parse", "HEAD"])
    }

    /// Commits the worktree of a clone, with symlinks and modes, and moves the branch to it.
    pub fn commit_tree(&self, repository: &str, branch: &str, clone: &Path) {
        git(clone, &["add", "--all", "--force"]);
        git(clone, &["commit", "--quiet", "--message", "As it is"]);
        let bare = self.path(repository);
        git(clone, &["push", "--quiet", &bare.to_string_lossy(), &format!("HEAD:refs/heads/{branch}")]);
    }

    /// Returns the branches and their oids.
    pub fn tips(&self, repository: &str) -> BTreeMap<String, String> {
        refs(&self.path(repository), "refs/heads/", "%(refname:strip=2)")
    }

    /// Returns every ref and its oid.
    pub fn refs(&self, repository: &str) -> BTreeMap<String, String> {
        refs(&self.path(repository), "refs/", "%(refname)")
    }

    /// Returns the branch that `HEAD` names.
    pub fn default_branch(&self, repository: &str) -> String {
        git(&self.path(repository), &["symbolic-ref", "--short", "HEAD"])
    }

    /// Returns a file of a branch, if it exists.
    pub fn read(&self, repository: &str, branch: &str, path: &str) -> Option<String> {
        let output = run(&self.path(repository), &["show", &format!("refs/heads/{branch}:{path}")]);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Returns the number of commits of `head` that `base` lacks.
    pub fn ahead(&self, repository: &str, base: &str, head: &str) -> usize {
        let range = format!("refs/heads/{base}..refs/heads/{head}");
        git(&self.path(repository), &["rev-list", "--count", &range]).parse().expect("a number")
    }

    /// Returns whether the second commit contains the first.
    pub fn is_ancestor(&self, repository: &str, first: &str, second: &str) -> bool {
        run(&self.path(repository), &["merge-base", "--is-ancestor", first, second]).status.success()
    }

    /// Returns the output of a git command in a repository.
    pub fn ask(&self, repository: &str, arguments: &[&str]) -> String {
        git(&self.path(repository), arguments)
    }

    /// Clones a branch into an empty directory.
    pub fn clone_fresh(&self, repository: &str, branch: &str, into: &Path) {
        fs::create_dir_all(into).expect("a folder");
        let bare = self.path(repository);
        git(into, &["clone", "--quiet", "--branch", branch, &bare.to_string_lossy(), "."]);
    }

    /// Declines every push with a message, as a hook of the host does.
    pub fn decline_pushes(&self, repository: &str, message: &str) {
        let quoted = message.replace('\'', r"'\''");
        self.hook(repository, "pre-receive", &format!("echo '{quoted}' >&2; exit 1"));
    }

    /// Declines every push that changes a path, as GitHub does with workflows.
    pub fn decline_path(&self, repository: &str, path: &str, message: &str) {
        let quoted = message.replace('\'', r"'\''");
        let script = format!(
            "while read -r _ new _; do git ls-tree -r --name-only \"$new\" | grep -qxF '{path}' && \
             {{ echo '{quoted}' >&2; exit 1; }}; done; exit 0"
        );
        self.hook(repository, "pre-receive", &script);
    }

    /// Deletes a branch.
    pub fn delete(&self, repository: &str, branch: &str) {
        git(&self.path(repository), &["update-ref", "-d", &format!("refs/heads/{branch}")]);
    }

    /// Declines pushes to one branch, as branch protection does.
    pub fn protect(&self, repository: &str, branch: &str) {
        let message = "GH006: Protected branch update failed";
        let script =
            format!("[ \"$1\" != 'refs/heads/{branch}' ] || {{ echo '{message} for '$1 >&2; exit 1; }}");
        self.hook(repository, "update", &script);
    }

    fn hook(&self, repository: &str, name: &str, script: &str) {
        let path = self.path(repository).join("hooks").join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a hook");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("an executable hook");
    }

    /// Returns the path of the bare repository.
    pub fn path(&self, repository: &str) -> PathBuf {
        self.root().join(format!("{repository}.git"))
    }
}

fn refs(bare: &Path, under: &str, name: &str) -> BTreeMap<String, String> {
    let listed = git(bare, &["for-each-ref", &format!("--format={name} %(objectname)"), under]);
    let pairs = listed.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(name, oid)| (name.to_owned(), oid.to_owned())).collect()
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Runs git without system or user configuration and with fixed dates.
pub(super) fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(folder).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.envs([
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_AUTHOR_NAME", "Ada"),
        ("GIT_AUTHOR_EMAIL", "ada@example.com"),
        ("GIT_AUTHOR_DATE", "2026-01-02T03:04:05Z"),
        ("GIT_COMMITTER_NAME", "Ada"),
        ("GIT_COMMITTER_EMAIL", "ada@example.com"),
        ("GIT_COMMITTER_DATE", "2026-01-02T03:04:05Z"),
    ]);
    command.output().expect("git starts")
}
