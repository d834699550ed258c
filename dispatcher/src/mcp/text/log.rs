//! Pages of a run's log.

use std::fmt::Write as _;

use super::markdown::{fence, short};
use crate::task::status::Status;

/// Maximum characters of a page: clients cut much longer results.
const PAGE_MAX_CHARS: usize = 25_000;

/// Maximum characters of a line.
const LINE_MAX_CHARS: usize = 2_000;

/// Lines to return.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogRange {
    Head(usize),
    Tail(usize),
}

/// A page of a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogPage {
    pub lines: Vec<String>,
    /// Cursor for the next page.
    pub next_cursor: u64,
    /// Number of lines after these.
    pub remaining: usize,
    /// Number of lines between the given cursor and these.
    pub skipped: usize,
}

/// Returns the requested lines that fit a page.
///
/// Each line comes with the number of its event; `last_seq` is that of the last event.
#[must_use]
pub fn paginate(lines: Vec<(u64, String)>, range: LogRange, last_seq: u64) -> LogPage {
    let total = lines.len();
    let cut = |(seq, line): (u64, String)| (seq, short(&line, LINE_MAX_CHARS));
    let mut room = PAGE_MAX_CHARS;
    let mut fits = |(_, line): &(u64, String)| {
        let needed = line.chars().count() + 1;
        room.checked_sub(needed).inspect(|left| room = *left).is_some()
    };
    match range {
        LogRange::Head(count) => {
            let taken: Vec<(u64, String)> =
                lines.into_iter().take(count).map(cut).take_while(|line| fits(line)).collect();
            let remaining = total - taken.len();
            let next_cursor = taken.last().filter(|_| remaining > 0).map_or(last_seq, |(seq, _)| *seq);
            LogPage {
                lines: taken.into_iter().map(|(_, line)| line).collect(),
                next_cursor,
                remaining,
                skipped: 0,
            }
        }
        LogRange::Tail(count) => {
            let mut taken: Vec<String> = lines
                .into_iter()
                .rev()
                .take(count)
                .map(cut)
                .take_while(|line| fits(line))
                .map(|(_, line)| line)
                .collect();
            taken.reverse();
            let skipped = total - taken.len();
            LogPage { lines: taken, next_cursor: last_seq, remaining: 0, skipped }
        }
    }
}

/// Renders a page of a log.
#[must_use]
pub fn render_log(status: &Status, page: &LogPage) -> String {
    let LogPage { lines, next_cursor, remaining, skipped } = page;
    let reason = status.reason.map_or(String::new(), |reason| format!(" ({reason})"));
    // Writing to a String cannot fail.
    let mut text = format!("Log of `{}`, {}{reason}, times in UTC:\n", status.run, status.phase);
    if *skipped > 0 {
        let _ = writeln!(text, "({skipped} earlier lines omitted: cursor: 0 reads from the start)");
    }
    if lines.is_empty() {
        text.push_str("(no new lines)\n");
    } else {
        let lines = lines.join("\n");
        let fence = fence(&lines);
        let _ = writeln!(text, "{fence}\n{lines}\n{fence}");
    }
    let call = format!("call `get_task_logs` with run \"{}\" and cursor: {next_cursor}", status.run);
    if *remaining > 0 {
        let _ = writeln!(text, "{remaining} more lines: {call}.");
    } else if status.phase.is_final() {
        text.push_str("End of the log.\n");
    } else {
        let _ = writeln!(text, "The run continues; for later lines, {call}.");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::event_fold::LockState;
    use crate::task::status::tests::sample;

    fn log(count: u64, width: usize) -> Vec<(u64, String)> {
        (1..=count).map(|seq| (seq * 2, format!("{seq:0width$}"))).collect()
    }

    #[test]
    fn log_cursor_reads_whole_log_without_gaps_or_repeats() {
        for width in [5, 400, 3_000] {
            let all = log(333, width);
            let (mut cursor, mut seen) = (0, 0);
            loop {
                let rest: Vec<_> = all.iter().filter(|(seq, _)| *seq > cursor).cloned().collect();
                let page = paginate(rest, LogRange::Head(50), 700);
                assert!(!page.lines.is_empty() && page.lines.len() <= 50);
                assert!(
                    page.lines.iter().map(|line| line.chars().count() + 1).sum::<usize>() <= PAGE_MAX_CHARS
                );
                seen += page.lines.len();
                cursor = page.next_cursor;
                if page.remaining == 0 {
                    break;
                }
            }
            assert_eq!((seen, cursor), (333, 700), "{width}");
        }
    }

    #[test]
    fn log_tail_returns_last_lines() {
        let page = paginate(log(10, 1), LogRange::Tail(3), 25);
        assert_eq!(
            page,
            LogPage {
                lines: vec!["8".into(), "9".into(), "10".into()],
                next_cursor: 25,
                remaining: 0,
                skipped: 7
            }
        );
        assert!(paginate(log(100, 2_000), LogRange::Tail(100), 200).lines.len() < 15);
    }

    #[test]
    fn log_page_shows_next_cursor() {
        let page = paginate(log(4, 1), LogRange::Head(2), 8);
        insta::assert_snapshot!(render_log(&sample(3, LockState::Held), &page));
        let page = paginate(Vec::new(), LogRange::Head(2), 8);
        insta::assert_snapshot!(render_log(&sample(5, LockState::Free), &page));
    }
}
