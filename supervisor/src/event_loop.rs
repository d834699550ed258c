//! The dull shell around [`Run`]: waits on all sources, feeds the run, performs its effects.
//!
//! An effect that takes time runs as a task and reports its end as a message;
//! the loop never awaits work, so signals and deadlines are never late.

mod documents;
mod run_report;
mod sessions;
mod steps;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator_contract::event::{Progress, StepState};
use orchestrator_contract::{Level, Outcome, Step};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::agent::log_lines::log_lines;
use crate::agent::reader::IdleTimer;
use crate::agent::session::SessionControl;
use crate::agent::stream::CliMessage;
use crate::agent::watchdog::{AgentActivity, Watchdog};
use crate::context::{Context, StepOutputs};
use crate::docs::plan::DocsTask;
use crate::process::reap_orphans;
use crate::run::{Batch, Effect, Failure, RunEnd, RunEvent, RunMachine};
use run_report::RunReport;
use steps::StepOutput;

/// How often the stop file, the limits and the progress are looked at.
const TICK_INTERVAL: Duration = Duration::from_millis(250);

/// Progress is told at each change, at most this often.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// How the process ends.
#[derive(Debug)]
pub enum LoopExit {
    /// With an outcome.
    Outcome(Box<Outcome>),
    /// Cut short by `--until`, as asked.
    StoppedAfter(Step),
}

/// Signals that ask the run to stop, and the one that says that a child ended.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    quit: Signal,
    child: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            child: signal(SignalKind::child())?,
        })
    }
}

struct EventLoop {
    context: Arc<Context>,
    run: RunMachine,
    facts: StepOutputs,
    ledger: RunReport,
    watchdog: Watchdog,
    started: Instant,
    step_started: Instant,
    announced_step: Option<Step>,
    /// Ends the effect that is being performed.
    cancel: CancellationToken,
    /// The code, fetched while the documentation is.
    prefetch: Option<JoinHandle<StepOutput>>,
    results_tx: mpsc::Sender<StepOutput>,
    /// The conversations that are held, by their place in the list.
    talking: BTreeMap<usize, ActiveSession>,
    messages_tx: mpsc::Sender<(usize, CliMessage)>,
    grace_ends: Option<Instant>,
    /// When it was first asked to stop.
    stop_asked: Option<Instant>,
    /// Whether it was asked again because its time is over.
    stop_escalated: bool,
    stop_file_level: u8,
    told: LastProgress,
    finished: Option<LoopExit>,
}

/// A conversation that is held.
struct ActiveSession {
    controls: mpsc::Sender<SessionControl>,
    pulse: IdleTimer,
}

/// What was last told as progress.
struct LastProgress {
    at: Option<Instant>,
    doing: String,
}

