//! Decodes text files, also those that editors and shells of Windows write.

/// Returns the text of a file in UTF-8 or UTF-16, without a byte order mark; what is invalid is replaced.
pub(crate) fn decode(bytes: &[u8]) -> String {
    match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        [0xff, 0xfe, rest @ ..] => decode_utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => decode_utf16(rest, u16::from_be_bytes),
        // Without a mark, a first ASCII character shows the byte order.
        [first, 0, ..] if *first != 0 => decode_utf16(bytes, u16::from_le_bytes),
        [0, second, ..] if *second != 0 => decode_utf16(bytes, u16::from_be_bytes),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn decode_utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut text: String = char::decode_utf16(pairs.iter().map(|pair| unit(*pair)))
        .map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    // Half a character.
    text.extend((!rest.is_empty()).then_some(char::REPLACEMENT_CHARACTER));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, mark: bool, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
        let mark = mark.then_some(0xfeff);
        mark.into_iter().chain(text.encode_utf16()).flat_map(unit).collect()
    }

    #[test]
    fn text_is_decoded_with_and_without_byte_order_mark() {
        let text = "{\"ä🚀\": 1}";
        assert_eq!(decode(text.as_bytes()), text);
        assert_eq!(decode(&["\u{feff}".as_bytes(), text.as_bytes()].concat()), text);
        for mark in [true, false] {
            assert_eq!(decode(&utf16(text, mark, u16::to_le_bytes)), text);
            assert_eq!(decode(&utf16(text, mark, u16::to_be_bytes)), text);
        }
    }

    #[test]
    fn invalid_bytes_are_replaced() {
        assert_eq!(decode(b"caf\xe9"), "caf\u{fffd}");
        assert_eq!(decode(b"\xff\xfea\0b"), "a\u{fffd}");
        assert_eq!(decode(b"\xff\xfe\x00\xd8"), "\u{fffd}");
        assert_eq!([decode(b""), decode(b"\0"), decode(b"\xff\xfe")], ["", "\0", ""]);
    }
}
