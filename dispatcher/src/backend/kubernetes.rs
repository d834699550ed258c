//! Runs as TaskRuns of a cluster, which its controller has Jobs perform.
//!
//! Nothing is kept here: whatever is known is in the TaskRuns, the log of their
//! pods and, once those are gone, the ConfigMap that keeps both.

mod check;
mod follow;
mod runs;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use orchestrator_contract::{RunName, ServiceName, TaskKey, TaskSpec};
use serde_json::json;
use tokio::sync::OnceCell;

use self::follow::Follower;
use super::{Artifact, Backend, CreateOutcome, CreateRun, RunFollower, StopMode, StoredRun};
use crate::cluster;
use crate::config::Config;
use crate::config::kubernetes::KubernetesSettings;
use crate::controller::crd::{self, TASKRUN_FINALIZER, TaskRun, TaskRunSpec, labels};
use crate::controller::objects::{self, pvc_name};
use crate::controller::workspace_claim;
use crate::error::Error;
use crate::files::Excerpt;
use crate::task::check::Check;
use crate::task::status::Status;

/// Who writes what users ask for.
const FIELD_MANAGER: &str = "orchestrator-dispatcher";

/// How long one call may take: answers are wanted within two seconds, and a slow cluster must not hang one.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// The Kubernetes backend.
#[derive(Clone)]
pub struct Kubernetes {
    config: Arc<Config>,
    client: Arc<OnceCell<Client>>,
}

impl std::fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubernetes").field("namespace", &self.settings().namespace).finish_non_exhaustive()
    }
}

impl Kubernetes {
    /// The backend for the configured cluster. Nothing is asked of it yet.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self { config, client: Arc::default() }
    }

    fn settings(&self) -> &KubernetesSettings {
        self.config.kubernetes()
    }

    async fn client(&self) -> Result<Client, Error> {
        let connect = || cluster::connect(self.settings(), &self.config.environment);
        self.client.get_or_try_init(connect).await.cloned()
    }

    async fn api<K>(&self) -> Result<Api<K>, Error>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Ok(Api::namespaced(self.client().await?, &self.settings().namespace))
    }

    /// One call: bounded, its refusal in words.
    async fn call<T>(
        &self,
        what: &str,
        future: impl Future<Output = Result<T, kube::Error>> + Send,
    ) -> Result<T, Error> {
        self.call_raw(what, future).await?.map_err(|error| cluster::to_error(what, &error, self.settings()))
    }

    /// One call: bounded, its refusal for the caller to judge.
    async fn call_raw<T>(
        &self,
        what: &str,
        future: impl Future<Output = Result<T, kube::Error>> + Send,
    ) -> Result<Result<T, kube::Error>, Error> {
        tokio::time::timeout(CALL_TIMEOUT, future).await.map_err(|_| {
            let message =
                format!("cannot {what}: the cluster does not answer within {} s", CALL_TIMEOUT.as_secs());
            Error::new(orchestrator_contract::Reason::RemoteUnavailable, message)
                .with_hint("Is the cluster there? Check with kubectl version, then try again.")
        })
    }

    /// All TaskRuns that have such labels.
    async fn list(&self, selector: Option<&str>) -> Result<Vec<TaskRun>, Error> {
        let parameters = match selector {
            Some(selector) => ListParams::default().labels(selector),
            None => ListParams::default(),
        };
        let api = self.api::<TaskRun>().await?;
        Ok(self.call("list the runs", api.list(&parameters)).await?.items)
    }

    async fn find(&self, name: &RunName) -> Result<Option<TaskRun>, Error> {
        let api = self.api::<TaskRun>().await?;
        self.call("look at the run", api.get_opt(name.as_str())).await
    }
}

fn selector(identity: &TaskKey) -> String {
    let kind = identity.kind.name();
    let task = match identity.task {
        Some(task) => format!("{}={task}", labels::TASK),
        None => format!("!{}", labels::TASK),
    };
    let TaskKey { service, agent, .. } = identity;
    format!("{}={service},{}={agent},{}={kind},{task}", labels::SERVICE, labels::AGENT, labels::KIND)
}

