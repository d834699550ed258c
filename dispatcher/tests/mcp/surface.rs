//! The server's instructions, tools, resources and prompts.

use serde_json::json;

use crate::bench::Bench;
use crate::client::{ERAS, Era, connect, server};

#[tokio::test]
async fn tools_match_snapshot_in_both_eras() {
    let bench = Bench::new();
    for era in ERAS {
        let client = connect(server(&bench, "done"), era).await;
        let tools = client.list_all_tools().await.unwrap();
        for tool in &tools {
            assert_eq!(tool.input_schema["additionalProperties"], json!(false), "{}", tool.name);
            assert_eq!(tool.output_schema.as_ref().unwrap()["type"], json!("object"), "{}", tool.name);
        }
        let brief: Vec<_> = tools
            .iter()
            .map(|tool| {
                json!({
                    "name": tool.name,
                    "title": tool.title,
                    "description": tool.description,
                    "arguments": tool.input_schema["properties"],
                    "annotations": tool.annotations,
                })
            })
            .collect();
        insta::assert_json_snapshot!("tools", brief);
    }
}

/// Returns the JSON types that clients know, as one text; anything else is not one type.
fn scalar(schema: &serde_json::Value) -> Option<&str> {
    schema["type"].as_str().filter(|name| ["string", "integer", "number", "boolean"].contains(name))
}

#[tokio::test]
async fn each_tool_parameter_has_one_plain_type() {
    let bench = Bench::new();
    let client = connect(server(&bench, "done"), Era::Stateless).await;
    for tool in client.list_all_tools().await.unwrap() {
        let schema = serde_json::Value::Object((*tool.input_schema).clone());
        assert_eq!(schema["type"], "object");
        let properties = schema["properties"].as_object().unwrap();
        assert!(!properties.is_empty(), "{}", tool.name);
        for (name, property) in properties {
            let element = if property["type"] == "array" { &property["items"] } else { property };
            assert!(scalar(element).is_some(), "{}.{name}: {property}", tool.name);
            assert!(property["description"].is_string(), "{}.{name}: {property}", tool.name);
        }
        let text = schema.to_string();
        for word in ["\"format\"", "null", "anyOf", "oneOf", "allOf", "$ref", "nullable", "\"required\""] {
            assert!(!text.contains(word), "{} has {word}: {text}", tool.name);
        }
        let output = serde_json::to_string(&tool.output_schema).unwrap();
        assert!(!output.contains("\"format\""), "{}: {output}", tool.name);
    }
}

/// The check that is reported of Cursor: it compares the JavaScript type of an argument with `type`.
#[tokio::test]
async fn argument_types_equal_those_of_schema() {
    let bench = Bench::new();
    let client = connect(server(&bench, "done"), Era::Handshake).await;
    let calls = json!({
        "submit_implementation_task": { "task_id": 1, "service": "trader" },
        "get_task_status": { "run": "latest" },
        "get_task_logs": { "task_id": 1, "tail": 50 },
        "list_tasks": { "service": "trader" },
        "wait_for_task": { "timeout_seconds": 30 },
        "stop_task": { "service": "trader" },
        "init_docs": { "task_id": 5, "force": true },
    });
    let tools = client.list_all_tools().await.unwrap();
    for (tool, arguments) in calls.as_object().unwrap() {
        let schema = &tools.iter().find(|known| known.name == **tool).unwrap().input_schema["properties"];
        for (name, value) in arguments.as_object().unwrap() {
            let kinds = [
                ("number", value.is_number()),
                ("boolean", value.is_boolean()),
                ("string", value.is_string()),
            ];
            let given = kinds.into_iter().find_map(|(kind, is_kind)| is_kind.then_some(kind)).unwrap();
            let expected = scalar(&schema[name]).unwrap();
            let is_number = expected == "integer" && given == "number";
            assert!(expected == given || is_number, "{tool}.{name}: {expected}, given {given}");
        }
    }
}

#[tokio::test]
async fn prompts_and_templates_match_snapshot_in_both_eras() {
    let bench = Bench::new();
    for era in ERAS {
        let client = connect(server(&bench, "done"), era).await;
        insta::assert_json_snapshot!("prompts", client.list_all_prompts().await.unwrap());
        insta::assert_json_snapshot!("templates", client.list_all_resource_templates().await.unwrap());
    }
}

#[tokio::test]
async fn server_info_has_name_version_instructions() {
    let bench = Bench::new();
    let client = connect(server(&bench, "done"), Era::Handshake).await;
    let info = client.peer_info().unwrap();
    let info = serde_json::to_value(&*info).unwrap();
    assert_eq!(info["serverInfo"]["name"], "orchestrator");
    assert_eq!(info["serverInfo"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(info["instructions"].as_str().unwrap().contains("retry: true"));
    assert_eq!(info["protocolVersion"], "2025-11-25");
}

#[tokio::test]
async fn tool_descriptions_contain_common_user_words() {
    let bench = Bench::new();
    let client = connect(server(&bench, "done"), Era::Stateless).await;
    let tools = client.list_all_tools().await.unwrap();
    for (word, expected) in [
        ("implement", "submit_implementation_task"),
        ("start", "submit_implementation_task"),
        ("retry", "submit_implementation_task"),
        ("guidance", "submit_implementation_task"),
        ("documentation", "init_docs"),
        ("generate", "init_docs"),
        ("regenerate", "init_docs"),
        ("how's it going", "get_task_status"),
        ("progress", "get_task_status"),
        ("still running", "get_task_status"),
        ("logs", "get_task_logs"),
        ("changes", "get_task_diff"),
        ("diff", "get_task_diff"),
        ("cancel", "stop_task"),
        ("abort", "stop_task"),
        ("overview", "list_tasks"),
        ("watch", "wait_for_task"),
    ] {
        let tool = tools.iter().find(|tool| tool.name == expected).unwrap();
        assert!(tool.description.as_ref().unwrap().to_lowercase().contains(word), "{word}: {expected}");
    }
}
