//! The service's own master keys: `service` wraps the data keys of images without a key of a customer's, and `secrets`
//! seals the secrets of access keys.
//!
//! They are in the catalog, wrapped. What a first start writes there is, in this order:
//! - the keys that are kept beside the blobs, where there are some: the catalog is a new one over old blobs;
//! - the keys that were derived from the root key, where the catalog is of the time before it kept master keys;
//! - fresh ones.
//!
//! # Disaster copy
//! The label `keyring` beside the blobs is a copy of the wrapped keys, so that who loses the catalog and still has the
//! root key can open the blobs. It is written after the catalog, and compared with it again and again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use calotype_core::ports::{Clock, Entropy, Labels, Legacy, MasterKeys, WrappedMaterial};
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::cipher::Material;
use crate::ring::RootRing;
use crate::roots::Roots;
use crate::service::{MASTER_KEY, VERSION, derived_secrets, derived_wraps, open_under};

/// The name of the key that seals secrets.
const SECRETS: &str = "secrets";
/// The name of the label that is the disaster copy.
const LABEL: &str = "keyring";
const FORMAT: &str = "calotype keyring 1";

/// The label's document.
#[derive(Debug, Serialize, Deserialize)]
struct Copied {
    format: String,
    keys: Vec<CopiedKey>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CopiedKey {
    key: String,
    version: u32,
    root: String,
    #[serde(with = "hex")]
    wrapped: Vec<u8>,
    created_at: i64,
}

/// The service's own master keys, open.
pub(crate) struct Keyring {
    wraps: BTreeMap<u32, Material>,
    secrets: Material,
}

/// What a keyring is opened on.
pub(crate) struct KeyringPorts<'a> {
    pub(crate) catalog: &'a dyn MasterKeys,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) entropy: &'a Arc<dyn Entropy>,
}

/// What there is before the service has keys in its catalog.
pub(crate) struct Found {
    copied: Option<Vec<WrappedMaterial>>,
    legacy: Legacy,
    in_catalog: bool,
}

impl Found {
    /// Looks.
    ///
    /// # Errors
    /// InvalidRequest where the label is not one that this version knows.
    pub(crate) async fn look(catalog: &dyn MasterKeys, labels: &dyn Labels) -> Result<Self> {
        Ok(Self {
            copied: match labels.label(LABEL).await? {
                Some(bytes) => Some(read_copy(&bytes)?),
                None => None,
            },
            legacy: catalog.legacy().await?,
            in_catalog: !catalog.service_material().await?.is_empty(),
        })
    }

    /// Whether nothing was ever sealed: only then may a root key be made.
    pub(crate) fn is_first_start(&self) -> bool {
        let old = self.legacy.blobs || self.legacy.access_key.is_some();
        !self.in_catalog && self.copied.is_none() && !old
    }
}

impl Keyring {
    /// Opens the service's keys, writing them into the catalog first where it has none.
    ///
    /// # Errors
    /// InvalidRequest, with a sentence for the operator, where no root key opens what is there.
    pub(crate) async fn open(
        ports: &KeyringPorts<'_>,
        roots: &Roots,
        found: &Found,
    ) -> Result<Self> {
        if !found.in_catalog {
            let keys = first_keys(found, &roots.ring(), ports.entropy.as_ref())?;
            let now = ports.clock.now();
            let mut attempts = 0;
            loop {
                let root = roots.current();
                let mut wrapped = Vec::with_capacity(keys.len());
                for (key, version, material) in &keys {
                    let entropy = ports.entropy.as_ref();
                    wrapped.push(root.wrap(key, *version, material, now, entropy)?);
                }
                let placed = ports.catalog.insert_service_material(&wrapped).await?;
                // Superseded: another node was first, and its keys are the ones.
                if roots.settled(placed, &mut attempts).await?.is_some() {
                    break;
                }
            }
        }
        let mut wraps = BTreeMap::new();
        let mut secrets = None;
        for wrapped in ports.catalog.service_material().await? {
            let material = roots.unwrap(&wrapped).await?;
            match (wrapped.key.as_str(), wrapped.version) {
                (MASTER_KEY, version) => drop(wraps.insert(version, material)),
                (SECRETS, VERSION) => secrets = Some(material),
                _ => {}
            }
        }
        let secrets = secrets.filter(|_| !wraps.is_empty());
        let secrets = secrets.ok_or_else(|| {
            Error::internal("the catalog lacks a part of the service's own master keys")
        })?;
        Ok(Self { wraps, secrets })
    }

    /// The newest version of the key that wraps data keys.
    pub(crate) fn newest(&self) -> Result<(u32, &Material)> {
        let newest = self.wraps.last_key_value();
        let (version, key) = newest.ok_or_else(|| Error::internal("no key wraps data keys"))?;
        Ok((*version, key))
    }

