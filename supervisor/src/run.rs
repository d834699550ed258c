//! State machine of one run. Pure.
//!
//! [`RunMachine::handle`] is the only place that decides what happens next. It never waits,
//! reads no clock and touches no file, so tests can play any order of events as a list.

mod batch;
mod docs;
mod effect;
mod event;
mod quota;
mod state;
mod stop;
mod waiting;

use orchestrator_contract::outcome::VerdictStatus;
use orchestrator_contract::{Reason, Step};

use crate::failure::Failure;
use batch::start_effects;
use state::{BatchState, PendingVerification, State, VerifyAttempt};

pub use batch::{Batch, DocsSessionResult, DocsSessionStatus};
pub use effect::{AgentPrompt, Effect, PullRequestMode};
pub use event::{Limit, RunEvent, SessionOutcome, VerifyResult};
pub use quota::QuotaBudget;
pub use stop::{StopMode, StopRequests};

/// State machine of one run.
#[derive(Clone, Debug)]
pub struct RunMachine {
    state: State,
    /// The finished batch of a docs run.
    finished_batch: Option<Batch>,
    until: Option<Step>,
    quota: QuotaBudget,
    verdict: Option<VerdictStatus>,
    /// Decides the outcome; set while publishing continues.
    failure: Option<Failure>,
    already_done: bool,
    /// Verification that follows the commit.
    pending: PendingVerification,
    /// Commits of the last save that are not in the base.
    commits: u32,
    /// Set by a request to stop now: the push and the pull request are skipped.
    stop_now: bool,
    stopped_early: bool,
    /// Failures after the one that decides the outcome.
    notes: Vec<String>,
}

/// End of a run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RunEnd {
    /// Ended with this reason; the message is empty if the run succeeded.
    Outcome(Failure),
    /// Ended by `--until`, without an outcome.
    StoppedAfter(Step),
}

impl RunMachine {
    /// Creates a run that ends after the step `until`, and returns its first effects.
    #[must_use]
    pub fn new(until: Option<Step>, quota: QuotaBudget) -> (Self, Vec<Effect>) {
        let run = Self {
            state: State::Preparing(Step::Preflight),
            finished_batch: None,
            until,
            quota,
            verdict: None,
            failure: None,
            already_done: false,
            pending: PendingVerification::None,
            commits: 0,
            stop_now: false,
            stopped_early: false,
            notes: Vec::new(),
        };
        (run, vec![Effect::Perform(Step::Preflight)])
    }

    /// Returns the sessions of a docs run, once they are planned.
    #[must_use]
    pub fn batch(&self) -> Option<&Batch> {
        self.state.batch().or(self.finished_batch.as_ref())
    }

    #[must_use]
    pub fn step(&self) -> Step {
        self.state.step()
    }

    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Returns whether a stop now was requested, which leaves a step little time.
    #[must_use]
    pub fn stops_now(&self) -> bool {
        self.stop_now
    }

    /// Returns failures that did not decide the outcome, for its notes.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns how the run ends if nothing else fails.
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

    /// Handles one event and returns the effects to perform.
    pub fn handle(&mut self, event: RunEvent) -> Vec<Effect> {
        match event {
            RunEvent::StopRequested(mode) => self.stop_requested(mode),
            RunEvent::LimitReached(limit) => self.limit_reached(limit),
            RunEvent::GracePeriodExpired => self.kill(),
            RunEvent::StepDone(step) => self.step_done(step),
            RunEvent::StepFailed(step, failure) => self.step_failed(step, failure),
            RunEvent::DocsPlanned(batch) => self.docs_planned(batch),
            RunEvent::AgentEnded(outcome) => self.agent_ended(outcome),
            RunEvent::UsageLimitReached(failure, wait) => self.usage_limit_reached(failure, wait),
            RunEvent::QuotaWaitOver => self.quota_wait_over(),
            RunEvent::SessionEnded(index, result) => self.session_ended(index, result),
            RunEvent::Verified(result) => self.verified(result),
            RunEvent::Saved(commits) => self.saved(commits),
            RunEvent::Pushed(failure) => self.pushed(failure),
        }
    }

    /// Handles a stop request: a graceful stop still pushes, a stop now skips the push.
    fn stop_requested(&mut self, mode: StopMode) -> Vec<Effect> {
        let failure = Failure::new(Reason::Stopped, "the run was stopped on request");
        let mut effects = self.stop(failure.clone());
        if mode == StopMode::Graceful {
            return effects;
        }
        self.stop_now = true;
        self.fail(failure);
        effects.extend(match self.state {
            State::Stopping { .. } | State::Batch(..) => self.kill(),
            State::Publishing(Step::Push | Step::PullRequest | Step::Commit) => vec![Effect::Cancel],
            State::Publishing(Step::Policy) => [vec![Effect::Cancel], self.push()].concat(),
            // Everything else is being stopped already.
            State::Preparing(_)
            | State::PreparingBatch(_)
            | State::Agent { .. }
            | State::WaitingForQuota { .. }
            | State::Verifying { .. }
            | State::CancellingVerify
            | State::Publishing(_)
            | State::Done => vec![],
        });
        effects
    }

