//! Prometheus metrics of the controller.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use orchestrator_contract::{Outcome, Phase, Reason};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::taskrun::definition::TaskRun;
use crate::taskrun::status::TaskRunStatus;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct PhaseLabels {
    service: String,
    phase: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct EndLabels {
    service: String,
    phase: String,
    reason: String,
}

impl EndLabels {
    fn new(service: &str, reason: Reason) -> Self {
        Self {
            service: service.to_owned(),
            phase: reason.phase().name().to_owned(),
            reason: reason.name().to_owned(),
        }
    }
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ModelLabels {
    service: String,
    model: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct TokenLabels {
    service: String,
    model: String,
    kind: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StepLabels {
    step: String,
}

type Count = Counter<u64>;
type Sum = Counter<f64, AtomicU64>;

/// The metrics; clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    runs: Family<PhaseLabels, Gauge>,
    finished: Family<EndLabels, Count>,
    queue: Gauge,
    queue_wait: Histogram,
    steps: Family<StepLabels, Histogram, fn() -> Histogram>,
    cost: Family<ModelLabels, Sum>,
    tokens: Family<TokenLabels, Count>,
    max_idle: Gauge<f64, AtomicU64>,
    reconcile_errors: Count,
    leader: Gauge,
    samples: Arc<Mutex<HashMap<String, RunSample>>>,
}

/// The state of a run that gauges are computed from.
#[derive(Clone, Debug)]
struct RunSample {
    service: String,
    phase: Phase,
    is_queued: bool,
    last_event: Timestamp,
}

/// Histogram buckets in seconds, up to two hours.
const SECONDS: [f64; 14] =
    [0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 2400.0, 3600.0, 7200.0];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

impl Default for Metrics {
    fn default() -> Self {
        let runs = Family::<PhaseLabels, Gauge>::default();
        let finished = Family::<EndLabels, Count>::default();
        let queue = Gauge::default();
        let queue_wait = seconds();
        let steps = Family::<StepLabels, Histogram, fn() -> Histogram>::new_with_constructor(seconds);
        let cost = Family::<ModelLabels, Sum>::default();
        let tokens = Family::<TokenLabels, Count>::default();
        let max_idle = Gauge::<f64, AtomicU64>::default();
        let reconcile_errors = Count::default();
        let leader = Gauge::default();
        let mut registry = Registry::with_prefix("orchestrator");
        registry.register("runs", "TaskRuns by service and phase", runs.clone());
        registry.register("runs_finished", "Finished runs by service, phase and reason", finished.clone());
        registry.register("queue_length", "Runs waiting for admission", queue.clone());
        registry.register_with_unit(
            "queue_wait",
            "Time from submission to admission",
            Unit::Seconds,
            queue_wait.clone(),
        );
        registry.register_with_unit("step_duration", "Duration of run steps", Unit::Seconds, steps.clone());
        registry.register(
            "cost_usd",
            "Model cost in US dollars, as counted by the model gateway",
            cost.clone(),
        );
        registry.register("tokens", "Tokens used by agents", tokens.clone());
        registry.register_with_unit(
            "max_run_idle",
            "Longest time since the last event of an active run",
            Unit::Seconds,
            max_idle.clone(),
        );
        registry.register("reconcile_errors", "Failed reconciliations", reconcile_errors.clone());
        registry.register("leader", "Whether this process is the leader: 1 or 0", leader.clone());
        let samples = Arc::default();
        Self {
            registry: Arc::new(registry),
            runs,
            finished,
            queue,
            queue_wait,
            steps,
            cost,
            tokens,
            max_idle,
            reconcile_errors,
            leader,
            samples,
        }
    }
}

impl Metrics {
    /// Counts a failed reconciliation.
    pub fn reconcile_failed(&self) {
        self.reconcile_errors.inc();
    }

    /// Sets whether this process is the leader; a follower reports no runs.
    pub fn set_leader(&self, is_leader: bool) {
        self.leader.set(i64::from(is_leader));
        if !is_leader {
            self.samples().clear();
            self.runs.clear();
            self.queue.set(0);
            self.max_idle.set(0.0);
        }
    }

    fn samples(&self) -> std::sync::MutexGuard<'_, HashMap<String, RunSample>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the current state of a run.
    pub fn record_run(&self, run: &TaskRun) {
        if !run.phase().is_final() {
            // Prometheus computes an increase only for existing series, so all are created in advance.
            for &reason in Reason::ALL {
                drop(self.finished.get_or_create(&EndLabels::new(run.spec.service.as_str(), reason)));
            }
        }
        let status = run.status.clone().unwrap_or_default();
        let created = run.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        let sample = RunSample {
            service: run.spec.service.to_string(),
            phase: run.phase(),
            is_queued: status.job_name.is_none() && !run.phase().is_final(),
            last_event: status.last_event_time.or(status.start_time).unwrap_or(created),
        };
        drop(self.samples().insert(run.name().to_owned(), sample));
    }

    /// Removes a deleted run.
    pub fn remove_run(&self, run: &TaskRun) {
        drop(self.samples().remove(run.name()));
    }

    /// Records the transition between two statuses of a run.
    pub fn record_status(&self, run: &TaskRun, old: &TaskRunStatus, new: &TaskRunStatus) {
        let service = run.spec.service.to_string();
        if new.job_name.is_some()
            && old.job_name.is_none()
            && let Some(created) = run.metadata.creation_timestamp.as_ref()
        {
            self.queue_wait.observe(Timestamp::now().duration_since(created.0).as_secs_f64());
        }
        let (Some(reason), None) = (new.reason, old.reason) else { return };
        self.finished.get_or_create(&EndLabels::new(&service, reason)).inc();
        let outcome = new.outcome.clone().and_then(|value| serde_json::from_value::<Outcome>(value).ok());
        let Some(outcome) = outcome else { return };
        for step in &outcome.steps {
            self.steps.get_or_create(&StepLabels { step: step.step.name().to_owned() }).observe(step.seconds);
        }
        for (model, usage) in &outcome.usage.models {
            let labels = ModelLabels { service: service.clone(), model: model.clone() };
            self.cost.get_or_create(&labels).inc_by(usage.cost_usd.max(0.0));
            for (kind, count) in [
                ("input", usage.input_tokens),
                ("output", usage.output_tokens),
                ("cache_read", usage.cache_read_tokens),
                ("cache_creation", usage.cache_creation_tokens),
            ] {
                let labels =
                    TokenLabels { service: service.clone(), model: model.clone(), kind: kind.to_owned() };
                self.tokens.get_or_create(&labels).inc_by(count);
            }
        }
    }

    /// Renders all metrics in the text format of Prometheus.
    #[must_use]
    pub fn render(&self, now: Timestamp) -> String {
        self.runs.clear();
        let mut queued = 0;
        let mut max_idle: f64 = 0.0;
        for sample in self.samples().values() {
            let labels =
                PhaseLabels { service: sample.service.clone(), phase: sample.phase.name().to_owned() };
            self.runs.get_or_create(&labels).inc();
            queued += i64::from(sample.is_queued);
            if matches!(sample.phase, Phase::Preparing | Phase::Running | Phase::Publishing) {
                max_idle = max_idle.max(now.duration_since(sample.last_event).as_secs_f64());
            }
        }
        self.queue.set(queued);
        self.max_idle.set(max_idle);
        let mut text = String::new();
        // Writing to a String cannot fail.
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap_or_default();
        text
    }
}
