//! The verdict by the pieces that are asked for, beside the one by all bytes.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use calotype_core::disk::DiskFormat;
use calotype_core::inspect::Verified;
use calotype_core::ports::{BlobFacts, BlobReader, ByteStream};
use calotype_core::size::ByteSize;
use futures_util::{FutureExt as _, stream};

use crate::samples::{self, Sample};
use crate::{hostile, inspect};

/// Bytes in memory, counted as they are read.
struct Memory {
    facts: BlobFacts,
    bytes: Bytes,
    read: AtomicU64,
}

impl Memory {
    fn of(bytes: &[u8]) -> Arc<Self> {
        let size = ByteSize::new(bytes.len() as u64);
        let facts = BlobFacts {
            size,
            stored: size,
            digests: calotype_core::image::Digests::default(),
        };
        Arc::new(Self {
            facts,
            bytes: Bytes::copy_from_slice(bytes),
            read: AtomicU64::new(0),
        })
    }
}

impl BlobReader for Memory {
    fn facts(&self) -> &BlobFacts {
        &self.facts
    }

    fn read(&self, range: Range<u64>) -> ByteStream {
        self.read
            .fetch_add(range.end - range.start, Ordering::Relaxed);
        let piece = self.bytes.slice(range.start as usize..range.end as usize);
        Box::pin(stream::iter([Ok(piece)]))
    }
}

/// The verdict, and how many bytes it took.
fn verdict(sample: &Sample, format: DiskFormat) -> (Result<Option<u64>, String>, u64) {
    let memory = Memory::of(&sample.bytes);
    let verified = Verified::inspect(Arc::clone(&memory) as _, format);
    let told = match verified.now_or_never() {
        Some(Ok(verified)) => {
            assert_eq!(verified.format(), format);
            Ok(verified.disk().map(ByteSize::bytes))
        }
        Some(Err(error)) => Err(error.message().to_owned()),
        None => unreachable!("there is nothing to wait for"),
    };
    (told, memory.read.load(Ordering::Relaxed))
}

#[test]
fn the_pieces_that_are_asked_for_get_the_verdict_of_all_bytes() {
    let zeros = vec![0; 1 << 20];
    let (mut accepted, mut refused) = (0, 0);
    for sample in samples::good().into_iter().chain(hostile::hostile()) {
        let Ok(format) = sample.format.parse::<DiskFormat>() else {
            continue;
        };
        let (start, end) = sample
            .bytes
            .split_at(sample.bytes.len().saturating_sub(512));
        for bytes in [
            sample.bytes.clone(),
            [&sample.bytes[..], &zeros].concat(),
            [start, &zeros, end].concat(),
        ] {
            let sample = samples::sample(sample.name, sample.format, bytes, Ok(None));
            let whole = inspect(&sample).map_err(|error| error.message().to_owned());
            let (pieces, _) = verdict(&sample, format);
            assert_eq!(pieces, whole, "{} as {format}", sample.name);
            match whole {
                Ok(_) => accepted += 1,
                Err(_) => refused += 1,
            }
        }
    }
    assert!(accepted > 10 && refused > 10, "{accepted}, {refused}");
}

#[test]
fn a_verdict_on_a_large_disk_reads_little_of_it() {
    let disk = samples::sample("a disk", "raw", vec![0; 64 << 20], Ok(None));
    let (told, read) = verdict(&disk, DiskFormat::Raw);
    assert_eq!(told, Ok(Some(64 << 20)));
    assert!(read <= 128 << 10, "{read}");
}
