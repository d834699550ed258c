//! The containers of a run: users, mounts and limits of each, and what is left of them.
//!
//! Most tests replace the supervisor by a program that sleeps, so that the containers stay as the
//! dispatcher created them.

use orchestrator_contract::Reason;
use orchestrator_contract::containers::{
    GUESTS_DIR, PRIVATE_DIR, SHARED_DIR, SUPERVISOR, TOOLS_DIR, WORKSPACE,
};
use orchestrator_contract::outcome::WorkLocation;
use orchestrator_tests::docker_env::DockerEnv;
use orchestrator_tests::engine::Engine;
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects::{RIGHT, fixes};
use orchestrator_tests::test_env::TestEnv;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A stock image without any program of the orchestrator.
const STOCK_IMAGE: &str = "orchestrator/stock-base:ci";

/// An image without glibc.
const MUSL_IMAGE: &str = "orchestrator/no-glibc:ci";

/// An environment whose supervisor and guests sleep. Dropping it removes their image.
struct Sleeping {
    docker: DockerEnv,
    image: String,
}

impl Sleeping {
    fn new(image_of_agent: &str) -> Option<Self> {
        let engine = Engine::get()?;
        let mut docker = DockerEnv::new(engine, TestEnv::start(Script::new()));
        let (name, image) = (docker.service.clone(), format!("test/{}", docker.service));
        let command = format!("printf '#!/bin/sh\\nexec sleep 600\\n' > {SUPERVISOR}");
        let create = ["create", "--name", &name, "--network=none", "--user=0:0", "--entrypoint=/bin/sh"];
        docker.engine.docker(&[&create[..], &[&docker.engine.image, "-c", &command]].concat());
        docker.engine.docker(&["start", "--attach", &name]);
        let entrypoint = format!("ENTRYPOINT [\"{SUPERVISOR}\"]");
        let changes = ["--change", &entrypoint, "--change", "USER 10001:0", &name, &image];
        docker.engine.docker(&[&["commit"][..], &changes[..]].concat());
        docker.engine.docker(&["rm", &name]);
        docker.env.set("ORCHESTRATOR_DOCKER_IMAGE", &image);
        docker.configure(&format!(
            "memory = \"512m\"\ncpus = 1.5\npids = 300\nsupervisor_memory = \"300m\"\nnetwork = \"host\"\n\
             [services.{name}]\nimage = \"{image_of_agent}\"\nverify = [\"true\"]"
        ));
        Some(Self { docker, image })
    }

    fn containers(&self) -> Vec<String> {
        self.docker.containers(&self.docker.service)
    }

