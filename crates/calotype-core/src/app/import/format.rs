//! In which format an object is: by its first and last bytes, and by its name where they don't tell.
//!
//! This names the format that the image is declared in. Whether the bytes keep what that promises is looked at while
//! they are read ([`crate::inspect`]).

use std::ops::Range;

use futures_util::TryStreamExt as _;

use crate::codes::ImsCode;
use crate::error::{Error, Result};
use crate::object::ObjectAddress;
use crate::ova::ArchiveDisk;
use crate::ports::{ObjectFacts, Objects};

/// Bytes of the beginning that are looked at: an ISO's descriptor is at 32 KiB.
const HEAD: u64 = 0x8006;
/// Bytes of the end: a fixed VHD's footer.
const FOOTER: u64 = 512;

/// The formats that are taken (spec 2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// A disk as it is.
    Raw,
    /// QEMU's.
    Qcow2,
    /// Microsoft's older one.
    Vhd,
    /// Microsoft's newer one.
    Vhdx,
    /// VMware's.
    Vmdk,
    /// VirtualBox's.
    Vdi,
    /// Huawei's older one, known by its name alone.
    Zvhd,
    /// Huawei's newer one, known by its name alone.
    Zvhd2,
    /// A file system of a disc.
    Iso,
    /// An archive of disks, which is none itself.
    Ova,
}

impl Format {
    /// As `disk_format` names it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
            Self::Zvhd => "zvhd",
            Self::Zvhd2 => "zvhd2",
            Self::Iso => "iso",
            Self::Ova => "ova",
        }
    }
}

/// The format of an object.
///
/// # Errors
/// As of [`Objects::read`]; IMG.0057 for what is known and never taken: QEMU's QED and first QCOW, a VMDK's descriptor
/// without its disk.
pub(super) async fn of_object(
    objects: &dyn Objects,
    at: &ObjectAddress,
    facts: &ObjectFacts,
) -> Result<Format> {
    let all = 0..facts.size.bytes();
    of_bytes(objects, at, facts, all, at.file_name()).await
}

/// The format of a disk in an archive.
///
/// # Errors
/// As [`of_object`]; IMG.0057 also for an archive in the archive, a disc, and what can't be told from a disk as it is: it may be
/// compressed.
pub(super) async fn of_member(
    objects: &dyn Objects,
    at: &ObjectAddress,
    facts: &ObjectFacts,
    disk: &ArchiveDisk,
) -> Result<Format> {
    let format = of_bytes(objects, at, facts, disk.bytes.clone(), &disk.name).await?;
    let name = disk.name.to_ascii_lowercase();
    let is_plain = name.ends_with(".raw") || name.ends_with(".img");
    match format {
        Format::Ova | Format::Iso => Err(Error::ims(ImsCode::IMG_0057)),
        Format::Raw if !is_plain => Err(Error::ims(ImsCode::IMG_0057)),
        _ => Ok(format),
    }
}

async fn of_bytes(
    objects: &dyn Objects,
    at: &ObjectAddress,
    facts: &ObjectFacts,
    bytes: Range<u64>,
    name: &str,
) -> Result<Format> {
    let Range { start, end } = bytes;
    let head = start..end.min(start.saturating_add(HEAD));
    let head = read(objects, at, facts, head).await?;
    if let Some(format) = of_head(&head)? {
        return Ok(format);
    }
    let footer = end.saturating_sub(FOOTER).max(start)..end;
    let footer = read(objects, at, facts, footer).await?;
    Ok(of_end_and_name(&footer, name))
}

/// All of a short part of an object.
pub(super) async fn read(
    objects: &dyn Objects,
    at: &ObjectAddress,
    facts: &ObjectFacts,
    range: Range<u64>,
) -> Result<Vec<u8>> {
    let append = |mut bytes: Vec<u8>, chunk: bytes::Bytes| {
        bytes.extend_from_slice(&chunk);
        std::future::ready(Ok(bytes))
    };
    objects
        .read(at, facts, range)
        .try_fold(Vec::new(), append)
        .await
}

fn of_head(head: &[u8]) -> Result<Option<Format>> {
    let at = |offset: usize, magic: &[u8]| {
        let found = head.get(offset..offset + magic.len());
        found == Some(magic)
    };
    Ok(Some(match () {
        () if at(0, b"QFI\xfb\0\0\0\x01") || at(0, b"QED\0") || at(0, b"# Disk DescriptorFile") => {
            return Err(Error::ims(ImsCode::IMG_0057));
        }
        () if at(0, b"QFI\xfb") => Format::Qcow2,
        () if at(0, b"conectix") => Format::Vhd,
        () if at(0, b"vhdxfile") => Format::Vhdx,
        () if at(0, b"KDMV") => Format::Vmdk,
        () if at(0x40, b"\x7f\x10\xda\xbe") => Format::Vdi,
        () if at(0x8001, b"CD001") => Format::Iso,
        () if at(257, b"ustar") => Format::Ova,
        () => return Ok(None),
    }))
}

fn of_end_and_name(end: &[u8], name: &str) -> Format {
    if end.starts_with(b"conectix") {
        return Format::Vhd;
    }
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("zvhd2") => Format::Zvhd2,
        Some("zvhd") => Format::Zvhd,
        _ => Format::Raw,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_tell_the_format_and_the_name_only_where_they_do_not() {
        for (head, format) in [
            (&b"QFI\xfb\0\0\0\x03"[..], Format::Qcow2),
            (b"conectix", Format::Vhd),
            (b"vhdxfile", Format::Vhdx),
            (b"KDMV", Format::Vmdk),
        ] {
            assert_eq!(of_head(head).unwrap(), Some(format));
        }
        let mut disc = vec![0; 0x8006];
        disc[0x8001..].copy_from_slice(b"CD001");
        assert_eq!(of_head(&disc).unwrap(), Some(Format::Iso));
        let mut archive = vec![0; 512];
        archive[257..262].copy_from_slice(b"ustar");
        assert_eq!(of_head(&archive).unwrap(), Some(Format::Ova));
        for never in [
            &b"QFI\xfb\0\0\0\x01"[..],
            b"QED\0",
            b"# Disk DescriptorFile\n",
        ] {
            let refused = of_head(never).unwrap_err();
            assert_eq!(refused.code(), Some(ImsCode::IMG_0057));
        }
        assert_eq!(of_head(&[0; 512]).unwrap(), None);
        assert_eq!(of_head(b"").unwrap(), None);
        assert_eq!(of_end_and_name(b"conectix..", "a.zvhd2"), Format::Vhd);
        assert_eq!(of_end_and_name(b"", "a.ZVHD2"), Format::Zvhd2);
        assert_eq!(of_end_and_name(b"", "a.zvhd"), Format::Zvhd);
        assert_eq!(of_end_and_name(b"", "zvhd"), Format::Raw);
        assert_eq!(of_end_and_name(b"", "a.qcow2"), Format::Raw);
    }
}
