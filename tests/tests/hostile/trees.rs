//! Worktrees and histories that an agent makes to break the save: one bad file costs that file only.

use std::path::{Path, PathBuf};
use std::process::Command;

use orchestrator_contract::layout::Layout;
use orchestrator_contract::outcome::WorkLocation;
use orchestrator_contract::{Outcome, Reason};
use orchestrator_tests::binaries::Binaries;
use orchestrator_tests::command::CommandOutput;
use orchestrator_tests::hostile::{Attack, Kind, Origin, Promise};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::test_env::TestEnv;

pub(super) const CLOSED: Attack = Attack {
    id: "trees-closed-folder",
    origin: Origin::Agent,
    promise: Promise::NoWorkLost,
    what: "leaves its work in a folder and in a file of mode 000",
};

pub(super) const LATIN: Attack = Attack {
    id: "trees-latin1-name",
    origin: Origin::Agent,
    promise: Promise::NoWorkLost,
    what: "leaves its work in a folder whose name is not UTF-8",
};

pub(super) const NESTED: Attack = Attack {
    id: "trees-nested-folders",
    origin: Origin::Agent,
    promise: Promise::NoWorkLost,
    what: "leaves its work below 600 nested folders, while the supervisor may open 1,024 files",
};

pub(super) const ODD: Attack = Attack {
    id: "trees-pipe-and-socket",
    origin: Origin::Agent,
    promise: Promise::AlwaysEnds,
    what: "leaves a named pipe and a socket beside its work",
};

pub(super) const LINKS: Attack = Attack {
    id: "trees-links",
    origin: Origin::Agent,
    promise: Promise::NoSecretLeaked,
    what: "leaves links to `/etc/passwd`, to the workspace, to the run's records and to themselves, one in the place of a file",
};

const SPARSE: Attack = Attack {
    id: "trees-sparse-file",
    origin: Origin::Agent,
    promise: Promise::NoWorkLost,
    what: "leaves a sparse file of 300 GB beside its work",
};

const BOTTOMLESS: Attack = Attack {
    id: "trees-bottomless-folders",
    origin: Origin::Agent,
    promise: Promise::NoWorkLost,
    what: "leaves 3,000 nested empty folders beside its work",
};

const OBJECTS: Attack = Attack {
    id: "trees-nested-objects",
    origin: Origin::Agent,
    promise: Promise::AlwaysEnds,
    what: "commits a tree of 3,000 nested trees",
};

const TARGET: &str = "acme/trader";
const BRANCH: &str = "feature/task-1-implementation";
const SECOND_BRANCH: &str = "feature/task-2-implementation";

/// Starts a program that may open no more than 1,024 files.
const LIMITED: &str = "ulimit -n 1024; exec \"$0\" \"$@\"";

/// Nested folders that are saved.
const DEPTH: usize = 600;

const SPARSE_BYTES: u64 = 300 << 30;

/// What the second task's agent runs: it finds nothing of the first one.
const LOOKS: &str = r#"git status --porcelain; ls -A
[ -f README.md ] && [ ! -L README.md ] && [ -z "$(git status --porcelain)" ] && echo clean-$((40+2))
echo two > two.txt"#;

fn layout(env: &TestEnv) -> Layout {
    Layout::new(env.path("workspace"))
}

/// Runs a task with the supervisor, which may open few files.
fn run(env: &TestEnv, task: &str, more: &[&str]) -> (CommandOutput, Outcome) {
    let mut flags = env.task_flags(layout(env).root());
    let at = flags.iter().position(|flag| flag == "--task").expect("the flag of the task");
    task.clone_into(&mut flags[at + 1]);
    let supervisor = Binaries::get().supervisor.display().to_string();
    let mut arguments = vec!["-c", LIMITED, supervisor.as_str(), "run"];
    arguments.extend(flags.iter().map(String::as_str));
    arguments.extend(more);
    let output = env.run(Path::new("/bin/sh"), &arguments);
    let outcome = output.outcome().unwrap_or_else(|| panic!("no outcome: {output:#?}"));
    (output, outcome)
}

/// Runs a task and asserts that it completes with its work pushed.
#[track_caller]
fn completes(env: &TestEnv, task: &str, more: &[&str]) -> Outcome {
    let (output, outcome) = run(env, task, more);
    let ended = (output.code, outcome.reason, outcome.work.location);
    let wanted = (0, Reason::Completed, WorkLocation::Remote);
    assert_eq!(ended, wanted, "{output:#?}\n{outcome:#?}");
    outcome
}

