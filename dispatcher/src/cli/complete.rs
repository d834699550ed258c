//! Answers a shell that asks how a line may go on.
//!
//! It never fails and never says anything but candidates: a person who presses
//! Tab has no use for an error in the middle of the line.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, Command, CommandFactory as _};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::CompleteEnv;
use orchestrator_contract::Phase;

use super::{Args, GlobalArgs, session};
use crate::config::Environment;
use crate::operations::Filter;
use crate::task::selection::PHASES;
use crate::task::status::Status;

/// The variable by which the scripts of `dispatcher completions` ask.
///
/// Not the engine's own `COMPLETE`: anybody may have set that for another reason.
pub(super) const COMPLETE_VAR: &str = "DISPATCHER_COMPLETE";

/// The names that a line can go on with.
#[derive(Clone, Debug, Default)]
struct CompletionNames {
    /// Newest first.
    runs: Vec<Status>,
    services: BTreeSet<String>,
    agents: BTreeSet<String>,
    tasks: BTreeSet<String>,
}

/// Answers if a shell asks; says whether one did.
pub(super) async fn complete_if_requested(arguments: &[OsString]) -> bool {
    if Environment::of_this_process().os(COMPLETE_VAR).is_none() {
        return false;
    }
    let names = names(arguments).await.unwrap_or_default();
    let factory = || attach_candidates(Args::command(), &names);
    let folder = std::env::current_dir().ok();
    // What went wrong is of no use to whoever pressed Tab.
    drop(CompleteEnv::with_factory(factory).var(COMPLETE_VAR).try_complete(arguments, folder.as_deref()));
    true
}

/// Reads the names from the state that the line is about.
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
    let dispatcher = session(global).ok()?.dispatcher;
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

/// Tells the arguments of every verb what they can be.
fn attach_candidates(command: Command, names: &CompletionNames) -> Command {
    command.mut_subcommands(|verb| {
        let runs: fn(&Status) -> bool = match verb.get_name() {
            "stop" | "wait" => |run| !run.phase.is_final(),
            "retry" => |run| run.phase.is_final(),
            _ => |_| true,
        };
        verb.mut_args(|arg| match arg.get_id().as_str() {
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

/// A name, and what is said beside it.
type Candidate = (String, Option<String>);

fn with_candidates(arg: Arg, candidates: Vec<Candidate>) -> Arg {
    let candidate =
        |(name, beside): &Candidate| CompletionCandidate::new(name).help(beside.clone().map(Into::into));
    arg.add(ArgValueCandidates::new(move || candidates.iter().map(candidate).collect()))
}

fn all(names: impl IntoIterator<Item = impl ToString>) -> Vec<Candidate> {
    names.into_iter().map(|name| (name.to_string(), None)).collect()
}

fn candidate(status: &Status) -> Candidate {
    (status.run.to_string(), Some(status.phase.name().to_owned()))
}
