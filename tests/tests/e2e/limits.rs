//! Every run ends: by its limits, a stop request, or a model error. Its work is kept.

use std::time::Duration;

use orchestrator_contract::outcome::{VerdictStatus, WorkLocation};
use orchestrator_contract::{Outcome, Phase, Reason};
use orchestrator_tests::command::CommandOutput;
use orchestrator_tests::git_server::{Fault as GitFault, Operation};
use orchestrator_tests::messages_api::{Fault, Script, Turn};
use orchestrator_tests::projects::{fix, fixes};
use orchestrator_tests::test_env::TestEnv;
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(60);

/// A script that changes a file and then stalls.
fn stalls() -> Script {
    Script::new().turn(fix()).turn(Turn::never(Fault::stalls_mid_stream()))
}

/// A script that runs a command in every turn.
fn endless(turns: usize) -> Script {
    (0..turns).fold(Script::new().turn(fix()), |script, number| {
        script.turn(Turn::bash(format!("echo {number} >> notes.txt")))
    })
}

fn assert_pushed_without_pull_request(env: &TestEnv, outcome: &Outcome) {
    assert_eq!(outcome.work.location, WorkLocation::Remote, "{outcome:#?}");
    assert_eq!(outcome.work.branch.as_deref(), Some("feature/task-1-implementation"));
    let lib = env.git.read("acme/trader", "feature/task-1-implementation", "src/lib.rs").unwrap();
    assert!(lib.contains("max()"), "{lib}");
    assert!(env.github.pulls().is_empty());
    env.assert_invariants(outcome);
}

fn assert_ended(output: &CommandOutput, outcome: &Outcome, code: i32, reason: Reason) {
    assert_eq!((output.code, outcome.reason), (code, reason), "{output:#?}\n{outcome:#?}");
}

#[test]
fn turn_limit_leaves_work_on_branch() {
    let env = TestEnv::start(endless(8));
    let (output, outcome) = env.submit(&["--turns", "3"]);
    assert_ended(&output, &outcome, 124, Reason::TurnLimit);
    assert_eq!(env.model.conversation().len(), 3);
    assert_pushed_without_pull_request(&env, &outcome);
}

/// A script whose turns need more output than any limit allows.
fn dear(turns: usize) -> Script {
    let start = Script::new().turn(fix().using(1_000, 100));
    (0..turns).fold(start, |script, _| script.turn(Turn::bash("echo more").using(u64::MAX, 200_000)))
}

/// Asserts that the API charged what the outcome says, and no more than the limit.
#[track_caller]
fn assert_bill(env: &TestEnv, outcome: &Outcome, limit: f64) {
    let (bill, usage) = (env.model.bill_usd(), &outcome.usage);
    assert!(bill > 0.0 && bill <= limit, "${bill} of ${limit}: {usage:#?}");
    let most = usage.cost_usd + usage.unconfirmed_usd;
    assert!(usage.cost_usd <= bill + 1e-9 && bill <= most + 1e-9, "${bill}: {usage:#?}");
    assert!(most <= limit + 1e-9, "{usage:#?}");
}

#[test]
fn cost_limit_leaves_work_on_branch() {
    let env = TestEnv::start(dear(20));
    let (output, outcome) = env.submit(&["--cost", "0.50"]);
    assert_ended(&output, &outcome, 124, Reason::CostLimit);
    assert!(outcome.message.contains("reached its cost limit"), "{}", outcome.message);
    assert_bill(&env, &outcome, 0.5);
    assert!(
        outcome.usage.refused_requests > 0 && outcome.usage.unconfirmed_usd == 0.0,
        "{:?}",
        outcome.usage
    );
    assert_pushed_without_pull_request(&env, &outcome);
}

