//! The one channel of every backend: the supervisor's standard output, one JSON
//! object a line.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::RunName;
use crate::outcome::Outcome;
use crate::reason::Phase;
use crate::step::Step;

/// One line of the supervisor's standard output.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Event {
    /// The contract's version.
    pub version: u32,
    /// When it happened.
    pub time: Timestamp,
    /// The event's number within the run, from 1: a cursor for readers.
    pub seq: u64,
    /// The run; none before its name is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunName>,
    /// What happened, for people.
    pub message: String,
    /// What happened, for programs.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventBody {
    /// A line of the readable log.
    Log {
        /// How much it matters.
        level: Level,
        /// Who speaks: `supervisor`, `agent`, `git`, `mcp`, `verify`, `setup`.
        source: String,
    },
    /// A step began or ended.
    Step {
        /// The step.
        step: Step,
        /// Whether it began or ended.
        state: StepState,
        /// How long it took, at its end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<f64>,
    },
    /// Where the run stands: at each change, at most every 10 s.
    Progress(Progress),
    /// How the run ended: the last event.
    Outcome {
        /// The outcome in full.
        outcome: Box<Outcome>,
    },
    /// An event of a newer contract, which this reader does not know.
    #[serde(other)]
    Unknown,
}

/// An event as a person reads it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogLine<'a> {
    /// Who speaks: a source of the log, or a step.
    pub source: &'a str,
    /// How much it matters.
    pub level: Level,
    /// What happened.
    pub text: &'a str,
}

impl Event {
    /// The event as a line of the readable log; none where it says nothing new to a person.
    #[must_use]
    pub fn log_line(&self) -> Option<LogLine<'_>> {
        let (source, level) = match &self.body {
            EventBody::Log { level: Level::Debug, .. }
            | EventBody::Step { state: StepState::Started, .. }
            | EventBody::Progress(_) => return None,
            EventBody::Log { level, source } => (source.as_str(), *level),
            EventBody::Step { step, state: StepState::Done, .. } => (step.name(), Level::Info),
            EventBody::Step { step, state: StepState::Failed, .. } => (step.name(), Level::Warn),
            EventBody::Outcome { outcome } if outcome.exit_code == 0 => ("outcome", Level::Info),
            EventBody::Outcome { .. } => ("outcome", Level::Error),
            EventBody::Unknown => ("", Level::Info),
        };
        Some(LogLine { source, level, text: &self.message })
    }
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// For whoever looks into a fault of this program.
    Debug,
    /// The story of the run.
    Info,
    /// Worked around.
    Warn,
    /// Somebody must act.
    Error,
}

/// Whether a step began or ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// It began.
    Started,
    /// It did what it should.
    Done,
    /// It did not.
    Failed,
}

/// Where the run stands.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Progress {
    /// The phase.
    pub phase: Phase,
    /// The step.
    pub step: Step,
    /// The agent's turns so far.
    pub turns: u32,
    /// US dollars so far.
    pub cost_usd: f64,
    /// The last thing the run or the agent did.
    pub activity: String,
    /// Since when.
    pub activity_since: Timestamp,
    /// The branch, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Whom the run waits for, while the workspace is busy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
}
