//! Data keys and short texts under a customer's master key.
//!
//! # Format
//! A cipher text is `1 || key id (16) || version (4, big endian) || what was sealed`; what was sealed is
//! `2 || salt (32) || ciphertext || tag (16)` (see [`crate::cipher`]), with all before it and the context as associated
//! data. So it names its key and version, and opens under no other, in no other context and for no other purpose.

use calotype_core::access::Action;
use calotype_core::codes::KmsCode;
use calotype_core::id::MasterKeyId;
use calotype_core::master_key::{KeyOperation, MasterKeyRecord};
use calotype_core::{Error, Result};
use serde_json::json;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Context, KeyRef, Permitted};
use crate::cipher::{open_salted, seal_salted};
use crate::embedded::EmbeddedKeys;

const FORMAT: u8 = 1;
const HEADER_LEN: usize = 1 + 16 + 4;

/// What material is used for here.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    DataKeys,
    Data,
}

impl Purpose {
    const fn word(self) -> &'static [u8] {
        match self {
            Self::DataKeys => b"kms data keys",
            Self::Data => b"kms data",
        }
    }
}

/// A data key that was made.
pub struct FreshDataKey {
    /// The master key.
    pub key: MasterKeyId,
    /// Its bits, where the caller may see them.
    pub plain: Option<Zeroizing<Vec<u8>>>,
    /// Its bits under the master key.
    pub cipher: Vec<u8>,
}

struct Named {
    key: MasterKeyId,
    version: u32,
}

fn header(key: MasterKeyId, version: u32) -> Vec<u8> {
    let mut header = vec![FORMAT];
    header.extend_from_slice(key.as_uuid().as_bytes());
    header.extend_from_slice(&version.to_be_bytes());
    header
}

/// The key and version that a cipher text names.
fn named_in(cipher: &[u8]) -> Option<Named> {
    let (header, _) = cipher.split_at_checked(HEADER_LEN)?;
    let (format, rest) = header.split_first()?;
    let (key, version) = rest.split_at_checked(16)?;
    (*format == FORMAT).then_some(())?;
    Some(Named {
        key: Uuid::from_slice(key).ok()?.into(),
        version: u32::from_be_bytes(version.try_into().ok()?),
    })
}

fn aad(header: &[u8], context: &Context) -> Vec<u8> {
    let mut aad = b"calotype kms\0".to_vec();
    aad.extend_from_slice(header);
    context.append_to(&mut aad);
    aad
}

fn bad_cipher() -> Error {
    Error::kms(KmsCode::KMS_2201)
}

impl EmbeddedKeys {
    /// Makes a data key of so many bytes, wrapped under a master key. Only where it is `visible` are its bits returned.
    ///
    /// # Errors
    /// KMS.0207, KMS.0306, KMS.0209, KMS.0210.
    pub async fn create_data_key(
        &self,
        by: &Permitted<'_>,
        key: &KeyRef,
        bytes: usize,
        context: &Context,
        visible: bool,
    ) -> Result<FreshDataKey> {
        by.takes(Action::DataKeysSeal)?;
        let (operation, trace) = if visible {
            (KeyOperation::CreateDataKey, "createDataKey")
        } else {
            (
                KeyOperation::CreateDataKeyWithoutPlaintext,
                "createDataKeyWithoutPlaintext",
            )
        };
        let key = self.key_for(by, key, operation).await?;
        let mut plain = Zeroizing::new(vec![0; bytes]);
        self.entropy.fill(&mut plain);
        let cipher = self
            .encrypt(by, &key, Purpose::DataKeys, context, &plain, trace)
            .await?;
        Ok(FreshDataKey {
            key: key.id,
            plain: visible.then_some(plain),
            cipher,
        })
    }

    /// Wraps a data key that the caller has.
    ///
    /// # Errors
    /// As [`EmbeddedKeys::create_data_key`].
    pub async fn encrypt_data_key(
        &self,
        by: &Permitted<'_>,
        key: &KeyRef,
        context: &Context,
        plain: &[u8],
    ) -> Result<(MasterKeyId, Vec<u8>)> {
        by.takes(Action::DataKeysOpen)?;
        let key = self.key_for(by, key, KeyOperation::EncryptDataKey).await?;
        let (purpose, trace) = (Purpose::DataKeys, "encryptDataKey");
        let cipher = self.encrypt(by, &key, purpose, context, plain, trace);
        Ok((key.id, cipher.await?))
    }

