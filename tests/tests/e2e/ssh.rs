//! A target over SSH, with a real sshd.

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::WorkLocation;
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::sshd::{Sshd, Unavailable};
use orchestrator_tests::test_env::TestEnv;

const BRANCH: &str = "feature/task-1-implementation";

/// Starts an environment with an SSH target; returns `None` without sshd.
fn start(script: Script) -> Option<(TestEnv, Sshd, tempfile::TempDir)> {
    let env = TestEnv::start(script);
    match Sshd::start(env.git.root()) {
        Ok(sshd) => Some((env, sshd, tempfile::tempdir().unwrap())),
        Err(Unavailable(why)) => {
            println!("skipped: {why}");
            None
        }
    }
}

fn works() -> Script {
    Script::new().turn(Turn::bash("echo 1 >> notes.txt")).turn(Turn::verdict("done", "It is done."))
}

/// Sets key and known hosts in the environment, like a deployment.
fn configure(env: &mut TestEnv, folder: &tempfile::TempDir, key: &std::path::Path, known_hosts: &str) {
    let file = folder.path().join("known_hosts");
    std::fs::write(&file, known_hosts).unwrap();
    env.set("ORCHESTRATOR_KNOWN_HOSTS_FILE", file.to_str().unwrap());
    env.set("ORCHESTRATOR_SSH_KEY_FILE", key.to_str().unwrap());
}

#[track_caller]
fn assert_ends(env: &TestEnv, sshd: &Sshd, reason: Reason, word: &str) {
    let (output, outcome) = env.submit(&["--repository-url", &sshd.url("acme/trader"), "--no-pull-request"]);
    assert_eq!(outcome.reason, reason, "{output:#?}\n{outcome:#?}");
    assert_eq!(output.code, i32::from(reason.exit_code()));
    assert!(outcome.message.contains(word), "{}", outcome.message);
    assert_eq!(env.model.requests().len(), 0);
    env.assert_invariants(&outcome);
}

#[test]
fn ssh_run_with_known_host_pushes_branch() {
    let Some((mut env, sshd, folder)) = start(works()) else { return };
    configure(&mut env, &folder, &sshd.key(), &sshd.known_hosts());
    let (output, outcome) = env.submit(&["--repository-url", &sshd.url("acme/trader"), "--no-pull-request"]);
    assert_eq!(outcome.reason, Reason::Completed, "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.work.location, WorkLocation::Remote);
    assert_eq!(outcome.pull_request, None);
    assert_eq!(env.git.read("acme/trader", BRANCH, "notes.txt").as_deref(), Some("1\n"));
    let over_http = env.git.requests();
    assert!(over_http.iter().all(|request| request.repository == "acme/platform"), "{over_http:#?}");
    env.assert_invariants(&outcome);
}

#[test]
fn ssh_run_with_token_opens_pull_request() {
    let Some((mut env, sshd, folder)) = start(works()) else { return };
    configure(&mut env, &folder, &sshd.key(), &sshd.known_hosts());
    let (output, outcome) = env.submit(&["--repository-url", &sshd.url("acme/trader")]);
    assert_eq!(outcome.reason, Reason::Completed, "{output:#?}\n{outcome:#?}");
    assert!(outcome.pull_request.is_some());
    env.assert_invariants(&outcome);
}

#[test]
fn ssh_host_missing_from_known_hosts_is_rejected() {
    let Some((mut env, sshd, folder)) = start(Script::new()) else { return };
    configure(
        &mut env,
        &folder,
        &sshd.key(),
        "# empty
",
    );
    assert_ends(&env, &sshd, Reason::HostKeyUnknown, "127.0.0.1");
}

#[test]
fn ssh_host_with_wrong_key_is_rejected() {
    let Some((mut env, sshd, folder)) = start(Script::new()) else { return };
    configure(&mut env, &folder, &sshd.key(), &sshd.wrong_known_hosts());
    assert_ends(&env, &sshd, Reason::HostKeyUnknown, "127.0.0.1");
}

#[test]
fn ssh_key_unknown_to_host_is_authentication_failed() {
    let Some((mut env, sshd, folder)) = start(Script::new()) else { return };
    configure(&mut env, &folder, &sshd.unknown_key(), &sshd.known_hosts());
    assert_ends(&env, &sshd, Reason::AuthenticationFailed, "acme/trader");
}

#[test]
fn missing_ssh_key_fails_before_any_connection() {
    let Some((env, sshd, _folder)) = start(Script::new()) else { return };
    assert_ends(&env, &sshd, Reason::CredentialMissing, "--ssh-key-file");
}

#[test]
fn missing_ssh_key_file_is_named() {
    let Some((mut env, sshd, folder)) = start(Script::new()) else { return };
    let key = folder.path().join("nothing");
    configure(&mut env, &folder, &key, &sshd.known_hosts());
    let url = sshd.url("acme/trader");
    let output = env.try_submit("trader", "1", &["--repository-url", &url, "--no-pull-request"]);
    assert_eq!(output.code, 78, "{output:#?}");
    let text = format!("{}{}", output.stdout, output.stderr);
    assert!(text.contains(key.to_str().unwrap()), "{text}");
    assert_eq!(env.model.requests().len(), 0);
}
