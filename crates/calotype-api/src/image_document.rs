//! The JSON form of an image: one rendering for the native and the IMS answers alike.
//!
//! The types are those that the clients decode (`docs/api-compatibility.md`): every `__*` attribute, `max_ram` and
//! `active_at` are strings, sizes and `min_*` are numbers, `protected` and `os_hidden` are booleans. A property
//! never takes the place of an attribute that the service itself tells.

use std::collections::BTreeMap;

use calotype_core::app::Settings;
use calotype_core::id::{BlobId, StoreName};
use calotype_core::image::{Image, Visibility};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// The environment of an image that names none: a system disk.
const DEFAULT_ENVIRONMENT: &str = "FusionCompute";

/// The document of an image, in the order in which it goes onto the wire.
///
/// Glance's own attributes are always there, null where they are not known. Everything else is left out where it
/// is unset (decision D21).
///
/// It is written from the image itself: pages have up to a thousand of them.
#[derive(Debug, Clone, Copy)]
pub struct ImageDocument<'a> {
    image: &'a Image,
    settings: &'a Settings,
    listed: bool,
    store: Option<&'a StoreName>,
}

impl<'a> ImageDocument<'a> {
    /// The document that both APIs show.
    pub const fn new(image: &'a Image, settings: &'a Settings) -> Self {
        Self {
            image,
            settings,
            listed: false,
            store: None,
        }
    }

    /// As the Image API has it: with the store of its bytes, where `stores` has that.
    pub fn in_stores(self, stores: &'a BTreeMap<BlobId, StoreName>) -> Self {
        let store = self.image.blob.and_then(|blob| stores.get(&blob));
        Self { store, ..self }
    }

    /// As the Image API's list has it: with the enterprise project by the name that this list alone has for it (spec
    /// 4.1), too.
    pub const fn listed(self) -> Self {
        Self {
            listed: true,
            ..self
        }
    }
}

impl Serialize for ImageDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut told = Told {
            map: serializer.serialize_map(None)?,
            names: Vec::with_capacity(40),
        };
        glance_attributes(&mut told, self.image)?;
        ims_attributes(&mut told, self.image, self.settings)?;
        if let Some(store) = self.store {
            told.tell("stores", store.as_str())?;
        }
        if self.listed {
            let enterprise_project = self.image.enterprise_project;
            told.tell(
                "_sys_enterprise_project_id",
                &format_args!("{enterprise_project}"),
            )?;
        }
        for (name, value) in &self.image.properties {
            if !told.names.contains(&name.as_str()) {
                told.map.serialize_entry(name, value)?;
            }
        }
        told.map.end()
    }
}

/// What a document has told.
struct Told<M> {
    map: M,
    names: Vec<&'static str>,
}

impl<M: SerializeMap> Told<M> {
    fn tell<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), M::Error> {
        self.names.push(name);
        self.map.serialize_entry(name, value)
    }
}

fn glance_attributes<M: SerializeMap>(told: &mut Told<M>, image: &Image) -> Result<(), M::Error> {
    let id = image.id;
    let os_hash = image.digests.os_hash();
    told.tell("id", &format_args!("{id}"))?;
    told.tell("name", &image.name)?;
    told.tell("status", image.status.as_str())?;
    told.tell("visibility", image.visibility.as_str())?;
    told.tell("owner", image.owner.as_str())?;
    told.tell("tags", &image.tags)?;
    told.tell("protected", &image.protected)?;
    told.tell("os_hidden", &image.hidden)?;
    told.tell("container_format", &image.container_format)?;
    told.tell("disk_format", &image.disk_format)?;
    told.tell("min_disk", &image.min_disk)?;
    told.tell("min_ram", &image.min_ram)?;
    told.tell("size", &image.size)?;
    told.tell("virtual_size", &image.virtual_size)?;
    told.tell("checksum", &image.digests.md5)?;
    told.tell(
        "os_hash_algo",
        &os_hash.map(|(algorithm, _)| algorithm.as_str()),
    )?;
    told.tell("os_hash_value", &os_hash.map(|(_, value)| value))?;
    told.tell("created_at", &image.created_at.to_seconds())?;
    told.tell("updated_at", &image.updated_at.to_seconds())?;
    told.tell("self", &format_args!("/v2/images/{id}"))?;
    told.tell("file", &format_args!("/v2/images/{id}/file"))?;
    told.tell("schema", "/v2/schemas/image")
}

fn ims_attributes<M: SerializeMap>(
    told: &mut Told<M>,
    image: &Image,
    settings: &Settings,
) -> Result<(), M::Error> {
    let size = image.size.map_or(0, calotype_core::size::ByteSize::bytes);
    if let Some(at) = image.active_at {
        told.tell("active_at", &at.to_seconds())?;
    }
    told.tell("__imagetype", image_type(image.visibility))?;
    told.tell("__isregistered", "true")?;
    told.tell("__image_source_type", "uds")?;
    told.tell("__image_size", &format_args!("{size}"))?;
    if image.blob.is_some() {
        // An opaque reference (decision D11): it says where to ask, not where the bytes lie.
        let location = format_args!("{}:{}", settings.region, image.id);
        told.tell("__image_location", &location)?;
    }
    if let Some(at) = image.damaged_at {
        told.tell("calotype_damaged_at", &at.to_seconds())?;
    }
    if let Some(key) = &image.cmk_id {
        told.tell("__system__cmkid", key.as_str())?;
    }
    let environment = image.property("virtual_env_type");
    told.tell(
        "virtual_env_type",
        environment.unwrap_or(DEFAULT_ENVIRONMENT),
    )?;
    told.tell(
        "enterprise_project_id",
        &format_args!("{}", image.enterprise_project),
    )
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

    fn document(image: &Image) -> serde_json::Value {
        serde_json::to_value(ImageDocument::new(image, &Settings::default())).unwrap()
    }

    #[test]
    fn a_queued_image_tells_null_where_its_bytes_will_tell_more() {
        insta::assert_json_snapshot!(document(&queued()));
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
        insta::assert_json_snapshot!(document(&image));
    }

    #[test]
    fn a_property_never_takes_the_place_of_what_the_service_tells() {
        let plain = document(&queued());
        let mut forged = queued();
        for name in plain.as_object().unwrap().keys() {
            if name != "virtual_env_type" {
                forged.properties.insert(name.clone(), "forged".to_owned());
            }
        }
        assert_eq!(document(&forged), plain);
    }
}
