//! Folds the events of a run into its current state.

use jiff::Timestamp;
use orchestrator_contract::event::{EventBody, Progress, StepState};
use orchestrator_contract::{Event, Outcome, Phase, Reason, RunName, Step};

use super::lines::EventLines;

/// Whether the supervisor holds its run's lock; a process is alive while it does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LockState {
    Held,
    Free,
}

/// Whether a supervisor is alive, as observed from outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Liveness {
    /// It is alive or about to start.
    Alive,
    /// It exited; the reason applies unless the supervisor reported an outcome.
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

/// State of a run, accumulated from its events.
#[derive(Debug)]
pub struct EventFold {
    run: RunName,
    lines: EventLines,
    /// Events up to this number were already emitted, before a restart.
    seen_seq: u64,
    last_event_seq: u64,
    last_time: Option<Timestamp>,
    /// Phase while the supervisor is alive; never final.
    phase: Phase,
    step: Option<Step>,
    progress: Option<Progress>,
    outcome: Option<Box<Outcome>>,
}

/// State of a run at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSnapshot {
    pub phase: Phase,
    /// Current or last step.
    pub step: Option<Step>,
    /// Why the run ended; none while it is active.
    pub reason: Option<Reason>,
    /// Last progress event.
    pub progress: Option<Progress>,
    /// Outcome, if the supervisor reported one.
    pub outcome: Option<Box<Outcome>>,
    /// Number of the last event: a cursor for the log.
    pub last_event_seq: u64,
    /// Time of the last event.
    pub last_time: Option<Timestamp>,
    /// Number of lines that are not events.
    pub garbage: u64,
}

impl EventFold {
    /// Creates the state of a run without events.
    #[must_use]
    pub fn new(run: RunName) -> Self {
        Self {
            run,
            lines: EventLines::default(),
            seen_seq: 0,
            last_event_seq: 0,
            last_time: None,
            phase: Phase::Pending,
            step: None,
            progress: None,
            outcome: None,
        }
    }

    /// Feeds the next bytes of the stream; `each` receives every new event with its line.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&Event, &str)) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.feed(bytes, |event, line| {
            if event.seq > self.seen_seq {
                each(&event, line);
                self.record(event);
            }
        });
        self.lines = lines;
    }

    /// Prepares for rereading the stream from an earlier offset; emits no event twice.
    pub fn restart(&mut self) {
        self.lines = EventLines::default();
        self.seen_seq = self.last_event_seq;
    }

    /// Returns the time of the last event.
    #[must_use]
    pub fn last_time(&self) -> Option<Timestamp> {
        self.last_time
    }

    /// Records an outcome from another source, unless the stream contained one.
    pub fn set_outcome(&mut self, outcome: Outcome) {
        if outcome.run == self.run && self.outcome.is_none() {
            self.outcome = Some(Box::new(outcome));
        }
    }

    /// Returns whether the outcome is known.
    #[must_use]
    pub fn has_outcome(&self) -> bool {
        self.outcome.is_some()
    }

    fn record(&mut self, event: Event) {
        self.last_event_seq = self.last_event_seq.max(event.seq);
        self.last_time = Some(event.time);
        match event.body {
            EventBody::Step { step, state: StepState::Started | StepState::Failed, .. } => {
                self.set_step(step);
            }
            EventBody::Step { step, state: StepState::Done, .. } => {
                if self.step.is_none() {
                    self.set_step(step);
                }
            }
            EventBody::Progress(progress) => {
                self.set_step(progress.step);
                // Only an outcome ends a run, not a progress event.
                if !progress.phase.is_final() {
                    self.phase = progress.phase;
                }
                self.progress = Some(progress);
            }
            EventBody::Outcome { outcome } => self.set_outcome(*outcome),
            EventBody::Log { .. } | EventBody::Unknown => {}
        }
    }

    /// Returns the state of the run.
    ///
    /// Determine `liveness` *before* reading the last bytes; otherwise an outcome written in
    /// between is missed.
    #[must_use]
    pub fn observe(&self, liveness: impl Into<Liveness>) -> RunSnapshot {
        let (phase, reason, step) = match (&self.outcome, liveness.into()) {
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

    fn set_step(&mut self, step: Step) {
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
        let mut fold = EventFold::new(RunName::new("trader-claude-agent-1-task1-attempt2").unwrap());
        fold.feed(bytes, |_, _| {});
        fold.observe(lock)
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
            let snapshot = after(first(lines).as_bytes(), lock);
            assert_eq!((snapshot.phase, snapshot.reason), (phase, reason), "{lines} {lock:?}");
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
            let mut fold = EventFold::new(RunName::new("trader-claude-agent-1-task1-attempt2").unwrap());
            fold.feed(first(lines).as_bytes(), |_, _| {});
            fold.observe(Liveness::Ended(Reason::OutOfMemory))
        };
        assert_eq!(observed(3).reason, Some(Reason::OutOfMemory));
        assert_eq!(observed(4).reason, Some(Reason::Completed));
    }

    #[test]
    fn reread_stream_emits_each_event_once() {
        let mut fold = EventFold::new(RunName::new("trader-claude-agent-1-task1-attempt2").unwrap());
        let mut seen = Vec::new();
        // Interrupted in the middle of a line, then reread from the second line.
        fold.feed(&first(3).as_bytes()[..first(3).len() - 5], |event, _| seen.push(event.seq));
        fold.restart();
        let rest = &SAMPLE[first(1).len()..];
        fold.feed(rest.as_bytes(), |event, _| seen.push(event.seq));
        let mut all = Vec::new();
        EventFold::new(RunName::new("x").unwrap()).feed(SAMPLE.as_bytes(), |event, _| all.push(event.seq));
        assert_eq!(seen, all);
    }

    #[test]
    fn outcome_of_other_run_is_ignored() {
        let mut fold = EventFold::new(RunName::new("other").unwrap());
        fold.feed(SAMPLE.as_bytes(), |_, _| {});
        assert_eq!(fold.observe(LockState::Held).phase, Phase::Running);
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
