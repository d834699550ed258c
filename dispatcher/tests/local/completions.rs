//! Completion functions, called as the shells call them.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::bench::{Bench, CommandOutput, eventually};

/// Returns the words, except flags, that bash offers after `line`.
fn bash(bench: &Bench, line: &str) -> Vec<String> {
    // What readline does before it calls the function of `complete -F`.
    let drive = r#"
        source <("$0" completions bash) || exit 9
        COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9
        read -ra COMP_WORDS <<<"$1"
        [[ $1 == *' ' ]] && COMP_WORDS+=('')
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _clap_complete_dispatcher dispatcher "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let done = shell(bench, "/bin/bash", &["--norc", "-c", drive, env!("CARGO_BIN_EXE_dispatcher"), line]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{done:?}");
    done.stdout
        .lines()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty() && !line.starts_with('-'))
        .collect()
}

fn shell(bench: &Bench, program: &str, arguments: &[&str]) -> CommandOutput {
    let template = bench.command("");
    #[expect(clippy::disallowed_methods, reason = "the shell under test is started here")]
    let mut command = Command::new(program);
    command.env_clear().current_dir(bench.path("open")).args(arguments);
    for (name, value) in template.get_envs() {
        command.env(name, value.unwrap());
    }
    command.output().unwrap().into()
}

#[test]
fn bash_completes_runs_valid_for_command() {
    let bench = Bench::new();
    let ended = bench.submit_and_wait("done");
    let live = bench
        .run_ending("held", "submit --task 2 --service auth --repository-url /srv/git/auth.git -o json")
        .json();
    let live = live["run"].as_str().unwrap();
    eventually("the run to start", || {
        bench.run(&format!("status {live} -o json")).json()["phase"] == "Running"
    });
    assert_eq!(bash(&bench, "dispatcher status "), [live, ended.as_str()], "the newest first");
    assert_eq!(bash(&bench, "dispatcher stop "), [live]);
    assert_eq!(bash(&bench, "dispatcher wait "), [live]);
    assert_eq!(bash(&bench, "dispatcher retry "), [ended.as_str()]);
    assert_eq!(bash(&bench, "dispatcher logs -f tra"), [ended.as_str()]);
    assert_eq!(bash(&bench, "dispatcher list --service "), ["auth", "trader"]);
    assert_eq!(bash(&bench, "dispatcher list --phase Su"), ["Succeeded"]);
    assert_eq!(bash(&bench, "dispatcher submit --agent "), ["claude-agent-1"]);
    assert_eq!(bash(&bench, "dispatcher com"), ["completions"]);
}

#[test]
fn completion_reads_state_dir_from_command_line() {
    let bench = Bench::new();
    let run = bench.submit_and_wait("done");
    std::fs::rename(bench.path("state"), bench.path("elsewhere")).unwrap();
    let elsewhere = bench.path("elsewhere");
    assert!(bash(&bench, "dispatcher status ").is_empty());
    assert_eq!(bash(&bench, &format!("dispatcher --state-dir {} status ", elsewhere.display())), [run]);
}

#[test]
fn completion_without_candidates_prints_nothing() {
    let bench = Bench::new();
    assert!(bash(&bench, "dispatcher status ").is_empty(), "no state directory");
    std::fs::write(bench.path("open/orchestrator.toml"), "color = \n").unwrap();
    assert!(bash(&bench, "dispatcher status ").is_empty(), "the configuration is broken");
    assert_eq!(bash(&bench, "dispatcher comp"), ["completions"]);
    std::fs::remove_file(bench.path("open/orchestrator.toml")).unwrap();
    std::fs::create_dir_all(bench.path("state/runs/trader-claude-agent-1-task1-attempt1")).unwrap();
    assert!(bash(&bench, "dispatcher status ").is_empty(), "half a record");
}

#[test]
fn completing_hundred_runs_is_fast() {
    let bench = Bench::new();
    let run = bench.submit_and_wait("done");
    let folder = bench.path("state/runs");
    for task in 2..=100 {
        let name = format!("trader-claude-agent-1-task{task}-attempt1");
        std::fs::create_dir(folder.join(&name)).unwrap();
        for entry in std::fs::read_dir(folder.join(&run)).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap().replace(&run, &name);
            std::fs::write(folder.join(&name).join(path.file_name().unwrap()), text).unwrap();
        }
    }
    let ask = || {
        let mut command = bench.command("-- dispatcher status trader");
        command.env("DISPATCHER_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "2").env("_CLAP_IFS", "\n");
        let start = Instant::now();
        let done: CommandOutput = command.output().unwrap().into();
        assert_eq!(done.stdout.lines().count(), 100, "{done:?}");
        start.elapsed()
    };
    // The best of five: other tests may use the CPU.
    let best = (0..5).map(|_| ask()).min().unwrap();
    assert!(best < Duration::from_secs(1), "{best:?}");
}

#[test]
fn completion_script_of_every_shell_calls_dispatcher() {
    let bench = Bench::new();
    for name in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let done = bench.run(&format!("completions {name}"));
        assert_eq!(done.code, 0, "{done:?}");
        assert!(done.stdout.contains("DISPATCHER_COMPLETE"), "{name}: {}", done.stdout);
        assert!(done.stdout.contains(env!("CARGO_BIN_EXE_dispatcher")), "{name}: {}", done.stdout);
    }
}

/// Tests fish with `complete -C`, and zsh with its function and printed candidates, where installed.
#[test]
fn zsh_and_fish_complete_same_runs_if_installed() {
    let bench = Bench::new();
    let run = bench.submit_and_wait("done");
    let dispatcher = env!("CARGO_BIN_EXE_dispatcher");
    let fish = format!("{dispatcher} completions fish | source; complete -C 'dispatcher status tra'");
    let zsh = format!(
        "compdef() {{ : }}; _describe() {{ print -rl -- ${{(P)${{@[-1]}}}} }}; source <({dispatcher} completions zsh); \
         words=(dispatcher status tra) CURRENT=3; _clap_dynamic_completer_dispatcher"
    );
    for (program, arguments, separator) in
        [("fish", ["--no-config", "-c", &fish], '\t'), ("zsh", ["-f", "-c", &zsh], ':')]
    {
        let mut paths = ["/usr/bin", "/bin"].iter().map(|folder| format!("{folder}/{program}"));
        let Some(path) = paths.find(|path| std::path::Path::new(path).exists()) else { continue };
        let done = shell(&bench, &path, &arguments);
        assert_eq!(done.stdout.trim(), format!("{run}{separator}Succeeded"), "{done:?}");
    }
}
