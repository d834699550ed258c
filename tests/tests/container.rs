//! The agent image: runs from beginning to end with the CLI, the servers and the toolchain in it.

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::{McpStatus, Place as WorkPlace, VerificationStatus};
use orchestrator_tests::engine::{Engine, Place};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects::{RIGHT, mend};
use orchestrator_tests::sshd::{Sshd, Unavailable};
use orchestrator_tests::world::World;
use serde_json::json;

const BRANCH: &str = "feature/task-1-implementation";

fn mends() -> Script {
    Script::new()
        .turn(Turn::tool(
            "mcp__memory__create_entities",
            json!({"entities": [{"name": "best_bid", "entityType": "function", "observations": ["returned the first bid"]}]}),
        ))
        .turn(mend())
        .turn(Turn::bash("cargo test --offline 2>&1 | tail -5; git commit -qam 'Mend best_bid'; id"))
        .turn(Turn::verdict("done", "best_bid now returns the highest bid."))
}

#[test]
fn a_run_in_a_hardened_container_ends_with_a_pull_request_and_a_second_one_goes_on_from_it() {
    let Some(engine) = Engine::get() else { return };
    let script = mends().turn(Turn::bash("echo 2 >> notes.txt")).turn(Turn::verdict("done", "More."));
    let mut world = World::start(script);
    let place = Place::new(&world);
    let container = engine.run_in(&world, &place).start_task(&world, &["--verify", "cargo test --offline"]);
    let (ran, outcome) = container.outcome();
    assert_eq!((ran.code, outcome.reason), (0, Reason::Completed), "{ran:#?}\n{outcome:#?}");
    assert_eq!(outcome.verification.status, VerificationStatus::Passed);
    let server = |name: &str| outcome.mcp_servers.iter().find(|server| server.name == name).unwrap();
    assert_eq!((server("memory").status, server("memory").tools), (McpStatus::Connected, 9));
    assert_eq!(server("rustdocs").status, McpStatus::Connected, "{:#?}", server("rustdocs"));
    let lib = world.git.read("acme/trader", BRANCH, "src/lib.rs").unwrap();
    assert!(lib.contains(RIGHT), "{lib}");
    assert_eq!(ran.stderr, "");
    world.assert_invariants(&outcome);
    println!("{}", story(&ran.stdout));

    world.remember_refs();
    let container = engine.run_in(&world, &place);
    let more = ["--retry", "--guidance", "Write notes too."];
    let (ran, outcome) = container.start_task(&world, &more).outcome();
    assert_eq!((ran.code, outcome.reason), (0, Reason::Completed), "{ran:#?}\n{outcome:#?}");
    assert_eq!(outcome.attempt.to_string(), "2");
    assert_eq!(world.git.read("acme/trader", BRANCH, "notes.txt").as_deref(), Some("2\n"));
    world.model.assert_played();
    world.assert_invariants(&outcome);
}

/// Seconds of each step, for whoever reads the test's output.
fn story(events: &str) -> String {
    let seconds = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(format!("{} {:.2} s", event["step"].as_str()?, event["seconds"].as_f64()?))
    };
    events.lines().filter_map(seconds).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_user_without_an_entry_in_passwd_works_and_fetches_over_ssh() {
    let Some(engine) = Engine::get() else { return };
    let script = Script::new()
        .turn(Turn::bash("id -u > notes.txt; git commit -q --allow-empty -m empty; touch $HOME/x"))
        .turn(Turn::verdict("done", "It is done."));
    let world = World::start(script);
    let sshd = match Sshd::start(world.git.root()) {
        Ok(sshd) => sshd,
        Err(Unavailable(why)) => {
            println!("skipped: {why}");
            return;
        }
    };
    let place = Place::owned_by(&world, 54321);
    place.secret("ssh-privatekey", &std::fs::read_to_string(sshd.key()).unwrap());
    place.secret("known_hosts", &sshd.known_hosts());
    let url = sshd.url("acme/trader");
    let platform = world.git.url("acme/platform");
    let container = engine.run_in(&world, &place).with(&["--user", "54321:0"]);
    let arguments = ["--service", "trader", "--task", "1", "--repository-url", &url];
    let more = ["--platform-repository-url", &platform, "--no-pull-request"];
    let (ran, outcome) = container.start(&[&arguments[..], &more].concat()).outcome();
    assert_eq!((ran.code, outcome.reason), (0, Reason::Completed), "{ran:#?}\n{outcome:#?}");
    assert_eq!(outcome.work.place, WorkPlace::Remote);
    assert_eq!(world.git.read("acme/trader", BRANCH, "notes.txt").as_deref(), Some("54321\n"));
    world.assert_invariants(&outcome);
}