    /// Kills an agent that was terminated and still runs.
    fn kill(&mut self) -> Vec<Effect> {
        match &mut self.state {
            State::Stopping { killed } | State::Batch(_, BatchState::Stopping { killed }) if !*killed => {
                *killed = true;
                vec![Effect::KillAgent]
            }
            State::Preparing(_)
            | State::PreparingBatch(_)
            | State::Agent { .. }
            | State::WaitingForQuota { .. }
            | State::Batch(..)
            | State::Stopping { .. }
            | State::Verifying { .. }
            | State::CancellingVerify
            | State::Publishing(_)
            // A timer that expires after the end is normal.
            | State::Done => vec![],
        }
    }

    /// Stops the current step, for a stop request or a limit.
    fn stop(&mut self, failure: Failure) -> Vec<Effect> {
        match &mut self.state {
            State::Preparing(_) | State::PreparingBatch(_) => {
                self.fail(failure);
                self.report(vec![Effect::Cancel])
            }
            State::Agent { .. } => {
                self.fail(failure);
                self.state = State::Stopping { killed: false };
                vec![Effect::TerminateAgent]
            }
            // The agent has ended already.
            State::WaitingForQuota { .. } => {
                self.fail(failure);
                self.save()
            }
            State::Batch(batch, state @ BatchState::Running) => {
                batch.close();
                *state = BatchState::Stopping { killed: false };
                self.fail(failure);
                vec![Effect::TerminateAgent]
            }
            State::Verifying { .. } => {
                self.fail(failure);
                self.state = State::CancellingVerify;
                vec![Effect::Cancel]
            }
            // The work is saved, but not verified.
            State::Publishing(Step::Commit | Step::Policy) if self.pending != PendingVerification::None => {
                self.pending = PendingVerification::None;
                self.fail(failure);
                vec![]
            }
            // Already stopping, or publishing, which is bounded in time.
            State::Batch(_, BatchState::Stopping { .. })
            | State::Stopping { .. }
            | State::CancellingVerify
            | State::Publishing(_)
            | State::Done => vec![],
        }
    }

    fn limit_reached(&mut self, limit: Limit) -> Vec<Effect> {
        if limit != Limit::Time && self.state.is_after_agent() {
            return vec![];
        }
        let text = match limit {
            Limit::Time => "the run exceeded its time limit",
            Limit::Silence => "the agent exceeded its idle limit without output",
            Limit::Cost => "the agent exceeded its cost limit",
            Limit::Turns => "the agent exceeded its turn limit",
        };
        self.stop(Failure::new(limit.reason(), text))
    }

    fn step_done(&mut self, step: Step) -> Vec<Effect> {
        if !self.state.awaits(step) {
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
            Step::Documents => self.prepare(Step::Mcp),
            Step::Mcp => self.start_agent(),
            Step::Policy => self.verify_or_push(),
            Step::PullRequest => self.report(vec![]),
            // These complete with events of their own.
            Step::Agent | Step::Verify | Step::Commit | Step::Push | Step::Report => vec![],
        }
    }

    fn start_agent(&mut self) -> Vec<Effect> {
        if let State::PreparingBatch(mut batch) = std::mem::replace(&mut self.state, State::Done) {
            let starts = batch.start_queued();
            self.state = State::Batch(batch, BatchState::Running);
            return start_effects(starts);
        }
        self.state = State::Agent { attempt: VerifyAttempt::First };
        vec![Effect::StartAgent(0, AgentPrompt::Task)]
    }

    fn step_failed(&mut self, step: Step, failure: Failure) -> Vec<Effect> {
        if !self.state.awaits(step) {
            return vec![];
        }
        self.pending = PendingVerification::None;
        self.fail(failure.clone());
        if step == Step::Policy {
            self.state = State::Publishing(Step::Push);
            return vec![Effect::KeepInWorkspace(failure)];
        }
        self.report(vec![])
    }

