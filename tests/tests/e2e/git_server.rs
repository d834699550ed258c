//! The fake git host with the real git program.

use std::path::Path;
use std::process::{Command, Output};

use orchestrator_tests::git_server::{Access, Fault, GitServer, Operation};

const REPOSITORY: &str = "myorg/trader";

fn server() -> GitServer {
    let server = GitServer::start();
    server.create(REPOSITORY, "main", &[("src/lib.rs", "// hello\n")]);
    server.allow("writer", Access::Write);
    server.allow("reader", Access::Read);
    server
}

fn url(server: &GitServer, token: &str) -> String {
    server.url(REPOSITORY).replacen("http://", &format!("http://x-access-token:{token}@"), 1)
}

fn git(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(folder).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.envs([("HOME", "/nonexistent"), ("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_TERMINAL_PROMPT", "0")]);
    command.envs([("GIT_AUTHOR_NAME", "B"), ("GIT_AUTHOR_EMAIL", "b@example.com")]);
    command.envs([("GIT_COMMITTER_NAME", "B"), ("GIT_COMMITTER_EMAIL", "b@example.com")]);
    command.output().unwrap()
}

fn push(server: &GitServer, token: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    server.clone_fresh(REPOSITORY, "main", folder.path());
    std::fs::write(folder.path().join("big.txt"), "line of text\n".repeat(20_000)).unwrap();
    git(folder.path(), &["add", "."]);
    git(folder.path(), &["commit", "-m", "more"]);
    git(folder.path(), &["push", &url(server, token), "HEAD:refs/heads/feature/x"])
}

fn clone(server: &GitServer, token: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    git(folder.path(), &["clone", "--depth", "1", &url(server, token), "."])
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn writer_may_clone_and_push() {
    let server = server();
    assert!(clone(&server, "writer").status.success());
    let pushed = push(&server, "writer");
    assert!(pushed.status.success(), "{}", stderr(&pushed));
    assert_eq!(server.ahead(REPOSITORY, "main", "feature/x"), 1);
    assert!(server.read(REPOSITORY, "feature/x", "big.txt").is_some());
}

#[test]
fn git_server_rejections_match_github() {
    let server = server();
    assert!(stderr(&clone(&server, "unknown")).contains("Authentication failed"));
    assert!(stderr(&push(&server, "reader")).contains("403"));
    server.allow_in(REPOSITORY, "reader", Access::None);
    assert!(stderr(&clone(&server, "reader")).contains("not found"));
    server.forget("writer");
    assert!(stderr(&clone(&server, "writer")).contains("Authentication failed"));
}

#[test]
fn hook_or_branch_protection_declines_push() {
    let server = server();
    server.protect(REPOSITORY, "feature/x");
    assert!(stderr(&push(&server, "writer")).contains("GH006"));
    server.decline_pushes(REPOSITORY, "it's Friday");
    assert!(stderr(&push(&server, "writer")).contains("it's Friday"));
    assert_eq!(server.tips(REPOSITORY).len(), 1);
}

#[test]
fn each_fault_breaks_one_request_only() {
    for fault in [
        Fault::Status(429, Some(1)),
        Fault::Status(500, None),
        Fault::CutAt(1),
        Fault::CutAtPercent(50),
        Fault::CutAtPercent(99),
        Fault::Truncate(100),
        Fault::ResetAfter,
    ] {
        let server = server();
        // In protocol v2 the first request lists the refs, the second returns the pack.
        server.fail(Operation::Fetch, 2, fault.clone());
        assert!(!clone(&server, "writer").status.success(), "{fault:?}");
        assert!(clone(&server, "writer").status.success(), "{fault:?}");
    }
}

#[test]
fn reset_after_push_leaves_it_applied() {
    let server = server();
    server.fail(Operation::Push, 1, Fault::ResetAfter);
    assert!(!push(&server, "writer").status.success());
    assert!(server.tips(REPOSITORY).contains_key("feature/x"));
}

#[test]
fn redirect_target_records_sent_credentials() {
    let (server, other) = (server(), GitServer::start());
    server.fail(Operation::AdvertiseFetch, 1, Fault::Redirect(other.origin()));
    assert!(!clone(&server, "writer").status.success());
    assert!(other.requests().iter().all(|request| request.authorization.is_none()));
    assert!(!other.requests().is_empty());
}

#[test]
fn git_server_stops_with_waiting_client() {
    let server = server();
    server.fail(Operation::AdvertiseFetch, 1, Fault::Silence);
    let address = server.origin().replace("http://", "");
    let mut client = std::net::TcpStream::connect(&address).unwrap();
    let path = format!("/{REPOSITORY}.git/info/refs?service=git-upload-pack");
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer writer\r\n\r\n");
    std::io::Write::write_all(&mut client, head.as_bytes()).unwrap();
    drop(server);
    let mut rest = Vec::new();
    // Closed or reset: either ends the client's wait.
    std::io::Read::read_to_end(&mut client, &mut rest).ok();
    assert!(rest.is_empty());
}
