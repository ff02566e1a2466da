//! Wraps under a secret. Barbican has no call that wraps: the secret is the key. It may serve others too, so it is never
//! a cipher's key itself, only what such keys are derived from.
//!
//! # Format
//! `1 (form) || secret id (16) || salt (32) || nonce (12) || AES-256-GCM ciphertext (32) || tag (16)`. The wrapping key is
//! HKDF-SHA-256 (RFC 5869) of the secret with the salt and `"calotype/barbican-wrap/v1" || secret id || blob id`; the
//! form, the secret's id and the blob's are also the associated data.
//!
//! # Bounds
//! Each wrap has a key of its own, by its random salt: there is no bound on the number of wraps under one secret.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use calotype_core::id::BlobId;
use calotype_core::ports::{DataKey, Entropy, WrappedKey};
use calotype_core::vault::KeyBits;
use calotype_core::{Error, Result};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::cipher::Material;

/// The only version there is: a secret never changes.
pub(super) const VERSION: u32 = 1;

const FORM: u8 = 1;
const ID: usize = 16;
const SALT: usize = 32;
const KEY: usize = 32;
const TAG: usize = 16;
const LENGTH: usize = 1 + ID + SALT + NONCE_LEN + KEY + TAG;

pub(super) fn seal(
    master: &Material,
    id: Uuid,
    blob: BlobId,
    key: &DataKey,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>> {
    let (mut salt, mut nonce) = ([0; SALT], [0; NONCE_LEN]);
    entropy.fill(&mut salt);
    entropy.fill(&mut nonce);
    let cipher = cipher(master, &salt, id, blob)?;
    let mut out = Vec::with_capacity(LENGTH);
    out.push(FORM);
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(&salt);
    out.extend_from_slice(&nonce);
    let from = out.len();
    out.extend_from_slice(key.expose());
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = cipher
        .seal_in_place_separate_tag(nonce, Aad::from(context(id, blob)), &mut out[from..])
        .map_err(|_| Error::internal("sealing failed"))?;
    out.extend_from_slice(tag.as_ref());
    Ok(out)
}

/// # Errors
/// Damaged where it does not authenticate.
pub(super) fn open(
    master: &Material,
    id: Uuid,
    blob: BlobId,
    wrapped: &WrappedKey,
) -> Result<DataKey> {
    let damaged = || Error::damaged("the wrapped data key does not authenticate");
    let sealed: &[u8; LENGTH] = wrapped
        .sealed
        .as_slice()
        .try_into()
        .map_err(|_| damaged())?;
    let (head, rest) = sealed.split_at(1 + ID);
    if wrapped.version != VERSION || head[0] != FORM || head[1..] != *id.as_bytes() {
        return Err(damaged());
    }
    let (salt, rest) = rest.split_at(SALT);
    let (nonce, ciphertext) = rest.split_at(NONCE_LEN);
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
    let mut plaintext = Zeroizing::new([0; KEY + TAG]);
    plaintext.copy_from_slice(ciphertext);
    let opened = cipher(master, salt, id, blob)?
        .open_in_place(
            nonce,
            Aad::from(context(id, blob)),
            plaintext.as_mut_slice(),
        )
        .map_err(|_| damaged())?;
    let key = KeyBits::from_slice(opened).ok_or_else(damaged)?;
    Ok(key.into())
}

fn cipher(master: &Material, salt: &[u8], id: Uuid, blob: BlobId) -> Result<LessSafeKey> {
    let mut bytes = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, salt)
        .extract(master.expose().as_slice())
        .expand(
            &[
                b"calotype/barbican-wrap/v1".as_slice(),
                id.as_bytes(),
                blob.as_uuid().as_bytes(),
            ],
            HKDF_SHA256,
        )
        .and_then(|okm| okm.fill(bytes.as_mut_slice()))
        .map_err(|_| Error::internal("deriving a key failed"))?;
    let key = UnboundKey::new(&AES_256_GCM, bytes.as_slice())
        .map_err(|_| Error::internal("making a cipher failed"))?;
    Ok(LessSafeKey::new(key))
}

fn context(id: Uuid, blob: BlobId) -> [u8; 1 + 2 * ID] {
    let mut context = [FORM; 1 + 2 * ID];
    context[1..=ID].copy_from_slice(id.as_bytes());
    context[1 + ID..].copy_from_slice(blob.as_uuid().as_bytes());
    context
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemEntropy;
    use calotype_core::ErrorKind;

    #[test]
    fn a_wrap_opens_for_its_own_blob_and_secret_and_nothing_else() {
        let entropy = SystemEntropy::new();
        let (id, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (blob, elsewhere) = (BlobId::random(&entropy), BlobId::random(&entropy));
        let material = |byte| Material::from_slice(&[byte; KEY]).unwrap();
        let (master, key) = (material(3), DataKey::random(&entropy));
        let sealed = seal(&master, id, blob, &key, &entropy).unwrap();
        assert_eq!(sealed.len(), LENGTH);
        assert_ne!(sealed, seal(&master, id, blob, &key, &entropy).unwrap());
        let wrapped = WrappedKey {
            master_key: format!("barbican:{id}"),
            version: VERSION,
            sealed,
        };
        let opened = open(&master, id, blob, &wrapped).unwrap();
        assert_eq!(opened.expose(), key.expose());

        let refused = |outcome: Result<DataKey>| {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Damaged);
        };
        refused(open(&material(4), id, blob, &wrapped));
        refused(open(&master, other, blob, &wrapped));
        refused(open(&master, id, elsewhere, &wrapped));
        for bit in 0..LENGTH * 8 {
            let mut flipped = wrapped.clone();
            flipped.sealed[bit / 8] ^= 1 << (bit % 8);
            refused(open(&master, id, blob, &flipped));
        }
        for length in 0..LENGTH {
            let mut cut = wrapped.clone();
            cut.sealed.truncate(length);
            refused(open(&master, id, blob, &cut));
        }
    }
}
