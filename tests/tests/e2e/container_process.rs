//! The agent image: the supervisor as process 1, and the isolation of the agent.

use std::os::unix::fs::PermissionsExt as _;

use orchestrator_contract::outcome::WorkLocation as WorkPlace;
use orchestrator_contract::{Phase, Reason};
use orchestrator_tests::engine::{Container, Engine, RunDirs};
use orchestrator_tests::messages_api::{Fault, Script, Turn};
use orchestrator_tests::test_env::TestEnv;

const BRANCH: &str = "feature/task-1-implementation";

/// Runs `command` and then waits for a response that never comes.
fn runs_and_stalls(command: &str) -> Script {
    Script::new().turn(Turn::bash(command)).turn(Turn::never(Fault::no_answer()))
}

#[test]
fn pid_1_reaps_thousand_orphans_during_agent_step() {
    let Some(engine) = Engine::get() else { return };
    let orphans =
        "i=0; while [ $i -lt 1000 ]; do (setsid true &); i=$((i+1)); done; echo started > notes.txt";
    let env = TestEnv::start(runs_and_stalls(orphans));
    let dirs = RunDirs::new(&env);
    // More than the PID limit: zombies would count.
    let container = engine.run_in(&env, &dirs).start_task(&env, &[]);
    container.wait_until("second question", |_| env.model.conversation().len() >= 2);
    assert_eq!(container.shell("cat /proc/1/comm").trim(), "supervisor");
    let zombies = |container: &Container| container.shell("cat /proc/[0-9]*/stat | grep -c ') Z '");
    container.wait_until("end of zombies", |container| zombies(container).trim() == "0");
    container.stop(60);
    let (output, outcome) = container.outcome();
    assert_eq!((output.code, outcome.reason), (143, Reason::Stopped), "{output:#?}");
    assert_eq!(env.git.read("acme/trader", BRANCH, "notes.txt").as_deref(), Some("started\n"));
    env.assert_invariants(&outcome);
}

#[test]
fn every_termination_signal_stops_run_saving_work() {
    let Some(engine) = Engine::get() else { return };
    for signal in ["INT", "HUP", "QUIT"] {
        let env = TestEnv::start(runs_and_stalls("echo 1 > notes.txt"));
        let dirs = RunDirs::new(&env);
        let container = engine.run_in(&env, &dirs).start_task(&env, &[]);
        container.wait_until("second question", |_| env.model.conversation().len() >= 2);
        container.signal(signal);
        let (output, outcome) = container.outcome();
        assert_eq!((output.code, outcome.reason), (143, Reason::Stopped), "{signal}: {output:#?}");
        assert_eq!(outcome.work.location, WorkPlace::Remote);
        env.assert_invariants(&outcome);
    }
}

/// Replaces the CLI by a script.
fn in_place_of_the_cli(container: Container, folder: &tempfile::TempDir, script: &str) -> Container {
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("claude");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let volume = format!("{}:/opt/other:ro", folder.path().display());
    container.with(&["--volume", &volume, "--env", "ORCHESTRATOR_CLAUDE=/opt/other/claude"])
}

#[test]
fn agent_out_of_memory_dies_alone_with_work_pushed() {
    let Some(engine) = Engine::get() else { return };
    let env = TestEnv::start(Script::new());
    let (dirs, folder) = (RunDirs::new(&env), tempfile::tempdir().unwrap());
    let hog = "echo 1 > notes.txt\nexec node -e 'const a = []; for (;;) a.push(Buffer.alloc(8 << 20, 1))'";
    let container = in_place_of_the_cli(engine.run_in(&env, &dirs), &folder, hog);
    let container = container.with(&["--memory=600m", "--memory-swap=600m"]).start_task(&env, &[]);
    let (output, outcome) = container.outcome();
    println!("OOMKilled: {}", container.state()["OOMKilled"]);
    assert_eq!((output.code, outcome.reason), (1, Reason::AgentOutOfMemory), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.work.location, WorkPlace::Remote, "{outcome:#?}");
    assert_eq!(env.git.read("acme/trader", BRANCH, "notes.txt").as_deref(), Some("1\n"));
    env.assert_invariants(&outcome);
}

