//! Bytes that are paid for before they are taken.
//!
//! An upload that says how long it is has all of it reserved when it begins. One that does not has more and more
//! reserved as its bytes come, and is cut at the first byte that the project has no room for. What was reserved and not
//! used is given back when the upload ends, also when its process died: with the lease.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::Service;
use crate::error::Result;
use crate::id::BlobId;
use crate::ports::{ByteLimit, ByteStream, Reservation};
use crate::size::ByteSize;

/// The first step of an upload of unknown length, in bytes. Each further step is as long as what has come.
const FIRST_STEP: u64 = 1 << 20;

/// The longest step, in bytes: what is reserved is not there for others.
const LONGEST_STEP: u64 = 1 << 30;

/// How often more is asked for where the catalog is away.
const ATTEMPTS: u32 = 8;

impl Service {
    /// How many bytes a project may have, and how they are counted.
    pub(super) fn byte_limit(&self) -> ByteLimit {
        ByteLimit {
            configured: self.settings.limits.bytes_per_project,
            shared: self.settings.limits.shared_blobs,
        }
    }

    /// What an upload has reserved when it begins.
    pub(super) fn first_reservation(&self, expected: Option<ByteSize>) -> Reservation {
        Reservation {
            needed: expected.unwrap_or_default(),
            wanted: expected.unwrap_or(ByteSize::new(FIRST_STEP)),
            limit: self.byte_limit(),
        }
    }

    /// The same bytes, each of them reserved. `granted` are already. The stream ends with TooLarge where the project has
    /// no room for more.
    pub(super) fn reserving(
        self: &Arc<Self>,
        blob: BlobId,
        granted: ByteSize,
        source: ByteStream,
    ) -> ByteStream {
        let reserved = Reserved {
            service: Arc::clone(self),
            blob,
            source,
            granted: granted.bytes(),
            taken: 0,
        };
        Box::pin(stream::try_unfold(reserved, |mut reserved| async move {
            let Some(chunk) = reserved.source.next().await.transpose()? else {
                return Ok(None);
            };
            reserved.take(chunk.len() as u64).await?;
            Ok(Some((chunk, reserved)))
        }))
    }
}

struct Reserved {
    service: Arc<Service>,
    blob: BlobId,
    source: ByteStream,
    granted: u64,
    taken: u64,
}

impl Reserved {
    async fn take(&mut self, bytes: u64) -> Result<()> {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken <= self.granted {
            return Ok(());
        }
        let needed = self.taken - self.granted;
        let more = Reservation {
            needed: ByteSize::new(needed),
            wanted: ByteSize::new(needed.max(step(self.taken))),
            limit: self.service.byte_limit(),
        };
        self.granted += self.reserve(more).await?.bytes();
        Ok(())
    }

    /// A catalog that is away for less than the lease ends no upload.
    async fn reserve(&mut self, more: Reservation) -> Result<ByteSize> {
        let pause: Duration = self.service.settings.upload_lease / ATTEMPTS;
        for _ in 1..ATTEMPTS {
            match self.service.catalog.reserve(self.blob, more).await {
                Err(error) if error.is_transient() => {
                    tracing::warn!(blob.id = %self.blob, error.chain = %error.chain(), "no bytes could be reserved");
                }
                reserved => return reserved,
            }
            tokio::time::sleep(pause).await;
        }
        self.service.catalog.reserve(self.blob, more).await
    }
}

/// How many bytes are asked for at once when so many have come.
fn step(taken: u64) -> u64 {
    taken.clamp(FIRST_STEP, LONGEST_STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_grow_with_what_has_come_and_are_bounded() {
        assert_eq!(step(1), FIRST_STEP);
        assert_eq!(step(5 << 20), 5 << 20);
        assert_eq!(step(u64::MAX), LONGEST_STEP);
    }
}
