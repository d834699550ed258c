use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const TOKEN: &str = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";
const ODD: &str = "p&ss \"wörd\"/with\\ödd+=chars";

fn redactor() -> Redactor {
    Redactor::new(Secrets::new().with("github token", TOKEN.into()).with("password", ODD.into()))
}

fn whole(redactor: &Redactor, chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = redactor.stream();
    let mut text = Vec::new();
    for chunk in chunks {
        text.extend_from_slice(&stream.push(chunk));
    }
    text.extend(stream.finish());
    text
}

#[test]
fn text_without_secret_is_not_copied() {
    let redactor = redactor();
    assert!(matches!(redactor.redact("nothing to see"), Cow::Borrowed(_)));
}

#[test]
fn secret_is_masked_with_its_label() {
    let text = format!("push with {TOKEN} failed, {TOKEN}");
    assert_eq!(redactor().redact(&text), "push with [redacted github token] failed, [redacted github token]");
}

#[test]
fn encoded_forms_of_secret_are_found() {
    let redactor = redactor();
    for value in [TOKEN, ODD] {
        let json = serde_json::Value::from(value).to_string();
        let forms = [
            value.to_owned(),
            json.clone(),
            serde_json::Value::from(json.as_str()).to_string(),
            STANDARD.encode(value),
            URL_SAFE_NO_PAD.encode(value),
            STANDARD.encode(format!("{value}\n")),
            STANDARD.encode(format!("x-access-token:{value}")),
            value.bytes().map(|byte| format!("{byte:02x}")).collect(),
            value.bytes().map(|byte| format!("{byte:02X}")).collect(),
        ];
        for form in forms {
            assert!(redactor.find(form.as_bytes()).is_some(), "{form}");
            assert!(!redactor.redact(&form).contains(value), "{form}");
        }
    }
    let encoded = "p%26ss%20%22w%C3%B6rd%22%2Fwith%5C%C3%B6dd%2B%3Dchars";
    assert_eq!(redactor.redact(encoded), "[redacted password]");
    assert_eq!(redactor.redact(&encoded.to_lowercase()), "[redacted password]");
    assert_eq!(redactor.redact(&encoded.replace("%20", "+")), "[redacted password]");
}

#[test]
fn basic_auth_header_is_masked_entirely() {
    let header = format!("Authorization: Basic {}", STANDARD.encode(format!("x-access-token:{TOKEN}")));
    assert_eq!(redactor().redact(&header), "Authorization: Basic [redacted github token]");
}

#[test]
fn long_secret_in_wrapped_base64_is_found() {
    let token = format!("github_pat_{}", "A1b2C3d4E5".repeat(8));
    let redactor = Redactor::new(Secrets::new().with("token", token.clone().into()));
    let encoded = STANDARD.encode(&token);
    for line in encoded.as_bytes().chunks(76) {
        assert!(redactor.find(line).is_some());
    }
}

#[test]
fn key_file_is_masked_per_line() {
    let line = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW";
    let key = format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{line}\n-----END OPENSSH PRIVATE KEY-----\n");
    let redactor = Redactor::new(Secrets::new().with("ssh key", key.clone().into()));
    assert_eq!(redactor.redact(line), "[redacted ssh key]");
    assert!(!redactor.redact(&key).contains(line));
    assert!(!redactor.redact(&STANDARD.encode(&key)).contains(&STANDARD.encode(line)[4..60]));
}

#[test]
fn short_secret_is_not_masked() {
    let redactor = Redactor::new(Secrets::new().with("pin", "1234567".into()).with("none", "".into()));
    assert_eq!(redactor.redact("1234567"), "1234567");
}

#[test]
fn secret_added_later_is_masked_by_existing_streams() {
    let redactor = redactor();
    let mut stream = redactor.clone().stream();
    assert_eq!(stream.push(b"(rotated-value)\n"), b"(rotated-value)\n");
    redactor.add("new token", "rotated-value".into());
    assert_eq!(stream.push(b"(rotated-value)\n"), b"([redacted new token])\n");
}

#[test]
fn longest_of_secrets_with_common_prefix_is_masked() {
    let redactor =
        Redactor::new(Secrets::new().with("short", "abcdefgh".into()).with("long", "abcdefghijkl".into()));
    let chunks = [b"abcdefgh".to_vec(), b"ijkl abcdefgh".to_vec(), b"X".to_vec()];
    assert_eq!(whole(&redactor, &chunks), b"[redacted long] [redacted short]X");
}

