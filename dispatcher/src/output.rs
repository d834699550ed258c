//! The only module that prints.
//!
//! Results go to stdout, all other messages to stderr. A closed pipe (`| head`) is not an error.

use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use crate::config::Environment;
use crate::error::Error;
use crate::task::advice::render_for_cli;
use crate::task::run_table::TableStyle;
use crate::task::text::{ColorChoice, sanitize};
use orchestrator_contract::terminal;

/// Output format of results.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum OutputFormat {
    /// Human-readable text
    #[default]
    Table,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
}

/// Prints results and messages.
#[derive(Clone, Debug)]
pub struct Output {
    format: OutputFormat,
    color: ColorChoice,
    terminal: bool,
    /// Whether stdout is a terminal that can move its cursor.
    stdout_terminal: bool,
    /// Columns that the environment states.
    stated_width: Option<usize>,
}

impl Output {
    /// Uses colors if stdout is a terminal, unless the environment overrides that.
    #[must_use]
    pub fn new(format: OutputFormat, environment: &Environment) -> Self {
        let color = decide_color(environment, std::io::stdout().is_terminal());
        Self {
            format,
            color,
            terminal: std::io::stderr().is_terminal() && !is_dumb(environment),
            stdout_terminal: std::io::stdout().is_terminal() && !is_dumb(environment),
            stated_width: stated_width(environment),
        }
    }

    /// Returns whether to use colors.
    #[must_use]
    pub fn color(&self) -> ColorChoice {
        self.color
    }

    /// Returns whether a user sees stdout on a terminal.
    #[must_use]
    pub fn is_on_terminal(&self) -> bool {
        self.stdout_terminal
    }

    /// Returns the lines of the terminal; none without one.
    #[must_use]
    pub fn height(&self) -> Option<usize> {
        let (lines, _columns) = console::Term::stdout().size_checked()?;
        Some(lines.into())
    }

    /// Returns how to render a table now; users resize terminals.
    #[must_use]
    pub fn table_style(&self) -> TableStyle {
        let terminal = || console::Term::stdout().size_checked().map(|(_lines, columns)| columns.into());
        TableStyle { width: self.stated_width.or_else(terminal), color: self.color }
    }

    /// Returns the output format of results.
    #[must_use]
    pub fn format(&self) -> OutputFormat {
        self.format
    }

    /// Returns whether a user sees stderr on a terminal.
    #[must_use]
    pub fn is_interactive(&self) -> bool {
        self.terminal
    }

    /// Prints a result: `text` for the table format, else `value`.
    ///
    /// # Errors
    /// Returns an error if stdout cannot be written to.
    pub fn result<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result<(), Error> {
        let internal = |error: String| {
            Error::new(
                orchestrator_contract::Reason::InternalError,
                format!("cannot print the result: {error}"),
            )
        };
        match self.format {
            OutputFormat::Table => self.text(&text()),
            OutputFormat::Json => {
                let json =
                    serde_json::to_string_pretty(value).map_err(|error| internal(error.to_string()))?;
                self.text(&format!("{}\n", terminal::escape_json(&json)))
            }
            OutputFormat::Yaml => {
                let yaml = serde_saphyr::to_string(value).map_err(|error| internal(error.to_string()))?;
                self.text(&terminal::neutralize_lines(&yaml))
            }
        }
    }

    /// Prints a value as one line of JSON.
    ///
    /// # Errors
    /// Returns an error if stdout cannot be written to.
    pub fn json_line<T: Serialize>(&self, value: &T) -> Result<(), Error> {
        let json = serde_json::to_string(value).map_err(|error| {
            Error::new(
                orchestrator_contract::Reason::InternalError,
                format!("cannot print the result: {error}"),
            )
        })?;
        self.text(&format!("{}\n", terminal::escape_json(&json)))
    }

    /// Prints text unchanged.
    ///
    /// # Errors
    /// Returns an error if stdout cannot be written to.
    pub fn text(&self, text: &str) -> Result<(), Error> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Error::broken_pipe()),
            Err(error) => Err(Error::new(
                orchestrator_contract::Reason::IoError,
                format!("cannot write to stdout: {error}"),
            )),
        }
    }

    /// Prints a note to stderr.
    pub fn note(&self, text: &str) {
        print_line(text);
    }

    /// Prints a warning to stderr.
    pub fn warn(&self, text: &str) {
        print_line(&format!("warning: {text}"));
    }
}

/// Returns whether to use colors (<https://no-color.org>, <https://bixense.com/clicolors/>):
/// `NO_COLOR` overrides `CLICOLOR_FORCE`, which overrides everything else.
fn decide_color(environment: &Environment, terminal: bool) -> ColorChoice {
    let is = |name: &str, predicate: fn(&str) -> bool| environment.text(name).is_some_and(predicate);
    let forced = is("CLICOLOR_FORCE", |value| value != "0");
    let enabled = forced || (terminal && !is_dumb(environment) && !is("CLICOLOR", |value| value == "0"));
    if enabled && environment.os("NO_COLOR").is_none() { ColorChoice::Yes } else { ColorChoice::No }
}

/// Returns the width that `COLUMNS` states, which overrides that of the terminal, as in other programs.
fn stated_width(environment: &Environment) -> Option<usize> {
    environment.text("COLUMNS")?.parse().ok().filter(|columns| *columns > 0)
}

/// Returns whether the terminal supports plain text only.
fn is_dumb(environment: &Environment) -> bool {
    environment.text("TERM").is_some_and(|term| term == "dumb")
}

/// Prints an error, and its hint on a line of its own.
pub fn error(problem: &Error) {
    if problem.exit_code() == 0 {
        return;
    }
    print_line(&format!("error: {problem}"));
    print_line(&format!("hint: {}", render_for_cli(problem.hint())));
}

/// Prints that Ctrl-C does not stop runs.
pub fn interrupted() {
    print_line("interrupted; a started run continues, see: dispatcher status");
}

fn print_line(text: &str) {
    // An error cannot be reported if stderr is unwritable.
    drop(writeln!(std::io::stderr().lock(), "{}", sanitize(text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stated_width_is_positive_number() {
        let width = |stated: &str| {
            let environment: Environment = [("COLUMNS", stated)].into_iter().collect();
            stated_width(&environment)
        };
        assert_eq!(["60", "", "wide", "0", "-1"].map(width), [Some(60), None, None, None, None]);
    }

    #[test]
    fn color_choice_follows_terminal_unless_environment_overrides() {
        let cases = [
            ("", true, ColorChoice::Yes),
            ("", false, ColorChoice::No),
            ("NO_COLOR=1", true, ColorChoice::No),
            ("NO_COLOR=0", true, ColorChoice::No),
            ("NO_COLOR=", true, ColorChoice::Yes),
            ("CLICOLOR_FORCE=1", false, ColorChoice::Yes),
            ("CLICOLOR_FORCE=0", false, ColorChoice::No),
            ("CLICOLOR_FORCE=1 NO_COLOR=1", true, ColorChoice::No),
            ("CLICOLOR=0", true, ColorChoice::No),
            ("TERM=dumb", true, ColorChoice::No),
            ("TERM=dumb CLICOLOR_FORCE=1", true, ColorChoice::Yes),
            ("TERM=xterm", true, ColorChoice::Yes),
        ];
        for (variables, terminal, expected) in cases {
            let environment: Environment =
                variables.split(' ').filter_map(|variable| variable.split_once('=')).collect();
            assert_eq!(decide_color(&environment, terminal), expected, "{variables}, {terminal}");
        }
    }
}
