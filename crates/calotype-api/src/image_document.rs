//! The JSON form of an image: one rendering for the native and the IMS answers alike.
//!
//! The types are those that the clients decode (`docs/api-compatibility.md`): every `__*` attribute, `max_ram` and
//! `active_at` are strings, sizes and `min_*` are numbers, `protected` and `os_hidden` are booleans. A property
//! never takes the place of an attribute that the service itself tells.

use calotype_core::app::Settings;
use calotype_core::image::{Image, Visibility};
use serde_json::{Map, Value, json};

/// The environment of an image that names none: a system disk.
const DEFAULT_ENVIRONMENT: &str = "FusionCompute";

/// The document of an image, in the order in which it goes onto the wire.
///
/// Glance's own attributes are always there, null where they are not known. Everything else is left out where it
/// is unset (decision D21).
pub fn image_document(image: &Image, settings: &Settings) -> Map<String, Value> {
    let mut document = Map::new();
    glance_attributes(&mut document, image);
    ims_attributes(&mut document, image, settings);
    for (name, value) in &image.properties {
        if !document.contains_key(name) {
            document.insert(name.clone(), json!(value));
        }
    }
    document
}

fn glance_attributes(document: &mut Map<String, Value>, image: &Image) {
    let id = image.id.to_string();
    let os_hash = image.digests.os_hash();
    let attributes = [
        ("id", json!(id)),
        ("name", json!(image.name)),
        ("status", json!(image.status.as_str())),
        ("visibility", json!(image.visibility.as_str())),
        ("owner", json!(image.owner.as_str())),
        ("tags", json!(image.tags)),
        ("protected", json!(image.protected)),
        ("os_hidden", json!(image.hidden)),
        ("container_format", json!(image.container_format)),
        ("disk_format", json!(image.disk_format)),
        ("min_disk", json!(image.min_disk)),
        ("min_ram", json!(image.min_ram)),
        ("size", json!(image.size)),
        ("virtual_size", json!(image.virtual_size)),
        ("checksum", json!(image.digests.md5)),
        (
            "os_hash_algo",
            json!(os_hash.map(|(algorithm, _)| algorithm.as_str())),
        ),
        ("os_hash_value", json!(os_hash.map(|(_, value)| value))),
        ("created_at", json!(image.created_at.to_seconds())),
        ("updated_at", json!(image.updated_at.to_seconds())),
        ("self", json!(format!("/v2/images/{id}"))),
        ("file", json!(format!("/v2/images/{id}/file"))),
        ("schema", json!("/v2/schemas/image")),
    ];
    document.extend(
        attributes
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value)),
    );
}

fn ims_attributes(document: &mut Map<String, Value>, image: &Image, settings: &Settings) {
    let size = image.size.map_or(0, calotype_core::size::ByteSize::bytes);
    let environment = image.property("virtual_env_type");
    let mut tell = |name: &str, value: String| {
        document.insert(name.to_owned(), Value::String(value));
    };
    if let Some(at) = image.active_at {
        tell("active_at", at.to_seconds());
    }
    tell("__imagetype", image_type(image.visibility).to_owned());
    tell("__isregistered", "true".to_owned());
    tell("__image_source_type", "uds".to_owned());
    tell("__image_size", size.to_string());
    if image.blob.is_some() {
        // An opaque reference (decision D11): it says where to ask, not where the bytes lie.
        tell(
            "__image_location",
            format!("{}:{}", settings.region, image.id),
        );
    }
    if let Some(at) = image.damaged_at {
        tell("calotype_damaged_at", at.to_seconds());
    }
    if let Some(key) = &image.cmk_id {
        tell("__system__cmkid", key.as_str().to_owned());
    }
    tell(
        "virtual_env_type",
        environment.unwrap_or(DEFAULT_ENVIRONMENT).to_owned(),
    );
    tell(
        "enterprise_project_id",
        image.enterprise_project.to_string(),
    );
}

/// The IMS word for who can see an image (spec 4.3). It has none for a community image: that one is its owner's.
fn image_type(visibility: Visibility) -> &'static str {
    match visibility {
        Visibility::Public => "gold",
        Visibility::Shared => "shared",
        Visibility::Private | Visibility::Community => "private",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use calotype_core::id::{EnterpriseProjectId, ImageId};
    use calotype_core::image::{Digests, ImageStatus};
    use calotype_core::size::ByteSize;
    use calotype_core::time::Timestamp;

    use super::*;

    fn queued() -> Image {
        let at = Timestamp::from_micros(1_704_164_645_678_901);
        Image {
            id: "11111111-2222-3333-4444-555555555555"
                .parse::<ImageId>()
                .unwrap(),
            name: Some("plate".to_owned()),
            owner: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            status: ImageStatus::Queued,
            visibility: Visibility::Private,
            disk_format: Some("qcow2".to_owned()),
            container_format: Some("bare".to_owned()),
            min_disk: 0,
            min_ram: 0,
            protected: false,
            hidden: false,
            size: None,
            virtual_size: None,
            digests: Digests::default(),
            blob: None,
            wrapped_key: None,
            damaged_at: None,
            cmk_id: None,
            enterprise_project: EnterpriseProjectId::Default,
            properties: BTreeMap::new(),
            tags: vec!["a=b".to_owned()],
            created_at: at,
            updated_at: at,
            active_at: None,
            version: 1,
        }
    }

    #[test]
    fn a_queued_image_tells_null_where_its_bytes_will_tell_more() {
        insta::assert_json_snapshot!(image_document(&queued(), &Settings::default()));
    }

    #[test]
    fn an_active_sealed_image_tells_its_digests_key_and_location() {
        let mut image = queued();
        image.status = ImageStatus::Active;
        image.size = Some(ByteSize::new(5));
        image.digests.md5 = Some("5d41402abc4b2a76b9719d911017c592".to_owned());
        image.digests.sha256 = Some("2cf24dba".to_owned());
        image.blob = Some(uuid::Uuid::from_u128(7).into());
        image.cmk_id = Some("key-1".parse().unwrap());
        image.active_at = Some(image.created_at);
        image.visibility = Visibility::Public;
        image.properties = [
            ("virtual_env_type", "IsoImage"),
            ("max_ram", "4096"),
            ("__os_type", "Linux"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        insta::assert_json_snapshot!(image_document(&image, &Settings::default()));
    }

    #[test]
    fn a_property_never_takes_the_place_of_what_the_service_tells() {
        let plain = image_document(&queued(), &Settings::default());
        let mut forged = queued();
        for name in plain.keys() {
            if name != "virtual_env_type" {
                forged.properties.insert(name.clone(), "forged".to_owned());
            }
        }
        assert_eq!(image_document(&forged, &Settings::default()), plain);
    }
}
