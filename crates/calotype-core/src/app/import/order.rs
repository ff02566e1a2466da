//! What a caller asks for of an import, what can be said of that by itself, and the images' attributes.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::format::Format;
use crate::access::Action;
use crate::app::Strictness;
use crate::app::os_version::{self, DEFAULT_OS_VERSION, OS_VERSION};
use crate::codes::ImsCode;
use crate::error::{Error, Result};
use crate::image::{UnknownWord, word_enum};
use crate::image_tag::Tag;
use crate::job::JobType;
use crate::name::{Description, ImageName};
use crate::object::ObjectAddress;
use crate::ova::{ArchiveDisk, GuestSystem};
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

    /// The type of the job that makes one.
    pub(super) const fn job_type(self) -> JobType {
        match self {
            Self::Data => JobType::ImportDataImage,
            Self::System | Self::BareMetal | Self::Iso => JobType::ImportImage,
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
    /// Which permissions the key takes.
    pub strictness: Strictness,
    /// The image's tags.
    pub tags: Vec<Tag>,
    /// The enterprise project for the image, as the caller wrote it.
    pub enterprise_project: Option<String>,
    /// The store that the bytes are to be in, as the caller wrote it.
    pub store: Option<String>,
    /// Whether it is a quick import, which takes larger objects of fewer formats (spec 2.4).
    pub quick: bool,
    /// The disks of data that belong to the system's: an image is made of each.
    pub data_disks: Vec<DataDisk>,
}

/// A disk of data that is imported together with the system's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDisk {
    /// The image's name; none: the system image's, and a number.
    pub name: Option<ImageName>,
    /// The image's description.
    pub description: Description,
    /// The object.
    pub object: ObjectAddress,
    /// GiB that a disk needs to hold the image.
    pub min_disk: u32,
    /// The image's tags.
    pub tags: Vec<Tag>,
    /// Whether it is imported quickly.
    pub quick: bool,
    /// The system's type, which is said of the system's disk too.
    pub os_type: Option<OsType>,
}

impl ImportOrder {
    /// Whether it can be of an archive of disks: of one server, whose first disk holds its system.
    pub(super) fn takes_archives(&self) -> bool {
        let system = matches!(self.kind, ImportKind::System | ImportKind::BareMetal);
        system && !self.quick && self.data_disks.is_empty()
    }

    /// The order of an archive's disks, which has from its description what the caller did not say.
    pub(super) fn of_archive(mut self, disks: &[ArchiveDisk], system: &GuestSystem) -> Self {
        let mut known = os_version::catalogue().into_iter();
        let told = known.find(|known| known.version == system.text);
        self.os_version = self.os_version.or(told.map(|known| known.version));
        self.os_type = self.os_type.or(system.kind);
        let data = disks.iter().skip(1).map(|disk| DataDisk {
            name: None,
            description: self.description.clone(),
            object: self.object.clone(),
            min_disk: gib_of(disk.capacity),
            tags: self.tags.clone(),
            quick: false,
            os_type: None,
        });
        self.data_disks = data.collect();
        self
    }

    /// The orders of all its disks, each by itself: the system's first.
    ///
    /// # Errors
    /// IMG.0122 where a disk of data is said to be of another system.
    pub(super) fn disks(self) -> Result<Vec<Self>> {
        let told = properties_of(&self);
        let os_type = told.get("__os_type").and_then(|word| word.parse().ok());
        let mut system = self;
        let data = std::mem::take(&mut system.data_disks);
        let other = |disk: &DataDisk| disk.os_type.is_some() && disk.os_type != os_type;
        if data.iter().any(other) {
            return Err(Error::ims(ImsCode::IMG_0122));
        }
        let mut disks = vec![system.clone()];
        disks.extend(data.into_iter().zip(1..).map(|(disk, number)| Self {
            kind: ImportKind::Data,
            name: disk.name.unwrap_or_else(|| system.name.numbered(number)),
            description: disk.description,
            object: disk.object,
            os_version: None,
            // Of one server.
            os_type,
            min_disk: disk.min_disk,
            min_ram: 0,
            max_ram: None,
            firmware: None,
            arm: false,
            configured: false,
            cmk_id: system.cmk_id.clone(),
            strictness: system.strictness,
            tags: disk.tags,
            enterprise_project: system.enterprise_project.clone(),
            store: system.store.clone(),
            quick: disk.quick,
            data_disks: Vec::new(),
        }));
        Ok(disks)
    }
}

/// The GiB that a disk takes.
pub(super) fn gib_of(capacity: ByteSize) -> u32 {
    let gib = capacity.bytes().div_ceil(ByteSize::gib(1).bytes());
    u32::try_from(gib).unwrap_or(u32::MAX)
}

/// What can be said of an order by itself.
pub(super) fn check_order(order: &ImportOrder) -> Result<()> {
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
    if order.min_disk == 0 {
        return Err(Error::ims(ImsCode::IMG_0055));
    }
    check_memory(order.min_ram, order.max_ram)
}

