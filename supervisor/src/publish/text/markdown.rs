//! Untrusted text in Markdown.
//!
//! What is written here has one reading only, whatever the text does: code spans and code blocks get
//! fences of our own, list items a marker of our own, and every other character that Markdown or
//! GitHub gives a meaning is escaped or broken up. So no mention, reference, link, image or HTML is
//! outside of code, and no fence of the text stays open.

use orchestrator_contract::{bounds, terminal};

/// Maximum characters of a body; GitHub allows 65,536.
pub(super) const MAX_BODY_CHARS: usize = bounds::PULL_REQUEST_BODY_CHARS;

/// Maximum characters of a line of untrusted text.
pub(super) const MAX_LINE_CHARS: usize = 300;

/// Maximum notes to show.
pub(super) const MAX_NOTES: usize = 20;

/// Maximum characters of a list.
pub(super) const MAX_LIST_CHARS: usize = 9_000;

/// Maximum levels of nested lists.
const MAX_LIST_LEVEL: usize = 3;

/// Maximum characters that one character becomes.
const MAX_GROWTH: usize = 6;

/// Marker at the end of truncated text.
const TRUNCATION_MARK: &str = "\n\n… (truncated)";

/// Invisible character that breaks up syntax such as a mention.
const ZERO_WIDTH_SPACE: char = '\u{200b}';

/// Returns the text in one line of at most `max_chars` characters.
pub(super) fn line(text: &str, max_chars: usize) -> String {
    let text = terminal::neutralize(text);
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    if text.chars().count() <= max_chars {
        return text;
    }
    let mut short: String = text.chars().take(max_chars.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Returns one line of plain text, such as a title, without mentions, references and URLs.
pub(super) fn plain(text: &str) -> String {
    let mut inert = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        inert.push(first);
        let before = rest;
        rest = rest.get(first.len_utf8()..).unwrap_or_default();
        if breaks_after(before) {
            inert.push(ZERO_WIDTH_SPACE);
        }
    }
    inert
}

/// Returns whether the first character starts a mention, reference or URL, so that it is broken up.
fn breaks_after(text: &str) -> bool {
    let starts = |start: &str| text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start));
    let digit_at = |at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    starts("@")
        || starts("://")
        || (starts("#") && digit_at(1))
        || starts("www.")
        || (starts("GH-") && digit_at(3))
}

/// Renders one line of untrusted text; only its code spans keep their meaning.
pub(super) fn inline(text: &str) -> String {
    let text = terminal::neutralize(text);
    let mut rest = text.trim();
    let mut inert = String::with_capacity(rest.len());
    let is_rule = !rest.is_empty() && rest.chars().all(|c| "-*_= ".contains(c));
    if is_rule || rest.starts_with(['#', '>', '=', '+', '-', '*']) {
        inert.push('\\');
    }
    if let Some((number, after)) = ordered_marker(rest) {
        inert.push_str(number);
        inert.push('\\');
        rest = after;
    }
    while let Some(first) = rest.chars().next() {
        if let Some((content, length)) = code_span(rest) {
            inert.push_str(&code(content));
            rest = rest.get(length..).unwrap_or_default();
            continue;
        }
        if first == '`' {
            // Backticks without a partner.
            let run = rest.len() - rest.trim_start_matches('`').len();
            inert.push_str(&"\\`".repeat(run));
            rest = rest.get(run..).unwrap_or_default();
            continue;
        }
        match first {
            '<' => inert.push_str("&lt;"),
            '&' => inert.push_str("&amp;"),
            '\\' | '[' | ']' | '~' | '$' => inert.extend(['\\', first]),
            other => inert.push(other),
        }
        if breaks_after(rest) {
            inert.push(ZERO_WIDTH_SPACE);
        }
        rest = rest.get(first.len_utf8()..).unwrap_or_default();
    }
    inert
}

/// Returns the digits of `1.` or `1)` at the start of the text, and the rest.
fn ordered_marker(text: &str) -> Option<(&str, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let is_marker = (1..=9).contains(&digits)
        && matches!(text.as_bytes().get(digits), Some(b'.' | b')'))
        && matches!(text.as_bytes().get(digits + 1), None | Some(b' '));
    is_marker.then(|| text.split_at(digits))
}

/// Returns the content and the length of the code span at the start of the text.
fn code_span(text: &str) -> Option<(&str, usize)> {
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
            return Some((text.get(length..begin)?.trim(), begin + run));
        }
        at = begin + run;
    }
    None
}

/// Renders untrusted text of several lines in at most `max_chars` characters.
///
/// Paragraphs, lists, headings, code spans and code blocks keep their meaning.
pub(super) fn block(text: &str, max_chars: usize) -> String {
    let text = terminal::neutralize_lines(text.trim());
    let mut writer = Writer::new(max_chars);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if writer.is_cut {
            break;
        }
        let Some(fence) = Fence::open(line) else {
            prose(line, &mut writer);
            continue;
        };
        let content: Vec<&str> = lines.by_ref().take_while(|line| !fence.is_closed_by(line)).collect();
        let content = content.join("\n");
        writer.blank();
        writer.push(&fenced(&content, fence.language), |room| {
            let room = room.checked_sub(2 * longest_run(&content) + fence.language.len() + 12)?;
            Some(fenced(&content.chars().take(room).collect::<String>(), fence.language))
        });
        writer.blank();
    }
    writer.finish()
}