#[test]
fn stream_releases_complete_lines() {
    let mut stream = redactor().stream();
    assert_eq!(stream.push(b"{\"a\": 1}\n{\"b\""), b"{\"a\": 1}\n");
    assert_eq!(stream.push(b": 2}"), b"");
    assert_eq!(stream.push(b"\n"), b"{\"b\": 2}\n");
    assert_eq!(stream.pending_len(), 0);
}

#[test]
fn stream_finds_secret_in_wrapped_lines() {
    let encoded = STANDARD.encode(format!("some text before {TOKEN} and after"));
    let mut text = b"{\"first\": true}\n".to_vec();
    for line in encoded.as_bytes().chunks(20) {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend_from_slice(b"{\"last\": true}\n");
    for size in [1, 7, 64, 1000] {
        let chunks: Vec<Vec<u8>> = text.chunks(size).map(<[u8]>::to_vec).collect();
        let redacted = String::from_utf8(whole(&redactor(), &chunks)).unwrap();
        assert_eq!(redacted, "{\"first\": true}\n[redacted github token]\n{\"last\": true}\n", "{size}");
    }
}

#[test]
fn stream_of_one_long_line_stays_bounded() {
    let mut stream = redactor().stream();
    let mut redacted = Vec::new();
    let part = [b"x. ".repeat(5_000), TOKEN.as_bytes().to_vec()].concat();
    for _ in 0..200 {
        redacted.extend(stream.push(&part));
        assert!(stream.pending_len() <= stream::MAX_PENDING + part.len(), "{}", stream.pending_len());
    }
    redacted.extend(stream.finish());
    let text = String::from_utf8(redacted).unwrap();
    assert_eq!((text.matches("[redacted github token]").count(), text.contains("16C7e")), (200, false));
}

#[test]
fn redacted_json_line_stays_json() {
    let split = json!({"a": [format!("{} {}", &TOKEN[..20], &TOKEN[20..])], TOKEN: 1, "c": "ok"});
    let redacted = whole(&redactor(), &[format!("{split}\n").into_bytes()]);
    let value: serde_json::Value = serde_json::from_slice(&redacted).unwrap();
    let mask = "[redacted github token]";
    assert_eq!(value, json!({"a": [mask], mask: 1, "c": "ok"}));
}

type Encoder = fn(&[u8]) -> Vec<u8>;

fn wrapped(text: &str, width: usize, line_break: &str) -> Vec<u8> {
    let lines: Vec<&str> =
        text.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
    lines.join(line_break).into_bytes()
}

fn hex(bytes: &[u8], separator: &str) -> Vec<u8> {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(separator).into_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    let packed = encoder.finish().unwrap();
    let header = [b"PK\x03\x04\x14\0\0\0\x08\0".as_slice(), &[0; 16], &[5, 0, 0, 0], b"a.txt"].concat();
    [header, packed, b"PK\x01\x02".to_vec()].concat()
}

fn quoted(bytes: &[u8], escape: fn(u8) -> String) -> Vec<u8> {
    bytes.iter().map(|byte| escape(*byte)).collect::<String>().into_bytes()
}

fn utf16(bytes: &[u8], order: fn(u16) -> [u8; 2]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| order(u16::from(*byte))).collect()
}

