//! What is counted, for Prometheus.

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

use super::crd::{TaskRun, TaskRunStatus};

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
    fn of(service: &str, reason: Reason) -> Self {
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

/// What is counted; a clone counts the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    runs: Family<PhaseLabels, Gauge>,
    ended: Family<EndLabels, Count>,
    queue: Gauge,
    queue_wait: Histogram,
    steps: Family<StepLabels, Histogram, fn() -> Histogram>,
    cost: Family<ModelLabels, Sum>,
    tokens: Family<TokenLabels, Count>,
    max_idle: Gauge<f64, AtomicU64>,
    failures: Count,
    leading: Gauge,
    known: Arc<Mutex<HashMap<String, RunSample>>>,
}

/// What is known of a run, so that gauges can be told anew.
#[derive(Clone, Debug)]
struct RunSample {
    service: String,
    phase: Phase,
    waits: bool,
    last: Timestamp,
}

/// Bounds in seconds: from a moment to hours.
const SECONDS: [f64; 14] =
    [0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 2400.0, 3600.0, 7200.0];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

impl Default for Metrics {
    fn default() -> Self {
        let runs = Family::<PhaseLabels, Gauge>::default();
        let ended = Family::<EndLabels, Count>::default();
        let queue = Gauge::default();
        let queue_wait = seconds();
        let steps = Family::<StepLabels, Histogram, fn() -> Histogram>::new_with_constructor(seconds);
        let cost = Family::<ModelLabels, Sum>::default();
        let tokens = Family::<TokenLabels, Count>::default();
        let quiet = Gauge::<f64, AtomicU64>::default();
        let failures = Count::default();
        let leading = Gauge::default();
        let mut registry = Registry::with_prefix("orchestrator");
        registry.register("runs", "TaskRuns there are, by service and phase", runs.clone());
        registry.register("runs_finished", "Runs that have ended, by reason", ended.clone());
        registry.register("queue_length", "Runs that wait for their turn", queue.clone());
        registry.register_with_unit(
            "queue_wait",
            "How long runs waited for their turn",
            Unit::Seconds,
            queue_wait.clone(),
        );
        registry.register_with_unit(
            "step_duration",
            "How long the steps of runs took",
            Unit::Seconds,
            steps.clone(),
        );
        registry.register("cost_usd", "US dollars that agents used, by the CLI's own figures", cost.clone());
        registry.register("tokens", "Tokens that agents used", tokens.clone());
        registry.register_with_unit(
            "max_run_idle",
            "For how long the quietest run at work has told nothing",
            Unit::Seconds,
            quiet.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Runs that could not be looked after at once",
            failures.clone(),
        );
        registry.register("leader", "Whether this process is the one that works", leading.clone());
        let known = Arc::default();
        Self {
            registry: Arc::new(registry),
            runs,
            ended,
            queue,
            queue_wait,
            steps,
            cost,
            tokens,
            max_idle: quiet,
            failures,
            leading,
            known,
        }
    }
}

impl Metrics {
    /// A run could not be looked after.
    pub fn reconcile_failed(&self) {
        self.failures.inc();
    }

    /// Whether this process leads; whoever does not knows no run.
    pub fn set_leader(&self, leads: bool) {
        self.leading.set(i64::from(leads));
        if !leads {
            self.known().clear();
            self.runs.clear();
            self.queue.set(0);
            self.max_idle.set(0.0);
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, RunSample>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run is there.
    pub fn seen(&self, run: &TaskRun) {
        if !run.phase().is_final() {
            // Prometheus sees a counter grow only if it was there before: the first lost run of a service must
            // not go unnoticed, nor one that another process has begun.
            for &reason in Reason::ALL {
                drop(self.ended.get_or_create(&EndLabels::of(run.spec.service.as_str(), reason)));
            }
        }
        let status = run.status.clone().unwrap_or_default();
        let created = run.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        let known = RunSample {
            service: run.spec.service.to_string(),
            phase: run.phase(),
            waits: status.job_name.is_none() && !run.phase().is_final(),
            last: status.last_event_time.or(status.start_time).unwrap_or(created),
        };
        drop(self.known().insert(run.name().to_owned(), known));
    }

    /// A run is gone.
    pub fn remove_run(&self, run: &TaskRun) {
        drop(self.known().remove(run.name()));
    }

    /// The status of a run was written.
    pub fn record_status(&self, run: &TaskRun, old: &TaskRunStatus, new: &TaskRunStatus) {
        let service = run.spec.service.to_string();
        if new.job_name.is_some()
            && old.job_name.is_none()
            && let Some(created) = run.metadata.creation_timestamp.as_ref()
        {
            self.queue_wait.observe(Timestamp::now().duration_since(created.0).as_secs_f64());
        }
        let (Some(reason), None) = (new.reason, old.reason) else { return };
        self.ended.get_or_create(&EndLabels::of(&service, reason)).inc();
        let outcome = new.outcome.clone().and_then(|value| serde_json::from_value::<Outcome>(value).ok());
        let Some(outcome) = outcome else { return };
        for step in &outcome.steps {
            self.steps.get_or_create(&StepLabels { step: step.step.name().to_owned() }).observe(step.seconds);
        }
        for (model, usage) in &outcome.usage.models {
            let of_model = ModelLabels { service: service.clone(), model: model.clone() };
            self.cost.get_or_create(&of_model).inc_by(usage.cost_usd.max(0.0));
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

    /// All of it, in the text format of Prometheus.
    #[must_use]
    pub fn render(&self, now: Timestamp) -> String {
        self.runs.clear();
        let mut waiting = 0;
        let mut quietest: f64 = 0.0;
        for known in self.known().values() {
            let labels = PhaseLabels { service: known.service.clone(), phase: known.phase.name().to_owned() };
            self.runs.get_or_create(&labels).inc();
            waiting += i64::from(known.waits);
            if matches!(known.phase, Phase::Preparing | Phase::Running | Phase::Publishing) {
                quietest = quietest.max(now.duration_since(known.last).as_secs_f64());
            }
        }
        self.queue.set(waiting);
        self.max_idle.set(quietest);
        let mut text = String::new();
        // Writing to a String cannot fail.
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap_or_default();
        text
    }
}
