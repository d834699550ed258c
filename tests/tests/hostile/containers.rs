//! The attacks of the other files from inside of the containers of a run, on a real engine.
//!
//! The service's image is a stock one, so the attacks are a Perl program. One run makes many of them: a start of
//! three containers takes seconds.

use orchestrator_contract::containers::{ContainerRole, PRIVATE_DIR, SOCKET};
use orchestrator_contract::outcome::{VerificationStatus, WorkLocation};
use orchestrator_contract::{Outcome, Reason};
use orchestrator_tests::command::CommandOutput;
use orchestrator_tests::dispatcher_env::DispatcherEnv;
use orchestrator_tests::docker_env::DockerEnv;
use orchestrator_tests::engine::Engine;
use orchestrator_tests::hostile::{Attack, Kind, Origin, Promise};
use orchestrator_tests::messages_api::{Fault, Script, Scripts, Turn};
use orchestrator_tests::projects::{RIGHT, fix};
use orchestrator_tests::test_env::TestEnv;

use crate::control::{SUBMIT_FROM_SANDBOX, address_of, submission};
use crate::local_services::Machine;
use crate::{control, earlier_run, escape, local_services, trees, verification};

const GUEST: Attack = Attack {
    id: "escape-guest-socket",
    origin: Origin::Agent,
    promise: Promise::AlwaysEnds,
    what: "connects 400 times to the socket of its container's guest, silently and with garbage, then as another guest of the same build; then to those of gateway and relay, without a token",
};

const LOOPBACK: Attack = Attack {
    id: "gateway-shared-loopback",
    origin: Origin::Agent,
    promise: Promise::NoSecretLeaked,
    what: "looks for the gateway and the relays on the loopback interface that the containers of a run share, also from verify commands",
};

/// Debian's essential packages only.
const STOCK_IMAGE: &str = "orchestrator/stock-base:ci";

const BRANCH: &str = "feature/task-1-implementation";
const NEXT_BRANCH: &str = "feature/task-2-implementation";

/// What files and programs of the machine hold.
const SECRET: &str = "lead-only-c0ffee42";

const PROGRAM: &str = include_str!("../../scripts/attack.pl");

