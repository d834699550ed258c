//! Protected paths, as gitignore patterns (gitignore(5)).
//!
//! As in git, the last matching pattern wins, `!` re-includes, and a path below a matched
//! directory cannot be re-included. Patterns that git and the `ignore` crate read differently are
//! invalid: a path must never lose its protection.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Invalid pattern.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("invalid protected path pattern `{pattern}`: {problem}")]
pub struct InvalidPattern {
    /// Pattern as configured.
    pub pattern: String,
    /// Problem, as a noun phrase.
    pub problem: String,
}

impl InvalidPattern {
    /// Returns the reason for a run that such a pattern ends.
    #[must_use]
    pub fn reason(&self) -> orchestrator_contract::Reason {
        orchestrator_contract::Reason::InvalidConfiguration
    }
}

/// List of gitignore patterns.
#[derive(Clone, Debug)]
pub struct Patterns {
    matcher: Gitignore,
    /// The same without regard to case.
    folded: Gitignore,
    /// Configured patterns, by the form that the matcher reports.
    originals: Vec<(String, String)>,
}

impl Patterns {
    /// Parses patterns, one per item; empty ones and comments (`#`) are skipped.
    ///
    /// # Errors
    /// Returns an error if a pattern is invalid or not supported.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidPattern> {
        let (mut builder, mut folded) = (GitignoreBuilder::new(""), GitignoreBuilder::new(""));
        folded
            .case_insensitive(true)
            .map_err(|error| InvalidPattern { pattern: "*".to_owned(), problem: error.to_string() })?;
        let mut originals = Vec::new();
        for pattern in patterns {
            let invalid = |problem: String| InvalidPattern { pattern: pattern.to_owned(), problem };
            let text = without_trailing_spaces(pattern.trim_end_matches(['\r', '\n']));
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let line = normalize(text).map_err(|problem| invalid(problem.to_owned()))?;
            for builder in [&mut builder, &mut folded] {
                builder.add_line(None, &line).map_err(|error| invalid(error.to_string()))?;
            }
            originals.push((line, pattern.to_owned()));
        }
        let build = |builder: &GitignoreBuilder| {
            builder.build().map_err(|error| InvalidPattern {
                pattern: originals
                    .iter()
                    .map(|(_, pattern)| pattern.as_str())
                    .collect::<Vec<_>>()
                    .join("`, `"),
                problem: error.to_string(),
            })
        };
        Ok(Self { matcher: build(&builder)?, folded: build(&folded)?, originals })
    }

    /// Returns the pattern that matches a path or one of its parents.
    #[must_use]
    pub fn matching(&self, path: &[u8]) -> Option<&str> {
        self.matching_in(&self.matcher, path)
    }

    /// Returns the pattern that matches a path, or another spelling that some file system takes for
    /// the same: of other case, with invisible characters (HFS+), with dots or spaces at the end of
    /// a name (NTFS).
    #[must_use]
    pub fn matching_folded(&self, path: &[u8]) -> Option<&str> {
        let plain = path.split(|byte| *byte == b'/').map(fold_name).collect::<Vec<_>>().join(&b'/');
        self.matching_in(&self.folded, &plain)
    }

    fn matching_in<'p>(&'p self, matcher: &'p Gitignore, path: &[u8]) -> Option<&'p str> {
        // From the root, so that a pattern below a matched directory cannot re-include the path.
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        ends.chain([path.len()]).find_map(|end| {
            let prefix = Path::new(OsStr::from_bytes(path.get(..end)?));
            match matcher.matched(prefix, end < path.len()) {
                Match::Ignore(glob) => Some(self.original(glob.original())),
                Match::None | Match::Whitelist(_) => None,
            }
        })
    }

    fn original<'p>(&'p self, line: &'p str) -> &'p str {
        self.originals.iter().rfind(|(known, _)| known == line).map_or(line, |(_, pattern)| pattern)
    }
}

/// Returns a name as file systems fold it, without regard to case.
fn fold_name(name: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(name) else { return name.to_vec() };
    let is_ignored = |c: char| matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let visible: String = text.chars().filter(|c| !is_ignored(*c)).collect();
    let trimmed = visible.trim_end_matches(['.', ' ']);
    if trimmed.is_empty() { visible.into_bytes() } else { trimmed.as_bytes().to_vec() }
}

/// Removes trailing spaces, unless a backslash quotes the first of them.
fn without_trailing_spaces(text: &str) -> &str {
    let trimmed = text.trim_end_matches(' ');
    let quoted = trimmed.len() < text.len() && trimmed.ends_with('\\');
    if quoted { text.get(..=trimmed.len()).unwrap_or(text) } else { trimmed }
}

/// Rewrites a pattern so that the `ignore` crate reads it as git does.
///
/// Braces are literal in git, and any component of two or more stars is `**`.
fn normalize(pattern: &str) -> Result<String, &'static str> {
    let name = pattern.strip_prefix('!').unwrap_or(pattern);
    if name.trim_matches('/').is_empty() {
        return Err("no file name");
    }
    let is_double_star = |part: &str| part.len() > 1 && part.bytes().all(|byte| byte == b'*');
    let parts: Vec<&str> =
        pattern.split('/').map(|part| if is_double_star(part) { "**" } else { part }).collect();
    let mut normalized = String::new();
    let joined = parts.join("/");
    let mut chars = joined.chars();
    while let Some(character) = chars.next() {
        match character {
            '\\' => {
                normalized.push('\\');
                normalized.push(chars.next().ok_or("backslash at the end")?);
            }
            '{' | '}' => normalized.extend(['\\', character]),
            '[' => copy_class(&mut chars, &mut normalized)?,
            other => normalized.push(other),
        }
    }
    Ok(normalized)
}

