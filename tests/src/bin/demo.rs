//! Demonstrates an implementation run: `cargo run --bin demo`.
//!
//! It needs no key, cluster or account: the model is a script, the git host and GitHub are fakes on this
//! machine, and its pull request is on a host that does not exist. The dispatcher, the supervisor, the Claude Code CLI, the MCP servers, git and cargo are real.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use orchestrator_contract::{Outcome, figures};
use orchestrator_tests::binaries::Binaries;
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects::{RIGHT, WRONG};
use orchestrator_tests::test_env::TestEnv;
use orchestrator_tests::tools::Tools;
use serde_json::json;

const USAGE: &str = "usage: cargo run --bin demo [-- [--retry] [--with-rustdocs]]

  --retry          a failed first attempt, guidance, and a second attempt that builds on it
  --with-rustdocs  build the documentation server first, where it is not there yet (minutes)";

const BRANCH: &str = "feature/task-1-implementation";
const CHECK: &str = "cargo test --offline";

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nthe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    let (mut retry, mut with_rustdocs) = (false, false);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--retry" => retry = true,
            "--with-rustdocs" => with_rustdocs = true,
            "-h" | "--help" => {
                println!("{USAGE}");
                return Ok(());
            }
            other => bail!("unknown argument `{other}`\n{USAGE}"),
        }
    }
    heading("Fetching the Claude Code CLI and the MCP servers, building our programs");
    if with_rustdocs {
        Tools::install_rustdocs();
    }
    let (tools, binaries) = (Tools::get(), Binaries::get());
    println!("claude      {}", tools.claude.display());
    println!("supervisor  {}", binaries.supervisor.display());
    println!("dispatcher  {}", binaries.dispatcher.display());

    let script = if retry { wrong_then_right() } else { right(tools.rustdoc_mcp.is_some()) };
    let env = TestEnv::start(script);
    heading("A platform repository, a target repository with a failing test, a model that is a script");
    println!("platform    {}", env.git.url("acme/platform"));
    println!("target      {}", env.git.url("acme/trader"));

    heading("Submitting task 1 of the trader service");
    let (target, platform) = (env.git.url("acme/trader"), env.git.url("acme/platform"));
    let mut arguments = vec!["submit", "--service", "trader", "--task", "1", "--repository-url", &target];
    arguments.extend(["--platform-repository-url", &platform, "--verify", CHECK]);
    show(&env, &arguments)?;
    let mut run = "trader-claude-agent-1-task1-attempt1";
    follow(&env, run)?;
    if retry {
        heading("The first attempt failed. Sending it back with guidance");
        let guidance = "The last bid is not the highest. Take the maximum of all bids.";
        show(&env, &["retry", run, "--guidance", guidance])?;
        run = "trader-claude-agent-1-task1-attempt2";
        follow(&env, run)?;
    }
    let outcome = env.last_outcome("trader", "1");
    show_result(&env, &outcome)?;
    prove(&env, &outcome)
}

/// A script that reads the documents, takes a note, fixes the code, tests it and reports.
fn right(with_rustdocs: bool) -> Script {
    let docs = "../platform-repo/.taskmaster/docs";
    let mut script = Script::new()
        .turn(
            Turn::bash(format!("cat {docs}/task-1/*.md {docs}/architecture.md"))
                .saying("I read the task first."),
        )
        .turn(Turn::tool("mcp__memory__search_nodes", json!({"query": "order book"})));
    if with_rustdocs {
        script = script
            .turn(
                Turn::tool("mcp__rustdocs__set_working_directory", json!({"path": "."}))
                    .saying("Now its documentation."),
            )
            .turn(Turn::tool("mcp__rustdocs__get_item", json!({"name": "crate::best_bid"})));
    }
    script
        .turn(
            Turn::bash("cat src/lib.rs && cargo test --offline 2>&1 | grep -E 'test |panicked' ; true")
                .saying("Now the code, and how its test fails."),
        )
        .turn(Turn::bash(replace(WRONG, RIGHT)).saying("`first` is wrong: the highest bid is the maximum."))
        .turn(Turn::bash("cargo test --offline 2>&1 | tail -4"))
        .turn(Turn::tool(
            "mcp__memory__create_entities",
            json!({"entities": [{"name": "order book", "entityType": "decision",
                "observations": ["Bids are not sorted: best_bid takes the maximum."]}]}),
        ))
        .turn(Turn::verdict(
            "done",
            "`best_bid` returned the first bid; it now returns the highest one. Its test passes.",
        ))
}