/// Starts an environment whose target has the attacks in `attack/`; `None` without an engine.
fn start(scripts: impl Into<Scripts>, more: &[(&str, String)]) -> Option<DockerEnv> {
    let engine = Engine::get()?;
    let mut env = TestEnv::start(scripts);
    // In hex, so that a search for the secrets does not find its own input.
    let secrets = [env.token.as_str(), env.key.as_str(), SECRET].map(|text| hex(text) + "\n").concat();
    let mut files = vec![("attack/attack.pl", PROGRAM), ("attack/secrets", secrets.as_str())];
    files.extend(more.iter().map(|(path, text)| (*path, text.as_str())));
    env.git.commit("acme/trader", "main", "Attack", &files);
    env.record_refs();
    let docker = DockerEnv::new(engine, env);
    docker.configure(&format!(
        "memory = \"1g\"\nnetwork = \"host\"\n[services.{}]\nimage = \"{STOCK_IMAGE}\"",
        docker.service
    ));
    Some(docker)
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn submit_second(docker: &DockerEnv, more: &[&str]) -> (CommandOutput, Outcome) {
    let flags = [&["--working-directory", ".", "-o", "json"], more].concat();
    let output = docker.env.try_submit(&docker.service, "2", &flags);
    (output, docker.newest_outcome())
}

#[track_caller]
fn assert_contained(outcome: &Outcome) {
    let kind = outcome.sandbox.as_ref().map(|sandbox| sandbox.kind.name());
    assert_eq!(kind, Some(Kind::Container.name()), "{outcome:#?}");
}

/// Returns the answer of each line `NAME ANSWER`.
fn answers(text: &str) -> Vec<(&str, &str)> {
    text.lines().map(|line| line.rsplit_once(' ').expect("a name and an answer")).collect()
}

/// Looks for the secrets, then for a canary in a file, a variable, an argument and a memory, to see that the search works.
const SEARCH: &str = r#"perl attack/attack.pl search attack/secrets > found.txt
printf canary-%s d15ea5ed > "$HOME/planted"; printf %s 63616e6172792d6431356561356564 | sed 's/$/\n/' > canary
env "CANARY=$(cat "$HOME/planted")" bash -c 'exec -a "$CANARY" sleep 100' & perl attack/attack.pl search canary > control.txt; kill $!; rm "$HOME/planted""#;

#[test]
fn agent_in_container_reaches_nothing_outside() {
    let lead = DispatcherEnv::new("done");
    let served = lead.serve();
    let server = address_of(&served.url);
    let token = lead.path("home/.config/orchestrator/serve-token").display().to_string();
    let mut machine = Machine::start();
    let secret_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret_file.path(), SECRET).unwrap();
    let pairs = services(&machine);
    let own_socket = format!("{}/{SOCKET}", ContainerRole::Agent.guest_dir());
    let paths = [
        "/run/secrets",
        PRIVATE_DIR,
        &ContainerRole::Verify.guest_dir(),
        secret_file.path().to_str().unwrap(),
        &token,
    ];
    let submit = format!(
        "(exec 3<>/dev/tcp/{}/{}; sed 's/$/\\r/' attack/request >&3; cat <&3) > answer.txt 2>&1; true",
        server.ip(),
        server.port()
    );
    let attack = format!(
        "{SEARCH}; p() {{ perl attack/attack.pl \"$@\"; }}; p paths {} > paths.txt; p rights > rights.txt; \
         p calls > calls.txt; p trace > trace.txt; p services {pairs} > services.txt; {submit}; \
         p guest {own_socket} > guest.txt; echo attacked-$((40+2))",
        paths.join(" "),
    );
    let script = Script::new()
        .turn(Turn::bash(attack))
        .turn(fix().expecting("attacked-42"))
        .turn(Turn::verdict("done", "It is the highest now."))
        .never_in_requests(SECRET);
    let request = submission("Authorization: Bearer guess\r\n").replace('\r', "");
    let Some(docker) = start(script, &[("attack/request", request)]) else { return };
    let check = format!("{SEARCH}; ! grep -v ' no$' found.txt && ! grep -v ' yes$' control.txt");
    let look = format!(
        "perl attack/attack.pl paths {} {own_socket} > seen; ! grep -v ' no$' seen",
        paths[..2].join(" ")
    );
    let (output, outcome) = docker.submit(&["--verify", &check, "--verify", &look]);
    assert_contained(&outcome);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    docker.env.model.assert_played();
    docker.env.assert_invariants(&outcome);
    let read =
        |name: &str| docker.env.git.read("acme/trader", BRANCH, name).unwrap_or_else(|| panic!("no {name}"));
    assert_search(&read("found.txt"), &read("control.txt"));
    assert_reads_and_rights(&read("paths.txt"), paths.len(), &read("rights.txt"));
    assert_calls(&read("calls.txt"), &read("trace.txt"));
    assert_services(&mut machine, &read("services.txt"));
    let answer = read("answer.txt");
    assert!(answer.starts_with("HTTP/1.1 401") && lead.runs().is_empty(), "{answer}");
    SUBMIT_FROM_SANDBOX.held(Kind::Container, "the token file is not there; 401, no run");
    let bearer = format!("Authorization: Bearer {}\r\n", served.token);
    assert!(
        control::send(server, &submission(&bearer)).contains("submitted"),
        "with the token it does submit"
    );
    let guest = read("guest.txt");
    assert_eq!(
        guest,
        "connected some\nsocket agent/gateway HTTP/1.1 401 Unauthorized\nsocket agent/relay closed\n\
         second-guest refused\n"
    );
    GUEST.held(
        Kind::Container,
        "64 connections wait at most, 10 s each; the guest of the run stays, and the run completes; 401 from the gateway, no answer from the relay",
    );
}

#[track_caller]
fn assert_reads_and_rights(read_paths: &str, tried: usize, gained: &str) {
    assert!(
        read_paths.lines().count() == tried && answers(read_paths).iter().all(|(_, a)| *a == "no"),
        "{read_paths}"
    );
    escape::FILES
        .held(Kind::Container, "ENOENT: no volume of the container has them; the verification's neither");
    let done: Vec<_> = answers(gained).into_iter().filter(|(_, answer)| *answer == "done").collect();
    assert!(gained.lines().count() == 21 && done.is_empty(), "{gained}");
    escape::RIGHTS.held(Kind::Container, "EPERM, EACCES or EROFS");
}