#[async_trait]
impl Backend for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn location(&self) -> String {
        let namespace = &self.settings().namespace;
        match &self.settings().context {
            Some(context) => format!("the namespace {namespace} of {context}"),
            None => format!("the namespace {namespace} of the cluster"),
        }
    }

    fn workspace(&self, service: &ServiceName) -> String {
        pvc_name(service)
    }

    fn native_command(&self, run: &RunName) -> Option<String> {
        let context = self.settings().context.as_ref().map(|context| format!(" --context {context}"));
        let namespace = &self.settings().namespace;
        Some(format!("kubectl get taskrun {run} -n {namespace}{}", context.unwrap_or_default()))
    }

    async fn runs(&self) -> Result<Vec<StoredRun>, Error> {
        let mut runs: Vec<StoredRun> = self.list(None).await?.iter().filter_map(runs::run).collect();
        runs.sort_by(|a, b| (b.record.submitted_at, &b.task.run).cmp(&(a.record.submitted_at, &a.task.run)));
        Ok(runs)
    }

    async fn run(&self, name: &RunName) -> Result<Option<StoredRun>, Error> {
        Ok(self.find(name).await?.as_ref().and_then(runs::run))
    }

    fn follow(&self, run: StoredRun) -> Box<dyn RunFollower> {
        Box::new(Follower::new(self.clone(), run))
    }

    async fn status(&self, run: StoredRun, now: Timestamp) -> Result<Status, Error> {
        match self.find(&run.task.run).await? {
            Some(found) => Ok(runs::status(&found, &run, &self.workspace(&run.task.service), now)),
            None => Ok(runs::deleted_status(&run, &self.workspace(&run.task.service), now)),
        }
    }

    async fn last_attempt(&self, identity: &TaskKey) -> Result<u32, Error> {
        let recorded = self.list(Some(&selector(identity))).await?;
        let highest = recorded.iter().map(|run| run.spec.attempt).max().unwrap_or_default();
        let claims = self.api::<PersistentVolumeClaim>().await?;
        let name = pvc_name(&identity.service);
        // Whoever may not look at volumes still cannot have a number twice: names are taken only once.
        let claim = self.call_raw("look at the volume", claims.get_opt(&name)).await?.ok().flatten();
        Ok(claim.map_or(0, |claim| workspace_claim::last_attempt(&claim, identity)).max(highest))
    }

    async fn create(&self, new: CreateRun<'_>) -> Result<CreateOutcome, Error> {
        let CreateRun { identity, attempt, draft, request } = new;
        let api = self.api::<TaskRun>().await?;
        let image = self.config.service(&identity.service).image;
        let by = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        for taken in [false, true] {
            let task = draft.with_attempt(identity.run_name(attempt, |_| taken), attempt);
            let wanted = serde_json::to_value(request).ok();
            let mut run = TaskRun::new(task.run.as_str(), TaskRunSpec::of(&task, image.clone(), wanted));
            run.task().map_err(|faults| Error::from_field_errors(&faults))?;
            run.metadata = ObjectMeta {
                labels: Some(objects::identity(&run)),
                // From the first moment on: what is deleted before anybody has seen it is not forgotten.
                finalizers: Some(vec![TASKRUN_FINALIZER.to_owned()]),
                ..run.metadata
            };
            match self.call_raw("submit the run", api.create(&by, &run)).await? {
                Ok(made) => {
                    let made = runs::run(&made).ok_or_else(|| {
                        Error::new(
                            orchestrator_contract::Reason::InternalError,
                            "the cluster keeps another run than it was given",
                        )
                    })?;
                    return Ok(CreateOutcome::Created(Box::new(made)));
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    let other = self.find(&task.run).await?;
                    if other.is_none_or(|other| runs::identity(&other) == *identity) {
                        return Ok(CreateOutcome::AttemptTaken);
                    }
                }
                Err(error) => return Err(cluster::to_error("submit the run", &error, self.settings())),
            }
        }
        Ok(CreateOutcome::AttemptTaken)
    }

    async fn run_name(&self, identity: &TaskKey, attempt: u32) -> RunName {
        let plain = identity.run_name(attempt, |_| false);
        let other = self.find(&plain).await.ok().flatten();
        identity.run_name(attempt, |_| other.as_ref().is_some_and(|run| runs::identity(run) != *identity))
    }

    async fn check(&self) -> Vec<Check> {
        check::check(&self.config).await
    }

    async fn artifact(&self, run: &StoredRun, _: Artifact) -> Result<Option<Excerpt>, Error> {
        let volume = self.workspace(&run.task.service);
        Err(Error::invalid_request(format!("it is in the volume {volume}, which cannot be read from here"))
            .with_hint(format!("Read the log instead: dispatcher logs {}", run.task.run)))
    }

    async fn command(&self, task: &TaskSpec) -> Result<Vec<String>, Error> {
        let image = self.config.service(&task.service).image;
        let run = TaskRun::new(task.run.as_str(), TaskRunSpec::of(task, image, None));
        run.task().map_err(|faults| Error::from_field_errors(&faults))?;
        Ok(["supervisor".to_owned()].into_iter().chain(objects::arguments()).collect())
    }

    async fn request_stop(&self, run: &StoredRun, manner: StopMode) -> Result<(), Error> {
        let name = run.task.run.as_str();
        let wish = match manner {
            StopMode::Graceful => crd::StopMode::Graceful,
            StopMode::Now => crd::StopMode::Now,
        };
        let asked = self.find(&run.task.run).await?.and_then(|run| run.spec.stop);
        // Who asked for "now" is not taken back by who asks again.
        if asked == Some(wish) || asked == Some(crd::StopMode::Now) {
            return Ok(());
        }
        let by = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = json!({"spec": {"stop": wish}});
        let api = self.api::<TaskRun>().await?;
        self.call("stop the run", api.patch(name, &by, &Patch::Merge(&patch))).await.map(drop)
    }

    async fn sweep(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn size(&self, _: &StoredRun) -> u64 {
        // What its record takes is the cluster's; its log in the workspace cannot be seen from here.
        0
    }

    async fn remove(&self, run: &StoredRun) -> Result<bool, Error> {
        let Some(found) = self.find(&run.task.run).await? else { return Ok(true) };
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
        let api = self.api::<TaskRun>().await?;
        match self.call_raw("remove the run", api.delete(run.task.run.as_str(), &how)).await? {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
            // It has changed meanwhile.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(cluster::to_error("remove the run", &error, self.settings())),
        }
    }
}
