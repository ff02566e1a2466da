//! Jobs: asynchronous units of work that the API shows.

use serde::{Deserialize, Serialize};

use crate::access::Action;
use crate::codes::ImsCode;
use crate::disk::DiskFormat;
use crate::id::{BlobId, ImageId, JobId, KeyId, ProjectId, UserId};
use crate::image::UnknownWord;
use crate::image::word_enum;
use crate::object::ObjectAddress;
use crate::ports::{ObjectFacts, Place, WrappedKey};
use crate::size::ByteSize;
use crate::time::Timestamp;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

word_enum! {
    /// The state of a job (spec 5.3). `SUCCESS` and `FAIL` are final.
    JobStatus {
        /// Accepted; no worker has it yet.
        Init = "INIT",
        /// A worker has it, or had it and another will.
        Running = "RUNNING",
        /// Done.
        Success = "SUCCESS",
        /// Given up for good, with a code and a reason.
        Fail = "FAIL",
    }
}

word_enum! {
    /// What a job does (spec 5.4).
    JobType {
        /// Replicates an image within the region.
        CopyImageInRegion = "imsCopyImageInRegionJob",
        /// Makes an image of a system disk, or of an ISO file, from an object.
        ImportImage = "imsImportImageJob",
        /// Makes images of several disks from objects. Each is a part of it, which is a job by itself.
        ImportOvaImage = "imsImportOvaImageJob",
        /// Makes an image of a data disk from an object.
        ImportDataImage = "imsImportDataImageJob",
        /// Gives an image that waits for its bytes those of an object.
        NativeImportImage = "imsNativeImportImageJob",
        /// Writes an image into a bucket.
        NativeExportImage = "imsNativeExportImageJob",
        /// Shares images with projects.
        AddImageMembers = "imsAddImageMembersJob",
        /// Ends the sharing of images with projects.
        DeleteImageMembers = "imsDelImageMembersJob",
        /// Answers to images being shared with a project.
        UpdateImageMembers = "imsUpdateImageMembersJob",
        /// Moves an image's bytes to another store. An extension: operators alone ask for it.
        MoveBlob = "calotypeMoveBlobJob",
    }
}

/// Jobs that are limited together: of a family, a project has only so many unfinished ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobFamily {
    /// Replications.
    Replication,
    /// Changes of members.
    Membership,
    /// Imports from objects.
    Import,
    /// Exports to objects.
    Export,
    /// Moves between stores, which nothing limits.
    Move,
}

impl JobType {
    /// The family that it belongs to.
    pub const fn family(self) -> JobFamily {
        match self {
            Self::CopyImageInRegion => JobFamily::Replication,
            Self::ImportImage
            | Self::ImportOvaImage
            | Self::ImportDataImage
            | Self::NativeImportImage => JobFamily::Import,
            Self::NativeExportImage => JobFamily::Export,
            Self::AddImageMembers | Self::DeleteImageMembers | Self::UpdateImageMembers => {
                JobFamily::Membership
            }
            Self::MoveBlob => JobFamily::Move,
        }
    }

    /// Whether the job's image exists only for the job: where the job fails, the image's row goes with it.
    pub const fn makes_its_image(self) -> bool {
        match self {
            Self::CopyImageInRegion | Self::ImportImage | Self::ImportDataImage => true,
            Self::ImportOvaImage
            | Self::NativeImportImage
            | Self::NativeExportImage
            | Self::AddImageMembers
            | Self::DeleteImageMembers
            | Self::UpdateImageMembers
            | Self::MoveBlob => false,
        }
    }

    /// What the caller had to be permitted to ask for such a job, and so who may cancel it.
    pub const fn action(self) -> Action {
        match self {
            Self::CopyImageInRegion => Action::ImagesCopy,
            Self::ImportImage | Self::ImportOvaImage => Action::ServerImagesCreate,
            Self::ImportDataImage => Action::DataImagesCreate,
            Self::NativeImportImage => Action::ImagesUpload,
            Self::NativeExportImage => Action::ImagesExport,
            Self::AddImageMembers | Self::DeleteImageMembers | Self::UpdateImageMembers => {
                Action::ImagesShare
            }
            Self::MoveBlob => Action::ServiceAdminister,
        }
    }
}

/// How far a job is. All zero for work that moves no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes done.
    pub done: ByteSize,
    /// Bytes in all.
    pub total: ByteSize,
    /// Of those that are done, how many a crash leaves done.
    pub noted: ByteSize,
    /// Of those that are done, how many the attempt found done when it began.
    pub resumed: ByteSize,
}

impl Progress {
    /// The part that is done, between 0 and 1; 0 where nothing is known.
    pub fn fraction(self) -> f64 {
        if self.total == ByteSize::ZERO {
            return 0.0;
        }
        (self.done.bytes() as f64 / self.total.bytes() as f64).min(1.0)
    }
}

