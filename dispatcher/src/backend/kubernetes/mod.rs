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
use orchestrator_contract::{Identity, Kind, RunName, ServiceName, TaskSpec};
use serde_json::json;
use tokio::sync::OnceCell;

use self::follow::Follower;
use super::{Backend, Creation, Follow, Manner, NewRun, Piece, Run};
use crate::cluster;
use crate::config::Config;
use crate::config::kubernetes::KubernetesSettings;
use crate::controller::claim;
use crate::controller::crd::{FINALIZER, StopWish, TaskRun, TaskRunSpec, labels};
use crate::controller::objects::{self, claim_name};
use crate::files::Excerpt;
use crate::problem::Problem;
use crate::task::check::Check;
use crate::task::status::Status;

/// Who writes what users ask for.
const MANAGER: &str = "orchestrator-dispatcher";

/// How long one call may take: answers are wanted within two seconds, and a slow cluster must not hang one.
const CALL: Duration = Duration::from_secs(15);

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

    async fn client(&self) -> Result<Client, Problem> {
        let connect = || cluster::connect(self.settings(), &self.config.environment);
        self.client.get_or_try_init(connect).await.cloned()
    }

    async fn api<K>(&self) -> Result<Api<K>, Problem>
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
    ) -> Result<T, Problem> {
        self.plain(what, future).await?.map_err(|error| cluster::problem(what, &error, self.settings()))
    }

    /// One call: bounded, its refusal for the caller to judge.
    async fn plain<T>(
        &self,
        what: &str,
        future: impl Future<Output = Result<T, kube::Error>> + Send,
    ) -> Result<Result<T, kube::Error>, Problem> {
        tokio::time::timeout(CALL, future).await.map_err(|_| {
            let message = format!("cannot {what}: the cluster does not answer within {} s", CALL.as_secs());
            Problem::new(orchestrator_contract::Reason::RemoteUnavailable, message)
                .next("Is the cluster there? Check with kubectl version, then try again.")
        })
    }

    /// All TaskRuns that have such labels.
    async fn list(&self, selector: Option<&str>) -> Result<Vec<TaskRun>, Problem> {
        let parameters = match selector {
            Some(selector) => ListParams::default().labels(selector),
            None => ListParams::default(),
        };
        let api = self.api::<TaskRun>().await?;
        Ok(self.call("list the runs", api.list(&parameters)).await?.items)
    }

    async fn find(&self, name: &RunName) -> Result<Option<TaskRun>, Problem> {
        let api = self.api::<TaskRun>().await?;
        self.call("look at the run", api.get_opt(name.as_str())).await
    }
}

fn selector(identity: &Identity) -> String {
    let kind = match identity.kind {
        Kind::Implementation => "implementation",
        Kind::Docs => "docs",
    };
    let task = match identity.task {
        Some(task) => format!("{}={task}", labels::TASK),
        None => format!("!{}", labels::TASK),
    };
    let Identity { service, agent, .. } = identity;
    format!("{}={service},{}={agent},{}={kind},{task}", labels::SERVICE, labels::AGENT, labels::KIND)
}

