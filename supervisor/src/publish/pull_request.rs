//! Step `pull_request`: opens or updates the pull request of a branch.

use std::sync::Arc;

use orchestrator_contract::Kind;
use orchestrator_contract::outcome::{Outcome, PullRequest};
use orchestrator_contract::task::PullRequestPolicy;

use super::text::{
    DocumentsText, FailedAttempt, PullRequestText, render_body, render_documents_body,
    render_documents_title, render_failed_attempt, render_title,
};
use crate::context::Context;
use crate::failure::Failure;
use crate::forge::{Forge, ForgeError, PullRequestDraft, Repository, RetryPolicy};
use crate::run::PullRequestMode;
use crate::workspace::documents::TaskDocuments;

/// Returns the GitHub host and repository of the target, or `None` for other hosts.
#[must_use]
pub fn forge_of(context: &Context) -> Option<(Forge, Repository)> {
    let (context_of_token, redactor) = (context.clone(), context.redactor.clone());
    let token = Arc::new(move || {
        // Read for each use. If that fails, the request fails with a missing token.
        let token = context_of_token.target_token().ok().flatten()?;
        redactor.add("github token", token.clone());
        Some(token)
    });
    Forge::of(
        &context.task.target.url,
        Some(&context.settings.github_api_url),
        token,
        context.remotes.certificates.clone(),
        RetryPolicy::default(),
    )
}

/// Opens or updates the pull request, or comments on an open one, depending on `mode`.
///
/// Returns `None` without a pull request: disabled, not on GitHub, or none open to comment on.
/// `outcome` is the outcome of the run so far.
///
/// # Errors
/// Returns an error if the host rejects it, does not respond, or shows another commit.
pub async fn publish(
    context: &Context,
    outcome: &Outcome,
    documents: Option<&TaskDocuments>,
    mode: PullRequestMode,
) -> Result<Option<PullRequest>, Failure> {
    if context.task.pull_request == PullRequestPolicy::None {
        return Ok(None);
    }
    let Some((forge, repository)) = forge_of(context) else {
        if mode == PullRequestMode::Open {
            context.journal.info("no pull request: the target is not on a GitHub host");
        }
        return Ok(None);
    };
    let (Some(base), Some(branch)) = (&outcome.base, &outcome.work.branch) else { return Ok(None) };
    let failed = |error: ForgeError| Failure::from_error(error.reason(), &error);
    match mode {
        PullRequestMode::Open => {
            let oid = outcome.work.oid.clone().unwrap_or_default();
            let (title, body) = render(context, outcome, documents, &oid);
            let draft =
                PullRequestDraft { head: branch, base: &base.branch, oid: &oid, title: &title, body: &body };
            forge.publish(&repository, &draft).await.map(Some).map_err(failed)
        }
        PullRequestMode::CommentIfOpen => {
            let Some(open) = forge.find(&repository, branch, &base.branch).await.map_err(failed)? else {
                return Ok(None);
            };
            let outcome = &redacted(context, outcome);
            let attempt = FailedAttempt {
                run: &outcome.run,
                reason: outcome.reason,
                message: &outcome.message,
                work: &outcome.work,
                usage: &outcome.usage,
            };
            let text = checked(context, render_failed_attempt(&attempt));
            forge.comment(&repository, open.number, outcome.run.as_str(), &text).await.map_err(failed)?;
            Ok(Some(open))
        }
    }
}

/// Redacts the texts of an outcome, before they become parts of Markdown: redacting that could remove
/// a fence.
fn redacted(context: &Context, outcome: &Outcome) -> Outcome {
    let redacted = serde_json::to_value(outcome).and_then(|mut value| {
        context.redactor.redact_json(&mut value);
        serde_json::from_value(value)
    });
    // What is rendered is checked too.
    redacted.unwrap_or_else(|_| outcome.clone())
}

/// Returns the text, or a replacement if it holds a secret in spite of all.
fn checked(context: &Context, text: String) -> String {
    if context.redactor.scan(text.as_bytes()).hits.is_empty() {
        return text;
    }
    context.journal.warn("a text for the pull request held a secret and was left out");
    "This text held a secret and was left out.".to_owned()
}

/// Renders title and body.
fn render(
    context: &Context,
    outcome: &Outcome,
    documents: Option<&TaskDocuments>,
    oid: &str,
) -> (String, String) {
    let outcome = &redacted(context, outcome);
    let redact = |text: &str| context.redactor.redact(text).into_owned();
    let checked = |text: String| checked(context, text);
    let description = documents.and_then(|documents| documents.entry.description.as_deref()).map(redact);
    let redact_all = |texts: &[String]| texts.iter().map(|text| redact(text)).collect::<Vec<_>>();
    let redacted_list =
        |list: fn(&TaskDocuments) -> &[String]| redact_all(documents.map(list).unwrap_or_default());
    let criteria = redacted_list(|documents| &documents.acceptance_criteria);
    let scope = redacted_list(|documents| &documents.entry.requirements.scope);
    let constraints = redacted_list(|documents| &documents.entry.requirements.technical_constraints);
    let title = outcome.task_title.as_deref().unwrap_or_default();
    let minutes = outcome.finished_at.duration_since(outcome.started_at).as_secs_f64() / 60.0;
    let base = outcome.base.clone().unwrap_or_else(|| orchestrator_contract::outcome::Revision {
        url: context.task.target.url.to_string(),
        branch: String::new(),
        oid: String::new(),
    });
    if context.task.kind == Kind::Docs {
        let text = DocumentsText {
            run: &outcome.run,
            task: outcome.task_id,
            results: &outcome.docs_results,
            source: outcome.document_sources.as_ref(),
            base: &base,
            branch: outcome.work.branch.as_deref().unwrap_or_default(),
            oid,
            usage: &outcome.usage,
            minutes,
            notes: &outcome.notes,
        };
        return (checked(render_documents_title(&text)), checked(render_documents_body(&text)));
    }
    let text = PullRequestText {
        run: &outcome.run,
        task: outcome.task_id,
        title,
        description: description.as_deref(),
        summary: outcome.verdict.as_ref().map(|verdict| verdict.summary.as_str()),
        criteria: &criteria,
        scope: &scope,
        constraints: &constraints,
        verification: &outcome.verification,
        base: &base,
        branch: outcome.work.branch.as_deref().unwrap_or_default(),
        oid,
        commits: outcome.commits,
        usage: &outcome.usage,
        minutes,
        notes: &outcome.notes,
        other_authors: &outcome.other_authors,
        mcp_servers: &outcome.mcp_servers,
    };
    (checked(render_title(title, outcome.task_id)), checked(render_body(&text)))
}
