//! Images from objects in buckets (spec 2.3 to 2.5), and bytes from them for images that wait for some (spec 2.7).
//!
//! What can be known at once is checked before the caller has its answer: the object is looked at, and its first and last
//! bytes say in which format it is. The object is pinned as it was then; the job reads that one or fails.
//!
//! # Consistency
//! What must hold when the import is accepted (the quota, the concurrency, the enterprise project, the state of an image
//! that waits) is decided again in the one transaction that writes job, image and usage.

mod fetch;
mod format;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use self::format::Format;
use super::os_version::{self, DEFAULT_OS_VERSION, OS_VERSION};
use super::{Call, Keep, Service};
use crate::access::Action;
use crate::codes::ImsCode;
use crate::error::{Error, Result};
use crate::id::{BlobId, ImageId, JobId, KeyId, ProjectId};
use crate::image::{Image, ImageStatus, UnknownWord, Visibility, word_enum};
use crate::image_tag::Tag;
use crate::job::{Import, Job, JobFamily, JobType, Progress};
use crate::keys::{KeyRole, requested_key};
use crate::name::{Description, ImageName};
use crate::object::ObjectAddress;
use crate::ports::{ImageLimit, ImportedImage, NewImport, ObjectFacts, Trail};
use crate::size::ByteSize;

word_enum! {
    /// What kind of system a disk holds, as requests tell it.
    OsType {
        /// A Linux.
        Linux = "Linux",
        /// A Windows.
        Windows = "Windows",
        /// Another one.
        Other = "Other",
    }
}

word_enum! {
    /// What a server starts an image with.
    Firmware {
        /// A BIOS.
        Bios = "bios",
        /// UEFI.
        Uefi = "uefi",
    }
}

/// What is made of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportKind {
    /// An image of a system disk.
    System,
    /// An image of a bare-metal server's system disk.
    BareMetal,
    /// An image that is an ISO file.
    Iso,
    /// An image of a data disk.
    Data,
}

impl ImportKind {
    /// What the caller has to be permitted.
    pub const fn action(self) -> Action {
        match self {
            Self::Data => Action::DataImagesCreate,
            Self::System | Self::BareMetal | Self::Iso => Action::ServerImagesCreate,
        }
    }

    /// The most GiB that `min_disk` may be (spec 4.1, reading 9.14), and the code where it is more.
    const fn largest_disk(self) -> (u32, ImsCode) {
        match self {
            Self::Data => (2048, ImsCode::IMG_0055),
            Self::System | Self::BareMetal | Self::Iso => (1024, ImsCode::IMG_0111),
        }
    }

    /// The value of `virtual_env_type`.
    const fn environment(self) -> &'static str {
        match self {
            Self::System => "FusionCompute",
            Self::BareMetal => "Ironic",
            Self::Iso => "IsoImage",
            Self::Data => "DataImage",
        }
    }
}

/// What a caller asks for.
#[derive(Debug, Clone)]
pub struct ImportOrder {
    /// What is made of the object.
    pub kind: ImportKind,
    /// The image's name.
    pub name: ImageName,
    /// The image's description.
    pub description: Description,
    /// The object.
    pub object: ObjectAddress,
    /// The system's version.
    pub os_version: Option<String>,
    /// The system's type.
    pub os_type: Option<OsType>,
    /// GiB that a disk needs to hold the image.
    pub min_disk: u32,
    /// MiB of memory that a server needs.
    pub min_ram: u32,
    /// MiB of memory that a server has at most; none: any.
    pub max_ram: Option<u32>,
    /// What a server starts the image with.
    pub firmware: Option<Firmware>,
    /// Whether the image is for servers with an Arm processor.
    pub arm: bool,
    /// Whether the image is said to be configured.
    pub configured: bool,
    /// The key to seal the image under, as the caller wrote it.
    pub cmk_id: Option<String>,
    /// The image's tags.
    pub tags: Vec<Tag>,
    /// The enterprise project for the image, as the caller wrote it.
    pub enterprise_project: Option<String>,
    /// Whether it is a quick import, which takes larger objects of fewer formats (spec 2.4).
    pub quick: bool,
}

