//! Completion of prompt and resource arguments.

use std::collections::{BTreeSet, HashMap};

use rmcp::model::CompletionInfo;

use super::select::all;
use crate::operations::Dispatcher;
use crate::task::status::Status;

/// Returns the values of an argument that start with the typed text; none if the runs cannot be read.
pub(super) async fn complete(
    dispatcher: &Dispatcher,
    argument: &str,
    typed: &str,
    given: &HashMap<String, String>,
) -> CompletionInfo {
    let runs = all(dispatcher).await.unwrap_or_default();
    let mut values = values(argument, &runs, given);
    if argument == "service" {
        let configured: BTreeSet<String> =
            dispatcher.config().service_names().map(ToString::to_string).collect();
        let new: Vec<String> = configured.into_iter().filter(|service| !values.contains(service)).collect();
        values.extend(new);
    }
    values.retain(|value| value.starts_with(typed.trim()));
    let total = u32::try_from(values.len()).ok();
    let has_more = values.len() > CompletionInfo::MAX_VALUES;
    values.truncate(CompletionInfo::MAX_VALUES);
    CompletionInfo::with_pagination(values, total, has_more).unwrap_or_default()
}

/// Returns the distinct values of an argument among the runs, newest first.
fn values(argument: &str, runs: &[Status], given: &HashMap<String, String>) -> Vec<String> {
    let of_service =
        |status: &&Status| given.get("service").is_none_or(|service| status.service.as_str() == service);
    let value = |status: &Status| match argument {
        "run" => Some(status.run.to_string()),
        "service" => Some(status.service.to_string()),
        "task_id" => status.task_id.map(|task| task.to_string()),
        _ => None,
    };
    let mut seen = BTreeSet::new();
    runs.iter()
        .filter(|status| argument == "service" || of_service(status))
        .filter_map(value)
        .filter(|value| seen.insert(value.clone()))
        .collect()
}
