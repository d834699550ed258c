//! Binary of the supervisor: dispatches internal subcommands and the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all, deny other processes of this user access to our memory.
    supervisor::process::set_undumpable();
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        // Internal subcommands, spawned by the supervisor itself.
        Some(supervisor::git::transfer::SUBCOMMAND) => supervisor::git::transfer_main(),
        Some(supervisor::guest::SUBCOMMAND) => supervisor::container::guest_main(arguments),
        Some(supervisor::workspace::caches::SEED_SUBCOMMAND) => {
            supervisor::workspace::caches::seed_main(arguments)
        }
        Some("confined") => supervisor::sandbox::confined_main(arguments),
        Some("sandbox-probe") => supervisor::sandbox::probe_main(arguments),
        _ => supervisor::app::main(),
    }
}
