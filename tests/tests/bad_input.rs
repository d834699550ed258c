//! Input that cannot be used: a clear message, the right exit code, and nothing spent.

use std::path::Path;

use orchestrator_contract::outcome::Place;
use orchestrator_contract::{Outcome, Reason, Step};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects;
use orchestrator_tests::world::{Ran, World};

/// A model that must not be asked.
fn silent() -> Script {
    Script::new()
}

/// The message says all of this, and no request reached the model.
#[track_caller]
fn assert_says(world: &World, text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    assert_eq!(world.model.requests().len(), 0, "the model was asked");
    assert_eq!(world.github.pulls().len(), 0);
}

/// A run that ended before anything was prepared: reason, exit code, words of its message.
#[track_caller]
fn assert_ended(world: &World, (ran, outcome): &(Ran, Outcome), reason: Reason, words: &[&str]) {
    assert_eq!(outcome.reason, reason, "{ran:#?}\n{outcome:#?}");
    assert_eq!(ran.code, i32::from(reason.exit_code()), "{ran:#?}");
    assert_eq!(outcome.work.place, Place::None);
    assert!(outcome.message.contains(reason.hint()), "no next step: {}", outcome.message);
    assert_says(world, &outcome.message, words);
    assert!(ran.stdout.contains(words[0]) || ran.stderr.contains(words[0]), "not said: {ran:#?}");
    if outcome.step == Step::Check {
        let layout = world.layout("trader");
        for folder in [layout.target_repo(), layout.platform_repo(), layout.target_control()] {
            assert!(!folder.exists(), "{} was made", folder.display());
        }
    }
    world.assert_invariants(outcome);
}

/// A submission that the dispatcher itself refuses: it leaves no trace.
#[track_caller]
fn assert_refused(world: &World, ran: &Ran, reason: Reason, words: &[&str]) {
    assert_eq!(ran.code, i32::from(reason.exit_code()), "{ran:#?}");
    assert_says(world, &ran.stderr, words);
    let state: Vec<_> = std::fs::read_dir(world.state()).into_iter().flatten().flatten().collect();
    assert!(state.is_empty(), "written: {state:?}");
}

/// A supervisor that ends without a run: its last line says why.
#[track_caller]
fn assert_supervisor_refused(world: &World, ran: &Ran, reason: Reason, words: &[&str]) {
    assert_eq!(ran.code, i32::from(reason.exit_code()), "{ran:#?}");
    let said = ran.events().pop().map(|event| event.msg).unwrap_or_default();
    assert!(said.contains(&reason.to_string()), "{said}");
    assert_says(world, &said, words);
}

fn supervisor(world: &World, workspace: &Path, more: &[&str]) -> Ran {
    let flags = world.task_flags(workspace);
    let flags: Vec<&str> = more.iter().copied().chain(flags.iter().map(String::as_str)).collect();
    world.supervisor(&flags)
}

fn platform_without(gone: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    projects::platform().into_iter().filter(|(path, _)| !gone(path)).collect()
}

#[test]
fn a_task_that_tasks_json_does_not_have_is_named_with_those_it_has() {
    let world = World::start(silent());
    let ended = world.submit_for("trader", "99", &[]);
    assert_ended(&world, &ended, Reason::TaskNotFound, &["99", "tasks.json", "1, 2"]);
}

#[test]
fn without_any_documents_the_places_that_were_looked_at_are_named() {
    let world = World::with(silent(), platform_without(|path| path.starts_with(".taskmaster")), "main");
    let ended = world.submit(&[]);
    let places = ["trader/.taskmaster/", "projects/trader/.taskmaster/"];
    assert_ended(&world, &ended, Reason::DocumentsMissing, &places);
}

#[test]
fn without_an_entry_and_without_files_the_files_that_were_looked_for_are_named() {
    let gone = |path: &str| path.ends_with("tasks.json") || path.contains("/task-1/");
    let world = World::with(silent(), platform_without(gone), "main");
    let ended = world.submit(&[]);
    let files = [".taskmaster/tasks/tasks.json", ".taskmaster/docs/task-1/task.md"];
    assert_ended(&world, &ended, Reason::DocumentsMissing, &files);
}

