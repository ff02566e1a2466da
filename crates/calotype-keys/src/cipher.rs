//! How keys come from keys, and how short things are sealed under them.
//!
//! # Formats
//! Under a key that seals often but not without end (a root key, the service's own master keys):
//! `1 || nonce (12) || AES-256-GCM ciphertext || tag (16)`. Nonces are random: NIST SP 800-38D allows 2^32 of them
//! under one key.
//!
//! Under a customer's master key, which may be asked any number of times: `2 || salt (32) || ciphertext || tag (16)`,
//! where HKDF-SHA-256 of the master key's material and the salt gives a key and a nonce for this one message.

use std::fmt;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use calotype_core::ports::Entropy;
use calotype_core::vault::{Kept, KeyBits, Vault};
use calotype_core::{Error, Result};
use zeroize::Zeroizing;

const FORMAT: u8 = 1;
const SALTED_FORMAT: u8 = 2;
const TAG_LEN: usize = 16;
const SALT_LEN: usize = 32;
const KEY_LEN: usize = 32;

/// How much material there is room for in the vault: what is remembered of customers' keys and of Barbican's secrets, the
/// root keys and the service's own keys, and as much again for what is in use.
const PLACES: usize = 4096;

/// The memory of all material in this process.
static VAULT: LazyLock<Vault> = LazyLock::new(|| Vault::new(PLACES));

/// The 256 bits of a root key, of a version of a master key, or of a secret of Barbican's. They are in locked memory, and
/// come out of it for as long as a use takes; clones share one place. Erased when dropped, and never shown.
#[derive(Clone)]
pub(crate) struct Material(Arc<Place>);

enum Place {
    Vault(Kept),
    /// Where the vault is full.
    Heap(KeyBits),
}

impl Material {
    pub(crate) fn random(entropy: &dyn Entropy) -> Self {
        KeyBits::written(|bits| entropy.fill(bits)).into()
    }

    /// None where it is not as long as a key.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        KeyBits::from_slice(bytes).map(Self::from)
    }

    /// Reads 64 hexadecimal digits, in either case.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut read = Ok(());
        let bits = KeyBits::written(|bits| read = hex::decode_to_slice(text, bits));
        read.ok().map(|()| bits.into())
    }

    /// Its bits, for a use.
    pub(crate) fn expose(&self) -> KeyBits {
        match self.0.as_ref() {
            Place::Vault(kept) => kept.key(),
            Place::Heap(bits) => bits.clone(),
        }
    }

    /// Whether it is the same, compared in constant time.
    pub(crate) fn is(&self, other: &Self) -> bool {
        verify_slices_are_equal(self.expose().as_slice(), other.expose().as_slice()).is_ok()
    }

    /// The key that comes from this one for a purpose.
    pub(crate) fn subkey(&self, purpose: &[u8]) -> Result<Self> {
        let mut derived = Ok(());
        let bits = KeyBits::written(|bits| {
            derived = derive(b"calotype service key 1", self, purpose, bits);
        });
        derived.map(|()| bits.into())
    }

    /// The cipher of this key, for one use: it has a copy of the key, which is erased with it.
    fn cipher(&self) -> Result<LessSafeKey> {
        let key = UnboundKey::new(&AES_256_GCM, self.expose().as_slice())
            .map_err(|_| Error::internal("making a cipher failed"))?;
        Ok(LessSafeKey::new(key))
    }
}

