//! Extracts acceptance criteria from Markdown.

use super::entry::Entry;

/// Returns the criteria of a task: of its file, or else of its entry, or of its test strategy.
pub(super) fn criteria_of(file: Option<&str>, entry: &Entry) -> Vec<String> {
    let listed = &entry.requirements.acceptance_criteria;
    match (file, &entry.test_strategy) {
        (Some(text), _) => acceptance_criteria(text),
        (None, _) if !listed.is_empty() => listed.clone(),
        (None, Some(strategy)) => acceptance_criteria(strategy),
        (None, None) => Vec::new(),
    }
}

/// Returns the list items of a Markdown text, without markers and checkboxes.
///
/// Without a list, returns its paragraphs. Code blocks and headings are skipped.
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
            let (list, continues) =
                if in_item { (&mut items, true) } else { (&mut paragraphs, in_paragraph) };
            match list.last_mut() {
                Some(last) if continues => {
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

/// Returns the text of a list item, or `None` if the line is not one.
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

/// Returns the first heading, without the prefix `Task 1:`.
pub(super) fn first_heading(text: &str) -> Option<String> {
    let heading = text.lines().find_map(|line| line.strip_prefix('#'))?;
    let heading = heading.trim_start_matches('#').trim();
    let title = heading
        .strip_prefix("Task ")
        .and_then(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix(':'))
        .map_or(heading, str::trim);
    (!title.is_empty()).then(|| title.to_owned())
}
