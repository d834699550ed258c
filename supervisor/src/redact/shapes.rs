//! Tokens of well-known forms that rarely match anything else.

use std::ops::Range;
use std::sync::LazyLock;

use regex::bytes::Regex;

/// A well-known form of tokens.
struct Shape {
    kind: &'static str,
    /// Texts that tokens start with; `pattern` starts there too.
    starts: &'static [&'static str],
    /// Whether no letter, digit or `_` may precede.
    is_word: bool,
    /// Regular expression of the token, for bytes.
    pattern: &'static str,
}

const SHAPES: [Shape; 14] = [
    Shape {
        kind: "GitHub token",
        starts: &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"],
        is_word: true,
        pattern: r"(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})\b",
    },
    Shape {
        kind: "AWS access key id",
        starts: &["AKIA", "ASIA"],
        is_word: true,
        pattern: r"(?:AKIA|ASIA)[A-Z2-7]{16}\b",
    },
    Shape {
        kind: "AWS secret access key",
        starts: &[
            "aws_secret",
            "AWS_SECRET",
            "Aws_Secret",
            "awsSecret",
            "AwsSecret",
            "AWSSecret",
            "awssecret",
            "AWSSECRET",
        ],
        is_word: false,
        pattern: r#"(?i:aws_?secret_?(?:access_?)?key)["']?\s{0,4}(?:=>|[:=])\s{0,4}["']?[A-Za-z0-9/+]{40}(?:[^A-Za-z0-9/+=]|$)"#,
    },
    Shape {
        kind: "Anthropic key",
        starts: &["sk-ant-"],
        is_word: true,
        pattern: r"sk-ant-[a-z]{3,8}[0-9]{2}-[A-Za-z0-9_-]{24,}",
    },
    Shape {
        kind: "OpenAI key",
        starts: &["sk-proj-", "sk-svcacct-", "sk-admin-"],
        is_word: true,
        pattern: r"sk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{40,}",
    },
    Shape {
        kind: "Slack token",
        starts: &["xoxa", "xoxb", "xoxe", "xoxo", "xoxp", "xoxr", "xoxs"],
        is_word: true,
        pattern: r"xox[abeoprs](?:\.xox[abp])?-(?:[0-9]+-)+[A-Za-z0-9-]{16,}",
    },
    Shape {
        kind: "Slack webhook",
        starts: &["hooks.slack.com/services/T"],
        is_word: false,
        pattern: r"hooks\.slack\.com/services/T[A-Z0-9]{8,}/B[A-Z0-9]{8,}/[A-Za-z0-9]{20,}",
    },
    Shape {
        kind: "private key",
        starts: &["-----BEGIN "],
        is_word: false,
        pattern: r#"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:[\s"'+,\\]|\\[rn])*(?:[A-Za-z-]+: [^\n]*\s+)*[A-Za-z0-9+/]{40,}"#,
    },
    Shape {
        kind: "GitLab token",
        starts: &["glpat-", "gldt-", "glrt-", "glcbt-", "glptt-"],
        is_word: true,
        pattern: r"gl(?:pat|dt|rt|cbt|ptt)-[A-Za-z0-9_-]{20,}",
    },
    Shape { kind: "npm token", starts: &["npm_"], is_word: true, pattern: r"npm_[A-Za-z0-9]{36}\b" },
    Shape {
        kind: "PyPI token",
        starts: &["pypi-AgE"],
        is_word: true,
        pattern: r"pypi-AgE[A-Za-z0-9_-]{50,}",
    },
    Shape {
        kind: "Google API key",
        starts: &["AIza"],
        is_word: true,
        pattern: r"AIza[A-Za-z0-9_-]{35}(?:[^A-Za-z0-9_-]|$)",
    },
    Shape {
        kind: "Stripe live key",
        starts: &["sk_live_", "rk_live_"],
        is_word: true,
        pattern: r"[sr]k_live_[A-Za-z0-9]{20,}",
    },
    Shape { kind: "crates.io token", starts: &["cio"], is_word: true, pattern: r"cio[A-Za-z0-9]{32}\b" },
];

/// Maximum bytes of a token that are looked at; a private key is recognized by its start.
const MAX_TOKEN_BYTES: usize = 2048;

/// Minimum distinct characters of a token; fewer is a placeholder (`xxxx`).
const MIN_DISTINCT_CHARS: usize = 9;

static ANCHORED: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    // Without Unicode, `\b` and classes match bytes.
    let regex =
        |shape: Shape| Regex::new(&format!("^(?-u){}", shape.pattern)).expect("the patterns are valid");
    SHAPES.map(regex).into()
});

/// Returns the texts that tokens start with, each with the index of its shape.
pub(super) fn starts() -> impl Iterator<Item = (usize, &'static str)> {
    SHAPES.iter().enumerate().flat_map(|(index, shape)| shape.starts.iter().map(move |start| (index, *start)))
}

/// Returns the kind and the range of the token of a shape that starts at `start`.
pub(super) fn token_at(index: usize, bytes: &[u8], start: usize) -> Option<(&'static str, Range<usize>)> {
    let shape = SHAPES.get(index)?;
    let is_word_byte = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    if shape.is_word && start.checked_sub(1).and_then(|before| bytes.get(before)).is_some_and(is_word_byte) {
        return None;
    }
    let rest = bytes.get(start..bytes.len().min(start + MAX_TOKEN_BYTES))?;
    let token = ANCHORED.get(index)?.find(rest)?;
    (!is_placeholder(token.as_bytes())).then(|| (shape.kind, start..start + token.end()))
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