#[test]
fn a_tasks_json_that_is_no_json_is_named_with_line_and_column() {
    let broken = |(path, text): (String, String)| {
        let text = if path.ends_with("tasks.json") { "{\n  \"master\": {,\n".to_owned() } else { text };
        (path, text)
    };
    let world = World::with(silent(), projects::platform().into_iter().map(broken).collect(), "main");
    let ended = world.submit(&[]);
    assert_ended(&world, &ended, Reason::InvalidTask, &["tasks.json", "line 2, column 14"]);
}

#[test]
fn a_service_name_that_is_a_path_is_refused_at_once() {
    let world = World::start(silent());
    let ran = world.try_submit("../x", "1", &[]);
    assert_refused(&world, &ran, Reason::InvalidTask, &["--service", "../x"]);
}

#[test]
fn a_token_that_the_host_does_not_know_is_told_from_a_repository_that_is_not_there() {
    let mut world = World::start(silent());
    world.set("GITHUB_TOKEN", "ghp_thisTokenWasRevokedLongAgo0000000000");
    let ended = world.submit(&[]);
    let words = ["acme/"];
    assert_ended(&world, &ended, Reason::AuthenticationFailed, &words);
    assert!(!format!("{ended:?}").contains("ghp_this"), "{ended:#?}");
}

#[test]
fn a_repository_that_is_not_there_is_named() {
    let world = World::start(silent());
    let url = world.git.url("acme/nothing");
    let ended = world.submit(&["--repository-url", &url]);
    assert_ended(&world, &ended, Reason::RepositoryNotFound, &["acme/nothing"]);
}

#[test]
fn a_target_that_may_only_be_read_is_told_before_anything_is_spent() {
    use orchestrator_tests::git_server::Access;
    let world = World::start(silent());
    world.git.allow_in("acme/trader", world.token.clone(), Access::Read);
    let ended = world.submit(&[]);
    assert_ended(&world, &ended, Reason::PermissionDenied, &["acme/trader"]);
}

#[test]
fn a_branch_that_is_not_there_is_named_with_those_that_are() {
    let world = World::start(silent());
    let ended = world.submit(&["--branch", "develop"]);
    assert_ended(&world, &ended, Reason::BranchNotFound, &["develop", "main"]);
}

#[test]
fn a_platform_branch_that_is_not_there_is_named() {
    let world = World::start(silent());
    let ended = world.submit(&["--platform-branch", "docs"]);
    assert_ended(&world, &ended, Reason::BranchNotFound, &["docs", "acme/platform"]);
}

#[test]
fn a_branch_of_an_attempt_that_nobody_knows_is_not_touched() {
    let mut world = World::start(silent());
    world.git.commit("acme/trader", "feature/task-1-implementation", "By hand", &[("hand.txt", "1\n")]);
    world.remember_refs();
    let ended = world.submit(&[]);
    let words = ["feature/task-1-implementation", "retry", "fresh"];
    assert_ended(&world, &ended, Reason::BranchExists, &words);
}

