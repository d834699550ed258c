//! Runs as TaskRuns of a cluster, which the controller runs as Jobs.
//!
//! The backend is stateless: it reads TaskRuns, the logs of their pods and, once those are deleted, the
//! result ConfigMaps.

mod connection;
mod doctor;
mod follow;
mod runs;
mod workspaces;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use orchestrator_contract::outcome::WorkLocation;
use orchestrator_contract::{Reason, RunName, ServiceName, TaskKey, TaskSpec};
use serde_json::json;

use self::connection::Connection;
use self::follow::Follower;
use super::{Artifact, Backend, CreateOutcome, CreateRun, RunFollower, StoredRun};
use crate::cluster;
use crate::config::Config;
use crate::error::Error;
use crate::files::Excerpt;
use crate::task::advice::Advice;
use crate::task::check::Check;
use crate::task::status::{DamagedRun, Status};
use crate::task::stop_mode::StopMode;
use crate::task::text::sanitize;
use crate::task::workspace::FoundWorkspace;
use crate::taskrun::definition::{TaskRun, TaskRunSpec};
use crate::taskrun::names::{TASKRUN_FINALIZER, kind_label, labels, pvc_name, run_labels};
use crate::taskrun::{claim, container};

/// Field manager of writes on behalf of users.
const FIELD_MANAGER: &str = "orchestrator-dispatcher";

/// The Kubernetes backend.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    connection: Connection,
}

impl Kubernetes {
    /// Creates a backend for the configured cluster without connecting to it.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self { connection: Connection::new(config) }
    }

    /// Returns the URL of a run's pull request.
    async fn pull_request(&self, run: &RunName) -> Result<Option<String>, Error> {
        let found = self.connection.find(run).await?;
        Ok(found.and_then(|found| found.status?.pull_request).map(|url| sanitize(&url)))
    }
}

/// Returns the label selector of all attempts of a task key.
fn selector(key: &TaskKey) -> String {
    let kind = kind_label(key.kind);
    let task = match key.task {
        Some(task) => format!("{}={task}", labels::TASK),
        None => format!("!{}", labels::TASK),
    };
    let TaskKey { service, agent, .. } = key;
    format!("{}={service},{}={agent},{}={kind},{task}", labels::SERVICE, labels::AGENT, labels::KIND)
}

