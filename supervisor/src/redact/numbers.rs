//! Decodes bytes that are written as numbers: hexadecimal, in dumps, or in decimal lists.

use std::ops::Range;

/// Minimum bytes to decode; shorter texts hold no secret.
const MIN_BYTES: usize = 8;

/// Maximum bytes between two numbers: separators, `0x`, `\x`, a line break with indentation.
const MAX_GAP: usize = 80;

/// Class of hexadecimal digits.
const DIGIT: u8 = 1;

/// Class of each byte: [`DIGIT`], 2 for other letters of a word, or 0.
const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_hexdigit() {
            classes[byte] = DIGIT;
        } else if (byte as u8).is_ascii_alphanumeric() || byte as u8 == b'_' {
            classes[byte] = 2;
        }
        byte += 1;
    }
    classes
}

fn class(byte: u8) -> u8 {
    CLASSES[usize::from(byte)]
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn is_separator(byte: u8) -> bool {
    byte.is_ascii_whitespace() || b",:;-\\\"'%=.{}[]()|<>#xX$&+*".contains(&byte)
}

/// Calls `on_decoded` with the range of each hexadecimal text and its bytes.
///
/// Accepts digits of any case, alone, separated, or with `0x` or `\x` before each number.
pub(super) fn hexadecimal(bytes: &[u8], on_decoded: &mut dyn FnMut(Range<usize>, &[u8])) {
    let mut decoded = Vec::new();
    let mut at = 0;
    while let Some((mut start, mut end)) = next_number(bytes, at, bytes.len()) {
        at = end;
        let begin = start;
        decoded.clear();
        // Numbers of an odd length cannot be bytes, but such a text can start with one digit more.
        let odd = (end - start) % 2 == 1;
        if odd && end - start < 2 * MIN_BYTES {
            continue;
        }
        append(&bytes[start..end], odd, &mut decoded);
        while let Some(next) = next_number(bytes, end, end + MAX_GAP) {
            if (next.1 - next.0) % 2 == 1 || !bytes[end..next.0].iter().all(|byte| is_gap(*byte)) {
                break;
            }
            (start, end) = next;
            append(&bytes[start..end], false, &mut decoded);
        }
        at = at.max(end);
        if decoded.len() >= MIN_BYTES {
            on_decoded(begin..end, &decoded);
        }
    }
}

/// Returns whether a byte may be between two numbers; the zero is part of `0x`.
fn is_gap(byte: u8) -> bool {
    is_separator(byte) || byte == b'0'
}

/// Returns the next digits at or after `from` that start before `limit`, without `0x`.
fn next_number(bytes: &[u8], from: usize, limit: usize) -> Option<(usize, usize)> {
    let limit = limit.min(bytes.len());
    let mut at = from;
    while at < limit {
        if class(bytes[at]) == 0 {
            at += 1;
            continue;
        }
        let start = at;
        let mut classes = 0;
        while at < bytes.len() && class(bytes[at]) != 0 {
            classes |= class(bytes[at]);
            at += 1;
        }
        if classes == DIGIT {
            return Some((start, at));
        }
        let word = &bytes[start..at];
        let is_number =
            |digits: &&[u8]| !digits.is_empty() && digits.iter().all(|byte| class(*byte) == DIGIT);
        let prefixes: [&[u8]; 4] = [b"0x", b"0X", b"x", b"X"];
        let number = prefixes.iter().find_map(|prefix| word.strip_prefix(*prefix)).filter(is_number);
        if let Some(number) = number {
            return Some((at - number.len(), at));
        }
        if word.len() >= 2 * MIN_BYTES
            && let Some(run) = long_run(word)
        {
            return Some((start + run.start, start + run.end));
        }
    }
    None
}

/// Returns the first digits within a word that are many enough to be no coincidence.
fn long_run(word: &[u8]) -> Option<Range<usize>> {
    let mut start = 0;
    for (at, byte) in word.iter().enumerate() {
        if class(*byte) != DIGIT {
            if at - start >= 2 * MIN_BYTES {
                return Some(start..at);
            }
            start = at + 1;
        }
    }
    (word.len() - start >= 2 * MIN_BYTES).then_some(start..word.len())
}

fn append(digits: &[u8], skip: bool, decoded: &mut Vec<u8>) {
    let digits = if skip { digits.get(1..).unwrap_or_default() } else { digits };
    for pair in digits.chunks_exact(2) {
        if let [high, low] = pair
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            decoded.push(high << 4 | low);
        }
    }
}

/// Calls `on_decoded` with the range of each dump and its bytes: xxd(1), `hexdump -C`, `od -tx1`.
///
/// A line has an offset, up to 32 bytes, and possibly the same as text.
pub(super) fn dumps(bytes: &[u8], on_decoded: &mut dyn FnMut(Range<usize>, &[u8])) {
    let mut decoded = Vec::new();
    let (mut start, mut end) = (0, 0);
    let mut at = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let length = decoded.len();
        if dump_line(line, &mut decoded) {
            if length == 0 {
                start = at;
            }
            end = at + line.len();
        } else if length > 0 {
            on_decoded(start..end, &decoded);
            decoded.clear();
        }
        at += line.len();
    }
    if !decoded.is_empty() {
        on_decoded(start..end, &decoded);
    }
}

