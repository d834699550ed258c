//! Runs as containers: the real dispatcher, the real engine, the agent image.

use std::time::Duration;

use orchestrator_contract::Reason;
use orchestrator_contract::containers::{PRIVATE_DIR, WORKSPACE};
use orchestrator_contract::outcome::WorkLocation;
use orchestrator_tests::command;
use orchestrator_tests::docker_env::DockerEnv;
use orchestrator_tests::engine::Engine;
use orchestrator_tests::messages_api::{Fault, Script, Turn};
use orchestrator_tests::projects::{RIGHT, fix};
use orchestrator_tests::test_env::TestEnv;

const BRANCH: &str = "feature/task-1-implementation";

/// A script that fixes the crate and reports it.
fn fixes() -> Script {
    Script::new().turn(fix()).turn(Turn::verdict("done", "best_bid now returns the highest bid."))
}

/// A script that fixes the crate and then stalls; the next attempt continues.
fn stalls() -> Script {
    let again = Turn::verdict("done", "It is done.").after(Fault::no_answer());
    Script::new().turn(fix()).turn(again)
}

fn docker_env(script: Script) -> Option<DockerEnv> {
    let engine = Engine::get()?;
    Some(DockerEnv::new(engine, TestEnv::start(script)))
}

#[track_caller]
fn assert_fixed(docker: &DockerEnv) {
    let lib = docker.env.git.read("acme/trader", BRANCH, "src/lib.rs").unwrap();
    assert!(lib.contains(RIGHT), "{lib}");
}

