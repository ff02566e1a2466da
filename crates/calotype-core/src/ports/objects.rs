//! The port to buckets of objects, which are not the service's: others write them while it reads.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ByteStream;
use crate::codes::ImsCode;
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::object::ObjectAddress;
use crate::size::ByteSize;

/// An object as it was at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectFacts {
    /// Its bytes.
    pub size: ByteSize,
    /// Tells it from what was there before and is there later: the store's own word.
    pub version: String,
}

/// Buckets of objects.
///
/// # Consistency
/// What is read is of the one version that was asked for, or the read fails. An object that is written is there once
/// [`ObjectWriter::finish`] has returned, and not before.
///
/// # Crash consistency
/// A crash leaves nothing of a write that anybody sees as an object.
///
/// # Errors
/// IMG.0069 where the bucket is not there or can't be accessed; IMG.0057 where the object is not there, can't be accessed
/// or is nothing that can be read; IMG.0058 where the bucket is in another region; Unavailable.
#[async_trait::async_trait]
pub trait Objects: Send + Sync {
    /// What is known of an object.
    async fn look(&self, at: &ObjectAddress) -> Result<ObjectFacts>;

    /// The bytes of `range`, which must lie within the size, of the object as `facts` tell it. The stream ends with an
    /// error (IMG.0057) where the object is not that one any more; what was given out before that is not to be used.
    fn read(&self, at: &ObjectAddress, facts: &ObjectFacts, range: Range<u64>) -> ByteStream;

    /// Begins an object that is not there, of about `expected` bytes. It will tell which job made it, if one did.
    ///
    /// # Errors
    /// IMG.0070 where it is there.
    async fn create(
        &self,
        at: &ObjectAddress,
        expected: ByteSize,
        job: Option<&JobId>,
    ) -> Result<Box<dyn ObjectWriter>>;

    /// Makes an object that is not there of all that is in a file, durably. The file may become the object: nobody writes to
    /// it any more. It will tell which job made it, if one did.
    ///
    /// # Errors
    /// IMG.0070 where it is there; StorageFull; Unavailable.
    async fn put(
        &self,
        at: &ObjectAddress,
        file: Arc<File>,
        job: Option<&JobId>,
    ) -> Result<ObjectFacts>;

    /// The object, if it is there and tells that this job made it. A directory on a file system without extended attributes
    /// remembers no jobs.
    ///
    /// # Errors
    /// IMG.0057 where there is no object.
    async fn made_by(&self, at: &ObjectAddress, job: &JobId) -> Result<Option<ObjectFacts>>;

    /// Removes an object, if it is still as `facts` tell it.
    ///
    /// # Errors
    /// IMG.0057 where it is another one, or is gone; Unavailable.
    async fn remove(&self, at: &ObjectAddress, facts: &ObjectFacts) -> Result<()>;
}

/// An object that is being written. Dropping it ends the write, and leaves nothing.
#[async_trait::async_trait]
pub trait ObjectWriter: Send {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// StorageFull; Unavailable. There is no going on after an error.
    async fn append(&mut self, bytes: Bytes) -> Result<()>;

    /// Makes the object, durably.
    ///
    /// # Errors
    /// IMG.0070 where another one took its place; StorageFull; Unavailable.
    async fn finish(self: Box<Self>) -> Result<ObjectFacts>;
}

/// A store without any bucket.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBuckets;

#[async_trait::async_trait]
impl Objects for NoBuckets {
    async fn look(&self, _: &ObjectAddress) -> Result<ObjectFacts> {
        Err(Error::ims(ImsCode::IMG_0069))
    }

    fn read(&self, _: &ObjectAddress, _: &ObjectFacts, _: Range<u64>) -> ByteStream {
        let refused = Err(Error::ims(ImsCode::IMG_0069));
        Box::pin(futures_util::stream::once(std::future::ready(refused)))
    }

    async fn create(
        &self,
        _: &ObjectAddress,
        _: ByteSize,
        _: Option<&JobId>,
    ) -> Result<Box<dyn ObjectWriter>> {
        Err(Error::ims(ImsCode::IMG_0069))
    }

    async fn put(&self, _: &ObjectAddress, _: Arc<File>, _: Option<&JobId>) -> Result<ObjectFacts> {
        Err(Error::ims(ImsCode::IMG_0069))
    }

    async fn made_by(&self, _: &ObjectAddress, _: &JobId) -> Result<Option<ObjectFacts>> {
        Err(Error::ims(ImsCode::IMG_0069))
    }

    async fn remove(&self, _: &ObjectAddress, _: &ObjectFacts) -> Result<()> {
        Err(Error::ims(ImsCode::IMG_0069))
    }
}
