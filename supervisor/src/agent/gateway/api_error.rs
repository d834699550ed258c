//! What an error of the model API means for the run. Pure.
//!
//! The gateway reads it itself: the agent CLI repeats only a part of it, and a run without the cause
//! would advise a retry that cannot succeed.
//!
//! Sources: the page "Errors" of the API's documentation, and the texts that users reported for accounts
//! without credit, disabled organizations and spend limits.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

/// Most bytes of an error that are read.
pub const MAX_BODY_BYTES: usize = 16 * 1024;

/// Longest text that is kept, in characters.
const MAX_TEXT_CHARS: usize = 300;

/// Wait from which a rate limit is one that a person plans with, not one that the CLI waits for.
const LONG_WAIT: Duration = Duration::from_secs(600);

/// Longest wait that is believed.
const MAX_WAIT: Duration = Duration::from_secs(31 * 24 * 3600);

/// An error response of the model API.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ApiError {
    pub status: u16,
    /// Type of the error, such as `invalid_request_error`.
    pub kind: String,
    /// Text of the error, bounded.
    pub message: String,
    /// When the API admits requests again, if it named a time.
    pub retry_at: Option<Timestamp>,
    pub meaning: Meaning,
}

/// What an error means for the run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Meaning {
    /// The account has no credit or is disabled: no time cures it.
    QuotaExceeded,
    /// The account reached a usage or spend limit, which ends by itself.
    UsageLimitReached,
    /// The API refused the request for its content: it will refuse the same conversation again.
    ConversationRefused,
    /// Any other error; its status says enough.
    Other,
}

#[derive(Deserialize)]
struct Body {
    error: Inner,
}

#[derive(Deserialize)]
struct Inner {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    message: String,
}

impl ApiError {
    /// Parses an error response; `None` until its body is complete.
    #[must_use]
    pub fn parse(status: u16, retry_after: Option<&str>, body: &[u8], now: Timestamp) -> Option<Self> {
        let Inner { kind, message } = serde_json::from_slice::<Body>(body).ok()?.error;
        let wait = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let wait = wait.map(|wait| wait.min(MAX_WAIT));
        let meaning = decide_meaning(status, &kind, &message, wait);
        let retry_at = wait.and_then(|wait| SignedDuration::try_from(wait).ok());
        let retry_at = retry_at.and_then(|wait| now.checked_add(wait).ok());
        Some(Self { status, kind: bounded(&kind), message: bounded(&message), retry_at, meaning })
    }

    /// Describes the error in one line, with the time of the next try.
    #[must_use]
    pub fn describe(&self) -> String {
        let text = if self.message.is_empty() { &self.kind } else { &self.message };
        let text = text.trim_end_matches('.');
        match self.retry_at {
            Some(at) => format!("the model API answered {}: {text}; try again after {at:.0}", self.status),
            None => format!("the model API answered {}: {text}", self.status),
        }
    }
}

/// Returns the start of a text, in one line.
fn bounded(text: &str) -> String {
    let shown = |c: char| if c.is_whitespace() { ' ' } else { c };
    text.chars().map(shown).filter(|c| !c.is_control()).take(MAX_TEXT_CHARS).collect()
}

fn decide_meaning(status: u16, kind: &str, message: &str, wait: Option<Duration>) -> Meaning {
    let text = message.to_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    let names_cause = matches!(status, 400 | 403 | 429);
    let without_credit =
        ["credit balance", "organization has been disabled", "exceeded your current quota"].as_slice();
    if kind == "billing_error" || status == 402 || (names_cause && says(without_credit)) {
        return Meaning::QuotaExceeded;
    }
    let is_long = status == 429 && wait.is_some_and(|wait| wait >= LONG_WAIT);
    if is_long || (names_cause && says(&["usage limit", "spend limit", "spending limit", "monthly limit"])) {
        return Meaning::UsageLimitReached;
    }
    match status {
        400 | 413 | 422 => Meaning::ConversationRefused,
        _ => Meaning::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(status: u16, kind: &str, message: &str, retry_after: Option<&str>) -> ApiError {
        let body = serde_json::json!({"type": "error", "error": {"type": kind, "message": message}});
        let now = "2026-11-27T10:00:00.5Z".parse().unwrap();
        ApiError::parse(status, retry_after, body.to_string().as_bytes(), now).unwrap()
    }

    #[test]
    fn meaning_follows_status_and_text() {
        let invalid = "invalid_request_error";
        let cases = [
            (
                400,
                invalid,
                "Your credit balance is too low to access the Anthropic API.",
                Meaning::QuotaExceeded,
            ),
            (400, invalid, "This organization has been disabled.", Meaning::QuotaExceeded),
            (402, "billing_error", "Payment required.", Meaning::QuotaExceeded),
            (400, invalid, "You have reached your specified API usage limits.", Meaning::UsageLimitReached),
            (429, "rate_limit_error", "You have reached your usage limit.", Meaning::UsageLimitReached),
            (
                429,
                "rate_limit_error",
                "Your credit balance is below the usage limit.",
                Meaning::QuotaExceeded,
            ),
            (403, "billing_error", "You reached the monthly limit.", Meaning::QuotaExceeded),
            (
                400,
                invalid,
                "prompt is too long: 215000 tokens > 200000 maximum",
                Meaning::ConversationRefused,
            ),
            (413, "request_too_large", "Request exceeds the maximum size", Meaning::ConversationRefused),
            (429, "rate_limit_error", "Too many requests", Meaning::Other),
            (401, "authentication_error", "invalid x-api-key", Meaning::Other),
            (404, "not_found_error", "model: mistake-9", Meaning::Other),
            (529, "overloaded_error", "Overloaded", Meaning::Other),
        ];
        for (status, kind, message, meaning) in cases {
            assert_eq!(parse(status, kind, message, None).meaning, meaning, "{status} {message}");
        }
    }

    #[test]
    fn long_wait_is_quota_with_time() {
        let error = parse(429, "rate_limit_error", "Number of requests exceeded.", Some("7200"));
        assert_eq!(error.meaning, Meaning::UsageLimitReached);
        assert_eq!(
            error.describe(),
            "the model API answered 429: Number of requests exceeded; try again after 2026-11-27T12:00:00Z"
        );
        assert_eq!(parse(429, "rate_limit_error", "", Some("20")).meaning, Meaning::Other);
        // A date, or a figure that no one can mean, is not believed.
        assert_eq!(parse(429, "rate_limit_error", "", Some("Fri, 27 Nov 2026")).retry_at, None);
        let far = parse(429, "rate_limit_error", "", Some("99999999999999")).retry_at.unwrap();
        assert!(far.to_string().starts_with("2026-12-28"), "{far}");
    }

    #[test]
    fn incomplete_or_foreign_body_is_no_error() {
        let now = Timestamp::UNIX_EPOCH;
        for body in ["", "{", "{\"error\":", "<html>", "[]", "{\"error\":\"text\"}"] {
            assert_eq!(ApiError::parse(400, None, body.as_bytes(), now), None, "{body}");
        }
        let long = parse(400, "invalid_request_error", &"x".repeat(100_000), None);
        assert!(long.message.len() < 1000, "{}", long.message.len());
    }
}
