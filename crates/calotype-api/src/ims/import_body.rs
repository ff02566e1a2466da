//! The bodies of requests for images of objects: one reading for the paths that take them (spec 2.3 to 2.5).

use calotype_core::app::{DataDisk, Firmware, ImportKind, ImportOrder, OsType, Strictness};
use calotype_core::codes::ImsCode;
use calotype_core::image_tag::Tag;
use calotype_core::name::{Description, ImageName};
use calotype_core::object::ObjectAddress;
use calotype_core::{Error, Result};
use serde_json::{Map, Value};

use super::source_body;
use super::tags::tag_of;
use crate::json_body::{malformed, optional_bool, optional_list, optional_text};

/// The most disks of data that one request names (spec 2.3).
const MOST_DATA_DISKS: usize = 3;

/// Which path a body came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `/v2/cloudimages/action`.
    Any,
    /// `/v1/cloudimages/action`.
    Older,
    /// `/v2/cloudimages/quickimport/action`.
    Quick,
    /// `/v1/cloudimages/dataimages/action`.
    Data,
}

/// What a body asks for.
///
/// # Errors
/// IMG.0001 for what is not of its type, and both kinds of tags at once; each field's own code.
pub(super) fn order(
    mut body: Map<String, Value>,
    form: Form,
    strictness: Strictness,
) -> Result<ImportOrder> {
    let body = &mut body;
    let items = match form {
        Form::Any | Form::Older => source_body::disks(body, &["description"])?,
        Form::Quick | Form::Data => Vec::new(),
    };
    if items.len() > MOST_DATA_DISKS {
        return Err(Error::ims(ImsCode::IMG_0194));
    }
    let name = ImageName::parse(&optional_text(body, "name")?.unwrap_or_default())?;
    let description = Description::parse(&optional_text(body, "description")?.unwrap_or_default())?;
    let url = optional_text(body, "image_url")?.unwrap_or_default();
    let object = ObjectAddress::parse(&url)?;
    let kind = kind(optional_text(body, "type")?.as_deref(), form)?;
    let os_version = optional_text(body, "os_version")?;
    let os_type = optional_text(body, "os_type")?.filter(|text| !text.is_empty());
    let os_type = os_type.map(|text| os_type_of(&text, kind)).transpose()?;
    let arm = match optional_text(body, "architecture")?.as_deref() {
        None | Some("" | "x86") => false,
        Some("arm") => true,
        Some(_) => return Err(Error::ims(ImsCode::IMG_0212)),
    };
    let firmware = optional_text(body, "hw_firmware_type")?.filter(|text| !text.is_empty());
    let firmware = firmware.map(|text| text.parse::<Firmware>());
    let firmware = firmware
        .transpose()
        .map_err(|_| Error::ims(ImsCode::IMG_0141))?;
    let quick = form == Form::Quick || optional_bool(body, "is_quick_import")? == Some(true);
    let data_disks = data_disks(items, &object, quick)?;
    // They belong to a server's system disk.
    if !data_disks.is_empty() && matches!(kind, ImportKind::Data | ImportKind::Iso) {
        return Err(Error::ims(ImsCode::IMG_0024));
    }
    Ok(ImportOrder {
        kind,
        name,
        description,
        object,
        os_version: os_version.filter(|_| kind != ImportKind::Data),
        os_type,
        min_disk: amount(body, "min_disk")?.unwrap_or(0),
        min_ram: amount(body, "min_ram")?.unwrap_or(0),
        max_ram: amount(body, "max_ram")?,
        // An Arm server has no other.
        firmware: if arm { Some(Firmware::Uefi) } else { firmware },
        arm,
        configured: optional_bool(body, "is_config")? == Some(true),
        cmk_id: optional_text(body, "cmk_id")?,
        strictness,
        tags: tags(body)?,
        enterprise_project: optional_text(body, "enterprise_project_id")?,
        store: store(body)?,
        quick,
        data_disks,
    })
}

/// The disks of data that belong to the system's.
///
/// # Errors
/// IMG.0123 where an object is named twice; each field's own code.
fn data_disks(
    items: Vec<Map<String, Value>>,
    system: &ObjectAddress,
    quick: bool,
) -> Result<Vec<DataDisk>> {
    let mut disks: Vec<DataDisk> = Vec::with_capacity(items.len());
    for mut item in items {
        let disk = data_disk(&mut item, quick)?;
        let mut objects = disks.iter().map(|disk| &disk.object);
        if disk.object == *system || objects.any(|object| *object == disk.object) {
            return Err(Error::ims(ImsCode::IMG_0123));
        }
        disks.push(disk);
    }
    Ok(disks)
}