impl From<KeyBits> for Material {
    fn from(bits: KeyBits) -> Self {
        let place = VAULT.keep(&bits);
        Self(Arc::new(place.map_or(Place::Heap(bits), Place::Vault)))
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Material(..)")
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derive(salt: &[u8], from: &Material, purpose: &[u8], out: &mut [u8]) -> Result<()> {
    Salt::new(HKDF_SHA256, salt)
        .extract(from.expose().as_slice())
        .expand(&[purpose], Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .map_err(|_| Error::internal("deriving a key failed"))
}

/// Seals under a key that is used up to 2^32 times.
pub(crate) fn seal(
    key: &Material,
    aad: &[u8],
    plaintext: &[u8],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>> {
    let mut nonce = [0; NONCE_LEN];
    entropy.fill(&mut nonce);
    let mut sealed = Vec::with_capacity(1 + NONCE_LEN + plaintext.len() + TAG_LEN);
    sealed.push(FORMAT);
    sealed.extend_from_slice(&nonce);
    let nonce = Nonce::assume_unique_for_key(nonce);
    append_sealed(&key.cipher()?, nonce, aad, plaintext, &mut sealed)?;
    Ok(sealed)
}

/// Opens what [`seal`] made; nothing where it does not authenticate.
pub(crate) fn open(key: &Material, aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (format, rest) = sealed.split_first()?;
    if *format != FORMAT || rest.len() < NONCE_LEN + TAG_LEN {
        return None;
    }
    let (nonce, ciphertext) = rest.split_at(NONCE_LEN);
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    opened(&key.cipher().ok()?, nonce, aad, ciphertext)
}

/// Seals under a key that is used without end, for a purpose.
pub(crate) fn seal_salted(
    material: &Material,
    purpose: &[u8],
    aad: &[u8],
    plaintext: &[u8],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>> {
    let mut salt = [0; SALT_LEN];
    entropy.fill(&mut salt);
    let (key, nonce) = message_key(material, &salt, purpose)?;
    let mut sealed = Vec::with_capacity(1 + SALT_LEN + plaintext.len() + TAG_LEN);
    sealed.push(SALTED_FORMAT);
    sealed.extend_from_slice(&salt);
    append_sealed(&key, nonce, aad, plaintext, &mut sealed)?;
    Ok(sealed)
}

/// Opens what [`seal_salted`] made; nothing where it does not authenticate.
pub(crate) fn open_salted(
    material: &Material,
    purpose: &[u8],
    aad: &[u8],
    sealed: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let (format, rest) = sealed.split_first()?;
    if *format != SALTED_FORMAT || rest.len() < SALT_LEN + TAG_LEN {
        return None;
    }
    let (salt, ciphertext) = rest.split_at(SALT_LEN);
    let (key, nonce) = message_key(material, salt, purpose).ok()?;
    opened(&key, nonce, aad, ciphertext)
}

fn message_key(material: &Material, salt: &[u8], purpose: &[u8]) -> Result<(LessSafeKey, Nonce)> {
    let mut both = Zeroizing::new([0; KEY_LEN + NONCE_LEN]);
    derive(salt, material, purpose, both.as_mut_slice())?;
    let (key, nonce) = both.split_at(KEY_LEN);
    let unusable = || Error::internal("making a cipher failed");
    let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| unusable())?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| unusable())?;
    Ok((LessSafeKey::new(key), nonce))
}

fn append_sealed(
    key: &LessSafeKey,
    nonce: Nonce,
    aad: &[u8],
    plaintext: &[u8],
    sealed: &mut Vec<u8>,
) -> Result<()> {
    let from = sealed.len();
    sealed.extend_from_slice(plaintext);
    let tag = key
        .seal_in_place_separate_tag(nonce, Aad::from(aad), &mut sealed[from..])
        .map_err(|_| Error::internal("sealing failed"))?;
    sealed.extend_from_slice(tag.as_ref());
    Ok(())
}

fn opened(
    key: &LessSafeKey,
    nonce: Nonce,
    aad: &[u8],
    ciphertext: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let mut plaintext = Zeroizing::new(ciphertext.to_vec());
    let length = key
        .open_in_place(nonce, Aad::from(aad), &mut plaintext)
        .ok()?
        .len();
    plaintext.truncate(length);
    Some(plaintext)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemEntropy;

    #[test]
    fn what_is_sealed_under_a_salt_opens_with_its_material_purpose_and_context_only() {
        let entropy = SystemEntropy::new();
        let (one, other) = (Material::random(&entropy), Material::random(&entropy));
        let sealed = seal_salted(&one, b"p", b"aad", b"secret", &entropy).unwrap();
        let opened = open_salted(&one, b"p", b"aad", &sealed).unwrap();
        assert_eq!(opened.as_slice(), b"secret");
        assert_ne!(
            sealed,
            seal_salted(&one, b"p", b"aad", b"secret", &entropy).unwrap()
        );
        assert!(open_salted(&other, b"p", b"aad", &sealed).is_none());
        assert!(open_salted(&one, b"q", b"aad", &sealed).is_none());
        assert!(open_salted(&one, b"p", b"", &sealed).is_none());
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open_salted(&one, b"p", b"aad", &flipped).is_none(), "{bit}");
        }
        for length in 0..sealed.len() {
            assert!(open_salted(&one, b"p", b"aad", &sealed[..length]).is_none());
        }
        assert!(open(&one, b"aad", &sealed).is_none());
    }
}
