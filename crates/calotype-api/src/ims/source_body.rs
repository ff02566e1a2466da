//! The bodies of requests for images of servers, disks and backups (spec 2.3, 2.6).

use calotype_core::app::{Source, SourceImage, SourceOrder};
use calotype_core::codes::ImsCode;
use calotype_core::id::{ServerId, VolumeId};
use calotype_core::name::{Description, ImageName};
use calotype_core::ports::BackupKind;
use calotype_core::{Error, Result};
use serde_json::{Map, Value};

use super::import_body::{amount, tags};
use crate::json_body::{malformed, optional_list, optional_text};

/// What a body to `/v2/cloudimages/action` asks for, if it is about a server or disks and not about an object. A server
/// comes before an object where a body names both, and an object before disks.
///
/// # Errors
/// IMG.0001 for what is not of its type, and both kinds of tags at once; IMG.0012, 0005 and 0120 for what names no server or
/// disk; each field's own code.
pub(super) fn server_or_disks(body: &mut Map<String, Value>) -> Result<Option<SourceOrder>> {
    if is_there(body.get("instance_id")) {
        let images = vec![image(body)?];
        let source = Source::Server(server(body)?);
        return order(body, source, images).map(Some);
    }
    if is_there(body.get("image_url")) {
        return Ok(None);
    }
    if is_there(body.get("volume_id")) {
        let images = vec![image(body)?];
        let known = ["ECS", "BMS", "FusionCompute", "Ironic", ""];
        match optional_text(body, "type")? {
            Some(kind) if !known.contains(&kind.as_str()) => {
                return Err(Error::ims(ImsCode::IMG_0024));
            }
            _ => {}
        }
        let source = Source::SystemVolume {
            volume: volume(body)?,
            os_version: optional_text(body, "os_version")?.unwrap_or_default(),
        };
        return order(body, source, images).map(Some);
    }
    let of_disk = |item: &Value| is_there(item.get("volume_id"));
    let items = body.get("data_images").and_then(Value::as_array);
    if !items.is_some_and(|items| items.iter().any(of_disk)) {
        return Ok(None);
    }
    let mut images = Vec::new();
    let mut volumes = Vec::new();
    for mut item in disks(body, &["name", "description"])? {
        images.push(image(&mut item)?);
        volumes.push(volume(&mut item)?);
    }
    order(body, Source::DataVolumes(volumes), images).map(Some)
}

/// What a body to `/v1/cloudimages/wholeimages/action` asks for.
///
/// # Errors
/// IMG.0001 for what is not of its type, both kinds of tags at once, and a server beside a backup; IMG.0012, 0005, 0019, 0020,
/// 0184 and 0198 for what names no server, backup, vault or kind of backup; each field's own code.
pub(super) fn whole(mut body: Map<String, Value>) -> Result<SourceOrder> {
    let body = &mut body;
    let images = vec![image(body)?];
    let backup = optional_text(body, "backup_id")?;
    let named = |text: Option<&str>| text.is_some_and(|text| !text.trim().is_empty());
    let server_named = named(body.get("instance_id").and_then(Value::as_str));
    if server_named && named(backup.as_deref()) {
        return Err(malformed(
            "Either 'instance_id' or 'backup_id' can be given.",
        ));
    }
    let source = match backup {
        Some(backup) if !server_named => Source::Backup {
            kind: backup_kind(optional_text(body, "whole_image_type")?.as_deref())?,
            backup: match backup.trim() {
                "" => return Err(Error::ims(ImsCode::IMG_0019)),
                id => id.parse().map_err(|_| Error::ims(ImsCode::IMG_0020))?,
            },
        },
        _ => Source::WholeServer {
            server: server(body)?,
            vault: optional_text(body, "vault_id")?
                .filter(|vault| !vault.trim().is_empty())
                .map(|vault| vault.parse())
                .transpose()
                .map_err(|_| Error::ims(ImsCode::IMG_0184))?,
        },
    };
    order(body, source, images)
}

fn backup_kind(text: Option<&str>) -> Result<BackupKind> {
    match text {
        None | Some("" | "CSBS") => Ok(BackupKind::Csbs),
        Some("CBR") => Ok(BackupKind::Cbr),
        Some(_) => Err(Error::ims(ImsCode::IMG_0198)),
    }
}

