//! Answers shell completion requests.
//!
//! Prints candidates only and never fails: an error message would break the user's command line.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, Command};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::CompleteEnv;
use orchestrator_contract::Phase;

use super::context::{CliContext, GlobalArgs};
use crate::config::Environment;
use crate::operations::Filter;
use crate::task::selection::PHASES;
use crate::task::status::Status;

/// The variable with which the scripts of `dispatcher completions` request candidates.
///
/// Not clap's default `COMPLETE`, which may be set for other programs.
pub(super) const COMPLETE_VAR: &str = "DISPATCHER_COMPLETE";

/// Names to offer as candidates.
#[derive(Clone, Debug, Default)]
struct CompletionNames {
    /// Newest first.
    runs: Vec<Status>,
    services: BTreeSet<String>,
    agents: BTreeSet<String>,
    tasks: BTreeSet<String>,
}

/// Answers a completion request; returns whether there was one.
pub(super) async fn complete_if_requested(arguments: &[OsString], command: fn() -> Command) -> bool {
    if Environment::from_process().os(COMPLETE_VAR).is_none() {
        return false;
    }
    let names = names(arguments).await.unwrap_or_default();
    let factory = || attach_candidates(command(), &names);
    let folder = std::env::current_dir().ok();
    // Errors are dropped: the shell would show them in the middle of the command line.
    drop(CompleteEnv::with_factory(factory).var(COMPLETE_VAR).try_complete(arguments, folder.as_deref()));
    true
}

/// Reads the names from the configuration and backend that the command line selects.
async fn names(arguments: &[OsString]) -> Option<CompletionNames> {
    let value = |flag: &str| -> Option<PathBuf> {
        let mut all = arguments.iter().filter_map(|argument| argument.to_str());
        let with_equals = format!("{flag}=");
        loop {
            let argument = all.next()?;
            if argument == flag {
                return all.next().map(PathBuf::from);
            }
            if let Some(value) = argument.strip_prefix(&with_equals) {
                return Some(PathBuf::from(value));
            }
        }
    };
    let backend = value("--backend").and_then(|name| name.to_str()?.parse().ok());
    let global = GlobalArgs {
        backend,
        config: value("--config"),
        state_dir: value("--state-dir"),
        ..GlobalArgs::default()
    };
    let dispatcher = CliContext::load(global).ok()?.dispatcher;
    let config = dispatcher.config();
    let mut names = CompletionNames {
        runs: dispatcher.list(&Filter::default()).await.unwrap_or_default(),
        services: config.service_names().map(ToString::to_string).collect(),
        agents: config.agent_names().map(ToString::to_string).collect(),
        tasks: BTreeSet::new(),
    };
    names.agents.extend(config.default_agent().map(|agent| agent.to_string()));
    for run in &names.runs {
        names.services.insert(run.service.to_string());
        names.agents.insert(run.agent.to_string());
        names.tasks.extend(run.task_id.map(|task| task.to_string()));
    }
    Some(names)
}

/// Attaches the candidates to the arguments of all commands.
fn attach_candidates(command: Command, names: &CompletionNames) -> Command {
    command.mut_subcommands(|subcommand| {
        let runs: fn(&Status) -> bool = match subcommand.get_name() {
            "stop" | "wait" => |run| !run.phase.is_final(),
            "retry" => |run| run.phase.is_final(),
            _ => |_| true,
        };
        subcommand.mut_args(|arg| match arg.get_id().as_str() {
            "run" => {
                let runs = names.runs.iter().filter(|run| runs(run)).map(candidate);
                with_candidates(arg, runs.collect())
            }
            "service" => with_candidates(arg, all(&names.services)),
            "agent" => with_candidates(arg, all(&names.agents)),
            "task" => with_candidates(arg, all(&names.tasks)),
            "phase" => with_candidates(arg, all(PHASES.map(Phase::name))),
            "model" => with_candidates(arg, all(["haiku", "opus", "sonnet"])),
            _ => arg,
        })
    })
}

/// A name and its description.
type Candidate = (String, Option<String>);

fn with_candidates(arg: Arg, candidates: Vec<Candidate>) -> Arg {
    let candidate = |(name, description): &Candidate| {
        CompletionCandidate::new(name).help(description.clone().map(Into::into))
    };
    arg.add(ArgValueCandidates::new(move || candidates.iter().map(candidate).collect()))
}

fn all(names: impl IntoIterator<Item = impl ToString>) -> Vec<Candidate> {
    names.into_iter().map(|name| (name.to_string(), None)).collect()
}

fn candidate(status: &Status) -> Candidate {
    (status.run.to_string(), Some(status.phase.name().to_owned()))
}
