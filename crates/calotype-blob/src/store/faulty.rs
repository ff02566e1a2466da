//! A store that fails on demand. For tests: it wraps any other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use calotype_core::id::BlobId;
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use calotype_core::{Error, ErrorKind, Result};

use super::{BlobStore, Buffer, Note, SegmentWriter, Slot, Staged, Stored, Use};

/// A store's operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// [`BlobStore::stage`].
    Stage,
    /// [`BlobStore::resume`].
    Resume,
    /// [`SegmentWriter::append`].
    Append,
    /// [`SegmentWriter::finish`].
    Finish,
    /// [`Staged::checkpoint`].
    Checkpoint,
    /// [`Staged::commit`].
    Commit,
    /// [`Staged::abandon`].
    Abandon,
    /// [`BlobStore::open`].
    Open,
    /// [`Stored::read`].
    Read,
    /// [`BlobStore::delete`].
    Delete,
    /// [`BlobStore::discard`].
    Discard,
    /// [`BlobStore::list`] and [`BlobStore::list_staged`].
    List,
    /// [`BlobStore::free_space`].
    FreeSpace,
    /// [`BlobStore::label`].
    Label,
    /// [`BlobStore::set_label`].
    SetLabel,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The store is away: nothing is done.
    Away,
    /// There is no room: nothing is done.
    Full,
    /// The device fails (EIO): nothing is done.
    Broken,
    /// It is done, and reported as failed.
    DoneButFailed,
    /// A read gives other bytes: this bit of them is flipped, modulo their number.
    Flip(u64),
    /// A read gives the bytes of another place.
    Misdirected,
}

#[derive(Default)]
struct Plan {
    /// The faults to come: after so many more calls of the operation, or of any.
    ahead: VecDeque<(Option<Operation>, u64, Fault)>,
    calls: Vec<Operation>,
}

/// The plan of what goes wrong, shared by a store and the test that drives it.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

impl Faults {
    /// Has the call of `operation`, or of any, fail that comes after `skip` others.
    pub fn inject(&self, operation: Option<Operation>, skip: u64, fault: Fault) {
        self.plan().ahead.push_back((operation, skip, fault));
    }

    /// Drops the faults that have not struck. True where there were none: all have struck.
    pub fn clear(&self) -> bool {
        let mut plan = self.plan();
        let struck = plan.ahead.is_empty();
        plan.ahead.clear();
        struck
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.plan().calls.len() as u64
    }

    /// How many calls of an operation there were.
    pub fn calls_of(&self, operation: Operation) -> usize {
        let plan = self.plan();
        plan.calls.iter().filter(|call| **call == operation).count()
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, operation: Operation) -> Option<Fault> {
        let mut plan = self.plan();
        plan.calls.push(operation);
        let mut struck = None;
        let mut at = 0;
        while let Some((wanted, skip, fault)) = plan.ahead.get_mut(at) {
            if wanted.is_some_and(|wanted| wanted != operation) {
                at += 1;
            } else if *skip > 0 {
                *skip -= 1;
                at += 1;
            } else {
                struck.get_or_insert(*fault);
                plan.ahead.remove(at);
            }
        }
        struck
    }

    /// The fault for a call, as an error where it prevents it.
    fn before(&self, operation: Operation) -> Result<Option<Fault>> {
        let fault = self.next(operation);
        match fault {
            Some(Fault::Away) => Err(Error::unavailable("injected: the store is away")),
            Some(Fault::Full) => Err(Error::new(
                ErrorKind::StorageFull,
                "The image storage is full.",
            )
            .with_context("injected: no space left")),
            Some(Fault::Broken) => Err(Error::internal("injected: input/output error")),
            other => Ok(other),
        }
    }
}

fn after<T>(fault: Option<Fault>, value: T) -> Result<T> {
    match fault {
        Some(Fault::DoneButFailed) => Err(Error::unavailable("injected: the answer was lost")),
        _ => Ok(value),
    }
}

/// A store that fails on demand.
pub struct FaultyStore<S> {
    inner: S,
    faults: Faults,
}

