//! Open Virtualization Format archives (DMTF DSP0243): a plain tar (POSIX.1-1988, ustar) whose first member is the description.
//!
//! Every disk in it is inspected as one that is uploaded alone. What the description says is not looked at.

use std::collections::BTreeSet;

use super::disk::Disk;
use super::fields::is_zero;
use super::{Cost, Result, refused, truncated};

const BLOCK: usize = 512;
const MOST_MEMBERS: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Archive {
    header: Vec<u8>,
    names: BTreeSet<String>,
    member: Option<Member>,
    /// Bytes of padding that are still to come.
    padding: u64,
    ended: bool,
    refused: bool,
    memory: usize,
    examined: u64,
}

#[derive(Debug)]
struct Member {
    left: u64,
    disk: Disk,
}

impl Archive {
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        let outcome = self.take(bytes);
        self.refused |= outcome.is_err();
        outcome
    }

    /// # Errors
    /// As of each disk in it, or where it is no whole archive.
    pub(super) fn finish(&self) -> Result<()> {
        if self.refused {
            return Err(refused("The image was refused."));
        }
        if self.names.is_empty() && !self.ended {
            return Err(refused(
                "Image content does not match its container_format (ova).",
            ));
        }
        match self.ended && self.header.is_empty() {
            true => Ok(()),
            false => Err(truncated("ova")),
        }
    }

    pub(super) fn cost(&self) -> Cost {
        Cost {
            memory: self.memory + self.header.len() + self.names.len() * BLOCK,
            examined: self.examined,
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if let Some(member) = &mut self.member {
                let (part, rest) = split(bytes, member.left);
                bytes = rest;
                member.left -= part.len() as u64;
                member.disk.feed(part)?;
                if member.left == 0 {
                    self.end_member()?;
                }
            } else if self.padding > 0 {
                let (part, rest) = split(bytes, self.padding);
                bytes = rest;
                self.padding -= part.len() as u64;
            } else {
                let missing = (BLOCK - self.header.len()) as u64;
                let (part, rest) = split(bytes, missing);
                bytes = rest;
                self.header.extend_from_slice(part);
                if self.header.len() == BLOCK {
                    self.begin_member()?;
                }
            }
        }
        Ok(())
    }

    fn begin_member(&mut self) -> Result<()> {
        let header = std::mem::take(&mut self.header);
        self.examined += BLOCK as u64;
        if is_zero(&header) {
            self.ended = true;
            return Ok(());
        }
        if self.ended {
            return Err(refused("The ova image goes on behind its end."));
        }
        let (name, length) = read_header(&header)?;
        let extension = name.rsplit_once('.').map(|(_, extension)| extension);
        let extension = extension.unwrap_or_default().to_ascii_lowercase();
        if self.names.is_empty() != (extension == "ovf") {
            return Err(refused(
                "The ova image's first member, and no other, must be its description (.ovf).",
            ));
        }
        if self.names.len() == MOST_MEMBERS || !self.names.insert(name) {
            return Err(refused(
                "The ova image has too many members, or two of one name.",
            ));
        }
        let declared = match extension.as_str() {
            "vmdk" | "qcow2" | "vhd" | "vhdx" | "vdi" | "iso" => extension,
            _ => "raw".to_owned(),
        };
        self.padding = length.next_multiple_of(BLOCK as u64) - length;
        self.member = Some(Member {
            left: length,
            disk: Disk::new(declared),
        });
        match length {
            0 => self.end_member(),
            _ => Ok(()),
        }
    }

    fn end_member(&mut self) -> Result<()> {
        if let Some(mut member) = self.member.take() {
            let outcome = member.disk.finish();
            let cost = member.disk.cost();
            self.memory = self.memory.max(cost.memory);
            self.examined += cost.examined;
            outcome?;
        }
        Ok(())
    }
}

/// A member's name and length.
pub(crate) fn read_header(header: &[u8]) -> Result<(String, u64)> {
    let not_a_tar = || refused("Image content does not match its container_format (ova).");
    let is_ustar = &header[257..262] == b"ustar";
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    let own: u64 = header[148..156].iter().map(|byte| u64::from(*byte)).sum();
    // The sum's own bytes count as blanks.
    let wanted = sum - own + 8 * u64::from(b' ');
    if !is_ustar || octal(&header[148..156]) != Some(wanted) {
        return Err(not_a_tar());
    }
    if !matches!(header[156], b'0' | 0) {
        return Err(refused("The ova image has a member that is no plain file."));
    }
    let name = text(&header[..100]).ok_or_else(not_a_tar)?;
    let is_path = name.is_empty() || name.contains(['/', '\\', ':']) || name.contains("..");
    if is_path || name.contains(char::is_control) || header[345] != 0 {
        return Err(refused("The ova image has a member in another directory."));
    }
    let length = length(&header[124..136]).ok_or_else(not_a_tar)?;
    Ok((name.to_owned(), length))
}

/// Octal digits, or, as GNU's tar writes what has no room for them, a number with its first bit set.
fn length(field: &[u8]) -> Option<u64> {
    let large = field.strip_prefix(&[0x80, 0, 0, 0]);
    let length = match large {
        Some(number) => u64::from_be_bytes(number.try_into().ok()?),
        None => octal(field)?,
    };
    i64::try_from(length).ok().map(|_| length)
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits = text(field)?.trim();
    u64::from_str_radix(digits, 8).ok()
}

fn text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|byte| *byte == 0);
    std::str::from_utf8(field.get(..end.unwrap_or(field.len()))?).ok()
}

fn split(bytes: &[u8], at: u64) -> (&[u8], &[u8]) {
    let at = usize::try_from(at).unwrap_or(bytes.len());
    bytes.split_at(at.min(bytes.len()))
}
