//! `dispatcher debug`: the printed `docker run` command and its effects.

use std::path::Path;

use orchestrator_tests::docker_env::DockerEnv;
use orchestrator_tests::engine::Engine;
use orchestrator_tests::messages_api::Script;
use orchestrator_tests::projects::{RIGHT, fixes};
use orchestrator_tests::test_env::TestEnv;

const BRANCH: &str = "feature/task-1-implementation";

fn docker_env(script: Script) -> Option<DockerEnv> {
    let engine = Engine::get()?;
    Some(DockerEnv::new(engine, TestEnv::start(script)))
}

#[track_caller]
fn assert_no_secret(docker: &DockerEnv, text: &str) {
    for secret in [&docker.env.token, &docker.env.key] {
        assert!(!text.contains(secret.as_str()), "a secret in {text}");
    }
}

#[test]
fn debug_run_ends_after_named_step_keeping_volume() {
    let Some(docker) = docker_env(Script::new()) else { return };
    let output = docker.verb("debug", &["--until", "branch"]);
    assert_eq!(output.code, 0, "{output:#?}");
    assert!(
        output.stderr.contains("docker --host=") && output.stderr.contains("--cap-drop=ALL"),
        "{output:#?}"
    );
    assert!(output.stdout.contains("branch"), "{output:#?}");
    assert_no_secret(&docker, &format!("{output:?}"));
    let volume = format!("{}-debug", docker.volume());
    assert_eq!(docker.volumes(&docker.service), [volume.as_str()]);
    assert_eq!(docker.containers(&docker.service), [""; 0]);
    assert!(docker.in_volume(&volume, "ls /volume/target-repo").contains("Cargo.toml"));
    assert!(docker.env.git.read("acme/trader", BRANCH, "Cargo.toml").is_none());
    let list = docker.env.dispatcher(&["list", "--service", &docker.service]);
    assert!(!list.stdout.contains(&docker.service), "{list:#?}");

    // Once more in the same volume, then without it.
    let output = docker.verb("debug", &["--until", "fetch_platform"]);
    assert!(output.stderr.contains("task1-attempt2"), "{output:#?}");
    let output = docker.verb("debug", &["--until", "preflight", "--rm-volume"]);
    assert_eq!((output.code, docker.volumes(&docker.service)), (0, Vec::new()), "{output:#?}");
    let output = docker.verb("debug", &["--until", "nowhere"]);
    assert_eq!(output.code, 64, "{output:#?}");
}

#[test]
fn printed_debug_command_runs_complete_task() {
    let Some(mut docker) = docker_env(fixes()) else { return };
    let printed = docker.verb("debug", &["--print"]);
    assert_eq!(printed.code, 0, "{printed:#?}");
    assert_no_secret(&docker, &format!("{printed:?}"));
    assert_eq!(docker.containers(&docker.service), [""; 0]);
    let address = docker.engine.address().to_owned();
    for name in ["GITHUB_TOKEN", "ANTHROPIC_API_KEY", "DOCKER_HOST"] {
        docker.env.set(name, "");
    }
    assert!(printed.stdout.contains(&address), "{printed:#?}");
    let output = docker.env.run(Path::new("/bin/sh"), &["-c", &printed.stdout]);
    assert_eq!(output.code, 0, "{output:#?}");
    assert_no_secret(&docker, &format!("{output:?}"));
    let lib = docker.env.git.read("acme/trader", BRANCH, "src/lib.rs").unwrap();
    assert!(lib.contains(RIGHT), "{lib}");
    assert_eq!(docker.env.github.pulls().len(), 1);
    let remove = printed.stderr.lines().find_map(|line| line.split_once("docker volume rm ")).unwrap().1;
    assert!(docker.volumes(&docker.service).iter().any(|volume| volume == remove.trim()), "{remove}");
}

#[test]
fn debug_shell_sees_workspace_without_credentials() {
    let Some(docker) = docker_env(Script::new()) else { return };
    let look = "--shell=pwd; git branch --show-current; id -u; env; ls -A /run/secrets; cat /proc/1/environ; \
                touch x && echo can write; exit 3";
    let output = docker.verb("debug", &[look]);
    assert_eq!(output.code, 3, "{output:#?}");
    for expected in ["/workspace/target-repo", BRANCH, "10001", "can write"] {
        assert!(output.stdout.contains(expected), "{expected}: {output:#?}");
    }
    assert!(!output.stdout.contains("github-token"), "{output:#?}");
    assert_no_secret(&docker, &format!("{output:?}"));
}

#[test]
fn debug_shell_looks_at_worktree_of_service_as_agent() {
    let Some(docker) = docker_env(Script::new()) else { return };
    let look = ["--service-volume", "--shell=id -u; pwd; ls -A; env"];
    let output = docker.verb("debug", &look);
    assert_eq!(output.code, 64, "there is no volume yet: {output:#?}");
    let output = docker.verb("submit", &["--wait", "--docs-directory", "nowhere"]);
    assert_eq!(output.code, 64, "{output:#?}");
    let output = docker.verb("debug", &look);
    assert_eq!(output.code, 0, "{output:#?}");
    assert!(output.stdout.starts_with("10002\n/workspace\n"), "{output:#?}");
    assert_no_secret(&docker, &format!("{output:?}"));

    // A run there would mix files of several users.
    let output = docker.verb("debug", &["--volume", &docker.volume(), "--until", "preflight"]);
    assert_eq!(output.code, 64, "{output:#?}");
    assert!(output.stderr.contains("is that of a service"), "{output:#?}");
}