#[async_trait]
impl Backend for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn location(&self) -> String {
        let settings = self.connection.settings();
        let namespace = &settings.namespace;
        match &settings.context {
            Some(context) => format!("namespace {namespace} of context {context}"),
            None => format!("namespace {namespace} of the cluster"),
        }
    }

    fn workspace(&self, service: &ServiceName) -> String {
        pvc_name(service)
    }

    fn native_command(&self, run: &RunName) -> Option<String> {
        let settings = self.connection.settings();
        let context = settings.context.as_ref().map(|context| format!(" --context {context}"));
        let namespace = &settings.namespace;
        Some(format!("kubectl get taskrun {run} -n {namespace}{}", context.unwrap_or_default()))
    }

    async fn runs(&self) -> Result<Vec<StoredRun>, Error> {
        let mut runs: Vec<StoredRun> =
            self.connection.list(None).await?.iter().filter_map(runs::run).collect();
        runs.sort_by(|a, b| (b.record.submitted_at, &b.task.run).cmp(&(a.record.submitted_at, &a.task.run)));
        Ok(runs)
    }

    async fn damaged(&self) -> Result<Vec<DamagedRun>, Error> {
        Ok(self.connection.list(None).await?.iter().filter_map(runs::damaged).collect())
    }

    async fn run(&self, name: &RunName) -> Result<Option<StoredRun>, Error> {
        Ok(self.connection.find(name).await?.as_ref().and_then(runs::run))
    }

    fn follow(&self, run: StoredRun) -> Box<dyn RunFollower> {
        Box::new(Follower::new(self.connection.clone(), run))
    }

    async fn status(&self, run: StoredRun, now: Timestamp) -> Result<Status, Error> {
        match self.connection.find(&run.task.run).await? {
            Some(found) => Ok(runs::status(&found, &run, &self.workspace(&run.task.service), now)),
            None => Ok(runs::deleted_status(&run, &self.workspace(&run.task.service), now)),
        }
    }

    async fn last_attempt(&self, key: &TaskKey) -> Result<u32, Error> {
        let recorded = self.connection.list(Some(&selector(key))).await?;
        let highest = recorded.iter().map(|run| run.spec.attempt).max().unwrap_or_default();
        let claims = self.connection.api::<PersistentVolumeClaim>().await?;
        let name = pvc_name(&key.service);
        // Without permission to read PVCs a number is still not reused, since run names are unique.
        let claim =
            self.connection.call_raw("get the workspace volume", claims.get_opt(&name)).await?.ok().flatten();
        let claimed = claim.map_or(0, |claim| claim::last_attempt(&claim, key));
        Ok(claimed.max(highest).max(self.kept_attempt(key).await?))
    }

    async fn create(&self, new: CreateRun<'_>) -> Result<CreateOutcome, Error> {
        let CreateRun { identity, attempt, draft, request } = new;
        let api = self.connection.api::<TaskRun>().await?;
        let image = self.connection.config.service(&identity.service).image;
        let by = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        for taken in [false, true] {
            let task = draft.with_attempt(identity.run_name(attempt, |_| taken), attempt);
            let request = serde_json::to_value(request).ok();
            let spec = TaskRunSpec::from_task(&task, image.clone(), request);
            let mut run = TaskRun::new(task.run.as_str(), spec);
            run.task().map_err(|errors| Error::from_field_errors(&errors))?;
            run.metadata = ObjectMeta {
                labels: Some(run_labels(&run)),
                // Set on creation, so that a run deleted before its first reconciliation is still handled.
                finalizers: Some(vec![TASKRUN_FINALIZER.to_owned()]),
                ..run.metadata
            };
            match self.connection.call_raw("submit the run", api.create(&by, &run)).await? {
                Ok(created) => {
                    let run = runs::run(&created).ok_or_else(|| {
                        Error::new(
                            Reason::InternalError,
                            "the API server stored a run that differs from the submitted one",
                        )
                    })?;
                    return Ok(CreateOutcome::Created(Box::new(run)));
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    let other = self.connection.find(&task.run).await?;
                    if other.is_none_or(|other| other.task_key() == *identity) {
                        return Ok(CreateOutcome::AttemptTaken);
                    }
                }
                Err(error) => {
                    return Err(cluster::to_error("submit the run", &error, self.connection.settings()));
                }
            }
        }
        Ok(CreateOutcome::AttemptTaken)
    }

    async fn run_name(&self, identity: &TaskKey, attempt: u32) -> RunName {
        let plain = identity.run_name(attempt, |_| false);
        let other = self.connection.find(&plain).await.ok().flatten();
        identity.run_name(attempt, |_| other.as_ref().is_some_and(|run| run.task_key() != *identity))
    }

    async fn check(&self) -> Vec<Check> {
        doctor::check(&self.connection.config).await
    }

    async fn artifact(&self, run: &StoredRun, artifact: Artifact) -> Result<Option<Excerpt>, Error> {
        let volume = self.workspace(&run.task.service);
        if artifact == Artifact::Diff
            && let Some(url) = self.pull_request(&run.task.run).await?
        {
            let message = format!("the diff is in the volume {volume}, which the dispatcher cannot read");
            return Err(Error::invalid_request(message).with_hint(format!("Open the pull request: {url}")));
        }
        let status = self.status(run.clone(), Timestamp::now()).await?;
        let is_pushed = status.work.is_some_and(|work| work.location == WorkLocation::Remote);
        let hint = if artifact == Artifact::Diff && is_pushed { Advice::CheckOut } else { Advice::ReadLog };
        Err(Error::invalid_request(format!(
            "transcript and diff are in the volume {volume}, which the dispatcher cannot read"
        ))
        .with_hint(hint(run.task.run.clone())))
    }

    async fn command(&self, task: &TaskSpec) -> Result<Vec<String>, Error> {
        let image = self.connection.config.service(&task.service).image;
        let run = TaskRun::new(task.run.as_str(), TaskRunSpec::from_task(task, image, None));
        run.task().map_err(|errors| Error::from_field_errors(&errors))?;
        Ok(["supervisor".to_owned()].into_iter().chain(container::arguments()).collect())
    }

    async fn request_stop(&self, run: &StoredRun, mode: StopMode) -> Result<(), Error> {
        let name = run.task.run.as_str();
        let requested = self.connection.find(&run.task.run).await?.and_then(|run| run.spec.stop);
        // A graceful stop must not replace an earlier `now`.
        if requested == Some(mode) || requested == Some(StopMode::Now) {
            return Ok(());
        }
        let by = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = json!({"spec": {"stop": mode}});
        let api = self.connection.api::<TaskRun>().await?;
        self.connection.call("stop the run", api.patch(name, &by, &Patch::Merge(&patch))).await.map(drop)
    }

    async fn sweep(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn workspaces(&self) -> Result<Vec<FoundWorkspace>, Error> {
        self.found_workspaces().await
    }

    async fn remove_workspace(&self, service: &ServiceName) -> Result<bool, Error> {
        self.removed_workspace(service).await
    }

    async fn size(&self, _: &StoredRun) -> u64 {
        // The record is stored in the cluster, and the dispatcher cannot read the workspace.
        0
    }

    async fn remove(&self, run: &StoredRun) -> Result<bool, Error> {
        let Some(found) = self.connection.find(&run.task.run).await? else { return Ok(true) };
        if !found.phase().is_final() {
            return Ok(false);
        }
        let how = DeleteParams {
            preconditions: Some(Preconditions {
                uid: found.metadata.uid.clone(),
                resource_version: found.metadata.resource_version.clone(),
            }),
            ..DeleteParams::background()
        };
        let api = self.connection.api::<TaskRun>().await?;
        match self.connection.call_raw("delete the run", api.delete(run.task.run.as_str(), &how)).await? {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
            // It has changed since it was read.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(cluster::to_error("delete the run", &error, self.connection.settings())),
        }
    }
}
