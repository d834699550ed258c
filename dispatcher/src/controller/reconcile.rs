//! Looks at a run, has [`super::decide`] say what to do, and does it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::channel::mpsc::UnboundedSender;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, LogParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action as Next;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use orchestrator_contract::Reason;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::{info, warn};

use super::crd::{TASKRUN_FINALIZER, TaskRun, TaskRunStatus, labels};
use super::decide::{Action, ClusterState, Decision, JobState, PodInfo, decide};
use super::log_streams::{LogSource, LogStreams};
use super::metrics::Metrics;
use super::objects::{self, FIELD_MANAGER, GitHostSettings, POD_FINALIZER};
use super::pod::observe;
use super::queue::{self, Admission, QueueEntry, QueueState};
use super::workspace_claim::{self, ClaimHolder};
use super::{result_configmap, status};
use crate::config::Config;
use crate::config::kubernetes::KubernetesSettings;

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// How many of those that wait are looked at when somebody has ended; the others look themselves.
const REQUEUE_BATCH: usize = 100;

/// How long what was told about turns may be told again. Whoever ends, ends that too; new runs are not in it.
const ADMISSION_CACHE_TTL: Duration = Duration::from_secs(5);

/// How much of a log that nobody was reading is kept.
const LOG_TAIL_LINES: i64 = 20_000;

/// What a run could not be looked after for.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server refused, or could not be reached.
    #[error("{what}: {source}")]
    Api {
        /// What was tried.
        what: &'static str,
        /// What it said.
        #[source]
        source: Box<kube::Error>,
    },
    /// A call took too long.
    #[error("{0}: no answer in time")]
    Timeout(&'static str),
    /// Another run holds the volume.
    #[error("{0} holds the volume of the service")]
    VolumeInUse(String),
    /// The run cannot be performed at all.
    #[error("{0}")]
    Terminal(String),
    /// A fault of this program.
    #[error("cannot write an object: {0}")]
    Serialize(#[from] serde_json::Error),
}

/// What the controller knows and works with.
#[derive(Clone)]
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The configuration.
    pub config: Arc<Config>,
    /// All runs of the namespace.
    pub runs: Store<TaskRun>,
    /// Their Jobs.
    pub jobs: Store<Job>,
    /// Their pods.
    pub pods: Store<Pod>,
    /// Their event streams.
    pub streams: LogStreams,
    /// Where to say that a run is to be looked at.
    pub requeue_tx: UnboundedSender<ObjectRef<TaskRun>>,
    /// Events for people.
    pub recorder: Recorder,
    /// What is counted.
    pub metrics: Metrics,
    /// What was written last, by uid, as long as the watch has not shown it.
    pub last_written: Arc<Mutex<HashMap<String, TaskRun>>>,
    /// Runs that have been given their turn, with their services, as long as that is not written.
    pub admitted: Arc<Mutex<HashMap<String, String>>>,
    /// What was told about turns: with thousands that wait, each look at all of them counts.
    pub admissions: Arc<Mutex<Option<AdmissionCache>>>,
    /// How often in a row a run could not be looked after.
    pub failures: Arc<Mutex<HashMap<String, u32>>>,
}

