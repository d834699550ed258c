//! Texts of an agent: as long as it likes, and made to deceive a terminal, a reviewer or GitHub.

use orchestrator_contract::outcome::WorkLocation;
use orchestrator_contract::{Reason, bounds};
use orchestrator_tests::hostile::{Attack, Kind, Origin, Promise};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::test_env::TestEnv;
use serde_json::json;

const LONG: Attack = Attack {
    id: "texts-long-verdict",
    origin: Origin::Agent,
    promise: Promise::TruthfulOutcome,
    what: "returns a verdict of 2.5 MB",
};

const TERMINAL: Attack = Attack {
    id: "texts-terminal",
    origin: Origin::Agent,
    promise: Promise::TruthfulOutcome,
    what: "writes escape sequences, marks that reorder text, and invisible characters into its verdict",
};

const FENCES: Attack = Attack {
    id: "texts-fences",
    origin: Origin::Agent,
    promise: Promise::TruthfulOutcome,
    what: "hides mentions, references, links and HTML in the pull request behind fences of code",
};

#[test]
fn verdict_of_megabytes_ends_in_bounded_outcome() {
    // A line of output above its own maximum is skipped: the run ends without a verdict then.
    for (words, reason) in [(20_000, Reason::Completed), (500_000, Reason::AgentFailed)] {
        let summary = "long ".repeat(words);
        let script =
            Script::new().turn(Turn::bash("echo 1 >> notes.txt")).turn(Turn::verdict("done", &summary));
        let env = TestEnv::start(script);
        let (output, outcome) = env.submit(&[]);
        assert_eq!(outcome.reason, reason, "{output:#?}");
        assert!(serde_json::to_vec(&outcome).unwrap().len() <= bounds::OUTCOME);
        if let Some(verdict) = &outcome.verdict {
            assert!(verdict.summary.len() <= bounds::VERDICT_SUMMARY, "{}", verdict.summary.len());
            assert!(verdict.summary.ends_with(" bytes cut)"));
        }
        for pull in env.github.pulls() {
            let body = pull["body"].as_str().unwrap().chars().count();
            assert!(body <= bounds::PULL_REQUEST_BODY_CHARS, "{body}");
        }
        assert_eq!(outcome.work.location, WorkLocation::Remote);
        env.assert_invariants(&outcome);
    }
    LONG.held(Kind::Any, "each text has a maximum; what was cut is said");
}

#[test]
fn text_that_deceives_is_shown_harmlessly() {
    let evil = "a\u{1b}]0;evil\u{7}\u{9b}31m b\u{202e}c\u{2066}d\u{200b}e\u{2028}f";
    let blocked = json!({ "status": "blocked", "summary": evil, "question": evil });
    let env = TestEnv::start(Script::new().turn(Turn::verdict_with(blocked)));
    let (output, outcome) = env.submit(&[]);
    assert_eq!(outcome.reason, Reason::AgentBlocked, "{output:#?}");
    let run = outcome.run.as_str();
    for arguments in [vec!["logs", run], vec!["status", run], vec!["status", run, "-o", "json"]] {
        let shown = env.dispatcher(&arguments);
        let text = format!("{}{}", shown.stdout, shown.stderr);
        let is_evil = |c: char| "\u{1b}\u{7}\u{9b}\u{202e}\u{2066}\u{200b}\u{2028}".contains(c);
        assert!(text.contains("evil"), "{arguments:?}: {text}");
        assert!(!text.contains(is_evil), "{arguments:?}: {text:?}");
    }
    env.assert_invariants(&outcome);
    TERMINAL.held(Kind::Any, "replaced wherever text is shown");
}

#[test]
fn payload_behind_fence_has_no_effect_in_pull_request() {
    let payload = "@team fixes #1 [x](https://evil.example) <img src=https://evil.example> <!-- hidden -->";
    let fences =
        ["```\n````\n", "~~~\n```\n~~~\n", "- ```\n", "> ```\n> code\n", "``` ` x\n", "`", "    ```\n"];
    let summary: String = fences.iter().map(|fence| format!("{fence}{payload}\n\n")).collect();
    let script = Script::new().turn(Turn::bash("echo 1 >> notes.txt")).turn(Turn::verdict("done", &summary));
    let env = TestEnv::start(script);
    let (output, outcome) = env.submit(&[]);
    assert_eq!(outcome.reason, Reason::Completed, "{output:#?}");
    let body = env.github.pulls()[0]["body"].as_str().unwrap().to_owned();
    // Outside of code each of these is broken up; inside, it is between fences of ours.
    let mut fence = 0;
    for line in body.lines() {
        let ticks = line.chars().take_while(|c| *c == '`').count();
        // CommonMark: a fence ends with one that is as long, with nothing behind it.
        if fence > 0 && ticks >= fence && line.len() == ticks {
            fence = 0;
            continue;
        }
        if fence == 0 && ticks >= 3 && !line[ticks..].contains('`') {
            fence = ticks;
            continue;
        }
        let in_code = fence > 0;
        let outside: String = line.split('`').step_by(2).collect();
        if !in_code {
            for alive in ["@team", "#1 ", "://", "<img", "<!--"] {
                assert!(!outside.contains(alive), "{alive}: {line}\n{body}");
            }
        }
    }
    assert!(fence == 0 && body.trim_end().ends_with('|'), "the last table is hidden: {body}");
    env.assert_invariants(&outcome);
    FENCES.held(Kind::Any, "only code is kept as it is, between fences of ours");
}
