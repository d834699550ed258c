use super::*;
use crate::task::observe::Lock;
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
    let status = sample(2, Lock::Held);
    Submission {
        started: Started::New,
        run: task.run.clone(),
        task,
        status,
        warnings: Vec::new(),
        elsewhere: None,
    }
}

#[test]
fn a_first_task_says_what_was_submitted_and_what_will_happen() {
    insta::assert_snapshot!(render_submission(&submission(Mode::First, 1), &Before::default()));
}

#[test]
fn a_retry_says_what_is_preserved_and_repeats_the_guidance() {
    let earlier = Some(sample(5, Lock::Free));
    let before = Before { last: earlier.clone(), earlier };
    insta::assert_snapshot!(render_submission(&submission(Mode::Retry, 2), &before));
}

#[test]
fn the_next_task_is_cleaned_up_for() {
    let before = Before { last: Some(sample(5, Lock::Free)), earlier: None };
    let text = render_submission(&submission(Mode::First, 1), &before);
    insta::assert_snapshot!(text.lines().find(|line| line.contains("Cleanup")).unwrap());
}

#[test]
fn starting_over_says_that_the_old_branch_stays() {
    let text = render_submission(&submission(Mode::Fresh, 3), &Before::default());
    insta::assert_snapshot!(text.lines().find(|line| line.contains("Fresh start")).unwrap());
}

#[test]
fn nothing_new_is_said_first() {
    for (started, expected) in [
        (Started::AlreadyAtWork, "**Nothing new was started: `trader-claude-agent-1-task1-attempt1`"),
        (Started::AtWorkOtherwise, "**Nothing new was started: `trader-claude-agent-1-task1-attempt1`"),
    ] {
        let text =
            render_submission(&Submission { started, ..submission(Mode::First, 1) }, &Before::default());
        assert!(text.starts_with(expected) && !text.contains("The run will"), "{text}");
    }
}