impl Service {
    /// Makes an image of an object. It is `queued` until a worker has the job, and `saving` until its bytes are there.
    ///
    /// # Errors
    /// IMG.0026; then for the order itself IMG.0166, 0056, 0111, 0055, 0115, 0116, 0118, 0155, for the key 0095, 0097,
    /// 0099, 0187; IMG.0015 and 0060 for the limits; for the object IMG.0069, 0057, 0058, 0059, 0072, 0055.
    pub async fn import(
        &self,
        call: &Call,
        order: &ImportOrder,
        keep: Keep<'_, JobId>,
    ) -> Result<JobId> {
        self.authorize(call, order.kind.action())?;
        let project = call.principal.require_project()?;
        check_order(order)?;
        let tags = self.tag_texts(&order.tags)?;
        let key = requested_key(order.cmk_id.as_deref())?;
        if key.is_some() && order.kind == ImportKind::BareMetal {
            return Err(Error::ims(ImsCode::IMG_0118));
        }
        let wanted = order.enterprise_project.as_deref();
        let enterprise_project = self.wanted_enterprise_project(wanted).await?;
        if let Some(key) = &key {
            let user = self.key_user(call)?;
            self.check_key(&user, key, KeyRole::Target).await?;
        }
        let limit = ImageLimit(self.settings.limits.images_per_project);
        self.check_room_to_import(project, Some(limit)).await?;
        let (facts, format) = self.look_at(project, &order.object, order.quick).await?;
        self.check_room_for(project, facts.size).await?;
        check_format(order, format)?;
        let import = self
            .plan_import(call, &order.object, facts, key.clone())
            .await?;

        let mut image = self.imported_image(order, project, format);
        image.cmk_id = key;
        image.tags = tags;
        image.enterprise_project = enterprise_project;
        let job_type = match order.kind {
            ImportKind::Data => JobType::ImportDataImage,
            ImportKind::System | ImportKind::BareMetal | ImportKind::Iso => JobType::ImportImage,
        };
        let mut job = self.import_job(call, project, job_type, &import);
        job.image = Some(image.id);
        job.image_name.clone_from(&image.name);
        let (id, name) = (image.id, image.name.clone());
        let image = ImportedImage::New {
            image: Box::new(image),
            limit,
        };
        let detail = serde_json::json!({
            "name": name,
            "object": order.object.as_str(),
            "job_id": job.id.as_str(),
        });
        self.submit_import(call, job, image, import, ("createImage", id, detail), keep)
            .await
    }

    /// Gives an image of the caller's that is `queued` the bytes of an object.
    ///
    /// # Errors
    /// IMG.0026; IMG.0027, 0083, 0047 for the image, IMG.0046 where it does not wait for bytes; IMG.0060; for the object as
    /// [`Service::import`]; what is wrong with the image's key.
    pub async fn register(
        &self,
        call: &Call,
        id: ImageId,
        object: &ObjectAddress,
        keep: Keep<'_, JobId>,
    ) -> Result<JobId> {
        let allowed = self.authorize(call, Action::ImagesUpload)?;
        let image = self.ims_owned_image(&allowed, id).await?;
        if image.status != ImageStatus::Queued {
            return Err(Error::ims(ImsCode::IMG_0046));
        }
        let project = call.principal.require_project()?;
        if let Some(key) = &image.cmk_id {
            let user = self.key_user(call)?;
            self.check_key(&user, key, KeyRole::Target).await?;
        }
        self.check_room_to_import(project, None).await?;
        let (facts, format) = self.look_at(project, object, false).await?;
        self.check_room_for(&image.owner, facts.size).await?;
        let import = self
            .plan_import(call, object, facts, image.cmk_id.clone())
            .await?;
        let mut job = self.import_job(call, project, JobType::NativeImportImage, &import);
        job.image = Some(id);
        let image = ImportedImage::Queued {
            id,
            formats: [format.as_str(), "bare"],
        };
        let detail = serde_json::json!({
            "object": object.as_str(),
            "job_id": job.id.as_str(),
        });
        self.submit_import(call, job, image, import, ("uploadImage", id, detail), keep)
            .await
    }

