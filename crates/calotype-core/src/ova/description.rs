//! The description of a server's disks: an OVF envelope (DMTF DSP0243), of which only what an import needs is read.
//!
//! It is XML without a document type: no entity is declared, and none but the five predefined ones stands for anything. Its
//! depth and the attributes of an element are bounded, and its names are compared without their prefixes.

use std::collections::BTreeMap;

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::refused;
use crate::app::OsType;
use crate::error::Result;
use crate::inspect::MOST_DISK;
use crate::size::ByteSize;

/// How deep elements lie in each other at most.
const DEEPEST: usize = 32;
/// The most attributes of an element.
const MOST_ATTRIBUTES: usize = 64;
/// The most elements that are of interest.
const MOST_ELEMENTS: usize = 256;
/// What stands for a disk among a server's parts (CIM_ResourceAllocationSettingData).
const DISK: &str = "17";

/// What a description says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    /// The files that belong to it.
    pub files: Vec<DescribedFile>,
    /// The disks, in the order in which the server has them.
    pub disks: Vec<DescribedDisk>,
    /// The server's system.
    pub system: GuestSystem,
}

/// A file that belongs to a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedFile {
    /// Its name, which may be anything.
    pub href: String,
    /// How long it is said to be.
    pub size: Option<u64>,
    /// Whether it is compressed, or in several parts.
    pub packed: bool,
}

/// A disk of a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedDisk {
    /// The name of its file.
    pub href: String,
    /// How large it is said to be.
    pub capacity: ByteSize,
}

/// The system of a described server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuestSystem {
    /// What it is called.
    pub text: String,
    /// Its kind, where it can be told.
    pub kind: Option<OsType>,
}

impl Description {
    /// Reads a description.
    ///
    /// # Errors
    /// IMG.0057 for what is no envelope of one server whose disks are files.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|_| refused("The archive's description is not UTF-8."))?;
        let mut reader = Reader::from_str(text);
        let mut envelope = Envelope::default();
        loop {
            let event = reader.read_event();
            let event = event.map_err(|error| not_xml().with_context(error))?;
            match event {
                Event::Start(start) => envelope.open(&start)?,
                Event::Empty(start) => {
                    envelope.open(&start)?;
                    envelope.close()?;
                }
                Event::End(_) => envelope.close()?,
                Event::Text(text) => {
                    let text = text.decode();
                    envelope.say(&text.map_err(|error| not_xml().with_context(error))?);
                }
                Event::CData(text) => {
                    let text = text.decode();
                    envelope.say(&text.map_err(|error| not_xml().with_context(error))?);
                }
                Event::GeneralRef(name) => envelope.say(&character(&name)?),
                Event::DocType(_) => {
                    return Err(refused("The archive's description declares a type."));
                }
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
                Event::Eof => return envelope.finish(),
            }
        }
    }
}

fn not_xml() -> crate::Error {
    refused("The archive's description is not XML.")
}

/// What a reference in a text stands for.
fn character(reference: &quick_xml::events::BytesRef<'_>) -> Result<String> {
    let unknown = || refused("The archive's description refers to an entity.");
    if let Ok(Some(character)) = reference.resolve_char_ref() {
        return Ok(character.to_string());
    }
    let name = reference.decode().map_err(|_| unknown())?;
    let text = quick_xml::escape::resolve_predefined_entity(&name);
    text.map(str::to_owned).ok_or_else(unknown)
}

/// An envelope while it is read.
#[derive(Debug, Default)]
struct Envelope {
    /// The names of the elements that are open.
    path: Vec<String>,
    /// The text of the innermost one, since its last child.
    text: String,
    ended: bool,
    files: BTreeMap<String, DescribedFile>,
    disks: Vec<Disk>,
    parts: Vec<Part>,
    servers: usize,
    system: Option<System>,
}

/// As the section of disks has it.
#[derive(Debug)]
struct Disk {
    id: String,
    file: String,
    capacity: ByteSize,
}

/// A part of the server.
#[derive(Debug, Default)]
struct Part {
    id: String,
    kind: String,
    resource: String,
    bus: String,
    address: String,
}

#[derive(Debug, Default)]
struct System {
    id: String,
    kind: String,
    text: String,
}

type Attributes = BTreeMap<String, String>;

