//! A bucket of images' bytes, tried as the service would use it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use calotype_core::id::StoreName;
use calotype_core::ports::Clock;
use calotype_core::time::Timestamp;
use calotype_s3::{Bucket, Entry};

use super::{CLOCK_SLACK, Finding, entropy, mend_of};
use crate::config::stores::Store;
use crate::exit::Failure;
use crate::serve::parts::failed;
use crate::serve::stores::open_bucket;
use crate::system::fresh_name;

const MEND: &str =
    "mend the store's section, the bucket, or what its access key may do: docs/object-storage.md";

/// Does with an object of its own what the service does with those of blobs.
pub(super) async fn bucket(
    name: &StoreName,
    section: &Store,
    clock: &Arc<dyn Clock>,
) -> Vec<Finding> {
    let entropy = entropy();
    let bad = |failure: &Failure| {
        let says = failure.to_string();
        let mend = mend_of(&says, MEND);
        vec![Finding::bad(says, mend)]
    };
    let bucket = match open_bucket(name, section, (clock, &entropy)) {
        Ok(bucket) => bucket,
        Err(failure) => return bad(&failure),
    };
    let folder = format!("{}/doctor/", section.prefix.trim_matches('/'));
    let folder = folder.trim_start_matches('/');
    let key = format!("{folder}{}", fresh_name());
    let begun = clock.now();
    let listed = match write_and_read(&bucket, folder, &key).await {
        Ok(listed) => listed,
        Err(failure) => return bad(&failure),
    };
    let shown = section.bucket.as_deref().unwrap_or_default();
    vec![
        Finding::good(format!("the bucket {shown} can be written")),
        parts(&bucket, &key).await,
        clocks(&listed, begun, clock.now()),
    ]
}

/// How the object was listed.
async fn write_and_read(bucket: &Bucket, folder: &str, key: &str) -> Result<Entry, Failure> {
    let written = Bytes::from_static(b"calotype doctor");
    let put = bucket.put(key, vec![written.clone()]).await;
    put.map_err(failed("an object can't be written"))?;
    let read = bucket.get(key, written.len() as u64).await;
    let read = read.map_err(failed("an object can't be read"))?;
    let mut listed = None;
    let list = bucket.list(folder, |entry| {
        if entry.key == key {
            listed = Some(entry);
        }
    });
    list.await.map_err(failed("objects can't be listed"))?;
    let deleted = bucket.delete(key).await;
    deleted.map_err(failed("an object can't be removed"))?;
    match (listed, read == Some(written)) {
        (Some(listed), true) => Ok(listed),
        _ => Err(Failure::new(
            "the bucket does not give back what was written into it",
        )),
    }
}

/// Whether what is large can be written in parts, and what was begun of it be found and given up.
async fn parts(bucket: &Bucket, key: &str) -> Finding {
    let tried = async {
        let begun = bucket.begin(key).await;
        let upload = begun.map_err(failed("an object can't be written in parts"))?;
        let aborted = bucket.abort(key, &upload).await;
        aborted.map_err(failed("an object in parts can't be given up"))?;
        let listed = bucket.abort_all(key).await;
        listed.map_err(failed("objects in parts can't be listed"))
    };
    match tried.await {
        Ok(()) => Finding::good("objects can be written in parts"),
        Err(failure) => Finding::bad(
            failure.to_string(),
            "let the access key write objects in parts, list what it began, and abort it: docs/object-storage.md",
        ),
    }
}

/// How far the store's clock is off that of the service, which was asked before and after the object was written. The store
/// tells whole seconds.
fn clocks(listed: &Entry, before: Timestamp, after: Timestamp) -> Finding {
    let second = Duration::from_secs(1);
    let behind = before.since(listed.written.plus(second));
    let off = behind.max(listed.written.since(after));
    match off > CLOCK_SLACK {
        false => Finding::good("the store's clock is the service's"),
        true => Finding::warning(
            format!("the store's clock is {} s off the service's", off.as_secs()),
            super::MEND_CLOCKS,
        ),
    }
}
