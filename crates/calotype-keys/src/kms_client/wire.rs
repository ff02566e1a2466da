//! The bodies of the three calls, and the form of a stored wrap.
//!
//! # The block
//! `data key (32) || SHA-256("calotype/kms-wrap/v1" || 0 || blob id (16) || key id)`: 64 bytes.
//!
//! # The stored form
//! `1 (form) || context field (1) || ciphertext`, the ciphertext in the KMS' own hexadecimal text.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use calotype_core::id::{BlobId, KeyId};
use calotype_core::keys::{KeyFault, KeyResult};
use calotype_core::ports::{DataKey, WrappedKey};
use calotype_core::vault::KeyBits;
use calotype_core::{Error, Result};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{ContextField, sha256};
use crate::remote::unusable;
use calotype_remote::{Answer, json_text};

/// The only version there is: the KMS keeps its keys' own inside its ciphertexts.
pub(super) const VERSION: u32 = 1;

const FORM: u8 = 1;
const BLOCK: usize = 64;
const BLOCK_TEXT: &str = "64";

/// The longest ciphertext, in characters. Those of 64 bytes have 376.
const CIPHER_TEXT: usize = 4096;

/// A data key with what binds it.
pub(super) struct Block(Zeroizing<[u8; BLOCK]>);

impl Block {
    pub(super) fn new(key: &DataKey, blob: BlobId, id: &KeyId) -> Self {
        let mut block = Zeroizing::new([0; BLOCK]);
        block[..32].copy_from_slice(key.expose());
        block[32..].copy_from_slice(&binding(blob, id));
        Self(block)
    }
}

fn binding(blob: BlobId, id: &KeyId) -> [u8; 32] {
    let mut bytes = b"calotype/kms-wrap/v1\0".to_vec();
    bytes.extend_from_slice(blob.as_uuid().as_bytes());
    bytes.extend_from_slice(id.as_str().as_bytes());
    sha256(&bytes)
}

/// What the provider is told of the use of a ciphertext, and has to be told again.
#[derive(Serialize)]
pub(super) struct Context {
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_context: Option<EncryptionContext>,
    #[serde(skip_serializing_if = "Option::is_none")]
    additional_authenticated_data: Option<String>,
}

#[derive(Serialize)]
struct EncryptionContext {
    calotype: String,
}

impl Context {
    pub(super) fn new(field: ContextField, blob: BlobId) -> Self {
        let (context, data) = match field {
            ContextField::EncryptionContext => {
                let calotype = blob.to_string();
                (Some(EncryptionContext { calotype }), None)
            }
            ContextField::AdditionalData => (None, Some(format!("calotype:{blob}"))),
            ContextField::None => (None, None),
        };
        Self {
            encryption_context: context,
            additional_authenticated_data: data,
        }
    }
}

#[derive(Serialize)]
pub(super) struct Describe<'a> {
    #[serde(serialize_with = "text_of")]
    pub(super) key_id: &'a KeyId,
}

fn text_of<S: serde::Serializer>(id: &KeyId, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_str(id.as_str())
}

#[derive(Serialize)]
struct Encrypt<'a> {
    key_id: &'a str,
    plain_text: &'a str,
    datakey_plain_length: &'static str,
    #[serde(flatten)]
    context: &'a Context,
}

#[derive(Serialize)]
struct Decrypt<'a> {
    key_id: &'a str,
    cipher_text: &'a str,
    // The plaintext's length, for all its name.
    datakey_cipher_length: &'static str,
    #[serde(flatten)]
    context: &'a Context,
}

pub(super) fn encrypt(id: &KeyId, block: &Block, context: &Context) -> Result<Bytes> {
    let mut hex = Zeroizing::new([0; 2 * (BLOCK + 32)]);
    let (plain, check) = hex.split_at_mut(2 * BLOCK);
    hex::encode_to_slice(block.0.as_slice(), plain).map_err(Error::internal)?;
    hex::encode_to_slice(sha256(block.0.as_slice()), check).map_err(Error::internal)?;
    json_text(&Encrypt {
        key_id: id.as_str(),
        plain_text: std::str::from_utf8(hex.as_slice()).map_err(Error::internal)?,
        datakey_plain_length: BLOCK_TEXT,
        context,
    })
}

pub(super) fn decrypt(id: &KeyId, cipher: &str, context: &Context) -> Result<Bytes> {
    json_text(&Decrypt {
        key_id: id.as_str(),
        cipher_text: cipher,
        datakey_cipher_length: BLOCK_TEXT,
        context,
    })
}

#[derive(Deserialize)]
struct Described {
    key_info: KeyInfo,
}

#[derive(Deserialize)]
struct KeyInfo {
    key_id: String,
    key_state: String,
    // Older answers have neither.
    #[serde(default)]
    key_spec: Option<String>,
    #[serde(default)]
    key_usage: Option<String>,
}

/// That a description is of this key, and of one that can be used: enabled, and symmetric.
pub(super) fn described(answer: &Answer, id: &KeyId) -> KeyResult<()> {
    let described: Described = parse(answer)?;
    let info = described.key_info;
    if info.key_id != id.as_str() {
        return Err(unusable("the KMS described another key").into());
    }
    let is = |value: Option<&str>, wanted: &str| {
        value.is_none_or(|value| value.is_empty() || value.eq_ignore_ascii_case(wanted))
    };
    let usable = info.key_state == "2"
        && is(info.key_spec.as_deref(), "AES_256")
        && is(info.key_usage.as_deref(), "ENCRYPT_DECRYPT");
    if usable {
        Ok(())
    } else {
        Err(KeyFault::NotEnabled)
    }
}

