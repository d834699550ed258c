//! The definition of a container, for the engine's API and for `command_line`.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, MountVolumeOptions,
    RestartPolicy, RestartPolicyNameEnum,
};
use orchestrator_contract::layout::Layout;
use orchestrator_contract::{RunName, ServiceName};

use crate::config::{Cpus, DockerSettings, Memory, User};
use crate::task::image::ImageReference;

/// Mount path of the service's volume, as in the image.
pub(super) const WORKSPACE: &str = "/workspace";
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

/// Seconds for shutdown beyond the configured timeouts: the pull request, and the supervisor itself.
const SHUTDOWN_SECONDS: f64 = 240.0 + 50.0;

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
    /// Volume of the workspace.
    pub(super) workspace: String,
    /// Labels of that volume, if it is created.
    pub(super) workspace_labels: HashMap<String, String>,
    /// Volume of the task and secrets.
    pub(super) input_mount: InputMount,
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
}

/// The mount of a run's inputs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum InputMount {
    /// A volume.
    Volume { name: String, labels: HashMap<String, String> },
    /// No inputs.
    None,
}

/// Returns the name of a service's volume.
pub(super) fn workspace(service: &ServiceName) -> String {
    Layout::name(service)
}

/// Returns the name of a run's input volume. Not a valid run name, which ends in a number.
pub(super) fn input_volume(run: &RunName) -> String {
    format!("{run}-input")
}

/// Returns the image of a service.
pub(super) fn image(settings: &DockerSettings, of_service: Option<&ImageReference>) -> String {
    of_service
        .or(settings.image.as_ref())
        .map_or_else(|| default_image().to_owned(), |image| image.as_str().to_owned())
}

/// Returns the image that `images/build.sh agent` builds.
pub(super) fn default_image() -> &'static str {
    concat!("orchestrator/agent:", env!("CARGO_PKG_VERSION"))
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
    let all = seconds("ORCHESTRATOR_AGENT_GRACE_SECONDS", 10.0)
        + seconds("ORCHESTRATOR_PUBLISH_TIMEOUT_SECONDS", 600.0)
        + SHUTDOWN_SECONDS;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "two days at most")]
    let seconds = all.ceil() as u32;
    seconds
}

impl ContainerSpec {
    /// Creates the definition of a service's container with the configured limits.
    pub(super) fn new(settings: &DockerSettings, name: String, image: String, workspace: String) -> Self {
        let DockerSettings { host: _, image: _, memory, cpus, pids, network, user } = settings.clone();
        Self {
            name,
            image,
            labels: BTreeMap::new(),
            environment: BTreeMap::new(),
            entrypoint: None,
            arguments: Vec::new(),
            folder: None,
            workspace,
            workspace_labels: HashMap::new(),
            input_mount: InputMount::None,
            user: user.unwrap_or(User::DEFAULT),
            network: network.map(|network| network.as_str().to_owned()),
            memory: memory.unwrap_or(Memory::DEFAULT),
            cpus,
            pids: pids.unwrap_or(DEFAULT_PIDS_LIMIT),
            stop_timeout_seconds: 10,
        }
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
            workspace,
            workspace_labels,
            input_mount,
            user,
            network,
            memory,
            cpus,
            pids,
            stop_timeout_seconds: stop_seconds,
        } = self;
        let memory = i64::try_from(memory.bytes()).ok();
        // Copy: a new volume gets the owner of the image's folder only that way.
        let mut mounts = vec![volume(workspace, WORKSPACE, workspace_labels, Populate::Yes)];
        match input_mount {
            InputMount::Volume { name, labels } => {
                mounts.push(volume(name, INPUT_MOUNT_PATH, labels, Populate::No))
            }
            InputMount::None => {}
        }
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
            // The supervisor itself is PID 1.
            init: Some(false),
            auto_remove: Some(false),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            // Keep the whole log: the engine's default may rotate it.
            log_config: Some(HostConfigLogConfig {
                typ: Some(LOG_DRIVER.to_owned()),
                config: Some(HashMap::from([("max-size".to_owned(), LOG_SIZE.to_owned())])),
            }),
            tmpfs: Some(HashMap::from([("/tmp".to_owned(), TMP.to_owned())])),
            mounts: Some(mounts),
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
            host_config: Some(host),
            ..ContainerCreateBody::default()
        }
    }
}

/// Mount options of `/tmp`: build tools execute files there.
pub(super) const TMP: &str = "rw,exec,nosuid,nodev,mode=1777";
/// Log driver of the container.
pub(super) const LOG_DRIVER: &str = "json-file";
/// Log size at which the engine would drop lines: effectively never.
pub(super) const LOG_SIZE: &str = "1t";

/// Whether a new volume is populated from the image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Populate {
    Yes,
    No,
}

fn volume(name: &str, target: &str, labels: &HashMap<String, String>, copy: Populate) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(name.to_owned()),
        target: Some(target.to_owned()),
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(copy == Populate::No),
            labels: (!labels.is_empty()).then(|| labels.clone()),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::backend::docker::labels;

    pub(in crate::backend::docker) fn sample() -> ContainerSpec {
        let run = labels::tests::sample();
        let settings = DockerSettings {
            cpus: Cpus::try_from(1.5).ok(),
            network: "host".to_owned().try_into().ok(),
            ..DockerSettings::default()
        };
        let mut spec = ContainerSpec::new(
            &settings,
            run.task.run.to_string(),
            image(&settings, None),
            workspace(&run.task.service),
        );
        spec.labels = BTreeMap::from([("orchestrator.io/run".to_owned(), run.task.run.to_string())]);
        spec.environment = BTreeMap::from([("ANTHROPIC_MODEL".to_owned(), "so nice".to_owned())]);
        spec.stop_timeout_seconds = stop_timeout_seconds(&spec.environment);
        spec.arguments = arguments(true);
        spec.input_mount = InputMount::Volume { name: input_volume(&run.task.run), labels: HashMap::new() };
        spec
    }

    #[test]
    fn container_body_is_unprivileged_with_all_limits() {
        insta::assert_json_snapshot!(sample().body());
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
    fn service_image_overrides_default_image() {
        let reference = |text: &str| ImageReference::new(text).unwrap();
        let own = reference("trader:1");
        let mut settings = DockerSettings::default();
        assert!(image(&settings, None).starts_with("orchestrator/agent:"));
        settings.image = Some(reference("agent:2"));
        assert_eq!(image(&settings, None), "agent:2");
        assert_eq!(image(&settings, Some(&own)), "trader:1");
    }
}