    async fn check_room_to_import(
        &self,
        project: &ProjectId,
        limit: Option<ImageLimit>,
    ) -> Result<()> {
        let concurrency = self.settings.limits.concurrent_imports;
        self.catalog
            .check_room(project, limit, JobFamily::Import, concurrency)
            .await
    }

    /// Whether the bytes have room now; the submission decides.
    async fn check_room_for(&self, project: &ProjectId, size: ByteSize) -> Result<()> {
        let limit = self.byte_limit();
        self.catalog.check_bytes(project, size, limit).await
    }

    /// The object as it is now, and the format that it is in.
    async fn look_at(
        &self,
        project: &ProjectId,
        object: &ObjectAddress,
        quick: bool,
    ) -> Result<(ObjectFacts, Format)> {
        self.settings.buckets.check(project, object)?;
        let facts = self.objects.look(object).await?;
        if facts.size == ByteSize::ZERO {
            return Err(Error::ims(ImsCode::IMG_0057));
        }
        let limits = &self.settings.limits;
        let usual = limits.max_import_size.filter(|_| !quick);
        let most = [usual, limits.max_image_size];
        if most.into_iter().flatten().any(|most| facts.size > most) {
            return Err(Error::ims(ImsCode::IMG_0059));
        }
        let format = format::of_object(self.objects.as_ref(), object, &facts).await?;
        Ok((facts, format))
    }

    /// What the job does, with the data key of the blob that it makes.
    async fn plan_import(
        &self,
        call: &Call,
        object: &ObjectAddress,
        facts: ObjectFacts,
        key: Option<KeyId>,
    ) -> Result<Import> {
        let target = BlobId::random(self.entropy.as_ref());
        let master = self.master_key(call, key.as_ref())?;
        Ok(Import {
            object: object.clone(),
            facts,
            target,
            target_key: self.new_data_key(target, &master).await?,
            target_cmk: key,
            filled: [false; 2],
        })
    }

    fn import_job(
        &self,
        call: &Call,
        project: &ProjectId,
        job_type: JobType,
        import: &Import,
    ) -> Job {
        let id = JobId::random(self.entropy.as_ref());
        let user = call.principal.user.id.clone();
        Job {
            progress: Progress {
                total: import.facts.size,
                ..Progress::default()
            },
            ..Job::accepted(id, project.clone(), user, job_type, self.clock.now())
        }
    }

    async fn submit_import(
        &self,
        call: &Call,
        job: Job,
        image: ImportedImage,
        import: Import,
        (trace, about, detail): (&str, ImageId, serde_json::Value),
        keep: Keep<'_, JobId>,
    ) -> Result<JobId> {
        let id = job.id.clone();
        let trail = Trail {
            event: self.event(call, trace, about, detail),
            answer: keep.map(|keep| keep(&id)),
        };
        let accepted = NewImport {
            job,
            image,
            import,
            byte_limit: self.byte_limit(),
            concurrency: self.settings.limits.concurrent_imports,
        };
        self.catalog.submit_import(&accepted, trail).await?;
        Ok(id)
    }

    fn imported_image(&self, order: &ImportOrder, project: &ProjectId, format: Format) -> Image {
        Image {
            name: Some(order.name.as_str().to_owned()),
            visibility: Visibility::Private,
            disk_format: Some(format.as_str().to_owned()),
            container_format: Some("bare".to_owned()),
            min_disk: order.min_disk,
            min_ram: order.min_ram,
            properties: properties_of(order),
            ..self.blank_image(None, project.clone())
        }
    }
}

