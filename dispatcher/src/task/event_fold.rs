//! Where a run stands, told from what it left behind.

use jiff::Timestamp;
use orchestrator_contract::event::{EventBody, Progress, StepState};
use orchestrator_contract::{Event, Outcome, Phase, Reason, RunName, Step};

use super::lines::EventLines;

/// Whether the supervisor holds its run's lock, which it does as long as it lives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LockState {
    /// It lives.
    Held,
    /// It has ended.
    Free,
}

/// Whether a run lives, and where it does not, why not as far as can be told from outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Liveness {
    /// It lives, or is about to.
    Alive,
    /// It has ended. The reason counts if the supervisor could not tell one.
    Ended(Reason),
}

impl From<LockState> for Liveness {
    fn from(lock: LockState) -> Self {
        match lock {
            LockState::Held => Self::Alive,
            LockState::Free => Self::Ended(Reason::SupervisorLost),
        }
    }
}

/// Everything that the events of a run have told so far.
#[derive(Debug)]
pub struct EventFold {
    run: RunName,
    lines: EventLines,
    /// Events up to this number were told before.
    seen_seq: u64,
    last_event_seq: u64,
    last_time: Option<Timestamp>,
    /// The phase as long as the supervisor lives: never a final one.
    phase: Phase,
    step: Option<Step>,
    progress: Option<Progress>,
    outcome: Option<Box<Outcome>>,
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSnapshot {
    /// The phase.
    pub phase: Phase,
    /// The step, once there is one.
    pub step: Option<Step>,
    /// Why it ended, once it has.
    pub reason: Option<Reason>,
    /// The last progress.
    pub progress: Option<Progress>,
    /// How it ended, where the supervisor could tell.
    pub outcome: Option<Box<Outcome>>,
    /// The last event's number, a cursor for the log.
    pub last_event_seq: u64,
    /// The last event's time.
    pub last_time: Option<Timestamp>,
    /// Lines that were no events.
    pub garbage: u64,
}

impl EventFold {
    /// The story of a run that has told nothing yet.
    #[must_use]
    pub fn new(run: RunName) -> Self {
        let (lines, last_event_seq) = (EventLines::default(), 0);
        let phase = Phase::Pending;
        Self {
            run,
            lines,
            seen_seq: 0,
            last_event_seq,
            last_time: None,
            phase,
            step: None,
            progress: None,
            outcome: None,
        }
    }

