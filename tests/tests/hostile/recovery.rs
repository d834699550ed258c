//! What an earlier run left behind never costs work, and never blocks the service.

use std::path::{Path, PathBuf};
use std::time::Duration;

use orchestrator_contract::outcome::WorkLocation;
use orchestrator_contract::{Outcome, Reason};
use orchestrator_tests::command::poll;
use orchestrator_tests::hostile::{Attack, Kind, Origin, Promise};
use orchestrator_tests::messages_api::{Fault, Script, Turn};
use orchestrator_tests::projects::{RIGHT, fix};
use orchestrator_tests::test_env::TestEnv;
use rustix::process::Signal;
use serde_json::Value;

const BRANCH: &str = "feature/task-1-implementation";

const STATE_FIELD: Attack = Attack {
    id: "recovery-state-field",
    origin: Origin::EarlierRun,
    promise: Promise::NoWorkLost,
    what: "the record of the worktree has a renamed, missing or future field while work is unsaved",
};

const STATE_DAMAGED: Attack = Attack {
    id: "recovery-state-damaged",
    origin: Origin::EarlierRun,
    promise: Promise::NoWorkLost,
    what: "the record of the worktree is empty, missing or a directory while work is unsaved",
};

const UNSAVABLE: Attack = Attack {
    id: "recovery-unsavable-tree",
    origin: Origin::EarlierRun,
    promise: Promise::AlwaysEnds,
    what: "the worktree of a killed run has folders of mode 000, names in Latin-1 and 600 nested folders",
};

const CRASH: Attack = Attack {
    id: "recovery-crash",
    origin: Origin::EarlierRun,
    promise: Promise::AlwaysEnds,
    what: "a worktree kills each supervisor that saves it",
};

const NO_START: Attack = Attack {
    id: "recovery-start-missing",
    origin: Origin::EarlierRun,
    promise: Promise::AlwaysEnds,
    what: "the record names a commit that the control repository does not have",
};

const ATTEMPTS: Attack = Attack {
    id: "recovery-attempt-number",
    origin: Origin::EarlierRun,
    promise: Promise::TruthfulOutcome,
    what: "the counter of attempts restarts at 0",
};

const RESPELLED: Attack = Attack {
    id: "recovery-respelled-url",
    origin: Origin::EarlierRun,
    promise: Promise::NoWorkLost,
    what: "the supervisor is killed, the repository's URL spelled differently, and the base branch moved",
};

const STOP_WHILE_SAVING: Attack = Attack {
    id: "recovery-stop-while-saving",
    origin: Origin::Agent,
    promise: Promise::AlwaysEnds,
    what: "writes 100 MB of random data, and the run is stopped twice while it is saved",
};

/// Plays an agent that runs `command`, then a retry that completes the task.
fn scripts(command: &str) -> [Script; 2] {
    let retry = Script::when("This is a new attempt.")
        .turn(fix())
        .turn(Turn::verdict("done", "It is the highest now."));
    let first = Script::when("Implement task 1 of")
        .turn(Turn::bash(format!("echo 'left behind' > left.txt; {command}")))
        .turn(Turn::never(Fault::stalls_mid_stream()));
    [retry, first]
}

/// Runs an agent that leaves work, and kills its supervisor.
fn killed(command: &str) -> (TestEnv, String) {
    let mut env = TestEnv::start(scripts(command));
    let run = env.start_run("1", &[]);
    assert!(env.model.wait_for_requests(2, Duration::from_secs(120)), "{:#}", env.status(&run));
    env.signal(&run, Signal::KILL);
    env.wait_until(&run, |status| status["phase"] == "Failed");
    env.record_refs();
    (env, run)
}