const ENCODERS: [(&str, Encoder); 30] = [
    ("plain", <[u8]>::to_vec),
    ("base64", |bytes| STANDARD.encode(bytes).into_bytes()),
    ("base64 in 76 columns", |bytes| wrapped(&STANDARD.encode(bytes), 76, "\n")),
    ("base64 in 10 columns", |bytes| wrapped(&STANDARD.encode(bytes), 10, "\r\n")),
    ("base64 in quotes", |bytes| wrapped(&STANDARD.encode(bytes), 30, "\" +\n    \"")),
    ("base64 for URLs", |bytes| URL_SAFE_NO_PAD.encode(bytes).into_bytes()),
    ("base64 at an offset", |bytes| format!("x{}", STANDARD.encode(bytes)).into_bytes()),
    ("hex", |bytes| hex(bytes, "")),
    ("hex in capitals", |bytes| hex(bytes, "").to_ascii_uppercase()),
    ("hex in spaces", |bytes| hex(bytes, " ")),
    ("hex with colons", |bytes| hex(bytes, ":")),
    ("hex in an array", |bytes| hex(bytes, ", 0x")),
    ("hex in 60 columns", |bytes| wrapped(&String::from_utf8(hex(bytes, "")).unwrap(), 60, "\n")),
    ("decimal", |bytes| format!("{bytes:?}").into_bytes()),
    ("C", |bytes| quoted(bytes, |byte| format!("\\x{byte:02x}"))),
    ("octal", |bytes| quoted(bytes, |byte| format!("\\{byte:03o}"))),
    ("JSON", |bytes| quoted(bytes, |byte| format!("\\u{byte:04x}"))),
    ("JSON twice", |bytes| quoted(bytes, |byte| format!("\\\\u{byte:04X}"))),
    ("percent", |bytes| quoted(bytes, |byte| format!("%{byte:02X}"))),
    ("percent twice", |bytes| quoted(bytes, |byte| format!("%25{byte:02x}"))),
    ("HTML", |bytes| quoted(bytes, |byte| format!("&#{byte};"))),
    ("HTML in hex", |bytes| quoted(bytes, |byte| format!("&#x{byte:X};"))),
    ("quoted-printable", |bytes| quoted(bytes, |byte| format!("={byte:02X}"))),
    ("UTF-16LE", |bytes| utf16(bytes, u16::to_le_bytes)),
    ("UTF-16BE", |bytes| utf16(bytes, u16::to_be_bytes)),
    ("UTF-32LE", |bytes| bytes.iter().flat_map(|byte| u32::from(*byte).to_le_bytes()).collect()),
    ("gzip", gzip),
    ("zlib", zlib),
    ("zip", zip),
    ("gzip after other data", |bytes| [b"tar header \0\0".to_vec(), gzip(bytes)].concat()),
];

#[test]
fn secret_in_every_pair_of_encodings_is_found() {
    let redactor = redactor();
    let text = format!("some text before it: {TOKEN} and some after it");
    for (inner, encode_inner) in ENCODERS {
        for (outer, encode_outer) in ENCODERS {
            let encoded = encode_inner(text.as_bytes());
            if outer.starts_with("UTF") && encoded.contains(&0) {
                // No text.
                continue;
            }
            let encoded = encode_outer(&encoded);
            assert_eq!(redactor.find(&encoded).as_deref(), Some("github token"), "{inner} in {outer}");
            let redacted = redactor.redact_bytes(&encoded).into_owned();
            assert_eq!(redactor.find(&redacted), None, "{inner} in {outer}, redacted");
        }
    }
}

#[test]
fn secret_is_found_alone_in_each_encoding() {
    let redactor = redactor();
    for (name, encode) in ENCODERS {
        assert_eq!(redactor.find(&encode(TOKEN.as_bytes())).as_deref(), Some("github token"), "{name}");
        assert_eq!(redactor.find(&encode(ODD.as_bytes())).as_deref(), Some("password"), "{name}");
    }
}

#[test]
fn known_token_is_found_in_each_encoding() {
    let redactor = Redactor::new(Secrets::new());
    let token = ["ghp", "_", "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3fG5"].concat();
    for (name, encode) in ENCODERS {
        let kinds = redactor.scan(&encode(format!("export TOKEN={token}\n").as_bytes())).kinds();
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), [SecretKind::Known("GitHub token")], "{name}");
    }
    assert_eq!(redactor.redact(&format!("see {token}.")), "see [redacted GitHub token].");
}

#[test]
fn secret_split_by_code_is_found() {
    let redactor = redactor();
    let (head, tail) = TOKEN.split_at(15);
    for text in [
        format!("\"{head}\"\n    \"{tail}\""),
        format!("{head} {tail}"),
        format!("[\"{head}\", \"{tail}\"]"),
        format!("{head}\u{200b}{tail}"),
        TOKEN.chars().map(|c| format!("{c}\n")).collect(),
        STANDARD.encode(TOKEN).chars().map(|c| format!("{c} ")).collect(),
    ] {
        assert_eq!(redactor.find(text.as_bytes()).as_deref(), Some("github token"), "{text}");
    }
}

