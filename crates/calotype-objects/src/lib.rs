//! Buckets of objects, behind [`Objects`](calotype_core::ports::Objects): what images are imported from and
//! exported to.
//!
//! [`Directory`] keeps a bucket as a directory; [`S3`] speaks to a store elsewhere. [`conformance`] says what both have in
//! common.

pub mod conformance;
mod copy;
mod directory;
mod s3;

use calotype_core::Error;
use calotype_core::codes::ImsCode;

pub use calotype_s3::{AccessKey, Connection, S3Options};
pub use directory::Directory;
pub use s3::S3;

/// The bucket is not there, or is closed to the service.
fn no_bucket() -> Error {
    Error::ims(ImsCode::IMG_0069)
}

/// The object is not there, or is nothing that can be read.
fn no_object() -> Error {
    Error::ims(ImsCode::IMG_0057)
}

/// The object is another one than it was.
fn changed() -> Error {
    Error::invalid("The image file changed while it was read.").with_code(ImsCode::IMG_0057)
}

/// The object is there already.
fn taken() -> Error {
    Error::ims(ImsCode::IMG_0070)
}
