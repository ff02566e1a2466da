//! Changes of an image's record, as a request to make an image, a JSON patch or an IMS update asks for them.
//!
//! There is one list of the attributes that nobody but the service sets, and one function that writes an attribute:
//! whatever the request's form, what the service tells of an image (its state, size, digests, location) can't be
//! changed by it.

use crate::access::{Action, Allowed};
use crate::app::os_version::{self, OS_VERSION};
use crate::app::{Call, Limits, Service};
use crate::codes::ImsCode;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{EnterpriseProjectId, ImageId, ProjectId};
use crate::image::{CONTAINER_FORMATS, DISK_FORMATS, Image, ImageStatus, Visibility};

/// An attribute with a value for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// `name`: at most 255 characters; none takes the name away.
    Name(Option<String>),
    /// `visibility`.
    Visibility(Visibility),
    /// `disk_format`: one of [`DISK_FORMATS`] or none; only while the image is queued.
    DiskFormat(Option<String>),
    /// `container_format`: one of [`CONTAINER_FORMATS`] or none; only while the image is queued.
    ContainerFormat(Option<String>),
    /// `min_disk`, in GiB: at most 2^31 - 1.
    MinDisk(u32),
    /// `min_ram`, in MiB: at most 2^31 - 1.
    MinRam(u32),
    /// `protected`.
    Protected(bool),
    /// `os_hidden`.
    Hidden(bool),
    /// `owner`: an administrator can make an image for another project; nobody can give one away.
    Owner(ProjectId),
    /// `enterprise_project_id`: one that is enabled.
    EnterpriseProject(EnterpriseProjectId),
    /// `tags`: all of them; each has 1 to 255 characters.
    Tags(Vec<String>),
    /// A free attribute: 1 to 255 characters, with a text of at most 65,535 bytes.
    Property {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
}

impl Setting {
    /// The attribute's name on the wire.
    pub fn attribute(&self) -> &str {
        match self {
            Self::Name(_) => "name",
            Self::Visibility(_) => "visibility",
            Self::DiskFormat(_) => "disk_format",
            Self::ContainerFormat(_) => "container_format",
            Self::MinDisk(_) => "min_disk",
            Self::MinRam(_) => "min_ram",
            Self::Protected(_) => "protected",
            Self::Hidden(_) => "os_hidden",
            Self::Owner(_) => "owner",
            Self::EnterpriseProject(_) => "enterprise_project_id",
            Self::Tags(_) => "tags",
            Self::Property { name, .. } => name,
        }
    }
}

/// A change of one attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets it, whether it is there or not: `add` of a v2.1 patch and of an IMS update.
    Set(Setting),
    /// Sets one that is there: `replace`.
    Replace(Setting),
    /// Sets one that is not there: `add` of a v2.0 patch.
    Insert(Setting),
    /// Takes away one that is there: `remove`.
    Remove(String),
}

impl Change {
    /// The attribute's name on the wire.
    pub fn attribute(&self) -> &str {
        match self {
            Self::Set(setting) | Self::Replace(setting) | Self::Insert(setting) => {
                setting.attribute()
            }
            Self::Remove(name) => name,
        }
    }
}

/// Attributes that every image has and that a caller can set.
const BASE: &[&str] = &[
    "container_format",
    "disk_format",
    "enterprise_project_id",
    "min_disk",
    "min_ram",
    "name",
    "os_hidden",
    "owner",
    "protected",
    "tags",
    "visibility",
];

/// Attributes that the service tells. `id` is among them: it is chosen once, with the image.
const READ_ONLY: &[&str] = &[
    "__account_code",
    "__data_origin",
    "__image_location",
    "__image_size",
    "__image_source_type",
    "__imagetype",
    "__isregistered",
    "__originalimagename",
    "__root_origin",
    "_sys_enterprise_project_id",
    "active_at",
    "checksum",
    "created_at",
    "direct_url",
    "file",
    "id",
    "locations",
    "os_hash_algo",
    "os_hash_value",
    "schema",
    "self",
    "size",
    "status",
    "stores",
    "updated_at",
    "virtual_size",
];

