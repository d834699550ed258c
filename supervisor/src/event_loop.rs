//! The dull shell around [`Run`]: waits on all sources, feeds the run, performs its effects.
//!
//! An effect that takes time runs as a task and reports its end as a message;
//! the loop never awaits work, so signals and deadlines are never late.

mod conversations;
mod documents;
mod ledger;
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

use crate::agent::conversation::Control;
use crate::agent::reader::Pulse;
use crate::agent::story::tell;
use crate::agent::stream::Said;
use crate::agent::watchdog::{Seen, Watchdog};
use crate::context::{Context, Facts};
use crate::docs::plan::Subject;
use crate::process::reap_strangers;
use crate::run::{Batch, Effect, End, Event, Failure, Run};
use ledger::Ledger;
use steps::Happened;

/// How often the stop file, the limits and the progress are looked at.
const TICK: Duration = Duration::from_millis(250);

/// Progress is told at each change, at most this often.
const PROGRESS: Duration = Duration::from_secs(10);

/// How the process ends.
#[derive(Debug)]
pub enum Finished {
    /// With an outcome.
    With(Box<Outcome>),
    /// Cut short by `--until`, as asked.
    Cut(Step),
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

struct Loop {
    context: Arc<Context>,
    run: Run,
    facts: Facts,
    ledger: Ledger,
    watchdog: Watchdog,
    started: Instant,
    step_started: Instant,
    told_step: Option<Step>,
    /// Ends the effect that is being performed.
    cancel: CancellationToken,
    /// The code, fetched while the documentation is.
    prefetch: Option<JoinHandle<Happened>>,
    happened: mpsc::Sender<Happened>,
    /// The conversations that are held, by their place in the list.
    talking: BTreeMap<usize, Talking>,
    said: mpsc::Sender<(usize, Said)>,
    grace_ends: Option<Instant>,
    /// When it was first asked to stop.
    stop_asked: Option<Instant>,
    /// Whether it was asked again because its time is over.
    hurried: bool,
    stop_seen: u8,
    told: Told,
    finished: Option<Finished>,
}

/// A conversation that is held.
struct Talking {
    controls: mpsc::Sender<Control>,
    pulse: Pulse,
}

/// What was last told as progress.
struct Told {
    at: Option<Instant>,
    doing: String,
}

/// Runs the task to its end.
///
/// # Errors
/// The system gives no signal handlers.
pub async fn run(context: Context) -> io::Result<Finished> {
    let mut signals = Signals::listen()?;
    let (happened, mut happenings) = mpsc::channel(16);
    let (said, mut sayings) = mpsc::channel(1024);
    let (run, effects) = Run::new(1, context.settings.until);
    let watchdog = Watchdog::new(&context.task.limits);
    let now = Instant::now();
    let mut this = Loop {
        ledger: Ledger::new(&context),
        context: Arc::new(context),
        run,
        facts: Facts::default(),
        watchdog,
        started: now,
        step_started: now,
        told_step: None,
        cancel: CancellationToken::new(),
        prefetch: None,
        happened,
        talking: BTreeMap::new(),
        said,
        grace_ends: None,
        stop_asked: None,
        hurried: false,
        stop_seen: 0,
        told: Told { at: None, doing: String::new() },
        finished: None,
    };
    let mut tick = tokio::time::interval(TICK);
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
                    this.heard(index, &said);
                }
                this.learn(happened)
            }
            Some((index, said)) = sayings.recv() => { this.heard(index, &said); None }
            _ = signals.terminate.recv() => Some(this.asked_to_stop("SIGTERM")),
            _ = signals.interrupt.recv() => Some(this.asked_to_stop("SIGINT")),
            _ = signals.hangup.recv() => Some(this.asked_to_stop("SIGHUP")),
            _ = signals.quit.recv() => Some(this.asked_to_stop("SIGQUIT")),
            _ = signals.child.recv() => { reap_strangers(); None }
            _ = tick.tick() => this.look(),
        };
        if let Some(event) = event {
            let stops = event == Event::StopAsked;
            if stops {
                this.stop_asked.get_or_insert_with(Instant::now);
            }
            this.feed(event).await;
            // "now" is two requests, and a save may be done before the next look.
            if stops && let Some(second) = this.look_at_stop_file() {
                this.feed(second).await;
            }
        }
    }
}

