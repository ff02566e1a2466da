//! Customers' master keys at work: they wrap the data keys of blobs.
//!
//! # Format
//! A wrap names its key as `key:<id>`, and the version. The data key is sealed under a salt of its own, with the key's
//! id, the version and the blob's id as associated data.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use calotype_core::Result;
use calotype_core::id::{BlobId, KeyId, MasterKeyId};
use calotype_core::keys::{KeyFault, KeyPurpose, KeyResult, KeyUser};
use calotype_core::master_key::{KeyOperation, KeyState, MasterKeyRecord, SeenKey};
use calotype_core::ports::{DataKey, WrappedKey};
use calotype_core::time::Timestamp;

use crate::cipher::{Material, open_salted, seal_salted};
use crate::embedded::EmbeddedKeys;
use crate::service::{data_key, unknown_master_key};

/// What stands before a customer's key in a wrap.
pub(crate) const CUSTOMERS: &str = "key:";
/// What material is used for here.
const PURPOSE: &[u8] = b"blob data keys";
/// How long material is remembered.
const LIFE: Duration = Duration::from_secs(300);
/// How much material is remembered.
const ROOM: usize = 1024;

/// Material that was unwrapped a short while ago. It says nothing of whether its key may be used. Erased when it is
/// forgotten: soon after its life, also where nobody asks for anything.
#[derive(Default)]
pub(crate) struct Remembered(Mutex<Versions>);

/// Material by its key and version, and since when it is remembered.
type Versions = HashMap<(MasterKeyId, u32), (Material, Timestamp)>;

impl Remembered {
    fn find(&self, id: MasterKeyId, version: u32, now: Timestamp) -> Option<Material> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (material, since) = kept.get(&(id, version))?;
        is_fresh(*since, now).then(|| material.clone())
    }

    fn keep(&self, id: MasterKeyId, version: u32, material: Material, now: Timestamp) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        forget_old(&mut kept, now);
        if kept.len() >= ROOM {
            // Full of fresh ones: unwrapping them again costs less than keeping an order of use.
            kept.clear();
        }
        kept.insert((id, version), (material, now));
    }

    /// Forgets what is older than its life. To be called from time to time.
    pub(crate) fn sweep(&self, now: Timestamp) {
        forget_old(
            &mut self.0.lock().unwrap_or_else(PoisonError::into_inner),
            now,
        );
    }

    /// Forgets a key that is gone.
    pub(crate) fn forget(&self, id: MasterKeyId) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(kept, _), _| *kept != id);
    }
}

fn forget_old(kept: &mut Versions, now: Timestamp) {
    kept.retain(|_, (_, since)| is_fresh(*since, now));
}

fn is_fresh(since: Timestamp, now: Timestamp) -> bool {
    // A clock that was set back makes material old, not young for longer.
    now >= since && now.since(since) < LIFE
}

/// The id that the text of a `cmk_id` is here.
pub(crate) fn customers_key(key: &KeyId) -> KeyResult<MasterKeyId> {
    parse_id(key.as_str()).ok_or(KeyFault::Missing)
}

/// A key's id: a UUID in lower case, and in no other form.
pub(crate) fn parse_id(text: &str) -> Option<MasterKeyId> {
    let id: MasterKeyId = text.parse().ok()?;
    (id.to_string() == text).then_some(id)
}

fn wrap_aad(id: MasterKeyId, version: u32, blob: BlobId) -> Vec<u8> {
    let mut aad = b"calotype data key of a customer's\0".to_vec();
    aad.extend_from_slice(id.as_uuid().as_bytes());
    aad.extend_from_slice(&version.to_be_bytes());
    aad.extend_from_slice(blob.as_uuid().as_bytes());
    aad
}

/// Whether what was granted, or that the key is the user's own, suffices.
fn suffices(seen: &SeenKey, user: &KeyUser, purpose: KeyPurpose) -> bool {
    let may = |operation| seen.permits(&user.project, operation);
    let operations: &[KeyOperation] = match purpose {
        KeyPurpose::Seal => &[
            KeyOperation::CreateDataKey,
            KeyOperation::CreateDataKeyWithoutPlaintext,
            KeyOperation::EncryptDataKey,
        ],
        KeyPurpose::Open => &[KeyOperation::DecryptDataKey],
    };
    may(KeyOperation::DescribeKey) && operations.iter().copied().any(may)
}