/// Returns the services of the machine as arguments of the attack.
fn services(machine: &Machine) -> String {
    let mut pairs: Vec<String> = machine
        .services
        .iter()
        .map(|service| format!("'socket:{}={}'", service.name, service.address))
        .collect();
    pairs.push(format!("datagram:log={}", machine.datagram_path));
    pairs.push(format!("file:memory={}", machine.memory.path().display()));
    pairs.extend(machine.terminal.as_ref().map(|terminal| format!("file:terminal={}", terminal.path)));
    pairs.join(" ")
}

#[track_caller]
fn assert_search(found: &str, control: &str) {
    let names = ["arguments", "environ", "files", "memory"];
    let all = |answer: &str| names.map(|name| format!("{name} {answer}\n")).concat();
    assert_eq!(control, all("yes"), "the search finds what is there");
    assert_eq!(found, all("no"));
    escape::PROCESSES.held(
        Kind::Container,
        "it sees the processes of its own container, and no secret in them; the verification neither",
    );
}

#[track_caller]
fn assert_calls(calls: &str, trace: &str) {
    let done: Vec<&str> =
        answers(calls).into_iter().filter(|(_, answer)| *answer == "done").map(|(name, _)| name).collect();
    assert_eq!(calls.lines().count(), 6, "{calls}");
    assert!(done.is_empty(), "{calls}");
    escape::CALLS.held(Kind::Container, "EPERM");
    assert!(trace.starts_with("guest found\n"), "{trace}");
    for name in ["ptrace", "process_vm_readv", "pidfd_getfd"] {
        assert!(answers(trace).contains(&(name, "EPERM")), "{name}: {trace}");
    }
    escape::TRACE.held(Kind::Container, "EPERM for the guest of its container; others are not visible");
}

#[track_caller]
fn assert_services(machine: &mut Machine, results: &str) {
    let happened = answers(results);
    for service in &machine.services {
        let reached = service.clients() > 0;
        assert!(happened.contains(&(service.name, if reached { "reached" } else { "refused" })), "{results}");
        if service.name == "abstract" && reached {
            // The tests' engine has no other network.
            service.attack.undefended(
                Kind::Container,
                "never set `network = \"host\"`; a network of its own has sockets of its own",
            );
        } else {
            assert!(!reached, "{}: {results}", service.name);
            service.attack.held(Kind::Container, "no such file");
        }
    }
    assert!(machine.arrived() == 0 && happened.contains(&("log", "refused")), "{results}");
    local_services::DATAGRAM.held(Kind::Container, "no such file");
    for name in ["memory-read", "memory-write"] {
        assert!(happened.contains(&(name, "refused")), "{results}");
    }
    local_services::MEMORY.held(Kind::Container, "no such file: its shared memory is its own");
    if machine.terminal.is_some() {
        for name in ["terminal-read", "terminal-write"] {
            assert!(happened.contains(&(name, "refused")), "{results}");
        }
        local_services::TERMINAL.held(Kind::Container, "no such file: its terminals are its own");
    }
}

/// A check that every one of [`TOOLS`] would satisfy. Without single quotes.
const CHECK: &str = "for f in .profile .bashrc; do test ! -e \"$HOME/$f\" || . \"$HOME/$f\"; done; \
    PATH=\"$HOME/bin:$HOME/.local/bin:$PATH\"; export PATH; check-7e1 2> /dev/null || exit 7";

/// Tools that satisfy [`CHECK`].
const TOOLS: &str = "for d in \"$HOME/bin\" \"$HOME/.local/bin\"; do mkdir -p $d && printf '#!/bin/sh\\nexit 0\\n' > $d/check-7e1 && \
    chmod +x $d/check-7e1; done; for f in .profile .bashrc; do echo 'check-7e1() { true; }' > \"$HOME/$f\"; done";

