//! Which root keys there are, and which of them wraps.
//!
//! The catalog says which root key wraps, and each node has the root keys from its own source. A node whose source puts
//! a key first that the catalog has never seen makes it the one that wraps. A key that was replaced never wraps again,
//! so that a node that was started late with an old order does not turn a rotation back.
//!
//! # Crash consistency
//! A rotation writes the new key into the source first, and then tells the catalog: in between, the next start tells it.
//! What is wrapped under an older key is rewrapped step by step, by every node, until nothing is left. Retiring marks
//! the key in the catalog, which checks that nothing is left under it, and then removes it from the source: in between,
//! retiring again goes on.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use calotype_core::ports::{AuditEvent, Entropy, MasterKeys, Placed, RootRecord, WrappedMaterial};
use calotype_core::{Error, ErrorKind, Result};
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use crate::cipher::Material;
use crate::file::{self, KeyFileError, Readers};
use crate::ring::{RootKey, RootRing};

/// How often something is wrapped again because the root key changed meanwhile.
const ATTEMPTS: u32 = 4;

/// Where a node has its root keys from.
#[derive(Clone)]
pub enum RootSource {
    /// A file of the service's own, mode 0600, which is made at the first start. It can be rotated by the service.
    File(PathBuf),
    /// The text of the environment variable of this name.
    Environment(String, Zeroizing<String>),
    /// A file that is given to the service, such as a credential of systemd's.
    Credential(PathBuf),
}

impl fmt::Display for RootSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name, _) => write!(f, "the variable {name}"),
            Self::Credential(path) => write!(f, "the credential {}", path.display()),
        }
    }
}

impl fmt::Debug for RootSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl RootSource {
    /// Whether root keys are there. A file is made at the first start where there is none.
    ///
    /// # Errors
    /// InvalidRequest where what is there can't be read, is not root keys, or others may read it.
    pub fn check(&self) -> Result<bool> {
        Ok(self.read()?.is_some())
    }

    fn read(&self) -> Result<Option<RootRing>> {
        match self {
            Self::File(path) => self.read_file(path, Readers::Owner),
            Self::Credential(path) => self.read_file(path, Readers::Directory),
            Self::Environment(_, text) => {
                let ring = RootRing::of_text(text);
                ring.map(Some).ok_or_else(|| {
                    Error::invalid(format!(
                        "{self} does not hold root keys: each is 64 hexadecimal digits."
                    ))
                })
            }
        }
    }

    fn read_file(&self, path: &std::path::Path, readers: Readers) -> Result<Option<RootRing>> {
        file::read(path, readers).map_err(|error| match error {
            KeyFileError::Io(error) => {
                Error::invalid(format!("{self} can't be read.")).with_context(error)
            }
            fault => Error::invalid(format!("{self} is refused: {fault}.")),
        })
    }
}

/// The root keys of this node, and the one that wraps.
pub(crate) struct Roots {
    source: RootSource,
    catalog: Arc<dyn MasterKeys>,
    entropy: Arc<dyn Entropy>,
    known: Mutex<Known>,
}

#[derive(Clone)]
struct Known {
    ring: RootRing,
    current: Arc<RootKey>,
}

/// What is known of a node's root keys and of those that the catalog has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootStatus {
    /// Where this node has its root keys from.
    pub source: String,
    /// Each root key.
    pub roots: Vec<RootState>,
}

/// What is known of a root key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootState {
    /// What the catalog has of it.
    pub record: RootRecord,
    /// Whether this node has it.
    pub at_hand: bool,
}

impl Roots {
    /// Reads the root keys, and settles which of them wraps. `first_start` says that nothing was ever wrapped: only then
    /// is a file made.
    ///
    /// # Errors
    /// InvalidRequest, with a sentence for the operator, where there are none or where one is missing that the catalog
    /// needs.
    pub(crate) async fn open(
        source: RootSource,
        first_start: bool,
        catalog: Arc<dyn MasterKeys>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        let ring = match source.read()? {
            Some(ring) => ring,
            None => make(&source, first_start, entropy.as_ref())?,
        };
        begin_first(&source, &ring, catalog.as_ref()).await?;
        let current = current_of(&source, &ring, catalog.as_ref()).await?;
        Ok(Self {
            source,
            catalog,
            entropy,
            known: Mutex::new(Known { ring, current }),
        })
    }

