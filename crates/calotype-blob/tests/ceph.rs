//! Blobs in a real Ceph, which `cargo xtask test` starts.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    unreachable_pub,
    dead_code,
    reason = "the harness is shared with the black-box tests, and a test's own functions are tests"
)]

#[path = "../../../tests/harness"]
mod harness {
    pub mod ceph;
    pub mod clock;
    mod engines;
    mod local;
}

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use calotype_blob::conformance;
use calotype_blob::store::{BlobStore as _, Buffer, S3Store, Slot, Use};
use calotype_core::id::BlobId;
use calotype_keys::SystemEntropy;
use calotype_s3::{AccessKey, Bucket, Client, Connection, Limits, S3Options};
use harness::ceph::Ceph;
use harness::clock::WallClock;

const SLOT: u64 = 64 << 20;

fn bucket(ceph: &Ceph, name: &str) -> Bucket {
    let options = S3Options {
        endpoint: ceph.url().to_owned(),
        region: "us-east-1".to_owned(),
        access_key: AccessKey {
            id: ceph.access_key().to_owned(),
            secret: ceph.secret_key().to_owned().into(),
        },
        path_style: true,
        allow_http: true,
        connection: Connection {
            ca_file: None,
            proxy: None,
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(20),
            time_limit: Duration::from_secs(40),
        },
    };
    let client = Client::new(options, Arc::new(WallClock { ahead: 0 }));
    let limits = Limits {
        connections: 16,
        attempt_timeout: Duration::from_secs(30),
        time_limit: Duration::from_secs(40),
    };
    let entropy = Arc::new(SystemEntropy::new());
    Bucket::new(&client.unwrap(), "main", name, limits, entropy).unwrap()
}

fn store(bucket: Bucket) -> S3Store {
    S3Store::new(bucket, "deep/er", None, Arc::new(SystemEntropy::new()))
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_in_ceph_do_what_those_of_every_store_must() {
    let ceph = Ceph::connect();
    let bucket = bucket(&ceph, &ceph.bucket());
    conformance::all(&store(bucket.clone())).await.unwrap();
    // The labels stay.
    let mut left = Vec::new();
    let list = bucket.list("", |entry| left.push(entry.key));
    list.await.unwrap();
    assert_eq!(left, ["deep/er/labels/first"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_of_many_parts_is_read_as_it_was_written_and_what_a_crash_left_of_one_goes() {
    let ceph = Ceph::connect();
    let name = ceph.bucket();
    let bucket = bucket(&ceph, &name);
    let store = store(bucket.clone());
    let blob = BlobId::from(uuid::Uuid::from_u128(1));
    let bytes: Vec<u8> = (0..27_000_001_u64)
        .map(|at| ((at * at) >> 9) as u8)
        .collect();
    let bytes = Bytes::from(bytes);

    let dead = store.stage(blob, SLOT).await.unwrap();
    let mut writer = dead.segment(3).unwrap();
    writer.append(bytes.slice(..20 << 20)).await.unwrap();
    drop((writer, dead));

    let staged = store.stage(blob, SLOT).await.unwrap();
    let mut writer = staged.segment(3).unwrap();
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(1_015_808));
        writer.append(piece).await.unwrap();
    }
    writer.finish().await.unwrap();
    staged
        .commit(Bytes::from_static(b"manifest"))
        .await
        .unwrap();
    let slot = Slot {
        index: 3,
        size: SLOT,
    };
    for purpose in [Use::Shared, Use::OnePass] {
        let stored = store.open(blob, purpose).await.unwrap().unwrap();
        let mut at = 0;
        while at < bytes.len() {
            let length = (bytes.len() - at).min(983_520);
            let read = stored.read(slot, at as u64, length, Buffer::default());
            let read = read.await.unwrap();
            assert!(read.bytes() == &bytes[at..at + length], "{purpose:?} {at}");
            at += length;
        }
        for at in [0, 7_000_000, 26_999_000, 12] {
            let read = stored.read(slot, at as u64, 1000, Buffer::default());
            let read = read.await.unwrap();
            assert!(read.bytes() == &bytes[at..at + 1000], "{purpose:?} {at}");
        }
    }
    store.discard(blob).await.unwrap();
    store.delete(blob).await.unwrap();
    let mut left = Vec::new();
    let list = bucket.list("", |entry| left.push(entry.key));
    list.await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(ceph.uploads(&name), 0, "uploads are left");
}
