//! What is to go wrong with which call.

use std::time::Duration;

use axum::http::Method;

/// What a request asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Call {
    /// The repository itself.
    Repository,
    /// The list of pull requests.
    List,
    /// A new pull request.
    Create,
    /// One pull request.
    Read,
    /// A change of one pull request.
    Change,
    /// The comments on an issue or pull request.
    Comments,
    /// A new comment.
    Comment,
}

/// What goes wrong with one answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// This status, with `Retry-After` seconds where given; nothing is carried out.
    Status(u16, Option<u32>),
    /// The 403 of the secondary rate limit, with `Retry-After` seconds; nothing is carried out.
    SecondaryLimit(u32),
    /// The call is carried out, and answered with this status.
    StatusAfter(u16),
    /// The call is carried out at once, and answered so much later.
    Late(Duration),
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it asked for; none for what this API does not have.
    pub call: Option<Call>,
    /// The method and the path with its query.
    pub line: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The status it was answered with.
    pub status: u16,
}

/// The faults that are set, and how many calls of each kind were let through.
#[derive(Default)]
pub(super) struct Faults {
    set: Vec<(Call, usize, Fault)>,
    seen: Vec<Call>,
}

impl Call {
    /// Reads the path behind `repos/{owner}/{name}`.
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

    /// Counts a call that was let through; answers with the fault that is set for it.
    pub(super) fn next(&mut self, call: Call) -> Option<Fault> {
        self.seen.push(call);
        let count = self.seen.iter().filter(|seen| **seen == call).count();
        let fault = self.set.iter().find(|(of, nth, _)| *of == call && *nth == count);
        fault.map(|(_, _, fault)| fault.clone())
    }
}
