//! The life of one run, as a value.
//!
//! [`Run::on`] is the only place that decides what happens next. It never
//! waits, never reads a clock and never touches a file, so every order of
//! events can be tested as a list.

mod batch;

use orchestrator_contract::outcome::VerdictStatus;
use orchestrator_contract::{Reason, Step};

pub use batch::{Batch, DocsSessionResult, DocsSessionStatus};

/// Why something went wrong: the reason, and the message that people read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The reason of the contract.
    pub reason: Reason,
    /// What happened to which object; the hint is added when it is printed.
    pub message: String,
}

impl Failure {
    /// A failure with its message.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// A limit of the task.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limit {
    /// Wall time.
    Time,
    /// No output of the agent.
    Silence,
    /// US dollars.
    Cost,
    /// Agent turns.
    Turns,
}

impl Limit {
    /// The reason of a run that this limit ended.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Time => Reason::TimeLimit,
            Self::Silence => Reason::IdleLimit,
            Self::Cost => Reason::CostLimit,
            Self::Turns => Reason::TurnLimit,
        }
    }
}

/// How one conversation ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SessionOutcome {
    /// With a verdict that the schema accepted.
    Verdict(VerdictStatus, String),
    /// Without one.
    Failed(Failure),
}

/// What the verify commands said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum VerifyResult {
    /// All succeeded, or there are none.
    Passed,
    /// One failed; the text tells the agent which, and how.
    Failed(String),
    /// They could not be run at all.
    Error(Failure),
}

/// Something that happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RunEvent {
    /// A step did what it should.
    StepDone(Step),
    /// A step did not.
    StepFailed(Step, Failure),
    /// The agent is gone, its output is read to the end, nothing of it is alive.
    AgentEnded(SessionOutcome),
    /// The same for one conversation of a batch, whose documents were looked at.
    SessionEnded(usize, DocsSessionResult),
    /// The verify commands ended.
    Verified(VerifyResult),
    /// The work is committed; so many commits are not in the base.
    Saved(u32),
    /// The work is where the ladder could bring it. Some failure means: not as a plain push.
    Pushed(Option<Failure>),
    /// Somebody asks the run to stop.
    StopRequested,
    /// A limit of the task is reached.
    LimitReached(Limit),
    /// The agent's time to stop by itself is over.
    GracePeriodExpired,
}

/// What the agent is told when it is started.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AgentPrompt {
    /// The task.
    Task,
    /// The checks failed with this text.
    VerificationFailed(String),
}

/// Whether the pull request may be opened, or only added to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PullRequestMode {
    /// Open or update it.
    Open,
    /// Add to one that is open; open none.
    CommentIfOpen,
}

/// Something to do. The event loop performs it and decides nothing itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Perform a step of the preparation, or save, policy.
    Perform(Step),
    /// Give up the step or the checks that are being performed.
    Cancel,
    /// Start a conversation of the list, or go on with it.
    StartAgent(usize, AgentPrompt),
    /// Ask the agent's process groups to stop, and start the grace timer.
    TerminateAgent,
    /// Kill everything the agent started.
    KillAgent,
    /// Run the verify commands.
    Verify,
    /// Bring the work to a safe place, beginning with the branch itself.
    Push,
    /// Keep the work in the workspace: it may not be pushed, or there is no time.
    KeepInWorkspace(Failure),
    /// Open, update or add to the pull request.
    PullRequest(PullRequestMode),
    /// Write the outcome and leave.
    Report,
}

/// Where the run stands.
#[derive(Clone, Debug, Eq, PartialEq)]
enum State {
    Preparing(Step),
    Agent {
        conversation: usize,
        round: VerifyAttempt,
    },
    /// The conversations of a batch are held.
    Batch(BatchState),
    /// The agent was told to stop, or is being killed.
    Stopping {
        killed: bool,
    },
    Verifying {
        attempt: VerifyAttempt,
    },
    /// The checks were given up; their processes are being ended.
    CancellingVerify,
    Publishing(Step),
    Done,
}

/// Whether the conversations of a batch may go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum BatchState {
    Running,
    /// They were told to stop, or are being killed.
    Stopping {
        killed: bool,
    },
}

/// How often the checks have sent the agent back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum VerifyAttempt {
    First,
    Second,
}

