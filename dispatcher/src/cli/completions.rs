//! `dispatcher completions`: the script that registers [`super::complete`] with a shell.

use std::path::PathBuf;

use clap::ValueEnum;
use clap_complete::env::Shells;
use orchestrator_contract::Reason;

use super::complete::COMPLETE_VAR;
use super::context::{GlobalArgs, load_environment};
use crate::error::Error;

/// Print a shell completion script
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Add one of these lines to your shell's startup file:
  bash        source <(dispatcher completions bash)
  zsh         source <(dispatcher completions zsh)
  fish        dispatcher completions fish | source
  elvish      eval (dispatcher completions elvish | slurp)
  powershell  dispatcher completions powershell | Out-String | Invoke-Expression")]
pub(super) struct Arguments {
    /// Shell to print the script for
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
    let (_, output, _) = load_environment(global.output)?;
    let failed = |error: String| {
        Error::new(Reason::InternalError, format!("cannot write the script for {}: {error}", shell.name()))
    };
    let shells = Shells::builtins();
    let engine = shells.completer(shell.name()).ok_or_else(|| failed("unknown shell".to_owned()))?;
    let name = env!("CARGO_PKG_NAME");
    let mut script = Vec::new();
    engine
        .write_registration(COMPLETE_VAR, name, name, &completer(), &mut script)
        .map_err(|error| failed(error.to_string()))?;
    output.text(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

/// Returns the command that the script calls: the bare name if it was found in `PATH`, so that an
/// upgrade takes effect immediately; else the absolute path of this executable.
fn completer() -> String {
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let by_path = called.components().count() > 1;
    let path = if by_path { std::env::current_exe().unwrap_or(called) } else { called };
    path.to_string_lossy().into_owned()
}
