//! `[store]`: where blobs are kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use calotype_core::id::StoreName;
use calotype_core::object::is_bucket;
use calotype_core::size::ByteSize;
use serde::{Deserialize, Serialize};

use super::key_services::{all_there, some_time};
use super::values::{Bytes, Span};

/// `[stores]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StoreChoice {
    /// The store that new blobs go to. None: `main`, or the one that there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default: Option<StoreName>,
}

/// `[store]`: each store by its name. Where none is named, there is `main`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Stores(BTreeMap<StoreName, Store>);

impl Default for Stores {
    fn default() -> Self {
        Self(BTreeMap::from([(StoreName::main(), Store::default())]))
    }
}

/// `[store.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Store {
    /// The kind of store.
    #[serde(rename = "type")]
    pub(crate) kind: StoreType,
    /// What users are told of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// The directory of blobs. None: `blobs` in the data directory for `main`, and `stores/NAME` for others.
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
            description: None,
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

/// `[store.NAME.connection]`
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

/// `[store.NAME.cache]`
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

impl Store {
    /// The directory of a store of this name.
    pub(crate) fn directory(&self, name: &StoreName, data_dir: &Path) -> PathBuf {
        match &self.path {
            Some(path) => path.clone(),
            None if *name == StoreName::main() => data_dir.join("blobs"),
            None => data_dir.join("stores").join(name.as_str()),
        }
    }
}

impl Stores {
    /// The stores, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&StoreName, &Store)> {
        self.0.iter()
    }

    /// Whether there is `main` alone, as in versions that knew no other.
    pub(crate) fn is_main_alone(&self) -> bool {
        self.0.keys().eq([&StoreName::main()])
    }

    /// The store that new blobs go to. There is one: the configuration was checked.
    pub(crate) fn default_of(&self, choice: &StoreChoice) -> StoreName {
        let chosen = choice.default.clone();
        chosen.unwrap_or_else(|| match (self.0.len(), self.0.keys().next()) {
            (1, Some(name)) => name.clone(),
            _ => StoreName::main(),
        })
    }

    /// Bounds of single fields.
    pub(super) fn check(&self) -> Result<(), String> {
        for (name, store) in &self.0 {
            let checked = store.check();
            checked.map_err(|problem| format!("store.{name}.{problem}"))?;
        }
        Ok(())
    }

    /// What has to be there together, once every source has been read.
    pub(super) fn check_whole(&self, choice: &StoreChoice) -> Result<(), String> {
        for (name, store) in &self.0 {
            store.check_whole(&format!("store.{name}"))?;
        }
        let default = self.default_of(choice);
        match (self.0.contains_key(&default), &choice.default) {
            (true, _) => Ok(()),
            (false, Some(default)) => Err(format!("stores.default: there is no [store.{default}]")),
            (false, None) => {
                Err("stores.default is not set: it names the store that new blobs go to".to_owned())
            }
        }
    }
}

impl Store {
    fn check(&self) -> Result<(), String> {
        let connection = &self.connection;
        let spans = [
            ("connect_timeout", connection.connect_timeout),
            ("idle_timeout", connection.idle_timeout),
            ("attempt_timeout", connection.attempt_timeout),
        ];
        some_time("connection", &spans)?;
        if connection.requests == 0 {
            return Err("connection.requests must be more than nothing".to_owned());
        }
        if let Some(bucket) = self.bucket.as_deref().filter(|bucket| !is_bucket(bucket)) {
            return Err(format!("bucket: {bucket:?} is no bucket's name"));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        let walks = |part: &str| part.is_empty() || part == "." || part == "..";
        let prefix = self.prefix.as_str();
        if !prefix.bytes().all(plain) || (!prefix.is_empty() && prefix.split('/').any(walks)) {
            return Err(format!(
                "prefix {prefix:?} must be words of letters, digits, '-', '_' and '.', with '/' between them"
            ));
        }
        Ok(())
    }

    fn check_whole(&self, section: &str) -> Result<(), String> {
        if self.kind == StoreType::File {
            return Ok(());
        }
        let fields = [
            ("endpoint", self.endpoint.is_some()),
            ("bucket", self.bucket.is_some()),
            ("access_key", self.access_key.is_some()),
            ("secret_file", self.secret_file.is_some()),
        ];
        all_there(section, &fields)
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
    fn new_blobs_go_to_main_to_the_only_store_or_to_the_one_that_is_named() {
        for (text, default, main_alone) in [
            ("", "main", true),
            ("[store.cold]\n", "cold", false),
            ("[store.main]\n[store.cold]\n", "main", false),
            (
                "[store.cold]\n[store.warm]\n[stores]\ndefault = \"warm\"\n",
                "warm",
                false,
            ),
        ] {
            let config = load(text).unwrap();
            let chosen = config.store.default_of(&config.stores);
            assert_eq!(chosen.as_str(), default, "{text}");
            assert_eq!(config.store.is_main_alone(), main_alone, "{text}");
        }
        let config = load("[store.main]\n[store.cold]\n").unwrap();
        let paths: Vec<_> = config
            .store
            .iter()
            .map(|(name, store)| store.directory(name, Path::new("/d")))
            .collect();
        assert_eq!(paths, [Path::new("/d/stores/cold"), Path::new("/d/blobs")]);
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
            ("[store.Cold]\n", "store name"),
            ("[store.cold]\ntype = \"s3\"\n", "store.cold.endpoint"),
            ("[store.cold]\n[store.warm]\n", "stores.default is not set"),
            ("[stores]\ndefault = \"cold\"\n", "[store.cold]"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
