//! The agent image: complete runs with its CLI, servers and toolchain.

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::{McpStatus, VerificationStatus, WorkLocation as WorkPlace};
use orchestrator_tests::engine::{Engine, RunDirs};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects::{RIGHT, fix};
use orchestrator_tests::sshd::{Sshd, Unavailable};
use orchestrator_tests::test_env::TestEnv;
use serde_json::json;

const BRANCH: &str = "feature/task-1-implementation";

fn fixes() -> Script {
    Script::new()
        .turn(Turn::tool(
            "mcp__memory__create_entities",
            json!({"entities": [{"name": "best_bid", "entityType": "function", "observations": ["returned the first bid"]}]}),
        ))
        .turn(fix())
        .turn(Turn::bash("cargo test --offline 2>&1 | tail -5; git commit -qam 'Fix best_bid'; id"))
        .turn(Turn::verdict("done", "best_bid now returns the highest bid."))
}

#[test]
fn hardened_container_opens_pull_request_that_retry_continues() {
    let Some(engine) = Engine::get() else { return };
    let script = fixes().turn(Turn::bash("echo 2 >> notes.txt")).turn(Turn::verdict("done", "More."));
    let mut env = TestEnv::start(script);
    let dirs = RunDirs::new(&env);
    let container = engine.run_in(&env, &dirs).start_task(&env, &["--verify", "cargo test --offline"]);
    let (output, outcome) = container.outcome();
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.verification.status, VerificationStatus::Passed);
    let server = |name: &str| outcome.mcp_servers.iter().find(|server| server.name == name).unwrap();
    assert_eq!((server("memory").status, server("memory").tools), (McpStatus::Connected, 9));
    if server("rustdocs").note.as_deref().is_some_and(|note| note.contains("nightly")) {
        println!("skipped: the image has no nightly toolchain for the rustdocs server");
    } else {
        assert_eq!(server("rustdocs").status, McpStatus::Connected, "{:#?}", server("rustdocs"));
    }
    let lib = env.git.read("acme/trader", BRANCH, "src/lib.rs").unwrap();
    assert!(lib.contains(RIGHT), "{lib}");
    assert_eq!(output.stderr, "");
    env.assert_invariants(&outcome);
    println!("{}", step_times(&output.stdout));

    env.record_refs();
    let container = engine.run_in(&env, &dirs);
    let more = ["--retry", "--guidance", "Write notes too."];
    let (output, outcome) = container.start_task(&env, &more).outcome();
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.attempt.to_string(), "2");
    assert_eq!(env.git.read("acme/trader", BRANCH, "notes.txt").as_deref(), Some("2\n"));
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

/// Returns the seconds of each step, for the output of the test.
fn step_times(events: &str) -> String {
    let seconds = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(format!("{} {:.2} s", event["step"].as_str()?, event["seconds"].as_f64()?))
    };
    events.lines().filter_map(seconds).collect::<Vec<_>>().join(", ")
}

#[test]
fn user_without_passwd_entry_fetches_over_ssh() {
    let Some(engine) = Engine::get() else { return };
    let script = Script::new()
        .turn(Turn::bash("id -u > notes.txt; git commit -q --allow-empty -m empty; touch $HOME/x"))
        .turn(Turn::verdict("done", "It is done."));
    let env = TestEnv::start(script);
    let sshd = match Sshd::start(env.git.root()) {
        Ok(sshd) => sshd,
        Err(Unavailable(why)) => {
            println!("skipped: {why}");
            return;
        }
    };
    let dirs = RunDirs::owned_by(&env, 54321);
    dirs.secret("ssh-privatekey", &std::fs::read_to_string(sshd.key()).unwrap());
    dirs.secret("known_hosts", &sshd.known_hosts());
    let url = sshd.url("acme/trader");
    let platform = env.git.url("acme/platform");
    let container = engine.run_in(&env, &dirs).with(&["--user", "54321:0"]);
    let arguments = ["--service", "trader", "--task", "1", "--repository-url", &url];
    let more = ["--platform-repository-url", &platform, "--no-pull-request"];
    let (output, outcome) = container.start(&[&arguments[..], &more].concat()).outcome();
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.work.location, WorkPlace::Remote);
    assert_eq!(env.git.read("acme/trader", BRANCH, "notes.txt").as_deref(), Some("54321\n"));
    env.assert_invariants(&outcome);
}

