//! The verifier: checks the invariants of ARCHITECTURE.md on a live or stopped system. It changes nothing but marks: images
//! whose bytes it finds damaged get one, and lose it when a deep check finds every byte whole again, as after a repair.

use crate::access::Action;
use crate::app::reconcile::BytesIn;
use crate::app::{Call, Service};
use crate::error::Result;
use crate::id::BlobId;
use crate::ports::{BlobCheck, BlobRecord, BlobState, Depth, Violation};

/// What the verifier saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verification {
    /// Blobs whose bytes were checked.
    pub blobs_checked: u64,
    /// Blobs that can't be looked into now: their customers' keys are gone, not enabled, or in a key service that does not
    /// answer.
    pub closed: u64,
    /// Blobs that are in the store without a row. Not a violation while they are younger than the grace.
    pub orphans: u64,
    /// Staged bytes that nobody goes on with: their blobs are stored already, or have no row. Not a violation while they
    /// are younger than the grace.
    pub leftovers: u64,
    /// The broken invariants. Empty: all hold.
    pub violations: Vec<Violation>,
}

/// How the check of a blob ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    /// All that was to be read was, and is whole.
    Whole,
    /// Not all was read: it is damaged, or closed by its customer, or gone.
    Unread,
    /// Its key can't be had now, or it was moved meanwhile.
    PutOff,
}

impl Service {
    /// As [`Service::verify`], for a caller.
    pub async fn verify_for(&self, call: &Call, deep: bool) -> Result<Verification> {
        self.authorize(call, Action::ServiceAdminister)?;
        self.verify(deep).await
    }

    /// Checks the invariants. `deep` opens every page of every blob; without it the manifests are opened and
    /// the presence of the segments is checked.
    pub async fn verify(&self, deep: bool) -> Result<Verification> {
        let depth = if deep { Depth::Pages } else { Depth::Ends };
        // The store is listed first: a blob committed meanwhile has a row by the time the rows are read.
        let BytesIn {
            mut stored,
            mut staged,
        } = self.bytes_in_stores().await?;
        let mut seen = Verification {
            violations: self.catalog.violations().await?,
            ..Default::default()
        };
        // Before and after the blobs, one of which may be moved meanwhile.
        let mut copies = self.copies_on_record().await?;
        let mut after = None;
        loop {
            let page = self.catalog.blobs(after, 200).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            for record in &page {
                stored.remove(&record.place);
                if record.state != BlobState::Stored {
                    staged.remove(&record.place);
                }
                self.verify_blob(record, depth, &mut seen).await?;
            }
        }
        copies.append(&mut self.copies_on_record().await?);
        for place in &copies {
            stored.remove(place);
            staged.remove(place);
        }
        if !(stored.is_empty() && staged.is_empty()) {
            // What was collected since the first look has no row either.
            let still = self.bytes_in_stores().await?;
            stored.retain(|place, _| still.stored.contains_key(place));
            staged.retain(|place, _| still.staged.contains_key(place));
        }
        seen.orphans = stored.len() as u64;
        seen.leftovers = staged.len() as u64;
        let oldest = self.clock.now().minus(self.settings.deletion_grace * 2);
        let stored = stored.iter().map(|found| (found, "blob"));
        let staged = staged.iter().map(|found| (found, "staged bytes of blob"));
        for ((place, at), what) in stored.chain(staged) {
            if *at < oldest {
                let (blob, store) = (place.id, &place.store);
                seen.violations.push(Violation {
                    invariant: 3,
                    detail: format!(
                        "{what} {blob} in store {store}: of no use, and older than the grace period"
                    ),
                });
            }
        }
        Ok(seen)
    }

    async fn bytes_in_stores(&self) -> Result<BytesIn> {
        let mut all = BytesIn::default();
        for store in &self.settings.stores.stores {
            let mut found = self.bytes_in(&store.name).await?;
            all.stored.append(&mut found.stored);
            all.staged.append(&mut found.staged);
        }
        Ok(all)
    }

    pub(super) async fn verify_blob(
        &self,
        record: &BlobRecord,
        depth: Depth,
        seen: &mut Verification,
    ) -> Result<Checked> {
        if record.state != BlobState::Stored {
            return Ok(Checked::Unread);
        }
        seen.blobs_checked += 1;
        let detail = match self.check_by_any_wrap(record.id, depth).await? {
            BlobCheck::Whole(facts) if Some(&facts) == record.facts.as_ref() => {
                if depth != Depth::Ends && record.damaged {
                    self.catalog.clear_damage(record.id).await?;
                }
                return Ok(Checked::Whole);
            }
            BlobCheck::Whole(_) => "its manifest and its row differ".to_owned(),
            BlobCheck::Closed => {
                seen.closed += 1;
                return Ok(Checked::Unread);
            }
            BlobCheck::Away => {
                seen.closed += 1;
                return Ok(Checked::PutOff);
            }
            BlobCheck::Missing => "it is missing from the store".to_owned(),
            BlobCheck::Damaged(what) => what,
        };
        // A disk that is not mounted has lost nothing.
        self.blobs.is_there(&record.place.store).await?;
        // It may have been collected or moved since its row was read.
        let now = self.catalog.blob(record.id).await?;
        let Some(now) = now.filter(|now| now.state == BlobState::Stored) else {
            return Ok(Checked::Unread);
        };
        if now.place != record.place {
            return Ok(Checked::PutOff);
        }
        self.catalog.mark_damaged(record.id).await?;
        seen.violations.push(Violation {
            invariant: 1,
            detail: format!("blob {}: {detail}", record.id),
        });
        Ok(Checked::Unread)
    }

    /// By the wrap in the manifest, or else by one of its images' own: that image is read while the former's key is gone.
    async fn check_by_any_wrap(&self, blob: BlobId, depth: Depth) -> Result<BlobCheck> {
        let mut check = self.blobs.check(blob, None, depth).await?;
        let is_shut = |check: &BlobCheck| matches!(check, BlobCheck::Closed | BlobCheck::Away);
        if is_shut(&check) {
            for wrap in self.catalog.wraps(blob).await? {
                let other = self.blobs.check(blob, Some(&wrap), depth).await?;
                if !is_shut(&other) {
                    return Ok(other);
                }
                if other == BlobCheck::Away {
                    check = other;
                }
            }
        }
        Ok(check)
    }
}
