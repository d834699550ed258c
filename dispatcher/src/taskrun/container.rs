//! The supervisor container of a run.

/// Name of the container.
pub const CONTAINER: &str = "supervisor";

/// Directory where the ConfigMap with the task is mounted.
pub const TASK_DIR: &str = "/etc/orchestrator";

/// Returns the arguments of the supervisor; the image sets the program.
#[must_use]
pub fn arguments() -> Vec<String> {
    let task = format!("{TASK_DIR}/task.json");
    ["run", "--task-file", &task, "--workspace", "/workspace", "--log-format", "json"]
        .map(str::to_owned)
        .into()
}
