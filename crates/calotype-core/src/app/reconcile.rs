//! The reconciler: brings the stores in line with the catalog. It takes no input and can run at any time, on
//! any number of nodes, and be killed anywhere.
//!
//! Of all nodes the one that holds the lease runs the rounds, so that a store is not looked through by thirty at once. A node
//! that dies with it is followed by another when it ends. Nothing but work is saved by it: two that both believe to
//! have it do no harm.
//!
//! Bytes are removed only after [`Reconcile::claim_deletion`] has decided so in the transaction that checks the
//! references; a crash after that leaves a row in state `deleting`, from which the next round goes on. Bytes
//! that no row knows are removed once they are older than the grace, and so is what is staged of a blob that is stored:
//! it was left by an attempt that another one overtook.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::app::Service;
use crate::app::lease::Lease;
use crate::error::{Error, Result};
use crate::id::{BlobId, StoreName};
#[cfg(doc)]
use crate::ports::Reconcile;
use crate::ports::{BlobState, Place};
use crate::time::Timestamp;

/// What a round did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reconciled {
    /// Uploads whose lease had run out.
    pub uploads_expired: usize,
    /// Blobs deleted because nothing refers to them.
    pub blobs_deleted: usize,
    /// Copies deleted that were given up, or that blobs have left.
    pub copies_deleted: usize,
    /// Stored or staged blobs deleted because no row knows them, and staged ones that are stored already.
    pub orphans_deleted: usize,
    /// Tokens, kept answers, lines of the audit trail and jobs whose time was over.
    pub records_purged: u64,
}

/// When rounds were last known to be made, by this process or by another.
#[derive(Debug)]
pub(super) struct Rounds(Mutex<Instant>);

impl Default for Rounds {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Rounds {
    fn are_made(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn ago(&self) -> Duration {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.elapsed()
    }
}

/// Runs rounds of reconciliation.
pub struct Reconciler {
    service: Arc<Service>,
    interval: Duration,
    /// Who this is among the processes on the catalog.
    name: String,
}

/// The lease of the one that runs the rounds.
const LEASE: &str = "reconciler";

/// How many blobs a round looks at in one query.
const BATCH: u32 = 500;

/// How many steps of purging a round makes at most: a service that is asked to stop is not kept from it for long.
const PURGING_STEPS: u32 = 50;

impl Reconciler {
    /// A reconciler that begins a round every `interval`, when no other process on the catalog does. `name` is this
    /// process's alone.
    pub fn new(service: Arc<Service>, interval: Duration, name: impl Into<String>) -> Self {
        Self {
            service,
            interval,
            name: name.into(),
        }
    }

    /// Runs rounds until `stop` completes.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut round = 0_u64;
        let mut lease = Lease::new(&self.service, LEASE, &self.name, self.interval);
        loop {
            // Where the catalog does not answer there is nothing to do either.
            match lease.hold().await {
                Some(true) => {
                    self.round(round, &lease).await;
                    round += 1;
                }
                // Whoever has it meanwhile may die in the middle of a sweep.
                Some(false) => {
                    self.service.rounds.are_made();
                    round = 0;
                }
                None => {}
            }
            tokio::select! {
                () = &mut stop => break,
                () = tokio::time::sleep(self.interval) => {}
            }
        }
        lease.release().await;
    }

    async fn round(&self, round: u64, lease: &Lease<'_>) {
        let whole = round.is_multiple_of(self.rounds_between_sweeps());
        let work = async {
            if whole {
                self.service.reconcile().await
            } else {
                self.service.reconcile_rows().await
            }
        };
        let done = tokio::select! {
            biased;
            done = work => done,
            () = lease.until_lost() => {
                tracing::warn!("a round of reconciliation was broken off: another process runs them");
                return;
            }
        };
        if done.is_ok() {
            self.service.rounds.are_made();
        }
        match done {
            Ok(done) if done != Reconciled::default() => {
                tracing::info!(
                    uploads.expired = done.uploads_expired,
                    blobs.deleted = done.blobs_deleted,
                    copies.deleted = done.copies_deleted,
                    orphans.deleted = done.orphans_deleted,
                    records.purged = done.records_purged,
                    "reconciled"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error.chain = %error.chain(), "reconciliation failed"),
        }
    }
}

impl Reconciler {
    /// Looking for orphans reads the whole store and the whole catalog. Four times in the grace is enough: the
    /// verifier complains of those that are as old as twice the grace.
    fn rounds_between_sweeps(&self) -> u64 {
        let interval = self.interval.as_millis().max(1);
        let rounds = self.service.settings.deletion_grace.as_millis() / 4 / interval;
        u64::try_from(rounds).unwrap_or(u64::MAX).max(1)
    }
}

impl Service {
    /// How long ago this process made a round of reconciliation to its end, or another one had the lease for it: since its
    /// start where there was neither.
    pub fn unreconciled(&self) -> Duration {
        self.rounds.ago()
    }

