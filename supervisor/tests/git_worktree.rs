//! Checkout, snapshot and import, compared with the git program.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use orchestrator_contract::task::{CleanMode, CommitIdentity};
use orchestrator_contract::{BranchName, RepositoryUrl};
use supervisor::git::checkout::{Checkout, CheckoutStats, checkout};
use supervisor::git::import::{self, History};
use supervisor::git::snapshot::{self, Snapshot};
use supervisor::git::{ControlRepository, NewObject, Oid, StatCache};
use supervisor::process::{Environment, ProcessGroup, blocking_command};

fn git(folder: &Path, arguments: &[&str]) -> String {
    let environment: Environment =
        [("PATH", "/usr/bin:/bin"), ("HOME", "/nonexistent"), ("GIT_CONFIG_NOSYSTEM", "1"), ("LC_ALL", "C")]
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
    let output = blocking_command("git", &environment, ProcessGroup::Inherit)
        .arg("-C")
        .arg(folder)
        .args([
            "-c",
            "user.name=agent",
            "-c",
            "user.email=agent@example.org",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn write(file: PathBuf, text: impl AsRef<[u8]>) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

struct Fixture {
    folder: tempfile::TempDir,
    source: PathBuf,
    worktree: PathBuf,
    control: ControlRepository,
    identity: CommitIdentity,
}

impl Fixture {
    fn new(make: impl FnOnce(&Path)) -> (Self, Oid) {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::create_dir(&source).unwrap();
        git(&source, &["init", "-q"]);
        make(&source);
        git(&source, &["add", "-A"]);
        git(&source, &["commit", "-qm", "first"]);
        let url = RepositoryUrl::new(source.to_str().unwrap()).unwrap();
        let path = folder.path().join("target.git");
        let control = ControlRepository::open(&path, &url).unwrap().into_repository();
        let identity = CommitIdentity { name: "agent".into(), email: "agent@example.org".into() };
        let worktree = folder.path().join("work");
        let fixture = Self { folder, source, worktree, control, identity };
        let head = fixture.fetch();
        (fixture, head)
    }

    fn fetch(&self) -> Oid {
        git(
            &self.source,
            &["push", "-q", "-f", self.control.path().to_str().unwrap(), "HEAD:refs/heads/base"],
        );
        self.control.resolve_ref("refs/heads/base").unwrap().unwrap()
    }

    fn checkout(&self, commit: Oid, clean: CleanMode, cache: &StatCache) -> CheckoutStats {
        let (branch, base) = (BranchName::new("work/one").unwrap(), BranchName::new("main").unwrap());
        let base = Some((&base, commit));
        let request = Checkout { commit, branch: &branch, base, identity: &self.identity, clean, cache };
        checkout(&self.control, &self.worktree, &request).unwrap()
    }

    fn snapshot(&self, base: Oid, cache: &StatCache) -> Snapshot {
        snapshot::capture(&self.control, &self.worktree, self.control.commit_tree(base).unwrap(), None, cache)
            .unwrap()
    }

    fn import(&self, base: Oid) -> import::ImportedHistory {
        import::import_commits(&self.control, &self.worktree, base, &self.identity, self.folder.path())
            .unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.worktree.join(name)
    }
}

fn rich(root: &Path) {
    write(root.join("README.md"), "hello\n");
    write(root.join("src/deep/main.rs"), "fn main() {}\n");
    write(root.join("run.sh"), "#!/bin/sh\n");
    fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("src/deep", root.join("link")).unwrap();
    write(root.join(".gitignore"), "target/\n*.log\n");
    write(root.join("odd\nname"), "x");
    write(root.join(std::ffi::OsStr::from_bytes(b"bytes-\xff")), "y");
    write(root.join("kept.log"), "tracked although ignored\n");
    git(root, &["add", "-f", "kept.log"]);
}

#[test]
fn clean_checkout_snapshot_equals_commit_tree() {
    let (fixture, head) = Fixture::new(rich);
    fixture.checkout(head, CleanMode::Untracked, &StatCache::default());
    assert_eq!(git(&fixture.worktree, &["status", "--porcelain"]), "");
    assert_eq!(git(&fixture.worktree, &["symbolic-ref", "HEAD"]), "refs/heads/work/one");
    assert_eq!(git(&fixture.worktree, &["rev-parse", "origin/main"]), head.to_string());
    let snapshot = fixture.snapshot(head, &StatCache::default());
    assert_eq!(snapshot.tree, fixture.control.commit_tree(head).unwrap());
}

#[test]
fn line_endings_are_converted_like_git() {
    let (fixture, head) = Fixture::new(|root| {
        write(root.join(".gitattributes"), "*.bat text eol=crlf\n*.txt text=auto\n*.id ident\n");
        write(root.join("a.bat"), "one\r\ntwo\r\n");
        write(root.join("b.txt"), "one\ntwo\n");
        write(root.join("c.id"), "$Id$\n");
    });
    fixture.checkout(head, CleanMode::Untracked, &StatCache::default());
    assert_eq!(fs::read(fixture.path("a.bat")).unwrap(), b"one\r\ntwo\r\n");
    assert_eq!(git(&fixture.worktree, &["status", "--porcelain"]), "");
    write(fixture.path("new.bat"), "x\r\ny\r\n");
    let snapshot = fixture.snapshot(head, &StatCache::default());
    git(&fixture.worktree, &["add", "-A"]);
    assert_eq!(git(&fixture.worktree, &["write-tree"]), snapshot.tree.to_string());
}

#[test]
fn snapshot_tree_equals_git_write_tree() {
    let (fixture, head) = Fixture::new(rich);
    let cache = fixture.checkout(head, CleanMode::Untracked, &StatCache::default()).cache;
    write(fixture.path("README.md"), "changed\n");
    write(fixture.path("kept.log"), "changed\n");
    write(fixture.path("other.log"), "ignored\n");
    write(fixture.path("target/out"), "ignored\n");
    fs::remove_file(fixture.path("run.sh")).unwrap();
    fs::remove_file(fixture.path("link")).unwrap();
    write(fixture.path("link/now-a-folder"), "z");
    let snapshot = fixture.snapshot(head, &cache);
    git(&fixture.worktree, &["add", "-A"]);
    assert_eq!(git(&fixture.worktree, &["write-tree"]), snapshot.tree.to_string());
}

#[test]
fn nested_repositories_become_files_without_following_symlinks() {
    let (fixture, head) = Fixture::new(rich);
    let cache = fixture.checkout(head, CleanMode::Untracked, &StatCache::default()).cache;
    write(fixture.path("junk/.git/x"), "junk\n");
    write(fixture.path("junk/y"), "y\n");
    fs::remove_dir_all(fixture.path("src")).unwrap();
    let outside = fixture.folder.path().join("outside");
    write(outside.join("deep/main.rs"), "outside\n");
    std::os::unix::fs::symlink(&outside, fixture.path("src")).unwrap();
    let snapshot = fixture.snapshot(head, &cache);
    let paths: Vec<_> = snapshot.changed.iter().map(|change| String::from_utf8_lossy(&change.path)).collect();
    assert_eq!(paths, ["junk/y", "src", "src/deep/main.rs"]);
    assert_eq!(snapshot.nested_repositories, [b"junk".to_vec()]);
    fixture.checkout(head, CleanMode::Untracked, &snapshot.cache);
    assert!(fixture.path("src").symlink_metadata().unwrap().is_dir() && !fixture.path("junk").exists());
    assert_eq!(fs::read(outside.join("deep/main.rs")).unwrap(), b"outside\n");
    assert_eq!(git(&fixture.worktree, &["status", "--porcelain"]), "");
}

#[test]
fn warm_checkout_removes_untracked_but_keeps_build_output() {
    let (fixture, head) = Fixture::new(rich);
    let cache = fixture.checkout(head, CleanMode::Untracked, &StatCache::default()).cache;
    write(fixture.path("target/out"), "build output\n");
    write(fixture.path("stray"), "untracked\n");
    write(fixture.path("README.md"), "other\n");
    let again = fixture.checkout(head, CleanMode::Untracked, &cache);
    assert!(fixture.path("target/out").exists() && !fixture.path("stray").exists());
    assert_eq!(git(&fixture.worktree, &["status", "--porcelain"]), "");
    fixture.checkout(head, CleanMode::All, &again.cache);
    assert!(!fixture.path("target").exists());
}

#[test]
fn imported_agent_commits_keep_their_ids() {
    let (fixture, head) = Fixture::new(rich);
    fixture.checkout(head, CleanMode::Untracked, &StatCache::default());
    write(fixture.path("new"), "one\n");
    git(&fixture.worktree, &["add", "-A"]);
    git(&fixture.worktree, &["commit", "-qm", "mine"]);
    write(fixture.path("new"), "two\n");
    git(&fixture.worktree, &["commit", "-qam", "mine too", "--author=Eve <eve@example.org>"]);
    git(&fixture.worktree, &["repack", "-adlq"]);
    let tip = Oid::from_str(&git(&fixture.worktree, &["rev-parse", "HEAD"])).unwrap();
    let other_authors = vec!["Eve <eve@example.org>".to_owned()];
    assert_eq!(
        fixture.import(head).head,
        History::Usable { head: tip, descends_from_base: true, other_authors }
    );
    assert_eq!(fixture.control.ahead(head, tip).unwrap(), 2);
    git(fixture.control.path(), &["fsck", "--strict"]);
    git(&fixture.worktree, &["checkout", "-q", "--orphan", "other"]);
    git(&fixture.worktree, &["commit", "-qm", "rewritten"]);
    let History::Usable { descends_from_base, .. } = fixture.import(head).head else { panic!() };
    assert!(!descends_from_base);
}

#[test]
fn damaged_git_directory_yields_unusable_history() {
    let (fixture, head) = Fixture::new(rich);
    for damage in ["deleted", "file", "orphan", "missing"] {
        fixture.checkout(head, CleanMode::Untracked, &StatCache::default());
        let git = fixture.path(".git");
        match damage {
            "orphan" => fs::write(git.join("HEAD"), "ref: refs/heads/none\n").unwrap(),
            "missing" => fs::write(git.join("HEAD"), "12345678901234567890".repeat(2)).unwrap(),
            _ => fs::remove_dir_all(&git).unwrap(),
        }
        if damage == "file" {
            fs::write(&git, "gitdir: /etc").unwrap();
        }
        let imported = fixture.import(head);
        assert!(matches!(imported.head, History::Unusable { .. }), "{damage}: {imported:?}");
    }
}

#[test]
fn reverted_new_objects_are_visited_once() {
    let (fixture, base) = Fixture::new(rich);
    write(fixture.source.join("secret"), "token\n");
    git(&fixture.source, &["add", "-A"]);
    git(&fixture.source, &["commit", "-qm", "oops"]);
    git(&fixture.source, &["revert", "--no-edit", "HEAD"]);
    let head = fixture.fetch();
    let mut seen = Vec::new();
    let mut visit = |object: NewObject<'_>| {
        seen.push(match object {
            NewObject::Commit { .. } => "commit".to_owned(),
            NewObject::Path(path) => format!("path {}", String::from_utf8_lossy(path)),
            NewObject::Blob { data, .. } => format!("blob {}", String::from_utf8_lossy(data).trim()),
        });
        std::ops::ControlFlow::Continue(())
    };
    fixture.control.walk_new(Some(base), head, &mut visit).unwrap();
    assert_eq!(seen, ["commit", "path secret", "blob token", "commit"]);
    let bundle = fixture.folder.path().join("work.bundle");
    fixture.control.write_bundle(&[base], &[("refs/heads/x", head)], &bundle).unwrap();
    git(&fixture.source, &["bundle", "verify", bundle.to_str().unwrap()]);
}
