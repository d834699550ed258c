//! I/O shell around [`RunMachine`]: waits on all sources, feeds the machine, performs its effects.
//!
//! An effect that takes time runs as a task and sends its output as a message. The loop never
//! awaits such work, so signals and deadlines are never late.

mod apply;
mod deadline;
mod docs_sessions;
mod outputs;
mod quota;
mod quota_wait;
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
use tokio_util::sync::CancellationToken;

use crate::agent::log_lines::log_lines;
use crate::agent::reader::IdleTimer;
use crate::agent::session::SessionControl;
use crate::agent::stream::CliMessage;
use crate::agent::watchdog::{AgentActivity, Watchdog};
use crate::context::Context;
use crate::docs::plan::DocsTask;
use crate::failure::Failure;
use crate::homes::remove_all;
use crate::process::reap_orphans;
use crate::run::{Batch, Effect, QuotaBudget, RunEnd, RunEvent, RunMachine, StopMode, StopRequests};
use outputs::{StepOutput, StepOutputs};
use quota_wait::QuotaWait;
use run_report::RunReport;

/// Interval of checking the stop file, limits, deadlines and progress.
const TICK_INTERVAL: Duration = Duration::from_millis(250);

/// Minimum time between two progress events within a step.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// How long the removal of a run's directories may delay its outcome.
const HOME_REMOVAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How the event loop ended.
#[derive(Debug)]
pub enum LoopExit {
    Outcome(Box<Outcome>),
    /// Ended by `--until` after this step.
    StoppedAfter(Step),
}

/// Handled signals: four that stop the run, and SIGCHLD.
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
    outputs: StepOutputs,
    report: RunReport,
    watchdog: Watchdog,
    step_started: Instant,
    announced_step: Option<Step>,
    /// Cancels the running effect.
    cancel: CancellationToken,
    results_tx: mpsc::Sender<StepOutput>,
    /// Active sessions by index.
    sessions: BTreeMap<usize, ActiveSession>,
    messages_tx: mpsc::Sender<(usize, CliMessage)>,
    /// End of the grace period of a terminated agent.
    grace_ends: Option<Instant>,
    stop: StopRequests,
    quota_wait: Option<QuotaWait>,
    last_progress: LastProgress,
    exit: Option<LoopExit>,
}

/// Handle of an active session.
struct ActiveSession {
    controls_tx: mpsc::Sender<SessionControl>,
    idle_timer: IdleTimer,
}

/// Last published progress.
#[derive(Default)]
struct LastProgress {
    at: Option<Instant>,
    shown: ShownProgress,
}

/// What a reader of progress sees. The same command again is progress too: its turns and cost differ.
#[derive(Default, PartialEq)]
struct ShownProgress {
    activity: String,
    turns: u32,
    cost_usd: f64,
}

