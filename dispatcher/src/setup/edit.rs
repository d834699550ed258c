//! Inserts the entry into a client's file and keeps all other bytes.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstObject, CstRootNode};
use serde_json::Value;

use super::{Client, SERVER};

/// Written by editors on Windows; not part of the JSON.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The edit that a file needs.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// The entry is already up to date.
    Unchanged,
    /// The entry was added; holds the new text.
    Added(String),
    /// The entry replaced another one.
    Replaced {
        /// The file's new text.
        text: String,
        /// The previous entry.
        before: Value,
    },
}

/// Why a file is not edited.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum EditError {
    /// The client could not parse it.
    #[error("line {line}, column {column}: {message}")]
    Malformed {
        /// 1-based line.
        line: usize,
        /// 1-based column, in characters.
        column: usize,
        /// The parser's message.
        message: String,
    },
    /// A value is not a JSON object.
    #[error("{0} is not a JSON object")]
    NotAnObject(String),
    /// A key occurs more than once; parsers disagree on which one counts.
    #[error("duplicate key `{0}`")]
    DuplicateKey(String),
}

/// Adds `entry` to the text of a client's file. An empty text is a new file.
///
/// # Errors
/// Returns an error if the client could not parse the text.
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

/// Claude Code only reads strict JSON.
fn strict(text: &str) -> Result<(), EditError> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop).map_err(|error| EditError::Malformed {
        line: error.line(),
        column: error.column(),
        // The message repeats line and column.
        message: error.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
    })
}

/// The editors read JSON with comments and trailing commas, without other extensions.
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

/// Returns the only property with a name.
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
