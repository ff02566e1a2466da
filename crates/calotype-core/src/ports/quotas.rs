//! The port to what projects may have, and to what they have.
//!
//! Usage is counted in the transaction that changes what it counts. What is on its way is reserved: bytes before they
//! come, a replica's before it is made. So a project is never over its quota, whoever asks at once.

use super::catalog::AuditEvent;
use crate::codes::ImsCode;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, ProjectId};
use crate::size::ByteSize;

/// The most images that a project may have that has no limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimit(pub u64);

/// The most members that an image may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberLimit {
    /// For images of a project that has no limit of its own.
    pub configured: u64,
    /// For this image, whatever its project's limit is.
    pub at_most: Option<u64>,
}

/// How a project pays for a blob that several of its images refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SharedBlobs {
    /// Once.
    #[default]
    Once,
    /// For each image.
    Each,
}

/// The most bytes of plaintext that a project may have that has no limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteLimit {
    /// The limit; none: any number.
    pub configured: Option<ByteSize>,
    /// How they are counted, whosever limit it is.
    pub shared: SharedBlobs,
}

impl ByteLimit {
    /// No limit but a project's own.
    pub const NONE: Self = Self {
        configured: None,
        shared: SharedBlobs::Once,
    };

    /// The refusal of who is over it. The table has no code for it: this is its word for a file that is too large here.
    pub fn refusal() -> Error {
        Error::new(
            ErrorKind::TooLarge,
            "The project's quota has no room for so many bytes.",
        )
        .with_code(ImsCode::IMG_0059)
    }
}

/// Bytes that a blob asks for before they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// So many must be had.
    pub needed: ByteSize,
    /// So many are welcome, where the project has room for them and for others.
    pub wanted: ByteSize,
    /// What the configuration says.
    pub limit: ByteLimit,
}

impl Reservation {
    /// Nothing.
    pub const NONE: Self = Self {
        needed: ByteSize::ZERO,
        wanted: ByteSize::ZERO,
        limit: ByteLimit::NONE,
    };
}

/// What a project has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Images of any status.
    pub images: u64,
    /// Bytes of plaintext of its images, a shared blob counted for each image.
    pub bytes: ByteSize,
    /// The same, a shared blob counted once.
    pub blob_bytes: ByteSize,
    /// Bytes that are reserved for what is being written.
    pub reserved: ByteSize,
}

impl Usage {
    /// The bytes that the project pays for, without those that are reserved.
    pub const fn charged(&self, shared: SharedBlobs) -> ByteSize {
        match shared {
            SharedBlobs::Once => self.blob_bytes,
            SharedBlobs::Each => self.bytes,
        }
    }
}

/// A limit of a project's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnLimit {
    /// None: the configuration's counts.
    #[default]
    Configured,
    /// Any number, whatever the configuration says.
    Unlimited,
    /// So many.
    At(u64),
}

impl OwnLimit {
    /// What counts where the configuration says this; none: any number.
    pub const fn or(self, configured: Option<u64>) -> Option<u64> {
        match self {
            Self::Configured => configured,
            Self::Unlimited => None,
            Self::At(most) => Some(most),
        }
    }
}

/// The limits of a project's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnLimits {
    /// Images.
    pub images: OwnLimit,
    /// Members of an image.
    pub members: OwnLimit,
    /// Bytes.
    pub bytes: OwnLimit,
}

/// A change of a project's own limits; what is none stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitChange {
    /// Images.
    pub images: Option<OwnLimit>,
    /// Members of an image.
    pub members: Option<OwnLimit>,
    /// Bytes.
    pub bytes: Option<OwnLimit>,
}

/// What a project may have and has, in one state of the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProjectQuota {
    /// The limits of its own.
    pub own: OwnLimits,
    /// What it has.
    pub usage: Usage,
    /// Its images that have members and are shared with them.
    pub shared_images: u64,
    /// The most members that one of them has.
    pub most_members: u64,
}

/// Limits and usage. See the module's documentation.
#[async_trait::async_trait]
pub trait Quotas: Send + Sync {
    /// What a project may have and has.
    async fn quota(&self, project: &ProjectId) -> Result<ProjectQuota>;

    /// What a project has.
    async fn usage(&self, project: &ProjectId) -> Result<Usage>;

    /// Whether a project has room for so many bytes more now. It changes nothing: what reserves or counts them decides.
    ///
    /// # Errors
    /// TooLarge (IMG.0059).
    async fn check_bytes(
        &self,
        project: &ProjectId,
        bytes: ByteSize,
        limit: ByteLimit,
    ) -> Result<()>;

    /// Changes a project's own limits, and writes the audit trail's line with it. A limit below what the project has is
    /// no error: it gets no more until it has less. Returns the limits as they now are.
    async fn set_limits(
        &self,
        project: &ProjectId,
        change: &LimitChange,
        line: &AuditEvent,
    ) -> Result<OwnLimits>;

    /// Takes a project's own limits away, and writes the audit trail's line with it. False, and no line, where it has none.
    async fn reset_limits(&self, project: &ProjectId, line: &AuditEvent) -> Result<bool>;

    /// Reserves more bytes for a blob that is being written, and says how many. They are its project's until the blob is
    /// stored, which takes what it needs of them and gives the rest back, or until its writing ends without one.
    ///
    /// # Errors
    /// TooLarge (IMG.0059) where the project has no room for those that are needed; Gone where the writing was ended by
    /// another.
    async fn reserve(&self, blob: BlobId, more: Reservation) -> Result<ByteSize>;
}
