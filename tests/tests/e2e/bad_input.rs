//! Invalid input: a clear message, the right exit code, and no model request.

use std::path::Path;

use orchestrator_contract::outcome::WorkLocation;
use orchestrator_contract::{Outcome, Reason, Step};
use orchestrator_tests::command::CommandOutput;
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects;
use orchestrator_tests::test_env::TestEnv;

/// A model that must not be requested.
fn silent() -> Script {
    Script::new()
}

/// Asserts that the text contains all words, and that no request reached the model.
#[track_caller]
fn assert_contains_all(env: &TestEnv, text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    assert_eq!(env.model.requests().len(), 0, "the model was requested");
    assert_eq!(env.github.pulls().len(), 0);
}

/// Asserts reason, exit code and message of a run that ended before preparation.
#[track_caller]
fn assert_ended(env: &TestEnv, (output, outcome): &(CommandOutput, Outcome), reason: Reason, words: &[&str]) {
    assert_eq!(outcome.reason, reason, "{output:#?}\n{outcome:#?}");
    assert_eq!(output.code, i32::from(reason.exit_code()), "{output:#?}");
    assert_eq!(outcome.work.location, WorkLocation::None);
    assert!(outcome.message.contains(reason.hint()), "no next step: {}", outcome.message);
    assert_contains_all(env, &outcome.message, words);
    assert!(
        output.stdout.contains(words[0]) || output.stderr.contains(words[0]),
        "not reported: {output:#?}"
    );
    if outcome.step == Step::Preflight {
        let layout = env.layout("trader");
        for folder in [layout.target_repo(), layout.platform_repo(), layout.target_control()] {
            assert!(!folder.exists(), "{} was made", folder.display());
        }
    }
    env.assert_invariants(outcome);
}

/// Asserts a submission that the dispatcher rejects without a trace.
#[track_caller]
fn assert_refused(env: &TestEnv, output: &CommandOutput, reason: Reason, words: &[&str]) {
    assert_eq!(output.code, i32::from(reason.exit_code()), "{output:#?}");
    assert_contains_all(env, &output.stderr, words);
    let state: Vec<_> = std::fs::read_dir(env.state()).into_iter().flatten().flatten().collect();
    assert!(state.is_empty(), "written: {state:?}");
}

/// Asserts a supervisor that rejects its input: its last line has the reason.
#[track_caller]
fn assert_supervisor_refused(env: &TestEnv, output: &CommandOutput, reason: Reason, words: &[&str]) {
    assert_eq!(output.code, i32::from(reason.exit_code()), "{output:#?}");
    let message = output.events().pop().map(|event| event.message).unwrap_or_default();
    assert!(message.contains(&reason.to_string()), "{message}");
    assert_contains_all(env, &message, words);
}

fn supervisor(env: &TestEnv, workspace: &Path, more: &[&str]) -> CommandOutput {
    let flags = env.task_flags(workspace);
    let flags: Vec<&str> = more.iter().copied().chain(flags.iter().map(String::as_str)).collect();
    env.supervisor(&flags)
}

fn platform_without(excluded: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    projects::platform().into_iter().filter(|(path, _)| !excluded(path)).collect()
}

#[test]
fn unknown_task_error_lists_known_tasks() {
    let env = TestEnv::start(silent());
    let ended = env.submit_for("trader", "99", &[]);
    assert_ended(&env, &ended, Reason::TaskNotFound, &["99", "tasks.json", "1, 2"]);
}

#[test]
fn documents_not_found_names_searched_folders() {
    let env = TestEnv::with(silent(), platform_without(|path| path.starts_with(".taskmaster")), "main");
    let ended = env.submit(&[]);
    let places = ["trader/.taskmaster/", "projects/trader/.taskmaster/"];
    assert_ended(&env, &ended, Reason::DocumentsNotFound, &places);
}

#[test]
fn documents_not_found_without_entry_names_searched_files() {
    let excluded = |path: &str| path.ends_with("tasks.json") || path.contains("/task-1/");
    let env = TestEnv::with(silent(), platform_without(excluded), "main");
    let ended = env.submit(&[]);
    let files = [".taskmaster/tasks/tasks.json", ".taskmaster/docs/task-1/task.md"];
    assert_ended(&env, &ended, Reason::DocumentsNotFound, &files);
}

