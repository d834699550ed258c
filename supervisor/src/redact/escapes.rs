//! Decodes escape sequences: percent, JSON, C and Python, HTML entities, quoted-printable.

use std::ops::Range;

/// Bytes around escape sequences that are decoded with them, at least and at most.
const MARGIN: Range<usize> = 256..4096;

/// Maximum bytes that are decoded together; the next ones repeat the margin.
const MAX_REGION: usize = 1024 * 1024;

/// A decoded escape sequence.
struct Escape {
    /// Its length.
    length: usize,
    /// What it means, in UTF-8; `None` is nothing.
    character: Option<Decoded>,
}

enum Decoded {
    Byte(u8),
    Character(char),
}

type EscapeAt = fn(&[u8], usize) -> Option<Escape>;

/// Decoded text and where its bytes come from.
pub(super) struct Unescaped {
    pub(super) text: Vec<u8>,
    /// Offsets in the text and in the source: of the start, then of the start and the end of each
    /// escape sequence. From an end to the next start, both advance alike.
    points: Vec<(usize, usize)>,
    /// Whether a character could also be a byte of its value.
    has_latin: bool,
}

impl Unescaped {
    /// Returns the range in the source for a range in the text.
    pub(super) fn source(&self, range: &Range<usize>) -> Range<usize> {
        let point = |index: usize| self.points.get(index).copied().unwrap_or_default();
        let is_escape = |index: usize| index % 2 == 1;
        let first = self.points.partition_point(|(text, _)| *text <= range.start).saturating_sub(1);
        let (text, source) = point(first);
        let start = if is_escape(first) { source } else { source + (range.start - text) };
        let last = self.points.partition_point(|(text, _)| *text < range.end).saturating_sub(1);
        let (text, source) = point(last);
        let end = if is_escape(last) { point(last + 1).1 } else { source + (range.end - text) };
        start..end.max(start + 1)
    }
}

/// Calls `on_decoded` with each part of the bytes that has escape sequences, decoded.
///
/// `longest` is the length of the longest secret.
pub(super) fn decode(bytes: &[u8], longest: usize, on_decoded: &mut dyn FnMut(&Unescaped)) {
    for (lead, escape_at) in [(ESCAPE, escape_at as EscapeAt), (QUOTED, quoted_at)] {
        let margin = longest.clamp(MARGIN.start, MARGIN.end);
        let mut region: Option<Range<usize>> = None;
        let mut at = 0;
        while let Some(found) = next_escape(bytes, at, lead, escape_at) {
            at = found + 1;
            let around = found.saturating_sub(margin)..bytes.len().min(found + margin);
            match &mut region {
                Some(open) if around.start <= open.end && around.end - open.start <= MAX_REGION => {
                    open.end = around.end;
                }
                Some(open) => {
                    decode_region(bytes, open, escape_at, on_decoded);
                    *open = around;
                }
                None => region = Some(around),
            }
        }
        if let Some(open) = region {
            decode_region(bytes, &open, escape_at, on_decoded);
        }
    }
}

/// Decodes a region; a second time if its characters could also be bytes of these values.
fn decode_region(
    bytes: &[u8],
    region: &Range<usize>,
    escape_at: EscapeAt,
    on_decoded: &mut dyn FnMut(&Unescaped),
) {
    let decoded = unescape(bytes, region, escape_at, false);
    on_decoded(&decoded);
    if decoded.has_latin {
        on_decoded(&unescape(bytes, region, escape_at, true));
    }
}

fn next_escape(bytes: &[u8], from: usize, lead: u8, escape_at: EscapeAt) -> Option<usize> {
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| LEADS[usize::from(*byte)] == lead)?;
        if escape_at(bytes, at).is_some() {
            return Some(at);
        }
        at += 1;
    }
}

const ESCAPE: u8 = 1;
const QUOTED: u8 = 2;

/// What each byte can start.
const LEADS: [u8; 256] = {
    let mut leads = [0; 256];
    leads[b'%' as usize] = ESCAPE;
    leads[b'\\' as usize] = ESCAPE;
    leads[b'&' as usize] = ESCAPE;
    leads[b'=' as usize] = QUOTED;
    leads
};

