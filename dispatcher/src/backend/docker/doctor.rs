//! Checks the engine's requirements for runs.

use bollard::models::SystemInfo;

use super::connect::{problem, status};
use super::handle::Docker;
use super::spec;
use crate::task::check::{Check, CheckStatus};
use crate::task::image::ImageReference;

impl Docker {
    /// Checks the engine and its images. Changes nothing.
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
        for image in self.images() {
            checks.push(self.check_image(&image).await);
        }
        checks
    }

    /// Returns the configured images, including the default one.
    fn images(&self) -> Vec<String> {
        let settings = self.config.docker();
        let mut images = vec![spec::image(settings, None)];
        for service in self.config.service_names() {
            let image: Option<ImageReference> = self.config.service(service).image;
            images.push(spec::image(settings, image.as_ref()));
        }
        images.sort();
        images.dedup();
        images
    }

    async fn check_image(&self, image: &str) -> Check {
        let name = "image";
        let Ok(engine) = self.engine().await else { return Check::ok(name, "") };
        match engine.client.inspect_image(image).await {
            Ok(_) => Check::ok(name, image),
            Err(error) if status(&error) == Some(404) && image == spec::default_image() => Check::failed(
                name,
                CheckStatus::Error,
                format!("image {image} not found"),
                "Build it (images/build.sh agent), or set another one with `image` in [docker].",
            ),
            Err(error) if status(&error) == Some(404) => Check::failed(
                name,
                CheckStatus::Warning,
                format!("image {image} not found; the first run pulls it"),
                format!("docker pull {image}"),
            ),
            Err(error) => {
                let error = problem(&format!("inspect image {image}"), &error);
                Check::failed(name, CheckStatus::Error, error.message(), error.hint())
            }
        }
    }
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
