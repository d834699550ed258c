//! Injected faults by call.

use std::time::Duration;

use axum::http::Method;

/// What a request does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Call {
    Repository,
    List,
    Create,
    Read,
    Change,
    Comments,
    Comment,
}

/// An injected fault of one response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Does nothing and answers with this status, and `Retry-After` in seconds if given.
    Status(u16, Option<u32>),
    /// Does nothing and answers 403 of the secondary rate limit, with `Retry-After` in seconds.
    SecondaryLimit(u32),
    /// Performs the call and answers with this status.
    StatusAfter(u16),
    /// Performs the call immediately and delays the response.
    Late(Duration),
}

/// A received request.
#[derive(Clone, Debug)]
pub struct Request {
    /// `None` for calls that this API does not have.
    pub call: Option<Call>,
    /// Method, path and query.
    pub line: String,
    pub authorization: Option<String>,
    /// Status of the response.
    pub status: u16,
}

/// The injected faults, and the number of authorized calls of each kind.
#[derive(Default)]
pub(super) struct Faults {
    set: Vec<(Call, usize, Fault)>,
    seen: Vec<Call>,
}

impl Call {
    /// Parses the path after `repos/{owner}/{name}`.
    pub(super) fn of(method: &Method, rest: &[&str]) -> Option<Self> {
        match (method.as_str(), rest) {
            ("GET", []) => Some(Self::Repository),
            ("GET", ["pulls"]) => Some(Self::List),
            ("POST", ["pulls"]) => Some(Self::Create),
            ("GET", ["pulls", _]) => Some(Self::Read),
            ("PATCH", ["pulls", _]) => Some(Self::Change),
            ("GET", ["issues", _, "comments"]) => Some(Self::Comments),
            ("POST", ["issues", _, "comments"]) => Some(Self::Comment),
            _ => None,
        }
    }
}

impl Faults {
    pub(super) fn set(&mut self, call: Call, nth: usize, fault: Fault) {
        self.set.push((call, nth, fault));
    }

    /// Counts an authorized call and returns its fault.
    pub(super) fn next(&mut self, call: Call) -> Option<Fault> {
        self.seen.push(call);
        let count = self.seen.iter().filter(|seen| **seen == call).count();
        let fault = self.set.iter().find(|(of, nth, _)| *of == call && *nth == count);
        fault.map(|(_, _, fault)| fault.clone())
    }
}
