//! Suggestions for misspelt names.

/// Minimum similarity of a suggestion, from 0 to 1.
const MINIMUM_SIMILARITY: f64 = 0.7;

/// Verbs that end or remove something: a mistake must not lead there.
const DESTRUCTIVE: [&str; 2] = ["stop", "gc"];

/// Returns the known name that is most similar to `given`, if any is similar enough.
#[must_use]
pub fn closest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.trim().to_lowercase();
    // A distance, since the beginning of a run name says little about it.
    let similarity = |name: &str| strsim::normalized_damerau_levenshtein(&given, &name.to_lowercase());
    known
        .into_iter()
        .map(|name| (similarity(name), name))
        .filter(|(similarity, name)| *similarity >= threshold(&given, name))
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}

/// Returns the minimum similarity: one wrong letter in a short name, more in a long one.
fn threshold(given: &str, name: &str) -> f64 {
    // One transposed, missing or wrong letter of four is 0.75, of three 0.66.
    if given.chars().count().max(name.chars().count()) <= 3 { 0.66 } else { MINIMUM_SIMILARITY }
}

/// Returns the verb that a misspelt one may mean; never one that ends or removes something.
#[must_use]
pub fn closest_verb<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    closest(given, known.into_iter().filter(|verb| !DESTRUCTIVE.contains(verb)))
}

/// Returns the sentence of a suggestion, with a space after it; empty without one.
#[must_use]
pub fn sentence<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    closest(given, known).map_or(String::new(), |name| format!("Did you mean `{name}`? "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_name_suggests_closest_similar_one() {
        let known =
            ["trader", "auth", "trader-api", "model", "task_id", "trader-claude-agent-1-task1-attempt1"];
        for (given, expected) in [
            ("tradr", Some("trader")),
            ("Trader", Some("trader")),
            ("atuh", Some("auth")),
            ("modle", Some("model")),
            ("taskid", Some("task_id")),
            ("trader-ap", Some("trader-api")),
            ("trader-claude-agent-1-task1-atempt1", Some("trader-claude-agent-1-task1-attempt1")),
            ("payments", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(closest(given, known), expected, "{given}");
        }
        assert_eq!(closest("a", []), None);
        assert_eq!(sentence("tradr", known), "Did you mean `trader`? ");
        assert_eq!(sentence("payments", known), "");
    }

    #[test]
    fn misspelt_verb_never_suggests_destructive_one() {
        let known = ["submit", "stop", "gc", "status", "list", "setup"];
        for (given, expected) in [
            ("top", None),
            ("stopp", None),
            ("g", None),
            ("gcc", None),
            ("submitt", Some("submit")),
            ("statsu", Some("status")),
            ("lst", Some("list")),
        ] {
            assert_eq!(closest_verb(given, known), expected, "{given}");
        }
    }
}
