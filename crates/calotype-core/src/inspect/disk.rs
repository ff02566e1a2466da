//! The bytes of one disk, looked at as they pass.

use super::detect::{Format, detect, several};
use super::rules::{End, Next, Piece, Rules};
use super::{Cost, Result, foreign, refused, vhd};
use crate::error::Error;

/// Bytes of the beginning that are kept: every header, and the ISO's descriptor at 32 KiB.
pub(super) const HEAD: usize = 64 * 1024;
/// Bytes of the end that are kept: a streamed VMDK's footer between its two markers; a VHD's footer.
pub(super) const TAIL: usize = 3 * 512;

#[derive(Debug)]
pub(super) struct Disk {
    declared: String,
    /// Whether it is in a container that is not looked into.
    contained: bool,
    head: Vec<u8>,
    tail: Vec<u8>,
    length: u64,
    found: Option<Format>,
    rules: Option<Box<dyn Rules>>,
    begun: bool,
    refused: bool,
    wanted: Option<Wanted>,
    /// Where the pieces end that were asked for.
    captured: u64,
    examined: u64,
    most_held: usize,
}

/// A piece that was asked for, and what has come of it.
#[derive(Debug)]
struct Wanted {
    piece: Piece,
    may_be_the_end: bool,
    held: Vec<u8>,
}

impl Wanted {
    /// Takes what of it is in `bytes`, which are at `at`; whether it is whole.
    fn take(&mut self, at: u64, bytes: &[u8]) -> bool {
        let next = self.piece.at.saturating_add(self.held.len() as u64);
        let skipped = next
            .checked_sub(at)
            .and_then(|skipped| usize::try_from(skipped).ok());
        if let Some(bytes) = skipped.and_then(|skipped| bytes.get(skipped..)) {
            let missing = self.piece.length - self.held.len();
            self.held
                .extend_from_slice(&bytes[..bytes.len().min(missing)]);
        }
        self.held.len() == self.piece.length
    }
}

impl Disk {
    pub(super) fn new(declared: String) -> Self {
        Self {
            declared,
            contained: false,
            head: Vec::new(),
            tail: Vec::new(),
            length: 0,
            found: None,
            rules: None,
            begun: false,
            refused: false,
            wanted: None,
            captured: 0,
            examined: 0,
            most_held: 0,
        }
    }

