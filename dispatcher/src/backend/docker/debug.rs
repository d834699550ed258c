//! A run by hand: the same container as a submitted one, as a line that a person can run and change.

use std::collections::HashMap;

use jiff::Timestamp;
use orchestrator_contract::layout::Layout;
use orchestrator_contract::{ServiceName, Step, TaskKey};

use super::command_line::{self, Terminal, compose_arguments};
use super::connect::{Engine, problem};
use super::inputs::RunInputs;
use super::labels::{DEBUG, SERVICE};
use super::spec::{self, ContainerSpec, INPUT_MOUNT_PATH, InputMount, WORKSPACE};
use super::{Docker, attempts};
use crate::error::Error;
use crate::task::resolve::TaskDraft;

/// What is wanted of a run by hand.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DebugOptions {
    /// The last step.
    pub until: Option<Step>,
    /// A shell after it, or a command for one, as the agent sees things.
    pub shell: Option<Shell>,
    /// Where it works.
    pub volume: DebugVolume,
    /// Whether its user sits before a terminal.
    pub terminal: bool,
}

/// A shell in the prepared workspace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Shell {
    /// For a person.
    Open,
    /// For one command.
    Command(String),
}

/// The volume of a run by hand.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DebugVolume {
    /// One that runs by hand of the service share, and no submitted run uses.
    Debug,
    /// That of submitted runs.
    Service,
    /// Another one.
    Named(String),
}

/// A run by hand, ready to go.
#[derive(Clone, Debug)]
pub struct DebugRun {
    /// What is to be started, one after the other, as long as it goes well.
    pub commands: Vec<CommandLine>,
    /// The volume with the task and the secrets, which somebody has to remove.
    pub input_volume: String,
    /// The volume of the workspace.
    pub workspace: String,
}

/// A program and its arguments.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommandLine {
    /// The engine's command line.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl CommandLine {
    /// As people type it.
    #[must_use]
    pub fn render(&self) -> String {
        command_line::render(&self.program, &self.arguments)
    }
}

/// Everything of debugging begins so.
const PREFIX: &str = "debug-";

/// The step after which a workspace is as an agent finds it.
const PREPARED: Step = Step::Documents;

impl Docker {
    /// Makes everything ready for a run by hand: its number is given out in its volume, the task and the
    /// secrets are in a volume of their own.
    ///
    /// # Errors
    /// The engine does not answer or has no image, or something that the run needs is missing.
    pub async fn prepare_debug_run(
        &self,
        draft: &TaskDraft,
        identity: &TaskKey,
        wish: &DebugOptions,
    ) -> Result<DebugRun, Error> {
        let engine = self.engine().await?;
        let client = &engine.client;
        let service = &identity.service;
        let workspace = match &wish.volume {
            DebugVolume::Debug => format!("{}-debug", spec::workspace(service)),
            DebugVolume::Service => spec::workspace(service),
            DebugVolume::Named(name) => name.clone(),
        };
        let preview = draft.with_attempt(identity.run_name(1, |_| false), 1);
        let gift = RunInputs::collect(&self.config, &preview).await?;
        let labels = labels_of(service);
        let volume_labels = match &wish.volume {
            DebugVolume::Service => super::labels::workspace_labels(service),
            DebugVolume::Debug | DebugVolume::Named(_) => labels.clone(),
        };
        // The mark is in the volume, and only a container that has it can read it.
        let mut look = self.spec(&preview, &gift);
        (look.workspace, look.given) = (workspace.clone(), InputMount::None);
        look.labels_of_workspace.clone_from(&volume_labels);
        let reader = self.create_stopped(service, look.clone()).await?;
        let mark = attempts::read(client, &reader, identity).await;
        self.remove_container(&reader).await?;
        let attempt = mark?.max(self.highest_number(identity, wish).await?) + 1;

        let task = draft.with_attempt(identity.run_name(attempt, |_| false), attempt);
        let name = format!("{PREFIX}{}", task.run);
        let given = format!("{name}-input");
        let mut spec = self.spec(&task, &gift);
        spec.name.clone_from(&name);
        spec.workspace.clone_from(&workspace);
        spec.labels_of_workspace = volume_labels;
        spec.labels = labels.clone().into_iter().collect();
        spec.given = InputMount::Volume { name: given.clone(), labels };
        let until = wish.until.or(wish.shell.is_some().then_some(PREPARED));
        if let Some(step) = until {
            spec.arguments.extend(["--until".to_owned(), step.name().to_owned()]);
        }
        spec.arguments.extend(["--log-format".to_owned(), "text".to_owned()]);

        let filler = self.create_stopped(service, spec.clone()).await?;
        let fill = async {
            attempts::raise(client, &filler, identity, attempt, spec.user).await?;
            gift.archive(&task, spec.user)?.upload(client, &filler, INPUT_MOUNT_PATH).await
        };
        let filled = fill.await;
        self.remove_container(&filler).await?;
        if filled.is_err() {
            drop(self.remove_volume(&given).await);
        }
        filled?;

        let terminal = if wish.terminal { Terminal::Yes } else { Terminal::No };
        let mut commands = vec![self.line(engine, compose_arguments(&spec, terminal))];
        if let Some(shell) = &wish.shell {
            let terminal = if wish.terminal { Terminal::Yes } else { Terminal::Input };
            commands.push(self.line(engine, compose_arguments(&shell_spec(&spec, shell), terminal)));
        }
        Ok(DebugRun { commands, input_volume: given, workspace })
    }

