//! Submodules of the target repository. They are not fetched: the checkout leaves their directories empty.

use std::path::Path;

use orchestrator_contract::terminal::neutralize;
use url::Url;

use super::documents::decode;
use crate::git::{ControlRepository, EntryKind, Oid, PathNode};

/// Maximum size of `.gitmodules`.
const MAX_FILE_BYTES: usize = 256 * 1024;

/// Maximum submodules to look at, and to list.
const MAX_SUBMODULES: usize = 1000;
const MAX_LISTED: usize = 20;

/// Maximum characters of a path or a URL.
const MAX_CHARS: usize = 200;

/// Submodule in `.gitmodules`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Submodule {
    path: String,
    url: String,
}

/// Returns which directories of a commit are empty submodules, in one sentence without its subject.
///
/// Without a readable `.gitmodules` there are none: what git does not know it cannot fetch either.
#[must_use]
pub fn describe_submodules(control: &ControlRepository, commit: Oid) -> Option<String> {
    let content = control.read_file_up_to(commit, Path::new(".gitmodules"), MAX_FILE_BYTES).ok()??;
    let is_submodule = |submodule: &Submodule| {
        let node = control.read_node(commit, Path::new(&submodule.path), 0);
        matches!(node, Ok(Some(PathNode { kind: EntryKind::Submodule, .. })))
    };
    let mut submodules = parse(&decode(&content));
    submodules.truncate(MAX_SUBMODULES);
    submodules.retain(is_submodule);
    describe(&submodules)
}

fn describe(submodules: &[Submodule]) -> Option<String> {
    if submodules.is_empty() {
        return None;
    }
    let shown = submodules.iter().take(MAX_LISTED).map(|Submodule { path, url }| match url.as_str() {
        "" => format!("`{}`", shorten(path)),
        url => format!("`{}` (`{}`)", shorten(path), shorten(&without_credentials(url))),
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    let more = match submodules.len().saturating_sub(MAX_LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!("submodules are not fetched, so these directories are empty: {shown}{more}"))
}

/// Reads the submodules in a file of git's configuration syntax.
fn parse(text: &str) -> Vec<Submodule> {
    let mut submodules = Vec::new();
    let mut in_submodule = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            in_submodule = line.to_ascii_lowercase().starts_with("[submodule");
            submodules.extend(in_submodule.then(Submodule::default));
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| in_submodule) else { continue };
        let Some(last) = submodules.last_mut() else { continue };
        match key.trim().to_ascii_lowercase().as_str() {
            "path" => last.path = value_of(value),
            "url" => last.url = value_of(value),
            _ => {}
        }
    }
    submodules.retain(|submodule| !submodule.path.is_empty());
    submodules
}

/// Returns a value without quotes, escapes and comment.
fn value_of(text: &str) -> String {
    let mut value = String::new();
    let mut in_quotes = false;
    let mut characters = text.trim().chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => in_quotes = !in_quotes,
            '\\' => value.extend(characters.next()),
            '#' | ';' if !in_quotes => break,
            other => value.push(other),
        }
    }
    value.trim_end().to_owned()
}

/// Returns a URL without user, password, query and fragment; other addresses without what is before `@`.
fn without_credentials(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        // An address such as `git@host:path`, or a path.
        return address.rsplit_once('@').map_or(address, |(_, rest)| rest).to_owned();
    };
    match Url::parse(address) {
        Ok(mut url) if url.has_host() => {
            // Both fail only for URLs without a host.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.set_query(None);
            url.set_fragment(None);
            url.to_string()
        }
        Ok(_) | Err(_) => {
            let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
            format!("{scheme}://{}", rest.split(['?', '#']).next().unwrap_or_default())
        }
    }
}

/// Returns a text that fits between backticks, in one line and in the order that it has.
fn shorten(text: &str) -> String {
    let text = neutralize(text).replace('`', "");
    let mut short: String = text.chars().take(MAX_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submodules_are_listed_without_credentials() {
        let text = "# comment\n[core]\n\tpath = no\n[submodule \"book\"]\n\tpath = libs/book # here\n\
                    \turl = https://user:hunter2@example.com/acme/book.git?token=hunter2\n\
                    [Submodule \"b\"]\n\turl = git@example.com:acme/b.git\n\tPATH = \"libs/b \\\" # c\"\n\
                    [submodule \"c\"]\n\tpath = c`\u{7}\n\turl =\n[submodule \"empty\"]\n";
        assert_eq!(
            describe(&parse(text)).unwrap(),
            "submodules are not fetched, so these directories are empty: `libs/book` \
             (`https://example.com/acme/book.git`), `libs/b \" # c` (`example.com:acme/b.git`), `c\u{fffd}`"
        );
        assert_eq!(describe(&parse("")), None);
    }

    #[test]
    fn paths_and_addresses_cannot_be_reordered() {
        let hostile = "a\u{202e}b\u{200b}\u{7}`\n".to_owned();
        let text = describe(&[Submodule { path: hostile.clone(), url: hostile }]).unwrap();
        assert!(text.ends_with("`a\u{fffd}b\u{fffd}` (`a\u{fffd}b\u{fffd}`)"), "{text:?}");
    }

    #[test]
    fn malformed_addresses_keep_no_credential() {
        for (address, expected) in [
            ("https://user:hunter2@:bad:/x", "https://:bad:/x"),
            ("ssh://git:hunter2@host/x#f", "ssh://host/x"),
            ("https://a@hunter2@b/x", "https://b/x"),
            ("file://hunter2@/x?y", "file:///x"),
            ("../book.git", "../book.git"),
            ("user:hunter2@host:x", "host:x"),
        ] {
            assert_eq!(without_credentials(address), expected, "{address}");
        }
    }

    #[test]
    fn long_lists_and_names_are_bounded() {
        let submodule = Submodule { path: "p".repeat(1000), url: "u".repeat(1000) };
        let text = describe(&vec![submodule; 500]).unwrap();
        assert!(text.ends_with(" and 480 more"), "{text}");
        assert!(text.len() < 10_000);
    }
}
