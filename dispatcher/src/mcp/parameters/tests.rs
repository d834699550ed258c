use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::mcp::arguments::{LogsArguments, SubmitArguments, WaitArguments};
use crate::mcp::text::render_error;

/// Parameters of each type.
#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Sample {
    text: Option<String>,
    count: Option<u32>,
    delta: i64,
    ratio: Option<f64>,
    flag: bool,
    list: Vec<u32>,
}

fn read<P: DeserializeOwned>(arguments: Value) -> Result<P, Error> {
    let Value::Object(arguments) = arguments else { panic!("no object: {arguments}") };
    parse(arguments)
}

#[test]
fn arguments_of_other_types_are_read_as_meant() {
    let none = Sample::default;
    let count = |count| Sample { count: Some(count), ..none() };
    let text = |text: &str| Sample { text: Some(text.to_owned()), ..none() };
    let cases = [
        (json!({}), none()),
        (json!({ "text": null, "count": null, "flag": null, "delta": null, "list": null }), none()),
        (json!({ "text": "", "count": " ", "ratio": "", "flag": "", "delta": "" }), none()),
        (json!({ "count": 5 }), count(5)),
        (json!({ "count": 5.0 }), count(5)),
        (json!({ "count": "5" }), count(5)),
        (json!({ "count": " 5.0 " }), count(5)),
        (json!({ "delta": "-7" }), Sample { delta: -7, ..none() }),
        (json!({ "ratio": "1.5" }), Sample { ratio: Some(1.5), ..none() }),
        (json!({ "ratio": 2 }), Sample { ratio: Some(2.0), ..none() }),
        (json!({ "flag": "True" }), Sample { flag: true, ..none() }),
        (json!({ "flag": "false" }), none()),
        (json!({ "text": 12 }), text("12")),
        (json!({ "text": 1.0 }), text("1")),
        (json!({ "text": 1.25 }), text("1.25")),
        (json!({ "list": [1, "2", 3.0] }), Sample { list: vec![1, 2, 3], ..none() }),
        (json!({ "list": "4" }), Sample { list: vec![4], ..none() }),
    ];
    for (arguments, expected) in cases {
        assert_eq!(read::<Sample>(arguments.clone()).unwrap(), expected, "{arguments}");
    }
}

