//! The store of blobs, as the configuration says.

use std::path::Path;
use std::sync::Arc;

use calotype_blob::store::{BlobStore, Cache, FileStore, S3Store};
use calotype_core::ports::Entropy;
use calotype_s3::{AccessKey, Bucket, Client, Connection, Limits, S3Options};

use super::keys::secret;
use super::parts::failed;
use crate::config::stores::{Store, StoreType};
use crate::exit::Failure;

/// The store. Nothing is asked of one elsewhere yet.
///
/// # Errors
/// Where the directory can't be made, the secret's file can't be read, or the section can't work.
pub(super) fn open_store(
    section: &Store,
    data_dir: &Path,
    entropy: &Arc<dyn Entropy>,
) -> Result<Arc<dyn BlobStore>, Failure> {
    let broken = failed("the store");
    if section.kind == StoreType::File {
        let path = section.path.clone();
        let path = path.unwrap_or_else(|| data_dir.join("blobs"));
        let store = FileStore::open(&path, Arc::clone(entropy)).map_err(broken)?;
        return Ok(Arc::new(store));
    }
    let bucket = open_bucket(section, entropy)?;
    let cache = section.cache.path.as_deref().map(|path| {
        Cache::open(path, section.cache.size.0).map_err(|error| {
            Failure::new(format!("the store's cache in {}: {error}", path.display()))
        })
    });
    let cache = cache.transpose()?;
    Ok(Arc::new(S3Store::new(
        bucket,
        &section.prefix,
        cache,
        Arc::clone(entropy),
    )))
}

/// The bucket of a store that speaks S3. Nothing is asked of it yet.
///
/// # Errors
/// Where the secret's file can't be read, or the section can't work.
pub(super) fn open_bucket(section: &Store, entropy: &Arc<dyn Entropy>) -> Result<Bucket, Failure> {
    let broken = failed("the store");
    let connection = &section.connection;
    let time_limit = connection.time_limit.duration();
    let client = Client::new(S3Options {
        endpoint: section.endpoint.clone().unwrap_or_default(),
        region: section.region.clone(),
        access_key: AccessKey {
            id: section.access_key.clone().unwrap_or_default(),
            secret: secret("store.main.secret_file", section.secret_file.as_deref())?,
        },
        path_style: section.path_style,
        allow_http: section.allow_http,
        connection: Connection {
            ca_file: connection.ca_file.clone(),
            proxy: connection.proxy.clone(),
            connect_timeout: connection.connect_timeout.duration(),
            idle_timeout: connection.idle_timeout.duration(),
            time_limit,
        },
    });
    let client = client.map_err(&broken)?;
    let limits = Limits {
        connections: usize::try_from(connection.requests).unwrap_or(usize::MAX),
        attempt_timeout: connection.attempt_timeout.duration(),
        time_limit,
    };
    let name = section.bucket.as_deref().unwrap_or_default();
    Bucket::new(&client, name, limits, Arc::clone(entropy)).map_err(&broken)
}