/// The life of one run.
#[derive(Clone, Debug)]
pub struct RunMachine {
    state: State,
    conversations: usize,
    /// The conversations of a docs run, once it is known which documents are missing.
    batch: Option<Batch>,
    until: Option<Step>,
    verdict: Option<VerdictStatus>,
    commits: u32,
    /// The end that is decided, while the work is still being brought home.
    failure: Option<Failure>,
    already_done: bool,
    stop_requested: bool,
    /// A second request to stop means: skip the push, save locally, go.
    stop_now: bool,
    stopped_early: bool,
    /// Failures after the one that decided the end.
    notes: Vec<String>,
}

/// How the run ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RunEnd {
    /// With this reason; the message is empty where the reason says it all.
    Outcome(Failure),
    /// Cut short by `--until`: the run has no outcome.
    StoppedAfter(Step),
}

impl RunMachine {
    /// A run of so many conversations, perhaps cut short after a step, and its first effect.
    #[must_use]
    pub fn new(conversations: usize, until: Option<Step>) -> (Self, Vec<Effect>) {
        let run = Self {
            state: State::Preparing(Step::Preflight),
            conversations,
            batch: None,
            until,
            verdict: None,
            commits: 0,
            failure: None,
            already_done: false,
            stop_requested: false,
            stop_now: false,
            stopped_early: false,
            notes: Vec::new(),
        };
        (run, vec![Effect::Perform(Step::Preflight)])
    }

    /// From now on the agent's step is this batch. Must come before the documents step is done.
    pub fn set_batch(&mut self, batch: Batch) {
        self.batch = Some(batch);
    }

    /// The batch of a docs run, once it is known.
    #[must_use]
    pub fn batch(&self) -> Option<&Batch> {
        self.batch.as_ref()
    }

