//! Root keys: the keys at the end of every chain. They wrap master keys, and are kept outside the catalog.

use std::fmt;
use std::sync::Arc;

use calotype_core::ports::{Entropy, WrappedMaterial};
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};
use zeroize::Zeroizing;

use crate::cipher::{Material, open, seal};

/// What stands before a root key's digits in its file.
const PREFIX: &str = "calotype-service-key-1:";
/// The most root keys that a ring may have.
pub(crate) const MAX_ROOTS: usize = 16;
/// How much of the key check value names a root key, in bytes.
const NAME_LEN: usize = 8;

/// A root key.
pub(crate) struct RootKey {
    name: String,
    material: Material,
    wraps: Material,
}

impl RootKey {
    pub(crate) fn new(material: Material) -> Result<Self> {
        // One way: the name tells nothing of the key.
        let check = material.subkey(b"root key name")?;
        Ok(Self {
            name: hex::encode(&check.expose()[..NAME_LEN]),
            wraps: material.subkey(b"master keys")?,
            material,
        })
    }

    /// Its key check value, in hexadecimal.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn material(&self) -> &Material {
        &self.material
    }

    /// Wraps a version of a master key, bound to both.
    pub(crate) fn wrap(
        &self,
        key: &str,
        version: u32,
        material: &Material,
        created_at: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<WrappedMaterial> {
        let aad = material_aad(key, version);
        Ok(WrappedMaterial {
            key: key.to_owned(),
            version,
            root: self.name.clone(),
            wrapped: seal(&self.wraps, &aad, material.expose().as_slice(), entropy)?,
            created_at,
        })
    }

    /// Unwraps what [`RootKey::wrap`] made.
    ///
    /// # Errors
    /// Internal where it does not authenticate.
    pub(crate) fn unwrap(&self, wrapped: &WrappedMaterial) -> Result<Material> {
        let aad = material_aad(&wrapped.key, wrapped.version);
        open(&self.wraps, &aad, &wrapped.wrapped)
            .and_then(|opened| Material::from_slice(&opened))
            .ok_or_else(|| {
                Error::internal(format!(
                    "version {} of the master key {} does not authenticate under the root key {}",
                    wrapped.version, wrapped.key, self.name
                ))
            })
    }
}

fn material_aad(key: &str, version: u32) -> Vec<u8> {
    let mut aad = b"calotype master key\0".to_vec();
    aad.extend_from_slice(&version.to_be_bytes());
    aad.extend_from_slice(key.as_bytes());
    aad
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootKey({})", self.name)
    }
}

fn without_prefix(text: &str) -> &str {
    text.strip_prefix(PREFIX).unwrap_or(text)
}

/// A ring of root keys. Its maker wants the first to wrap; the others only unwrap.
#[derive(Debug, Clone)]
pub(crate) struct RootRing(Vec<Arc<RootKey>>);

impl RootRing {
    /// Reads a file's lines: each a key, with or without what this service puts before it, and nothing else.
    pub(crate) fn of_lines(text: &str) -> Option<Self> {
        Self::of_digits(text.lines().map(without_prefix))
    }

    /// Reads keys with commas or white space between them, each with or without what stands before it in a file.
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        let words = text.split(|c: char| c == ',' || c.is_whitespace());
        let words = words.filter(|word| !word.is_empty());
        Self::of_digits(words.map(without_prefix))
    }

    fn of_digits<'a>(digits: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut ring: Vec<Arc<RootKey>> = Vec::new();
        for digits in digits {
            let root = RootKey::new(Material::from_hex(digits)?).ok()?;
            if ring.iter().any(|other| other.name == root.name) || ring.len() == MAX_ROOTS {
                return None;
            }
            ring.push(Arc::new(root));
        }
        (!ring.is_empty()).then_some(Self(ring))
    }

    pub(crate) fn first(&self) -> Result<&Arc<RootKey>> {
        let first = self.0.first();
        first.ok_or_else(|| Error::internal("a ring without a root key"))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<RootKey>> {
        self.0.iter().find(|root| root.name == name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<RootKey>> {
        self.0.iter()
    }

    /// The ring with another key, which its maker wants to wrap; none where there is no room for it.
    pub(crate) fn with_first(mut self, first: RootKey) -> Option<Self> {
        if self.0.len() >= MAX_ROOTS {
            return None;
        }
        self.0.insert(0, Arc::new(first));
        Some(self)
    }

    /// The ring without those of these names.
    pub(crate) fn without(&self, names: &[String]) -> Self {
        let left = self.0.iter().filter(|root| !names.contains(&root.name));
        Self(left.cloned().collect())
    }

    /// The names of all, for people.
    pub(crate) fn names(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|root| root.name()).collect();
        names.join(", ")
    }
}

/// A root key's line in its file.
pub(crate) fn line_of(root: &Material) -> Zeroizing<String> {
    let bits = root.expose();
    let digits = bits.len() * 2;
    let mut line = Zeroizing::new(String::with_capacity(PREFIX.len() + digits + 1));
    line.push_str(PREFIX);
    let mut hex = Zeroizing::new(vec![0; digits]);
    // It has room for every digit, and digits are text.
    if hex::encode_to_slice(bits.as_slice(), &mut hex).is_ok()
        && let Ok(text) = std::str::from_utf8(&hex)
    {
        line.push_str(text);
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests;
