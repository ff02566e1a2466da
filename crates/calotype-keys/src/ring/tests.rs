//! Rings of root keys, and their file.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::SystemEntropy;
use crate::file::{self, KeyFileError, Readers};

fn read(path: &Path) -> std::result::Result<Option<RootRing>, KeyFileError> {
    file::read(path, Readers::Owner)
}

fn made(path: &Path) -> RootRing {
    file::create(path, &SystemEntropy::new()).unwrap();
    read(path).unwrap().unwrap()
}

#[test]
fn a_file_is_made_once_and_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.key");
    assert!(read(&path).unwrap().is_none());
    let first = made(&path);
    let text = fs::read_to_string(&path).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(made(&path).names(), first.names());
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn processes_that_start_at_once_agree_on_one_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.key");
    let start = Arc::new(std::sync::Barrier::new(8));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (path, start) = (path.clone(), Arc::clone(&start));
            std::thread::spawn(move || {
                start.wait();
                made(&path).names()
            })
        })
        .collect();
    let names: std::collections::BTreeSet<_> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    assert_eq!(names.len(), 1);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_file_that_others_may_read_or_that_holds_no_keys_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.key");
    made(&path);
    let good = fs::read_to_string(&path).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.to_string().contains("0600"), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let other = format!("{PREFIX}{}\n", "1".repeat(64));
    let many: String = (0..=MAX_ROOTS)
        .map(|n| format!("{PREFIX}{n:064x}\n"))
        .collect();
    for text in [
        "",
        "\n",
        &good[..good.len() - 1],
        &good[..good.len() / 2],
        &good[1..],
        &format!("{good}0"),
        &format!("{good}{}", &other[..other.len() - 1]),
        &format!("{good}\n{other}"),
        &format!("{good}{good}"),
        &good.replace("key-1", "key-2"),
        &format!("{PREFIX}{}\n", "g".repeat(64)),
        &many,
        &good.repeat(100),
    ] {
        fs::write(&path, text).unwrap();
        let error = read(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::Malformed), "{text}");
        assert!(!error.to_string().contains(good[23..].trim()));
        assert_eq!(fs::read_to_string(&path).unwrap(), *text);
    }
    fs::write(&path, [0xff, 0xfe, b'\n']).unwrap();
    assert!(matches!(read(&path), Err(KeyFileError::Malformed)));
    fs::write(&path, format!("{good}{other}")).unwrap();
    assert_eq!(read(&path).unwrap().unwrap().iter().count(), 2);
}

#[test]
fn a_file_of_digits_alone_as_openssl_rand_writes_them_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.key");
    let written = made(&path).names();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(PREFIX, "")).unwrap();
    assert_eq!(read(&path).unwrap().unwrap().names(), written);
}

#[test]
fn a_file_in_the_place_of_something_else_is_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let entropy = SystemEntropy::new();
    assert!(matches!(
        read(directory.path()),
        Err(KeyFileError::NotAFile)
    ));
    file::create(&directory.path().join("missing/root.key"), &entropy).unwrap_err();
    let dangling = directory.path().join("link");
    symlink(directory.path().join("nowhere"), &dangling).unwrap();
    file::create(&dangling, &entropy).unwrap();
    assert!(read(&dangling).unwrap().is_none(), "it is not followed");
}

#[test]
fn a_file_is_replaced_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.key");
    let entropy = SystemEntropy::new();
    let old = made(&path);
    let fresh = RootKey::new(Material::random(&entropy)).unwrap();
    let both = [fresh.material(), old.first().unwrap().material()];
    file::replace(&path, &both, &entropy).unwrap();
    let ring = read(&path).unwrap().unwrap();
    assert_eq!(ring.names(), format!("{}, {}", fresh.name(), old.names()));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_change_removes_what_crashes_left() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.key");
    let entropy = SystemEntropy::new();
    let ring = made(&path);
    for name in [".root.key.0123.tmp", ".other.key.0123.tmp"] {
        fs::write(directory.path().join(name), "x").unwrap();
    }
    file::update(&path, &entropy, Ok).unwrap();
    let names = fs::read_dir(directory.path()).unwrap().flatten();
    let mut names: Vec<_> = names.map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, [".other.key.0123.tmp", ".root.key.lock", "root.key"]);
    assert_eq!(read(&path).unwrap().unwrap().names(), ring.names());
}

#[test]
fn keys_are_read_from_a_text_with_what_people_put_between_them() {
    let (one, two) = ("ab".repeat(32), "CD".repeat(32));
    let names = |text: &str| RootRing::of_text(text).map(|ring| ring.names());
    let wanted = names(&format!("{one} {two}")).unwrap();
    for text in [
        format!("{one},{two}"),
        format!(" {one}\n{two}\n"),
        format!("{PREFIX}{one}\n{PREFIX}{}\n", two.to_lowercase()),
    ] {
        assert_eq!(names(&text).as_ref(), Some(&wanted));
    }
    assert_ne!(names(&format!("{two} {one}")), Some(wanted));
    for text in [
        "",
        " ,\n",
        &one[1..],
        &format!("{one} {one}"),
        &format!("{one} x"),
        &format!("{one}{two}"),
    ] {
        assert_eq!(names(text), None, "{text}");
    }
}

#[test]
fn a_wrapped_key_opens_under_its_root_as_itself_only() {
    let entropy = SystemEntropy::new();
    let root = || RootKey::new(Material::random(&entropy)).unwrap();
    let (one, other) = (root(), root());
    let material = Material::random(&entropy);
    let now = Timestamp::from_micros(1);
    let wrapped = one.wrap("service", 1, &material, now, &entropy).unwrap();
    assert_eq!(wrapped.root, one.name());
    let opened = one.unwrap(&wrapped).unwrap();
    assert!(opened.is(&material));
    assert!(other.unwrap(&wrapped).is_err());
    for changed in [
        WrappedMaterial {
            key: "secrets".to_owned(),
            ..wrapped.clone()
        },
        WrappedMaterial {
            version: 2,
            ..wrapped.clone()
        },
    ] {
        assert!(one.unwrap(&changed).is_err());
    }
    for byte in 0..wrapped.wrapped.len() {
        let mut flipped = wrapped.clone();
        flipped.wrapped[byte] ^= 1;
        assert!(one.unwrap(&flipped).is_err());
    }
}

#[test]
fn a_root_keys_name_is_always_the_same_and_shows_nothing_of_it() {
    let root = |digit: &str| {
        let material = Material::from_hex(&digit.repeat(64)).unwrap();
        RootKey::new(material).unwrap()
    };
    assert_eq!(root("a").name(), root("a").name());
    assert_ne!(root("a").name(), root("b").name());
    assert_eq!(root("a").name().len(), 16);
    assert!(!root("a").name().contains("aaaa"));
    assert_eq!(
        format!("{:?}", root("a")),
        format!("RootKey({})", root("a").name())
    );
}
