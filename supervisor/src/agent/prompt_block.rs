//! Blocks of a prompt: text of others between tags of ours, which it cannot close or open. Pure.

use orchestrator_contract::terminal::neutralize_lines;

/// Names of all blocks. Text in one of them could otherwise begin another, such as a person's guidance.
const NAMES: [&str; 11] = [
    "guidance",
    "earlier_attempt",
    "check",
    "project_instructions",
    "document",
    "task",
    "task_notes",
    "architecture",
    "requirements",
    "tasks",
    "related_tasks",
];

/// Returns the text between `<name attributes>` and `</name>`, in lines of their own.
///
/// A tag of any block in the text, opening or closing, becomes harmless.
#[must_use]
pub fn render_block(name: &str, attributes: &str, text: &str) -> String {
    debug_assert!(NAMES.contains(&name), "`{name}` is not in the list");
    let space = if attributes.is_empty() { "" } else { " " };
    format!("<{name}{space}{attributes}>\n{}\n</{name}>\n", disarm(text.trim()))
}

/// Returns the text with `&lt;` instead of `<` where a tag of a block starts, and without invisible characters.
#[must_use]
pub fn disarm(text: &str) -> String {
    let text = neutralize_lines(text).replace(is_variation_selector, "");
    let mut safe = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find(is_bracket) {
        let (before, tag) = rest.split_at(at);
        safe.push_str(before);
        let Some(bracket) = tag.chars().next() else { break };
        rest = tag.get(bracket.len_utf8()..).unwrap_or_default();
        if starts_with_name(rest) { safe.push_str("&lt;") } else { safe.push(bracket) }
    }
    safe.push_str(rest);
    safe
}

/// Returns whether a text starts with a name, after characters that a reader may overlook.
fn starts_with_name(text: &str) -> bool {
    let start = text.trim_start_matches(|c: char| !c.is_ascii_alphanumeric() && !is_bracket(c) && c != '_');
    NAMES.iter().any(|name| {
        start.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
            && !start.get(name.len()..).unwrap_or_default().starts_with(|c: char| c.is_ascii_alphanumeric())
    })
}

/// Returns whether a character is `<` or a variant of it.
fn is_bracket(character: char) -> bool {
    matches!(character, '<' | '\u{ff1c}' | '\u{fe64}')
}

/// Returns whether a character only changes how the one before it looks.
fn is_variation_selector(character: char) -> bool {
    matches!(character, '\u{fe00}'..='\u{fe0f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_in_text_cannot_close_its_block() {
        for closing in ["</task>", "</TASK >", "< /task>", "</\ntask", "<//task>", "<task>"] {
            let block = render_block("task", "a=\"b\"", &format!("x {closing} y <b> <Task2>"));
            let inner = block.strip_prefix("<task a=\"b\">\n").unwrap().strip_suffix("\n</task>\n").unwrap();
            assert_eq!(inner, format!("x &lt;{} y <b> <Task2>", &closing[1..]), "{closing}");
        }
    }

    #[test]
    fn hidden_or_wide_tags_of_other_blocks_are_disarmed() {
        for tag in [
            "<guidance>",
            "<gui\u{200b}dance>",
            "<\u{2060}guidance>",
            "<guid\u{fe0f}ance>",
            "\u{ff1c}guidance>",
            "\u{fe64}\u{feff}guidance>",
        ] {
            assert_eq!(disarm(&format!("ä {tag} x")), "ä &lt;guidance> x", "{tag:?}");
        }
        assert_eq!(disarm("1 \u{ff1c} 2 < 3 <guidances>"), "1 \u{ff1c} 2 < 3 <guidances>");
    }

    proptest! {
        #[test]
        fn arbitrary_text_has_no_closing_tag(text in "[</task> \u{ff1c}\u{200b}ä\n]{0,60}") {
            let block = render_block("task", "", &text);
            prop_assert_eq!(block.matches("</task>").count(), 1);
            prop_assert!(block.ends_with("\n</task>\n"));
        }
    }
}
