//! Who answers for users and projects, as the configuration says.

use std::sync::Arc;

use calotype_api::identity::{IdentityApi, IdentityState};
use calotype_api::state::Authenticator;
use calotype_catalog::SqlCatalog;
use calotype_core::access::Access;
use calotype_core::ports::{Clock, Entropy, Projects, Secrets};
use calotype_identity::{Embedded, Keystone, KeystoneOptions, Options, Ports};
use calotype_remote::{Connection, Login, LoginScope};

use super::keys::{connection, secret};
use super::parts::failed;
use crate::config::Config;
use crate::config::identity::{self as config, IdentityType, Scope};
use crate::exit::Failure;

/// The identity.
pub(super) enum Identity {
    /// The service's own.
    Embedded(Arc<Embedded>),
    /// A Keystone's.
    Keystone(Arc<Keystone>),
}

impl Identity {
    /// The identity that is configured. Nothing is asked of a Keystone yet.
    ///
    /// # Errors
    /// Where a file can't be read, or the section can't work.
    pub(super) fn open(
        config: &Config,
        catalog: &Arc<SqlCatalog>,
        secrets: Arc<dyn Secrets>,
        access: &Access,
        (clock, entropy): (&Arc<dyn Clock>, &Arc<dyn Entropy>),
    ) -> Result<Self, Failure> {
        if config.identity.kind == IdentityType::Keystone {
            let keystone = open_keystone(config, (clock, entropy))?;
            return Ok(Self::Keystone(Arc::new(keystone)));
        }
        let ports = Ports {
            directory: Arc::clone(catalog) as _,
            clock: Arc::clone(clock),
            entropy: Arc::clone(entropy),
            keys: secrets,
        };
        let options = Options {
            token_lifetime: config.identity.token_lifetime.duration(),
            region: config.identity.region.clone(),
        };
        let embedded = Embedded::new(ports, Arc::new(access.clone()), options);
        Ok(Self::Embedded(Arc::new(embedded)))
    }

    /// Who knows which projects there are.
    pub(super) fn projects(&self, catalog: &Arc<SqlCatalog>) -> Arc<dyn Projects> {
        match self {
            Self::Embedded(_) => Arc::clone(catalog) as _,
            Self::Keystone(keystone) => Arc::clone(keystone) as _,
        }
    }

    /// What authenticates requests.
    pub(super) fn authenticator(&self) -> Arc<dyn Authenticator> {
        match self {
            Self::Embedded(embedded) => Arc::clone(embedded) as _,
            Self::Keystone(keystone) => Arc::clone(keystone) as _,
        }
    }

    /// What answers under `/identity`.
    pub(super) fn api(&self, public_url: Option<Arc<str>>) -> IdentityApi {
        match self {
            Self::Embedded(embedded) => IdentityApi::Own(IdentityState {
                identity: Arc::clone(embedded),
                public_url,
            }),
            Self::Keystone(keystone) => IdentityApi::Elsewhere(Arc::from(keystone.public_url())),
        }
    }
}

/// The Keystone that is configured. Nothing is asked of it yet.
///
/// # Errors
/// Where a file can't be read, or the section can't work.
pub(super) fn open_keystone(
    config: &Config,
    (clock, entropy): (&Arc<dyn Clock>, &Arc<dyn Entropy>),
) -> Result<Keystone, Failure> {
    let section = config.identity.keystone.clone().unwrap_or_default();
    let keystone = Keystone::new(options(&section)?, entropy, Arc::clone(clock));
    keystone.map_err(failed("identity.keystone"))
}

fn options(section: &config::Keystone) -> Result<KeystoneOptions, Failure> {
    let file = section.password_file.as_deref();
    let login = Login {
        auth_url: section.auth_url.clone().unwrap_or_default(),
        user: section.user.clone().unwrap_or_default(),
        user_domain: section.user_domain.clone(),
        password: secret("identity.keystone.password_file", file)?,
        scope: match section.scope {
            Scope::Project => {
                LoginScope::Project(section.project.clone(), section.project_domain.clone())
            }
            Scope::System => LoginScope::System,
        },
        region: None,
        interface: "public".to_owned(),
    };
    Ok(KeystoneOptions {
        login,
        connection: Connection {
            // Somebody waits for each answer.
            attempts: 2,
            ..connection(&section.connection)
        },
        public_url: section.public_url.clone(),
        cache_life: section.cache_life.duration(),
        cache_size: section.cache_size.into(),
    })
}
