//! Images, their members, and the states they go through.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::id::{BlobId, EnterpriseProjectId, ImageId, KeyId, ProjectId};
use crate::ports::WrappedKey;
use crate::size::ByteSize;
use crate::time::Timestamp;

macro_rules! word_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word on the wire and in the catalog.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text { $($word => Ok(Self::$variant),)+ _ => Err(UnknownWord) }
            }
        }
    };
}
pub(crate) use word_enum;

/// A word that none of the known values has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of the known values")]
pub struct UnknownWord;

word_enum! {
    /// The state of an image (spec 4.2).
    ImageStatus {
        /// The record exists; no bytes have come.
        Queued = "queued",
        /// Bytes are being stored, by an upload or by a job.
        Saving = "saving",
        /// Usable. Bytes, size and digests never change from here on.
        Active = "active",
        /// The upload failed for good.
        Killed = "killed",
        /// Whole, but its bytes are withheld from all but administrators.
        Deactivated = "deactivated",
    }
}

word_enum! {
    /// Who can see an image.
    Visibility {
        /// The owner alone.
        Private = "private",
        /// The owner and the projects that are members.
        Shared = "shared",
        /// Everybody, though only the owner finds it in lists by default.
        Community = "community",
        /// Everybody.
        Public = "public",
    }
}

word_enum! {
    /// What a project answered when an image was shared with it.
    MemberStatus {
        /// Nothing yet.
        Pending = "pending",
        /// It wants the image in its lists.
        Accepted = "accepted",
        /// It does not.
        Rejected = "rejected",
    }
}

word_enum! {
    /// The algorithm of `os_hash_value`.
    HashAlgorithm {
        /// SHA-256 (FIPS 180-4).
        Sha256 = "sha256",
        /// SHA-512 (FIPS 180-4).
        Sha512 = "sha512",
    }
}

/// Container formats of the Image API's schema (Glance's list).
pub const CONTAINER_FORMATS: &[&str] = &[
    "ami",
    "ari",
    "aki",
    "bare",
    "ovf",
    "ova",
    "docker",
    "compressed",
];

/// Disk formats of the Image API's schema (Glance's list) and those of the IMS API (spec 4.8).
pub const DISK_FORMATS: &[&str] = &[
    "ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "ploop", "iso", "gpt",
    "luks", "qed", "qcow", "zvhd", "zvhd2",
];

/// Digests of an image's plaintext, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Digests {
    /// MD5 (RFC 1321), the Image API's `checksum`. A guard against accidents, not against attack.
    pub md5: Option<String>,
    /// SHA-256.
    pub sha256: Option<String>,
    /// SHA-512, the Image API's default `os_hash_value`.
    pub sha512: Option<String>,
}

impl Digests {
    /// The digest that the Image API shows as `os_hash_algo` and `os_hash_value`: the strongest.
    pub fn os_hash(&self) -> Option<(HashAlgorithm, &str)> {
        let sha512 = self
            .sha512
            .as_deref()
            .map(|value| (HashAlgorithm::Sha512, value));
        let sha256 = self
            .sha256
            .as_deref()
            .map(|value| (HashAlgorithm::Sha256, value));
        sha512.or(sha256)
    }
}

/// The record that a user sees.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Its id, never used for another image.
    pub id: ImageId,
    /// Its name; the Image API allows none.
    pub name: Option<String>,
    /// The project that it belongs to.
    pub owner: ProjectId,
    /// Its state.
    pub status: ImageStatus,
    /// Who can see it.
    pub visibility: Visibility,
    /// The format of its bytes, from [`DISK_FORMATS`].
    pub disk_format: Option<String>,
    /// What wraps its bytes, from [`CONTAINER_FORMATS`].
    pub container_format: Option<String>,
    /// GiB that a disk needs to hold it.
    pub min_disk: u32,
    /// MiB of memory that a server needs to run it.
    pub min_ram: u32,
    /// Whether deletion is refused.
    pub protected: bool,
    /// Whether lists leave it out by default.
    pub hidden: bool,
    /// Bytes of plaintext; none until they are there.
    pub size: Option<ByteSize>,
    /// When its bytes were found damaged, if they were.
    pub damaged_at: Option<Timestamp>,
    /// Bytes of the disk that the format describes; none where it is not known.
    pub virtual_size: Option<ByteSize>,
    /// Digests of the plaintext; empty until the bytes are there.
    pub digests: Digests,
    /// Its bytes; none until they are there.
    pub blob: Option<BlobId>,
    /// The wrap of its blob's data key; none: the one in the blob's manifest.
    pub wrapped_key: Option<WrappedKey>,
    /// The customer's master key that seals it; none where the service's own does.
    pub cmk_id: Option<KeyId>,
    /// The enterprise project that it belongs to.
    pub enterprise_project: EnterpriseProjectId,
    /// Free attributes, IMS attributes (`__os_type`, ...) among them. All are strings.
    pub properties: BTreeMap<String, String>,
    /// Its tags, sorted, without repetition.
    pub tags: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its record last changed.
    pub updated_at: Timestamp,
    /// When it became active.
    pub active_at: Option<Timestamp>,
    /// Raised by every change of the record: the guard of optimistic updates.
    pub version: i64,
}

/// An image as lists read it. It never changes, so that what is written of it is written once, however many lists show it.
#[derive(Debug)]
pub struct ListedImage {
    image: Image,
    document: OnceLock<Box<str>>,
}

impl From<Image> for ListedImage {
    fn from(image: Image) -> Self {
        Self {
            image,
            document: OnceLock::new(),
        }
    }
}

impl Deref for ListedImage {
    type Target = Image;

    fn deref(&self) -> &Image {
        &self.image
    }
}

impl ListedImage {
    /// The image's document: as `write` writes it, the first time. There is one form of it.
    ///
    /// # Errors
    /// Those of `write`, and then it is asked again the next time.
    pub fn document<E>(&self, write: impl FnOnce(&Image) -> Result<String, E>) -> Result<&str, E> {
        if let Some(document) = self.document.get() {
            return Ok(document);
        }
        let written = write(&self.image)?.into_boxed_str();
        Ok(self.document.get_or_init(|| written))
    }
}

impl Image {
    /// A property's value.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }

    /// Whether it is a full-ECS image: system and data disks together (`__whole_image`).
    pub fn is_whole(&self) -> bool {
        self.property("__whole_image")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Whether it is of a kind that can be shared: a full-ECS image only where it was made of a backup (`__backup_id`;
    /// spec 2.6).
    pub fn may_be_shared(&self) -> bool {
        let backup = self.property("__backup_id");
        !self.is_whole() || backup.is_some_and(|id| !id.is_empty())
    }

    /// Whether it is an ISO file or was made from one (`virtual_env_type` is `IsoImage`).
    pub fn is_iso(&self) -> bool {
        self.disk_format.as_deref() == Some("iso")
            || self.property("virtual_env_type") == Some("IsoImage")
    }

    /// Whether it is for bare-metal servers (`virtual_env_type` is `Ironic`).
    pub fn is_bare_metal(&self) -> bool {
        self.property("virtual_env_type") == Some("Ironic")
    }
}

/// A project with which an image is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The image.
    pub image: ImageId,
    /// The project.
    pub project: ProjectId,
    /// Its answer.
    pub status: MemberStatus,
    /// When it became a member.
    pub created_at: Timestamp,
    /// When its answer last changed.
    pub updated_at: Timestamp,
}
