use super::*;
use crate::task::event_fold::LockState;
use crate::task::status::tests::sample;

fn submission(mode: Mode, attempt: u32) -> Submission {
    let mut task =
        TaskSpec::from_json(include_str!("../../../../../supervisor/contract/samples/task-v1.json")).unwrap();
    task.mode = mode;
    task.attempt = attempt;
    task.run = task.identity().run_name(attempt, |_| false);
    if mode != Mode::Retry {
        task.guidance = None;
    }
    let status = sample(2, LockState::Held);
    Submission {
        result: SubmitOutcome::Created,
        run: task.run.clone(),
        task,
        status,
        warnings: Vec::new(),
        native_command: None,
        continues: None,
    }
}

#[test]
fn first_submission_shows_request_with_upcoming_steps() {
    insta::assert_snapshot!(render_submission(&submission(Mode::First, 1), &PriorRuns::default()));
}

#[test]
fn retry_submission_shows_preserved_state_with_guidance() {
    let earlier = Some(sample(5, LockState::Free));
    let prior = PriorRuns { last: earlier.clone(), earlier };
    insta::assert_snapshot!(render_submission(&submission(Mode::Retry, 2), &prior));
}

#[test]
fn next_task_submission_announces_cleanup() {
    let prior = PriorRuns { last: Some(sample(5, LockState::Free)), earlier: None };
    let text = render_submission(&submission(Mode::First, 1), &prior);
    insta::assert_snapshot!(text.lines().find(|line| line.contains("Cleanup")).unwrap());
}

#[test]
fn fresh_submission_says_old_branch_remains() {
    let text = render_submission(&submission(Mode::Fresh, 3), &PriorRuns::default());
    insta::assert_snapshot!(text.lines().find(|line| line.contains("Fresh start")).unwrap());
}

#[test]
fn reused_run_is_announced_first() {
    for (result, expected) in [
        (SubmitOutcome::AlreadyRunning, "**Nothing new was started: `trader-claude-agent-1-task1-attempt1`"),
        (SubmitOutcome::ConflictingRun, "**Nothing new was started: `trader-claude-agent-1-task1-attempt1`"),
    ] {
        let text =
            render_submission(&Submission { result, ..submission(Mode::First, 1) }, &PriorRuns::default());
        assert!(text.starts_with(expected) && !text.contains("The run will"), "{text}");
    }
}
