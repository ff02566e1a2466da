//! Access keys: the credentials of signed requests.
//!
//! A key's secret is stored sealed, bound to its public part, and is shown to its maker alone, once. A crash leaves a
//! key whose answer never arrived: nobody knows its secret, and it stands in the list until it is removed.
//!
//! A temporary key stands for the caller in the scope of the request that made it, and is good with its security
//! token alone, of which the hash is stored. It ends after its time, and not later than what it was made with: one
//! key can make the next and the end stays. With one nothing lasting can be made. It is in no list and can't be
//! removed; it ends early with what ends its user's tokens, and with the removal or disabling of any of the user's
//! permanent keys.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use calotype_core::access::Principal;
use calotype_core::app::Call;
use calotype_core::id::{ProjectId, UserId};
use calotype_core::ports::{AccessKey, AuditEvent, TemporaryKey};
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use crate::administration::{check_lasting, found};
use crate::authenticate::sealing_context;
use crate::embedded::Embedded;
use crate::sha256_hex;

/// The most permanent access keys that a user may have.
const MAX_ACCESS_KEYS: usize = 20;
/// How many seconds a temporary key can be asked for: OTC's bounds.
const LIFETIMES: RangeInclusive<u64> = 900..=86_400;
/// What every security token starts with, for those who search leaked text for secrets.
const SECURITY_TOKEN: &str = "calosec_";
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// An access key that was just made: the only time that its secret is shown.
pub struct NewAccessKey {
    /// The public part (AK).
    pub access: String,
    /// The secret part (SK).
    pub secret: SecretString,
    /// Whose it is.
    pub user: UserId,
    /// The project of a signed request that names none.
    pub project: Option<ProjectId>,
}