    /// Takes over what processes that are dead left under their leases: their uploads are ended, and their jobs
    /// are due at once. Only at start, and only where no other process can be alive on this catalog.
    ///
    /// # Errors
    /// Where the catalog fails; calling it again goes on.
    pub async fn take_over(&self) -> Result<()> {
        self.catalog.end_leases().await?;
        let ended = self.expire_uploads().await?;
        if ended > 0 {
            tracing::info!(uploads.ended = ended, "unfinished uploads ended");
        }
        Ok(())
    }

    /// Ends the uploads whose lease ran out, and says how many there were.
    async fn expire_uploads(&self) -> Result<usize> {
        let mut ended = 0;
        loop {
            let blobs = self.catalog.expire_uploads().await?;
            if blobs.is_empty() {
                return Ok(ended);
            }
            for blob in blobs {
                ended += 1;
                self.remove_bytes(blob).await;
            }
        }
    }

    /// One whole round.
    ///
    /// # Errors
    /// Where the catalog or the store fails; the next round goes on.
    pub async fn reconcile(&self) -> Result<Reconciled> {
        let mut done = self.reconcile_rows().await?;
        done.orphans_deleted = self.remove_orphans().await?;
        Ok(done)
    }

    /// One round over what the catalog knows.
    async fn reconcile_rows(&self) -> Result<Reconciled> {
        let mut done = Reconciled {
            uploads_expired: self.expire_uploads().await?,
            ..Reconciled::default()
        };
        // A store that does not answer is asked once a round; and page by page, so that what stays there hides nothing behind it.
        let mut away = BTreeSet::new();
        let mut after = None;
        loop {
            let page = self.catalog.deletable_blobs(after, BATCH).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            for (blob, store) in page {
                if away.contains(&store) || !self.catalog.claim_deletion(blob).await? {
                    continue;
                }
                match self.remove_bytes(blob).await {
                    Removal::Done => done.blobs_deleted += 1,
                    Removal::Left => {}
                    Removal::Away => _ = away.insert(store),
                }
            }
        }
        let mut after: Option<Place> = None;
        loop {
            let page = self.catalog.deletable_copies(after.as_ref(), BATCH).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            for copy in page {
                if away.contains(&copy.store) || !self.catalog.claim_copy(&copy).await? {
                    continue;
                }
                match self.remove_copy(&copy).await {
                    Removal::Done => done.copies_deleted += 1,
                    Removal::Left => {}
                    Removal::Away => _ = away.insert(copy.store),
                }
            }
        }
        done.records_purged = self.purge().await?;
        Ok(done)
    }

    /// Removes a copy's bytes, and then its record.
    async fn remove_copy(&self, place: &Place) -> Removal {
        let removed = async {
            self.blobs.clear(place).await?;
            self.catalog.forget_copy(place).await
        };
        match removed.await {
            Ok(()) => Removal::Done,
            Err(error) => {
                tracing::warn!(store.name = %place.store, copy.id = %place.id, error.chain = %error.chain(), "copy not removed");
                Removal::not_done(&error)
            }
        }
    }

    /// Removes records whose time is over, step by step, so that others write in between. What is left when the steps
    /// are used up waits for the next round.
    async fn purge(&self) -> Result<u64> {
        let mut purged = 0;
        for _ in 0..PURGING_STEPS {
            match self.catalog.purge_expired().await? {
                0 => break,
                gone => purged += gone,
            }
        }
        Ok(purged)
    }

    /// Removes a blob's bytes, staged or committed, and then its row. The caller has the right to: the blob
    /// is claimed for deletion, or its upload has ended.
    pub(super) async fn remove_bytes(&self, blob: BlobId) -> Removal {
        let removed = async {
            self.blobs.discard(blob).await?;
            self.blobs.delete(blob).await?;
            self.catalog.forget_blob(blob).await
        };
        match removed.await {
            Ok(()) => Removal::Done,
            Err(error) => {
                tracing::warn!(blob.id = %blob, error.chain = %error.chain(), "blob not removed");
                Removal::not_done(&error)
            }
        }
    }

