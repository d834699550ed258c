//! What the model says: turns played in order, with faults before them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

type FromRequest = Arc<dyn Fn(&Value) -> Value + Send + Sync>;

/// The turns of one conversation, or of every conversation that mentions a marker.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub(super) marker: Option<String>,
    pub(super) per_session: bool,
    pub(super) turns: Vec<Turn>,
    pub(super) forbidden: Vec<String>,
}

impl Script {
    /// Played for every request that no script with a marker takes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Played for requests with `marker` in one of their strings (the task's text, say).
    pub fn when(marker: impl Into<String>) -> Self {
        Self { marker: Some(marker.into()), ..Self::default() }
    }

    /// Every session plays the script from its start; without this they share one position.
    pub fn for_each_session(mut self) -> Self {
        self.per_session = true;
        self
    }

    /// Adds a turn.
    pub fn turn(mut self, turn: Turn) -> Self {
        self.turns.push(turn);
        self
    }

    /// The request that turn `turn` (from 0) answers must contain `text`.
    pub fn expect_in_request(mut self, turn: usize, text: impl Into<String>) -> Self {
        let turns = self.turns.len();
        let turn =
            self.turns.get_mut(turn).unwrap_or_else(|| panic!("the script has {turns} turns, not {turn}"));
        turn.expected.push(text.into());
        self
    }

    /// No request of this script may contain `text` (a secret, say).
    pub fn never_in_requests(mut self, text: impl Into<String>) -> Self {
        self.forbidden.push(text.into());
        self
    }
}

/// One answer of the model.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    pub(super) blocks: Vec<Block>,
    pub(super) faults: Vec<Fault>,
    pub(super) expected: Vec<String>,
    pub(super) delay: Duration,
    pub(super) usage: Option<(u64, u64)>,
}

impl Turn {
    /// Says `text` and ends its turn.
    pub fn text(text: impl Into<String>) -> Self {
        Self { blocks: vec![Block::Text(text.into())], ..Self::default() }
    }

    /// Calls a tool.
    pub fn tool(name: impl Into<String>, input: Value) -> Self {
        Self::default().and_tool(name, input)
    }

    /// Calls a tool with an input made from the request it answers.
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

    /// Ends the work with a verdict: the tool `--json-schema` adds. The CLI asks nothing more.
    pub fn verdict(status: &str, summary: impl Into<String>) -> Self {
        Self::verdict_with(json!({ "status": status, "summary": summary.into() }))
    }

    /// A verdict of any shape: with a question, or one that breaks the schema.
    pub fn verdict_with(verdict: Value) -> Self {
        Self::tool("StructuredOutput", verdict)
    }

    /// Never answers: `fault`, however often it is asked.
    pub fn never(fault: Fault) -> Self {
        Self::text("never said").after(fault.for_ever())
    }

    /// Says `text` before its tool calls.
    pub fn saying(mut self, text: impl Into<String>) -> Self {
        self.blocks.insert(0, Block::Text(text.into()));
        self
    }

    /// Calls one more tool in the same answer.
    pub fn and_tool(mut self, name: impl Into<String>, input: Value) -> Self {
        self.blocks.push(Block::Tool(name.into(), Input::Is(input)));
        self
    }

    /// `fault` comes first, as often as it says; faults of one turn come in their order.
    pub fn after(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// The request this turn answers must contain `text`.
    pub fn expecting(mut self, text: impl Into<String>) -> Self {
        self.expected.push(text.into());
        self
    }

    /// Thinks this long before it answers.
    pub fn thinking(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Reports this usage, for tests about cost.
    pub fn using(mut self, input_tokens: u64, output_tokens: u64) -> Self {
        self.usage = Some((input_tokens, output_tokens));
        self
    }

    /// The fault that the `attempt`-th request (from 0) for this turn meets.
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

/// What goes wrong instead of an answer.
#[derive(Clone, Debug)]
pub struct Fault {
    pub(super) kind: FaultKind,
    pub(super) times: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum FaultKind {
    Status { status: u16, retry_after: Option<u32> },
    NoAnswer,
    StallsMidStream,
    DropsMidStream,
}

impl Fault {
    fn once(kind: FaultKind) -> Self {
        Self { kind, times: 1 }
    }

    /// The API answers with an error.
    pub fn status(status: u16) -> Self {
        Self::once(FaultKind::Status { status, retry_after: None })
    }

    /// The API answers with an error and says when to come back.
    pub fn retry_after(status: u16, seconds: u32) -> Self {
        Self::once(FaultKind::Status { status, retry_after: Some(seconds) })
    }

    /// Nothing comes back, not even headers, until the client goes or the server is dropped.
    pub fn no_answer() -> Self {
        Self::once(FaultKind::NoAnswer)
    }

    /// The answer begins and then stands still.
    pub fn stalls_mid_stream() -> Self {
        Self::once(FaultKind::StallsMidStream)
    }

    /// The answer begins and then the connection breaks.
    pub fn drops_mid_stream() -> Self {
        Self::once(FaultKind::DropsMidStream)
    }

    /// Not once but `times`.
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Whenever it is asked.
    pub fn for_ever(self) -> Self {
        self.times(usize::MAX)
    }
}
