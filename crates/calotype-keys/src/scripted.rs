//! A key service that does as it is told. For tests: it has any number of customers' keys, each of which can be made
//! to fail, and counts what it is asked.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use calotype_core::id::{BlobId, KeyId, ProjectId, UserId};
use calotype_core::keys::{KeyFault, KeyPurpose, KeyResult, KeyUser, MasterKey};
use calotype_core::ports::{DataKey, Entropy, KeyService, WrappedKey};
use calotype_core::{Error, Result};

use crate::ServiceKey;

/// What is wrong with a master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// Its service can't be reached.
    Away,
    /// There is none such.
    Missing,
    /// It is disabled.
    Disabled,
    /// Its service takes no more requests.
    Throttled,
    /// Its service never answers.
    Silent,
}

#[derive(Default)]
struct Script {
    wrong: HashMap<String, Wrong>,
    owners: HashMap<KeyId, ProjectId>,
    grants: HashSet<(KeyId, UserId)>,
    readers: HashSet<(KeyId, ProjectId)>,
}

/// The key service. A key that nobody was said to own is everybody's.
pub struct ScriptedKeys {
    script: Mutex<Script>,
    entropy: Arc<dyn Entropy>,
    checked: AtomicUsize,
    unwrapped: AtomicUsize,
    wrapped: AtomicUsize,
}

/// The service's own key, as [`ScriptedKeys::set`] names it.
pub const SERVICE: &str = "service";

impl ScriptedKeys {
    /// A key service with which nothing is wrong.
    pub fn new(entropy: Arc<dyn Entropy>) -> Self {
        Self {
            script: Mutex::default(),
            entropy,
            checked: AtomicUsize::new(0),
            unwrapped: AtomicUsize::new(0),
            wrapped: AtomicUsize::new(0),
        }
    }

    /// What is wrong with a key from now on.
    pub fn set(&self, key: &str, wrong: Option<Wrong>) {
        let mut script = self.script();
        match wrong {
            Some(wrong) => script.wrong.insert(key.to_owned(), wrong),
            None => script.wrong.remove(key),
        };
    }

    /// Whose a key is.
    pub fn own(&self, key: KeyId, project: ProjectId) {
        self.script().owners.insert(key, project);
    }

    /// Lets a user of another project use a key, or not any more.
    pub fn grant(&self, key: KeyId, user: UserId, granted: bool) {
        let mut script = self.script();
        if granted {
            script.grants.insert((key, user));
        } else {
            script.grants.remove(&(key, user));
        }
    }

    /// Lets those who act in a project read what a key seals, or not any more.
    pub fn let_read(&self, key: KeyId, project: ProjectId, granted: bool) {
        let mut script = self.script();
        if granted {
            script.readers.insert((key, project));
        } else {
            script.readers.remove(&(key, project));
        }
    }

    /// How often it was asked whether somebody may use a key.
    pub fn checked(&self) -> usize {
        self.checked.load(Ordering::SeqCst)
    }

    /// How many data keys were asked to be unwrapped.
    pub fn unwrapped(&self) -> usize {
        self.unwrapped.load(Ordering::SeqCst)
    }

    /// How many data keys were asked to be wrapped.
    pub fn wrapped(&self) -> usize {
        self.wrapped.load(Ordering::SeqCst)
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, key: &str) -> KeyResult<()> {
        let wrong = self.script().wrong.get(key).copied();
        match wrong {
            None => Ok(()),
            Some(Wrong::Silent) => std::future::pending().await,
            Some(Wrong::Away) => Err(Error::unavailable("the key service is away").into()),
            Some(Wrong::Missing) => Err(KeyFault::Missing),
            Some(Wrong::Disabled) => Err(KeyFault::NotEnabled),
            Some(Wrong::Throttled) => Err(KeyFault::Throttled {
                retry_after: Duration::from_secs(1),
            }),
        }
    }

    /// Each name has a key of its own.
    fn key(&self, name: &str) -> Result<ServiceKey> {
        let hex = hex::encode(digest(&SHA256, name.as_bytes()));
        ServiceKey::from_hex(&hex, Arc::clone(&self.entropy))
    }
}

#[async_trait::async_trait]
impl KeyService for ScriptedKeys {
    async fn check(&self, user: &KeyUser, key: &KeyId, _: KeyPurpose) -> KeyResult<()> {
        self.checked.fetch_add(1, Ordering::SeqCst);
        self.answer(key.as_str()).await?;
        let granted = {
            let script = self.script();
            let grant = (key.clone(), user.user.clone());
            script
                .owners
                .get(key)
                .is_none_or(|owner| *owner == user.project)
                || script.grants.contains(&grant)
        };
        if granted {
            Ok(())
        } else {
            Err(KeyFault::Forbidden)
        }
    }

    async fn is_own(&self, user: &KeyUser, key: &KeyId) -> KeyResult<Option<bool>> {
        self.answer(key.as_str()).await?;
        let owner = self.script().owners.get(key).cloned();
        Ok(Some(owner.is_none_or(|owner| owner == user.project)))
    }

    async fn lets_read(
        &self,
        _: &KeyUser,
        key: &KeyId,
        project: &ProjectId,
    ) -> KeyResult<Option<bool>> {
        self.answer(key.as_str()).await?;
        let script = self.script();
        let reader = (key.clone(), project.clone());
        let own = script.owners.get(key) == Some(project);
        Ok(Some(own || script.readers.contains(&reader)))
    }

    async fn wrap(&self, master: &MasterKey, blob: BlobId, key: &DataKey) -> KeyResult<WrappedKey> {
        let name = match master {
            MasterKey::Service => SERVICE,
            MasterKey::Customer(id, _) => id.as_str(),
        };
        self.wrapped.fetch_add(1, Ordering::SeqCst);
        self.answer(name).await?;
        let wrapped = self.key(name)?.wrap(&MasterKey::Service, blob, key).await?;
        Ok(WrappedKey {
            master_key: name.to_owned(),
            ..wrapped
        })
    }

    async fn unwrap(&self, blob: BlobId, wrapped: &WrappedKey) -> KeyResult<DataKey> {
        let name = wrapped.master_key.as_str();
        self.unwrapped.fetch_add(1, Ordering::SeqCst);
        self.answer(name).await?;
        let own = WrappedKey {
            master_key: SERVICE.to_owned(),
            ..wrapped.clone()
        };
        self.key(name)?.unwrap(blob, &own).await
    }
}