impl<S: BlobStore> FaultyStore<S> {
    /// Wraps a store. It works until a fault is injected.
    pub const fn new(inner: S, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

#[async_trait::async_trait]
impl<S: BlobStore> BlobStore for FaultyStore<S> {
    async fn stage(&self, blob: BlobId, slot: u64) -> Result<Arc<dyn Staged>> {
        let fault = self.faults.before(Operation::Stage)?;
        let inner = self.inner.stage(blob, slot).await?;
        let faults = self.faults.clone();
        after(fault, Arc::new(FaultyStaged { inner, faults }) as _)
    }

    async fn resume(&self, blob: BlobId, slot: u64) -> Result<Arc<dyn Staged>> {
        let fault = self.faults.before(Operation::Resume)?;
        let inner = self.inner.resume(blob, slot).await?;
        let faults = self.faults.clone();
        after(fault, Arc::new(FaultyStaged { inner, faults }) as _)
    }

    async fn open(&self, blob: BlobId, purpose: Use) -> Result<Option<Arc<dyn Stored>>> {
        let fault = self.faults.before(Operation::Open)?;
        let Some(inner) = self.inner.open(blob, purpose).await? else {
            return after(fault, None);
        };
        let mut manifest = inner.manifest().clone();
        if let Some(Fault::Flip(bit)) = fault {
            let mut bytes = manifest.to_vec();
            flip(&mut bytes, bit);
            manifest = Bytes::from(bytes);
        }
        let faults = self.faults.clone();
        after(
            fault,
            Some(Arc::new(FaultyStored {
                inner,
                manifest,
                faults,
            }) as _),
        )
    }

    async fn delete(&self, blob: BlobId) -> Result<()> {
        let fault = self.faults.before(Operation::Delete)?;
        after(fault, self.inner.delete(blob).await?)
    }

    async fn discard(&self, blob: BlobId) -> Result<()> {
        let fault = self.faults.before(Operation::Discard)?;
        after(fault, self.inner.discard(blob).await?)
    }

    async fn list(&self) -> Result<Vec<(BlobId, Timestamp)>> {
        let fault = self.faults.before(Operation::List)?;
        after(fault, self.inner.list().await?)
    }

    async fn list_staged(&self) -> Result<Vec<(BlobId, Timestamp)>> {
        let fault = self.faults.before(Operation::List)?;
        after(fault, self.inner.list_staged().await?)
    }

    async fn free_space(&self) -> Result<Option<ByteSize>> {
        let fault = self.faults.before(Operation::FreeSpace)?;
        after(fault, self.inner.free_space().await?)
    }

    async fn label(&self, name: &str) -> Result<Option<Bytes>> {
        let fault = self.faults.before(Operation::Label)?;
        after(fault, self.inner.label(name).await?)
    }

    async fn set_label(&self, name: &str, bytes: Bytes) -> Result<()> {
        let fault = self.faults.before(Operation::SetLabel)?;
        after(fault, self.inner.set_label(name, bytes).await?)
    }
}

struct FaultyStaged {
    inner: Arc<dyn Staged>,
    faults: Faults,
}

#[async_trait::async_trait]
impl Staged for FaultyStaged {
    fn noted(&self) -> &[Note] {
        self.inner.noted()
    }

    fn segment(&self, index: u32) -> Result<Box<dyn SegmentWriter>> {
        Ok(Box::new(FaultyWriter {
            inner: self.inner.segment(index)?,
            faults: self.faults.clone(),
        }))
    }

    async fn checkpoint(&self, notes: Vec<Note>) -> Result<()> {
        let fault = self.faults.before(Operation::Checkpoint)?;
        after(fault, self.inner.checkpoint(notes).await?)
    }

    async fn commit(&self, manifest: Bytes) -> Result<()> {
        let fault = self.faults.before(Operation::Commit)?;
        after(fault, self.inner.commit(manifest).await?)
    }

    async fn abandon(&self) -> Result<()> {
        let fault = self.faults.before(Operation::Abandon)?;
        after(fault, self.inner.abandon().await?)
    }
}

struct FaultyWriter {
    inner: Box<dyn SegmentWriter>,
    faults: Faults,
}

#[async_trait::async_trait]
impl SegmentWriter for FaultyWriter {
    async fn append(&mut self, bytes: Bytes) -> Result<()> {
        let fault = self.faults.before(Operation::Append)?;
        after(fault, self.inner.append(bytes).await?)
    }

    async fn finish(&mut self) -> Result<()> {
        let fault = self.faults.before(Operation::Finish)?;
        after(fault, self.inner.finish().await?)
    }
}

struct FaultyStored {
    inner: Arc<dyn Stored>,
    manifest: Bytes,
    faults: Faults,
}

#[async_trait::async_trait]
impl Stored for FaultyStored {
    fn manifest(&self) -> &Bytes {
        &self.manifest
    }

    async fn read(&self, slot: Slot, offset: u64, length: usize, buffer: Buffer) -> Result<Buffer> {
        let fault = self.faults.before(Operation::Read)?;
        if fault == Some(Fault::Misdirected) {
            let other = Slot {
                index: slot.index ^ 1,
                ..slot
            };
            return self.inner.read(other, offset, length, buffer).await;
        }
        let mut buffer = self.inner.read(slot, offset, length, buffer).await?;
        if let Some(Fault::Flip(bit)) = fault {
            flip(buffer.bytes_mut(), bit);
        }
        after(fault, buffer)
    }
}

fn flip(bytes: &mut [u8], bit: u64) {
    let length = bytes.len() as u64;
    if length == 0 {
        return;
    }
    let bit = bit % (length * 8);
    if let Some(byte) = usize::try_from(bit / 8)
        .ok()
        .and_then(|at| bytes.get_mut(at))
    {
        *byte ^= 1 << (bit % 8);
    }
}