#[test]
fn without_a_credential_for_the_model_every_way_to_give_one_is_named() {
    let mut world = World::start(silent());
    world.set("ANTHROPIC_API_KEY", "");
    let ended = world.submit(&[]);
    let words = ["ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "Bedrock"];
    assert_ended(&world, &ended, Reason::CredentialMissing, &words);
}

#[test]
fn without_a_token_the_run_ends_before_the_agent() {
    let mut world = World::start(silent());
    world.set("GITHUB_TOKEN", "");
    // `gh` of the machine must not lend its own.
    let ended = world.submit(&[]);
    assert_ended(&world, &ended, Reason::CredentialMissing, &["GITHUB_TOKEN"]);
}

#[test]
fn a_cli_that_is_not_there_is_named() {
    let mut world = World::start(silent());
    world.set("ORCHESTRATOR_CLAUDE", "/nowhere/claude");
    let ran = world.try_submit("trader", "1", &[]);
    assert_refused(&world, &ran, Reason::AgentMissing, &["/nowhere/claude"]);
}

#[test]
fn a_model_that_the_service_does_not_have_is_named() {
    let world = World::start(silent());
    let (ran, outcome) = world.submit(&["--model", "claude-poet-9"]);
    assert_eq!(outcome.reason, Reason::ModelUnknown, "{ran:#?}\n{outcome:#?}");
    assert_eq!(ran.code, 78);
    assert!(outcome.message.contains("claude-poet-9"), "{}", outcome.message);
    world.assert_invariants(&outcome);
}

#[test]
fn a_working_directory_outside_of_the_repository_is_refused_at_once() {
    let world = World::start(silent());
    for path in ["../other", "a/../../b", "/etc"] {
        let ran = world.try_submit("trader", "1", &["--working-directory", path]);
        assert_refused(&world, &ran, Reason::InvalidTask, &["--working-directory", path]);
    }
}

#[test]
fn a_working_directory_through_a_link_of_the_repository_is_refused() {
    let mut world = World::start(silent());
    let work = tempfile::tempdir().unwrap();
    world.git.clone_fresh("acme/trader", "main", work.path());
    std::os::unix::fs::symlink("/tmp", work.path().join("link")).unwrap();
    world.git.commit_tree("acme/trader", "main", work.path());
    world.remember_refs();
    let (ran, outcome) = world.submit(&["--working-directory", "link/inside"]);
    assert_eq!(outcome.reason, Reason::InvalidTask, "{ran:#?}\n{outcome:#?}");
    assert_eq!(ran.code, 64);
    assert_says(&world, &outcome.message, &["link/inside", "`link`"]);
    world.assert_invariants(&outcome);
}

#[test]
fn a_workspace_that_cannot_be_written_is_named() {
    let world = World::start(silent());
    let file = world.path("file");
    std::fs::write(&file, "").unwrap();
    let workspace = file.join("workspace");
    let ran = supervisor(&world, &workspace, &[]);
    assert_supervisor_refused(&world, &ran, Reason::WorkspaceUnwritable, &[workspace.to_str().unwrap()]);
}

#[test]
fn a_workspace_that_cannot_be_written_is_told_by_the_dispatcher_too() {
    let world = World::start(silent());
    let workspace = world.layout("trader").root().to_owned();
    std::fs::create_dir_all(workspace.parent().unwrap()).unwrap();
    std::fs::write(&workspace, "").unwrap();
    let ran = world.try_submit("trader", "1", &[]);
    assert_eq!(ran.code, 73, "{ran:#?}");
    assert_says(&world, &format!("{}{}", ran.stdout, ran.stderr), &["workspace-trader"]);
}

#[test]
fn a_malformed_mcp_configuration_is_named_with_file_and_server() {
    let mut world = World::start(silent());
    let folder = world.path("mcp");
    std::fs::create_dir_all(&folder).unwrap();
    world.set("ORCHESTRATOR_MCP_CONFIGS", folder.to_str().unwrap());
    let text = r#"{"name": "files", "description": "Files", "command": "files", "env": {"1X": "y"}}"#;
    std::fs::write(folder.join("files.json"), text).unwrap();
    let ended = world.submit(&[]);
    assert_ended(&world, &ended, Reason::Configuration, &["files.json", "`files`", "1X"]);
}

#[test]
fn an_mcp_configuration_that_is_no_json_is_named_with_line_and_column() {
    let mut world = World::start(silent());
    let folder = world.path("mcp");
    std::fs::create_dir_all(&folder).unwrap();
    world.set("ORCHESTRATOR_MCP_CONFIGS", folder.to_str().unwrap());
    std::fs::write(folder.join("files.json"), "{\n  \"name\": files\n}\n").unwrap();
    let ended = world.submit(&[]);
    assert_ended(&world, &ended, Reason::Configuration, &["files.json", "line 2"]);
}

#[test]
fn an_mcp_server_that_nobody_knows_is_named_with_those_that_are_known() {
    let world = World::start(silent());
    std::fs::write(world.path("orchestrator.toml"), "[services.trader]\nmcp_servers = [\"poetry\"]\n")
        .unwrap();
    let (ran, outcome) = world.submit(&[]);
    assert_eq!(outcome.reason, Reason::Configuration, "{ran:#?}\n{outcome:#?}");
    assert_eq!(ran.code, 78);
    assert_says(&world, &outcome.message, &["poetry", "memory"]);
    world.assert_invariants(&outcome);
}

#[test]
fn a_malformed_orchestrator_toml_is_named_with_line_and_column() {
    let world = World::start(silent());
    let file = world.path("orchestrator.toml");
    std::fs::write(&file, "[defaults]\nmodel = opus\n").unwrap();
    let ran = world.try_submit("trader", "1", &[]);
    let place = format!("{}:2:9", file.display());
    assert_refused(&world, &ran, Reason::Configuration, &[&place, "Mend the file"]);
    std::fs::write(&file, "[defaults]\nmodell = \"opus\"\n").unwrap();
    let ran = world.try_submit("trader", "1", &[]);
    let place = format!("{}:2:1", file.display());
    assert_refused(&world, &ran, Reason::Configuration, &[&place, "modell", "model"]);
}

#[test]
fn a_task_file_that_is_no_task_names_every_fault() {
    let world = World::start(silent());
    let (file, workspace) = (world.path("task.json"), world.path("ws"));
    let run = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let (file, workspace) = (file.to_str().unwrap(), workspace.to_str().unwrap());
        world.supervisor(&["--task-file", file, "--workspace", workspace])
    };
    let ran = run("{\n  \"version\": 1,\n");
    assert_supervisor_refused(&world, &ran, Reason::InvalidTask, &["task.json", "line 3"]);
    let ran = run(r#"{"version": 1, "service": "../x"}"#);
    assert_supervisor_refused(&world, &ran, Reason::InvalidTask, &["task.json", "../x"]);
    let ran = world.supervisor(&["--task-file", "/nowhere/task.json"]);
    assert_supervisor_refused(&world, &ran, Reason::InvalidTask, &["/nowhere/task.json"]);
    assert!(!workspace.exists());
}

#[test]
fn a_supervisor_without_a_task_names_every_flag_that_is_missing() {
    let world = World::start(silent());
    let workspace = world.path("ws");
    let ran = world.supervisor(&["--workspace", workspace.to_str().unwrap()]);
    let flags = ["--task", "--service", "--repository-url", "--platform-repository-url"];
    assert_supervisor_refused(&world, &ran, Reason::InvalidTask, &flags);
    assert!(!workspace.exists());
}

#[test]
fn a_supervisor_with_an_unknown_flag_says_so_on_stderr() {
    let world = World::start(silent());
    let ran = world.supervisor(&["--tusk", "1"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (64, ""), "{ran:#?}");
    assert_says(&world, &ran.stderr, &["--tusk", "--task"]);
}

#[test]
fn a_retry_of_nothing_is_refused_by_both_programs() {
    let world = World::start(silent());
    for mode in ["--retry", "--fresh"] {
        let ran = world.try_submit("trader", "1", &[mode]);
        assert_refused(&world, &ran, Reason::InvalidTask, &["no earlier attempt"]);
        let ran = supervisor(&world, &world.path("ws"), &[mode]);
        assert_supervisor_refused(&world, &ran, Reason::InvalidTask, &["no earlier attempt"]);
    }
}

#[test]
fn an_address_with_a_credential_is_refused_and_the_credential_is_not_repeated() {
    let world = World::start(silent());
    let with = |repository| world.git.url(repository).replace("http://", "http://ada:hunter2secret@");
    for (flag, repository) in
        [("--repository-url", "acme/trader"), ("--platform-repository-url", "acme/platform")]
    {
        let url = with(repository);
        let ran = world.try_submit("trader", "1", &[flag, &url]);
        assert_refused(&world, &ran, Reason::InvalidTask, &[repository, "carries credentials"]);
        assert!(!format!("{ran:?}").contains("hunter2secret"), "{ran:#?}");
        let workspace = world.path("ws");
        let mut flags = world.task_flags(&workspace);
        let at = flags.iter().position(|known| known == flag).unwrap();
        flags[at + 1] = url;
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let ran = world.supervisor(&flags);
        assert_supervisor_refused(&world, &ran, Reason::InvalidTask, &[flag, "credential"]);
        assert!(!format!("{ran:?}").contains("hunter2secret"), "{ran:#?}");
    }
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let world = World::start(silent());
    for (flag, value, word) in
        [("--minutes", "-5", "minutes"), ("--cost", "0", "cost"), ("--turns", "0", "turns")]
    {
        let ran = world.try_submit("trader", "1", &[flag, value]);
        assert_refused(&world, &ran, Reason::InvalidTask, &[word]);
    }
}

#[test]
fn a_check_of_a_good_task_says_so_and_changes_nothing() {
    let world = World::start(silent());
    let workspace = world.path("ws");
    let ran = supervisor(&world, &workspace, &["check"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_says(&world, &ran.stdout, &["check"]);
    assert!(!workspace.join("target-repo").exists());
    assert_eq!(world.git.tips("acme/trader").len(), 1);
}

#[test]
fn a_check_of_a_bad_task_ends_as_the_run_would() {
    let mut world = World::start(silent());
    world.set("ORCHESTRATOR_CLAUDE", "/nowhere/claude");
    let ran = supervisor(&world, &world.path("ws"), &["check"]);
    assert_eq!(ran.code, 78, "{ran:#?}");
    let outcome = ran.outcome().expect("an outcome");
    assert_eq!(outcome.reason, Reason::AgentMissing);
    assert_says(&world, &outcome.message, &["/nowhere/claude"]);
    world.assert_invariants(&outcome);
}

#[test]
fn a_run_until_the_branch_leaves_a_prepared_workspace() {
    let world = World::start(silent());
    let workspace = world.path("ws");
    let ran = supervisor(&world, &workspace, &["--until", "branch"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_says(&world, &ran.stdout, &["branch"]);
    assert!(workspace.join("target-repo/src/lib.rs").is_file());
    assert!(workspace.join("platform-repo/.taskmaster/docs/task-1/task.md").is_file());
    let head = std::fs::read_to_string(workspace.join("target-repo/.git/HEAD")).unwrap();
    assert_eq!(head.trim(), "ref: refs/heads/feature/task-1-implementation");
    assert_eq!(world.git.tips("acme/trader").len(), 1);
}

#[test]
fn a_task_by_environment_alone_is_a_task() {
    let mut world = World::start(silent());
    let workspace = world.path("ws");
    for (name, value) in [
        ("ORCHESTRATOR_TASK", "1"),
        ("ORCHESTRATOR_SERVICE", "trader"),
        ("ORCHESTRATOR_REPOSITORY_URL", &world.git.url("acme/trader")),
        ("ORCHESTRATOR_PLATFORM_REPOSITORY_URL", &world.git.url("acme/platform")),
        ("ORCHESTRATOR_WORKSPACE", workspace.to_str().unwrap()),
    ] {
        world.set(name, value);
    }
    let ran = world.supervisor(&["check"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    world.set("ORCHESTRATOR_TASK", "seven");
    let ran = world.supervisor(&["check"]);
    assert_supervisor_refused(&world, &ran, Reason::InvalidTask, &["seven"]);
}

#[test]
fn a_model_key_that_the_service_refuses_is_told_from_other_failures() {
    let mut world = World::start(Script::new().turn(Turn::text("never")));
    world.set("ANTHROPIC_API_KEY", "sk-ant-api03-wrong");
    let (ran, outcome) = world.submit(&[]);
    assert_eq!(outcome.reason, Reason::ModelAuthenticationFailed, "{ran:#?}\n{outcome:#?}");
    assert_eq!(ran.code, 77);
    world.assert_invariants(&outcome);
}

#[test]
fn an_archived_repository_is_refused_before_the_model_is_asked() {
    let world = World::start(silent());
    world.github.archive("acme/trader");
    let ended = world.submit(&[]);
    assert_ended(&world, &ended, Reason::PermissionDenied, &["acme/trader", "is archived"]);
}

#[test]
fn a_token_is_not_shown_to_a_host_that_it_is_not_for() {
    let mut world = World::start(silent());
    world.set("GITHUB_API_URL", "");
    let ended = world.submit(&[]);
    assert_ended(&world, &ended, Reason::CredentialMissing, &["not shown to `127.0.0.1`", "git_hosts"]);
    let shown = |world: &World| world.git.requests().iter().any(|request| request.authorization.is_some());
    assert!(!shown(&world), "the token was sent");
    world.set("ORCHESTRATOR_GIT_HOSTS", "git.example.com,127.0.0.1");
    let (ran, outcome) = world.submit(&["--no-pull-request", "--retry"]);
    assert_ne!(outcome.reason, Reason::CredentialMissing, "{ran:#?}");
    assert!(shown(&world), "the token was not sent: {ran:#?}");
}
