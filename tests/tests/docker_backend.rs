//! Runs as containers: the real dispatcher, the real engine, the agent image.

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::WorkLocation;
use orchestrator_tests::docker_env::DockerEnv;
use orchestrator_tests::engine::Engine;
use orchestrator_tests::messages_api::{Fault, Script, Turn};
use orchestrator_tests::projects::{RIGHT, mend};
use orchestrator_tests::test_env::TestEnv;

const BRANCH: &str = "feature/task-1-implementation";

/// A model that mends the crate, and says so.
fn mends() -> Script {
    Script::new().turn(mend()).turn(Turn::verdict("done", "best_bid now returns the highest bid."))
}

/// A model that mends the crate and then says nothing any more; asked again, it goes on.
fn stalls() -> Script {
    let again = Turn::verdict("done", "It is done.").after(Fault::no_answer());
    Script::new().turn(mend()).turn(again)
}

fn docked(script: Script) -> Option<DockerEnv> {
    let engine = Engine::get()?;
    Some(DockerEnv::new(engine, TestEnv::start(script)))
}

#[track_caller]
fn assert_mended(docked: &DockerEnv) {
    let lib = docked.world.git.read("acme/trader", BRANCH, "src/lib.rs").unwrap();
    assert!(lib.contains(RIGHT), "{lib}");
}

#[test]
fn submitted_task_becomes_pull_request_without_leftover_secret() {
    let Some(docked) = docked(mends()) else { return };
    let world = &docked.world;
    let (ran, outcome) = docked.submit(&[]);
    assert_eq!((ran.code, outcome.reason), (0, Reason::Completed), "{ran:#?}\n{outcome:#?}");
    assert_mended(&docked);
    assert_eq!(world.github.pulls().len(), 1);
    world.assert_invariants(&outcome);

    let doctor = world.dispatcher(&["doctor"]);
    assert_eq!(doctor.code, 0, "{doctor:#?}");
    for expected in [docked.engine.address(), docked.engine.image.as_str(), "GITHUB_TOKEN is set"] {
        assert!(doctor.stdout.contains(expected), "{expected}: {doctor:#?}");
    }

    let run = docked.run_name(1);
    assert_eq!(docked.containers(&docked.service), [run.as_str()]);
    assert_eq!(docked.volumes(&docked.service), [format!("{run}-input"), docked.volume()]);
    let seen = docked.engine.inspect(&run).to_string() + &docked.logs(&run);
    for secret in [&world.token, &world.key] {
        assert!(!seen.contains(secret.as_str()), "a secret in {seen}");
    }
    // The secrets are gone, the task is still there.
    let given =
        docked.in_volume(&format!("{run}-input"), "cd /volume; find . -type f -size +0; ls orchestrator");
    assert_eq!(given, "./task.json\norchestrator\n");
    let everything =
        docked.in_volume(&docked.volume(), &format!("grep -rlF -e {} -e {} /volume", world.token, world.key));
    assert_eq!(everything, "");
}

#[test]
fn any_dispatcher_can_inspect_follow_or_stop_active_run() {
    let Some(docked) = docked(stalls()) else { return };
    let world = &docked.world;
    let run = docked.begin(&[]);
    assert_eq!(run, docked.run_name(1));
    docked.wait_until_it_works();

    // Each command is a dispatcher of its own: all it knows it has from the engine.
    let status = world.wait_until(&run, |status| status["phase"] == "Running");
    assert_eq!(status["workspace"], format!("volume {}", docked.volume()));
    let list = world.dispatcher(&["list", "--service", &docked.service]).stdout;
    assert!(list.contains(&run) && list.contains("Running"), "{list}");
    let logs = world.dispatcher(&["logs", &run]);
    assert!(logs.stdout.contains("agent"), "{logs:#?}");
    let again = docked.verb("submit", &[]);
    assert!(again.stdout.contains("is already running"), "{again:#?}");

    let stop = world.dispatcher(&["stop", &run, "--no-wait"]);
    assert_eq!(stop.code, 0, "{stop:#?}");
    // Asking again is no second signal: the work is pushed.
    world.dispatcher(&["stop", &run, "--no-wait"]);
    let (ran, outcome) = docked.wait(&run);
    assert_eq!((ran.code, outcome.reason), (143, Reason::Stopped), "{ran:#?}\n{outcome:#?}");
    assert_eq!(outcome.work.location, WorkLocation::Remote);
    assert_mended(&docked);
    let logs = world.dispatcher(&["logs", "-f", &run]);
    let told: Vec<&str> = logs.stdout.lines().collect();
    let events = docked.logs(&run).lines().filter(|line| !line.contains("\"progress\"")).count();
    assert!(told.len() > 10 && told.len() <= events, "{} of {events}", told.len());
    world.assert_invariants(&outcome);
}

