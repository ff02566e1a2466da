//! Whose the blobs are: a store belongs to one catalog, for the reconciler deletes what its catalog does not know.
//!
//! The store's label `catalog` holds the id of its catalog. The rule, at every start and before anything else is done:
//!
//! - a label with another catalog's id: the start is refused;
//! - no label, and no blobs: the store is this catalog's from now on, unless the catalog has stored blobs, which are
//!   elsewhere then (a volume that is not mounted): the start is refused;
//! - no label, and blobs of which this catalog knows at least one, as after an upgrade: the store is this catalog's;
//! - no label, and blobs of which it knows none: the start is refused.
//!
//! Of several stores each is looked at by itself, against the blobs that are in it. The label `name` holds the name that a store has in
//! the configuration: of two names for one bucket or directory, each would find the other's blobs to be nobody's.
//!
//! `calotype admin adopt-store` gives the stores to the catalog all the same.

use std::collections::BTreeSet;

use bytes::Bytes;
use calotype_blob::store::BlobStore;
use calotype_core::Error;
use calotype_core::id::{BlobId, StoreName, random_uuid};
use calotype_core::ports::{BlobState, Entropy, MasterKeys, Reconcile};
use uuid::Uuid;

use crate::exit::Failure;

const LABEL: &str = "catalog";
const NAME: &str = "name";
/// Rows of blobs that are looked at in one query.
const PAGE: u32 = 1000;

/// Makes sure that the store of this name is the catalog's.
///
/// # Errors
/// Where it is another's, or may be; says so.
pub(super) async fn check<C: MasterKeys + Reconcile + ?Sized>(
    catalog: &C,
    (name, store): (&StoreName, &dyn BlobStore),
    entropy: &dyn Entropy,
) -> Result<(), Failure> {
    let broken = |error| super::stores::broken(name, &error);
    let own = own_id(catalog, entropy).await?;
    if let Some(label) = store.label(LABEL).await.map_err(&broken)? {
        check_label(name, &label, own)?;
        return check_name(name, store).await;
    }
    let stored = store.list().await.map_err(&broken)?;
    let stored: BTreeSet<BlobId> = stored.into_iter().map(|(blob, _)| blob).collect();
    let known = look_up(catalog, name, &stored).await;
    let known = known.map_err(super::parts::failed("the catalog"))?;
    match (stored.is_empty(), known) {
        (true, Known::Others) => Err(Failure::new(format!(
            "the store {name} is empty, and the catalog has images with data in it: is its volume mounted?",
        ))
        .with_hint(ADOPT)),
        (false, Known::Others | Known::Nothing) => Err(Failure::new(format!(
            "the store {name} has blobs of which this catalog knows none: they are another catalog's",
        ))
        .with_hint(ADOPT)),
        (true, Known::Nothing) | (_, Known::Some) => {
            check_name(name, store).await?;
            adopt(catalog, (name, store), entropy).await
        }
    }
}

const ADOPT: &str = "if the store is to be this catalog's all the same, `calotype admin adopt-store` makes it so: \
    blobs that the catalog does not know are deleted then";

/// Writes that the store is the catalog's, whatever was written there.
///
/// # Errors
/// Where catalog or store fail, or another process does the same for another catalog.
pub(super) async fn adopt<C: MasterKeys + ?Sized>(
    catalog: &C,
    (name, store): (&StoreName, &dyn BlobStore),
    entropy: &dyn Entropy,
) -> Result<(), Failure> {
    let broken = |error| super::stores::broken(name, &error);
    let own = own_id(catalog, entropy).await?;
    let named = Bytes::from(format!("{name}\n"));
    store.set_label(NAME, named).await.map_err(&broken)?;
    let text = Bytes::from(format!("{own}\n"));
    store.set_label(LABEL, text).await.map_err(&broken)?;
    let label = store.label(LABEL).await.map_err(&broken)?;
    check_label(name, &label.unwrap_or_default(), own)
}

async fn own_id<C: MasterKeys + ?Sized>(
    catalog: &C,
    entropy: &dyn Entropy,
) -> Result<Uuid, Failure> {
    let own = catalog.catalog_id(random_uuid(entropy)).await;
    own.map_err(super::parts::failed("the catalog"))
}

fn check_label(name: &StoreName, label: &[u8], own: Uuid) -> Result<(), Failure> {
    let text = String::from_utf8_lossy(label);
    let text = text.trim();
    if text == own.to_string() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the store {name} belongs to the catalog {text}, and this catalog is {own}: what is not in a store's own catalog \
         would be deleted from it"
    ))
    .with_hint(ADOPT))
}

/// Makes sure that a store is what its name says, from the first time that somebody asks.
async fn check_name(name: &StoreName, store: &dyn BlobStore) -> Result<(), Failure> {
    let broken = |error| super::stores::broken(name, &error);
    let Some(label) = store.label(NAME).await.map_err(&broken)? else {
        let named = Bytes::from(format!("{name}\n"));
        return store.set_label(NAME, named).await.map_err(&broken);
    };
    let text = String::from_utf8_lossy(&label);
    let text = text.trim();
    if text == name.as_str() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "what the configuration calls the store {name} is the store {text}: of two names for one store, each would delete \
         the other's blobs"
    ))
    .with_hint("name each store's own directory, or bucket and prefix, in its section, under the name that it has had"))
}

/// What a catalog knows of the blobs in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It has no stored blobs in the store.
    Nothing,
    /// It has stored blobs in the store, none of them there.
    Others,
    /// At least one of them.
    Some,
}

async fn look_up<C: Reconcile + ?Sized>(
    catalog: &C,
    name: &StoreName,
    stored: &BTreeSet<BlobId>,
) -> Result<Known, Error> {
    let mut known = Known::Nothing;
    let mut after = None;
    loop {
        let page = catalog.blobs(after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(known);
        };
        after = Some(last.id);
        let here = || page.iter().filter(|record| record.place.store == *name);
        if here().any(|record| stored.contains(&record.place.id)) {
            return Ok(Known::Some);
        }
        if here().any(|record| record.state == BlobState::Stored) {
            known = Known::Others;
            if stored.is_empty() {
                return Ok(known);
            }
        }
    }
}

#[cfg(test)]
mod tests;