/// Names that mean something to Glance and nothing here.
const RESERVED: &[&str] = &["deleted", "deleted_at", "location"];

/// Attributes of full-ECS images, which only who runs the service makes, and of charged ones.
const OPERATORS_OWN: &[&str] = &["__backup_id", "__productcode", "__whole_image"];

/// Beginnings of names that are not the callers' to choose.
const READ_ONLY_PREFIX: &str = "__system";
const RESERVED_PREFIX: &str = "os_glance";

/// The most characters of a name, a tag or a property's name.
const LONGEST_NAME: usize = 255;
/// The most bytes of a property's value: what Glance's database takes.
const LONGEST_VALUE: usize = 65_535;
/// The environments that `virtual_env_type` knows (spec 4.1).
const ENVIRONMENTS: &[&str] = &["FusionCompute", "DataImage", "Ironic", "IsoImage"];

/// Checks that a caller may set an attribute of this name at all.
///
/// # Errors
/// Forbidden for one that the service tells, or that is reserved.
pub fn check_settable(name: &str) -> Result<()> {
    if READ_ONLY.contains(&name) || name.starts_with(READ_ONLY_PREFIX) {
        return Err(Error::forbidden(format!(
            "Attribute '{name}' is read-only."
        )));
    }
    if RESERVED.contains(&name) || name.starts_with(RESERVED_PREFIX) {
        return Err(Error::forbidden(format!("Attribute '{name}' is reserved.")));
    }
    Ok(())
}

impl Service {
    /// Makes the changes in the image, or leaves it in an unspecified state after an error.
    pub(super) fn apply(&self, call: &Call, image: &mut Image, changes: &[Change]) -> Result<()> {
        let properties_before = image.properties.len();
        for change in changes {
            check_settable(change.attribute())?;
            self.check_operators_own(call, change.attribute())?;
            match change {
                Change::Set(setting) => self.set(call, image, setting)?,
                Change::Replace(setting) => {
                    if !has(image, setting.attribute()) {
                        return Err(absent(setting.attribute()));
                    }
                    self.set(call, image, setting)?;
                }
                Change::Insert(setting) => {
                    if has(image, setting.attribute()) {
                        return Err(Error::conflict(format!(
                            "Property {} already present.",
                            setting.attribute()
                        )));
                    }
                    self.set(call, image, setting)?;
                }
                Change::Remove(name) => remove(image, name)?,
            }
        }
        check_property_count(image, properties_before, &self.settings.limits)
    }

    /// What an image is made of decides what may be done with it: only who runs the service says that it is several
    /// disks, and of which backup (spec 2.6, 4.1).
    fn check_operators_own(&self, call: &Call, name: &str) -> Result<()> {
        if OPERATORS_OWN.contains(&name)
            && !self
                .access
                .permits(&call.principal, Action::ImagesAdminister)
        {
            return Err(Error::forbidden(format!(
                "Attribute '{name}' is read-only."
            )));
        }
        Ok(())
    }

