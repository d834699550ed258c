//! Names of models that the Claude Code CLI accepts, and those that the configuration adds.

use super::suggest;
use crate::error::Error;

/// Aliases of the CLI.
const ALIASES: [&str; 8] = ["sonnet", "opus", "haiku", "fable", "mythos", "default", "best", "opusplan"];

/// Mark of the CLI for a long context.
const LONG_CONTEXT: &str = "[1m]";

/// Beginning of each full name.
const FAMILY: &str = "claude-";

/// Provider of the models in the names that Bedrock gives them: `us.anthropic.claude-...`.
const BEDROCK_PROVIDER: &str = "anthropic.claude-";

/// Beginning of the names of profiles and models of Bedrock.
const BEDROCK_RESOURCE: &str = "arn:aws";

/// Returns the name that the CLI knows for a model: aliases are lowercase.
///
/// `more` are names that the configuration adds.
///
/// # Errors
/// Returns an error that lists the names if no model is recognized.
pub fn parse(text: &str, more: &[String]) -> Result<String, Error> {
    let name = text.trim();
    if more.iter().any(|known| known == name) {
        return Ok(name.to_owned());
    }
    let lower = name.to_ascii_lowercase();
    let is_alias = ALIASES.contains(&lower.strip_suffix(LONG_CONTEXT).unwrap_or(&lower));
    if is_alias || is_full_name(&lower) {
        return Ok(lower);
    }
    // Resources of Bedrock have names of their owner, in both cases.
    let service = lower.strip_prefix(BEDROCK_RESOURCE).and_then(|rest| rest.split(':').nth(1));
    if service == Some("bedrock") && !name.contains(char::is_whitespace) {
        return Ok(name.to_owned());
    }
    Err(unknown(name, &lower, more))
}

/// Returns whether a lowercase name is that of a model, of Anthropic's API, Vertex (`name@version`) or Bedrock.
fn is_full_name(name: &str) -> bool {
    let region = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let name = match name.split_once(BEDROCK_PROVIDER) {
        Some((before, version))
            if before.chars().all(region) && (before.is_empty() || before.ends_with('.')) =>
        {
            Some(version)
        }
        Some(_) | None => name.strip_prefix(FAMILY),
    };
    let name = name.map(|name| name.strip_suffix(LONG_CONTEXT).unwrap_or(name));
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '@' | ':' | '_');
    name.is_some_and(|name| !name.is_empty() && name.chars().all(inner))
}

fn unknown(name: &str, lower: &str, more: &[String]) -> Error {
    let shown: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    let known: Vec<&str> = ALIASES.into_iter().chain(more.iter().map(String::as_str)).collect();
    let suggestion = suggest::sentence(lower, known.iter().copied());
    Error::invalid_request(format!("unknown model `{shown}`")).with_hint(format!(
        "{suggestion}Use {} or a full name such as claude-sonnet-5-5; add others to `models` in `[defaults]` of \
         orchestrator.toml.",
        known.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::advice::render_for_cli;

    #[test]
    fn model_of_cli_or_configuration_is_normalized() {
        let more = ["house-model".to_owned()];
        for (text, expected) in [
            ("sonnet", "sonnet"),
            ("OPUS", "opus"),
            (" Sonnet ", "sonnet"),
            ("Haiku", "haiku"),
            ("opusplan", "opusplan"),
            ("sonnet[1m]", "sonnet[1m]"),
            ("claude-unknown-1", "claude-unknown-1"),
            ("Claude-Sonnet-5-5", "claude-sonnet-5-5"),
            ("claude-sonnet-5-5[1m]", "claude-sonnet-5-5[1m]"),
            ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5@20250929"),
            ("anthropic.claude-sonnet-5-5-v1:0", "anthropic.claude-sonnet-5-5-v1:0"),
            ("us.anthropic.claude-sonnet-5-5-v1:0", "us.anthropic.claude-sonnet-5-5-v1:0"),
            ("global.anthropic.claude-opus-5-5", "global.anthropic.claude-opus-5-5"),
            (
                "arn:aws:bedrock:us-east-1:123456789012:inference-profile/Team",
                "arn:aws:bedrock:us-east-1:123456789012:inference-profile/Team",
            ),
            ("house-model", "house-model"),
        ] {
            assert_eq!(parse(text, &more).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn other_model_is_refused_with_names() {
        let texts = [
            "gpt-5",
            "gpt-4o",
            "gemini-pro",
            "claude-",
            "claude-a b",
            "",
            "--evil",
            "notclaude-1",
            "x/anthropic.claude-1",
            "arn:aws:s3:::bucket",
            "House-Model",
        ];
        for text in texts {
            let error = parse(text, &["house-model".to_owned()]).unwrap_err();
            assert_eq!(error.exit_code(), 64, "{text}");
        }
        let error = parse("sonet", &["house-model".to_owned()]).unwrap_err();
        insta::assert_snapshot!(format!("{error}\nhint: {}", render_for_cli(error.hint())), @r"
        unknown model `sonet`
        hint: Did you mean `sonnet`? Use sonnet, opus, haiku, fable, mythos, default, best, opusplan, house-model or a full name such as claude-sonnet-5-5; add others to `models` in `[defaults]` of orchestrator.toml.
        ");
    }
}
