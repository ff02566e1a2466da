//! What a JSON patch of an image asks for.

use calotype_core::Result;
use calotype_core::app::{Change, check_settable};
use serde_json::Value;

use super::attributes::setting;
use crate::json_patch::{Form, Verb, operations};

/// The media types, in the order of `Accept-Patch`.
pub(super) const MEDIA_TYPES: &str =
    "application/openstack-images-v2.0-json-patch, application/openstack-images-v2.1-json-patch";

/// The changes that a patch asks for. `add` of the older form demands that the attribute is not there.
///
/// # Errors
/// InvalidRequest where the patch or a value is malformed; Forbidden for attributes that only the service sets.
pub(super) fn changes(form: Form, body: &Value) -> Result<Vec<Change>> {
    let change = |operation: crate::json_patch::Operation<'_>| {
        let name = operation.name;
        check_settable(&name)?;
        let Some(value) = operation.value.filter(|_| operation.verb != Verb::Remove) else {
            return Ok(Change::Remove(name));
        };
        let setting = setting(&name, value)?;
        Ok(match (operation.verb, form) {
            (Verb::Replace, _) => Change::Replace(setting),
            (_, Form::V20) => Change::Insert(setting),
            (_, Form::V21) => Change::Set(setting),
        })
    };
    operations(form, body)?.into_iter().map(change).collect()
}

#[cfg(test)]
mod tests {
    use calotype_core::ErrorKind;
    use calotype_core::app::Setting;
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
            for op in ["add", "remove", "replace"] {
                let body = json!([{"op": op, "path": path, "value": "x"}]);
                let refused = changes(Form::V21, &body).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Forbidden, "{op} {path}");
            }
        }
    }
}
