//! `[identity]`: the service's own, or a Keystone's.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::key_services::{Connection, all_there, check_service};
use super::values::Span;

/// `[identity]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Identity {
    /// Who answers for users and projects.
    #[serde(rename = "type")]
    pub(crate) kind: IdentityType,
    /// How long a token of the embedded identity is good for.
    pub(crate) token_lifetime: Span,
    /// The region's name in the catalog of services.
    pub(crate) region: String,
    /// The Keystone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keystone: Option<Keystone>,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            kind: IdentityType::Embedded,
            token_lifetime: Span::seconds(24 * 3600),
            region: "calotype".to_owned(),
            keystone: None,
        }
    }
}

/// The kinds of identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IdentityType {
    /// In the catalog.
    #[default]
    Embedded,
    /// In `[identity.keystone]`.
    Keystone,
}

/// `[identity.keystone]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Keystone {
    /// Its URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) auth_url: Option<String>,
    /// The URL that clients are told. None: the one above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) public_url: Option<String>,
    /// The name of the service's user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    /// The user's domain.
    pub(crate) user_domain: String,
    /// The file that holds the user's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password_file: Option<PathBuf>,
    /// What the user acts in.
    pub(crate) scope: Scope,
    /// The project's name.
    pub(crate) project: String,
    /// The project's domain.
    pub(crate) project_domain: String,
    /// How long an answer is believed.
    pub(crate) cache_life: Span,
    /// How many credentials are remembered.
    pub(crate) cache_size: u32,
    /// How it is reached.
    pub(crate) connection: Connection,
}

impl Default for Keystone {
    fn default() -> Self {
        Self {
            auth_url: None,
            public_url: None,
            user: None,
            user_domain: "Default".to_owned(),
            password_file: None,
            scope: Scope::Project,
            project: "service".to_owned(),
            project_domain: "Default".to_owned(),
            cache_life: Span::seconds(60),
            cache_size: 10_000,
            connection: Connection::default(),
        }
    }
}

/// What the service's user acts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// The project.
    #[default]
    Project,
    /// The whole system.
    System,
}

impl Identity {
    /// Bounds of single fields.
    pub(super) fn check(&self) -> Result<(), String> {
        let Some(keystone) = &self.keystone else {
            return Ok(());
        };
        if keystone.cache_size == 0 {
            return Err("identity.keystone.cache_size must be more than nothing".to_owned());
        }
        check_service(
            "identity.keystone",
            keystone.cache_life,
            &keystone.connection,
        )
    }

    /// What has to be there together, once every source has been read.
    pub(super) fn check_whole(&self) -> Result<(), String> {
        match (self.kind, &self.keystone) {
            (IdentityType::Embedded, _) => Ok(()),
            (IdentityType::Keystone, None) => {
                Err("identity.type needs [identity.keystone]".to_owned())
            }
            (IdentityType::Keystone, Some(keystone)) => all_there(
                "identity.keystone",
                &[
                    ("auth_url", keystone.auth_url.is_some()),
                    ("user", keystone.user.is_some()),
                    ("password_file", keystone.password_file.is_some()),
                ],
            ),
        }
    }
}
