use orchestrator_contract::outcome::WorkLocation;
use proptest::prelude::*;

use super::*;

struct Fixture {
    run: RunName,
    criteria: Vec<String>,
    scope: Vec<String>,
    constraints: Vec<String>,
    verification: Verification,
    base: Revision,
    usage: Usage,
    notes: Vec<String>,
    authors: Vec<String>,
    servers: Vec<McpServer>,
}

fn fixture() -> Fixture {
    let server = |name: &str, status, note: Option<&str>| McpServer {
        name: name.to_owned(),
        status,
        server: None,
        tools: 0,
        note: note.map(str::to_owned),
    };
    Fixture {
        run: RunName::new("trader-claude-agent-1-task2-attempt1").unwrap(),
        criteria: vec!["Matches by price\n  and time".to_owned(), "`cargo test` passes".to_owned()],
        scope: vec!["Out of scope: <b>billing</b> for @team".to_owned()],
        constraints: vec!["No `unsafe`".to_owned()],
        verification: Verification {
            status: VerificationStatus::Passed,
            commit: Some("fedcba9876543210fedcba9876543210fedcba98".to_owned()),
            kept: Vec::new(),
            commands: vec![CommandResult {
                command: "cargo test".to_owned(),
                exit_code: Some(0),
                seconds: 12.4,
                output: String::new(),
            }],
        },
        base: Revision {
            url: "https://github.com/org/trader".to_owned(),
            branch: "main".to_owned(),
            oid: "0123456789abcdef0123456789abcdef01234567".to_owned(),
        },
        usage: Usage { turns: 31, cost_usd: 1.2345, ..Usage::default() },
        notes: vec!["`main` conflicts with the branch in src/book.rs; it was not merged".to_owned()],
        authors: vec!["Ann <ann@example.com>".to_owned()],
        servers: vec![
            server("memory", McpStatus::Connected, None),
            server("brave", McpStatus::Skipped, Some("missing secret `brave-api-key`")),
        ],
    }
}

fn text<'a>(fixture: &'a Fixture, summary: &'a str) -> PullRequestText<'a> {
    PullRequestText {
        run: &fixture.run,
        task: Some(TaskId::new(2).unwrap()),
        title: "Implement the order book",
        description: Some("Match orders by price and time."),
        summary: Some(summary),
        criteria: &fixture.criteria,
        scope: &fixture.scope,
        constraints: &fixture.constraints,
        verification: &fixture.verification,
        base: &fixture.base,
        branch: "feature/task-2-implementation",
        oid: "fedcba9876543210fedcba9876543210fedcba98",
        commits: 3,
        usage: &fixture.usage,
        minutes: 17.25,
        notes: &fixture.notes,
        other_authors: &fixture.authors,
        mcp_servers: &fixture.servers,
    }
}

#[test]
fn pull_request_body_matches_snapshot() {
    let summary =
        "Added `OrderBook`, asked @maintainer about Vec<T>.\n\n<!-- hidden -->\n\n```rust\n@attribute\n";
    insta::assert_snapshot!(render_body(&text(&fixture(), summary)));
}

#[test]
fn failed_verification_body_matches_snapshot() {
    let mut fixture = fixture();
    fixture.verification.status = VerificationStatus::Failed;
    fixture.verification.commands[0].exit_code = Some(101);
    fixture.verification.commands[0].output = format!("{}\n```\ntest failed", "x".repeat(2000));
    fixture.notes.clear();
    fixture.authors.clear();
    fixture.servers.clear();
    let body = render_body(&PullRequestText {
        description: None,
        criteria: &[],
        scope: &[],
        constraints: &[],
        ..text(&fixture, " ")
    });
    insta::assert_snapshot!(body.replace(&"x".repeat(700), "[x]"));
}

#[test]
fn body_without_verify_commands_says_not_verified() {
    let mut fixture = fixture();
    fixture.verification =
        Verification { status: VerificationStatus::NotConfigured, ..Verification::default() };
    assert!(
        render_body(&text(&fixture, "done")).contains("Not verified: the service has no verify commands.")
    );
}

#[test]
fn body_names_verified_commit_with_kept_directories() {
    let mut fixture = fixture();
    fixture.verification.kept = vec!["target".to_owned(), "web/`dist`".to_owned()];
    let body = render_body(&text(&fixture, "done"));
    let expected = "All commands succeeded on `fedcba987654` in a fresh sandbox, with `target`, ";
    assert!(body.contains(expected), "{body}");
    assert!(body.contains(" kept from an earlier verification.\n"), "{body}");
}

#[test]
fn failed_attempt_comment_matches_snapshot() {
    let fixture = fixture();
    let work = Work {
        location: WorkLocation::Remote,
        branch: Some("feature/task-2-implementation".to_owned()),
        oid: Some("fedcba9876543210".to_owned()),
        path: None,
    };
    let attempt = FailedAttempt {
        run: &fixture.run,
        reason: Reason::TimeLimit,
        message: "the run took more than 120 minutes, ask @lead\nfor more",
        work: &work,
        usage: &fixture.usage,
    };
    insta::assert_snapshot!(render_failed_attempt(&attempt));
}

#[test]
fn titles_without_text_omit_empty_parts() {
    let (service, run) = (ServiceName::new("trader").unwrap(), fixture().run);
    let task = TaskId::new(2).ok();
    assert_eq!(render_title("Order\nbook ", task), "Order book (task 2)");
    assert_eq!([render_title("", task), render_title(" ", None)], ["Task 2", "Task documents"]);
    assert_eq!(
        render_commit_message(&service, task, "Order\nbook", &run),
        "trader: task 2: Order book\n\nTask: 2\nRun: trader-claude-agent-1-task2-attempt1\n"
    );
    assert_eq!(render_commit_message(&service, task, "\n", &run).lines().next(), Some("trader: task 2"));
    assert_eq!(
        render_commit_message(&service, None, "", &run).lines().next(),
        Some("trader: task documents")
    );
}

proptest! {
    #[test]
    fn body_of_arbitrary_text_fits_limit_without_comment(
        piece in "(.|<!--|```|@a|\n){0,40}",
        times in 1usize..400,
    ) {
        let mut fixture = fixture();
        let long = piece.repeat(times);
        fixture.criteria = vec![long.clone(); 60];
        fixture.scope = vec![long.clone(); 60];
        fixture.constraints = vec![long.clone(); 60];
        fixture.notes = vec![long.clone(); 60];
        fixture.verification.commands = vec![
            CommandResult { command: long.clone(), exit_code: None, seconds: 1.0, output: long.clone() }; 20
        ];
        let body = render_body(&PullRequestText { description: Some(&long), ..text(&fixture, &long) });
        prop_assert!(body.chars().count() <= MAX_BODY_CHARS);
        prop_assert!(body.contains("| Run |"), "the summary table is always present");
        prop_assert!(!body.contains("<!--"));
    }
}