/// Runs the task to its end.
///
/// # Errors
/// Returns an error if the signal handlers cannot be installed.
pub async fn run(context: Context) -> io::Result<LoopExit> {
    let mut signals = Signals::listen()?;
    let (results_tx, mut results_rx) = mpsc::channel(16);
    let (messages_tx, mut messages_rx) = mpsc::channel(1024);
    let quota = QuotaBudget::from_minutes(context.task.limits.wait_for_quota_minutes);
    let (run, effects) = RunMachine::new(context.settings.until, quota);
    let watchdog = Watchdog::new(&context.task.limits);
    let mut this = EventLoop {
        report: RunReport::new(&context),
        stop: StopRequests::new(context.settings.stop_timeout_seconds.map(seconds)),
        context: Arc::new(context),
        run,
        outputs: StepOutputs::default(),
        watchdog,
        step_started: Instant::now(),
        announced_step: None,
        cancel: CancellationToken::new(),
        results_tx,
        sessions: BTreeMap::new(),
        messages_tx,
        grace_ends: None,
        quota_wait: None,
        last_progress: LastProgress::default(),
        exit: None,
    };
    let mut tick = tokio::time::interval(TICK_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    this.perform_all(effects).await;
    loop {
        if let Some(exit) = this.exit.take() {
            return Ok(exit);
        }
        let event = tokio::select! {
            Some(output) = results_rx.recv() => {
                // Handle the last messages of a session before its end.
                while let Ok((index, message)) = messages_rx.try_recv() {
                    this.on_agent_message(index, &message);
                }
                this.apply_output(output)
            }
            Some((index, message)) = messages_rx.recv() => {
                this.on_agent_message(index, &message);
                None
            }
            _ = signals.terminate.recv() => Some(this.on_signal("SIGTERM")),
            _ = signals.interrupt.recv() => Some(this.on_signal("SIGINT")),
            _ = signals.hangup.recv() => Some(this.on_signal("SIGHUP")),
            _ = signals.quit.recv() => Some(this.on_signal("SIGQUIT")),
            _ = signals.child.recv() => { reap_orphans(); None }
            _ = tick.tick() => this.on_tick(),
        };
        let Some(event) = event else { continue };
        let is_stop = matches!(event, RunEvent::StopRequested(_));
        this.handle_event(event).await;
        // A stop file with `now` is two requests; the next tick may be after the commit.
        if is_stop && let Some(second) = this.poll_stop_file() {
            this.handle_event(second).await;
        }
    }
}

impl EventLoop {
    async fn handle_event(&mut self, event: RunEvent) {
        let before = self.run.step();
        let effects = self.run.handle(event.clone());
        tracing::debug!(?event, ?effects, step = %before, "handled event");
        if let (RunEvent::SessionEnded(..), Some(batch)) = (&event, self.run.batch()) {
            let (progress, failed) = (batch.progress(), batch.failure());
            self.report.set_activity(&progress);
            if self.run.step() != before {
                self.step_ended(before, failed.as_ref().map(|failure| failure.message.as_str()));
            }
        }
        self.record_usage_limit(&event, before);
        self.perform_all(effects).await;
    }

    async fn perform_all(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.announce_step();
            self.perform(effect).await;
        }
    }

    async fn perform(&mut self, effect: Effect) {
        if !matches!(effect, Effect::WaitForQuota(_)) {
            self.end_quota_wait();
        }
        match effect {
            Effect::Perform(step) => self.start_step(step),
            Effect::Cancel => {
                self.cancel.cancel();
                if let Some(prefetch) = self.outputs.prefetch.take() {
                    prefetch.abort();
                }
            }
            Effect::StartAgent(index, prompt) => self.start_session(index, &prompt),
            Effect::TerminateAgent => {
                self.control_sessions(SessionControl::Stop);
                self.grace_ends = Some(Instant::now() + seconds(self.context.settings.agent_grace_seconds));
            }
            Effect::WaitForQuota(wait) => self.start_quota_wait(wait),
            Effect::KillAgent => self.control_sessions(SessionControl::Kill),
            Effect::Verify => self.start_verify(),
            Effect::Push => self.start_push(),
            Effect::KeepInWorkspace(failure) => self.start_keep_in_workspace(failure),
            Effect::PullRequest(mode) => self.start_pull_request(mode),
            Effect::Report => self.finish().await,
        }
    }

    fn control_sessions(&self, control: SessionControl) {
        for session in self.sessions.values() {
            // A session with a full or closed channel is ending already.
            let _ = session.controls_tx.try_send(control);
        }
    }

    fn on_signal(&mut self, signal: &str) -> RunEvent {
        let mode = self.stop.request(Instant::now());
        self.stop_event(mode, signal)
    }

    /// Publishes progress and checks the grace period, stop file, stop deadline and limits.
    fn on_tick(&mut self) -> Option<RunEvent> {
        self.publish_progress();
        if self.grace_ends.is_some_and(|end| Instant::now() >= end) {
            self.grace_ends = None;
            return Some(RunEvent::GracePeriodExpired);
        }
        if let Some(event) = self.poll_stop_file() {
            return Some(event);
        }
        if let Some(mode) = self.stop.poll_deadline(Instant::now()) {
            return Some(self.stop_event(mode, "stop timeout"));
        }
        if let Some(event) = self.poll_quota_wait() {
            return Some(event);
        }
        let activity = AgentActivity {
            elapsed: self.context.clock.elapsed(),
            // A run is idle only when all of its sessions are.
            idle: self.sessions.values().map(|session| session.idle_timer.elapsed()).min(),
            turns: self.report.turns_used(),
            cost_usd: self.report.cost_used(),
        };
        self.watchdog.exceeded(activity).map(RunEvent::LimitReached)
    }

    fn poll_stop_file(&mut self) -> Option<RunEvent> {
        let content = read_stop_file(self.context.settings.stop_file.as_deref()?);
        let mode = self.stop.poll_file(content, Instant::now())?;
        Some(self.stop_event(mode, "stop file"))
    }

    fn stop_event(&self, mode: StopMode, source: &str) -> RunEvent {
        self.context.journal.info(match mode {
            StopMode::Graceful => format!("stop requested ({source})"),
            StopMode::Now => format!("stop requested ({source}); stopping now"),
        });
        RunEvent::StopRequested(mode)
    }

    fn on_agent_message(&mut self, index: usize, message: &CliMessage) {
        let prefix = self.docs_task(index).map(|task| format!("task {}: ", task.task)).unwrap_or_default();
        for line in log_lines(message) {
            let text = format!("{prefix}{}", line.text);
            if line.level == Level::Info {
                let progress = self.run.batch().map(|batch| format!("{}; ", batch.progress()));
                self.report.set_activity(&format!("{}{text}", progress.unwrap_or_default()));
            }
            self.context.journal.log(line.level, "agent", text);
        }
        self.report.record_message(index, message);
    }

    /// Returns the task of a docs session.
    fn docs_task(&self, index: usize) -> Option<&DocsTask> {
        self.outputs.docs.as_ref()?.plan.pending().nth(index)
    }

    /// Returns the outcome as if the run ended now with this failure or success.
    fn outcome(&self, step: Step, end: &Failure) -> Outcome {
        let items = self.run.batch().map(Batch::items).unwrap_or_default();
        self.report.outcome(&self.context, &self.outputs, items, step, end)
    }

    fn publish_progress(&mut self) {
        let is_due = self.last_progress.at.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL);
        if is_due && self.last_progress.shown != self.shown_progress() {
            self.publish_progress_now();
        }
    }

    fn shown_progress(&self) -> ShownProgress {
        ShownProgress {
            activity: self.report.activity.clone(),
            turns: self.report.live_turns(),
            cost_usd: self.report.cost_used(),
        }
    }

    fn publish_progress_now(&mut self) {
        let shown = self.shown_progress();
        let step = self.run.step();
        self.context.journal.progress(Progress {
            phase: step.phase(),
            step,
            turns: shown.turns,
            cost_usd: shown.cost_usd,
            activity: shown.activity.clone(),
            activity_since: self.report.activity_since,
            branch: self.outputs.prepared.as_ref().map(|prepared| prepared.branch.clone()),
            waiting_for: None,
        });
        self.last_progress = LastProgress { at: Some(Instant::now()), shown };
    }

    /// Logs the start of the current step, once.
    fn announce_step(&mut self) {
        let step = self.run.step();
        if self.announced_step == Some(step) || step == Step::Report {
            return;
        }
        self.announced_step = Some(step);
        self.step_started = Instant::now();
        self.context.journal.step(step, StepState::Started, None, "");
        self.report.set_activity(describe_step(step));
        self.publish_progress_now();
    }

    /// Records the end of a step in the log and the outcome.
    fn step_ended(&mut self, step: Step, failed: Option<&str>) {
        let seconds = self.step_started.elapsed().as_secs_f64();
        let state = if failed.is_some() { StepState::Failed } else { StepState::Done };
        self.context.journal.step(step, state, Some(seconds), failed.unwrap_or_default());
        self.report.record_step(step, seconds, failed.is_none());
        self.announced_step = None;
    }

    /// Removes the fresh directories of this run, which nothing uses any more.
    ///
    /// The next run removes what is left after the time limit.
    async fn remove_homes(&self) {
        // Without the lock, the directories belong to another run.
        if self.outputs.preflight.is_none() {
            return;
        }
        let context = Arc::clone(&self.context);
        let removal = tokio::task::spawn_blocking(move || {
            let layout = &context.layout;
            for (site, root, folder) in [
                (&context.agent_site, layout.root().to_owned(), layout.agent_dir()),
                (&context.tool_site, layout.tools_root(), layout.tools_dir()),
            ] {
                // What is left takes space until the next run removes it.
                drop(site.open(&root).map(|guest| remove_all(&guest, &folder)));
            }
        });
        drop(tokio::time::timeout(HOME_REMOVAL_TIMEOUT, removal).await);
    }

    /// Ends everything that still runs and writes the report.
    async fn finish(&mut self) {
        self.cancel.cancel();
        if let Some(tools) = self.outputs.tools.take() {
            self.report.mcp_servers.clone_from(&tools.servers);
            tools.relay.close().await;
        }
        let mut remaining = Vec::new();
        for site in self.context.sites() {
            remaining.extend(site.kill_all().await);
        }
        if !remaining.is_empty() {
            self.report.notes.push(format!("processes that could not be killed: {remaining:?}"));
        }
        self.report.notes.extend(self.run.notes().iter().cloned());
        match self.run.end() {
            RunEnd::StoppedAfter(step) => {
                let root = self.context.layout.root().display();
                self.context.journal.info(format!("stopped after `{step}` (--until); workspace: {root}"));
                self.exit = Some(LoopExit::StoppedAfter(step));
            }
            RunEnd::Outcome(failure) => {
                self.remove_homes().await;
                let outcome = self.outcome(self.run.step(), &failure);
                self.report.write(&self.context, &self.outputs, &outcome);
                self.exit = Some(LoopExit::Outcome(Box::new(outcome)));
            }
        }
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// Returns the mode that the stop file requests; `None` without a readable file.
fn read_stop_file(path: &Path) -> Option<StopMode> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(if text.trim() == "now" { StopMode::Now } else { StopMode::Graceful })
}

/// Returns the activity of a step as people read it in `status`.
fn describe_step(step: Step) -> &'static str {
    match step {
        Step::Preflight => "checking access and credentials",
        Step::FetchPlatform => "fetching the platform repository",
        Step::FetchTarget => "fetching the target repository",
        Step::Branch => "preparing the branch",
        Step::Documents => "reading the task's documents",
        Step::Mcp => "starting the MCP servers",
        Step::Agent => "starting the agent",
        Step::Verify => "running the verify commands",
        Step::Commit => "committing the work",
        Step::Policy => "checking the commits before the push",
        Step::Push => "pushing the branch",
        Step::PullRequest => "publishing the pull request",
        Step::Report => "writing the outcome",
    }
}
