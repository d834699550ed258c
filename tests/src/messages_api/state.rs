//! Position of each script, received requests, and unmet expectations.

use std::collections::HashMap;
use std::time::Instant;

use axum::response::{IntoResponse as _, Json, Response};
use serde_json::{Value, json};

use super::answer;
use super::bill::Bill;
use super::script::{FaultKind, Script, Turn};

/// A received request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method and path, without the query.
    pub line: String,
    /// The session ID that the CLI sent.
    pub session: Option<String>,
    /// The JSON body; null if there was none.
    pub body: Value,
    /// Script and turn that answered it, for a request of a main conversation.
    pub taken: Option<(usize, usize)>,
    pub at: Instant,
}

impl Request {
    /// Returns whether a string of the body contains `text`.
    pub fn contains(&self, text: &str) -> bool {
        contains(&self.body, text)
    }

    /// Returns the requested model.
    pub fn model(&self) -> &str {
        self.body["model"].as_str().unwrap_or_default()
    }

    /// Returns the names of the offered tools.
    pub fn tools(&self) -> Vec<&str> {
        let tools = self.body["tools"].as_array();
        tools.into_iter().flatten().filter_map(|tool| tool["name"].as_str()).collect()
    }
}

/// Returns whether a string in `value`, at any depth, contains `text`.
pub(super) fn contains(value: &Value, text: &str) -> bool {
    match value {
        Value::String(string) => string.contains(text),
        Value::Array(values) => values.iter().any(|value| contains(value, text)),
        Value::Object(fields) => fields.values().any(|value| contains(value, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    scripts: Vec<Script>,
    positions: HashMap<(usize, String), ScriptPosition>,
    pub(super) requests: Vec<Request>,
    pub(super) failures: Vec<String>,
    pub(super) bill: Bill,
    /// Files that the owner of the key stored.
    pub(super) files: Vec<String>,
}

/// The position in a script.
#[derive(Clone, Copy, Debug, Default)]
struct ScriptPosition {
    turn: usize,
    attempt: usize,
}

/// The response to a request of a main conversation.
#[derive(Debug)]
pub(super) struct ScriptStep {
    pub(super) turn: Turn,
    pub(super) fault: Option<FaultKind>,
    /// The response without the fault.
    pub(super) message: Value,
}

impl State {
    pub(super) fn new(scripts: Vec<Script>) -> Self {
        let files = vec!["file_011owner".to_owned(), "file_012owner".to_owned()];
        Self { scripts, files, ..Self::default() }
    }

    /// Answers a request to another endpoint with a valid key, as the API does.
    pub(super) fn answer_other(&mut self, line: &str) -> Response {
        let listed =
            |ids: &[String]| json!({ "data": ids.iter().map(|id| json!({ "id": id })).collect::<Vec<_>>() });
        match line.split_once(' ') {
            Some(("GET", "/v1/files")) => Json(listed(&self.files)).into_response(),
            Some(("GET", "/v1/models")) => Json(listed(&["claude-sonnet-5-5".to_owned()])).into_response(),
            Some(("DELETE", path)) if path.starts_with("/v1/files/") => {
                let id = path.trim_start_matches("/v1/files/");
                self.files.retain(|file| file != id);
                Json(json!({ "id": id, "type": "file_deleted" })).into_response()
            }
            Some(("POST", "/v1/messages/batches")) => {
                // Its requests run later; each costs what the run's budget never sees.
                self.bill.charge_batch();
                Json(json!({ "id": "msgbatch_1", "type": "message_batch" })).into_response()
            }
            Some(_) | None => answer::error(404, "not_found_error", line),
        }
    }

    /// Advances the script for the request at `index` of `requests`.
    pub(super) fn step(&mut self, index: usize) -> ScriptStep {
        let request = &mut self.requests[index];
        let Some(which) = find_script(&self.scripts, request) else {
            self.failures.push(format!("request {index}: no script takes it"));
            return ScriptStep {
                turn: Turn::text("no script takes this request"),
                fault: None,
                message: Value::Null,
            };
        };
        let script = &self.scripts[which];
        let position = self.positions.entry((which, session_key(script, request))).or_default();
        let at = position.turn;
        for text in script.forbidden.iter().filter(|text| request.contains(text)) {
            self.failures.push(format!("{}: the request contains {text:?}", name(script, at)));
        }
        let Some(turn) = script.turns.get(at) else {
            self.failures.push(format!("{}: requested more than the script has", name(script, at)));
            return ScriptStep { turn: Turn::text("script exhausted"), fault: None, message: Value::Null };
        };
        request.taken = Some((which, at));
        let fault = turn.fault(position.attempt).map(|fault| fault.kind);
        if fault.is_some() {
            position.attempt += 1;
        } else {
            *position = ScriptPosition { turn: at + 1, attempt: 0 };
            for text in turn.expected.iter().filter(|text| !request.contains(text)) {
                self.failures.push(format!("{}: the request lacks {text:?}", name(script, at)));
            }
        }
        ScriptStep { turn: turn.clone(), fault, message: Value::Null }
    }

    /// Returns unmet expectations, including those of turns that were never requested.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut failures = self.failures.clone();
        for (which, script) in self.scripts.iter().enumerate() {
            for (at, turn) in script.turns.iter().enumerate().skip(self.played(which)) {
                let missing = turn.expected.iter();
                failures.extend(
                    missing.map(|text| format!("{}: never requested, expected {text:?}", name(script, at))),
                );
            }
        }
        failures
    }

    /// Returns the number of turns that were never requested.
    pub(super) fn unplayed(&self) -> usize {
        self.scripts.iter().enumerate().map(|(which, script)| script.turns.len() - self.played(which)).sum()
    }

    /// Returns how many turns of a script were played, by the session that played the fewest.
    fn played(&self, which: usize) -> usize {
        let positions = self.positions.iter().filter(|((script, _), _)| *script == which);
        positions.map(|(_, position)| position.turn).min().unwrap_or(0)
    }
}

/// Returns the script for a request; scripts with a marker take precedence.
fn find_script(scripts: &[Script], request: &Request) -> Option<usize> {
    let marked = |script: &Script| script.marker.as_ref().is_some_and(|marker| request.contains(marker));
    let by_marker = scripts.iter().position(marked);
    by_marker.or_else(|| scripts.iter().position(|script| script.marker.is_none()))
}

fn session_key(script: &Script, request: &Request) -> String {
    match (script.per_session, &request.session) {
        (true, Some(session)) => session.clone(),
        _ => String::new(),
    }
}

fn name(script: &Script, turn: usize) -> String {
    match &script.marker {
        Some(marker) => format!("script {marker:?}, turn {turn}"),
        None => format!("turn {turn}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::script::Fault;
    use super::*;

    fn ask(state: &mut State, session: &str, text: &str) -> ScriptStep {
        state.requests.push(Request {
            line: "POST /v1/messages".to_owned(),
            session: Some(session.to_owned()),
            body: json!({ "messages": [{ "role": "user", "content": [{ "type": "text", "text": text }] }] }),
            taken: None,
            at: Instant::now(),
        });
        state.step(state.requests.len() - 1)
    }

    #[test]
    fn unmet_expectation_is_reported_with_turn() {
        let script = Script::new()
            .turn(Turn::text("one").expecting("hello"))
            .turn(Turn::text("two"))
            .turn(Turn::text("three").expecting("never"))
            .never_in_requests("secret");
        let mut state = State::new(vec![script, Script::when("red")]);
        ask(&mut state, "s", "good morning");
        ask(&mut state, "s", "a secret");
        ask(&mut state, "s", "red");

        let reported = [
            "turn 0: the request lacks \"hello\"",
            "turn 1: the request contains \"secret\"",
            "script \"red\", turn 0: requested more than the script has",
            "turn 2: never requested, expected \"never\"",
        ];
        assert_eq!(state.failures(), reported);
        assert_eq!(state.unplayed(), 1);
    }

    #[test]
    fn faults_are_served_in_order_before_their_turn() {
        let turn = Turn::text("one").after(Fault::status(529).times(2)).after(Fault::no_answer());
        let mut state = State::new(vec![Script::new().turn(turn).turn(Turn::text("two"))]);

        let faults: Vec<String> = (0..5).map(|_| format!("{:?}", ask(&mut state, "s", "go").fault)).collect();

        let overloaded = "Some(Status { status: 529, retry_after: None })";
        assert_eq!(faults, [overloaded, overloaded, "Some(NoAnswer)", "None", "None"]);
        assert_eq!(state.requests.last().unwrap().taken, Some((0, 1)));
    }

    #[test]
    fn per_session_script_is_played_when_all_sessions_finish() {
        let script = Script::new().for_each_session().turn(Turn::text("one")).turn(Turn::text("two"));
        let mut state = State::new(vec![script]);
        ask(&mut state, "a", "go");
        ask(&mut state, "a", "go");
        ask(&mut state, "b", "go");
        assert_eq!(state.unplayed(), 1);
        ask(&mut state, "b", "go");
        assert_eq!((state.unplayed(), state.failures().len()), (0, 0));
    }
}