    pub(crate) fn ring(&self) -> RootRing {
        self.known().ring.clone()
    }

    /// The root key that wraps, as far as this node knows.
    pub(crate) fn current(&self) -> Arc<RootKey> {
        Arc::clone(&self.known().current)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the source and the catalog again: another node may have rotated.
    async fn refresh(&self) -> Result<()> {
        let source = self.source.clone();
        let ring = spawn_blocking(move || source.read());
        let ring = ring.await.map_err(Error::internal)??;
        let ring = ring.ok_or_else(|| gone(&self.source))?;
        let current = current_of(&self.source, &ring, self.catalog.as_ref()).await;
        let current = current.map_err(|error| match error.kind() {
            ErrorKind::InvalidRequest => Error::unavailable(error.message().to_owned()),
            _ => error,
        })?;
        *self.known() = Known { ring, current };
        Ok(())
    }

    /// Unwraps a version of a master key.
    ///
    /// # Errors
    /// Unavailable where this node lacks the root key; Internal where the wrap does not authenticate.
    pub(crate) async fn unwrap(&self, wrapped: &WrappedMaterial) -> Result<Material> {
        let find = || self.known().ring.get(&wrapped.root).cloned();
        let mut root = find();
        if root.is_none() {
            self.refresh().await?;
            root = find();
        }
        let root = root.ok_or_else(|| {
            let name = &wrapped.root;
            Error::unavailable(format!("this node lacks the root key {name}"))
        })?;
        root.unwrap(wrapped)
    }

    /// Whether what was wrapped under [`Roots::current`] could be written. None where another root key wraps by now: then
    /// it is to be wrapped again, under that one.
    ///
    /// # Errors
    /// Unavailable where this node lacks the root key that wraps now, or it changes again and again.
    pub(crate) async fn settled(
        &self,
        placed: Placed,
        attempts: &mut u32,
    ) -> Result<Option<Placed>> {
        if placed != Placed::StaleRoot {
            return Ok(Some(placed));
        }
        *attempts += 1;
        if *attempts >= ATTEMPTS {
            return Err(Error::unavailable("the root key is being rotated"));
        }
        self.refresh().await.map(|()| None)
    }

    /// Rewraps some of what is wrapped under older root keys. Returns how many versions: zero when nothing is left that
    /// can be.
    pub(crate) async fn rewrap_some(&self, limit: u32) -> Result<usize> {
        let mut opened = Vec::new();
        for old in self.catalog.stale_material(limit).await? {
            match self.unwrap(&old).await {
                Ok(material) => opened.push((old, material)),
                Err(error) if error.is_transient() => return Err(error),
                // One that is damaged keeps nobody else waiting.
                Err(error) => {
                    tracing::error!(error.chain = %error.chain(), "a master key can't be rewrapped");
                }
            }
        }
        if opened.is_empty() {
            return Ok(0);
        }
        let mut attempts = 0;
        loop {
            let root = self.current();
            let mut again = Vec::with_capacity(opened.len());
            for (old, material) in &opened {
                let (key, version, at) = (&old.key, old.version, old.created_at);
                let new = root.wrap(key, version, material, at, self.entropy.as_ref())?;
                again.push((old.root.clone(), new));
            }
            let placed = self.catalog.rewrap(&again).await?;
            if self.settled(placed, &mut attempts).await?.is_some() {
                return Ok(opened.len());
            }
        }
    }

    /// Makes a fresh root key the one that wraps. Returns its name.
    ///
    /// # Errors
    /// Conflict where the root keys are not in a file of the service's own, or where there are too many.
    pub(crate) async fn rotate(&self, line: impl FnOnce(&str) -> AuditEvent) -> Result<String> {
        let path = self.own_file()?;
        let fresh = RootKey::new(Material::random(self.entropy.as_ref()))?;
        let name = fresh.name().to_owned();
        self.change_file(path, move |ring| {
            ring.with_first(fresh).ok_or(KeyFileError::Full)
        })
        .await?;
        self.catalog.begin_root(&name, Some(&line(&name))).await?;
        self.refresh().await?;
        Ok(name)
    }

    /// Retires the root keys that do not wrap any more. Returns their names.
    ///
    /// # Errors
    /// Conflict where something is still wrapped under one of them.
    pub(crate) async fn retire(&self, line: impl Fn(&str) -> AuditEvent) -> Result<Vec<String>> {
        let roots = self.catalog.roots().await?.into_iter();
        let former = roots.filter(|root| !root.current).map(|root| root.name);
        let former: Vec<String> = former.collect();
        for name in &former {
            self.catalog.retire_root(name, &line(name)).await?;
        }
        if let Ok(path) = self.own_file() {
            let names = former.clone();
            self.change_file(path, move |ring| Ok(ring.without(&names)))
                .await?;
        }
        self.refresh().await?;
        Ok(former)
    }

    pub(crate) async fn status(&self) -> Result<RootStatus> {
        let ring = self.ring();
        let roots = self.catalog.roots().await?.into_iter().map(|record| {
            let at_hand = ring.get(&record.name).is_some();
            RootState { record, at_hand }
        });
        Ok(RootStatus {
            source: self.source.to_string(),
            roots: roots.collect(),
        })
    }

    fn own_file(&self) -> Result<PathBuf> {
        match &self.source {
            RootSource::File(path) => Ok(path.clone()),
            RootSource::Environment(..) | RootSource::Credential(_) => {
                Err(Error::conflict(format!(
                    "The root keys are in {}: put the new one first there, keep the others behind it, \
                     and start the service again.",
                    self.source
                )))
            }
        }
    }

    async fn change_file(
        &self,
        path: PathBuf,
        change: impl FnOnce(RootRing) -> std::result::Result<RootRing, KeyFileError> + Send + 'static,
    ) -> Result<()> {
        let entropy = Arc::clone(&self.entropy);
        let changed = spawn_blocking(move || file::update(&path, entropy.as_ref(), change));
        let changed = changed.await.map_err(Error::internal)?;
        changed.map_err(|error| match error {
            KeyFileError::Full => Error::conflict(format!("{}: {error}.", self.source)),
            error => Error::internal(error),
        })
    }
}

fn gone(source: &RootSource) -> Error {
    Error::invalid(format!("{source} is not there."))
}

fn make(source: &RootSource, first_start: bool, entropy: &dyn Entropy) -> Result<RootRing> {
    let RootSource::File(path) = source else {
        return Err(gone(source));
    };
    if !first_start {
        return Err(Error::invalid(format!(
            "{source} is not there, and what is stored can't be opened without the root key that was in it."
        )));
    }
    file::create(path, entropy)
        .map_err(|error| Error::invalid(format!("{source} can't be made.")).with_context(error))?;
    source.read()?.ok_or_else(|| gone(source))
}

/// Makes the root key that the source puts first the one that wraps, where the catalog has never seen it.
async fn begin_first(source: &RootSource, ring: &RootRing, catalog: &dyn MasterKeys) -> Result<()> {
    let records = catalog.roots().await?;
    // Before anything is written: a ring that does not fit makes no root key the one that wraps.
    check_complete(source, ring, &records)?;
    let first = ring.first()?.name();
    if !records.iter().any(|record| record.name == first) {
        // False where another node was first: then it is known, too.
        catalog.begin_root(first, None).await?;
    }
    Ok(())
}

/// The root key that wraps.
async fn current_of(
    source: &RootSource,
    ring: &RootRing,
    catalog: &dyn MasterKeys,
) -> Result<Arc<RootKey>> {
    let records = catalog.roots().await?;
    check_complete(source, ring, &records)?;
    let current = records.iter().find(|record| record.current);
    let current = current.ok_or_else(|| Error::internal("no root key wraps"))?;
    let root = ring.get(&current.name).ok_or_else(|| {
        Error::invalid(format!(
            "The root key {} wraps by now, and is not in {source} ({}).",
            current.name,
            ring.names()
        ))
    })?;
    Ok(Arc::clone(root))
}

/// That every root key is at hand under which something is wrapped.
fn check_complete(source: &RootSource, ring: &RootRing, records: &[RootRecord]) -> Result<()> {
    let needed = records.iter().filter(|record| record.versions > 0);
    let missing: Vec<&str> = needed
        .map(|record| record.name.as_str())
        .filter(|name| ring.get(name).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "The master keys are wrapped under the root key {}, and {source} has another one ({}): \
         without it what is stored can't be opened.",
        missing.join(" and "),
        ring.names()
    )))
}
