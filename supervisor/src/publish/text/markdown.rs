//! Foreign text in our Markdown.

/// What stands where something was cut.
const TRUNCATION_MARK: &str = "\n\n… (cut)";

/// Stands between the characters of a mark, unseen, so that it is none.
const ZERO_WIDTH_SPACE: char = '\u{200b}';

/// The text in one line of at most `most` characters.
pub(super) fn line(text: &str, most: usize) -> String {
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    let text = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    if text.chars().count() <= most {
        return text;
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// The text as it looks, without effect: no mention, no HTML, no open code block.
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

/// The backticks or tildes that open or close a code block.
fn fence_mark(line: &str) -> Option<&str> {
    let trimmed = line.trim_start();
    let first = trimmed.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let length = trimmed.len() - trimmed.trim_start_matches(first).len();
    let after = trimmed.get(length..)?;
    // Backticks after the mark make it a code span.
    (length >= 3 && line.len() - trimmed.len() < 4 && !(first == '`' && after.contains('`')))
        .then(|| trimmed.get(..length))
        .flatten()
}

fn neutralize_line(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    // An address (`a@b.c`) is no mention.
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
            // Backticks without a partner: what follows them is no code.
            let run = rest.len() - rest.trim_start_matches('`').len();
            text.push_str(rest.get(..run).unwrap_or_default());
            rest = rest.get(run..).unwrap_or_default();
        }
    }
    text
}

/// The code span that the text begins with.
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

/// At most `most` characters, with a mark where it is cut; an open code block is closed.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    // Room for the mark and for closing a block.
    let room = most.saturating_sub(TRUNCATION_MARK.chars().count() + 12);
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
    let cut = format!("{head}{close}{TRUNCATION_MARK}");
    if cut.chars().count() <= most { cut } else { head }
}

/// Text as a code span, in as many backticks as it needs.
pub(super) fn code(text: &str) -> String {
    let text = text.replace("<!--", &format!("<{ZERO_WIDTH_SPACE}!--"));
    let mark = "`".repeat(longest_run(&text) + 1);
    if text.starts_with('`') || text.ends_with('`') || text.is_empty() {
        format!("{mark} {text} {mark}")
    } else {
        format!("{mark}{text}{mark}")
    }
}

/// Text as a code block, in as many backticks as it needs.
pub(super) fn code_block(text: &str) -> String {
    let text: String = text.chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()).collect();
    let mark = "`".repeat((longest_run(&text) + 1).max(3));
    format!("{mark}text\n{}\n{mark}", text.replace("<!--", &format!("<{ZERO_WIDTH_SPACE}!--")))
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or_default()
}

/// Every line after a prefix.
pub(super) fn quoted_lines(text: &str, prefix: &str) -> String {
    text.lines().map(|line| format!("{prefix}{line}")).collect::<Vec<_>>().join("\n")
}
