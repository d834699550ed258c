//! A loose description of a run in words: "the current task", "task 3 of the trader service". Pure.

use orchestrator_contract::{Kind, ServiceName, TaskId};

use super::{Recency, RunQuery};
use crate::error::Error;
use crate::task::advice::Advice;
use crate::task::service_name;
use crate::task::status::Status;

/// Words that select nothing, unless a service has their name.
const FILLERS: [&str; 15] =
    ["the", "a", "an", "my", "that", "this", "of", "for", "in", "on", "run", "one", "task", "service", "job"];

/// What a word means, unless a service has its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Keyword {
    Filler,
    /// The next word may be an attempt number.
    Attempt,
    Recency(Recency),
    Kind(Kind),
}

fn keyword(word: &str) -> Option<Keyword> {
    match word {
        "attempt" => Some(Keyword::Attempt),
        "current" | "running" | "active" | "now" => Some(Keyword::Recency(Recency::Current)),
        "last" | "latest" | "newest" | "recent" | "most" | "previous" => {
            Some(Keyword::Recency(Recency::Latest))
        }
        "docs" | "documentation" | "documents" => Some(Keyword::Kind(Kind::Docs)),
        "implementation" => Some(Keyword::Kind(Kind::Implementation)),
        word => FILLERS.contains(&word).then_some(Keyword::Filler),
    }
}

/// Parses a run name or a loose description of a run; blank text selects nothing.
///
/// The names of `known` services win over words, so that the service `docs` can be selected.
///
/// # Errors
/// Returns an error if a word is not a run, a task, a known service or a known word, or if the text selects
/// nothing; the hint lists what is accepted.
pub fn parse_query(text: &str, all: &[Status], known: &[ServiceName]) -> Result<RunQuery, Error> {
    let text = text.trim();
    if let Some(status) = all.iter().find(|status| status.run.as_str() == text) {
        return Ok(RunQuery { run: Some(status.run.clone()), ..RunQuery::default() });
    }
    let lower = text.to_lowercase();
    let quotes = |c: char| matches!(c, '"' | '\'' | '`' | ',' | '.' | '?' | '#');
    let words: Vec<&str> = lower
        .split_whitespace()
        .map(|word| word.trim_matches(quotes))
        .filter(|word| !word.is_empty())
        .collect();
    let (service, service_words) = named_service(text, &words, known)?;
    let mut query = RunQuery { service, ..RunQuery::default() };
    let mut is_attempt = false;
    for word in words.into_iter().filter(|word| !service_words.contains(word)) {
        match keyword(word) {
            Some(Keyword::Filler) => {}
            Some(Keyword::Recency(recency)) => query.recency = recency,
            Some(Keyword::Kind(Kind::Implementation)) => {
                query.kind = query.kind.or(Some(Kind::Implementation));
            }
            Some(Keyword::Kind(Kind::Docs)) => query.kind = Some(Kind::Docs),
            Some(Keyword::Attempt) => {}
            None => {
                let is_read = read_number(word, is_attempt, &mut query);
                is_read.ok_or_else(|| unknown_run(text, all))?;
            }
        }
        is_attempt = word == "attempt";
    }
    if query == RunQuery::default() && !text.is_empty() {
        return Err(unknown_run(text, all));
    }
    Ok(query)
}

/// Reads the number of a task, such as `3` or `task3`, or after `attempt` of an attempt; `None` if the word is no
/// number or contradicts an earlier one.
fn read_number(word: &str, is_attempt: bool, query: &mut RunQuery) -> Option<()> {
    let number = |head: &str| word.strip_prefix(head).map(|rest| rest.trim_start_matches(['-', '#']));
    let attempt = number("attempt").or(Some(word).filter(|_| is_attempt));
    if let Some(attempt) = attempt.and_then(|attempt| attempt.parse::<u32>().ok()) {
        let is_new = query.attempt.is_none_or(|earlier| earlier == attempt);
        query.attempt = Some(attempt);
        return is_new.then_some(());
    }
    let task = number("task").or_else(|| number("")).and_then(|task| task.parse::<TaskId>().ok())?;
    let is_new = query.task.is_none_or(|earlier| earlier == task);
    query.task = Some(task);
    is_new.then_some(())
}

/// Returns the known service that the words name, with the words of its name.
///
/// One whose name is a known word, such as `docs`, is meant only if no other is named.
fn named_service<'a>(
    text: &str,
    words: &[&'a str],
    known: &[ServiceName],
) -> Result<(Option<ServiceName>, Vec<&'a str>), Error> {
    let find = |name: &str| known.iter().find(|known| known.as_str() == name);
    if let Some(whole) = find(&words.join("-")) {
        return Ok((Some(whole.clone()), words.to_vec()));
    }
    let mut named: Vec<(&ServiceName, &str)> = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let mut readings = vec![find(word)];
        if words.get(at + 1) == Some(&"service") {
            readings.push(find(&format!("{word}-service")));
        }
        named.extend(readings.into_iter().flatten().map(|service| (service, *word)));
    }
    if named.iter().any(|(_, word)| keyword(word).is_none()) {
        named.retain(|(_, word)| keyword(word).is_none());
    }
    named.dedup();
    match named.as_slice() {
        [] => Ok((None, Vec::new())),
        [(service, word), rest @ ..] if rest.iter().all(|(other, _)| other == service) => {
            Ok((Some((*service).clone()), vec![*word]))
        }
        [..] => Err(service_name::ambiguous(text, named.iter().map(|(service, _)| *service))),
    }
}

fn unknown_run(text: &str, all: &[Status]) -> Error {
    let names = all.iter().flat_map(|status| [status.run.as_str(), status.service.as_str()]);
    let hint = if all.is_empty() { Advice::SubmitTask } else { Advice::SelectRun.suggesting(text, names) };
    Error::invalid_request(format!("no run named `{text}`")).with_hint(hint)
}
