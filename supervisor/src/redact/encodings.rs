//! The forms in which a secret can turn up in text.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

/// The shortest secret that is looked for, in bytes: shorter ones would be found by
/// chance and mask innocent text.
pub const MIN_SECRET_BYTES: usize = 8;

/// The shortest line of a secret of several lines that is looked for on its own.
const SHORTEST_LINE: usize = 16;

/// How many characters a line of wrapped base64 has: base64(1), and PEM.
const BASE64_WRAP_COLUMNS: [usize; 2] = [76, 64];

/// Characters beside letters and digits that different percent-encoders leave as they
/// are: RFC 3986 unreserved, `encodeURIComponent`, `encodeURI`.
const UNESCAPED: [&[u8]; 3] = [b"-_.~", b"-_.~!*'()", b"-_.~!*'();,/?:@&=+$#"];

/// Every form of a secret that is looked for; none if it is too short.
///
/// A secret of several lines, such as a key file, is looked for line by line, because
/// text is mostly read so; its frame (`-----BEGIN ...`) is no secret.
pub(super) fn encoded_forms(value: &str) -> BTreeSet<String> {
    let value = value.trim();
    let mut forms = BTreeSet::new();
    if value.contains('\n') {
        let lines = value.lines().map(str::trim);
        for line in lines.filter(|line| line.len() >= SHORTEST_LINE && !line.starts_with("-----")) {
            add_forms(&mut forms, line);
        }
    } else {
        add_forms(&mut forms, value);
    }
    forms
}

fn add_forms(forms: &mut BTreeSet<String>, value: &str) {
    if value.len() < MIN_SECRET_BYTES {
        return;
    }
    forms.insert(value.to_owned());
    add_base64(forms, value.as_bytes());
    for user in ["x-access-token", "oauth2"] {
        add_whole_base64(forms, format!("{user}:{value}").as_bytes());
    }
    for unescaped in UNESCAPED {
        forms.insert(percent_encoded(value, unescaped, "0123456789ABCDEF"));
        forms.insert(percent_encoded(value, unescaped, "0123456789abcdef"));
    }
    forms.insert(percent_encoded(value, UNESCAPED[0], "0123456789ABCDEF").replace("%20", "+"));
    add_json(forms, value);
    forms.insert(value.bytes().map(|byte| format!("{byte:02x}")).collect());
    forms.insert(value.bytes().map(|byte| format!("{byte:02X}")).collect());
}

/// The value alone, and the part of it that is the same in whatever longer text was
/// encoded: its bytes can begin at any of three places of a group of three.
fn add_base64(forms: &mut BTreeSet<String>, value: &[u8]) {
    add_whole_base64(forms, value);
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        for before in 0..3 {
            let mut text = vec![0; before];
            text.extend_from_slice(value);
            let encoded = engine.encode(&text);
            // Characters that also hold bits of a neighbour are not known.
            let begin = (before * 8).div_ceil(6);
            let end = text.len() * 8 / 6;
            if let Some(core) = encoded.get(begin..end) {
                forms.insert(core.to_owned());
            }
        }
    }
}

fn add_whole_base64(forms: &mut BTreeSet<String>, value: &[u8]) {
    for engine in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
        let encoded = engine.encode(value);
        for width in BASE64_WRAP_COLUMNS {
            let mut rest = encoded.as_str();
            while rest.len() > width && width >= SHORTEST_LINE {
                let (line, next) = rest.split_at(width);
                forms.insert(line.to_owned());
                rest = next;
            }
            if rest.len() >= SHORTEST_LINE {
                forms.insert(rest.to_owned());
            }
        }
        forms.insert(encoded);
    }
}

fn percent_encoded(value: &str, unescaped: &[u8], digits: &str) -> String {
    let digit = |index: u8| digits.as_bytes().get(usize::from(index)).copied().map_or('0', char::from);
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        if character.is_ascii_alphanumeric()
            || (character.is_ascii() && unescaped.contains(&(character as u8)))
        {
            text.push(character);
            continue;
        }
        for byte in character.encode_utf8(&mut [0; 4]).bytes() {
            text.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    text
}

/// As a JSON string, as encoders differ, and as a JSON string inside another.
fn add_json(forms: &mut BTreeSet<String>, value: &str) {
    let plain = json_escaped(value);
    let ascii = ascii_only(&plain);
    for form in [plain.replace('/', "\\/"), ascii.replace('/', "\\/"), plain, ascii] {
        forms.insert(json_escaped(&form));
        forms.insert(form);
    }
}

fn json_escaped(value: &str) -> String {
    let quoted = serde_json::Value::from(value).to_string();
    quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
}

fn ascii_only(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() {
            escaped.push(character);
        } else {
            let units = character.encode_utf16(&mut [0; 2]).to_vec();
            escaped.extend(units.into_iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    escaped
}
