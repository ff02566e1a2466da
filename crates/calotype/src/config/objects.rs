//! `[objects]`: the buckets that images are imported from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use calotype_core::object::is_bucket;
use serde::{Deserialize, Serialize};

use super::key_services::{all_there, some_time};
use super::sections::Permission;
use super::values::Span;

/// `[objects]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Objects {
    /// Where the buckets are.
    #[serde(rename = "type")]
    pub(crate) kind: ObjectsType,
    /// The directory of the buckets. None: `buckets` in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<PathBuf>,
    /// The URL of the S3 store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    /// The region that requests to it are signed for.
    pub(crate) region: String,
    /// Whether buckets are in the path or in the host's name.
    pub(crate) path_style: bool,
    /// Whether it may be plain HTTP.
    pub(crate) allow_http: bool,
    /// The access key's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) access_key: Option<String>,
    /// The file that holds its secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Whether a bucket that is not listed is every project's. None: those below a directory are, those of a store are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unlisted_buckets: Option<Permission>,
    /// The ids of the projects that may use a bucket, by its name.
    pub(crate) buckets: BTreeMap<String, Vec<String>>,
    /// How the store is reached.
    pub(crate) connection: ObjectsConnection,
}

impl Default for Objects {
    fn default() -> Self {
        Self {
            kind: ObjectsType::Directory,
            path: None,
            endpoint: None,
            region: "us-east-1".to_owned(),
            path_style: true,
            allow_http: false,
            access_key: None,
            secret_file: None,
            unlisted_buckets: None,
            buckets: BTreeMap::new(),
            connection: ObjectsConnection::default(),
        }
    }
}

/// Where buckets can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ObjectsType {
    /// Below a directory.
    #[default]
    Directory,
    /// In a store that speaks S3.
    S3,
}

/// `[objects.connection]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ObjectsConnection {
    /// A file of certificates to trust beside the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// A proxy's URL. None: directly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proxy: Option<String>,
    /// How long a connection may take.
    pub(crate) connect_timeout: Span,
    /// How long an answer may stand still.
    pub(crate) idle_timeout: Span,
    /// For how long a request is tried again.
    pub(crate) time_limit: Span,
}

impl Default for ObjectsConnection {
    fn default() -> Self {
        Self {
            ca_file: None,
            proxy: None,
            connect_timeout: Span::seconds(2),
            idle_timeout: Span::seconds(10),
            time_limit: Span::seconds(15),
        }
    }
}

impl Objects {
    /// Bounds of single fields.
    pub(super) fn check(&self) -> Result<(), String> {
        let spans = [
            ("connect_timeout", self.connection.connect_timeout),
            ("idle_timeout", self.connection.idle_timeout),
        ];
        some_time("objects.connection", &spans)?;
        for (bucket, projects) in &self.buckets {
            if !is_bucket(bucket) {
                return Err(format!("objects.buckets: {bucket:?} is no bucket's name"));
            }
            let wrong = projects
                .iter()
                .find(|id| id.parse::<calotype_core::id::ProjectId>().is_err());
            if let Some(id) = wrong {
                return Err(format!(
                    "objects.buckets.{bucket}: {id:?} is no project's id"
                ));
            }
        }
        Ok(())
    }

    /// What has to be there together, once every source has been read.
    pub(super) fn check_whole(&self) -> Result<(), String> {
        if self.kind == ObjectsType::Directory {
            return Ok(());
        }
        let fields = [
            ("endpoint", self.endpoint.is_some()),
            ("access_key", self.access_key.is_some()),
            ("secret_file", self.secret_file.is_some()),
        ];
        all_there("objects", &fields)
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
        let whole = "[objects]\ntype = \"s3\"\nendpoint = \"https://s3\"\naccess_key = \"AK\"\nsecret_file = \"/s\"\n";
        let listed =
            format!("{whole}[objects.buckets]\nimages = [\"0123456789abcdef0123456789abcdef\"]\n");
        for text in ["[objects]\npath = \"/b\"\n", whole, &listed] {
            assert!(load(text).is_ok(), "{text}");
        }
        for (text, named) in [
            ("[objects]\ntype = \"s3\"\n", "objects.endpoint"),
            (
                "[objects]\ntype = \"s3\"\nendpoint = \"https://s3\"\naccess_key = \"AK\"\n",
                "objects.secret_file",
            ),
            ("[objects]\nsecret = \"geheim\"\n", "secret"),
            ("[objects]\ntype = \"swift\"\n", "swift"),
            (
                "[objects.connection]\nidle_timeout = \"0s\"\n",
                "idle_timeout",
            ),
            ("[objects.buckets]\nIMAGES = []\n", "IMAGES"),
            (
                "[objects.buckets]\nimages = [\"not me\"]\n",
                "objects.buckets.images",
            ),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
