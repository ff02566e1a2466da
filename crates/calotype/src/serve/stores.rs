//! The stores of blobs, as the configuration says.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use calotype_blob::store::{BlobStore, Cache, FileStore, S3Store};
use calotype_core::Error;
use calotype_core::app::{StoreEntry, StoreList};
use calotype_core::id::StoreName;
use calotype_core::ports::{Clock, Entropy};
use calotype_s3::{AccessKey, Bucket, Client, Connection, Limits, S3Options};

use super::keys::secret;
use crate::config::Config;
use crate::config::stores::{Store, StoreType};
use crate::exit::Failure;

/// The stores of a configuration, by name. Nothing is asked of those elsewhere yet.
///
/// # Errors
/// Where a directory can't be made, a secret's file can't be read, or a section can't work.
pub(super) fn open_stores(
    config: &Config,
    data_dir: &Path,
    (clock, entropy): (&Arc<dyn Clock>, &Arc<dyn Entropy>),
) -> Result<BTreeMap<StoreName, Arc<dyn BlobStore>>, Failure> {
    let open = |(name, section): (&StoreName, &Store)| {
        let store = open_store(name, section, data_dir, (clock, entropy))?;
        Ok((name.clone(), store))
    };
    config.store.iter().map(open).collect()
}

/// What the API tells of the stores.
pub(super) fn store_list(config: &Config) -> StoreList {
    let entry = |(name, section): (&StoreName, &Store)| StoreEntry {
        name: name.clone(),
        description: section.description.clone(),
        kind: match section.kind {
            StoreType::File => "file",
            StoreType::S3 => "s3",
        },
    };
    StoreList {
        stores: config.store.iter().map(entry).collect(),
        default: config.store.default_of(&config.stores),
    }
}

fn open_store(
    name: &StoreName,
    section: &Store,
    data_dir: &Path,
    (clock, entropy): (&Arc<dyn Clock>, &Arc<dyn Entropy>),
) -> Result<Arc<dyn BlobStore>, Failure> {
    if section.kind == StoreType::File {
        let path = section.directory(name, data_dir);
        if section.path.is_none() && *name != StoreName::main() {
            make_folder_of_stores(data_dir)
                .map_err(|error| Failure::new(format!("the store {name}: {error}")))?;
        }
        let store = FileStore::open(&path, Arc::clone(entropy));
        let store = store.map_err(|error| broken(name, &error))?;
        return Ok(Arc::new(store));
    }
    let bucket = open_bucket(name, section, (clock, entropy))?;
    let cache = section.cache.path.as_deref().map(|path| {
        Cache::open(path, section.cache.size.0).map_err(|error| {
            let path = path.display();
            Failure::new(format!("the cache of the store {name} in {path}: {error}"))
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

/// The directory that stores without a path are in. Its name is durable before anything is below it.
fn make_folder_of_stores(data_dir: &Path) -> io::Result<()> {
    let made = DirBuilder::new()
        .mode(0o700)
        .create(data_dir.join("stores"));
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(data_dir)?.sync_all()
}

/// A failure of a store of this name.
pub(super) fn broken(name: &StoreName, error: &Error) -> Failure {
    let chain = error.chain();
    Failure::new(format!("the store {name}: {}", chain.trim_end_matches('.')))
}

/// The bucket of a store that speaks S3. Nothing is asked of it yet.
///
/// # Errors
/// Where the secret's file can't be read, or the section can't work.
pub(super) fn open_bucket(
    name: &StoreName,
    section: &Store,
    (clock, entropy): (&Arc<dyn Clock>, &Arc<dyn Entropy>),
) -> Result<Bucket, Failure> {
    let connection = &section.connection;
    let time_limit = connection.time_limit.duration();
    let options = S3Options {
        endpoint: section.endpoint.clone().unwrap_or_default(),
        region: section.region.clone(),
        access_key: AccessKey {
            id: section.access_key.clone().unwrap_or_default(),
            secret: secret(
                &format!("store.{name}.secret_file"),
                section.secret_file.as_deref(),
            )?,
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
    };
    let client = Client::new(options, Arc::clone(clock)).map_err(|error| broken(name, &error))?;
    let limits = Limits {
        connections: usize::try_from(connection.requests).unwrap_or(usize::MAX),
        attempt_timeout: connection.attempt_timeout.duration(),
        time_limit,
    };
    let bucket = section.bucket.as_deref().unwrap_or_default();
    let bucket = Bucket::new(&client, name.as_str(), bucket, limits, Arc::clone(entropy));
    bucket.map_err(|error| broken(name, &error))
}