/// Why a job failed: what the API shows as `error_code` and `fail_reason`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFailure {
    /// The IMS code.
    pub code: ImsCode,
    /// A reason that a user can act on; no internals.
    pub reason: String,
}

/// A job's record.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The project that asked for it.
    pub project: ProjectId,
    /// The user that asked for it.
    pub user: UserId,
    /// What it does.
    pub job_type: JobType,
    /// Its state.
    pub status: JobStatus,
    /// The image that it reads, if any.
    pub source: Option<ImageId>,
    /// The image that it makes or fills, if any.
    pub image: Option<ImageId>,
    /// The name of that image, if it has one.
    pub image_name: Option<String>,
    /// How far it is.
    pub progress: Progress,
    /// How many executions were begun. The number is the fencing token of the latest.
    pub attempt: i64,
    /// Why it failed, if it did.
    pub failure: Option<JobFailure>,
    /// What became of each of its pairs of image and project so far, where it is about members.
    pub results: Vec<MemberResult>,
    /// The job that it is a part of, if it is one: it is shown with that, and counts with it.
    pub parent: Option<JobId>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When the first attempt began.
    pub started_at: Option<Timestamp>,
    /// When the latest attempt began; none while the job waits for one.
    pub attempt_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

impl Job {
    /// A job that was accepted at this time, about nothing yet.
    pub fn accepted(
        id: JobId,
        project: ProjectId,
        user: UserId,
        job_type: JobType,
        at: Timestamp,
    ) -> Self {
        Self {
            id,
            project,
            user,
            job_type,
            status: JobStatus::Init,
            source: None,
            image: None,
            image_name: None,
            progress: Progress::default(),
            attempt: 0,
            failure: None,
            results: Vec::new(),
            parent: None,
            created_at: at,
            started_at: None,
            attempt_at: None,
            ended_at: None,
        }
    }
}

/// What became of an image and a project in a job about members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberResult {
    /// The image.
    pub image: ImageId,
    /// The project.
    pub project: ProjectId,
    /// Why it was refused; none: it was done.
    pub refused: Option<ImsCode>,
}

/// What a job has to do. The catalog keeps it as JSON until the job ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Work {
    /// Makes a replica of an image.
    Replicate(Replication),
    /// Changes the members of images.
    ChangeMembers(MembersChange),
    /// Gives an image the bytes of an object.
    Import(Import),
    /// What its parts do: no worker has it, and it ends with the last of them.
    Parts,
    /// Makes an object of an image.
    Export(Export),
    /// Moves a blob to another store.
    Move(BlobMove),
}

impl Work {
    /// The blob that the work reads: the job holds it until it ends.
    pub const fn source_blob(&self) -> Option<BlobId> {
        match self {
            Self::Replicate(replication) => Some(replication.source),
            Self::Export(export) => Some(export.source),
            Self::Move(order) => Some(order.blob),
            Self::ChangeMembers(_) | Self::Import(_) | Self::Parts => None,
        }
    }

    /// The blob that the work makes, which is being written until the job ends.
    pub const fn target_blob(&self) -> Option<BlobId> {
        match self {
            Self::Replicate(Replication {
                bytes: ReplicaBytes::Reseal(plan),
                ..
            }) => Some(plan.target),
            Self::Replicate(_)
            | Self::ChangeMembers(_)
            | Self::Export(_)
            | Self::Move(_)
            | Self::Parts => None,
            Self::Import(import) => Some(import.target),
        }
    }
}

/// What an image is imported from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// The object.
    pub object: ObjectAddress,
    /// The object as it was when the import was accepted: no other is taken for it.
    pub facts: ObjectFacts,
    /// Where in the object the image's bytes are; none: they are the object's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Range<u64>>,
    /// The blob to make.
    pub target: BlobId,
    /// The wrap of its data key.
    pub target_key: WrappedKey,
    /// The customer's key that it is sealed under, if it is one.
    pub target_cmk: Option<KeyId>,
    /// Which formats the image got from the object, of the disk and of what wraps it: it has them no more where the import
    /// fails.
    pub filled: [bool; 2],
}

impl Import {
    /// Where in the object the image's bytes are.
    pub fn bytes(&self) -> Range<u64> {
        self.part.clone().unwrap_or(0..self.facts.size.bytes())
    }

    /// How many bytes the image will have.
    pub fn size(&self) -> ByteSize {
        let bytes = self.bytes();
        ByteSize::new(bytes.end.saturating_sub(bytes.start))
    }
}

/// What is exported, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// The image's blob.
    pub source: BlobId,
    /// The wrap of its data key; none: the one in its manifest.
    pub source_key: Option<WrappedKey>,
    /// The customer's key that it is sealed under, if it is one.
    pub source_cmk: Option<KeyId>,
    /// The format that it is in.
    pub stored: DiskFormat,
    /// The format that the object is to be in.
    pub wanted: DiskFormat,
    /// The object, which is not there yet.
    pub object: ObjectAddress,
}

