//! The definition of a container, for the engine's API and for `command_line`.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType, MountVolumeOptions,
    RestartPolicy, RestartPolicyNameEnum,
};
use orchestrator_contract::containers::{GUESTS_DIR, STATE_DIR, WORKSPACE};
use orchestrator_contract::{RunName, budget, variables};

use crate::config::{Cpus, DockerSettings, Memory, User};
use crate::task::image::ImageReference;

/// Mount path of the run's input volume.
pub(super) const INPUT_MOUNT_PATH: &str = "/run/secrets";
/// Folder of the secrets in the input volume, where the image expects them.
pub(super) const SECRETS: &str = "orchestrator";
/// Task file in the input volume.
pub(super) const TASK: &str = "task.json";
/// Folder of MCP configurations in the input volume.
pub(super) const MCP_CONFIGS: &str = "mcp-configs";
/// Stop file in the input volume.
pub(super) const STOP: &str = "stop";

/// Default process limit: enough for a build with a few jobs, but not for a fork bomb.
const DEFAULT_PIDS_LIMIT: u32 = 1024;

/// A container definition.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ContainerSpec {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) labels: BTreeMap<String, String>,
    /// Environment variables, without secrets.
    pub(super) environment: BTreeMap<String, String>,
    /// The program, unless it is the image's own.
    pub(super) entrypoint: Option<String>,
    pub(super) arguments: Vec<String>,
    /// The working directory, unless it is the image's own.
    pub(super) folder: Option<String>,
    pub(super) volumes: Vec<VolumeMount>,
    pub(super) user: User,
    /// The network, unless it is the engine's default.
    pub(super) network: Option<String>,
    pub(super) memory: Memory,
    /// CPU limit; all CPUs if `None`.
    pub(super) cpus: Option<Cpus>,
    /// Process limit.
    pub(super) pids: u32,
    /// Seconds from `docker stop` to SIGKILL.
    pub(super) stop_timeout_seconds: u32,
    pub(super) restart: Restart,
    /// Log size at which the engine drops lines.
    pub(super) log_size: &'static str,
}

/// When the engine starts a container again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Restart {
    Never,
    /// After a failure, such as a kill for memory.
    OnFailure,
}

/// The mount of a volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct VolumeMount {
    pub(super) name: String,
    pub(super) target: String,
    /// Labels of the volume, if it is created.
    pub(super) labels: HashMap<String, String>,
    pub(super) populate: Populate,
    pub(super) access: Access,
}

/// Whether a new volume gets owner and content of the image's folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Populate {
    Yes,
    No,
}

/// What a container may do with a volume.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Access {
    Write,
    Read,
}

impl VolumeMount {
    /// Returns the writable mount of a volume that gets owner and content from the image.
    pub(super) fn new(name: String, target: &str, labels: HashMap<String, String>) -> Self {
        Self { name, target: target.to_owned(), labels, populate: Populate::Yes, access: Access::Write }
    }

    /// Leaves the volume as it is: the image's content is not copied to it.
    pub(super) fn unpopulated(self) -> Self {
        Self { populate: Populate::No, ..self }
    }

    /// Makes the mount read-only.
    pub(super) fn read_only(self) -> Self {
        Self { access: Access::Read, ..self }
    }

    fn to_mount(&self) -> Mount {
        let Self { name, target, labels, populate, access } = self;
        Mount {
            typ: Some(MountType::VOLUME),
            source: Some(name.clone()),
            target: Some(target.clone()),
            read_only: Some(*access == Access::Read),
            volume_options: Some(MountVolumeOptions {
                no_copy: Some(*populate == Populate::No),
                labels: (!labels.is_empty()).then(|| labels.clone()),
                ..MountVolumeOptions::default()
            }),
            ..Mount::default()
        }
    }
}

/// Returns the name of a run's input volume. Not a valid run name, which ends in a number.
pub(super) fn input_volume(run: &RunName) -> String {
    format!("{run}-input")
}

/// Returns the image of a supervisor.
pub(super) fn supervisor_image(settings: &DockerSettings) -> String {
    settings.image.as_ref().map_or_else(|| default_image().to_owned(), |image| image.as_str().to_owned())
}

/// Returns the image of a service's agent and verify commands.
pub(super) fn agent_image(settings: &DockerSettings, of_service: Option<&ImageReference>) -> String {
    of_service.map_or_else(|| supervisor_image(settings), |image| image.as_str().to_owned())
}

