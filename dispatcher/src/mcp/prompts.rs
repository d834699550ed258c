//! The prompts: what a client offers its user as commands of their own.

use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{GetPromptResult, PromptMessage, Role};
use rmcp::{prompt, prompt_router};
use schemars::JsonSchema;
use serde::Deserialize;

use super::server::Server;

/// What `submit` takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct SubmitPrompt {
    /// The service, such as trader.
    pub service: String,
    /// The task's number, such as 1.
    pub task_id: String,
}

/// What `retry` takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct RetryPrompt {
    /// What the agent is to do otherwise.
    pub guidance: String,
    /// The service (default: that of the last task).
    pub service: Option<String>,
}

/// What `document` takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct DocumentPrompt {
    /// The task's number, such as 5 (default: all tasks).
    pub task_id: Option<String>,
}

/// What `status_report` takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct ReportPrompt {
    /// The service (default: all).
    pub service: Option<String>,
}

#[expect(missing_docs, reason = "the macro makes public functions that cannot be given any")]
#[prompt_router(vis = "pub(super)")]
impl Server {
    /// Has an agent implement a task.
    #[prompt(name = "submit", title = "Implement a task")]
    async fn submit_prompt(&self, Parameters(asked): Parameters<SubmitPrompt>) -> GetPromptResult {
        let SubmitPrompt { service, task_id } = asked;
        message(format!(
            "Implement task {} of the {} service: submit it with submit_implementation_task, tell me what was \
             submitted and what will happen, and how I can follow it.",
            single_line(&task_id),
            single_line(&service)
        ))
    }

    /// Has an agent write the documentation of a task, or of all.
    #[prompt(name = "document", title = "Write task documentation")]
    async fn document_prompt(&self, Parameters(asked): Parameters<DocumentPrompt>) -> GetPromptResult {
        let which = asked.task_id.as_deref().map(single_line).filter(|task| !task.is_empty());
        let which = which.map_or("all tasks".to_owned(), |task| format!("task {task}"));
        message(format!(
            "Generate the documentation of {which}: use init_docs, tell me what was submitted, what the agent will \
             not see of my changes, and how I can follow it."
        ))
    }

    /// Has the agent try the last task again, with guidance.
    #[prompt(name = "retry", title = "Retry the last task with guidance")]
    async fn retry_prompt(&self, Parameters(asked): Parameters<RetryPrompt>) -> GetPromptResult {
        let RetryPrompt { guidance, service } = asked;
        message(format!(
            "Retry the last task{} but tell the agent: {}\n\nUse submit_implementation_task with retry: true and \
             that guidance. If it is not clear which task is meant, ask me.",
            service_suffix(service.as_deref()),
            guidance.trim()
        ))
    }

    /// Reports on what is running, what has ended, and what needs a decision.
    #[prompt(name = "status_report", title = "Report on all tasks")]
    async fn status_report(&self, Parameters(asked): Parameters<ReportPrompt>) -> GetPromptResult {
        message(format!(
            "Report on the implementation tasks{}: list them with list_tasks and look at those at work, and at \
             those that failed last, with get_task_status. Say what is running and how far it is, what is ready \
             for review with its pull request, what failed and why, and what I have to decide.",
            service_suffix(asked.service.as_deref())
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

/// An argument in one line.
fn single_line(text: &str) -> String {
    crate::task::text::sanitize(text.trim())
}
