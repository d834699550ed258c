//! Stored documents of every version of the contract are still understood.

use orchestrator_contract::{Event, Outcome, TaskSpec};

const TASK_1: &str = include_str!("../samples/task-v1.json");
const DOCS_TASK_1: &str = include_str!("../samples/docs-task-v1.json");
const DOCS_OUTCOME_1: &str = include_str!("../samples/docs-outcome-v1.json");
const OUTCOME_1: &str = include_str!("../samples/outcome-v1.json");
const EVENTS_1: &str = include_str!("../samples/events-v1.jsonl");

#[test]
fn stored_task_spec_round_trips() {
    let task = TaskSpec::from_json(TASK_1).unwrap();
    let stored: serde_json::Value = serde_json::from_str(TASK_1).unwrap();
    assert_eq!(serde_json::to_value(task).unwrap(), stored);
}

#[test]
fn stored_outcome_round_trips() {
    let outcome: Outcome = serde_json::from_str(OUTCOME_1).unwrap();
    let stored: serde_json::Value = serde_json::from_str(OUTCOME_1).unwrap();
    assert_eq!(serde_json::to_value(outcome).unwrap(), stored);
}

#[test]
fn stored_docs_run_samples_round_trip() {
    let task = TaskSpec::from_json(DOCS_TASK_1).unwrap();
    let stored: serde_json::Value = serde_json::from_str(DOCS_TASK_1).unwrap();
    assert_eq!(serde_json::to_value(task).unwrap(), stored);
    let outcome: Outcome = serde_json::from_str(DOCS_OUTCOME_1).unwrap();
    let stored: serde_json::Value = serde_json::from_str(DOCS_OUTCOME_1).unwrap();
    assert_eq!(serde_json::to_value(outcome).unwrap(), stored);
}

#[test]
fn outcome_with_unknown_field_is_accepted() {
    let newer = OUTCOME_1.replacen('{', "{\"mood\": \"good\",", 1);
    let outcome: Outcome = serde_json::from_str(&newer).unwrap();
    assert_eq!(outcome.exit_code, outcome.reason.exit_code());
}

#[test]
fn task_spec_with_unknown_field_is_rejected() {
    let newer = TASK_1.replacen('{', "{\"mood\": \"good\",", 1);
    let faults = TaskSpec::from_json(&newer).unwrap_err();
    assert_eq!(faults[0].field, "mood");
}

#[test]
fn absent_wait_for_quota_is_zero_and_stays_absent() {
    let mut task = TaskSpec::from_json(TASK_1).unwrap();
    assert_eq!(task.limits.wait_for_quota_minutes, 0.0);
    for (minutes, valid) in [(1440.0, true), (1440.5, false), (-1.0, false), (f64::NAN, false)] {
        task.limits.wait_for_quota_minutes = minutes;
        let fields: Vec<String> = task.validate().into_iter().map(|error| error.field).collect();
        let expected: &[&str] = if valid { &[] } else { &["limits.wait_for_quota_minutes"] };
        assert_eq!(fields, expected, "{minutes}");
    }
    task.limits.wait_for_quota_minutes = 90.0;
    let text = serde_json::to_string(&task).unwrap();
    assert_eq!(TaskSpec::from_json(&text).unwrap(), task);
}

#[test]
fn stored_events_with_unknown_kind_round_trip() {
    let events: Vec<Event> = EVENTS_1.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 5);
    assert_eq!(events[4].body, orchestrator_contract::EventBody::Unknown);
    for (event, line) in events.iter().zip(EVENTS_1.lines()).take(4) {
        let stored: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_value(event).unwrap(), stored);
    }
}

#[test]
fn termination_message_of_long_outcome_fits_limit() {
    let mut outcome: Outcome = serde_json::from_str(OUTCOME_1).unwrap();
    outcome.message = "\u{1}\u{2}ä".repeat(3000);
    let digest = outcome.termination_message();
    assert!(
        digest.len() <= orchestrator_contract::outcome::TERMINATION_MESSAGE_MAX_BYTES,
        "{}",
        digest.len()
    );
    let value: serde_json::Value = serde_json::from_str(&digest).unwrap();
    assert_eq!(value["reason"], "Completed");
}

#[test]
fn json_schema_matches_snapshot() {
    insta::assert_json_snapshot!(orchestrator_contract::schema::schema());
}