impl Envelope {
    fn open(&mut self, start: &BytesStart<'_>) -> Result<()> {
        if self.path.len() == DEEPEST || (self.path.is_empty() && self.ended) {
            return Err(not_xml());
        }
        let name = local(start.local_name().as_ref())?;
        let mut attributes = Attributes::new();
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| not_xml().with_context(error))?;
            if attributes.len() == MOST_ATTRIBUTES {
                return Err(not_xml());
            }
            let value = attribute.normalized_value(XmlVersion::Implicit1_0);
            let value = value.map_err(|error| not_xml().with_context(error))?;
            // What declares a prefix names nothing that is read.
            let key = attribute.key;
            if key.as_namespace_binding().is_none() {
                attributes.insert(local(key.local_name().as_ref())?, value.into_owned());
            }
        }
        self.text.clear();
        self.path.push(name);
        self.enter(attributes)
    }

    fn enter(&mut self, mut attributes: Attributes) -> Result<()> {
        let mut take = |name: &str| attributes.remove(name);
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        match path[..] {
            ["Envelope"] => {}
            [_] => return Err(refused("The archive's description is no OVF envelope.")),
            ["Envelope", "References", "File"] => {
                let (id, href) = (take("id").unwrap_or_default(), take("href"));
                let size = take("size").map(|size| size.parse());
                let file = DescribedFile {
                    href: href.unwrap_or_default(),
                    size: size
                        .transpose()
                        .map_err(|_| refused("A file's size is no number."))?,
                    packed: take("compression")
                        .is_some_and(|word| !matches!(word.as_str(), "" | "identity"))
                        || take("chunkSize").is_some(),
                };
                bounded(self.files.len())?;
                if self.files.insert(id, file).is_some() {
                    return Err(refused("Two files of the description have one id."));
                }
            }
            ["Envelope", "DiskSection", "Disk"] => {
                if take("parentRef").is_some() {
                    return Err(refused("A disk refers to another one."));
                }
                let capacity = take("capacity").unwrap_or_default();
                let units = take("capacityAllocationUnits");
                let (Some(id), Some(file)) = (take("diskId"), take("fileRef")) else {
                    return Err(refused("A disk of the description has no id or no file."));
                };
                bounded(self.disks.len())?;
                self.disks.push(Disk {
                    id,
                    file,
                    capacity: capacity_of(&capacity, units.as_deref())?,
                });
            }
            [.., "VirtualSystem"] => {
                self.servers += 1;
                if self.servers > 1 {
                    return Err(refused("The archive holds several servers."));
                }
            }
            [.., "VirtualSystem", "OperatingSystemSection"] => {
                self.system = Some(System {
                    id: take("id").unwrap_or_default(),
                    kind: take("osType").unwrap_or_default(),
                    text: String::new(),
                });
            }
            [.., "VirtualHardwareSection", "Item" | "StorageItem"] => {
                bounded(self.parts.len())?;
                self.parts.push(Part::default());
            }
            _ => {}
        }
        Ok(())
    }

    fn say(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn close(&mut self) -> Result<()> {
        let text = std::mem::take(&mut self.text).trim().to_owned();
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        match (&path[..], self.parts.last_mut(), &mut self.system) {
            ([.., "Item" | "StorageItem", name], Some(part), _) => match *name {
                "InstanceID" => part.id = text,
                "ResourceType" => part.kind = text,
                "HostResource" => part.resource = text,
                "Parent" => part.bus = text,
                "AddressOnParent" => part.address = text,
                _ => {}
            },
            ([.., "OperatingSystemSection", "Description"], _, Some(system)) => {
                system.text = text;
            }
            _ => {}
        }
        self.path.pop().ok_or_else(not_xml)?;
        self.ended |= self.path.is_empty();
        Ok(())
    }

    fn finish(mut self) -> Result<Description> {
        if !self.path.is_empty() {
            return Err(not_xml());
        }
        if self.servers == 0 {
            return Err(refused("The archive's description is of no server."));
        }
        let order = self.order()?;
        let mut disks = Vec::with_capacity(order.len());
        for disk in order {
            let file = self.files.get(&disk.file);
            let file = file.ok_or_else(|| refused("A disk names a file that is not there."))?;
            disks.push(DescribedDisk {
                href: file.href.clone(),
                capacity: disk.capacity,
            });
        }
        let system = self.system.take().map(System::told).unwrap_or_default();
        Ok(Description {
            files: self.files.into_values().collect(),
            disks,
            system,
        })
    }

    /// The disks as they are on the server's buses, and behind them those that are on none.
    fn order(&self) -> Result<Vec<&Disk>> {
        let bus = |part: &Part| {
            let found = self.parts.iter().position(|bus| bus.id == part.bus);
            found.unwrap_or(self.parts.len())
        };
        let mut drives: Vec<_> = self.parts.iter().filter(|part| part.kind == DISK).collect();
        drives.sort_by_key(|part| (bus(part), part.address.parse().unwrap_or(u32::MAX)));
        let mut order: Vec<&Disk> = Vec::with_capacity(self.disks.len());
        for drive in drives {
            let Some(id) = disk_id(&drive.resource) else {
                continue;
            };
            let disk = self.disks.iter().find(|disk| disk.id == id);
            let disk = disk.ok_or_else(|| refused("The server has a disk that is not there."))?;
            if order.iter().any(|other| other.id == disk.id) {
                return Err(refused("The server has one disk twice."));
            }
            order.push(disk);
        }
        for (number, disk) in self.disks.iter().enumerate() {
            if self.disks[..number].iter().any(|other| other.id == disk.id) {
                return Err(refused("Two disks of the description have one id."));
            }
            if !order.iter().any(|other| other.id == disk.id) {
                order.push(disk);
            }
        }
        Ok(order)
    }
}