impl Loop {
    async fn feed(&mut self, event: Event) {
        let before = self.run.step();
        let effects = self.run.on(event.clone());
        tracing::debug!(?event, ?effects, step = %before, "fed");
        if let (Event::ItemEnded(..), Some(batch)) = (&event, self.run.batch()) {
            let (progress, failed) = (batch.progress(), batch.failure());
            self.ledger.doing(&progress);
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
            Effect::AskAgentToStop => {
                self.control(Control::Stop);
                self.grace_ends = Some(Instant::now() + seconds(self.context.settings.grace_seconds));
            }
            Effect::KillAgent => self.control(Control::Kill),
            Effect::Verify => self.start_verify(),
            Effect::Push => self.start_push(),
            Effect::Keep(why) => self.start_keep(why),
            Effect::PullRequest(mode) => self.start_pull_request(mode),
            Effect::Report => self.report().await,
        }
    }

    fn control(&self, control: Control) {
        for talking in self.talking.values() {
            // A conversation that no longer listens is ending anyway.
            let _ = talking.controls.try_send(control);
        }
    }

    fn asked_to_stop(&self, by: &str) -> Event {
        self.context.journal.info(format!("asked to stop ({by})"));
        Event::StopAsked
    }

    /// What is looked at again and again: limits, the grace period, the stop file, progress.
    fn look(&mut self) -> Option<Event> {
        self.tell_progress();
        if self.grace_ends.is_some_and(|end| Instant::now() >= end) {
            self.grace_ends = None;
            return Some(Event::GraceEnded);
        }
        if let Some(event) = self.look_at_stop_file() {
            return Some(event);
        }
        if self.is_late_to_stop() && !std::mem::replace(&mut self.hurried, true) {
            return Some(self.asked_to_stop("the time to save and push is over"));
        }
        let seen = Seen {
            elapsed: self.started.elapsed(),
            // One that is silent among others that are not waits for its turn to be the last.
            silent: self.talking.values().map(|talking| talking.pulse.silent()).min(),
            turns: self.ledger.usage.turns,
            cost_usd: self.ledger.usage.cost_usd,
        };
        self.watchdog.reached(seen).map(Event::LimitReached)
    }

    /// Whether it has had all the time that whoever asked it to stop gives it.
    fn is_late_to_stop(&self) -> bool {
        let limit = self.context.settings.stop_seconds.map(seconds);
        self.stop_asked.zip(limit).is_some_and(|(asked, limit)| asked.elapsed() >= limit)
    }

    fn look_at_stop_file(&mut self) -> Option<Event> {
        let path = self.context.settings.stop_file.as_deref()?;
        let wanted = stop_level(path);
        if wanted <= self.stop_seen {
            return None;
        }
        self.stop_seen += 1;
        Some(self.asked_to_stop("stop file"))
    }

    /// Something the agent's program said.
    fn heard(&mut self, index: usize, said: &Said) {
        let name = self.subject(index).map(|subject| format!("task {}: ", subject.task)).unwrap_or_default();
        for line in tell(said) {
            let text = format!("{name}{}", line.text);
            if line.level == Level::Info {
                let progress = self.run.batch().map(|batch| format!("{}; ", batch.progress()));
                self.ledger.doing(&format!("{}{text}", progress.unwrap_or_default()));
            }
            self.context.journal.log(line.level, "agent", text);
        }
        self.ledger.hear(index, said);
    }

