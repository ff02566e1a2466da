//! Attributes of images as JSON: from the wire's types to the domain's.

use calotype_core::app::{NewImage, Setting, check_settable};
use calotype_core::codes::ImsCode;
use calotype_core::{Error, Result};
use serde_json::Value;

/// The image that a JSON object asks for.
///
/// # Errors
/// InvalidRequest where it is no object or a value has the wrong type; Forbidden for attributes that only the
/// service sets.
pub(super) fn new_image(body: &Value) -> Result<NewImage> {
    let Value::Object(attributes) = body else {
        return Err(Error::invalid("The body is a JSON object."));
    };
    let mut order = NewImage::default();
    for (name, value) in attributes {
        match (name.as_str(), value) {
            ("id", value) => {
                let id = text(name, value)?.parse();
                order.id = Some(id.map_err(|_| wrong(name, "a UUID"))?);
            }
            // No owner is the caller's own project.
            ("owner", Value::Null) => {}
            _ => order.settings.push(setting(name, value)?),
        }
    }
    Ok(order)
}

/// The attribute `name` with the value `value`.
///
/// # Errors
/// As [`new_image`].
pub(super) fn setting(name: &str, value: &Value) -> Result<Setting> {
    check_settable(name)?;
    Ok(match name {
        "name" => Setting::Name(text_or_null(name, value)?),
        "visibility" => Setting::Visibility(text(name, value)?.parse().map_err(|_| {
            Error::invalid("Attribute 'visibility' is one of: community, public, private, shared.")
        })?),
        "disk_format" => Setting::DiskFormat(text_or_null(name, value)?),
        "container_format" => Setting::ContainerFormat(text_or_null(name, value)?),
        "min_disk" => Setting::MinDisk(amount(name, value)?),
        "min_ram" => Setting::MinRam(amount(name, value)?),
        "protected" => Setting::Protected(boolean(name, value)?),
        "os_hidden" => Setting::Hidden(boolean(name, value)?),
        "owner" => {
            let owner = text(name, value)?.parse();
            Setting::Owner(owner.map_err(|_| wrong(name, "a project's id"))?)
        }
        "enterprise_project_id" => {
            let id = text(name, value)?.parse();
            Setting::EnterpriseProject(id.map_err(|_| Error::ims(ImsCode::IMG_0155))?)
        }
        "tags" => Setting::Tags(texts(name, value)?),
        _ => Setting::Property {
            name: name.to_owned(),
            value: text(name, value)?.to_owned(),
        },
    })
}

fn text<'a>(name: &str, value: &'a Value) -> Result<&'a str> {
    value.as_str().ok_or_else(|| wrong(name, "a string"))
}

fn text_or_null(name: &str, value: &Value) -> Result<Option<String>> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err(wrong(name, "a string or null")),
    }
}

fn texts(name: &str, value: &Value) -> Result<Vec<String>> {
    let list = value.as_array();
    let texts = list.map(|list| list.iter().map(|text| text.as_str().map(str::to_owned)));
    texts
        .and_then(Iterator::collect)
        .ok_or_else(|| wrong(name, "a list of strings"))
}

fn boolean(name: &str, value: &Value) -> Result<bool> {
    value.as_bool().ok_or_else(|| wrong(name, "a boolean"))
}

fn amount(name: &str, value: &Value) -> Result<u32> {
    let number = value.as_u64().and_then(|number| number.try_into().ok());
    let number = number.filter(|number| i32::try_from(*number).is_ok());
    number.ok_or_else(|| wrong(name, "an integer from 0 to 2147483647"))
}

fn wrong(name: &str, expected: &str) -> Error {
    Error::invalid(format!("Attribute '{name}' is not {expected}."))
}

#[cfg(test)]
mod tests {
    use calotype_core::ErrorKind;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_attribute_has_one_type_and_no_other() {
        for (name, good, bad) in [
            ("name", json!("x"), json!(1)),
            ("name", json!(null), json!(["x"])),
            ("visibility", json!("shared"), json!("secret")),
            ("disk_format", json!("raw"), json!({})),
            ("container_format", json!(null), json!(false)),
            ("min_disk", json!(0), json!("0")),
            ("min_disk", json!(2_147_483_647), json!(2_147_483_648_u64)),
            ("min_ram", json!(1), json!(-1)),
            ("min_ram", json!(1), json!(1.5)),
            ("protected", json!(true), json!("true")),
            ("os_hidden", json!(false), json!(0)),
            ("owner", json!("p1"), json!("../p")),
            ("tags", json!(["a"]), json!([1])),
            ("tags", json!([]), json!("a")),
            ("enterprise_project_id", json!("0"), json!("x")),
            ("custom", json!("x"), json!(1)),
            ("custom", json!(""), json!(null)),
            ("custom", json!("x"), json!({"nested": "x"})),
        ] {
            assert_eq!(setting(name, &good).unwrap().attribute(), name);
            let refused = setting(name, &bad).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidRequest, "{name}={bad}");
        }
    }

    #[test]
    fn what_the_service_tells_is_forbidden_whatever_its_value() {
        for name in ["status", "size", "checksum", "locations", "__system__cmkid"] {
            for value in [json!("x"), json!(1), json!(null), json!([])] {
                let refused = new_image(&json!({ name: value })).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Forbidden, "{name}");
            }
        }
    }

    #[test]
    fn only_a_new_image_chooses_its_id() {
        let id = "11111111-2222-3333-4444-555555555555";
        let order = new_image(&json!({ "id": id })).unwrap();
        assert_eq!(order.id.unwrap().to_string(), id);
        assert!(new_image(&json!({ "id": "1" })).is_err());
        assert!(setting("id", &json!(id)).is_err());
    }
}
