//! Access keys: the credentials of signed requests.
//!
//! A key's secret is stored sealed, bound to its public part, and is shown to its maker alone, once. A crash leaves a
//! key whose answer never arrived: nobody knows its secret, and it stands in the list until it is removed.

use std::fmt;

use calotype_core::access::Principal;
use calotype_core::app::Call;
use calotype_core::id::{ProjectId, UserId};
use calotype_core::ports::{AccessKey, AuditEvent};
use calotype_core::{Error, Result};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use crate::administration::found;
use crate::authenticate::sealing_context;
use crate::embedded::Embedded;

/// The most access keys that a user may have.
const MAX_ACCESS_KEYS: usize = 20;
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

impl Embedded {
    /// Makes an access key for the caller, or, by an administrator, for another user.
    ///
    /// # Errors
    /// NotFound where the caller may not see the user; Forbidden where that user has no role in the project;
    /// Conflict where it has too many keys.
    pub async fn create_access_key(
        &self,
        call: &Call,
        user: &UserId,
        project: Option<&ProjectId>,
    ) -> Result<NewAccessKey> {
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
        let (key, secret) = self.fresh_access_key(&user.id, project)?;
        let detail = json!({ "user": key.user, "project": key.project });
        let line = self.line(call, "createAccessKey", &key.access, detail);
        self.keep_access_key(key, secret, Some(&line)).await
    }

    /// The access keys of the caller, or, for an administrator, of another user. Without their secrets.
    ///
    /// # Errors
    /// NotFound where the caller may not see the user.
    pub async fn access_keys(&self, caller: &Principal, user: &UserId) -> Result<Vec<AccessKey>> {
        let user = self.visible_user(caller, user).await?;
        self.directory.access_keys(&user.id).await
    }

    /// Removes an access key of a user that the caller may see.
    ///
    /// # Errors
    /// NotFound where there is none such.
    pub async fn delete_access_key(&self, call: &Call, user: &UserId, access: &str) -> Result<()> {
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
        let (key, secret) = self.fresh_access_key(user, Some(project))?;
        self.keep_access_key(key, secret, None).await
    }

    fn fresh_access_key(
        &self,
        user: &UserId,
        project: Option<&ProjectId>,
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
