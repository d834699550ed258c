//! The conversations of the usage guide, each with the real CLI on both ends: one as the tech lead's IDE,
//! whose scripted model calls our tools, and one as the agent. Runs are local, and in a cluster.

use std::time::Duration;

use orchestrator_contract::{Outcome, Reason};
use orchestrator_tests::ide_session::IdeSession;
use orchestrator_tests::kubernetes::test_cluster::{Controller, NAMESPACE, TestCluster};
use orchestrator_tests::messages_api::{Fault, Script, Scripts, Turn};
use orchestrator_tests::projects::{blocked, mend, order_book};
use orchestrator_tests::test_env::TestEnv;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// The lead's model: one tool, and a word about it.
fn calls(script: Script, tool: &str, input: Value) -> Script {
    script.turn(Turn::tool(format!("mcp__orchestrator__{tool}"), input)).turn(Turn::text("So it is."))
}

#[track_caller]
fn assert_told(answer: &str, facts: &[&str]) {
    for fact in facts {
        assert!(answer.contains(fact), "{fact:?} is missing from what the model saw:\n{answer}");
    }
}

/// Where runs are performed.
#[expect(clippy::large_enum_variant, reason = "one a test")]
enum Place {
    Local(TestEnv),
    Cluster { _controller: Controller, team: TestCluster },
}

impl Place {
    fn local(agent: impl Into<Scripts>) -> Self {
        Self::Local(TestEnv::start(agent))
    }

    fn cluster(agent: impl Into<Scripts>) -> Self {
        let team = TestCluster::start(agent);
        Self::Cluster { _controller: team.controller(), team }
    }

    fn world(&mut self) -> &mut TestEnv {
        match self {
            Self::Local(world) => world,
            Self::Cluster { team, .. } => &mut team.world,
        }
    }

    fn lead(&self, script: Script) -> IdeSession {
        match self {
            Self::Local(world) => world.lead(script),
            Self::Cluster { team, .. } => team.ide(script),
        }
    }

    /// The answer about a submission must name the run that then ends as expected.
    #[track_caller]
    fn ended(&self, run: &str, reason: Reason) -> Outcome {
        let (told, outcome, world) = match self {
            Self::Local(world) => {
                let (ran, outcome) = world.wait(run);
                (ran.stdout, outcome, world)
            }
            Self::Cluster { team, .. } => {
                let status = team.end(run);
                let outcome = serde_json::from_value(status["outcome"].clone());
                (
                    status.to_string(),
                    outcome.unwrap_or_else(|_| panic!("no outcome: {status:#}")),
                    &team.world,
                )
            }
        };
        assert_eq!(outcome.reason, reason, "{told}\n{outcome:#?}");
        world.assert_invariants(&outcome);
        outcome
    }

    fn has_workspace(&self, service: &str) -> bool {
        match self {
            Self::Local(world) => world.state().join(format!("workspaces/workspace-{service}")).is_dir(),
            Self::Cluster { team, .. } => {
                team.kubelet.claim_folder(NAMESPACE, &format!("workspace-{service}")).is_some()
            }
        }
    }

    /// Waits until the last thing that a run's agent did has these words.
    fn wait_until_doing(&self, run: &str, words: &str) {
        let does = |doing: &Value| doing.as_str().is_some_and(|doing| doing.contains(words));
        match self {
            Self::Local(world) => drop(world.wait_until(run, |status| does(&status["activity"]))),
            Self::Cluster { team, .. } => {
                drop(team.until(run, words, |run| does(&run["status"]["activity"])))
            }
        }
    }
}

#[test]
fn user_guide_start_retry_next_task_works_locally() {
    first_three_conversations(Place::local);
}

#[test]
fn user_guide_start_retry_next_task_works_in_cluster() {
    first_three_conversations(Place::cluster);
}