impl fmt::Debug for NewAccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewAccessKey")
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// A temporary access key that was just made: the only time that its secrets are shown.
pub struct NewTemporaryKey {
    /// The public part (AK).
    pub access: String,
    /// The secret part (SK).
    pub secret: SecretString,
    /// What a signed request must bring along.
    pub security_token: SecretString,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl fmt::Debug for NewTemporaryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewTemporaryKey")
            .field("access", &self.access)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl Embedded {
    /// Makes an access key for the caller, or, by an administrator, for another user.
    ///
    /// # Errors
    /// NotFound where the caller may not see the user; Forbidden where that user has no role in the project, and for
    /// a temporary key; Conflict where the user has too many keys.
    pub async fn create_access_key(
        &self,
        call: &Call,
        user: &UserId,
        project: Option<&ProjectId>,
    ) -> Result<NewAccessKey> {
        check_lasting(call)?;
        let user = self.visible_user(&call.principal, user).await?;
        if let Some(project) = project {
            let projects = self.directory.projects_of(&user.id).await?;
            if !projects.iter().any(|own| &own.id == project) {
                return Err(Error::forbidden("The user has no role in that project."));
            }
        }
        if self.directory.access_keys(&user.id).await?.len() >= MAX_ACCESS_KEYS {
            return Err(Error::conflict("The user has too many access keys."));
        }
        let (key, secret) = self.fresh_access_key(&user.id, project, None)?;
        let detail = json!({ "user": key.user, "project": key.project });
        let line = self.line(call, "createAccessKey", &key.access, detail);
        self.keep_access_key(key, secret, Some(&line)).await
    }

    /// Makes a temporary access key that stands for the caller in the scope of the request. It lasts for so many
    /// seconds, or as long as the credential of the request where that is less.
    ///
    /// # Errors
    /// InvalidRequest for a time that is not within 15 minutes and a day.
    pub async fn create_temporary_key(&self, call: &Call, seconds: u64) -> Result<NewTemporaryKey> {
        if !LIFETIMES.contains(&seconds) {
            return Err(Error::invalid("duration_seconds is 900 to 86400."));
        }
        let principal = &call.principal;
        let asked = self.clock.now().plus(Duration::from_secs(seconds));
        let bound = principal.credential.expires_at();
        let expires_at = bound.map_or(asked, |bound| bound.min(asked));
        let security_token = self.fresh_token(SECURITY_TOKEN);
        let temporary = TemporaryKey {
            security_token_hash: sha256_hex(security_token.expose_secret().as_bytes()),
            scope: principal.scope.clone(),
            expires_at,
        };
        let project = principal.project();
        let (key, secret) = self.fresh_access_key(&principal.user.id, project, Some(temporary))?;
        let detail = json!({ "expires_at": expires_at.to_seconds() });
        let line = self.line(call, "createTemporaryAccessKey", &key.access, detail);
        self.directory.insert_access_key(&key, Some(&line)).await?;
        Ok(NewTemporaryKey {
            access: key.access,
            secret,
            security_token,
            expires_at,
        })
    }

    /// The permanent access keys of the caller, or, for an administrator, of another user. Without their secrets.
    ///
    /// # Errors
    /// NotFound where the caller may not see the user.
    pub async fn access_keys(&self, caller: &Principal, user: &UserId) -> Result<Vec<AccessKey>> {
        let user = self.visible_user(caller, user).await?;
        self.directory.access_keys(&user.id).await
    }

    /// Enables or disables a permanent access key of a user that the caller may see; disabling ends the user's temporary
    /// ones.
    ///
    /// # Errors
    /// NotFound where there is none such; Forbidden for a temporary key.
    pub async fn set_access_key_enabled(
        &self,
        call: &Call,
        user: &UserId,
        access: &str,
        enabled: bool,
    ) -> Result<AccessKey> {
        check_lasting(call)?;
        let keys = self.access_keys(&call.principal, user).await?;
        let key = keys.into_iter().find(|key| key.access == access);
        let key = key.ok_or_else(|| Error::not_found("There is no such access key."))?;
        let detail = json!({ "user": user, "enabled": enabled });
        let line = self.line(call, "updateAccessKey", access, detail);
        let set = self
            .directory
            .set_access_key_enabled(access, enabled, &line);
        found(set.await?, "access key")?;
        Ok(AccessKey { enabled, ..key })
    }

    /// Removes a permanent access key of a user that the caller may see, and the user's temporary ones.
    ///
    /// # Errors
    /// NotFound where there is none such; Forbidden for a temporary key.
    pub async fn delete_access_key(&self, call: &Call, user: &UserId, access: &str) -> Result<()> {
        check_lasting(call)?;
        let keys = self.access_keys(&call.principal, user).await?;
        found(keys.iter().any(|key| key.access == access), "access key")?;
        let line = self.line(call, "deleteAccessKey", access, json!({ "user": user }));
        let deleted = self.directory.delete_access_key(access, Some(&line));
        found(deleted.await?, "access key")
    }

    /// Makes an access key that nobody asked for: at the first start.
    pub(crate) async fn first_access_key(
        &self,
        user: &UserId,
        project: &ProjectId,
    ) -> Result<NewAccessKey> {
        let (key, secret) = self.fresh_access_key(user, Some(project), None)?;
        self.keep_access_key(key, secret, None).await
    }

    fn fresh_access_key(
        &self,
        user: &UserId,
        project: Option<&ProjectId>,
        temporary: Option<TemporaryKey>,
    ) -> Result<(AccessKey, SecretString)> {
        let access = self.random_text(BASE32, 20);
        let secret = SecretString::from(self.random_text(BASE32, 40));
        let sealed_secret = self
            .keys
            .seal_secret(&sealing_context(&access), secret.expose_secret().as_bytes())?;
        let key = AccessKey {
            access,
            sealed_secret,
            user: user.clone(),
            project: project.cloned(),
            enabled: true,
            created_at: self.clock.now(),
            temporary,
        };
        Ok((key, secret))
    }

    async fn keep_access_key(
        &self,
        key: AccessKey,
        secret: SecretString,
        line: Option<&AuditEvent>,
    ) -> Result<NewAccessKey> {
        self.directory.insert_access_key(&key, line).await?;
        Ok(NewAccessKey {
            access: key.access,
            secret,
            user: key.user,
            project: key.project,
        })
    }
}
