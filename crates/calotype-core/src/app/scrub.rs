//! The scrubber: reads every stored byte again from time to time, so that what has rotted is found while it can still be
//! repaired from a copy, and not when somebody needs it.
//!
//! Of all processes on the catalog the one that holds the lease scrubs. It takes the blobs that are due, those that were
//! written or read the longest ago first, reads every stored page at a bounded pace, and notes each in the catalog: a process
//! that dies costs the blob that it was at. What it finds damaged is marked, as the verifier does, and a mark is taken back
//! where every byte is whole again. A blob whose customer has closed its key can't be read, and has had its turn. One that
//! can't be read for a reason that passes is passed over, tried again later, and stays due.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::app::lease::Lease;
use crate::app::verify::Checked;
use crate::app::{Service, Verification};
use crate::error::Result;
use crate::id::{BlobId, StoreName};
use crate::ports::{BlobRecord, Depth};
use crate::size::ByteSize;

/// How often stored bytes are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubOptions {
    /// How long after it was written or read a blob is due; zero: never.
    pub every: Duration,
    /// Stored bytes that are read a second at the most; zero: any number.
    pub rate: ByteSize,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(14 * 24 * 3600),
            rate: ByteSize::mib(32),
        }
    }
}

impl ScrubOptions {
    fn depth(self) -> Depth {
        match self.rate.bytes() {
            0 => Depth::Pages,
            _ => Depth::PagesAt(self.rate),
        }
    }

    /// How long a blob's turn takes at the least.
    fn turn(self, record: &BlobRecord) -> Duration {
        let stored = record
            .facts
            .as_ref()
            .map_or(0, |facts| facts.stored.bytes());
        match self.rate.bytes() {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(stored as f64 / rate as f64),
        }
    }
}

/// What the metrics tell of scrubbing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scrubbed {
    /// For how long the blob that is due the longest has been due.
    pub behind: Duration,
    /// Blobs that are marked as damaged.
    pub damaged: u64,
}

/// Reads what is due.
pub struct Scrubber {
    service: Arc<Service>,
    /// Who this is among the processes on the catalog.
    name: String,
}

/// The lease of the one that scrubs.
const LEASE: &str = "scrubber";

/// How often it is extended, and how often it is looked for what is due, where that is not so more often.
const INTERVAL: Duration = Duration::from_secs(10);

/// How many blobs are asked for in one query.
const BATCH: u32 = 100;

/// After how many failures in a row the rest of a store is left for the next round.
const FAILURES: u32 = 3;

/// After how long a blob that could not be read is tried again.
const AGAIN: Duration = Duration::from_secs(600);

/// How long a blob's turn takes at the least, whatever its size: what opens it asks a key service.
const SHORTEST_TURN: Duration = Duration::from_millis(20);

impl Scrubber {
    /// A scrubber that looks for what is due, when no other process on the catalog does. `name` is this process's alone.
    pub fn new(service: Arc<Service>, name: impl Into<String>) -> Self {
        let name = name.into();
        Self { service, name }
    }

    /// Scrubs until `stop` completes, and breaks off what it is reading then.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let every = self.service.settings.scrub.every;
        if every.is_zero() {
            return;
        }
        let mut lease = Lease::new(&self.service, LEASE, &self.name, INTERVAL);
        let scrubbing = async {
            let mut later = BTreeMap::new();
            loop {
                let pause = match lease.hold().await {
                    Some(true) => {
                        tokio::select! {
                            biased;
                            () = self.round(&mut later) => {}
                            () = lease.until_lost() => {}
                        }
                        every.min(INTERVAL)
                    }
                    Some(false) | None => INTERVAL,
                };
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! {
            () = stop => {}
            () = scrubbing => {}
        }
        lease.release().await;
    }

    /// Reads all that is due, one after the other, but for what is to be tried later.
    async fn round(&self, later: &mut BTreeMap<BlobId, Instant>) {
        later.retain(|_, when| *when > Instant::now());
        let scrub = self.service.settings.scrub;
        let until = self.service.clock.now().minus(scrub.every);
        let mut failures: BTreeMap<StoreName, u32> = BTreeMap::new();
        let mut after: Option<BlobRecord> = None;
        loop {
            let due = self
                .service
                .catalog
                .due_for_scrub(until, after.as_ref(), BATCH);
            let due = match due.await {
                Ok(due) => due,
                Err(error) => {
                    tracing::warn!(error.chain = %error.chain(), "what is to be scrubbed is not known");
                    return;
                }
            };
            let Some(last) = due.last() else { return };
            after = Some(last.clone());
            for blob in due {
                let failed = failures.entry(blob.place.store.clone()).or_default();
                if *failed >= FAILURES || later.contains_key(&blob.id) {
                    continue;
                }
                let begun = Instant::now();
                let mut turn = SHORTEST_TURN;
                match self.service.scrub(blob.id).await {
                    Ok(Checked::Whole) => {
                        *failed = 0;
                        turn = turn.max(scrub.turn(&blob));
                    }
                    Ok(Checked::Unread) => {}
                    Ok(Checked::PutOff) => {
                        later.insert(blob.id, Instant::now() + AGAIN);
                    }
                    Err(error) => {
                        tracing::warn!(blob.id = %blob.id, store.name = %blob.place.store, error.chain = %error.chain(), "not scrubbed");
                        *failed += 1;
                        later.insert(blob.id, Instant::now() + AGAIN);
                    }
                }
                tokio::time::sleep_until(begun + turn).await;
            }
        }
    }
}

impl Service {
    /// Reads a blob, marks what is damaged, and notes that it was read, where it was or can't be.
    ///
    /// # Errors
    /// Where the catalog or the store does not answer, or the blob can't be read: nothing is noted.
    async fn scrub(&self, id: BlobId) -> Result<Checked> {
        // It may have been moved, marked or removed since it was found due.
        let Some(record) = &self.catalog.blob(id).await? else {
            return Ok(Checked::Unread);
        };
        let mut seen = Verification::default();
        let depth = self.settings.scrub.depth();
        let checked = self.verify_blob(record, depth, &mut seen).await?;
        for violation in &seen.violations {
            tracing::error!(blob.id = %record.id, "damaged bytes were found: {}", violation.detail);
        }
        if checked != Checked::PutOff {
            self.catalog.note_scrub(record.id).await?;
        }
        Ok(checked)
    }

    /// What the metrics tell of scrubbing.
    pub async fn scrubbed(&self) -> Result<Scrubbed> {
        let damaged = self.catalog.damaged_blobs().await?;
        let every = self.settings.scrub.every;
        let mut behind = Duration::ZERO;
        if !every.is_zero()
            && let Some(since) = self.catalog.unread_since().await?
        {
            behind = self.clock.now().since(since).saturating_sub(every);
        }
        Ok(Scrubbed { behind, damaged })
    }
}
