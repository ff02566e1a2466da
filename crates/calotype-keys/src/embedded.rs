//! The service's own key service: master keys in the catalog, wrapped under root keys that are elsewhere.
//!
//! # Consistency
//! The state of a customer's key is asked of the catalog at every use: what is disabled, scheduled for deletion or not
//! granted any more is refused at once, on every node. Only material is remembered, for five minutes at most.
//!
//! # Crash consistency
//! See [`crate::roots`] and [`crate::keyring`]. Nothing is lost with the process.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use calotype_core::Result;
use calotype_core::access::{Access, Action};
use calotype_core::app::Call;
use calotype_core::id::{BlobId, KeyId, ProjectId};
use calotype_core::keys::{KeyFault, KeyPurpose, KeyResult, KeyUser, MasterKey};
use calotype_core::master_key::{KeyOperation, KeyState};
use calotype_core::ports::{
    AuditEvent, Clock, DataKey, Entropy, KeyService, Labels, MasterKeys, Secrets, WrappedKey,
};
use serde_json::json;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::customers::{CUSTOMERS, Remembered, customers_key};
use crate::keyring::{Found, Keyring, KeyringPorts, copy_beside_the_blobs};
use crate::roots::{RootSource, RootStatus, Roots};
use crate::service::{
    MASTER_KEY, open_under, seal_under, unknown_master_key, unwrap_data_key, wrap_data_key,
};

/// What the audit trail calls a key.
pub(crate) const KIND: &str = "kms";
/// How often the keys are looked after.
const UPKEEP: Duration = Duration::from_secs(10);
/// How many versions of master keys are rewrapped in one transaction.
const REWRAPPED: u32 = 50;

/// The ports that the key service works on.
#[derive(Clone)]
pub struct Ports {
    /// The master keys' records.
    pub catalog: Arc<dyn MasterKeys>,
    /// What is kept beside the blobs.
    pub labels: Arc<dyn Labels>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

/// What an operator sets.
#[derive(Debug, Clone)]
pub struct Options {
    /// Keys that a project may have.
    pub keys_per_project: u64,
    /// The region that the deployment calls itself.
    pub region: String,
    /// Whether the catalog knows who acts in a project, and of which domain a user is. Where users are elsewhere it does
    /// not: then nobody is a domain's, and whom a key lets in is asked when somebody comes.
    pub knows_users: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keys_per_project: 100,
            region: "calotype".to_owned(),
            knows_users: true,
        }
    }
}

/// The key service.
pub struct EmbeddedKeys {
    pub(crate) catalog: Arc<dyn MasterKeys>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) access: Access,
    pub(crate) options: Options,
    pub(crate) roots: Roots,
    pub(crate) material: Remembered,
    labels: Arc<dyn Labels>,
    keyring: Keyring,
    bell: Notify,
}

impl EmbeddedKeys {
    /// Opens the key service: reads the root keys, and proves that they open what is stored. At the very first start it
    /// makes root key and master keys.
    ///
    /// # Errors
    /// InvalidRequest, with a sentence for the operator, where the root keys are not those that what is stored needs.
    pub async fn open(
        ports: Ports,
        source: RootSource,
        access: Access,
        options: Options,
    ) -> Result<Self> {
        let Ports {
            catalog,
            labels,
            clock,
            entropy,
        } = ports;
        let found = Found::look(catalog.as_ref(), labels.as_ref()).await?;
        let roots = Roots::open(
            source,
            found.is_first_start(),
            Arc::clone(&catalog),
            Arc::clone(&entropy),
        );
        let roots = roots.await?;
        let keyring_ports = KeyringPorts {
            catalog: catalog.as_ref(),
            clock: clock.as_ref(),
            entropy: &entropy,
        };
        let keyring = Keyring::open(&keyring_ports, &roots, &found).await?;
        copy_beside_the_blobs(catalog.as_ref(), labels.as_ref()).await?;
        Ok(Self {
            catalog,
            clock,
            entropy,
            access,
            options,
            roots,
            material: Remembered::default(),
            labels,
            keyring,
            bell: Notify::new(),
        })
    }

    /// The region that the deployment calls itself.
    pub fn region(&self) -> &str {
        &self.options.region
    }