fn first_three_conversations(place: impl FnOnce(Script) -> Place) {
    const GUIDANCE: &str =
        "Previous attempt failed because agent chose 'curl' crate. Use 'reqwest' crate instead.";
    let agent = Script::new()
        .turn(Turn::bash("echo 'curl = \"0.4\"' > notes.txt"))
        .turn(blocked("Is the curl crate right?"))
        .turn(mend().expecting(GUIDANCE).expecting("Is the curl crate right?"))
        .turn(Turn::verdict("done", "With reqwest now."))
        .turn(Turn::bash("pwd && echo 'pub fn ask() {}' > ask.rs").expecting("trading-engine"))
        .turn(Turn::verdict("done", "There is an ask now.").expecting("/trading-engine"));
    let mut place = place(agent);
    let target = place.world().git.url("acme/trader");
    let script = calls(
        Script::new(),
        "submit_implementation_task",
        json!({"task_id": 1, "service": "trader", "agent": "claude-agent-1", "repository_url": target, "model": "sonnet"}),
    );
    let script = calls(
        script,
        "submit_implementation_task",
        json!({"task_id": 1, "service": "trader", "retry": true, "guidance": GUIDANCE}),
    );
    let script = calls(
        script,
        "submit_implementation_task",
        json!({"task_id": 2, "service": "trader", "working_directory": "trading-engine"}),
    );
    let mut lead = place.lead(script);

    let said = lead.say(
        "I just finished generating docs for the trader service. The docs are merged into main. I want to start \
         implementing task 1 using the claude-agent-1 GitHub account and the sonnet model.",
    );
    let first = "trader-claude-agent-1-task1-attempt1";
    assert_told(
        said.answer(),
        &[
            "**Task**: 1 (trader service)",
            first,
            "claude-agent-1",
            "sonnet",
            "acme/trader",
            "get_task_status",
        ],
    );
    place.ended(first, Reason::AgentBlocked);
    assert_eq!(place.world().github.pulls().len(), 0);
    place.world().remember_refs();

    let said = lead.say("Task 1 failed: the agent chose curl. It should use reqwest. Can you retry this?");
    let second = "trader-claude-agent-1-task1-attempt2";
    assert_told(said.answer(), &[second, GUIDANCE, "feature/task-1-implementation"]);
    let outcome = place.ended(second, Reason::Completed);
    assert_eq!(outcome.work.branch.as_deref(), Some("feature/task-1-implementation"));
    assert_eq!(place.world().github.pulls().len(), 1);
    place.world().remember_refs();

    let said = lead.say("Great! Let's move on to task 2, in the working directory 'trading-engine'.");
    let third = "trader-claude-agent-1-task2-attempt1";
    assert_told(said.answer(), &[third, "trading-engine", "feature/task-2-implementation"]);
    let outcome = place.ended(third, Reason::Completed);
    assert_eq!(outcome.work.branch.as_deref(), Some("feature/task-2-implementation"));
    let pulls = place.world().github.pulls();
    assert_eq!(pulls.len(), 2, "{pulls:#?}");
    let made =
        place.world().git.read("acme/trader", "feature/task-2-implementation", "trading-engine/ask.rs");
    assert!(made.is_some(), "the agent worked in the folder that was asked for");
    let earlier = place.world().git.read("acme/trader", "feature/task-2-implementation", "notes.txt");
    assert_eq!(earlier, None, "task 2 begins without what task 1 left");
    place.world().model.assert_played();
    lead.model.assert_played();
}

/// A lead whose auth task is at work: its agent has run a command and now thinks for ever.
fn at_work(place: impl FnOnce(Script) -> Place, more: impl FnOnce(Script) -> Script) -> (Place, IdeSession) {
    let agent = Script::new()
        .turn(Turn::bash("echo 'middleware' > middleware.rs && echo made-it"))
        .turn(Turn::never(Fault::no_answer()).expecting("made-it"));
    let mut place = place(agent);
    let files = order_book();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    place.world().git.create("acme/platform-auth", "main", &files);
    place.world().remember_refs();
    let target = place.world().git.url("acme/platform-auth");
    let submission = json!({"task_id": 1, "service": "auth", "repository_url": target});
    let mut lead = place.lead(more(calls(Script::new(), "submit_implementation_task", submission)));
    let said = lead.say(
        "Now I want to start working on the auth service. This is a completely separate service with its own repo. \
         Start with task 1.",
    );
    assert_told(said.answer(), &[AUTH, "acme/platform-auth", "workspace-auth"]);
    assert!(place.world().model.wait_for_requests(2, LIMIT), "the agent asks again after its command");
    // Progress is told every ten seconds.
    place.wait_until_doing(AUTH, "middleware.rs");
    (place, lead)
}

const AUTH: &str = "auth-claude-agent-1-task1-attempt1";

#[test]
fn user_guide_start_status_stop_works_locally() {
    last_three_conversations(Place::local);
}

#[test]
fn user_guide_start_status_stop_works_in_cluster() {
    last_three_conversations(Place::cluster);
}

fn last_three_conversations(place: impl FnOnce(Script) -> Place) {
    let (mut place, mut lead) = at_work(place, |script| {
        let script = calls(script, "get_task_status", json!({"service": "auth", "task_id": "1"}));
        calls(script, "stop_task", json!({"service": "auth"}))
    });
    assert!(place.has_workspace("auth") && !place.has_workspace("trader"));

    let said = lead.say("How's that auth task coming along?");
    // What it does now, not only that it runs.
    assert_told(said.answer(), &["Task 1 of the auth service: Running", AUTH, "middleware.rs"]);

    let said =
        lead.say("Wait, I need to stop that auth task. I just realized we're changing the architecture.");
    assert_told(said.answer(), &[AUTH, "workspace"]);
    let outcome = place.ended(AUTH, Reason::Stopped);
    let branch = outcome.work.branch.as_deref().unwrap();
    let saved = place.world().git.read("acme/platform-auth", branch, "middleware.rs");
    assert_eq!(saved.as_deref(), Some("middleware\n"), "{outcome:#?}");
    assert!(place.has_workspace("auth"));
    assert_eq!(lead.model.failures(), Vec::<String>::new());
    assert_eq!(lead.model.unplayed(), 0);
}

/// What the lead's model finds when it looks for a tool in the words of `query`.
fn found(query: &str) -> String {
    let world = TestEnv::start(Script::new());
    let script = Script::new()
        .turn(Turn::tool("ToolSearch", json!({"query": query, "max_results": 3})))
        .turn(Turn::text("There it is."));
    let mut lead = world.lead(script);
    let said = lead.say(query);
    format!("{:?}", said.answers)
}

#[test]
fn common_phrases_find_expected_tools() {
    for (query, tool) in [
        ("start implementing a task", "submit_implementation_task"),
        ("how is the task going", "get_task_status"),
        ("retry task with guidance", "submit_implementation_task"),
        ("stop cancel task", "stop_task"),
    ] {
        let found = found(query);
        assert!(found.contains(tool), "{query:?} finds no {tool}: {found}");
    }
}