/// What can be said of an order by itself.
fn check_order(order: &ImportOrder) -> Result<()> {
    match &order.os_version {
        Some(version) if !os_version::is_known(version) => {
            return Err(Error::ims(ImsCode::IMG_0056));
        }
        None if order.kind == ImportKind::Iso => return Err(Error::ims(ImsCode::IMG_0166)),
        None if order.quick && order.kind != ImportKind::Data => {
            return Err(Error::ims(ImsCode::IMG_0056));
        }
        _ => {}
    }
    let (largest, too_large) = order.kind.largest_disk();
    if order.min_disk > largest {
        return Err(Error::ims(too_large));
    }
    let memory = order.max_ram.filter(|most| *most > 0);
    if order.min_disk == 0 || memory.is_some_and(|most| most < order.min_ram) {
        return Err(Error::ims(ImsCode::IMG_0055));
    }
    Ok(())
}

/// Whether an image of this kind can be made of an object in this format.
fn check_format(order: &ImportOrder, format: Format) -> Result<()> {
    let iso = order.kind == ImportKind::Iso;
    if iso != (format == Format::Iso) {
        return Err(Error::ims(ImsCode::IMG_0057));
    }
    if order.quick && !matches!(format, Format::Raw | Format::Zvhd2) {
        return Err(Error::ims(ImsCode::IMG_0072));
    }
    Ok(())
}

