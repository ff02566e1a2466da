//! `[keys]` and the key services below it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::values::Span;

/// The longest that a permission may be believed, and a secret kept.
const LONGEST_CACHE: Span = Span::seconds(300);

/// `[keys]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Keys {
    /// Where the root keys are.
    pub(crate) root_key_from: RootKeyFrom,
    /// The file that holds the root keys. None: `root.key` in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) root_key_file: Option<PathBuf>,
    /// The name of the credential that holds the root keys.
    pub(crate) root_key_credential: String,
    /// Where customers' keys are.
    pub(crate) customers: Customers,
    /// A KMS of OTC or Huawei.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kms: Option<Kms>,
    /// A Barbican.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) barbican: Option<Barbican>,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            root_key_from: RootKeyFrom::File,
            root_key_file: None,
            root_key_credential: "calotype-root-key".to_owned(),
            customers: Customers::Embedded,
            kms: None,
            barbican: None,
        }
    }
}

/// Where root keys can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RootKeyFrom {
    /// In a file of the service's own.
    #[default]
    File,
    /// In a variable of the environment.
    Environment,
    /// In a credential that systemd gives the service.
    Credential,
}

/// Where customers' keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Customers {
    /// In the catalog.
    #[default]
    Embedded,
    /// In `[keys.kms]`.
    Otc,
    /// In `[keys.barbican]`.
    Barbican,
}

/// `[keys.kms]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Kms {
    /// Its URL. None: from the catalog of services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    /// Whose API it has.
    pub(crate) provider: Provider,
    /// The field that binds a ciphertext. None: the provider's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) context: Option<ContextField>,
    /// Which of the two credentials below is used.
    pub(crate) credential: Credential,
    /// Who has to agree.
    pub(crate) authorize: Authorize,
    /// How long a permission is believed.
    pub(crate) cache_life: Span,
    /// The service's user.
    pub(crate) login: Login,
    /// The service's access key.
    pub(crate) access_key: AccessKey,
    /// How it is reached.
    pub(crate) connection: Connection,
}

impl Default for Kms {
    fn default() -> Self {
        Self {
            endpoint: None,
            provider: Provider::Otc,
            context: None,
            credential: Credential::Login,
            authorize: Authorize::Caller,
            cache_life: Span::seconds(60),
            login: Login::default(),
            access_key: AccessKey::default(),
            connection: Connection::default(),
        }
    }
}

/// `[keys.barbican]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Barbican {
    /// Its URL. None: from the catalog of services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    /// Who has to agree.
    pub(crate) authorize: Authorize,
    /// How long a secret is kept in memory, and a permission believed.
    pub(crate) cache_life: Span,
    /// The service's user.
    pub(crate) login: Login,
    /// How it is reached.
    pub(crate) connection: Connection,
}

impl Default for Barbican {
    fn default() -> Self {
        Self {
            endpoint: None,
            authorize: Authorize::Caller,
            cache_life: Span::seconds(60),
            login: Login::default(),
            connection: Connection::default(),
        }
    }
}

/// Whose KMS it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Provider {
    /// The Open Telekom Cloud's.
    Otc,
    /// Huawei Cloud's.
    Huawei,
}

/// The field that binds a ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ContextField {
    /// OTC's.
    EncryptionContext,
    /// Huawei's.
    AdditionalAuthenticatedData,
    /// None.
    None,
}

/// Which credential is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Credential {
    /// The user's.
    Login,
    /// The access key.
    AccessKey,
}

/// Who has to agree to the use of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Authorize {
    /// The service and the caller.
    Caller,
    /// The service alone.
    Service,
}

/// `[keys.*.login]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Login {
    /// Keystone's URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) auth_url: Option<String>,
    /// The user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    /// The user's domain.
    pub(crate) user_domain: String,
    /// The file that holds the user's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password_file: Option<PathBuf>,
    /// The project's name.
    pub(crate) project: String,
    /// The project's domain.
    pub(crate) project_domain: String,
    /// The region of the catalog's endpoints. None: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) region: Option<String>,
    /// The interface of the catalog's endpoints.
    pub(crate) interface: String,
}

