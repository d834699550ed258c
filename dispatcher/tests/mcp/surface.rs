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
