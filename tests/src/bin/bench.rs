//! Overhead of the supervisor: ratios of medians, measured interleaved in one run.
//!
//! `cargo run --release -p orchestrator-tests --bin bench [-- --strict] [--rounds N]
//! [--sandbox required|off] [--only prepare|stream|mcp|cluster]`

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use orchestrator_tests::bench::cluster;
use orchestrator_tests::bench::env::{BenchEnv, RunResult, TARGET, TOKEN};
use orchestrator_tests::bench::mcp::{Compared, measure};
use orchestrator_tests::bench::script::{Script, Step, verdict};
use orchestrator_tests::binaries::Binaries;

const FILES: usize = 6_000;
const COMMITS: usize = 1_500;
const BRANCHES: usize = 250;
const GIGABYTE: u64 = 1_000_000_000;

/// Preparation steps that are measured separately.
const STEPS: [&str; 4] = ["preflight", "fetch_platform", "fetch_target", "branch"];

struct Row {
    what: String,
    goal: &'static str,
    measured: String,
    ok: bool,
}

struct Settings {
    rounds: usize,
    strict: bool,
    sandboxes: Vec<String>,
    only: Option<String>,
}

fn main() {
    let settings = settings();
    let supervisor = &Binaries::get().supervisor;
    let agent = supervisor.with_file_name("scripted_agent");
    let mut rows = Vec::new();
    for sandbox in &settings.sandboxes {
        let selected = |what: &str| settings.only.as_deref().is_none_or(|only| only == what);
        if selected("prepare") {
            rows.extend(preparation(supervisor, &agent, sandbox, settings.rounds));
        }
        if selected("stream") {
            rows.extend(stream(supervisor, &agent, sandbox));
        }
    }
    if settings.only.as_deref().is_none_or(|only| only == "mcp") {
        rows.extend(mcp());
    }
    if settings.only.as_deref().is_none_or(|only| only == "cluster") {
        rows.extend(cluster());
    }
    println!("\n{:<58} {:>12} {:>12}  ok", "what", "goal", "measured");
    for Row { what, goal, measured, ok } in &rows {
        println!("{what:<58} {goal:>12} {measured:>12}  {}", if *ok { "yes" } else { "NO" });
    }
    if settings.strict && rows.iter().any(|row| !row.ok) {
        std::process::exit(1);
    }
}

/// The controller compared with plain requests, if `KUBEBUILDER_ASSETS` names a real API server.
fn cluster() -> Vec<Row> {
    if std::env::var_os("KUBEBUILDER_ASSETS").is_none() {
        println!("cluster: skipped, KUBEBUILDER_ASSETS is not set");
        return Vec::new();
    }
    let Some(measured) = cluster::measure(1_000, 9_000) else { return Vec::new() };
    println!("cluster: {measured:?}");
    let ratio = measured.runs_a_second / measured.jobs_a_second;
    let row = |what: &str, goal, text: String, ok| Row { what: what.to_owned(), goal, measured: text, ok };
    vec![
        row(
            "1,000 TaskRuns to their Jobs / plain POSTs of the Jobs",
            ">= 0.30",
            format!("{ratio:.2}"),
            ratio >= 0.3,
        ),
        row("submission to Job, median", "", format!("{:.0} ms", measured.median), true),
        row("submission to Job, slowest in a hundred", "", format!("{:.0} ms", measured.slowest), true),
        row("controller's requests for a run", "", format!("{:.1}", measured.requests), true),
        row("controller's processor time for a run", "", format!("{:.1} ms", measured.processor), true),
        row("controller's memory, 1,000 active runs", "", format!("{:.0} MiB", measured.memory), true),
        row(
            "the same with 9,000 more that wait",
            "",
            format!("{:.0} MiB", measured.memory_with_waiting),
            true,
        ),
    ]
}

