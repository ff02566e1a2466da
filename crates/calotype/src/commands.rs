//! What the commands do: one function per command, on a [`Session`] and an [`Output`].
//!
//! [`Output`]: crate::output::Output

pub(crate) mod admin;
pub(crate) mod config;
pub(crate) mod image;
mod image_imports;
mod image_members;
mod image_sources;
mod image_tags;
pub(crate) mod job;
pub(crate) mod keys;
mod quota;
pub(crate) mod stores;

use std::path::Path;

use crate::cli::Connection;
use crate::client::{RetryPolicy, Session};
use crate::clouds::{self, Choice};
use crate::config::Environment;
use crate::exit::Failure;

/// Logs in as the flags, the environment and the files say.
async fn session(connection: &Connection, environment: &Environment) -> Result<Session, Failure> {
    let choice = Choice {
        cloud: connection.os_cloud.as_deref(),
    };
    let cloud = clouds::find(&choice, environment, Path::new("."))?;
    Session::open(cloud, RetryPolicy::default()).await
}
