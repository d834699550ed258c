//! Text that cannot control a terminal, reorder what is read, or hide parts of itself.

/// Replaces what a terminal or a reader could be deceived with.
///
/// Tabs and line breaks of all kinds become spaces; control characters (C0, C1, escape sequences)
/// and marks that reorder text become U+FFFD; invisible characters are removed.
#[must_use]
pub fn neutralize(text: &str) -> String {
    let replaced = text.chars().filter_map(|c| match c {
        '\n' | '\r' | '\t' => Some(' '),
        other => visible(other),
    });
    replaced.collect::<String>().trim_end().to_owned()
}

/// Replaces like [`neutralize`], but keeps line feeds and tabs.
#[must_use]
pub fn neutralize_lines(text: &str) -> String {
    let replaced = text.replace("\r\n", "\n");
    replaced.chars().filter_map(|c| if matches!(c, '\n' | '\t') { Some(c) } else { visible(c) }).collect()
}

/// Escapes in JSON text what [`neutralize`] would replace, so that the values stay as they are.
#[must_use]
pub fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || visible(c) == Some(c) {
            escaped.push(c);
        } else {
            // Only texts can have such a character.
            let units = c.encode_utf16(&mut [0; 2]).to_vec();
            escaped.extend(units.into_iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    escaped
}

/// Returns what to show for a character: itself, a replacement, or nothing.
fn visible(c: char) -> Option<char> {
    match c {
        // Line and paragraph separators.
        '\u{2028}' | '\u{2029}' => Some(' '),
        // Marks that display text in another order than it has.
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            Some(char::REPLACEMENT_CHARACTER)
        }
        // Characters without width; joiners, which emoji need, stay out too.
        '\u{00ad}'
        | '\u{034f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180e}'
        | '\u{200b}'..='\u{200d}'
        | '\u{2060}'..='\u{2065}'
        | '\u{206a}'..='\u{206f}'
        | '\u{3164}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => None,
        _ if c.is_control() => Some(char::REPLACEMENT_CHARACTER),
        _ => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_deceives_terminal_or_reader_is_replaced() {
        for (text, expected) in [
            ("a\u{1b}]0;evil\u{7}b", "a\u{fffd}]0;evil\u{fffd}b"),
            ("a\r\nb\tc\n", "a  b c"),
            ("\u{9b}31m\u{90}q\u{9c}\u{7f}\0\u{8}", "\u{fffd}31m\u{fffd}q\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            ("a\u{202e}b\u{2066}c\u{200f}", "a\u{fffd}b\u{fffd}c\u{fffd}"),
            ("a\u{200b}b\u{feff}c\u{e0041}d\u{2060}\u{ad}", "abcd"),
            ("a\u{2028}b\u{2029}c\u{85}", "a b c\u{fffd}"),
            ("naïve — 日本語 ✓ עברית", "naïve — 日本語 ✓ עברית"),
        ] {
            assert_eq!(neutralize(text), expected, "{text:?}");
        }
        assert_eq!(
            escape_json("{\n \"a\": \"\u{202e}é\u{9b}\u{e0041}\"}"),
            "{\n \"a\": \"\\u202eé\\u009b\\udb40\\udc41\"}"
        );
        assert_eq!(neutralize_lines("a\r\n\tb\r\u{1b}c\n"), "a\n\tb\u{fffd}\u{fffd}c\n");
    }
}