fn settings() -> Settings {
    let sandboxes = vec!["off".to_owned(), "required".to_owned()];
    let mut settings = Settings { rounds: 7, strict: false, sandboxes, only: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--strict" => settings.strict = true,
            "--rounds" => settings.rounds = value().parse().expect("a number"),
            "--sandbox" => settings.sandboxes = vec![value()],
            "--only" => settings.only = Some(value()),
            other => panic!("unknown argument {other}"),
        }
    }
    settings
}

/// The MCP server compared with a server on the official TypeScript SDK.
fn mcp() -> Vec<Row> {
    println!("{:<36} {:>9} {:>9} {:>7}", "MCP server", "ours", "peer", "ratio");
    let compared = measure();
    for Compared { what, ours, peer } in &compared {
        println!("  {what:<34} {ours:>9.2} {peer:>9.2} {:>7.2}", ours / peer);
    }
    let begin = |what: &str| what.starts_with("start to tools/list, median");
    let start = compared.iter().find(|compared| begin(&compared.what)).map_or(f64::NAN, |one| one.ours);
    vec![Row {
        what: "MCP server, start to tools/list".to_owned(),
        goal: "< 50 ms",
        measured: format!("{start:.1} ms"),
        ok: start < 50.0,
    }]
}

fn preparation(supervisor: &Path, agent: &Path, sandbox: &str, rounds: usize) -> Vec<Row> {
    let env = BenchEnv::new(supervisor, agent, false);
    generate(&env.server.path(TARGET));
    let arguments = ["--until", "branch", "--sandbox", sandbox];
    let (mut clone, mut cold, mut warm) = (Vec::new(), Vec::new(), Vec::new());
    let (mut cold_steps, mut warm_steps) = (Vec::new(), Vec::new());
    // The first round fills the disk caches and is not counted.
    for round in 0..=rounds {
        let cloned = clone_by_git(&env);
        env.forget_workspace();
        let first = prepare(&env, 1, &arguments);
        let again = clone_by_git(&env);
        let second = prepare(&env, 2, &arguments);
        if round == 0 {
            continue;
        }
        clone.extend([cloned, again]);
        cold.push(first.seconds);
        warm.push(second.seconds);
        cold_steps.push(first);
        warm_steps.push(second);
    }
    let (clone, cold, warm) = (median(clone), median(cold), median(warm));
    println!("sandbox {sandbox}: git clone {clone:.3} s, cold {cold:.3} s, warm {warm:.3} s");
    println!("  cold: {}", steps(&cold_steps));
    println!("  warm: {}", steps(&warm_steps));
    let row = |what: &str, goal, value: f64, limit: f64, unit: &str| Row {
        what: format!("{what} (sandbox {sandbox})"),
        goal,
        measured: format!("{value:.2}{unit}"),
        ok: value <= limit,
    };
    vec![
        row("cold preparation / git clone --depth 1", "<= 1.1", cold / clone, 1.1, ""),
        row("warm preparation / git clone --depth 1", "<= 0.3", warm / clone, 0.3, ""),
        row("warm preparation", "< 1 s", warm, 1.0, " s"),
    ]
}

fn prepare(env: &BenchEnv, attempt: u32, arguments: &[&str]) -> RunResult {
    let mut task = env.task(attempt);
    // Both prepare a first attempt: another task of the same service on the warm workspace.
    task["run"] = format!("trader-claude-agent-1-task1-attempt{attempt}").into();
    task["mode"] = if attempt == 1 { "first" } else { "fresh" }.into();
    let output = env.run(&Script::default(), &task, arguments);
    assert_eq!(output.code, 0, "{}\n{}", output.messages(), env.stderr());
    output
}

fn steps(rounds: &[RunResult]) -> String {
    let mut text = String::new();
    for step in STEPS {
        let seconds: Vec<f64> = rounds.iter().filter_map(|output| output.step_seconds(step)).collect();
        let _ = write!(text, "{step} {:.3} s  ", median(seconds));
    }
    text
}

