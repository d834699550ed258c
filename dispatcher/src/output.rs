//! The only place that prints.
//!
//! Results go to stdout, everything said about them to stderr. A reader that
//! went away (`| head`) is no error.

use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use crate::config::Environment;
use crate::problem::Problem;
use crate::task::text::{Colour, plain};

/// The form of results.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// Prints results and remarks.
#[derive(Clone, Debug)]
pub struct Output {
    format: Format,
    colour: Colour,
    terminal: bool,
}

impl Output {
    /// Colours where stdout is a terminal, unless the environment wants it otherwise.
    #[must_use]
    pub fn new(format: Format, environment: &Environment) -> Self {
        let colour = decide_colour(environment, std::io::stdout().is_terminal());
        Self { format, colour, terminal: std::io::stderr().is_terminal() && !is_dumb(environment) }
    }

    /// Whether to use colours.
    #[must_use]
    pub fn colour(&self) -> Colour {
        self.colour
    }

    /// The form of results.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether a person watches the remarks on a terminal.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.terminal
    }

    /// Prints a result: `text` for people, else `value`.
    ///
    /// # Errors
    /// Stdout cannot be written to.
    pub fn result<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result<(), Problem> {
        let internal = |error: String| {
            Problem::new(orchestrator_contract::Reason::Internal, format!("cannot print the result: {error}"))
        };
        match self.format {
            Format::Table => self.text(&text()),
            Format::Json => {
                let json =
                    serde_json::to_string_pretty(value).map_err(|error| internal(error.to_string()))?;
                self.text(&format!("{json}\n"))
            }
            Format::Yaml => {
                let yaml = serde_saphyr::to_string(value).map_err(|error| internal(error.to_string()))?;
                self.text(&yaml)
            }
        }
    }

    /// Prints text as it is.
    ///
    /// # Errors
    /// Stdout cannot be written to.
    pub fn text(&self, text: &str) -> Result<(), Problem> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Problem::nobody_reads()),
            Err(error) => Err(Problem::new(
                orchestrator_contract::Reason::InputOutput,
                format!("cannot write to stdout: {error}"),
            )),
        }
    }

    /// Says something about the result, on stderr.
    pub fn remark(&self, text: &str) {
        remark(text);
    }

    /// Warns, on stderr.
    pub fn warn(&self, text: &str) {
        remark(&format!("warning: {text}"));
    }
}

/// <https://no-color.org> and <https://bixense.com/clicolors/>: `NO_COLOR` goes before
/// `CLICOLOR_FORCE`, that before everything else.
fn decide_colour(environment: &Environment, terminal: bool) -> Colour {
    let is = |name: &str, wanted: fn(&str) -> bool| environment.text(name).is_some_and(wanted);
    let forced = is("CLICOLOR_FORCE", |value| value != "0");
    let wanted = forced || (terminal && !is_dumb(environment) && !is("CLICOLOR", |value| value == "0"));
    if wanted && environment.os("NO_COLOR").is_none() { Colour::Yes } else { Colour::No }
}

/// A terminal that understands nothing but text.
fn is_dumb(environment: &Environment) -> bool {
    environment.text("TERM").is_some_and(|term| term == "dumb")
}

/// Prints the one line that says why nothing came of it.
pub fn error(problem: &Problem) {
    if problem.exit_code() == 0 {
        return;
    }
    remark(&format!("error: {problem}"));
}

/// Says what Ctrl-C did not do.
pub fn interrupted() {
    remark("interrupted; a run that was started goes on: dispatcher status");
}

fn remark(text: &str) {
    // There is nobody to tell that stderr cannot be written to.
    drop(writeln!(std::io::stderr().lock(), "{}", plain(text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_where_they_can_be_seen_and_are_wanted() {
        let cases = [
            ("", true, Colour::Yes),
            ("", false, Colour::No),
            ("NO_COLOR=1", true, Colour::No),
            ("NO_COLOR=0", true, Colour::No),
            ("NO_COLOR=", true, Colour::Yes),
            ("CLICOLOR_FORCE=1", false, Colour::Yes),
            ("CLICOLOR_FORCE=0", false, Colour::No),
            ("CLICOLOR_FORCE=1 NO_COLOR=1", true, Colour::No),
            ("CLICOLOR=0", true, Colour::No),
            ("TERM=dumb", true, Colour::No),
            ("TERM=dumb CLICOLOR_FORCE=1", true, Colour::Yes),
            ("TERM=xterm", true, Colour::Yes),
        ];
        for (variables, terminal, expected) in cases {
            let environment: Environment =
                variables.split(' ').filter_map(|variable| variable.split_once('=')).collect();
            assert_eq!(decide_colour(&environment, terminal), expected, "{variables}, {terminal}");
        }
    }
}
