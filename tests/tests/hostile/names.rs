//! Repositories whose trees have names that lead out of a worktree, or into its git directory.
//!
//! Git creates no such trees, so they are written as raw objects into the git host's repositories.

use std::path::{Path, PathBuf};

use orchestrator_contract::outcome::WorkLocation;
use orchestrator_contract::{Outcome, Reason};
use orchestrator_tests::command::CommandOutput;
use orchestrator_tests::hostile::{Attack, Kind, Origin, Promise};
use orchestrator_tests::invariants::assert_not_below;
use orchestrator_tests::projects::{RIGHT, fixes};
use orchestrator_tests::test_env::TestEnv;

const IN_TARGET: Attack = Attack {
    id: "names-target",
    origin: Origin::Repository,
    promise: Promise::NoWorkLost,
    what: "has tree entries `..`, `.`, `.git` in all spellings, names with `/`, and a link with a file below it",
};

const IN_PLATFORM: Attack = Attack {
    id: "names-platform",
    origin: Origin::Platform,
    promise: Promise::NoWorkLost,
    what: "has tree entries `..`, `.`, `.git` in all spellings, names with `/`, and a link with a file below it",
};

const OVER_PATH: Attack = Attack {
    id: "names-local-path",
    origin: Origin::Repository,
    promise: Promise::NoWorkLost,
    what: "has tree entries `..`, `.git` and names with `/`, and is fetched from a path of this machine",
};

const TARGET: &str = "acme/trader";
const PLATFORM: &str = "acme/platform";
const MAIN: &str = "refs/heads/main";
const BRANCH: &str = "feature/task-1-implementation";

/// Content of each file that an attack wants to write.
const PLANTED: &str = "zeppelin-planted-by-tree";

const FILE: &str = "100644";
const FOLDER: &str = "40000";
const LINK: &str = "120000";

const DOTS: &str = "which is a reference to a folder, not a name";
const GIT: &str = "which is a spelling of `.git`";
const SLASH: &str = "which contains `/`";
const TWICE: &str = "which occurs twice";

/// Attacks that also run over a local path: the first ones.
const OVER_PATH_COUNT: usize = 3;

/// Entry of a tree object.
#[derive(Clone, Debug)]
struct Entry {
    mode: String,
    name: Vec<u8>,
    oid: String,
}

fn entry(mode: &str, name: impl Into<Vec<u8>>, oid: &str) -> Entry {
    Entry { mode: mode.to_owned(), name: name.into(), oid: oid.to_owned() }
}

/// Entries that are added to the root of a good tree, and why they are refused.
struct Case {
    about: &'static str,
    entries: Vec<Entry>,
    why: &'static str,
}

/// Writes an object without checks and returns its id.
fn object(env: &TestEnv, repository: &str, kind: &str, content: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    let path = file.path().to_str().unwrap();
    env.git.ask(repository, &["hash-object", "-w", "--literally", "-t", kind, path])
}

/// Writes a tree, in git's order.
fn tree(env: &TestEnv, repository: &str, mut entries: Vec<Entry>) -> String {
    entries.sort_by_key(|entry| {
        let mut key = entry.name.clone();
        if entry.mode == FOLDER {
            key.push(b'/');
        }
        key
    });
    let mut content = Vec::new();
    for Entry { mode, name, oid } in &entries {
        content.extend_from_slice(mode.as_bytes());
        content.push(b' ');
        content.extend_from_slice(name);
        content.push(0);
        content.extend_from_slice(git2::Oid::from_str(oid).unwrap().as_bytes());
    }
    object(env, repository, "tree", &content)
}

/// Returns the entries of the default branch's root.
fn root(env: &TestEnv, repository: &str) -> Vec<Entry> {
    let listed = env.git.ask(repository, &["ls-tree", MAIN]);
    let parse = |line: &str| {
        let (about, name) = line.split_once('\t').unwrap();
        let mut words = about.split(' ');
        let mode = words.next().unwrap().trim_start_matches('0');
        entry(mode, name, words.nth(1).unwrap())
    };
    listed.lines().map(parse).collect()
}

/// Commits a tree on top of the default branch.
fn commit(env: &TestEnv, repository: &str, tree: &str) {
    let commit = env.git.ask(repository, &["commit-tree", "-p", MAIN, "-m", "Change names", tree]);
    env.git.ask(repository, &["update-ref", MAIN, &commit]);
}

/// Returns the attacks; those that lead out of the worktree lead to `canary`, beside the workspace.
fn cases(env: &TestEnv, repository: &str, canary: &Path) -> Vec<Case> {
    let blob = object(env, repository, "blob", PLANTED.as_bytes());
    let link = object(env, repository, "blob", canary.to_str().unwrap().as_bytes());
    let wrap = |name: &str, inner: &str| tree(env, repository, vec![entry(FOLDER, name, inner)]);
    let folder = tree(env, repository, vec![entry(FILE, "planted", &blob)]);
    let beside = wrap("canary", &folder);
    let up = wrap("..", &beside);
    let up_again = wrap("..", &up);
    let inside_up = wrap("..", &up_again);
    let absolute = canary.join("planted");
    let case = |about, entries, why| Case { about, entries, why };
    let git = |name: &'static str| case(name, vec![entry(FOLDER, name, &folder)], GIT);
    vec![
        case("folder ..", vec![entry(FOLDER, "..", &up)], DOTS),
        case("relative path", vec![entry(FILE, "../../canary/planted", &blob)], SLASH),
        git(".git"),
        case("file ..", vec![entry(FILE, "..", &blob)], DOTS),
        case("folder .. in a folder", vec![entry(FOLDER, "zz", &inside_up)], DOTS),
        case("file .", vec![entry(FILE, ".", &blob)], DOTS),
        git(".GIT"),
        git("git~1"),
        git(".g\u{200c}it"),
        case("absolute path", vec![entry(FILE, absolute.to_str().unwrap(), &blob)], SLASH),
        case("link and folder", vec![entry(LINK, "zz", &link), entry(FOLDER, "zz", &folder)], TWICE),
        case("link and file below", vec![entry(LINK, "zz", &link), entry(FILE, "zz/planted", &blob)], SLASH),
    ]
}