    /// Writes one attribute. Callers have checked that it is settable.
    pub(super) fn set(&self, call: &Call, image: &mut Image, setting: &Setting) -> Result<()> {
        match setting {
            Setting::Name(name) => {
                if let Some(name) = name {
                    check_text("name", name, LONGEST_NAME)?;
                }
                image.name.clone_from(name);
            }
            Setting::Visibility(visibility) => {
                if image.visibility != *visibility && *visibility != Visibility::Private {
                    // An enterprise project permits no sharing, in this way neither.
                    self.authorize(call, Action::ImagesUpdate)?;
                    if *visibility == Visibility::Public {
                        self.authorize(call, Action::ImagesPublish)?;
                    }
                }
                image.visibility = *visibility;
            }
            Setting::DiskFormat(format) => {
                check_format("disk_format", format.as_deref(), DISK_FORMATS)?;
                check_format_is_open(image, "disk_format", image.disk_format == *format)?;
                image.disk_format.clone_from(format);
            }
            Setting::ContainerFormat(format) => {
                check_format("container_format", format.as_deref(), CONTAINER_FORMATS)?;
                check_format_is_open(image, "container_format", image.container_format == *format)?;
                image.container_format.clone_from(format);
            }
            Setting::MinDisk(gib) => image.min_disk = check_amount("min_disk", *gib)?,
            Setting::MinRam(mib) => image.min_ram = check_amount("min_ram", *mib)?,
            Setting::Protected(protected) => image.protected = *protected,
            Setting::Hidden(hidden) => image.hidden = *hidden,
            Setting::Owner(owner) => {
                if *owner != image.owner {
                    return Err(Error::forbidden("Owner can't be updated."));
                }
            }
            Setting::EnterpriseProject(project) => self.move_to(call, image, *project)?,
            Setting::Tags(tags) => {
                image.tags = checked_tags(image.id, tags, &self.settings.limits)?;
            }
            Setting::Property { name, value } => {
                set_property(image, name, value)?;
            }
        }
        Ok(())
    }

    /// Checks that the enterprise projects that are asked for are there and enabled.
    pub(super) async fn check_enterprise_projects(&self, changes: &[Change]) -> Result<()> {
        for change in changes {
            let (Change::Set(setting) | Change::Replace(setting) | Change::Insert(setting)) =
                change
            else {
                continue;
            };
            if let Setting::EnterpriseProject(id) = setting {
                self.check_enterprise_project(*id).await?;
            }
        }
        Ok(())
    }