#[test]
fn stop_now_keeps_work_in_volume() {
    let Some(docked) = docked(stalls()) else { return };
    let run = docked.begin(&[]);
    docked.wait_until_it_works();
    let stop = docked.world.dispatcher(&["stop", &run, "--now"]);
    assert_eq!(stop.code, 0, "{stop:#?}");
    let (_, outcome) = docked.wait(&run);
    assert_eq!((outcome.reason, outcome.work.location), (Reason::Stopped, WorkLocation::Workspace));
    let path = outcome.work.path.unwrap().replacen("/workspace", "/volume", 1);
    assert_ne!(docked.in_volume(&docked.volume(), &format!("ls -d {path}")), "");
}

#[test]
fn killed_container_is_supervisor_lost_with_retryable_work() {
    let Some(mut docked) = docked(stalls()) else { return };
    let run = docked.begin(&[]);
    docked.wait_until_it_works();
    docked.engine.docker(&["kill", &run]);
    let ran = docked.world.dispatcher(&["wait", &run]);
    let status = docked.world.status(&run);
    assert_eq!((ran.code, &status["reason"]), (70, &"SupervisorLost".into()), "{ran:#?} {status:#}");
    let message = status["message"].as_str().unwrap();
    assert!(message.contains(&docked.volume()), "{message}");
    assert!(status["next_step"].as_str().unwrap().contains("dispatcher retry"), "{status:#}");
    let given = docked.in_volume(&format!("{run}-input"), "ls -l /volume/orchestrator");
    assert!(given.starts_with('-'), "the secrets are still there: {given}");

    docked.world.remember_refs();
    let ran = docked.world.dispatcher(&["retry", &run, "--wait"]);
    let outcome = docked.newest_outcome();
    assert_eq!((ran.code, outcome.reason), (0, Reason::Completed), "{ran:#?}\n{outcome:#?}");
    assert_eq!(outcome.run.as_str(), docked.run_name(2));
    assert_mended(&docked);
    docked.world.assert_invariants(&outcome);
}

#[test]
fn out_of_memory_container_reports_reason() {
    let Some(mut docked) = docked(Script::new()) else { return };
    let image = format!("test/{}", docked.service);
    docked.engine.docker(&["create", "--name", &docked.service, &docked.engine.image]);
    let change = r#"ENTRYPOINT ["sh", "-c", "exec tail /dev/zero"]"#;
    docked.engine.docker(&["commit", "--change", change, &docked.service, &image]);
    docked.engine.docker(&["rm", &docked.service]);
    docked.world.set("ORCHESTRATOR_DOCKER_IMAGE", &image);
    docked.configure("memory = \"256m\"");
    let ran = docked.verb("submit", &["--wait"]);
    let status = docked.world.status(&docked.run_name(1));
    docked.engine.docker(&["rm", "--force", &docked.run_name(1)]);
    docked.engine.docker(&["image", "rm", &image]);
    assert_eq!((ran.code, &status["reason"]), (137, &"OutOfMemory".into()), "{ran:#?} {status:#}");
    assert!(status["message"].as_str().unwrap().contains("out of memory"), "{status:#}");
}

#[test]
fn concurrent_submissions_create_one_run() {
    let Some(docked) = docked(mends()) else { return };
    let names: Vec<String> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(|| docked.begin(&[]))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(names.iter().all(|name| *name == docked.run_name(1)), "{names:?}");
    let (_, outcome) = docked.wait(&names[0]);
    assert_eq!(outcome.reason, Reason::Completed, "{outcome:#?}");
    assert_eq!(docked.containers(&docked.service), [docked.run_name(1)]);
    docked.world.assert_invariants(&outcome);
}