/// Directory of a lead: a workspace, and beside it files that no run may touch.
struct Outer {
    folder: PathBuf,
}

impl Outer {
    fn create(env: &TestEnv) -> Self {
        let outer = Self { folder: env.path("outer") };
        std::fs::create_dir_all(outer.canary()).unwrap();
        std::fs::create_dir_all(outer.workspace()).unwrap();
        std::fs::write(outer.canary().join("mine"), "mine\n").unwrap();
        outer
    }

    fn workspace(&self) -> PathBuf {
        self.folder.join("workspace")
    }

    fn canary(&self) -> PathBuf {
        self.folder.join("canary")
    }

    /// Asserts that the files beside the workspace are as they were, and nothing was planted anywhere.
    #[track_caller]
    fn assert_untouched(&self, env: &TestEnv) {
        assert_eq!(listing(&self.folder), ["canary", "workspace"]);
        assert_eq!(listing(&self.canary()), ["mine"]);
        assert_eq!(std::fs::read_to_string(self.canary().join("mine")).unwrap(), "mine\n");
        assert_not_below(&env.path(""), PLANTED);
    }
}

/// Returns the names in a directory, sorted.
fn listing(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Runs task 1 with the supervisor, with another value of one flag.
fn run(env: &TestEnv, outer: &Outer, flag: &str, value: &str, more: &[&str]) -> (CommandOutput, Outcome) {
    let mut flags = env.task_flags(&outer.workspace());
    let at = flags.iter().position(|known| known == flag).expect("a flag of each task");
    value.clone_into(&mut flags[at + 1]);
    let mut arguments = vec!["run"];
    arguments.extend(flags.iter().map(String::as_str));
    arguments.extend(more);
    if outer.workspace().join(".orchestrator").exists() {
        arguments.push("--retry");
    }
    let output = env.supervisor(&arguments);
    let outcome = output.outcome().unwrap_or_else(|| panic!("no outcome: {output:#?}"));
    (output, outcome)
}

/// Attacks from one repository, again and again in one workspace; then the repository is repaired.
fn attack(repository: &str, over_path: bool) {
    let mut env = TestEnv::start(fixes());
    let outer = Outer::create(&env);
    let is_target = repository == TARGET;
    let flag = if is_target { "--repository-url" } else { "--platform-repository-url" };
    let path = env.git.path(repository).display().to_string();
    let url = if over_path { path } else { env.git.url(repository) };
    // The invariants find the target by its URL, which a path is not.
    let known = !(is_target && over_path);
    let more: &[&str] = if known { &[] } else { &["--no-pull-request"] };
    let good = root(&env, repository);
    let count = if over_path { OVER_PATH_COUNT } else { usize::MAX };
    for Case { about, entries, why } in cases(&env, repository, &outer.canary()).into_iter().take(count) {
        let hostile = tree(&env, repository, [good.clone(), entries].concat());
        commit(&env, repository, &hostile);
        env.record_refs();
        let before = env.git.refs(TARGET);
        let (output, outcome) = run(&env, &outer, flag, &url, more);
        let ended = (output.code, outcome.reason, outcome.work.location);
        let refused = (65, Reason::UnsupportedRepository, WorkLocation::None);
        assert_eq!(ended, refused, "{about}: {output:#?}\n{outcome:#?}");
        assert!(outcome.message.contains(why), "{about}: {}", outcome.message);
        assert_eq!(env.git.refs(TARGET), before, "{about}");
        outer.assert_untouched(&env);
        if known {
            env.assert_invariants(&outcome);
        }
    }
    assert!(env.model.conversation().is_empty(), "an agent was started");
    let repaired = tree(&env, repository, good);
    commit(&env, repository, &repaired);
    env.record_refs();
    let (output, outcome) = run(&env, &outer, flag, &url, more);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(env.git.tips(TARGET).get(BRANCH), outcome.work.oid.as_ref());
    assert!(env.git.read(TARGET, BRANCH, "src/lib.rs").unwrap().contains(RIGHT));
    outer.assert_untouched(&env);
    env.model.assert_played();
    if known {
        env.assert_invariants(&outcome);
    }
}

#[test]
fn hostile_name_in_target_is_refused_before_any_write() {
    attack(TARGET, false);
    IN_TARGET.held(
        Kind::Any,
        "`UnsupportedRepository` before the first write, with the name; the next good commit works",
    );
}

#[test]
fn hostile_name_in_platform_is_refused_before_any_write() {
    attack(PLATFORM, false);
    IN_PLATFORM.held(
        Kind::Any,
        "`UnsupportedRepository` before the first write, with the name; the next good commit works",
    );
}

#[test]
fn hostile_name_over_local_path_is_refused() {
    attack(TARGET, true);
    attack(PLATFORM, true);
    OVER_PATH.held(
        Kind::Any,
        "`UnsupportedRepository` before the first write, with the name; the next good commit works",
    );
}