fn is_there(value: Option<&Value>) -> bool {
    value.is_some_and(|value| !value.is_null())
}

fn server(body: &mut Map<String, Value>) -> Result<ServerId> {
    match optional_text(body, "instance_id")?
        .unwrap_or_default()
        .trim()
    {
        "" => Err(Error::ims(ImsCode::IMG_0012)),
        id => id.parse().map_err(|_| Error::ims(ImsCode::IMG_0005)),
    }
}

fn volume(body: &mut Map<String, Value>) -> Result<VolumeId> {
    let id = optional_text(body, "volume_id")?.unwrap_or_default();
    id.trim().parse().map_err(|_| Error::ims(ImsCode::IMG_0120))
}

/// What an image is called.
fn image(body: &mut Map<String, Value>) -> Result<SourceImage> {
    let description = optional_text(body, "description")?.unwrap_or_default();
    Ok(SourceImage {
        name: ImageName::parse(&optional_text(body, "name")?.unwrap_or_default())?,
        description: Description::parse(&description)?,
        tags: tags(body)?,
    })
}

fn order(
    body: &mut Map<String, Value>,
    source: Source,
    images: Vec<SourceImage>,
) -> Result<SourceOrder> {
    Ok(SourceOrder {
        source,
        images,
        min_ram: amount(body, "min_ram")?.unwrap_or(0),
        max_ram: amount(body, "max_ram")?,
        enterprise_project: optional_text(body, "enterprise_project_id")?,
    })
}