impl Default for Login {
    fn default() -> Self {
        Self {
            auth_url: None,
            user: None,
            user_domain: "Default".to_owned(),
            password_file: None,
            project: "service".to_owned(),
            project_domain: "Default".to_owned(),
            region: None,
            interface: "public".to_owned(),
        }
    }
}

/// `[keys.kms.access_key]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AccessKey {
    /// The key's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// The file that holds its secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret_file: Option<PathBuf>,
    /// The id of the project that requests are for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) project_id: Option<String>,
}

/// `[keys.*.connection]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Connection {
    /// A file of certificates to trust beside the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// A proxy's URL. None: directly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proxy: Option<String>,
    /// How long a connection may take.
    pub(crate) connect_timeout: Span,
    /// How long one attempt may take.
    pub(crate) attempt_timeout: Span,
    /// How long all attempts together may take.
    pub(crate) time_limit: Span,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            ca_file: None,
            proxy: None,
            connect_timeout: Span::seconds(2),
            attempt_timeout: Span::seconds(5),
            time_limit: Span::seconds(15),
        }
    }
}

impl Keys {
    /// Bounds of single fields.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(kms) = &self.kms {
            check_service("keys.kms", kms.cache_life, &kms.connection)?;
        }
        if let Some(barbican) = &self.barbican {
            check_service("keys.barbican", barbican.cache_life, &barbican.connection)?;
        }
        Ok(())
    }

    /// What has to be there together, once every source has been read.
    pub(super) fn check_whole(&self) -> Result<(), String> {
        let missing = match self.customers {
            Customers::Otc if self.kms.is_none() => Some("[keys.kms]"),
            Customers::Barbican if self.barbican.is_none() => Some("[keys.barbican]"),
            _ => None,
        };
        if let Some(section) = missing {
            return Err(format!("keys.customers needs {section}"));
        }
        if let Some(kms) = &self.kms {
            match kms.credential {
                Credential::Login => kms.login.check_whole("keys.kms.login")?,
                Credential::AccessKey => kms.access_key.check_whole(kms)?,
            }
        }
        match &self.barbican {
            Some(barbican) => barbican.login.check_whole("keys.barbican.login"),
            None => Ok(()),
        }
    }
}

impl Login {
    fn check_whole(&self, section: &str) -> Result<(), String> {
        let fields = [
            ("auth_url", self.auth_url.is_some()),
            ("user", self.user.is_some()),
            ("password_file", self.password_file.is_some()),
        ];
        all_there(section, &fields)
    }
}

impl AccessKey {
    fn check_whole(&self, kms: &Kms) -> Result<(), String> {
        let fields = [
            ("id", self.id.is_some()),
            ("secret_file", self.secret_file.is_some()),
            ("project_id", self.project_id.is_some()),
        ];
        all_there("keys.kms.access_key", &fields)?;
        // Only a login brings a catalog.
        all_there("keys.kms", &[("endpoint", kms.endpoint.is_some())])
    }
}

/// Refuses a section in which a field is not set that must be.
pub(super) fn all_there(section: &str, fields: &[(&str, bool)]) -> Result<(), String> {
    match fields.iter().find(|(_, there)| !there) {
        Some((field, _)) => Err(format!("{section}.{field} is not set")),
        None => Ok(()),
    }
}

/// Refuses a section in which a span is nothing.
pub(super) fn some_time(section: &str, spans: &[(&str, Span)]) -> Result<(), String> {
    match spans.iter().find(|(_, span)| *span == Span::seconds(0)) {
        Some((field, _)) => Err(format!("{section}.{field} must be more than nothing")),
        None => Ok(()),
    }
}

/// Refuses a key service's connection, or one like it, that could not work.
pub(super) fn check_service(
    section: &str,
    cache: Span,
    connection: &Connection,
) -> Result<(), String> {
    if cache > LONGEST_CACHE {
        return Err(format!("{section}.cache_life may be five minutes at most"));
    }
    let spans = [
        ("connect_timeout", connection.connect_timeout),
        ("attempt_timeout", connection.attempt_timeout),
        ("time_limit", connection.time_limit),
    ];
    some_time(&format!("{section}.connection"), &spans)
}