#[derive(Serialize)]
pub(super) struct ListGrants<'a> {
    #[serde(serialize_with = "text_of")]
    key_id: &'a KeyId,
    limit: &'static str,
}

impl<'a> ListGrants<'a> {
    /// As many as fit into an answer. A key has a hundred at the most, and who has more than these may let in anybody.
    pub(super) fn of(key_id: &'a KeyId) -> Self {
        let limit = "50";
        Self { key_id, limit }
    }
}

#[derive(Deserialize)]
struct Grants {
    grants: Vec<Grant>,
    // "true" or "false".
    #[serde(default)]
    truncated: String,
}

#[derive(Deserialize)]
struct Grant {
    grantee_principal: String,
    // Older answers have none: then it is a user.
    #[serde(default)]
    grantee_principal_type: Option<String>,
    operations: Vec<String>,
}

/// Whether a key lets anybody read what it seals, beside its own project and the service's user. None where the user is not
/// known: then a grant that is the service's is not told from another.
pub(super) fn lets_others_read(answer: &Answer, service: Option<&str>) -> Result<bool> {
    let list: Grants = parse(answer)?;
    let reads = |grant: &Grant| {
        let has = |wanted: &str| grant.operations.iter().any(|word| word == wanted);
        has("describe-key") && has("decrypt-datakey")
    };
    let is_service = |grant: &Grant| {
        let kind = grant.grantee_principal_type.as_deref().unwrap_or("user");
        kind == "user" && service == Some(grant.grantee_principal.as_str())
    };
    let others = list
        .grants
        .iter()
        .any(|grant| reads(grant) && !is_service(grant));
    Ok(others || list.truncated == "true")
}

#[derive(Serialize)]
pub(super) struct ListKeys {
    pub(super) limit: &'static str,
}

#[derive(Deserialize)]
struct Keys {
    #[serde(rename = "keys")]
    _keys: Vec<String>,
}

/// That an answer is a list of keys.
pub(super) fn listed(answer: &Answer) -> Result<()> {
    parse::<Keys>(answer).map(drop)
}

#[derive(Deserialize)]
struct Encrypted {
    key_id: String,
    cipher_text: String,
}

/// The ciphertext, which is nobody's secret.
pub(super) fn encrypted(answer: &Answer, id: &KeyId) -> Result<String> {
    let encrypted: Encrypted = parse(answer)?;
    if encrypted.key_id != id.as_str() {
        return Err(unusable("the KMS encrypted under another key"));
    }
    let text = encrypted.cipher_text;
    let plain = (1..=CIPHER_TEXT).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
    if plain {
        Ok(text)
    } else {
        Err(unusable("the KMS gave no ciphertext"))
    }
}

// Borrowed, so that the only copy of the key's text is in the answer, which is erased.
#[derive(Deserialize)]
struct Decrypted<'a> {
    data_key: &'a str,
    datakey_dgst: &'a str,
}

/// The data key, where all that speaks for it is right.
///
/// # Errors
/// Damaged where it is whole and belongs to another blob or master key. Unavailable where the answer is not understood, or
/// does not agree with itself: that says nothing of the wrap.
pub(super) fn decrypted(answer: &Answer, blob: BlobId, id: &KeyId) -> Result<DataKey> {
    let decrypted: Decrypted<'_> = serde_json::from_slice(&answer.body).map_err(|_| unread())?;
    let mut block = Zeroizing::new([0; BLOCK]);
    let mut check = [0; 32];
    hex::decode_to_slice(decrypted.data_key, block.as_mut_slice())
        .map_err(|_| unusable("the KMS gave a data key of another length"))?;
    hex::decode_to_slice(decrypted.datakey_dgst, &mut check)
        .map_err(|_| unusable("the KMS gave no digest of the data key"))?;
    let digest = verify_slices_are_equal(&sha256(block.as_slice()), &check);
    let bound = verify_slices_are_equal(&block[32..], &binding(blob, id));
    if digest.is_err() {
        return Err(unusable("the data key's digest is wrong"));
    }
    if bound.is_err() {
        return Err(Error::damaged(
            "the data key is another blob's or master key's",
        ));
    }
    Ok(KeyBits::written(|bits| bits.copy_from_slice(&block[..32])).into())
}

fn parse<'a, T: Deserialize<'a>>(answer: &'a Answer) -> Result<T> {
    serde_json::from_slice(&answer.body).map_err(|_| unread())
}

fn unread() -> Error {
    unusable("the KMS' answer is not understood")
}

/// A wrap as it is stored.
pub(super) struct Sealed {
    context: ContextField,
    cipher_text: String,
}

impl Sealed {
    pub(super) fn new(context: ContextField, cipher_text: String) -> Self {
        Self {
            context,
            cipher_text,
        }
    }

    pub(super) fn context(&self) -> ContextField {
        self.context
    }

    pub(super) fn cipher_text(&self) -> &str {
        &self.cipher_text
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let field = match self.context {
            ContextField::None => 0,
            ContextField::EncryptionContext => 1,
            ContextField::AdditionalData => 2,
        };
        let mut bytes = vec![FORM, field];
        bytes.extend_from_slice(self.cipher_text.as_bytes());
        Ok(bytes)
    }

    /// Nothing where it is none.
    pub(super) fn decode(wrapped: &WrappedKey) -> Option<Self> {
        let (&[form, field], text) = wrapped.sealed.split_first_chunk()?;
        let context = match field {
            0 => ContextField::None,
            1 => ContextField::EncryptionContext,
            2 => ContextField::AdditionalData,
            _ => return None,
        };
        if form != FORM || wrapped.version != VERSION || text.len() > CIPHER_TEXT {
            return None;
        }
        let cipher_text = std::str::from_utf8(text).ok()?.to_owned();
        Some(Self::new(context, cipher_text))
    }
}