impl EmbeddedKeys {
    /// A customer's key that the user may use for a purpose now.
    pub(crate) async fn usable_key(
        &self,
        user: &KeyUser,
        key: &KeyId,
        purpose: KeyPurpose,
    ) -> KeyResult<MasterKeyRecord> {
        let id = customers_key(key)?;
        let seen = self.catalog.seen_key(id, &user.user).await?;
        let seen = seen.ok_or(KeyFault::Missing)?;
        if seen.key.state != KeyState::Enabled {
            return Err(KeyFault::NotEnabled);
        }
        if !suffices(&seen, user, purpose) {
            return Err(KeyFault::Forbidden);
        }
        Ok(seen.key)
    }

    /// The material of a version of a customer's key; none where it is gone. Does not judge who may use it.
    pub(crate) async fn material_of(
        &self,
        id: MasterKeyId,
        version: u32,
    ) -> Result<Option<Material>> {
        let now = self.clock.now();
        if let Some(material) = self.material.find(id, version, now) {
            return Ok(Some(material));
        }
        let Some(wrapped) = self.catalog.material(&id.to_string(), version).await? else {
            return Ok(None);
        };
        let material = self.roots.unwrap(&wrapped).await?;
        self.material.keep(id, version, material.clone(), now);
        Ok(Some(material))
    }

    pub(crate) async fn wrap_under_customers(
        &self,
        master: &MasterKeyRecord,
        blob: BlobId,
        key: &DataKey,
    ) -> KeyResult<WrappedKey> {
        let (id, version) = (master.id, master.version);
        let material = self.material_of(id, version).await?;
        let material = material.ok_or(KeyFault::Missing)?;
        let aad = wrap_aad(id, version, blob);
        let entropy = self.entropy.as_ref();
        Ok(WrappedKey {
            master_key: format!("{CUSTOMERS}{id}"),
            version,
            sealed: seal_salted(&material, PURPOSE, &aad, key.expose(), entropy)?,
        })
    }

    pub(crate) async fn unwrap_under_customers(
        &self,
        id: &str,
        blob: BlobId,
        wrapped: &WrappedKey,
    ) -> KeyResult<DataKey> {
        let id = parse_id(id).ok_or_else(unknown_master_key)?;
        match self.catalog.key_state(id).await? {
            Some((KeyState::Enabled, _)) => {}
            Some(_) => return Err(KeyFault::NotEnabled),
            None => {
                self.material.forget(id);
                return Err(KeyFault::Missing);
            }
        }
        let material = self.material_of(id, wrapped.version).await?;
        // A version goes with its key only.
        let material = material.ok_or_else(unknown_master_key)?;
        let aad = wrap_aad(id, wrapped.version, blob);
        Ok(data_key(open_salted(
            &material,
            PURPOSE,
            &aad,
            &wrapped.sealed,
        ))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemEntropy;

    fn remember(remembered: &Remembered, entropy: &SystemEntropy, now: Timestamp) -> MasterKeyId {
        let id = MasterKeyId::random(entropy);
        remembered.keep(id, 1, Material::random(entropy), now);
        id
    }

    #[test]
    fn material_is_forgotten_after_its_life_though_nobody_asks_for_it() {
        let (remembered, entropy) = (Remembered::default(), SystemEntropy::new());
        let start = Timestamp::from_micros(0);
        let id = remember(&remembered, &entropy, start);
        let end = start.plus(LIFE);
        remembered.sweep(Timestamp::from_micros(end.as_micros() - 1));
        assert!(remembered.find(id, 1, start).is_some());
        remembered.sweep(end);
        assert!(remembered.0.lock().unwrap().is_empty());
    }

    #[test]
    fn there_is_room_for_so_much_material() {
        let (remembered, entropy) = (Remembered::default(), SystemEntropy::new());
        let now = Timestamp::from_micros(0);
        let ids: Vec<_> = (0..=ROOM)
            .map(|_| remember(&remembered, &entropy, now))
            .collect();
        assert!(remembered.0.lock().unwrap().len() <= ROOM);
        assert!(remembered.find(ids[ROOM], 1, now).is_some(), "the newest");
    }
}