#[test]
fn submitted_task_becomes_pull_request_without_leftover_secret() {
    let Some(docker) = docker_env(fixes()) else { return };
    let env = &docker.env;
    let (output, outcome) = docker.submit(&[]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_fixed(&docker);
    assert_eq!(env.github.pulls().len(), 1);
    env.assert_invariants(&outcome);

    let doctor = env.dispatcher(&["doctor"]);
    assert_eq!(doctor.code, 0, "{doctor:#?}");
    for expected in [docker.engine.address(), docker.engine.image.as_str(), "GITHUB_TOKEN is set"] {
        assert!(doctor.stdout.contains(expected), "{expected}: {doctor:#?}");
    }

    let run = docker.run_name(1);
    assert_eq!(docker.containers(&docker.service), [run.as_str()]);
    let diff = env.dispatcher(&["diff", &run]);
    assert!(diff.stdout.contains("+++ b/src/lib.rs") && diff.stdout.contains(RIGHT), "{diff:#?}");
    let volumes = docker.volumes(&docker.service);
    for volume in [format!("{run}-input"), format!("{run}-agent-socket"), docker.volume(), docker.private()] {
        assert!(volumes.contains(&volume), "{volume}: {volumes:?}");
    }
    let seen = docker.engine.inspect(&run).to_string() + &docker.logs(&run);
    for secret in [&env.token, &env.key] {
        assert!(!seen.contains(secret.as_str()), "a secret in {seen}");
    }
    // The secrets are removed, the task is kept.
    let given =
        docker.in_volume(&format!("{run}-input"), "cd /volume; find . -type f -size +0; ls orchestrator");
    assert_eq!(given, "./task.json\norchestrator\n");
    for volume in volumes {
        let found = docker.in_volume(&volume, &format!("grep -rlF -e {} -e {} /volume", env.token, env.key));
        assert_eq!(found, "", "{volume}");
    }
}

#[test]
fn any_dispatcher_can_inspect_follow_or_stop_active_run() {
    let Some(docker) = docker_env(stalls()) else { return };
    let env = &docker.env;
    let run = docker.start_run(&[]);
    assert_eq!(run, docker.run_name(1));
    docker.wait_for_change();

    // Each command is a new dispatcher process: its state comes from the engine.
    let status = env.wait_until(&run, |status| status["phase"] == "Running");
    assert_eq!(status["workspace"], format!("volume {}", docker.volume()));
    let list = env.dispatcher(&["list", "--service", &docker.service]).stdout;
    assert!(list.contains(&run) && list.contains("Running"), "{list}");
    let logs = env.dispatcher(&["logs", &run]);
    assert!(logs.stdout.contains("agent"), "{logs:#?}");
    let again = docker.verb("submit", &[]);
    assert!(again.stdout.contains("is already running"), "{again:#?}");

    let stop = env.dispatcher(&["stop", &run, "--no-wait"]);
    assert_eq!(stop.code, 0, "{stop:#?}");
    // A repeated stop request is not a second signal: the work is pushed.
    env.dispatcher(&["stop", &run, "--no-wait"]);
    let (output, outcome) = docker.wait(&run);
    assert_eq!((output.code, outcome.reason), (143, Reason::Stopped), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.work.location, WorkLocation::Remote);
    assert_fixed(&docker);
    let logs = env.dispatcher(&["logs", "-f", &run]);
    let reported: Vec<&str> = logs.stdout.lines().collect();
    let events = docker.logs(&run).lines().filter(|line| !line.contains("\"progress\"")).count();
    assert!(reported.len() > 10 && reported.len() <= events, "{} of {events}", reported.len());
    env.assert_invariants(&outcome);
}

#[test]
fn stop_now_keeps_work_in_volume() {
    let Some(docker) = docker_env(stalls()) else { return };
    let run = docker.start_run(&[]);
    docker.wait_for_change();
    let stop = docker.env.dispatcher(&["stop", &run, "--now"]);
    assert_eq!(stop.code, 0, "{stop:#?}");
    let (_, outcome) = docker.wait(&run);
    assert_eq!((outcome.reason, outcome.work.location), (Reason::Stopped, WorkLocation::Workspace));
    let path = outcome.work.path.unwrap();
    let (volume, below) = match path.strip_prefix(PRIVATE_DIR) {
        Some(below) => (docker.private(), below),
        None => (docker.volume(), path.strip_prefix(WORKSPACE).unwrap()),
    };
    assert_ne!(docker.in_volume(&volume, &format!("ls -d /volume{below}")), "");
}

#[test]
fn killed_container_is_supervisor_lost_with_retryable_work() {
    let Some(mut docker) = docker_env(stalls()) else { return };
    let run = docker.start_run(&[]);
    docker.wait_for_change();
    docker.engine.docker(&["kill", &run]);
    let output = docker.env.dispatcher(&["wait", &run]);
    let status = docker.env.status(&run);
    assert_eq!((output.code, &status["reason"]), (70, &"SupervisorLost".into()), "{output:#?} {status:#}");
    let message = status["message"].as_str().unwrap();
    assert!(message.contains(&docker.volume()), "{message}");
    assert!(status["next_step"].as_str().unwrap().contains("dispatcher retry"), "{status:#}");
    let given = docker.in_volume(&format!("{run}-input"), "ls -l /volume/orchestrator");
    assert!(given.starts_with('-'), "the secrets are still there: {given}");

    docker.env.record_refs();
    let output = docker.env.dispatcher(&["retry", &run, "--wait"]);
    let outcome = docker.newest_outcome();
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.run.as_str(), docker.run_name(2));
    assert_fixed(&docker);
    docker.env.assert_invariants(&outcome);
}

#[test]
fn out_of_memory_container_reports_reason() {
    let Some(mut docker) = docker_env(Script::new()) else { return };
    let image = format!("test/{}", docker.service);
    docker.engine.docker(&["create", "--name", &docker.service, &docker.engine.image]);
    let change = r#"ENTRYPOINT ["sh", "-c", "exec tail /dev/zero"]"#;
    docker.engine.docker(&["commit", "--change", change, &docker.service, &image]);
    docker.engine.docker(&["rm", &docker.service]);
    docker.env.set("ORCHESTRATOR_DOCKER_IMAGE", &image);
    docker.configure("supervisor_memory = \"256m\"\nnetwork = \"host\"");
    let output = docker.verb("submit", &["--wait"]);
    let status = docker.env.status(&docker.run_name(1));
    docker.engine.docker(&["rm", "--force", &docker.run_name(1)]);
    docker.engine.docker(&["image", "rm", &image]);
    assert_eq!((output.code, &status["reason"]), (137, &"OutOfMemory".into()), "{output:#?} {status:#}");
    assert!(status["message"].as_str().unwrap().contains("out of memory"), "{status:#}");
}

