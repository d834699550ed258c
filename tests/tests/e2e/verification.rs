//! The service's verify commands decide whether a pull request is opened.

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::{VerificationStatus, WorkLocation};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects::{RIGHT, fix, fixes};
use orchestrator_tests::test_env::TestEnv;

/// A command that prints 42 without containing it.
const CHECK: &str = "grep -q max src/lib.rs || { echo no maximum $((40+2)); exit 3; }";

#[test]
fn failed_verification_is_fixed_in_session_then_published() {
    let script = Script::new()
        .turn(Turn::bash("echo '// a try' >> src/lib.rs"))
        .turn(Turn::verdict("done", "Tried."))
        .turn(fix().expecting("no maximum 42").expecting("a try"))
        .turn(Turn::verdict("done", "Now it is the highest."));
    let env = TestEnv::start(script);
    let (output, outcome) = env.submit(&["--verify", CHECK]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.verification.status, VerificationStatus::Passed);
    assert_eq!(outcome.verification.commit, outcome.work.oid);
    assert_eq!(outcome.commits, 1, "the second commit replaces the first");
    assert_eq!(outcome.sessions.len(), 1, "one conversation");
    let log = env.dispatcher(&["logs"]);
    assert!(log.stdout.contains("verification failed, sent back to the agent"), "{log:#?}");
    let sessions: std::collections::BTreeSet<_> =
        env.model.conversation().into_iter().map(|request| request.session).collect();
    assert_eq!(sessions.len(), 1);
    assert!(outcome.pull_request.is_some());
    let diff = env.dispatcher(&["diff"]);
    assert!(diff.stdout.contains("+// a try"), "{diff:#?}");
    let stat = env.dispatcher(&["diff", "--stat", "-o", "json"]);
    assert!(stat.stdout.contains("\"path\": \"src/lib.rs\""), "{stat:#?}");
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

#[test]
fn work_failing_verification_is_pushed_without_pull_request() {
    let script = Script::new()
        .turn(Turn::bash("echo '// a try' >> src/lib.rs"))
        .turn(Turn::verdict("done", "Tried."))
        .turn(Turn::bash("echo '// another try' >> src/lib.rs").expecting("no maximum 42"))
        .turn(Turn::verdict("done", "Tried again."));
    let env = TestEnv::start(script);
    let (output, outcome) = env.submit(&["--verify", CHECK]);
    assert_eq!((output.code, outcome.reason), (1, Reason::VerificationFailed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.verification.status, VerificationStatus::Failed);
    assert_eq!(outcome.verification.commands[0].exit_code, Some(3));
    assert_eq!(outcome.verification.commit, outcome.work.oid);
    assert_eq!(outcome.work.location, WorkLocation::Remote);
    assert!(env.github.pulls().is_empty());
    let lib = env.git.read("acme/trader", "feature/task-1-implementation", "src/lib.rs").unwrap();
    assert!(lib.contains("another try"), "{lib}");
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

#[test]
fn pull_request_without_verify_commands_says_not_verified() {
    let env = TestEnv::start(fixes());
    let (output, outcome) = env.submit(&[]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.verification.status, VerificationStatus::NotConfigured);
    let body = env.github.pulls()[0]["body"].as_str().unwrap().to_owned();
    assert!(body.contains("Not verified"), "{body}");
    env.assert_invariants(&outcome);
}

#[test]
fn changes_of_verify_commands_never_reach_branch() {
    let env = TestEnv::start(fixes());
    let changes =
        "echo '// by a test' >> src/lib.rs; echo x > junit.xml; echo '# x' >> Cargo.lock; git commit -qam x";
    let (output, outcome) = env.submit(&["--verify", changes, "--verify", "test -f junit.xml"]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.verification.status, VerificationStatus::Passed);
    assert_eq!(outcome.verification.commit, outcome.work.oid);
    let read = |file: &str| env.git.read("acme/trader", "feature/task-1-implementation", file);
    let lib = read("src/lib.rs").unwrap();
    assert!(lib.contains(RIGHT) && !lib.contains("by a test"), "{lib}");
    assert!(!read("Cargo.lock").unwrap().contains("# x"));
    assert_eq!(read("junit.xml"), None);
    let oid = outcome.work.oid.clone().unwrap();
    let body = env.github.pulls()[0]["body"].as_str().unwrap().to_owned();
    assert!(body.contains(&format!("succeeded on `{}` in a fresh sandbox.", &oid[..12])), "{body}");
    let left = std::fs::read_dir(env.layout("trader").verify_dir()).unwrap().count();
    assert_eq!(left, 0, "exports that were not removed");
    env.assert_invariants(&outcome);
}

#[test]
fn export_is_clean_repository_at_commit() {
    let env = TestEnv::start(fixes());
    let clean =
        "test -z \"$(git status --porcelain --ignored)\" && git log -1 --format=%B | grep -q '^Run: '";
    let home = "test -z \"$(ls -A $HOME)\" && test -z \"$(ls -A $TMPDIR)\"";
    let (output, outcome) = env.submit(&["--verify", clean, "--verify", home]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    env.assert_invariants(&outcome);
}

#[test]
fn ignored_file_of_agent_does_not_satisfy_check() {
    let plant = || Turn::bash("mkdir -p target && touch target/checked && echo '// a try' >> src/lib.rs");
    let script = Script::new()
        .turn(plant())
        .turn(Turn::verdict("done", "Checked."))
        .turn(plant())
        .turn(Turn::verdict("done", "Checked again."));
    let env = TestEnv::start(script);
    let (output, outcome) = env.submit(&["--verify", "test -f target/checked"]);
    assert_eq!((output.code, outcome.reason), (1, Reason::VerificationFailed), "{output:#?}\n{outcome:#?}");
    env.assert_invariants(&outcome);
}

#[test]
fn runner_in_cargo_home_does_not_replace_tests() {
    let plant = || {
        Turn::bash(
            "mkdir -p $CARGO_HOME && printf '[target.\"cfg(all())\"]\\nrunner = \"true\"\\n' > $CARGO_HOME/config.toml \
             && echo '// a try' >> src/lib.rs && cargo test --offline",
        )
    };
    let script = Script::new()
        .turn(plant())
        .turn(Turn::verdict("done", "The test passes."))
        .turn(plant())
        .turn(Turn::verdict("done", "The test still passes."));
    let env = TestEnv::start(script);
    let (output, outcome) = env.submit(&["--verify", "cargo test --offline"]);
    assert_eq!((output.code, outcome.reason), (1, Reason::VerificationFailed), "{output:#?}\n{outcome:#?}");
    assert!(outcome.verification.commands[0].output.contains("the_best_bid_is_the_highest"), "{outcome:#?}");
    env.assert_invariants(&outcome);
}

#[test]
fn kept_directory_reaches_next_verification() {
    let script = Script::new()
        .turn(fix())
        .turn(Turn::verdict("done", "Fixed."))
        .turn(Turn::bash("echo '// once more' >> src/lib.rs"))
        .turn(Turn::verdict("done", "Once more."));
    let env = TestEnv::start(script);
    std::fs::write(env.path("orchestrator.toml"), "[services.trader]\nverify_keep = [\"target\"]\n").unwrap();
    let check = "test -f target/built || { mkdir target; touch target/built; exit 1; }";
    let (output, outcome) = env.submit(&["--verify", check]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.verification.kept, ["target"]);
    let body = env.github.pulls()[0]["body"].as_str().unwrap().to_owned();
    assert!(body.contains("in a fresh sandbox, with `target` kept from an earlier verification."), "{body}");
    env.assert_invariants(&outcome);
}

#[test]
fn process_of_verify_command_does_not_outlive_it() {
    let env = TestEnv::start(fixes());
    let start = "setsid sh -c 'while :; do echo x >> ticks; sleep 0.02; done' > /dev/null 2>&1 < /dev/null & \
                 while ! test -s ticks; do sleep 0.02; done";
    // Process ids of two commands may be of different namespaces.
    let look = "before=$(wc -c < ticks) && sleep 0.5 && test \"$before\" = \"$(wc -c < ticks)\"";
    let (output, outcome) = env.submit(&["--verify", start, "--verify", look]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    env.assert_invariants(&outcome);
}

#[test]
fn working_directory_replaced_by_link_fails_verification() {
    let script = Script::new()
        // The CLI keeps its own directory under the new name.
        .turn(Turn::bash("(cd .. && mv app old && ln -s src app)"))
        .turn(Turn::verdict("done", "Linked."));
    let env = TestEnv::start(script);
    let (output, outcome) = env.submit(&["--working-directory", "app", "--verify", "true"]);
    assert_eq!((output.code, outcome.reason), (1, Reason::VerificationFailed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.verification.status, VerificationStatus::NotRun);
    env.assert_invariants(&outcome);
}

#[test]
fn leftovers_of_setup_are_not_committed() {
    let script = Script::new()
        .turn(Turn::bash(
            "test -f node_modules && grep -q setup Cargo.lock && git add -A && git commit -qm mine",
        ))
        .turn(fix())
        .turn(Turn::bash("echo agent >> changed.txt"))
        .turn(Turn::verdict("done", "Fixed."));
    let env = TestEnv::start(script);
    let setup = "touch node_modules; echo '# setup' >> Cargo.lock; echo setup > changed.txt; rm README.md";
    let (output, outcome) = env.submit(&["--setup", setup, "--verify", "test -f node_modules"]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    let read = |file: &str| env.git.read("acme/trader", "feature/task-1-implementation", file);
    assert!(read("src/lib.rs").unwrap().contains(RIGHT));
    assert_eq!(read("node_modules"), None);
    assert!(!read("Cargo.lock").unwrap().contains("setup"));
    assert!(read("README.md").is_some());
    assert_eq!(read("changed.txt").as_deref(), Some("setup\nagent\n"), "the agent changed it further");
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

/// Fills a file of cargo's cache unless it is there.
const SETUP: &str = "f=$CARGO_HOME/registry/cache/i/a-1.0.0.crate; \
    test -e $f || { mkdir -p ${f%/*}; echo made in $PWD > $f; }";

#[test]
fn trusted_caches_are_filled_on_base_only() {
    let attack = "f=$CARGO_HOME/registry/cache/i/a-1.0.0.crate; cat $f; (echo evil > $f) 2>/dev/null; \
                  echo evil > $CARGO_HOME/registry/cache/i/b-1.0.0.crate";
    let script = Script::new().turn(Turn::bash(attack)).turn(fix()).turn(Turn::verdict("done", "Fixed."));
    let env = TestEnv::start(script);
    let check = "f=$CARGO_HOME/registry/cache/i/a-1.0.0.crate; grep -q 'made in' $f && ! grep -q \"$PWD\" $f \
                 && test ! -e ${f%/*}/b-1.0.0.crate && ! (echo evil > $f)";
    let (output, outcome) = env.submit(&["--setup", SETUP, "--verify", check]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    let trusted = env.layout("trader").trusted_caches().join("cargo/registry/cache/i");
    let made = std::fs::read_to_string(trusted.join("a-1.0.0.crate")).unwrap();
    assert!(made.starts_with("made in ") && made.contains("/verify/"), "{made}");
    assert!(!trusted.join("b-1.0.0.crate").exists());
    env.assert_invariants(&outcome);
}