    pub(crate) fn version(&self, version: u32) -> Option<&Material> {
        self.wraps.get(&version)
    }

    pub(crate) fn secrets(&self) -> &Material {
        &self.secrets
    }
}

/// Writes the disaster copy where it is not what the catalog has.
pub(crate) async fn copy_beside_the_blobs(
    catalog: &dyn MasterKeys,
    labels: &dyn Labels,
) -> Result<()> {
    let keys = catalog.service_material().await?;
    let copied = Copied {
        format: FORMAT.to_owned(),
        keys: keys
            .into_iter()
            .map(|wrapped| CopiedKey {
                key: wrapped.key,
                version: wrapped.version,
                root: wrapped.root,
                wrapped: wrapped.wrapped,
                created_at: wrapped.created_at.as_micros(),
            })
            .collect(),
    };
    let mut bytes = serde_json::to_vec_pretty(&copied).map_err(Error::internal)?;
    bytes.push(b'\n');
    let bytes = Bytes::from(bytes);
    if !labels.is_label(LABEL, &bytes).await? {
        labels.set_label(LABEL, bytes).await?;
        tracing::info!("the service's wrapped master keys were copied beside the blobs");
    }
    Ok(())
}

fn read_copy(bytes: &[u8]) -> Result<Vec<WrappedMaterial>> {
    let copied: Option<Copied> = serde_json::from_slice(bytes).ok();
    let copied = copied
        .filter(|copied| copied.format == FORMAT)
        .ok_or_else(|| {
            Error::invalid(
                "The copy of the master keys beside the blobs (the label keyring) is not one that this version knows.",
            )
        })?;
    let keys = copied.keys.into_iter().map(|copied| WrappedMaterial {
        key: copied.key,
        version: copied.version,
        root: copied.root,
        wrapped: copied.wrapped,
        created_at: Timestamp::from_micros(copied.created_at),
    });
    Ok(keys.collect())
}

/// The keys for a catalog that has none.
fn first_keys(
    found: &Found,
    ring: &RootRing,
    entropy: &dyn Entropy,
) -> Result<Vec<(String, u32, Material)>> {
    if let Some(copied) = &found.copied {
        return copied_keys(copied, &found.legacy, ring);
    }
    let legacy = &found.legacy;
    let own = |wraps, secrets| {
        vec![
            (MASTER_KEY.to_owned(), VERSION, wraps),
            (SECRETS.to_owned(), VERSION, secrets),
        ]
    };
    if legacy.access_key.is_none() && !legacy.blobs {
        return Ok(own(Material::random(entropy), Material::random(entropy)));
    }
    tracing::info!("the service's master keys are derived from the root key, as they were before");
    let mut candidates = ring.iter();
    let root = match &legacy.access_key {
        // What one of them opens was sealed under it.
        Some(_) => candidates.find(|root| {
            let secrets = derived_secrets(root.material());
            secrets.is_ok_and(|secrets| fits(&secrets, legacy))
        }),
        // Nothing tells one from another.
        None => candidates.next().filter(|_| candidates.next().is_none()),
    };
    let root = root.ok_or_else(|| {
        Error::invalid(format!(
            "None of the root keys ({}) is the one under which the catalog's secrets were sealed: \
             without that one what is stored can't be opened.",
            ring.names()
        ))
    })?;
    let root = root.material();
    Ok(own(derived_wraps(root)?, derived_secrets(root)?))
}

fn copied_keys(
    copied: &[WrappedMaterial],
    legacy: &Legacy,
    ring: &RootRing,
) -> Result<Vec<(String, u32, Material)>> {
    tracing::info!("the service's master keys are taken from their copy beside the blobs");
    let mut keys = Vec::new();
    for wrapped in copied {
        let root = ring.get(&wrapped.root).ok_or_else(|| {
            Error::invalid(format!(
                "The master keys beside the blobs are wrapped under the root key {}, which is not at hand ({}).",
                wrapped.root,
                ring.names()
            ))
        })?;
        keys.push((wrapped.key.clone(), wrapped.version, root.unwrap(wrapped)?));
    }
    let secrets = keys.iter().find(|(key, ..)| key == SECRETS);
    if !secrets.is_some_and(|(.., secrets)| fits(secrets, legacy)) {
        return Err(Error::invalid(
            "The master keys beside the blobs are not those under which the catalog's secrets were sealed: \
             the blobs are another catalog's.",
        ));
    }
    Ok(keys)
}

/// Whether a key opens what was sealed before the catalog kept master keys.
fn fits(secrets: &Material, legacy: &Legacy) -> bool {
    let Some((access, sealed)) = &legacy.access_key else {
        return true;
    };
    let context = format!("access-key:{access}");
    open_under(secrets, &context, sealed).is_ok()
}
