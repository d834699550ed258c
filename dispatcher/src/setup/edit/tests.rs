use serde_json::json;

use super::*;

fn entry() -> Value {
    json!({ "type": "stdio", "command": "/opt/dispatcher", "args": ["mcp"] })
}

fn added(client: Client, text: &str) -> String {
    match plan_edit(client, text, &entry()).unwrap() {
        Edit::Added(text) => text,
        edit @ (Edit::Unchanged | Edit::Replaced { .. }) => panic!("{edit:?}"),
    }
}

#[test]
fn missing_config_file_is_created_complete() {
    insta::assert_snapshot!(added(Client::Vscode, ""), @r#"
    {
      "servers": {
        "orchestrator": {
          "args": ["mcp"],
          "command": "/opt/dispatcher",
          "type": "stdio"
        }
      }
    }
    "#);
}

#[test]
fn edit_preserves_every_other_byte() {
    let cases = [
        // Comments, tabs, a trailing comma, odd spaces.
        (
            Client::Cursor,
            "// mine\n{\n\t\"b\" :  1, /* why */\n\t\"mcpServers\": {\n\t\t// the first\n\t\t\"x\": {\"command\":\"x\"},\n\t},\n\t\"a\": [1,2 ,3],\n}\n// end",
        ),
        // Windows' line ends and byte order mark.
        (
            Client::Vscode,
            "\u{feff}{\r\n    \"inputs\": [],\r\n    \"servers\": {\r\n        \"x\": { \"command\": \"x\" }\r\n    }\r\n}\r\n",
        ),
        (Client::Claude, "{\n  \"numStartups\": 3,\n  \"mcpServers\": {}\n}\n"),
        (Client::Claude, "{\n  \"numStartups\": 3\n}\n"),
        (Client::Claude, "{}"),
    ];
    for (client, before) in cases {
        let after = added(client, before);
        assert!(is_subsequence(before, &after), "{before:?}\nbecame\n{after:?}");
        assert_eq!(before.contains('\r'), after.contains('\r'));
        if before.contains('\r') {
            assert_eq!(after.matches('\n').count(), after.matches("\r\n").count());
        }
        assert_eq!(before.ends_with('\n'), after.ends_with('\n'));
        assert_eq!(plan_edit(client, &after, &entry()), Ok(Edit::Unchanged), "{after}");
        // Head and tail of the file, up to where the entry is.
        assert!(after.starts_with(&before[..before.find('{').unwrap()]));
    }
}

/// Whether `whole` is `part` with one piece put in.
fn is_subsequence(part: &str, whole: &str) -> bool {
    let head = part.bytes().zip(whole.bytes()).take_while(|(a, b)| a == b).count();
    let tail = part.bytes().rev().zip(whole.bytes().rev()).take_while(|(a, b)| a == b).count();
    // An empty object is opened: nothing but white space may go.
    head + tail >= part.len() || part.as_bytes()[head..part.len() - tail].iter().all(u8::is_ascii_whitespace)
}

#[test]
fn single_line_object_edit_preserves_original_spelling() {
    let before = r#"{"z":1e3,"mcpServers":{"x":{"command":"x"}},"e":"\u00e9 \/","a":1.50}"#;
    let after = added(Client::Claude, before);
    assert!(after.starts_with(r#"{"z":1e3,"mcpServers":{"#), "{after}");
    assert!(after.contains(r#""x":{"command":"x"},"#), "{after}");
    assert!(after.ends_with(r#"},"e":"\u00e9 \/","a":1.50}"#), "{after}");
}

#[test]
fn differing_entry_is_replaced_in_place_reporting_old_one() {
    let text = "{\n  \"servers\": {\n    // ours\n    \"orchestrator\": { \"command\": \"old\" }, // until 2027\n    \"x\": {}\n  }\n}\n";
    let Edit::Replaced { text, before } = plan_edit(Client::Vscode, text, &entry()).unwrap() else {
        panic!("not replaced")
    };
    assert_eq!(before, json!({ "command": "old" }));
    insta::assert_snapshot!(text, @r#"
    {
      "servers": {
        // ours
        "orchestrator": {
          "args": ["mcp"],
          "command": "/opt/dispatcher",
          "type": "stdio"
        }, // until 2027
        "x": {}
      }
    }
    "#);
}

#[test]
fn unparsable_config_is_rejected_with_position() {
    let cases = [
        (Client::Vscode, "{\n  \"servers\": {\n    \"x\": {]\n", "line 3, column 11: "),
        (Client::Claude, "{\n  // no comments here\n}", "line 2, column "),
        (Client::Cursor, "{ \"a\": 1 \"b\": 2 }", "line 1, column "),
        (Client::Cursor, "[]", "the file is not a JSON object"),
        (Client::Cursor, "{ \"mcpServers\": [] }", "`mcpServers` is not a JSON object"),
        (Client::Cursor, "{ \"mcpServers\": {}, \"mcpServers\": {} }", "duplicate key `mcpServers`"),
    ];
    for (client, text, expected) in cases {
        let error = plan_edit(client, text, &entry()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

proptest::proptest! {
    #[test]
    fn edit_preserves_meaning_of_existing_keys(
        keys in proptest::collection::btree_map("[a-z\"\\\\é]{0,6}", -5..5i32, 0..6),
        pretty: bool,
    ) {
        let mut value = json!(keys);
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let after: Value = serde_json::from_str(&added(Client::Claude, &text.unwrap())).unwrap();
        value["mcpServers"] = json!({ SERVER: entry() });
        assert_eq!(after, value);
    }
}