/// A script that first takes the wrong approach, and the right one with guidance.
fn wrong_then_right() -> Script {
    let last = "    bids.last().copied()";
    Script::new()
        .turn(Turn::bash(replace(WRONG, last)).saying("The last bid must be the highest."))
        .turn(Turn::verdict("done", "best_bid returns the last bid."))
        .turn(Turn::verdict("done", "The test must be wrong."))
        .turn(
            Turn::bash("git log --oneline | head -3")
                .saying("I see what I did before.")
                .expecting("Take the maximum of all bids."),
        )
        .turn(Turn::bash(replace(last, RIGHT)))
        .turn(Turn::bash("cargo test --offline 2>&1 | tail -4"))
        .turn(Turn::verdict("done", "`best_bid` now returns the maximum of all bids."))
}

fn replace(from: &str, to: &str) -> String {
    format!("sed -i 's/{}/{to}/' src/lib.rs", from.replace('.', "\\."))
}

fn heading(text: &str) {
    println!("\n== {text}");
}

/// Runs the dispatcher and prints its output.
fn show(env: &TestEnv, arguments: &[&str]) -> Result<()> {
    println!("$ {}\n", command_line(arguments));
    let output = env.dispatcher(arguments);
    print!("{}{}", output.stdout, output.stderr);
    ensure!(output.code == 0, "dispatcher {} ended with {}", arguments[0], output.code);
    Ok(())
}

/// Returns a command of the dispatcher as a line for a shell.
fn command_line(arguments: &[&str]) -> String {
    let words = arguments.iter().map(|word| quote(word));
    std::iter::once("dispatcher".to_owned()).chain(words).collect::<Vec<String>>().join(" ")
}

/// Quotes a word for a shell, if it needs that.
fn quote(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Prints the log until the run ends.
fn follow(env: &TestEnv, run: &str) -> Result<()> {
    println!("\n$ {}\n", command_line(&["logs", "-f", run]));
    let mut logs = Command::new(&Binaries::get().dispatcher);
    logs.args(["logs", "-f", run]).env_clear().envs(env.environment()).stdin(Stdio::null());
    let status = logs.status().context("cannot start the dispatcher")?;
    ensure!(status.success(), "dispatcher logs ended with {status}");
    let waited = env.dispatcher(&["wait", run]);
    println!("\n$ {}    # exit code {}", command_line(&["wait", run]), waited.code);
    Ok(())
}

fn show_result(env: &TestEnv, outcome: &Outcome) -> Result<()> {
    ensure!(outcome.exit_code == 0, "the run ended as {}: {}", outcome.reason, outcome.message);
    for pull in env.github.pulls() {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        heading(&format!("Pull request {}: {}", pull["number"], text(&pull["title"])));
        println!("{}", text(&pull["body"]));
    }
    heading("Its diff");
    println!("{}", env.git.ask("acme/trader", &["diff", "--stat", "-p", &format!("main..{BRANCH}")]));
    Ok(())
}

/// Proves the fix: the test passes in a fresh clone of the pushed branch.
fn prove(env: &TestEnv, outcome: &Outcome) -> Result<()> {
    heading(&format!("Proof: `{CHECK}` in a fresh clone of the pushed branch"));
    let clone = env.path("proof");
    env.git.clone_fresh("acme/trader", BRANCH, &clone);
    let passed = test_passes(&clone)?;
    ensure!(passed, "the test does not pass on the pushed branch");
    env.assert_invariants(outcome);
    env.model.assert_played();
    let duration = figures::duration(seconds(outcome));
    println!("\nDone: the task is implemented, pushed, and proposed in {duration}.");
    println!(
        "The git host, GitHub and the model were fakes, and are gone now: so are the repositories and the run."
    );
    println!("next: in a clone of your repository, run `dispatcher doctor`, then `dispatcher submit --help`");
    Ok(())
}

fn test_passes(folder: &Path) -> Result<bool> {
    let mut words = CHECK.split(' ');
    let mut check = Command::new(words.next().unwrap_or("cargo"));
    check.args(words).current_dir(folder).env_remove("CARGO_TARGET_DIR").stdin(Stdio::null());
    Ok(check.status().context("cannot start cargo")?.success())
}

fn seconds(outcome: &Outcome) -> f64 {
    outcome.finished_at.duration_since(outcome.started_at).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_commands_can_be_copied() {
        assert_eq!(
            command_line(&["submit", "--verify", CHECK, "--guidance", "it's a maximum"]),
            r"dispatcher submit --verify 'cargo test --offline' --guidance 'it'\''s a maximum'"
        );
        assert_eq!(
            command_line(&["--url", "http://127.0.0.1:1/a.git", ""]),
            "dispatcher --url http://127.0.0.1:1/a.git ''"
        );
    }
}
