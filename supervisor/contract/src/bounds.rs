//! The maximum of each text field, in bytes of UTF-8 unless its name says otherwise.
//!
//! They keep every document within the limits of where it is stored and shown: an outcome in the
//! status of a TaskRun (etcd: 1.5 MiB for the object) and in a ConfigMap (1 MiB), the termination
//! message (Kubernetes: 4096 bytes), labels (63), annotations (256 KiB), a pull request (GitHub: 256
//! characters of title, 65,536 of body), and a line of the log. Applied where text enters, and
//! again where it leaves, see [`bounded`](crate::bounded).

use std::borrow::Cow;

/// Summary of a verdict, in Markdown.
pub const VERDICT_SUMMARY: usize = 16_000;
/// Question of a blocked agent.
pub const VERDICT_QUESTION: usize = 4_000;
/// Title of a task.
pub const TITLE: usize = 500;
/// Branch, ref, commit id, URL and the like.
pub const NAME: usize = 1_024;
/// Path of a file or directory.
pub const PATH: usize = 4_096;
/// Message of an outcome or a failure.
pub const MESSAGE: usize = 8_000;
/// One note, finding or other remark.
pub const NOTE: usize = 2_000;
/// Number of notes.
pub const NOTES: usize = 60;
/// Output of one command.
pub const COMMAND_OUTPUT: usize = 16_000;
/// Number of commands with their results.
pub const COMMANDS: usize = 40;
/// Number of sessions, tools, authors and other short entries of a list.
pub const ENTRIES: usize = 100;
/// Number of tasks in a docs run.
pub const TASKS: usize = 1_000;
/// Number of findings for one task.
pub const FINDINGS: usize = 20;
/// Message of one event.
pub const EVENT_MESSAGE: usize = 16_000;
/// Latest action of an agent.
pub const ACTIVITY: usize = 500;
/// An outcome as JSON.
pub const OUTCOME: usize = 512 * 1024;
/// An event line as JSON: an outcome with its message.
pub const EVENT_LINE: usize = OUTCOME + 64 * 1024;
/// Termination message; Kubernetes limits a container to 4096.
pub const TERMINATION_MESSAGE: usize = 2_048;
/// Characters of a pull request's title; GitHub allows 256.
pub const PULL_REQUEST_TITLE_CHARS: usize = 250;
/// Characters of a pull request's body or a comment; GitHub allows 65,536.
pub const PULL_REQUEST_BODY_CHARS: usize = 60_000;

/// Cuts text to at most `max` bytes at the border of a character, and says how much was cut.
#[must_use]
pub fn truncate(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    // The number that is shown is at least as long as the one that will be.
    let room = max.saturating_sub(mark(text.len()).len());
    let end = text.floor_char_boundary(room);
    let mark = mark(text.len() - end);
    if mark.len() > max {
        return Cow::Owned(text.get(..text.floor_char_boundary(max)).unwrap_or_default().to_owned());
    }
    Cow::Owned(format!("{}{mark}", text.get(..end).unwrap_or_default()))
}

/// Cuts the start of text that is longer than `max` bytes, and says how much was cut.
pub fn limit_to_end(text: &mut String, max: usize) {
    if text.len() > max {
        let room = max.saturating_sub(mark(text.len()).len() + 1);
        let start = text.ceil_char_boundary(text.len() - room);
        *text = format!("{}\n{}", mark(start).trim_start(), text.get(start..).unwrap_or_default());
    }
}

/// Cuts text in place, see [`truncate`].
pub fn limit(text: &mut String, max: usize) {
    if let Cow::Owned(short) = truncate(text, max) {
        *text = short;
    }
}

/// Keeps at most `max` entries, and replaces the last one by how many are missing.
pub fn limit_list(entries: &mut Vec<String>, max: usize, max_entry: usize) {
    if let Some(kept) = max.checked_sub(1).filter(|_| entries.len() > max) {
        let missing = entries.len() - kept;
        entries.truncate(kept);
        entries.push(format!("and {missing} more"));
    }
    entries.iter_mut().for_each(|entry| limit(entry, max_entry));
}

fn mark(bytes: usize) -> String {
    format!("… ({bytes} bytes cut)")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_text_is_cut_with_its_length() {
        assert_eq!(truncate("short", 5), "short");
        assert_eq!(truncate(&"x".repeat(100), 40), format!("{}… (79 bytes cut)", "x".repeat(21)));
        assert_eq!(truncate("äöü", 3), "ä");
    }

    #[test]
    fn end_of_long_output_is_kept() {
        let mut text = format!("{}the end", "x".repeat(100));
        limit_to_end(&mut text, 40);
        assert_eq!(text, format!("… (87 bytes cut)\n{}the end", "x".repeat(13)));
    }

    #[test]
    fn long_list_says_how_many_are_missing() {
        let mut entries: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        limit_list(&mut entries, 3, 100);
        assert_eq!(entries, ["0", "1", "and 8 more"]);
        limit_list(&mut entries, 3, 100);
        assert_eq!(entries, ["0", "1", "and 8 more"]);
    }

    proptest! {
        #[test]
        fn truncated_text_fits_and_says_what_is_missing(text in ".{0,300}", max in 0usize..200) {
            let short = truncate(&text, max);
            prop_assert!(short.len() <= max);
            if let Some((head, rest)) = short.split_once('…').filter(|_| text.len() > max && max > 40) {
                prop_assert!(text.starts_with(head));
                let missing = format!(" ({} bytes cut)", text.len() - head.len());
                prop_assert!(text.contains('…') || rest == missing, "{}", rest);
            }
        }
    }
}
