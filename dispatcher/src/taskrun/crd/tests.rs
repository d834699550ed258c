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
#[expect(clippy::too_many_lines, reason = "one table")]
fn crd_url_validation_matches_contract() {
    let value = serde_json::to_value(definition()).unwrap();
    let spec = &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let pattern = spec["properties"]["target"]["properties"]["url"].clone();
    let schema = jsonschema::validator_for(&pattern).unwrap();
    for url in [
        "https://github.com/myorg/trader",
        "http://git.local:8080/x.git",
        "http://github.com/myorg/trader",
        "http://127.0.0.1:8080/x.git",
        "http://127.255.0.9/x",
        "http://127.0.0.256/x",
        "http://127.0.0.01/x",
        "http://127.0.0.1./x",
        "http://127.0.0.1.evil.com/x",
        "http://127.1/x",
        "http://2130706433/x",
        "http://128.0.0.1/x",
        "http://localhost/x",
        "http://LocalHost:3000/x",
        "http://localhost./x",
        "http://localhost.evil.com/x",
        "http://evil.localhost/x",
        "http://[::1]:3000/x",
        "http://[0:0:0:0:0:0:0:1]/x",
        "http://[::ffff:127.0.0.1]/x",
        "http://[::]/x",
        "http://evil.com/@localhost/x",
        "http://localhost@evil.com/x",
        "http://evil.com\\@localhost/x",
        "HTTP://localhost/x",
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
        "https://[::1]:8080/x",
        "https://git_server:3000/x",
        "https://github.com./x",
        "https://github.com:/x",
        "https://GitHub.com/x",
        "https://evil/@github.com/x",
        "https://github.com@evil/x",
        "https://@github.com/x",
        "https://github.com\\@evil/x",
        "https://github.com\\.evil/x",
        "https:\\\\github.com\\x",
        "https:github.com/x",
        "https:///github.com/x",
        "https:////github.com/x",
        "HTTPS://github.com/x",
        "https://git%68ub.com/x",
        "https://github.com%40evil/x",
        "https://g\u{456}thub.com/x",
        "https://\u{ff47}ithub.com/x",
        "https://127.1/x",
        "https://:443/x",
        "https://github.com:a/x",
        "https://[::1/x",
        "https://[::1]evil/x",
        "https://[github.com]/x",
        "https://a<b/x",
        "https://github.com\t/x",
        "ssh://",
        "ssh:///x",
        "ssh://git@/x",
        "ssh://host",
        "ssh://host:2222/x",
        "ssh://[::1]:22/x",
        "ssh://me@corp.example@host/x",
        "ssh://user:pass@host/x",
        "ssh://-oProxyCommand=x/y",
        "ssh://git@-oProxyCommand=x/y",
        "ssh://-lroot@host/x",
        "ssh://host:a/x",
        "ssh://ho\\st/x",
        "git@github.com@evil:x",
        "git@evil:@github.com/x",
        "git@[host]:x",
        "git@[::1]:x",
        "git@host::x",
        "git@host://x",
        "javascript:alert(1)",
        "file:///x",
        "a b:c",
        "relative/path",
        "",
    ] {
        let here = schema.is_valid(&serde_json::Value::from(url));
        let contract = RepositoryUrl::new(url).is_ok_and(|url| url.transport() != Transport::Local);
        assert_eq!(here, contract, "{url}");
    }
}
