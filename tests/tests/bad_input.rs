//! Input that cannot be used: a clear message, the right exit code, and nothing spent.

use std::path::Path;

use orchestrator_contract::outcome::WorkLocation;
use orchestrator_contract::{Outcome, Reason, Step};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects;
use orchestrator_tests::test_env::{CommandOutput, TestEnv};

/// A model that must not be asked.
fn silent() -> Script {
    Script::new()
}

/// The message says all of this, and no request reached the model.
#[track_caller]
fn assert_says(world: &TestEnv, text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    assert_eq!(world.model.requests().len(), 0, "the model was asked");
    assert_eq!(world.github.pulls().len(), 0);
}

/// A run that ended before anything was prepared: reason, exit code, words of its message.
#[track_caller]
fn assert_ended(world: &TestEnv, (ran, outcome): &(CommandOutput, Outcome), reason: Reason, words: &[&str]) {
    assert_eq!(outcome.reason, reason, "{ran:#?}\n{outcome:#?}");
    assert_eq!(ran.code, i32::from(reason.exit_code()), "{ran:#?}");
    assert_eq!(outcome.work.location, WorkLocation::None);
    assert!(outcome.message.contains(reason.hint()), "no next step: {}", outcome.message);
    assert_says(world, &outcome.message, words);
    assert!(ran.stdout.contains(words[0]) || ran.stderr.contains(words[0]), "not said: {ran:#?}");
    if outcome.step == Step::Preflight {
        let layout = world.layout("trader");
        for folder in [layout.target_repo(), layout.platform_repo(), layout.target_control()] {
            assert!(!folder.exists(), "{} was made", folder.display());
        }
    }
    world.assert_invariants(outcome);
}

/// A submission that the dispatcher itself refuses: it leaves no trace.
#[track_caller]
fn assert_refused(world: &TestEnv, ran: &CommandOutput, reason: Reason, words: &[&str]) {
    assert_eq!(ran.code, i32::from(reason.exit_code()), "{ran:#?}");
    assert_says(world, &ran.stderr, words);
    let state: Vec<_> = std::fs::read_dir(world.state()).into_iter().flatten().flatten().collect();
    assert!(state.is_empty(), "written: {state:?}");
}

/// A supervisor that ends without a run: its last line says why.
#[track_caller]
fn assert_supervisor_refused(world: &TestEnv, ran: &CommandOutput, reason: Reason, words: &[&str]) {
    assert_eq!(ran.code, i32::from(reason.exit_code()), "{ran:#?}");
    let said = ran.events().pop().map(|event| event.message).unwrap_or_default();
    assert!(said.contains(&reason.to_string()), "{said}");
    assert_says(world, &said, words);
}

fn supervisor(world: &TestEnv, workspace: &Path, more: &[&str]) -> CommandOutput {
    let flags = world.task_flags(workspace);
    let flags: Vec<&str> = more.iter().copied().chain(flags.iter().map(String::as_str)).collect();
    world.supervisor(&flags)
}

fn platform_without(gone: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    projects::platform().into_iter().filter(|(path, _)| !gone(path)).collect()
}

#[test]
fn unknown_task_error_lists_known_tasks() {
    let world = TestEnv::start(silent());
    let ended = world.submit_for("trader", "99", &[]);
    assert_ended(&world, &ended, Reason::TaskNotFound, &["99", "tasks.json", "1, 2"]);
}

#[test]
fn documents_not_found_names_searched_folders() {
    let world = TestEnv::with(silent(), platform_without(|path| path.starts_with(".taskmaster")), "main");
    let ended = world.submit(&[]);
    let places = ["trader/.taskmaster/", "projects/trader/.taskmaster/"];
    assert_ended(&world, &ended, Reason::DocumentsNotFound, &places);
}

#[test]
fn documents_not_found_without_entry_names_searched_files() {
    let gone = |path: &str| path.ends_with("tasks.json") || path.contains("/task-1/");
    let world = TestEnv::with(silent(), platform_without(gone), "main");
    let ended = world.submit(&[]);
    let files = [".taskmaster/tasks/tasks.json", ".taskmaster/docs/task-1/task.md"];
    assert_ended(&world, &ended, Reason::DocumentsNotFound, &files);
}

