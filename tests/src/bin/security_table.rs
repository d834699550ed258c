//! Writes the table of attacks in `docs/security.md` from what the suite `hostile` recorded.
//!
//! With `--check` it changes nothing and fails if the table differs. Rows of a sandbox kind that this machine
//! cannot make, or of containers without an engine, stay as they are.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use orchestrator_tests::hostile::{Kind, recorded_rows, render_rows, security_page};

const BEGIN: &str = "<!-- attacks: begin -->\n";
const END: &str = "<!-- attacks: end -->\n";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("security_table: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => bail!("unknown argument `{other}`\nhint: the only argument is --check"),
    };
    let page = security_page();
    let text = fs::read_to_string(&page).with_context(|| page.display().to_string())?;
    let mut rows = recorded_rows()
        .context("no recorded attacks\nhint: run `cargo test --workspace --test hostile` first")?;
    let untried = Kind::untried();
    // Recorded when it could be tried.
    rows.retain(|row| !untried.contains(&row.kind));
    let tried = |line: &str| !untried.iter().any(|kind| line.contains(&format!("| {} |", kind.name())));
    let (before, rest) = text.split_once(BEGIN).context("the page has no begin marker")?;
    let (old, after) = rest.split_once(END).context("the page has no end marker")?;
    // Header and rule first; then old rows that could not be tried here, and new ones, in one order.
    let table = render_rows(&rows);
    let mut lines: Vec<&str> = table.lines().skip(2).collect();
    lines.extend(old.lines().skip(2).filter(|line| !tried(line)));
    lines.sort_unstable();
    let header: Vec<&str> = table.lines().take(2).collect();
    let new = format!("{}\n{}\n", header.join("\n"), lines.join("\n"));
    let differing = lines.iter().filter(|line| !old.lines().any(|old| old == **line)).count()
        + old.lines().skip(2).filter(|line| !lines.contains(line)).count();
    println!("{} attacks, {differing} rows to update", lines.len());
    if check {
        return Ok(if differing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    fs::write(&page, format!("{before}{BEGIN}{new}{END}{after}"))?;
    Ok(ExitCode::SUCCESS)
}
