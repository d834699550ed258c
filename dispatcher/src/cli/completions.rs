//! completions: the script that a shell reads once. What it then asks for is
//! answered by [`super::complete`].

use std::path::PathBuf;

use clap::ValueEnum;
use clap_complete::env::Shells;
use orchestrator_contract::Reason;

use super::complete::COMPLETE_VAR;
use super::{GlobalArgs, load_context};
use crate::error::Error;

/// Prints what makes a shell complete commands, flags, and the names of runs and services.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Put one of these into your shell's startup file:
  bash        source <(dispatcher completions bash)
  zsh         source <(dispatcher completions zsh)
  fish        dispatcher completions fish | source
  elvish      eval (dispatcher completions elvish | slurp)
  powershell  dispatcher completions powershell | Out-String | Invoke-Expression")]
pub(super) struct Arguments {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    Elvish,
    Powershell,
}

impl Shell {
    fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
            Self::Elvish => "elvish",
            Self::Powershell => "powershell",
        }
    }
}

pub(super) fn run(global: &GlobalArgs, Arguments { shell }: Arguments) -> Result<u8, Error> {
    let (_, output, _) = load_context(global.output)?;
    let failed = |error: String| {
        Error::new(Reason::InternalError, format!("cannot write the script for {}: {error}", shell.name()))
    };
    let shells = Shells::builtins();
    let engine = shells.completer(shell.name()).ok_or_else(|| failed("it is not known".to_owned()))?;
    let name = env!("CARGO_PKG_NAME");
    let mut script = Vec::new();
    engine
        .write_registration(COMPLETE_VAR, name, name, &completer(), &mut script)
        .map_err(|error| failed(error.to_string()))?;
    output.text(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

/// What the shell is to ask: the name, if `PATH` led to this program, so that a
/// newer version is asked as soon as it is there; else this very file.
fn completer() -> String {
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let by_path = called.components().count() > 1;
    let path = if by_path { std::env::current_exe().unwrap_or(called) } else { called };
    path.to_string_lossy().into_owned()
}
