//! Programs that developers use, unchanged in each kind of sandbox. What a kind cannot do is a remark of the outcome.

use std::process::{Command, Stdio};

use orchestrator_contract::Reason;
use orchestrator_tests::hostile::Kind;
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects::fix;
use orchestrator_tests::test_env::TestEnv;

/// Names and commands; each one succeeds outside of a sandbox.
const PROGRAMS: [(&str, &str, &str); 6] = [
    (
        "git",
        "git",
        "git init -q $d/r && cd $d/r && git -c user.name=A -c user.email=a@b commit -q --allow-empty -m x && git clone -q . ../s && git gc -q",
    ),
    ("cargo", "cargo", "cargo test -q --offline"),
    (
        "npm",
        "npm",
        "mkdir $d/n && cd $d/n && echo '{\"name\":\"n\",\"version\":\"1.0.0\",\"scripts\":{\"test\":\"node --test\"}}' > package.json && \
      echo 'require(\"node:test\")(\"t\", () => {})' > a.test.js && npm test",
    ),
    (
        "multiprocessing",
        "/usr/bin/python3",
        "printf 'import multiprocessing as m\\ndef f(x): return x * x\\nif __name__ == \"__main__\":\\n    with m.Pool(2) as p: assert p.map(f, [1, 2]) == [1, 4]\\n' > $d/p.py && \
      /usr/bin/python3 $d/p.py",
    ),
    (
        "unix-socket",
        "/usr/bin/python3",
        "/usr/bin/python3 -c \"import socket as s; a = s.socket(s.AF_UNIX); a.bind('$d/x'); a.listen(); s.socket(s.AF_UNIX).connect('$d/x')\"",
    ),
    ("terminal", "script", "script -qec 'test -t 0 && test -t 1' /dev/null"),
];

/// What a sandbox without namespaces cannot do, and the remark that says so.
const NOT_IN_LANDLOCK: [(&str, &str); 3] = [
    ("unix-socket", "cannot use Unix sockets with a name"),
    ("terminal", "cannot open new terminals"),
    ("multiprocessing", "cannot use POSIX shared memory"),
];

fn exists(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok()
}

#[test]
fn real_programs_work_or_remark_says_why_not() {
    for kind in Kind::available() {
        let mut command = "d=$(mktemp -d); ".to_owned();
        let mut names = Vec::new();
        for (name, program, run) in PROGRAMS {
            if !exists(program) {
                println!("skipped: {program} is not installed");
                continue;
            }
            command += &format!(
                "if ({run}) > $d/out 2>&1 < /dev/null; then echo {name} works; else echo {name} fails; tail -n 3 $d/out >&2; fi >> programs.txt; "
            );
            names.push(name);
        }
        let script = Script::new()
            .turn(fix())
            .turn(Turn::bash(command))
            .turn(Turn::verdict("done", "It is the highest now."));
        let mut env = TestEnv::start(script);
        env.set("ORCHESTRATOR_SANDBOX_KIND", kind.name());
        let (output, outcome) = env.submit(&[]);
        assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
        let results = env.git.read("acme/trader", "feature/task-1-implementation", "programs.txt").unwrap();
        let remarks = &outcome.sandbox.as_ref().unwrap().remarks;
        let is_remarked = |name: &str| {
            NOT_IN_LANDLOCK
                .iter()
                .any(|(program, text)| *program == name && remarks.iter().any(|remark| remark.contains(text)))
        };
        assert_eq!(results.lines().count(), names.len(), "{results}");
        for name in names {
            let works = results.lines().any(|line| line == format!("{name} works"));
            assert!(
                works != is_remarked(name),
                "{kind:?} {name}: {results}{remarks:?} {:?}",
                env.model.conversation().pop().map(|r| r.body["messages"].to_string())
            );
        }
        env.assert_invariants(&outcome);
    }
}
