//! Jobs: asynchronous units of work that the API shows.

use serde::{Deserialize, Serialize};

use crate::codes::ImsCode;
use crate::id::{BlobId, ImageId, JobId, KeyId, ProjectId, UserId};
use crate::image::UnknownWord;
use crate::image::word_enum;
use crate::ports::WrappedKey;
use crate::size::ByteSize;
use crate::time::Timestamp;
use std::fmt;
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
    /// The image that it makes, if any.
    pub image: Option<ImageId>,
    /// The name of the image that it makes, if any.
    pub image_name: Option<String>,
    /// How far it is.
    pub progress: Progress,
    /// How many executions were begun. The number is the fencing token of the latest.
    pub attempt: i64,
    /// Why it failed, if it did.
    pub failure: Option<JobFailure>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When the first attempt began.
    pub started_at: Option<Timestamp>,
    /// When the latest attempt began; none while the job waits for one.
    pub attempt_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
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
    /// The source's blob, which the job holds until it ends.
    pub blob: BlobId,
    /// How the replica gets its bytes.
    pub bytes: ReplicaBytes,
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
