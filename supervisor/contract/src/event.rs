//! Events: the supervisor's standard output, one JSON object per line. Every backend reads it.

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
    /// Contract version: 1.
    pub version: u32,
    /// Time of the event (RFC 3339, UTC).
    pub time: Timestamp,
    /// Sequence number within the run, starting at 1; readers use it as a cursor.
    pub seq: u64,
    /// Name of the run; absent until the task spec is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunName>,
    /// Description for people, one line.
    pub message: String,
    /// Kind of the event and its data.
    #[serde(flatten)]
    pub body: EventBody,
}

/// Kind of an event, in the field `event`, and its data.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventBody {
    /// A log line.
    Log {
        /// Severity.
        level: Level,
        /// Component that logged it: `supervisor`, `agent`, `git`, `mcp`, `verify` or `setup`.
        source: String,
    },
    /// A step started or finished.
    Step {
        /// Step that started or finished.
        step: Step,
        /// New state of the step.
        state: StepState,
        /// Duration of the step in seconds; absent when it starts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<f64>,
    },
    /// Current activity and usage, sent on change and at most every 10 seconds.
    Progress(Progress),
    /// Result of the run; always the last event.
    Outcome {
        /// Full result of the run.
        outcome: Box<Outcome>,
    },
    /// An event kind of a newer contract version; readers skip it.
    #[serde(other)]
    Unknown,
}

/// An event as a line of the readable log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogLine<'a> {
    /// Log source, step name or `outcome`.
    pub source: &'a str,
    /// Severity.
    pub level: Level,
    /// Message of the event.
    pub text: &'a str,
}

impl Event {
    /// Returns the event as a log line; `None` for debug lines, step starts and progress.
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

/// Severity of a log line.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Details for debugging the supervisor.
    Debug,
    /// Normal progress of the run.
    Info,
    /// A problem that the run recovered from.
    Warn,
    /// A problem that requires action.
    Error,
}

/// Whether a step began or ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// The step started.
    Started,
    /// The step succeeded.
    Done,
    /// The step failed.
    Failed,
}

/// Current phase, activity and usage of a run.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Progress {
    /// Current phase.
    pub phase: Phase,
    /// Current step.
    pub step: Step,
    /// Agent turns used in this attempt.
    pub turns: u32,
    /// Cost of this attempt so far in US dollars, as counted by the model gateway.
    pub cost_usd: f64,
    /// Latest action of the run or the agent, such as a tool call.
    pub activity: String,
    /// Start of the activity (RFC 3339, UTC).
    pub activity_since: Timestamp,
    /// Branch that the run works on; absent until it is determined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Name of the run that holds the workspace; present only while this run waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
}
