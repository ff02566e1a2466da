//! `[store]`: where blobs are kept.

use std::path::PathBuf;

use calotype_core::object::is_bucket;
use calotype_core::size::ByteSize;
use serde::{Deserialize, Serialize};

use super::values::{Bytes, Span};

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Stores {
    /// The store of all blobs.
    pub(crate) main: Store,
}

/// `[store.main]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Store {
    /// The kind of store.
    #[serde(rename = "type")]
    pub(crate) kind: StoreType,
    /// The directory of blobs. None: `blobs` in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<PathBuf>,
    /// The URL of the S3 store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    /// The region that requests to it are signed for.
    pub(crate) region: String,
    /// The bucket of the blobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bucket: Option<String>,
    /// What the keys of the blobs' objects begin with.
    pub(crate) prefix: String,
    /// Whether the bucket is in the path or in the host's name.
    pub(crate) path_style: bool,
    /// Whether it may be plain HTTP.
    pub(crate) allow_http: bool,
    /// The access key's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) access_key: Option<String>,
    /// The file that holds its secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret_file: Option<PathBuf>,
    /// How the store is reached.
    pub(crate) connection: StoreConnection,
    /// What is kept of it on this machine.
    pub(crate) cache: StoreCache,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            kind: StoreType::File,
            path: None,
            endpoint: None,
            region: "us-east-1".to_owned(),
            bucket: None,
            prefix: "calotype".to_owned(),
            path_style: true,
            allow_http: false,
            access_key: None,
            secret_file: None,
            connection: StoreConnection::default(),
            cache: StoreCache::default(),
        }
    }
}

/// The kinds of stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StoreType {
    /// A directory.
    #[default]
    File,
    /// A bucket of a store that speaks S3.
    S3,
}

/// `[store.main.connection]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StoreConnection {
    /// A file of certificates to trust beside the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// A proxy's URL. None: directly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proxy: Option<String>,
    /// The most requests at once.
    pub(crate) requests: u32,
    /// How long a connection may take.
    pub(crate) connect_timeout: Span,
    /// How long an answer may stand still.
    pub(crate) idle_timeout: Span,
    /// How long one try of a request may take.
    pub(crate) attempt_timeout: Span,
    /// For how long a request is tried again.
    pub(crate) time_limit: Span,
}

impl Default for StoreConnection {
    fn default() -> Self {
        Self {
            ca_file: None,
            proxy: None,
            requests: 64,
            connect_timeout: Span::seconds(2),
            idle_timeout: Span::seconds(10),
            attempt_timeout: Span::seconds(30),
            time_limit: Span::seconds(60),
        }
    }
}

/// `[store.main.cache]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StoreCache {
    /// The directory of the cache. None: there is no cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<PathBuf>,
    /// The most bytes in it.
    pub(crate) size: Bytes,
}

impl Default for StoreCache {
    fn default() -> Self {
        Self {
            path: None,
            size: Bytes(ByteSize::mib(10 << 10)),
        }
    }
}

impl Stores {
    /// Bounds of single fields.
    pub(super) fn check(&self) -> Result<(), String> {
        let (store, connection) = (&self.main, &self.main.connection);
        for (field, span) in [
            ("connect_timeout", connection.connect_timeout),
            ("idle_timeout", connection.idle_timeout),
            ("attempt_timeout", connection.attempt_timeout),
        ] {
            if span == Span::seconds(0) {
                return Err(format!(
                    "store.main.connection.{field} must be more than nothing"
                ));
            }
        }
        if connection.requests == 0 {
            return Err("store.main.connection.requests must be more than nothing".to_owned());
        }
        if let Some(bucket) = store.bucket.as_deref().filter(|bucket| !is_bucket(bucket)) {
            return Err(format!("store.main.bucket: {bucket:?} is no bucket's name"));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        let walks = |part: &str| part.is_empty() || part == "." || part == "..";
        let prefix = store.prefix.as_str();
        if !prefix.bytes().all(plain) || (!prefix.is_empty() && prefix.split('/').any(walks)) {
            return Err(format!(
                "store.main.prefix {prefix:?} must be words of letters, digits, '-', '_' and '.', with '/' between them"
            ));
        }
        Ok(())
    }

    /// What has to be there together, once every source has been read.
    pub(super) fn check_whole(&self) -> Result<(), String> {
        let store = &self.main;
        if store.kind == StoreType::File {
            return Ok(());
        }
        let fields = [
            ("endpoint", store.endpoint.is_some()),
            ("bucket", store.bucket.is_some()),
            ("access_key", store.access_key.is_some()),
            ("secret_file", store.secret_file.is_some()),
        ];
        match fields.iter().find(|(_, there)| !there) {
            Some((field, _)) => Err(format!("store.main.{field} is not set")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, Environment};

    fn load(text: &str) -> Result<Config, String> {
        Config::from_text(text, Path::new("calotype.toml"), &Environment::default())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_store_elsewhere_is_whole_and_within_its_bounds() {
        let whole = "[store.main]\ntype = \"s3\"\nendpoint = \"https://s3\"\nbucket = \"blobs\"\naccess_key = \"AK\"\nsecret_file = \"/s\"\n";
        let deep = format!("{whole}prefix = \"deep/er\"\n[store.main.cache]\npath = \"/c\"\n");
        let bare = format!("{whole}prefix = \"\"\n");
        for text in ["[store.main]\npath = \"/b\"\n", whole, &deep, &bare] {
            assert!(load(text).is_ok(), "{text}");
        }
        for (text, named) in [
            ("[store.main]\ntype = \"s3\"\n", "store.main.endpoint"),
            (
                "[store.main]\ntype = \"s3\"\nendpoint = \"https://s3\"\n",
                "store.main.bucket",
            ),
            ("[store.main]\nsecret = \"geheim\"\n", "secret"),
            ("[store.main]\ntype = \"swift\"\n", "swift"),
            ("[store.main]\nbucket = \"BLOBS\"\n", "BLOBS"),
            ("[store.main]\nprefix = \"a/../b\"\n", "prefix"),
            ("[store.main]\nprefix = \"/a\"\n", "prefix"),
            ("[store.main]\nprefix = \"a b\"\n", "prefix"),
            (
                "[store.main.connection]\nattempt_timeout = \"0s\"\n",
                "attempt_timeout",
            ),
            ("[store.main.connection]\nrequests = 0\n", "requests"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