/// Retries and asserts that the service goes on.
fn assert_goes_on(env: &TestEnv, run: &str) -> Outcome {
    let (output, outcome) = env.retry(run, &[]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert!(env.git.read("acme/trader", BRANCH, "src/lib.rs").unwrap().contains(RIGHT));
    env.assert_invariants(&outcome);
    outcome
}

fn left_on_branch(env: &TestEnv) -> bool {
    env.git.read("acme/trader", BRANCH, "left.txt").is_some_and(|text| text.trim() == "left behind")
}

/// Returns whether a ref of the control repository holds the work, and the outcome names it.
fn left_on_noted_ref(env: &TestEnv, outcome: &Outcome) -> bool {
    let control = git2::Repository::open_bare(env.layout("trader").target_control()).unwrap();
    let references = control.references_glob("refs/orchestrator/recovered/*").unwrap();
    references.flatten().any(|reference| {
        let name = reference.name().unwrap();
        let tree = reference.peel_to_tree().unwrap();
        tree.get_name("left.txt").is_some() && outcome.notes.iter().any(|note| note.contains(name))
    })
}

/// Returns the only tree that was moved aside, which the outcome names.
fn noted_aside(env: &TestEnv, outcome: &Outcome) -> PathBuf {
    let entries = std::fs::read_dir(env.layout("trader").aside()).unwrap().flatten();
    let trees: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    let [tree] = trees.as_slice() else { panic!("{trees:?}") };
    let named = outcome.notes.iter().any(|note| note.contains(&tree.display().to_string()));
    assert!(named, "{} in {:?}", tree.display(), outcome.notes);
    tree.clone()
}

fn edit_state(path: &Path, edit: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let mut state: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    edit(state.as_object_mut().unwrap());
    std::fs::write(path, state.to_string()).unwrap();
}

#[test]
fn renamed_field_of_state_loses_no_work() {
    for field in ["status", "start", "version"] {
        let (env, run) = killed("true");
        edit_state(&env.layout("trader").state(), |state| {
            let value = state.remove(field).unwrap();
            state.insert(format!("{field}2"), value);
        });
        let outcome = assert_goes_on(&env, &run);
        assert!(left_on_branch(&env) || left_on_noted_ref(&env, &outcome), "{field}: {outcome:#?}");
    }
    STATE_FIELD
        .held(Kind::Any, "everything in the worktree is saved first, on its branch or a ref of its own");
}

#[test]
fn clean_state_of_future_version_loses_no_work() {
    let (env, run) = killed("true");
    edit_state(&env.layout("trader").state(), |state| {
        state.insert("version".to_owned(), 2.into());
        state.insert("status".to_owned(), "clean".into());
    });
    let outcome = assert_goes_on(&env, &run);
    assert!(left_on_branch(&env) || left_on_noted_ref(&env, &outcome), "{outcome:#?}");
}

#[test]
fn damaged_state_loses_no_work() {
    for damage in ["empty", "missing", "directory"] {
        let (env, run) = killed("true");
        let state = env.layout("trader").state();
        std::fs::remove_file(&state).unwrap();
        match damage {
            "empty" => std::fs::write(&state, "").unwrap(),
            "directory" => std::fs::create_dir_all(state.join("inside")).unwrap(),
            _ => {}
        }
        let outcome = assert_goes_on(&env, &run);
        assert!(left_on_noted_ref(&env, &outcome), "{damage}: {outcome:#?}");
    }
    STATE_DAMAGED.held(Kind::Any, "the worktree is saved whole as `refs/orchestrator/recovered/...`");
}

#[test]
fn unsavable_tree_of_killed_run_never_blocks_service() {
    let nested = "deep=$(printf 'd/%.0s' $(seq 600)) && mkdir -p $deep && echo deep > ${deep}file";
    let command = format!(
        "mkdir locked && echo locked > locked/file && chmod 000 locked; \
         mkdir $(printf 'caf\\351') && echo latin > $(printf 'caf\\351')/file; {nested}"
    );
    let (env, run) = killed(&command);
    let outcome = assert_goes_on(&env, &run);
    if !left_on_branch(&env) {
        let aside = noted_aside(&env, &outcome);
        assert_eq!(std::fs::read_to_string(aside.join("left.txt")).unwrap().trim(), "left behind");
    }
    UNSAVABLE
        .held(Kind::Any, "what can be saved is saved, the rest is moved aside, and the next run goes on");
}

#[test]
fn worktree_that_crashes_each_save_is_moved_aside() {
    let (env, run) = killed("true");
    // As two supervisors leave it that die while they save.
    let marker = env.layout("trader").state().with_extension("recovering");
    std::fs::write(&marker, "2").unwrap();
    let outcome = assert_goes_on(&env, &run);
    let aside = noted_aside(&env, &outcome);
    assert_eq!(std::fs::read_to_string(aside.join("left.txt")).unwrap().trim(), "left behind");
    assert!(!marker.exists());
    CRASH.held(Kind::Any, "after two tries the worktree is moved aside whole");
}

#[test]
fn missing_start_commit_never_blocks_service() {
    let (env, run) = killed("true");
    edit_state(&env.layout("trader").state(), |state| {
        state.insert("start".to_owned(), "0123456789012345678901234567890123456789".into());
    });
    let outcome = assert_goes_on(&env, &run);
    let aside = noted_aside(&env, &outcome);
    assert_eq!(std::fs::read_to_string(aside.join("left.txt")).unwrap().trim(), "left behind");
    NO_START.held(Kind::Any, "the worktree is moved aside whole");
}

#[test]
fn damaged_attempt_counter_never_reuses_number() {
    let (env, run) = killed("true");
    let folder = env.layout("trader").supervisor_dir();
    // A counter that an old backup restored.
    std::fs::write(folder.join("attempts/claude-agent-1/task1"), "0").unwrap();
    let outcome = assert_goes_on(&env, &run);
    assert_eq!(outcome.attempt, 2);
    assert!(left_on_branch(&env), "{outcome:#?}");
    let counter = std::fs::read_to_string(folder.join("attempts/claude-agent-1/task1")).unwrap();
    assert_eq!(counter.trim(), "2");
    ATTEMPTS.held(Kind::Any, "numbers continue after the highest that a file or a run names");
}

#[test]
fn respelled_url_with_moved_base_keeps_leftovers() {
    let (mut env, run) = killed("true");
    let moved = env.git.commit("acme/trader", "main", "Elsewhere", &[("docs/elsewhere.md", "moved\n")]);
    env.record_refs();
    let respelled = env.git.url("acme/trader").trim_end_matches(".git").to_owned();
    let (output, outcome) = env.retry(&run, &["--repository-url", &respelled]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert!(left_on_branch(&env), "{outcome:#?}");
    assert!(env.git.is_ancestor("acme/trader", &moved, outcome.work.oid.as_ref().unwrap()));
    assert!(!env.layout("trader").aside().exists(), "{:?}", outcome.notes);
    env.assert_invariants(&outcome);
    RESPELLED
        .held(Kind::Any, "spellings of one repository share a control repository, and the retry continues");
}

/// A stop now leaves 8 s for the commit and 4 s for the bundle; the rest is the load of the machine.
const STOPPED_NOW: Duration = Duration::from_secs(30);

#[test]
fn second_sigterm_while_large_file_is_saved_ends_soon() {
    let script = Script::new()
        .turn(Turn::bash("head -c 100M /dev/urandom > large.bin && echo made-$((40+2))"))
        .turn(Turn::verdict("done", "A large file.").expecting("made-42"));
    let env = TestEnv::start(script);
    let run = env.start_run("1", &[]);
    env.wait_until(&run, |status| status["step"] == "commit");
    env.signal(&run, Signal::TERM);
    // Two pending signals of one number are one (signal(7)).
    let log = || env.dispatcher(&["logs", &run]).stdout;
    poll(Duration::from_secs(60), log, || log().contains("stop requested").then_some(()));
    let started = std::time::Instant::now();
    env.signal(&run, Signal::TERM);
    let (output, outcome) = env.wait(&run);
    let elapsed = started.elapsed();
    assert_eq!((output.code, outcome.reason), (143, Reason::Stopped), "{output:#?}\n{outcome:#?}");
    assert!(elapsed < STOPPED_NOW, "{elapsed:?}");
    assert_eq!(outcome.work.location, WorkLocation::Workspace, "{outcome:#?}");
    let kept = outcome.work.path.as_ref().unwrap();
    assert!(outcome.message.contains(kept), "{}", outcome.message);
    // Its content is in the worktree, or in the commit that the outcome names.
    let layout = env.layout("trader");
    match &outcome.work.oid {
        None => assert!(layout.target_repo().join("large.bin").metadata().unwrap().len() == 100 << 20),
        Some(oid) => {
            let control = git2::Repository::open_bare(layout.target_control()).unwrap();
            let commit = control.find_commit(git2::Oid::from_str(oid).unwrap()).unwrap();
            assert!(commit.tree().unwrap().get_name("large.bin").is_some());
        }
    }
    // The search for secrets reads every file.
    drop(std::fs::remove_file(layout.target_repo().join("large.bin")));
    STOP_WHILE_SAVING.held(Kind::Any, "the commit has 8 seconds left; then the worktree keeps the work");
}
