//! The tags of customers' master keys.

use std::collections::{BTreeMap, BTreeSet};

use calotype_core::access::Action;
use calotype_core::codes::KmsCode;
use calotype_core::id::MasterKeyId;
use calotype_core::master_key::{KeyOperation, MAX_TAGS, MasterKeyRecord};
use calotype_core::ports::{Page, TagChange, Window};
use calotype_core::{Error, Result};
use serde_json::{Value, json};

use super::{KeyRef, Permitted};
use crate::embedded::EmbeddedKeys;

/// Which keys are looked for.
#[derive(Debug, Clone, Default)]
pub struct TagFilter {
    /// Tags that all must be there: each key with one of the values, or any where none are given.
    pub tags: Vec<(String, Vec<String>)>,
    /// Texts that the alias must hold, whatever their case.
    pub names: Vec<String>,
}

/// A key with its tags.
#[derive(Debug, Clone)]
pub struct TaggedKey {
    /// The key.
    pub key: MasterKeyRecord,
    /// Its tags, by key.
    pub tags: BTreeMap<String, String>,
}

impl TagFilter {
    fn admits(&self, tagged: &TaggedKey) -> bool {
        let alias = tagged.key.alias.as_str().to_lowercase();
        let has = |(name, values): &(String, Vec<String>)| {
            let value = tagged.tags.get(name);
            value.is_some_and(|value| values.is_empty() || values.contains(value))
        };
        self.tags.iter().all(has)
            && self
                .names
                .iter()
                .all(|name| alias.contains(&name.to_lowercase()))
    }
}

impl EmbeddedKeys {
    /// A key's tags, by key.
    ///
    /// # Errors
    /// KMS.0207, KMS.0306.
    pub async fn key_tags(
        &self,
        by: &Permitted<'_>,
        key: &KeyRef,
    ) -> Result<Vec<(String, String)>> {
        by.takes(Action::KeyTagsList)?;
        let seen = self.find(by, key).await?;
        seen.check(by.project, KeyOperation::DescribeKey)?;
        self.catalog.key_tags(seen.key.id).await
    }

    /// The tags of all keys of the caller's project: each key of a tag with its values.
    ///
    /// # Errors
    /// What the catalog says.
    pub async fn project_tags(
        &self,
        by: &Permitted<'_>,
    ) -> Result<BTreeMap<String, BTreeSet<String>>> {
        by.takes(Action::KeyTagsList)?;
        let mut tags: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (_, name, value) in self.catalog.project_key_tags(by.project).await? {
            tags.entry(name).or_default().insert(value);
        }
        Ok(tags)
    }

    /// Writes and removes tags of a key of the caller's project; `action` is the one that the caller was permitted.
    /// Returns how many were removed.
    ///
    /// # Errors
    /// KMS.0207, KMS.0306; KMS.0409 where it would have too many.
    pub async fn change_tags(
        &self,
        by: &Permitted<'_>,
        key: &KeyRef,
        change: &TagChange,
    ) -> Result<u64> {
        let (tags, trace): (Value, _) = if change.set.is_empty() {
            (json!(change.remove), "deleteKeyTags")
        } else {
            let tags: BTreeMap<_, _> = change.set.iter().cloned().collect();
            (json!(tags), "createKeyTags")
        };
        let permitted = by.proof.action();
        let expected = match permitted {
            Action::KeyTagsBatch => permitted,
            _ if change.set.is_empty() => Action::KeyTagsDelete,
            _ => Action::KeyTagsCreate,
        };
        by.takes(expected)?;
        let key = self.own_key(by, key).await?.id;
        let line = self.line(by, trace, key, json!({ "tags": tags }));
        self.catalog
            .change_key_tags(key, change, MAX_TAGS, &line)
            .await
    }

    /// Removes a tag that is there.
    ///
    /// # Errors
    /// KMS.0207, KMS.0306; KMS.0416 where it is not.
    pub async fn delete_tag(&self, by: &Permitted<'_>, key: &KeyRef, name: String) -> Result<()> {
        let change = TagChange {
            set: Vec::new(),
            remove: vec![name],
        };
        match self.change_tags(by, key, &change).await? {
            0 => Err(Error::kms(KmsCode::KMS_0416)),
            _ => Ok(()),
        }
    }

    /// Keys of the caller's project by their tags, newest first. A project has few enough to look at all of them.
    ///
    /// # Errors
    /// What the catalog says.
    pub async fn find_keys(
        &self,
        by: &Permitted<'_>,
        filter: &TagFilter,
        window: Window,
    ) -> Result<Page<TaggedKey>> {
        by.takes(Action::KeyTagsFind)?;
        let mut tags: BTreeMap<MasterKeyId, BTreeMap<String, String>> = BTreeMap::new();
        for (key, name, value) in self.catalog.project_key_tags(by.project).await? {
            tags.entry(key).or_default().insert(name, value);
        }
        let all = Window {
            offset: 0,
            limit: u64::from(u32::MAX),
        };
        let keys = self.catalog.list_keys(by.project, None, all).await?.items;
        let tagged = keys.into_iter().map(|key| TaggedKey {
            tags: tags.remove(&key.id).unwrap_or_default(),
            key,
        });
        let found: Vec<TaggedKey> = tagged.filter(|tagged| filter.admits(tagged)).collect();
        let total = found.len() as u64;
        let skip = usize::try_from(window.offset).unwrap_or(usize::MAX);
        let take = usize::try_from(window.limit).unwrap_or(usize::MAX);
        Ok(Page {
            items: found.into_iter().skip(skip).take(take).collect(),
            total,
        })
    }
}
