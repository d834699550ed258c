//! The life of one run, as a value.
//!
//! [`Run::on`] is the only place that decides what happens next. It never
//! waits, never reads a clock and never touches a file, so every order of
//! events can be tested as a list.

mod batch;

use orchestrator_contract::outcome::VerdictStatus;
use orchestrator_contract::{Reason, Step};

pub use batch::{Batch, Item, ItemEnd};

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
            Self::Silence => Reason::SilenceLimit,
            Self::Cost => Reason::CostLimit,
            Self::Turns => Reason::TurnLimit,
        }
    }
}

/// How one conversation ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AgentEnd {
    /// With a verdict that the schema accepted.
    Verdict(VerdictStatus, String),
    /// Without one.
    Failed(Failure),
}

/// What the verify commands said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verified {
    /// All succeeded, or there are none.
    Passed,
    /// One failed; the text tells the agent which, and how.
    Failed(String),
    /// They could not be run at all.
    Broken(Failure),
}

/// Something that happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A step did what it should.
    StepDone(Step),
    /// A step did not.
    StepFailed(Step, Failure),
    /// The agent is gone, its output is read to the end, nothing of it is alive.
    AgentEnded(AgentEnd),
    /// The same for one conversation of a batch, whose documents were looked at.
    ItemEnded(usize, ItemEnd),
    /// The verify commands ended.
    Verified(Verified),
    /// The work is committed; so many commits are not in the base.
    Saved(u32),
    /// The work is where the ladder could bring it. Some failure means: not as a plain push.
    Pushed(Option<Failure>),
    /// Somebody asks the run to stop.
    StopAsked,
    /// A limit of the task is reached.
    LimitReached(Limit),
    /// The agent's time to stop by itself is over.
    GraceEnded,
}

/// What the agent is told when it is started.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
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
    NoteIfOpen,
}

/// Something to do. The event loop performs it and decides nothing itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Perform a step of the preparation, or save, policy.
    Perform(Step),
    /// Give up the step or the checks that are being performed.
    Cancel,
    /// Start a conversation of the list, or go on with it.
    StartAgent(usize, Message),
    /// Ask the agent's process groups to stop, and start the grace timer.
    AskAgentToStop,
    /// Kill everything the agent started.
    KillAgent,
    /// Run the verify commands.
    Verify,
    /// Bring the work to a safe place, beginning with the branch itself.
    Push,
    /// Keep the work in the workspace: it may not be pushed, or there is no time.
    Keep(Failure),
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
        round: Round,
    },
    /// The conversations of a batch are held.
    Batch(Held),
    /// The agent was told to stop, or is being killed.
    Stopping {
        killed: bool,
    },
    Verifying {
        round: Round,
    },
    /// The checks were given up; their processes are being ended.
    EndingChecks,
    Publishing(Step),
    Done,
}

/// Whether the conversations of a batch may go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Held {
    GoOn,
    /// They were told to stop, or are being killed.
    Stop {
        killed: bool,
    },
}

/// How often the checks have sent the agent back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Round {
    First,
    AfterFailedVerification,
}

/// The life of one run.
#[derive(Clone, Debug)]
pub struct Run {
    state: State,
    conversations: usize,
    /// The conversations of a docs run, once it is known which documents are missing.
    batch: Option<Batch>,
    until: Option<Step>,
    verdict: Option<VerdictStatus>,
    commits: u32,
    /// The end that is decided, while the work is still being brought home.
    failure: Option<Failure>,
    nothing_needed: bool,
    asked: bool,
    /// A second request to stop means: skip the push, save locally, go.
    hurry: bool,
    cut: bool,
    /// Failures after the one that decided the end.
    notes: Vec<String>,
}

/// How the run ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum End {
    /// With this reason; the message is empty where the reason says it all.
    Ended(Failure),
    /// Cut short by `--until`: the run has no outcome.
    Cut(Step),
}

