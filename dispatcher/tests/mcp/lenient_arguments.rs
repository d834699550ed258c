//! Arguments with the types that clients really send, to the server as a program.

use serde_json::{Value, json};

use crate::bench::Bench;
use crate::program::Program;

const RUN: &str = "trader-claude-agent-1-task1-attempt1";

fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {result}"))
}

#[test]
fn arguments_of_any_scalar_type_are_accepted() {
    let bench = Bench::new();
    let mut program = Program::start_ending(&bench, "held");
    program.initialize();
    let submit = "submit_implementation_task";
    for (tool, arguments) in [
        (submit, json!({ "task_id": "1", "service": "trader", "retry": null, "fresh": null })),
        (
            submit,
            json!({ "task_id": 1.0, "service": "trader", "retry": "false", "minutes": "", "cost_usd": "" }),
        ),
        ("wait_for_task", json!({ "timeout_seconds": "0.1", "task_id": "" })),
        ("get_task_logs", json!({ "tail": "50", "after": "" })),
        ("list_tasks", json!({ "limit": 5.0 })),
        ("stop_task", json!({ "now": null })),
        ("get_task_status", json!([])),
        ("get_task_status", json!(null)),
        ("get_task_status", json!("")),
        ("get_task_status", json!(r#"{"run": "latest"}"#)),
    ] {
        let result = program.call(tool, &arguments);
        assert_eq!(result["isError"], false, "{tool} {arguments}: {result}");
        assert!(text(&result).contains(RUN), "{tool} {arguments}: {result}");
    }
    let retry = json!({ "task_id": "2", "service": "trader", "minutes": "30", "turns": "7" });
    let result = program.call(submit, &retry);
    assert_eq!(result["isError"], false, "{result}");
    let task = std::fs::read_to_string(bench.run_file(&RUN.replace("task1", "task2"), "task.json")).unwrap();
    let task: Value = serde_json::from_str(&task).unwrap();
    assert_eq!((&task["limits"]["timeout_minutes"], &task["limits"]["turns"]), (&json!(30.0), &json!(7)));
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn call_without_arguments_is_answered() {
    let bench = Bench::new();
    let mut program = Program::start(&bench);
    program.initialize();
    let call = json!({ "name": "list_tasks" });
    program.say(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call }));
    let answer = program.read();
    assert_eq!(answer["result"]["isError"], false, "{answer}");
}

#[test]
fn refused_argument_is_named_by_every_tool() {
    let bench = Bench::new();
    let mut program = Program::start(&bench);
    program.initialize();
    for (tool, arguments, words) in [
        ("get_task_logs", json!({ "tail": "fifty" }), ["`tail`", "a whole number", "\"fifty\""]),
        ("get_task_logs", json!({ "cursor": -1 }), ["`cursor`", "a whole number", "-1"]),
        ("list_tasks", json!({ "limit": 5.5 }), ["`limit`", "a whole number", "5.5"]),
        ("list_tasks", json!({ "phase": "walking" }), ["`phase`", "`walking`", "Running"]),
        (
            "wait_for_task",
            json!({ "timeout_seconds": "soon" }),
            ["`timeout_seconds`", "a number", "\"soon\""],
        ),
        ("stop_task", json!({ "now": "perhaps" }), ["`now`", "true or false", "\"perhaps\""]),
        ("get_task_status", json!({ "run": ["latest"] }), ["`run`", "expected text", "[\"latest\"]"]),
        ("get_task_status", json!(["latest"]), ["`arguments`", "an object", "[\"latest\"]"]),
        ("get_task_status", json!({ "srevice": "x" }), ["`srevice`", "Did you mean `service`?", "task_id"]),
        ("init_docs", json!({ "branch": "a b" }), ["`branch`", "`a b`", "git-check-ref-format"]),
        (
            "submit_implementation_task",
            json!({ "modle": "opus" }),
            ["`modle`", "Did you mean `model`?", "turns"],
        ),
    ] {
        let result = program.call(tool, &arguments);
        assert_eq!(result["isError"], true, "{tool} {arguments}: {result}");
        let text = text(&result);
        assert!(words.iter().all(|word| text.contains(word)), "{tool} {arguments}: {text}");
        assert!(text.contains("\nhint: "), "{text}");
    }
}
