//! Fetch and push through the real transfer process.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use orchestrator_contract::{BranchName, Reason, RepositoryUrl};
use supervisor::git::{ControlRepository, Credentials, NewCommit, Oid, PushOutcome, Remote, RemoteSettings};
use supervisor::process::{Environment, ProcessGroup, blocking_command};

fn git(folder: &Path, arguments: &[&str]) -> String {
    let environment: Environment = [("PATH".into(), "/usr/bin:/bin".into())].into_iter().collect();
    let output = blocking_command("git", &environment, ProcessGroup::Inherit)
        .arg("-C")
        .arg(folder)
        .args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

struct Fixture {
    folder: tempfile::TempDir,
    bare: PathBuf,
    remote: Remote,
    control: ControlRepository,
}

impl Fixture {
    /// Uses SSH, with an `ssh` script that runs the command locally, or a local path.
    fn new(over_ssh: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::create_dir(&source).unwrap();
        git(&source, &["init", "-q"]);
        git(&source, &["commit", "-q", "--allow-empty", "-m", "first"]);
        git(folder.path(), &["clone", "-q", "--bare", "source", "bare.git"]);
        let bare = folder.path().join("bare.git");
        let mut settings = RemoteSettings::new(env!("CARGO_BIN_EXE_supervisor"));
        settings.ssh_program = folder.path().join("ssh");
        script(&settings.ssh_program, "PATH=/usr/bin:/bin\nfor last; do :; done\neval \"exec $last\"");
        let address =
            if over_ssh { format!("ssh://git@h{}", bare.display()) } else { bare.display().to_string() };
        let url = RepositoryUrl::new(address).unwrap();
        let path = folder.path().join("target.git");
        let control = ControlRepository::open(&path, &url).unwrap().into_repository();
        Self { folder, bare, remote: Remote::new(url, settings), control }
    }

    async fn fetch(&self) -> Oid {
        let refspecs = ["+refs/heads/main:refs/remotes/origin/main".to_owned()];
        let credentials = Credentials::default();
        self.remote.fetch(self.control.path(), &refspecs, Some(1), &credentials, &mut |_| {}).await.unwrap();
        self.control.resolve_ref("refs/remotes/origin/main").unwrap().unwrap()
    }

    fn commit(&self, parent: Oid) -> Oid {
        let identity = orchestrator_contract::task::CommitIdentity { name: "a".into(), email: "a@b".into() };
        let (author, committer) = (&identity, &identity);
        let tree = self.control.commit_tree(parent).unwrap();
        let parents = &[parent];
        self.control
            .commit(&NewCommit { tree, parents, author, committer, message: "w", seconds: 1 })
            .unwrap()
    }

    async fn push(&self, oid: Oid, expected: Option<Oid>) -> PushOutcome {
        let (branch, credentials) = (BranchName::new("feature/x").unwrap(), Credentials::default());
        let path = self.control.path();
        self.remote.push(path, &branch, oid, expected, &credentials, &mut |_| {}).await.unwrap()
    }
}

fn script(file: &Path, text: &str) {
    fs::write(file, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn push_never_overwrites_moved_remote_branch() {
    for over_ssh in [false, true] {
        let fixture = Fixture::new(over_ssh);
        let refs = fixture.remote.list_refs(&Credentials::default()).await.unwrap();
        assert_eq!(refs.default_branch.as_deref(), Some("refs/heads/main"));
        fixture.remote.check_push(&Credentials::default()).await.unwrap();
        let base = fixture.fetch().await;
        let one = fixture.commit(base);
        assert_eq!(fixture.push(one, None).await, PushOutcome::Pushed);
        assert_eq!(fixture.push(one, Some(one)).await, PushOutcome::UpToDate);
        let two = fixture.commit(one);
        assert_eq!(fixture.push(two, Some(one)).await, PushOutcome::Pushed);
        git(&fixture.bare, &["update-ref", "refs/heads/feature/x", &base.to_string()]);
        let moved = PushOutcome::NonFastForward { remote_oid: Some(base) };
        assert_eq!(fixture.push(fixture.commit(two), Some(two)).await, moved);
    }
}

#[tokio::test]
async fn rejected_push_contains_hook_message() {
    let fixture = Fixture::new(true);
    let base = fixture.fetch().await;
    fs::create_dir_all(fixture.bare.join("hooks")).unwrap();
    script(&fixture.bare.join("hooks/pre-receive"), "echo 'no workflows please' >&2\nexit 1");
    let outcome = fixture.push(fixture.commit(base), None).await;
    let PushOutcome::Rejected { message } = outcome else { panic!("{outcome:?}") };
    assert!(message.contains("no workflows please"), "{message}");
}

#[tokio::test]
async fn unreachable_server_returns_network_unavailable() {
    let settings = RemoteSettings::new(env!("CARGO_BIN_EXE_supervisor"));
    let remote = Remote::new(RepositoryUrl::new("http://127.0.0.1:9/o/r").unwrap(), settings);
    let error = remote.list_refs(&Credentials::default()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::NetworkUnavailable, "{error}");
}

#[tokio::test]
async fn memory_of_transfer_is_limited() {
    let fixture = Fixture::new(true);
    let folder = fixture.folder.path();
    let limit = folder.join("limit");
    script(&folder.join("ssh"), &format!("ulimit -d >{}\nexit 1", limit.display()));
    fixture.remote.list_refs(&Credentials::default()).await.unwrap_err();
    // In KiB.
    assert_eq!(fs::read_to_string(limit).unwrap().trim(), "2097152");
}