    /// Removes stored and staged bytes that no row knows. A row is written before the first byte, so bytes
    /// without a row are garbage whatever their age; the grace only guards against a catalog that was restored
    /// from an older backup. What is staged of a stored blob is garbage too: a blob is committed once.
    ///
    /// A store that does not answer is left for the next sweep, and holds up none of the others.
    async fn remove_orphans(&self) -> Result<usize> {
        let oldest = self.clock.now().minus(self.settings.deletion_grace);
        let (mut stored, mut staged) = (BTreeSet::new(), BTreeSet::new());
        for store in &self.settings.stores.stores {
            match self.bytes_in(&store.name).await {
                Ok(found) => {
                    stored.extend(old_enough(found.stored, oldest));
                    staged.extend(old_enough(found.staged, oldest));
                }
                Err(error) => {
                    tracing::warn!(store.name = %store.name, error.chain = %error.chain(), "a store was not looked through for bytes without a row");
                }
            }
        }
        if stored.is_empty() && staged.is_empty() {
            return Ok(0);
        }
        self.subtract_known(&mut stored, &mut staged).await?;
        let mut removed = BTreeSet::new();
        for place in staged {
            let cleared = self.blobs.clear_staged(&place).await;
            if is_removed(&place, "staged bytes that nobody goes on with", cleared) {
                removed.insert(place);
            }
        }
        for place in stored {
            let cleared = self.blobs.clear(&place).await;
            if is_removed(&place, "bytes without a row", cleared) {
                removed.insert(place);
            }
        }
        Ok(removed.len())
    }

    /// What is in a store.
    pub(super) async fn bytes_in(&self, store: &StoreName) -> Result<BytesIn> {
        let places = |found: Vec<(BlobId, Timestamp)>| {
            let place = |(id, at)| {
                let store = store.clone();
                (Place { store, id }, at)
            };
            found.into_iter().map(place).collect()
        };
        Ok(BytesIn {
            stored: places(self.blobs.list(store).await?),
            staged: places(self.blobs.list_staged(store).await?),
        })
    }

    /// Leaves the stored bytes that no row knows, and the staged ones that none knows or one knows as stored.
    async fn subtract_known(
        &self,
        stored: &mut BTreeSet<Place>,
        staged: &mut BTreeSet<Place>,
    ) -> Result<()> {
        // Copies before and after blobs: what is one before its move ends is the blob's place after it, and the other way round.
        let mut copies = self.copies_on_record().await?;
        let mut after = None;
        loop {
            let page = self.catalog.blobs(after, BATCH).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            for record in &page {
                stored.remove(&record.place);
                if record.state != BlobState::Stored {
                    staged.remove(&record.place);
                }
            }
        }
        copies.append(&mut self.copies_on_record().await?);
        for place in &copies {
            stored.remove(place);
            staged.remove(place);
        }
        Ok(())
    }

    /// The places of all copies that the catalog knows.
    pub(super) async fn copies_on_record(&self) -> Result<BTreeSet<Place>> {
        let mut copies = BTreeSet::new();
        let mut after: Option<Place> = None;
        loop {
            let page = self.catalog.copies(after.as_ref(), BATCH).await?;
            let Some(last) = page.last() else {
                return Ok(copies);
            };
            after = Some(last.clone());
            copies.extend(page);
        }
    }
}

/// What became of bytes that were to be removed.
pub(super) enum Removal {
    /// They are gone, and so is their record.
    Done,
    /// They are left for the next round.
    Left,
    /// So are they, and all that is in the same store: it does not answer.
    Away,
}

impl Removal {
    fn not_done(error: &Error) -> Self {
        match error.is_transient() {
            true => Self::Away,
            false => Self::Left,
        }
    }
}

/// The bytes in one store or in several by their places, each with the time of its commit, or of its last write.
#[derive(Default)]
pub(super) struct BytesIn {
    pub(super) stored: BTreeMap<Place, Timestamp>,
    pub(super) staged: BTreeMap<Place, Timestamp>,
}

fn old_enough(found: BTreeMap<Place, Timestamp>, oldest: Timestamp) -> impl Iterator<Item = Place> {
    let old = found.into_iter().filter(move |(_, at)| *at <= oldest);
    old.map(|(place, _)| place)
}

/// Whether bytes are gone from their place; says so. Those that are not are left for the next sweep.
fn is_removed(place: &Place, what: &str, cleared: Result<()>) -> bool {
    let (store, blob) = (&place.store, place.id);
    match cleared {
        Ok(()) => {
            tracing::warn!(store.name = %store, blob.id = %blob, "{what} removed");
            true
        }
        Err(error) => {
            tracing::warn!(store.name = %store, blob.id = %blob, error.chain = %error.chain(), "{what} not removed");
            false
        }
    }
}
