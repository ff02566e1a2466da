//! The port to a tool that converts disks from one format to another.

use std::fs::File;
use std::sync::Arc;

use super::ResealProgress;
use crate::codes::ImsCode;
use crate::disk::DiskFormat;
use crate::error::{Error, Result};
use crate::inspect::Verified;

/// What is to be made of a disk.
#[derive(Debug, Clone)]
pub struct Conversion {
    /// The format.
    pub format: DiskFormat,
    /// What the file will be called, for formats that say so in it.
    pub name: String,
    /// How far it is, in bytes of what is converted.
    pub progress: Arc<ResealProgress>,
}

/// Converts disks.
///
/// # Crash consistency
/// A crash leaves nothing, neither on a disk nor running.
///
/// # Cancellation
/// Dropping the future ends the tool.
#[async_trait::async_trait]
pub trait Converter: Send + Sync {
    /// Makes the disk in another format. The file has no name: it is gone with its last handle.
    ///
    /// # Errors
    /// IMG.0071 where it can't be done, and does not become possible by trying again; StorageFull; Unavailable; what reading the
    /// disk says.
    async fn convert(&self, source: Verified, wanted: Conversion) -> Result<Arc<File>>;
}

/// No tool.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoConverter;

#[async_trait::async_trait]
impl Converter for NoConverter {
    async fn convert(&self, _: Verified, _: Conversion) -> Result<Arc<File>> {
        let error = Error::invalid("This service has nothing to convert images with.");
        Err(error.with_code(ImsCode::IMG_0071))
    }
}
