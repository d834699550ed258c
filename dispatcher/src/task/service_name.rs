//! Names of services as people write them: `Trader`, "the trader service".

use orchestrator_contract::ServiceName;
use orchestrator_contract::names::InvalidName;

use super::suggest;
use crate::error::Error;

/// Words around a name that are not part of it.
const WORDS: [&str; 11] =
    ["the", "a", "an", "my", "our", "new", "service", "called", "named", "repository", "repo"];

/// Parses the name of a service; `known` services win over the shortest form of the name.
///
/// # Errors
/// Returns an error with a suggestion if no name is recognized.
pub fn parse(text: &str, known: &[ServiceName]) -> Result<ServiceName, Error> {
    let quotes = |c: char| matches!(c, '"' | '\'' | '`' | ',' | '.');
    let lower = text.trim().to_lowercase();
    let words: Vec<&str> = lower.split_whitespace().map(|word| word.trim_matches(quotes)).collect();
    let named: Vec<&str> = words.iter().copied().filter(|word| !WORDS.contains(word)).collect();
    let whole = words.join("-");
    // "the user service" may be `user-service`, if there is one.
    let (plain, suffixed) = (named.join("-"), format!("{}-service", named.join("-")));
    let find = |name: &String| known.iter().find(|known| known.as_str() == name);
    if words.len() > 1 {
        let known = (find(&whole), find(&suffixed), find(&plain));
        match known {
            (Some(name), _, _) | (None, Some(name), None) | (None, None, Some(name)) => {
                return Ok(name.clone());
            }
            (None, Some(suffixed), Some(plain)) => return Err(ambiguous(text, [plain, suffixed])),
            (None, None, None) => {}
        }
    }
    let name = match (words.as_slice(), named.as_slice()) {
        // A word can be a name too.
        ([one], _) | (_, [one]) => *one,
        _ => text,
    };
    // The error shows the text as it was given.
    ServiceName::new(name).or_else(|_| ServiceName::new(text).map_err(|error| invalid(text, &error, known)))
}

/// Creates the error for a text that may mean several services.
#[must_use]
pub fn ambiguous<'a>(text: &str, services: impl IntoIterator<Item = &'a ServiceName>) -> Error {
    let names: Vec<String> = services.into_iter().map(|service| format!("`{service}`")).collect();
    Error::invalid_request(format!("`{text}` may mean the service {}", names.join(" or ")))
        .with_hint("Pass the exact name of one of them.")
}

/// Returns a warning for a new service whose name is similar to that of a known one.
#[must_use]
pub fn similarity_warning(new: &ServiceName, known: &[ServiceName]) -> Option<String> {
    let letters = |name: &str| name.replace(|c: char| c.is_ascii_digit(), "");
    // `worker-1` and `worker-2` are no mistake.
    let others = known.iter().map(ServiceName::as_str).filter(|name| letters(name) != letters(new.as_str()));
    let name = suggest::closest(new.as_str(), others)?;
    Some(format!("`{new}` is a new service with a workspace of its own; did you mean `{name}`?"))
}

fn invalid(text: &str, error: &InvalidName, known: &[ServiceName]) -> Error {
    let problem = Error::invalid_request(error.to_string());
    let joined = joined(text);
    let suggestion = suggest::closest(&joined, known.iter().map(ServiceName::as_str));
    let suggestion = suggestion.or(Some(joined.as_str()).filter(|name| ServiceName::new(*name).is_ok()));
    match suggestion {
        Some(name) => problem.with_hint(format!("Did you mean `{name}`?")),
        None => problem.with_hint("Use a short name in lowercase letters, such as `trader`."),
    }
}

/// Returns the letters and digits of a text, joined by hyphens.
fn joined(text: &str) -> String {
    let lower = text.to_lowercase();
    let parts = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    parts.collect::<Vec<&str>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_name_is_recognized_as_people_write_it() {
        let known = ["user-service", "trader"].map(|name| ServiceName::new(name).unwrap());
        for (text, expected) in [
            ("trader", "trader"),
            ("Trader", "trader"),
            ("trader service", "trader"),
            ("the trader service", "trader"),
            ("The Trader Service.", "trader"),
            (" `trader` ", "trader"),
            ("user-service", "user-service"),
            ("the user service", "user-service"),
            ("User Service", "user-service"),
            ("a new service called 'payments'", "payments"),
            ("payments service", "payments"),
            ("the user-service repository", "user-service"),
            ("service", "service"),
        ] {
            assert_eq!(parse(text, &known).map(String::from).unwrap(), expected, "{text}");
        }
        assert_eq!(parse("the user service", &[]).unwrap().as_str(), "user");
    }

    #[test]
    fn name_with_two_readings_is_refused() {
        let known = ["user-service", "user"].map(|name| ServiceName::new(name).unwrap());
        let error = parse("the user service", &known).unwrap_err();
        assert_eq!(error.message(), "`the user service` may mean the service `user` or `user-service`");
        for exact in ["user", "User", "user-service"] {
            assert_eq!(parse(exact, &known).unwrap().as_str(), exact.to_lowercase());
        }
    }

    #[test]
    fn new_service_similar_to_known_one_is_noticed() {
        let known = ["trader", "worker-1", "auth"].map(|name| ServiceName::new(name).unwrap());
        let warning = |name: &str| similarity_warning(&ServiceName::new(name).unwrap(), &known);
        assert_eq!(
            warning("tradr").unwrap(),
            "`tradr` is a new service with a workspace of its own; did you mean `trader`?"
        );
        for name in ["payments", "worker-2", "trader-api"] {
            assert_eq!(warning(name), None, "{name}");
        }
    }

    #[test]
    fn unrecognized_service_name_is_refused_with_suggestion() {
        let known = ["trader"].map(|name| ServiceName::new(name).unwrap());
        let refused = |text: &str| {
            let error = parse(text, &known).unwrap_err();
            format!("{error}\nhint: {}", crate::task::advice::render_for_cli(error.hint()))
        };
        insta::assert_snapshot!(refused("Order Book"), @r"
        invalid service name `Order Book`: expected 1 to 40 lowercase letters, digits and hyphens, starting and ending with a letter or digit
        hint: Did you mean `order-book`?
        ");
        insta::assert_snapshot!(refused("tra_der"), @r"
        invalid service name `tra_der`: expected 1 to 40 lowercase letters, digits and hyphens, starting and ending with a letter or digit
        hint: Did you mean `trader`?
        ");
        insta::assert_snapshot!(refused("!"), @r"
        invalid service name `!`: expected 1 to 40 lowercase letters, digits and hyphens, starting and ending with a letter or digit
        hint: Use a short name in lowercase letters, such as `trader`.
        ");
    }
}