/// Copies a bracket expression, whose `[` was read.
fn copy_class(chars: &mut std::str::Chars<'_>, normalized: &mut String) -> Result<(), &'static str> {
    normalized.push('[');
    let mut is_first = true;
    let mut previous = '[';
    loop {
        let character = chars.next().ok_or("unclosed `[`")?;
        match character {
            '\\' => return Err("backslash in `[...]`, which is not supported"),
            '/' => return Err("slash in `[...]`"),
            ':' | '.' | '=' if previous == '[' && !is_first => {
                return Err("`[:...:]`, which is not supported");
            }
            _ if !character.is_ascii() => return Err("character in `[...]` that is not ASCII"),
            _ => {}
        }
        normalized.push(character);
        let is_negation = is_first && previous == '[' && matches!(character, '!' | '^');
        if character == ']' && !is_first {
            return Ok(());
        }
        // A `]` right after `[` or `[!` is a member.
        is_first = is_negation;
        previous = character;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(patterns: &[&str], path: &str) -> bool {
        Patterns::new(patterns.iter().copied()).unwrap().matching(path.as_bytes()).is_some()
    }

    #[test]
    fn patterns_match_like_git_check_ignore() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&["*.pem"], "a/b/key.pem", true),
            (&["*.pem"], "key.pem.txt", false),
            (&["/Cargo.toml"], "Cargo.toml", true),
            (&["/Cargo.toml"], "sub/Cargo.toml", false),
            (&["Cargo.toml"], "sub/Cargo.toml", true),
            (&[".github/workflows/"], ".github/workflows/ci.yml", true),
            (&[".github/workflows"], "sub/.github/workflows/ci.yml", false),
            (&["**/.github/**"], "sub/.github/workflows/ci.yml", true),
            (&["build/"], "build", false),
            (&["build/"], "a/build/out", true),
            (&["docs/*"], "docs/a", true),
            (&["docs/*"], "docs/a/b", true),
            (&["docs/**"], "docs", false),
            (&["docs/**"], "docs/a/b", true),
            (&["a/**/z"], "a/z", true),
            (&["a/**/z"], "a/b/c/z", true),
            (&["a/**/z"], "b/a/z", false),
            (&["**/x"], "x", true),
            (&["*", "!keep"], "keep", false),
            (&["secrets/", "!secrets/readme"], "secrets/readme", true),
            (&["secrets/*", "!secrets/readme"], "secrets/readme", false),
            (&["# comment", "", "\\#file"], "#file", true),
            (&["trailing  "], "trailing", true),
            (&["quoted\\ "], "quoted ", true),
            (&["file[0-9].rs"], "src/file7.rs", true),
            (&["file[!0-9].rs"], "src/file7.rs", false),
            (&["[]a]x"], "]x", true),
            (&["a?c"], "abc", true),
            (&["a?c"], "a/c", false),
            (&["*a*a*a*b"], "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            (&["\\!important"], "!important", true),
            (&["foo**bar"], "foo-x-bar", true),
            (&["/****/x"], "a/b/x", true),
            (&["file{a,b}"], "file{a,b}", true),
            (&["file{a,b}"], "filea", false),
            (&["x\\{"], "x{", true),
            (&["[{]x"], "{x", true),
            (&["a\\*b"], "a*b", true),
            (&["a\\*b"], "axb", false),
            (&["*.MD"], "a.md", false),
        ];
        for (patterns, path, expected) in cases {
            assert_eq!(matches(patterns, path), *expected, "{patterns:?} {path}");
        }
    }

    #[test]
    fn other_spelling_of_protected_path_matches() {
        let patterns = Patterns::new([".github/workflows/**", "!.github/workflows/docs.yml"]).unwrap();
        for (path, expected) in [
            (".github/workflows/ci.yml", true),
            (".GitHub/Workflows/CI.yml", true),
            (".git\u{200c}hub/workflows/ci.yml", true),
            (".github /workflows./ci.yml", true),
            (".github/workflows/docs.yml", false),
            (".github/workflow/ci.yml", false),
            ("src/.github/workflows/ci.yml", false),
        ] {
            assert_eq!(patterns.matching_folded(path.as_bytes()).is_some(), expected, "{path}");
        }
    }

    #[test]
    fn pattern_without_possible_match_is_rejected() {
        for pattern in ["[abc", "/", "!", "a\\", "[b-a]", "[a\\]]", "[[:digit:]]", "[a/b]"] {
            assert!(Patterns::new([pattern]).is_err(), "{pattern}");
        }
    }

    #[test]
    fn matched_pattern_is_reported_as_configured() {
        let patterns = Patterns::new(["{a}  "]).unwrap();
        assert_eq!(patterns.matching(b"x/{a}/y"), Some("{a}  "));
    }

    #[test]
    fn non_utf8_path_is_matched_as_bytes() {
        let patterns = Patterns::new(["*.key"]).unwrap();
        assert_eq!(patterns.matching(b"dir/\xff\xfe.key"), Some("*.key"));
    }
}
