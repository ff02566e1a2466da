//! The buckets, as the configuration says.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use calotype_core::object::BucketAccess;
use calotype_core::ports::{Clock, Entropy, Objects};
use calotype_objects::{AccessKey, Connection, Directory, S3, S3Options};

use super::keys::secret;
use super::parts::failed;
use crate::config::objects as config;
use crate::config::sections::Permission;
use crate::exit::Failure;

/// The buckets. Nothing is asked of a store elsewhere yet.
///
/// # Errors
/// Where the directory can't be made, the secret's file can't be read, or the section can't work.
pub(super) fn objects(
    section: &config::Objects,
    data_dir: &Path,
    (clock, entropy): (&Arc<dyn Clock>, &Arc<dyn Entropy>),
) -> Result<Arc<dyn Objects>, Failure> {
    match section.kind {
        config::ObjectsType::Directory => {
            let path = section.path.clone();
            let path = path.unwrap_or_else(|| data_dir.join("buckets"));
            let directory = Directory::open(&path, Arc::clone(entropy)).map_err(|error| {
                Failure::new(format!("the buckets in {}: {error}", path.display()))
            })?;
            Ok(Arc::new(directory))
        }
        config::ObjectsType::S3 => {
            let connection = &section.connection;
            let options = S3Options {
                endpoint: section.endpoint.clone().unwrap_or_default(),
                region: section.region.clone(),
                access_key: AccessKey {
                    id: section.access_key.clone().unwrap_or_default(),
                    secret: secret("objects.secret_file", section.secret_file.as_deref())?,
                },
                path_style: section.path_style,
                allow_http: section.allow_http,
                connection: Connection {
                    ca_file: connection.ca_file.clone(),
                    proxy: connection.proxy.clone(),
                    connect_timeout: connection.connect_timeout.duration(),
                    idle_timeout: connection.idle_timeout.duration(),
                    time_limit: connection.time_limit.duration(),
                },
            };
            let store = S3::new(options, Arc::clone(clock)).map_err(failed("objects"))?;
            Ok(Arc::new(store))
        }
    }
}

/// Which projects may use which buckets. The ids were checked when the configuration was read.
pub(super) fn bucket_access(section: &config::Objects) -> BucketAccess {
    let projects = section.buckets.iter().map(|(bucket, projects)| {
        let ids: BTreeSet<_> = projects.iter().filter_map(|id| id.parse().ok()).collect();
        (bucket.clone(), ids)
    });
    BucketAccess {
        projects: projects.collect(),
        others: match section.unlisted_buckets {
            Some(permission) => permission == Permission::Allow,
            // Directories are put there for the service; a store has the buckets of others too.
            None => section.kind == config::ObjectsType::Directory,
        },
    }
}
