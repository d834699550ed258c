//! Entry point of the dispatcher.

use std::process::ExitCode;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return dispatcher::cli::cannot_start(&error),
    };
    let code = runtime.block_on(dispatcher::cli::run(std::env::args_os()));
    // A blocking read from a terminal or socket cannot be cancelled; do not wait for it.
    runtime.shutdown_background();
    code
}
