//! `checkout`: the branch of a run in the open clone.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::{Bench, CommandOutput};

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

/// A run that pushed branch `b`, and a clone of its repository whose hooks leave a file.
struct Pushed {
    bench: Bench,
    run: String,
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
        git(&remote, "commit --quiet --all --message work");
        git(&remote, "branch other");
        for hook in ["post-checkout", "reference-transaction", "post-merge"] {
            let file = clone.join(".git/hooks").join(hook);
            std::fs::write(&file, format!("#!/bin/sh\ntouch '{}'\n", bench.path("hook-ran").display()))
                .unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let submit =
            format!("submit --task 1 --service trader --repository-url {} --wait -o json", remote.display());
        let run = bench.run(&submit).json()["run"].as_str().unwrap().to_owned();
        Self { bench, run, clone }
    }

    fn checkout(&self) -> CommandOutput {
        self.bench.command("checkout").current_dir(&self.clone).output().unwrap().into()
    }
}

#[test]
fn branch_of_run_is_checked_out_as_branch_of_its_own() {
    let pushed = Pushed::new();
    let Pushed { run, clone, bench } = &pushed;
    let refs = git(clone, "for-each-ref");
    std::fs::write(clone.join("notes.txt"), "mine\n").unwrap();
    let done = pushed.checkout();
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stdout.contains(&format!("checked out orchestrator/{run}")), "{done:?}");
    assert_eq!(git(clone, "branch --show-current"), format!("orchestrator/{run}\n"));
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
    let Pushed { run: _, clone, bench: _ } = &pushed;
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
    let done = pushed.checkout();
    assert!(done.code == 64 && done.stderr.contains("is not on the remote"), "{done:?}");
}
