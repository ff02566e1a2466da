//! Questions to the catalog: which images, in what order, from where on.

use crate::id::{EnterpriseProjectId, ImageId, KeyId, ProjectId};
use crate::image::{ImageStatus, MemberStatus, Visibility};
use crate::size::ByteSize;
use crate::time::Timestamp;

/// Whose eyes a question is asked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// The project that asks; none for a credential without one, which sees public and community images.
    pub project: Option<ProjectId>,
    /// Whether it sees every project's images.
    pub all_projects: bool,
    /// Where given: it sees nothing but its project's own images in these enterprise projects.
    pub enterprise_projects: Option<Vec<EnterpriseProjectId>>,
}

/// Which of the visible images are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Visible {
    /// Glance's default: public ones, the viewer's own of any visibility, and those shared with the
    /// viewer under the wanted member status. Community images of others are left out.
    #[default]
    Default,
    /// All that the viewer may see, community images of others among them.
    All,
    /// Those with this visibility. `Shared` finds the viewer's own shared images and those shared with
    /// the viewer under the wanted member status.
    Only(Visibility),
}

/// Under which member status images shared with the viewer are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedMembership {
    /// Under this one. The default is [`MemberStatus::Accepted`].
    Is(MemberStatus),
    /// Under any.
    Any,
}

/// A comparison with a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A condition that a wanted image meets. All conditions of a query hold at once.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// The id is one of these.
    Id(Vec<ImageId>),
    /// The name is one of these, exactly.
    Name(Vec<String>),
    /// The status is one of these.
    Status(Vec<ImageStatus>),
    /// The owner is this.
    Owner(ProjectId),
    /// The disk format is one of these.
    DiskFormat(Vec<String>),
    /// The container format is one of these.
    ContainerFormat(Vec<String>),
    /// The MD5 digest is this.
    Checksum(String),
    /// One of the digests shown as `os_hash_value` is this.
    OsHashValue(String),
    /// The minimal disk is this (GiB).
    MinDisk(u32),
    /// The minimal memory is this (MiB).
    MinRam(u32),
    /// The size is this or larger.
    SizeMin(ByteSize),
    /// The size is this or smaller.
    SizeMax(ByteSize),
    /// It is protected, or is not.
    Protected(bool),
    /// It is hidden, or is not.
    Hidden(bool),
    /// It has this tag.
    Tag(String),
    /// It has this property with this value.
    Property(String, String),
    /// It lacks this property, or has it with a value other than these.
    NotProperty(String, Vec<String>),
    /// The time of creation compares so.
    CreatedAt(Comparison, Timestamp),
    /// The time of the last change compares so.
    UpdatedAt(Comparison, Timestamp),
    /// The customer's master key is this.
    Key(KeyId),
    /// The enterprise project is this.
    EnterpriseProject(EnterpriseProjectId),
    /// The visibility is this, beside what [`ImageQuery::visible`] says (`__imagetype`).
    Visibility(Visibility),
    /// No image meets this: for filter values that are allowed and can't match.
    Nothing,
}

/// What images are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortKey {
    /// By id.
    Id,
    /// By name; images without one come as if theirs were empty.
    Name,
    /// By status.
    Status,
    /// By container format; absent as empty.
    ContainerFormat,
    /// By disk format; absent as empty.
    DiskFormat,
    /// By size; absent as -1.
    Size,
    /// By time of creation.
    CreatedAt,
    /// By time of the last change.
    UpdatedAt,
    /// By minimal disk.
    MinDisk,
    /// By minimal memory.
    MinRam,
}

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// A page of images.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageQuery {
    /// Whose eyes.
    pub viewer: Viewer,
    /// Which of the visible ones.
    pub visible: Visible,
    /// Under which status those shared with the viewer are wanted.
    pub membership: WantedMembership,
    /// What they must meet.
    pub conditions: Vec<Condition>,
    /// Their order. The catalog appends time of creation and id, in the direction of the last key
    /// given (descending where none is), so that every order is total.
    pub order: Vec<(SortKey, Direction)>,
    /// The image after which the page begins. It need not meet the conditions.
    pub marker: Option<ImageId>,
    /// How many at most.
    pub limit: u32,
}

/// A key of tags, with the values of which one is wanted; without any, each will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedTag {
    /// The key.
    pub key: String,
    /// The values; an empty one is that of a key alone.
    pub values: Vec<String>,
}

/// What is asked of an image's tags, or beside them. All conditions of a query hold at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagCondition {
    /// It has each of these.
    All(Vec<WantedTag>),
    /// It has one of these.
    Any(Vec<WantedTag>),
    /// It lacks one of these.
    NotAll(Vec<WantedTag>),
    /// It lacks each of these.
    NotAny(Vec<WantedTag>),
    /// It has no tag.
    Untagged,
    /// Its name holds this text; the empty text stands for the empty name, or none.
    Name(String),
    /// Its id is this.
    Id(ImageId),
    /// No image meets this.
    Nothing,
}

/// Which images of a project are wanted, by their tags (spec 2.11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagQuery {
    /// Whose.
    pub owner: ProjectId,
    /// What they must meet.
    pub conditions: Vec<TagCondition>,
}