/// Returns the image that `images/build.sh agent` builds.
pub(super) fn default_image() -> &'static str {
    concat!("orchestrator/agent:", env!("CARGO_PKG_VERSION"))
}

/// Adds the arguments of a supervisor whose agent has another container.
pub(super) fn add_container_arguments(arguments: &mut Vec<String>) {
    for (flag, directory) in [("--state-dir", STATE_DIR), ("--guests-dir", GUESTS_DIR)] {
        arguments.extend([flag.to_owned(), directory.to_owned()]);
    }
}

/// Returns the supervisor's arguments; all inputs have fixed paths.
pub(super) fn arguments(has_mcp_configs: bool) -> Vec<String> {
    let mut arguments = vec!["run".to_owned()];
    let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    flag("--task-file", format!("{INPUT_MOUNT_PATH}/{TASK}"));
    flag("--workspace", WORKSPACE.to_owned());
    flag("--secrets-dir", format!("{INPUT_MOUNT_PATH}/{SECRETS}"));
    flag("--stop-file", format!("{INPUT_MOUNT_PATH}/{STOP}"));
    if has_mcp_configs {
        flag("--mcp-config-dir", format!("{INPUT_MOUNT_PATH}/{MCP_CONFIGS}"));
    }
    arguments
}

/// Returns the maximum seconds from a stop request to the supervisor's exit.
pub(super) fn stop_timeout_seconds(environment: &BTreeMap<String, String>) -> u32 {
    let seconds = |name: &str, default: f64| {
        let value = environment.get(name).and_then(|text| text.parse::<f64>().ok());
        value.filter(|seconds| (0.0..=86_400.0).contains(seconds)).unwrap_or(default)
    };
    let all = budget::graceful_stop_seconds(
        seconds(variables::AGENT_GRACE_SECONDS, budget::AGENT_GRACE_SECONDS.into()),
        seconds(variables::PUBLISH_TIMEOUT_SECONDS, budget::PUBLISH_TIMEOUT_SECONDS.into()),
    );
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "two days at most")]
    let seconds = all.ceil() as u32;
    seconds
}

impl ContainerSpec {
    /// Creates the definition of a container with the configured limits of an agent.
    pub(super) fn new(settings: &DockerSettings, name: String, image: String) -> Self {
        let DockerSettings {
            host: _,
            image: _,
            memory,
            cpus,
            pids,
            supervisor_memory: _,
            network,
            user: _,
            agent_user: _,
        } = settings.clone();
        Self {
            name,
            image,
            labels: BTreeMap::new(),
            environment: BTreeMap::new(),
            entrypoint: None,
            arguments: Vec::new(),
            folder: None,
            volumes: Vec::new(),
            user: settings.user(),
            network: network.map(|network| network.as_str().to_owned()),
            memory: memory.unwrap_or(Memory::DEFAULT),
            cpus,
            pids: pids.unwrap_or(DEFAULT_PIDS_LIMIT),
            stop_timeout_seconds: 10,
            restart: Restart::Never,
            log_size: LOG_SIZE,
        }
    }

    /// Sets the limits of a supervisor without an agent.
    pub(super) fn limit_as_supervisor(&mut self, settings: &DockerSettings) {
        self.memory = settings.supervisor_memory.unwrap_or(Memory::SUPERVISOR);
        self.cpus = None;
        self.pids = DEFAULT_PIDS_LIMIT;
    }