#[test]
fn unreadable_argument_is_named_with_expected_type() {
    let cases = [
        json!({ "count": "many" }),
        json!({ "count": -1 }),
        json!({ "count": 5.5 }),
        json!({ "count": 5_000_000_000_u64 }),
        json!({ "count": true }),
        json!({ "delta": "1e400" }),
        json!({ "ratio": "NaN" }),
        json!({ "flag": "maybe" }),
        json!({ "flag": 1 }),
        json!({ "text": true }),
        json!({ "text": ["a"] }),
        json!({ "text": { "a": "b".repeat(100) } }),
        json!({ "list": [1, "two"] }),
        json!({ "cuont": 1 }),
        json!({ "paint": null }),
    ];
    let errors = cases.map(|arguments| render_error(&read::<Sample>(arguments).unwrap_err()));
    insta::assert_snapshot!(errors.join("\n"), @r#"
    invalid `count`: expected a whole number, not "many"
    hint: Pass a value such as 1, or omit it.
    invalid `count`: expected a whole number from 0 to 4294967295, not -1
    hint: Pass a value such as 1, or omit it.
    invalid `count`: expected a whole number, not 5.5
    hint: Pass a value such as 1, or omit it.
    invalid `count`: expected a whole number from 0 to 4294967295, not 5000000000
    hint: Pass a value such as 1, or omit it.
    invalid `count`: expected a whole number, not true
    hint: Pass a value such as 1, or omit it.
    invalid `delta`: expected a whole number, not "1e400"
    hint: Pass a value such as 1, or omit it.
    invalid `ratio`: expected a number, not "NaN"
    hint: Pass a value such as 1.5, or omit it.
    invalid `flag`: expected true or false, not "maybe"
    hint: Pass a value such as true, or omit it.
    invalid `flag`: expected true or false, not 1
    hint: Pass a value such as true, or omit it.
    invalid `text`: expected text, not true
    hint: Pass a value such as "trader", or omit it.
    invalid `text`: expected text, not ["a"]
    hint: Pass a value such as "trader", or omit it.
    invalid `text`: expected text, not {"a":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb...
    hint: Pass a value such as "trader", or omit it.
    invalid `list`: expected a whole number, not "two"
    hint: Pass a value such as 1, or omit it.
    unknown parameter `cuont`
    hint: Did you mean `count`? The parameters are text, count, delta, ratio, flag, list.
    unknown parameter `paint`
    hint: The parameters are text, count, delta, ratio, flag, list.
    "#);
}

#[test]
fn command_line_name_of_parameter_is_accepted() {
    let submit: SubmitArguments =
        read(json!({ "task": 1, "minutes": "30", "cost": "2.5", "wait_for_quota": "60" })).unwrap();
    assert_eq!(submit.task().unwrap().unwrap().get(), 1);
    assert_eq!((submit.timeout_minutes, submit.cost_usd), (Some(30.0), Some(2.5)));
    assert_eq!(submit.wait_for_quota_minutes, Some(60.0));
    assert_eq!(read::<LogsArguments>(json!({ "after": "7" })).unwrap().cursor, Some(7));
    assert_eq!(read::<WaitArguments>(json!({ "timeout": "1" })).unwrap().timeout_seconds, Some(1.0));
    let error = read::<WaitArguments>(json!({ "minutes": 1 })).unwrap_err();
    assert!(error.to_string().contains("unknown parameter `minutes`"), "{error}");
}

#[test]
fn parameter_given_by_two_names_is_refused() {
    for (given, names) in [
        (json!({ "task": 3, "task_id": 5 }), "`task_id` and `task`"),
        (json!({ "task": 3, "task_id": 3 }), "`task_id` and `task`"),
        (json!({ "minutes": 1, "timeout_minutes": 2 }), "`timeout_minutes` and `minutes`"),
        (json!({ "cost": 1, "cost_usd": 2 }), "`cost_usd` and `cost`"),
    ] {
        let error = read::<SubmitArguments>(given.clone()).unwrap_err();
        let expected = format!("{names} are the same parameter, and both are given");
        assert_eq!(error.to_string(), expected, "{given}");
    }
    let submit: SubmitArguments = read(json!({ "task": 3, "task_id": null })).unwrap();
    assert_eq!(submit.task().unwrap().unwrap().get(), 3);
}

#[test]
fn call_without_object_is_repaired_or_explained() {
    let call = |arguments: Value| json!({ "name": "get_task_status", "arguments": arguments });
    for arguments in [json!([]), json!(null), json!(""), json!({}), json!("{}")] {
        let repaired = repair_call(Some(call(arguments.clone()))).unwrap().unwrap();
        assert_eq!(repaired.arguments, Some(JsonObject::new()), "{arguments}");
        assert_eq!(repaired.name, "get_task_status");
    }
    let given = repair_call(Some(call(json!(r#"{"run": "latest"}"#)))).unwrap().unwrap();
    assert_eq!(given.arguments.unwrap()["run"], "latest");
    for arguments in [json!(1), json!(["latest"]), json!("latest"), json!(true)] {
        let error = repair_call(Some(call(arguments.clone()))).unwrap().unwrap_err();
        assert!(error.to_string().contains(&arguments.to_string()), "{error}");
    }
    assert!(repair_call(None).is_none());
    assert!(repair_call(Some(json!({ "arguments": [] }))).is_none(), "no tool is named");
    assert!(repair_call(Some(json!({ "name": "get_task_status" }))).is_none());
}