#[test]
fn deep_nesting_is_read_or_reported() {
    let redactor = redactor();
    let mut data = TOKEN.as_bytes().to_vec();
    for depth in 1..12 {
        data = hex(&data, " ");
        let scan = redactor.scan(&data);
        assert_eq!(redactor.find(&data).is_some(), depth <= 8, "{depth}");
        // The eighth level holds letters that could be base64.
        assert_eq!(scan.unread.is_empty(), depth < 8, "{depth}: {:?}", scan.unread);
    }
}

#[test]
fn packed_bomb_ends_within_bounds() {
    let bomb = gzip(&vec![b'0'; 40 * 1024 * 1024]);
    let scan = redactor().scan_within(&bomb, 8 * 1024 * 1024);
    assert!(scan.decoded < 20 * 1024 * 1024, "{}", scan.decoded);
    assert_eq!(scan.unread.into_iter().collect::<Vec<_>>(), ["more data than is unpacked"]);
}

#[test]
fn data_that_cannot_be_read_is_reported() {
    let redactor = redactor();
    let mut encrypted = zip(b"hidden");
    encrypted[6] = 1;
    for (data, expected) in [
        (b"\xfd7zXZ\0 and more".to_vec(), "xz data"),
        (b"\x28\xb5\x2f\xfd and more".to_vec(), "zstd data"),
        (b"BZh91AY&SY".to_vec(), "bzip2 data"),
        (gzip(b"\xfd7zXZ\0 and more"), "xz data"),
        (STANDARD.encode(b"\x28\xb5\x2f\xfd and so much more data").into_bytes(), "zstd data"),
        (encrypted, "an encrypted zip member"),
    ] {
        let unread: Vec<_> = redactor.scan(&data).unread.into_iter().collect();
        assert_eq!(unread, [expected]);
    }
    assert_eq!(Redactor::unreadable(b"dist/app.js.br"), Some("brotli data"));
    assert_eq!(redactor.scan(b"fn main() { println!(\"BZh\"); }").unread.len(), 0);
}

#[test]
fn non_utf8_bytes_pass_through_unchanged() {
    let mut bytes = vec![0, 159, 146, 150];
    bytes.extend_from_slice(TOKEN.as_bytes());
    bytes.push(255);
    let masked = redactor().redact_bytes(&bytes).into_owned();
    assert_eq!(masked, [&[0, 159, 146, 150][..], b"[redacted github token]", &[255]].concat());
}

/// Generates pieces that make overlaps, near misses and matches likely.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("abcdefgh".to_owned()),
        Just("abcdefghij".to_owned()),
        Just("abcdabcd".to_owned()),
        Just("cdabcdefg".to_owned()),
        Just(STANDARD.encode("abcdefghij")),
        "[a-j]{0,6}",
        ".{0,4}",
    ]
}

proptest! {
    #[test]
    fn stream_redaction_equals_whole_redaction(
        pieces in prop::collection::vec(piece(), 0..12),
        borders in prop::collection::vec(0usize..200, 0..12),
    ) {
        let secrets = Secrets::new()
            .with("one", "abcdefgh".into())
            .with("two", "abcdefghijab".into())
            .with("three", "cdabcdabcd".into());
        let redactor = Redactor::new(secrets);
        let text = pieces.concat().into_bytes();
        let mut borders: Vec<usize> = borders.into_iter().filter(|border| *border < text.len()).collect();
        borders.sort_unstable();
        let mut chunks = Vec::new();
        let mut start = 0;
        for border in borders {
            chunks.push(text[start..border].to_vec());
            start = border;
        }
        chunks.push(text[start..].to_vec());
        prop_assert_eq!(whole(&redactor, &chunks), redactor.redact_bytes(&text).into_owned());
    }

    #[test]
    fn secret_at_any_base64_offset_is_found(before in ".{0,9}", after in ".{0,9}") {
        let redactor = redactor();
        let text = format!("{before}{TOKEN}{after}");
        prop_assert!(redactor.find(STANDARD.encode(&text).as_bytes()).is_some());
        prop_assert!(redactor.find(URL_SAFE_NO_PAD.encode(&text).as_bytes()).is_some());
    }
}