fn data_disk(item: &mut Map<String, Value>, quick: bool) -> Result<DataDisk> {
    let name = optional_text(item, "name")?.filter(|name| !name.is_empty());
    let description = optional_text(item, "description")?.unwrap_or_default();
    let url = optional_text(item, "image_url")?.unwrap_or_default();
    let os_type = optional_text(item, "os_type")?.filter(|text| !text.is_empty());
    let os_type = os_type.map(|text| os_type_of(&text, ImportKind::System));
    Ok(DataDisk {
        os_type: os_type.transpose()?,
        name: name.map(|name| ImageName::parse(&name)).transpose()?,
        description: Description::parse(&description)?,
        object: ObjectAddress::parse(&url)?,
        min_disk: amount(item, "min_disk")?.unwrap_or(0),
        tags: tags(item)?,
        quick: optional_bool(item, "is_quick_import")?.unwrap_or(quick),
    })
}

fn kind(text: Option<&str>, form: Form) -> Result<ImportKind> {
    let text = text.filter(|text| !text.is_empty());
    match (text, form) {
        (_, Form::Data) | (None, Form::Older) | (Some("DataImage"), Form::Quick | Form::Older) => {
            Ok(ImportKind::Data)
        }
        (None | Some("ECS" | "FusionCompute"), _) => Ok(ImportKind::System),
        (Some("BMS" | "Ironic"), _) => Ok(ImportKind::BareMetal),
        (Some("IsoImage"), Form::Any | Form::Older) => Ok(ImportKind::Iso),
        _ => Err(Error::ims(ImsCode::IMG_0024)),
    }
}

fn os_type_of(text: &str, kind: ImportKind) -> Result<OsType> {
    match text.parse() {
        Ok(OsType::Other) if kind == ImportKind::Data => Err(Error::ims(ImsCode::IMG_0122)),
        Ok(os_type) => Ok(os_type),
        Err(_) => Err(Error::ims(ImsCode::IMG_0122)),
    }
}

/// An amount, as a number or as its decimal text (reading 9.16).
///
/// # Errors
/// IMG.0055 for what is no amount, IMG.0001 for what is not even a number.
pub(super) fn amount(body: &mut Map<String, Value>, name: &str) -> Result<Option<u32>> {
    let number = match body.remove(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.parse().ok(),
        Some(_) => {
            return Err(malformed(&format!(
                "The field '{name}' must be an integer."
            )));
        }
    };
    let amount = number.and_then(|number| i32::try_from(number).ok());
    let amount = amount.and_then(|amount| u32::try_from(amount).ok());
    amount
        .map(Some)
        .ok_or_else(|| Error::ims(ImsCode::IMG_0055))
}

/// The store that the bytes are to be in, an extension; empty is none.
pub(super) fn store(body: &mut Map<String, Value>) -> Result<Option<String>> {
    Ok(optional_text(body, "store")?.filter(|name| !name.is_empty()))
}