#[test]
fn attempt_numbers_are_unique_despite_removed_containers() {
    let Some(engine) = Engine::get() else { return };
    // Records are cleared away, and those of others would be too.
    let mut docked = DockerEnv::alone(engine, TestEnv::start(Script::new()));
    // The documents of this task do not exist: such a run ends within a second.
    let attempt = |docked: &DockerEnv, flag: &str| -> String {
        let ran = docked.verb("submit", &["--wait", "--docs-directory", "nowhere", flag]);
        assert_eq!(ran.code, 64, "{ran:#?}");
        docked.containers(&docked.service).into_iter().next_back().unwrap()
    };
    assert_eq!(attempt(&docked, "--no-pull-request"), docked.run_name(1));
    assert_eq!(attempt(&docked, "--retry"), docked.run_name(2));
    let keep = docked.in_volume(&docked.volume(), "ls /volume/.orchestrator/runs");
    assert_eq!(keep.lines().collect::<Vec<_>>(), [docked.run_name(1), docked.run_name(2)]);

    let gc = docked.world.dispatcher(&["gc", "--keep", "0"]);
    assert_eq!(gc.code, 0, "{gc:#?}");
    assert!(gc.stdout.contains(&docked.run_name(2)), "{gc:#?}");
    assert_eq!(docked.containers(&docked.service), [""; 0]);
    assert_eq!(docked.volumes(&docked.service), [docked.volume()]);
    assert_eq!(docked.in_volume(&docked.volume(), "ls /volume/.orchestrator/runs"), "");
    assert_eq!(attempt(&docked, "--retry"), docked.run_name(3));

    // By hand, and without us.
    docked.engine.docker(&["rm", "--force", &docked.run_name(3)]);
    assert_eq!(attempt(&docked, "--retry"), docked.run_name(4));

    let other = docked.another_service();
    let flags = docked.flags_for(&other);
    let mut arguments = vec!["submit", "--wait", "--docs-directory", "nowhere"];
    arguments.extend(flags.iter().map(String::as_str));
    docked.world.dispatcher(&arguments);
    let volumes = docked.volumes(&other);
    assert!(volumes.contains(&format!("workspace-{other}")), "{volumes:?}");
    assert_eq!(docked.containers(&other), [format!("{other}-claude-agent-1-task1-attempt1")]);
}

#[test]
fn failed_start_is_explained_without_leftovers() {
    let Some(mut docked) = docked(Script::new()) else { return };
    let name = docked.run_name(1);
    docked.engine.docker(&["create", "--name", &name, &docked.engine.image]);
    let ran = docked.verb("submit", &[]);
    assert_eq!(ran.code, 64, "{ran:#?}");
    assert!(ran.stderr.contains("was not created by the orchestrator"), "{ran:#?}");
    assert_eq!(docked.engine.inspect(&name)["State"]["Status"], "created");
    docked.engine.docker(&["rm", &name]);

    docked.configure("memory = \"1g\"\nnetwork = \"no-such-network\"");
    let ran = docked.verb("submit", &[]);
    assert_eq!(ran.code, 75, "{ran:#?}");
    assert!(ran.stderr.contains("no-such-network"), "{ran:#?}");
    assert_eq!(docked.containers(&docked.service), [""; 0]);
    assert_eq!(docked.volumes(&docked.service), [docked.volume()]);

    docked.world.set("ORCHESTRATOR_DOCKER_IMAGE", "localhost:1/no/such:image");
    let ran = docked.verb("submit", &[]);
    assert_eq!(ran.code, 69, "{ran:#?}");
    assert!(ran.stderr.contains("docker pull localhost:1/no/such:image"), "{ran:#?}");

    docked.world.set("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let ran = docked.verb("submit", &[]);
    assert_eq!(ran.code, 78, "{ran:#?}");
    assert!(ran.stderr.contains("no container engine at unix:///nowhere/docker.sock"), "{ran:#?}");
}