/// Appends the bytes of a line of a dump; returns whether it is one.
fn dump_line(line: &[u8], decoded: &mut Vec<u8>) -> bool {
    let line = line.trim_ascii();
    let offset = line.iter().position(|byte| digit(*byte).is_none()).unwrap_or(0);
    if !(6..=16).contains(&offset) || !matches!(line.get(offset), Some(b' ' | b':' | b'\t')) {
        return false;
    }
    let rest = line.get(offset..).unwrap_or_default().trim_ascii_start();
    let rest = rest.strip_prefix(b":").unwrap_or(rest).trim_ascii_start();
    let has_text = rest.ends_with(b"|");
    let before = decoded.len();
    let mut blanks = 0;
    for word in rest.split(|byte| *byte == b' ') {
        let is_bytes = word.len() % 2 == 0 && word.iter().all(|byte| digit(*byte).is_some());
        match word.len() {
            0 => blanks += 1,
            // A gap ends the bytes, but `hexdump -C` has one in the middle.
            _ if !is_bytes || blanks > 0 && !has_text || decoded.len() - before >= 32 => break,
            _ => {
                blanks = 0;
                append(word, false, decoded);
            }
        }
    }
    decoded.len() > before
}

/// Calls `on_decoded` with the range of each list of decimal numbers below 256, and the bytes.
pub(super) fn decimal(bytes: &[u8], on_decoded: &mut dyn FnMut(Range<usize>, &[u8])) {
    let mut decoded = Vec::new();
    let mut start = 0;
    let mut end = 0;
    let mut at = 0;
    while at < bytes.len() {
        if decoded.is_empty() {
            match bytes[at..].iter().position(u8::is_ascii_digit) {
                Some(skipped) => at += skipped,
                None => break,
            }
        }
        if !bytes[at].is_ascii_digit() {
            if !is_separator(bytes[at]) || at - end > MAX_GAP {
                flush(&mut decoded, start..end, on_decoded);
            }
            at += 1;
            continue;
        }
        let begin = at;
        while at < bytes.len() && bytes[at].is_ascii_digit() {
            at += 1;
        }
        let text = std::str::from_utf8(&bytes[begin..at]).unwrap_or_default();
        match text.parse::<u8>() {
            Ok(number) if text.len() <= 3 => {
                if decoded.is_empty() {
                    start = begin;
                }
                end = at;
                decoded.push(number);
            }
            Ok(_) | Err(_) => flush(&mut decoded, start..end, on_decoded),
        }
    }
    flush(&mut decoded, start..end, on_decoded);
}

fn flush(decoded: &mut Vec<u8>, range: Range<usize>, on_decoded: &mut dyn FnMut(Range<usize>, &[u8])) {
    if decoded.len() >= MIN_BYTES {
        on_decoded(range, decoded);
    }
    decoded.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    type Decoder = fn(&[u8], &mut dyn FnMut(Range<usize>, &[u8]));

    #[track_caller]
    fn assert_decodes(decoder: Decoder, text: &str) {
        let mut all = Vec::new();
        decoder(text.as_bytes(), &mut |_, bytes| all.extend_from_slice(bytes));
        let found = all.windows(16).any(|window| window == b"ghp_16C7e42F292c");
        assert!(found, "{text}: {}", String::from_utf8_lossy(&all));
    }

    #[test]
    fn hexadecimal_of_common_tools_is_decoded() {
        let bytes = b"ghp_16C7e42F292c";
        let join = |separator: &str, prefix: &str| {
            let numbers: Vec<String> = bytes.iter().map(|byte| format!("{prefix}{byte:02x}")).collect();
            numbers.join(separator)
        };
        for text in [
            join("", ""),
            join("", "").to_uppercase(),
            join(" ", ""),
            join(":", ""),
            join("", "\\x"),
            join(", ", "0x"),
            join(",\n    ", "0x"),
            format!("x'{}'", join("", "")),
            format!("\"{}\"", join("", "\\x")),
            join("\n", ""),
            format!("0x{}", join("", "")),
        ] {
            assert_decodes(hexadecimal, &text);
        }
    }

    #[test]
    fn dumps_of_common_tools_are_decoded() {
        let long = "0000000 67 68 70 5f 31 36 43 37\n0000010 65 34 32 46 32 39 32 63\n0000020\n";
        let xxd =
            "00000000: 6768 705f 3136 4337 6534  ghp_16C7e4\n0000000a: 3246 3239 3263            2F292c\n";
        let hexdump =
            "00000000  67 68 70 5f 31 36 43 37  65 34 32 46 32 39 32 63  |ghp_16C7e42F292c|\n00000010\n";
        for text in [long, xxd, hexdump] {
            assert_decodes(dumps, text);
        }
    }

    #[test]
    fn decimal_lists_are_decoded() {
        let numbers: Vec<String> = b"ghp_16C7e42F292c".iter().map(u8::to_string).collect();
        for text in [numbers.join(", "), format!("{{\"data\":[{}]}}", numbers.join(",")), numbers.join("\n")]
        {
            assert_decodes(decimal, &text);
        }
    }
}
