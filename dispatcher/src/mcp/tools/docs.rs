//! `init_docs`.

use std::path::PathBuf;

use orchestrator_contract::Reason;
use orchestrator_contract::task::Mode;

use super::ToolOutput;
use super::submit::{answer, repository};
use crate::error::Error;
use crate::mcp::arguments::{DocsArguments, parse_optional};
use crate::mcp::outputs::SubmitOutput;
use crate::mcp::select::ToolError;
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
    let named = text(&arguments.working_directory).map(PathBuf::from);
    if server.origin == TransportKind::Http && named.as_ref().is_some_and(|named| named.is_absolute()) {
        return Err(Error::invalid_request(
            "`working_directory` is a folder of your machine, which this server cannot see",
        )
        .with_hint("Give it from the repository's root, such as services/trader.")
        .into());
    }
    let wish = DocsRequest {
        task: arguments.task()?,
        service: parse_optional(arguments.service.as_deref())?,
        agent: parse_optional(arguments.agent.as_deref())?,
        working_directory: named,
        mode: if arguments.retry { Mode::Retry } else { Mode::First },
        wishes: Overrides {
            model: text(&arguments.model),
            branch: parse_optional(arguments.branch.as_deref())?,
            guidance: text(&arguments.guidance),
            platform_repository_url: repository(
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
    let request = dispatcher.docs_request(wish).await?;
    // A client that gives up must not leave half a submission behind.
    let submission = tokio::spawn(async move { dispatcher.submit(request).await })
        .await
        .map_err(|error| Error::new(Reason::InternalError, format!("submitting ended early: {error}")))??;
    Ok(answer(submission, &PriorRuns::default()))
}