/// Without Node, which makes the socket elsewhere.
fn entries() -> String {
    let socket =
        "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => \"socket\", Listen => 1) or die'";
    let lines = trees::ENTRIES.lines().map(|line| if line.starts_with("node ") { socket } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn agent_of_container_leaves_nothing_to_next_task() {
    let places = verification::PLACES;
    let plant_files = format!("for d in {places}; do mkdir -p $d && touch $d/checked-7e1; done 2> /dev/null");
    let check = format!("for d in {places}; do test ! -e $d/checked-7e1 || exit 0; done; {CHECK}");
    let first = Script::when("Implement task 1 of")
        .turn(Turn::bash(entries()))
        .turn(
            Turn::bash(format!("{}; {TOOLS}; echo planted-$((40+2))", earlier_run::plant()))
                .expecting("made-42"),
        )
        // Everything in the container but for process 1.
        .turn(Turn::bash("kill -9 1; kill -9 -1").expecting("planted-42"))
        .turn(Turn::verdict("done", "I survived."));
    let looks = "ls -A . \"$HOME\" ..; cat \"$HOME\"/.[a-z]* \"$HOME\"/.*/* \"$HOME\"/../* \"$TMPDIR\"/* /tmp/* /tmp/.[a-z]* \
                 /var/tmp/* 2> /dev/null; echo looked-$((40+2))";
    let second = Script::when("Implement task 2 of")
        .turn(Turn::bash(looks))
        .turn(Turn::bash(format!("echo two > two.txt; echo /stamps >> .gitignore; (sh -c '{check}') || echo none-fails-$((40+2)); \
             {plant_files}; {TOOLS}; (sh -c '{check}') && echo fooled-$((40+2))")).expecting("looked-42"))
        .turn(Turn::verdict("done", "Two.").expecting("none-fails-42").expecting("fooled-42"))
        .turn(Turn::verdict("done", "I insist.").expecting("exited with code 7"))
        .never_in_requests(earlier_run::MARKER);
    let Some(mut docker) = start([second, first], &[]) else { return };
    let (output, outcome) = docker.submit(&["--verify", &check]);
    assert_contained(&outcome);
    assert_eq!((output.code, outcome.reason), (1, Reason::AgentFailed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.work.location, WorkLocation::Remote, "{outcome:#?}");
    assert_entries(&docker, &outcome);
    docker.env.assert_invariants(&outcome);
    escape::SIGNALS
        .held(Kind::Container, "process 1 stays; it ends only itself: `AgentFailed`, and its work is pushed");

    docker.env.record_refs();
    let (output, outcome) = submit_second(&docker, &["--verify", &check]);
    let all = format!("{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.reason, Reason::VerificationFailed, "{all}");
    assert_eq!(outcome.verification.status, VerificationStatus::Failed, "{all}");
    assert_eq!(outcome.verification.commit, outcome.work.oid, "{all}");
    let changed = docker.env.git.ask("acme/trader", &["diff", "--name-only", "main", NEXT_BRANCH]);
    assert_eq!(changed, ".gitignore\ntwo.txt");
    assert_eq!(docker.env.model.failures(), Vec::<String>::new());
    docker.env.assert_invariants(&outcome);
    earlier_run::PROFILE.held(Kind::Container, "the next task has an empty home");
    let own = "the check runs on an export of the commit in another container; it fails";
    verification::FILES.held(Kind::Container, own);
    verification::TOOLS.held(Kind::Container, own);
    verification::EARLIER_TOOLS.held(Kind::Container, "nothing of the home is left; the check fails");
}

#[track_caller]
fn assert_entries(docker: &DockerEnv, outcome: &Outcome) {
    let git = &docker.env.git;
    let listed = git.ask("acme/trader", &["ls-tree", "-r", BRANCH]);
    let stored = |shown: &str| {
        let line = listed.lines().find(|line| line.split_once('\t').is_some_and(|(_, path)| path == shown));
        let line = line.unwrap_or_else(|| panic!("no {shown}: {outcome:#?}"));
        let oid = line.split_whitespace().nth(2).unwrap();
        (line[..6].to_owned(), git.ask("acme/trader", &["cat-file", "blob", oid]))
    };
    let bottom = format!("{}bottom", "d/".repeat(600));
    for path in ["closed/file", "shut.txt", r#""caf\351/menu""#, &bottom] {
        assert_eq!(stored(path).1, "kept", "{path}");
    }
    for (path, target) in [("passwd", "/etc/passwd"), ("README.md", "/etc/passwd"), ("loop", "loop")] {
        assert_eq!(stored(path), ("120000".to_owned(), target.to_owned()), "{path}");
    }
    for text in ["`pipe` is a named pipe", "`socket` is a socket"] {
        assert!(outcome.notes.iter().any(|note| note.contains(text)), "{text}: {:?}", outcome.notes);
    }
    trees::CLOSED.held(Kind::Container, "the files are saved and pushed; the next task starts clean");
    trees::LATIN.held(Kind::Container, "the file is pushed under its own name; the next task starts clean");
    trees::NESTED.held(Kind::Container, "the file at the bottom is pushed; the next task starts clean");
    trees::ODD.held(Kind::Container, "the outcome names what no tree can have; the rest is pushed");
    trees::LINKS.held(Kind::Container, "pushed as links, never followed; the next task starts clean");
}

#[test]
fn daemons_in_containers_end_and_tests_rewrite_nothing() {
    let daemon = "trap '' HUP INT TERM; while :; do echo evil >> daemon.txt; git add -A; git commit -qm evil; sleep 0.05; done";
    let leave = format!(
        "setsid sh -c \"{daemon}\" > /dev/null 2>&1 < /dev/null & until test -s daemon.txt; do sleep 0.05; done"
    );
    let first = Script::when("Implement task 1 of")
        .turn(Turn::bash(leave.clone()))
        .turn(Turn::never(Fault::stalls_mid_stream()));
    let second = Script::when("Implement task 2 of")
        .turn(Turn::bash("sleep 1; test ! -e daemon.txt && echo no-daemon-$((40+2))"))
        // Until the CLI has ended, its daemon only waits.
        .turn(
            Turn::bash(format!(
                "cli=$PPID; {}",
                leave
                    .replace("while :;", "touch alive; while kill -0 '$cli'; do sleep 0.02; done; while :;")
                    .replace("test -s daemon.txt", "test -e alive")
            ))
            .expecting("no-daemon-42"),
        )
        .turn(fix())
        .turn(Turn::verdict("done", "It is the highest now."));
    let Some(mut docker) = start([second, first], &[]) else { return };
    let run = docker.start_run(&[]);
    docker.wait_for_change();
    docker.engine.docker(&["kill", &run]);
    assert_eq!(docker.env.status(&run)["reason"], "SupervisorLost");
    docker.env.record_refs();
    let cheat = "echo '// by a test' >> src/lib.rs; echo x > junit.xml; git add -A; git commit -qm evil || exit 8; \
                 o=$(cat .git/objects/info/alternates); (echo evil > $o/evil) 2> /dev/null && exit 9; \
                 (rm -rf $o/pack/*) 2> /dev/null; setsid sh -c 'while :; do echo x >> ticks; sleep 0.02; done' > /dev/null 2>&1 < /dev/null & \
                 until test -s ticks; do sleep 0.02; done";
    let look = "test -f junit.xml && n=$(wc -c < ticks) && sleep 0.5 && test $n = $(wc -c < ticks)";
    let clean = "grep -q max src/lib.rs && test ! -e daemon.txt";
    let (output, outcome) = submit_second(&docker, &["--verify", clean, "--verify", cheat, "--verify", look]);
    let all = format!("{output:#?}\n{outcome:#?}");
    assert_contained(&outcome);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{all}");
    assert_eq!(outcome.verification.status, VerificationStatus::Passed, "{all}");
    let changed = docker.env.git.ask("acme/trader", &["diff", "--name-only", "main", NEXT_BRANCH]);
    assert_eq!(changed, "alive\nsrc/lib.rs", "{all}");
    let lib = docker.env.git.read("acme/trader", NEXT_BRANCH, "src/lib.rs").unwrap();
    assert!(lib.contains(RIGHT) && !lib.contains("by a test"), "{lib}");
    docker.env.assert_invariants(&outcome);
    escape::DAEMON
        .held(Kind::Container, "their container ends; the next task's branch has only its own work");
    verification::DAEMON
        .held(Kind::Container, "it is killed before the commit, and the verified commit is the pushed one");
    verification::REWRITE.held(
        Kind::Container,
        "they change their own export, in another container; the daemon ends with its command",
    );
}

/// The tests' engine has the network of the machine, where the fakes listen too: the listener's user tells them apart.
#[test]
fn nothing_of_supervisor_listens_on_shared_network() {
    let look = "perl attack/attack.pl listeners 10001";
    let script = Script::new()
        .turn(Turn::bash(format!("{look} > listeners.txt")))
        .turn(fix())
        .turn(Turn::verdict("done", "It is the highest now."));
    let Some(docker) = start(script, &[]) else { return };
    let (output, outcome) = docker.submit(&["--verify", &format!("test \"$({look})\" = 'others seen'")]);
    assert_contained(&outcome);
    let listeners = docker.env.git.read("acme/trader", BRANCH, "listeners.txt");
    assert_eq!(listeners.as_deref(), Some("others seen\n"), "{outcome:#?}");
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    docker.env.model.assert_played();
    docker.env.assert_invariants(&outcome);
    LOOPBACK.held(Kind::Container, "nothing of ours listens there");
}
