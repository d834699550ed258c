//! Agents that use git: their commits are kept, and no broken repository loses work.

use orchestrator_contract::{Outcome, Reason};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects::{RIGHT, fix};
use orchestrator_tests::test_env::TestEnv;

const BRANCH: &str = "feature/task-1-implementation";

/// Runs an agent that fixes the crate and then runs a command in its repository.
fn with(command: &str) -> (TestEnv, Outcome) {
    let script = Script::new()
        .turn(fix())
        .turn(Turn::bash(command))
        .turn(Turn::verdict("done", "best_bid now returns the highest bid."));
    let env = TestEnv::start(script);
    let (output, outcome) = env.submit(&[]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    env.model.assert_played();
    let lib = env.git.read("acme/trader", BRANCH, "src/lib.rs").unwrap();
    assert!(lib.contains(RIGHT), "{lib}");
    (env, outcome)
}

fn assert_on_the_base(env: &TestEnv, outcome: &Outcome) {
    let parent = env.git.ask("acme/trader", &["rev-parse", &format!("{BRANCH}~1")]);
    assert_eq!(parent.trim(), env.git.tips("acme/trader")["main"]);
    assert_eq!(outcome.commits, 1);
    env.assert_invariants(outcome);
}

#[test]
fn agent_commit_keeps_oid_with_author_reported() {
    let (env, outcome) =
        with("git commit -qam Fix --author='Ada Lovelace <ada@example.com>' && git rev-parse HEAD");
    let tip = outcome.work.oid.clone().unwrap();
    assert!(env.model.conversation().last().unwrap().contains(&tip), "the agent's own oid");
    let shown = env.git.ask("acme/trader", &["log", "-1", "--format=%s|%an|%ae", BRANCH]);
    assert_eq!(shown.trim(), "Fix|Ada Lovelace|ada@example.com");
    assert!(outcome.other_authors.iter().any(|author| author.contains("Ada Lovelace")), "{outcome:#?}");
    env.assert_invariants(&outcome);
}

#[test]
fn uncommitted_changes_are_committed_on_top_of_agent_commits() {
    let (env, outcome) = with("git commit -qam Fix && echo more > more.txt && git rev-parse HEAD");
    assert_eq!(outcome.commits, 2);
    assert_eq!(outcome.other_authors, Vec::<String>::new());
    let below = env.git.ask("acme/trader", &["rev-parse", &format!("{BRANCH}~1")]);
    assert!(env.model.conversation().last().unwrap().contains(below.trim()), "the agent's own oid");
    assert_eq!(env.git.read("acme/trader", BRANCH, "more.txt").unwrap().trim(), "more");
    env.assert_invariants(&outcome);
}

#[test]
fn amended_base_publishes_only_its_tree() {
    let (env, outcome) = with("git commit -qa --amend -m 'All mine'");
    assert!(outcome.notes.iter().any(|note| note.contains("rewrote history")), "{:?}", outcome.notes);
    assert_on_the_base(&env, &outcome);
}

#[test]
fn orphan_branch_publishes_only_its_tree() {
    let (env, outcome) = with("git checkout -q --orphan mine && git commit -qam 'All mine'");
    assert!(outcome.notes.iter().any(|note| note.contains("rewrote history")), "{:?}", outcome.notes);
    assert_on_the_base(&env, &outcome);
}

#[test]
fn deleted_base_ref_keeps_agent_work() {
    let (env, outcome) = with(
        "git update-ref -d HEAD && git branch -D main; git update-ref -d refs/remotes/origin/main; true",
    );
    assert_on_the_base(&env, &outcome);
}

#[test]
fn commits_on_other_branch_stay_in_workspace_with_note() {
    let (env, outcome) = with(
        "git switch -qc side && echo side > side.txt && git add side.txt && git commit -qm Side && git switch -q -",
    );
    let kept = format!("refs/orchestrator/{}/heads/side", outcome.run);
    assert!(outcome.notes.iter().any(|note| note.contains(&kept)), "{:?}", outcome.notes);
    let control = git2::Repository::open_bare(env.layout("trader").target_control()).unwrap();
    let commit = control.find_reference(&kept).unwrap().peel_to_commit().unwrap();
    assert_eq!(commit.message(), Ok("Side\n"));
    assert_eq!(env.git.read("acme/trader", BRANCH, "side.txt"), None);
    assert_on_the_base(&env, &outcome);
}

#[test]
fn deleted_git_directory_loses_no_work() {
    let (env, outcome) = with("rm -rf .git");
    assert!(outcome.notes.iter().any(|note| note.contains("no usable git history")), "{:?}", outcome.notes);
    assert_on_the_base(&env, &outcome);
}
