use super::*;
use crate::task::advice::render_for_cli;
use crate::task::event_fold::LockState;
use crate::task::status::tests::sample;

/// Creates runs from lines such as `trader:3:2 live` (service, task, attempt, state), newest first.
fn runs(lines: &[&str]) -> Vec<Status> {
    let one = |line: &&str| {
        let (name, state) = line.split_once(' ').unwrap();
        let parts: Vec<&str> = name.split(':').collect();
        let mut status =
            if state == "live" { sample(3, LockState::Held) } else { sample(5, LockState::Free) };
        status.run =
            RunName::new(format!("{}-claude-agent-1-task{}-attempt{}", parts[0], parts[1], parts[2]))
                .unwrap();
        status.service = ServiceName::new(parts[0]).unwrap();
        status.task_id = Some(parts[1].parse().unwrap());
        status.attempt = parts[2].parse().unwrap();
        status
    };
    lines.iter().map(one).collect()
}

fn services(all: &[Status]) -> Vec<ServiceName> {
    all.iter().map(|status| status.service.clone()).collect()
}

fn selected(text: &str, purpose: Purpose, all: &[Status]) -> String {
    let short =
        |status: &Status| format!("{}:{}:{}", status.service, status.task_id.unwrap().get(), status.attempt);
    match parse_query(text, all, &services(all)) {
        Err(error) => format!("error: {error}"),
        Ok(query) => match select(&query, purpose, all) {
            Selection::One(status) => short(status),
            Selection::Ambiguous(all) => {
                format!("one of {}", all.into_iter().map(short).collect::<Vec<_>>().join(" "))
            }
            Selection::None => "none".to_owned(),
        },
    }
}

#[test]
fn natural_run_queries_select_expected_runs() {
    use Purpose::{Inspect, Retry, Stop};
    let busy = runs(&["auth:1:1 live", "trader:3:2 live", "trader:3:1 ended", "trader:2:1 ended"]);
    let one = runs(&["trader:2:1 ended", "auth:1:1 live", "trader:1:1 ended"]);
    let quiet = runs(&["trader:2:1 ended", "auth:2:1 ended", "trader:1:1 ended"]);
    let single = runs(&["trader:2:1 ended", "trader:1:1 ended"]);
    let cases: &[(&[Status], &str, Purpose, &str)] = &[
        (&busy, "", Inspect, "one of auth:1:1 trader:3:2"),
        (&busy, "current", Inspect, "one of auth:1:1 trader:3:2"),
        (&busy, "the current task", Stop, "one of auth:1:1 trader:3:2"),
        (&busy, "latest", Inspect, "auth:1:1"),
        (&busy, "the last one", Stop, "auth:1:1"),
        (&busy, "latest", Retry, "trader:3:1"),
        (&busy, "the last one", Inspect, "auth:1:1"),
        (&busy, "task 3", Inspect, "trader:3:2"),
        (&busy, "Task 3?", Stop, "trader:3:2"),
        (&busy, "task3", Inspect, "trader:3:2"),
        (&busy, "#3", Inspect, "trader:3:2"),
        (&busy, "3", Inspect, "trader:3:2"),
        (&busy, "that auth task", Stop, "auth:1:1"),
        (&busy, "the trader service", Inspect, "trader:3:2"),
        (&busy, "trader-claude-agent-1-task3-attempt1", Inspect, "trader:3:1"),
        (&busy, "last", Retry, "trader:3:1"),
        (&busy, "auth", Retry, "none"),
        (&busy, "task 9", Inspect, "none"),
        (&busy, "attempt 2", Inspect, "trader:3:2"),
        (&busy, "attempt1 of trader task 2", Inspect, "trader:2:1"),
        (&busy, "the last attempt of trader", Inspect, "trader:3:2"),
        (&busy, "task 2 task 3", Inspect, "error: no run named `task 2 task 3`"),
        (&busy, "job", Stop, "error: no run named `job`"),
        (&busy, "the task", Stop, "error: no run named `the task`"),
        (&busy, "?", Stop, "error: no run named `?`"),
        (&busy, "payments", Inspect, "error: no run named `payments`"),
        (&one, "", Inspect, "auth:1:1"),
        (&one, "current", Stop, "auth:1:1"),
        (&one, "latest", Inspect, "trader:2:1"),
        (&one, "latest", Stop, "auth:1:1"),
        (&one, "trader", Stop, "trader:2:1"),
        (&one, "", Retry, "trader:2:1"),
        (&quiet, "", Inspect, "trader:2:1"),
        (&quiet, "", Stop, "trader:2:1"),
        (&quiet, "task 2", Inspect, "one of trader:2:1 auth:2:1"),
        (&quiet, "task 1", Inspect, "trader:1:1"),
        (&quiet, "task 2 of the auth service", Inspect, "auth:2:1"),
        (&quiet, "the last task", Retry, "trader:2:1"),
        (&quiet, "latest", Retry, "trader:2:1"),
        (&quiet, "", Retry, "trader:2:1"),
        (&quiet, "task 2", Retry, "one of trader:2:1 auth:2:1"),
        (&quiet, "the last task 2", Retry, "trader:2:1"),
        (&quiet, "the latest task 2", Inspect, "trader:2:1"),
        (&quiet, "latest", Stop, "trader:2:1"),
        (&quiet, "auth", Retry, "auth:2:1"),
        (&single, "the last task", Retry, "trader:2:1"),
        (&[], "", Inspect, "none"),
        (&[], "latest", Inspect, "none"),
    ];
    for (all, text, purpose, expected) in cases {
        let names: Vec<&str> = all.iter().map(|status| status.run.as_str()).collect();
        assert_eq!(selected(text, *purpose, all), *expected, "`{text}` for {purpose:?} among {names:?}");
    }
}