impl Run {
    /// A run of so many conversations, perhaps cut short after a step, and its first effect.
    #[must_use]
    pub fn new(conversations: usize, until: Option<Step>) -> (Self, Vec<Effect>) {
        let run = Self {
            state: State::Preparing(Step::Check),
            conversations,
            batch: None,
            until,
            verdict: None,
            commits: 0,
            failure: None,
            nothing_needed: false,
            asked: false,
            hurry: false,
            cut: false,
            notes: Vec::new(),
        };
        (run, vec![Effect::Perform(Step::Check)])
    }

    /// From now on the agent's step is this batch. Must come before the documents step is done.
    pub fn hold(&mut self, batch: Batch) {
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
            State::Verifying { .. } | State::EndingChecks => Step::Verify,
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
    pub fn end(&self) -> End {
        if self.cut {
            return End::Cut(self.until.unwrap_or(Step::Report));
        }
        End::Ended(match (&self.failure, self.nothing_needed) {
            (Some(failure), _) => failure.clone(),
            (None, true) => Failure::new(Reason::NothingNeeded, ""),
            (None, false) => Failure::new(Reason::Completed, ""),
        })
    }

    /// Moves the run on by one event and says what to do about it.
    pub fn on(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::StopAsked => self.stop_asked(),
            Event::LimitReached(limit) => self.limit(limit),
            Event::GraceEnded => {
                // A late timer after the end is normal.
                self.kill()
            }
            Event::StepDone(step) => self.step_done(step),
            Event::StepFailed(step, failure) => self.step_failed(step, failure),
            Event::AgentEnded(end) => self.agent_ended(end),
            Event::ItemEnded(index, end) => self.item_ended(index, end),
            Event::Verified(verified) => self.verified(verified),
            Event::Saved(commits) => self.saved(commits),
            Event::Pushed(failure) => self.pushed(failure),
        }
    }

    /// Somebody asks the run to stop: the first time with time to save and push, then at once.
    fn stop_asked(&mut self) -> Vec<Effect> {
        let again = std::mem::replace(&mut self.asked, true);
        let failure = Failure::new(Reason::Stopped, "the run was stopped as asked");
        if !again {
            return self.stop(failure);
        }
        self.hurry = true;
        self.fail(failure);
        match self.state {
            State::Stopping { .. } | State::Batch(_) => self.kill(),
            State::Publishing(Step::Push | Step::PullRequest) => vec![Effect::Cancel],
            // Saving is local and quick; everything else is already being ended.
            State::Preparing(_)
            | State::Agent { .. }
            | State::Verifying { .. }
            | State::EndingChecks
            | State::Publishing(_)
            | State::Done => vec![],
        }
    }

