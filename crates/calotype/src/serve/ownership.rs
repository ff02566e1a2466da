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
//! `calotype admin adopt-store` gives the store to the catalog all the same.

use std::collections::BTreeSet;

use bytes::Bytes;
use calotype_blob::store::BlobStore;
use calotype_core::Error;
use calotype_core::id::{BlobId, random_uuid};
use calotype_core::ports::{BlobState, Entropy, MasterKeys, Reconcile};
use uuid::Uuid;

use crate::exit::Failure;

const LABEL: &str = "catalog";
/// Rows of blobs that are looked at in one query.
const PAGE: u32 = 1000;

/// Makes sure that the store is the catalog's.
///
/// # Errors
/// Where it is another's, or may be; says so.
pub(super) async fn check<C: MasterKeys + Reconcile + ?Sized>(
    catalog: &C,
    store: &dyn BlobStore,
    entropy: &dyn Entropy,
) -> Result<(), Failure> {
    let broken = super::parts::failed("the store");
    let own = own_id(catalog, entropy).await?;
    if let Some(label) = store.label(LABEL).await.map_err(&broken)? {
        return check_label(&label, own);
    }
    let stored = store.list().await.map_err(&broken)?;
    let stored: BTreeSet<BlobId> = stored.into_iter().map(|(blob, _)| blob).collect();
    let known = look_up(catalog, &stored).await;
    let known = known.map_err(super::parts::failed("the catalog"))?;
    match (stored.is_empty(), known) {
        (true, Known::Others) => Err(Failure::new(
            "the store is empty, and the catalog has images with data: is its volume mounted?",
        )
        .with_hint(ADOPT)),
        (false, Known::Others | Known::Nothing) => Err(Failure::new(
            "the store has blobs of which this catalog knows none: they are another catalog's",
        )
        .with_hint(ADOPT)),
        (true, Known::Nothing) | (_, Known::Some) => adopt(catalog, store, entropy).await,
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
    store: &dyn BlobStore,
    entropy: &dyn Entropy,
) -> Result<(), Failure> {
    let broken = super::parts::failed("the store");
    let own = own_id(catalog, entropy).await?;
    let text = Bytes::from(format!("{own}\n"));
    store.set_label(LABEL, text).await.map_err(&broken)?;
    let label = store.label(LABEL).await.map_err(&broken)?;
    check_label(&label.unwrap_or_default(), own)
}

async fn own_id<C: MasterKeys + ?Sized>(
    catalog: &C,
    entropy: &dyn Entropy,
) -> Result<Uuid, Failure> {
    let own = catalog.catalog_id(random_uuid(entropy)).await;
    own.map_err(super::parts::failed("the catalog"))
}

fn check_label(label: &[u8], own: Uuid) -> Result<(), Failure> {
    let text = String::from_utf8_lossy(label);
    let text = text.trim();
    if text == own.to_string() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the store belongs to the catalog {text}, and this catalog is {own}: what is not in a store's own catalog \
         would be deleted from it"
    ))
    .with_hint(ADOPT))
}

/// What a catalog knows of the blobs in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It has no stored blobs.
    Nothing,
    /// It has stored blobs, none of them there.
    Others,
    /// At least one of them.
    Some,
}

async fn look_up<C: Reconcile + ?Sized>(
    catalog: &C,
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
        if page.iter().any(|record| stored.contains(&record.id)) {
            return Ok(Known::Some);
        }
        if page.iter().any(|record| record.state == BlobState::Stored) {
            known = Known::Others;
            if stored.is_empty() {
                return Ok(known);
            }
        }
    }
}

#[cfg(test)]
mod tests;