fn unescape(bytes: &[u8], region: &Range<usize>, escape_at: EscapeAt, as_bytes: bool) -> Unescaped {
    let mut has_latin = false;
    let mut text = Vec::with_capacity(region.len());
    let mut points = vec![(0, region.start)];
    let mut at = region.start;
    while at < region.end {
        let escape = (LEADS[usize::from(bytes[at])] != 0).then(|| escape_at(bytes, at)).flatten();
        let Some(escape) = escape else {
            text.push(bytes[at]);
            at += 1;
            continue;
        };
        points.push((text.len(), at));
        match escape.character {
            None => {}
            Some(Decoded::Byte(byte)) => text.push(byte),
            Some(Decoded::Character(character @ '\u{80}'..='\u{ff}')) if as_bytes => {
                text.extend(u8::try_from(character));
            }
            Some(Decoded::Character(character)) => {
                has_latin |= matches!(character, '\u{80}'..='\u{ff}');
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        at += escape.length;
        points.push((text.len(), at));
    }
    Unescaped { text, points, has_latin }
}

fn escape_at(bytes: &[u8], at: usize) -> Option<Escape> {
    match bytes.get(at)? {
        b'%' => percent(bytes, at),
        b'\\' => backslash(bytes, at),
        b'&' => entity(bytes, at),
        _ => None,
    }
}

/// Parses digits of a base; `None` if there are fewer.
fn number(bytes: &[u8], at: usize, digits: usize, base: u32) -> Option<u32> {
    let digits = bytes.get(at..at + digits)?;
    digits.iter().try_fold(0_u32, |number, byte| {
        number.checked_mul(base)?.checked_add(char::from(*byte).to_digit(base)?)
    })
}

fn byte(length: usize, value: u32) -> Option<Escape> {
    Some(Escape { length, character: Some(Decoded::Byte(u8::try_from(value).ok()?)) })
}

fn character(length: usize, value: u32) -> Option<Escape> {
    Some(Escape { length, character: Some(Decoded::Character(char::from_u32(value).unwrap_or('\u{fffd}'))) })
}

fn percent(bytes: &[u8], at: usize) -> Option<Escape> {
    if matches!(bytes.get(at + 1), Some(b'u' | b'U')) {
        return character(6, number(bytes, at + 2, 4, 16)?);
    }
    byte(3, number(bytes, at + 1, 2, 16)?)
}

fn backslash(bytes: &[u8], at: usize) -> Option<Escape> {
    match *bytes.get(at + 1)? {
        b'x' => byte(4, number(bytes, at + 2, 2, 16)?),
        b'u' if bytes.get(at + 2) == Some(&b'{') => {
            let digits =
                bytes.get(at + 3..)?.iter().take(6).take_while(|byte| byte.is_ascii_hexdigit()).count();
            (bytes.get(at + 3 + digits) == Some(&b'}')).then_some(())?;
            character(digits + 4, number(bytes, at + 3, digits, 16)?)
        }
        b'u' => {
            let high = number(bytes, at + 2, 4, 16)?;
            let is_pair = (0xd800..0xdc00).contains(&high) && bytes.get(at + 6..at + 8) == Some(b"\\u");
            match is_pair.then(|| number(bytes, at + 8, 4, 16)).flatten() {
                Some(low @ 0xdc00..0xe000) => {
                    character(12, 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))
                }
                Some(_) | None => character(6, high),
            }
        }
        b'U' => character(10, number(bytes, at + 2, 8, 16)?),
        b'0'..=b'7' => {
            let is_octal = |byte: &&u8| (b'0'..=b'7').contains(*byte);
            let digits = bytes.get(at + 1..)?.iter().take(3).take_while(is_octal).count();
            byte(digits + 1, number(bytes, at + 1, digits, 8)? & 0xff)
        }
        b'n' => byte(2, u32::from(b'\n')),
        b'r' => byte(2, u32::from(b'\r')),
        b't' => byte(2, u32::from(b'\t')),
        b'\n' => Some(Escape { length: 2, character: None }),
        plain @ (b'"'
        | b'\''
        | b'\\'
        | b'/'
        | b' '..=b'/'
        | b':'..=b'@'
        | b'['
        | b']'..=b'`'
        | b'{'..=b'~') => byte(2, u32::from(plain)),
        _ => None,
    }
}

/// Names of HTML entities for the characters that tokens and base64 have.
const ENTITIES: [(&[u8], char); 40] = [
    (b"amp", '&'),
    (b"lt", '<'),
    (b"gt", '>'),
    (b"quot", '"'),
    (b"apos", '\''),
    (b"nbsp", ' '),
    (b"NewLine", '\n'),
    (b"Tab", '\t'),
    (b"lowbar", '_'),
    (b"UnderBar", '_'),
    (b"hyphen", '-'),
    (b"dash", '-'),
    (b"plus", '+'),
    (b"sol", '/'),
    (b"bsol", '\\'),
    (b"equals", '='),
    (b"num", '#'),
    (b"commat", '@'),
    (b"excl", '!'),
    (b"dollar", '$'),
    (b"percnt", '%'),
    (b"colon", ':'),
    (b"semi", ';'),
    (b"quest", '?'),
    (b"lpar", '('),
    (b"rpar", ')'),
    (b"ast", '*'),
    (b"midast", '*'),
    (b"comma", ','),
    (b"period", '.'),
    (b"lsqb", '['),
    (b"lbrack", '['),
    (b"rsqb", ']'),
    (b"rbrack", ']'),
    (b"lcub", '{'),
    (b"rcub", '}'),
    (b"verbar", '|'),
    (b"vert", '|'),
    (b"Hat", '^'),
    (b"grave", '`'),
];

fn entity(bytes: &[u8], at: usize) -> Option<Escape> {
    let body = bytes.get(at + 1..bytes.len().min(at + 12))?;
    let body = &body[..body.iter().position(|byte| *byte == b';')?];
    let length = body.len() + 2;
    if let Some(digits) = body.strip_prefix(b"#") {
        let value = match digits.split_first() {
            Some((b'x' | b'X', digits)) if !digits.is_empty() => number(digits, 0, digits.len(), 16),
            Some(_) => number(digits, 0, digits.len(), 10),
            None => None,
        };
        return character(length, value?);
    }
    let (_, named) = ENTITIES.iter().find(|(name, _)| *name == body)?;
    character(length, u32::from(*named))
}

/// Returns the quoted-printable sequence at `at`: `=5F`, or `=` at the end of a line.
fn quoted_at(bytes: &[u8], at: usize) -> Option<Escape> {
    let soft = |length| Some(Escape { length, character: None });
    match (bytes.get(at + 1)?, bytes.get(at + 2)) {
        // In code, a space precedes a sign of equality at the end of a line.
        (b'\n', _) if bytes.get(at.checked_sub(1)?) != Some(&b' ') => soft(2),
        (b'\r', Some(b'\n')) => soft(3),
        _ => byte(3, number(bytes, at + 1, 2, 16)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> String {
        let mut all = String::new();
        decode(text.as_bytes(), 0, &mut |part| all.push_str(&String::from_utf8_lossy(&part.text)));
        all
    }

    #[test]
    fn escape_sequences_are_decoded() {
        for (text, expected) in [
            ("a%5Fb%5fc", "a_b_c"),
            ("a%u005Fb", "a_b"),
            (r"a\u005fb\u005Fc", "a_b_c"),
            (r"\ud83d\ude00", "\u{1f600}"),
            (r"a\x5fb\137c\u{5f}d\U0000005fe", "a_b_c_d_e"),
            (r#"a\"b\\c\/d"#, r#"a"b\c/d"#),
            ("a\\\nb", "ab"),
            ("a&#95;b&#x5F;c&lowbar;d&amp;", "a_b_c_d&"),
            ("a=5Fb=\nc=\r\nd", "a_bcd"),
            (r"line\nline", "line\nline"),
        ] {
            assert_eq!(decoded(text), expected, "{text}");
        }
        assert_eq!(decoded("100% of a & b, \\q, let x =\n 1;"), "");
    }

    #[test]
    fn decoded_range_maps_to_its_source() {
        let text = r"key: ghp\x5f16C7\u0065 end";
        let mut ranges = Vec::new();
        decode(text.as_bytes(), 0, &mut |part| {
            let decoded = String::from_utf8(part.text.clone()).unwrap();
            let start = decoded.find("ghp_16C7e").unwrap();
            ranges.push(part.source(&(start..start + 9)));
            ranges.push(part.source(&(start + 3..start + 4)));
        });
        let texts: Vec<&str> = ranges.into_iter().map(|range| &text[range]).collect();
        assert_eq!(texts, [r"ghp\x5f16C7\u0065", r"\x5f"]);
    }
}
