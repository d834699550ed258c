//! Paths against gitignore patterns (gitignore(5)), over bytes as git has them.
//!
//! Pure. As in git, the last matching pattern wins, `!` takes back, and a path under an
//! excluded folder cannot be taken back.

/// A pattern that is none.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("protected path pattern `{pattern}` {problem}")]
pub struct InvalidPattern {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl InvalidPattern {
    /// Why a run with such a pattern ends.
    #[must_use]
    pub fn reason(&self) -> orchestrator_contract::Reason {
        orchestrator_contract::Reason::InvalidConfiguration
    }
}

/// A list of gitignore patterns.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    negated: bool,
    only_folders: bool,
    /// Components; a pattern without a slash begins with `**`.
    components: Vec<Component>,
}

#[derive(Clone, Debug)]
enum Component {
    /// `**`: any number of folders.
    Folders,
    Glob(Vec<Token>),
}

#[derive(Clone, Debug)]
enum Token {
    Byte(u8),
    AnyByte,
    AnyBytes,
    Class { negated: bool, ranges: Vec<(u8, u8)> },
}

impl Patterns {
    /// Reads patterns, one each; empty ones and comments (`#`) are skipped.
    ///
    /// # Errors
    /// A pattern names nothing or has an unclosed `[`.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidPattern> {
        let mut list = Vec::new();
        for text in patterns {
            list.extend(Pattern::new(text)?);
        }
        Ok(Self { patterns: list })
    }

    /// The pattern by which a file's path is matched, if it is.
    #[must_use]
    pub fn matching(&self, path: &[u8]) -> Option<&str> {
        let components: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        (1..=components.len()).find_map(|depth| {
            let is_folder = depth < components.len();
            let parts = components.get(..depth)?;
            let last = self.patterns.iter().rev().find(|pattern| pattern.matches(parts, is_folder))?;
            (!last.negated).then_some(last.text.as_str())
        })
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Option<Self>, InvalidPattern> {
        let invalid = |problem| InvalidPattern { pattern: text.to_owned(), problem };
        let mut rest = without_trailing_spaces(text.trim_end_matches(['\r', '\n']));
        if rest.is_empty() || rest.starts_with('#') {
            return Ok(None);
        }
        let negated = rest.starts_with('!');
        rest = rest.strip_prefix('!').unwrap_or(rest);
        let only_folders = rest.ends_with('/');
        rest = rest.strip_suffix('/').unwrap_or(rest);
        let anchored = rest.contains('/');
        rest = rest.strip_prefix('/').unwrap_or(rest);
        if rest.is_empty() {
            return Err(invalid("names nothing"));
        }
        let mut components = Vec::new();
        if !anchored {
            components.push(Component::Folders);
        }
        for part in rest.split('/') {
            // git takes any run of two and more stars for `**`.
            components.push(if part.len() > 1 && part.bytes().all(|byte| byte == b'*') {
                Component::Folders
            } else {
                Component::Glob(tokens(part.as_bytes()).ok_or_else(|| invalid("has an unclosed `[`"))?)
            });
        }
        Ok(Some(Self { text: text.to_owned(), negated, only_folders, components }))
    }

    fn matches(&self, parts: &[&[u8]], is_folder: bool) -> bool {
        (is_folder || !self.only_folders) && components_match(&self.components, parts)
    }
}

/// Spaces at the end do not count unless the last is quoted by a backslash.
fn without_trailing_spaces(text: &str) -> &str {
    let trimmed = text.trim_end_matches(' ');
    let quoted = trimmed.len() < text.len() && trimmed.ends_with('\\');
    if quoted { text.get(..=trimmed.len()).unwrap_or(text) } else { trimmed }
}

fn components_match(components: &[Component], parts: &[&[u8]]) -> bool {
    // Which tails of `parts` are left after each component: no recursion, so that many
    // `**` cost no more than length times length.
    let mut open = vec![false; parts.len() + 1];
    if let Some(first) = open.first_mut() {
        *first = true;
    }
    for (index, component) in components.iter().enumerate() {
        let mut next = vec![false; parts.len() + 1];
        match component {
            Component::Folders => {
                // `x/**` matches what is in x, not x itself.
                let is_last = index + 1 == components.len();
                let mut reached = false;
                for (slot, was_open) in next.iter_mut().zip(&open) {
                    *slot = reached || (*was_open && !is_last);
                    reached |= was_open;
                }
            }
            Component::Glob(tokens) => {
                for ((slot, was_open), part) in next.iter_mut().skip(1).zip(&open).zip(parts) {
                    *slot = *was_open && glob_matches(tokens, part);
                }
            }
        }
        open = next;
    }
    open.last().copied().unwrap_or_default()
}

fn tokens(pattern: &[u8]) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut bytes = pattern.iter().copied();
    while let Some(byte) = bytes.next() {
        tokens.push(match byte {
            b'?' => Token::AnyByte,
            b'*' => Token::AnyBytes,
            b'\\' => Token::Byte(bytes.next().unwrap_or(b'\\')),
            b'[' => class(&mut bytes)?,
            other => Token::Byte(other),
        });
    }
    Some(tokens)
}

fn class(bytes: &mut impl Iterator<Item = u8>) -> Option<Token> {
    let mut next = bytes.next()?;
    let negated = matches!(next, b'!' | b'^');
    if negated {
        next = bytes.next()?;
    }
    let mut members = Vec::new();
    // A `]` that comes first is a member.
    loop {
        let quoted = next == b'\\';
        members.push((if quoted { bytes.next()? } else { next }, quoted));
        next = bytes.next()?;
        if next == b']' {
            break;
        }
    }
    let mut ranges = Vec::new();
    let mut rest = members.as_slice();
    while let Some(((low, _), tail)) = rest.split_first() {
        if let [(b'-', false), (high, _), after @ ..] = tail {
            ranges.push((*low, *high));
            rest = after;
        } else {
            ranges.push((*low, *low));
            rest = tail;
        }
    }
    Some(Token::Class { negated, ranges })
}

fn glob_matches(tokens: &[Token], text: &[u8]) -> bool {
    let (mut token, mut at) = (0, 0);
    // Where to go on if what follows the last `*` does not match.
    let mut retry: Option<(usize, usize)> = None;
    while at < text.len() {
        let byte = text.get(at).copied().unwrap_or_default();
        let matched = match tokens.get(token) {
            Some(Token::AnyBytes) => {
                retry = Some((token + 1, at));
                token += 1;
                continue;
            }
            Some(Token::AnyByte) => true,
            Some(Token::Byte(wanted)) => *wanted == byte,
            Some(Token::Class { negated, ranges }) => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&byte)) != *negated
            }
            None => false,
        };
        if matched {
            token += 1;
            at += 1;
        } else if let Some((after, from)) = retry {
            retry = Some((after, from + 1));
            token = after;
            at = from + 1;
        } else {
            return false;
        }
    }
    tokens.get(token..).is_none_or(|rest| rest.iter().all(|token| matches!(token, Token::AnyBytes)))
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
        ];
        for (patterns, path, expected) in cases {
            assert_eq!(matches(patterns, path), *expected, "{patterns:?} {path}");
        }
    }

    #[test]
    fn pattern_without_possible_match_is_rejected() {
        assert!(Patterns::new(["[abc"]).is_err());
        assert!(Patterns::new(["/"]).is_err());
    }

    #[test]
    fn non_utf8_path_is_matched_as_bytes() {
        let patterns = Patterns::new(["*.key"]).unwrap();
        assert_eq!(patterns.matching(b"dir/\xff\xfe.key"), Some("*.key"));
    }
}