fn clone_by_git(env: &BenchEnv) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let url = env.server.url(TARGET).replacen("http://", &format!("http://x-access-token:{TOKEN}@"), 1);
    let mut git = Command::new("git");
    git.args(["clone", "--quiet", "--depth", "1", "--single-branch", &url, "clone"]);
    git.current_dir(folder.path()).env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", folder.path());
    let started = Instant::now();
    assert!(git.status().expect("git starts").success());
    started.elapsed().as_secs_f64()
}

/// Creates a large repository with `git fast-import`.
fn generate(bare: &Path) {
    std::fs::create_dir_all(bare).expect("a folder");
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(arguments).current_dir(bare).env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", bare);
        git
    };
    assert!(git(&["init", "--quiet", "--bare", "--initial-branch", "main"]).status().expect("git").success());
    let mut import = git(&["fast-import", "--quiet"]).stdin(Stdio::piped()).spawn().expect("git");
    let mut text = String::new();
    for commit in 1..=COMMITS {
        let _ = write!(
            text,
            "commit refs/heads/main\nmark :{commit}\ncommitter Ada <ada@example.com> {} +0000\n{}",
            1_700_000_000 + commit * 60,
            data(&format!("Change {commit}"))
        );
        // The first commit adds all files, each later one changes four.
        let changed: Vec<usize> = if commit == 1 {
            (0..FILES).collect()
        } else {
            (0..4).map(|n| (commit * 31 + n * 977) % FILES).collect()
        };
        for file in changed {
            let _ = write!(
                text,
                "M 100644 inline crates/c{:02}/src/m{:02}/f{file}.rs\n{}",
                file % 60,
                file / 60 % 10,
                data(&source(file, commit))
            );
        }
        if commit % (COMMITS / BRANCHES) == 0 {
            let _ = write!(text, "reset refs/heads/topic/{commit}\nfrom :{commit}\n\n");
        }
    }
    let mut pipe = import.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut pipe, text.as_bytes()).expect("fast-import reads");
    drop(pipe);
    assert!(import.wait().expect("git").success());
    assert!(git(&["repack", "-adq"]).status().expect("git").success());
}

fn data(text: &str) -> String {
    format!("data {}\n{text}\n", text.len())
}

/// Returns about 4 KiB that compress like source code.
fn source(file: usize, commit: usize) -> String {
    let mut seed = file * 7919 + commit;
    let mut text = String::new();
    for line in 0..80 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let _ = writeln!(
            text,
            "    let value_{line} = compute_{:x}(input, {});",
            seed >> 48,
            seed >> 40 & 0xffff
        );
    }
    text
}

fn stream(supervisor: &Path, agent: &Path, sandbox: &str) -> Vec<Row> {
    let env = BenchEnv::new(supervisor, agent, true);
    let script = |bytes| Script::of([Step::Flood { bytes }, verdict("already_done")]);
    let arguments = ["--sandbox", sandbox];
    let mut seconds = Vec::new();
    let mut peak = 0;
    for round in 0..3 {
        env.forget_workspace();
        let output = env.run(&script(GIGABYTE), &env.task(1), &arguments);
        assert_eq!(output.code, 0, "round {round}: {}\n{}", output.messages(), env.stderr());
        seconds.push(output.step_seconds("agent").expect("the agent ran"));
        peak = peak.max(output.peak);
    }
    let rate = 1000.0 / median(seconds);
    let megabytes = peak as f64 / 1e6;
    let row = |what: &str, goal, measured, ok| Row {
        what: format!("{what} (sandbox {sandbox})"),
        goal,
        measured,
        ok,
    };
    vec![
        row(
            "stream-json of 1 GB, through to the transcript",
            ">= 200 MB/s",
            format!("{rate:.0} MB/s"),
            rate >= 200.0,
        ),
        row("supervisor's own peak memory change", "< 40 MB", format!("{megabytes:.1} MB"), megabytes < 40.0),
    ]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
