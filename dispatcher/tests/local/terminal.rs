//! Colors and live tables, seen through a pseudoterminal.

use std::fs::File;
use std::io::Read as _;
use std::process::{Child, Stdio};

use crate::bench::Bench;
use rustix::pty::OpenptFlags;

/// Starts a command on a terminal; returns the terminal's other end.
fn start_on_a_terminal(bench: &Bench, arguments: &str, variables: &[(&str, &str)]) -> (File, Child) {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&ours).unwrap();
    rustix::pty::unlockpt(&ours).unwrap();
    let name = rustix::pty::ptsname(&ours, Vec::new()).unwrap();
    let theirs = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut command = bench.command(arguments);
    command.env("TERM", "xterm").envs(variables.iter().copied());
    // The command has copies of the terminal's other end: reading ends when all are closed.
    let child =
        command.stdout(theirs.try_clone().unwrap()).stderr(Stdio::null()).stdin(theirs).spawn().unwrap();
    (File::from(ours), child)
}

/// Returns the output of a command on a terminal.
pub(crate) fn on_a_terminal(bench: &Bench, arguments: &str, variables: &[(&str, &str)]) -> String {
    let (mut ours, mut child) = start_on_a_terminal(bench, arguments, variables);
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    // Linux returns an error when the other end is closed.
    while let Ok(length @ 1..) = ours.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..length]);
    }
    assert!(child.wait().unwrap().success());
    String::from_utf8(seen).unwrap()
}

#[test]
fn watch_redraws_table_until_interrupted() {
    let bench = Bench::new();
    let run = bench.submit("held");
    let (mut ours, mut child) = start_on_a_terminal(&bench, "watch", &[("COLUMNS", "80")]);
    let mut seen = String::new();
    let mut read_until = |text: &str| {
        let mut buffer = [0; 4096];
        while !seen.contains(text) {
            let length = ours.read(&mut buffer).unwrap();
            seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    };
    read_until("Running");
    bench.release(&run);
    // The second table is drawn over the first one.
    read_until("Succeeded");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(seen.contains(&run) && seen.contains("A\u{1b}[2mRUN"), "{seen:?}");
}

#[test]
fn terminal_output_is_colored_unless_disabled() {
    let bench = Bench::new();
    let run = bench.submit_and_wait("done");
    for verb in ["list", "status", "logs"] {
        let colored = on_a_terminal(&bench, verb, &[]);
        assert!(colored.contains("\u{1b}["), "{verb}: {colored:?}");
        for variables in [("NO_COLOR", "1"), ("TERM", "dumb"), ("CLICOLOR", "0")] {
            let plain = on_a_terminal(&bench, verb, &[variables]);
            assert!(!plain.contains('\u{1b}') && !plain.is_empty(), "{variables:?} {plain:?}");
        }
    }
    assert!(!on_a_terminal(&bench, "list -o json", &[("CLICOLOR_FORCE", "1")]).contains('\u{1b}'));
    let piped = bench.run(&format!("status {run}"));
    assert!(!piped.stdout.contains('\u{1b}'), "{piped:?}");
    let mut forced = bench.command("list");
    let forced = forced.env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(forced.stdout.contains(&0x1b));
}
