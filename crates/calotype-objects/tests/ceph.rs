//! Buckets in a real Ceph, which `cargo xtask test` starts.

#![expect(
    clippy::expect_used,
    clippy::panic,
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

use calotype_objects::{AccessKey, Connection, S3, S3Options, conformance};
use harness::ceph::Ceph;
use harness::clock::WallClock;
use zeroize::Zeroizing;

#[tokio::test(flavor = "multi_thread")]
async fn ceph_does_what_every_store_must() {
    let ceph = Ceph::connect();
    let bucket = ceph.bucket();
    let options = S3Options {
        endpoint: ceph.url().to_owned(),
        region: "us-east-1".to_owned(),
        access_key: AccessKey {
            id: ceph.access_key().to_owned(),
            secret: Zeroizing::new(ceph.secret_key().to_owned()),
        },
        path_style: true,
        allow_http: true,
        connection: Connection {
            ca_file: None,
            proxy: None,
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(10),
            time_limit: Duration::from_secs(15),
        },
    };
    let store = S3::new(options, Arc::new(WallClock { ahead: 0 }));
    conformance::all(&store.unwrap(), &bucket).await.unwrap();
}
