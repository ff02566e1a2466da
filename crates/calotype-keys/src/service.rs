//! The service's own master key.
//!
//! # Format
//! One 256-bit root key. HKDF-SHA-256 (RFC 5869) makes a subkey for each purpose, so that no wrap of a
//! data key can pass for a secret or the other way round. What is sealed is
//! `1 (format) || nonce (12) || AES-256-GCM ciphertext || tag (16)`, with the purpose, the version and
//! the blob's id or the context as associated data.
//!
//! # Bounds
//! Nonces are random: NIST SP 800-38D allows 2^32 of them under one key. That is one data key a second
//! for 136 years.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use calotype_core::id::{BlobId, KeyId};
use calotype_core::keys::{KeyFault, KeyPurpose, KeyResult, KeyUser, MasterKey};
use calotype_core::ports::{DataKey, Entropy, KeyService, Secrets, WrappedKey};
use calotype_core::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

use crate::file;

/// The id of the service's own master key in a [`WrappedKey`].
const MASTER_KEY: &str = "service";
/// The only version there is so far.
const VERSION: u32 = 1;
const FORMAT: u8 = 1;
const TAG_LEN: usize = 16;

/// The service's own master key: a [`KeyService`] that needs nothing but itself.
pub struct ServiceKey {
    wraps: LessSafeKey,
    secrets: LessSafeKey,
    entropy: Arc<dyn Entropy>,
}

impl ServiceKey {
    /// The key in the file at `path`, which is made, mode 0600 and durable, where there is none.
    ///
    /// # Errors
    /// Internal where the file can't be read or made, where anybody but its owner may read it, or where
    /// it holds something else than a key. A file that is refused is never replaced.
    pub fn open_or_create(path: &Path, entropy: Arc<dyn Entropy>) -> Result<Self> {
        let root = file::open_or_create(path, entropy.as_ref())?;
        Self::from_root(&root, entropy)
    }

    /// The key given as 64 hexadecimal digits, as the environment or a system credential holds it.
    ///
    /// # Errors
    /// InvalidRequest where `text` is not such a key. The message does not repeat it.
    pub fn from_hex(text: &str, entropy: Arc<dyn Entropy>) -> Result<Self> {
        let root = file::parse_hex(text).ok_or_else(|| {
            Error::invalid("The service key must be 64 hexadecimal digits (256 bits).")
        })?;
        Self::from_root(&root, entropy)
    }

    fn from_root(root: &[u8; 32], entropy: Arc<dyn Entropy>) -> Result<Self> {
        Ok(Self {
            wraps: subkey(root, b"data keys")?,
            secrets: subkey(root, b"secrets")?,
            entropy,
        })
    }

    fn seal(&self, key: &LessSafeKey, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        self.entropy.fill(&mut nonce);
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + plaintext.len() + TAG_LEN);
        sealed.push(FORMAT);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);
        let tag = key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                &mut sealed[1 + NONCE_LEN..],
            )
            .map_err(|_| Error::internal("sealing failed"))?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }
}

fn subkey(root: &[u8; 32], purpose: &[u8]) -> Result<LessSafeKey> {
    let mut bytes = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, b"calotype service key 1")
        .extract(root)
        .expand(&[purpose], HKDF_SHA256)
        .and_then(|okm| okm.fill(bytes.as_mut_slice()))
        .map_err(|_| Error::internal("deriving a key failed"))?;
    let key = UnboundKey::new(&AES_256_GCM, bytes.as_slice())
        .map_err(|_| Error::internal("making a cipher failed"))?;
    Ok(LessSafeKey::new(key))
}

/// Opens `sealed`; nothing where it does not authenticate.
fn open(key: &LessSafeKey, aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (format, rest) = sealed.split_first()?;
    if *format != FORMAT || rest.len() < NONCE_LEN + TAG_LEN {
        return None;
    }
    let (nonce, ciphertext) = rest.split_at(NONCE_LEN);
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut plaintext = Zeroizing::new(ciphertext.to_vec());
    let length = key
        .open_in_place(nonce, Aad::from(aad), &mut plaintext)
        .ok()?
        .len();
    plaintext.truncate(length);
    Some(plaintext)
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

    async fn is_own(&self, _: &KeyUser, _: &KeyId) -> KeyResult<bool> {
        Err(KeyFault::Missing)
    }

    async fn wrap(&self, master: &MasterKey, blob: BlobId, key: &DataKey) -> KeyResult<WrappedKey> {
        match master {
            MasterKey::Service => Ok(WrappedKey {
                master_key: MASTER_KEY.to_owned(),
                version: VERSION,
                sealed: self.seal(&self.wraps, &wrap_aad(blob, VERSION), key.expose())?,
            }),
            MasterKey::Customer(..) => Err(KeyFault::Missing),
        }
    }

    async fn unwrap(&self, blob: BlobId, wrapped: &WrappedKey) -> KeyResult<DataKey> {
        let damaged = |what: &'static str| KeyFault::Failed(Error::damaged(what));
        if wrapped.master_key != MASTER_KEY || wrapped.version != VERSION {
            return Err(damaged("the data key names no master key of this service"));
        }
        let opened = open(
            &self.wraps,
            &wrap_aad(blob, wrapped.version),
            &wrapped.sealed,
        )
        .ok_or_else(|| damaged("the wrapped data key does not authenticate"))?;
        let bytes = Zeroizing::new(
            <[u8; 32]>::try_from(opened.as_slice())
                .map_err(|_| damaged("the wrapped data key has a wrong length"))?,
        );
        Ok(DataKey::new(*bytes))
    }
}

impl Secrets for ServiceKey {
    fn seal_secret(&self, context: &str, secret: &[u8]) -> Result<Vec<u8>> {
        self.seal(&self.secrets, &secret_aad(context), secret)
    }

    fn open_secret(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        open(&self.secrets, &secret_aad(context), sealed).ok_or_else(|| {
            Error::new(ErrorKind::Damaged, "A stored secret is damaged.")
                .with_context("a sealed secret does not authenticate")
        })
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceKey(..)")
    }
}
