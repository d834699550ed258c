//! The dispatcher's program: arguments in, exit code out.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    dispatcher::cli::run(std::env::args_os()).await
}
