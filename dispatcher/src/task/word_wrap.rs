//! Fits text into columns without cutting a word. Pure.

use console::measure_text_width as width_of;

/// Fills text with spaces.
pub(super) fn pad(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(width_of(text));
    format!("{text}{}", " ".repeat(missing))
}

/// Returns the words that fit, with an ellipsis for the others.
pub(super) fn fit(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for word in text.split(' ') {
        let gap = usize::from(!kept.is_empty());
        // The ellipsis needs one column.
        if width_of(&kept) + gap + width_of(word) + 1 > width {
            break;
        }
        kept.push_str(&" ".repeat(gap));
        kept.push_str(word);
    }
    format!("{}…", kept.trim_end_matches([' ', ',', ';', ':', '.']))
}

/// Breaks text between words into at most `max_lines` lines.
pub(super) fn wrap(text: &str, width: usize, max_lines: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        if lines.len() + 1 == max_lines {
            lines.push(fit(rest, width));
            break;
        }
        let mut end = 0;
        for (at, _) in rest.match_indices(' ').chain([(rest.len(), " ")]) {
            if rest.get(..at).is_none_or(|line| width_of(line) > width) {
                break;
            }
            end = at;
        }
        if end == 0 {
            // A word longer than a line.
            lines.push(fit(rest, width));
            break;
        }
        let (line, remaining) = rest.split_at(end);
        lines.push(line.to_owned());
        rest = remaining.trim_start();
    }
    lines
}

/// Breaks a long name after hyphens.
pub(super) fn break_name(name: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for part in name.split_inclusive('-') {
        match lines.last_mut() {
            Some(line) if line.is_empty() || line.len() + part.len() <= width => line.push_str(part),
            Some(_) | None => lines.push(part.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_words() {
        for (text, width, expected) in [
            ("add the order book", 18, "add the order book"),
            ("add the order book", 17, "add the order…"),
            ("add the order, book", 15, "add the order…"),
            ("extraordinarily", 10, "…"),
            ("日本語 テキスト", 8, "日本語…"),
            ("", 5, ""),
        ] {
            assert_eq!(fit(text, width), expected, "{text:?} {width}");
        }
    }

    #[test]
    fn lines_break_between_words_with_rest_cut() {
        assert_eq!(wrap("a failed run shows its reason", 10, 3), ["a failed", "run shows", "its reason"]);
        assert_eq!(wrap("a failed run shows its reason", 10, 2), ["a failed", "run shows…"]);
        assert_eq!(wrap("see https://github.com/myorg/trader", 12, 3), ["see", "…"]);
        assert!(wrap("", 10, 3).is_empty());
    }

    #[test]
    fn long_name_breaks_after_hyphens() {
        assert_eq!(break_name("trader-claude-agent-1", 10), ["trader-", "claude-", "agent-1"]);
    }
}
