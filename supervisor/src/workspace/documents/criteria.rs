//! Acceptance criteria out of Markdown.

use super::Entry;

/// The criteria of a task: of its file, or else its test strategy.
pub(super) fn of(file: Option<&str>, entry: &Entry) -> Vec<String> {
    match (file, &entry.test_strategy) {
        (Some(text), _) => acceptance_criteria(text),
        (None, Some(strategy)) => acceptance_criteria(strategy),
        (None, None) => Vec::new(),
    }
}

/// The items of every list of a Markdown text, without their marks and boxes; where
/// there is no list, its paragraphs. Code blocks and headings are left out.
#[must_use]
pub fn acceptance_criteria(text: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    let mut paragraphs: Vec<String> = Vec::new();
    let (mut in_item, mut in_paragraph, mut in_code) = (false, false, false);
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
            in_code = !in_code;
            (in_item, in_paragraph) = (false, false);
        } else if in_code {
        } else if trimmed.is_empty() || trimmed.starts_with('#') || trimmed.chars().all(|c| c == '-') {
            (in_item, in_paragraph) = (false, false);
        } else if let Some(item) = item(trimmed) {
            items.push(item.to_owned());
            (in_item, in_paragraph) = (true, false);
        } else {
            let (list, goes_on) = if in_item { (&mut items, true) } else { (&mut paragraphs, in_paragraph) };
            match list.last_mut() {
                Some(last) if goes_on => {
                    last.push(' ');
                    last.push_str(trimmed);
                }
                Some(_) | None => list.push(trimmed.to_owned()),
            }
            in_paragraph = !in_item;
        }
    }
    let mut criteria = if items.is_empty() { paragraphs } else { items };
    criteria.retain(|criterion| !criterion.is_empty());
    criteria
}

/// The text of a list item; none if the line is none.
fn item(line: &str) -> Option<&str> {
    let rest = match line.strip_prefix(['-', '*', '+']) {
        Some(rest) => rest.strip_prefix([' ', '\t'])?,
        None => {
            let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
            if rest.len() == line.len() {
                return None;
            }
            rest.strip_prefix(['.', ')'])?.strip_prefix(' ')?
        }
    };
    let rest = rest.trim_start();
    let unboxed = ["[ ]", "[x]", "[X]"].iter().find_map(|mark| rest.strip_prefix(mark));
    Some(unboxed.unwrap_or(rest).trim())
}

/// The text of the first heading, without `Task 1:` before it.
pub(super) fn first_heading(text: &str) -> Option<String> {
    let heading = text.lines().find_map(|line| line.strip_prefix('#'))?;
    let heading = heading.trim_start_matches('#').trim();
    let title = heading
        .strip_prefix("Task ")
        .and_then(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix(':'))
        .map_or(heading, str::trim);
    (!title.is_empty()).then(|| title.to_owned())
}