#[test]
fn a_plain_docker_run_with_the_task_in_its_environment_works() {
    let Some(engine) = Engine::get() else { return };
    let script = Script::new().turn(Turn::bash("echo 1 > notes.txt")).turn(Turn::verdict("done", "Done."));
    let world = World::start(script);
    let mut container = engine.plain().with(&["--network=host"]);
    let names = ["GITHUB_API_URL", "ANTHROPIC_BASE_URL", "GITHUB_TOKEN", "ANTHROPIC_API_KEY"];
    for name in names {
        container = container.with(&["--env", &format!("{name}={}", world.environment()[name])]);
    }
    let (target, platform) = (world.git.url("acme/trader"), world.git.url("acme/platform"));
    container = container.with(&["--env", &format!("ORCHESTRATOR_REPOSITORY_URL={target}")]);
    container = container.with(&["--env", &format!("ORCHESTRATOR_PLATFORM_REPOSITORY_URL={platform}")]);
    let (ran, outcome) = container.start(&["--service", "trader", "--task", "1"]).outcome();
    assert_eq!((ran.code, outcome.reason), (0, Reason::Completed), "{ran:#?}\n{outcome:#?}");
    assert_eq!(world.git.read("acme/trader", BRANCH, "notes.txt").as_deref(), Some("1\n"));
    world.assert_invariants(&outcome);
}

#[test]
fn a_check_without_task_and_credentials_says_what_is_missing() {
    let Some(engine) = Engine::get() else { return };
    let ran = engine.hardened().start(&["check"]).end();
    assert_eq!(ran.code, 64, "{ran:#?}");
    for flag in ["--task", "--service", "--repository-url", "--platform-repository-url"] {
        assert!(ran.stdout.contains(flag) || ran.stderr.contains(flag), "{flag}: {ran:#?}");
    }
    let world = World::start(Script::new());
    let flags = world.task_flags(std::path::Path::new("/workspace"));
    let mut arguments = vec!["check"];
    arguments.extend(flags.iter().map(String::as_str));
    let ran = engine.plain().with(&["--network=host"]).start(&arguments).end();
    assert_eq!(ran.code, 78, "{ran:#?}");
    assert!(ran.stdout.contains("CredentialMissing"), "{ran:#?}");
}

#[test]
fn what_the_image_weighs_and_how_soon_it_speaks() {
    let Some(engine) = Engine::get() else { return };
    let image = engine.inspect(&engine.image);
    let layers = image["RootFS"]["Layers"].as_array().unwrap().len();
    println!("{}: {} MB in {layers} layers", engine.image, image["Size"].as_u64().unwrap() / 1_000_000);
    let mut times: Vec<_> = (0..5)
        .map(|_| {
            let container = engine.hardened().start(&["check"]);
            container.wait_until_said_or_ended();
            container.age()
        })
        .collect();
    times.sort();
    println!("from docker run to the supervisor's first line: median {:?} of {times:?}", times[2]);
    assert_eq!(image["Config"]["User"], "10001:0");
    assert_eq!(image["Config"]["Entrypoint"], json!(["supervisor"]));
    assert_eq!(image["Config"]["Labels"]["org.opencontainers.image.title"], "orchestrator agent");
}
