//! Checkout, snapshot and import, compared with the git program.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use orchestrator_contract::task::{CleanMode, CommitIdentity};
use orchestrator_contract::{BranchName, RepositoryUrl};
use supervisor::git::checkout::{self, Checkout, CheckoutStats, checkout, make_root};
use supervisor::git::import::{self, History};
use supervisor::git::snapshot::{self, Snapshot};
use supervisor::git::{ControlRepository, NewObject, Oid, StatCache};
use supervisor::guest::{Guest, GuestOptions};
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
        make_root(&self.worktree).unwrap();
        checkout(&self.control, &self.guest(), &request).unwrap()
    }

    fn guest(&self) -> Guest {
        let program = Path::new(env!("CARGO_BIN_EXE_supervisor"));
        Guest::start(program, &self.worktree, GuestOptions::default()).unwrap()
    }

    fn snapshot(&self, base: Oid, cache: &StatCache) -> Snapshot {
        let tree = self.control.commit_tree(base).unwrap();
        snapshot::capture(&self.control, &self.guest(), tree, None, cache).unwrap()
    }

    fn import(&self, base: Oid) -> import::ImportedHistory {
        let scratch = self.folder.path();
        import::import_commits(&self.control, &self.guest(), base, &self.identity, scratch).unwrap()
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
    fixture.control.walk_new(Some(base), head, &|| true, &mut visit).unwrap();
    assert_eq!(seen, ["commit", "path secret", "blob token", "commit"]);
    let bundle = fixture.folder.path().join("work.bundle");
    fixture.control.write_bundle(&[base], &[("refs/heads/x", head)], &bundle).unwrap();
    git(&fixture.source, &["bundle", "verify", bundle.to_str().unwrap()]);
}

/// Writes a tree object with raw entries (mode, name, object) and commits it; returns the commit.
fn raw_commit(fixture: &Fixture, entries: &[(&str, &[u8], Oid)]) -> Oid {
    let mut content = Vec::new();
    for (mode, name, oid) in entries {
        content.extend_from_slice(mode.as_bytes());
        content.push(b' ');
        content.extend_from_slice(name);
        content.push(0);
        content.extend_from_slice(oid.as_bytes());
    }
    let file = fixture.folder.path().join("raw-tree");
    fs::write(&file, content).unwrap();
    let control = fixture.control.path();
    let tree = git(control, &["hash-object", "-w", "--literally", "-t", "tree", file.to_str().unwrap()]);
    Oid::from_str(&git(control, &["commit-tree", "-m", "raw", &tree])).unwrap()
}

fn blob_of(fixture: &Fixture) -> Oid {
    let file = fixture.folder.path().join("raw-blob");
    fs::write(&file, "escaped\n").unwrap();
    Oid::from_str(&git(fixture.control.path(), &["hash-object", "-w", file.to_str().unwrap()])).unwrap()
}

#[test]
fn tree_with_refused_name_is_not_written_at_all() {
    let (fixture, _) = Fixture::new(rich);
    let blob = blob_of(&fixture);
    let names: &[&[u8]] = &[
        b"..",
        b".",
        b".git",
        b".GIT",
        b"git~1",
        b"..\\x",
        b".git.",
        b".git::$INDEX_ALLOCATION",
        b"../../home.bashrc",
        ".g\u{200c}it".as_bytes(),
    ];
    for name in names {
        let commit = raw_commit(&fixture, &[("100644", b"aaa", blob), ("100644", name, blob)]);
        make_root(&fixture.worktree).unwrap();
        let (branch, cache) = (BranchName::new("work/one").unwrap(), StatCache::default());
        let clean = CleanMode::Untracked;
        let request = Checkout {
            commit,
            branch: &branch,
            base: None,
            identity: &fixture.identity,
            clean,
            cache: &cache,
        };
        let error = checkout(&fixture.control, &fixture.guest(), &request).unwrap_err();
        assert_eq!(error.reason(), orchestrator_contract::Reason::UnsupportedRepository, "{error}");
        let exported = fixture.folder.path().join("exports/tree");
        fs::create_dir_all(exported.parent().unwrap()).unwrap();
        checkout::export_tree(&fixture.control, commit, &exported).unwrap_err();
        assert!(!fixture.path("aaa").exists() && !exported.exists(), "{}", String::from_utf8_lossy(name));
    }
    let folder = git(fixture.control.path(), &["write-tree"]);
    let same = Oid::from_str(&folder).unwrap();
    let twice = raw_commit(&fixture, &[("120000", b"a", blob), ("40000", b"a", same)]);
    checkout::export_tree(&fixture.control, twice, &fixture.folder.path().join("exports/twice")).unwrap_err();
}

