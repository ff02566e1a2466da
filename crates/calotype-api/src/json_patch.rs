//! The two forms of a JSON patch that Glance takes, both simpler than RFC 6902: a path names one attribute.

use calotype_core::{Error, Result};
use serde_json::{Map, Value};

const VERBS: [(&str, Verb); 3] = [
    ("add", Verb::Add),
    ("remove", Verb::Remove),
    ("replace", Verb::Replace),
];

/// What an operation does to its attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Sets it.
    Add,
    /// Takes it away.
    Remove,
    /// Sets it where it is there.
    Replace,
}

/// An operation of a patch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Operation<'a> {
    /// What it does.
    pub(crate) verb: Verb,
    /// To which attribute.
    pub(crate) name: String,
    /// With which value; an operation that sets an attribute has one.
    pub(crate) value: Option<&'a Value>,
}

/// A form of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `{"replace": "/name", "value": "x"}`; `add` demands that the attribute is not there.
    V20,
    /// `{"op": "replace", "path": "/name", "value": "x"}`; `add` sets it anyhow.
    V21,
}

impl Form {
    /// The form that a media type names.
    pub(crate) fn of(media_type: &str) -> Option<Self> {
        match media_type {
            "application/openstack-images-v2.0-json-patch" => Some(Self::V20),
            "application/openstack-images-v2.1-json-patch" => Some(Self::V21),
            _ => None,
        }
    }
}

/// The operations of a patch, in order.
///
/// # Errors
/// InvalidRequest where the patch is malformed.
pub(crate) fn operations(form: Form, body: &Value) -> Result<Vec<Operation<'_>>> {
    let Value::Array(operations) = body else {
        return Err(Error::invalid(
            "Request body must be a JSON array of operation objects.",
        ));
    };
    operations
        .iter()
        .map(|operation| match operation {
            Value::Object(operation) => one(form, operation),
            _ => Err(Error::invalid("Operations must be JSON objects.")),
        })
        .collect()
}

fn one(form: Form, operation: &Map<String, Value>) -> Result<Operation<'_>> {
    let (word, verb, pointer) = match form {
        Form::V20 => verb_and_pointer_v20(operation)?,
        Form::V21 => verb_and_pointer_v21(operation)?,
    };
    let value = operation.get("value");
    if verb != Verb::Remove && value.is_none() {
        return Err(Error::invalid(format!(
            "Operation \"{word}\" requires a member named \"value\"."
        )));
    }
    Ok(Operation {
        verb,
        name: attribute(pointer)?,
        value,
    })
}

type VerbAndPointer<'a> = (&'static str, Verb, &'a str);

fn verb_and_pointer_v20(operation: &Map<String, Value>) -> Result<VerbAndPointer<'_>> {
    let mut named = VERBS
        .into_iter()
        .filter_map(|(word, verb)| operation.get(word).map(|pointer| (word, verb, pointer)));
    let (Some((word, verb, pointer)), None) = (named.next(), named.next()) else {
        return Err(Error::invalid(
            "Operation objects must contain exactly one member named \"add\", \"remove\", or \"replace\".",
        ));
    };
    Ok((word, verb, text(pointer)?))
}

fn verb_and_pointer_v21(operation: &Map<String, Value>) -> Result<VerbAndPointer<'_>> {
    let op = operation.get("op").and_then(Value::as_str);
    let verb = VERBS.into_iter().find(|(word, _)| Some(*word) == op);
    let (word, verb) = verb.ok_or_else(|| {
        Error::invalid("Member \"op\" must be one of the following: add, remove, replace.")
    })?;
    let pointer = operation
        .get("path")
        .ok_or_else(|| Error::invalid("Unable to find 'path' in JSON Schema change"))?;
    Ok((word, verb, text(pointer)?))
}

fn text(pointer: &Value) -> Result<&str> {
    pointer
        .as_str()
        .ok_or_else(|| Error::invalid("A JSON pointer is a string."))
}

/// The attribute that a pointer of one step names (RFC 6901: `~1` is `/`, `~0` is `~`).
fn attribute(pointer: &str) -> Result<String> {
    let Some(step) = pointer.strip_prefix('/') else {
        return Err(Error::invalid(format!(
            "Pointer `{pointer}` does not start with \"/\"."
        )));
    };
    // Locations have places of their own in Glance: they are refused as what they are, not as a bad pointer.
    if step == "locations" || step.starts_with("locations/") {
        return Ok("locations".to_owned());
    }
    if step.is_empty() || step.contains('/') {
        return Err(Error::invalid(format!(
            "Invalid JSON pointer for this resource: '{pointer}'"
        )));
    }
    unescape(step).ok_or_else(|| {
        Error::invalid(format!(
            "Pointer `{pointer}` contains \"~\" not part of a recognized escape sequence."
        ))
    })
}

fn unescape(step: &str) -> Option<String> {
    let mut plain = String::with_capacity(step.len());
    let mut letters = step.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '~' => match letters.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            other => other,
        });
    }
    Some(plain)
}