/// A blob that is moved, and between which places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobMove {
    /// The blob. Its id stays.
    pub blob: BlobId,
    /// Where it is.
    pub from: Place,
    /// Where it is to be.
    pub to: Place,
}

/// What a replication is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replication {
    /// The source's blob.
    pub source: BlobId,
    /// How the replica gets its bytes.
    pub bytes: ReplicaBytes,
}

/// Which members are changed, and how: of every image, every project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MembersChange {
    /// The images, each once, in the order in which they are taken.
    pub images: Vec<ImageId>,
    /// The projects, each once.
    pub projects: Vec<ProjectId>,
    /// What becomes of them.
    pub verb: MembersVerb,
    /// Whether who asked for it may change every project's images.
    pub as_administrator: bool,
    /// The request that asked for it, for the audit trail.
    pub request_id: String,
}

/// What becomes of a project and an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MembersVerb {
    /// The image is shared with the project, which has yet to answer.
    Add,
    /// The sharing ends.
    Remove,
    /// The project accepts the image.
    Accept {
        /// Whether a vault was named for the backups of a full-ECS image.
        with_vault: bool,
    },
    /// The project rejects the image.
    Reject,
}

/// How a replica gets its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case", deny_unknown_fields)]
pub enum ReplicaBytes {
    /// It refers to the source's blob.
    Share {
        /// Its own wrap of the blob's data key; none: the one in the blob's manifest.
        wrapped: Option<WrappedKey>,
    },
    /// It gets a blob of its own, of the same plaintext.
    Reseal(ResealPlan),
}

/// What a replica that is resealed is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResealPlan {
    /// The wrap of the source's data key; none: the one in its manifest.
    pub source_key: Option<WrappedKey>,
    /// The customer's key that the source is sealed under, if it is one.
    pub source_cmk: Option<KeyId>,
    /// The blob to make.
    pub target: BlobId,
    /// The wrap of its data key.
    pub target_key: WrappedKey,
    /// The customer's key that the replica is sealed under, if it is one.
    pub target_cmk: Option<KeyId>,
}

/// A worker's claim on a job: valid until its lease ends or another attempt begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The job as it was when it was picked.
    pub job: Job,
    /// The fencing token: every later write of this worker names it.
    pub attempt: i64,
    /// What there is to do.
    pub work: Work,
    /// How many attempts died, one after the other, without any progress between.
    pub deaths: u32,
    /// Whether it was cancelled while an earlier attempt had it: undo, and end it.
    pub cancelled: bool,
}

/// What became of a write by which a worker lets go of its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// It was made.
    Done,
    /// The job was cancelled, so nothing was written, and the worker still has it: undo, and end it.
    Cancelled,
    /// Another attempt has the job: nothing was written.
    Lost,
}

/// What a heartbeat learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heartbeat {
    /// Go on.
    Continue,
    /// The job was cancelled: undo, and end it.
    Cancelled,
    /// Another attempt has the job: stop at once and write nothing.
    Lost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_read_again_as_it_was_written_and_nothing_else_is_taken_for_it() {
        let blob = "11111111-2222-3333-4444-555555555555";
        let text = format!(
            r#"{{"do":"replicate","source":"{blob}","bytes":{{"mode":"share","wrapped":null}}}}"#
        );
        let work: Work = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&work).unwrap(), text);
        assert_eq!(work.source_blob(), Some(blob.parse().unwrap()));
        assert_eq!(work.target_blob(), None);
        for bad in [
            text.replace("replicate", "dance"),
            text.replace("\"bytes\"", "\"then\":1,\"bytes\""),
            text.replace("null", "null,\"then\":1"),
        ] {
            assert!(serde_json::from_str::<Work>(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_import_is_of_an_object_or_of_a_part_of_one() {
        let whole = Import {
            object: ObjectAddress::parse("images:server.ova").unwrap(),
            facts: ObjectFacts {
                size: ByteSize::new(100),
                version: "v".to_owned(),
            },
            part: None,
            target: "11111111-2222-3333-4444-555555555555".parse().unwrap(),
            target_key: WrappedKey {
                master_key: "service".to_owned(),
                version: 1,
                sealed: vec![1],
            },
            target_cmk: None,
            filled: [false; 2],
        };
        assert_eq!((whole.bytes(), whole.size()), (0..100, ByteSize::new(100)));
        // As an earlier version wrote it.
        let text = serde_json::to_string(&whole).unwrap();
        assert!(!text.contains("part"), "{text}");
        let part = Import {
            part: Some(20..50),
            ..whole.clone()
        };
        assert_eq!((part.bytes(), part.size()), (20..50, ByteSize::new(30)));
        for import in [whole, part] {
            let text = serde_json::to_string(&import).unwrap();
            assert_eq!(serde_json::from_str::<Import>(&text).unwrap(), import);
        }
    }
}
