//! Debug runs: the container of a submitted run, as a command line that a user can run and change.

use std::collections::HashMap;

use jiff::Timestamp;
use orchestrator_contract::layout::Layout;
use orchestrator_contract::{ServiceName, Step, TaskKey};

use super::command_line::{self, Terminal, build_arguments};
use super::connect::{Engine, problem};
use super::handle::Docker;
use super::inputs::RunInputs;
use super::labels::{self, DEBUG, SERVICE};
use super::spec::{self, ContainerSpec, INPUT_MOUNT_PATH, InputMount, WORKSPACE};
use super::{attempts, cleanup};
use crate::error::Error;
use crate::task::resolve::TaskDraft;

/// Options of a debug run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DebugOptions {
    /// The last step to run.
    pub until: Option<Step>,
    /// Shell or command to run afterwards, with the agent's view.
    pub shell: Option<Shell>,
    pub volume: DebugVolume,
    /// Whether stdin and stdout are a terminal.
    pub terminal: bool,
}

/// A shell in the prepared workspace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Shell {
    /// Interactive.
    Open,
    /// Runs one command.
    Command(String),
}

/// The workspace volume of a debug run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DebugVolume {
    /// A volume that only debug runs of the service use.
    Debug,
    /// The service's own volume.
    Service,
    /// Another volume.
    Named(String),
}

/// A prepared debug run.
#[derive(Clone, Debug)]
pub struct DebugRun {
    /// Commands to run in order, until one fails.
    pub commands: Vec<CommandLine>,
    /// Volume with the task and secrets, which the caller must remove.
    pub input_volume: String,
    /// Workspace volume.
    pub workspace: String,
}

/// A program and its arguments.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommandLine {
    /// The engine's CLI.
    pub program: String,
    pub arguments: Vec<String>,
}

impl CommandLine {
    /// Renders the command for a shell.
    #[must_use]
    pub fn render(&self) -> String {
        command_line::render(&self.program, &self.arguments)
    }
}

/// Prefix of the names of debug containers and volumes.
const PREFIX: &str = "debug-";

/// The last step of preparing the workspace for the agent.
const PREPARED: Step = Step::Documents;

impl Docker {
    /// Prepares a debug run: allocates its number in its volume, and copies task and secrets to a volume.
    ///
    /// # Errors
    /// Returns an error if the engine or the image is not available, or a required file is missing.
    pub async fn prepare_debug_run(
        &self,
        draft: &TaskDraft,
        identity: &TaskKey,
        options: &DebugOptions,
    ) -> Result<DebugRun, Error> {
        let engine = self.engine().await?;
        let client = &engine.client;
        let service = &identity.service;
        let workspace = match &options.volume {
            DebugVolume::Debug => format!("{}-debug", spec::workspace(service)),
            DebugVolume::Service => spec::workspace(service),
            DebugVolume::Named(name) => name.clone(),
        };
        let preview = draft.with_attempt(identity.run_name(1, |_| false), 1);
        let inputs = RunInputs::collect(&self.config, &preview).await?;
        let labels = debug_labels(service);
        let volume_labels = match &options.volume {
            DebugVolume::Service => labels::workspace_labels(service),
            DebugVolume::Debug | DebugVolume::Named(_) => labels.clone(),
        };
        // The stored number can only be read through a container with the volume.
        let mut reader = self.spec(&preview, &inputs);
        (reader.workspace, reader.input_mount) = (workspace.clone(), InputMount::None);
        reader.workspace_labels.clone_from(&volume_labels);
        let reader_id = self.create_stopped(service, reader).await?;
        let stored = attempts::read(client, &reader_id, identity).await;
        self.remove_container(&reader_id).await?;
        let attempt = stored?.max(self.highest_number(identity, options).await?) + 1;

        let task = draft.with_attempt(identity.run_name(attempt, |_| false), attempt);
        let name = format!("{PREFIX}{}", task.run);
        let input_volume = format!("{name}-input");
        let mut spec = self.spec(&task, &inputs);
        spec.name.clone_from(&name);
        spec.workspace.clone_from(&workspace);
        spec.workspace_labels = volume_labels;
        spec.labels = labels.clone().into_iter().collect();
        spec.input_mount = InputMount::Volume { name: input_volume.clone(), labels };
        let until = options.until.or(options.shell.is_some().then_some(PREPARED));
        if let Some(step) = until {
            spec.arguments.extend(["--until".to_owned(), step.name().to_owned()]);
        }
        spec.arguments.extend(["--log-format".to_owned(), "text".to_owned()]);

        let filler = self.create_stopped(service, spec.clone()).await?;
        let fill = async {
            attempts::store(client, &filler, identity, attempt, spec.user).await?;
            inputs.archive(&task, spec.user)?.upload(client, &filler, INPUT_MOUNT_PATH).await
        };
        let filled = fill.await;
        self.remove_container(&filler).await?;
        if filled.is_err() {
            drop(self.remove_volume(&input_volume).await);
        }
        filled?;

        let terminal = if options.terminal { Terminal::Yes } else { Terminal::No };
        let mut commands = vec![self.line(engine, build_arguments(&spec, terminal))];
        if let Some(shell) = &options.shell {
            let terminal = if options.terminal { Terminal::Yes } else { Terminal::Input };
            commands.push(self.line(engine, build_arguments(&shell_spec(&spec, shell), terminal)));
        }
        Ok(DebugRun { commands, input_volume, workspace })
    }

