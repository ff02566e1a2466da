//! The `clouds.yaml` that the service writes at its first start.
//!
//! The file is whole or not there: written beside, with mode 0600 from its first byte, and renamed.

use std::io::Write;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use crate::exit::Failure;

/// What the first users log in with.
#[derive(Debug)]
pub(crate) struct FirstUsers {
    /// The address that clients use, without a slash: `http://127.0.0.1:9292`.
    pub(crate) url: String,
    /// The region.
    pub(crate) region: String,
    /// The password of user `demo` in project `demo`.
    pub(crate) demo_password: SecretString,
    /// The password of user `admin` in project `admin`.
    pub(crate) admin_password: SecretString,
    /// The access key of `demo`: its id and its secret.
    pub(crate) demo_access_key: Option<(String, SecretString)>,
}

/// Writes `path`: clouds `calotype` and `calotype-admin`.
///
/// # Errors
/// What the file system says; the old file is then as it was.
pub(crate) fn write_clouds_yaml(path: &Path, users: &FirstUsers) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    // A named temporary file is made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    file.write_all(text(users).as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    std::fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed)
}

fn text(users: &FirstUsers) -> String {
    let mut text = String::from(
        "# The first users of this Calotype. Keep it: the passwords are nowhere else.\n\
         # export OS_CLIENT_CONFIG_FILE=<this file> OS_CLOUD=calotype\n\
         clouds:\n",
    );
    for (cloud, name, password) in [
        ("calotype", "demo", &users.demo_password),
        ("calotype-admin", "admin", &users.admin_password),
    ] {
        text.push_str(&format!(
            "  {cloud}:\n    auth_type: password\n    auth:\n      auth_url: {}\n      \
             username: {name}\n      password: {}\n      project_name: {name}\n      \
             user_domain_id: default\n      project_domain_id: default\n    \
             region_name: {}\n    interface: public\n    identity_api_version: 3\n    \
             image_api_version: 2\n",
            quoted(&format!("{}/identity/v3", users.url)),
            quoted(password.expose_secret()),
            quoted(&users.region),
        ));
    }
    if let Some((access, secret)) = &users.demo_access_key {
        text.push_str(&format!(
            "# For clients that sign their requests (AK/SK), as user demo in project demo:\n\
             # access_key: {access}\n# secret_key: {}\n",
            secret.expose_secret()
        ));
    }
    text
}

/// A YAML double-quoted scalar: JSON's strings are a part of YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}