    /// The step that the run is in.
    #[must_use]
    pub fn step(&self) -> Step {
        match &self.state {
            State::Preparing(step) | State::Publishing(step) => *step,
            State::Agent { .. } | State::Batch(_) | State::Stopping { .. } => Step::Agent,
            State::Verifying { .. } | State::CancellingVerify => Step::Verify,
            State::Done => Step::Report,
        }
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// What else went wrong, for the outcome's notes.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// How the run ends, as far as it is decided.
    #[must_use]
    pub fn end(&self) -> RunEnd {
        if self.stopped_early {
            return RunEnd::StoppedAfter(self.until.unwrap_or(Step::Report));
        }
        RunEnd::Outcome(match (&self.failure, self.already_done) {
            (Some(failure), _) => failure.clone(),
            (None, true) => Failure::new(Reason::AlreadyDone, ""),
            (None, false) => Failure::new(Reason::Completed, ""),
        })
    }

    /// Moves the run on by one event and says what to do about it.
    pub fn handle(&mut self, event: RunEvent) -> Vec<Effect> {
        match event {
            RunEvent::StopRequested => self.stop_asked(),
            RunEvent::LimitReached(limit) => self.limit(limit),
            RunEvent::GracePeriodExpired => {
                // A late timer after the end is normal.
                self.kill()
            }
            RunEvent::StepDone(step) => self.step_done(step),
            RunEvent::StepFailed(step, failure) => self.step_failed(step, failure),
            RunEvent::AgentEnded(end) => self.agent_ended(end),
            RunEvent::SessionEnded(index, end) => self.item_ended(index, end),
            RunEvent::Verified(verified) => self.verified(verified),
            RunEvent::Saved(commits) => self.saved(commits),
            RunEvent::Pushed(failure) => self.pushed(failure),
        }
    }

    /// Somebody asks the run to stop: the first time with time to save and push, then at once.
    fn stop_asked(&mut self) -> Vec<Effect> {
        let again = std::mem::replace(&mut self.stop_requested, true);
        let failure = Failure::new(Reason::Stopped, "the run was stopped as asked");
        if !again {
            return self.stop(failure);
        }
        self.stop_now = true;
        self.fail(failure);
        match self.state {
            State::Stopping { .. } | State::Batch(_) => self.kill(),
            State::Publishing(Step::Push | Step::PullRequest) => vec![Effect::Cancel],
            // Saving is local and quick; everything else is already being ended.
            State::Preparing(_)
            | State::Agent { .. }
            | State::Verifying { .. }
            | State::CancellingVerify
            | State::Publishing(_)
            | State::Done => vec![],
        }
    }

    /// Kills an agent that was asked to stop and has not.
    fn kill(&mut self) -> Vec<Effect> {
        match self.state {
            State::Stopping { killed: false } => self.state = State::Stopping { killed: true },
            State::Batch(BatchState::Stopping { killed: false }) => {
                self.state = State::Batch(BatchState::Stopping { killed: true });
            }
            State::Preparing(_)
            | State::Agent { .. }
            | State::Batch(_)
            | State::Stopping { killed: true }
            | State::Verifying { .. }
            | State::CancellingVerify
            | State::Publishing(_)
            | State::Done => return vec![],
        }
        vec![Effect::KillAgent]
    }

    /// Ends what is going on, whoever asked.
    fn stop(&mut self, failure: Failure) -> Vec<Effect> {
        match self.state {
            State::Preparing(_) => {
                self.fail(failure);
                self.report(vec![Effect::Cancel])
            }
            State::Agent { .. } => {
                self.fail(failure);
                self.state = State::Stopping { killed: false };
                vec![Effect::TerminateAgent]
            }
            State::Batch(BatchState::Running) => {
                self.fail(failure);
                if let Some(batch) = &mut self.batch {
                    batch.close();
                }
                self.state = State::Batch(BatchState::Stopping { killed: false });
                vec![Effect::TerminateAgent]
            }
            State::Verifying { .. } => {
                self.fail(failure);
                self.state = State::CancellingVerify;
                vec![Effect::Cancel]
            }
            // The end is near and bounded: what is decided is brought home.
            State::Batch(BatchState::Stopping { .. })
            | State::Stopping { .. }
            | State::CancellingVerify
            | State::Publishing(_)
            | State::Done => vec![],
        }
    }

    fn limit(&mut self, limit: Limit) -> Vec<Effect> {
        let text = match limit {
            Limit::Time => "the run used up its minutes",
            Limit::Silence => "the agent printed nothing for the allowed minutes",
            Limit::Cost => "the agent used up its budget",
            Limit::Turns => "the agent used up its turns",
        };
        self.stop(Failure::new(limit.reason(), text))
    }

    fn step_done(&mut self, step: Step) -> Vec<Effect> {
        if self.state != State::Preparing(step) && self.state != State::Publishing(step) {
            // A step that was given up and ended all the same.
            return vec![];
        }
        if self.until == Some(step) {
            return self.stop_after_step();
        }
        match step {
            Step::Preflight => self.prepare(Step::FetchPlatform),
            Step::FetchPlatform => self.prepare(Step::FetchTarget),
            Step::FetchTarget => self.prepare(Step::Branch),
            Step::Branch => self.prepare(Step::Documents),
            // Without anything to write there is nothing to ask servers for; what earlier
            // attempts wrote may still have to be brought home.
            Step::Documents if self.batch.as_ref().is_some_and(Batch::is_empty) => self.batch_over(),
            Step::Documents => self.prepare(Step::Mcp),
            Step::Mcp if self.batch.is_some() => {
                self.state = State::Batch(BatchState::Running);
                self.batch.as_mut().map(Batch::begin).map(start).unwrap_or_default()
            }
            Step::Mcp => {
                self.state = State::Agent { conversation: 0, round: VerifyAttempt::First };
                vec![Effect::StartAgent(0, AgentPrompt::Task)]
            }
            Step::Policy => self.push(),
            Step::PullRequest => self.report(vec![]),
            // These end with events of their own.
            Step::Agent | Step::Verify | Step::Commit | Step::Push | Step::Report => vec![],
        }
    }

    fn step_failed(&mut self, step: Step, failure: Failure) -> Vec<Effect> {
        if self.state != State::Preparing(step) && self.state != State::Publishing(step) {
            return vec![];
        }
        match step {
            Step::Policy => {
                self.fail(failure.clone());
                self.state = State::Publishing(Step::Push);
                vec![Effect::KeepInWorkspace(failure)]
            }
            Step::Preflight
            | Step::FetchPlatform
            | Step::FetchTarget
            | Step::Branch
            | Step::Documents
            | Step::Mcp
            | Step::Agent
            | Step::Verify
            | Step::Commit
            | Step::Push
            | Step::PullRequest
            | Step::Report => {
                self.fail(failure);
                self.report(vec![])
            }
        }
    }

    fn agent_ended(&mut self, end: SessionOutcome) -> Vec<Effect> {
        match (self.state.clone(), end) {
            (State::Agent { conversation, round }, SessionOutcome::Verdict(status, text)) => {
                self.verdict = Some(status);
                match status {
                    VerdictStatus::Blocked => {
                        self.fail(Failure::new(Reason::AgentBlocked, format!("the agent asks: {text}")));
                        self.save()
                    }
                    VerdictStatus::Done | VerdictStatus::AlreadyDone => {
                        if round == VerifyAttempt::First && conversation + 1 < self.conversations {
                            let next = conversation + 1;
                            self.state = State::Agent { conversation: next, round };
                            return vec![Effect::StartAgent(next, AgentPrompt::Task)];
                        }
                        if self.until == Some(Step::Agent) {
                            return self.stop_after_step();
                        }
                        self.state = State::Verifying { attempt: round };
                        vec![Effect::Verify]
                    }
                }
            }
            (State::Agent { .. }, SessionOutcome::Failed(failure)) => {
                self.fail(failure);
                self.save()
            }
            // It was told to stop; how it ended no longer matters.
            (State::Stopping { .. }, _) => self.save(),
            // An agent that could not be stopped in time and ended later.
            _ => vec![],
        }
    }

    fn item_ended(&mut self, index: usize, end: DocsSessionResult) -> Vec<Effect> {
        let (State::Batch(_), Some(batch)) = (&self.state, &mut self.batch) else { return vec![] };
        let next = batch.ended(index, end);
        if batch.is_over() {
            return self.batch_over();
        }
        start(next)
    }

    fn batch_over(&mut self) -> Vec<Effect> {
        let Some(batch) = &self.batch else { return vec![] };
        let wrote = batch.items().contains(&DocsSessionStatus::Written);
        self.verdict = Some(if wrote { VerdictStatus::Done } else { VerdictStatus::AlreadyDone });
        // Of a run that was stopped it is said that it was; the items tell the rest.
        if let Some(failure) = batch.failure() {
            self.fail(failure);
        }
        if self.until == Some(Step::Agent) {
            return self.stop_after_step();
        }
        self.save()
    }

    fn verified(&mut self, verified: VerifyResult) -> Vec<Effect> {
        let round = match self.state {
            State::Verifying { attempt: round } => round,
            State::CancellingVerify => return self.save(),
            State::Preparing(_)
            | State::Agent { .. }
            | State::Batch(_)
            | State::Stopping { .. }
            | State::Publishing(_)
            | State::Done => return vec![],
        };
        match (verified, round) {
            (VerifyResult::Passed, _) => {
                if self.until == Some(Step::Verify) {
                    return self.stop_after_step();
                }
                self.save()
            }
            (VerifyResult::Failed(text), VerifyAttempt::First) => {
                let last = self.conversations.saturating_sub(1);
                self.state = State::Agent { conversation: last, round: VerifyAttempt::Second };
                vec![Effect::StartAgent(last, AgentPrompt::VerificationFailed(text))]
            }
            (VerifyResult::Failed(text), VerifyAttempt::Second) => {
                let first_line = text.lines().next().unwrap_or_default();
                self.fail(Failure::new(Reason::VerificationFailed, first_line));
                self.save()
            }
            (VerifyResult::Error(failure), _) => {
                self.fail(failure);
                self.save()
            }
        }
    }

    fn saved(&mut self, commits: u32) -> Vec<Effect> {
        if self.state != State::Publishing(Step::Commit) {
            return vec![];
        }
        self.commits = commits;
        if self.until == Some(Step::Commit) {
            return self.stop_after_step();
        }
        if commits > 0 {
            self.state = State::Publishing(Step::Policy);
            return vec![Effect::Perform(Step::Policy)];
        }
        if self.failure.is_none() {
            match self.verdict {
                Some(VerdictStatus::AlreadyDone) => self.already_done = true,
                Some(VerdictStatus::Done | VerdictStatus::Blocked) | None => {
                    self.fail(Failure::new(
                        Reason::NoChanges,
                        "the agent says it is done but changed nothing",
                    ));
                }
            }
        }
        if self.stop_now {
            return self.report(vec![]);
        }
        self.pull_request(PullRequestMode::CommentIfOpen)
    }

    fn push(&mut self) -> Vec<Effect> {
        self.state = State::Publishing(Step::Push);
        if self.stop_now {
            let failure = Failure::new(Reason::Stopped, "there was no time for a push");
            return vec![Effect::KeepInWorkspace(failure)];
        }
        vec![Effect::Push]
    }

    fn pushed(&mut self, failure: Option<Failure>) -> Vec<Effect> {
        if self.state != State::Publishing(Step::Push) {
            return vec![];
        }
        let plain = failure.is_none();
        if let Some(failure) = failure {
            self.fail(failure);
        } else if self.until == Some(Step::Push) {
            return self.stop_after_step();
        }
        if self.stop_now || !plain {
            return self.report(vec![]);
        }
        let mode =
            if self.failure.is_none() { PullRequestMode::Open } else { PullRequestMode::CommentIfOpen };
        self.pull_request(mode)
    }

    fn pull_request(&mut self, mode: PullRequestMode) -> Vec<Effect> {
        self.state = State::Publishing(Step::PullRequest);
        vec![Effect::PullRequest(mode)]
    }

    fn prepare(&mut self, step: Step) -> Vec<Effect> {
        self.state = State::Preparing(step);
        vec![Effect::Perform(step)]
    }

    fn save(&mut self) -> Vec<Effect> {
        self.state = State::Publishing(Step::Commit);
        vec![Effect::Perform(Step::Commit)]
    }

    fn report(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        self.state = State::Done;
        effects.push(Effect::Report);
        effects
    }

    fn stop_after_step(&mut self) -> Vec<Effect> {
        self.stopped_early = true;
        self.report(vec![])
    }

    /// The first failure decides the end; later ones are notes.
    fn fail(&mut self, failure: Failure) {
        match &self.failure {
            None => self.failure = Some(failure),
            Some(first) if first.reason == failure.reason => {}
            Some(_) => self.notes.push(format!("{}: {}", failure.reason, failure.message)),
        }
    }
}

fn start(next: Vec<(usize, AgentPrompt)>) -> Vec<Effect> {
    next.into_iter().map(|(index, message)| Effect::StartAgent(index, message)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PREPARED: [RunEvent; 6] = [
        RunEvent::StepDone(Step::Preflight),
        RunEvent::StepDone(Step::FetchPlatform),
        RunEvent::StepDone(Step::FetchTarget),
        RunEvent::StepDone(Step::Branch),
        RunEvent::StepDone(Step::Documents),
        RunEvent::StepDone(Step::Mcp),
    ];

    fn done() -> RunEvent {
        RunEvent::AgentEnded(SessionOutcome::Verdict(VerdictStatus::Done, String::new()))
    }

    fn failed(reason: Reason) -> Failure {
        Failure::new(reason, "because")
    }

    /// Feeds a prepared run; returns the reason and the effects after `StartAgent`.
    fn play(events: &[RunEvent]) -> (RunEnd, Vec<Effect>, RunMachine) {
        let (mut run, mut effects) = RunMachine::new(1, None);
        for event in PREPARED.iter().chain(events) {
            effects.extend(run.handle(event.clone()));
        }
        let started = effects.iter().position(|effect| matches!(effect, Effect::StartAgent(..)));
        let after = effects.split_off(started.map_or(effects.len(), |at| at + 1));
        (run.end(), after, run)
    }

    fn reason(end: &RunEnd) -> Reason {
        match end {
            RunEnd::Outcome(failure) => failure.reason,
            RunEnd::StoppedAfter(_) => panic!("cut"),
        }
    }

    #[test]
    fn successful_run_takes_steps_in_order() {
        let (end, effects, run) = play(&[
            done(),
            RunEvent::Verified(VerifyResult::Passed),
            RunEvent::Saved(1),
            RunEvent::StepDone(Step::Policy),
            RunEvent::Pushed(None),
            RunEvent::StepDone(Step::PullRequest),
        ]);
        assert_eq!(reason(&end), Reason::Completed);
        assert!(run.is_done());
        assert_eq!(
            effects,
            [
                Effect::Verify,
                Effect::Perform(Step::Commit),
                Effect::Perform(Step::Policy),
                Effect::Push,
                Effect::PullRequest(PullRequestMode::Open),
                Effect::Report,
            ]
        );
    }

    #[test]
    fn graceful_stop_pushes_work_without_opening_pull_request() {
        let (end, effects, _) = play(&[
            RunEvent::StopRequested,
            RunEvent::AgentEnded(SessionOutcome::Failed(failed(Reason::AgentFailed))),
            RunEvent::Saved(2),
            RunEvent::StepDone(Step::Policy),
            RunEvent::Pushed(None),
            RunEvent::StepDone(Step::PullRequest),
        ]);
        assert_eq!(reason(&end), Reason::Stopped);
        assert_eq!(
            effects,
            [
                Effect::TerminateAgent,
                Effect::Perform(Step::Commit),
                Effect::Perform(Step::Policy),
                Effect::Push,
                Effect::PullRequest(PullRequestMode::CommentIfOpen),
                Effect::Report,
            ]
        );
    }

    #[test]
    fn second_stop_kills_agent_without_push() {
        let (_, effects, _) = play(&[
            RunEvent::StopRequested,
            RunEvent::StopRequested,
            RunEvent::AgentEnded(SessionOutcome::Failed(failed(Reason::AgentFailed))),
            RunEvent::Saved(1),
            RunEvent::StepDone(Step::Policy),
        ]);
        assert_eq!(effects[..2], [Effect::TerminateAgent, Effect::KillAgent]);
        assert!(matches!(effects.last(), Some(Effect::KeepInWorkspace(_))), "{effects:?}");
    }

    #[test]
    fn stop_during_publish_cancels_only_when_repeated() {
        let published =
            [done(), RunEvent::Verified(VerifyResult::Passed), RunEvent::Saved(1), RunEvent::StopRequested];
        let home =
            [RunEvent::StepDone(Step::Policy), RunEvent::Pushed(None), RunEvent::StepDone(Step::PullRequest)];
        let (end, ..) = play(&[&published[..], &home[..]].concat());
        assert_eq!(reason(&end), Reason::Completed);
        let (end, effects, _) = play(&[&published[..], &home[..1], &[RunEvent::StopRequested]].concat());
        assert_eq!(reason(&end), Reason::Stopped);
        assert_eq!(effects.last(), Some(&Effect::Cancel));
    }

    #[test]
    fn stop_now_skips_pull_request() {
        let saving = [
            done(),
            RunEvent::Verified(VerifyResult::Passed),
            RunEvent::StopRequested,
            RunEvent::StopRequested,
        ];
        let (end, effects, _) = play(&[&saving[..], &[RunEvent::Saved(0)]].concat());
        assert_eq!(reason(&end), Reason::Stopped);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::PullRequest(_))), "{effects:?}");
    }

    #[test]
    fn failed_verification_returns_to_agent_once() {
        let (end, effects, _) = play(&[
            done(),
            RunEvent::Verified(VerifyResult::Failed("`cargo test` failed".to_owned())),
            done(),
            RunEvent::Verified(VerifyResult::Failed("`cargo test` failed again".to_owned())),
            RunEvent::Saved(1),
            RunEvent::StepDone(Step::Policy),
            RunEvent::Pushed(None),
        ]);
        assert_eq!(reason(&end), Reason::VerificationFailed);
        let starts = effects.iter().filter(|effect| matches!(effect, Effect::StartAgent(..))).count();
        assert_eq!(starts, 1, "{effects:?}");
        assert_eq!(effects.last(), Some(&Effect::PullRequest(PullRequestMode::CommentIfOpen)));
    }

    #[test]
    fn done_without_changes_ends_as_no_changes() {
        let (end, ..) = play(&[done(), RunEvent::Verified(VerifyResult::Passed), RunEvent::Saved(0)]);
        assert_eq!(reason(&end), Reason::NoChanges);
    }

    #[test]
    fn already_done_requires_verdict_with_unchanged_branch() {
        let nothing =
            RunEvent::AgentEnded(SessionOutcome::Verdict(VerdictStatus::AlreadyDone, String::new()));
        let (end, ..) =
            play(&[nothing.clone(), RunEvent::Verified(VerifyResult::Passed), RunEvent::Saved(0)]);
        assert_eq!(reason(&end), Reason::AlreadyDone);
        let (end, effects, _) =
            play(&[nothing, RunEvent::Verified(VerifyResult::Passed), RunEvent::Saved(1)]);
        assert_eq!(reason(&end), Reason::Completed);
        assert_eq!(effects.last(), Some(&Effect::Perform(Step::Policy)));
    }

    #[test]
    fn secret_in_commit_keeps_work_in_workspace() {
        let (end, effects, _) = play(&[
            done(),
            RunEvent::Verified(VerifyResult::Passed),
            RunEvent::Saved(1),
            RunEvent::StepFailed(Step::Policy, failed(Reason::SecretInCommit)),
            RunEvent::Pushed(Some(failed(Reason::SecretInCommit))),
        ]);
        assert_eq!(reason(&end), Reason::SecretInCommit);
        assert!(!effects.contains(&Effect::Push));
        assert_eq!(effects.last(), Some(&Effect::Report));
    }

    #[test]
    fn push_failure_after_agent_failure_is_only_noted() {
        let (end, _, run) = play(&[
            RunEvent::AgentEnded(SessionOutcome::Failed(failed(Reason::AgentFailed))),
            RunEvent::Saved(1),
            RunEvent::StepDone(Step::Policy),
            RunEvent::Pushed(Some(failed(Reason::PushRejected))),
        ]);
        assert_eq!(reason(&end), Reason::AgentFailed);
        assert_eq!(run.notes(), ["PushRejected: because"]);
    }

    #[test]
    fn stop_during_preflight_starts_no_agent() {
        let (mut run, _) = RunMachine::new(1, None);
        assert_eq!(run.handle(RunEvent::StopRequested), [Effect::Cancel, Effect::Report]);
        assert_eq!(run.handle(RunEvent::StepDone(Step::Preflight)), []);
        assert_eq!(reason(&run.end()), Reason::Stopped);
    }

    #[test]
    fn until_stops_after_step_without_outcome() {
        let (mut run, _) = RunMachine::new(1, Some(Step::FetchPlatform));
        assert_eq!(run.handle(PREPARED[0].clone()), [Effect::Perform(Step::FetchPlatform)]);
        assert_eq!(run.handle(PREPARED[1].clone()), [Effect::Report]);
        assert_eq!(run.end(), RunEnd::StoppedAfter(Step::FetchPlatform));
    }

    #[test]
    fn planned_sessions_run_sequentially() {
        let (mut run, _) = RunMachine::new(2, None);
        for event in PREPARED {
            run.handle(event);
        }
        assert_eq!(run.handle(done()), [Effect::StartAgent(1, AgentPrompt::Task)]);
        assert_eq!(run.handle(done()), [Effect::Verify]);
    }

    /// A prepared run of so many documents, and its effects so far.
    fn documents(tasks: usize, at_once: usize) -> (RunMachine, Vec<Effect>) {
        let (mut run, mut effects) = RunMachine::new(1, None);
        run.set_batch(Batch::new((0..tasks).map(|task| format!("task {task}")).collect(), at_once));
        for event in PREPARED {
            effects.extend(run.handle(event));
        }
        (run, effects)
    }

    #[test]
    fn docs_run_publishes_all_sessions_together() {
        let (mut run, mut effects) = documents(2, 1);
        for event in [
            RunEvent::SessionEnded(0, DocsSessionResult::Written),
            RunEvent::SessionEnded(1, DocsSessionResult::Rejected(vec!["a stub".to_owned()])),
            RunEvent::SessionEnded(1, DocsSessionResult::Written),
            RunEvent::Saved(2),
            RunEvent::StepDone(Step::Policy),
            RunEvent::Pushed(None),
            RunEvent::StepDone(Step::PullRequest),
        ] {
            effects.extend(run.handle(event));
        }
        assert_eq!(reason(&run.end()), Reason::Completed);
        let expected = [
            Effect::StartAgent(0, AgentPrompt::Task),
            Effect::StartAgent(1, AgentPrompt::Task),
            Effect::StartAgent(1, AgentPrompt::VerificationFailed("a stub".to_owned())),
            Effect::Perform(Step::Commit),
            Effect::Perform(Step::Policy),
            Effect::Push,
            Effect::PullRequest(PullRequestMode::Open),
            Effect::Report,
        ];
        assert!(effects.ends_with(&expected), "{effects:?}");
    }

    #[test]
    fn stopped_docs_run_pushes_written_documents() {
        let (mut run, _) = documents(3, 2);
        run.handle(RunEvent::SessionEnded(0, DocsSessionResult::Written));
        assert_eq!(run.handle(RunEvent::StopRequested), [Effect::TerminateAgent]);
        assert_eq!(run.handle(RunEvent::GracePeriodExpired), [Effect::KillAgent]);
        let killed = || DocsSessionResult::Failed(failed(Reason::AgentFailed));
        assert_eq!(run.handle(RunEvent::SessionEnded(1, killed())), []);
        assert_eq!(run.handle(RunEvent::SessionEnded(2, killed())), [Effect::Perform(Step::Commit)]);
        run.handle(RunEvent::Saved(1));
        assert_eq!(run.handle(RunEvent::StepDone(Step::Policy)), [Effect::Push]);
        assert_eq!(run.handle(RunEvent::Pushed(None)), [Effect::PullRequest(PullRequestMode::CommentIfOpen)]);
        assert_eq!(reason(&run.end()), Reason::Stopped);
    }

    #[test]
    fn docs_run_without_missing_documents_starts_no_agent() {
        let (mut run, effects) = documents(0, 2);
        assert_eq!(effects.last(), Some(&Effect::Perform(Step::Commit)));
        assert!(!effects.contains(&Effect::Perform(Step::Mcp)));
        assert_eq!(run.handle(RunEvent::Saved(0)), [Effect::PullRequest(PullRequestMode::CommentIfOpen)]);
        assert_eq!(reason(&run.end()), Reason::AlreadyDone);
    }

    fn any_event() -> impl Strategy<Value = RunEvent> {
        let step = prop::sample::select(Step::ALL.to_vec());
        prop_oneof![
            step.clone().prop_map(RunEvent::StepDone),
            step.prop_map(|step| RunEvent::StepFailed(step, failed(Reason::InternalError))),
            prop::sample::select(vec![
                VerdictStatus::Done,
                VerdictStatus::AlreadyDone,
                VerdictStatus::Blocked
            ])
            .prop_map(|status| RunEvent::AgentEnded(SessionOutcome::Verdict(status, String::new()))),
            Just(RunEvent::AgentEnded(SessionOutcome::Failed(failed(Reason::AgentFailed)))),
            (0_usize..3).prop_map(|index| RunEvent::SessionEnded(index, DocsSessionResult::Written)),
            (0_usize..3)
                .prop_map(|index| RunEvent::SessionEnded(index, DocsSessionResult::Rejected(Vec::new()))),
            (0_usize..3).prop_map(|index| {
                RunEvent::SessionEnded(index, DocsSessionResult::Failed(failed(Reason::AgentFailed)))
            }),
            Just(RunEvent::Verified(VerifyResult::Passed)),
            Just(RunEvent::Verified(VerifyResult::Failed(String::new()))),
            (0u32..2).prop_map(RunEvent::Saved),
            Just(RunEvent::Pushed(None)),
            Just(RunEvent::Pushed(Some(failed(Reason::PushRejected)))),
            Just(RunEvent::StopRequested),
            Just(RunEvent::LimitReached(Limit::Time)),
            Just(RunEvent::GracePeriodExpired),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order: one report at most and it is the last effect; success
        /// only with a pushed branch or a verdict of nothing needed; no agent after a stop.
        #[test]
        fn run_machine_invariants_hold_for_any_event_order(
            tasks in prop::option::of(0_usize..3), events in prop::collection::vec(any_event(), 0..40),
        ) {
            let (mut run, mut effects) = match tasks {
                None => RunMachine::new(1, None),
                Some(tasks) => documents(tasks, 2),
            };
            let mut stopped = false;
            for event in events {
                let stop = event == RunEvent::StopRequested;
                let before = effects.len();
                effects.extend(run.handle(event));
                if stopped {
                    let starts = effects[before..].iter().any(|e| matches!(e, Effect::StartAgent(..)));
                    let publishing = matches!(run.step(), Step::Commit | Step::Policy | Step::Push | Step::PullRequest | Step::Report);
                    prop_assert!(!starts || !publishing);
                }
                stopped |= stop;
            }
            let reports = effects.iter().filter(|effect| **effect == Effect::Report).count();
            prop_assert!(reports <= 1);
            prop_assert_eq!(run.is_done(), reports == 1);
            if reports == 1 {
                prop_assert_eq!(effects.last(), Some(&Effect::Report));
                if reason(&run.end()) == Reason::Completed {
                    prop_assert!(effects.contains(&Effect::PullRequest(PullRequestMode::Open)));
                }
            }
        }
    }
}
