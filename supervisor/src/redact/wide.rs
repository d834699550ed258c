//! Decodes UTF-16 and UTF-32 of both byte orders.

use std::ops::Range;

/// Minimum characters to decode; shorter texts hold no secret.
const MIN_CHARS: usize = 8;

/// Calls `on_decoded` with the range of each text of wide characters, and the text in UTF-8 and Latin-1.
///
/// The characters of tokens have one byte that is not zero, in either byte order.
pub(super) fn decode(bytes: &[u8], on_decoded: &mut dyn FnMut(Range<usize>, &[u8])) {
    if !bytes.contains(&0) {
        return;
    }
    for width in [2, 4] {
        let mut at = 0;
        while at + width <= bytes.len() {
            let start = at;
            let mut text = String::new();
            while is_character(bytes, at, width) {
                text.push(char::from(bytes[at]));
                at += width;
            }
            if at == start {
                at += 1;
                continue;
            }
            // In big endian, the last character's zeros precede it.
            if let Some(last) = bytes.get(at).filter(|byte| **byte != 0) {
                text.push(char::from(*last));
                at += 1;
            }
            if text.chars().count() >= MIN_CHARS {
                on_decoded(start..at, text.as_bytes());
                if !text.is_ascii() {
                    // The characters could also be bytes of these values.
                    let bytes: Vec<u8> = text.chars().filter_map(|c| u8::try_from(c).ok()).collect();
                    on_decoded(start..at, &bytes);
                }
            }
        }
    }
}

fn is_character(bytes: &[u8], at: usize, width: usize) -> bool {
    bytes.get(at..at + width).is_some_and(|unit| unit[0] != 0 && unit[1..].iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_text_of_each_byte_order_is_decoded() {
        let text = "key: ghp_16C7e42F292c\u{f6}\u{df}";
        let units: Vec<u16> = text.encode_utf16().collect();
        let encodings: [Vec<u8>; 4] = [
            units.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
            units.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
            text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect(),
            text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect(),
        ];
        for encoded in encodings {
            for before in 0..4 {
                let bytes = [vec![b'#'; before], encoded.clone()].concat();
                let mut found = Vec::new();
                decode(&bytes, &mut |_, text| found.push(String::from_utf8_lossy(text).into_owned()));
                assert!(
                    found.iter().any(|found| found.contains("ghp_16C7e42F292c\u{f6}\u{df}")),
                    "{bytes:?}"
                );
            }
        }
    }
}
