//! Discovery of configuration files.

use crate::bench::{Bench, CommandOutput};

fn own_file(bench: &Bench, text: &str) -> std::path::PathBuf {
    let folder = bench.path("home/.config/orchestrator");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("orchestrator.toml"), text).unwrap();
    folder
}

#[test]
fn cloned_repository_cannot_run_its_programs() {
    let bench = Bench::new();
    let (program, trace) = (bench.path("open/claude"), bench.path("it-ran"));
    std::fs::write(&program, format!("#!/bin/sh\ntouch {}\n", trace.display())).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(bench.path("open/orchestrator.toml"), "supervisor = \"claude\"\nclaude = \"claude\"\n")
        .unwrap();
    for verb in ["doctor", "submit --task 1 --service trader", "status", "list"] {
        let mut command = bench.command(verb);
        let done: CommandOutput = command.env_remove("ORCHESTRATOR_SUPERVISOR").output().unwrap().into();
        assert_eq!(done.code, 78, "{verb}: {done:?}");
        let place = format!("{}:1:1: ", bench.path("open/orchestrator.toml").display());
        assert!(done.stderr.contains(&place) && done.stderr.contains("--config"), "{done:?}");
    }
    assert!(!trace.exists());
}

#[test]
fn service_secrets_are_read_from_own_folder() {
    let bench = Bench::new();
    let folder =
        own_file(&bench, "[secrets]\nsecrets_dir = \"all\"\n[services.trader]\nsecrets_dir = \"trader\"\n");
    for name in ["all", "trader"] {
        std::fs::create_dir(folder.join(name)).unwrap();
    }
    for (service, expected) in [("trader", "trader"), ("auth", "all")] {
        let line =
            format!("submit --task 1 --service {service} --repository-url /srv/git/x.git --dry-run -o json");
        let preview = bench.run(&line).json();
        let command = preview["command"].as_array().unwrap();
        let at = command.iter().position(|word| word == "--secrets-dir").unwrap();
        assert_eq!(command[at + 1], folder.join(expected).to_str().unwrap());
    }
}

#[test]
fn config_free_commands_work_with_broken_config() {
    let bench = Bench::new();
    std::fs::write(bench.path("open/orchestrator.toml"), "color = \n").unwrap();
    assert_eq!(bench.run("list").code, 78);
    for verb in ["setup cursor --print", "completions bash", "config-schema", "--version", "help"] {
        assert_eq!(bench.run(verb).code, 0, "{verb}");
    }
}