/// Whether the bounds of a server's memory leave room between them; the upper one is none where it is 0.
pub(in crate::app) fn check_memory(least: u32, most: Option<u32>) -> Result<()> {
    match most {
        Some(most) if most > 0 && most < least => Err(Error::ims(ImsCode::IMG_0055)),
        _ => Ok(()),
    }
}

/// Whether an image of this kind can be made of an object in this format.
pub(super) fn check_format(order: &ImportOrder, format: Format) -> Result<()> {
    let iso = order.kind == ImportKind::Iso;
    if iso != (format == Format::Iso) || format == Format::Ova {
        return Err(Error::ims(ImsCode::IMG_0057));
    }
    if order.quick && !matches!(format, Format::Raw | Format::Zvhd2) {
        return Err(Error::ims(ImsCode::IMG_0072));
    }
    Ok(())
}

/// The image's free attributes (spec 4.1, 4.5).
pub(super) fn properties_of(order: &ImportOrder) -> BTreeMap<String, String> {
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
            strictness: Strictness::KeyService,
            tags: Vec::new(),
            enterprise_project: None,
            store: None,
            quick: false,
            data_disks: Vec::new(),
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
        for kind in [ImportKind::System, ImportKind::Data, ImportKind::Iso] {
            assert_eq!(of(kind, false, Format::Ova), Some(ImsCode::IMG_0057));
        }
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

    #[test]
    fn the_caller_goes_before_an_archives_description() {
        let disk = |capacity| ArchiveDisk {
            name: "disk.vmdk".to_owned(),
            bytes: 0..1,
            capacity: ByteSize::new(capacity),
        };
        let disks = [disk(1), disk(1 << 30), disk((1 << 30) + 1)];
        let system = |text: &str, kind| GuestSystem {
            text: text.to_owned(),
            kind,
        };
        let known = "CentOS 7.2 64bit";
        let of =
            |order: ImportOrder, text: &str, kind| order.of_archive(&disks, &system(text, kind));
        let made = of(order(ImportKind::System), known, Some(OsType::Linux));
        assert_eq!(made.os_version.as_deref(), Some(known));
        let sizes: Vec<_> = made.data_disks.iter().map(|disk| disk.min_disk).collect();
        assert_eq!(sizes, [1, 2]);
        let made = of(order(ImportKind::System), "Debian", Some(OsType::Linux));
        assert_eq!((made.os_version, made.os_type), (None, Some(OsType::Linux)));
        let mut said = order(ImportKind::System);
        said.os_version = Some("CentOS 7.3 64bit".to_owned());
        said.os_type = Some(OsType::Other);
        let made = of(said.clone(), known, Some(OsType::Linux));
        assert_eq!(made.os_version, said.os_version);
        assert_eq!(made.os_type, said.os_type);
        said.quick = true;
        assert!(made.data_disks.len() == 2 && !said.takes_archives());
        assert!(!made.takes_archives() && !order(ImportKind::Data).takes_archives());
        assert!(order(ImportKind::BareMetal).takes_archives());
    }

    #[test]
    fn the_disks_of_one_server_share_its_key_and_its_system_and_have_names_of_their_own() {
        let disk = |name: Option<&str>, min_disk| DataDisk {
            name: name.map(|name| ImageName::parse(name).unwrap()),
            description: Description::parse("data").unwrap(),
            object: ObjectAddress::parse("images:data.raw").unwrap(),
            min_disk,
            tags: Vec::new(),
            quick: true,
            os_type: None,
        };
        let mut server = ImportOrder {
            os_version: Some("Windows Server 2016 Standard 64bit".to_owned()),
            cmk_id: Some("k".to_owned()),
            min_ram: 1024,
            data_disks: vec![disk(None, 2048), disk(Some("own"), 1), disk(None, 0)],
            ..order(ImportKind::System)
        };
        server.data_disks[1].os_type = Some(OsType::Windows);
        let disks = server.clone().disks().unwrap();
        let names: Vec<_> = disks.iter().map(|disk| disk.name.as_str()).collect();
        assert_eq!(names, ["img", "img-1", "own", "img-3"]);
        for (disk, wrong) in disks[1..].iter().zip([None, None, Some(ImsCode::IMG_0055)]) {
            assert_eq!(disk.kind, ImportKind::Data);
            assert_eq!(disk.cmk_id.as_deref(), Some("k"));
            assert_eq!((disk.min_ram, disk.quick), (0, true));
            assert_eq!(code(check_order(disk)), wrong);
            let told = properties_of(disk);
            assert_eq!(told["__os_type"], "Windows");
            assert_eq!(told["__description"], "data");
            assert_eq!(told["__data_origin"], "file,images:data.raw");
        }
        assert!(disks[0].data_disks.is_empty());
        server.data_disks[1].os_type = Some(OsType::Linux);
        let refused = server.disks().map(drop);
        assert_eq!(code(refused), Some(ImsCode::IMG_0122));
    }
}
