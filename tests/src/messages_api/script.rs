//! Scripts of the model: turns in order, with injected faults.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

type FromRequest = Arc<dyn Fn(&Value) -> Value + Send + Sync>;

/// The turns of one session, or of every session that mentions a marker.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub(super) marker: Option<String>,
    pub(super) per_session: bool,
    pub(super) turns: Vec<Turn>,
    pub(super) forbidden: Vec<String>,
}

impl Script {
    /// A script for every request that no script with a marker matches.
    pub fn new() -> Self {
        Self::default()
    }

    /// A script for requests with `marker` in one of their strings, such as the task's title.
    pub fn when(marker: impl Into<String>) -> Self {
        Self { marker: Some(marker.into()), ..Self::default() }
    }

    /// Lets every session play the script from its start; by default they share one position.
    pub fn for_each_session(mut self) -> Self {
        self.per_session = true;
        self
    }

    pub fn turn(mut self, turn: Turn) -> Self {
        self.turns.push(turn);
        self
    }

    /// Requires the request of turn `turn` (from 0) to contain `text`.
    pub fn expect_in_request(mut self, turn: usize, text: impl Into<String>) -> Self {
        let turns = self.turns.len();
        let turn =
            self.turns.get_mut(turn).unwrap_or_else(|| panic!("the script has {turns} turns, not {turn}"));
        turn.expected.push(text.into());
        self
    }

    /// Requires that no request of this script contains `text`, such as a secret.
    pub fn never_in_requests(mut self, text: impl Into<String>) -> Self {
        self.forbidden.push(text.into());
        self
    }
}

/// One response of the model.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    pub(super) blocks: Vec<Block>,
    pub(super) faults: Vec<Fault>,
    pub(super) expected: Vec<String>,
    pub(super) delay: Duration,
    pub(super) usage: Option<(u64, u64)>,
}

impl Turn {
    /// Responds with `text` and ends the turn.
    pub fn text(text: impl Into<String>) -> Self {
        Self { blocks: vec![Block::Text(text.into())], ..Self::default() }
    }

    /// Calls a tool.
    pub fn tool(name: impl Into<String>, input: Value) -> Self {
        Self::default().and_tool(name, input)
    }

    /// Calls a tool with an input derived from the request.
    pub fn tool_from(
        name: impl Into<String>,
        input: impl Fn(&Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        Self { blocks: vec![Block::Tool(name.into(), Input::From(Arc::new(input)))], ..Self::default() }
    }

    /// Runs a shell command.
    pub fn bash(command: impl Into<String>) -> Self {
        Self::tool("Bash", json!({ "command": command.into(), "description": "Run a command" }))
    }

    /// Ends the session with a verdict: the tool that `--json-schema` adds.
    pub fn verdict(status: &str, summary: impl Into<String>) -> Self {
        Self::verdict_with(json!({ "status": status, "summary": summary.into() }))
    }

    /// Ends the session with a verdict of any shape, such as one that violates the schema.
    pub fn verdict_with(verdict: Value) -> Self {
        Self::tool("StructuredOutput", verdict)
    }

    /// Responds with `fault` to every request.
    pub fn never(fault: Fault) -> Self {
        Self::text("never sent").after(fault.forever())
    }

    /// Adds text before the tool calls.
    pub fn saying(mut self, text: impl Into<String>) -> Self {
        self.blocks.insert(0, Block::Text(text.into()));
        self
    }

    /// Adds a tool call to the same response.
    pub fn and_tool(mut self, name: impl Into<String>, input: Value) -> Self {
        self.blocks.push(Block::Tool(name.into(), Input::Is(input)));
        self
    }

    /// Injects a fault before the response; several faults of a turn apply in order.
    pub fn after(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Requires the request of this turn to contain `text`.
    pub fn expecting(mut self, text: impl Into<String>) -> Self {
        self.expected.push(text.into());
        self
    }

    /// Delays the response.
    pub fn thinking(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Reports this usage, for tests of cost limits.
    ///
    /// As with the real API, there are no more input tokens than bytes, and no more output tokens
    /// than the request allows; an answer that needs more is cut.
    pub fn using(mut self, input_tokens: u64, output_tokens: u64) -> Self {
        self.usage = Some((input_tokens, output_tokens));
        self
    }

    /// Returns the fault of the `attempt`-th request (from 0) for this turn.
    pub(super) fn fault(&self, attempt: usize) -> Option<&Fault> {
        let mut left = attempt;
        self.faults.iter().find(|fault| match left.checked_sub(fault.times) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        })
    }
}

#[derive(Clone, Debug)]
pub(super) enum Block {
    Text(String),
    Tool(String, Input),
}

#[derive(Clone)]
pub(super) enum Input {
    Is(Value),
    From(FromRequest),
}

impl Input {
    pub(super) fn value(&self, request: &Value) -> Value {
        match self {
            Self::Is(value) => value.clone(),
            Self::From(make) => make(request),
        }
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(value) => value.fmt(f),
            Self::From(_) => f.write_str("made from the request"),
        }
    }
}

/// An injected fault instead of a response.
#[derive(Clone, Debug)]
pub struct Fault {
    pub(super) kind: FaultKind,
    pub(super) times: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum FaultKind {
    Status { status: u16, retry_after: Option<u32> },
    Error { status: u16, kind: &'static str, text: &'static str, retry_after: Option<u32> },
    NoAnswer,
    StallsMidStream,
    DropsMidStream,
}

impl FaultKind {
    /// Returns whether the API charges for the request: for an error it does not.
    pub(super) fn is_charged(self) -> bool {
        match self {
            Self::Status { .. } | Self::Error { .. } => false,
            Self::NoAnswer | Self::StallsMidStream | Self::DropsMidStream => true,
        }
    }
}

impl Fault {
    fn once(kind: FaultKind) -> Self {
        Self { kind, times: 1 }
    }

    /// An error status.
    pub fn status(status: u16) -> Self {
        Self::once(FaultKind::Status { status, retry_after: None })
    }

    /// An error status with `Retry-After`.
    pub fn retry_after(status: u16, seconds: u32) -> Self {
        Self::once(FaultKind::Status { status, retry_after: Some(seconds) })
    }

    /// An error of the API with its own type and text.
    pub fn error(status: u16, kind: &'static str, text: &'static str) -> Self {
        Self::once(FaultKind::Error { status, kind, text, retry_after: None })
    }

    /// Names a time after which the API answers again.
    ///
    /// # Panics
    /// Panics if the fault is not an error of the API.
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        let (FaultKind::Status { retry_after, .. } | FaultKind::Error { retry_after, .. }) = &mut self.kind
        else {
            panic!("{self:?} has no headers");
        };
        *retry_after = Some(seconds);
        self
    }

    /// No response until the client or the server closes the connection.
    pub fn no_answer() -> Self {
        Self::once(FaultKind::NoAnswer)
    }

    /// The response starts and then stalls.
    pub fn stalls_mid_stream() -> Self {
        Self::once(FaultKind::StallsMidStream)
    }

    /// The response starts and then the connection breaks.
    pub fn drops_mid_stream() -> Self {
        Self::once(FaultKind::DropsMidStream)
    }

    /// Repeats the fault `times` times.
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Repeats the fault forever.
    pub fn forever(self) -> Self {
        self.times(usize::MAX)
    }
}
