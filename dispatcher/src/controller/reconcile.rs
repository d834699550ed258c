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

use super::claim::{self, Hold};
use super::crd::{FINALIZER, TaskRun, TaskRunStatus, labels};
use super::decide::{Action, Decision, JobSeen, PodSeen, Seen, decide};
use super::metrics::Metrics;
use super::objects::{self, MANAGER, POD_FINALIZER, Surroundings};
use super::pod::observe;
use super::queue::{self, Entry, Stage, Turn};
use super::streams::{Source, Streams};
use super::{result, status};
use crate::config::Config;
use crate::config::kubernetes::KubernetesSettings;

/// How long one call may take.
const CALL: Duration = Duration::from_secs(20);

/// How many of those that wait are looked at when somebody has ended; the others look themselves.
const WAKE_AT_ONCE: usize = 100;

/// How long what was told about turns may be told again. Whoever ends, ends that too; new runs are not in it.
const TURNS_LAST: Duration = Duration::from_secs(5);

/// How much of a log that nobody was reading is kept.
const LAST_LINES: i64 = 20_000;

/// What a run could not be looked after for.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The API server refused, or could not be reached.
    #[error("{what}: {source}")]
    Call {
        /// What was tried.
        what: &'static str,
        /// What it said.
        #[source]
        source: Box<kube::Error>,
    },
    /// A call took too long.
    #[error("{0}: no answer in time")]
    Slow(&'static str),
    /// Another run holds the volume.
    #[error("{0} holds the volume of the service")]
    Held(String),
    /// The run cannot be performed at all.
    #[error("{0}")]
    Hopeless(String),
    /// A fault of this program.
    #[error("cannot write an object: {0}")]
    Object(#[from] serde_json::Error),
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
    pub streams: Streams,
    /// Where to say that a run is to be looked at.
    pub news: UnboundedSender<ObjectRef<TaskRun>>,
    /// Events for people.
    pub recorder: Recorder,
    /// What is counted.
    pub metrics: Metrics,
    /// What was written last, by uid, as long as the watch has not shown it.
    pub written: Arc<Mutex<HashMap<String, TaskRun>>>,
    /// Runs that have been given their turn, with their services, as long as that is not written.
    pub begun: Arc<Mutex<HashMap<String, String>>>,
    /// What was told about turns: with thousands that wait, each look at all of them counts.
    pub turns: Arc<Mutex<Option<Turns>>>,
    /// How often in a row a run could not be looked after.
    pub failures: Arc<Mutex<HashMap<String, u32>>>,
}

/// What all that wait were told at a time.
#[derive(Debug)]
pub struct Turns {
    at: Instant,
    all: HashMap<String, Turn>,
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
) -> Result<T, Failure> {
    match tokio::time::timeout(CALL, future).await {
        Err(_) => Err(Failure::Slow(what)),
        Ok(Err(source)) => Err(Failure::Call { what, source: Box::new(source) }),
        Ok(Ok(value)) => Ok(value),
    }
}

fn ours() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
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
    fn newest(&self, run: &Arc<TaskRun>) -> Arc<TaskRun> {
        let uid = run.uid().unwrap_or_default();
        let mut written = locked(&self.written);
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
    fn entries(&self) -> Vec<Entry> {
        let begun = locked(&self.begun).clone();
        let entry = |run: &Arc<TaskRun>| {
            if run.phase().is_final() {
                return None;
            }
            let run = self.newest(run);
            let mut entry = Entry::of(&run);
            if entry.stage == Stage::Waits && begun.contains_key(run.name()) {
                entry.stage = Stage::Works;
            }
            Some(entry)
        };
        self.runs.state().iter().filter_map(entry).collect()
    }

    /// Whether a run may begin; if so, it counts as begun from now on.
    fn turn(&self, run: &TaskRun) -> Turn {
        // One at a time: two that ask at once must not both be told yes.
        let mut turns = locked(&self.turns);
        let again = locked(&self.begun).contains_key(run.name());
        let told = turns.as_ref().filter(|turns| !again && turns.at.elapsed() < TURNS_LAST);
        let turn = match told.and_then(|turns| turns.all.get(run.name()).cloned()) {
            Some(turn) => turn,
            None => {
                let mut entries = self.entries();
                for entry in &mut entries {
                    if entry.name == run.name() {
                        // The run itself may have been given its turn before, without success so far.
                        entry.stage = Stage::Waits;
                    }
                }
                let all = queue::turns(&entries, self.settings().runs_at_once);
                let turn = all.get(run.name()).cloned().unwrap_or_else(Turn::unknown);
                *turns = Some(Turns { at: Instant::now(), all });
                turn
            }
        };
        if turn == Turn::Now {
            locked(&self.begun).insert(run.name().to_owned(), run.spec.service.to_string());
        }
        turn
    }

    async fn observe(&self, run: &TaskRun, now: Timestamp) -> Result<Seen, Failure> {
        let uid = run.uid().unwrap_or_default();
        let key = |name: &str| ObjectRef::new(name).within(&self.settings().namespace);
        let mine = |owners: Option<&Vec<_>>| {
            let owned =
                |owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| owner.uid == uid;
            owners.is_some_and(|owners| owners.iter().any(owned))
        };
        let has_job = run.status.as_ref().is_some_and(|status| status.job.is_some());
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
        let needs_turn = job.is_none() && !has_job && run.stop_wish().is_none() && !run.phase().is_final();
        Ok(Seen {
            job: job.map(|job| job_seen(&job, now)),
            pod: pod.map(|pod| self.pod_seen(&pod, now)),
            stream: self.streams.look(&uid),
            turn: needs_turn.then(|| self.turn(run)),
        })
    }

    fn pod_seen(&self, pod: &Pod, now: Timestamp) -> PodSeen {
        PodSeen {
            name: pod.name_any(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            state: observe(pod, self.settings().unschedulable_minutes, now),
            held: pod.finalizers().iter().any(|name| name == POD_FINALIZER),
            ending: pod.metadata.deletion_timestamp.as_ref().and(pod.metadata.deletion_grace_period_seconds),
        }
    }
}

fn job_seen(job: &Job, now: Timestamp) -> JobSeen {
    let spec = job.spec.clone().unwrap_or_default();
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let failed = conditions
        .filter(|condition| condition.type_ == "Failed" && condition.status == "True")
        .map(|condition| condition.message.clone().or(condition.reason.clone()).unwrap_or_default())
        .next();
    let created = job.metadata.creation_timestamp.as_ref().map(|time| time.0);
    JobSeen {
        suspended: spec.suspend.unwrap_or(false),
        failed,
        removes_itself: spec.ttl_seconds_after_finished.is_some(),
        seconds: created.map_or(0, |created| now.duration_since(created).as_secs()),
    }
}

/// Looks after a run.
///
/// # Errors
/// It has to be looked after again soon.
pub async fn reconcile(run: Arc<TaskRun>, context: Arc<Context>) -> Result<Next, Failure> {
    let run = context.newest(&run);
    let now = Timestamp::now();
    let seen = context.observe(&run, now).await?;
    let may_begin = seen.turn == Some(Turn::Now);
    let done = context.carry_out(&run, decide(&run, &seen, now), &seen, now).await;
    if may_begin {
        locked(&context.begun).remove(run.name());
    }
    let next = done?;
    locked(&context.failures).remove(run.name());
    Ok(next)
}

/// What to do about a run that could not be looked after: again, later each time.
pub fn after_failure(run: Arc<TaskRun>, failure: &Failure, context: Arc<Context>) -> Next {
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
    async fn carry_out(
        &self,
        run: &TaskRun,
        decision: Decision,
        seen: &Seen,
        now: Timestamp,
    ) -> Result<Next, Failure> {
        let Decision { actions, mut status, again } = decision;
        for action in actions {
            match self.perform(run, &action, seen).await {
                Ok(()) => {}
                Err(Failure::Hopeless(message)) if run.phase().is_final() => {
                    // How it ended stays as it is, whatever cannot be kept.
                    self.tell(run, true, "NotKept", &message).await;
                }
                Err(Failure::Hopeless(message)) => {
                    let reason = Reason::Configuration;
                    status = run.status.clone().unwrap_or_default();
                    let end = status::End::Untold { reason, message: message.clone(), worked: false };
                    status::end(&mut status, run, &end, now);
                    self.tell(run, true, reason.name(), &message).await;
                    break;
                }
                Err(failure) => {
                    self.say_what_keeps_it(run, &failure, now).await;
                    return Err(failure);
                }
            }
            if action == Action::Release {
                self.forget(run);
                return Ok(Next::await_change());
            }
        }
        if run.status.as_ref() != Some(&status) {
            self.write(run, status).await?;
        }
        Ok(again.map_or_else(Next::await_change, Next::requeue))
    }

    async fn write(&self, run: &TaskRun, status: TaskRunStatus) -> Result<(), Failure> {
        let old = run.status.clone().unwrap_or_default();
        let patch = json!({
            "apiVersion": TaskRun::api_version(&()), "kind": TaskRun::kind(&()),
            "metadata": {"name": run.name(), "uid": run.metadata.uid}, "status": status,
        });
        let api = self.api::<TaskRun>();
        let by = PatchParams::apply(MANAGER).force();
        let mut new =
            call("write the status", api.patch_status(run.name(), &by, &Patch::Apply(&patch))).await?;
        new.metadata.managed_fields = None;
        self.metrics.changed(run, &old, &status);
        let uid = run.uid().unwrap_or_default();
        locked(&self.written).insert(uid.clone(), new);
        if status.phase.is_some_and(orchestrator_contract::Phase::is_final) {
            if let (Some(reason), None) = (status.reason, old.reason) {
                info!(run = run.name(), %reason, "ended");
            }
            if status.result.is_some() {
                self.streams.forget(&uid);
            }
            self.wake_those_that_wait();
        }
        Ok(())
    }

    /// Writes down why a run does not begin although it is its turn, where the API server says so.
    async fn say_what_keeps_it(&self, run: &TaskRun, failure: &Failure, now: Timestamp) {
        let Failure::Call { source, .. } = failure else { return };
        let refused = is(source, 403) || is(source, 500);
        let mut status = run.status.clone().unwrap_or_default();
        let message = format!("it cannot begin yet: {failure}");
        if !refused || run.phase().is_final() || status.message.as_ref() == Some(&message) {
            return;
        }
        status.phase = status.phase.or(Some(orchestrator_contract::Phase::Pending));
        status.message = Some(message.clone());
        status::condition(&mut status, run, "Admitted", "False", "Refused", &message, now);
        // It will be tried again, and told then if not now.
        drop(self.write(run, status).await);
    }

    /// Lets go of pods whose run is gone: without it nobody would.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn release_orphans(&self) -> Result<(), Failure> {
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

    async fn release_pod(&self, name: &str) -> Result<(), Failure> {
        let pods = self.api::<Pod>();
        let Some(found) = call("ask for the pod", pods.get_opt(name)).await? else { return Ok(()) };
        let finalizers: Vec<&String> =
            found.finalizers().iter().filter(|name| *name != POD_FINALIZER).collect();
        let patch = json!({"metadata": {
            "finalizers": finalizers, "resourceVersion": found.metadata.resource_version,
        }});
        missing_is_fine(call("release the pod", pods.patch(name, &ours(), &Patch::Merge(&patch))).await)
    }

    /// Has those that wait for a turn looked at; where many do, those who came first.
    fn wake_those_that_wait(&self) {
        drop(locked(&self.turns).take());
        let mut waiting = self.entries();
        waiting.retain(|entry| entry.stage == Stage::Waits);
        waiting.sort_by(|a, b| (a.since, &a.name).cmp(&(b.since, &b.name)));
        for entry in waiting.into_iter().take(WAKE_AT_ONCE) {
            let reference = ObjectRef::new(&entry.name).within(&self.settings().namespace);
            // Nobody listens any more once the controller ends.
            drop(self.news.unbounded_send(reference));
        }
    }

    fn forget(&self, run: &TaskRun) {
        let uid = run.uid().unwrap_or_default();
        self.streams.forget(&uid);
        locked(&self.written).remove(&uid);
        locked(&self.failures).remove(run.name());
        self.metrics.gone(run);
        self.wake_those_that_wait();
    }

    async fn perform(&self, run: &TaskRun, action: &Action, seen: &Seen) -> Result<(), Failure> {
        let name = run.name();
        let pod = seen.pod.as_ref().map(|pod| pod.name.clone()).unwrap_or_default();
        match action {
            Action::Hold => {
                let finalizers: Vec<&str> =
                    run.finalizers().iter().map(String::as_str).chain([FINALIZER]).collect();
                let patch = json!({"metadata": {
                    "finalizers": finalizers, "resourceVersion": run.metadata.resource_version,
                }});
                call("hold the TaskRun", self.api::<TaskRun>().patch(name, &ours(), &Patch::Merge(&patch)))
                    .await
                    .map(drop)
            }
            Action::Release => {
                if run.status.as_ref().is_some_and(|status| status.job.is_some()) {
                    call("remember the attempt", claim::remember(&self.api(), run)).await?;
                }
                let finalizers: Vec<&String> =
                    run.finalizers().iter().filter(|name| *name != FINALIZER).collect();
                let patch = json!({"metadata": {
                    "finalizers": finalizers, "resourceVersion": run.metadata.resource_version,
                }});
                let released = self.api::<TaskRun>();
                missing_is_fine(
                    call("release the TaskRun", released.patch(name, &ours(), &Patch::Merge(&patch))).await,
                )
            }
            Action::Admit => self.admit(run).await,
            Action::Launch => self.launch(run).await,
            Action::Follow => {
                let Ok(task) = run.task() else { return Ok(()) };
                let reference = ObjectRef::from_obj(run);
                let source = Source {
                    client: self.client.clone(),
                    namespace: self.settings().namespace.clone(),
                    pod,
                    run: task.run,
                    reference,
                    news: self.news.clone(),
                };
                self.streams.follow(&run.uid().unwrap_or_default(), source);
                Ok(())
            }
            Action::Suspend => {
                let patch = json!({"spec": {"suspend": true}});
                let jobs = self.api::<Job>();
                missing_is_fine(
                    call("suspend the Job", jobs.patch(name, &ours(), &Patch::Merge(&patch))).await,
                )
            }
            Action::EndPod { seconds } => {
                let how = DeleteParams {
                    grace_period_seconds: u32::try_from(*seconds).ok(),
                    ..DeleteParams::default()
                };
                let pods = self.api::<Pod>();
                missing_is_fine(call("end the pod", pods.delete(&pod, &how)).await)
            }
            Action::ReleasePod => self.release_pod(&pod).await,
            Action::KeepResult => {
                let mut log = self.streams.tail(&run.uid().unwrap_or_default());
                if log.is_empty() && !pod.is_empty() {
                    log = self.last_words(&pod).await;
                }
                self.create("keep the result", run, &result::compose(run, &log)).await
            }
            Action::Expire => {
                #[expect(clippy::cast_possible_truncation, reason = "minutes of a configuration")]
                let seconds = (self.settings().keep_finished_minutes * 60.0) as i64;
                let patch = json!({"spec": {"ttlSecondsAfterFinished": seconds}});
                let jobs = self.api::<Job>();
                missing_is_fine(
                    call("have the Job expire", jobs.patch(name, &ours(), &Patch::Merge(&patch))).await,
                )
            }
            Action::RemoveJob => {
                let jobs = self.api::<Job>();
                missing_is_fine(call("remove the Job", jobs.delete(name, &DeleteParams::background())).await)
            }
            Action::Tell { warning, reason, note } => {
                self.tell(run, *warning, reason, note).await;
                Ok(())
            }
        }
    }

    /// The end of a pod's log, read anew: whoever read it before has ended.
    async fn last_words(&self, pod: &str) -> Vec<u8> {
        let lines = LogParams {
            container: Some(objects::CONTAINER.to_owned()),
            tail_lines: Some(LAST_LINES),
            ..LogParams::default()
        };
        // Without it the outcome is still kept.
        call("read the log", self.api::<Pod>().logs(pod, &lines)).await.unwrap_or_default().into_bytes()
    }

    async fn admit(&self, run: &TaskRun) -> Result<(), Failure> {
        let is_over = |name: &str, uid: &str| {
            let known = self.runs.get(&ObjectRef::new(name).within(&self.settings().namespace));
            let known = known.map(|run| self.newest(&run));
            // Another run of that name has another uid.
            known.is_none_or(|run| run.metadata.uid.as_deref() != Some(uid) || run.phase().is_final())
        };
        match call("take the volume", claim::take(&self.api(), run, self.settings(), is_over)).await? {
            Hold::Mine => Ok(()),
            Hold::Of { run, .. } => Err(Failure::Held(run)),
        }
    }

    async fn launch(&self, run: &TaskRun) -> Result<(), Failure> {
        let settings = self.settings();
        let task = run.task().map_err(|faults| {
            Failure::Hopeless(crate::problem::Problem::faults(&faults).message().to_owned())
        })?;
        if run.spec.image.is_none() && settings.image.is_none() {
            return Err(Failure::Hopeless(
                "no container image is known: set `image` in [kubernetes] of the controller's configuration"
                    .to_owned(),
            ));
        }
        let agent =
            self.config.agent(&run.spec.agent).map_err(|problem| Failure::Hopeless(problem.to_string()))?;
        let surroundings =
            Surroundings { github_api_url: self.config.github_api_url.clone(), git_hosts: agent.git_hosts };
        self.create("make the ConfigMap", run, &objects::task(run, &task, settings)?).await?;
        self.create("make the Job", run, &objects::job(run, &task, settings, &surroundings)?).await
    }

    /// Makes an object of a run; one that is there already is fine if it is the run's.
    async fn create<K>(&self, what: &'static str, run: &TaskRun, object: &K) -> Result<(), Failure>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let by = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let api = self.api::<K>();
        match call(what, api.create(&by, object)).await {
            Err(Failure::Call { source, .. }) if is(&source, 409) => {
                let name = object.meta().name.clone().unwrap_or_default();
                let found = call(what, api.get_opt(&name)).await?;
                let uid = run.metadata.uid.as_ref();
                let mine = |found: &K| found.owner_references().iter().any(|owner| Some(&owner.uid) == uid);
                match found {
                    Some(found) if mine(&found) => Ok(()),
                    Some(_) => Err(Failure::Hopeless(format!(
                        "{} `{name}` is there already and belongs to something else: remove it, then retry",
                        K::kind(&())
                    ))),
                    // It has just gone: again.
                    None => Err(Failure::Call { what, source }),
                }
            }
            Err(Failure::Call { source, .. }) if is(&source, 422) || is(&source, 400) => {
                Err(Failure::Hopeless(format!("the cluster refuses it ({what}): {source}")))
            }
            Err(failure) => Err(failure),
            Ok(_) => Ok(()),
        }
    }

    async fn tell(&self, run: &TaskRun, warning: bool, reason: &str, note: &str) {
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

fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

fn missing_is_fine<T>(result: Result<T, Failure>) -> Result<(), Failure> {
    match result {
        Ok(_) => Ok(()),
        Err(Failure::Call { source, .. }) if is(&source, 404) => Ok(()),
        Err(failure) => Err(failure),
    }
}