#[test]
fn container_out_of_memory_loses_no_work() {
    let Some(engine) = Engine::get() else { return };
    let script = Script::new().turn(Turn::bash("cat notes.txt")).turn(Turn::verdict("done", "It is done."));
    let env = TestEnv::start(script);
    let (dirs, folder) = (RunDirs::new(&env), tempfile::tempdir().unwrap());
    // Files in memory outlive the process that wrote them: in the end the kernel kills process 1, unless the
    // end of its sandbox has ended the agent before.
    let fill = "echo 1 > notes.txt\nwhile :; do cat /dev/zero >> /dev/shm/x; done";
    let container = in_place_of_the_cli(engine.run_in(&env, &dirs), &folder, fill);
    let container = container.with(&["--memory=300m", "--memory-swap=300m", "--shm-size=2g"]);
    let container = container.start_task(&env, &[]);
    let output = container.end();
    println!("exit code {}, OOMKilled {}", output.code, container.state()["OOMKilled"]);
    match output.outcome() {
        None => {
            assert_eq!(output.code, 137, "{output:#?}");
            assert_eq!(container.state()["OOMKilled"], true);
        }
        // What the supervisor starts after the agent may not fit into the memory either.
        Some(first) => assert_eq!((output.code, first.phase), (first.exit_code.into(), Phase::Failed)),
    }
    let (output, outcome) = engine.run_in(&env, &dirs).start_task(&env, &["--retry"]).outcome();
    assert_eq!(outcome.reason, Reason::Completed, "{output:#?}\n{outcome:#?}");
    assert_eq!(env.git.read("acme/trader", BRANCH, "notes.txt").as_deref(), Some("1\n"));
    env.assert_invariants(&outcome);
}

#[test]
fn agent_finds_no_credentials_in_container() {
    let Some(engine) = Engine::get() else { return };
    let hunt = "{ id; env; mount; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'; \
                ls -lR /run/secrets /var/run/secrets /proc/1/root/run/secrets /proc/1/cwd /proc/1/fd; \
                cat /run/secrets/*/* /proc/1/root/run/secrets/*/* /proc/1/fd/* /proc/1/environ; \
                cat /proc/1/mem | head -c 1000; git config --list --show-origin; git credential fill </dev/null; \
                ls -lR /workspace/.orchestrator; cat /workspace/.orchestrator/*/*/*; \
                grep -rIl -e ghp_ -e sk-ant- /workspace /tmp /home /etc /run /dev/shm /var; \
                } 2>&1 | head -c 40000; echo looked";
    let script = Script::new().turn(Turn::bash(hunt)).turn(Turn::bash("echo 1 > notes.txt"));
    let env = TestEnv::start(script.turn(Turn::verdict("done", "It is done.")));
    let dirs = RunDirs::new(&env);
    // As files, and the token also in the environment of process 1, a common mistake.
    let token = format!("GITHUB_TOKEN={}", env.token);
    let container = engine.run_in(&env, &dirs).with(&["--env", &token]).start_task(&env, &[]);
    let (output, outcome) = container.outcome();
    assert_eq!(outcome.reason, Reason::Completed, "{output:#?}\n{outcome:#?}");
    let heard: String = env.model.requests().iter().map(|request| request.body.to_string()).collect();
    assert!(heard.contains("uid=10001(supervisor)") && heard.contains("PATH="), "it did not look: {heard}");
    assert!(!output.stdout.contains(&env.token) && !output.stdout.contains(&env.key));
    // Without Landlock the processes of one user are not isolated; the outcome only warns.
    if let Some(note) = outcome.notes.iter().find(|note| note.contains("Landlock")) {
        println!("skipped: {note}");
        return;
    }
    for (what, secret) in [("token", &env.token), ("key", &env.key)] {
        if let Some(at) = heard.find(secret.as_str()) {
            panic!("the {what} reached the model: {}", &heard[at.saturating_sub(300)..at]);
        }
    }
    env.assert_invariants(&outcome);
}
