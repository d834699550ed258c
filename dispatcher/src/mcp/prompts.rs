//! The prompts, which clients offer as commands.

use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{GetPromptResult, PromptMessage, Role};
use rmcp::{prompt, prompt_router};
use schemars::JsonSchema;
use serde::Deserialize;

use super::server::Server;

/// Arguments of `submit`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct SubmitPrompt {
    /// Service, such as trader.
    pub service: String,
    /// Task number, such as 1.
    pub task_id: String,
}

/// Arguments of `retry`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct RetryPrompt {
    /// Extra instructions for the agent: what to do differently.
    pub guidance: String,
    /// Service, such as trader (default: that of the last task).
    pub service: Option<String>,
}

/// Arguments of `document`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct DocumentPrompt {
    /// Task number, such as 5 (default: all tasks).
    pub task_id: Option<String>,
}

/// Arguments of `status_report`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct ReportPrompt {
    /// Service, such as trader (default: all services).
    pub service: Option<String>,
}

#[prompt_router(vis = "pub(super)")]
impl Server {
    /// Implement a task with an agent.
    #[prompt(name = "submit", title = "Implement a task")]
    async fn submit_prompt(&self, Parameters(arguments): Parameters<SubmitPrompt>) -> GetPromptResult {
        let SubmitPrompt { service, task_id } = arguments;
        message(format!(
            "Implement task {} of the {} service: submit it with submit_implementation_task. Then summarize what \
             was submitted, what the run will do, and how I can follow it.",
            single_line(&task_id),
            single_line(&service)
        ))
    }

    /// Write the documentation of one task or all tasks with an agent.
    #[prompt(name = "document", title = "Write task documentation")]
    async fn document_prompt(&self, Parameters(arguments): Parameters<DocumentPrompt>) -> GetPromptResult {
        let which = arguments.task_id.as_deref().map(single_line).filter(|task| !task.is_empty());
        let which = which.map_or("all tasks".to_owned(), |task| format!("task {task}"));
        message(format!(
            "Generate the documentation of {which} with init_docs. Then summarize what was submitted, which of my \
             local changes the agent does not see, and how I can follow the run."
        ))
    }

    /// Retry the last task with guidance for the agent.
    #[prompt(name = "retry", title = "Retry the last task with guidance")]
    async fn retry_prompt(&self, Parameters(arguments): Parameters<RetryPrompt>) -> GetPromptResult {
        let RetryPrompt { guidance, service } = arguments;
        message(format!(
            "Retry the last task{} but tell the agent: {}\n\nUse submit_implementation_task with retry: true and \
             that guidance. If several tasks match, ask me which one.",
            service_suffix(service.as_deref()),
            guidance.trim()
        ))
    }

    /// Report on running and finished tasks, and on what needs a decision.
    #[prompt(name = "status_report", title = "Report on all tasks")]
    async fn status_report(&self, Parameters(arguments): Parameters<ReportPrompt>) -> GetPromptResult {
        message(format!(
            "Report on the implementation tasks{}: list them with list_tasks, then check the active ones and the \
             latest failures with get_task_status. Report what is running and its progress, what is ready for \
             review with its pull request, what failed and why, and what needs my decision.",
            service_suffix(arguments.service.as_deref())
        ))
    }
}

fn message(text: String) -> GetPromptResult {
    GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)])
}

fn service_suffix(service: Option<&str>) -> String {
    service
        .map(single_line)
        .filter(|service| !service.is_empty())
        .map_or(String::new(), |service| format!(" of the {service} service"))
}

/// Returns an argument in one line, without control characters.
fn single_line(text: &str) -> String {
    crate::task::text::sanitize(text.trim())
}
