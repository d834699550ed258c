//! JSON Schemas that every client can read: one type a parameter, and no format that only Rust has.

use schemars::Schema;
use schemars::transform::transform_subschemas;
use serde_json::Value;

/// Reduces the schema of a tool's input to one type for each parameter; an optional one is not required.
///
/// Clients compare the type of an argument with that of the schema, as text.
pub(super) fn simplify(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get("type")
        && let Some(only) = types.iter().find(|name| **name != "null").cloned()
    {
        schema.insert("type".to_owned(), only);
    }
    schema.remove("format");
    transform_subschemas(&mut simplify, schema);
}

/// Removes the formats: validators warn about those that they do not know, such as `uint32`.
pub(super) fn remove_formats(schema: &mut Schema) {
    schema.remove("format");
    transform_subschemas(&mut remove_formats, schema);
}