/// What all that wait were told at a time.
#[derive(Debug)]
pub struct AdmissionCache {
    at: Instant,
    all: HashMap<String, Admission>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn call<T>(
    what: &'static str,
    future: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ReconcileError> {
    match tokio::time::timeout(CALL_TIMEOUT, future).await {
        Err(_) => Err(ReconcileError::Timeout(what)),
        Ok(Err(source)) => Err(ReconcileError::Api { what, source: Box::new(source) }),
        Ok(Ok(value)) => Ok(value),
    }
}

fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

fn version(run: &TaskRun) -> u64 {
    run.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

impl Context {
    fn settings(&self) -> &KubernetesSettings {
        self.config.kubernetes()
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.settings().namespace)
    }

    /// The run as it was written last, should the watch be behind.
    fn latest(&self, run: &Arc<TaskRun>) -> Arc<TaskRun> {
        let uid = run.uid().unwrap_or_default();
        let mut written = locked(&self.last_written);
        match written.get(&uid) {
            Some(mine) if version(mine) > version(run) => Arc::new(mine.clone()),
            Some(_) => {
                written.remove(&uid);
                Arc::clone(run)
            }
            None => Arc::clone(run),
        }
    }

    /// All runs that have not ended, as far as turns are concerned.
    fn queue_entries(&self) -> Vec<QueueEntry> {
        let begun = locked(&self.admitted).clone();
        let entry = |run: &Arc<TaskRun>| {
            if run.phase().is_final() {
                return None;
            }
            let run = self.latest(run);
            let mut entry = QueueEntry::of(&run);
            if entry.stage == QueueState::Waiting && begun.contains_key(run.name()) {
                entry.stage = QueueState::Active;
            }
            Some(entry)
        };
        self.runs.state().iter().filter_map(entry).collect()
    }

    /// Whether a run may begin; if so, it counts as begun from now on.
    fn admission(&self, run: &TaskRun) -> Admission {
        // One at a time: two that ask at once must not both be told yes.
        let mut turns = locked(&self.admissions);
        let again = locked(&self.admitted).contains_key(run.name());
        let told = turns.as_ref().filter(|turns| !again && turns.at.elapsed() < ADMISSION_CACHE_TTL);
        let turn = match told.and_then(|turns| turns.all.get(run.name()).cloned()) {
            Some(turn) => turn,
            None => {
                let mut entries = self.queue_entries();
                for entry in &mut entries {
                    if entry.name == run.name() {
                        // The run itself may have been given its turn before, without success so far.
                        entry.stage = QueueState::Waiting;
                    }
                }
                let all = queue::admissions(&entries, self.settings().max_concurrent_runs);
                let turn = all.get(run.name()).cloned().unwrap_or_else(Admission::unknown);
                *turns = Some(AdmissionCache { at: Instant::now(), all });
                turn
            }
        };
        if turn == Admission::Admitted {
            locked(&self.admitted).insert(run.name().to_owned(), run.spec.service.to_string());
        }
        turn
    }

    async fn observe(&self, run: &TaskRun, now: Timestamp) -> Result<ClusterState, ReconcileError> {
        let uid = run.uid().unwrap_or_default();
        let key = |name: &str| ObjectRef::new(name).within(&self.settings().namespace);
        let mine = |owners: Option<&Vec<_>>| {
            let owned =
                |owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| owner.uid == uid;
            owners.is_some_and(|owners| owners.iter().any(owned))
        };
        let has_job = run.status.as_ref().is_some_and(|status| status.job_name.is_some());
        let mut job = self.jobs.get(&key(run.name()));
        if job.is_none() && has_job && !run.phase().is_final() {
            // The watch may be behind: that a Job is gone is believed only when the API server says so.
            job = call("ask for the Job", self.api::<Job>().get_opt(run.name())).await?.map(Arc::new);
        }
        let job = job.filter(|job| mine(job.metadata.owner_references.as_ref()));
        let job_uid = job.as_ref().and_then(|job| job.metadata.uid.clone());
        let pod = self.pods.find(|pod| {
            let of_run = pod.labels().get(labels::RUN).is_some_and(|name| name == run.name());
            let owners = pod.metadata.owner_references.iter().flatten();
            of_run
                && (job_uid.is_none()
                    || owners.map(|owner| Some(&owner.uid)).any(|uid| uid == job_uid.as_ref()))
        });
        let needs_turn =
            job.is_none() && !has_job && run.requested_stop().is_none() && !run.phase().is_final();
        Ok(ClusterState {
            job: job.map(|job| job_seen(&job, now)),
            pod: pod.map(|pod| self.pod_seen(&pod, now)),
            stream: self.streams.state(&uid),
            turn: needs_turn.then(|| self.admission(run)),
        })
    }

    fn pod_seen(&self, pod: &Pod, now: Timestamp) -> PodInfo {
        PodInfo {
            name: pod.name_any(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            state: observe(pod, self.settings().scheduling_timeout_minutes, now),
            has_finalizer: pod.finalizers().iter().any(|name| name == POD_FINALIZER),
            deletion_grace_seconds: pod
                .metadata
                .deletion_timestamp
                .as_ref()
                .and(pod.metadata.deletion_grace_period_seconds),
        }
    }
}

fn job_seen(job: &Job, now: Timestamp) -> JobState {
    let spec = job.spec.clone().unwrap_or_default();
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let failed = conditions
        .filter(|condition| condition.type_ == "Failed" && condition.status == "True")
        .map(|condition| condition.message.clone().or(condition.reason.clone()).unwrap_or_default())
        .next();
    let created = job.metadata.creation_timestamp.as_ref().map(|time| time.0);
    JobState {
        suspended: spec.suspend.unwrap_or(false),
        failed,
        has_ttl: spec.ttl_seconds_after_finished.is_some(),
        age_seconds: created.map_or(0, |created| now.duration_since(created).as_secs()),
    }
}

/// Looks after a run.
///
/// # Errors
/// It has to be looked after again soon.
pub async fn reconcile(run: Arc<TaskRun>, context: Arc<Context>) -> Result<Next, ReconcileError> {
    let run = context.latest(&run);
    let now = Timestamp::now();
    let seen = context.observe(&run, now).await?;
    let may_begin = seen.turn == Some(Admission::Admitted);
    let done = context.apply(&run, decide(&run, &seen, now), &seen, now).await;
    if may_begin {
        locked(&context.admitted).remove(run.name());
    }
    let next = done?;
    locked(&context.failures).remove(run.name());
    Ok(next)
}

/// What to do about a run that could not be looked after: again, later each time.
pub fn error_policy(run: Arc<TaskRun>, failure: &ReconcileError, context: Arc<Context>) -> Next {
    let count = {
        let mut failures = locked(&context.failures);
        let count = failures.entry(run.name().to_owned()).or_default();
        *count += 1;
        *count
    };
    context.metrics.reconcile_failed();
    // A conflict is settled by looking again.
    if count > 1 {
        warn!(run = run.name(), count, "{failure}");
    }
    let pause = Duration::from_millis(100) * 2u32.saturating_pow(count.min(9));
    Next::requeue(pause.min(Duration::from_secs(30)))
}

impl Context {
    async fn apply(
        &self,
        run: &TaskRun,
        decision: Decision,
        seen: &ClusterState,
        now: Timestamp,
    ) -> Result<Next, ReconcileError> {
        let Decision { actions, mut status, requeue_after: again } = decision;
        for action in actions {
            match self.perform(run, &action, seen).await {
                Ok(()) => {}
                Err(ReconcileError::Terminal(message)) if run.phase().is_final() => {
                    // How it ended stays as it is, whatever cannot be kept.
                    self.record_event(run, true, "ResultNotSaved", &message).await;
                }
                Err(ReconcileError::Terminal(message)) => {
                    let reason = Reason::InvalidConfiguration;
                    status = run.status.clone().unwrap_or_default();
                    let end =
                        status::ObservedEnd::Inferred { reason, message: message.clone(), started: false };
                    status::set_finished(&mut status, run, &end, now);
                    self.record_event(run, true, reason.name(), &message).await;
                    break;
                }
                Err(failure) => {
                    self.report_blocked(run, &failure, now).await;
                    return Err(failure);
                }
            }
            if action == Action::RemoveFinalizer {
                self.evict(run);
                return Ok(Next::await_change());
            }
        }
        if run.status.as_ref() != Some(&status) {
            self.patch_status(run, status).await?;
        }
        Ok(again.map_or_else(Next::await_change, Next::requeue))
    }

    async fn patch_status(&self, run: &TaskRun, status: TaskRunStatus) -> Result<(), ReconcileError> {
        let old = run.status.clone().unwrap_or_default();
        let patch = json!({
            "apiVersion": TaskRun::api_version(&()), "kind": TaskRun::kind(&()),
            "metadata": {"name": run.name(), "uid": run.metadata.uid}, "status": status,
        });
        let api = self.api::<TaskRun>();
        let by = PatchParams::apply(FIELD_MANAGER).force();
        let mut new =
            call("write the status", api.patch_status(run.name(), &by, &Patch::Apply(&patch))).await?;
        new.metadata.managed_fields = None;
        self.metrics.record_status(run, &old, &status);
        let uid = run.uid().unwrap_or_default();
        locked(&self.last_written).insert(uid.clone(), new);
        if status.phase.is_some_and(orchestrator_contract::Phase::is_final) {
            if let (Some(reason), None) = (status.reason, old.reason) {
                info!(run = run.name(), %reason, "ended");
            }
            if status.result_config_map_name.is_some() {
                self.streams.forget(&uid);
            }
            self.requeue_waiting();
        }
        Ok(())
    }

    /// Writes down why a run does not begin although it is its turn, where the API server says so.
    async fn report_blocked(&self, run: &TaskRun, failure: &ReconcileError, now: Timestamp) {
        let ReconcileError::Api { source, .. } = failure else { return };
        let refused = has_code(source, 403) || has_code(source, 500);
        let mut status = run.status.clone().unwrap_or_default();
        let message = format!("it cannot begin yet: {failure}");
        if !refused || run.phase().is_final() || status.message.as_ref() == Some(&message) {
            return;
        }
        status.phase = status.phase.or(Some(orchestrator_contract::Phase::Pending));
        status.message = Some(message.clone());
        status::set_condition(&mut status, run, "Admitted", "False", "AdmissionFailed", &message, now);
        // It will be tried again, and told then if not now.
        drop(self.patch_status(run, status).await);
    }

    /// Lets go of pods whose run is gone: without it nobody would.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn release_orphans(&self) -> Result<(), ReconcileError> {
        for pod in self.pods.state() {
            let Some(run) = pod.labels().get(labels::RUN) else { continue };
            let held = pod.finalizers().iter().any(|name| name == POD_FINALIZER);
            let known = self.runs.get(&ObjectRef::new(run).within(&self.settings().namespace)).is_some();
            if held && !known && pod.metadata.deletion_timestamp.is_some() {
                self.release_pod(&pod.name_any()).await?;
            }
        }
        Ok(())
    }

    async fn release_pod(&self, name: &str) -> Result<(), ReconcileError> {
        let pods = self.api::<Pod>();
        let Some(found) = call("ask for the pod", pods.get_opt(name)).await? else { return Ok(()) };
        let finalizers: Vec<&String> =
            found.finalizers().iter().filter(|name| *name != POD_FINALIZER).collect();
        let patch = json!({"metadata": {
            "finalizers": finalizers, "resourceVersion": found.metadata.resource_version,
        }});
        ignore_not_found(
            call("release the pod", pods.patch(name, &patch_params(), &Patch::Merge(&patch))).await,
        )
    }

    /// Has those that wait for a turn looked at; where many do, those who came first.
    fn requeue_waiting(&self) {
        drop(locked(&self.admissions).take());
        let mut waiting = self.queue_entries();
        waiting.retain(|entry| entry.stage == QueueState::Waiting);
        waiting.sort_by(|a, b| (a.since, &a.name).cmp(&(b.since, &b.name)));
        for entry in waiting.into_iter().take(REQUEUE_BATCH) {
            let reference = ObjectRef::new(&entry.name).within(&self.settings().namespace);
            // Nobody listens any more once the controller ends.
            drop(self.requeue_tx.unbounded_send(reference));
        }
    }

    fn evict(&self, run: &TaskRun) {
        let uid = run.uid().unwrap_or_default();
        self.streams.forget(&uid);
        locked(&self.last_written).remove(&uid);
        locked(&self.failures).remove(run.name());
        self.metrics.remove_run(run);
        self.requeue_waiting();
    }

    async fn perform(
        &self,
        run: &TaskRun,
        action: &Action,
        seen: &ClusterState,
    ) -> Result<(), ReconcileError> {
        let name = run.name();
        let pod = seen.pod.as_ref().map(|pod| pod.name.clone()).unwrap_or_default();
        match action {
            Action::AddFinalizer => {
                let finalizers: Vec<&str> =
                    run.finalizers().iter().map(String::as_str).chain([TASKRUN_FINALIZER]).collect();
                let patch = json!({"metadata": {
                    "finalizers": finalizers, "resourceVersion": run.metadata.resource_version,
                }});
                call(
                    "hold the TaskRun",
                    self.api::<TaskRun>().patch(name, &patch_params(), &Patch::Merge(&patch)),
                )
                .await
                .map(drop)
            }
            Action::RemoveFinalizer => {
                if run.status.as_ref().is_some_and(|status| status.job_name.is_some()) {
                    call("remember the attempt", workspace_claim::record_attempt(&self.api(), run)).await?;
                }
                let finalizers: Vec<&String> =
                    run.finalizers().iter().filter(|name| *name != TASKRUN_FINALIZER).collect();
                let patch = json!({"metadata": {
                    "finalizers": finalizers, "resourceVersion": run.metadata.resource_version,
                }});
                let released = self.api::<TaskRun>();
                ignore_not_found(
                    call("release the TaskRun", released.patch(name, &patch_params(), &Patch::Merge(&patch)))
                        .await,
                )
            }
            Action::AcquireVolume => self.admit(run).await,
            Action::CreateJob => self.launch(run).await,
            Action::FollowLogs => {
                let Ok(task) = run.task() else { return Ok(()) };
                let reference = ObjectRef::from_obj(run);
                let source = LogSource {
                    client: self.client.clone(),
                    namespace: self.settings().namespace.clone(),
                    pod,
                    run: task.run,
                    reference,
                    news: self.requeue_tx.clone(),
                };
                self.streams.follow(&run.uid().unwrap_or_default(), source);
                Ok(())
            }
            Action::SuspendJob => {
                let patch = json!({"spec": {"suspend": true}});
                let jobs = self.api::<Job>();
                ignore_not_found(
                    call("suspend the Job", jobs.patch(name, &patch_params(), &Patch::Merge(&patch))).await,
                )
            }
            Action::DeletePod { grace_seconds: seconds } => {
                let how = DeleteParams {
                    grace_period_seconds: u32::try_from(*seconds).ok(),
                    ..DeleteParams::default()
                };
                let pods = self.api::<Pod>();
                ignore_not_found(call("end the pod", pods.delete(&pod, &how)).await)
            }
            Action::RemovePodFinalizer => self.release_pod(&pod).await,
            Action::SaveResult => {
                let mut log = self.streams.tail(&run.uid().unwrap_or_default());
                if log.is_empty() && !pod.is_empty() {
                    log = self.read_log_tail(&pod).await;
                }
                self.create("keep the result", run, &result_configmap::build(run, &log)).await
            }
            Action::SetJobTtl => {
                #[expect(clippy::cast_possible_truncation, reason = "minutes of a configuration")]
                let seconds = (self.settings().ttl_minutes_after_finished * 60.0) as i64;
                let patch = json!({"spec": {"ttlSecondsAfterFinished": seconds}});
                let jobs = self.api::<Job>();
                ignore_not_found(
                    call("have the Job expire", jobs.patch(name, &patch_params(), &Patch::Merge(&patch)))
                        .await,
                )
            }
            Action::DeleteJob => {
                let jobs = self.api::<Job>();
                ignore_not_found(call("remove the Job", jobs.delete(name, &DeleteParams::background())).await)
            }
            Action::RecordEvent { warning, reason, note } => {
                self.record_event(run, *warning, reason, note).await;
                Ok(())
            }
        }
    }

    /// The end of a pod's log, read anew: whoever read it before has ended.
    async fn read_log_tail(&self, pod: &str) -> Vec<u8> {
        let lines = LogParams {
            container: Some(objects::CONTAINER.to_owned()),
            tail_lines: Some(LOG_TAIL_LINES),
            ..LogParams::default()
        };
        // Without it the outcome is still kept.
        call("read the log", self.api::<Pod>().logs(pod, &lines)).await.unwrap_or_default().into_bytes()
    }

    async fn admit(&self, run: &TaskRun) -> Result<(), ReconcileError> {
        let is_over = |name: &str, uid: &str| {
            let known = self.runs.get(&ObjectRef::new(name).within(&self.settings().namespace));
            let known = known.map(|run| self.latest(&run));
            // Another run of that name has another uid.
            known.is_none_or(|run| run.metadata.uid.as_deref() != Some(uid) || run.phase().is_final())
        };
        match call("take the volume", workspace_claim::acquire(&self.api(), run, self.settings(), is_over))
            .await?
        {
            ClaimHolder::ThisRun => Ok(()),
            ClaimHolder::Other { run, .. } => Err(ReconcileError::VolumeInUse(run)),
        }
    }

    async fn launch(&self, run: &TaskRun) -> Result<(), ReconcileError> {
        let settings = self.settings();
        let task = run.task().map_err(|faults| {
            ReconcileError::Terminal(crate::error::Error::from_field_errors(&faults).message().to_owned())
        })?;
        if run.spec.image.is_none() && settings.image.is_none() {
            return Err(ReconcileError::Terminal(
                "no container image is known: set `image` in [kubernetes] of the controller's configuration"
                    .to_owned(),
            ));
        }
        let agent = self
            .config
            .agent(&run.spec.agent)
            .map_err(|problem| ReconcileError::Terminal(problem.to_string()))?;
        let surroundings = GitHostSettings {
            github_api_url: self.config.github_api_url.clone(),
            git_hosts: agent.git_hosts,
        };
        self.create("make the ConfigMap", run, &objects::build_task_configmap(run, &task, settings)?).await?;
        self.create("make the Job", run, &objects::build_job(run, &task, settings, &surroundings)?).await
    }

    /// Makes an object of a run; one that is there already is fine if it is the run's.
    async fn create<K>(&self, what: &'static str, run: &TaskRun, object: &K) -> Result<(), ReconcileError>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let by = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let api = self.api::<K>();
        match call(what, api.create(&by, object)).await {
            Err(ReconcileError::Api { source, .. }) if has_code(&source, 409) => {
                let name = object.meta().name.clone().unwrap_or_default();
                let found = call(what, api.get_opt(&name)).await?;
                let uid = run.metadata.uid.as_ref();
                let mine = |found: &K| found.owner_references().iter().any(|owner| Some(&owner.uid) == uid);
                match found {
                    Some(found) if mine(&found) => Ok(()),
                    Some(_) => Err(ReconcileError::Terminal(format!(
                        "{} `{name}` is there already and belongs to something else: remove it, then retry",
                        K::kind(&())
                    ))),
                    // It has just gone: again.
                    None => Err(ReconcileError::Api { what, source }),
                }
            }
            Err(ReconcileError::Api { source, .. }) if has_code(&source, 422) || has_code(&source, 400) => {
                Err(ReconcileError::Terminal(format!("the cluster refuses it ({what}): {source}")))
            }
            Err(failure) => Err(failure),
            Ok(_) => Ok(()),
        }
    }

    async fn record_event(&self, run: &TaskRun, warning: bool, reason: &str, note: &str) {
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            // The API server's limit is 1 kB.
            note: Some(note.chars().take(900).collect()),
            action: "Run".to_owned(),
            secondary: None,
        };
        let told = call("tell people", self.recorder.publish(&event, &run.object_ref(&()))).await;
        // Events are for people only: a run must not wait for them.
        if let Err(failure) = told {
            warn!(run = run.name(), "{failure}");
        }
    }
}

fn has_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

fn ignore_not_found<T>(result: Result<T, ReconcileError>) -> Result<(), ReconcileError> {
    match result {
        Ok(_) => Ok(()),
        Err(ReconcileError::Api { source, .. }) if has_code(&source, 404) => Ok(()),
        Err(failure) => Err(failure),
    }
}