#[test]
fn unusual_entries_cost_only_themselves() {
    let (fixture, head) = Fixture::new(rich);
    let cache = fixture.checkout(head, CleanMode::Untracked, &StatCache::default()).cache;
    let folder = fixture.path("caf").with_file_name(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    write(folder.join("menu"), "saved\n");
    let pipe: Environment = [("PATH".into(), "/usr/bin:/bin".into())].into_iter().collect();
    let made = blocking_command("mkfifo", &pipe, ProcessGroup::Inherit).arg(fixture.path("pipe")).status();
    assert!(made.unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(fixture.path("socket")).unwrap();
    fs::File::create(fixture.path("sparse")).unwrap().set_len(300 << 30).unwrap();
    write(fixture.path("git~1/x"), "x");
    write(fixture.path("closed/file"), "in a closed folder\n");
    fs::set_permissions(fixture.path("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    write(fixture.path("unreadable"), "text\n");
    fs::set_permissions(fixture.path("unreadable"), fs::Permissions::from_mode(0o000)).unwrap();
    let mut deep = fixture.worktree.clone();
    for _ in 0..600 {
        deep.push("d");
    }
    write(deep.join("bottom"), "deep\n");
    for at in 0..300 {
        write(fixture.path("empty").join(at.to_string()), "");
    }
    fs::set_permissions(&fixture.worktree, fs::Permissions::from_mode(0o000)).unwrap();
    let snapshot = fixture.snapshot(head, &cache);
    let unsaved: Vec<_> =
        snapshot.unsaved.iter().map(|unsaved| String::from_utf8_lossy(&unsaved.path).into_owned()).collect();
    assert_eq!(unsaved, ["git~1", "pipe", "socket", "sparse"], "{:?}", snapshot.unsaved);
    let paths: Vec<Vec<u8>> = snapshot.changed.iter().map(|change| change.path.clone()).collect();
    assert_eq!(paths.len(), 300 + 4, "{paths:?}");
    for path in [b"caf\xe9/menu".as_slice(), b"closed/file", b"unreadable"] {
        assert!(paths.contains(&path.to_vec()), "{}", String::from_utf8_lossy(path));
    }
    assert!(paths.iter().any(|path| path.ends_with(b"d/d/bottom")));
    let again = fixture.checkout(head, CleanMode::Untracked, &snapshot.cache);
    assert!(again.removed > 300 && !fixture.path("d").exists() && !fixture.path("pipe").exists());
    assert_eq!(git(&fixture.worktree, &["status", "--porcelain"]), "");
}

#[test]
fn lfs_content_of_pointer_is_unchanged_other_is_reported() {
    let content = "large content\n";
    let sum: Environment = [("PATH".into(), "/usr/bin:/bin".into())].into_iter().collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("content");
    fs::write(&file, content).unwrap();
    let output = blocking_command("sha256sum", &sum, ProcessGroup::Inherit).arg(&file).output().unwrap();
    let hash = String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap().to_owned();
    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{hash}\nsize {}\n", content.len());
    let (fixture, head) = Fixture::new(|root| {
        write(root.join(".gitattributes"), "*.bin filter=lfs diff=lfs merge=lfs -text\n");
        write(root.join("a.bin"), &pointer);
        write(root.join("b.bin"), &pointer);
    });
    let cache = fixture.checkout(head, CleanMode::Untracked, &StatCache::default()).cache;
    // As `git lfs pull` does.
    write(fixture.path("a.bin"), content);
    let first = fixture.snapshot(head, &cache);
    assert!(first.lfs_changed.is_empty() && first.changed.is_empty(), "{:?}", first.changed);
    write(fixture.path("b.bin"), "other content\n");
    let second = fixture.snapshot(head, &first.cache);
    assert_eq!(second.lfs_changed, [b"b.bin".to_vec()]);
    let third = fixture.snapshot(head, &second.cache);
    assert_eq!(third.lfs_changed, [b"b.bin".to_vec()], "a second look forgets nothing");
    write(fixture.path("b.bin"), "");
    assert!(fixture.snapshot(head, &third.cache).lfs_changed.is_empty());
}

#[test]
fn submodule_is_that_of_agent_head() {
    let (fixture, _) = Fixture::new(rich);
    let blob = blob_of(&fixture);
    let old = Oid::from_str(&"1".repeat(40)).unwrap();
    let new = Oid::from_str(&"2".repeat(40)).unwrap();
    let base = raw_commit(&fixture, &[("100644", b"file", blob), ("160000", b"sub", old)]);
    let bumped = raw_commit(&fixture, &[("100644", b"file", blob), ("160000", b"sub", new)]);
    let cache = fixture.checkout(base, CleanMode::Untracked, &StatCache::default()).cache;
    write(fixture.path("sub/.git"), "gitdir: /etc\n");
    write(fixture.path("sub/inside"), "not ours\n");
    let tree = |commit| fixture.control.commit_tree(commit).unwrap();
    let capture =
        |head| snapshot::capture(&fixture.control, &fixture.guest(), tree(base), head, &cache).unwrap();
    assert_eq!(capture(Some(tree(bumped))).tree, tree(bumped));
    assert_eq!(capture(None).tree, tree(base));
}

#[test]
fn ignore_rules_of_agent_hide_no_tracked_file() {
    let (fixture, head) = Fixture::new(rich);
    let cache = fixture.checkout(head, CleanMode::Untracked, &StatCache::default()).cache;
    write(fixture.path(".gitignore"), "*\n");
    write(fixture.path("README.md"), "changed\n");
    write(fixture.path("hidden"), "x\n");
    let snapshot = fixture.snapshot(head, &cache);
    let paths: Vec<_> = snapshot.changed.iter().map(|change| String::from_utf8_lossy(&change.path)).collect();
    assert_eq!(paths, [".gitignore", "README.md"]);
}

#[test]
fn names_that_change_meanwhile_lead_nowhere() {
    let (fixture, head) = Fixture::new(rich);
    let outside = fixture.folder.path().join("outside");
    write(outside.join("deep/main.rs"), "outside\n");
    fixture.checkout(head, CleanMode::Untracked, &StatCache::default());
    let (folder, aside) = (fixture.path("src"), fixture.folder.path().join("aside"));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                if fs::rename(&folder, &aside).is_ok() {
                    drop(std::os::unix::fs::symlink(&outside, &folder));
                    drop(fs::remove_file(&folder));
                    drop(fs::rename(&aside, &folder));
                }
            }
        });
        for _ in 0..40 {
            let guest = fixture.guest();
            let tree = fixture.control.commit_tree(head).unwrap();
            let snapshot =
                snapshot::capture(&fixture.control, &guest, tree, None, &StatCache::default()).unwrap();
            for change in &snapshot.changed {
                assert_ne!(change.kind, snapshot::ChangeKind::Modified, "{change:?}");
            }
            let (branch, cache) = (BranchName::new("work/one").unwrap(), StatCache::default());
            let (identity, clean) = (&fixture.identity, CleanMode::Untracked);
            let request =
                Checkout { commit: head, branch: &branch, base: None, identity, clean, cache: &cache };
            // It may fail, but it writes nothing outside.
            drop(checkout(&fixture.control, &guest, &request));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(fs::read(outside.join("deep/main.rs")).unwrap(), b"outside\n");
    assert_eq!(fs::read_dir(outside.join("deep")).unwrap().count(), 1);
}

#[test]
fn tree_bomb_of_agent_makes_history_unusable() {
    let (fixture, head) = Fixture::new(rich);
    fixture.checkout(head, CleanMode::Untracked, &StatCache::default());
    let mut tree = git(&fixture.worktree, &["rev-parse", "HEAD^{tree}"]);
    for _ in 0..20 {
        let lines: String = (0..10).map(|at| format!("040000 tree {tree}\tf{at}\n")).collect();
        let file = fixture.folder.path().join("lines");
        fs::write(&file, lines).unwrap();
        let environment: Environment =
            [("PATH", "/usr/bin:/bin"), ("HOME", "/nonexistent")].map(|(n, v)| (n.into(), v.into())).into();
        let output = blocking_command("git", &environment, ProcessGroup::Inherit)
            .arg("-C")
            .arg(&fixture.worktree)
            .arg("mktree")
            .stdin(fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        tree = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    }
    let bomb = git(&fixture.worktree, &["commit-tree", "-p", "HEAD", "-m", "bomb", &tree]);
    git(&fixture.worktree, &["update-ref", "HEAD", &bomb]);
    let History::Unusable { why } = fixture.import(head).head else { panic!("the bomb was imported") };
    assert!(why.contains("entries"), "{why}");
}

#[test]
fn file_of_commit_is_read_up_to_limit() {
    let (fixture, head) = Fixture::new(|source| fs::write(source.join("CLAUDE.md"), "tabs").unwrap());
    let read = |max| fixture.control.read_file_up_to(head, Path::new("CLAUDE.md"), max).unwrap();
    assert_eq!(read(4), Some(b"tabs".to_vec()));
    assert_eq!(read(3), None);
}
