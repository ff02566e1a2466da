//! The service's own master keys: one wraps data keys, one seals secrets.
//!
//! # Format
//! What is sealed has the purpose, the version and the blob's id or the context as associated data, so that no wrap of
//! a data key can pass for a secret or the other way round.
//!
//! Before the catalog kept master keys, both were derived from the root key. [`ServiceKey`] is made so still: it needs
//! nothing but a root key, and is what the tests of other crates use.

use std::fmt;
use std::sync::Arc;

use calotype_core::id::{BlobId, KeyId};
use calotype_core::keys::{KeyFault, KeyPurpose, KeyResult, KeyUser, MasterKey};
use calotype_core::ports::{DataKey, Entropy, KeyService, Secrets, WrappedKey};
use calotype_core::vault::KeyBits;
use calotype_core::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

use crate::cipher::{Material, open, seal};

/// The id of the service's own master key in a [`WrappedKey`].
pub(crate) const MASTER_KEY: &str = "service";
/// The version of the keys that are derived from a root key, and of the key that seals secrets.
pub(crate) const VERSION: u32 = 1;

/// The service's own master keys as they come from a root key: a [`KeyService`] that needs nothing but itself.
pub struct ServiceKey {
    wraps: Material,
    secrets: Material,
    entropy: Arc<dyn Entropy>,
}

impl ServiceKey {
    /// The key given as 64 hexadecimal digits, as the environment or a system credential holds it.
    ///
    /// # Errors
    /// InvalidRequest where `text` is not such a key. The message does not repeat it.
    pub fn from_hex(text: &str, entropy: Arc<dyn Entropy>) -> Result<Self> {
        let root = Material::from_hex(text.trim()).ok_or_else(|| {
            Error::invalid("The service key must be 64 hexadecimal digits (256 bits).")
        })?;
        Ok(Self {
            wraps: derived_wraps(&root)?,
            secrets: derived_secrets(&root)?,
            entropy,
        })
    }
}

/// The key that wrapped data keys before the catalog kept master keys.
pub(crate) fn derived_wraps(root: &Material) -> Result<Material> {
    root.subkey(b"data keys")
}

/// The key that sealed secrets before the catalog kept master keys.
pub(crate) fn derived_secrets(root: &Material) -> Result<Material> {
    root.subkey(b"secrets")
}

/// Wraps a data key under a version of the service's own master key.
pub(crate) fn wrap_data_key(
    master: &Material,
    version: u32,
    blob: BlobId,
    key: &DataKey,
    entropy: &dyn Entropy,
) -> Result<WrappedKey> {
    Ok(WrappedKey {
        master_key: MASTER_KEY.to_owned(),
        version,
        sealed: seal(master, &wrap_aad(blob, version), key.expose(), entropy)?,
    })
}

/// Unwraps what [`wrap_data_key`] made under the same version.
///
/// # Errors
/// Damaged.
pub(crate) fn unwrap_data_key(
    master: &Material,
    blob: BlobId,
    wrapped: &WrappedKey,
) -> Result<DataKey> {
    let opened = open(master, &wrap_aad(blob, wrapped.version), &wrapped.sealed);
    data_key(opened)
}

/// The data key in what was opened.
///
/// # Errors
/// Damaged where nothing was, or something else.
pub(crate) fn data_key(opened: Option<Zeroizing<Vec<u8>>>) -> Result<DataKey> {
    let opened =
        opened.ok_or_else(|| Error::damaged("the wrapped data key does not authenticate"))?;
    let bits = KeyBits::from_slice(&opened);
    let bits = bits.ok_or_else(|| Error::damaged("the wrapped data key has a wrong length"))?;
    Ok(bits.into())
}

/// The error for a wrap that no key of this service made.
pub(crate) fn unknown_master_key() -> Error {
    Error::damaged("the data key names no master key of this service")
}

pub(crate) fn seal_under(
    secrets: &Material,
    context: &str,
    secret: &[u8],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>> {
    seal(secrets, &secret_aad(context), secret, entropy)
}

pub(crate) fn open_under(
    secrets: &Material,
    context: &str,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>> {
    open(secrets, &secret_aad(context), sealed).ok_or_else(|| {
        Error::new(ErrorKind::Damaged, "A stored secret is damaged.")
            .with_context("a sealed secret does not authenticate")
    })
}

fn wrap_aad(blob: BlobId, version: u32) -> Vec<u8> {
    let mut aad = b"calotype data key\0".to_vec();
    aad.extend_from_slice(&version.to_be_bytes());
    aad.extend_from_slice(blob.as_uuid().as_bytes());
    aad
}

fn secret_aad(context: &str) -> Vec<u8> {
    let mut aad = b"calotype secret\0".to_vec();
    aad.extend_from_slice(&VERSION.to_be_bytes());
    aad.extend_from_slice(context.as_bytes());
    aad
}

#[async_trait::async_trait]
impl KeyService for ServiceKey {
    async fn check(&self, _: &KeyUser, _: &KeyId, _: KeyPurpose) -> KeyResult<()> {
        Err(KeyFault::Missing)
    }

    async fn is_own(&self, _: &KeyUser, _: &KeyId) -> KeyResult<Option<bool>> {
        Err(KeyFault::Missing)
    }

    async fn wrap(&self, master: &MasterKey, blob: BlobId, key: &DataKey) -> KeyResult<WrappedKey> {
        match master {
            MasterKey::Service => {
                let entropy = self.entropy.as_ref();
                Ok(wrap_data_key(&self.wraps, VERSION, blob, key, entropy)?)
            }
            MasterKey::Customer(..) => Err(KeyFault::Missing),
        }
    }

    async fn unwrap(&self, blob: BlobId, wrapped: &WrappedKey) -> KeyResult<DataKey> {
        if wrapped.master_key != MASTER_KEY || wrapped.version != VERSION {
            return Err(unknown_master_key().into());
        }
        Ok(unwrap_data_key(&self.wraps, blob, wrapped)?)
    }
}

impl Secrets for ServiceKey {
    fn seal_secret(&self, context: &str, secret: &[u8]) -> Result<Vec<u8>> {
        seal_under(&self.secrets, context, secret, self.entropy.as_ref())
    }

    fn open_secret(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        open_under(&self.secrets, context, sealed)
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceKey(..)")
    }
}
