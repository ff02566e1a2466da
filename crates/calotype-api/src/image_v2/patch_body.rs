//! The two forms of a JSON patch that Glance takes, both simpler than RFC 6902: a path names one attribute.

use calotype_core::app::{Change, Setting, check_settable};
use calotype_core::{Error, Result};
use serde_json::{Map, Value};

use super::attributes::setting;

/// The media types, in the order of `Accept-Patch`.
pub(super) const MEDIA_TYPES: &str =
    "application/openstack-images-v2.0-json-patch, application/openstack-images-v2.1-json-patch";

const OPERATIONS: [&str; 3] = ["add", "remove", "replace"];

/// A form of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `{"replace": "/name", "value": "x"}`; `add` demands that the attribute is not there.
    V20,
    /// `{"op": "replace", "path": "/name", "value": "x"}`; `add` sets it anyhow.
    V21,
}

impl Form {
    /// The form that a media type names.
    pub(super) fn of(media_type: &str) -> Option<Self> {
        match media_type {
            "application/openstack-images-v2.0-json-patch" => Some(Self::V20),
            "application/openstack-images-v2.1-json-patch" => Some(Self::V21),
            _ => None,
        }
    }
}

/// The changes that a patch asks for.
///
/// # Errors
/// InvalidRequest where the patch or a value is malformed; Forbidden for attributes that only the service sets.
pub(super) fn changes(form: Form, body: &Value) -> Result<Vec<Change>> {
    let Value::Array(operations) = body else {
        return Err(Error::invalid(
            "Request body must be a JSON array of operation objects.",
        ));
    };
    operations
        .iter()
        .map(|operation| match operation {
            Value::Object(operation) => change(form, operation),
            _ => Err(Error::invalid("Operations must be JSON objects.")),
        })
        .collect()
}

fn change(form: Form, operation: &Map<String, Value>) -> Result<Change> {
    let (verb, pointer) = match form {
        Form::V20 => verb_and_pointer_v20(operation)?,
        Form::V21 => verb_and_pointer_v21(operation)?,
    };
    let name = attribute(pointer)?;
    check_settable(&name)?;
    if verb == "remove" {
        return Ok(Change::Remove(name));
    }
    let value = operation.get("value").ok_or_else(|| {
        Error::invalid(format!(
            "Operation \"{verb}\" requires a member named \"value\"."
        ))
    })?;
    let setting: Setting = setting(&name, value)?;
    Ok(match (verb, form) {
        ("replace", _) => Change::Replace(setting),
        (_, Form::V20) => Change::Insert(setting),
        (_, Form::V21) => Change::Set(setting),
    })
}

fn verb_and_pointer_v20(operation: &Map<String, Value>) -> Result<(&'static str, &str)> {
    let mut named = OPERATIONS
        .into_iter()
        .filter_map(|verb| operation.get(verb).map(|pointer| (verb, pointer)));
    let (Some((verb, pointer)), None) = (named.next(), named.next()) else {
        return Err(Error::invalid(
            "Operation objects must contain exactly one member named \"add\", \"remove\", or \"replace\".",
        ));
    };
    Ok((verb, text(pointer)?))
}

fn verb_and_pointer_v21(operation: &Map<String, Value>) -> Result<(&'static str, &str)> {
    let op = operation.get("op").and_then(Value::as_str);
    let verb = OPERATIONS.into_iter().find(|verb| Some(*verb) == op);
    let verb = verb.ok_or_else(|| {
        Error::invalid("Member \"op\" must be one of the following: add, remove, replace.")
    })?;
    let pointer = operation
        .get("path")
        .ok_or_else(|| Error::invalid("Unable to find 'path' in JSON Schema change"))?;
    Ok((verb, text(pointer)?))
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

#[cfg(test)]
mod tests {
    use calotype_core::ErrorKind;
    use serde_json::json;

    use super::*;

    fn name(text: &str) -> Setting {
        Setting::Name(Some(text.to_owned()))
    }

    #[test]
    fn both_forms_are_read() {
        let v21 = json!([
            {"op": "replace", "path": "/name", "value": "a"},
            {"op": "add", "path": "/name", "value": "b"},
            {"op": "remove", "path": "/x~1y~0z"},
        ]);
        let expected = [
            Change::Replace(name("a")),
            Change::Set(name("b")),
            Change::Remove("x/y~z".to_owned()),
        ];
        assert_eq!(changes(Form::V21, &v21).unwrap(), expected);
        let v20 = json!([
            {"replace": "/name", "value": "a"},
            {"add": "/name", "value": "b"},
            {"remove": "/x"},
        ]);
        let expected = [
            Change::Replace(name("a")),
            Change::Insert(name("b")),
            Change::Remove("x".to_owned()),
        ];
        assert_eq!(changes(Form::V20, &v20).unwrap(), expected);
        assert_eq!(changes(Form::V21, &json!([])).unwrap(), []);
    }

    #[test]
    fn what_is_no_patch_is_refused() {
        let bad_v21 = [
            json!({}),
            json!(null),
            json!([1]),
            json!([{}]),
            json!([{"op": "move", "path": "/name", "from": "/x"}]),
            json!([{"op": "replace", "value": "a"}]),
            json!([{"op": "replace", "path": 1, "value": "a"}]),
            json!([{"op": "replace", "path": "name", "value": "a"}]),
            json!([{"op": "replace", "path": "/", "value": "a"}]),
            json!([{"op": "replace", "path": "", "value": "a"}]),
            json!([{"op": "replace", "path": "/name"}]),
            json!([{"op": "replace", "path": "/name/first", "value": "a"}]),
            json!([{"op": "add", "path": "/tags/-", "value": "a"}]),
            json!([{"op": "add", "path": "/a~", "value": "a"}]),
            json!([{"op": "add", "path": "/a~2", "value": "a"}]),
            json!([{"op": "add", "path": "/a", "value": 1}]),
        ];
        for body in bad_v21 {
            let refused = changes(Form::V21, &body).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidRequest, "{body}");
        }
        let two = json!([{"add": "/a", "replace": "/b", "value": "x"}]);
        assert!(changes(Form::V20, &two).is_err());
    }

    #[test]
    fn no_operation_reaches_what_the_service_tells() {
        for path in [
            "/status",
            "/size",
            "/checksum",
            "/id",
            "/locations",
            "/locations/0",
            "/locations/-",
            "/deleted",
            "/os_glance_import_task",
            "/__image_location",
            "/__system__cmkid",
        ] {
            for op in OPERATIONS {
                let body = json!([{"op": op, "path": path, "value": "x"}]);
                let refused = changes(Form::V21, &body).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Forbidden, "{op} {path}");
            }
        }
    }
}
