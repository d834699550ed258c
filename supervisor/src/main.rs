//! The supervisor's program: reads its configuration, assembles, runs, and turns the
//! outcome into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: from here on nobody of the same user can read our memory.
    supervisor::process::set_undumpable();
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        // These two are called by ourselves only, and are not part of the command line.
        Some(supervisor::git::transfer::SUBCOMMAND) => supervisor::git::transfer_main(),
        Some("confined") => supervisor::process::confined_main(arguments),
        _ => supervisor::app::main(),
    }
}
