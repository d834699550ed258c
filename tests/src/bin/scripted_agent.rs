//! A fake `claude` program for fault tests and benchmarks.
//!
//! It performs the steps of `script.json` beside its own executable, because the supervisor passes nothing
//! else that a test could set. It exits with 0 after the last step. Happy paths use the real CLI.

use std::fs;
use std::io::{self, BufRead as _, Write};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};
use orchestrator_tests::bench::script::{Script, Step};
use serde_json::json;

/// Bytes per write.
const CHUNK: usize = 256 * 1024;

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("scripted agent: {error:#}");
            ExitCode::from(99)
        }
    }
}

fn run() -> Result<u8> {
    let program = std::env::current_exe().context("my own path")?;
    let script = read_script(&program)?;
    if script.ignore_term && std::env::args_os().nth(1).is_none_or(|first| first != "--ignoring-term") {
        return Err(ignore_term(&program).into());
    }
    // Reads the supervisor's message, so that the supervisor never writes to a closed pipe.
    let mut prompt = String::new();
    io::stdin().lock().read_line(&mut prompt).context("the prompt")?;
    for step in &script.steps {
        if let Some(code) = perform(step).with_context(|| format!("{step:?}"))? {
            return Ok(code);
        }
    }
    Ok(0)
}

fn read_script(program: &Path) -> Result<Script> {
    let path: PathBuf = program.with_file_name("script.json");
    let text = fs::read(&path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&text).context("script.json")
}

/// A shell ignores the signal and execs this program: ignored signals survive exec, and no unsafe code is
/// needed.
fn ignore_term(program: &Path) -> io::Error {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "trap '' TERM; exec \"$0\" --ignoring-term"]).arg(program);
    shell.exec()
}

/// Performs a step; returns the exit code if it was the last one.
fn perform(step: &Step) -> Result<Option<u8>> {
    match step {
        Step::Line { line } => print(format!("{line}\n").as_bytes())?,
        Step::Raw { bytes, times } => print_often(bytes, *times)?,
        Step::Flood { bytes } => flood(*bytes)?,
        Step::LongLine { bytes } => long_line(*bytes)?,
        Step::Nested { depth } => {
            let text = format!(
                "{{\"type\":\"assistant\",\"message\":{}{}}}\n",
                "[".repeat(*depth),
                "]".repeat(*depth)
            );
            print(text.as_bytes())?;
        }
        Step::Shell { script } => {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-ec", script]).stdin(Stdio::null());
            let status = shell.status().context("/bin/sh")?;
            ensure!(status.success(), "the shell ended with {status}");
        }
        Step::Files { count } => files(*count)?,
        Step::Wait => loop {
            std::thread::park();
        },
        Step::Exit { code } => return Ok(Some(*code)),
        Step::Signal { name } => {
            let me = std::process::id();
            // Sends the signal repeatedly: Rust's SIGSEGV handler catches the first one.
            let script = format!("while kill -{name} {me} 2>/dev/null; do sleep 0.01; done");
            Command::new("/bin/sh").args(["-c", &script]).status()?;
            loop {
                std::thread::park();
            }
        }
    }
    Ok(None)
}

fn print(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

fn print_often(bytes: &[u8], times: usize) -> io::Result<()> {
    for _ in 0..times {
        print(bytes)?;
    }
    Ok(())
}

/// Prints valid lines of the CLI, in the mix of a real session: few messages, large tool results.
fn flood(bytes: u64) -> io::Result<()> {
    let tool = json!({"type": "assistant", "session_id": "s", "message": {
        "id": "msg_1", "role": "assistant", "content": [
            {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"file_path": "/w/src/lib.rs"}}
        ]
    }});
    let result = json!({"type": "user", "session_id": "s", "message": {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "toolu_1",
         "content": "    let answer = compute(&input)?; // \"quoted\"\n".repeat(600)}
    ]}});
    // One message for 64 results: otherwise a session of 1 GB has some hundred thousand log lines.
    let mut round = format!("{tool}\n").into_bytes();
    let result = format!("{result}\n").into_bytes();
    for _ in 0..64 {
        round.extend_from_slice(&result);
    }
    // Unbuffered: one write per round keeps the pipe full.
    let mut out = fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut written = 0;
    while written < bytes {
        out.write_all(&round)?;
        written += round.len() as u64;
    }
    Ok(())
}

fn long_line(bytes: u64) -> io::Result<()> {
    let mut out = fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
    out.write_all(b"{\"type\":\"assistant\",\"message\":\"")?;
    let chunk = vec![b'x'; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        out.write_all(&chunk[..part])?;
        left -= part as u64;
    }
    out.write_all(b"\"}\n")
}

fn files(count: usize) -> io::Result<()> {
    for number in 0..count {
        let folder = format!("many/{:03}", number / 1000);
        if number % 1000 == 0 {
            fs::create_dir_all(&folder)?;
        }
        fs::write(format!("{folder}/{number}.txt"), format!("{number}\n"))?;
    }
    Ok(())
}