    /// Numbers of submitted runs count where their volume is used.
    async fn highest_number(&self, identity: &TaskKey, wish: &DebugOptions) -> Result<u32, Error> {
        match wish.volume {
            DebugVolume::Service => self.highest_attempt(identity).await,
            DebugVolume::Debug | DebugVolume::Named(_) => Ok(0),
        }
    }

    /// Makes a container that is never started: files get into volumes through it.
    async fn create_stopped(&self, service: &ServiceName, spec: ContainerSpec) -> Result<String, Error> {
        let mut spec = spec;
        spec.labels = super::cleanup::helper_labels(service);
        self.make_unnamed(&spec).await
    }

    fn line(&self, engine: &Engine, arguments: Vec<String>) -> CommandLine {
        let podman = engine.address.contains("podman");
        let (program, flag) = if podman { ("podman", "--url") } else { ("docker", "--host") };
        let mut all = Vec::new();
        if engine.address != "unix:///var/run/docker.sock" {
            all.push(format!("{flag}={}", engine.address));
        }
        all.extend(arguments);
        CommandLine { program: program.to_owned(), arguments: all }
    }

    /// Removes the secrets of a run by hand, and its workspace if that is wanted.
    ///
    /// # Errors
    /// The engine cannot.
    pub async fn remove_debug_run(&self, debugging: &DebugRun, workspace_too: bool) -> Result<(), Error> {
        self.remove_volume(&debugging.input_volume).await?;
        if workspace_too {
            self.remove_volume(&debugging.workspace).await?;
        }
        Ok(())
    }

    /// Removes secrets of runs by hand that nobody has removed for a day.
    pub(super) async fn sweep_debug_runs(&self, now: Timestamp) -> Result<(), Error> {
        /// A line that was printed may be run as long, in seconds.
        const DAY: i64 = 24 * 3600;
        for volume in self.dangling(DEBUG).await? {
            let made_at: Option<Timestamp> = volume.created_at.as_deref().and_then(|at| at.parse().ok());
            let old = made_at.is_some_and(|at| now.duration_since(at).as_secs() > DAY);
            if old && volume.name.starts_with(PREFIX) {
                drop(self.remove_volume(&volume.name).await);
            }
        }
        Ok(())
    }

    /// Volumes with a label that no container has.
    pub(super) async fn dangling(&self, label: &str) -> Result<Vec<bollard::models::Volume>, Error> {
        let filters = HashMap::from([
            ("label".to_owned(), vec![label.to_owned()]),
            ("dangling".to_owned(), vec!["true".to_owned()]),
        ]);
        let options = bollard::query_parameters::ListVolumesOptionsBuilder::new().filters(&filters).build();
        let listed = self.engine().await?.client.list_volumes(Some(options)).await;
        Ok(listed.map_err(|error| problem("list volumes", &error))?.volumes.unwrap_or_default())
    }
}

fn labels_of(service: &ServiceName) -> HashMap<String, String> {
    HashMap::from([(SERVICE.to_owned(), service.to_string()), (DEBUG.to_owned(), "true".to_owned())])
}

/// The same container as the agent sees it: no task, no secrets, a shell in the working tree.
fn shell_spec(run: &ContainerSpec, shell: &Shell) -> ContainerSpec {
    let mut spec = run.clone();
    spec.name = format!("{}-shell", run.name);
    spec.given = InputMount::None;
    spec.folder = Some(Layout::new(WORKSPACE).target_repo().to_string_lossy().into_owned());
    spec.environment = std::collections::BTreeMap::from([("HOME".to_owned(), "/tmp".to_owned())]);
    spec.entrypoint = Some("/bin/bash".to_owned());
    spec.arguments = match shell {
        Shell::Open => Vec::new(),
        Shell::Command(command) => vec!["-c".to_owned(), command.clone()],
    };
    spec.stop_timeout_seconds = 10;
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shell_has_workspace_without_secrets() {
        let run = spec::tests::sample();
        let shell = shell_spec(&run, &Shell::Command("env".to_owned()));
        let line = CommandLine {
            program: "docker".to_owned(),
            arguments: compose_arguments(&shell, Terminal::Input),
        };
        insta::assert_snapshot!(line.render());
        assert!(!line.render().contains("given"));
    }
}