    /// The task that a conversation of a docs run is about.
    fn subject(&self, index: usize) -> Option<&Subject> {
        self.facts.writing.as_ref()?.plan.to_write().nth(index)
    }

    /// The outcome as it would be if the run ended now, for this reason.
    fn outcome(&self, step: Step, end: &Failure) -> Outcome {
        let items = self.run.batch().map(Batch::items).unwrap_or_default();
        self.ledger.outcome(&self.context, &self.facts, items, step, end)
    }

    fn tell_progress(&mut self) {
        let due = self.told.at.is_none_or(|at| at.elapsed() >= PROGRESS);
        if due && self.told.doing != self.ledger.doing {
            self.tell_progress_now();
        }
    }

    fn tell_progress_now(&mut self) {
        self.told = Told { at: Some(Instant::now()), doing: self.ledger.doing.clone() };
        let step = self.run.step();
        self.context.journal.progress(Progress {
            phase: step.phase(),
            step,
            turn: self.ledger.turn,
            cost_usd: self.ledger.usage.cost_usd,
            doing: self.ledger.doing.clone(),
            since: self.ledger.since,
            branch: self.facts.prepared.as_ref().map(|prepared| prepared.branch.clone()),
            waiting_for: None,
        });
    }

    fn step_began(&mut self) {
        let step = self.run.step();
        if self.told_step == Some(step) || step == Step::Report {
            return;
        }
        self.told_step = Some(step);
        self.step_started = Instant::now();
        self.context.journal.step(step, StepState::Started, None, "");
        self.ledger.doing(step_in_words(step));
        self.tell_progress_now();
    }

    /// Notes that a step ended, for the log and the outcome.
    fn step_ended(&mut self, step: Step, failed: Option<&str>) {
        let seconds = self.step_started.elapsed().as_secs_f64();
        let state = if failed.is_some() { StepState::Failed } else { StepState::Done };
        self.context.journal.step(step, state, Some(seconds), failed.unwrap_or_default());
        self.ledger.step(step, seconds, failed.is_none());
        self.told_step = None;
    }

    async fn report(&mut self) {
        self.cancel.cancel();
        if let Some(tools) = self.facts.tools.take() {
            self.ledger.mcp_servers.clone_from(&tools.servers);
            tools.relay.close().await;
        }
        let spared = std::collections::BTreeSet::new();
        let left = crate::process::end_all(&spared).await;
        if !left.is_empty() {
            self.ledger.notes.push(format!("processes that could not be ended: {left:?}"));
        }
        self.ledger.notes.extend(self.run.notes().iter().cloned());
        match self.run.end() {
            End::Cut(step) => {
                let at = self.context.layout.root().display();
                self.context.journal.info(format!("stopped after `{step}`, as asked; the workspace is {at}"));
                self.finished = Some(Finished::Cut(step));
            }
            End::Ended(failure) => {
                let outcome = self.outcome(self.run.step(), &failure);
                steps::write_report(&self.context, &self.facts, &self.ledger, &outcome);
                self.finished = Some(Finished::With(Box::new(outcome)));
            }
        }
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// 0: no stop file; 1: it is there; 2: it says `now`.
fn stop_level(path: &Path) -> u8 {
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim() == "now" => 2,
        Ok(_) => 1,
        Err(_) => 0,
    }
}

fn step_in_words(step: Step) -> &'static str {
    match step {
        Step::Check => "checks what the run needs",
        Step::Platform => "fetches the documentation",
        Step::Target => "fetches the code",
        Step::Branch => "prepares the branch",
        Step::Documents => "finds the task's documents",
        Step::Mcp => "starts the MCP servers",
        Step::Agent => "starts the agent",
        Step::Verify => "checks the agent's work",
        Step::Save => "saves the work",
        Step::Policy => "looks at what would be published",
        Step::Push => "pushes the branch",
        Step::PullRequest => "opens the pull request",
        Step::Report => "writes the outcome",
    }
}