    fn agent_ended(&mut self, outcome: SessionOutcome) -> Vec<Effect> {
        let attempt = match self.state {
            State::Agent { attempt } => attempt,
            // How a terminated agent ends no longer matters.
            State::Stopping { .. } => return self.save(),
            State::Preparing(_)
            | State::PreparingBatch(_)
            | State::WaitingForQuota { .. }
            | State::Batch(..)
            | State::Verifying { .. }
            | State::CancellingVerify
            | State::Publishing(_)
            | State::Done => return vec![],
        };
        match outcome {
            SessionOutcome::Verdict(VerdictStatus::Blocked, question) => {
                self.verdict = Some(VerdictStatus::Blocked);
                self.fail(Failure::new(Reason::AgentBlocked, format!("the agent asks: {question}")));
                self.save()
            }
            SessionOutcome::Verdict(status @ (VerdictStatus::Done | VerdictStatus::AlreadyDone), _) => {
                self.verdict = Some(status);
                if self.until == Some(Step::Agent) {
                    return self.stop_after_step();
                }
                self.pending = PendingVerification::Of(attempt);
                self.save()
            }
            SessionOutcome::Failed(failure) => {
                self.fail(failure);
                self.save()
            }
        }
    }

    fn saved(&mut self, commits: u32) -> Vec<Effect> {
        if !self.state.awaits(Step::Commit) {
            return vec![];
        }
        self.commits = commits;
        if self.until == Some(Step::Commit) {
            return self.stop_after_step();
        }
        if commits > 0 && self.stop_now {
            // Nothing is pushed, so nothing has to be checked.
            return self.push();
        }
        if commits > 0 {
            self.state = State::Publishing(Step::Policy);
            return vec![Effect::Perform(Step::Policy)];
        }
        self.verify_or_push()
    }

    /// Verifies the saved work if that is still to be done, or publishes it.
    fn verify_or_push(&mut self) -> Vec<Effect> {
        match std::mem::replace(&mut self.pending, PendingVerification::None) {
            PendingVerification::Of(attempt) => {
                self.state = State::Verifying { attempt };
                vec![Effect::Verify]
            }
            PendingVerification::None => self.publish(),
        }
    }

    fn verified(&mut self, result: VerifyResult) -> Vec<Effect> {
        let attempt = match self.state {
            State::Verifying { attempt } => attempt,
            State::CancellingVerify => return self.publish(),
            State::Preparing(_)
            | State::PreparingBatch(_)
            | State::Agent { .. }
            | State::WaitingForQuota { .. }
            | State::Batch(..)
            | State::Stopping { .. }
            | State::Publishing(_)
            | State::Done => return vec![],
        };
        match (result, attempt) {
            (VerifyResult::Passed, _) => {
                if self.until == Some(Step::Verify) {
                    return self.stop_after_step();
                }
            }
            (VerifyResult::Failed(text), VerifyAttempt::First) => {
                self.state = State::Agent { attempt: VerifyAttempt::Second };
                return vec![Effect::StartAgent(0, AgentPrompt::VerificationFailed(text))];
            }
            (VerifyResult::Failed(text), VerifyAttempt::Second) => {
                let first_line = text.lines().next().unwrap_or_default();
                self.fail(Failure::new(Reason::VerificationFailed, first_line));
            }
            (VerifyResult::Error(failure), _) => self.fail(failure),
        }
        self.publish()
    }

    /// Publishes the saved work: its commits, or that there are none.
    fn publish(&mut self) -> Vec<Effect> {
        if self.commits > 0 {
            return self.push();
        }
        if self.failure.is_none() {
            match self.verdict {
                Some(VerdictStatus::AlreadyDone) => self.already_done = true,
                Some(VerdictStatus::Done | VerdictStatus::Blocked) | None => {
                    self.fail(Failure::new(Reason::NoChanges, "the agent reported done but changed nothing"));
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
            let failure = Failure::new(Reason::Stopped, "the stop request left no time to push");
            return vec![Effect::KeepInWorkspace(failure)];
        }
        vec![Effect::Push]
    }

    fn pushed(&mut self, failure: Option<Failure>) -> Vec<Effect> {
        if !self.state.awaits(Step::Push) {
            return vec![];
        }
        let is_elsewhere = failure.is_some();
        if let Some(failure) = failure {
            self.fail(failure);
        } else if self.until == Some(Step::Push) {
            return self.stop_after_step();
        }
        if self.stop_now || is_elsewhere {
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
        if let State::PreparingBatch(batch) | State::Batch(batch, _) =
            std::mem::replace(&mut self.state, State::Done)
        {
            self.finished_batch = Some(batch);
        }
        effects.push(Effect::Report);
        effects
    }

    fn stop_after_step(&mut self) -> Vec<Effect> {
        self.stopped_early = true;
        self.report(vec![])
    }

    /// Records a failure: the first decides the outcome, later ones become notes.
    fn fail(&mut self, failure: Failure) {
        match &self.failure {
            None => self.failure = Some(failure),
            Some(first) if first.reason == failure.reason => {}
            Some(_) => self.notes.push(format!("{}: {}", failure.reason, failure.message)),
        }
    }
}

#[cfg(test)]
mod tests;
