//! The agent image itself: users, folders, modes, and tools that run in any image.

use orchestrator_contract::containers::{
    AGENT_UID, ContainerRole, PRIVATE_DIR, SHARED_DIR, SUPERVISOR, TOOLS_BIN_DIR, TOOLS_DIR, WORKSPACE,
};
use orchestrator_tests::command::CommandOutput;
use orchestrator_tests::engine::Engine;

/// Runs a shell command in a new container of `image`, with options of `docker run`.
fn shell(engine: &Engine, image: &str, options: &[&str], command: &str) -> CommandOutput {
    let fixed = ["run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp:exec", "--cap-drop=ALL"];
    let more = ["--security-opt=no-new-privileges", "--entrypoint=/bin/sh"];
    let end = [image, "-c", command];
    let arguments = [&fixed[..], &more, options, &end].concat();
    engine.docker(&arguments).into()
}

/// Runs a shell command in the agent image as `user` and returns what it prints.
#[track_caller]
fn printed(engine: &Engine, user: &str, command: &str) -> String {
    let output = shell(engine, &engine.image, &["--user", user], command);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:#?}");
    output.stdout
}

#[test]
fn folders_have_owner_and_mode_that_volumes_take() {
    let Some(engine) = Engine::get() else { return };
    let guests = ContainerRole::ALL.map(ContainerRole::guest_dir);
    let mut expected: Vec<_> =
        guests.iter().map(String::as_str).chain([WORKSPACE, SHARED_DIR]).map(|dir| (dir, "775")).collect();
    expected.push((PRIVATE_DIR, "770"));
    for (dir, mode) in expected {
        let found = printed(&engine, "0:0", &format!("stat -c '%u:%g %a' {dir}; ls -A {dir}"));
        assert_eq!(found, format!("10001:0 {mode}\n"), "{dir}");
    }
}

#[test]
fn users_of_both_sides_and_any_other_write_where_they_may() {
    let Some(engine) = Engine::get() else { return };
    let agent = format!("{AGENT_UID}:0");
    let names = "id -un; getent passwd $(id -u) | cut -d : -f 6";
    assert_eq!(printed(&engine, "10001:0", names), "supervisor\n/home/supervisor\n");
    assert_eq!(printed(&engine, &agent, names), "agent\n/home/agent\n");
    let home = format!("for dir in $HOME {WORKSPACE}; do test -w $dir || echo $dir; done");
    for user in ["10001:0", &agent, "54321:0"] {
        let options = ["--user", user, "--read-only=false"];
        let output = shell(&engine, &engine.image, &options, &home);
        assert_eq!((output.code, output.stdout.as_str()), (0, ""), "{user}: {output:#?}");
    }
}

#[test]
fn no_program_of_image_gains_privileges() {
    let Some(engine) = Engine::get() else { return };
    assert_eq!(printed(&engine, "0:0", "find / -xdev -type f -perm /6000"), "");
}

#[test]
fn tools_belong_to_root_and_all_users_can_run_them() {
    let Some(engine) = Engine::get() else { return };
    let wrong = "'(' ! -user 0 -o ! -group 0 -o ! -type l -perm /022 -o ! -type l ! -perm -0444 \
                 -o -type d ! -perm -0111 ')'";
    assert_eq!(printed(&engine, "0:0", &format!("find {TOOLS_DIR} {wrong}")), "");
    let list = printed(&engine, "0:0", &format!("cd {TOOLS_BIN_DIR} && find . -type f -perm -0111 | sort"));
    assert_eq!(list, "./claude\n./git\n./supervisor\n");
}

#[test]
fn programs_of_image_come_first_in_path() {
    let Some(engine) = Engine::get() else { return };
    let path = printed(&engine, "10001:0", "echo $PATH");
    assert_eq!(path.trim_end().rsplit(':').next(), Some(TOOLS_BIN_DIR), "{path}");
    let found = printed(
        &engine,
        "10001:0",
        "command -v git; command -v claude; readlink -f $(command -v supervisor)",
    );
    assert_eq!(found, format!("/usr/bin/git\n{TOOLS_BIN_DIR}/claude\n{SUPERVISOR}\n"));
}

/// Names of a tools volume and a workspace volume, which an engine fills from the agent image.
struct Volumes<'a> {
    engine: &'a Engine,
    names: [String; 2],
    mounts: [String; 2],
}