    /// Takes the next bytes of the stream; `each` sees every new event with its line.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&Event, &str)) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.feed(bytes, |event, line| {
            if event.seq > self.seen_seq {
                each(&event, line);
                self.take(event);
            }
        });
        self.lines = lines;
    }

    /// The stream is read anew, from some earlier place on: what was told is not told again.
    pub fn restart(&mut self) {
        self.lines = EventLines::default();
        self.seen_seq = self.last_event_seq;
    }

    /// The last event's time.
    #[must_use]
    pub fn last_time(&self) -> Option<Timestamp> {
        self.last_time
    }

    /// Takes an outcome that was found elsewhere, unless the stream had one.
    pub fn set_outcome(&mut self, outcome: Outcome) {
        if outcome.run == self.run && self.outcome.is_none() {
            self.outcome = Some(Box::new(outcome));
        }
    }

    /// Whether the stream has told the outcome.
    #[must_use]
    pub fn has_outcome(&self) -> bool {
        self.outcome.is_some()
    }

    fn take(&mut self, event: Event) {
        self.last_event_seq = self.last_event_seq.max(event.seq);
        self.last_time = Some(event.time);
        match event.body {
            EventBody::Step { step, state: StepState::Started | StepState::Failed, .. } => self.at(step),
            EventBody::Step { step, state: StepState::Done, .. } => {
                if self.step.is_none() {
                    self.at(step);
                }
            }
            EventBody::Progress(progress) => {
                self.at(progress.step);
                // A run has ended when its outcome says so; progress alone cannot.
                if !progress.phase.is_final() {
                    self.phase = progress.phase;
                }
                self.progress = Some(progress);
            }
            EventBody::Outcome { outcome } => self.set_outcome(*outcome),
            EventBody::Log { .. } | EventBody::Unknown => {}
        }
    }

    /// Where the run stands.
    ///
    /// Whether it lives must have been looked at *before* the last bytes were read:
    /// otherwise an outcome written in between would be overlooked.
    #[must_use]
    pub fn observe(&self, life: impl Into<Liveness>) -> RunSnapshot {
        let (phase, reason, step) = match (&self.outcome, life.into()) {
            (Some(outcome), _) => (outcome.phase, Some(outcome.reason), Some(outcome.step)),
            (None, Liveness::Ended(reason)) => (reason.phase(), Some(reason), self.step),
            (None, Liveness::Alive) => (self.phase, None, self.step),
        };
        RunSnapshot {
            phase,
            step,
            reason,
            progress: self.progress.clone(),
            outcome: self.outcome.clone(),
            last_event_seq: self.last_event_seq,
            last_time: self.last_time,
            garbage: self.lines.invalid_lines(),
        }
    }

    fn at(&mut self, step: Step) {
        self.step = Some(step);
        self.phase = step.phase();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLE: &str = include_str!("../../../supervisor/contract/samples/events-v1.jsonl");

    fn after(bytes: &[u8], lock: LockState) -> RunSnapshot {
        let mut story = EventFold::new(RunName::new("trader-claude-agent-1-task1-attempt2").unwrap());
        story.feed(bytes, |_, _| {});
        story.observe(lock)
    }

    fn first(lines: usize) -> String {
        SAMPLE.split_inclusive('\n').take(lines).collect()
    }

    #[test]
    fn run_phase_follows_last_event() {
        let cases = [
            (0, LockState::Held, Phase::Pending, None),
            (1, LockState::Held, Phase::Pending, None),
            (2, LockState::Held, Phase::Preparing, None),
            (3, LockState::Held, Phase::Running, None),
            (4, LockState::Held, Phase::Succeeded, Some(Reason::Completed)),
            (5, LockState::Free, Phase::Succeeded, Some(Reason::Completed)),
            (3, LockState::Free, Phase::Failed, Some(Reason::SupervisorLost)),
            (0, LockState::Free, Phase::Failed, Some(Reason::SupervisorLost)),
        ];
        for (lines, lock, phase, reason) in cases {
            let observed = after(first(lines).as_bytes(), lock);
            assert_eq!((observed.phase, observed.reason), (phase, reason), "{lines} {lock:?}");
        }
    }

    #[test]
    fn step_after_queue_ends_pending_phase() {
        let queued = r#"{"version":1,"time":"2026-11-22T12:00:00Z","seq":1,"message":"waits","event":"progress","phase":"Pending","step":"preflight","turns":0,"cost_usd":0.0,"activity":"waits","activity_since":"2026-11-22T12:00:00Z","waiting_for":"other"}"#;
        let started = r#"{"version":1,"time":"2026-11-22T12:00:01Z","seq":2,"message":"platform","event":"step","step":"fetch_platform","state":"started"}"#;
        assert_eq!(after(format!("{queued}\n").as_bytes(), LockState::Held).phase, Phase::Pending);
        assert_eq!(
            after(format!("{queued}\n{started}\n").as_bytes(), LockState::Held).phase,
            Phase::Preparing
        );
    }

    #[test]
    fn external_end_reason_is_used_only_without_outcome() {
        let observed = |lines| {
            let mut story = EventFold::new(RunName::new("trader-claude-agent-1-task1-attempt2").unwrap());
            story.feed(first(lines).as_bytes(), |_, _| {});
            story.observe(Liveness::Ended(Reason::OutOfMemory))
        };
        assert_eq!(observed(3).reason, Some(Reason::OutOfMemory));
        assert_eq!(observed(4).reason, Some(Reason::Completed));
    }

    #[test]
    fn reread_stream_emits_each_event_once() {
        let mut story = EventFold::new(RunName::new("trader-claude-agent-1-task1-attempt2").unwrap());
        let mut seen = Vec::new();
        // Broken off in the middle of a line, then read again from the second one on.
        story.feed(&first(3).as_bytes()[..first(3).len() - 5], |event, _| seen.push(event.seq));
        story.restart();
        let rest = &SAMPLE[first(1).len()..];
        story.feed(rest.as_bytes(), |event, _| seen.push(event.seq));
        let mut all = Vec::new();
        EventFold::new(RunName::new("x").unwrap()).feed(SAMPLE.as_bytes(), |event, _| all.push(event.seq));
        assert_eq!(seen, all);
    }

    #[test]
    fn outcome_of_other_run_is_ignored() {
        let mut story = EventFold::new(RunName::new("other").unwrap());
        story.feed(SAMPLE.as_bytes(), |_, _| {});
        assert_eq!(story.observe(LockState::Held).phase, Phase::Running);
    }

    proptest! {
        #[test]
        fn corrupted_stream_yields_consistent_phase(
            cut in 0..=SAMPLE.len(),
            noise in proptest::collection::vec((0..SAMPLE.len(), any::<u8>()), 0..6),
            held: bool,
        ) {
            let mut bytes = SAMPLE.as_bytes()[..cut].to_vec();
            for (at, byte) in noise {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            let observed = after(&bytes, if held { LockState::Held } else { LockState::Free });
            prop_assert_eq!(observed.phase.is_final(), observed.reason.is_some());
            prop_assert_eq!(observed.phase.is_final(), !held || observed.outcome.is_some());
        }
    }
}
