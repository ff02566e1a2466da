//! The key services, as the configuration says.

use std::path::Path;
use std::sync::Arc;

use calotype_core::ports::{Clock, Entropy, KeyService};
use calotype_keys::{
    AccessKey, Authorize, Barbican, BarbicanOptions, ContextField, CustomersKeys, KeyServices, Kms,
    KmsCredential, KmsOptions,
};
use calotype_remote::{Connection, Login, LoginScope};
use zeroize::Zeroizing;

use super::parts::failed;
use crate::config::key_services as config;
use crate::exit::Failure;

/// The embedded key service, and those that are configured beside it.
///
/// # Errors
/// Where a file can't be read, or a section can't work. Nothing is asked of the key services yet.
pub(super) fn key_services(
    keys: &config::Keys,
    embedded: Arc<dyn KeyService>,
    entropy: &Arc<dyn Entropy>,
    clock: &Arc<dyn Clock>,
) -> Result<KeyServices, Failure> {
    let mut services = KeyServices::new(embedded).choosing(match keys.customers {
        config::Customers::Embedded => CustomersKeys::Embedded,
        config::Customers::Otc => CustomersKeys::Kms,
        config::Customers::Barbican => CustomersKeys::Barbican,
    });
    if let Some(section) = &keys.kms {
        services = services.with_kms(Arc::new(kms(section, entropy, clock)?));
    }
    if let Some(section) = &keys.barbican {
        let barbican = barbican(section, entropy, clock)?;
        services = services.with_barbican(Arc::new(barbican));
    }
    Ok(services)
}

/// The KMS of a configuration. Nothing is asked of it yet.
pub(super) fn kms(
    section: &config::Kms,
    entropy: &Arc<dyn Entropy>,
    clock: &Arc<dyn Clock>,
) -> Result<Kms, Failure> {
    let kms = Kms::new(kms_options(section)?, entropy, Arc::clone(clock));
    kms.map_err(failed("keys.kms"))
}

/// The Barbican of a section. Nothing is asked of it yet.
///
/// # Errors
/// Where a file can't be read, or the section can't work.
pub(super) fn barbican(
    section: &config::Barbican,
    entropy: &Arc<dyn Entropy>,
    clock: &Arc<dyn Clock>,
) -> Result<Barbican, Failure> {
    let options = BarbicanOptions {
        endpoint: section.endpoint.clone(),
        login: login("keys.barbican.login", &section.login)?,
        authorize: authorize(section.authorize),
        cache_life: section.cache_life.duration(),
        connection: connection(&section.connection),
    };
    let barbican = Barbican::new(options, Arc::clone(entropy), Arc::clone(clock));
    barbican.map_err(failed("keys.barbican"))
}

fn kms_options(section: &config::Kms) -> Result<KmsOptions, Failure> {
    let context = section.context.unwrap_or(match section.provider {
        config::Provider::Otc => config::ContextField::EncryptionContext,
        config::Provider::Huawei => config::ContextField::AdditionalAuthenticatedData,
    });
    let credential = match section.credential {
        config::Credential::Login => KmsCredential::Login(login("keys.kms.login", &section.login)?),
        config::Credential::AccessKey => {
            let key = &section.access_key;
            KmsCredential::AccessKey(AccessKey {
                id: key.id.clone().unwrap_or_default(),
                secret: secret(
                    "keys.kms.access_key.secret_file",
                    key.secret_file.as_deref(),
                )?,
                project: key.project_id.clone().unwrap_or_default(),
            })
        }
    };
    Ok(KmsOptions {
        endpoint: section.endpoint.clone(),
        credential,
        authorize: authorize(section.authorize),
        context: match context {
            config::ContextField::EncryptionContext => ContextField::EncryptionContext,
            config::ContextField::AdditionalAuthenticatedData => ContextField::AdditionalData,
            config::ContextField::None => ContextField::None,
        },
        cache_life: section.cache_life.duration(),
        connection: connection(&section.connection),
    })
}

fn login(section: &str, login: &config::Login) -> Result<Login, Failure> {
    let field = format!("{section}.password_file");
    Ok(Login {
        auth_url: login.auth_url.clone().unwrap_or_default(),
        user: login.user.clone().unwrap_or_default(),
        user_domain: login.user_domain.clone(),
        password: secret(&field, login.password_file.as_deref())?,
        scope: LoginScope::Project(login.project.clone(), login.project_domain.clone()),
        region: login.region.clone(),
        interface: login.interface.clone(),
    })
}

fn authorize(authorize: config::Authorize) -> Authorize {
    match authorize {
        config::Authorize::Caller => Authorize::Caller,
        config::Authorize::Service => Authorize::Service,
    }
}

pub(super) fn connection(connection: &config::Connection) -> Connection {
    Connection {
        ca_file: connection.ca_file.clone(),
        proxy: connection.proxy.clone(),
        connect_timeout: connection.connect_timeout.duration(),
        attempt_timeout: connection.attempt_timeout.duration(),
        time_limit: connection.time_limit.duration(),
        ..Connection::default()
    }
}

/// A secret from its file, without the line's end.
pub(super) fn secret(field: &str, file: Option<&Path>) -> Result<Zeroizing<String>, Failure> {
    let file = file.ok_or_else(|| Failure::usage(format!("{field} is not set")))?;
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("{field} {}: {error}", file.display())))?;
    let text = Zeroizing::new(text);
    Ok(Zeroizing::new(
        text.trim_end_matches(['\r', '\n']).to_owned(),
    ))
}
