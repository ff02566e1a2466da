//! Updates of the IMS API (spec 2.2). They reach fewer attributes than a patch of the Image API, know what the values
//! of the reserved ones may be, and refuse each with a code of its own.
//!
//! What depends on several attributes (the bounds of memory, what excludes what) is checked on the image as it would
//! be, so that the order of a request's operations does not matter; and only where the request touches it, so that an
//! image which the Image API made otherwise can still be renamed.

use crate::access::Action;
use crate::app::images::Revision;
use crate::app::patch::{Change, Setting, check_property_count, check_settable, has};
use crate::app::{Call, Service};
use crate::codes::ImsCode;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{EnterpriseProjectId, ImageId};
use crate::image::{Image, ImageStatus};
use crate::image_tag::{Tag, check_distinct_keys};
use crate::name::{Description, ImageName};

/// Attributes that the Image API lets its callers set, and this one does not.
const READ_ONLY: &[&str] = &[
    "__backup_id",
    "__lazyloading",
    "__os_bit",
    "__os_feature_list",
    "__os_type",
    "__os_version",
    "__platform",
    "__productcode",
    "__sequence_num",
    "__support_agent_list",
    "__support_kvm",
    "__whole_image",
    "container_format",
    "disk_format",
    "min_disk",
    "os_hidden",
    "owner",
    "protected",
    "virtual_env_type",
];

/// Attributes that are `"true"` or absent.
const MARKS: &[&str] = &[
    "__support_diskintensive",
    "__support_highperformance",
    "__support_kvm_hi1822_hisriov",
    "__support_kvm_hi1822_hivirtionet",
    "__support_kvm_infiniband",
    "__support_largememory",
    "__support_xen",
    "__support_xen_hana",
];
/// Attributes that are `"true"` or `"false"`.
const FLAGS: &[&str] = &[
    "__is_config_init",
    "__support_amd",
    "__support_fc_inject",
    "hw_vif_multiqueue_enabled",
];
/// What `__support_xen_gpu_type` may be (spec 4.7).
const XEN_GPUS: &[&str] = &["M60_vGPU"];
/// What `__support_kvm_gpu_type` may be (spec 4.7).
const KVM_GPUS: &[&str] = &["M60", "V100_vGPU", "P2V_V100", "P100", "V100"];

/// What an image can't have together (spec 4.4): the first beside any of the others.
const EXCLUSIONS: &[(&str, &[&str])] = &[
    (
        "__support_xen_gpu_type",
        &["__support_xen", "__support_kvm"],
    ),
    (
        "__support_kvm_gpu_type",
        &["__support_xen", "__support_kvm"],
    ),
    ("__support_xen_hana", &["__support_xen", "__support_kvm"]),
    ("__support_kvm_infiniband", &["__support_xen"]),
];

const MIN_RAM: &str = "min_ram";
const MAX_RAM: &str = "max_ram";

/// Checks that an IMS update may name this attribute at all.
///
/// # Errors
/// IMG.0001 for one that it can't change, or whose name has an upper-case letter.
pub fn check_patchable(name: &str) -> Result<()> {
    if name.chars().any(char::is_uppercase) {
        return Err(malformed("An attribute's name has no upper-case letters."));
    }
    if READ_ONLY.contains(&name) || check_settable(name).is_err() {
        return Err(malformed(&format!("Attribute '{name}' is read-only.")));
    }
    Ok(())
}

impl Service {
    /// Makes the changes of an IMS update, all or none. Returns the image as it then is.
    ///
    /// # Errors
    /// IMG.0026; for the changes themselves IMG.0001, 0002, 0003, 0004, 0013, 0054, 0115, 0116, 0141; then IMG.0027,
    /// 0083, 0047 for the image, IMG.0046 unless it is active; then IMG.0035 for an attribute that is not there or that
    /// another excludes, IMG.0055, IMG.0026 and 0155 for the enterprise project.
    pub async fn update_cloud_image(
        &self,
        call: &Call,
        id: ImageId,
        changes: &[Change],
    ) -> Result<Image> {
        let allowed = self.authorize_within(call, Action::ImagesUpdate)?;
        for change in changes {
            self.check_change(change)?;
        }
        let mut image = self.ims_owned_image(&allowed, id).await?;
        // Once as a trial: what the image itself refuses comes before the enterprise project is asked for.
        self.apply_cloud_changes(call, &mut image, changes)?;
        self.check_enterprise_projects(changes).await?;
        let attributes: Vec<_> = changes.iter().map(Change::attribute).collect();
        let revision = Revision {
            id,
            trace: "updateImage",
            detail: serde_json::json!({ "attributes": attributes }),
        };
        let edit = |image: &mut Image| self.apply_cloud_changes(call, image, changes);
        self.revise(call, &allowed, &revision, &edit).await
    }

