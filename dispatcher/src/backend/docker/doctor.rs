//! Checks the engine's requirements for runs.

use std::collections::{BTreeMap, BTreeSet};

use bollard::models::SystemInfo;
use orchestrator_contract::containers::SUPERVISOR;

use super::connect::{Engine, problem};
use super::handle::Docker;
use super::images::Image;
use super::labels::HELPER;
use super::spec::{self, ContainerSpec};
use crate::error::Error;
use crate::task::check::{Check, CheckStatus};

impl Docker {
    /// Checks the engine and its images. Leaves nothing behind.
    pub(super) async fn check_engine(&self) -> Vec<Check> {
        let name = "engine";
        let engine = match self.engine().await {
            Ok(engine) => engine,
            Err(error) => {
                return vec![Check::failed(name, CheckStatus::Error, error.message(), error.hint())];
            }
        };
        let mut checks = Vec::new();
        match engine.client.version().await {
            Ok(version) => {
                let text = |text: Option<String>| text.unwrap_or_else(|| "?".to_owned());
                let message = format!(
                    "{} at {}, API {}",
                    text(version.version),
                    engine.address,
                    text(version.api_version)
                );
                checks.push(Check::ok(name, message));
            }
            Err(error) => {
                let error = problem("report its version", &error);
                checks.push(Check::failed(name, CheckStatus::Error, error.message(), error.hint()));
            }
        }
        match engine.client.info().await {
            Ok(info) => checks.extend(check_limits_support(&info)),
            Err(error) => {
                let error = problem("describe itself", &error);
                checks.push(Check::failed("limits", CheckStatus::Warning, error.message(), error.hint()));
            }
        }
        checks.extend(self.check_images(engine).await);
        checks
    }

    /// Checks the image of supervisors and those of services.
    async fn check_images(&self, engine: &Engine) -> Vec<Check> {
        let settings = self.config.docker();
        let name = spec::supervisor_image(settings);
        let supervisor = match self.inspect_image(&name).await {
            Ok(Some(supervisor)) => supervisor,
            Ok(None) => return vec![missing_image(&name)],
            Err(error) => return vec![failed_image(&error)],
        };
        let mut checks = vec![match self.probe_image(engine, &supervisor, None).await {
            Ok(()) => Check::ok(IMAGE, name.as_str()),
            Err(error) => failed_image(&error),
        }];
        let services = self.config.service_names();
        let images: BTreeSet<String> = services
            .filter_map(|service| self.config.service(service).image)
            .map(|image| image.as_str().to_owned())
            .filter(|image| *image != name)
            .collect();
        for image in images {
            checks.push(match self.inspect_image(&image).await {
                Ok(None) => missing_image(&image),
                Ok(Some(agent)) => match self.probe_image(engine, &agent, Some(&supervisor)).await {
                    Ok(()) => Check::ok(IMAGE, format!("{image}, for agents")),
                    Err(error) => Check::failed(IMAGE, CheckStatus::Warning, error.message(), error.hint()),
                },
                Err(error) => failed_image(&error),
            });
        }
        checks
    }

    /// Looks into an image, by a container that is never started. Agents of `supervisor` run in it, or it is
    /// the supervisor's own.
    async fn probe_image(
        &self,
        engine: &Engine,
        image: &Image,
        supervisor: Option<&Image>,
    ) -> Result<(), Error> {
        let mut probe = ContainerSpec::new(self.config.docker(), String::new(), image.id.clone());
        probe.labels = BTreeMap::from([(HELPER.to_owned(), "true".to_owned())]);
        probe.entrypoint = Some(SUPERVISOR.to_owned());
        let probe = self.create_unnamed(&probe).await?;
        let looked = match supervisor {
            Some(supervisor) => image.require_glibc(supervisor, &engine.client, &probe).await,
            None => image.require_tools(&engine.client, &probe).await,
        };
        self.remove_container(&probe).await?;
        looked
    }
}

const IMAGE: &str = "image";

fn failed_image(error: &Error) -> Check {
    Check::failed(IMAGE, CheckStatus::Error, error.message(), error.hint())
}

fn missing_image(image: &str) -> Check {
    if image == spec::default_image() {
        return Check::failed(
            IMAGE,
            CheckStatus::Error,
            format!("image {image} not found"),
            "Build it (images/build.sh agent), or set another one with `image` in [docker].",
        );
    }
    Check::failed(
        IMAGE,
        CheckStatus::Warning,
        format!("image {image} not found; the first run pulls it"),
        format!("docker pull {image}"),
    )
}

/// Checks whether the engine enforces limits, and its volume driver.
fn check_limits_support(info: &SystemInfo) -> Vec<Check> {
    let SystemInfo { memory_limit, swap_limit, pids_limit, cpu_cfs_quota, cgroup_version, plugins, .. } =
        info;
    let mut missing = Vec::new();
    for (has, what) in
        [(memory_limit, "memory"), (swap_limit, "swap"), (pids_limit, "processes"), (cpu_cfs_quota, "CPUs")]
    {
        // A missing value counts as supported: podman omits some.
        if *has == Some(false) {
            missing.push(what);
        }
    }
    let version = cgroup_version.map_or(String::new(), |version| format!(" (control groups v{version})"));
    let limits = if missing.is_empty() {
        Check::ok("limits", format!("memory, processes and CPUs are limited{version}"))
    } else {
        Check::failed(
            "limits",
            CheckStatus::Warning,
            format!("the engine does not limit {}{version}", missing.join(", ")),
            "Enable these control groups; rootless engines need them delegated (systemd: Delegate=yes).",
        )
    };
    let volumes = plugins.as_ref().and_then(|plugins| plugins.volume.as_ref());
    let local = volumes.is_none_or(|drivers| drivers.iter().any(|driver| driver == "local"));
    let volumes = if local {
        Check::ok("volumes", "the driver `local` is available")
    } else {
        Check::failed(
            "volumes",
            CheckStatus::Error,
            "the engine has no volume driver `local`",
            "Use another engine: workspaces are volumes of this driver.",
        )
    };
    vec![limits, volumes]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsupported_engine_limits_are_named() {
        let info = SystemInfo {
            memory_limit: Some(true),
            swap_limit: Some(false),
            pids_limit: Some(false),
            cgroup_version: None,
            ..SystemInfo::default()
        };
        let checks = check_limits_support(&info);
        assert_eq!(checks[0].status, CheckStatus::Warning);
        assert!(checks[0].message.contains("swap, processes"), "{}", checks[0].message);
        assert!(
            check_limits_support(&SystemInfo::default()).iter().all(|check| check.status == CheckStatus::Ok)
        );
    }
}
