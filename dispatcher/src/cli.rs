//! The command line: one file per subcommand parses, calls a verb and prints.

mod complete;
mod completions;
mod crd;
mod debug;
mod docs;
mod doctor;
mod gc;
mod list;
mod logs;
mod mcp;
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
mod wait;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use orchestrator_contract::Reason;

use crate::config::{BackendKind, Config, Environment, Flags};
use crate::error::Error;
use crate::operations::Dispatcher;
use crate::output::{self, Output, OutputFormat};

/// Gives tasks to agents, and follows what they do.
#[derive(Debug, Parser)]
#[command(name = "dispatcher", version, max_term_width = 100, after_long_help = AFTER)]
struct Args {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    verb: Command,
}

const AFTER: &str = "\
Examples:
  dispatcher doctor
  dispatcher submit --task 1 --service trader
  dispatcher status
  dispatcher logs -f
  dispatcher retry trader-claude-agent-1-task1-attempt1 --guidance \"Use reqwest, not curl.\"

Configuration: orchestrator.toml (the nearest upwards from the open folder, then the one in your
configuration folder), ORCHESTRATOR_* environment variables, flags; the later wins. The file that
comes with a folder names no programs and no secrets. --config FILE reads that file alone.

Exit codes: 0 done; 64 the request cannot be carried out as it is; 73, 74 the disk; 75 try again
later; 78 the configuration or a credential; 124 the time given for waiting is over; 130 Ctrl-C,
which ends this command and no run. `wait` and `submit --wait` end with the run's own:
  0         it succeeded                   75        network, remote, or the workspace is in use
  1         the agent did not succeed      76        the push was refused
  64, 65    the request, the repository    77        a credential was refused
  69        a service it needs             78        configuration, or a credential is missing
  70        a fault of this program        124       a limit of the run
  73, 74    the disk                       143       it was stopped";

/// What every verb understands.
#[derive(Clone, Debug, Default, clap::Args)]
#[expect(clippy::doc_markdown, reason = "these comments are the help's text, as it is")]
struct GlobalArgs {
    /// How results are printed.
    #[arg(short, long, value_enum, global = true, default_value_t, value_name = "FORMAT")]
    output: OutputFormat,
    /// The configuration file [env: ORCHESTRATOR_CONFIG].
    #[arg(long, global = true, value_name = "FILE", help_heading = "Configuration")]
    config: Option<PathBuf>,
    /// Where runs run [env: ORCHESTRATOR_BACKEND] [default: local].
    #[arg(long, value_enum, global = true, value_name = "BACKEND", help_heading = "Configuration")]
    backend: Option<BackendKind>,
    /// Where runs and workspaces are kept [env: ORCHESTRATOR_STATE_DIR] [default:
    /// ~/.local/state/orchestrator].
    #[arg(long, global = true, value_name = "DIR", help_heading = "Configuration")]
    state_dir: Option<PathBuf>,
    /// The supervisor's program [env: ORCHESTRATOR_SUPERVISOR].
    #[arg(long, global = true, value_name = "FILE", help_heading = "Configuration")]
    supervisor: Option<PathBuf>,
    /// The Claude Code CLI's program [env: ORCHESTRATOR_CLAUDE].
    #[arg(long, global = true, value_name = "FILE", help_heading = "Configuration")]
    claude: Option<PathBuf>,
    /// The folder of MCP server configurations [env: ORCHESTRATOR_MCP_CONFIG_DIR].
    #[arg(long, global = true, value_name = "DIR", help_heading = "Configuration")]
    mcp_config_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Submit(submit::Arguments),
    Docs(docs::Arguments),
    Retry(retry::Arguments),
    Status(status::Arguments),
    List(list::Arguments),
    Logs(logs::Arguments),
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
}

/// What a verb works with.
struct CliContext {
    dispatcher: Dispatcher,
    output: Output,
    cwd: PathBuf,
}

/// Parses the arguments, does what they say, and tells it by the exit code.
pub async fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if complete::complete_if_requested(&arguments).await {
        return ExitCode::SUCCESS;
    }
    let arguments = match Args::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors; whoever closed the pipe does not want to hear of it.
            drop(error.print());
            return if error.use_stderr() {
                Reason::InvalidTask.exit_code().into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let owns_signals = matches!(arguments.verb, Command::Serve(_) | Command::Debug(_));
    let verb = perform(arguments.global, arguments.verb);
    tokio::select! {
        // The verb comes first: whoever types guidance can still end it as usual,
        // because Ctrl-C is only taken over once there is something to wait for.
        biased;
        result = verb => match result {
            Ok(code) => code.into(),
            Err(problem) => {
                output::error(&problem);
                problem.exit_code().into()
            }
        },
        code = wait_for_ctrl_c(), if !owns_signals => code,
    }
}

/// Says that the program cannot even begin.
#[must_use]
pub fn cannot_start(error: &std::io::Error) -> ExitCode {
    let problem = Error::new(Reason::IoError, format!("cannot start: {error}"));
    output::error(&problem);
    problem.exit_code().into()
}

/// Waits for Ctrl-C. Runs have sessions of their own: they go on.
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

/// What the process brings along, whatever the verb.
fn load_context(format: OutputFormat) -> Result<(Environment, Output, PathBuf), Error> {
    let environment = Environment::of_this_process();
    let output = Output::new(format, &environment);
    let cwd = std::env::current_dir().map_err(|error| {
        Error::new(Reason::IoError, format!("cannot tell the working directory: {error}"))
            .with_hint("Change to a folder that exists.")
    })?;
    Ok((environment, output, cwd))
}

fn session(global: GlobalArgs) -> Result<CliContext, Error> {
    let GlobalArgs { output, config, backend, state_dir, supervisor, claude, mcp_config_dir: mcp_configs } =
        global;
    let (environment, output, cwd) = load_context(output)?;
    let flags = Flags { config, backend, state_dir, supervisor, claude, mcp_config_dir: mcp_configs };
    let config = Config::load(environment, flags, &cwd)?;
    Ok(CliContext { dispatcher: Dispatcher::new(config), output, cwd })
}

async fn perform(global: GlobalArgs, verb: Command) -> Result<u8, Error> {
    let session = || session(global.clone());
    match verb {
        Command::Submit(arguments) => submit::run(&session()?, arguments).await,
        Command::Docs(arguments) => docs::run(&session()?, arguments).await,
        Command::Retry(arguments) => retry::run(&session()?, arguments).await,
        Command::Status(arguments) => status::run(&session()?, &arguments).await,
        Command::List(arguments) => list::run(&session()?, &arguments).await,
        Command::Logs(arguments) => logs::run(&session()?, arguments).await,
        Command::Wait(arguments) => wait::run(&session()?, arguments).await,
        Command::Stop(arguments) => stop::run(&session()?, arguments).await,
        Command::Debug(arguments) => debug::run(&session()?, *arguments).await,
        Command::Gc(arguments) => gc::run(&session()?, arguments).await,
        Command::Doctor(arguments) => doctor::run(&session()?, arguments).await,
        Command::Serve(arguments) => serve::run(global, arguments).await,
        // These work without a configuration, and so with a broken one too.
        Command::Mcp(arguments) => mcp::run(global, arguments).await,
        Command::Setup(arguments) => setup::run(global, arguments),
        Command::Completions(arguments) => completions::run(&global, arguments),
        Command::ConfigSchema(arguments) => schema::run(global.output, arguments),
        Command::Crd(arguments) => crd::run(global.output, arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

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
    fn cli_arguments_are_consistent() {
        Args::command().debug_assert();
    }
}