    /// Looks after the keys until `stop` completes: forgets material that is too old, rewraps what is wrapped under older
    /// root keys, keeps the copy beside the blobs, and rotates customers' keys that are due. Every node does so; it can be
    /// killed anywhere.
    pub async fn look_after(self: Arc<Self>, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            let done = tokio::select! {
                () = &mut stop => return,
                done = self.upkeep() => done,
            };
            if let Err(error) = done {
                tracing::warn!(error.chain = %error.chain(), "the keys were not looked after");
            }
            tokio::select! {
                () = &mut stop => return,
                () = self.bell.notified() => {}
                () = tokio::time::sleep(UPKEEP) => {}
            }
        }
    }

    /// The root keys, and what is wrapped under each.
    ///
    /// # Errors
    /// Forbidden where the caller does not run the service.
    pub async fn root_status(&self, call: &Call) -> Result<RootStatus> {
        self.authorize_root(call)?;
        self.roots.status().await
    }

    /// Makes a fresh root key the one that wraps. What is wrapped under the others is rewrapped afterwards, by every
    /// node.
    ///
    /// # Errors
    /// Forbidden where the caller does not run the service; Conflict where the root keys are not in a file of the
    /// service's own, or where there are too many.
    pub async fn rotate_root(&self, call: &Call) -> Result<RootStatus> {
        self.authorize_root(call)?;
        let name = self
            .roots
            .rotate(|name| self.root_line(call, "rotateRootKey", name));
        let name = name.await?;
        tracing::info!(root.name = name, "another root key wraps");
        self.bell.notify_one();
        self.roots.status().await
    }

    /// Retires the root keys under which nothing is wrapped any more: they leave the file, where it is the service's
    /// own.
    ///
    /// # Errors
    /// Forbidden where the caller does not run the service; Conflict where something is still wrapped under one of
    /// them.
    pub async fn retire_roots(&self, call: &Call) -> Result<RootStatus> {
        self.authorize_root(call)?;
        // Under none of them may the copy beside the blobs be the only one.
        copy_beside_the_blobs(self.catalog.as_ref(), self.labels.as_ref()).await?;
        let retired = self
            .roots
            .retire(|name| self.root_line(call, "retireRootKey", name));
        for name in retired.await? {
            tracing::info!(root.name = name, "a root key was retired");
        }
        self.roots.status().await
    }

    fn authorize_root(&self, call: &Call) -> Result<()> {
        let action = Action::ServiceAdminister;
        self.access.authorize(&call.principal, action).map(drop)
    }

    fn root_line(&self, call: &Call, trace: &str, name: &str) -> AuditEvent {
        call.event(self.clock.now(), trace, KIND, name, json!({}))
    }

    /// One round of looking after the keys.
    ///
    /// # Errors
    /// Where catalog or store fail, or a root key is missing; the next round goes on.
    pub async fn upkeep(&self) -> Result<()> {
        // First: it must not wait for a catalog that is away.
        self.material.sweep(self.clock.now());
        let mut rewrapped = 0;
        loop {
            match self.roots.rewrap_some(REWRAPPED).await? {
                0 => break,
                some => rewrapped += some,
            }
        }
        if rewrapped > 0 {
            tracing::info!(
                versions = rewrapped,
                "master keys were rewrapped under the current root key"
            );
        }
        copy_beside_the_blobs(self.catalog.as_ref(), self.labels.as_ref()).await?;
        match self.rotate_due().await? {
            0 => {}
            rotated => tracing::info!(keys = rotated, "customers' keys were rotated"),
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl KeyService for EmbeddedKeys {
    async fn check(&self, user: &KeyUser, key: &KeyId, purpose: KeyPurpose) -> KeyResult<()> {
        self.usable_key(user, key, purpose).await.map(drop)
    }

    async fn is_own(&self, user: &KeyUser, key: &KeyId) -> KeyResult<Option<bool>> {
        let id = customers_key(key)?;
        let seen = self.catalog.seen_key(id, &user.user).await?;
        let seen = seen.ok_or(KeyFault::Missing)?;
        Ok(Some(seen.key.project == user.project))
    }

    async fn lets_read(
        &self,
        _: &KeyUser,
        key: &KeyId,
        project: &ProjectId,
    ) -> KeyResult<Option<bool>> {
        let id = customers_key(key)?;
        let readers = self.catalog.key_readers(id, project).await?;
        let readers = readers.ok_or(KeyFault::Missing)?;
        let suffices = |granted: &BTreeSet<KeyOperation>| {
            granted.contains(&KeyOperation::DescribeKey)
                && granted.contains(&KeyOperation::DecryptDataKey)
        };
        let granted = readers.own || readers.granted.iter().any(suffices);
        Ok(match (readers.state, granted) {
            (KeyState::Enabled, true) => Some(true),
            (KeyState::Enabled, false) if !self.options.knows_users => None,
            _ => Some(false),
        })
    }

    async fn wrap(&self, master: &MasterKey, blob: BlobId, key: &DataKey) -> KeyResult<WrappedKey> {
        match master {
            MasterKey::Service => {
                let (version, master) = self.keyring.newest()?;
                let entropy = self.entropy.as_ref();
                Ok(wrap_data_key(master, version, blob, key, entropy)?)
            }
            MasterKey::Customer(id, user) => {
                let master = self.usable_key(user, id, KeyPurpose::Seal).await?;
                self.wrap_under_customers(&master, blob, key).await
            }
        }
    }

    async fn unwrap(&self, blob: BlobId, wrapped: &WrappedKey) -> KeyResult<DataKey> {
        if let Some(id) = wrapped.master_key.strip_prefix(CUSTOMERS) {
            return self.unwrap_under_customers(id, blob, wrapped).await;
        }
        if wrapped.master_key != MASTER_KEY {
            return Err(unknown_master_key().into());
        }
        let master = self.keyring.version(wrapped.version);
        let master = master.ok_or_else(unknown_master_key)?;
        Ok(unwrap_data_key(master, blob, wrapped)?)
    }
}

impl Secrets for EmbeddedKeys {
    fn seal_secret(&self, context: &str, secret: &[u8]) -> Result<Vec<u8>> {
        let secrets = self.keyring.secrets();
        seal_under(secrets, context, secret, self.entropy.as_ref())
    }

    fn open_secret(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        open_under(self.keyring.secrets(), context, sealed)
    }
}

impl fmt::Debug for EmbeddedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmbeddedKeys(..)")
    }
}

#[cfg(test)]
mod tests;
