//! `supervisor confined`: makes the sandbox and executes the program in it.

use std::ffi::OsString;
use std::process::ExitCode;

use super::command::Request;
use super::execute::{CANNOT_RUN, complain, execute};
use super::spec::Kind;
use super::{filter, guardian, namespaces, rights, rules};

/// Runs the hidden subcommand: ends as the program ends, with 126 without a sandbox.
#[must_use]
pub fn confined_main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(request) = Request::parse(arguments) else {
        complain("malformed arguments");
        return CANNOT_RUN.into();
    };
    rights::close_inherited_descriptors();
    // Its own files in /proc can be written only meanwhile.
    rights::set_dumpable(true);
    rights::limit_resources(request.spec.limits);
    let code = match request.spec.kind {
        Kind::Namespaces => namespaces::run(&request),
        Kind::Landlock | Kind::Off => {
            rights::set_dumpable(false);
            guardian::run(&request, start_here)
        }
    };
    code.into()
}

/// Confines this process where it is and executes the program; returns only on failure.
fn start_here(request: &Request) -> u8 {
    let confined = match request.spec.kind {
        Kind::Off => Ok(()),
        Kind::Namespaces | Kind::Landlock => rights::drop_capabilities()
            .map_err(|error| error.to_string())
            .and_then(|()| rules::confine(&request.spec))
            .and_then(|()| filter::apply(&request.spec)),
    };
    match confined {
        Ok(()) => execute(request),
        Err(error) => {
            complain(&error);
            CANNOT_RUN
        }
    }
}
