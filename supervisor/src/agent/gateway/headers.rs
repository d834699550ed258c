//! Which headers pass the gateway, in each direction. Pure.

use std::collections::BTreeSet;

use axum::http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::json::short;

/// Request headers that pass.
const REQUEST: &[&str] = &[
    "accept",
    "anthropic-dangerous-direct-browser-access",
    "user-agent",
    "x-app",
    "x-claude-code-agent-id",
    "x-claude-code-session-id",
];

/// Prefix of further request headers that pass: those of the client library.
const REQUEST_PREFIX: &str = "x-stainless-";

/// Response headers that pass.
const RESPONSE: &[&str] = &["content-type", "request-id", "retry-after", "retry-after-ms", "x-should-retry"];

/// Prefix of further response headers that pass.
const RESPONSE_PREFIX: &str = "anthropic-ratelimit-";

/// Longest value that passes, in bytes.
const MAX_VALUE_BYTES: usize = 1024;

/// The version of the API; there is no other.
const VERSION: &str = "2023-06-01";

/// Features of the API that the CLI may switch on, without their dates.
///
/// None of them stores files, runs code, calls another model or raises a price.
const FEATURES: &[&str] = &[
    "advanced-tool-use",
    "cache-diagnosis",
    "claude-code",
    "claude-code-side-query",
    "context-1m",
    "context-hint",
    "context-management",
    "effort",
    "extended-cache-ttl",
    "fine-grained-tool-streaming",
    "inline-tools",
    "interleaved-thinking",
    "mid-conversation-system",
    "mid-conversation-system-clear-at",
    "mid-conversation-tool-changes",
    "oauth",
    "per-turn-control",
    "prompt-caching",
    "prompt-caching-evict",
    "prompt-caching-scope",
    "redact-thinking",
    "structured-outputs",
    "task-budgets",
    "thinking-binding-controls",
    "thinking-display-updates",
    "thinking-resumption",
    "thinking-token-count",
    "timing",
    "token-counting",
    "token-efficient-tools",
    "tool-search-tool",
    "web-search",
    "web-search-results-only",
];

/// The headers of a request to the API.
#[derive(Debug)]
pub struct RequestHeaders {
    pub headers: HeaderMap,
    /// Names of features that were removed.
    pub removed: BTreeSet<String>,
}

/// Returns the headers to send for a request with these headers, without a credential.
#[must_use]
pub fn request_headers(received: &HeaderMap) -> RequestHeaders {
    let mut headers = HeaderMap::new();
    for (name, value) in received {
        let passes = REQUEST.contains(&name.as_str()) || name.as_str().starts_with(REQUEST_PREFIX);
        if passes && value.len() <= MAX_VALUE_BYTES && !headers.contains_key(name) {
            headers.insert(name.clone(), value.clone());
        }
    }
    if !headers.contains_key(ACCEPT) {
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // The meter reads the response.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(HeaderName::from_static("anthropic-version"), HeaderValue::from_static(VERSION));
    let mut removed = BTreeSet::new();
    let mut features = Vec::new();
    let lists = received.get_all("anthropic-beta").iter().filter_map(|value| value.to_str().ok());
    for feature in
        lists.flat_map(|list| list.split(',')).map(str::trim).filter(|text| !text.is_empty()).take(64)
    {
        if is_allowed_feature(feature) {
            features.push(feature);
        } else {
            removed.insert(short(feature));
        }
    }
    if let Ok(value) = HeaderValue::from_str(&features.join(","))
        && !features.is_empty()
    {
        headers.insert(HeaderName::from_static("anthropic-beta"), value);
    }
    RequestHeaders { headers, removed }
}

/// Returns whether a feature with its date, such as `effort-2025-11-24`, may be switched on.
fn is_allowed_feature(feature: &str) -> bool {
    // An undated part of a name never is a date: `-` and ten characters, or eight digits.
    let dashed = feature.len().checked_sub(11).filter(|at| feature.is_char_boundary(*at));
    let (name, date) = match dashed.map(|at| feature.split_at(at)) {
        Some((name, date)) if date.starts_with("-20") => (name, date),
        Some(_) | None => feature.rsplit_once('-').unwrap_or((feature, "")),
    };
    date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') && FEATURES.contains(&name)
}

/// Returns the headers of a response for the CLI.
#[must_use]
pub fn response_headers(received: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in received {
        if RESPONSE.contains(&name.as_str()) || name.as_str().starts_with(RESPONSE_PREFIX) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn credentials_and_connection_headers_do_not_pass() {
        let received = map(&[
            ("authorization", "Bearer x"),
            ("x-api-key", "x"),
            ("cookie", "a=b"),
            ("host", "evil.example"),
            ("connection", "upgrade, x-secret"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "Basic x"),
            ("x-forwarded-host", "evil.example"),
            ("anthropic-workspace-id", "w"),
            ("accept-encoding", "gzip, br"),
            ("anthropic-version", "2099-01-01"),
            ("user-agent", "claude-cli/2"),
            ("x-stainless-os", "Linux"),
            ("x-app", "cli"),
            ("x-claude-code-session-id", "s"),
        ]);
        let headers = request_headers(&received).headers;
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expected = [
            "accept",
            "accept-encoding",
            "anthropic-version",
            "content-type",
            "user-agent",
            "x-app",
            "x-claude-code-session-id",
            "x-stainless-os",
        ];
        assert_eq!(names, expected);
        assert_eq!(headers["accept-encoding"], "identity");
        assert_eq!(headers["anthropic-version"], VERSION);
    }

    #[test]
    fn features_of_cli_pass_and_others_are_removed() {
        let measured = "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,\
                        per-turn-control-2026-07-01,mid-conversation-tool-changes-2026-07-01,\
                        thinking-token-count-2026-05-13,advanced-tool-use-2025-11-20,effort-2025-11-24,\
                        thinking-display-updates-2026-08-18";
        let own = request_headers(&map(&[("anthropic-beta", measured)]));
        assert_eq!((own.headers["anthropic-beta"].to_str().unwrap(), own.removed.len()), (measured, 0));
        let refused = "files-api-2025-04-14, fast-mode-2026-02-01,mcp-client-2025-11-20,code-execution-2025-08-25,\
                       effort-x, effort-2025-11-24-files, skills-2025-10-02,effort";
        let mixed =
            request_headers(&map(&[("anthropic-beta", refused), ("anthropic-beta", "effort-2025-11-24")]));
        assert_eq!(mixed.headers["anthropic-beta"], "effort,effort-2025-11-24");
        assert_eq!(mixed.removed.len(), 7, "{:?}", mixed.removed);
    }

    #[test]
    fn response_keeps_what_the_cli_reads() {
        let received = map(&[
            ("content-type", "text/event-stream"),
            ("retry-after", "3"),
            ("anthropic-ratelimit-requests-remaining", "4"),
            ("set-cookie", "a=b"),
            ("anthropic-organization-id", "org"),
            ("location", "https://evil.example"),
            ("content-length", "3"),
        ]);
        let mut names: Vec<String> = response_headers(&received).keys().map(ToString::to_string).collect();
        names.sort_unstable();
        assert_eq!(names, ["anthropic-ratelimit-requests-remaining", "content-type", "retry-after"]);
    }
}