#[test]
fn invalid_tasks_json_error_has_line_and_column() {
    let broken = |(path, text): (String, String)| {
        let text = if path.ends_with("tasks.json") { "{\n  \"master\": {,\n".to_owned() } else { text };
        (path, text)
    };
    let world = TestEnv::with(silent(), projects::platform().into_iter().map(broken).collect(), "main");
    let ended = world.submit(&[]);
    assert_ended(&world, &ended, Reason::InvalidTask, &["tasks.json", "line 2, column 14"]);
}

#[test]
fn service_name_with_path_is_rejected_immediately() {
    let world = TestEnv::start(silent());
    let ran = world.try_submit("../x", "1", &[]);
    assert_refused(&world, &ran, Reason::InvalidTask, &["--service", "../x"]);
}

#[test]
fn revoked_token_is_not_reported_as_missing_repository() {
    let mut world = TestEnv::start(silent());
    world.set("GITHUB_TOKEN", "ghp_thisTokenWasRevokedLongAgo0000000000");
    let ended = world.submit(&[]);
    let words = ["acme/"];
    assert_ended(&world, &ended, Reason::AuthenticationFailed, &words);
    assert!(!format!("{ended:?}").contains("ghp_this"), "{ended:#?}");
}

#[test]
fn missing_repository_is_named() {
    let world = TestEnv::start(silent());
    let url = world.git.url("acme/nothing");
    let ended = world.submit(&["--repository-url", &url]);
    assert_ended(&world, &ended, Reason::RepositoryNotFound, &["acme/nothing"]);
}

#[test]
fn read_only_target_is_rejected_in_preflight() {
    use orchestrator_tests::git_server::Access;
    let world = TestEnv::start(silent());
    world.git.allow_in("acme/trader", world.token.clone(), Access::Read);
    let ended = world.submit(&[]);
    assert_ended(&world, &ended, Reason::PermissionDenied, &["acme/trader"]);
}

#[test]
fn missing_branch_error_lists_existing_branches() {
    let world = TestEnv::start(silent());
    let ended = world.submit(&["--branch", "develop"]);
    assert_ended(&world, &ended, Reason::BranchNotFound, &["develop", "main"]);
}

#[test]
fn missing_platform_branch_is_named() {
    let world = TestEnv::start(silent());
    let ended = world.submit(&["--platform-branch", "docs"]);
    assert_ended(&world, &ended, Reason::BranchNotFound, &["docs", "acme/platform"]);
}

#[test]
fn branch_without_known_attempt_is_not_modified() {
    let mut world = TestEnv::start(silent());
    world.git.commit("acme/trader", "feature/task-1-implementation", "By hand", &[("hand.txt", "1\n")]);
    world.remember_refs();
    let ended = world.submit(&[]);
    let words = ["feature/task-1-implementation", "retry", "fresh"];
    assert_ended(&world, &ended, Reason::BranchExists, &words);
}