#[test]
fn plain_docker_run_with_task_in_environment_completes() {
    let Some(engine) = Engine::get() else { return };
    let script = Script::new().turn(Turn::bash("echo 1 > notes.txt")).turn(Turn::verdict("done", "Done."));
    let env = TestEnv::start(script);
    let mut container = engine.plain().with(&["--network=host"]);
    let names = ["GITHUB_API_URL", "ANTHROPIC_BASE_URL", "GITHUB_TOKEN", "ANTHROPIC_API_KEY"];
    for name in names {
        container = container.with(&["--env", &format!("{name}={}", env.environment()[name])]);
    }
    let (target, platform) = (env.git.url("acme/trader"), env.git.url("acme/platform"));
    container = container.with(&["--env", &format!("ORCHESTRATOR_REPOSITORY_URL={target}")]);
    container = container.with(&["--env", &format!("ORCHESTRATOR_PLATFORM_REPOSITORY_URL={platform}")]);
    let (output, outcome) = container.start(&["--service", "trader", "--task", "1"]).outcome();
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(env.git.read("acme/trader", BRANCH, "notes.txt").as_deref(), Some("1\n"));
    env.assert_invariants(&outcome);
}

#[test]
fn derived_image_provides_tools_of_own_stack() {
    let Some(mut engine) = Engine::get() else { return };
    engine.image = engine.image.replace("/agent:", "/agent-python:");
    if !engine.docker(&["image", "inspect", &engine.image]).status.success() {
        println!("skipped: no image {}", engine.image);
        return;
    }
    let write = "printf 'def test_sum():\\n    assert 1 + 1 == 2\\n' > test_sum.py; python3 -m pytest -q";
    let script = Script::new().turn(Turn::bash(write)).turn(Turn::verdict("done", "It is tested."));
    let env = TestEnv::start(script.expect_in_request(1, "1 passed"));
    let dirs = RunDirs::new(&env);
    let verify = ["--verify", "python3 -m pytest -q -p no:cacheprovider"];
    let (output, outcome) = engine.run_in(&env, &dirs).start_task(&env, &verify).outcome();
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

#[test]
fn dispatcher_image_is_one_small_program_for_any_user() {
    let Some(mut engine) = Engine::get() else { return };
    engine.image = engine.image.replace("/agent:", "/dispatcher:");
    if !engine.docker(&["image", "inspect", &engine.image]).status.success() {
        println!("skipped: no image {}", engine.image);
        return;
    }
    let size = engine.inspect(&engine.image)["Size"].as_u64().unwrap();
    println!("{}: {:.1} MB", engine.image, size as f64 / 1e6);
    assert!(size < 40_000_000, "{size}");
    for user in ["10001:0", "54321:0"] {
        let output = engine.hardened().with(&["--user", user]).start(&["--version"]).end();
        assert_eq!((output.code, output.stdout.starts_with("dispatcher ")), (0, true), "{output:#?}");
    }
}

#[test]
fn check_without_task_or_credentials_lists_missing() {
    let Some(engine) = Engine::get() else { return };
    let output = engine.hardened().start(&["check"]).end();
    assert_eq!(output.code, 64, "{output:#?}");
    for flag in ["--task", "--service", "--repository-url", "--platform-repository-url"] {
        assert!(output.stdout.contains(flag) || output.stderr.contains(flag), "{flag}: {output:#?}");
    }
    let env = TestEnv::start(Script::new());
    let flags = env.task_flags(std::path::Path::new("/workspace"));
    let mut arguments = vec!["check"];
    arguments.extend(flags.iter().map(String::as_str));
    let output = engine.plain().with(&["--network=host"]).start(&arguments).end();
    assert_eq!(output.code, 78, "{output:#?}");
    assert!(output.stdout.contains("CredentialMissing"), "{output:#?}");
}

#[test]
fn agent_image_reports_size_and_start_time() {
    let Some(engine) = Engine::get() else { return };
    let image = engine.inspect(&engine.image);
    let layers = image["RootFS"]["Layers"].as_array().unwrap().len();
    println!("{}: {} MB in {layers} layers", engine.image, image["Size"].as_u64().unwrap() / 1_000_000);
    let mut times: Vec<_> = (0..5)
        .map(|_| {
            let container = engine.hardened().start(&["check"]);
            container.wait_for_output();
            container.age()
        })
        .collect();
    times.sort();
    println!("from docker run to the supervisor's first line: median {:?} of {times:?}", times[2]);
    assert_eq!(image["Config"]["User"], "10001:0");
    assert_eq!(image["Config"]["Entrypoint"], json!(["supervisor"]));
    assert_eq!(image["Config"]["Labels"]["org.opencontainers.image.title"], "orchestrator agent");
}