#[test]
fn cut_answers_count_toward_cost_limit() {
    let script = Script::new()
        .turn(fix().using(1_000, 100))
        .turn(Turn::bash("echo more").using(u64::MAX, 200_000).after(Fault::drops_mid_stream().times(20)));
    let env = TestEnv::start(script);
    let (output, outcome) = env.submit(&["--cost", "0.50"]);
    assert_eq!(output.code, i32::from(outcome.exit_code), "{output:#?}");
    assert!(outcome.exit_code != 0, "{outcome:#?}");
    assert_bill(&env, &outcome, 0.5);
    assert!(outcome.usage.unconfirmed_usd > 0.0, "{:?}", outcome.usage);
    assert_pushed_without_pull_request(&env, &outcome);
}

#[test]
fn stopped_run_shows_cost_and_turns_while_it_runs() {
    let env =
        TestEnv::start(Script::new().turn(fix().using(1_000, 10_000)).turn(Turn::never(Fault::no_answer())));
    let run = env.start_run("1", &["--cost", "5"]);
    let live = env.wait_until(&run, |status| status["cost_usd"].as_f64().is_some_and(|cost| cost > 0.1));
    assert!(live["turns"] == 1 && live["outcome"].is_null(), "{live:#}");
    env.signal(&run, Signal::TERM);
    let (output, outcome) = env.wait(&run);
    assert_ended(&output, &outcome, 143, Reason::Stopped);
    assert_bill(&env, &outcome, 5.0);
    assert_eq!(outcome.usage.turns, 1);
    assert!(outcome.usage.models["claude-sonnet-5-5"].output_tokens == 10_000, "{:?}", outcome.usage);
    assert_pushed_without_pull_request(&env, &outcome);
}

#[test]
fn time_limit_leaves_work_on_branch() {
    let env = TestEnv::start(stalls());
    let (output, outcome) = env.submit(&["--minutes", "0.2"]);
    assert_ended(&output, &outcome, 124, Reason::TimeLimit);
    assert_pushed_without_pull_request(&env, &outcome);
}

#[test]
fn idle_limit_leaves_work_on_branch() {
    let env = TestEnv::start(stalls());
    std::fs::write(env.path("orchestrator.toml"), "[services.trader]\nlimits = { idle_minutes = 0.1 }\n")
        .unwrap();
    let (output, outcome) = env.submit(&[]);
    assert_ended(&output, &outcome, 124, Reason::IdleLimit);
    assert_pushed_without_pull_request(&env, &outcome);
}

#[test]
fn stopped_run_leaves_work_on_branch() {
    let env = TestEnv::start(stalls());
    let run = env.start_run("1", &[]);
    assert!(env.model.wait_for_requests(2, SOON), "{:#}", env.status(&run));
    let stop = env.dispatcher(&["stop", &run]);
    assert_eq!(stop.code, 0, "{stop:?}");
    let (output, outcome) = env.wait(&run);
    assert_ended(&output, &outcome, 143, Reason::Stopped);
    assert_eq!(outcome.phase, Phase::Stopped);
    assert_pushed_without_pull_request(&env, &outcome);
}

#[test]
fn sigterm_stops_run_like_stop_command() {
    let env = TestEnv::start(stalls());
    let run = env.start_run("1", &[]);
    assert!(env.model.wait_for_requests(2, SOON), "{:#}", env.status(&run));
    env.signal(&run, Signal::TERM);
    let (output, outcome) = env.wait(&run);
    assert_ended(&output, &outcome, 143, Reason::Stopped);
    assert_pushed_without_pull_request(&env, &outcome);
}

#[test]
fn stop_during_verify_pushes_work() {
    let env = TestEnv::start(fixes());
    let run = env.start_run("1", &["--verify", "sleep 300"]);
    env.wait_until(&run, |status| status["step"] == "verify");
    env.signal(&run, Signal::TERM);
    let (output, outcome) = env.wait(&run);
    assert_ended(&output, &outcome, 143, Reason::Stopped);
    assert_pushed_without_pull_request(&env, &outcome);
}

#[test]
fn stop_during_fetch_ends_immediately() {
    let env = TestEnv::start(Script::new());
    for number in 1..=2 {
        env.git.fail(Operation::Fetch, number, GitFault::Silence);
    }
    let run = env.start_run("1", &[]);
    env.wait_until(&run, |status| status["step"] == "fetch_platform");
    env.signal(&run, Signal::TERM);
    let (output, outcome) = env.wait(&run);
    assert_ended(&output, &outcome, 143, Reason::Stopped);
    assert_eq!(outcome.work.location, WorkLocation::None);
    env.assert_invariants(&outcome);
}

