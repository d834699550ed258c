//! `stop_task`.

use std::time::Duration;

use jiff::Timestamp;

use super::Answer;
use crate::backend::Manner;
use crate::mcp::answers::{RunView, StopAnswer};
use crate::mcp::arguments::StopArguments;
use crate::mcp::server::Server;
use crate::mcp::text::render_stop;
use crate::mcp::which::{Refusal, which};
use crate::task::selection::Purpose;
use crate::verbs::Stop;

/// How long the end is waited for: an answer is due within two seconds, and saving may take minutes.
const LIMIT: Duration = Duration::from_millis(1_500);

pub(super) async fn stop(server: &Server, arguments: &StopArguments) -> Result<Answer<StopAnswer>, Refusal> {
    let dispatcher = server.dispatcher()?;
    let run = which(&dispatcher, &arguments.which(), Purpose::Stop).await?.run;
    let manner = if arguments.now { Manner::Now } else { Manner::Orderly };
    let end = dispatcher.stop(&run, manner, LIMIT, |_| {}).await?;
    let (state, was_at_work, status) = match end {
        Stop::HadEnded(status) => ("had_ended", false, status),
        Stop::Ended(status) => ("stopped", true, status),
        Stop::Asked(status) => ("stopping", true, status),
    };
    Ok(Answer {
        text: render_stop(&status, was_at_work, !arguments.now, Timestamp::now()),
        value: StopAnswer { state: state.to_owned(), run: RunView::from(&*status) },
    })
}