impl System {
    fn told(self) -> GuestSystem {
        let words = format!("{} {}", self.text, self.kind).to_lowercase();
        let has = |names: &[&str]| names.iter().any(|name| words.contains(name));
        let kind = if has(&["windows"]) {
            Some(OsType::Windows)
        } else if has(&LINUXES) {
            Some(OsType::Linux)
        } else {
            // CIM_OperatingSystem.OSType.
            match self.id.as_str() {
                "36" | "79" | "80" | "82" | "83" | "84" | "85" | "93" | "94" | "95" | "96"
                | "101" | "106" | "107" => Some(OsType::Linux),
                "67" | "69" | "70" | "71" | "73" | "74" | "76" | "77" | "103" | "105" => {
                    Some(OsType::Windows)
                }
                _ => None,
            }
        };
        GuestSystem {
            text: self.text,
            kind,
        }
    }
}

/// What the names of Linuxes have in them.
const LINUXES: [&str; 12] = [
    "linux", "ubuntu", "debian", "centos", "redhat", "red hat", "rhel", "fedora", "suse", "sles",
    "coreos", "euleros",
];

fn local(name: &[u8]) -> Result<String> {
    let name = std::str::from_utf8(name).map_err(|_| not_xml())?;
    Ok(name.to_owned())
}

fn bounded(elements: usize) -> Result<()> {
    match elements < MOST_ELEMENTS {
        true => Ok(()),
        false => Err(refused("The archive's description has too many parts.")),
    }
}

/// The disk that a drive holds; none where it is empty, or holds a file.
fn disk_id(resource: &str) -> Option<&str> {
    let path = resource.strip_prefix("ovf:").unwrap_or(resource);
    path.trim_start_matches('/').strip_prefix("disk/")
}

/// A number of units, which are bytes or a power of a number of them (DSP0004, annex C).
fn capacity_of(number: &str, units: Option<&str>) -> Result<ByteSize> {
    let wrong = || refused("A disk's capacity is no number of bytes.");
    let number: u64 = number.trim().parse().map_err(|_| wrong())?;
    let units: String = units.unwrap_or("byte").split_whitespace().collect();
    let unit = match units.as_str() {
        "byte" | "" => 1,
        units => {
            let factor = units.strip_prefix("byte*").ok_or_else(wrong)?;
            let (base, exponent) = factor.split_once('^').unwrap_or((factor, "1"));
            let base: u64 = base.parse().map_err(|_| wrong())?;
            let exponent: u32 = exponent.parse().map_err(|_| wrong())?;
            base.checked_pow(exponent).ok_or_else(wrong)?
        }
    };
    let bytes = number.checked_mul(unit).ok_or_else(wrong)?;
    match bytes {
        0 => Err(wrong()),
        bytes if bytes > MOST_DISK.bytes() => Err(wrong()),
        bytes => Ok(ByteSize::new(bytes)),
    }
}

#[cfg(test)]
mod tests;