/// Renders a line outside of code blocks.
fn prose(line: &str, writer: &mut Writer) {
    let text = line.trim();
    let indent = line.len() - line.trim_start().len();
    let level = "  ".repeat((indent / 2).min(MAX_LIST_LEVEL));
    let bullet = ["- ", "* ", "+ "].iter().find_map(|marker| text.strip_prefix(marker));
    let heading = text.trim_start_matches('#').strip_prefix(' ').filter(|_| text.starts_with('#'));
    let (before, text, after) = match (bullet, ordered_marker(text), heading) {
        (Some(item), _, _) => (format!("{level}- "), item, ""),
        (None, Some((number, item)), _) if item.len() > 1 => {
            (format!("{level}{number}. "), item.get(1..).unwrap_or_default(), "")
        }
        (None, _, Some(heading)) if !heading.contains('*') && !heading.trim().is_empty() => {
            writer.blank();
            ("**".to_owned(), heading, "**")
        }
        (None, _, _) => (String::new(), text, ""),
    };
    let render = |text: &str| format!("{before}{}{after}", inline(text));
    writer.push(&render(text), |room| {
        let room = room.checked_sub(before.len() + after.len())? / MAX_GROWTH;
        Some(render(&text.chars().take(room).collect::<String>()))
    });
    if !after.is_empty() {
        writer.blank();
    }
}

/// Collects whole pieces until there is no more room.
struct Writer {
    text: String,
    room: usize,
    is_cut: bool,
}

impl Writer {
    fn new(max_chars: usize) -> Self {
        Self {
            text: String::new(),
            room: max_chars.saturating_sub(TRUNCATION_MARK.chars().count()),
            is_cut: false,
        }
    }

    /// Adds an empty line, unless there is one.
    fn blank(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
            self.room = self.room.saturating_sub(1);
        }
    }

    /// Adds a piece and a line feed, or what `shorten` makes of it for the room that is left.
    fn push(&mut self, piece: &str, shorten: impl FnOnce(usize) -> Option<String>) {
        let fits = |piece: &str, room: usize| piece.chars().count() < room;
        let short = if fits(piece, self.room) {
            None
        } else {
            self.is_cut = true;
            Some(shorten(self.room).filter(|short| fits(short, self.room)).unwrap_or_default())
        };
        let piece = short.as_deref().unwrap_or(piece);
        self.room = self.room.saturating_sub(piece.chars().count() + 1);
        self.text.push_str(piece);
        self.text.push('\n');
    }

    fn finish(self) -> String {
        let text = self.text.trim_end();
        if self.is_cut { format!("{text}{TRUNCATION_MARK}") } else { text.to_owned() }
    }
}

/// Start of a code block.
struct Fence<'a> {
    mark: char,
    length: usize,
    language: &'a str,
}

impl<'a> Fence<'a> {
    fn open(line: &'a str) -> Option<Self> {
        let line = line.trim();
        let mark = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
        let rest = line.trim_start_matches(mark);
        let length = line.len() - rest.len();
        // Backticks after the fence make it a code span.
        if length < 3 || (mark == '`' && rest.contains('`')) {
            return None;
        }
        let language = rest.trim();
        let is_name = language.len() <= 20 && language.bytes().all(|byte| byte.is_ascii_alphanumeric());
        Some(Self { mark, length, language: if is_name { language } else { "" } })
    }

    fn is_closed_by(&self, line: &str) -> bool {
        let line = line.trim();
        line.len() >= self.length && line.chars().all(|c| c == self.mark)
    }
}

/// Joins parts that are not empty, as many as have room; the others are only mentioned.
pub(super) fn join_within(parts: &[String], separator: &str, max_chars: usize) -> String {
    let mut writer = Writer::new(max_chars);
    for part in parts.iter().filter(|part| !part.is_empty()) {
        if writer.is_cut {
            break;
        }
        if !writer.text.is_empty() {
            writer.text.pop();
            writer.text.push_str(separator);
            writer.room = writer.room.saturating_sub(separator.chars().count());
        }
        writer.push(part, |_| None);
    }
    writer.finish()
}

/// Returns the text as a code span, with as many backticks as needed.
pub(super) fn code(text: &str) -> String {
    let text = terminal::neutralize(text).replace("<!--", &format!("<{ZERO_WIDTH_SPACE}!--"));
    let mark = "`".repeat(longest_run(&text) + 1);
    if text.starts_with('`') || text.ends_with('`') || text.trim().is_empty() {
        format!("{mark} {text} {mark}")
    } else {
        format!("{mark}{text}{mark}")
    }
}

/// Returns the text as a code block, with as many backticks as needed.
pub(super) fn code_block(text: &str) -> String {
    fenced(text, "text")
}

fn fenced(text: &str, language: &str) -> String {
    let text = terminal::neutralize_lines(text).replace("<!--", &format!("<{ZERO_WIDTH_SPACE}!--"));
    let mark = "`".repeat((longest_run(&text) + 1).max(3));
    format!("{mark}{language}\n{text}\n{mark}")
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
    list_within(entries, max_entries, MAX_LIST_CHARS)
}

/// Renders entries as [`list`] does, in at most `max_chars` characters.
pub(super) fn list_within(entries: &[String], max_entries: usize, max_chars: usize) -> String {
    let mut lines: Vec<String> = entries
        .iter()
        .take(max_entries)
        .map(|entry| format!("- {}", inline(&line(entry, MAX_LINE_CHARS))))
        .collect();
    let more = entries.len().saturating_sub(max_entries);
    if more > 0 {
        lines.push(format!("- and {more} more"));
    }
    join_within(&lines, "\n", max_chars)
}

#[cfg(test)]
mod tests;