    /// As [`Self::new`], for what a container may wrap: only what begins as a disk is looked at.
    pub(super) fn in_a_container(declared: String) -> Self {
        Self {
            contained: true,
            ..Self::new(declared)
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        let at = self.length;
        self.length = self.length.saturating_add(bytes.len() as u64);
        self.keep_tail(bytes);
        let outcome = self.capture(at, bytes);
        self.refused |= outcome.is_err();
        outcome
    }

    /// Where the next byte is that is to be looked at; none where only the end is.
    pub(super) fn looks_at(&self) -> Option<u64> {
        match &self.wanted {
            _ if !self.begun => Some(self.length),
            Some(wanted) => Some(wanted.piece.at.saturating_add(wanted.held.len() as u64)),
            None => None,
        }
    }

    /// Passes over bytes that are not looked at: they lie before what [`Self::looks_at`] says, and before the last [`TAIL`].
    pub(super) fn skip(&mut self, bytes: u64) {
        self.length = self.length.saturating_add(bytes);
        self.tail.clear();
    }

    pub(super) fn finish(&mut self) -> Result<Option<u64>> {
        if self.refused {
            return Err(refused("The image was refused."));
        }
        if !self.begun {
            self.begin()?;
            self.examine(self.length, &[])?;
        }
        if let Some(wanted) = &self.wanted {
            let is_the_end = wanted.may_be_the_end && wanted.piece.at == self.length;
            if !is_the_end {
                let format = self.found.map_or("raw", Format::name);
                return Err(super::truncated(format));
            }
        }
        let end = End {
            length: self.length,
            tail: &self.tail,
        };
        let fixed = self.fixed_vhd(&end)?;
        match (&self.rules, self.declared.as_str()) {
            (None, _) if self.contained => Ok(None),
            (_, "vhd") if fixed.is_some() => Ok(fixed),
            (None, "vhd") => Err(self.mismatch(self.found)),
            _ if fixed.is_some() => Err(self.mismatch(Some(Format::Vhd))),
            (Some(rules), _) => rules.finish(&end),
            // What a raw disk holds is its user's affair: it is as large as its bytes are.
            (None, "raw") => Ok(Some(self.length)),
            (None, _) => Ok(None),
        }
    }

    pub(super) fn cost(&self) -> Cost {
        Cost {
            memory: self.most_held + self.tail.len(),
            examined: self.examined,
        }
    }

    /// The end may be here: that of a VMDK may be three sectors, every other's is one.
    fn keep_tail(&mut self, bytes: &[u8]) {
        let is_one_sector = self.begun && self.found != Some(Format::Vmdk);
        let length = if is_one_sector { vhd::FOOTER } else { TAIL };
        let last = &bytes[bytes.len().saturating_sub(length)..];
        let surplus = (self.tail.len() + last.len()).saturating_sub(length);
        self.tail.drain(..surplus.min(self.tail.len()));
        self.tail.extend_from_slice(last);
    }

    fn capture(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        if !self.begun {
            let wanted = bytes.len().min(HEAD - self.head.len());
            self.head.extend_from_slice(&bytes[..wanted]);
            if self.head.len() < HEAD {
                return Ok(());
            }
            self.begin()?;
        }
        self.examine(at, bytes)
    }

    /// Hands the rules every piece that is whole with `bytes`.
    fn examine(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        while let Some(wanted) = &mut self.wanted {
            if !wanted.take(at, bytes) {
                return Ok(());
            }
            let held = std::mem::take(&mut wanted.held);
            self.wanted = None;
            self.examined += held.len() as u64;
            let Some(rules) = &mut self.rules else {
                return Ok(());
            };
            let next = rules.examine(&held)?;
            let holds = self.head.len() + held.len() + rules.held();
            self.most_held = self.most_held.max(holds);
            self.want(next, held)?;
        }
        Ok(())
    }

    /// Judges the beginning: what is wrong with the format that it is in comes before that it is not the declared one.
    fn begin(&mut self) -> Result<()> {
        self.begun = true;
        self.captured = self.head.len() as u64;
        self.examined += self.head.len() as u64;
        self.most_held = self.head.len();
        self.found = detect(&self.head)?;
        let Some(format) = self.found else {
            return self.accept(None);
        };
        if self.is_opaque() && format == Format::Vhd {
            return match vhd::names_parent(&self.head) {
                true => Err(foreign("a parent disk")),
                false => Ok(()),
            };
        }
        if format.is_content() && (self.contained || self.declared != format.name()) {
            return self.accept(Some(format));
        }
        let (rules, next) = format.begin(&self.head)?;
        self.accept(Some(format))?;
        self.rules = Some(rules);
        self.want(next, Vec::new())
    }

    fn want(&mut self, next: Next, mut held: Vec<u8>) -> Result<()> {
        let (piece, may_be_the_end) = match next {
            Next::Piece(piece) => (piece, false),
            Next::PieceOrEnd(piece) => (piece, true),
            Next::Enough => return Ok(()),
        };
        let head = self.head.len() as u64;
        let end = piece.at.saturating_add(piece.length as u64);
        if end > head && piece.at < self.captured && self.captured > head {
            return Err(refused(
                "The image's tables are not in the order of its bytes.",
            ));
        }
        held.clear();
        let kept = usize::try_from(piece.at).ok();
        if let Some(kept) = kept.and_then(|at| self.head.get(at..)) {
            held.extend_from_slice(&kept[..kept.len().min(piece.length)]);
        }
        self.captured = self.captured.max(end);
        self.wanted = Some(Wanted {
            piece,
            may_be_the_end,
            held,
        });
        Ok(())
    }

    /// Whether bytes in `found` may be declared as they are.
    fn accept(&self, found: Option<Format>) -> Result<()> {
        let is_content = found.is_none_or(Format::is_content);
        let accepted = match self.declared.as_str() {
            _ if self.contained && is_content => true,
            "raw" | "ami" | "ari" | "aki" | "zvhd" | "zvhd2" => is_content,
            // Only its end tells a fixed VHD from its contents, see `finish`.
            "vhd" if matches!(found, None | Some(Format::Gpt)) => true,
            declared => found.is_some_and(|found| found.name() == declared),
        };
        match accepted {
            true => Ok(()),
            false => Err(self.mismatch(found)),
        }
    }

    /// Whether its format has no public description, and may begin or end as others do.
    fn is_opaque(&self) -> bool {
        matches!(self.declared.as_str(), "zvhd" | "zvhd2")
    }

    /// The size of the disk that the footer at the end describes, where there is one of a fixed VHD.
    fn fixed_vhd(&self, end: &End<'_>) -> Result<Option<u64>> {
        let footer = end.last(vhd::FOOTER);
        let is_other = self.found == Some(Format::Vhd) || self.is_opaque() || self.contained;
        if is_other || !vhd::is_footer(footer) {
            return Ok(None);
        }
        if vhd::has_parent(footer) {
            return Err(foreign("a parent disk"));
        }
        match (vhd::fixed(footer, end.length), self.found) {
            (Ok(size), None | Some(Format::Gpt)) => Ok(Some(size)),
            (Ok(_), Some(found)) => Err(several(found, Format::Vhd)),
            (Err(error), _) if self.declared == "vhd" => Err(error),
            // No disk of this format, but what happens to be at the end of one.
            (Err(_), _) => Ok(None),
        }
    }

    fn mismatch(&self, found: Option<Format>) -> Error {
        refused(format!(
            "Image content ({}) does not match its disk_format ({}).",
            found.map_or("raw", Format::name),
            self.declared
        ))
    }
}
