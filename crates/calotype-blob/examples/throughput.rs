//! How fast blobs are written and read in a directory, and what the disk and the digests alone take.
//!
//! `cargo run --release -p calotype-blob --example throughput -- DIRECTORY [GIB]`
#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a tool for the terminal"
)]

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256, SHA512};
use bytes::Bytes;
use calotype_blob::store::FileStore;
use calotype_blob::{SealOptions, SealedBlobs};
use calotype_core::id::BlobId;
use calotype_core::keys::MasterKey;
use calotype_core::ports::{
    Blobs, ByteStream, Clock, DigestChoice, Entropy, ResealOrder, WriteOptions,
};
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use calotype_keys::{ServiceKey, SystemEntropy};
use futures_util::{StreamExt, stream};
use md5::{Digest as _, Md5};

const CHUNK: usize = 1 << 20;

struct Epoch;

impl Clock for Epoch {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(0)
    }
}

/// Processor time of this process, in Linux's ticks of 10 ms.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    // The name, in parentheses, may hold anything; user and system time are the 12th and 13th after it.
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(10 * ticks)
}

/// Times a run of `size` bytes.
async fn measure(what: &str, size: u64, run: impl Future<Output = ()>) {
    let (before, start) = (cpu(), Instant::now());
    run.await;
    let (wall, spent) = (start.elapsed(), cpu() - before);
    let gib = size as f64 / f64::from(1 << 30);
    println!(
        "{what:<34} {:>6.2} GiB/s   {:>5.2} s of wall and {:>5.2} s of CPU for each GiB",
        gib / wall.as_secs_f64(),
        wall.as_secs_f64() / gib,
        spent.as_secs_f64() / gib,
    );
}

fn source(pool: &[Bytes], size: u64) -> ByteStream {
    let pool = pool.to_vec();
    let count = usize::try_from(size).expect("64 bits") / CHUNK;
    stream::iter((0..count).map(move |number| Ok(pool[number % pool.len()].clone()))).boxed()
}

async fn reseal(blobs: &SealedBlobs, source: BlobId, target: BlobId) {
    let key = blobs.fresh_key(target, &MasterKey::Service).await;
    let order = ResealOrder {
        source,
        source_key: None,
        target,
        target_key: key.expect("a key"),
        project: "p".parse().expect("an id"),
        progress: Arc::default(),
    };
    blobs.reseal(order).await.expect("resealed");
}

async fn plain(directory: &Path, pool: &[Bytes], size: u64) {
    let path = directory.join("plain");
    let mut file = File::create(&path).expect("made");
    for number in 0..usize::try_from(size).expect("64 bits") / CHUNK {
        file.write_all(&pool[number % pool.len()]).expect("written");
    }
    file.sync_all().expect("synced");
    std::fs::remove_file(path).expect("removed");
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().expect("DIRECTORY");
    let gib: u64 = arguments
        .next()
        .map_or(1, |text| text.parse().expect("GIB"));
    let size = gib << 30;
    let root = Path::new(&directory).join("calotype-throughput");
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
    let store = FileStore::open(&root, Arc::clone(&entropy)).expect("a store");
    let keys = ServiceKey::from_hex(&"00".repeat(32), Arc::clone(&entropy)).expect("a key");
    let blobs = SealedBlobs::new(
        Arc::new(store),
        Arc::new(keys),
        Arc::clone(&entropy),
        Arc::new(Epoch),
        SealOptions::default(),
    );
    let pool: Vec<Bytes> = (0..8)
        .map(|_| {
            let mut bytes = vec![0; CHUNK];
            entropy.fill(&mut bytes);
            Bytes::from(bytes)
        })
        .collect();

    measure("plain file, with fsync", size, plain(&root, &pool, size)).await;
    measure("md5 alone", size, async {
        let mut digest = Md5::new();
        for number in 0..usize::try_from(size).expect("64 bits") / CHUNK {
            digest.update(&pool[number % pool.len()]);
        }
        black_box(digest.finalize());
    })
    .await;
    for (what, algorithm) in [("sha256 alone", &SHA256), ("sha512 alone", &SHA512)] {
        measure(what, size, async {
            let mut digest = Context::new(algorithm);
            for number in 0..usize::try_from(size).expect("64 bits") / CHUNK {
                digest.update(&pool[number % pool.len()]);
            }
            black_box(digest.finish());
        })
        .await;
    }
    let none = DigestChoice {
        md5: false,
        sha256: false,
        sha512: false,
    };
    let choices = [
        ("write, no digest", none),
        ("write, md5", DigestChoice { md5: true, ..none }),
        (
            "write, sha256",
            DigestChoice {
                sha256: true,
                ..none
            },
        ),
        (
            "write, sha512",
            DigestChoice {
                sha512: true,
                ..none
            },
        ),
        ("write, md5 and sha512", DigestChoice::default()),
    ];
    for (what, digests) in choices {
        let blob = BlobId::random(entropy.as_ref());
        let options = WriteOptions {
            digests,
            max_size: ByteSize::new(u64::MAX),
            expected_size: Some(ByteSize::new(size)),
            progress: Arc::new(AtomicU64::new(0)),
        };
        measure(what, size, async {
            let key = blobs.fresh_key(blob, &MasterKey::Service).await;
            blobs
                .write(blob, &key.expect("a key"), source(&pool, size), options)
                .await
                .expect("written");
        })
        .await;
        if digests == none {
            for what in ["read", "read again"] {
                measure(what, size, async {
                    let reader = blobs.open(blob, None).await.expect("opened");
                    let mut stream = reader.read(0..size);
                    while let Some(piece) = stream.next().await {
                        piece.expect("authentic");
                    }
                })
                .await;
            }
        }
        if digests == none {
            // The first round pays for memory that the machine has not used before.
            for _ in 0..3 {
                let target = BlobId::random(entropy.as_ref());
                measure("reseal", size, reseal(&blobs, blob, target)).await;
                blobs.delete(target).await.expect("deleted");
            }
        }
        blobs.delete(blob).await.expect("deleted");
    }
    std::fs::remove_dir_all(root).expect("removed");
}