    /// What can be said of a change without its image.
    fn check_change(&self, change: &Change) -> Result<()> {
        check_patchable(change.attribute())?;
        let setting = match change {
            Change::Remove(name) if name == "name" => return Err(Error::ims(ImsCode::IMG_0013)),
            Change::Remove(name) if name == "visibility" => {
                return Err(malformed("Attribute 'visibility' is read-only."));
            }
            Change::Remove(_) => return Ok(()),
            Change::Set(setting) | Change::Replace(setting) | Change::Insert(setting) => setting,
        };
        match setting {
            Setting::Name(name) => ImageName::parse(name.as_deref().unwrap_or_default()).map(drop),
            Setting::Tags(texts) => self.tags_of(texts).map(drop),
            Setting::Property { name, value } => check_value(name, value),
            _ => Ok(()),
        }
    }

    /// The tags of a list of texts, sorted.
    fn tags_of(&self, texts: &[String]) -> Result<Vec<String>> {
        let tags: Result<Vec<Tag>> = texts.iter().map(|text| Tag::parse(text)).collect();
        self.tag_texts(&tags?)
    }

    /// The texts of tags, sorted.
    pub(super) fn tag_texts(&self, tags: &[Tag]) -> Result<Vec<String>> {
        check_distinct_keys(tags)?;
        if tags.len() > self.settings.limits.ims_tags_per_image {
            return Err(Error::ims(ImsCode::IMG_0116));
        }
        let mut tags: Vec<String> = tags.iter().map(Tag::to_string).collect();
        tags.sort_unstable();
        Ok(tags)
    }

    fn apply_cloud_changes(
        &self,
        call: &Call,
        image: &mut Image,
        changes: &[Change],
    ) -> Result<()> {
        if image.status != ImageStatus::Active {
            return Err(Error::ims(ImsCode::IMG_0046));
        }
        let properties_before = image.properties.len();
        for change in changes {
            match change {
                Change::Remove(name) => self.take_away(call, image, name)?,
                Change::Replace(setting) if !can_replace(image, setting.attribute()) => {
                    return Err(absent(setting.attribute()));
                }
                Change::Set(setting) | Change::Replace(setting) | Change::Insert(setting) => {
                    self.put(call, image, setting)?;
                }
            }
        }
        let touches = |name: &str| changes.iter().any(|change| change.attribute() == name);
        if touches(MIN_RAM) || touches(MAX_RAM) {
            check_memory(image)?;
        }
        for (name, excluded) in EXCLUSIONS {
            if touches(name) || excluded.iter().any(|name| touches(name)) {
                check_exclusion(image, name, excluded)?;
            }
        }
        check_property_count(image, properties_before, &self.settings.limits)
            .map_err(|error| error.with_code(ImsCode::IMG_0001))
    }

    fn put(&self, call: &Call, image: &mut Image, setting: &Setting) -> Result<()> {
        match setting {
            Setting::Visibility(visibility) if *visibility != image.visibility => {
                Err(malformed("Attribute 'visibility' is read-only."))
            }
            Setting::EnterpriseProject(project) => self.move_to(call, image, *project),
            Setting::Tags(texts) => {
                image.tags = self.tags_of(texts)?;
                Ok(())
            }
            _ => self.set(call, image, setting),
        }
    }

    fn take_away(&self, call: &Call, image: &mut Image, name: &str) -> Result<()> {
        match name {
            MIN_RAM => image.min_ram = 0,
            "tags" => image.tags.clear(),
            "enterprise_project_id" => self.move_to(call, image, EnterpriseProjectId::Default)?,
            _ => {
                let gone = image.properties.remove(name);
                gone.ok_or_else(|| absent(name))?;
            }
        }
        Ok(())
    }