/// Runs the second task and asserts that only its own work is on its branch.
fn assert_second_task_is_clean(env: &mut TestEnv) {
    env.record_refs();
    let outcome = completes(env, "2", &[]);
    let changed = env.git.ask(TARGET, &["diff", "--name-only", "main", SECOND_BRANCH]);
    assert_eq!(changed, "two.txt");
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

/// Returns mode and content of a path on the branch, as `git ls-tree` shows the path.
fn stored(env: &TestEnv, shown: &str) -> Option<(String, String)> {
    let listed = env.git.ask(TARGET, &["ls-tree", "-r", BRANCH]);
    let is_shown = |line: &&str| line.split_once('\t').is_some_and(|(_, path)| path == shown);
    let line = listed.lines().find(is_shown)?;
    let mut words = line.split_whitespace();
    let (mode, oid) = (words.next()?, words.nth(1)?);
    Some((mode.to_owned(), env.git.ask(TARGET, &["cat-file", "blob", oid])))
}

/// Asserts that the outcome says which path was not saved, and why.
#[track_caller]
fn assert_named(outcome: &Outcome, text: &str) {
    assert!(outcome.notes.iter().any(|note| note.contains(text)), "{text}: {:?}", outcome.notes);
    assert!(outcome.message.contains(text), "{text}: {}", outcome.message);
}

/// Asserts the invariants while some entries of the worktree are elsewhere.
///
/// The search for secrets reads each file as a whole and keeps each folder open while it is in it.
#[track_caller]
fn assert_invariants_without(env: &TestEnv, outcome: &Outcome, names: &[&str]) {
    let worktree = layout(env).target_repo();
    let elsewhere = tempfile::tempdir().unwrap();
    for name in names {
        std::fs::rename(worktree.join(name), elsewhere.path().join(name)).unwrap();
    }
    env.assert_invariants(outcome);
    for name in names {
        std::fs::rename(elsewhere.path().join(name), worktree.join(name)).unwrap();
    }
}

/// Entries that can be saved, except for pipe and socket. Landlock's filter permits no socket.
pub(super) const ENTRIES: &str = r#"echo good > good.txt
mkdir closed && echo kept > closed/file && chmod 000 closed
echo kept > shut.txt && chmod 000 shut.txt
latin=$(printf 'caf\351'); mkdir "$latin" && echo kept > "$latin/menu"
deep=$(printf 'd/%.0s' $(seq 600)); mkdir -p "$deep" && echo kept > "${deep}bottom"
mkfifo pipe
node -e 'require("net").createServer().listen("socket", () => process.kill(process.pid, "SIGKILL"))'
ln -s /etc/passwd passwd; ln -s "$PWD/.." parent; ln -s ../.orchestrator records; ln -s loop loop
rm README.md && ln -s /etc/passwd README.md && echo made-$((40+2))"#;

#[test]
fn odd_entries_are_saved_or_named_in_each_sandbox() {
    for kind in Kind::available() {
        leave_odd_entries(*kind);
    }
}

fn leave_odd_entries(kind: Kind) {
    let script = Script::new()
        .turn(Turn::bash(ENTRIES))
        .turn(Turn::verdict("done", "It is good.").expecting("made-42"))
        .turn(Turn::bash(LOOKS))
        .turn(Turn::verdict("done", "Two.").expecting("clean-42"));
    let mut env = TestEnv::start(script);
    env.set("ORCHESTRATOR_SANDBOX_KIND", kind.name());
    let outcome = completes(&env, "1", &[]);
    let content = |shown: &str| stored(&env, shown).map(|(_, content)| content);
    assert_eq!(content("good.txt").as_deref(), Some("good"), "{kind:?}");
    let bottom = format!("{}bottom", "d/".repeat(DEPTH));
    for path in ["closed/file", "shut.txt", r#""caf\351/menu""#, bottom.as_str()] {
        assert_eq!(content(path).as_deref(), Some("kept"), "{kind:?}: {path}: {outcome:#?}");
    }
    let links = [
        ("passwd", "/etc/passwd"),
        ("README.md", "/etc/passwd"),
        ("records", "../.orchestrator"),
        ("loop", "loop"),
    ];
    for (path, target) in links {
        let wanted = Some(("120000".to_owned(), target.to_owned()));
        assert_eq!(stored(&env, path), wanted, "{kind:?}: {path}");
    }
    let (mode, target) = stored(&env, "parent").expect("a link to the workspace");
    assert!(mode == "120000" && target.ends_with("/target-repo/.."), "{kind:?}: {mode} {target}");
    assert_named(&outcome, "`pipe` is a named pipe");
    let has_socket = layout(&env).target_repo().join("socket").symlink_metadata().is_ok();
    assert!(has_socket || kind == Kind::Landlock, "the agent made no socket");
    if has_socket {
        assert_named(&outcome, "`socket` is a socket");
    }
    assert_invariants_without(&env, &outcome, &["d"]);
    assert_second_task_is_clean(&mut env);
    CLOSED.held(kind, "the files are saved and pushed; the next task starts clean");
    LATIN.held(kind, "the file is pushed under its own name; the next task starts clean");
    NESTED.held(kind, "the file at the bottom is pushed; the next task starts clean");
    ODD.held(kind, "the outcome names what no tree can have; the rest is pushed");
    LINKS.held(kind, "pushed as links, never followed; the next task starts clean");
}

/// Entries that cannot be saved. Each call has a path shorter than `PATH_MAX`.
const UNSAVABLE: &str = r#"echo good > good.txt
truncate -s 300G sparse.img
(part=$(printf 'e/%.0s' $(seq 500)); for i in 1 2 3 4 5 6; do mkdir -p "$part" && cd -P "$part" || exit 1; done) \
&& echo made-$((40+2))"#;

/// Returns the only worktree that was moved aside, which the outcome names.
#[track_caller]
fn noted_aside(env: &TestEnv, outcome: &Outcome) -> PathBuf {
    let entries = std::fs::read_dir(layout(env).aside()).unwrap().flatten();
    let trees: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    let [tree] = trees.as_slice() else { panic!("{trees:?}") };
    let named = outcome.notes.iter().any(|note| note.contains(&tree.display().to_string()));
    assert!(named, "{} in {:?}", tree.display(), outcome.notes);
    tree.clone()
}

#[test]
fn unsavable_entries_are_named_and_moved_aside() {
    let script = Script::new()
        .turn(Turn::bash(UNSAVABLE))
        .turn(Turn::verdict("done", "It is good.").expecting("made-42"))
        .turn(Turn::bash("echo more > more.txt"))
        .turn(Turn::verdict("done", "And more."));
    let mut env = TestEnv::start(script);
    let outcome = completes(&env, "1", &[]);
    assert_eq!(env.git.read(TARGET, BRANCH, "good.txt").as_deref(), Some("good\n"));
    assert_named(&outcome, "`sparse.img` is larger than 512 MiB");
    assert_named(&outcome, "is nested in more than 1000 folders");
    let changed = env.git.ask(TARGET, &["diff", "--name-only", "main", BRANCH]);
    assert_eq!(changed, "good.txt");
    let sparse = layout(&env).target_repo().join("sparse.img");
    assert_eq!(sparse.metadata().unwrap().len(), SPARSE_BYTES);
    assert_invariants_without(&env, &outcome, &["sparse.img", "e"]);

    env.record_refs();
    let outcome = completes(&env, "1", &["--retry"]);
    let changed = env.git.ask(TARGET, &["diff", "--name-only", "main", BRANCH]);
    assert_eq!(changed, "good.txt\nmore.txt");
    let aside = noted_aside(&env, &outcome);
    let (sparse, nested) = (aside.join("sparse.img"), aside.join("e"));
    assert_eq!(sparse.metadata().unwrap().len(), SPARSE_BYTES);
    assert!(nested.join("e/e/e").is_dir(), "{}", nested.display());
    // The search for secrets reads each file, and a removal in one process opens each folder.
    let removed = Command::new("rm").arg("-rf").args([&sparse, &nested]).status().unwrap();
    assert!(removed.success());
    env.model.assert_played();
    env.assert_invariants(&outcome);
    let happened =
        "the outcome names it, the rest is pushed; a retry moves the worktree aside whole and goes on";
    SPARSE.held(Kind::Any, happened);
    BOTTOMLESS.held(Kind::Any, happened);
}

/// Writes nested trees as loose objects and commits the outermost one on the agent's branch.
const OBJECTS_COMMAND: &str = r#"echo good > good.txt
cat > "$TMPDIR/nested.js" <<'EOF'
const { createHash } = require('crypto'), { deflateSync } = require('zlib'), fs = require('fs');
const write = body => {
  const raw = Buffer.concat([Buffer.from(`tree ${body.length}\0`), body]);
  const oid = createHash('sha1').update(raw).digest('hex'), folder = `.git/objects/${oid.slice(0, 2)}`;
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(`${folder}/${oid.slice(2)}`, deflateSync(raw));
  return oid;
};
let tree = write(Buffer.alloc(0));
for (let depth = 0; depth < 3000; depth++) tree = write(Buffer.concat([Buffer.from('40000 e\0'), Buffer.from(tree, 'hex')]));
console.log(tree);
EOF
tree=$(node "$TMPDIR/nested.js") \
&& commit=$(git -c user.name=Ann -c user.email=ann@example.com commit-tree -p HEAD -m Nested "$tree") \
&& git update-ref HEAD "$commit" && echo made-$((40+2))"#;

#[test]
fn commit_of_nested_trees_costs_only_history() {
    let script = Script::new()
        .turn(Turn::bash(OBJECTS_COMMAND))
        .turn(Turn::verdict("done", "It is good.").expecting("made-42"))
        .turn(Turn::bash(LOOKS))
        .turn(Turn::verdict("done", "Two.").expecting("clean-42"));
    let mut env = TestEnv::start(script);
    let outcome = completes(&env, "1", &[]);
    let why = "no usable git history (tree";
    let noted = outcome.notes.iter().any(|note| note.contains(why) && note.contains("nested folders"));
    assert!(noted, "{:?}", outcome.notes);
    let changed = env.git.ask(TARGET, &["diff", "--name-only", "main", BRANCH]);
    assert_eq!((changed.as_str(), env.git.ahead(TARGET, "main", BRANCH)), ("good.txt", 1));
    env.assert_invariants(&outcome);
    assert_second_task_is_clean(&mut env);
    OBJECTS.held(Kind::Any, "the commit is left out, the outcome says so, and its files are pushed");
}
