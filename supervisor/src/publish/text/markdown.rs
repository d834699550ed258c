//! Untrusted text in Markdown.

/// Maximum characters of a body; GitHub allows 65,536.
pub(super) const MAX_BODY_CHARS: usize = 60_000;

/// Maximum characters of a line of untrusted text.
pub(super) const MAX_LINE_CHARS: usize = 300;

/// Maximum notes to show.
pub(super) const MAX_NOTES: usize = 20;

/// Maximum characters of a list.
const MAX_LIST_CHARS: usize = 9_000;

/// Marker at the end of truncated text.
const TRUNCATION_MARK: &str = "\n\n… (truncated)";

/// Invisible character that breaks up syntax such as a mention.
const ZERO_WIDTH_SPACE: char = '\u{200b}';

/// Returns the text in one line of at most `max_chars` characters.
pub(super) fn line(text: &str, max_chars: usize) -> String {
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    let text = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    if text.chars().count() <= max_chars {
        return text;
    }
    let mut short: String = text.chars().take(max_chars.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Neutralizes mentions and HTML outside of code, and closes an open code block.
pub(super) fn neutralize(text: &str) -> String {
    let mut lines = Vec::new();
    let mut fence: Option<&str> = None;
    for line in text.lines() {
        let mark = fence_mark(line);
        match (fence, mark) {
            (Some(open), Some(mark)) if mark.starts_with(open) && line.trim() == mark => fence = None,
            (None, Some(mark)) => fence = Some(mark),
            _ => {}
        }
        lines.push(if fence.is_some() || mark.is_some() {
            line.replace("<!--", &format!("<{ZERO_WIDTH_SPACE}!--"))
        } else {
            neutralize_line(line)
        });
    }
    lines.extend(fence.map(str::to_owned));
    lines.join("\n")
}

/// Returns the backticks or tildes that open or close a code block.
fn fence_mark(line: &str) -> Option<&str> {
    let trimmed = line.trim_start();
    let first = trimmed.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let length = trimmed.len() - trimmed.trim_start_matches(first).len();
    let after = trimmed.get(length..)?;
    // Backticks after the fence make it a code span.
    (length >= 3 && line.len() - trimmed.len() < 4 && !(first == '`' && after.contains('`')))
        .then(|| trimmed.get(..length))
        .flatten()
}

fn neutralize_line(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    // An email address (`a@b.c`) is not a mention.
    let mut in_word = false;
    while let Some(first) = rest.chars().next() {
        if let Some(span) = code_span(rest) {
            text.push_str(&span.replace("<!--", &format!("<{ZERO_WIDTH_SPACE}!--")));
            rest = rest.get(span.len()..).unwrap_or_default();
            continue;
        }
        let next = rest.chars().nth(1);
        let is_tag = first == '<' && next.is_some_and(|c| c.is_ascii_alphabetic() || "/!?".contains(c));
        let is_mention = first == '@' && !in_word && next.is_some_and(|c| c.is_ascii_alphanumeric());
        in_word = first.is_ascii_alphanumeric() || first == '_';
        if is_tag {
            text.push_str("&lt;");
        } else {
            text.push(first);
        }
        if is_mention {
            text.push(ZERO_WIDTH_SPACE);
        }
        rest = rest.get(first.len_utf8()..).unwrap_or_default();
        if first == '`' {
            // Unpaired backticks: the text after them is not code.
            let run = rest.len() - rest.trim_start_matches('`').len();
            text.push_str(rest.get(..run).unwrap_or_default());
            rest = rest.get(run..).unwrap_or_default();
        }
    }
    text
}

/// Returns the code span at the start of the text.
fn code_span(text: &str) -> Option<&str> {
    let length = text.len() - text.trim_start_matches('`').len();
    if length == 0 {
        return None;
    }
    let mut at = length;
    while let Some(found) = text.get(at..)?.find('`') {
        let begin = at + found;
        let run = text.get(begin..)?;
        let run = run.len() - run.trim_start_matches('`').len();
        if run == length {
            return text.get(..begin + run);
        }
        at = begin + run;
    }
    None
}

/// Truncates text to `max_chars` characters, with a marker; closes an open code block.
pub(super) fn truncate(text: &str, max_chars: usize) -> String {
    if text.chars().count() <= max_chars {
        return text.to_owned();
    }
    // Leave room for the marker and for closing a block.
    let room = max_chars.saturating_sub(TRUNCATION_MARK.chars().count() + 12);
    let head: String = text.chars().take(room).collect();
    let mut fence: Option<&str> = None;
    for mark in head.lines().filter_map(fence_mark) {
        fence = match fence {
            Some(open) if mark.starts_with(open) => None,
            None => Some(mark),
            still => still,
        };
    }
    let close = fence.map(|mark| format!("\n{mark}")).unwrap_or_default();
    let truncated = format!("{head}{close}{TRUNCATION_MARK}");
    if truncated.chars().count() <= max_chars { truncated } else { head }
}

/// Returns the text as a code span, with as many backticks as needed.
pub(super) fn code(text: &str) -> String {
    let text = text.replace("<!--", &format!("<{ZERO_WIDTH_SPACE}!--"));
    let mark = "`".repeat(longest_run(&text) + 1);
    if text.starts_with('`') || text.ends_with('`') || text.is_empty() {
        format!("{mark} {text} {mark}")
    } else {
        format!("{mark}{text}{mark}")
    }
}

/// Returns the text as a code block, with as many backticks as needed.
pub(super) fn code_block(text: &str) -> String {
    let text: String = text.chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()).collect();
    let mark = "`".repeat((longest_run(&text) + 1).max(3));
    format!("{mark}text\n{}\n{mark}", text.replace("<!--", &format!("<{ZERO_WIDTH_SPACE}!--")))
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or_default()
}

/// Prefixes every line.
pub(super) fn quoted_lines(text: &str, prefix: &str) -> String {
    text.lines().map(|line| format!("{prefix}{line}")).collect::<Vec<_>>().join("\n")
}

/// Returns a list, each entry in one line.
pub(super) fn list(entries: &[String], max_entries: usize) -> String {
    let mut lines: Vec<String> = entries
        .iter()
        .take(max_entries)
        .map(|entry| format!("- {}", neutralize(&line(entry, MAX_LINE_CHARS))))
        .collect();
    let more = entries.len().saturating_sub(max_entries);
    if more > 0 {
        lines.push(format!("- and {more} more"));
    }
    truncate(&lines.join("\n"), MAX_LIST_CHARS)
}
