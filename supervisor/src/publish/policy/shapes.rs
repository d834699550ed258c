//! Patterns of well-known tokens that rarely match anything else.

use std::sync::LazyLock;

use regex::bytes::{Regex, RegexSet};

/// Kinds and regular expressions. They match bytes, see [`bytewise`].
const TOKEN_PATTERNS: [(&str, &str); 14] = [
    ("GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})\b"),
    ("AWS access key id", r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
    (
        "AWS secret access key",
        r#"(?i:aws_?secret_?(?:access_?)?key)["']?\s{0,4}(?:=>|[:=])\s{0,4}["']?[A-Za-z0-9/+]{40}(?:[^A-Za-z0-9/+=]|$)"#,
    ),
    ("Anthropic key", r"\bsk-ant-[a-z]{3,8}[0-9]{2}-[A-Za-z0-9_-]{24,}"),
    ("OpenAI key", r"\bsk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{40,}"),
    ("Slack token", r"\bxox[abeoprs](?:\.xox[abp])?-(?:[0-9]+-)+[A-Za-z0-9-]{16,}"),
    ("Slack webhook", r"hooks\.slack\.com/services/T[A-Z0-9]{8,}/B[A-Z0-9]{8,}/[A-Za-z0-9]{20,}"),
    (
        "private key",
        r#"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:[\s"'+,\\]|\\[rn])*(?:[A-Za-z-]+: [^\n]*\s+)*[A-Za-z0-9+/]{40,}"#,
    ),
    ("GitLab token", r"\bgl(?:pat|dt|rt|cbt|ptt)-[A-Za-z0-9_-]{20,}"),
    ("npm token", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("PyPI token", r"\bpypi-AgE[A-Za-z0-9_-]{50,}"),
    ("Google API key", r"\bAIza[A-Za-z0-9_-]{35}(?:[^A-Za-z0-9_-]|$)"),
    ("Stripe live key", r"\b[sr]k_live_[A-Za-z0-9]{20,}"),
    ("crates.io token", r"\bcio[A-Za-z0-9]{32}\b"),
];

/// Minimum distinct characters of a token; fewer is a placeholder (`xxxx`).
const MIN_DISTINCT_CHARS: usize = 9;

static SET: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new(TOKEN_PATTERNS.map(|(_, pattern)| bytewise(pattern))).expect("the patterns are valid")
});

static EACH: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let regex = |(_, pattern): (&str, &str)| Regex::new(&bytewise(pattern)).expect("the patterns are valid");
    TOKEN_PATTERNS.map(regex).into()
});

/// Disables Unicode, so that `\b` and classes match bytes.
fn bytewise(pattern: &str) -> String {
    format!("(?-u){pattern}")
}

/// Returns the kinds of tokens in `bytes`.
pub(super) fn find(bytes: &[u8]) -> Vec<&'static str> {
    let matched = SET.matches(bytes);
    let is_real = |index: &usize| {
        EACH.get(*index)
            .is_some_and(|regex| regex.find_iter(bytes).any(|hit| !is_placeholder(hit.as_bytes())))
    };
    let name = |index: usize| TOKEN_PATTERNS.get(index).map(|(kind, _)| *kind);
    matched.into_iter().filter(is_real).filter_map(name).collect()
}

/// Replaces every token by its kind.
pub(super) fn mask(text: &str) -> String {
    let mut masked = text.as_bytes().to_vec();
    for (regex, (kind, _)) in EACH.iter().zip(TOKEN_PATTERNS) {
        if regex.is_match(&masked) {
            masked = regex.replace_all(&masked, format!("[{kind}]").as_bytes()).into_owned();
        }
    }
    String::from_utf8_lossy(&masked).into_owned()
}

/// Returns whether a match is a placeholder of documentation or tests.
///
/// AWS examples end with `EXAMPLE` or `EXAMPLEKEY`, others repeat a letter.
fn is_placeholder(token: &[u8]) -> bool {
    let contains = |word: &[u8]| token.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word));
    let mut seen = [false; 256];
    for byte in token {
        if let Some(slot) = seen.get_mut(usize::from(*byte)) {
            *slot = true;
        }
    }
    let has_run = || token.chunk_by(|one, other| one == other).any(|run| run.len() >= 8);
    let has_few_chars = || token.len() < 60 && seen.iter().filter(|seen| **seen).count() < MIN_DISTINCT_CHARS;
    contains(b"EXAMPLE") || has_run() || has_few_chars()
}