#[test]
fn invalid_tasks_json_error_has_line_and_column() {
    let broken = |(path, text): (String, String)| {
        let text = if path.ends_with("tasks.json") { "{\n  \"master\": {,\n".to_owned() } else { text };
        (path, text)
    };
    let env = TestEnv::with(silent(), projects::platform().into_iter().map(broken).collect(), "main");
    let ended = env.submit(&[]);
    assert_ended(&env, &ended, Reason::InvalidTask, &["tasks.json", "line 2, column 14"]);
}

#[test]
fn service_name_with_path_is_rejected_immediately() {
    let env = TestEnv::start(silent());
    let output = env.try_submit("../x", "1", &[]);
    assert_refused(&env, &output, Reason::InvalidTask, &["--service", "../x"]);
}

#[test]
fn revoked_token_is_not_reported_as_missing_repository() {
    let mut env = TestEnv::start(silent());
    env.set("GITHUB_TOKEN", "ghp_thisTokenWasRevokedLongAgo0000000000");
    let ended = env.submit(&[]);
    let words = ["acme/"];
    assert_ended(&env, &ended, Reason::AuthenticationFailed, &words);
    assert!(!format!("{ended:?}").contains("ghp_this"), "{ended:#?}");
}

#[test]
fn missing_repository_is_named() {
    let env = TestEnv::start(silent());
    let url = env.git.url("acme/nothing");
    let ended = env.submit(&["--repository-url", &url]);
    assert_ended(&env, &ended, Reason::RepositoryNotFound, &["acme/nothing"]);
}

#[test]
fn read_only_target_is_rejected_in_preflight() {
    use orchestrator_tests::git_server::Access;
    let env = TestEnv::start(silent());
    env.git.allow_in("acme/trader", env.token.clone(), Access::Read);
    let ended = env.submit(&[]);
    assert_ended(&env, &ended, Reason::PermissionDenied, &["acme/trader"]);
}

#[test]
fn missing_branch_error_lists_existing_branches() {
    let env = TestEnv::start(silent());
    let ended = env.submit(&["--branch", "develop"]);
    assert_ended(&env, &ended, Reason::BranchNotFound, &["develop", "main"]);
}

#[test]
fn missing_platform_branch_is_named() {
    let env = TestEnv::start(silent());
    let ended = env.submit(&["--platform-branch", "docs"]);
    assert_ended(&env, &ended, Reason::BranchNotFound, &["docs", "acme/platform"]);
}

#[test]
fn branch_without_known_attempt_is_not_modified() {
    let mut env = TestEnv::start(silent());
    env.git.commit("acme/trader", "feature/task-1-implementation", "By hand", &[("hand.txt", "1\n")]);
    env.record_refs();
    let ended = env.submit(&[]);
    let words = ["feature/task-1-implementation", "retry", "fresh"];
    assert_ended(&env, &ended, Reason::BranchExists, &words);
}

