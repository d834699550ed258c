//! The command line: one file per subcommand parses, calls an operation and prints.

mod checkout;
mod complete;
mod completions;
mod context;
mod cost;
mod crd;
mod debug;
mod diff;
mod docs;
mod doctor;
mod gc;
mod list;
mod logs;
mod mcp;
mod open;
mod overrides;
mod progress;
mod retry;
mod run_selector;
mod schema;
mod serve;
mod setup;
mod status;
mod stop;
mod submit;
mod version;
mod wait;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, Parser, Subcommand};
use orchestrator_contract::Reason;

use self::context::{CliContext, GlobalArgs};
use crate::error::Error;
use crate::output;
use crate::task::suggest;

/// Run coding agents on the tasks of Task Master
#[derive(Debug, Parser)]
#[command(
    name = "dispatcher",
    version = version::VERSION,
    max_term_width = 100,
    long_about = LONG_ABOUT,
    after_long_help = AFTER_HELP
)]
struct Args {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

const LONG_ABOUT: &str = "\
Run coding agents on the tasks of Task Master

A task is an entry of Task Master's tasks.json (https://github.com/eyaltoledano/claude-task-master), \
which the platform repository holds in its folder `.taskmaster`. An agent is a named account with which \
the Claude Code CLI works on a task. A run is one attempt: the agent changes the code of the target \
repository in the workspace of a service, then the run pushes a branch and opens a pull request.";

const AFTER_HELP: &str = "\
Examples:
  dispatcher doctor
  dispatcher submit --task 1 --service trader
  dispatcher status
  dispatcher logs -f
  dispatcher retry trader-claude-agent-1-task1-attempt1 --guidance \"Use reqwest, not curl.\"

Configuration: flags override ORCHESTRATOR_* environment variables, which override orchestrator.toml
in your configuration folder, which overrides the nearest orchestrator.toml upwards from the working
directory. The latter may not name programs or secrets. With --config, no other file is read.

Exit codes: 0 success; 64 invalid request; 73, 74 disk error; 75 temporary failure, try again;
78 invalid configuration or credential; 124 wait timed out; 130 interrupted (runs continue).
`wait` and `submit --wait` exit with the code of the run:
  0         success                        75        network, remote, or workspace in use
  1         the agent did not succeed      76        push refused
  64, 65    request, repository            77        credential refused
  69        required service unavailable   78        configuration, or missing credential
  70        internal error                124        a limit of the run
  73, 74    disk error                    143       stopped";

#[derive(Debug, Subcommand)]
enum Command {
    Submit(submit::Arguments),
    Docs(docs::Arguments),
    Retry(retry::Arguments),
    Status(status::Arguments),
    List(list::Arguments),
    Logs(logs::Arguments),
    Diff(diff::Arguments),
    Checkout(checkout::Arguments),
    Open(open::Arguments),
    Watch(watch::Arguments),
    Cost(cost::Arguments),
    Wait(wait::Arguments),
    Stop(stop::Arguments),
    Debug(Box<debug::Arguments>),
    Gc(gc::Arguments),
    Setup(setup::Arguments),
    Doctor(doctor::Arguments),
    Mcp(mcp::Arguments),
    Serve(serve::Arguments),
    Completions(completions::Arguments),
    ConfigSchema(schema::Arguments),
    Crd(crd::Arguments),
    Version(version::Arguments),
}

/// Parses the arguments, runs the command and returns its exit code.
pub async fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if complete::complete_if_requested(&arguments, Args::command).await {
        return ExitCode::SUCCESS;
    }
    let arguments = match Args::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are reported as errors too; a closed pipe is ignored.
            let error = with_safe_suggestion(error);
            drop(error.print());
            return if error.use_stderr() {
                Reason::InvalidTask.exit_code().into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let owns_signals = match &arguments.command {
        // A checkout waits for git, which Ctrl-C ends.
        Command::Serve(_) | Command::Debug(_) | Command::Watch(_) | Command::Checkout(_) => true,
        Command::List(list) => list.watch,
        Command::Submit(_)
        | Command::Docs(_)
        | Command::Retry(_)
        | Command::Status(_)
        | Command::Logs(_)
        | Command::Diff(_)
        | Command::Open(_)
        | Command::Cost(_)
        | Command::Wait(_)
        | Command::Stop(_)
        | Command::Gc(_)
        | Command::Setup(_)
        | Command::Doctor(_)
        | Command::Mcp(_)
        | Command::Completions(_)
        | Command::ConfigSchema(_)
        | Command::Crd(_)
        | Command::Version(_) => false,
    };
    let command = run_command(arguments.global, arguments.command);
    tokio::select! {
        // The command comes first: Ctrl-C is only handled once the command waits for something, so
        // that it still interrupts reading guidance from stdin.
        biased;
        result = command => match result {
            Ok(code) => code.into(),
            Err(problem) => {
                output::error(&problem);
                problem.exit_code().into()
            }
        },
        code = wait_for_ctrl_c(), if !owns_signals => code,
    }
}

/// Replaces clap's suggestions for a misspelt command: they may lead to one that stops or removes runs.
fn with_safe_suggestion(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    let command = Args::command();
    let verbs = command.get_subcommands().map(clap::Command::get_name);
    match suggest::closest_verb(given, verbs) {
        Some(verb) => {
            let verb = ContextValue::Strings(vec![verb.to_owned()]);
            drop(error.insert(ContextKind::SuggestedSubcommand, verb));
        }
        None => drop(error.remove(ContextKind::SuggestedSubcommand)),
    }
    error
}

/// Prints that the program cannot start.
#[must_use]
pub fn cannot_start(error: &std::io::Error) -> ExitCode {
    let problem = Error::new(Reason::IoError, format!("cannot start: {error}"));
    output::error(&problem);
    problem.exit_code().into()
}

/// Waits for Ctrl-C, which does not reach runs: they have their own process sessions.
async fn wait_for_ctrl_c() -> ExitCode {
    match tokio::signal::ctrl_c().await {
        Ok(()) => {
            output::interrupted();
            // 128 + SIGINT, as shells count.
            130.into()
        }
        Err(_) => std::future::pending().await,
    }
}

async fn run_command(global: GlobalArgs, command: Command) -> Result<u8, Error> {
    let context = || CliContext::load(global.clone());
    match command {
        Command::Submit(arguments) => submit::run(&context()?, arguments).await,
        Command::Docs(arguments) => docs::run(&context()?, arguments).await,
        Command::Retry(arguments) => retry::run(&context()?, arguments).await,
        Command::Status(arguments) => status::run(&context()?, &arguments).await,
        Command::List(arguments) => list::run(&context()?, &arguments).await,
        Command::Logs(arguments) => logs::run(&context()?, arguments).await,
        Command::Diff(arguments) => diff::run(&context()?, arguments).await,
        Command::Checkout(arguments) => checkout::run(&context()?, arguments).await,
        Command::Open(arguments) => open::run(&context()?, arguments).await,
        Command::Watch(arguments) => watch::run(&context()?, arguments).await,
        Command::Cost(arguments) => cost::run(&context()?, arguments).await,
        Command::Wait(arguments) => wait::run(&context()?, arguments).await,
        Command::Stop(arguments) => stop::run(&context()?, arguments).await,
        Command::Debug(arguments) => debug::run(&context()?, *arguments).await,
        Command::Gc(arguments) => gc::run(&context()?, arguments).await,
        Command::Doctor(arguments) => doctor::run(&context()?, arguments).await,
        Command::Serve(arguments) => serve::run(global, arguments).await,
        // These also work with an invalid configuration.
        Command::Mcp(arguments) => mcp::run(global, arguments).await,
        Command::Setup(arguments) => setup::run(global, arguments),
        Command::Completions(arguments) => completions::run(&global, arguments),
        Command::ConfigSchema(arguments) => schema::run(global.output, arguments),
        Command::Crd(arguments) => crd::run(global.output, arguments),
        Command::Version(arguments) => version::run(global.output, arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_help_matches_snapshot() {
        let mut command = Args::command();
        command.build();
        let mut pages = vec![command.render_long_help().to_string()];
        for verb in command.get_subcommands_mut().filter(|verb| verb.get_name() != "help") {
            let help = verb.render_long_help();
            pages.push(format!("=== {}\n{help}", verb.get_name()));
        }
        insta::assert_snapshot!(pages.join("\n"));
    }

    #[test]
    fn misspelt_command_never_suggests_destructive_one() {
        for (given, expected) in [
            ("top", None),
            ("stpo", None),
            ("g", None),
            ("submti", Some("'submit'")),
            ("lst", Some("'list'")),
            ("stats", Some("'status'")),
        ] {
            let error = Args::try_parse_from(["dispatcher", given]).unwrap_err();
            let text = with_safe_suggestion(error).to_string();
            assert_eq!(text.contains("similar"), expected.is_some(), "{text}");
            assert!(expected.is_none_or(|verb| text.contains(verb)), "{text}");
            assert!(!text.contains("'stop'") && !text.contains("'gc'"), "{text}");
        }
    }

    #[test]
    fn cli_arguments_are_consistent() {
        Args::command().debug_assert();
    }
}