    /// The enterprise project that a request names for an image to be made, which the permissions must reach, and which
    /// must be there and enabled; without one, the default.
    ///
    /// # Errors
    /// IMG.0155, IMG.0026.
    pub(super) async fn wanted_enterprise_project(
        &self,
        makes: &[Allowed<'_>],
        text: Option<&str>,
    ) -> Result<EnterpriseProjectId> {
        let id = text.unwrap_or_default().parse();
        let id = id.map_err(|_| Error::ims(ImsCode::IMG_0155))?;
        for allowed in makes {
            allowed.check_reaches(id)?;
        }
        self.check_enterprise_project(id).await?;
        Ok(id)
    }

    async fn check_enterprise_project(&self, id: EnterpriseProjectId) -> Result<()> {
        match self.catalog.enterprise_project(id).await? {
            Some(project) if project.enabled => Ok(()),
            _ => Err(Error::ims(ImsCode::IMG_0155)),
        }
    }
}

/// The tags, checked, sorted, each once.
pub(super) fn checked_tags(
    image: ImageId,
    tags: &[String],
    limits: &Limits,
) -> Result<Vec<String>> {
    for tag in tags {
        if tag.is_empty() {
            return Err(Error::invalid("A tag has at least one character."));
        }
        check_text("tag", tag, LONGEST_NAME)?;
    }
    let mut tags = tags.to_vec();
    tags.sort_unstable();
    tags.dedup();
    let most = limits.tags_per_image;
    if tags.len() > most {
        let attempted = tags.len();
        return Err(Error::new(
            ErrorKind::LimitReached,
            format!(
                "Image tag limit exceeded for image {image}: attempted: {attempted}, maximum: {most}."
            ),
        ));
    }
    Ok(tags)
}

/// Whether an image has an attribute: those that every image has, or a free one.
pub(super) fn has(image: &Image, name: &str) -> bool {
    BASE.contains(&name) || image.properties.contains_key(name)
}

fn absent(name: &str) -> Error {
    Error::conflict(format!("Property {name} does not exist."))
}

fn remove(image: &mut Image, name: &str) -> Result<()> {
    if BASE.contains(&name) {
        return Err(Error::forbidden(format!(
            "Property {name} may not be removed."
        )));
    }
    match image.properties.remove(name) {
        Some(_) => Ok(()),
        None => Err(absent(name)),
    }
}

fn set_property(image: &mut Image, name: &str, value: &str) -> Result<()> {
    if BASE.contains(&name) {
        return Err(Error::internal(format!("{name} came as a free attribute")));
    }
    if name.is_empty() {
        return Err(Error::invalid("An attribute's name can't be empty."));
    }
    check_text("attribute name", name, LONGEST_NAME)?;
    if value.len() > LONGEST_VALUE || value.contains('\0') {
        return Err(Error::invalid(format!(
            "The value of '{name}' has at most {LONGEST_VALUE} bytes and no NUL."
        )));
    }
    if name == "virtual_env_type" && !ENVIRONMENTS.contains(&value) {
        return Err(not_one_of(name, ENVIRONMENTS));
    }
    if name == "__description" {
        crate::name::Description::parse(value)?;
    }
    image.properties.insert(name.to_owned(), value.to_owned());
    if name == OS_VERSION {
        os_version::derive(&mut image.properties);
    }
    Ok(())
}

fn check_text(what: &str, text: &str, most: usize) -> Result<()> {
    if text.chars().count() > most {
        return Err(Error::invalid(format!(
            "The {what} has at most {most} characters."
        )));
    }
    if text.contains('\0') {
        return Err(Error::invalid(format!("The {what} can't hold a NUL.")));
    }
    Ok(())
}

fn check_amount(name: &str, amount: u32) -> Result<u32> {
    if i32::try_from(amount).is_err() {
        return Err(Error::invalid(format!(
            "Attribute '{name}' is at most {}.",
            i32::MAX
        )));
    }
    Ok(amount)
}

fn check_format(name: &str, format: Option<&str>, known: &[&str]) -> Result<()> {
    match format {
        Some(format) if !known.contains(&format) => Err(not_one_of(name, known)),
        _ => Ok(()),
    }
}

fn not_one_of(name: &str, known: &[&str]) -> Error {
    Error::invalid(format!(
        "Attribute '{name}' is one of: {}.",
        known.join(", ")
    ))
}

/// A format describes bytes: it is settled once they are there, or on their way from another image.
fn check_format_is_open(image: &Image, name: &str, same: bool) -> Result<()> {
    let replica = image.property("__originalimagename").is_some();
    if same || (image.status == ImageStatus::Queued && !replica) {
        return Ok(());
    }
    Err(Error::forbidden(format!(
        "Attribute {name} can be only replaced for a queued image."
    )))
}

/// An image that has more properties than the limit, as a replica may inherit them, keeps them and gets no more.
pub(super) fn check_property_count(image: &Image, before: usize, limits: &Limits) -> Result<()> {
    let (now, most) = (image.properties.len(), limits.properties_per_image);
    if now <= most.max(before) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::LimitReached,
        format!("The limit on image properties is exceeded: attempted: {now}, maximum: {most}."),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_service_tells_can_not_be_set() {
        for name in READ_ONLY.iter().chain(RESERVED).chain(&[
            "__system__cmkid",
            "__system_support_market",
            "os_glance_import_task",
        ]) {
            let refused = check_settable(name).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Forbidden, "{name}");
        }
        for name in BASE.iter().chain(&["hw_disk_bus", "__os_version", "x"]) {
            assert!(check_settable(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn tags_are_sorted_and_each_is_kept_once() {
        let limits = Limits {
            tags_per_image: 2,
            ..Limits::default()
        };
        let id = ImageId::from(uuid::Uuid::nil());
        let of = |tags: &[&str]| {
            let tags: Vec<_> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            checked_tags(id, &tags, &limits)
        };
        assert_eq!(of(&["b", "a", "b"]).unwrap(), ["a", "b"]);
        assert_eq!(
            of(&["a", "b", "c"]).unwrap_err().kind(),
            ErrorKind::LimitReached
        );
        for bad in ["", "a\0b", &"x".repeat(256)] {
            assert_eq!(of(&[bad]).unwrap_err().kind(), ErrorKind::InvalidRequest);
        }
        assert!(of(&[&"ä".repeat(255)]).is_ok());
    }
}
