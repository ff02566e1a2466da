//! Grants: what users and domains outside a key's project may do with it.

use std::collections::BTreeSet;

use calotype_core::access::Action;
use calotype_core::app::Keep;
use calotype_core::codes::KmsCode;
use calotype_core::master_key::{Grant, GrantId, GranteeType, KeyOperation, MAX_GRANTS};
use calotype_core::ports::{Page, Trail, Window};
use calotype_core::{Error, Result};
use serde_json::json;

use super::{KeyRef, Permitted};
use crate::embedded::EmbeddedKeys;

/// A grant to be made.
#[derive(Debug, Clone)]
pub struct NewGrant {
    /// Who may: a user's id, or a domain's.
    pub grantee: String,
    /// Which of the two.
    pub grantee_type: GranteeType,
    /// What.
    pub operations: Vec<KeyOperation>,
    /// Its name.
    pub name: Option<String>,
    /// The user who may give it back.
    pub retiring: Option<String>,
}

impl EmbeddedKeys {
    /// Makes a grant on an enabled key: of the caller's project, or of another that let the caller pass on what it was
    /// granted. Returns its id.
    ///
    /// # Errors
    /// KMS.0207, KMS.0306, KMS.0209, KMS.0210; KMS.2404 where the key has as many as it may.
    pub async fn create_grant(
        &self,
        by: &Permitted<'_>,
        key: &KeyRef,
        new: NewGrant,
        keep: Keep<'_, GrantId>,
    ) -> Result<GrantId> {
        by.takes(Action::GrantsCreate)?;
        let seen = self.find(by, key).await?;
        seen.check(by.project, KeyOperation::CreateGrant)?;
        let beyond = |operation| !seen.permits(by.project, operation);
        if new.operations.iter().copied().any(beyond) {
            return Err(Error::kms(KmsCode::KMS_0306));
        }
        let key = seen.key.id;
        let grant = Grant {
            id: GrantId::random(self.entropy.as_ref()),
            key,
            grantee: new.grantee,
            grantee_type: new.grantee_type,
            operations: new.operations,
            name: new.name,
            retiring: new.retiring,
            issuer: by.user().clone(),
            created_at: self.clock.now(),
        };
        let operations: Vec<&str> = grant.operations.iter().map(|word| word.as_str()).collect();
        let detail = json!({
            "grant": grant.id.as_str(),
            "grantee": grant.grantee,
            "grantee_type": grant.grantee_type.as_str(),
            "operations": operations,
        });
        let trail = Trail {
            event: self.line(by, "createGrant", key, detail),
            answer: keep.map(|keep| keep(&grant.id)),
        };
        self.catalog.insert_grant(&grant, MAX_GRANTS, trail).await?;
        Ok(grant.id)
    }

    /// The grants on a key, oldest first.
    ///
    /// # Errors
    /// KMS.0207; KMS.0306 where the key is another project's that did not let the caller grant.
    pub async fn list_grants(
        &self,
        by: &Permitted<'_>,
        key: &KeyRef,
        window: Window,
    ) -> Result<Page<Grant>> {
        by.takes(Action::GrantsList)?;
        let seen = self.find(by, key).await?;
        seen.check(by.project, KeyOperation::CreateGrant)?;
        self.catalog.grants(seen.key.id, window).await
    }

    /// The grants that name the caller as the one who may give them back, oldest first.
    ///
    /// # Errors
    /// What the catalog says.
    pub async fn list_retirable_grants(
        &self,
        by: &Permitted<'_>,
        window: Window,
    ) -> Result<Page<Grant>> {
        by.takes(Action::GrantsList)?;
        self.catalog.retirable_grants(by.user(), window).await
    }

    /// Takes a grant on a key of the caller's project away.
    ///
    /// # Errors
    /// KMS.0207, KMS.0306; KMS.2501 where there is no such grant, KMS.2502 where it is on another key.
    pub async fn revoke_grant(
        &self,
        by: &Permitted<'_>,
        key: &KeyRef,
        grant: &GrantId,
    ) -> Result<()> {
        by.takes(Action::GrantsRevoke)?;
        let key = self.own_key(by, key).await?;
        let grant = self.find_grant(grant, key.id).await?;
        self.end_grant(by, &grant, "revokeGrant").await
    }

    /// Gives a grant back. Its issuer may, the user whom it names for that, and who has it where it lets them.
    ///
    /// # Errors
    /// KMS.0207, KMS.2501, KMS.2502; KMS.0306 where the caller is none of these.
    pub async fn retire_grant(
        &self,
        by: &Permitted<'_>,
        key: &KeyRef,
        grant: &GrantId,
    ) -> Result<()> {
        by.takes(Action::GrantsRetire)?;
        let key = self.find(by, key).await?.key;
        let grant = self.find_grant(grant, key.id).await?;
        let user = by.user();
        let domain = &by.call.principal.user_domain.id;
        let has_it = match grant.grantee_type {
            GranteeType::User => grant.grantee == user.as_str(),
            GranteeType::Domain => grant.grantee == domain.as_str(),
        };
        let operations: BTreeSet<_> = grant.operations.iter().collect();
        let may = grant.issuer == *user
            || grant.retiring.as_deref() == Some(user.as_str())
            || (has_it && operations.contains(&KeyOperation::RetireGrant));
        if !may {
            return Err(Error::kms(KmsCode::KMS_0306));
        }
        self.end_grant(by, &grant, "retireGrant").await
    }

    async fn find_grant(&self, id: &GrantId, key: calotype_core::id::MasterKeyId) -> Result<Grant> {
        let grant = self.catalog.grant(id).await?;
        let grant = grant.ok_or_else(|| Error::kms(KmsCode::KMS_2501))?;
        if grant.key == key {
            Ok(grant)
        } else {
            Err(Error::kms(KmsCode::KMS_2502))
        }
    }

    async fn end_grant(&self, by: &Permitted<'_>, grant: &Grant, trace: &str) -> Result<()> {
        let detail = json!({
            "grant": grant.id.as_str(),
            "grantee": grant.grantee,
        });
        let line = self.line(by, trace, grant.key, detail);
        if self.catalog.remove_grant(&grant.id, &line).await? {
            Ok(())
        } else {
            Err(Error::kms(KmsCode::KMS_2501))
        }
    }
}
