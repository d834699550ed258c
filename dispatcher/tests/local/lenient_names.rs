//! Names and addresses as people write them, and suggestions for misspelt ones.

use crate::bench::{Bench, CommandOutput};

fn dry(bench: &Bench, arguments: &[&str]) -> serde_json::Value {
    let done = bench.command("submit --task 1 --dry-run -o json").args(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    let mut preview: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    preview["task"].take()
}

fn refused(bench: &Bench, arguments: &[&str]) -> String {
    let done = bench.command("submit --task 1 --dry-run").args(arguments).output().unwrap();
    assert_eq!(done.status.code(), Some(64), "{arguments:?}: {done:?}");
    String::from_utf8(done.stderr).unwrap()
}

#[test]
fn service_and_repository_are_normalized_on_command_line() {
    let bench = Bench::new();
    for service in ["Trader", "trader service", "the trader service"] {
        assert_eq!(dry(&bench, &["--service", service])["service"], "trader", "{service}");
    }
    for address in
        ["myorg/trader", "gh:myorg/trader", "https://github.com/myorg/trader/pull/3", "myorg/trader#readme"]
    {
        let task = dry(&bench, &["--service", "x", "--repository-url", address]);
        assert_eq!(task["target"]["url"], "https://github.com/myorg/trader", "{address}");
    }
    std::fs::create_dir_all(bench.path("open/myorg/local")).unwrap();
    let local = dry(&bench, &["--service", "x", "--repository-url", "myorg/local"]);
    let path = bench.path("open/myorg/local").canonicalize().unwrap();
    assert_eq!(local["target"]["url"], path.to_str().unwrap());
    assert_eq!(dry(&bench, &["--service", "trader", "--model", "OPUS"])["model"], "opus");
}

#[test]
fn service_is_resolved_among_known_ones_by_every_command() {
    let bench = Bench::new();
    let submit = "submit --task 1 --service user-service --repository-url myorg/x --wait";
    assert_eq!(bench.run(submit).code, 0);
    std::fs::write(bench.path("open/orchestrator.toml"), "[services.billing-service]\n").unwrap();
    let run = |verb: &str, service: &str| {
        let done = bench.command(verb).args(["--service", service, "-o", "json"]).output().unwrap();
        CommandOutput::from(done)
    };
    for verb in ["status", "wait", "stop"] {
        assert_eq!(run(verb, "the user service").json()["service"], "user-service", "{verb}");
    }
    assert_eq!(run("list", "User Service").json()["runs"][0]["service"], "user-service");
    assert_eq!(run("cost", "the user service").json()["total"]["runs"], 1);
    assert_eq!(run("watch", "the user service").code, 0);
    let dry = dry(&bench, &["--service", "the billing service", "--repository-url", "myorg/x"]);
    assert_eq!(dry["service"], "billing-service");
    std::fs::write(bench.path("open/orchestrator.toml"), "[services.user]\n").unwrap();
    let done = run("stop", "the user service");
    assert!(done.code == 64 && done.stderr.contains("`user` or `user-service`"), "{done:?}");
}

#[test]
fn enterprise_server_completes_addresses_of_repositories() {
    let bench = Bench::new();
    let task = |address: &str| {
        let mut submit = bench.command("submit --task 1 --service x --dry-run -o json --repository-url");
        let submit = submit.arg(address).env("ORCHESTRATOR_GITHUB_API_URL", "https://ghe.example.com/api/v3");
        CommandOutput::from(submit.output().unwrap()).json()["task"]["target"]["url"].clone()
    };
    assert_eq!(task("myorg/trader"), "https://ghe.example.com/myorg/trader");
    assert_eq!(task("gh:myorg/trader"), "https://ghe.example.com/myorg/trader");
    assert_eq!(task("github.com/myorg/trader"), "https://github.com/myorg/trader");
}

#[test]
fn refused_value_is_named_with_its_place() {
    let bench = Bench::new();
    let url = refused(&bench, &["--service", "x", "--repository-url", "https://github.com/myorg"]);
    assert!(
        url.contains("`--repository-url`: ") && url.contains("is not the address of a repository"),
        "{url}"
    );
    let model = refused(&bench, &["--service", "trader", "--model", "gpt-5"]);
    assert!(model.contains("unknown model `gpt-5`") && model.contains("sonnet, opus"), "{model}");
    let service = refused(&bench, &["--service", "Order Book"]);
    assert!(service.contains("--service") && service.contains("Did you mean `order-book`?"), "{service}");
    let file = bench.path("open/orchestrator.toml");
    std::fs::write(&file, "[defaults]\nmodle = \"opus\"\n").unwrap();
    let done = bench.run("list");
    assert_eq!(done.code, 78, "{done:?}");
    assert!(done.stderr.contains("Did you mean `model`?"), "{done:?}");
}

#[test]
fn misspelt_run_service_or_command_is_suggested() {
    let bench = Bench::new();
    for verb in ["status trader-claude-agent-1-task1-attempt1", "stop latest", "status --service trader"] {
        let done = bench.run(verb);
        assert!(
            done.code == 64 && done.stderr.contains("dispatcher submit"),
            "there is nothing to list: {done:?}"
        );
    }
    let run = bench.submit_and_wait("done");
    for verb in ["status", "stop", "wait", "retry"] {
        let done = bench.run(&format!("{verb} {}", run.replace("agent", "agnet")));
        assert_eq!(done.code, 64, "{done:?}");
        assert!(done.stderr.contains(&format!("Did you mean `{run}`?")), "{done:?}");
        let done = bench.run(&format!("{verb} --service tradr"));
        assert!(done.code == 64 && done.stderr.contains("Did you mean `trader`?"), "{done:?}");
    }
    let payments = refused(&bench, &["--service", "tradrr"]);
    assert!(
        payments.contains("Did you mean `trader`?") && payments.contains("--repository-url"),
        "{payments}"
    );
    let new = bench.run("submit --task 2 --service tradr --repository-url myorg/x --dry-run");
    assert!(new.code == 0 && new.stderr.contains("did you mean `trader`?"), "{new:?}");
    assert_eq!(bench.run("wait latest").code, 0);
    for words in ["latest", "trader"] {
        assert_eq!(bench.run(&format!("status {words} -o json")).json()["run"], *run, "{words}");
    }
    let done = bench.run("top");
    assert!(done.code == 64 && !done.stderr.contains("stop"), "{done:?}");
}
