//! Which formats the beginning of an image is in.

use super::fields::Fields;
use super::rules::Begun;
use super::{Result, gpt, iso, luks, ploop, qcow2, refused, vdi, vhd, vhdx, vmdk};

/// A format that bytes can be known by. QCOW's first version counts as qcow2, whose rules refuse it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Qcow2,
    Qed,
    Vhd,
    Vhdx,
    Vmdk,
    Vdi,
    Iso,
    Gpt,
    Luks,
    Ploop,
}

impl Format {
    /// Its name among the disk formats.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Qed => "qed",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
            Self::Iso => "iso",
            Self::Gpt => "gpt",
            Self::Luks => "luks",
            Self::Ploop => "ploop",
        }
    }

    /// Whether a disk that is in none may hold it: it means something to the server alone, and refers to nothing outside.
    pub(super) fn is_content(self) -> bool {
        matches!(self, Self::Iso | Self::Gpt | Self::Luks)
    }

    /// The format's rules, begun.
    pub(super) fn begin(self, head: &[u8]) -> Result<Begun> {
        match self {
            Self::Qcow2 => qcow2::begin(head),
            Self::Qed => Err(refused("QED images are not accepted.")),
            Self::Vhd => vhd::begin(head),
            Self::Vhdx => vhdx::begin(head),
            Self::Vmdk => vmdk::begin(head),
            Self::Vdi => vdi::begin(head),
            Self::Iso => iso::begin(head),
            Self::Gpt => gpt::begin(head),
            Self::Luks => luks::begin(head),
            Self::Ploop => ploop::begin(head),
        }
    }
}

/// The one format that the beginning is in; none where it is none that is known.
///
/// # Errors
/// Where it is in several, which is what an attacker makes. A partition table in an ISO is what makes it bootable.
pub(super) fn detect(head: &[u8]) -> Result<Option<Format>> {
    let is_vdi = Fields::of(head, "vdi").le32(0x40).ok() == Some(vdi::MAGIC);
    let known = [
        (Format::Qcow2, head.starts_with(b"QFI\xfb")),
        (Format::Qed, head.starts_with(b"QED\0")),
        (Format::Vhd, vhd::is_footer(head)),
        (Format::Vhdx, head.starts_with(vhdx::MAGIC)),
        (Format::Vmdk, is_vmdk(head)),
        (Format::Vdi, is_vdi),
        (Format::Iso, iso::is_there(head)),
        (Format::Luks, head.starts_with(luks::MAGIC)),
        (Format::Ploop, ploop::is_there(head)),
    ];
    let mut found = known.into_iter().filter(|(_, is)| *is);
    let first = found.next().map(|(format, _)| format);
    let second = found.next().map(|(format, _)| format);
    match (first, second) {
        (None, _) => Ok(gpt::is_there(head).then_some(Format::Gpt)),
        (Some(Format::Iso), None) => Ok(first),
        (Some(one), None) if gpt::is_table(head) => Err(several(one, Format::Gpt)),
        (Some(_), None) => Ok(first),
        (Some(one), Some(other)) => Err(several(one, other)),
    }
}

/// The refusal of bytes that are in two formats.
pub(super) fn several(one: Format, other: Format) -> crate::error::Error {
    refused(format!(
        "The image is in several formats at once ({}, {}).",
        one.name(),
        other.name()
    ))
}

/// A sparse extent, one of ESX, or a text that QEMU takes for a descriptor: after comments and empty lines comes the version.
fn is_vmdk(head: &[u8]) -> bool {
    if head.starts_with(b"KDMV") || head.starts_with(b"COWD") {
        return true;
    }
    let title = b"# Disk DescriptorFile";
    let text = head.trim_ascii_start();
    if text
        .get(..title.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(title))
    {
        return true;
    }
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(b"#"));
    first.is_some_and(|line| {
        line.get(..8)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"version="))
    })
}
