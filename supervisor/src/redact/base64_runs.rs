//! Decodes base64 in text: of both alphabets, any line length and any offset.

use std::ops::Range;

/// Minimum characters to decode; shorter texts hold no token.
const MIN_CHARS: usize = 20;

/// Maximum bytes between two lines of one text: line break, indentation, quotes, comment signs.
const MAX_GAP: usize = 80;

/// Value of each character, or one of the classes below.
const VALUES: [u8; 256] = values();
const OTHER: u8 = 255;
/// May be between the lines of one text.
const GAP: u8 = 254;
/// Line break.
const BREAK: u8 = 253;

const fn values() -> [u8; 256] {
    let mut values = [OTHER; 256];
    let mut byte = 0;
    while byte < 26 {
        values[b'A' as usize + byte] = byte as u8;
        values[b'a' as usize + byte] = byte as u8 + 26;
        byte += 1;
    }
    byte = 0;
    while byte < 10 {
        values[b'0' as usize + byte] = byte as u8 + 52;
        byte += 1;
    }
    values[b'+' as usize] = 62;
    values[b'-' as usize] = 62;
    values[b'/' as usize] = 63;
    values[b'_' as usize] = 63;
    let gaps = b" \t\"'\\,;>#*|";
    let mut gap = 0;
    while gap < gaps.len() {
        values[gaps[gap] as usize] = GAP;
        gap += 1;
    }
    values[b'\n' as usize] = BREAK;
    values[b'\r' as usize] = BREAK;
    values
}

fn value(byte: u8) -> u8 {
    VALUES[usize::from(byte)]
}

/// Calls `on_decoded` with the range of each base64 text and what it decodes to.
///
/// A text that starts within other letters is decoded at four offsets.
pub(super) fn decode(bytes: &[u8], on_decoded: &mut dyn FnMut(Range<usize>, &[u8])) {
    let mut at = 0;
    let mut sextets = Vec::new();
    let mut decoded = Vec::new();
    while at < bytes.len() {
        if value(bytes[at]) >= 64 {
            at += 1;
            continue;
        }
        let start = at;
        let end = line_end(bytes, start);
        at = end;
        let next = next_line(bytes, end);
        if next.is_none() && end - start < MIN_CHARS {
            continue;
        }
        let mut has_case = cases(&bytes[start..end]);
        sextets.clear();
        sextets.extend(bytes[start..end].iter().map(|byte| value(*byte)));
        let mut next = next;
        while let Some(begin) = next {
            at = line_end(bytes, begin);
            let line = &bytes[begin..at];
            let of_line = cases(line);
            has_case = (has_case.0 || of_line.0, has_case.1 || of_line.1);
            sextets.extend(line.iter().map(|byte| value(*byte)));
            next = next_line(bytes, at);
        }
        // Names and paths rarely have letters of both cases; encoded tokens have.
        if sextets.len() < MIN_CHARS || has_case != (true, true) {
            continue;
        }
        let padding = bytes[at..].iter().take(2).take_while(|byte| **byte == b'=').count();
        for offset in 0..4 {
            decode_sextets(sextets.get(offset..).unwrap_or_default(), &mut decoded);
            on_decoded(start..at + padding, &decoded);
        }
    }
}

/// Returns whether there are uppercase and lowercase letters.
fn cases(line: &[u8]) -> (bool, bool) {
    (line.iter().any(u8::is_ascii_uppercase), line.iter().any(u8::is_ascii_lowercase))
}

/// Returns whether a byte is a `+` that joins two texts in code: `"a" + "b"`.
pub(super) fn is_operator(bytes: &[u8], at: usize) -> bool {
    let is_apart = |byte: &u8| byte.is_ascii_whitespace() || b"\"'".contains(byte);
    bytes.get(at) == Some(&b'+')
        && at.checked_sub(1).and_then(|before| bytes.get(before)).is_some_and(is_apart)
        && bytes.get(at + 1).is_some_and(is_apart)
}

fn line_end(bytes: &[u8], start: usize) -> usize {
    bytes[start..].iter().position(|byte| value(*byte) >= 64).map_or(bytes.len(), |length| start + length)
}

/// Returns the start of the next line of the same text.
fn next_line(bytes: &[u8], end: usize) -> Option<usize> {
    let mut breaks = false;
    let gap = bytes.get(end..bytes.len().min(end + MAX_GAP))?;
    for (length, byte) in gap.iter().enumerate() {
        match value(*byte) {
            _ if is_operator(bytes, end + length) => {}
            GAP => {}
            BREAK => breaks = true,
            OTHER => return None,
            _ => return breaks.then_some(end + length),
        }
    }
    None
}

fn decode_sextets(sextets: &[u8], decoded: &mut Vec<u8>) {
    decoded.clear();
    decoded.reserve(sextets.len() * 3 / 4 + 3);
    for group in sextets.chunks(4) {
        let bits = group.iter().fold(0_u32, |bits, sextet| bits << 6 | u32::from(*sextet));
        let bytes = (bits << (6 * (4 - group.len())) << 8).to_be_bytes();
        decoded.extend_from_slice(&bytes[..group.len() * 6 / 8]);
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    fn decoded(text: &str) -> Vec<String> {
        let mut all = Vec::new();
        decode(text.as_bytes(), &mut |_, bytes| all.push(String::from_utf8_lossy(bytes).into_owned()));
        all
    }

    #[test]
    fn base64_of_any_width_and_offset_is_decoded() {
        let plain = "some text that is long enough?>~ \u{ff}";
        for encoded in [STANDARD.encode(plain), URL_SAFE_NO_PAD.encode(plain)] {
            for width in [1, 3, 10, 19, 76] {
                let lines: Vec<&str> =
                    encoded.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
                for gap in ["\n", "\r\n", "\n    ", "\"\n  \"", "\\\n# "] {
                    for prefix in ["", "a", "ab", "abc", "key="] {
                        let text = format!("{prefix}{} end", lines.join(gap));
                        assert!(decoded(&text).iter().any(|all| all.contains(plain)), "{text}");
                    }
                }
            }
        }
    }

    #[test]
    fn names_and_paths_are_not_decoded() {
        for text in
            ["a_rather_long_snake_case_name", "MAX_LENGTH_OF_A_LONG_NAME", "some/path/to/a-file/of/ours"]
        {
            assert_eq!(decoded(text), Vec::<String>::new(), "{text}");
        }
    }
}
