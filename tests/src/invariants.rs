//! Invariants of every finished run, checked from outside.

use std::path::Path;

use base64::Engine as _;
use orchestrator_contract::outcome::{VerificationStatus, WorkLocation};
use orchestrator_contract::{Outcome, Phase, RepositoryUrl};

use crate::test_env::TestEnv;

/// Asserts all invariants.
pub(crate) fn assert_all(env: &TestEnv, outcome: &Outcome) {
    assert_work_location(env, outcome);
    assert_success_evidence(env, outcome);
    assert_verified_commit(outcome);
    assert_no_secrets(env);
    assert_one_fast_forward(env, outcome);
    assert_one_pull_request_at_most(env, outcome);
    assert_no_process_survives(env);
    assert_every_line_is_event(env);
}

/// Returns the target repository of the run.
fn target(env: &TestEnv, outcome: &Outcome) -> String {
    let url = outcome.base.as_ref().map_or_else(|| env.git.url("acme/trader"), |base| base.url.clone());
    // The path is the same under every name and scheme of the host.
    let url = RepositoryUrl::new(url).expect("an address");
    let (owner, name) = url.owner_and_name().expect("a repository of this environment");
    format!("{owner}/{name}")
}

/// I1: work is in the remote branch with the reported oid, or in the workspace.
fn assert_work_location(env: &TestEnv, outcome: &Outcome) {
    match outcome.work.location {
        WorkLocation::Remote => {
            let branch = outcome.work.branch.as_ref().expect("a branch");
            let tips = env.git.tips(&target(env, outcome));
            assert_eq!(tips.get(branch), outcome.work.oid.as_ref(), "{branch} in {tips:?}");
        }
        WorkLocation::Workspace => {
            let path = outcome.work.path.as_ref().expect("a path");
            assert!(Path::new(path).exists(), "{path}");
        }
        WorkLocation::None => assert_eq!(outcome.work.oid, None),
    }
}

/// I2: a successful run has a pushed oid, and a pull request with that head.
fn assert_success_evidence(env: &TestEnv, outcome: &Outcome) {
    assert_eq!(outcome.exit_code, outcome.reason.exit_code());
    if outcome.phase != Phase::Succeeded || outcome.commits == 0 {
        return;
    }
    assert_eq!(outcome.work.location, WorkLocation::Remote);
    if let Some(pull) = &outcome.pull_request {
        assert_eq!(Some(&pull.head), outcome.work.oid.as_ref());
        assert!(env.github.pulls().iter().any(|seen| seen["number"] == pull.number));
    }
}

/// I11: a passed verification is for the published commit.
fn assert_verified_commit(outcome: &Outcome) {
    if outcome.verification.status == VerificationStatus::Passed && outcome.work.oid.is_some() {
        assert_eq!(outcome.verification.commit, outcome.work.oid);
    }
}

/// I3: secrets appear only on the hosts they belong to.
fn assert_no_secrets(env: &TestEnv) {
    for secret in [&env.token, &env.key] {
        let raw = secret.as_bytes();
        let base64 = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{secret}"));
        let needles = [raw.to_vec(), base64.trim_end_matches('=').as_bytes().to_vec()];
        search(env.folder(), &needles);
        for pull in env.github.pulls() {
            assert!(!pull.to_string().contains(secret.as_str()), "a secret in a pull request");
        }
        for repository in &env.repositories() {
            search(&env.git.path(repository), &needles);
            let log = env.git.ask(repository, &["log", "--all", "-p", "--format=fuller"]);
            assert!(!log.contains(secret.as_str()), "a secret in {repository}");
        }
    }
}

/// Asserts that no file below a directory contains the secret.
pub fn assert_not_below(folder: &Path, secret: &str) {
    search(folder, &[secret.as_bytes().to_vec()]);
}

fn search(folder: &Path, needles: &[Vec<u8>]) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            search(&path, needles);
        } else if kind.is_file() {
            let content = std::fs::read(&path).unwrap_or_default();
            for needle in needles {
                let found = content.windows(needle.len()).any(|window| window == needle);
                assert!(!found, "a secret in {}", path.display());
            }
        }
    }
}

/// I4: exactly one ref of the target changed, by creation or fast-forward.
fn assert_one_fast_forward(env: &TestEnv, outcome: &Outcome) {
    let target = target(env, outcome);
    for other in env.repositories().iter().filter(|other| **other != target) {
        assert_eq!(env.refs_before(other), &env.git.refs(other), "{other} changed");
    }
    let (before, after) = (env.refs_before(&target), env.git.refs(&target));
    for (name, oid) in before {
        let now = after.get(name).unwrap_or_else(|| panic!("{name} was deleted"));
        assert!(env.git.is_ancestor(&target, oid, now), "{name} was forced");
    }
    let changed: Vec<&String> =
        after.iter().filter(|(name, oid)| before.get(*name) != Some(oid)).map(|(name, _)| name).collect();
    let expected = usize::from(outcome.work.location == WorkLocation::Remote);
    assert!(changed.len() <= expected, "{changed:?}");
    if let ([name], Some(branch)) = (changed.as_slice(), &outcome.work.branch) {
        assert_eq!(name.as_str(), format!("refs/heads/{branch}"));
    }
}

/// I5: a branch has at most one pull request.
fn assert_one_pull_request_at_most(env: &TestEnv, outcome: &Outcome) {
    let Some(branch) = &outcome.work.branch else { return };
    let target = target(env, outcome);
    let same =
        |pull: &&serde_json::Value| pull["repository"] == target && pull["head"]["ref"] == branch.as_str();
    let of_branch = env.github.pulls().iter().filter(same).count();
    assert!(of_branch <= 1, "{of_branch} pull requests");
}

/// I7: no process of the run is left.
fn assert_no_process_survives(env: &TestEnv) {
    let folder = env.folder().display().to_string();
    let Ok(entries) = std::fs::read_dir("/proc") else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let command = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let directory = std::fs::read_link(path.join("cwd")).unwrap_or_default();
        let ours = command.contains(&folder) || directory.starts_with(&folder);
        // `git http-backend` belongs to the fake git host.
        assert!(!ours || command.contains("http-backend"), "still alive: {command}");
    }
}

/// I10: every line of the supervisor's output is an event.
fn assert_every_line_is_event(env: &TestEnv) {
    let Ok(runs) = std::fs::read_dir(env.state().join("runs")) else { return };
    for run in runs.flatten() {
        let events = std::fs::read_to_string(run.path().join("events.jsonl")).unwrap_or_default();
        for line in events.lines() {
            let event: Result<orchestrator_contract::Event, _> = serde_json::from_str(line);
            assert!(event.is_ok(), "not an event: {line}");
        }
    }
}