/// `tags` or `image_tags`, which exclude each other.
pub(super) fn tags(body: &mut Map<String, Value>) -> Result<Vec<Tag>> {
    let texts = optional_list(body, "tags")?.unwrap_or_default();
    let objects = optional_list(body, "image_tags")?.unwrap_or_default();
    if !texts.is_empty() && !objects.is_empty() {
        return Err(malformed("Either 'tags' or 'image_tags' can be given."));
    }
    let text = |value: &Value| match value.as_str() {
        Some(text) => Tag::parse(text),
        None => Err(malformed("A tag must be a string.")),
    };
    let texts = texts.iter().map(text);
    texts.chain(objects.iter().map(tag_of)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(form: Form, change: &Value) -> Result<ImportOrder> {
        let mut body = json!({
            "name": "img", "image_url": "images:disk.raw", "min_disk": 40,
            "os_version": "Ubuntu 16.04 server 64bit",
        });
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let Value::Object(body) = body else {
            unreachable!()
        };
        order(body, form, Strictness::KeyService)
    }

    #[test]
    fn each_wrong_field_has_its_code() {
        for (change, code) in [
            (json!({"name": null}), ImsCode::IMG_0013),
            (json!({"name": " x"}), ImsCode::IMG_0003),
            (json!({"name": 1}), ImsCode::IMG_0001),
            (json!({"description": "<"}), ImsCode::IMG_0054),
            (json!({"image_url": null}), ImsCode::IMG_0017),
            (json!({"image_url": ":x"}), ImsCode::IMG_0068),
            (json!({"image_url": "IM:x"}), ImsCode::IMG_0109),
            (json!({"image_url": "images:a b"}), ImsCode::IMG_0175),
            (json!({"type": "Amiga"}), ImsCode::IMG_0024),
            (json!({"type": "DataImage"}), ImsCode::IMG_0024),
            (json!({"os_type": "BeOS"}), ImsCode::IMG_0122),
            (json!({"architecture": "mips"}), ImsCode::IMG_0212),
            (json!({"hw_firmware_type": "UEFI"}), ImsCode::IMG_0141),
            (json!({"min_disk": -1}), ImsCode::IMG_0055),
            (json!({"min_disk": 1.5}), ImsCode::IMG_0055),
            (json!({"min_disk": true}), ImsCode::IMG_0001),
            (json!({"max_ram": "x"}), ImsCode::IMG_0055),
            (json!({"is_config": "true"}), ImsCode::IMG_0001),
            (json!({"tags": "a"}), ImsCode::IMG_0001),
            (json!({"tags": ["a b"]}), ImsCode::IMG_0115),
            (
                json!({"tags": ["a"], "image_tags": [{"key": "b", "value": ""}]}),
                ImsCode::IMG_0001,
            ),
            (json!({"image_tags": [{"key": "b"}]}), ImsCode::IMG_0115),
            (json!({"data_images": [{}, {}, {}, {}]}), ImsCode::IMG_0194),
            (
                json!({"data_images": [{"image_url": "images:disk.raw"}]}),
                ImsCode::IMG_0123,
            ),
            (
                json!({"data_images": [{"image_url": "images:a"}, {"image_url": "images:a"}]}),
                ImsCode::IMG_0123,
            ),
            (
                json!({"data_images": [{"image_url": "a"}]}),
                ImsCode::IMG_0017,
            ),
            (json!({"data_images": [{}]}), ImsCode::IMG_0017),
            (json!({"data_images": [1]}), ImsCode::IMG_0001),
            (json!({"data_images": {}}), ImsCode::IMG_0001),
            (
                json!({"data_images": [{"image_url": "images:a", "name": "a/b"}]}),
                ImsCode::IMG_0003,
            ),
            (
                json!({"data_images": [{"image_url": "images:a", "min_disk": -1}]}),
                ImsCode::IMG_0055,
            ),
            (
                json!({"data_images": [{"image_url": "images:a", "os_type": "BeOS"}]}),
                ImsCode::IMG_0122,
            ),
            (
                json!({"type": "IsoImage", "data_images": [{"image_url": "images:a"}]}),
                ImsCode::IMG_0024,
            ),
        ] {
            let refused = read(Form::Any, &change).err().unwrap();
            assert_eq!(refused.code(), Some(code), "{change}");
        }
    }

    #[test]
    fn the_path_and_the_type_say_what_is_made() {
        let of = |form, kind: Value| read(form, &json!({"type": kind})).map(|order| order.kind);
        for (form, text, kind) in [
            (Form::Any, json!(null), ImportKind::System),
            (Form::Any, json!("ECS"), ImportKind::System),
            (Form::Any, json!("FusionCompute"), ImportKind::System),
            (Form::Any, json!("BMS"), ImportKind::BareMetal),
            (Form::Any, json!("Ironic"), ImportKind::BareMetal),
            (Form::Any, json!("IsoImage"), ImportKind::Iso),
            (Form::Older, json!(null), ImportKind::Data),
            (Form::Older, json!("DataImage"), ImportKind::Data),
            (Form::Older, json!("ECS"), ImportKind::System),
            (Form::Quick, json!(null), ImportKind::System),
            (Form::Quick, json!("DataImage"), ImportKind::Data),
            (Form::Data, json!(null), ImportKind::Data),
            (Form::Data, json!("ECS"), ImportKind::Data),
        ] {
            assert_eq!(of(form, text.clone()).unwrap(), kind, "{form:?} {text}");
        }
        let refused = of(Form::Quick, json!("IsoImage")).unwrap_err();
        assert_eq!(refused.code(), Some(ImsCode::IMG_0024));
    }

    #[test]
    fn a_disk_of_data_has_what_it_says_of_itself_and_else_what_the_body_says() {
        let order = read(
            Form::Any,
            &json!({"description": "of all", "tags": ["a"], "is_quick_import": true, "data_images": [
                {"image_url": "images:a", "min_disk": "7"},
                {"image_url": "images:b", "min_disk": 8, "name": "own", "description": "own",
                    "is_quick_import": false, "image_tags": [{"key": "k", "value": "v"}]},
            ]}),
        );
        let [first, second] = &order.unwrap().data_disks[..] else {
            panic!("not two disks");
        };
        assert_eq!(first.name, None);
        assert_eq!(second.name.as_ref().unwrap().as_str(), "own");
        for (disk, object, min_disk, description, quick, tag) in [
            (first, "images:a", 7, "of all", true, "a"),
            (second, "images:b", 8, "own", false, "k=v"),
        ] {
            assert_eq!((disk.object.as_str(), disk.min_disk), (object, min_disk));
            assert_eq!(disk.description.as_str(), description);
            assert_eq!(disk.quick, quick);
            assert_eq!(disk.tags[0].to_string(), tag);
        }
        let body = json!({"data_images": [{"image_url": "images:a"}]});
        for form in [Form::Quick, Form::Data] {
            assert_eq!(read(form, &body).unwrap().data_disks, []);
        }
    }

    #[test]
    fn numbers_may_be_texts_and_arm_has_its_firmware() {
        let order = read(
            Form::Quick,
            &json!({"min_disk": "100", "min_ram": "1", "max_ram": 2, "architecture": "arm",
                "hw_firmware_type": "bios", "tags": ["env=dev", "x.y"], "is_config": true}),
        )
        .unwrap();
        assert_eq!(
            (order.min_disk, order.min_ram, order.max_ram),
            (100, 1, Some(2))
        );
        assert!(order.arm && order.quick && order.configured);
        assert_eq!(order.firmware, Some(Firmware::Uefi));
        assert_eq!(order.tags.len(), 2);
    }
}
