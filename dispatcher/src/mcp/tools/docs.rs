//! `init_docs`.

use std::path::PathBuf;

use orchestrator_contract::task::Mode;

use super::output::ToolOutput;
use super::submit::{parse_repository_argument, submit_detached, submit_output};
use crate::error::Error;
use crate::mcp::arguments::{DocsArguments, parse_optional, service};
use crate::mcp::outputs::SubmitOutput;
use crate::mcp::select::{ToolError, all, known_services};
use crate::mcp::server::{Server, TransportKind};
use crate::mcp::text::PriorRuns;
use crate::operations::DocsRequest;
use crate::task::request::Overrides;

pub(super) async fn init(
    server: &Server,
    arguments: DocsArguments,
) -> Result<ToolOutput<SubmitOutput>, ToolError> {
    let dispatcher = server.dispatcher()?;
    let text = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let directory = text(&arguments.working_directory).map(PathBuf::from);
    if server.origin == TransportKind::Http && directory.as_ref().is_some_and(|path| path.is_absolute()) {
        return Err(Error::invalid_request(
            "`working_directory` is a path on your machine, which this server cannot access",
        )
        .with_hint("Use a path from the repository's root, such as services/trader.")
        .into());
    }
    let known = known_services(&dispatcher, &all(&dispatcher).await?);
    let docs_request = DocsRequest {
        task: arguments.task()?,
        service: service(arguments.service.as_deref(), &known)?,
        agent: parse_optional("agent", arguments.agent.as_deref())?,
        working_directory: directory,
        mode: if arguments.retry { Mode::Retry } else { Mode::First },
        overrides: Overrides {
            model: text(&arguments.model),
            branch: parse_optional("branch", arguments.branch.as_deref())?,
            guidance: text(&arguments.guidance),
            platform_repository_url: parse_repository_argument(
                "platform_repository_url",
                arguments.platform_repository_url.as_deref(),
                &dispatcher,
                server.origin,
            )?,
            timeout_minutes: arguments.timeout_minutes,
            cost_usd: arguments.cost_usd,
            turns: arguments.turns,
            force: arguments.force.then_some(true),
            ..Overrides::default()
        },
    };
    let request = dispatcher.docs_request(docs_request).await?;
    let submission = submit_detached(dispatcher, request).await?;
    Ok(submit_output(submission, &PriorRuns::default()))
}