#[test]
fn missing_model_credential_error_lists_alternatives() {
    let mut env = TestEnv::start(silent());
    env.set("ANTHROPIC_API_KEY", "");
    let ended = env.submit(&[]);
    let words = ["ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "Bedrock"];
    assert_ended(&env, &ended, Reason::CredentialMissing, &words);
}

#[test]
fn cloud_credential_needs_weaker_sandbox_setting() {
    for variable in ["CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX"] {
        let mut env = TestEnv::start(silent());
        env.set("ANTHROPIC_API_KEY", "");
        env.set(variable, "1");
        let ended = env.submit(&[]);
        let words = ["gateway", "ANTHROPIC_API_KEY", "--sandbox best-effort", "cloud credential"];
        assert_ended(&env, &ended, Reason::InvalidConfiguration, &words);
    }
}

#[test]
fn missing_token_ends_run_before_agent() {
    let mut env = TestEnv::start(silent());
    env.set("GITHUB_TOKEN", "");
    // A `gh` login of the machine must not be used.
    let ended = env.submit(&[]);
    assert_ended(&env, &ended, Reason::CredentialMissing, &["GITHUB_TOKEN"]);
}

#[test]
fn agent_cli_not_found_names_path() {
    let mut env = TestEnv::start(silent());
    env.set("ORCHESTRATOR_CLAUDE", "/nowhere/claude");
    let output = env.try_submit("trader", "1", &[]);
    assert_refused(&env, &output, Reason::AgentCliNotFound, &["/nowhere/claude"]);
}

#[test]
fn model_not_found_names_model() {
    let env = TestEnv::start(silent());
    let (output, outcome) = env.submit(&["--model", "claude-poet-9"]);
    assert_eq!(outcome.reason, Reason::ModelNotFound, "{output:#?}\n{outcome:#?}");
    assert_eq!(output.code, 78);
    assert!(outcome.message.contains("claude-poet-9"), "{}", outcome.message);
    env.assert_invariants(&outcome);
}

#[test]
fn working_directory_outside_repository_fails_immediately() {
    let env = TestEnv::start(silent());
    for path in ["../other", "a/../../b", "/etc"] {
        let output = env.try_submit("trader", "1", &["--working-directory", path]);
        assert_refused(&env, &output, Reason::InvalidTask, &["--working-directory", path]);
    }
}

#[test]
fn working_directory_through_symlink_is_rejected() {
    let mut env = TestEnv::start(silent());
    let work = tempfile::tempdir().unwrap();
    env.git.clone_fresh("acme/trader", "main", work.path());
    std::os::unix::fs::symlink("/tmp", work.path().join("link")).unwrap();
    env.git.commit_tree("acme/trader", "main", work.path());
    env.record_refs();
    let (output, outcome) = env.submit(&["--working-directory", "link/inside"]);
    assert_eq!(outcome.reason, Reason::InvalidTask, "{output:#?}\n{outcome:#?}");
    assert_eq!(output.code, 64);
    assert_contains_all(&env, &outcome.message, &["link/inside", "`link`"]);
    env.assert_invariants(&outcome);
}

#[test]
fn unwritable_workspace_is_named() {
    let env = TestEnv::start(silent());
    let file = env.path("file");
    std::fs::write(&file, "").unwrap();
    let workspace = file.join("workspace");
    let output = supervisor(&env, &workspace, &[]);
    assert_supervisor_refused(&env, &output, Reason::WorkspaceUnwritable, &[workspace.to_str().unwrap()]);
}

#[test]
fn dispatcher_names_unwritable_workspace() {
    let env = TestEnv::start(silent());
    let workspace = env.layout("trader").root().to_owned();
    std::fs::create_dir_all(workspace.parent().unwrap()).unwrap();
    std::fs::write(&workspace, "").unwrap();
    let output = env.try_submit("trader", "1", &[]);
    assert_eq!(output.code, 73, "{output:#?}");
    assert_contains_all(&env, &format!("{}{}", output.stdout, output.stderr), &["workspace-trader"]);
}

#[test]
fn malformed_mcp_config_error_names_file_and_server() {
    let mut env = TestEnv::start(silent());
    let folder = env.path("mcp");
    std::fs::create_dir_all(&folder).unwrap();
    env.set("ORCHESTRATOR_MCP_CONFIG_DIR", folder.to_str().unwrap());
    let text = r#"{"name": "files", "description": "Files", "command": "files", "env": {"1X": "y"}}"#;
    std::fs::write(folder.join("files.json"), text).unwrap();
    let ended = env.submit(&[]);
    assert_ended(&env, &ended, Reason::InvalidConfiguration, &["files.json", "`files`", "1X"]);
}

#[test]
fn invalid_mcp_config_json_error_names_file_with_line() {
    let mut env = TestEnv::start(silent());
    let folder = env.path("mcp");
    std::fs::create_dir_all(&folder).unwrap();
    env.set("ORCHESTRATOR_MCP_CONFIG_DIR", folder.to_str().unwrap());
    std::fs::write(folder.join("files.json"), "{\n  \"name\": files\n}\n").unwrap();
    let ended = env.submit(&[]);
    assert_ended(&env, &ended, Reason::InvalidConfiguration, &["files.json", "line 2"]);
}

#[test]
fn unknown_mcp_server_error_lists_known_servers() {
    let env = TestEnv::start(silent());
    std::fs::write(env.path("orchestrator.toml"), "[services.trader]\nmcp_servers = [\"poetry\"]\n").unwrap();
    let (output, outcome) = env.submit(&[]);
    assert_eq!(outcome.reason, Reason::InvalidConfiguration, "{output:#?}\n{outcome:#?}");
    assert_eq!(output.code, 78);
    assert_contains_all(&env, &outcome.message, &["poetry", "memory"]);
    env.assert_invariants(&outcome);
}

#[test]
fn malformed_orchestrator_toml_error_has_line_and_column() {
    let env = TestEnv::start(silent());
    let file = env.path("orchestrator.toml");
    std::fs::write(&file, "[defaults]\nmodel = opus\n").unwrap();
    let output = env.try_submit("trader", "1", &[]);
    let place = format!("{}:2:9", file.display());
    assert_refused(&env, &output, Reason::InvalidConfiguration, &[&place, "Fix the file"]);
    std::fs::write(&file, "[defaults]\nmodell = \"opus\"\n").unwrap();
    let output = env.try_submit("trader", "1", &[]);
    let place = format!("{}:2:1", file.display());
    assert_refused(&env, &output, Reason::InvalidConfiguration, &[&place, "modell", "model"]);
}

#[test]
fn invalid_task_file_error_names_every_problem() {
    let env = TestEnv::start(silent());
    let (file, workspace) = (env.path("task.json"), env.path("ws"));
    let run = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let (file, workspace) = (file.to_str().unwrap(), workspace.to_str().unwrap());
        env.supervisor(&["--task-file", file, "--workspace", workspace])
    };
    let output = run("{\n  \"version\": 1,\n");
    assert_supervisor_refused(&env, &output, Reason::InvalidTask, &["task.json", "line 3"]);
    let output = run(r#"{"version": 1, "service": "../x"}"#);
    assert_supervisor_refused(&env, &output, Reason::InvalidTask, &["task.json", "../x"]);
    let output = env.supervisor(&["--task-file", "/nowhere/task.json"]);
    assert_supervisor_refused(&env, &output, Reason::InvalidTask, &["/nowhere/task.json"]);
    assert!(!workspace.exists());
}

#[test]
fn missing_task_error_names_every_missing_flag() {
    let env = TestEnv::start(silent());
    let workspace = env.path("ws");
    let output = env.supervisor(&["--workspace", workspace.to_str().unwrap()]);
    let flags = ["--task", "--service", "--repository-url", "--platform-repository-url"];
    assert_supervisor_refused(&env, &output, Reason::InvalidTask, &flags);
    assert!(!workspace.exists());
}

#[test]
fn unknown_supervisor_flag_is_reported_on_stderr() {
    let env = TestEnv::start(silent());
    let output = env.supervisor(&["--tusk", "1"]);
    assert_eq!((output.code, output.stdout.as_str()), (64, ""), "{output:#?}");
    assert_contains_all(&env, &output.stderr, &["--tusk", "--task"]);
}

#[test]
fn retry_without_earlier_attempt_is_rejected_by_both_programs() {
    let env = TestEnv::start(silent());
    let output = env.try_submit("trader", "1", &["--retry"]);
    assert_refused(&env, &output, Reason::InvalidTask, &["no earlier attempt"]);
    for mode in ["--retry", "--fresh"] {
        let output = supervisor(&env, &env.path("ws"), &[mode]);
        assert_supervisor_refused(&env, &output, Reason::InvalidTask, &["no earlier attempt"]);
    }
}

#[test]
fn url_with_credential_is_rejected_without_repeating_it() {
    let env = TestEnv::start(silent());
    let with = |repository| env.git.url(repository).replace("http://", "http://ada:hunter2secret@");
    for (flag, repository) in
        [("--repository-url", "acme/trader"), ("--platform-repository-url", "acme/platform")]
    {
        let url = with(repository);
        let output = env.try_submit("trader", "1", &[flag, &url]);
        assert_refused(&env, &output, Reason::InvalidTask, &[repository, "contains credentials"]);
        assert!(!format!("{output:?}").contains("hunter2secret"), "{output:#?}");
        let workspace = env.path("ws");
        let mut flags = env.task_flags(&workspace);
        let at = flags.iter().position(|known| known == flag).unwrap();
        flags[at + 1] = url;
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let output = env.supervisor(&flags);
        assert_supervisor_refused(&env, &output, Reason::InvalidTask, &[flag, "credential"]);
        assert!(!format!("{output:?}").contains("hunter2secret"), "{output:#?}");
    }
}

#[test]
fn out_of_range_limits_are_rejected() {
    let env = TestEnv::start(silent());
    for (flag, value, word) in
        [("--minutes", "-5", "minutes"), ("--cost", "0", "cost"), ("--turns", "0", "turns")]
    {
        let output = env.try_submit("trader", "1", &[flag, value]);
        assert_refused(&env, &output, Reason::InvalidTask, &[word]);
    }
}

#[test]
fn check_command_on_valid_task_changes_nothing() {
    let env = TestEnv::start(silent());
    let workspace = env.path("ws");
    let output = supervisor(&env, &workspace, &["check"]);
    assert_eq!(output.code, 0, "{output:#?}");
    assert_contains_all(&env, &output.stdout, &["check"]);
    assert!(!workspace.join("target-repo").exists());
    assert_eq!(env.git.tips("acme/trader").len(), 1);
}

#[test]
fn check_command_on_invalid_task_fails_like_run() {
    let mut env = TestEnv::start(silent());
    env.set("ORCHESTRATOR_CLAUDE", "/nowhere/claude");
    let output = supervisor(&env, &env.path("ws"), &["check"]);
    assert_eq!(output.code, 78, "{output:#?}");
    let outcome = output.outcome().expect("an outcome");
    assert_eq!(outcome.reason, Reason::AgentCliNotFound);
    assert_contains_all(&env, &outcome.message, &["/nowhere/claude"]);
    env.assert_invariants(&outcome);
}

#[test]
fn run_until_branch_leaves_prepared_workspace() {
    let env = TestEnv::start(silent());
    let workspace = env.path("ws");
    let output = supervisor(&env, &workspace, &["--until", "branch"]);
    assert_eq!(output.code, 0, "{output:#?}");
    assert_contains_all(&env, &output.stdout, &["branch"]);
    assert!(workspace.join("target-repo/src/lib.rs").is_file());
    assert!(workspace.join("platform-repo/.taskmaster/docs/task-1/task.md").is_file());
    let head = std::fs::read_to_string(workspace.join("target-repo/.git/HEAD")).unwrap();
    assert_eq!(head.trim(), "ref: refs/heads/feature/task-1-implementation");
    assert_eq!(env.git.tips("acme/trader").len(), 1);
}

#[test]
fn task_from_environment_variables_is_accepted() {
    let mut env = TestEnv::start(silent());
    let workspace = env.path("ws");
    for (name, value) in [
        ("ORCHESTRATOR_TASK", "1"),
        ("ORCHESTRATOR_SERVICE", "trader"),
        ("ORCHESTRATOR_REPOSITORY_URL", &env.git.url("acme/trader")),
        ("ORCHESTRATOR_PLATFORM_REPOSITORY_URL", &env.git.url("acme/platform")),
        ("ORCHESTRATOR_WORKSPACE", workspace.to_str().unwrap()),
    ] {
        env.set(name, value);
    }
    let output = env.supervisor(&["check"]);
    assert_eq!(output.code, 0, "{output:#?}");
    env.set("ORCHESTRATOR_TASK", "seven");
    let output = env.supervisor(&["check"]);
    assert_supervisor_refused(&env, &output, Reason::InvalidTask, &["seven"]);
}

#[test]
fn rejected_model_key_is_distinguished_from_other_errors() {
    let mut env = TestEnv::start(Script::new().turn(Turn::text("never")));
    env.set("ANTHROPIC_API_KEY", "sk-ant-api03-wrong");
    let (output, outcome) = env.submit(&[]);
    assert_eq!(outcome.reason, Reason::ModelAuthenticationFailed, "{output:#?}\n{outcome:#?}");
    assert_eq!(output.code, 77);
    env.assert_invariants(&outcome);
}

#[test]
fn archived_repository_is_rejected_before_model_request() {
    let env = TestEnv::start(silent());
    env.github.archive("acme/trader");
    let ended = env.submit(&[]);
    assert_ended(&env, &ended, Reason::PermissionDenied, &["acme/trader", "is archived"]);
}

#[test]
fn token_is_not_sent_to_unlisted_host() {
    let mut env = TestEnv::start(silent());
    env.set("GITHUB_API_URL", "");
    let ended = env.submit(&[]);
    assert_ended(
        &env,
        &ended,
        Reason::CredentialMissing,
        &[
            "`127.0.0.1` is not allowed to receive the git token",
            "`git_hosts` of [agents.claude-agent-1] in orchestrator.toml (in a cluster, the controller's)",
        ],
    );
    let shown = |env: &TestEnv| env.git.requests().iter().any(|request| request.authorization.is_some());
    assert!(!shown(&env), "the token was sent");
    env.set("ORCHESTRATOR_GIT_HOSTS", "git.example.com,127.0.0.1");
    let (output, outcome) = env.submit(&["--no-pull-request", "--retry"]);
    assert_ne!(outcome.reason, Reason::CredentialMissing, "{output:#?}");
    assert!(shown(&env), "the token was not sent: {output:#?}");
}
