//! Arguments of a call as clients send them: numbers and booleans as text, numbers where text is expected,
//! and `null` or blank text for what is unset.
//!
//! One layer for all tools: each of them only declares its parameters. An argument that cannot be read is
//! named in the error, with what is expected.

mod argument;
mod fault;

use std::borrow::Cow;

use rmcp::ErrorData;
use rmcp::handler::server::common::FromContextPart;
use rmcp::handler::server::tool::ToolCallContext;
use rmcp::model::{CallToolRequestParams, JsonObject};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, Visitor, value};
use serde::forward_to_deserialize_any;
use serde_json::Value;

use self::argument::{Argument, is_unset, quoted};
use self::fault::Fault;
use super::schema;
use crate::error::Error;

/// Names that the command line has for parameters, and names that they had before.
const ALIASES: [(&str, &str); 6] = [
    ("after", "cursor"),
    ("cost", "cost_usd"),
    ("minutes", "timeout_minutes"),
    ("task", "task_id"),
    ("timeout", "timeout_seconds"),
    ("wait_for_quota", "wait_for_quota_minutes"),
];

/// The arguments of a tool, or why they cannot be read.
#[derive(Debug)]
pub(super) struct Parameters<P>(pub(super) Result<P, Error>);

impl<P: JsonSchema> JsonSchema for Parameters<P> {
    fn schema_name() -> Cow<'static, str> {
        P::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = P::json_schema(generator);
        schema::simplify(&mut schema);
        schema
    }
}

impl<S, P: DeserializeOwned> FromContextPart<ToolCallContext<'_, S>> for Parameters<P> {
    fn from_context_part(context: &mut ToolCallContext<'_, S>) -> Result<Self, ErrorData> {
        Ok(Self(parse(context.arguments.take().unwrap_or_default())))
    }
}

/// Parses the arguments of a tool.
pub(super) fn parse<P: DeserializeOwned>(arguments: JsonObject) -> Result<P, Error> {
    P::deserialize(Arguments(arguments)).map_err(Error::from)
}

/// Returns a call whose `arguments` are not an object, with the object that they stand for; `None` if it is
/// not a call of a tool.
pub(super) fn repair_call(params: Option<Value>) -> Option<Result<CallToolRequestParams, Error>> {
    let Some(Value::Object(mut params)) = params else { return None };
    let arguments = params.remove("arguments")?;
    let object = match &arguments {
        Value::Array(entries) if entries.is_empty() => Some(JsonObject::new()),
        Value::String(text) if text.trim().is_empty() => Some(JsonObject::new()),
        Value::String(text) => serde_json::from_str(text).ok(),
        Value::Null => Some(JsonObject::new()),
        Value::Object(object) => Some(object.clone()),
        Value::Array(_) | Value::Bool(_) | Value::Number(_) => None,
    };
    let mut call: CallToolRequestParams = serde_json::from_value(Value::Object(params)).ok()?;
    call.arguments = object;
    Some(match call.arguments {
        Some(_) => Ok(call),
        None => Err(Error::invalid_request(format!(
            "invalid `arguments`: expected an object with the parameters by name, not {}",
            quoted(&arguments)
        ))
        .with_hint("Pass them as {\"run\": \"latest\"}, or omit them.")),
    })
}

/// All arguments of a call.
struct Arguments(JsonObject);

impl<'de> Deserializer<'de> for Arguments {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(Entries { entries: self.0.into_iter(), next: None })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let mut arguments = JsonObject::new();
        for (given, value) in self.0 {
            let is_known = |name: &str| fields.contains(&name);
            let alias = ALIASES.iter().find(|(alias, name)| *alias == given && is_known(name));
            let name = match alias {
                Some((_, name)) if !is_known(&given) => (*name).to_owned(),
                Some(_) | None => given,
            };
            if !is_known(&name) {
                return Err(serde::de::Error::unknown_field(&name, fields));
            }
            if is_unset(&value) {
                continue;
            }
            if arguments.contains_key(&name) {
                let (alias, _) =
                    ALIASES.iter().find(|(_, parameter)| *parameter == name).unwrap_or(&("", ""));
                return Err(Fault::repeated(&name, alias));
            }
            arguments.insert(name, value);
        }
        Self(arguments).deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The arguments one after another.
struct Entries {
    entries: serde_json::map::IntoIter,
    next: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.next = self.entries.next();
        let Some((name, _)) = &self.next else { return Ok(None) };
        seed.deserialize(value::StrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (name, value) = self.next.take().unwrap_or_default();
        seed.deserialize(Argument(value)).map_err(|fault| fault.of(&name))
    }
}

#[cfg(test)]
mod tests;