#[test]
fn stop_now_keeps_work_in_workspace() {
    let env = TestEnv::start(fixes());
    env.git.fail(Operation::Push, 1, GitFault::Silence);
    let run = env.start_run("1", &[]);
    env.wait_until(&run, |status| status["step"] == "push");
    let stop = env.dispatcher(&["stop", "--now", &run]);
    assert_eq!(stop.code, 0, "{stop:?}");
    let (_, outcome) = env.wait(&run);
    assert_eq!(outcome.work.location, WorkLocation::Workspace, "{outcome:#?}");
    assert_eq!(outcome.phase, Phase::Stopped, "{outcome:#?}");
    assert!(env.github.pulls().is_empty());
    env.assert_invariants(&outcome);
}

#[test]
fn queuing_does_not_use_up_time_limit() {
    let first = Script::when("Implement task 1 of").turn(fix()).turn(Turn::never(Fault::stalls_mid_stream()));
    let second = Script::when("Implement task 2 of")
        .turn(Turn::bash("echo two > two.txt"))
        .turn(Turn::verdict("done", "Two."));
    let mut env = TestEnv::start([second, first]);
    let holder = env.start_run("1", &[]);
    assert!(env.model.wait_for_requests(2, SOON), "{:#}", env.status(&holder));
    let limit = Duration::from_secs(30);
    let queued = env.start_run("2", &["--minutes", "0.5"]);
    let started = std::time::Instant::now();
    env.wait_until(&queued, |status| {
        assert_ne!(status["phase"], "Failed", "{status:#}");
        status["waiting_for"] == holder.as_str() && started.elapsed() > limit + Duration::from_secs(2)
    });
    env.signal(&holder, Signal::TERM);
    let (_, outcome) = env.wait(&holder);
    assert_eq!(outcome.reason, Reason::Stopped, "{outcome:#?}");
    env.record_refs();
    let (output, outcome) = env.wait(&queued);
    assert_ended(&output, &outcome, 0, Reason::Completed);
    env.assert_invariants(&outcome);
}

fn assert_no_work(env: &TestEnv, outcome: &Outcome) {
    assert_eq!(outcome.work.location, WorkLocation::None, "{outcome:#?}");
    assert_eq!(env.git.tips("acme/trader").len(), 1);
    assert!(env.github.pulls().is_empty());
    env.assert_invariants(outcome);
}

#[test]
fn wrong_model_key_is_model_authentication_failed() {
    let mut env = TestEnv::start(Script::new());
    env.set("ANTHROPIC_API_KEY", "sk-ant-api03-wrong");
    let (output, outcome) = env.submit(&[]);
    assert_ended(&output, &outcome, 77, Reason::ModelAuthenticationFailed);
    assert_no_work(&env, &outcome);
}

#[test]
fn unknown_model_is_model_not_found() {
    let env = TestEnv::start(Script::new());
    let (output, outcome) = env.submit(&["--model", "claude-mistake-9"]);
    assert_ended(&output, &outcome, 78, Reason::ModelNotFound);
    assert_no_work(&env, &outcome);
}

#[test]
fn overloaded_model_is_model_unavailable() {
    let env = TestEnv::start(Script::new().turn(Turn::never(Fault::status(529))));
    let (output, outcome) = env.submit(&[]);
    assert_ended(&output, &outcome, 69, Reason::ModelUnavailable);
    assert_no_work(&env, &outcome);
}