#[test]
fn concurrent_submissions_create_one_run() {
    let Some(docker) = docker_env(fixes()) else { return };
    let names: Vec<String> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(|| docker.start_run(&[]))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(names.iter().all(|name| *name == docker.run_name(1)), "{names:?}");
    let (_, outcome) = docker.wait(&names[0]);
    assert_eq!(outcome.reason, Reason::Completed, "{outcome:#?}");
    // The dispatcher that ends the run removes its guests after the outcome.
    let containers = || docker.containers(&docker.service);
    let only_the_run = || (containers() == [docker.run_name(1)]).then_some(());
    command::poll(Duration::from_secs(30), || format!("left: {:?}", containers()), only_the_run);
    docker.env.assert_invariants(&outcome);
}

#[test]
fn attempt_numbers_are_unique_despite_removed_containers() {
    let Some(engine) = Engine::get() else { return };
    // The test removes records, including those of other tests.
    let mut docker = DockerEnv::alone(engine, TestEnv::start(Script::new()));
    // The documents of this task do not exist: such a run ends within a second.
    let attempt = |docker: &DockerEnv, flag: &str| -> String {
        let output = docker.verb("submit", &["--wait", "--docs-directory", "nowhere", flag]);
        assert_eq!(output.code, 64, "{output:#?}");
        docker.containers(&docker.service).into_iter().next_back().unwrap()
    };
    assert_eq!(attempt(&docker, "--no-pull-request"), docker.run_name(1));
    assert_eq!(attempt(&docker, "--retry"), docker.run_name(2));
    let keep = docker.in_volume(&docker.private(), "ls /volume/runs");
    assert_eq!(keep.lines().collect::<Vec<_>>(), [docker.run_name(1), docker.run_name(2)]);

    let gc = docker.env.dispatcher(&["gc", "--keep", "0"]);
    assert_eq!(gc.code, 0, "{gc:#?}");
    assert!(gc.stdout.contains(&docker.run_name(2)), "{gc:#?}");
    assert_eq!(docker.containers(&docker.service), [""; 0]);
    docker.assert_no_volume_of_run();
    assert_eq!(docker.in_volume(&docker.private(), "ls /volume/runs"), "");
    assert_eq!(attempt(&docker, "--retry"), docker.run_name(3));

    // Removed by a user, without the dispatcher.
    docker.engine.docker(&["rm", "--force", &docker.run_name(3)]);
    assert_eq!(attempt(&docker, "--retry"), docker.run_name(4));

    let other = docker.another_service();
    let flags = docker.flags_for(&other);
    let mut arguments = vec!["submit", "--wait", "--docs-directory", "nowhere"];
    arguments.extend(flags.iter().map(String::as_str));
    docker.env.dispatcher(&arguments);
    let volumes = docker.volumes(&other);
    assert!(volumes.contains(&format!("workspace-{other}")), "{volumes:?}");
    assert_eq!(docker.containers(&other), [format!("{other}-claude-agent-1-task1-attempt1")]);
}

#[test]
fn failed_start_is_explained_without_leftovers() {
    let Some(mut docker) = docker_env(Script::new()) else { return };
    let name = docker.run_name(1);
    docker.engine.docker(&["create", "--name", &name, &docker.engine.image]);
    let output = docker.verb("submit", &[]);
    assert_eq!(output.code, 64, "{output:#?}");
    assert!(output.stderr.contains("was not created by the orchestrator"), "{output:#?}");
    assert_eq!(docker.engine.inspect(&name)["State"]["Status"], "created");
    docker.engine.docker(&["rm", &name]);

    docker.configure("memory = \"1g\"\nnetwork = \"no-such-network\"");
    let output = docker.verb("submit", &[]);
    assert_eq!(output.code, 75, "{output:#?}");
    assert!(output.stderr.contains("no-such-network"), "{output:#?}");
    assert_eq!(docker.containers(&docker.service), [""; 0]);
    docker.assert_no_volume_of_run();

    docker.env.set("ORCHESTRATOR_DOCKER_IMAGE", "localhost:1/no/such:image");
    let output = docker.verb("submit", &[]);
    assert_eq!(output.code, 69, "{output:#?}");
    assert!(output.stderr.contains("docker pull localhost:1/no/such:image"), "{output:#?}");

    docker.env.set("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let output = docker.verb("submit", &[]);
    assert_eq!(output.code, 78, "{output:#?}");
    assert!(output.stderr.contains("no container engine at unix:///nowhere/docker.sock"), "{output:#?}");
}
