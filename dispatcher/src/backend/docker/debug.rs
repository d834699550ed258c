//! Debug runs: a run as a command line that a user can run and change.
//!
//! A debug run has one container: its supervisor confines the agent in there, and has the whole workspace
//! in one volume. The volumes of a service belong to other containers and other users, so a debug run never
//! works in them; a shell can look at the worktree.

use std::collections::HashMap;

use jiff::Timestamp;
use orchestrator_contract::containers::{ContainerRole, WORKSPACE};
use orchestrator_contract::layout::Layout;
use orchestrator_contract::{ServiceName, Step, TaskKey};

use super::attempts::AttemptNumbers;
use super::command_line::{self, Terminal, build_arguments};
use super::connect::{Engine, problem, status};
use super::guests;
use super::handle::Docker;
use super::inputs::RunInputs;
use super::labels::{self, DEBUG, SERVICE};
use super::objects::helper_labels;
use super::spec::{self, ContainerSpec, INPUT_MOUNT_PATH, VolumeMount};
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
    /// The service's own worktree: for a shell only.
    Service,
    /// Another volume.
    Named(String),
}

/// A prepared debug run.
#[derive(Clone, Debug)]
pub struct DebugRun {
    /// Commands to run in order, until one fails.
    pub commands: Vec<CommandLine>,
    /// Volume with the task and secrets, which the caller must remove; none for a shell in the worktree.
    pub input_volume: Option<String>,
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
            DebugVolume::Service => return self.look_at_worktree(service, options).await,
            DebugVolume::Debug => format!("{}-debug", guests::tree_volume(service)),
            DebugVolume::Named(name) => name.clone(),
        };
        self.require_no_service_volume(&workspace).await?;
        let preview = draft.with_attempt(identity.run_name(1, |_| false), 1);
        let inputs = RunInputs::collect(&self.config, &preview).await?;
        let labels = debug_labels(service);
        let mount = VolumeMount::new(workspace.clone(), WORKSPACE, labels.clone());
        // The stored number can only be read through a container with the volume.
        let mut reader = self.base_spec(&preview, &inputs);
        reader.volumes = vec![mount.clone()];
        let reader_id = self.create_stopped(service, reader).await?;
        let stored = AttemptNumbers::workspace(client, &reader_id).read(identity).await;
        self.remove_container(&reader_id).await?;
        let attempt = stored? + 1;

        let task = draft.with_attempt(identity.run_name(attempt, |_| false), attempt);
        let name = format!("{PREFIX}{}", task.run);
        let input_volume = format!("{name}-input");
        let mut spec = self.base_spec(&task, &inputs);
        spec.name.clone_from(&name);
        spec.labels = labels.clone().into_iter().collect();
        let input = VolumeMount::new(input_volume.clone(), INPUT_MOUNT_PATH, labels).unpopulated();
        spec.volumes = vec![mount, input];
        let until = options.until.or(options.shell.is_some().then_some(PREPARED));
        if let Some(step) = until {
            spec.arguments.extend(["--until".to_owned(), step.name().to_owned()]);
        }
        spec.arguments.extend(["--log-format".to_owned(), "text".to_owned()]);

        let filler = self.create_stopped(service, spec.clone()).await?;
        let fill = async {
            let numbers = AttemptNumbers::workspace(client, &filler);
            numbers.store(identity, attempt, spec.user).await?;
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
        Ok(DebugRun { commands, input_volume: Some(input_volume), workspace })
    }

    /// Returns a shell in the worktree of a service, with the agent's user and image.
    async fn look_at_worktree(
        &self,
        service: &ServiceName,
        options: &DebugOptions,
    ) -> Result<DebugRun, Error> {
        let Some(shell) = &options.shell else {
            return Err(Error::invalid_request(
                "a debug run cannot work in the service's own volumes, which belong to several containers",
            )
            .with_hint("Add --shell to look at them, submit the task, or use the debugging volume."));
        };
        let tree = guests::workspace_mount(service, ContainerRole::Agent).unpopulated();
        if !self.has_volume(&tree.name).await? {
            return Err(Error::invalid_request(format!("service {service} has no volume {} yet", tree.name))
                .with_hint("Its first run creates it."));
        }
        let settings = self.config.docker();
        let image = self.config.service(service).image;
        let workspace = tree.name.clone();
        let name = format!("{PREFIX}{service}");
        let mut spec = ContainerSpec::new(settings, name, spec::agent_image(settings, image.as_ref()));
        spec.user = settings.agent_user();
        spec.labels = debug_labels(service).into_iter().collect();
        spec.volumes = vec![tree];
        let mut spec = shell_spec(&spec, shell);
        // Another image may have no other shell, and a worktree may not exist.
        (spec.entrypoint, spec.folder) = (Some("/bin/sh".to_owned()), Some(WORKSPACE.to_owned()));
        let terminal = if options.terminal { Terminal::Yes } else { Terminal::Input };
        let commands = vec![self.line(self.engine().await?, build_arguments(&spec, terminal))];
        Ok(DebugRun { commands, input_volume: None, workspace })
    }

    /// Checks that a volume is none of a service: a debug run would mix its files with those of other users.
    async fn require_no_service_volume(&self, name: &str) -> Result<(), Error> {
        let volume = match self.engine().await?.client.inspect_volume(name).await {
            Ok(volume) => volume,
            Err(error) if status(&error) == Some(404) => return Ok(()),
            Err(error) => return Err(problem(&format!("inspect volume {name}"), &error)),
        };
        if volume.labels.contains_key(labels::WORKSPACE) {
            return Err(Error::invalid_request(format!(
                "volume {name} is that of a service, and its runs own it"
            ))
            .with_hint("Look at it with --service-volume --shell, or name another volume."));
        }
        Ok(())
    }

    /// Creates a container that is never started, to copy files to its volumes.
    async fn create_stopped(&self, service: &ServiceName, spec: ContainerSpec) -> Result<String, Error> {
        let mut spec = spec;
        spec.labels = helper_labels(service);
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
        if let Some(input) = &run.input_volume {
            self.remove_volume(input).await?;
        }
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
    spec.volumes.retain(|volume| volume.target == WORKSPACE);
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
        let mut run = spec::tests::sample();
        run.volumes.push(VolumeMount::new("workspace-trader-debug".to_owned(), WORKSPACE, HashMap::new()));
        let shell = shell_spec(&run, &Shell::Command("env".to_owned()));
        let line =
            CommandLine { program: "docker".to_owned(), arguments: build_arguments(&shell, Terminal::Input) };
        insta::assert_snapshot!(line.render());
        assert_eq!(line.render().matches("--mount").count(), 1);
    }
}
