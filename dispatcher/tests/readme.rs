//! The examples of README.md work.

#![expect(clippy::unwrap_used, reason = "a failed assumption fails the test")]

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dispatcher::config::FileSettings;
use serde_json::{Value, json};

const README: &str = include_str!("../../README.md");

/// Returns the code blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let begin = format!("```{language}\n");
    README.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn readme_config_examples_are_valid_by_schema_and_parser() {
    let schema = FileSettings::schema().to_value();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let examples = blocks("toml");
    assert_eq!(examples.len(), 2);
    for example in examples {
        let value: Value = toml::from_str(example).unwrap();
        let faults: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert_eq!(faults, [""; 0], "{example}");
        toml::from_str::<FileSettings>(example).unwrap();
    }
    // The schema rejects what the program rejects.
    assert!(!validator.is_valid(&json!({ "color": 1 })));
    assert!(!validator.is_valid(&json!({ "services": { "trader": { "depth": "deep" } } })));
}

#[test]
fn cursor_install_link_matches_setup_output() {
    let link = README.split("](cursor://").nth(1).unwrap().split(')').next().unwrap();
    let (address, query) = link.split_once('?').unwrap();
    assert_eq!(address, "anysphere.cursor-deeplink/mcp/install");
    let config = query.strip_prefix("name=orchestrator&config=").unwrap();
    let config = config.replace("%3D", "=").replace("%2F", "/").replace("%2B", "+");
    let linked: Value = serde_json::from_slice(&STANDARD.decode(config).unwrap()).unwrap();

    let home = tempfile::tempdir().unwrap();
    #[expect(clippy::disallowed_methods, reason = "the program under test is started here")]
    let mut setup = Command::new(env!("CARGO_BIN_EXE_dispatcher"));
    setup.args(["setup", "cursor", "--print", "-o", "json"]).env_clear().env("HOME", home.path());
    let output = setup.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut entry = printed["content"]["mcpServers"]["orchestrator"].clone();
    assert!(std::path::Path::new(entry["command"].as_str().unwrap()).is_absolute());
    // The link is for every user, who finds the program by its name.
    entry["command"] = json!("dispatcher");
    assert_eq!(linked, entry);
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "--print writes nothing");
}