#[test]
fn service_named_like_a_word_is_selected() {
    use Purpose::{Inspect, Stop};
    let all = runs(&[
        "trader:1:1 live",
        "job:1:1 ended",
        "run:1:1 ended",
        "service:1:1 ended",
        "one:1:1 ended",
        "docs:1:1 ended",
        "active:1:1 ended",
        "user-service:2:1 ended",
        "order-book:4:1 ended",
    ]);
    for (text, purpose, expected) in [
        ("job", Stop, "job:1:1"),
        ("run", Stop, "run:1:1"),
        ("service", Inspect, "service:1:1"),
        ("one", Inspect, "one:1:1"),
        ("docs", Stop, "docs:1:1"),
        ("active", Stop, "active:1:1"),
        ("the trader job", Stop, "trader:1:1"),
        ("the user service", Inspect, "user-service:2:1"),
        ("order book", Inspect, "order-book:4:1"),
        ("task 1 of trader", Inspect, "trader:1:1"),
    ] {
        assert_eq!(selected(text, purpose, &all), expected, "{text}");
    }
    let both = runs(&["user:1:1 ended", "user-service:1:1 ended"]);
    assert_eq!(
        selected("the user service", Inspect, &both),
        "error: `the user service` may mean the service `user` or `user-service`"
    );
    assert_eq!(selected("user", Inspect, &both), "user:1:1");
}

#[test]
fn misspelt_run_or_service_is_suggested() {
    let all = runs(&["trader:2:1 ended", "auth:1:1 live"]);
    let hint = |text: &str| render_for_cli(parse_query(text, &all, &services(&all)).unwrap_err().hint());
    assert!(hint("tradr").starts_with("Did you mean `trader`? "), "{}", hint("tradr"));
    let run = "trader-claude-agent-1-task2-attempt1";
    let misspelt = hint("trader-cluade-agent-1-task2-attempt1");
    assert!(misspelt.starts_with(&format!("Did you mean `{run}`? ")), "{misspelt}");
    assert!(!hint("payments").contains("Did you mean"), "{}", hint("payments"));
    let service = |name: &str| render_for_cli(&no_match_hint(Some(&ServiceName::new(name).unwrap()), &all));
    assert!(service("atuh").starts_with("Did you mean `auth`? The newest runs are "), "{}", service("atuh"));
    assert!(service("auth").starts_with("The newest runs are "), "{}", service("auth"));
    assert_eq!(no_match_hint(None, &[]), Advice::SubmitTask, "a list would be empty");
}

#[test]
fn phase_name_is_parsed_case_insensitively() {
    assert_eq!(parse_phase("running"), Some(Phase::Running));
    assert_eq!(parse_phase("walking"), None);
}

#[test]
fn retry_skips_succeeded_docs_run_unless_docs_requested() {
    let mut all = runs(&["trader:1:2 ended", "trader:1:1 ended"]);
    all[0].kind = Kind::Docs;
    assert_eq!(all[0].phase, Phase::Succeeded);
    assert_eq!(selected("task 1", Purpose::Retry, &all), "trader:1:1");
    assert_eq!(selected("the docs of task 1", Purpose::Retry, &all), "trader:1:2");
    assert_eq!(selected("task 1", Purpose::Inspect, &all), "trader:1:2");
    let docs_only = [all[0].clone()];
    assert_eq!(
        selected("the last one", Purpose::Retry, &docs_only),
        "trader:1:2",
        "nothing else can be meant"
    );
    all[0].phase = Phase::Failed;
    assert_eq!(selected("task 1", Purpose::Retry, &all), "trader:1:2");
}
