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
pub enum Part {
    /// The first so many.
    First(usize),
    /// The last so many.
    Last(usize),
}

/// A piece of a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Piece {
    /// Its lines.
    pub lines: Vec<String>,
    /// The cursor for what comes after them.
    pub next: u64,
    /// How many lines there are after them already.
    pub more: usize,
    /// How many lines there are before them, after the cursor that was given.
    pub earlier: usize,
}

/// Takes as many lines as are wanted and fit. Each has its event's number; `end` is the last event's.
#[must_use]
pub fn take(lines: Vec<(u64, String)>, part: Part, end: u64) -> Piece {
    let total = lines.len();
    let cut = |(seq, line): (u64, String)| (seq, short(&line, LINE_MAX));
    let mut room = TEXT_MAX;
    let mut fits = |(_, line): &(u64, String)| {
        let needed = line.chars().count() + 1;
        room.checked_sub(needed).inspect(|left| room = *left).is_some()
    };
    match part {
        Part::First(count) => {
            let taken: Vec<(u64, String)> =
                lines.into_iter().take(count).map(cut).take_while(|line| fits(line)).collect();
            let more = total - taken.len();
            let next = taken.last().filter(|_| more > 0).map_or(end, |(seq, _)| *seq);
            Piece { lines: taken.into_iter().map(|(_, line)| line).collect(), next, more, earlier: 0 }
        }
        Part::Last(count) => {
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
            Piece { lines: taken, next: end, more: 0, earlier }
        }
    }
}

/// The piece as a model reads it.
#[must_use]
pub fn render_log(status: &Status, piece: &Piece) -> String {
    let Piece { lines, next, more, earlier } = piece;
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
    use crate::task::observe::Lock;
    use crate::task::status::tests::sample;

    fn log(count: u64, width: usize) -> Vec<(u64, String)> {
        (1..=count).map(|seq| (seq * 2, format!("{seq:0width$}"))).collect()
    }

    #[test]
    fn a_log_is_read_to_its_end_by_cursor_without_gap_or_repetition() {
        for width in [5, 400, 3_000] {
            let all = log(333, width);
            let (mut after, mut seen) = (0, 0);
            loop {
                let rest: Vec<_> = all.iter().filter(|(seq, _)| *seq > after).cloned().collect();
                let piece = take(rest, Part::First(50), 700);
                assert!(!piece.lines.is_empty() && piece.lines.len() <= 50);
                assert!(piece.lines.iter().map(|line| line.chars().count() + 1).sum::<usize>() <= TEXT_MAX);
                seen += piece.lines.len();
                after = piece.next;
                if piece.more == 0 {
                    break;
                }
            }
            assert_eq!((seen, after), (333, 700), "{width}");
        }
    }

    #[test]
    fn a_tail_is_the_end_of_the_log() {
        let piece = take(log(10, 1), Part::Last(3), 25);
        assert_eq!(
            piece,
            Piece { lines: vec!["8".into(), "9".into(), "10".into()], next: 25, more: 0, earlier: 7 }
        );
        assert!(take(log(100, 2_000), Part::Last(100), 200).lines.len() < 15);
    }

    #[test]
    fn a_piece_says_how_to_get_the_next() {
        let piece = take(log(4, 1), Part::First(2), 8);
        insta::assert_snapshot!(render_log(&sample(3, Lock::Held), &piece));
        let piece = take(Vec::new(), Part::First(2), 8);
        insta::assert_snapshot!(render_log(&sample(5, Lock::Free), &piece));
    }
}
