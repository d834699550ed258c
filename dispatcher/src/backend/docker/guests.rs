//! The other containers of a run: those of its agent and of its verify commands.
//!
//! Process 1 of each is a guest of the supervisor, which restarts with its container. They share the
//! network of the supervisor's container, so the engine cannot start them without it: not after the run,
//! and not when the machine starts.

use std::collections::HashMap;

use orchestrator_contract::containers::{
    ContainerRole, PRIVATE_DIR, SHARED_DIR, SUPERVISOR, TOOLS_DIR, WORKSPACE,
};
use orchestrator_contract::layout::Layout;
use orchestrator_contract::{RunName, ServiceName, TaskSpec};

use super::labels;
use super::spec::{ContainerSpec, INPUT_MOUNT_PATH, Restart, VolumeMount, input_volume};
use crate::config::DockerSettings;

/// Log size at which the engine drops lines of a guest. They are read only if it fails.
const LOG_SIZE: &str = "10m";

/// Returns the roles of the containers that a task needs beside the supervisor's.
pub(super) fn roles(task: &TaskSpec) -> impl Iterator<Item = ContainerRole> {
    let verifies = !task.verify.is_empty();
    ContainerRole::ALL.into_iter().filter(move |role| match role {
        ContainerRole::Agent => true,
        ContainerRole::Verify => verifies,
    })
}

/// Returns the name of a container of a run. Not a valid run name, which ends in a number.
pub(super) fn container(run: &RunName, role: ContainerRole) -> String {
    format!("{run}-{}", role.name())
}

/// Returns the name of the volume of a guest's socket.
pub(super) fn socket_volume(run: &RunName, role: ContainerRole) -> String {
    format!("{run}-{}-socket", role.name())
}

/// Returns the name of the volume with a service's worktree.
pub(super) fn tree_volume(service: &ServiceName) -> String {
    Layout::name(service)
}

/// Returns the name of the volume in which a service's verify commands run.
fn verify_volume(service: &ServiceName) -> String {
    format!("{}.verify", Layout::name(service))
}

/// Returns the name of the volume that only supervisors mount.
pub(super) fn private_volume(service: &ServiceName) -> String {
    format!("{}.private", Layout::name(service))
}

/// Returns the name of the volume that supervisors write and guests read.
fn shared_volume(service: &ServiceName) -> String {
    format!("{}.shared", Layout::name(service))
}

/// Returns the name of the volume with the programs of guests, of an image's id.
pub(super) fn tools_volume(image_id: &str) -> String {
    /// As many digits as tell images apart.
    const DIGITS: usize = 16;
    let digits = image_id.trim_start_matches("sha256:");
    format!("orchestrator-tools-{}", digits.get(..DIGITS).unwrap_or(digits))
}

/// Returns the mount of the volume in which a role's programs work. New ones get their owner from the image.
pub(super) fn workspace_mount(service: &ServiceName, role: ContainerRole) -> VolumeMount {
    let name = match role {
        ContainerRole::Agent => tree_volume(service),
        ContainerRole::Verify => verify_volume(service),
    };
    VolumeMount::new(name, WORKSPACE, labels::workspace_labels(service))
}

/// Returns the mount of the volume that only supervisors have.
pub(super) fn private_mount(service: &ServiceName) -> VolumeMount {
    VolumeMount::new(private_volume(service), PRIVATE_DIR, labels::workspace_labels(service))
}

/// Returns the mount of the volume with the programs of guests.
pub(super) fn tools_mount(tools: String, labels: HashMap<String, String>) -> VolumeMount {
    VolumeMount::new(tools, TOOLS_DIR, labels)
}

/// Returns the mount of the volume that supervisors write and guests read.
pub(super) fn shared_mount(service: &ServiceName) -> VolumeMount {
    VolumeMount::new(shared_volume(service), SHARED_DIR, labels::workspace_labels(service))
}

fn socket_mount(task: &TaskSpec, role: ContainerRole) -> VolumeMount {
    VolumeMount::new(socket_volume(&task.run, role), &role.guest_dir(), labels::run_volume_labels(task))
}

/// Returns the volumes of a supervisor. That of the worktree is none of them.
pub(super) fn supervisor_volumes(task: &TaskSpec) -> Vec<VolumeMount> {
    let service = &task.service;
    let input = VolumeMount::new(input_volume(&task.run), INPUT_MOUNT_PATH, labels::run_volume_labels(task));
    let mut volumes = vec![private_mount(service), shared_mount(service)];
    volumes.extend(roles(task).map(|role| socket_mount(task, role)));
    volumes.push(input.unpopulated());
    volumes
}

/// What the containers beside a supervisor's have in common.
#[derive(Debug)]
pub(super) struct Guests<'a> {
    pub(super) settings: &'a DockerSettings,
    pub(super) task: &'a TaskSpec,
    pub(super) supervisor: &'a ContainerSpec,
    /// Image of the service.
    pub(super) image: String,
    /// Volume with the programs of guests.
    pub(super) tools: String,
}