    /// Returns the body of the engine's create request.
    pub(super) fn body(&self) -> ContainerCreateBody {
        let Self {
            name: _,
            image,
            labels,
            environment,
            entrypoint,
            arguments,
            folder,
            volumes,
            user,
            network,
            memory,
            cpus,
            pids,
            stop_timeout_seconds: stop_seconds,
            restart,
            log_size,
        } = self;
        let memory = i64::try_from(memory.bytes()).ok();
        let restart = match restart {
            Restart::Never => RestartPolicyNameEnum::NO,
            Restart::OnFailure => RestartPolicyNameEnum::ON_FAILURE,
        };
        let host = HostConfig {
            memory,
            // Equal to memory: no additional swap.
            memory_swap: memory,
            #[expect(clippy::cast_possible_truncation, reason = "a few thousand processors at most")]
            nano_cpus: cpus.map(|cpus| (cpus.number() * 1e9).round() as i64),
            pids_limit: Some(i64::from(*pids)),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            readonly_rootfs: Some(true),
            privileged: Some(false),
            ipc_mode: Some(IPC.to_owned()),
            // The supervisor, or its guest, is PID 1 itself.
            init: Some(false),
            auto_remove: Some(false),
            restart_policy: Some(RestartPolicy { name: Some(restart), maximum_retry_count: None }),
            log_config: Some(HostConfigLogConfig {
                typ: Some(LOG_DRIVER.to_owned()),
                config: Some(HashMap::from([("max-size".to_owned(), (*log_size).to_owned())])),
            }),
            tmpfs: Some(HashMap::from([("/tmp".to_owned(), TMP.to_owned())])),
            mounts: Some(volumes.iter().map(VolumeMount::to_mount).collect()),
            network_mode: network.clone(),
            ..HostConfig::default()
        };
        ContainerCreateBody {
            image: Some(image.clone()),
            labels: Some(labels.clone().into_iter().collect()),
            env: Some(environment.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            entrypoint: entrypoint.clone().map(|program| vec![program]),
            cmd: Some(arguments.clone()),
            working_dir: folder.clone(),
            user: Some(user.to_string()),
            stop_timeout: Some(i64::from(*stop_seconds)),
            // The image's own check would run programs beside the run.
            healthcheck: Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..HealthConfig::default()
            }),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        }
    }
}

/// Mount options of `/tmp`: build tools execute files there.
pub(super) const TMP: &str = "rw,exec,nosuid,nodev,mode=1777";
/// Log driver of the container.
pub(super) const LOG_DRIVER: &str = "json-file";
/// Log size at which the engine would drop lines: effectively never, whatever its default is.
pub(super) const LOG_SIZE: &str = "1t";
/// Interprocess communication: not shared with other containers, whatever the engine's default is.
pub(super) const IPC: &str = "private";

#[cfg(test)]
pub(super) mod tests {

    use super::*;
    use crate::backend::docker::{guests, labels};

    pub(in crate::backend::docker) fn sample() -> ContainerSpec {
        let run = labels::tests::sample();
        let settings = DockerSettings {
            cpus: Cpus::try_from(1.5).ok(),
            network: "host".to_owned().try_into().ok(),
            ..DockerSettings::default()
        };
        let mut spec = ContainerSpec::new(&settings, run.task.run.to_string(), supervisor_image(&settings));
        spec.labels = BTreeMap::from([("orchestrator.io/run".to_owned(), run.task.run.to_string())]);
        spec.environment = BTreeMap::from([("ANTHROPIC_MODEL".to_owned(), "so nice".to_owned())]);
        spec.stop_timeout_seconds = stop_timeout_seconds(&spec.environment);
        spec.arguments = arguments(true);
        add_container_arguments(&mut spec.arguments);
        spec.limit_as_supervisor(&settings);
        spec.volumes = guests::supervisor_volumes(&run.task);
        spec
    }

    #[test]
    fn container_body_is_unprivileged_with_all_limits() {
        let body = sample().body();
        insta::with_settings!({sort_maps => true}, { insta::assert_json_snapshot!(body) });
    }

    #[test]
    fn stop_timeout_matches_supervisor_publish_timeout() {
        assert_eq!(stop_timeout_seconds(&BTreeMap::new()), 900);
        let set = |value: &str| {
            stop_timeout_seconds(&BTreeMap::from([(
                "ORCHESTRATOR_PUBLISH_TIMEOUT_SECONDS".to_owned(),
                value.to_owned(),
            )]))
        };
        assert_eq!((set("60"), set("1e99"), set("x")), (360, 900, 900));
    }

    #[test]
    fn supervisor_never_runs_in_image_of_service() {
        let reference = |text: &str| ImageReference::new(text).unwrap();
        let own = reference("trader:1");
        let mut settings = DockerSettings::default();
        assert_eq!(supervisor_image(&settings), default_image());
        assert_eq!(agent_image(&settings, None), default_image());
        settings.image = Some(reference("agent:2"));
        assert_eq!(supervisor_image(&settings), "agent:2");
        assert_eq!(agent_image(&settings, None), "agent:2");
        assert_eq!(agent_image(&settings, Some(&own)), "trader:1");
    }
}