    /// Kills an agent that was asked to stop and has not.
    fn kill(&mut self) -> Vec<Effect> {
        match self.state {
            State::Stopping { killed: false } => self.state = State::Stopping { killed: true },
            State::Batch(Held::Stop { killed: false }) => {
                self.state = State::Batch(Held::Stop { killed: true });
            }
            State::Preparing(_)
            | State::Agent { .. }
            | State::Batch(_)
            | State::Stopping { killed: true }
            | State::Verifying { .. }
            | State::EndingChecks
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
                vec![Effect::AskAgentToStop]
            }
            State::Batch(Held::GoOn) => {
                self.fail(failure);
                if let Some(batch) = &mut self.batch {
                    batch.close();
                }
                self.state = State::Batch(Held::Stop { killed: false });
                vec![Effect::AskAgentToStop]
            }
            State::Verifying { .. } => {
                self.fail(failure);
                self.state = State::EndingChecks;
                vec![Effect::Cancel]
            }
            // The end is near and bounded: what is decided is brought home.
            State::Batch(Held::Stop { .. })
            | State::Stopping { .. }
            | State::EndingChecks
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
            return self.cut_short();
        }
        match step {
            Step::Check => self.prepare(Step::Platform),
            Step::Platform => self.prepare(Step::Target),
            Step::Target => self.prepare(Step::Branch),
            Step::Branch => self.prepare(Step::Documents),
            // Without anything to write there is nothing to ask servers for; what earlier
            // attempts wrote may still have to be brought home.
            Step::Documents if self.batch.as_ref().is_some_and(Batch::is_empty) => self.batch_over(),
            Step::Documents => self.prepare(Step::Mcp),
            Step::Mcp if self.batch.is_some() => {
                self.state = State::Batch(Held::GoOn);
                self.batch.as_mut().map(Batch::begin).map(start).unwrap_or_default()
            }
            Step::Mcp => {
                self.state = State::Agent { conversation: 0, round: Round::First };
                vec![Effect::StartAgent(0, Message::Task)]
            }
            Step::Policy => self.push(),
            Step::PullRequest => self.report(vec![]),
            // These end with events of their own.
            Step::Agent | Step::Verify | Step::Save | Step::Push | Step::Report => vec![],
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
                vec![Effect::Keep(failure)]
            }
            Step::Check
            | Step::Platform
            | Step::Target
            | Step::Branch
            | Step::Documents
            | Step::Mcp
            | Step::Agent
            | Step::Verify
            | Step::Save
            | Step::Push
            | Step::PullRequest
            | Step::Report => {
                self.fail(failure);
                self.report(vec![])
            }
        }
    }

    fn agent_ended(&mut self, end: AgentEnd) -> Vec<Effect> {
        match (self.state.clone(), end) {
            (State::Agent { conversation, round }, AgentEnd::Verdict(status, text)) => {
                self.verdict = Some(status);
                match status {
                    VerdictStatus::Blocked => {
                        self.fail(Failure::new(Reason::AgentBlocked, format!("the agent asks: {text}")));
                        self.save()
                    }
                    VerdictStatus::Done | VerdictStatus::NothingNeeded => {
                        if round == Round::First && conversation + 1 < self.conversations {
                            let next = conversation + 1;
                            self.state = State::Agent { conversation: next, round };
                            return vec![Effect::StartAgent(next, Message::Task)];
                        }
                        if self.until == Some(Step::Agent) {
                            return self.cut_short();
                        }
                        self.state = State::Verifying { round };
                        vec![Effect::Verify]
                    }
                }
            }
            (State::Agent { .. }, AgentEnd::Failed(failure)) => {
                self.fail(failure);
                self.save()
            }
            // It was told to stop; how it ended no longer matters.
            (State::Stopping { .. }, _) => self.save(),
            // An agent that could not be stopped in time and ended later.
            _ => vec![],
        }
    }

    fn item_ended(&mut self, index: usize, end: ItemEnd) -> Vec<Effect> {
        let (State::Batch(_), Some(batch)) = (&self.state, &mut self.batch) else { return vec![] };
        let next = batch.ended(index, end);
        if batch.is_over() {
            return self.batch_over();
        }
        start(next)
    }

    fn batch_over(&mut self) -> Vec<Effect> {
        let Some(batch) = &self.batch else { return vec![] };
        let wrote = batch.items().contains(&Item::Written);
        self.verdict = Some(if wrote { VerdictStatus::Done } else { VerdictStatus::NothingNeeded });
        // Of a run that was stopped it is said that it was; the items tell the rest.
        if let Some(failure) = batch.failure() {
            self.fail(failure);
        }
        if self.until == Some(Step::Agent) {
            return self.cut_short();
        }
        self.save()
    }

    fn verified(&mut self, verified: Verified) -> Vec<Effect> {
        let round = match self.state {
            State::Verifying { round } => round,
            State::EndingChecks => return self.save(),
            State::Preparing(_)
            | State::Agent { .. }
            | State::Batch(_)
            | State::Stopping { .. }
            | State::Publishing(_)
            | State::Done => return vec![],
        };
        match (verified, round) {
            (Verified::Passed, _) => {
                if self.until == Some(Step::Verify) {
                    return self.cut_short();
                }
                self.save()
            }
            (Verified::Failed(text), Round::First) => {
                let last = self.conversations.saturating_sub(1);
                self.state = State::Agent { conversation: last, round: Round::AfterFailedVerification };
                vec![Effect::StartAgent(last, Message::VerificationFailed(text))]
            }
            (Verified::Failed(text), Round::AfterFailedVerification) => {
                let first_line = text.lines().next().unwrap_or_default();
                self.fail(Failure::new(Reason::VerificationFailed, first_line));
                self.save()
            }
            (Verified::Broken(failure), _) => {
                self.fail(failure);
                self.save()
            }
        }
    }

    fn saved(&mut self, commits: u32) -> Vec<Effect> {
        if self.state != State::Publishing(Step::Save) {
            return vec![];
        }
        self.commits = commits;
        if self.until == Some(Step::Save) {
            return self.cut_short();
        }
        if commits > 0 {
            self.state = State::Publishing(Step::Policy);
            return vec![Effect::Perform(Step::Policy)];
        }
        if self.failure.is_none() {
            match self.verdict {
                Some(VerdictStatus::NothingNeeded) => self.nothing_needed = true,
                Some(VerdictStatus::Done | VerdictStatus::Blocked) | None => {
                    self.fail(Failure::new(
                        Reason::NoChanges,
                        "the agent says it is done but changed nothing",
                    ));
                }
            }
        }
        if self.hurry {
            return self.report(vec![]);
        }
        self.pull_request(PullRequestMode::NoteIfOpen)
    }

    fn push(&mut self) -> Vec<Effect> {
        self.state = State::Publishing(Step::Push);
        if self.hurry {
            let failure = Failure::new(Reason::Stopped, "there was no time for a push");
            return vec![Effect::Keep(failure)];
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
            return self.cut_short();
        }
        if self.hurry || !plain {
            return self.report(vec![]);
        }
        let mode = if self.failure.is_none() { PullRequestMode::Open } else { PullRequestMode::NoteIfOpen };
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
        self.state = State::Publishing(Step::Save);
        vec![Effect::Perform(Step::Save)]
    }

    fn report(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        self.state = State::Done;
        effects.push(Effect::Report);
        effects
    }

    fn cut_short(&mut self) -> Vec<Effect> {
        self.cut = true;
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

fn start(next: Vec<(usize, Message)>) -> Vec<Effect> {
    next.into_iter().map(|(index, message)| Effect::StartAgent(index, message)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PREPARED: [Event; 6] = [
        Event::StepDone(Step::Check),
        Event::StepDone(Step::Platform),
        Event::StepDone(Step::Target),
        Event::StepDone(Step::Branch),
        Event::StepDone(Step::Documents),
        Event::StepDone(Step::Mcp),
    ];

    fn done() -> Event {
        Event::AgentEnded(AgentEnd::Verdict(VerdictStatus::Done, String::new()))
    }

    fn failed(reason: Reason) -> Failure {
        Failure::new(reason, "because")
    }

    /// Feeds a prepared run; returns the reason and the effects after `StartAgent`.
    fn play(events: &[Event]) -> (End, Vec<Effect>, Run) {
        let (mut run, mut effects) = Run::new(1, None);
        for event in PREPARED.iter().chain(events) {
            effects.extend(run.on(event.clone()));
        }
        let started = effects.iter().position(|effect| matches!(effect, Effect::StartAgent(..)));
        let after = effects.split_off(started.map_or(effects.len(), |at| at + 1));
        (run.end(), after, run)
    }

    fn reason(end: &End) -> Reason {
        match end {
            End::Ended(failure) => failure.reason,
            End::Cut(_) => panic!("cut"),
        }
    }

    #[test]
    fn a_good_run_takes_every_step_in_order() {
        let (end, effects, run) = play(&[
            done(),
            Event::Verified(Verified::Passed),
            Event::Saved(1),
            Event::StepDone(Step::Policy),
            Event::Pushed(None),
            Event::StepDone(Step::PullRequest),
        ]);
        assert_eq!(reason(&end), Reason::Completed);
        assert!(run.is_done());
        assert_eq!(
            effects,
            [
                Effect::Verify,
                Effect::Perform(Step::Save),
                Effect::Perform(Step::Policy),
                Effect::Push,
                Effect::PullRequest(PullRequestMode::Open),
                Effect::Report,
            ]
        );
    }

    #[test]
    fn a_stopped_agent_has_its_work_saved_and_pushed_but_no_pull_request_opened() {
        let (end, effects, _) = play(&[
            Event::StopAsked,
            Event::AgentEnded(AgentEnd::Failed(failed(Reason::AgentFailed))),
            Event::Saved(2),
            Event::StepDone(Step::Policy),
            Event::Pushed(None),
            Event::StepDone(Step::PullRequest),
        ]);
        assert_eq!(reason(&end), Reason::Stopped);
        assert_eq!(
            effects,
            [
                Effect::AskAgentToStop,
                Effect::Perform(Step::Save),
                Effect::Perform(Step::Policy),
                Effect::Push,
                Effect::PullRequest(PullRequestMode::NoteIfOpen),
                Effect::Report,
            ]
        );
    }

    #[test]
    fn a_second_request_kills_and_skips_the_push() {
        let (_, effects, _) = play(&[
            Event::StopAsked,
            Event::StopAsked,
            Event::AgentEnded(AgentEnd::Failed(failed(Reason::AgentFailed))),
            Event::Saved(1),
            Event::StepDone(Step::Policy),
        ]);
        assert_eq!(effects[..2], [Effect::AskAgentToStop, Effect::KillAgent]);
        assert!(matches!(effects.last(), Some(Effect::Keep(_))), "{effects:?}");
    }

    #[test]
    fn a_stop_while_a_finished_run_is_published_lets_it_finish_and_a_second_one_does_not() {
        let published = [done(), Event::Verified(Verified::Passed), Event::Saved(1), Event::StopAsked];
        let home = [Event::StepDone(Step::Policy), Event::Pushed(None), Event::StepDone(Step::PullRequest)];
        let (end, ..) = play(&[&published[..], &home[..]].concat());
        assert_eq!(reason(&end), Reason::Completed);
        let (end, effects, _) = play(&[&published[..], &home[..1], &[Event::StopAsked]].concat());
        assert_eq!(reason(&end), Reason::Stopped);
        assert_eq!(effects.last(), Some(&Effect::Cancel));
    }

    #[test]
    fn a_run_without_time_does_not_ask_for_a_pull_request() {
        let saving = [done(), Event::Verified(Verified::Passed), Event::StopAsked, Event::StopAsked];
        let (end, effects, _) = play(&[&saving[..], &[Event::Saved(0)]].concat());
        assert_eq!(reason(&end), Reason::Stopped);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::PullRequest(_))), "{effects:?}");
    }

    #[test]
    fn a_failed_check_goes_back_to_the_agent_once() {
        let (end, effects, _) = play(&[
            done(),
            Event::Verified(Verified::Failed("`cargo test` failed".to_owned())),
            done(),
            Event::Verified(Verified::Failed("`cargo test` failed again".to_owned())),
            Event::Saved(1),
            Event::StepDone(Step::Policy),
            Event::Pushed(None),
        ]);
        assert_eq!(reason(&end), Reason::VerificationFailed);
        let starts = effects.iter().filter(|effect| matches!(effect, Effect::StartAgent(..))).count();
        assert_eq!(starts, 1, "{effects:?}");
        assert_eq!(effects.last(), Some(&Effect::PullRequest(PullRequestMode::NoteIfOpen)));
    }

    #[test]
    fn an_agent_that_is_done_without_a_change_has_not_succeeded() {
        let (end, ..) = play(&[done(), Event::Verified(Verified::Passed), Event::Saved(0)]);
        assert_eq!(reason(&end), Reason::NoChanges);
    }

    #[test]
    fn nothing_needed_needs_the_agents_word_and_an_unchanged_branch() {
        let nothing = Event::AgentEnded(AgentEnd::Verdict(VerdictStatus::NothingNeeded, String::new()));
        let (end, ..) = play(&[nothing.clone(), Event::Verified(Verified::Passed), Event::Saved(0)]);
        assert_eq!(reason(&end), Reason::NothingNeeded);
        let (end, effects, _) = play(&[nothing, Event::Verified(Verified::Passed), Event::Saved(1)]);
        assert_eq!(reason(&end), Reason::Completed);
        assert_eq!(effects.last(), Some(&Effect::Perform(Step::Policy)));
    }

    #[test]
    fn a_secret_in_a_commit_keeps_the_work_in_the_workspace() {
        let (end, effects, _) = play(&[
            done(),
            Event::Verified(Verified::Passed),
            Event::Saved(1),
            Event::StepFailed(Step::Policy, failed(Reason::SecretInCommit)),
            Event::Pushed(Some(failed(Reason::SecretInCommit))),
        ]);
        assert_eq!(reason(&end), Reason::SecretInCommit);
        assert!(!effects.contains(&Effect::Push));
        assert_eq!(effects.last(), Some(&Effect::Report));
    }

    #[test]
    fn a_failure_of_the_push_is_a_note_where_the_agent_had_already_failed() {
        let (end, _, run) = play(&[
            Event::AgentEnded(AgentEnd::Failed(failed(Reason::AgentFailed))),
            Event::Saved(1),
            Event::StepDone(Step::Policy),
            Event::Pushed(Some(failed(Reason::PushRejected))),
        ]);
        assert_eq!(reason(&end), Reason::AgentFailed);
        assert_eq!(run.notes(), ["PushRejected: because"]);
    }

    #[test]
    fn a_stop_before_the_agent_started_starts_nothing() {
        let (mut run, _) = Run::new(1, None);
        assert_eq!(run.on(Event::StopAsked), [Effect::Cancel, Effect::Report]);
        assert_eq!(run.on(Event::StepDone(Step::Check)), []);
        assert_eq!(reason(&run.end()), Reason::Stopped);
    }

    #[test]
    fn until_ends_the_run_after_its_step_without_an_outcome() {
        let (mut run, _) = Run::new(1, Some(Step::Platform));
        assert_eq!(run.on(PREPARED[0].clone()), [Effect::Perform(Step::Platform)]);
        assert_eq!(run.on(PREPARED[1].clone()), [Effect::Report]);
        assert_eq!(run.end(), End::Cut(Step::Platform));
    }

    #[test]
    fn conversations_of_a_list_follow_each_other() {
        let (mut run, _) = Run::new(2, None);
        for event in PREPARED {
            run.on(event);
        }
        assert_eq!(run.on(done()), [Effect::StartAgent(1, Message::Task)]);
        assert_eq!(run.on(done()), [Effect::Verify]);
    }

    /// A prepared run of so many documents, and its effects so far.
    fn documents(tasks: usize, at_once: usize) -> (Run, Vec<Effect>) {
        let (mut run, mut effects) = Run::new(1, None);
        run.hold(Batch::new((0..tasks).map(|task| format!("task {task}")).collect(), at_once));
        for event in PREPARED {
            effects.extend(run.on(event));
        }
        (run, effects)
    }

    #[test]
    fn documents_are_written_a_few_at_a_time_and_published_together() {
        let (mut run, mut effects) = documents(2, 1);
        for event in [
            Event::ItemEnded(0, ItemEnd::Written),
            Event::ItemEnded(1, ItemEnd::Refused(vec!["a stub".to_owned()])),
            Event::ItemEnded(1, ItemEnd::Written),
            Event::Saved(2),
            Event::StepDone(Step::Policy),
            Event::Pushed(None),
            Event::StepDone(Step::PullRequest),
        ] {
            effects.extend(run.on(event));
        }
        assert_eq!(reason(&run.end()), Reason::Completed);
        let expected = [
            Effect::StartAgent(0, Message::Task),
            Effect::StartAgent(1, Message::Task),
            Effect::StartAgent(1, Message::VerificationFailed("a stub".to_owned())),
            Effect::Perform(Step::Save),
            Effect::Perform(Step::Policy),
            Effect::Push,
            Effect::PullRequest(PullRequestMode::Open),
            Effect::Report,
        ];
        assert!(effects.ends_with(&expected), "{effects:?}");
    }

    #[test]
    fn a_stopped_docs_run_brings_home_what_was_written() {
        let (mut run, _) = documents(3, 2);
        run.on(Event::ItemEnded(0, ItemEnd::Written));
        assert_eq!(run.on(Event::StopAsked), [Effect::AskAgentToStop]);
        assert_eq!(run.on(Event::GraceEnded), [Effect::KillAgent]);
        let killed = || ItemEnd::Failed(failed(Reason::AgentFailed));
        assert_eq!(run.on(Event::ItemEnded(1, killed())), []);
        assert_eq!(run.on(Event::ItemEnded(2, killed())), [Effect::Perform(Step::Save)]);
        run.on(Event::Saved(1));
        assert_eq!(run.on(Event::StepDone(Step::Policy)), [Effect::Push]);
        assert_eq!(run.on(Event::Pushed(None)), [Effect::PullRequest(PullRequestMode::NoteIfOpen)]);
        assert_eq!(reason(&run.end()), Reason::Stopped);
    }

    #[test]
    fn without_missing_documents_no_agent_is_started() {
        let (mut run, effects) = documents(0, 2);
        assert_eq!(effects.last(), Some(&Effect::Perform(Step::Save)));
        assert!(!effects.contains(&Effect::Perform(Step::Mcp)));
        assert_eq!(run.on(Event::Saved(0)), [Effect::PullRequest(PullRequestMode::NoteIfOpen)]);
        assert_eq!(reason(&run.end()), Reason::NothingNeeded);
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let step = prop::sample::select(Step::ALL.to_vec());
        prop_oneof![
            step.clone().prop_map(Event::StepDone),
            step.prop_map(|step| Event::StepFailed(step, failed(Reason::Internal))),
            prop::sample::select(vec![
                VerdictStatus::Done,
                VerdictStatus::NothingNeeded,
                VerdictStatus::Blocked
            ])
            .prop_map(|status| Event::AgentEnded(AgentEnd::Verdict(status, String::new()))),
            Just(Event::AgentEnded(AgentEnd::Failed(failed(Reason::AgentFailed)))),
            (0_usize..3).prop_map(|index| Event::ItemEnded(index, ItemEnd::Written)),
            (0_usize..3).prop_map(|index| Event::ItemEnded(index, ItemEnd::Refused(Vec::new()))),
            (0_usize..3)
                .prop_map(|index| { Event::ItemEnded(index, ItemEnd::Failed(failed(Reason::AgentFailed))) }),
            Just(Event::Verified(Verified::Passed)),
            Just(Event::Verified(Verified::Failed(String::new()))),
            (0u32..2).prop_map(Event::Saved),
            Just(Event::Pushed(None)),
            Just(Event::Pushed(Some(failed(Reason::PushRejected)))),
            Just(Event::StopAsked),
            Just(Event::LimitReached(Limit::Time)),
            Just(Event::GraceEnded),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order: one report at most and it is the last effect; success
        /// only with a pushed branch or a verdict of nothing needed; no agent after a stop.
        #[test]
        fn every_order_of_events_keeps_the_promises(
            tasks in prop::option::of(0_usize..3), events in prop::collection::vec(any_event(), 0..40),
        ) {
            let (mut run, mut effects) = match tasks {
                None => Run::new(1, None),
                Some(tasks) => documents(tasks, 2),
            };
            let mut stopped = false;
            for event in events {
                let stop = event == Event::StopAsked;
                let before = effects.len();
                effects.extend(run.on(event));
                if stopped {
                    let starts = effects[before..].iter().any(|e| matches!(e, Effect::StartAgent(..)));
                    let publishing = matches!(run.step(), Step::Save | Step::Policy | Step::Push | Step::PullRequest | Step::Report);
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
