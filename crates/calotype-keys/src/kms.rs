//! What the KMS API does, over customers' master keys.
//!
//! Every use case takes a [`Permitted`], which only the policy check makes; it says which action was permitted. Whose the
//! key is, and what was granted, is asked of the catalog at every use. The order of the checks is always the same: the
//! key is there (KMS.0207), it may be used for this (KMS.0306), its state allows it.
//!
//! A change writes its line of the audit trail in its own transaction. A use that changes nothing has written its line
//! before the answer is given.

mod context;
mod data;
mod grants;
mod keys;
mod tags;

use std::fmt;

use calotype_core::access::{Action, Allowed, Principal};
use calotype_core::app::Call;
use calotype_core::codes::KmsCode;
use calotype_core::id::{MasterKeyId, ProjectId, UserId};
use calotype_core::master_key::{KeyOperation, MasterKeyRecord, SeenKey};
use calotype_core::ports::AuditEvent;
use calotype_core::{Error, Result};
use serde_json::Value;

use crate::customers::parse_id;
use crate::embedded::{EmbeddedKeys, KIND};

pub use context::Context;
pub use data::FreshDataKey;
pub use grants::NewGrant;
pub use keys::{KeyQuota, NewKey};
pub use tags::{TagFilter, TaggedKey};

/// Which key a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRef {
    /// By its id.
    Id(MasterKeyId),
    /// By an id that is well formed, and that no key here can have.
    Foreign,
    /// By its alias in the caller's project.
    Alias(String),
}

impl KeyRef {
    /// Reads a key's id, and nothing else.
    ///
    /// # Errors
    /// KMS.0205.
    pub fn parse_id(text: &str) -> Result<Self> {
        if let Some(id) = parse_id(text) {
            return Ok(Self::Id(id));
        }
        let groups: Vec<&str> = text.split('-').collect();
        let lengths = groups.iter().map(|group| group.len());
        let plain = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase() || b == b'-';
        if lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(plain) {
            Ok(Self::Foreign)
        } else {
            Err(Error::kms(KmsCode::KMS_0205))
        }
    }

    /// Reads a key's id, `alias/` and its alias, or a URN that ends in `:alias:` and its alias.
    ///
    /// # Errors
    /// KMS.0205.
    pub fn parse(text: &str) -> Result<Self> {
        let alias = text.strip_prefix("alias/").or_else(|| {
            let urn = text.strip_prefix("kms:")?;
            let mut parts = urn.splitn(4, ':');
            let (_region, _domain, kind) = (parts.next()?, parts.next()?, parts.next()?);
            parts.next().filter(|_| kind == "alias")
        });
        match alias {
            Some(alias) if calotype_core::master_key::is_name(alias) => {
                Ok(Self::Alias(alias.to_owned()))
            }
            Some(_) => Err(Error::kms(KmsCode::KMS_0205)),
            None => Self::parse_id(text),
        }
    }
}

/// A caller who may take an action. Only [`EmbeddedKeys::permit`] makes one.
#[derive(Debug, Clone)]
pub struct Permitted<'a> {
    call: &'a Call,
    project: &'a ProjectId,
    proof: Allowed<'a>,
    sequence: Option<String>,
}

impl Permitted<'_> {
    /// The same, with the client's own number of the request, for the audit trail.
    #[must_use]
    pub fn with_sequence(self, sequence: Option<String>) -> Self {
        Self { sequence, ..self }
    }

    /// Who is calling.
    pub fn principal(&self) -> &Principal {
        &self.call.principal
    }

    fn user(&self) -> &UserId {
        &self.call.principal.user.id
    }

    /// Refuses a use case that the caller was not asked about: a fault of ours.
    fn takes(&self, action: Action) -> Result<()> {
        if self.proof.action() == action {
            Ok(())
        } else {
            let permitted = self.proof.action();
            Err(Error::internal(format!("{permitted} is not {action}")))
        }
    }
}

impl EmbeddedKeys {
    /// Checks that the caller may take an action of the KMS API in its project.
    ///
    /// # Errors
    /// KMS.0321 where the credential has no project; KMS.0307 where its roles do not permit it.
    pub fn permit<'a>(&self, call: &'a Call, action: Action) -> Result<Permitted<'a>> {
        let project = call.principal.project();
        let project = project.ok_or_else(|| Error::kms(KmsCode::KMS_0321))?;
        let proof = self.access.authorize(&call.principal, action);
        let proof = proof.map_err(|_| Error::kms(KmsCode::KMS_0307))?;
        Ok(Permitted {
            call,
            project,
            proof,
            sequence: None,
        })
    }

    /// The line of the audit trail for what the caller does with a key.
    fn line(
        &self,
        by: &Permitted<'_>,
        trace: &str,
        key: impl fmt::Display,
        mut detail: Value,
    ) -> AuditEvent {
        if let Some(sequence) = &by.sequence {
            detail["sequence"] = sequence.as_str().into();
        }
        by.call.event(self.clock.now(), trace, KIND, key, detail)
    }

    /// The key that a request names, as its caller sees it.
    async fn find(&self, by: &Permitted<'_>, key: &KeyRef) -> Result<SeenKey> {
        let missing = || Error::kms(KmsCode::KMS_0207);
        let id = match key {
            KeyRef::Id(id) => *id,
            KeyRef::Foreign => return Err(missing()),
            KeyRef::Alias(alias) => {
                let found = self.catalog.key_by_alias(by.project, alias).await?;
                found.ok_or_else(missing)?
            }
        };
        let seen = self.catalog.seen_key(id, by.user()).await?;
        seen.ok_or_else(missing)
    }

    /// A key that the caller's project owns.
    async fn own_key(&self, by: &Permitted<'_>, key: &KeyRef) -> Result<MasterKeyRecord> {
        let key = self.find(by, key).await?.key;
        if key.project == *by.project {
            Ok(key)
        } else {
            Err(Error::kms(KmsCode::KMS_0306))
        }
    }

    /// An enabled key that the caller may use for an operation.
    async fn key_for(
        &self,
        by: &Permitted<'_>,
        key: &KeyRef,
        operation: KeyOperation,
    ) -> Result<MasterKeyRecord> {
        let seen = self.find(by, key).await?;
        seen.check(by.project, operation)?;
        seen.key.state.check_usable()?;
        Ok(seen.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_its_id_its_alias_or_a_urn() {
        let id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
        let parsed = KeyRef::Id(id.parse().unwrap());
        assert_eq!(KeyRef::parse(id).unwrap(), parsed);
        assert_eq!(KeyRef::parse_id(id).unwrap(), parsed);
        let foreign = "zd0466b0-e727-4d9c-b35d-f84bb474a37z";
        assert_eq!(KeyRef::parse_id(foreign).unwrap(), KeyRef::Foreign);
        let alias = KeyRef::Alias("a/b:c".to_owned());
        for text in ["alias/a/b:c", "kms:eu-de:d1:alias:a/b:c"] {
            assert_eq!(KeyRef::parse(text).unwrap(), alias);
            assert!(KeyRef::parse_id(text).is_err());
        }
        for bad in [
            "",
            "my-alias",
            "alias/",
            "alias/a b",
            "kms:eu-de:d1:key:x",
            "0d0466b0e7274d9cb35df84bb474a37f",
            "0D0466B0-E727-4D9C-B35D-F84BB474A37F",
            "0d0466b0-e727-4d9c-b35d-f84bb474a37",
        ] {
            let refused = KeyRef::parse(bad).unwrap_err();
            assert_eq!(refused.kms_code(), Some(KmsCode::KMS_0205), "{bad}");
        }
    }
}
