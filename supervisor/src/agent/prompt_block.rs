//! Blocks of a prompt: text of others between tags of ours, which it cannot close. Pure.

/// Returns the text between `<name attributes>` and `</name>`, in lines of their own.
///
/// A tag of this name in the text, opening or closing, becomes harmless.
#[must_use]
pub fn render_block(name: &str, attributes: &str, text: &str) -> String {
    let space = if attributes.is_empty() { "" } else { " " };
    format!("<{name}{space}{attributes}>\n{}\n</{name}>\n", disarm(name, text.trim()))
}

/// Returns the text with `&lt;` instead of `<` where a tag of this name starts.
fn disarm(name: &str, text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let (before, tag) = rest.split_at(at);
        let inner = tag.get(1..).unwrap_or_default();
        safe.push_str(before);
        // Characters that a reader may overlook between `<` and the name.
        let start = inner.trim_start_matches(|c: char| !c.is_ascii_alphanumeric() && c != '<' && c != '_');
        let is_tag = start.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
            && !start.get(name.len()..).unwrap_or_default().starts_with(|c: char| c.is_ascii_alphanumeric());
        safe.push_str(if is_tag { "&lt;" } else { "<" });
        rest = inner;
    }
    safe.push_str(rest);
    safe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_in_text_cannot_close_its_block() {
        for closing in ["</rules>", "</RULES >", "< /rules>", "<\u{200b}/\nrules", "<//rules>", "<rules>"] {
            let block = render_block("rules", "a=\"b\"", &format!("x {closing} y <b> <Rules2>"));
            let inner =
                block.strip_prefix("<rules a=\"b\">\n").unwrap().strip_suffix("\n</rules>\n").unwrap();
            assert_eq!(inner, format!("x &lt;{} y <b> <Rules2>", &closing[1..]), "{closing}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_has_no_closing_tag(text in "[</rule s>ä\n]{0,60}") {
            let block = render_block("rules", "", &text);
            prop_assert_eq!(block.matches("</rules").count(), 1);
            prop_assert!(block.ends_with("\n</rules>\n"));
        }
    }
}