    /// Puts an image into an enterprise project, which takes the right to make one there (spec 1, row 2).
    pub(super) fn move_to(
        &self,
        call: &Call,
        image: &mut Image,
        to: EnterpriseProjectId,
    ) -> Result<()> {
        if image.enterprise_project != to {
            let makes = self.authorize_within(call, Action::ServerImagesCreate)?;
            makes.check_reaches(to)?;
        }
        image.enterprise_project = to;
        Ok(())
    }
}

/// Terraform's provider replaces the bounds of memory right after a replication, whether the replica has any
/// (reading 9.31).
fn can_replace(image: &Image, name: &str) -> bool {
    name == MAX_RAM || has(image, name)
}

/// Terraform's provider adds what it failed to replace on this very code.
fn absent(name: &str) -> Error {
    let message = format!("The image has no attribute '{name}'.");
    Error::new(ErrorKind::InvalidRequest, message).with_code(ImsCode::IMG_0035)
}

fn malformed(message: &str) -> Error {
    Error::invalid(message).with_code(ImsCode::IMG_0001)
}

/// Checks the value of an attribute whose values are known.
fn check_value(name: &str, value: &str) -> Result<()> {
    let known: &[&str] = match name {
        "__description" => return Description::parse(value).map(drop),
        "hw_firmware_type" if !["bios", "uefi"].contains(&value) => {
            return Err(Error::ims(ImsCode::IMG_0141));
        }
        "__support_xen_gpu_type" => XEN_GPUS,
        "__support_kvm_gpu_type" => KVM_GPUS,
        _ if MARKS.contains(&name) => &["true"],
        _ if FLAGS.contains(&name) => &["true", "false"],
        _ => return Ok(()),
    };
    if known.contains(&value) {
        return Ok(());
    }
    Err(malformed(&format!(
        "Attribute '{name}' is one of: {}.",
        known.join(", ")
    )))
}

/// An absent or zero upper bound is none, as is one that the Image API let be something else than a number.
fn check_memory(image: &Image) -> Result<()> {
    let most = image.property(MAX_RAM).and_then(|most| most.parse().ok());
    if most.is_some_and(|most: u32| most != 0 && image.min_ram > most) {
        return Err(Error::ims(ImsCode::IMG_0055));
    }
    Ok(())
}

fn check_exclusion(image: &Image, name: &str, excluded: &[&str]) -> Result<()> {
    let marked = |name: &str| {
        let value = image.property(name).unwrap_or_default();
        !value.is_empty() && value != "false"
    };
    match excluded.iter().find(|other| marked(name) && marked(other)) {
        None => Ok(()),
        Some(other) => {
            let message = format!("An image can't have both '{name}' and '{other}'.");
            Err(Error::invalid(message).with_code(ImsCode::IMG_0035))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_names_what_can_be_changed_in_lower_case() {
        for name in [
            "name",
            "min_ram",
            "max_ram",
            "tags",
            "visibility",
            "enterprise_project_id",
            "x",
            "__description",
            "__support_xen",
            "hw_firmware_type",
        ] {
            assert!(check_patchable(name).is_ok(), "{name}");
        }
        let reserved = [
            "status",
            "id",
            "__imagetype",
            "__system__cmkid",
            "Name",
            "xÄ",
        ];
        for name in READ_ONLY.iter().chain(&reserved) {
            let code = check_patchable(name).unwrap_err().code();
            assert_eq!(code, Some(ImsCode::IMG_0001), "{name}");
        }
    }

    #[test]
    fn a_reserved_attribute_has_one_of_its_values() {
        for name in MARKS {
            assert!(check_value(name, "true").is_ok());
            assert!(check_value(name, "false").is_err(), "{name}");
        }
        for name in FLAGS {
            assert!(check_value(name, "true").is_ok() && check_value(name, "false").is_ok());
            assert!(check_value(name, "True").is_err(), "{name}");
        }
        for (name, values) in [
            ("__support_xen_gpu_type", XEN_GPUS),
            ("__support_kvm_gpu_type", KVM_GPUS),
        ] {
            assert!(values.iter().all(|value| check_value(name, value).is_ok()));
            assert!(check_value(name, "true").is_err(), "{name}");
        }
        let firmware = |value| {
            check_value("hw_firmware_type", value)
                .err()
                .and_then(|e| e.code())
        };
        assert_eq!(firmware("BIOS"), Some(ImsCode::IMG_0141));
        assert!(check_value("anything", "else").is_ok());
    }
}
