//! Runs by hand: the `docker run` line of the dispatcher, and what it does.

use std::path::Path;

use orchestrator_tests::docker_env::DockerEnv;
use orchestrator_tests::engine::Engine;
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects::{RIGHT, mends};
use orchestrator_tests::test_env::TestEnv;

const BRANCH: &str = "feature/task-1-implementation";

fn docked(script: Script) -> Option<DockerEnv> {
    let engine = Engine::get()?;
    Some(DockerEnv::new(engine, TestEnv::start(script)))
}

#[track_caller]
fn assert_no_secret(docked: &DockerEnv, text: &str) {
    for secret in [&docked.world.token, &docked.world.key] {
        assert!(!text.contains(secret.as_str()), "a secret in {text}");
    }
}

#[test]
fn debug_run_ends_after_named_step_keeping_volume() {
    let Some(docked) = docked(Script::new()) else { return };
    let ran = docked.verb("debug", &["--until", "branch"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.stderr.contains("docker --host=") && ran.stderr.contains("--cap-drop=ALL"), "{ran:#?}");
    assert!(ran.stdout.contains("branch"), "{ran:#?}");
    assert_no_secret(&docked, &format!("{ran:?}"));
    let volume = format!("{}-debug", docked.volume());
    assert_eq!(docked.volumes(&docked.service), [volume.as_str()]);
    assert_eq!(docked.containers(&docked.service), [""; 0]);
    assert!(docked.in_volume(&volume, "ls /volume/target-repo").contains("Cargo.toml"));
    assert!(docked.world.git.read("acme/trader", BRANCH, "Cargo.toml").is_none());
    let list = docked.world.dispatcher(&["list", "--service", &docked.service]);
    assert!(!list.stdout.contains(&docked.service), "{list:#?}");

    // Again, in the same volume, and then without it.
    let ran = docked.verb("debug", &["--until", "platform"]);
    assert!(ran.stderr.contains("task1-attempt2"), "{ran:#?}");
    let ran = docked.verb("debug", &["--until", "check", "--rm-volume"]);
    assert_eq!((ran.code, docked.volumes(&docked.service)), (0, Vec::new()), "{ran:#?}");
    let ran = docked.verb("debug", &["--until", "nowhere"]);
    assert_eq!(ran.code, 64, "{ran:#?}");
}

#[test]
fn printed_debug_command_runs_complete_task() {
    let Some(mut docked) = docked(mends()) else { return };
    let printed = docked.verb("debug", &["--print"]);
    assert_eq!(printed.code, 0, "{printed:#?}");
    assert_no_secret(&docked, &format!("{printed:?}"));
    assert_eq!(docked.containers(&docked.service), [""; 0]);
    let address = docked.engine.address().to_owned();
    for name in ["GITHUB_TOKEN", "ANTHROPIC_API_KEY", "DOCKER_HOST"] {
        docked.world.set(name, "");
    }
    assert!(printed.stdout.contains(&address), "{printed:#?}");
    let ran = docked.world.run(Path::new("/bin/sh"), &["-c", &printed.stdout]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_no_secret(&docked, &format!("{ran:?}"));
    let lib = docked.world.git.read("acme/trader", BRANCH, "src/lib.rs").unwrap();
    assert!(lib.contains(RIGHT), "{lib}");
    assert_eq!(docked.world.github.pulls().len(), 1);
    let remove = printed.stderr.lines().find_map(|line| line.split_once("docker volume rm ")).unwrap().1;
    assert!(docked.volumes(&docked.service).iter().any(|volume| volume == remove.trim()), "{remove}");
}

#[test]
fn debug_shell_sees_workspace_without_credentials() {
    let Some(docked) = docked(Script::new()) else { return };
    let look = "--shell=pwd; git branch --show-current; id -u; env; ls -A /run/secrets; cat /proc/1/environ; \
                touch x && echo can write; exit 3";
    let ran = docked.verb("debug", &[look]);
    assert_eq!(ran.code, 3, "{ran:#?}");
    for expected in ["/workspace/target-repo", BRANCH, "10001", "can write"] {
        assert!(ran.stdout.contains(expected), "{expected}: {ran:#?}");
    }
    assert!(!ran.stdout.contains("github-token"), "{ran:#?}");
    assert_no_secret(&docked, &format!("{ran:?}"));
}

#[test]
fn debug_run_in_service_volume_gets_own_attempt_number() {
    let Some(docked) = docked(Script::new().turn(Turn::verdict("done", "It is done."))) else { return };
    let ran = docked.verb("debug", &["--service-volume", "--until", "check"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_eq!(docked.volumes(&docked.service), [docked.volume()]);
    assert_eq!(docked.begin(&[]), docked.run_name(2));
    docked.wait(&docked.run_name(2));
}