#[test]
fn missing_model_credential_error_lists_alternatives() {
    let mut world = TestEnv::start(silent());
    world.set("ANTHROPIC_API_KEY", "");
    let ended = world.submit(&[]);
    let words = ["ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "Bedrock"];
    assert_ended(&world, &ended, Reason::CredentialMissing, &words);
}

#[test]
fn missing_token_ends_run_before_agent() {
    let mut world = TestEnv::start(silent());
    world.set("GITHUB_TOKEN", "");
    // `gh` of the machine must not lend its own.
    let ended = world.submit(&[]);
    assert_ended(&world, &ended, Reason::CredentialMissing, &["GITHUB_TOKEN"]);
}

#[test]
fn agent_cli_not_found_names_path() {
    let mut world = TestEnv::start(silent());
    world.set("ORCHESTRATOR_CLAUDE", "/nowhere/claude");
    let ran = world.try_submit("trader", "1", &[]);
    assert_refused(&world, &ran, Reason::AgentCliNotFound, &["/nowhere/claude"]);
}

#[test]
fn model_not_found_names_model() {
    let world = TestEnv::start(silent());
    let (ran, outcome) = world.submit(&["--model", "claude-poet-9"]);
    assert_eq!(outcome.reason, Reason::ModelNotFound, "{ran:#?}\n{outcome:#?}");
    assert_eq!(ran.code, 78);
    assert!(outcome.message.contains("claude-poet-9"), "{}", outcome.message);
    world.assert_invariants(&outcome);
}

#[test]
fn working_directory_outside_repository_fails_immediately() {
    let world = TestEnv::start(silent());
    for path in ["../other", "a/../../b", "/etc"] {
        let ran = world.try_submit("trader", "1", &["--working-directory", path]);
        assert_refused(&world, &ran, Reason::InvalidTask, &["--working-directory", path]);
    }
}

#[test]
fn working_directory_through_symlink_is_rejected() {
    let mut world = TestEnv::start(silent());
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
fn unwritable_workspace_is_named() {
    let world = TestEnv::start(silent());
    let file = world.path("file");
    std::fs::write(&file, "").unwrap();
    let workspace = file.join("workspace");
    let ran = supervisor(&world, &workspace, &[]);
    assert_supervisor_refused(&world, &ran, Reason::WorkspaceUnwritable, &[workspace.to_str().unwrap()]);
}

#[test]
fn dispatcher_names_unwritable_workspace() {
    let world = TestEnv::start(silent());
    let workspace = world.layout("trader").root().to_owned();
    std::fs::create_dir_all(workspace.parent().unwrap()).unwrap();
    std::fs::write(&workspace, "").unwrap();
    let ran = world.try_submit("trader", "1", &[]);
    assert_eq!(ran.code, 73, "{ran:#?}");
    assert_says(&world, &format!("{}{}", ran.stdout, ran.stderr), &["workspace-trader"]);
}

#[test]
fn malformed_mcp_config_error_names_file_and_server() {
    let mut world = TestEnv::start(silent());
    let folder = world.path("mcp");
    std::fs::create_dir_all(&folder).unwrap();
    world.set("ORCHESTRATOR_MCP_CONFIG_DIR", folder.to_str().unwrap());
    let text = r#"{"name": "files", "description": "Files", "command": "files", "env": {"1X": "y"}}"#;
    std::fs::write(folder.join("files.json"), text).unwrap();
    let ended = world.submit(&[]);
    assert_ended(&world, &ended, Reason::InvalidConfiguration, &["files.json", "`files`", "1X"]);
}

#[test]
fn invalid_mcp_config_json_error_names_file_with_line() {
    let mut world = TestEnv::start(silent());
    let folder = world.path("mcp");
    std::fs::create_dir_all(&folder).unwrap();
    world.set("ORCHESTRATOR_MCP_CONFIG_DIR", folder.to_str().unwrap());
    std::fs::write(folder.join("files.json"), "{\n  \"name\": files\n}\n").unwrap();
    let ended = world.submit(&[]);
    assert_ended(&world, &ended, Reason::InvalidConfiguration, &["files.json", "line 2"]);
}

#[test]
fn unknown_mcp_server_error_lists_known_servers() {
    let world = TestEnv::start(silent());
    std::fs::write(world.path("orchestrator.toml"), "[services.trader]\nmcp_servers = [\"poetry\"]\n")
        .unwrap();
    let (ran, outcome) = world.submit(&[]);
    assert_eq!(outcome.reason, Reason::InvalidConfiguration, "{ran:#?}\n{outcome:#?}");
    assert_eq!(ran.code, 78);
    assert_says(&world, &outcome.message, &["poetry", "memory"]);
    world.assert_invariants(&outcome);
}

#[test]
fn malformed_orchestrator_toml_error_has_line_and_column() {
    let world = TestEnv::start(silent());
    let file = world.path("orchestrator.toml");
    std::fs::write(&file, "[defaults]\nmodel = opus\n").unwrap();
    let ran = world.try_submit("trader", "1", &[]);
    let place = format!("{}:2:9", file.display());
    assert_refused(&world, &ran, Reason::InvalidConfiguration, &[&place, "Mend the file"]);
    std::fs::write(&file, "[defaults]\nmodell = \"opus\"\n").unwrap();
    let ran = world.try_submit("trader", "1", &[]);
    let place = format!("{}:2:1", file.display());
    assert_refused(&world, &ran, Reason::InvalidConfiguration, &[&place, "modell", "model"]);
}

#[test]
fn invalid_task_file_error_names_every_problem() {
    let world = TestEnv::start(silent());
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
fn missing_task_error_names_every_missing_flag() {
    let world = TestEnv::start(silent());
    let workspace = world.path("ws");
    let ran = world.supervisor(&["--workspace", workspace.to_str().unwrap()]);
    let flags = ["--task", "--service", "--repository-url", "--platform-repository-url"];
    assert_supervisor_refused(&world, &ran, Reason::InvalidTask, &flags);
    assert!(!workspace.exists());
}

#[test]
fn unknown_supervisor_flag_is_reported_on_stderr() {
    let world = TestEnv::start(silent());
    let ran = world.supervisor(&["--tusk", "1"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (64, ""), "{ran:#?}");
    assert_says(&world, &ran.stderr, &["--tusk", "--task"]);
}

#[test]
fn retry_without_earlier_attempt_is_rejected_by_both_programs() {
    let world = TestEnv::start(silent());
    for mode in ["--retry", "--fresh"] {
        let ran = world.try_submit("trader", "1", &[mode]);
        assert_refused(&world, &ran, Reason::InvalidTask, &["no earlier attempt"]);
        let ran = supervisor(&world, &world.path("ws"), &[mode]);
        assert_supervisor_refused(&world, &ran, Reason::InvalidTask, &["no earlier attempt"]);
    }
}

#[test]
fn url_with_credential_is_rejected_without_repeating_it() {
    let world = TestEnv::start(silent());
    let with = |repository| world.git.url(repository).replace("http://", "http://ada:hunter2secret@");
    for (flag, repository) in
        [("--repository-url", "acme/trader"), ("--platform-repository-url", "acme/platform")]
    {
        let url = with(repository);
        let ran = world.try_submit("trader", "1", &[flag, &url]);
        assert_refused(&world, &ran, Reason::InvalidTask, &[repository, "contains credentials"]);
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
fn out_of_range_limits_are_rejected() {
    let world = TestEnv::start(silent());
    for (flag, value, word) in
        [("--minutes", "-5", "minutes"), ("--cost", "0", "cost"), ("--turns", "0", "turns")]
    {
        let ran = world.try_submit("trader", "1", &[flag, value]);
        assert_refused(&world, &ran, Reason::InvalidTask, &[word]);
    }
}

#[test]
fn check_command_on_valid_task_changes_nothing() {
    let world = TestEnv::start(silent());
    let workspace = world.path("ws");
    let ran = supervisor(&world, &workspace, &["check"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_says(&world, &ran.stdout, &["check"]);
    assert!(!workspace.join("target-repo").exists());
    assert_eq!(world.git.tips("acme/trader").len(), 1);
}

#[test]
fn check_command_on_invalid_task_fails_like_run() {
    let mut world = TestEnv::start(silent());
    world.set("ORCHESTRATOR_CLAUDE", "/nowhere/claude");
    let ran = supervisor(&world, &world.path("ws"), &["check"]);
    assert_eq!(ran.code, 78, "{ran:#?}");
    let outcome = ran.outcome().expect("an outcome");
    assert_eq!(outcome.reason, Reason::AgentCliNotFound);
    assert_says(&world, &outcome.message, &["/nowhere/claude"]);
    world.assert_invariants(&outcome);
}

#[test]
fn run_until_branch_leaves_prepared_workspace() {
    let world = TestEnv::start(silent());
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
fn task_from_environment_variables_is_accepted() {
    let mut world = TestEnv::start(silent());
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
fn rejected_model_key_is_distinguished_from_other_errors() {
    let mut world = TestEnv::start(Script::new().turn(Turn::text("never")));
    world.set("ANTHROPIC_API_KEY", "sk-ant-api03-wrong");
    let (ran, outcome) = world.submit(&[]);
    assert_eq!(outcome.reason, Reason::ModelAuthenticationFailed, "{ran:#?}\n{outcome:#?}");
    assert_eq!(ran.code, 77);
    world.assert_invariants(&outcome);
}

#[test]
fn archived_repository_is_rejected_before_model_request() {
    let world = TestEnv::start(silent());
    world.github.archive("acme/trader");
    let ended = world.submit(&[]);
    assert_ended(&world, &ended, Reason::PermissionDenied, &["acme/trader", "is archived"]);
}

#[test]
fn token_is_not_sent_to_unlisted_host() {
    let mut world = TestEnv::start(silent());
    world.set("GITHUB_API_URL", "");
    let ended = world.submit(&[]);
    assert_ended(&world, &ended, Reason::CredentialMissing, &["not shown to `127.0.0.1`", "git_hosts"]);
    let shown = |world: &TestEnv| world.git.requests().iter().any(|request| request.authorization.is_some());
    assert!(!shown(&world), "the token was sent");
    world.set("ORCHESTRATOR_GIT_HOSTS", "git.example.com,127.0.0.1");
    let (ran, outcome) = world.submit(&["--no-pull-request", "--retry"]);
    assert_ne!(outcome.reason, Reason::CredentialMissing, "{ran:#?}");
    assert!(shown(&world), "the token was not sent: {ran:#?}");
}
