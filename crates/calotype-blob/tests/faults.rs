//! After any fault at any call a blob is absent or whole, and a caller who was told that it is there
//! finds it there.
#![expect(
    clippy::expect_used,
    reason = "clippy does not see that a test's own functions are tests"
)]

mod common;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use calotype_blob::SealedBlobs;
use calotype_blob::seal::PAGE;
use calotype_blob::store::{
    BlobStore, Disk, Fault, Faults, FaultyStore, FileStore, Operation, Step,
};
use calotype_core::ErrorKind;
use calotype_core::ports::{BlobCheck, Blobs, Depth};
use common::*;

fn content() -> Vec<u8> {
    let mut bytes = noise(3 * SEGMENT + PAGE + 5, 1);
    bytes[SEGMENT..2 * SEGMENT].fill(0);
    bytes
}

/// A disk whose step number `nth` fails with this error, if it is one of the kind that `strikes`.
fn failing(
    nth: u64,
    errno: rustix::io::Errno,
    strikes: fn(Step) -> bool,
) -> (Disk, Arc<AtomicU64>) {
    let left = Arc::new(AtomicU64::new(nth));
    let counter = Arc::clone(&left);
    let disk = Disk::scripted(move |step| {
        if !strikes(step) || counter.load(Ordering::SeqCst) == 0 {
            return Ok(());
        }
        if counter.fetch_sub(1, Ordering::SeqCst) == 1 {
            return Err(io::Error::from(errno));
        }
        Ok(())
    });
    (disk, left)
}

/// Opens a store whose steps after that fail as told.
fn faulty_file_store(root: &Path, disk: Disk) -> SealedBlobs {
    FileStore::open(root, entropy()).expect("a store");
    let store = FileStore::open_on(disk, root, entropy()).expect("a store");
    sealed(Arc::new(store), PAGES)
}

