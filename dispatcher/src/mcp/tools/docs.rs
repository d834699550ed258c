//! `init_docs`.

use std::path::PathBuf;

use orchestrator_contract::Reason;
use orchestrator_contract::task::Mode;

use super::Answer;
use super::submit::{answer, repository};
use crate::mcp::answers::SubmitAnswer;
use crate::mcp::arguments::{DocsArguments, parsed};
use crate::mcp::server::{Origin, Server};
use crate::mcp::text::Before;
use crate::mcp::which::Refusal;
use crate::problem::Problem;
use crate::task::request::Wishes;
use crate::verbs::DocsWish;

pub(super) async fn init(server: &Server, arguments: DocsArguments) -> Result<Answer<SubmitAnswer>, Refusal> {
    let dispatcher = server.dispatcher()?;
    let text = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let named = text(&arguments.working_directory).map(PathBuf::from);
    if server.origin == Origin::Http && named.as_ref().is_some_and(|named| named.is_absolute()) {
        return Err(Problem::request(
            "`working_directory` is a folder of your machine, which this server cannot see",
        )
        .next("Give it from the repository's root, such as services/trader.")
        .into());
    }
    let wish = DocsWish {
        task: arguments.task()?,
        service: parsed(arguments.service.as_deref())?,
        agent: parsed(arguments.agent.as_deref())?,
        working_directory: named,
        mode: if arguments.retry { Mode::Retry } else { Mode::First },
        wishes: Wishes {
            model: text(&arguments.model),
            branch: parsed(arguments.branch.as_deref())?,
            guidance: text(&arguments.guidance),
            platform_repository_url: repository(
                arguments.platform_repository_url.as_deref(),
                &dispatcher,
                server.origin,
            )?,
            minutes: arguments.minutes,
            cost_usd: arguments.cost_usd,
            turns: arguments.turns,
            force: arguments.force.then_some(true),
            ..Wishes::default()
        },
    };
    let request = dispatcher.docs_request(wish).await?;
    // A client that gives up must not leave half a submission behind.
    let submission = tokio::spawn(async move { dispatcher.submit(request).await })
        .await
        .map_err(|error| Problem::new(Reason::Internal, format!("submitting ended early: {error}")))??;
    Ok(answer(submission, &Before::default()))
}