#[test]
fn exhausted_quota_names_cause_and_time() {
    let invalid = "invalid_request_error";
    let cases = [
        (
            Fault::error(400, invalid, "Your credit balance is too low to access the Anthropic API."),
            "credit balance",
        ),
        (Fault::error(400, invalid, "This organization has been disabled."), "organization"),
        (Fault::error(402, "billing_error", "Payment required."), "Payment required"),
        (Fault::error(400, invalid, "You have reached your specified API usage limits."), "usage limits"),
        (
            Fault::error(429, "rate_limit_error", "This request would exceed your rate limit.")
                .with_retry_after(7200),
            "try again after 20",
        ),
    ];
    for (fault, words) in cases {
        let env = TestEnv::start(Script::new().turn(fix()).turn(Turn::never(fault)));
        let (output, outcome) = env.submit(&[]);
        assert_ended(&output, &outcome, 69, Reason::ModelQuotaExceeded);
        assert!(outcome.message.contains(words), "{words}: {}", outcome.message);
        assert!(!outcome.message.contains("guidance"), "{}", outcome.message);
        assert_pushed_without_pull_request(&env, &outcome);
    }
}

/// An error of an account that reached a limit for some seconds.
fn usage_limit(seconds: u32) -> Fault {
    Fault::error(429, "rate_limit_error", "You have reached your usage limit.").with_retry_after(seconds)
}

#[test]
fn run_waits_for_usage_limit_and_continues_session() {
    let script = Script::new()
        .turn(fix().after(usage_limit(2).times(2)))
        .turn(Turn::verdict("done", "Compared with max.").after(usage_limit(2).times(2)))
        .expect_in_request(1, "Continue where you stopped");
    let env = TestEnv::start(script);
    let (output, outcome) = env.submit(&["--wait-for-quota", "10"]);
    assert_ended(&output, &outcome, 0, Reason::Completed);
    assert_eq!(outcome.sessions.len(), 1, "{outcome:#?}");
    let waits = outcome.notes.iter().filter(|note| note.contains("for a usage limit of the model")).count();
    assert!(waits >= 2, "{outcome:#?}");
    let log = env.dispatcher(&["logs", outcome.run.as_str()]).stdout;
    assert!(log.contains("waiting for the model's usage limit until"), "{log}");
    assert!(log.contains("the wait for the model's usage limit is over"), "{log}");
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

#[test]
fn stop_ends_wait_for_usage_limit_and_pushes_work() {
    let env = TestEnv::start(Script::new().turn(fix()).turn(Turn::never(usage_limit(3000))));
    let run = env.start_run("1", &["--wait-for-quota", "60", "--timeout-minutes", "1"]);
    let status = env.wait_until(&run, |status| {
        status["activity"]
            .as_str()
            .is_some_and(|text| text.starts_with("waiting for the model's usage limit"))
    });
    assert_eq!((&status["phase"], &status["step"]), (&"Running".into(), &"agent".into()), "{status:#}");
    let requests = env.model.conversation().len();
    env.signal(&run, Signal::TERM);
    let (output, outcome) = env.wait(&run);
    assert_ended(&output, &outcome, 143, Reason::Stopped);
    assert_eq!(env.model.conversation().len(), requests, "the agent did not start again");
    assert_pushed_without_pull_request(&env, &outcome);
}

#[test]
fn no_pull_request_option_completes_with_branch() {
    let env = TestEnv::start(fixes());
    let (output, outcome) = env.submit(&["--no-pull-request"]);
    assert_ended(&output, &outcome, 0, Reason::Completed);
    assert_eq!(outcome.pull_request, None);
    assert_pushed_without_pull_request(&env, &outcome);
}

#[test]
fn already_done_verdict_succeeds_without_branch() {
    let env = TestEnv::start(Script::new().turn(Turn::verdict("already_done", "It is the highest already.")));
    let (output, outcome) = env.submit(&[]);
    assert_ended(&output, &outcome, 0, Reason::AlreadyDone);
    assert_eq!(outcome.verdict.as_ref().unwrap().status, VerdictStatus::AlreadyDone);
    assert_no_work(&env, &outcome);
}

#[test]
fn done_verdict_without_changes_fails() {
    let env = TestEnv::start(Script::new().turn(Turn::verdict("done", "I did it all.")));
    let (output, outcome) = env.submit(&[]);
    assert_ended(&output, &outcome, 1, Reason::NoChanges);
    assert_no_work(&env, &outcome);
}
