//! The dispatcher's program: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return dispatcher::cli::cannot_start(&error),
    };
    let code = runtime.block_on(dispatcher::cli::run(std::env::args_os()));
    // A read from a terminal or a socket cannot be broken off: it must not keep the program from ending.
    runtime.shutdown_background();
    code
}
