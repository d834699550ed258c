//! A minimal parser of git's configuration format (git-config(1), "Syntax"), for remote URLs only.
//! It does not follow includes and rewrites. Pure.

/// Returns each remote with its first URL, in file order.
pub(super) fn remotes(text: &str) -> Vec<(String, String)> {
    let mut remotes: Vec<(String, String)> = Vec::new();
    let mut section: Option<String> = None;
    // A trailing backslash continues the line.
    let text = text.replace("\\\r\n", "").replace("\\\n", "");
    for line in text.lines() {
        let mut line = line.trim();
        if let Some(rest) = line.strip_prefix('[') {
            let Some((head, rest)) = header(rest) else {
                section = None;
                continue;
            };
            section = head;
            line = rest.trim();
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        if let Some(name) = &section
            && key.trim().eq_ignore_ascii_case("url")
            && !remotes.iter().any(|(known, _)| known == name)
        {
            remotes.push((name.clone(), unquote(value.trim())));
        }
    }
    remotes
}

/// Splits a section header into the remote's name, if it names one, and the rest of the line.
fn header(text: &str) -> Option<(Option<String>, &str)> {
    let Some((section, rest)) = text.split_once('"') else {
        // The old form: [remote.origin].
        let (section, rest) = text.split_once(']')?;
        let name = section.split_once('.').filter(|(head, _)| head.trim().eq_ignore_ascii_case("remote"));
        return Some((name.map(|(_, name)| name.trim().to_ascii_lowercase()), rest));
    };
    let mut name = String::new();
    let mut characters = rest.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => name.extend(characters.next().map(|(_, escaped)| escaped)),
            '"' => {
                let rest = rest[at + 1..].trim_start().strip_prefix(']')?;
                return Some((section.trim().eq_ignore_ascii_case("remote").then_some(name), rest));
            }
            other => name.push(other),
        }
    }
    None
}

/// Returns a value without quotes, escapes and comment.
fn unquote(value: &str) -> String {
    let mut text = String::new();
    let mut quoted = false;
    let mut characters = value.chars();
    // Quoted or escaped whitespace is significant.
    let mut keep = 0;
    while let Some(character) = characters.next() {
        match character {
            '"' => quoted = !quoted,
            '\\' => {
                match characters.next() {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some(other) => text.push(other),
                    None => {}
                }
                keep = text.len();
            }
            '#' | ';' if !quoted => break,
            other => text.push(other),
        }
        if quoted {
            keep = text.len();
        }
    }
    let end = text.trim_end().len().max(keep);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn remotes_in_every_git_syntax_are_parsed() {
        let cases = [
            ("[remote \"origin\"]\n\turl = https://h/o/r\n", "origin", "https://h/o/r"),
            ("[Remote \"Up stream\"] URL=x ; note\n", "Up stream", "x"),
            ("[remote.origin]\nurl = \"a b\" # c\n", "origin", "a b"),
            ("[remote \"a\\\"b\"]\r\n  url = \"x\\\\y\"\r\n", "a\"b", "x\\y"),
            ("[remote \"o\"]\nurl = https://h/\\\no/r\n", "o", "https://h/o/r"),
            ("[branch \"x\"]\nurl = no\n[remote \"o\"]\npushurl = no\nurl = yes\nurl = second\n", "o", "yes"),
        ];
        for (text, name, url) in cases {
            assert_eq!(remotes(text), [(name.to_owned(), url.to_owned())], "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic_parser(text in "(\\[|\\]|\"|\\\\|=|#|\n|remote|url|ä| ){0,60}") {
            drop(remotes(&text));
        }
    }
}