    /// Unwraps a data key.
    ///
    /// # Errors
    /// As [`EmbeddedKeys::create_data_key`]; KMS.2201 where it does not open under this key in this context, whatever
    /// the reason.
    pub async fn decrypt_data_key(
        &self,
        by: &Permitted<'_>,
        key: &KeyRef,
        context: &Context,
        cipher: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        by.takes(Action::DataKeysOpen)?;
        let key = self.key_for(by, key, KeyOperation::DecryptDataKey).await?;
        let (purpose, trace) = (Purpose::DataKeys, "decryptDataKey");
        self.decrypt(by, &key, purpose, context, cipher, trace)
            .await
    }

    /// Encrypts a short text.
    ///
    /// # Errors
    /// As [`EmbeddedKeys::create_data_key`].
    pub async fn encrypt_data(
        &self,
        by: &Permitted<'_>,
        key: &KeyRef,
        context: &Context,
        plain: &[u8],
    ) -> Result<(MasterKeyId, Vec<u8>)> {
        by.takes(Action::DataCrypto)?;
        let key = self.key_for(by, key, KeyOperation::EncryptData).await?;
        let cipher = self.encrypt(by, &key, Purpose::Data, context, plain, "encryptData");
        Ok((key.id, cipher.await?))
    }

    /// Decrypts a short text. The cipher text names its key; a key that the request names must be that one.
    ///
    /// # Errors
    /// As [`EmbeddedKeys::decrypt_data_key`].
    pub async fn decrypt_data(
        &self,
        by: &Permitted<'_>,
        key: Option<&KeyRef>,
        context: &Context,
        cipher: &[u8],
    ) -> Result<(MasterKeyId, Zeroizing<Vec<u8>>)> {
        by.takes(Action::DataCrypto)?;
        let named = || named_in(cipher).map(|named| KeyRef::Id(named.key));
        let key = match key {
            Some(key) => key.clone(),
            None => named().ok_or_else(bad_cipher)?,
        };
        let key = self.key_for(by, &key, KeyOperation::DecryptData).await?;
        let plain = self.decrypt(by, &key, Purpose::Data, context, cipher, "decryptData");
        Ok((key.id, plain.await?))
    }

    /// Makes random bytes.
    ///
    /// # Errors
    /// None but a fault of ours.
    pub fn random(&self, by: &Permitted<'_>, bytes: usize) -> Result<Zeroizing<Vec<u8>>> {
        by.takes(Action::RandomGenerate)?;
        let mut random = Zeroizing::new(vec![0; bytes]);
        self.entropy.fill(&mut random);
        Ok(random)
    }

    async fn encrypt(
        &self,
        by: &Permitted<'_>,
        key: &MasterKeyRecord,
        purpose: Purpose,
        context: &Context,
        plain: &[u8],
        trace: &str,
    ) -> Result<Vec<u8>> {
        let (id, version) = (key.id, key.version);
        let material = self.material_of(id, version).await?;
        let material = material.ok_or_else(|| Error::kms(KmsCode::KMS_0207))?;
        let mut cipher = header(id, version);
        let aad = aad(&cipher, context);
        let entropy = self.entropy.as_ref();
        let sealed = seal_salted(&material, purpose.word(), &aad, plain, entropy)?;
        cipher.extend_from_slice(&sealed);
        self.note_use(by, key, version, trace).await?;
        Ok(cipher)
    }

    async fn decrypt(
        &self,
        by: &Permitted<'_>,
        key: &MasterKeyRecord,
        purpose: Purpose,
        context: &Context,
        cipher: &[u8],
        trace: &str,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let named = named_in(cipher).filter(|named| named.key == key.id);
        let version = named.ok_or_else(bad_cipher)?.version;
        let material = self.material_of(key.id, version).await?;
        let material = material.ok_or_else(bad_cipher)?;
        let (header, sealed) = cipher.split_at_checked(HEADER_LEN).ok_or_else(bad_cipher)?;
        let aad = aad(header, context);
        let plain = open_salted(&material, purpose.word(), &aad, sealed);
        let plain = plain.ok_or_else(bad_cipher)?;
        self.note_use(by, key, version, trace).await?;
        Ok(plain)
    }

    /// Writes that a key was used, before the caller has what it was used for.
    async fn note_use(
        &self,
        by: &Permitted<'_>,
        key: &MasterKeyRecord,
        version: u32,
        trace: &str,
    ) -> Result<()> {
        let detail = json!({ "version": version });
        let line = self.line(by, trace, key.id, detail);
        self.catalog.note_use(&line).await
    }
}
