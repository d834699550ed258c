//! Images of runs: whether they exist, and whether guests of the supervisor can run in them.

use std::time::Duration;

use bollard::Docker as Client;
use bollard::models::ImageInspect;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt as _;
use orchestrator_contract::Reason;
use orchestrator_contract::containers::SUPERVISOR;

use super::connect::{problem, status};
use super::handle::Docker;
use super::{archive, spec};
use crate::error::Error;

/// How long pulling an image may take.
const PULL_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// The dynamic loader of glibc by architecture, as in its ABI. Images without it use another C library.
const LOADERS: &[(&str, &str)] =
    &[("amd64", "/lib64/ld-linux-x86-64.so.2"), ("arm64", "/lib/ld-linux-aarch64.so.1")];

/// An image of the engine.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) id: String,
    architecture: String,
}

impl Image {
    fn new(name: &str, inspected: ImageInspect) -> Self {
        Self {
            name: name.to_owned(),
            id: inspected.id.unwrap_or_else(|| name.to_owned()),
            architecture: inspected.architecture.unwrap_or_default(),
        }
    }

    /// Checks that the programs of the supervisor's image can run in a container of this image.
    ///
    /// The container need not run, and does not have to have run.
    ///
    /// # Errors
    /// Returns an error that names the image and what it lacks.
    pub(super) async fn require_glibc(
        &self,
        supervisor: &Self,
        client: &Client,
        container: &str,
    ) -> Result<(), Error> {
        if self.architecture != supervisor.architecture {
            return Err(Error::configuration(format!(
                "image `{}` is for {}, and the supervisor's image `{}` for {}",
                self.name, self.architecture, supervisor.name, supervisor.architecture
            ))
            .with_hint("Name an image of the same architecture as `image` of the service."));
        }
        let loader = LOADERS.iter().find(|(architecture, _)| *architecture == self.architecture);
        let Some((_, loader)) = loader else { return Ok(()) };
        if archive::is_folder(client, container, loader).await?.is_some() {
            return Ok(());
        }
        Err(Error::configuration(format!(
            "image `{}` has no glibc ({loader}), which the Claude Code CLI and git of a run need",
            self.name
        ))
        .with_hint(
            "Base it on an image with glibc 2.31 or newer, such as debian, ubuntu or fedora; alpine has musl instead.",
        ))
    }

    /// Checks that an image has the programs that guests need.
    ///
    /// # Errors
    /// Returns an error that names the image.
    pub(super) async fn require_tools(&self, client: &Client, container: &str) -> Result<(), Error> {
        if archive::is_folder(client, container, SUPERVISOR).await? == Some(false) {
            return Ok(());
        }
        Err(Error::configuration(format!(
            "image `{}` cannot be the supervisor's: it has no {SUPERVISOR}",
            self.name
        ))
        .with_hint(
            "Build it again from this version (images/build.sh agent). An image for the agent's own tools is set with \
             `image` of the service, not of [docker].",
        ))
    }
}

impl Docker {
    /// Returns an image; `None` if the engine does not have it.
    pub(super) async fn inspect_image(&self, name: &str) -> Result<Option<Image>, Error> {
        match self.engine().await?.client.inspect_image(name).await {
            Ok(inspected) => Ok(Some(Image::new(name, inspected))),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(problem(&format!("inspect image {name}"), &error)),
        }
    }

    /// Returns an image; pulls it if it is missing.
    pub(super) async fn require_image(&self, name: &str) -> Result<Image, Error> {
        if let Some(image) = self.inspect_image(name).await? {
            return Ok(image);
        }
        self.pull(name).await?;
        let pulled = self.inspect_image(name).await?;
        pulled.ok_or_else(|| Error::new(Reason::ImageUnavailable, format!("image `{name}` was removed")))
    }

    /// Pulls a configured image.
    pub(super) async fn pull(&self, image: &str) -> Result<(), Error> {
        let missing =
            |why: &str| Error::new(Reason::ImageUnavailable, format!("image `{image}` not found{why}"));
        // Not the default image: its name may be squatted on a public registry, and it gets secrets.
        if image == spec::default_image() {
            return Err(missing(", and the default image is never pulled").with_hint(
                "Build it (images/build.sh agent), or set another one with `image` in [docker] or \
                 ORCHESTRATOR_DOCKER_IMAGE.",
            ));
        }
        let (name, tag) = match image.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') && !image.contains('@') => (name, tag),
            _ if image.contains('@') => (image, ""),
            _ => (image, "latest"),
        };
        let options = CreateImageOptionsBuilder::new().from_image(name).tag(tag).build();
        let client = &self.engine().await?.client;
        let pull = async {
            let mut steps = client.create_image(Some(options), None, None).boxed();
            while let Some(step) = steps.next().await {
                step.map_err(|error| problem("pull it", &error).message().to_owned())?;
            }
            Ok(())
        };
        let result: Result<(), String> = tokio::time::timeout(PULL_TIMEOUT, pull)
            .await
            .unwrap_or_else(|_| Err(format!("timed out after {} minutes", PULL_TIMEOUT.as_secs() / 60)));
        result.map_err(|why| {
            missing(&format!(": {why}")).with_hint(format!(
                "Check its name. If its registry requires a login, pull it yourself (docker pull {image}), then try again."
            ))
        })
    }
}