/// The image's free attributes (spec 4.1, 4.5).
fn properties_of(order: &ImportOrder) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    let mut put = |name: &str, value: &str| {
        properties.insert(name.to_owned(), value.to_owned());
    };
    put("__root_origin", "file");
    put("__data_origin", &format!("file,{}", order.object));
    put("__description", order.description.as_str());
    put("virtual_env_type", order.kind.environment());
    if order.configured {
        put("__is_config_init", "true");
    }
    if let Some(most) = order.max_ram.filter(|most| *most > 0) {
        put("max_ram", &most.to_string());
    }
    if let Some(firmware) = order.firmware {
        put("hw_firmware_type", firmware.as_str());
    }
    if order.arm {
        put("__support_arm", "true");
    }
    let system = order.os_type.map(OsType::as_str);
    if order.kind == ImportKind::Data {
        put("__os_type", system.unwrap_or(OsType::Linux.as_str()));
        return properties;
    }
    put(
        OS_VERSION,
        order.os_version.as_deref().unwrap_or(DEFAULT_OS_VERSION),
    );
    os_version::derive(&mut properties);
    // A version that tells its system is believed before the request's own word for it.
    let told = properties.get("__os_type").map(String::as_str);
    if let Some(system) = system.filter(|_| told == Some(OsType::Other.as_str())) {
        properties.insert("__os_type".to_owned(), system.to_owned());
    }
    properties
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(kind: ImportKind) -> ImportOrder {
        ImportOrder {
            kind,
            name: ImageName::parse("img").unwrap(),
            description: Description::default(),
            object: ObjectAddress::parse("images:disk.raw").unwrap(),
            os_version: None,
            os_type: None,
            min_disk: 40,
            min_ram: 0,
            max_ram: None,
            firmware: None,
            arm: false,
            configured: false,
            cmk_id: None,
            tags: Vec::new(),
            enterprise_project: None,
            quick: false,
        }
    }

    fn code(result: Result<()>) -> Option<ImsCode> {
        result.err().as_ref().and_then(Error::code)
    }

    #[test]
    fn each_rule_of_an_order_has_its_code() {
        let system = || order(ImportKind::System);
        let data = || order(ImportKind::Data);
        let with = |mut order: ImportOrder, change: fn(&mut ImportOrder)| {
            change(&mut order);
            code(check_order(&order))
        };
        assert_eq!(with(system(), |_| {}), None);
        assert_eq!(with(system(), |o| o.min_disk = 1024), None);
        assert_eq!(with(data(), |o| o.min_disk = 2048), None);
        assert_eq!(with(data(), |o| o.min_disk = 1), None);
        let wrong = Some(ImsCode::IMG_0055);
        assert_eq!(with(system(), |o| o.min_disk = 0), wrong);
        assert_eq!(with(data(), |o| o.min_disk = 2049), wrong);
        assert_eq!(
            with(system(), |o| o.min_disk = 1025),
            Some(ImsCode::IMG_0111)
        );
        let memory = |o: &mut ImportOrder| (o.min_ram, o.max_ram) = (2, Some(1));
        assert_eq!(with(system(), memory), wrong);
        let unbounded = |o: &mut ImportOrder| (o.min_ram, o.max_ram) = (2, Some(0));
        assert_eq!(with(system(), unbounded), None);
        let unknown = |o: &mut ImportOrder| o.os_version = Some("Amiga 3".to_owned());
        assert_eq!(with(system(), unknown), Some(ImsCode::IMG_0056));
        assert_eq!(
            with(order(ImportKind::Iso), |_| {}),
            Some(ImsCode::IMG_0166)
        );
        assert_eq!(with(system(), |o| o.quick = true), Some(ImsCode::IMG_0056));
        assert_eq!(with(data(), |o| o.quick = true), None);
    }

    #[test]
    fn only_an_iso_becomes_an_iso_image_and_a_quick_import_takes_two_formats() {
        let of = |kind, quick, format| {
            let order = ImportOrder {
                quick,
                ..order(kind)
            };
            code(check_format(&order, format))
        };
        assert_eq!(of(ImportKind::Iso, false, Format::Iso), None);
        assert_eq!(
            of(ImportKind::Iso, false, Format::Raw),
            Some(ImsCode::IMG_0057)
        );
        assert_eq!(
            of(ImportKind::System, false, Format::Iso),
            Some(ImsCode::IMG_0057)
        );
        assert_eq!(of(ImportKind::System, false, Format::Qcow2), None);
        assert_eq!(
            of(ImportKind::System, true, Format::Qcow2),
            Some(ImsCode::IMG_0072)
        );
        assert_eq!(of(ImportKind::Data, true, Format::Zvhd2), None);
        assert_eq!(of(ImportKind::System, true, Format::Raw), None);
    }

    #[test]
    fn an_image_tells_where_it_came_from_and_what_system_it_holds() {
        let mut system = order(ImportKind::System);
        system.os_version = Some("Debian GNU/Linux 10.0.0 64bit".to_owned());
        system.os_type = Some(OsType::Windows);
        system.firmware = Some(Firmware::Uefi);
        system.max_ram = Some(4096);
        let told = properties_of(&system);
        for (name, value) in [
            ("__root_origin", "file"),
            ("__data_origin", "file,images:disk.raw"),
            ("__os_version", "Debian GNU/Linux 10.0.0 64bit"),
            ("__os_type", "Linux"),
            ("__platform", "Debian"),
            ("__os_bit", "64"),
            ("virtual_env_type", "FusionCompute"),
            ("hw_firmware_type", "uefi"),
            ("max_ram", "4096"),
        ] {
            assert_eq!(told.get(name).map(String::as_str), Some(value), "{name}");
        }
        let mut unknown = order(ImportKind::BareMetal);
        unknown.os_type = Some(OsType::Linux);
        let told = properties_of(&unknown);
        assert_eq!(told["__os_type"], "Linux");
        assert_eq!(told["__os_version"], DEFAULT_OS_VERSION);
        let told = properties_of(&order(ImportKind::Data));
        assert_eq!(told["__os_type"], "Linux");
        assert!(!told.contains_key("__os_version"));
        assert!(!told.contains_key("max_ram"));
    }
}