impl<'a> Volumes<'a> {
    /// Creates the volumes like a backend does: by a container of the agent image that never starts.
    #[track_caller]
    fn new(engine: &'a Engine) -> Self {
        let id = uuid::Uuid::new_v4().simple();
        let names = [format!("test-tools-{id}"), format!("test-workspace-{id}")];
        let [tools, workspace] = &names;
        let fill = [format!("--volume={tools}:{TOOLS_DIR}"), format!("--volume={workspace}:{WORKSPACE}")];
        // Without `nocopy` an empty volume takes owner and mode of the folder of each image that mounts it.
        let mounts = [format!("{}:ro", fill[0]), format!("{}:nocopy", fill[1])];
        let container = format!("test-{id}");
        let create = ["create", "--name", &container, "--network=none", &fill[0], &fill[1], &engine.image];
        let created = engine.docker(&create);
        assert!(created.status.success(), "{created:?}");
        engine.docker(&["rm", &container]);
        Self { engine, names, mounts }
    }
}

impl Drop for Volumes<'_> {
    fn drop(&mut self) {
        self.engine.docker(&["volume", "rm", "--force", &self.names[0], &self.names[1]]);
    }
}

/// Local operations of git, as an agent uses them; prints the subjects of both branches.
const WORK_WITH_GIT: &str = "set -e; export HOME=/tmp PATH=$PATH:/opt/orchestrator/bin; cd /workspace
git config --global user.name Agent; git config --global user.email agent@example.com
git init -q -b main repo; cd repo; ls .git/hooks | grep -c sample >/dev/null
echo 1 >notes.txt; git add .; git commit -qm one; git worktree add -q ../other -b other; cd ../other
echo 2 >>notes.txt; git status --short; git diff | tail -n 1; git stash -q; git stash pop -q; git commit -qam two
git rebase -q --force-rebase main; git clone -q ../repo ../copy; git submodule status; git grep -n 2
git gc -q; git fsck --no-progress --no-dangling; git -C ../repo merge -q other; git -C ../repo log --format=%s";

#[test]
fn tools_of_volume_run_in_stock_images_as_agent() {
    let Some(engine) = Engine::get() else { return };
    for image in ["orchestrator/stock-base:ci", "orchestrator/stock-base:bullseye"] {
        if !engine.docker(&["image", "inspect", image]).status.success() {
            println!("skipped: no image {image}");
            continue;
        }
        let volumes = Volumes::new(&engine);
        let user = format!("{AGENT_UID}:0");
        let options = ["--user", &user, &volumes.mounts[0], &volumes.mounts[1]];
        let run = |command: &str| shell(&engine, image, &options, command);
        let output = run(
            "for name in git node ssh curl claude; do command -v $name; done; ls /etc/ssl/certs/ca-certificates.crt",
        );
        assert_eq!(output.stdout, "", "{image} has tools of its own: {output:#?}");
        let output = run(WORK_WITH_GIT);
        assert_eq!(output.code, 0, "{image}: {output:#?}");
        assert_eq!(output.stdout, " M notes.txt\n+2\nnotes.txt:2:2\ntwo\none\n", "{image}: {output:#?}");
        let output = run(&format!("export HOME=/tmp; {TOOLS_BIN_DIR}/claude --version"));
        assert!(output.stdout.contains("(Claude Code)"), "{image}: {output:#?}");
        let output = run(&format!("{SUPERVISOR} --version"));
        assert!(output.stdout.starts_with("supervisor "), "{image}: {output:#?}");
        let output = run(&format!("grep -c 'BEGIN CERTIFICATE' {TOOLS_DIR}/certs/ca-certificates.crt"));
        assert!(output.stdout.trim().parse::<u32>().unwrap() > 50, "{image}: {output:#?}");
    }
}

#[test]
fn git_of_tools_needs_no_library_of_image() {
    let Some(engine) = Engine::get() else { return };
    let image = "orchestrator/no-glibc:ci";
    if !engine.docker(&["image", "inspect", image]).status.success() {
        println!("skipped: no image {image}");
        return;
    }
    let volumes = Volumes::new(&engine);
    let options = ["--user=10002:0", &volumes.mounts[0], &volumes.mounts[1]];
    let output = shell(&engine, image, &options, WORK_WITH_GIT);
    assert_eq!((output.code, output.stdout.ends_with("two\none\n")), (0, true), "{output:#?}");
    // What the image is for: programs that are linked with glibc do not start.
    let output = shell(&engine, image, &options, &format!("{TOOLS_BIN_DIR}/claude --version"));
    assert_eq!(output.code, 127, "{output:#?}");
}