    fn shell(&self, container: &str, command: &str) -> String {
        let output = self.docker.engine.docker(&["exec", container, "/bin/sh", "-c", command]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Sleeping {
    fn drop(&mut self) {
        for container in self.containers() {
            self.docker.engine.docker(&["rm", "--force", &container]);
        }
        for volume in self.docker.volumes(&self.docker.service) {
            self.docker.engine.docker(&["volume", "rm", "--force", &volume]);
        }
        self.docker.engine.docker(&["image", "rm", "--force", &self.image]);
        // Removes the programs of the removed image.
        self.docker.env.dispatcher(&["gc", "--keep", "100"]);
    }
}

/// Returns the mounts of a container as `target access`, sorted.
fn mounts(container: &Value) -> Vec<String> {
    let mounts = container["Mounts"].as_array().unwrap().iter();
    let mut mounts: Vec<String> = mounts
        .map(|mount| {
            let access = if mount["RW"] == true { "rw" } else { "ro" };
            format!("{} {access}", mount["Destination"].as_str().unwrap())
        })
        .collect();
    mounts.sort();
    mounts
}

#[test]
fn every_container_has_own_user_mounts_and_limits() {
    let Some(sleeping) = Sleeping::new(STOCK_IMAGE) else { return };
    let docker = &sleeping.docker;
    let run = docker.start_run(&[]);
    let [agent, verify] = ["agent", "verify"].map(|role| format!("{run}-{role}"));
    assert_eq!(sleeping.containers(), [run.clone(), agent.clone(), verify.clone()]);

    let supervisor = docker.engine.inspect(&run);
    assert_eq!(supervisor["Config"]["Image"], sleeping.image.as_str());
    assert_eq!(supervisor["Config"]["User"], "10001:0");
    assert_eq!(supervisor["HostConfig"]["Memory"], 300 << 20);
    let socket = |role: &str, access: &str| format!("{GUESTS_DIR}/{role} {access}");
    let expected = [
        socket("agent", "rw"),
        socket("verify", "rw"),
        "/run/secrets rw".to_owned(),
        format!("{PRIVATE_DIR} rw"),
        format!("{SHARED_DIR} rw"),
    ];
    assert_eq!(mounts(&supervisor), expected);

    for (role, name) in [("agent", &agent), ("verify", &verify)] {
        let guest = docker.engine.inspect(name);
        assert_eq!(guest["Config"]["Image"], STOCK_IMAGE);
        assert_eq!(guest["Config"]["User"], "10002:0");
        let host = &guest["HostConfig"];
        assert_eq!(host["Memory"], 512 << 20, "{host:#}");
        assert_eq!((&host["NanoCpus"], &host["PidsLimit"]), (&1_500_000_000.into(), &300.into()));
        assert_eq!((&host["ReadonlyRootfs"], &host["CapDrop"][0]), (&true.into(), &"ALL".into()));
        assert_eq!(host["NetworkMode"], format!("container:{}", supervisor["Id"].as_str().unwrap()));
        assert_eq!(host["RestartPolicy"]["Name"], "on-failure");
        let expected = [
            format!("{TOOLS_DIR} ro"),
            socket(role, "ro"),
            format!("{SHARED_DIR} ro"),
            format!("{WORKSPACE} rw"),
        ];
        assert_eq!(mounts(&guest), expected);
        let tree = sleeping.shell(name, "id; cd /workspace && touch x && stat -c '%u:%g %a' . x");
        assert!(tree.contains("uid=10002 gid=0") && tree.contains("10001:0 775\n10002:0 644\n"), "{tree}");
        let written =
            format!("touch {TOOLS_DIR}/x {SHARED_DIR}/x {GUESTS_DIR}/{role}/x /x; touch /tmp/x && echo tmp");
        assert_eq!(sleeping.shell(name, &written), "tmp\n");
    }
    let trees =
        sleeping.shell(&agent, "touch /workspace/agent-was-here") + &sleeping.shell(&verify, "ls /workspace");
    assert_eq!(trees, "x\n", "agent and verify commands share a volume");
    let private = docker.in_volume(&docker.private(), "stat -c '%u:%g %a' /volume");
    assert_eq!(private, "10001:0 770\n");
}

#[test]
fn guests_hold_no_secret_of_run() {
    let Some(sleeping) = Sleeping::new(STOCK_IMAGE) else { return };
    let docker = &sleeping.docker;
    let run = docker.start_run(&[]);
    let secrets = [&docker.env.token, &docker.env.key];
    let everywhere = format!(
        "env; cat /proc/[0-9]*/environ; grep -rlF -e {} -e {} / --exclude-dir=proc --exclude-dir=sys 2>/dev/null",
        secrets[0], secrets[1]
    );
    let seen = sleeping.shell(&run, &format!("grep -rlF {} /run/secrets", secrets[0]));
    assert!(seen.contains("github-token") || seen.contains("GITHUB_TOKEN"), "the search finds it: {seen}");
    for role in ["agent", "verify"] {
        let name = format!("{run}-{role}");
        let seen = sleeping.shell(&name, &everywhere) + &docker.engine.inspect(&name).to_string();
        assert!(seen.contains("PATH="), "{seen}");
        for word in
            [secrets[0].as_str(), secrets[1].as_str(), "/run/secrets", "TOKEN=", "API_KEY", "ANTHROPIC_"]
        {
            assert!(!seen.contains(word), "{word} in {name}: {seen}");
        }
    }
}

#[test]
fn containers_of_ended_supervisor_are_removed_by_status() {
    let Some(sleeping) = Sleeping::new(STOCK_IMAGE) else { return };
    let docker = &sleeping.docker;
    let run = docker.start_run(&[]);
    let gc = docker.env.dispatcher(&["gc", "--keep", "0"]);
    assert_eq!((gc.code, sleeping.containers().len()), (0, 3), "a running run stays complete: {gc:#?}");
    docker.engine.docker(&["kill", &run]);
    assert_eq!(docker.env.status(&run)["reason"], "SupervisorLost");
    assert_eq!(sleeping.containers(), [run.as_str()]);
    let gc = docker.env.dispatcher(&["gc", "--keep", "0"]);
    assert_eq!(gc.code, 0, "{gc:#?}");
}

#[test]
fn containers_of_removed_supervisor_are_swept() {
    let Some(sleeping) = Sleeping::new(STOCK_IMAGE) else { return };
    let docker = &sleeping.docker;
    let run = docker.start_run(&[]);
    // As after a crash of the dispatcher while it removed a run, or by a user.
    docker.engine.docker(&["rm", "--force", &run]);
    assert_eq!(sleeping.containers().len(), 2);
    let gc = docker.env.dispatcher(&["gc", "--keep", "0"]);
    assert_eq!((gc.code, sleeping.containers()), (0, Vec::new()), "{gc:#?}");
    docker.assert_no_volume_of_run();
    assert!(docker.volumes(&docker.service).contains(&docker.volume()), "the workspace is kept");

    // A new run removes what an ended one left, before it starts.
    let run = docker.start_run(&[]);
    docker.engine.docker(&["rm", "--force", &run]);
    let next = docker.start_run(&[]);
    assert_ne!(next, run, "its number is stored");
    assert!(sleeping.containers().iter().all(|name| name.starts_with(&next)), "{:?}", sleeping.containers());
}

#[test]
fn image_without_glibc_is_refused_by_name() {
    let Some(sleeping) = Sleeping::new(MUSL_IMAGE) else { return };
    let docker = &sleeping.docker;
    let output = docker.verb("submit", &[]);
    assert_eq!(output.code, 78, "{output:#?}");
    for expected in [MUSL_IMAGE, "has no glibc", "debian"] {
        assert!(output.stderr.contains(expected), "{expected}: {output:#?}");
    }
    assert_eq!(sleeping.containers(), [""; 0]);
    docker.assert_no_volume_of_run();
    let doctor = docker.env.dispatcher(&["doctor"]);
    assert!(doctor.stdout.contains(&format!("image `{MUSL_IMAGE}` has no glibc")), "{doctor:#?}");
}

#[test]
fn image_of_agent_only_cannot_be_supervisors() {
    let Some(mut sleeping) = Sleeping::new(STOCK_IMAGE) else { return };
    sleeping.docker.env.set("ORCHESTRATOR_DOCKER_IMAGE", STOCK_IMAGE);
    let output = sleeping.docker.verb("submit", &[]);
    assert_eq!(output.code, 78, "{output:#?}");
    assert!(output.stderr.contains("cannot be the supervisor's"), "{output:#?}");
    assert_eq!(sleeping.containers(), [""; 0]);
}

#[test]
fn numbers_of_former_layout_are_not_reused() {
    let Some(sleeping) = Sleeping::new(STOCK_IMAGE) else { return };
    let docker = &sleeping.docker;
    let volume = docker.volume();
    docker.engine.docker(&[
        "volume",
        "create",
        "--label",
        &format!("orchestrator.io/service={}", docker.service),
        &volume,
    ]);
    let former = "mkdir -p /volume/.orchestrator/attempts/claude-agent-1 /volume/target-repo && cd /volume && \
                  echo 4 > .orchestrator/attempts/claude-agent-1/task1 && echo mine > target-repo/file && \
                  chown -R 10001:0 . && chmod 775 .";
    assert_eq!(docker.in_volume(&volume, former), "");
    assert_eq!(docker.start_run(&[]), docker.run_name(5));
    let kept = docker.in_volume(&volume, "cat /volume/target-repo/file");
    let stored = docker.in_volume(&docker.private(), "cat /volume/attempts/claude-agent-1/task1");
    assert_eq!((kept.as_str(), stored.as_str()), ("mine\n", "5\n"));
}

#[test]
fn removed_workspace_keeps_attempt_numbers() {
    let Some(engine) = Engine::get() else { return };
    let docker = DockerEnv::new(engine, TestEnv::start(fixes().for_each_session()));
    let (output, outcome) = docker.submit(&[]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    let gc = |more: &[&str]| {
        let arguments = [&["gc", "--workspaces", "--service", docker.service.as_str()], more].concat();
        docker.env.dispatcher(&arguments)
    };
    let plan = gc(&["-o", "json"]);
    assert_eq!(plan.code, 0, "{plan:#?}");
    assert!(plan.stdout.contains("\"action\": \"remove\""), "{plan:#?}");
    assert!(docker.volumes(&docker.service).contains(&docker.volume()), "the plan removes nothing");
    let removed = gc(&["--yes"]);
    assert_eq!(removed.code, 0, "{removed:#?}");
    let volumes = docker.volumes(&docker.service);
    assert!(!volumes.contains(&docker.volume()), "{volumes:?}");
    let kept = docker.in_volume(&docker.private(), "ls /volume; cat /volume/attempts/claude-agent-1/task1");
    assert!(kept.starts_with("attempts\n") && kept.trim_end().ends_with('1'), "{kept}");
    // The next run makes a new workspace, and continues the numbers.
    assert_eq!(docker.start_run(&["--fresh"]), docker.run_name(2));
    let (_, outcome) = docker.wait(&docker.run_name(2));
    assert_eq!(outcome.attempt, 2, "{outcome:#?}");
}

#[test]
fn stock_image_completes_task() {
    let Some(engine) = Engine::get() else { return };
    let docker = DockerEnv::new(engine, TestEnv::start(fixes()));
    docker.configure(&format!(
        "memory = \"2g\"\nnetwork = \"host\"\n[services.{}]\nimage = \"{STOCK_IMAGE}\"",
        docker.service
    ));
    let (output, outcome) = docker.submit(&[]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    let lib = docker.env.git.read("acme/trader", "feature/task-1-implementation", "src/lib.rs").unwrap();
    assert!(lib.contains(RIGHT), "{lib}");
}

#[test]
fn agent_out_of_memory_does_not_end_supervisor() {
    let Some(engine) = Engine::get() else { return };
    let script = Script::new()
        .turn(Turn::bash("echo '// before' >> src/lib.rs; tail /dev/zero; echo '// after' >> src/lib.rs"))
        .turn(Turn::verdict("done", "Went on without it."));
    let docker = DockerEnv::new(engine, TestEnv::start(script));
    docker.configure("memory = \"1g\"\nsupervisor_memory = \"512m\"\nnetwork = \"host\"");
    let (output, outcome) = docker.submit(&[]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    let lib = docker.env.git.read("acme/trader", "feature/task-1-implementation", "src/lib.rs").unwrap();
    assert!(lib.contains("// before") && lib.contains("// after"), "{lib}");
}

#[test]
fn work_of_killed_agent_container_is_pushed() {
    let Some(engine) = Engine::get() else { return };
    let script = Script::new().turn(Turn::bash("echo '// a try' >> src/lib.rs; sleep 600"));
    let docker = DockerEnv::new(engine, TestEnv::start(script));
    docker.configure("memory = \"2g\"\nnetwork = \"host\"");
    let run = docker.start_run(&[]);
    let agent = format!("{run}-agent");
    let file = format!("{WORKSPACE}/target-repo/src/lib.rs");
    docker.wait_until("change of the agent", || {
        docker.engine.docker(&["exec", &agent, "grep", "-q", "a try", &file]).status.success()
    });
    // As the kernel does it for lack of memory: the guest, and everything in its pid namespace.
    let process = docker.engine.inspect(&agent)["State"]["Pid"].as_i64().unwrap();
    let process = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    kill_process(process, Signal::KILL).unwrap();
    let (output, outcome) = docker.wait(&run);
    assert_eq!(outcome.reason, Reason::AgentOutOfMemory, "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.work.location, WorkLocation::Remote, "{outcome:#?}");
    let lib = docker.env.git.read("acme/trader", "feature/task-1-implementation", "src/lib.rs").unwrap();
    assert!(lib.contains("// a try"), "{lib}");
    docker.env.assert_invariants(&outcome);
}

/// Reads texts, as octal escapes of printf(1), and prints the files and variables that contain them.
///
/// No command line or variable of its own contains a text, so it does not find itself.
const SEARCH: &str = r#"
while read -r text; do
    printf "$text\n" | grep -rlsaF -f - /proc/[0-9]*/environ /proc/[0-9]*/cmdline /run /var /tmp /etc /home /workspace
    env >"$TMPDIR/env"
    printf "$text\n" | grep -F -f - "$TMPDIR/env"
done
true
"#;

fn octal(text: &str) -> String {
    text.bytes().map(|byte| format!("\\{byte:03o}")).collect()
}

#[test]
fn agent_and_verify_commands_find_no_secret_of_run() {
    let Some(engine) = Engine::get() else { return };
    let canary = format!("canary-{}", uuid::Uuid::new_v4().simple());
    let search = "sh search <secrets >found; \
                  printf \"$(cat canary)\" >$HOME/planted; sh search <canary >planted";
    let script = Script::new().turn(Turn::bash(search)).turn(Turn::verdict("done", "Searched."));
    let env = TestEnv::start(script);
    let secrets = format!("{}\n{}\n", octal(&env.token), octal(&env.key));
    let files = [("search", SEARCH), ("secrets", &secrets), ("canary", &format!("{}\n", octal(&canary)))];
    env.git.commit("acme/trader", "main", "Search", &files);
    let docker = DockerEnv::new(engine, env);
    docker.configure("memory = \"2g\"\nnetwork = \"host\"");
    let verify = ["--verify", "test -z \"$(sh search <secrets)\""];
    let (output, outcome) = docker.submit(&verify);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    let read = |file: &str| docker.env.git.read("acme/trader", "feature/task-1-implementation", file);
    assert!(read("planted").unwrap().contains("/home/planted"), "the search finds what is there");
    assert_eq!(read("found").unwrap(), "");
}
