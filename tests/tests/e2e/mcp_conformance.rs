//! The official conformance suite with `dispatcher serve`, for both protocol revisions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use orchestrator_tests::dispatcher_env::DispatcherEnv;
use orchestrator_tests::mcp_tools::NodeClients;
use serde_json::Value;

const FIXTURE: &str = "calls tools, prompts or resources of the suite's own example server";
const INPUT: &str = "needs a tool that requests user input";
const SESSION: &str = "needs sessions; every request may go to another process here";

/// Scenarios that do not apply, with the reason; all others must pass.
const SKIPPED: [(&str, &str); 37] = [
    ("elicitation-sep1034-defaults", INPUT),
    ("elicitation-sep1330-enums", INPUT),
    ("http-custom-header-server-validation", "needs a tool that takes arguments from headers"),
    ("input-required-result-basic-elicitation", INPUT),
    ("input-required-result-basic-list-roots", INPUT),
    ("input-required-result-basic-sampling", INPUT),
    ("input-required-result-capability-check", INPUT),
    ("input-required-result-multi-round", INPUT),
    ("input-required-result-multiple-input-requests", INPUT),
    ("input-required-result-non-tool-request", INPUT),
    ("input-required-result-request-state", INPUT),
    ("input-required-result-result-type", INPUT),
    ("input-required-result-tampered-state", INPUT),
    ("json-schema-2020-12", FIXTURE),
    ("logging-set-level", "the server sends no log messages and does not say that it does"),
    ("prompts-get-embedded-resource", FIXTURE),
    ("prompts-get-simple", FIXTURE),
    ("prompts-get-with-args", FIXTURE),
    ("prompts-get-with-image", FIXTURE),
    ("resources-read-binary", FIXTURE),
    ("resources-read-text", FIXTURE),
    ("resources-subscribe", "nothing can be subscribed to; a client waits with `wait_for_task`"),
    ("resources-templates-read", FIXTURE),
    ("resources-unsubscribe", "nothing can be subscribed to; a client waits with `wait_for_task`"),
    ("server-session-lifecycle", SESSION),
    ("server-sse-multiple-streams", SESSION),
    ("server-sse-polling", SESSION),
    ("tools-call-audio", FIXTURE),
    ("tools-call-elicitation", INPUT),
    ("tools-call-embedded-resource", FIXTURE),
    ("tools-call-error", FIXTURE),
    ("tools-call-image", FIXTURE),
    ("tools-call-mixed-content", FIXTURE),
    ("tools-call-sampling", INPUT),
    ("tools-call-simple-text", FIXTURE),
    ("tools-call-with-logging", FIXTURE),
    ("tools-call-with-progress", FIXTURE),
];

/// Checks that need a tool of the suite's example server; all others must pass.
const UNTESTABLE: [&str; 4] = [
    "sep-2575-http-server-no-independent-requests-on-stream",
    "sep-2575-missing-capability-http-400",
    "sep-2575-server-no-log-without-loglevel",
    "sep-2575-server-rejects-undeclared-capability",
];

/// Returns the checks of each scenario that the suite ran.
fn checks(folder: &Path) -> BTreeMap<String, Vec<Value>> {
    let scenarios = std::fs::read_dir(folder).unwrap().flatten();
    let read = |folder: std::fs::DirEntry| {
        let name = folder.file_name().into_string().unwrap();
        // server-NAME-2026-11-23T00-43-10-737Z
        let (name, _time) = name.split_at(name.len() - "-2026-11-23T00-43-10-737Z".len());
        let checks = std::fs::read_to_string(folder.path().join("checks.json")).unwrap();
        (name.strip_prefix("server-").unwrap().to_owned(), serde_json::from_str(&checks).unwrap())
    };
    scenarios.map(read).collect()
}

/// Runs all scenarios of a revision and returns those that the suite skipped.
#[track_caller]
fn conforms(revision: &str) -> BTreeSet<String> {
    let env = DispatcherEnv::new("held");
    let served = env.serve_without_token();
    let results = env.path("results");
    let clients = NodeClients::get();
    let mut suite = clients.command(&clients.conformance);
    suite.args(["server", "--suite", "all", "--spec-version", revision, "--url", &served.url]);
    let output = suite.arg("--output-dir").arg(&results).current_dir(env.path("open")).output().unwrap();
    assert!(results.is_dir(), "the suite ran nothing: {output:?}");
    let mut skipped = BTreeSet::new();
    let mut passed = 0;
    for (scenario, checks) in checks(&results) {
        if SKIPPED.iter().any(|(name, _)| *name == scenario) {
            skipped.insert(scenario);
            continue;
        }
        let of = |status: &str| checks.iter().filter(|check| check["status"] == status).collect::<Vec<_>>();
        let mut failures = of("FAILURE");
        failures.retain(|check| {
            let untestable = check["details"]["untestable"] == true;
            !(untestable && UNTESTABLE.iter().any(|id| check["id"] == *id))
        });
        assert!(failures.is_empty(), "{revision}, {scenario}: {failures:#?}");
        assert!(!of("SUCCESS").is_empty(), "{revision}, {scenario}: nothing was checked: {checks:#?}");
        passed += 1;
    }
    println!("{revision}: {passed} scenarios passed, {} skipped", skipped.len());
    skipped
}

#[test]
fn server_conforms_to_both_revisions() {
    let mut skipped = conforms("2025-11-25");
    skipped.extend(conforms("2026-07-28"));
    let table: BTreeSet<String> = SKIPPED.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(skipped, table, "the table names scenarios that the suite has no more");
}
