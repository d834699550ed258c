//! The conversations of the usage guide, with the real CLI as MCP client and as agent.
//! / The IDE's model is a script that calls the orchestrator's tools. Runs are local and in a cluster.

use std::time::Duration;

use orchestrator_contract::{Outcome, Reason};
use orchestrator_tests::ide_session::IdeSession;
use orchestrator_tests::kubernetes::test_cluster::{Controller, NAMESPACE, TestCluster};
use orchestrator_tests::messages_api::{Fault, Script, Scripts, Turn};
use orchestrator_tests::projects::{blocked, fix, order_book};
use orchestrator_tests::test_env::TestEnv;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// The IDE's model: one tool call and a text.
fn calls(script: Script, tool: &str, input: Value) -> Script {
    script.turn(Turn::tool(format!("mcp__orchestrator__{tool}"), input)).turn(Turn::text("So it is."))
}

#[track_caller]
fn assert_contains(answer: &str, facts: &[&str]) {
    for fact in facts {
        assert!(answer.contains(fact), "{fact:?} is missing from what the model saw:\n{answer}");
    }
}

/// The backend of the runs.
#[expect(clippy::large_enum_variant, reason = "one per test")]
enum Backend {
    Local(TestEnv),
    Cluster { _controller: Controller, cluster: TestCluster },
}

impl Backend {
    fn local(agent: impl Into<Scripts>) -> Self {
        Self::Local(TestEnv::start(agent))
    }

    fn cluster(agent: impl Into<Scripts>) -> Self {
        let cluster = TestCluster::start(agent);
        Self::Cluster { _controller: cluster.controller(), cluster }
    }

    fn env(&mut self) -> &mut TestEnv {
        match self {
            Self::Local(env) => env,
            Self::Cluster { cluster, .. } => &mut cluster.env,
        }
    }

    fn ide_session(&self, script: Script) -> IdeSession {
        match self {
            Self::Local(env) => env.ide_session(script),
            Self::Cluster { cluster, .. } => cluster.ide_session(script),
        }
    }

    /// Asserts that the reply to a submission names the run, and that the run ends as expected.
    #[track_caller]
    fn ended(&self, run: &str, reason: Reason) -> Outcome {
        let (reported, outcome, env) = match self {
            Self::Local(env) => {
                let (output, outcome) = env.wait(run);
                (output.stdout, outcome, env)
            }
            Self::Cluster { cluster, .. } => {
                let status = cluster.end(run);
                let outcome = serde_json::from_value(status["outcome"].clone());
                (
                    status.to_string(),
                    outcome.unwrap_or_else(|_| panic!("no outcome: {status:#}")),
                    &cluster.env,
                )
            }
        };
        assert_eq!(outcome.reason, reason, "{reported}\n{outcome:#?}");
        env.assert_invariants(&outcome);
        outcome
    }

    fn has_workspace(&self, service: &str) -> bool {
        match self {
            Self::Local(env) => env.state().join(format!("workspaces/workspace-{service}")).is_dir(),
            Self::Cluster { cluster, .. } => {
                cluster.kubelet.claim_folder(NAMESPACE, &format!("workspace-{service}")).is_some()
            }
        }
    }

    /// Waits until the activity of a run contains these words.
    fn wait_for_activity(&self, run: &str, words: &str) {
        let does = |doing: &Value| doing.as_str().is_some_and(|doing| doing.contains(words));
        match self {
            Self::Local(env) => drop(env.wait_until(run, |status| does(&status["activity"]))),
            Self::Cluster { cluster, .. } => {
                drop(cluster.until(run, words, |run| does(&run["status"]["activity"])))
            }
        }
    }
}

#[test]
fn user_guide_start_retry_next_task_works_locally() {
    first_three_conversations(Backend::local);
}

#[test]
fn user_guide_start_retry_next_task_works_in_cluster() {
    first_three_conversations(Backend::cluster);
}