#[async_trait]
impl Backend for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn place(&self) -> String {
        let namespace = &self.settings().namespace;
        match &self.settings().context {
            Some(context) => format!("the namespace {namespace} of {context}"),
            None => format!("the namespace {namespace} of the cluster"),
        }
    }

    fn workspace(&self, service: &ServiceName) -> String {
        claim_name(service)
    }

    fn elsewhere(&self, run: &RunName) -> Option<String> {
        let context = self.settings().context.as_ref().map(|context| format!(" --context {context}"));
        let namespace = &self.settings().namespace;
        Some(format!("kubectl get taskrun {run} -n {namespace}{}", context.unwrap_or_default()))
    }

    async fn runs(&self) -> Result<Vec<Run>, Problem> {
        let mut runs: Vec<Run> = self.list(None).await?.iter().filter_map(runs::run).collect();
        runs.sort_by(|a, b| (b.record.submitted_at, &b.task.run).cmp(&(a.record.submitted_at, &a.task.run)));
        Ok(runs)
    }

    async fn run(&self, name: &RunName) -> Result<Option<Run>, Problem> {
        Ok(self.find(name).await?.as_ref().and_then(runs::run))
    }

    fn follow(&self, run: Run) -> Box<dyn Follow> {
        Box::new(Follower::new(self.clone(), run))
    }

    async fn status(&self, run: Run, now: Timestamp) -> Result<Status, Problem> {
        match self.find(&run.task.run).await? {
            Some(found) => Ok(runs::status(&found, &run, &self.workspace(&run.task.service), now)),
            None => Ok(runs::vanished(&run, &self.workspace(&run.task.service), now)),
        }
    }

    async fn mark(&self, identity: &Identity) -> Result<u32, Problem> {
        let recorded = self.list(Some(&selector(identity))).await?;
        let highest = recorded.iter().map(|run| run.spec.attempt).max().unwrap_or_default();
        let claims = self.api::<PersistentVolumeClaim>().await?;
        let name = claim_name(&identity.service);
        // Whoever may not look at volumes still cannot have a number twice: names are taken only once.
        let claim = self.plain("look at the volume", claims.get_opt(&name)).await?.ok().flatten();
        Ok(claim.map_or(0, |claim| claim::mark(&claim, identity)).max(highest))
    }

    async fn create(&self, new: NewRun<'_>) -> Result<Creation, Problem> {
        let NewRun { identity, attempt, draft, request } = new;
        let api = self.api::<TaskRun>().await?;
        let image = self.config.service(&identity.service).image;
        let by = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        for taken in [false, true] {
            let task = draft.named(identity.run_name(attempt, |_| taken), attempt);
            let wanted = serde_json::to_value(request).ok();
            let mut run = TaskRun::new(task.run.as_str(), TaskRunSpec::of(&task, image.clone(), wanted));
            run.task().map_err(|faults| Problem::faults(&faults))?;
            run.metadata = ObjectMeta {
                labels: Some(objects::identity(&run)),
                // From the first moment on: what is deleted before anybody has seen it is not forgotten.
                finalizers: Some(vec![FINALIZER.to_owned()]),
                ..run.metadata
            };
            match self.plain("submit the run", api.create(&by, &run)).await? {
                Ok(made) => {
                    let made = runs::run(&made).ok_or_else(|| {
                        Problem::new(
                            orchestrator_contract::Reason::Internal,
                            "the cluster keeps another run than it was given",
                        )
                    })?;
                    return Ok(Creation::Created(Box::new(made)));
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    let other = self.find(&task.run).await?;
                    if other.is_none_or(|other| runs::identity(&other) == *identity) {
                        return Ok(Creation::Taken);
                    }
                }
                Err(error) => return Err(cluster::problem("submit the run", &error, self.settings())),
            }
        }
        Ok(Creation::Taken)
    }

    async fn name_of(&self, identity: &Identity, attempt: u32) -> RunName {
        let plain = identity.run_name(attempt, |_| false);
        let other = self.find(&plain).await.ok().flatten();
        identity.run_name(attempt, |_| other.as_ref().is_some_and(|run| runs::identity(run) != *identity))
    }

    async fn check(&self) -> Vec<Check> {
        check::check(&self.config).await
    }

    async fn piece(&self, run: &Run, _: Piece) -> Result<Option<Excerpt>, Problem> {
        let volume = self.workspace(&run.task.service);
        Err(Problem::request(format!("it is in the volume {volume}, which cannot be read from here"))
            .next(format!("Read the log instead: dispatcher logs {}", run.task.run)))
    }

    async fn command(&self, task: &TaskSpec) -> Result<Vec<String>, Problem> {
        let image = self.config.service(&task.service).image;
        let run = TaskRun::new(task.run.as_str(), TaskRunSpec::of(task, image, None));
        run.task().map_err(|faults| Problem::faults(&faults))?;
        Ok(["supervisor".to_owned()].into_iter().chain(objects::arguments()).collect())
    }

    async fn ask_to_stop(&self, run: &Run, manner: Manner) -> Result<(), Problem> {
        let name = run.task.run.as_str();
        let wish = match manner {
            Manner::Orderly => StopWish::Orderly,
            Manner::Now => StopWish::Now,
        };
        let asked = self.find(&run.task.run).await?.and_then(|run| run.spec.stop);
        // Who asked for "now" is not taken back by who asks again.
        if asked == Some(wish) || asked == Some(StopWish::Now) {
            return Ok(());
        }
        let by = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patch = json!({"spec": {"stop": wish}});
        let api = self.api::<TaskRun>().await?;
        self.call("stop the run", api.patch(name, &by, &Patch::Merge(&patch))).await.map(drop)
    }

    async fn sweep(&self) -> Result<(), Problem> {
        Ok(())
    }

    async fn size(&self, _: &Run) -> u64 {
        // What its record takes is the cluster's; its log in the workspace cannot be seen from here.
        0
    }

    async fn remove(&self, run: &Run) -> Result<bool, Problem> {
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
        match self.plain("remove the run", api.delete(run.task.run.as_str(), &how)).await? {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
            // It has changed meanwhile.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(cluster::problem("remove the run", &error, self.settings())),
        }
    }
}
