use super::*;
use orchestrator_contract::RepositoryUrl;
use orchestrator_contract::names::Transport;

#[test]
fn spec_fields_except_stop_are_immutable() {
    let text = serde_json::to_string(&definition()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let spec = &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let rules = spec["x-kubernetes-validations"].to_string();
    for name in spec["properties"].as_object().unwrap().keys() {
        let found = rules.contains(&format!("{name} cannot be changed"));
        assert_eq!(found, !["stop", "request"].contains(&name.as_str()), "{name}");
    }
    assert!(!text.contains("\"uint"), "the API server warns about this format");
}

#[test]
fn crd_url_validation_matches_contract() {
    let value = serde_json::to_value(definition()).unwrap();
    let spec = &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let pattern = spec["properties"]["target"]["properties"]["url"].clone();
    let schema = jsonschema::validator_for(&pattern).unwrap();
    for url in [
        "https://github.com/myorg/trader",
        "http://git.local:8080/x.git",
        "git@github.com:myorg/trader.git",
        "ssh://git@github.com/myorg/trader.git",
        "github.com:myorg/trader.git",
        "https://github.com",
        "https://user:secret@github.com/a/b",
        "https://",
        "ftp://host/x",
        "/srv/repository",
        "-oProxyCommand=x:y",
        "git@-evil:x",
        "host:",
        "a b:c",
        "relative/path",
        "",
    ] {
        let here = schema.is_valid(&serde_json::Value::from(url));
        let contract = RepositoryUrl::new(url).is_ok_and(|url| url.transport() != Transport::Local);
        assert_eq!(here, contract, "{url}");
    }
}
