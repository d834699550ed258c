//! How the entry gets into a file whose other bytes stay as they are.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstObject, CstRootNode};
use serde_json::Value;

use super::{Client, SERVER};

/// Editors on Windows put it before a text; it is no part of the JSON.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// What becomes of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// The entry is there as it should be.
    Unchanged,
    /// The file's new text, which has the entry for the first time.
    Added(String),
    /// The file's new text, and the entry that it had before.
    Replaced {
        /// The new text.
        text: String,
        /// The old entry.
        before: Value,
    },
}

/// Why a file is left alone.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum EditError {
    /// It is not what the client reads.
    #[error("line {line}, column {column}: {message}")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// Something else is where an object belongs.
    #[error("{0} is no JSON object")]
    NotAnObject(String),
    /// A key is there twice: which one counts is the reader's secret.
    #[error("the key `{0}` is there more than once")]
    DuplicateKey(String),
}

/// Puts `entry` into the text of a client's file. An empty text is a new file.
///
/// # Errors
/// The text is not what the client reads; nothing is guessed then.
pub fn plan_edit(client: Client, text: &str, entry: &Value) -> Result<Edit, EditError> {
    let key = client.servers_key();
    let (mark, body) = match text.strip_prefix(BYTE_ORDER_MARK) {
        Some(body) => (&text[..BYTE_ORDER_MARK.len_utf8()], body),
        None => ("", text),
    };
    let body = if body.trim().is_empty() { "{}\n" } else { body };
    if client == Client::Claude {
        strict(body)?;
    }
    let root = CstRootNode::parse(body, &LENIENT).map_err(|error| EditError::Malformed {
        line: error.line_display(),
        column: error.column_display(),
        message: error.kind().to_string(),
    })?;
    let object = root.object_value().ok_or_else(|| EditError::NotAnObject("the file".to_owned()))?;
    let servers = match only(&object, key)? {
        Some(property) => {
            property.object_value().ok_or_else(|| EditError::NotAnObject(format!("`{key}`")))?
        }
        None => {
            object.append(key, input(&serde_json::json!({ SERVER: entry })));
            return Ok(Edit::Added(format!("{mark}{root}")));
        }
    };
    let Some(property) = only(&servers, SERVER)? else {
        servers.append(SERVER, input(entry));
        return Ok(Edit::Added(format!("{mark}{root}")));
    };
    let before = property.value().and_then(|value| value.to_serde_value()).unwrap_or_default();
    if before == *entry {
        return Ok(Edit::Unchanged);
    }
    property.set_value(input(entry));
    Ok(Edit::Replaced { text: format!("{mark}{root}"), before })
}

/// Claude Code reads JSON and nothing more.
fn strict(text: &str) -> Result<(), EditError> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop).map_err(|error| EditError::Malformed {
        line: error.line(),
        column: error.column(),
        // It names the place once more.
        message: error.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
    })
}

/// The editors read JSON with comments and trailing commas, and nothing looser than that.
const LENIENT: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_trailing_commas: true,
    allow_loose_object_property_names: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// The one property of a name.
fn only(object: &CstObject, name: &str) -> Result<Option<jsonc_parser::cst::CstObjectProp>, EditError> {
    let mut named =
        object.properties().into_iter().filter(|property| property.decoded_name().as_deref() == Some(name));
    match (named.next(), named.next()) {
        (_, Some(_)) => Err(EditError::DuplicateKey(name.to_owned())),
        (one, None) => Ok(one),
    }
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(value) => CstInputValue::Number(value.to_string()),
        Value::String(value) => CstInputValue::String(value.clone()),
        Value::Array(values) => CstInputValue::Array(values.iter().map(input).collect()),
        Value::Object(values) => {
            CstInputValue::Object(values.iter().map(|(key, value)| (key.clone(), input(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests;
