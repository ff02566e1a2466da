//! Buckets as directories.

#![expect(
    clippy::unwrap_used,
    reason = "the tests' own helpers: what fails here fails the test"
)]

use std::ffi::CString;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use calotype_core::codes::ImsCode;
use calotype_core::object::ObjectAddress;
use calotype_core::ports::{Entropy, Objects};
use calotype_core::size::ByteSize;
use calotype_core::{Error, Result};
use calotype_objects::{Directory, conformance};
use futures_util::{StreamExt as _, TryStreamExt as _};

/// Counts: no two fillings are alike.
struct Counting(std::sync::atomic::AtomicU8);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    }
}

fn open(path: &Path) -> Directory {
    let entropy = Arc::new(Counting(std::sync::atomic::AtomicU8::new(0)));
    Directory::open(path, entropy).unwrap()
}

/// A store with the bucket `images`, in a directory that also has a file beside the store.
fn world() -> (tempfile::TempDir, Directory) {
    let place = tempfile::tempdir().unwrap();
    let buckets = place.path().join("buckets");
    std::fs::create_dir_all(buckets.join("images")).unwrap();
    std::fs::write(place.path().join("secret"), b"not yours").unwrap();
    let store = open(&buckets);
    (place, store)
}

fn at(text: &str) -> ObjectAddress {
    ObjectAddress::parse(text).unwrap()
}

fn code<T>(outcome: Result<T>) -> Option<ImsCode> {
    outcome.err().as_ref().and_then(Error::code)
}

fn staged(place: &Path) -> usize {
    std::fs::read_dir(place.join("buckets/.staged"))
        .unwrap()
        .count()
}

#[tokio::test]
async fn a_directory_does_what_every_store_must() {
    let (place, store) = world();
    conformance::all(&store, "images").await.unwrap();
    assert_eq!(staged(place.path()), 0);
}

#[tokio::test]
async fn no_symbolic_link_is_followed() {
    let (place, store) = world();
    let bucket = place.path().join("buckets/images");
    std::fs::write(bucket.join("real"), b"real").unwrap();
    symlink("../../secret", bucket.join("out")).unwrap();
    symlink("real", bucket.join("within")).unwrap();
    symlink("../..", bucket.join("up")).unwrap();
    symlink(place.path(), place.path().join("buckets/linked")).unwrap();
    assert!(store.look(&at("images:real")).await.is_ok());
    for object in [
        "images:out",
        "images:within",
        "images:up/secret",
        "images:up",
    ] {
        let found = store.look(&at(object)).await;
        assert_eq!(code(found), Some(ImsCode::IMG_0057), "{object}");
        let made = store.create(&at(object), ByteSize::ZERO, None).await;
        assert!(made.is_err(), "{object}");
    }
    let found = store.look(&at("linked:secret")).await;
    assert_eq!(code(found), Some(ImsCode::IMG_0069));
    let made = store
        .create(&at("images:up/new"), ByteSize::ZERO, None)
        .await;
    assert!(made.is_err());
    assert!(!place.path().join("new").exists());
}

#[tokio::test]
async fn what_is_no_regular_file_is_no_object_and_is_not_waited_for() {
    let (place, store) = world();
    let bucket = place.path().join("buckets/images");
    std::fs::create_dir(bucket.join("directory")).unwrap();
    std::fs::write(bucket.join("file"), b"x").unwrap();
    let fifo = CString::new(bucket.join("fifo").to_str().unwrap()).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(bucket.join("socket")).unwrap();
    for object in ["directory", "fifo", "socket", "file/below"] {
        let found = store.look(&at(&format!("images:{object}"))).await;
        assert_eq!(code(found), Some(ImsCode::IMG_0057), "{object}");
    }
    std::fs::write(place.path().join("buckets/nobucket"), b"x").unwrap();
    let found = store.look(&at("nobucket:file")).await;
    assert_eq!(code(found), Some(ImsCode::IMG_0069));
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_ends_the_read() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 4] = [
        ("written", |path| {
            use std::os::unix::fs::FileExt as _;
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(b"!", 0).unwrap();
        }),
        ("cut", |path| {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(5 << 20).unwrap();
        }),
        ("removed", |path| std::fs::remove_file(path).unwrap()),
        ("replaced", |path| {
            let beside = path.with_extension("new");
            std::fs::write(&beside, vec![1; 20 << 20]).unwrap();
            std::fs::rename(&beside, path).unwrap();
        }),
    ];
    for (name, change) in changes {
        let (place, store) = world();
        let path = place.path().join("buckets/images/disk");
        std::fs::write(&path, vec![0; 20 << 20]).unwrap();
        let address = at("images:disk");
        let facts = store.look(&address).await.unwrap();
        let mut bytes = store.read(&address, &facts, 0..facts.size.bytes());
        assert!(bytes.next().await.unwrap().is_ok(), "{name}");
        change(&path);
        let rest: Result<Vec<Bytes>> = bytes.try_collect().await;
        assert_eq!(code(rest), Some(ImsCode::IMG_0057), "{name}");
        // Nor is what is there now taken for it.
        let again: Result<Vec<Bytes>> = store.read(&address, &facts, 0..1).try_collect().await;
        assert_eq!(code(again), Some(ImsCode::IMG_0057), "{name}");
    }
}

#[tokio::test]
async fn of_two_who_write_one_object_one_does() {
    let (place, store) = world();
    let address = at("images:one");
    let mut first = store.create(&address, ByteSize::ZERO, None).await.unwrap();
    let mut second = store.create(&address, ByteSize::ZERO, None).await.unwrap();
    first.append(Bytes::from_static(b"first")).await.unwrap();
    second.append(Bytes::from_static(b"second")).await.unwrap();
    second.finish().await.unwrap();
    assert_eq!(code(first.finish().await), Some(ImsCode::IMG_0070));
    let path = place.path().join("buckets/images/one");
    assert_eq!(std::fs::read(path).unwrap(), b"second");
    assert_eq!(staged(place.path()), 0);
}

#[tokio::test]
async fn a_start_removes_what_a_dead_process_staged_and_nothing_that_is_being_written() {
    let (place, store) = world();
    let mut writing = store
        .create(&at("images:one"), ByteSize::ZERO, None)
        .await
        .unwrap();
    writing.append(Bytes::from_static(b"alive")).await.unwrap();
    std::fs::write(place.path().join("buckets/.staged/left"), b"dead").unwrap();
    open(&place.path().join("buckets"));
    assert_eq!(staged(place.path()), 1);
    writing.finish().await.unwrap();
    assert_eq!(staged(place.path()), 0);
    let path = place.path().join("buckets/images/one");
    assert_eq!(std::fs::read(path).unwrap(), b"alive");
}

#[tokio::test]
async fn a_file_on_the_same_file_system_becomes_the_object_itself() {
    let (place, store) = world();
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR;
    let file = rustix::fs::open(place.path(), flags, rustix::fs::Mode::RUSR).unwrap();
    let mut file = std::fs::File::from(file);
    std::io::Write::write_all(&mut file, b"whole").unwrap();
    let number = std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap());
    let at = ObjectAddress::parse("images:new/folder/file").unwrap();
    let facts = store.put(&at, Arc::new(file), None).await.unwrap();
    assert_eq!(facts.size, ByteSize::new(5));
    assert_eq!(store.look(&at).await.unwrap(), facts);
    let path = place.path().join("buckets/images/new/folder/file");
    let there = path.metadata().unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&there), number);
    assert_eq!(std::fs::read(path).unwrap(), b"whole");
}
