//! Times a reseal of random bytes whose store is this process's memory, and prints the best of several in seconds:
//! `reseal_speed GIB`. `cargo xtask bench` runs it.

#![expect(clippy::print_stdout, reason = "the figure is what it is for")]

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use calotype_blob::store::MemoryStore;
use calotype_blob::{SealOptions, SealedBlobs};
use calotype_core::Result;
use calotype_core::id::BlobId;
use calotype_core::keys::{KeyRole, MasterKey};
use calotype_core::ports::{
    Blobs, Clock, DigestChoice, Entropy, ResealOrder, WrappedKey, WriteOptions,
};
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use calotype_keys::{ServiceKey, SystemEntropy};
use futures_util::{StreamExt as _, stream};

const ROUNDS: usize = 6;
const MIB: usize = 1 << 20;

struct Epoch;

impl Clock for Epoch {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(0)
    }
}

async fn fresh_key(blobs: &SealedBlobs, blob: BlobId) -> Result<WrappedKey> {
    let key = blobs.fresh_key(blob, &MasterKey::Service).await;
    key.map_err(|fault| fault.into_error(KeyRole::Target))
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let gib = std::env::args().nth(1).ok_or("no size is named")?;
    let size = gib.parse::<u64>()? << 30;
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
    let keys = ServiceKey::from_hex(&"00".repeat(32), Arc::clone(&entropy))?;
    let blobs = SealedBlobs::new(
        Arc::new(MemoryStore::new(Arc::new(Epoch))),
        Arc::new(keys),
        Arc::clone(&entropy),
        Arc::new(Epoch),
        SealOptions::default(),
    );
    let mut piece = vec![0; MIB];
    entropy.fill(&mut piece);
    let piece = Bytes::from(piece);
    let pieces = usize::try_from(size)? / MIB;
    let content = stream::iter((0..pieces).map(move |_| Ok(piece.clone())));
    let options = WriteOptions {
        digests: DigestChoice {
            md5: false,
            sha256: false,
            sha512: false,
        },
        max_size: ByteSize::new(size),
        expected_size: Some(ByteSize::new(size)),
        progress: Arc::new(AtomicU64::new(0)),
    };
    let source = BlobId::random(entropy.as_ref());
    let key = fresh_key(&blobs, source).await?;
    blobs.write(source, &key, content.boxed(), options).await?;

    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let target = BlobId::random(entropy.as_ref());
        let order = ResealOrder {
            source,
            source_key: None,
            target,
            target_key: fresh_key(&blobs, target).await?,
            project: "p".parse()?,
            progress: Arc::default(),
        };
        let begin = Instant::now();
        blobs.reseal(order).await?;
        best = best.min(begin.elapsed());
        blobs.delete(target).await?;
    }
    println!("{:.6}", best.as_secs_f64());
    Ok(())
}