/// Runs the task to its end.
///
/// # Errors
/// The system gives no signal handlers.
pub async fn run(context: Context) -> io::Result<LoopExit> {
    let mut signals = Signals::listen()?;
    let (happened, mut happenings) = mpsc::channel(16);
    let (said, mut sayings) = mpsc::channel(1024);
    let (run, effects) = RunMachine::new(1, context.settings.until);
    let watchdog = Watchdog::new(&context.task.limits);
    let now = Instant::now();
    let mut this = EventLoop {
        ledger: RunReport::new(&context),
        context: Arc::new(context),
        run,
        facts: StepOutputs::default(),
        watchdog,
        started: now,
        step_started: now,
        announced_step: None,
        cancel: CancellationToken::new(),
        prefetch: None,
        results_tx: happened,
        talking: BTreeMap::new(),
        messages_tx: said,
        grace_ends: None,
        stop_asked: None,
        stop_escalated: false,
        stop_file_level: 0,
        told: LastProgress { at: None, doing: String::new() },
        finished: None,
    };
    let mut tick = tokio::time::interval(TICK_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    this.perform_all(effects).await;
    loop {
        if let Some(finished) = this.finished.take() {
            return Ok(finished);
        }
        let event = tokio::select! {
            Some(happened) = happenings.recv() => {
                // What the agent said last comes before its end.
                while let Ok((index, said)) = sayings.try_recv() {
                    this.on_agent_message(index, &said);
                }
                this.apply_output(happened)
            }
            Some((index, said)) = sayings.recv() => { this.on_agent_message(index, &said); None }
            _ = signals.terminate.recv() => Some(this.stop_requested("SIGTERM")),
            _ = signals.interrupt.recv() => Some(this.stop_requested("SIGINT")),
            _ = signals.hangup.recv() => Some(this.stop_requested("SIGHUP")),
            _ = signals.quit.recv() => Some(this.stop_requested("SIGQUIT")),
            _ = signals.child.recv() => { reap_orphans(); None }
            _ = tick.tick() => this.on_tick(),
        };
        if let Some(event) = event {
            let stops = event == RunEvent::StopRequested;
            if stops {
                this.stop_asked.get_or_insert_with(Instant::now);
            }
            this.handle_event(event).await;
            // "now" is two requests, and a save may be done before the next look.
            if stops && let Some(second) = this.poll_stop_file() {
                this.handle_event(second).await;
            }
        }
    }
}

impl EventLoop {
    async fn handle_event(&mut self, event: RunEvent) {
        let before = self.run.step();
        let effects = self.run.handle(event.clone());
        tracing::debug!(?event, ?effects, step = %before, "fed");
        if let (RunEvent::SessionEnded(..), Some(batch)) = (&event, self.run.batch()) {
            let (progress, failed) = (batch.progress(), batch.failure());
            self.ledger.set_activity(&progress);
            if self.run.step() != before {
                self.step_ended(before, failed.as_ref().map(|failure| failure.message.as_str()));
            }
        }
        self.perform_all(effects).await;
    }

    async fn perform_all(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.step_began();
            self.perform(effect).await;
        }
    }

    async fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Perform(step) => self.start_step(step),
            Effect::Cancel => {
                self.cancel.cancel();
                if let Some(prefetch) = self.prefetch.take() {
                    prefetch.abort();
                }
            }
            Effect::StartAgent(index, message) => self.start_conversation(index, &message),
            Effect::TerminateAgent => {
                self.control(SessionControl::Stop);
                self.grace_ends = Some(Instant::now() + seconds(self.context.settings.agent_grace_seconds));
            }
            Effect::KillAgent => self.control(SessionControl::Kill),
            Effect::Verify => self.start_verify(),
            Effect::Push => self.start_push(),
            Effect::KeepInWorkspace(why) => self.start_keep_in_workspace(why),
            Effect::PullRequest(mode) => self.start_pull_request(mode),
            Effect::Report => self.report().await,
        }
    }

    fn control(&self, control: SessionControl) {
        for talking in self.talking.values() {
            // A conversation that no longer listens is ending anyway.
            let _ = talking.controls.try_send(control);
        }
    }

    fn stop_requested(&self, by: &str) -> RunEvent {
        self.context.journal.info(format!("asked to stop ({by})"));
        RunEvent::StopRequested
    }

    /// What is looked at again and again: limits, the grace period, the stop file, progress.
    fn on_tick(&mut self) -> Option<RunEvent> {
        self.publish_progress();
        if self.grace_ends.is_some_and(|end| Instant::now() >= end) {
            self.grace_ends = None;
            return Some(RunEvent::GracePeriodExpired);
        }
        if let Some(event) = self.poll_stop_file() {
            return Some(event);
        }
        if self.stop_deadline_passed() && !std::mem::replace(&mut self.stop_escalated, true) {
            return Some(self.stop_requested("the time to save and push is over"));
        }
        let seen = AgentActivity {
            elapsed: self.started.elapsed(),
            // One that is silent among others that are not waits for its turn to be the last.
            idle: self.talking.values().map(|talking| talking.pulse.elapsed()).min(),
            turns: self.ledger.usage.turns,
            cost_usd: self.ledger.usage.cost_usd,
        };
        self.watchdog.exceeded(seen).map(RunEvent::LimitReached)
    }

    /// Whether it has had all the time that whoever asked it to stop gives it.
    fn stop_deadline_passed(&self) -> bool {
        let limit = self.context.settings.stop_timeout_seconds.map(seconds);
        self.stop_asked.zip(limit).is_some_and(|(asked, limit)| asked.elapsed() >= limit)
    }

    fn poll_stop_file(&mut self) -> Option<RunEvent> {
        let path = self.context.settings.stop_file.as_deref()?;
        let wanted = read_stop_file(path);
        if wanted <= self.stop_file_level {
            return None;
        }
        self.stop_file_level += 1;
        Some(self.stop_requested("stop file"))
    }

    /// Something the agent's program said.
    fn on_agent_message(&mut self, index: usize, said: &CliMessage) {
        let name = self.subject(index).map(|subject| format!("task {}: ", subject.task)).unwrap_or_default();
        for line in log_lines(said) {
            let text = format!("{name}{}", line.text);
            if line.level == Level::Info {
                let progress = self.run.batch().map(|batch| format!("{}; ", batch.progress()));
                self.ledger.set_activity(&format!("{}{text}", progress.unwrap_or_default()));
            }
            self.context.journal.log(line.level, "agent", text);
        }
        self.ledger.record_message(index, said);
    }

    /// The task that a conversation of a docs run is about.
    fn subject(&self, index: usize) -> Option<&DocsTask> {
        self.facts.writing.as_ref()?.plan.pending().nth(index)
    }

    /// The outcome as it would be if the run ended now, for this reason.
    fn outcome(&self, step: Step, end: &Failure) -> Outcome {
        let items = self.run.batch().map(Batch::items).unwrap_or_default();
        self.ledger.outcome(&self.context, &self.facts, items, step, end)
    }

    fn publish_progress(&mut self) {
        let due = self.told.at.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL);
        if due && self.told.doing != self.ledger.doing {
            self.publish_progress_now();
        }
    }

    fn publish_progress_now(&mut self) {
        self.told = LastProgress { at: Some(Instant::now()), doing: self.ledger.doing.clone() };
        let step = self.run.step();
        self.context.journal.progress(Progress {
            phase: step.phase(),
            step,
            turns: self.ledger.turn,
            cost_usd: self.ledger.usage.cost_usd,
            activity: self.ledger.doing.clone(),
            activity_since: self.ledger.since,
            branch: self.facts.prepared.as_ref().map(|prepared| prepared.branch.clone()),
            waiting_for: None,
        });
    }

    fn step_began(&mut self) {
        let step = self.run.step();
        if self.announced_step == Some(step) || step == Step::Report {
            return;
        }
        self.announced_step = Some(step);
        self.step_started = Instant::now();
        self.context.journal.step(step, StepState::Started, None, "");
        self.ledger.set_activity(describe_step(step));
        self.publish_progress_now();
    }

    /// Notes that a step ended, for the log and the outcome.
    fn step_ended(&mut self, step: Step, failed: Option<&str>) {
        let seconds = self.step_started.elapsed().as_secs_f64();
        let state = if failed.is_some() { StepState::Failed } else { StepState::Done };
        self.context.journal.step(step, state, Some(seconds), failed.unwrap_or_default());
        self.ledger.step(step, seconds, failed.is_none());
        self.announced_step = None;
    }

    async fn report(&mut self) {
        self.cancel.cancel();
        if let Some(tools) = self.facts.tools.take() {
            self.ledger.mcp_servers.clone_from(&tools.servers);
            tools.relay.close().await;
        }
        let spared = std::collections::BTreeSet::new();
        let left = crate::process::kill_descendants(&spared).await;
        if !left.is_empty() {
            self.ledger.notes.push(format!("processes that could not be ended: {left:?}"));
        }
        self.ledger.notes.extend(self.run.notes().iter().cloned());
        match self.run.end() {
            RunEnd::StoppedAfter(step) => {
                let at = self.context.layout.root().display();
                self.context.journal.info(format!("stopped after `{step}`, as asked; the workspace is {at}"));
                self.finished = Some(LoopExit::StoppedAfter(step));
            }
            RunEnd::Outcome(failure) => {
                let outcome = self.outcome(self.run.step(), &failure);
                steps::write_report(&self.context, &self.facts, &self.ledger, &outcome);
                self.finished = Some(LoopExit::Outcome(Box::new(outcome)));
            }
        }
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// 0: no stop file; 1: it is there; 2: it says `now`.
fn read_stop_file(path: &Path) -> u8 {
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim() == "now" => 2,
        Ok(_) => 1,
        Err(_) => 0,
    }
}

fn describe_step(step: Step) -> &'static str {
    match step {
        Step::Preflight => "checks what the run needs",
        Step::FetchPlatform => "fetches the documentation",
        Step::FetchTarget => "fetches the code",
        Step::Branch => "prepares the branch",
        Step::Documents => "finds the task's documents",
        Step::Mcp => "starts the MCP servers",
        Step::Agent => "starts the agent",
        Step::Verify => "checks the agent's work",
        Step::Commit => "saves the work",
        Step::Policy => "looks at what would be published",
        Step::Push => "pushes the branch",
        Step::PullRequest => "opens the pull request",
        Step::Report => "writes the outcome",
    }
}
