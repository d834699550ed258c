//! A target over SSH, against a real sshd.

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::WorkLocation;
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::sshd::{Sshd, Unavailable};
use orchestrator_tests::test_env::TestEnv;

const BRANCH: &str = "feature/task-1-implementation";

/// A world whose target is reached over SSH, unless there is no sshd here.
fn start(script: Script) -> Option<(TestEnv, Sshd, tempfile::TempDir)> {
    let world = TestEnv::start(script);
    match Sshd::start(world.git.root()) {
        Ok(sshd) => Some((world, sshd, tempfile::tempdir().unwrap())),
        Err(Unavailable(why)) => {
            println!("skipped: {why}");
            None
        }
    }
}

fn works() -> Script {
    Script::new().turn(Turn::bash("echo 1 >> notes.txt")).turn(Turn::verdict("done", "It is done."))
}

/// Names key and known hosts by the environment, as a deployment does.
fn configure(world: &mut TestEnv, folder: &tempfile::TempDir, key: &std::path::Path, known_hosts: &str) {
    let file = folder.path().join("known_hosts");
    std::fs::write(&file, known_hosts).unwrap();
    world.set("ORCHESTRATOR_KNOWN_HOSTS_FILE", file.to_str().unwrap());
    world.set("ORCHESTRATOR_SSH_KEY_FILE", key.to_str().unwrap());
}

#[track_caller]
fn assert_ends(world: &TestEnv, sshd: &Sshd, reason: Reason, word: &str) {
    let (ran, outcome) = world.submit(&["--repository-url", &sshd.url("acme/trader"), "--no-pull-request"]);
    assert_eq!(outcome.reason, reason, "{ran:#?}\n{outcome:#?}");
    assert_eq!(ran.code, i32::from(reason.exit_code()));
    assert!(outcome.message.contains(word), "{}", outcome.message);
    assert_eq!(world.model.requests().len(), 0);
    world.assert_invariants(&outcome);
}

#[test]
fn ssh_run_with_known_host_pushes_branch() {
    let Some((mut world, sshd, folder)) = start(works()) else { return };
    configure(&mut world, &folder, &sshd.key(), &sshd.known_hosts());
    let (ran, outcome) = world.submit(&["--repository-url", &sshd.url("acme/trader"), "--no-pull-request"]);
    assert_eq!(outcome.reason, Reason::Completed, "{ran:#?}\n{outcome:#?}");
    assert_eq!(outcome.work.location, WorkLocation::Remote);
    assert_eq!(outcome.pull_request, None);
    assert_eq!(world.git.read("acme/trader", BRANCH, "notes.txt").as_deref(), Some("1\n"));
    let over_http = world.git.requests();
    assert!(over_http.iter().all(|request| request.repository == "acme/platform"), "{over_http:#?}");
    world.assert_invariants(&outcome);
}

#[test]
fn ssh_run_with_token_opens_pull_request() {
    let Some((mut world, sshd, folder)) = start(works()) else { return };
    configure(&mut world, &folder, &sshd.key(), &sshd.known_hosts());
    let (ran, outcome) = world.submit(&["--repository-url", &sshd.url("acme/trader")]);
    assert_eq!(outcome.reason, Reason::Completed, "{ran:#?}\n{outcome:#?}");
    assert!(outcome.pull_request.is_some());
    world.assert_invariants(&outcome);
}

#[test]
fn ssh_host_missing_from_known_hosts_is_rejected() {
    let Some((mut world, sshd, folder)) = start(Script::new()) else { return };
    configure(&mut world, &folder, &sshd.key(), "# nobody\n");
    assert_ends(&world, &sshd, Reason::HostKeyUnknown, "127.0.0.1");
}

#[test]
fn ssh_host_with_wrong_key_is_rejected() {
    let Some((mut world, sshd, folder)) = start(Script::new()) else { return };
    configure(&mut world, &folder, &sshd.key(), &sshd.wrong_known_hosts());
    assert_ends(&world, &sshd, Reason::HostKeyUnknown, "127.0.0.1");
}

#[test]
fn ssh_key_unknown_to_host_is_authentication_failed() {
    let Some((mut world, sshd, folder)) = start(Script::new()) else { return };
    configure(&mut world, &folder, &sshd.strange_key(), &sshd.known_hosts());
    assert_ends(&world, &sshd, Reason::AuthenticationFailed, "acme/trader");
}

#[test]
fn missing_ssh_key_fails_before_any_connection() {
    let Some((world, sshd, _folder)) = start(Script::new()) else { return };
    assert_ends(&world, &sshd, Reason::CredentialMissing, "--ssh-key-file");
}

#[test]
fn missing_ssh_key_file_is_named() {
    let Some((mut world, sshd, folder)) = start(Script::new()) else { return };
    let key = folder.path().join("nothing");
    configure(&mut world, &folder, &key, &sshd.known_hosts());
    let url = sshd.url("acme/trader");
    let ran = world.try_submit("trader", "1", &["--repository-url", &url, "--no-pull-request"]);
    assert_eq!(ran.code, 78, "{ran:#?}");
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains(key.to_str().unwrap()), "{said}");
    assert_eq!(world.model.requests().len(), 0);
}