/// The items of `data_images`, each with these of the body's fields and its tags where it has none itself.
///
/// # Errors
/// IMG.0001.
pub(super) fn disks(
    body: &mut Map<String, Value>,
    inherited: &[&str],
) -> Result<Vec<Map<String, Value>>> {
    let items = optional_list(body, "data_images")?.unwrap_or_default();
    let mut disks = Vec::with_capacity(items.len());
    for item in items {
        let Value::Object(mut item) = item else {
            return Err(malformed("An item of 'data_images' must be an object."));
        };
        let tagged = is_there(item.get("tags")) || is_there(item.get("image_tags"));
        for name in inherited.iter().chain(&["tags", "image_tags"]) {
            let has = is_there(item.get(*name)) || (name.ends_with("tags") && tagged);
            let of_all = body.get(*name).filter(|value| !value.is_null() && !has);
            if let Some(value) = of_all {
                item.insert((*name).to_owned(), value.clone());
            }
        }
        disks.push(item);
    }
    Ok(disks)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            _ => panic!("not an object"),
        }
    }

    fn asked(body: Value) -> Result<Option<SourceOrder>> {
        server_or_disks(&mut object(body))
    }

    fn code<T: std::fmt::Debug>(result: Result<T>) -> Option<ImsCode> {
        result.unwrap_err().code()
    }

    #[test]
    fn a_server_comes_before_an_object_and_an_object_before_disks() {
        let disk = json!([{"name": "d", "volume_id": "v"}]);
        let source = |body: Value| asked(body).unwrap().map(|order| order.source);
        let of = |id: &str| Some(Source::Server(id.parse().unwrap()));
        let both = json!({"name": "n", "instance_id": "s", "image_url": "b:o", "volume_id": "v"});
        assert_eq!(source(both), of("s"));
        let object =
            json!({"name": "n", "image_url": "b:o", "volume_id": "v", "data_images": disk});
        assert_eq!(source(object), None);
        let system = json!({"name": "n", "volume_id": "v", "os_version": "o", "data_images": disk});
        let wanted = Source::SystemVolume {
            volume: "v".parse().unwrap(),
            os_version: "o".to_owned(),
        };
        assert_eq!(source(system), Some(wanted));
        let data = source(json!({"data_images": disk}));
        assert_eq!(data, Some(Source::DataVolumes(vec!["v".parse().unwrap()])));
        assert_eq!(source(json!({"name": "n"})), None);
        let files = json!({"name": "n", "data_images": [{"image_url": "b:o"}]});
        assert_eq!(source(files), None);
    }

    #[test]
    fn each_wrong_field_has_its_code() {
        for (body, wanted) in [
            (json!({"instance_id": "s"}), ImsCode::IMG_0013),
            (json!({"instance_id": "", "name": "n"}), ImsCode::IMG_0012),
            (
                json!({"instance_id": "a b", "name": "n"}),
                ImsCode::IMG_0005,
            ),
            (json!({"instance_id": 1, "name": "n"}), ImsCode::IMG_0001),
            (
                json!({"instance_id": "s", "name": "n", "description": "<"}),
                ImsCode::IMG_0054,
            ),
            (
                json!({"instance_id": "s", "name": "n", "tags": ["a b"]}),
                ImsCode::IMG_0115,
            ),
            (
                json!({"instance_id": "s", "name": "n", "min_ram": -1}),
                ImsCode::IMG_0055,
            ),
            (json!({"volume_id": "v"}), ImsCode::IMG_0013),
            (json!({"volume_id": " ", "name": "n"}), ImsCode::IMG_0120),
            (
                json!({"volume_id": "v", "name": "n", "type": "IsoImage"}),
                ImsCode::IMG_0024,
            ),
            (
                json!({"data_images": [{"volume_id": "v"}]}),
                ImsCode::IMG_0013,
            ),
            (
                json!({"data_images": [{"volume_id": "v", "name": "d"}, {"name": "e"}]}),
                ImsCode::IMG_0120,
            ),
            (
                json!({"data_images": [{"volume_id": "v", "name": "d"}, 1]}),
                ImsCode::IMG_0001,
            ),
        ] {
            assert_eq!(code(asked(body.clone())), Some(wanted), "{body}");
        }
    }

    #[test]
    fn what_a_disk_says_of_itself_goes_before_what_is_said_of_all() {
        let order = asked(json!({
            "name": "all", "description": "of all", "tags": ["a"],
            "data_images": [
                {"volume_id": "v"},
                {"volume_id": "w", "name": "own", "description": "own",
                    "image_tags": [{"key": "k", "value": "v"}]},
            ],
        }));
        let [first, second] = &order.unwrap().unwrap().images[..] else {
            panic!("not two images");
        };
        assert_eq!(first.name.as_str(), "all");
        assert_eq!(first.description.as_str(), "of all");
        assert_eq!(first.tags[0].to_string(), "a");
        assert_eq!(second.name.as_str(), "own");
        assert_eq!(second.description.as_str(), "own");
        assert_eq!(second.tags[0].to_string(), "k=v");
    }

    #[test]
    fn a_whole_image_is_of_a_server_or_of_a_backup() {
        let source = |body: Value| whole(object(body)).map(|order| order.source);
        let of = |mut body: Value| {
            body["name"] = json!("n");
            source(body)
        };
        let vault = Some("v".parse().unwrap());
        let server = "s".parse().unwrap();
        let wanted = Source::WholeServer { server, vault };
        let body = json!({"instance_id": "s", "vault_id": "v", "backup_id": ""});
        assert_eq!(of(body).unwrap(), wanted);
        for (word, kind) in [
            (json!(null), BackupKind::Csbs),
            (json!("CSBS"), BackupKind::Csbs),
            (json!("CBR"), BackupKind::Cbr),
        ] {
            let backup = "b".parse().unwrap();
            let body = json!({"instance_id": "", "backup_id": "b", "whole_image_type": word});
            assert_eq!(of(body).unwrap(), Source::Backup { backup, kind });
        }
        for (body, wanted) in [
            (json!({}), ImsCode::IMG_0012),
            (json!({"instance_id": " "}), ImsCode::IMG_0012),
            (json!({"backup_id": ""}), ImsCode::IMG_0019),
            (json!({"backup_id": "a b"}), ImsCode::IMG_0020),
            (
                json!({"backup_id": "b", "instance_id": "s"}),
                ImsCode::IMG_0001,
            ),
            (
                json!({"backup_id": "b", "whole_image_type": "tape"}),
                ImsCode::IMG_0198,
            ),
            (
                json!({"instance_id": "s", "vault_id": "a b"}),
                ImsCode::IMG_0184,
            ),
        ] {
            assert_eq!(code(of(body.clone())), Some(wanted), "{body}");
        }
        assert_eq!(
            code(source(json!({"backup_id": "b"}))),
            Some(ImsCode::IMG_0013)
        );
    }
}
