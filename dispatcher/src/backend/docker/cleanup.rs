//! Removes what is not needed any more, and makes the containers that help with it.

use std::collections::BTreeMap;

use bollard::query_parameters::{
    CreateContainerOptions, LogsOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions,
    WaitContainerOptions,
};
use futures::StreamExt as _;
use jiff::Timestamp;
use orchestrator_contract::ServiceName;
use orchestrator_contract::layout::Layout;

use super::connect::{problem, status};
use super::labels::{HELPER, RUN, SERVICE};
use super::spec::{self, ContainerSpec, WORKSPACE};
use super::{Docker, archive, attempts, inputs};
use crate::backend::StoredRun;
use crate::error::Error;
use crate::task::event_fold::Liveness;

/// How old a helper is before others take it away, in seconds: they live for moments.
const HELPER_AGE: i64 = 600;

/// Longest that a helper may work.
const HELPER_LIMIT: std::time::Duration = std::time::Duration::from_secs(120);

impl Docker {
    /// Makes a container beside the runs that has the volume of a service, and gives its id. It is not
    /// started.
    pub(super) async fn create_helper(
        &self,
        service: &ServiceName,
        image: Option<String>,
        command: &[String],
    ) -> Result<String, Error> {
        let settings = self.config.docker();
        let image =
            image.unwrap_or_else(|| spec::image(settings, self.config.service(service).image.as_ref()));
        let mut spec = ContainerSpec::new(settings, String::new(), image, spec::workspace(service));
        spec.labels = helper_labels(service);
        spec.network = Some("none".to_owned());
        let (program, arguments) =
            command.split_first().map_or(("true", &[][..]), |(program, rest)| (program.as_str(), rest));
        spec.entrypoint = Some(program.to_owned());
        spec.arguments = arguments.to_vec();
        self.make_unnamed(&spec).await
    }

    /// Makes a container to which the engine gives a name, and gives its id.
    pub(super) async fn make_unnamed(&self, spec: &ContainerSpec) -> Result<String, Error> {
        let client = &self.engine().await?.client;
        let mut pulled = false;
        loop {
            match client.create_container(None::<CreateContainerOptions>, spec.body()).await {
                Ok(made) => return Ok(made.id),
                Err(error) if status(&error) == Some(404) && !pulled => {
                    self.pull(&spec.image).await?;
                    pulled = true;
                }
                Err(error) => {
                    return Err(problem(&format!("make a container of image {}", spec.image), &error));
                }
            }
        }
    }

    /// Removes a container, whatever it does; one that is not there is removed already.
    pub(super) async fn remove_container(&self, name: &str) -> Result<(), Error> {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        match self.engine().await?.client.remove_container(name, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            // It is being removed by somebody else.
            Err(error) if status(&error) == Some(409) => Ok(()),
            Err(error) => Err(problem(&format!("remove container {name}"), &error)),
        }
    }

    /// Removes a volume; one that is not there is removed already.
    pub(super) async fn remove_volume(&self, name: &str) -> Result<(), Error> {
        match self.engine().await?.client.remove_volume(name, None::<RemoveVolumeOptions>).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            Err(error) => Err(problem(&format!("remove volume {name}"), &error)),
        }
    }

    /// Removes a run that has ended: what the workspace keeps of it, its container, what it was given.
    /// False if it is alive after all.
    pub(super) async fn remove_run(&self, run: &StoredRun) -> Result<bool, Error> {
        let client = &self.engine().await?.client;
        let (name, identity) = (run.task.run.as_str(), run.task.identity());
        let Some(container) = self.inspect(name).await? else { return Ok(true) };
        if attempts::read(client, name, &identity).await? < run.task.attempt {
            let user = self.config.docker().user.unwrap_or(crate::config::User::DEFAULT);
            attempts::raise(client, name, &identity, run.task.attempt, user).await?;
        }
        let mut command = ["rm", "-rf", "--"].map(str::to_owned).to_vec();
        command.extend(paths(run));
        // Its own image, by its id: that is there as long as the container is.
        let helper = self.create_helper(&run.task.service, container.image, &command).await?;
        let cleared = self.run_helper(&helper).await;
        self.remove_container(&helper).await?;
        cleared?;
        match client.remove_container(name, None).await {
            Ok(()) => {}
            Err(error) if status(&error) == Some(404) => {}
            // It runs: somebody has started it by hand.
            Err(error) if status(&error) == Some(409) => return Ok(false),
            Err(error) => return Err(problem(&format!("remove container {name}"), &error)),
        }
        self.remove_volume(&spec::input_volume(&run.task.run)).await?;
        Ok(true)
    }

    /// Starts a helper and waits for its end.
    async fn run_helper(&self, id: &str) -> Result<(), Error> {
        let client = &self.engine().await?.client;
        let doing = "clear the record of a run away";
        client.start_container(id, None).await.map_err(|error| problem(doing, &error))?;
        let mut end = client.wait_container(id, None::<WaitContainerOptions>).boxed();
        match tokio::time::timeout(HELPER_LIMIT, end.next()).await {
            Ok(Some(Ok(_)) | None) => Ok(()),
            Ok(Some(Err(error))) => Err(problem(doing, &error)),
            Err(_) => Err(problem(doing, &bollard::errors::Error::RequestTimeoutError)),
        }
    }

    /// About how many bytes a run takes: its log, and what the workspace keeps of it.
    pub(super) async fn size_of(&self, run: &StoredRun) -> u64 {
        let Ok(engine) = self.engine().await else { return 0 };
        let name = run.task.run.as_str();
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
        let mut size = 0;
        let mut log = engine.client.logs(name, Some(options)).boxed();
        while let Some(Ok(chunk)) = log.next().await {
            size += chunk.as_ref().len() as u64;
        }
        for path in paths(run) {
            size += archive::size(&engine.client, name, &path).await;
        }
        size
    }

    /// Removes what was left behind: helpers, volumes of runs that are gone, secrets of ended runs.
    pub(super) async fn sweep_engine(&self) -> Result<(), Error> {
        let engine = self.engine().await?;
        let now = Timestamp::now();
        for container in self.containers(vec![HELPER.to_owned()]).await? {
            let old = container.created.is_some_and(|at| now.as_second() - at > HELPER_AGE);
            if let (true, Some(id)) = (old, container.id) {
                self.remove_container(&id).await?;
            }
        }
        for run in self.containers(vec![RUN.to_owned()]).await? {
            let Some(id) = run.id else { continue };
            let container = self.inspect(&id).await?.unwrap_or_default();
            let made_at = container.created.as_deref().and_then(|at| at.parse().ok());
            let look = super::liveness(&container.state.unwrap_or_default(), made_at, now);
            if look.life != Liveness::Alive {
                inputs::remove_secrets(&engine.client, &id).await?;
            }
        }
        for volume in self.dangling(RUN).await? {
            // One that a container has got meanwhile stays: the engine refuses.
            drop(self.remove_volume(&volume.name).await);
        }
        self.sweep_debug_runs(now).await
    }
}

/// What a container says of itself that only helps.
pub(super) fn helper_labels(service: &ServiceName) -> BTreeMap<String, String> {
    BTreeMap::from([(SERVICE.to_owned(), service.to_string()), (HELPER.to_owned(), "true".to_owned())])
}

/// What the workspace keeps of a run: its log and transcript, and the agent's home in it.
fn paths(run: &StoredRun) -> [String; 2] {
    let (layout, name) = (Layout::new(WORKSPACE), &run.task.run);
    [layout.run_dir(name).folder().to_owned(), layout.agent_home(name)]
        .map(|path| path.to_string_lossy().into_owned())
}
