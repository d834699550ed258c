//! A piece of a run's log.

use std::fmt::Write as _;

use super::short;
use crate::task::status::Status;

/// How many characters of log an answer holds: clients cut what is much longer.
const TEXT_MAX: usize = 25_000;

/// How many characters a line holds.
const LINE_MAX: usize = 2_000;

/// Which lines are wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogRange {
    /// The first so many.
    Head(usize),
    /// The last so many.
    Tail(usize),
}

/// A piece of a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogPage {
    /// Its lines.
    pub lines: Vec<String>,
    /// The cursor for what comes after them.
    pub next_cursor: u64,
    /// How many lines there are after them already.
    pub remaining: usize,
    /// How many lines there are before them, after the cursor that was given.
    pub skipped: usize,
}

/// Takes as many lines as are wanted and fit. Each has its event's number; `end` is the last event's.
#[must_use]
pub fn paginate(lines: Vec<(u64, String)>, part: LogRange, end: u64) -> LogPage {
    let total = lines.len();
    let cut = |(seq, line): (u64, String)| (seq, short(&line, LINE_MAX));
    let mut room = TEXT_MAX;
    let mut fits = |(_, line): &(u64, String)| {
        let needed = line.chars().count() + 1;
        room.checked_sub(needed).inspect(|left| room = *left).is_some()
    };
    match part {
        LogRange::Head(count) => {
            let taken: Vec<(u64, String)> =
                lines.into_iter().take(count).map(cut).take_while(|line| fits(line)).collect();
            let more = total - taken.len();
            let next = taken.last().filter(|_| more > 0).map_or(end, |(seq, _)| *seq);
            LogPage {
                lines: taken.into_iter().map(|(_, line)| line).collect(),
                next_cursor: next,
                remaining: more,
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
            let earlier = total - taken.len();
            LogPage { lines: taken, next_cursor: end, remaining: 0, skipped: earlier }
        }
    }
}

/// The piece as a model reads it.
#[must_use]
pub fn render_log(status: &Status, piece: &LogPage) -> String {
    let LogPage { lines, next_cursor: next, remaining: more, skipped: earlier } = piece;
    let reason = status.reason.map_or(String::new(), |reason| format!(" ({reason})"));
    // Writing to a String cannot fail.
    let mut text = format!("Log of `{}`, {}{reason}, times in UTC:\n", status.run, status.phase);
    if *earlier > 0 {
        let _ = writeln!(text, "({earlier} earlier lines are left out: after: 0 starts at the beginning)");
    }
    if lines.is_empty() {
        text.push_str("(no new lines)\n");
    } else {
        // Four backticks: an agent may well print three.
        let _ = writeln!(text, "````\n{}\n````", lines.join("\n"));
    }
    let call = format!("call `get_task_logs` with run \"{}\" and after: {next}", status.run);
    if *more > 0 {
        let _ = writeln!(text, "{more} more lines: {call}.");
    } else if status.phase.is_final() {
        text.push_str("That is the end of the log.\n");
    } else {
        let _ = writeln!(text, "It goes on; for what comes next, {call}.");
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
            let (mut after, mut seen) = (0, 0);
            loop {
                let rest: Vec<_> = all.iter().filter(|(seq, _)| *seq > after).cloned().collect();
                let piece = paginate(rest, LogRange::Head(50), 700);
                assert!(!piece.lines.is_empty() && piece.lines.len() <= 50);
                assert!(piece.lines.iter().map(|line| line.chars().count() + 1).sum::<usize>() <= TEXT_MAX);
                seen += piece.lines.len();
                after = piece.next_cursor;
                if piece.remaining == 0 {
                    break;
                }
            }
            assert_eq!((seen, after), (333, 700), "{width}");
        }
    }

    #[test]
    fn log_tail_returns_last_lines() {
        let piece = paginate(log(10, 1), LogRange::Tail(3), 25);
        assert_eq!(
            piece,
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
        let piece = paginate(log(4, 1), LogRange::Head(2), 8);
        insta::assert_snapshot!(render_log(&sample(3, LockState::Held), &piece));
        let piece = paginate(Vec::new(), LogRange::Head(2), 8);
        insta::assert_snapshot!(render_log(&sample(5, LockState::Free), &piece));
    }
}
