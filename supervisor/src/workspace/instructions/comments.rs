//! Removes HTML comments from Markdown: they are notes of people to each other, and the CLI removes them too.

/// Returns the text without comments that start a line, except in code blocks.
pub(super) fn without_comments(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    let mut fence: Option<&str> = None;
    let mut has_end = true;
    while let Some(line) = rest.split_inclusive('\n').next() {
        let trimmed = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| trimmed.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (Some(_) | None, _) => {}
        }
        if has_end && fence.is_none() && trimmed.starts_with("<!--") {
            if let Some((_, after)) = rest.split_once("-->") {
                rest = after;
                continue;
            }
            // A comment without an end is text, and so is every later one.
            has_end = false;
        }
        kept.push_str(line);
        rest = rest.get(line.len()..).unwrap_or_default();
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_at_line_start_are_removed() {
        let text = "a\n<!-- one\n@b.md --> c <!-- inline -->\n  <!-- two --><!-- three -->\n```\n<!-- code -->\n```\n<!-- open\nd";
        assert_eq!(without_comments(text), "a\n c <!-- inline -->\n\n```\n<!-- code -->\n```\n<!-- open\nd");
        assert_eq!(without_comments(""), "");
    }
}