impl Guests<'_> {
    /// Returns the container of a role. It has no variable and no input of the run.
    pub(super) fn container(&self, role: ContainerRole) -> ContainerSpec {
        let Self { settings, task, supervisor, image, tools } = self;
        let service = &task.service;
        let mut spec = ContainerSpec::new(settings, container(&task.run, role), image.clone());
        spec.labels = labels::guest_labels(task, role);
        spec.user = settings.agent_user();
        spec.entrypoint = Some(SUPERVISOR.to_owned());
        spec.arguments = role.guest_arguments().into();
        spec.folder = Some(WORKSPACE.to_owned());
        spec.network = Some(format!("container:{}", task.run));
        spec.restart = Restart::OnFailure;
        spec.log_size = LOG_SIZE;
        // When the engine stops, the supervisor needs the guest to save work.
        spec.stop_timeout_seconds = supervisor.stop_timeout_seconds;
        // All of these exist; nothing of the service's image may get into them.
        spec.volumes = vec![
            workspace_mount(service, role).unpopulated(),
            shared_mount(service).unpopulated().read_only(),
            socket_mount(task, role).unpopulated().read_only(),
            tools_mount(tools.clone(), HashMap::new()).unpopulated().read_only(),
        ];
        spec
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::docker::spec::{self, Access};
    use crate::config::{Cpus, Memory};

    fn task(verify: &[&str]) -> TaskSpec {
        let mut task = labels::tests::sample().task;
        task.verify = verify.iter().map(|&command| command.to_owned()).collect();
        task
    }

    fn guest(role: ContainerRole) -> ContainerSpec {
        let settings = DockerSettings {
            memory: Memory::try_from("2g".to_owned()).ok(),
            cpus: Cpus::try_from(1.5).ok(),
            pids: Some(300),
            ..DockerSettings::default()
        };
        let guests = Guests {
            settings: &settings,
            task: &task(&["cargo test"]),
            supervisor: &spec::tests::sample(),
            image: "python:3.12".to_owned(),
            tools: tools_volume("sha256:0123456789abcdef0123456789abcdef"),
        };
        guests.container(role)
    }

    #[test]
    fn agent_container_has_own_user_limits_and_volumes() {
        let body = guest(ContainerRole::Agent).body();
        insta::with_settings!({sort_maps => true}, { insta::assert_json_snapshot!(body) });
    }

    #[test]
    fn containers_share_no_volume_that_both_write() {
        let task = task(&["true"]);
        let mut written = std::collections::BTreeMap::new();
        let specs = [
            supervisor_volumes(&task),
            guest(ContainerRole::Agent).volumes,
            guest(ContainerRole::Verify).volumes,
        ];
        for volume in specs.into_iter().flatten() {
            if volume.access == Access::Write {
                *written.entry(volume.name).or_insert(0) += 1;
            }
        }
        assert!(written.values().all(|&writers| writers == 1), "{written:?}");
        assert_eq!(written.len(), 7, "{written:?}");
    }

    #[test]
    fn no_guest_has_variable_or_private_volume() {
        for role in ContainerRole::ALL {
            let guest = guest(role);
            assert!(guest.environment.is_empty());
            let inputs = |volume: &VolumeMount| {
                volume.name.ends_with("-input")
                    || volume.name.ends_with(".private")
                    || volume.labels.is_empty()
            };
            let names: Vec<_> =
                guest.volumes.iter().filter(|volume| inputs(volume)).map(|v| &v.name).collect();
            assert_eq!(names, ["orchestrator-tools-0123456789abcdef"]);
            let others = ContainerRole::ALL.into_iter().filter(|other| *other != role);
            for other in others {
                assert!(guest.volumes.iter().all(|volume| !volume.target.contains(other.name())));
            }
        }
    }

    #[test]
    fn task_without_verify_commands_has_no_container_for_them() {
        assert_eq!(roles(&task(&[])).collect::<Vec<_>>(), [ContainerRole::Agent]);
        assert_eq!(roles(&task(&["true"])).collect::<Vec<_>>(), ContainerRole::ALL);
        let targets: Vec<_> =
            supervisor_volumes(&task(&[])).into_iter().map(|volume| volume.target).collect();
        assert!(
            targets.iter().all(|target| target != WORKSPACE && !target.ends_with("verify")),
            "{targets:?}"
        );
    }

    #[test]
    fn tools_volume_is_named_after_image_id() {
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(tools_volume(id), "orchestrator-tools-0123456789abcdef");
        assert_eq!(tools_volume(&format!("sha256:{id}")), tools_volume(id));
        assert_eq!(tools_volume("short"), "orchestrator-tools-short");
    }
}
