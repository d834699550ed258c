//! `checkout`: the branch of a run in the open clone.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::{Bench, CommandOutput, eventually};

/// Runs git in a folder and returns its output.
fn git(folder: &Path, arguments: &str) -> String {
    #[expect(clippy::disallowed_methods, reason = "the clone is prepared here")]
    let mut git = Command::new("git");
    git.current_dir(folder).args(["-c", "user.name=x", "-c", "user.email=x@example.com"]);
    git.env("GIT_CONFIG_GLOBAL", "/dev/null");
    let output = git.args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "git {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Sets a value with spaces.
fn git_config(folder: &Path, name: &str, value: &str) {
    #[expect(clippy::disallowed_methods, reason = "the clone is prepared here")]
    let set = Command::new("git").current_dir(folder).args(["config", name, value]).status().unwrap();
    assert!(set.success());
}

/// A run that pushed branch `b`, and a clone of its repository whose hooks leave a file.
struct Pushed {
    bench: Bench,
    run: String,
    /// Commit that it pushed.
    oid: String,
    remote: PathBuf,
    clone: PathBuf,
}

impl Pushed {
    fn new() -> Self {
        let bench = Bench::new();
        let (remote, clone) = (bench.path("remote"), bench.path("clone"));
        std::fs::create_dir(&remote).unwrap();
        git(&remote, "init --quiet --initial-branch=main");
        std::fs::write(remote.join("a.txt"), "old\n").unwrap();
        git(&remote, "add a.txt");
        git(&remote, "commit --quiet --message base");
        git(bench.path("").as_path(), "clone --quiet remote clone");
        git(&remote, "switch --quiet --create b");
        std::fs::write(remote.join("a.txt"), "new\n").unwrap();
        std::fs::write(remote.join(".env"), "theirs\n").unwrap();
        std::fs::write(remote.join(".gitattributes"), "*.bin filter=lfs\n").unwrap();
        git(&remote, "add .env .gitattributes a.txt");
        git(&remote, "commit --quiet --message work");
        git(&remote, "branch other");
        let oid = git(&remote, "rev-parse HEAD");
        // A later attempt continues on the branch.
        git(&remote, "commit --quiet --allow-empty --message later");
        for hook in ["post-checkout", "reference-transaction", "post-merge"] {
            let file = clone.join(".git/hooks").join(hook);
            std::fs::write(&file, format!("#!/bin/sh\ntouch '{}'\n", bench.path("hook-ran").display()))
                .unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let submit =
            format!("submit --task 1 --service trader --repository-url {} --wait -o json", remote.display());
        let done = bench.command(&submit).env("ORCHESTRATOR_TEST_OID", oid.trim()).output().unwrap();
        let run = CommandOutput::from(done).json()["run"].as_str().unwrap().to_owned();
        Self { bench, run, oid: oid.trim().to_owned(), remote, clone }
    }

    fn checkout(&self) -> CommandOutput {
        self.bench.command("checkout").current_dir(&self.clone).output().unwrap().into()
    }
}

#[test]
fn branch_of_run_is_checked_out_as_branch_of_its_own() {
    let pushed = Pushed::new();
    let Pushed { run, oid, clone, bench, .. } = &pushed;
    let refs = git(clone, "for-each-ref");
    std::fs::write(clone.join("notes.txt"), "mine\n").unwrap();
    let done = pushed.checkout();
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stdout.contains(&format!("checked out orchestrator/{run}")), "{done:?}");
    assert!(done.stderr.contains("git lfs pull"), "{done:?}");
    assert_eq!(git(clone, "branch --show-current"), format!("orchestrator/{run}\n"));
    assert_eq!(git(clone, "rev-parse HEAD").trim(), oid, "not what a later attempt pushed");
    assert_eq!(std::fs::read_to_string(clone.join("a.txt")).unwrap(), "new\n");
    assert_eq!(std::fs::read_to_string(clone.join("notes.txt")).unwrap(), "mine\n");
    let others: String = git(clone, "for-each-ref")
        .lines()
        .filter(|line| !line.contains("orchestrator/"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(others, refs, "no other ref changes");
    assert!(!clone.join(".git/FETCH_HEAD").exists());
    assert!(!bench.path("hook-ran").exists(), "no hook runs");
    // Again: the branch is checked out as it is, with what the user committed there.
    git(clone, "commit --quiet --allow-empty --no-verify --message mine");
    git(clone, "switch --quiet main");
    let tip = git(clone, &format!("rev-parse orchestrator/{run}"));
    assert_eq!(pushed.checkout().code, 0);
    assert_eq!(git(clone, "rev-parse HEAD"), tip);
}

#[test]
fn checkout_refuses_to_overwrite_changes() {
    let pushed = Pushed::new();
    let clone = &pushed.clone;
    std::fs::write(clone.join("a.txt"), "mine\n").unwrap();
    let refs = git(clone, "for-each-ref");
    let done = pushed.checkout();
    assert_eq!(done.code, 64, "{done:?}");
    assert!(done.stderr.contains("would overwrite changes in your working tree: a.txt"), "{done:?}");
    assert_eq!(std::fs::read_to_string(clone.join("a.txt")).unwrap(), "mine\n");
    assert_eq!(git(clone, "branch --show-current"), "main\n");
    assert_eq!(git(clone, "for-each-ref"), refs);
}

#[test]
fn checkout_keeps_ignored_files_of_user() {
    let pushed = Pushed::new();
    let clone = &pushed.clone;
    std::fs::write(clone.join(".git/info/exclude"), ".env\n").unwrap();
    std::fs::write(clone.join(".env"), "SECRET=mine\n").unwrap();
    let refs = git(clone, "for-each-ref");
    let done = pushed.checkout();
    assert_eq!(done.code, 64, "{done:?}");
    assert!(done.stderr.contains("would overwrite changes in your working tree: .env"), "{done:?}");
    assert_eq!(std::fs::read_to_string(clone.join(".env")).unwrap(), "SECRET=mine\n");
    assert_eq!(git(clone, "for-each-ref"), refs);
}

#[test]
fn checkout_refuses_branch_without_commit_of_run() {
    let pushed = Pushed::new();
    let Pushed { oid, remote, clone, .. } = &pushed;
    let refs = git(clone, "for-each-ref");
    git(remote, "checkout --quiet --orphan rewritten");
    git(remote, "commit --quiet --message other");
    git(remote, "branch --quiet --force b");
    let tip = git(remote, "rev-parse b");
    let done = pushed.checkout();
    assert_eq!(done.code, 64, "{done:?}");
    assert!(done.stderr.contains(oid) && done.stderr.contains(tip.trim()), "{done:?}");
    assert_eq!(git(clone, "for-each-ref"), refs, "nothing is left");
    assert_eq!(git(clone, "branch --show-current"), "main\n");
}

#[test]
fn interrupted_checkout_ends_git_and_leaves_no_lock() {
    let pushed = Pushed::new();
    let Pushed { bench, run, clone, .. } = &pushed;
    // A filter that waits: git is checking out files.
    let started = bench.path("filter-started");
    let release = bench.path("release");
    let (file, end) = (started.display(), release.display());
    let filter = format!("touch {file}; until [ -e {end} ]; do sleep 0.02; done; cat");
    git_config(clone, "filter.slow.smudge", &filter);
    std::fs::write(clone.join(".git/info/attributes"), "a.txt filter=slow\n").unwrap();
    let checkout = bench.command("checkout").current_dir(clone).spawn().unwrap();
    eventually("the checkout to write files", || started.exists());
    let pid = rustix::process::Pid::from_child(&checkout);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    eventually("git to remove its lock", || !clone.join(".git/index.lock").exists());
    std::fs::write(&release, "").unwrap();
    let done = CommandOutput::from(checkout.wait_with_output().unwrap());
    assert!(done.code != 0 && done.stderr.contains("signal: 2"), "{done:?}");
    git(clone, &format!("rev-parse --verify orchestrator/{run}"));
}

#[test]
fn checkout_needs_clone_of_repository_with_pushed_work() {
    let pushed = Pushed::new();
    git(&pushed.clone, "remote set-url origin https://github.com/myorg/other");
    let done = pushed.checkout();
    assert!(done.code == 64 && done.stderr.contains("has no remote for"), "{done:?}");
    let done = pushed.bench.command("checkout").current_dir(pushed.bench.path("home")).output().unwrap();
    let done = CommandOutput::from(done);
    assert!(done.code == 64 && done.stderr.contains("is not in a git clone"), "{done:?}");
    let kept = pushed
        .bench
        .command("submit --task 2 --service trader --wait")
        .env("ORCHESTRATOR_TEST_WORK", "workspace")
        .output();
    assert!(kept.unwrap().status.success());
    let named = pushed.bench.command("checkout trader-claude-agent-1-task2-attempt1");
    let done = CommandOutput::from({ named }.current_dir(&pushed.clone).output().unwrap());
    assert!(done.code == 64 && done.stderr.contains("is not on the remote"), "{done:?}");
    // Without a name, it is the newest run that is pushed.
    git(&pushed.clone, &format!("remote set-url origin {}", pushed.remote.display()));
    let done = pushed.checkout();
    assert!(done.code == 0 && done.stdout.contains(&pushed.run), "{done:?}");
}
