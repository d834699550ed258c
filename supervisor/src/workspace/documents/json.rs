//! Parses JSON as people write it: with comments and trailing commas.

use serde_json::Value;

use super::error::DocumentsError;

/// Maximum values of a file: each takes far more memory than text.
const MAX_VALUES: usize = 1_000_000;

/// Parses the text of a file.
///
/// # Errors
/// Returns an error that says what is wrong with the file: it is empty, has too many values or conflict
/// markers, or is not JSON at a line and column.
pub(super) fn parse(path: &str, text: &str) -> Result<Value, DocumentsError> {
    if text.trim().is_empty() {
        return Err(DocumentsError::Empty { path: path.to_owned() });
    }
    // No value starts without one of these before it.
    if text.bytes().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count() > MAX_VALUES {
        let problem = format!("it has more than {MAX_VALUES} values");
        return Err(DocumentsError::Unusable { path: path.to_owned(), problem });
    }
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    serde_json::from_str(&blank_comments(text)).map_err(|error| match conflict_line(text) {
        Some(line) => DocumentsError::Conflict { path: path.to_owned(), line },
        None => malformed(path, &error),
    })
}

fn malformed(path: &str, error: &serde_json::Error) -> DocumentsError {
    let message = error.to_string();
    let expected = message.rfind(" at line ").and_then(|end| message.get(..end)).unwrap_or(&message);
    DocumentsError::Malformed {
        path: path.to_owned(),
        line: error.line().max(1),
        column: error.column().max(1),
        expected: expected.to_owned(),
    }
}

/// Returns the first line with a conflict marker of git. No line of valid JSON starts with one.
fn conflict_line(text: &str) -> Option<usize> {
    let is_marker = |line: &str| ["<<<<<<<", ">>>>>>>"].iter().any(|marker| line.starts_with(marker));
    text.lines().position(is_marker).map(|line| line + 1)
}

/// Returns the text with spaces instead of comments and trailing commas: all positions stay.
fn blank_comments(text: &str) -> String {
    let source = text.as_bytes();
    let mut blanked = source.to_vec();
    let mut trailing_comma = None;
    let mut at = 0;
    while let Some(byte) = source.get(at).copied() {
        let end = match (byte, source.get(at + 1)) {
            (b'"', _) => end_of_string(source, at),
            (b'/', Some(b'/')) => position_after(source, at, b"\n").map_or(source.len(), |end| end - 1),
            (b'/', Some(b'*')) => position_after(source, at + 2, b"*/").unwrap_or(source.len()),
            _ => at + 1,
        };
        let is_comment = byte == b'/' && end > at + 1;
        if is_comment {
            let comment = blanked.get_mut(at..end).unwrap_or_default();
            comment.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        } else if byte == b',' {
            trailing_comma = Some(at);
        } else if !byte.is_ascii_whitespace() {
            let comma = trailing_comma.take().filter(|_| matches!(byte, b'}' | b']'));
            if let Some(comma) = comma.and_then(|comma| blanked.get_mut(comma)) {
                *comma = b' ';
            }
        }
        at = end;
    }
    // Only whole characters were replaced.
    String::from_utf8(blanked).unwrap_or_default()
}

/// Returns the position after the string that starts at `start`.
fn end_of_string(source: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = source.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    source.len()
}

fn position_after(source: &[u8], start: usize, end: &[u8]) -> Option<usize> {
    let rest = source.get(start..)?;
    let found = rest.windows(end.len()).position(|window| window == end)?;
    Some(start + found + end.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn comments_and_trailing_commas_are_ignored() {
        let text = "// tasks\r\n{\"a\": [1, /* two,\n */ 2,], // ä\n\"b\": \"// \\\" ,]\",\n}";
        assert_eq!(parse("f", text).unwrap(), serde_json::json!({"a": [1, 2], "b": "// \" ,]"}));
        assert_eq!(parse("f", "[1] /* open").unwrap(), serde_json::json!([1]));
    }

    #[test]
    fn errors_have_their_position_behind_comments() {
        let error = parse("f", "/* ä */ {\n\"a\": ?}").unwrap_err().to_string();
        assert_eq!(error, "cannot parse `f`, line 2, column 6: expected value");
        let conflict = "{\n<<<<<<< HEAD\n\"a\": 1\n=======\n\"a\": 2\n>>>>>>> other\n}";
        let error = parse("f", conflict).unwrap_err().to_string();
        assert_eq!(error, "`f` has git conflict markers in line 2: resolve the conflict and push");
        let error = parse("f", " \n").unwrap_err().to_string();
        assert_eq!(error, "`f` is empty: restore it from an earlier commit");
    }

    #[test]
    fn number_of_values_is_bounded() {
        let text = format!("[{}0]", "0,".repeat(MAX_VALUES));
        assert_eq!(
            parse("f", &text).unwrap_err().to_string(),
            "cannot use `f`: it has more than 1000000 values"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_text_keeps_its_length(text in r#"[/*"\\,\]}\[{ a\nä]{0,40}"#) {
            prop_assert_eq!(blank_comments(&text).len(), text.len());
        }

        #[test]
        fn strict_json_is_not_changed(words in prop::collection::vec("[/*,\"a-z\\\\\\]]{0,8}", 0..5)) {
            let text = serde_json::to_string(&words).unwrap();
            prop_assert_eq!(blank_comments(&text), text);
        }
    }
}