fn first_three_conversations(backend: impl FnOnce(Script) -> Backend) {
    const GUIDANCE: &str =
        "Previous attempt failed because agent chose 'curl' crate. Use 'reqwest' crate instead.";
    let agent = Script::new()
        .turn(Turn::bash("echo 'curl = \"0.4\"' > notes.txt"))
        .turn(blocked("Is the curl crate right?"))
        .turn(fix().expecting(GUIDANCE).expecting("Is the curl crate right?"))
        .turn(Turn::verdict("done", "With reqwest now."))
        .turn(Turn::bash("pwd && echo 'pub fn ask() {}' > ask.rs").expecting("trading-engine"))
        .turn(Turn::verdict("done", "There is an ask now.").expecting("/trading-engine"));
    let mut backend = backend(agent);
    let target = backend.env().git.url("acme/trader");
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
    let mut session = backend.ide_session(script);

    let reply = session.say(
        "I just finished generating docs for the trader service. The docs are merged into main. I want to start \
         implementing task 1 using the claude-agent-1 GitHub account and the sonnet model.",
    );
    let first = "trader-claude-agent-1-task1-attempt1";
    assert_contains(
        reply.answer(),
        &[
            "**Task**: 1 (trader service)",
            first,
            "claude-agent-1",
            "sonnet",
            "acme/trader",
            "get_task_status",
        ],
    );
    backend.ended(first, Reason::AgentBlocked);
    assert_eq!(backend.env().github.pulls().len(), 0);
    backend.env().record_refs();

    let reply =
        session.say("Task 1 failed: the agent chose curl. It should use reqwest. Can you retry this?");
    let second = "trader-claude-agent-1-task1-attempt2";
    assert_contains(reply.answer(), &[second, GUIDANCE, "feature/task-1-implementation"]);
    let outcome = backend.ended(second, Reason::Completed);
    assert_eq!(outcome.work.branch.as_deref(), Some("feature/task-1-implementation"));
    assert_eq!(backend.env().github.pulls().len(), 1);
    backend.env().record_refs();

    let reply = session.say("Great! Let's move on to task 2, in the working directory 'trading-engine'.");
    let third = "trader-claude-agent-1-task2-attempt1";
    assert_contains(reply.answer(), &[third, "trading-engine", "feature/task-2-implementation"]);
    let outcome = backend.ended(third, Reason::Completed);
    assert_eq!(outcome.work.branch.as_deref(), Some("feature/task-2-implementation"));
    let pulls = backend.env().github.pulls();
    assert_eq!(pulls.len(), 2, "{pulls:#?}");
    let made =
        backend.env().git.read("acme/trader", "feature/task-2-implementation", "trading-engine/ask.rs");
    assert!(made.is_some(), "the agent worked in the requested directory");
    let earlier = backend.env().git.read("acme/trader", "feature/task-2-implementation", "notes.txt");
    assert_eq!(earlier, None, "task 2 begins without what task 1 left");
    backend.env().model.assert_played();
    session.model.assert_played();
}

/// Starts an IDE session with an active auth task: its agent has run a command and then waits forever.
fn start_active_task(
    backend: impl FnOnce(Script) -> Backend,
    more: impl FnOnce(Script) -> Script,
) -> (Backend, IdeSession) {
    let agent = Script::new()
        .turn(Turn::bash("echo 'middleware' > middleware.rs && echo made-it"))
        .turn(Turn::never(Fault::no_answer()).expecting("made-it"));
    let mut backend = backend(agent);
    let files = order_book();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    backend.env().git.create("acme/platform-auth", "main", &files);
    backend.env().record_refs();
    let target = backend.env().git.url("acme/platform-auth");
    let submission = json!({"task_id": 1, "service": "auth", "repository_url": target});
    let mut session =
        backend.ide_session(more(calls(Script::new(), "submit_implementation_task", submission)));
    let reply = session.say(
        "Now I want to start working on the auth service. This is a completely separate service with its own repo. \
         Start with task 1.",
    );
    assert_contains(reply.answer(), &[AUTH, "acme/platform-auth", "workspace-auth"]);
    assert!(backend.env().model.wait_for_requests(2, LIMIT), "the agent asks again after its command");
    // Progress is published every ten seconds.
    backend.wait_for_activity(AUTH, "middleware.rs");
    (backend, session)
}

const AUTH: &str = "auth-claude-agent-1-task1-attempt1";

#[test]
fn user_guide_start_status_stop_works_locally() {
    last_three_conversations(Backend::local);
}

#[test]
fn user_guide_start_status_stop_works_in_cluster() {
    last_three_conversations(Backend::cluster);
}

fn last_three_conversations(backend: impl FnOnce(Script) -> Backend) {
    let (mut backend, mut session) = start_active_task(backend, |script| {
        let script = calls(script, "get_task_status", json!({"service": "auth", "task_id": "1"}));
        calls(script, "stop_task", json!({"service": "auth"}))
    });
    assert!(backend.has_workspace("auth") && !backend.has_workspace("trader"));

    let reply = session.say("How's that auth task coming along?");
    // The current activity, not only the phase.
    assert_contains(reply.answer(), &["Task 1 of the auth service: Running", AUTH, "middleware.rs"]);

    let reply =
        session.say("Wait, I need to stop that auth task. I just realized we're changing the architecture.");
    assert_contains(reply.answer(), &[AUTH, "workspace"]);
    let outcome = backend.ended(AUTH, Reason::Stopped);
    let branch = outcome.work.branch.as_deref().unwrap();
    let saved = backend.env().git.read("acme/platform-auth", branch, "middleware.rs");
    assert_eq!(saved.as_deref(), Some("middleware\n"), "{outcome:#?}");
    assert!(backend.has_workspace("auth"));
    assert_eq!(session.model.failures(), Vec::<String>::new());
    assert_eq!(session.model.unplayed(), 0);
}

/// Returns the tools that the IDE's tool search finds for a query.
fn found(query: &str) -> String {
    let env = TestEnv::start(Script::new());
    let script = Script::new()
        .turn(Turn::tool("ToolSearch", json!({"query": query, "max_results": 3})))
        .turn(Turn::text("There it is."));
    let mut session = env.ide_session(script);
    let reply = session.say(query);
    format!("{:?}", reply.answers)
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