/// How many steps `FileStore::open` takes on directories that are there.
fn steps_to_open(strikes: fn(Step) -> bool) -> u64 {
    let directory = tempfile::tempdir().expect("a directory");
    FileStore::open(directory.path(), entropy()).expect("a store");
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    let disk = Disk::scripted(move |step| {
        counter.fetch_add(u64::from(strikes(step)), Ordering::SeqCst);
        Ok(())
    });
    FileStore::open_on(disk, directory.path(), entropy()).expect("a store");
    count.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_fault_at_any_call_of_a_write_leaves_the_blob_absent_or_whole() {
    let bytes = content();
    for fault in [
        Fault::Away,
        Fault::Full,
        Fault::Broken,
        Fault::DoneButFailed,
    ] {
        for skip in 0.. {
            let faults = Faults::default();
            let store = FaultyStore::new(memory(), faults.clone());
            let blobs = sealed(Arc::new(store), PAGES);
            faults.inject(None, skip, fault);
            let written = put(&blobs, id(1), &bytes).await;
            let struck = faults.clear();
            assert_eq!(written.is_err(), struck, "{fault:?} after {skip}");
            match blobs
                .check(id(1), None, Depth::Pages)
                .await
                .expect("checked")
            {
                BlobCheck::Missing => assert!(struck),
                BlobCheck::Whole(_) => assert!(get(&blobs, id(1)).await.expect("read") == bytes),
                BlobCheck::Closed | BlobCheck::Away => panic!("its key is at hand"),
                BlobCheck::Damaged(why) => panic!("{fault:?} after {skip}: {why}"),
            }
            if let Err(error) = written {
                match fault {
                    Fault::Full => assert_eq!(error.kind(), ErrorKind::StorageFull),
                    Fault::Broken => assert!(!error.is_transient()),
                    _ => assert!(error.is_transient()),
                }
            }
            blobs.delete(id(1)).await.expect("deleted");
            blobs.discard(id(1)).await.expect("discarded");
            put(&blobs, id(1), &bytes)
                .await
                .expect("written when the fault is over");
            if !struck {
                break;
            }
        }
    }
}

#[tokio::test]
async fn two_faults_in_a_row_leave_the_blob_absent_or_whole() {
    let bytes = content();
    for skip in 0.. {
        let faults = Faults::default();
        let blobs = sealed(Arc::new(FaultyStore::new(memory(), faults.clone())), PAGES);
        faults.inject(None, skip, Fault::Away);
        faults.inject(Some(Operation::Abandon), 0, Fault::Away);
        let written = put(&blobs, id(1), &bytes).await;
        faults.clear();
        let check = blobs
            .check(id(1), None, Depth::Pages)
            .await
            .expect("checked");
        if written.is_ok() {
            assert!(matches!(check, BlobCheck::Whole(_)));
            break;
        }
        assert_eq!(check, BlobCheck::Missing);
        blobs.discard(id(1)).await.expect("discarded");
        assert!(staged(&blobs).await.is_empty());
    }
}

#[tokio::test]
async fn a_fault_at_any_step_of_the_disk_leaves_the_blob_absent_or_whole() {
    let bytes = content();
    let skip = steps_to_open(|_| true);
    for errno in [rustix::io::Errno::NOSPC, rustix::io::Errno::IO] {
        for nth in 1.. {
            let directory = tempfile::tempdir().expect("a directory");
            let (disk, left) = failing(skip + nth, errno, |_| true);
            let blobs = faulty_file_store(directory.path(), disk);
            let written = put(&blobs, id(1), &bytes).await;
            let struck = left.swap(0, Ordering::SeqCst) == 0;
            assert_eq!(written.is_err(), struck, "{errno} at step {nth}");
            match blobs
                .check(id(1), None, Depth::Pages)
                .await
                .expect("checked")
            {
                BlobCheck::Missing => assert!(struck),
                BlobCheck::Whole(_) => assert!(!struck, "{errno} at step {nth}: it stayed"),
                BlobCheck::Closed | BlobCheck::Away => panic!("its key is at hand"),
                BlobCheck::Damaged(why) => panic!("{errno} at step {nth}: {why}"),
            }
            if let Err(error) = written {
                if errno == rustix::io::Errno::NOSPC {
                    assert_eq!(error.kind(), ErrorKind::StorageFull);
                } else {
                    assert!(!error.is_transient());
                }
            }
            blobs.delete(id(1)).await.expect("deleted");
            blobs.discard(id(1)).await.expect("discarded");
            assert!(staged(&blobs).await.is_empty());
            put(&blobs, id(1), &bytes)
                .await
                .expect("written when the fault is over");
            if !struck {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_sync_that_fails_is_never_made_good_by_a_later_one() {
    let bytes = noise(4 * SEGMENT, 1);
    let is_sync = |step| step == Step::SyncFile;
    let mut syncs = 0;
    for nth in 1.. {
        let directory = tempfile::tempdir().expect("a directory");
        let (disk, left) = failing(nth, rustix::io::Errno::IO, is_sync);
        let blobs = faulty_file_store(directory.path(), disk);
        let written = put(&blobs, id(1), &bytes).await;
        if left.load(Ordering::SeqCst) > 0 {
            written.expect("no sync failed");
            break;
        }
        syncs += 1;
        let error = written.expect_err("a sync failed");
        assert!(!error.is_transient());
        assert!(stored(&blobs).await.is_empty());
    }
    // At least one in the background, the body's last and the manifest's.
    assert!(syncs >= 3);
}

#[tokio::test]
async fn a_fault_at_any_step_of_a_delete_leaves_the_blob_whole_or_gone() {
    let bytes = content();
    let skip = steps_to_open(|_| true);
    let steps = {
        let directory = tempfile::tempdir().expect("a directory");
        let (disk, left) = failing(u64::MAX, rustix::io::Errno::IO, |_| true);
        let blobs = faulty_file_store(directory.path(), disk);
        put(&blobs, id(1), &bytes).await.expect("written");
        let before = left.load(Ordering::SeqCst);
        blobs.delete(id(1)).await.expect("deleted");
        before - left.load(Ordering::SeqCst)
    };
    assert!(steps >= 4);
    for nth in 1..=steps {
        let directory = tempfile::tempdir().expect("a directory");
        put(&in_directory(directory.path()), id(1), &bytes)
            .await
            .expect("written");
        let (disk, left) = failing(skip + nth, rustix::io::Errno::IO, |_| true);
        let blobs = faulty_file_store(directory.path(), disk);
        blobs.delete(id(1)).await.expect_err("a step failed");
        assert_eq!(left.load(Ordering::SeqCst), 0);
        match blobs
            .check(id(1), None, Depth::Pages)
            .await
            .expect("checked")
        {
            BlobCheck::Missing | BlobCheck::Whole(_) => {}
            BlobCheck::Closed | BlobCheck::Away => panic!("its key is at hand"),
            BlobCheck::Damaged(why) => panic!("step {nth}: {why}"),
        }
        blobs.delete(id(1)).await.expect("deleted in the end");
        assert_eq!(
            blobs
                .check(id(1), None, Depth::Pages)
                .await
                .expect("checked"),
            BlobCheck::Missing
        );
        assert!(staged(&blobs).await.is_empty());
    }
}

#[tokio::test]
async fn a_fault_at_any_call_of_a_read_is_an_error_and_no_wrong_byte() {
    let bytes = content();
    for fault in [
        Fault::Away,
        Fault::Broken,
        Fault::DoneButFailed,
        Fault::Flip(12_345),
    ] {
        for skip in 0.. {
            let faults = Faults::default();
            let blobs = sealed(Arc::new(FaultyStore::new(memory(), faults.clone())), PAGES);
            put(&blobs, id(1), &bytes).await.expect("written");
            faults.inject(None, skip, fault);
            let read = get(&blobs, id(1)).await;
            if faults.clear() {
                read.expect_err("a call failed");
            } else {
                assert!(read.expect("read") == bytes);
                break;
            }
        }
    }
}

/// Copies a directory as a crash would leave it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[tokio::test]
async fn the_state_before_any_step_of_a_write_is_a_blob_that_is_absent_or_whole() {
    let bytes = content();
    let directory = tempfile::tempdir().expect("a directory");
    let crashes = tempfile::tempdir().expect("a directory");
    let root = directory.path().to_owned();
    FileStore::open(&root, entropy()).expect("a store");
    let taken = Arc::new(AtomicU64::new(0));
    let (number, images) = (Arc::clone(&taken), crashes.path().to_owned());
    let skip = steps_to_open(|_| true);
    let from = root.clone();
    let disk = Disk::scripted(move |_| {
        let now = number.fetch_add(1, Ordering::SeqCst);
        if now >= skip {
            copy(&from, &images.join(now.to_string()));
        }
        Ok(())
    });
    let store = FileStore::open_on(disk, &root, entropy()).expect("a store");
    let blobs = sealed(Arc::new(store), PAGES);
    put(&blobs, id(1), &bytes).await.expect("written");
    blobs.delete(id(1)).await.expect("deleted");

    let mut whole = 0;
    for number in skip..taken.load(Ordering::SeqCst) {
        let root = crashes.path().join(number.to_string());
        let blobs = in_directory(&root);
        match blobs
            .check(id(1), None, Depth::Pages)
            .await
            .expect("checked")
        {
            BlobCheck::Missing => assert!(stored(&blobs).await.is_empty()),
            BlobCheck::Whole(_) => {
                whole += 1;
                assert!(get(&blobs, id(1)).await.expect("read") == bytes);
            }
            BlobCheck::Closed | BlobCheck::Away => panic!("its key is at hand"),
            BlobCheck::Damaged(why) => panic!("before step {number}: {why}"),
        }
        blobs.discard(id(1)).await.expect("discarded");
        assert!(staged(&blobs).await.is_empty());
    }
    assert!(whole >= 3, "after the rename it is whole: {whole}");
}

#[tokio::test]
async fn a_discard_at_any_step_of_a_write_leaves_the_blob_absent_or_whole() {
    let bytes = noise(SEGMENT + 1, 1);
    let skip = steps_to_open(|_| true);
    for nth in 1.. {
        let directory = tempfile::tempdir().expect("a directory");
        let other = FileStore::open(directory.path(), entropy()).expect("a store");
        let steps = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&steps);
        let disk = Disk::scripted(move |_| {
            if counter.fetch_add(1, Ordering::SeqCst) + 1 == skip + nth {
                // On the thread that is about to make the step, as another process would.
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build();
                let discard = other.clone();
                std::thread::spawn(move || {
                    runtime
                        .expect("a runtime")
                        .block_on(discard.discard(id(1)))
                        .expect("discarded");
                })
                .join()
                .expect("no panic");
            }
            Ok(())
        });
        let store = FileStore::open_on(disk, directory.path(), entropy()).expect("a store");
        let blobs = sealed(Arc::new(store), PAGES);
        let written = put(&blobs, id(1), &bytes).await;
        let done = steps.load(Ordering::SeqCst) < skip + nth;
        match blobs
            .check(id(1), None, Depth::Pages)
            .await
            .expect("checked")
        {
            BlobCheck::Missing => assert!(written.is_err()),
            BlobCheck::Whole(_) => assert!(written.is_ok()),
            BlobCheck::Closed | BlobCheck::Away => panic!("its key is at hand"),
            BlobCheck::Damaged(why) => panic!("before step {nth}: {why}"),
        }
        assert!(staged(&blobs).await.is_empty());
        if done {
            break;
        }
    }
}

#[tokio::test]
async fn only_their_owner_may_look_into_the_stores_files() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("store");
    let store: Arc<dyn BlobStore> = Arc::new(FileStore::open(&root, entropy()).expect("a store"));
    put(&sealed(store, PAGES), id(1), &content())
        .await
        .expect("written");
    let mut todo = vec![root];
    while let Some(path) = todo.pop() {
        let mode = fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        if path.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            for entry in fs::read_dir(path).expect("a directory") {
                todo.push(entry.expect("an entry").path());
            }
        } else {
            assert_eq!(mode, 0o600, "{}", path.display());
        }
    }
}

#[tokio::test]
async fn a_label_is_the_old_one_or_the_new_one_whatever_step_fails() {
    let (old, new) = (Bytes::from_static(b"old"), Bytes::from_static(b"newer"));
    let steps = steps_to_open(|_| true);
    for nth in 1.. {
        let directory = tempfile::tempdir().expect("a directory");
        let whole = FileStore::open(directory.path(), entropy()).expect("a store");
        let written = whole.set_label("keyring", old.clone()).await;
        written.expect("written");
        let (disk, left) = failing(steps + nth, rustix::io::Errno::NOSPC, |_| true);
        let store = FileStore::open_on(disk, directory.path(), entropy()).expect("a store");
        let written = store.set_label("keyring", new.clone()).await;
        let label = whole.label("keyring").await.expect("read");
        if left.load(Ordering::SeqCst) > 0 {
            assert!(written.is_ok() && nth > 4);
            assert_eq!(label, Some(new));
            break;
        }
        let kind = written.map_err(|error| error.kind());
        assert_eq!(kind, Err(ErrorKind::StorageFull), "step {nth}");
        assert!(label == Some(old.clone()) || label == Some(new.clone()));
        let names = std::fs::read_dir(directory.path().join("labels"));
        assert_eq!(names.expect("listed").count(), 1, "nothing else stays");
    }
}