    /// Returns the highest number of submitted runs, if their volume is used.
    async fn highest_number(&self, identity: &TaskKey, options: &DebugOptions) -> Result<u32, Error> {
        match options.volume {
            DebugVolume::Service => self.highest_attempt(identity).await,
            DebugVolume::Debug | DebugVolume::Named(_) => Ok(0),
        }
    }

    /// Creates a container that is never started, to copy files to its volumes.
    async fn create_stopped(&self, service: &ServiceName, spec: ContainerSpec) -> Result<String, Error> {
        let mut spec = spec;
        spec.labels = cleanup::helper_labels(service);
        self.create_unnamed(&spec).await
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

    /// Removes the secrets of a debug run, and optionally its workspace.
    ///
    /// # Errors
    /// Returns an error if the engine fails.
    pub async fn remove_debug_run(&self, run: &DebugRun, workspace_too: bool) -> Result<(), Error> {
        self.remove_volume(&run.input_volume).await?;
        if workspace_too {
            self.remove_volume(&run.workspace).await?;
        }
        Ok(())
    }

    /// Removes the secrets of debug runs that are older than a day.
    pub(super) async fn sweep_debug_runs(&self, now: Timestamp) -> Result<(), Error> {
        /// Seconds for which a printed command line stays usable.
        const DAY: i64 = 24 * 3600;
        for volume in self.dangling(DEBUG).await? {
            let created_at: Option<Timestamp> = volume.created_at.as_deref().and_then(|at| at.parse().ok());
            let old = created_at.is_some_and(|at| now.duration_since(at).as_secs() > DAY);
            if old && volume.name.starts_with(PREFIX) {
                drop(self.remove_volume(&volume.name).await);
            }
        }
        Ok(())
    }

    /// Lists volumes with a label that no container uses.
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

fn debug_labels(service: &ServiceName) -> HashMap<String, String> {
    HashMap::from([(SERVICE.to_owned(), service.to_string()), (DEBUG.to_owned(), "true".to_owned())])
}

/// Returns the container with the agent's view: no task, no secrets, a shell in the worktree.
fn shell_spec(run: &ContainerSpec, shell: &Shell) -> ContainerSpec {
    let mut spec = run.clone();
    spec.name = format!("{}-shell", run.name);
    spec.input_mount = InputMount::None;
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
        let line =
            CommandLine { program: "docker".to_owned(), arguments: build_arguments(&shell, Terminal::Input) };
        insta::assert_snapshot!(line.render());
        assert!(!line.render().contains("-input"));
    }
}
