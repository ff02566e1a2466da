//! The keys of the objects.

use std::fmt;
use std::str::FromStr;

use calotype_core::id::BlobId;

/// An attempt's name: random, so that no key is used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AttemptId(pub(super) [u8; 16]);

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AttemptId {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// The keys below a prefix.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// Empty, or with a slash at its end.
    prefix: String,
}

/// What an object of an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Manifest,
    Segment(u32),
    Notes,
    Other,
}

impl Names {
    pub(super) fn below(prefix: &str) -> Self {
        let prefix = prefix.trim_matches('/');
        Self {
            prefix: match prefix {
                "" => String::new(),
                prefix => format!("{prefix}/"),
            },
        }
    }

    pub(super) fn label(&self, name: &str) -> String {
        format!("{}labels/{name}", self.prefix)
    }

    pub(super) fn pointers(&self) -> String {
        format!("{}blobs/", self.prefix)
    }

    pub(super) fn pointer(&self, blob: BlobId) -> String {
        format!("{}{blob}", self.pointers())
    }

    pub(super) fn markers(&self) -> String {
        format!("{}staged/", self.prefix)
    }

    pub(super) fn markers_of(&self, blob: BlobId) -> String {
        format!("{}{blob}/", self.markers())
    }

    pub(super) fn marker(&self, blob: BlobId, attempt: AttemptId) -> String {
        format!("{}{attempt}", self.markers_of(blob))
    }

    pub(super) fn data(&self) -> String {
        format!("{}data/", self.prefix)
    }

    pub(super) fn data_of(&self, blob: BlobId) -> String {
        format!("{}{blob}/", self.data())
    }

    pub(super) fn attempt(&self, blob: BlobId, attempt: AttemptId) -> String {
        format!("{}{attempt}/", self.data_of(blob))
    }

    /// Without the ending that each try has.
    pub(super) fn manifest(&self, blob: BlobId, attempt: AttemptId) -> String {
        format!("{}manifest", self.attempt(blob, attempt))
    }

    pub(super) fn segment(&self, blob: BlobId, attempt: AttemptId, index: u32) -> String {
        format!("{}{index:08x}", self.attempt(blob, attempt))
    }

    pub(super) fn notes(&self, blob: BlobId, attempt: AttemptId, number: u32) -> String {
        format!("{}notes.{number:08x}", self.attempt(blob, attempt))
    }

    pub(super) fn adopted(&self, blob: BlobId, attempt: AttemptId) -> String {
        format!("{}adopted", self.attempt(blob, attempt))
    }

    /// The blob and the attempt of a marker.
    pub(super) fn of_marker(&self, key: &str) -> Option<(BlobId, AttemptId)> {
        let (blob, attempt) = key.strip_prefix(&self.markers())?.split_once('/')?;
        Some((blob.parse().ok()?, attempt.parse().ok()?))
    }

    /// The blob of a pointer.
    pub(super) fn of_pointer(&self, key: &str) -> Option<BlobId> {
        key.strip_prefix(&self.pointers())?.parse().ok()
    }

    /// The attempt of an object of a blob's, and what it is.
    pub(super) fn of_data(&self, blob: BlobId, key: &str) -> Option<(AttemptId, Part)> {
        let (attempt, name) = key.strip_prefix(&self.data_of(blob))?.split_once('/')?;
        let part = if name.starts_with("manifest.") {
            Part::Manifest
        } else if name.starts_with("notes.") {
            Part::Notes
        } else if name.len() == 8
            && let Ok(index) = u32::from_str_radix(name, 16)
        {
            Part::Segment(index)
        } else {
            Part::Other
        };
        Some((attempt.parse().ok()?, part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_known_again_and_no_other_is() {
        let (blob, attempt) = (BlobId::from(uuid::Uuid::from_u128(7)), AttemptId([9; 16]));
        for prefix in ["", "calotype", "/deep/er/"] {
            let names = Names::below(prefix);
            assert_eq!(names.of_pointer(&names.pointer(blob)), Some(blob));
            let marker = names.marker(blob, attempt);
            assert_eq!(names.of_marker(&marker), Some((blob, attempt)));
            let manifest = format!("{}.0f", names.manifest(blob, attempt));
            for (key, part) in [
                (names.segment(blob, attempt, 0xabc), Part::Segment(0xabc)),
                (names.notes(blob, attempt, 3), Part::Notes),
                (names.adopted(blob, attempt), Part::Other),
                (manifest, Part::Manifest),
            ] {
                assert_eq!(names.of_data(blob, &key), Some((attempt, part)), "{key}");
                assert!(!key.starts_with('/') && !key.contains("//"), "{key}");
            }
        }
        let names = Names::below("p");
        assert_eq!(names.of_pointer("p/blobs/other"), None);
        assert_eq!(
            names.of_pointer("blobs/00000000-0000-0000-0000-000000000007"),
            None
        );
        assert_eq!(names.of_marker("p/staged/x/y"), None);
        assert_eq!(names.of_data(blob, "p/data/x/y/manifest.1"), None);
    }
}
