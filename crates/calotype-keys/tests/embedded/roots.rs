//! Starts, first and later ones, and root keys that change.

use calotype_core::ports::MasterKeys as _;
use calotype_core::{Error, ErrorKind};
use calotype_keys::{RootStatus, ServiceKey};

use crate::world::{Sealed, World, call, environment};

const OLD: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
const NEW: &str = "b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1";

#[track_caller]
fn refused(error: &Error, words: &[&str]) {
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error:?}");
    for word in words {
        assert!(error.message().contains(word), "{error}");
    }
    assert!(!error.chain().contains(OLD) && !error.chain().contains(NEW));
}

fn file_line(digits: &str) -> String {
    format!("calotype-service-key-1:{digits}\n")
}

fn write_root_file(world: &World, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(world.root_file(), text).unwrap();
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(world.root_file(), mode).unwrap();
}

#[tokio::test]
async fn a_first_start_makes_keys_that_every_later_start_opens() {
    let world = World::new().await;
    let keys = world.open_file().await.unwrap();
    let sealed = Sealed::under(keys.as_ref()).await;
    assert!(sealed.opens_under(&keys).await);
    let again = world.open_file().await.unwrap();
    assert!(sealed.opens_under(&again).await);
    let copy = world.labels.text();
    assert!(
        copy.contains("\"service\"") && copy.contains("\"secrets\""),
        "{copy}"
    );
    assert_eq!(format!("{keys:?}"), "EmbeddedKeys(..)");
    // Fresh, and not what the root key alone gives.
    let root = std::fs::read_to_string(world.root_file()).unwrap();
    let root = root.trim().split(':').nth(1).unwrap();
    let derived = ServiceKey::from_hex(root, world.entropy.clone()).unwrap();
    let other = Sealed::under(&derived).await;
    assert!(!other.opens_under(&keys).await);
}

#[tokio::test]
async fn starts_at_once_agree_on_the_keys() {
    let world = World::new().await;
    let (one, two, three) = tokio::join!(world.open_file(), world.open_file(), world.open_file());
    let (one, two, three) = (one.unwrap(), two.unwrap(), three.unwrap());
    let sealed = Sealed::under(one.as_ref()).await;
    for keys in [&one, &two, &three] {
        assert!(sealed.opens_under(keys).await);
    }
}

#[tokio::test]
async fn what_was_sealed_before_there_were_master_keys_opens_after_the_upgrade() {
    for ring in [OLD.to_owned(), format!("{NEW} {OLD}")] {
        let world = World::new().await;
        let before = ServiceKey::from_hex(OLD, world.entropy.clone()).unwrap();
        let sealed = Sealed::under(&before).await;
        world.insert_access_key(sealed.secret()).await;
        let keys = world.open(environment(&ring)).await.unwrap();
        assert!(sealed.opens_under(&keys).await, "{ring}");
        let again = world.open(environment(&ring)).await.unwrap();
        assert!(sealed.opens_under(&again).await);
        let new = Sealed::under(keys.as_ref()).await;
        assert!(new.opens_under(&again).await);
    }
}

#[tokio::test]
async fn an_upgrade_with_another_root_key_is_refused_and_the_right_one_still_works() {
    let world = World::new().await;
    let before = ServiceKey::from_hex(OLD, world.entropy.clone()).unwrap();
    let sealed = Sealed::under(&before).await;
    world.insert_access_key(sealed.secret()).await;
    // As if the file had been lost: none is made in its place.
    let error = world.open_file().await.unwrap_err();
    refused(&error, &["root.key", "is not there"]);
    assert!(!world.root_file().exists());
    let error = world.open(environment(NEW)).await.unwrap_err();
    refused(&error, &["None of the root keys"]);
    assert_eq!(world.catalog.service_material().await.unwrap(), []);
    write_root_file(&world, &file_line(OLD));
    let keys = world.open_file().await.unwrap();
    assert!(sealed.opens_under(&keys).await);
}

#[tokio::test]
async fn a_start_without_the_root_key_that_wraps_is_refused_and_changes_nothing() {
    let world = World::new().await;
    let keys = world.open(environment(OLD)).await.unwrap();
    let sealed = Sealed::under(keys.as_ref()).await;
    let before = world.catalog.roots().await.unwrap();
    let error = world.open(environment(NEW)).await.unwrap_err();
    refused(
        &error,
        &[&before[0].name, "CALOTYPE_ROOT_KEY", "can't be opened"],
    );
    let error = world.open_file().await.unwrap_err();
    refused(&error, &["root.key", "is not there"]);
    let error = world.open(environment("abc")).await.unwrap_err();
    refused(&error, &["CALOTYPE_ROOT_KEY", "64 hexadecimal digits"]);
    assert_eq!(world.catalog.roots().await.unwrap(), before);
    let again = world.open(environment(OLD)).await.unwrap();
    assert!(sealed.opens_under(&again).await);
}

#[tokio::test]
async fn a_new_catalog_over_old_blobs_takes_the_keys_from_beside_them() {
    let world = World::new().await;
    let keys = world.open(environment(OLD)).await.unwrap();
    let sealed = Sealed::under(keys.as_ref()).await;
    let world = world.with_new_catalog().await;
    let error = world.open(environment(NEW)).await.unwrap_err();
    refused(&error, &["beside the blobs", "not at hand"]);
    let error = world.open_file().await.unwrap_err();
    refused(&error, &["is not there"]);
    let keys = world.open(environment(OLD)).await.unwrap();
    assert!(sealed.opens_under(&keys).await);
    let again = world.open(environment(OLD)).await.unwrap();
    assert!(sealed.opens_under(&again).await);
}

#[tokio::test]
async fn keys_beside_the_blobs_that_are_another_catalogs_are_not_taken() {
    let world = World::new().await;
    world.open(environment(OLD)).await.unwrap();
    let world = world.with_new_catalog().await;
    let before = ServiceKey::from_hex(OLD, world.entropy.clone()).unwrap();
    let sealed = Sealed::under(&before).await;
    world.insert_access_key(sealed.secret()).await;
    let error = world.open(environment(OLD)).await.unwrap_err();
    refused(&error, &["another catalog's"]);
}

fn current(status: &RootStatus) -> &str {
    let current = status.roots.iter().find(|root| root.record.current);
    &current.unwrap().record.name
}

#[tokio::test]
async fn a_rotated_root_key_wraps_everything_and_the_old_one_can_go() {
    let world = World::new().await;
    let admin = call("u1", "p1", &["admin"]);
    let member = call("u2", "p1", &["member"]);
    let keys = world.open_file().await.unwrap();
    let other_node = world.open_file().await.unwrap();
    let sealed = Sealed::under(keys.as_ref()).await;
    let old = keys.root_status(&admin).await.unwrap();
    for refused in [
        keys.rotate_root(&member).await,
        keys.retire_roots(&member).await,
        keys.root_status(&member).await,
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Forbidden);
    }
    let status = keys.rotate_root(&admin).await.unwrap();
    assert_ne!(current(&status), current(&old));
    assert_eq!(status.roots[1].record.versions, 2);
    let early = keys.retire_roots(&admin).await.unwrap_err();
    assert_eq!(early.kind(), ErrorKind::Conflict);
    assert_eq!(read_lines(&world), 2);

    // Interrupted here, the next start goes on; and another node may do the work.
    other_node.upkeep().await.unwrap();
    let keys = world.open_file().await.unwrap();
    keys.upkeep().await.unwrap();
    let status = keys.root_status(&admin).await.unwrap();
    let left: Vec<_> = status
        .roots
        .iter()
        .map(|root| root.record.versions)
        .collect();
    assert_eq!(left, [2, 0]);
    assert!(world.labels.text().contains(current(&status)));
    assert!(!world.labels.text().contains(current(&old)));

    let status = keys.retire_roots(&admin).await.unwrap();
    assert!(status.roots[1].record.retired_at.is_some() && !status.roots[1].at_hand);
    assert_eq!(read_lines(&world), 1);
    for keys in [&keys, &other_node, &world.open_file().await.unwrap()] {
        assert!(sealed.opens_under(keys).await);
    }
    // Again and again.
    for _ in 0..20 {
        keys.rotate_root(&admin).await.unwrap();
        other_node.upkeep().await.unwrap();
        other_node.retire_roots(&admin).await.unwrap();
    }
    assert!(sealed.opens_under(&world.open_file().await.unwrap()).await);
    assert_eq!(read_lines(&world), 1);
}

fn read_lines(world: &World) -> usize {
    let text = std::fs::read_to_string(world.root_file()).unwrap();
    text.lines().count()
}

#[tokio::test]
async fn nodes_that_rotate_at_once_lose_no_root_key() {
    let world = World::new().await;
    let admin = call("u1", "p1", &["admin"]);
    let (one, other) = (
        world.open_file().await.unwrap(),
        world.open_file().await.unwrap(),
    );
    let sealed = Sealed::under(one.as_ref()).await;
    let (first, second, _) = tokio::join!(
        one.rotate_root(&admin),
        other.rotate_root(&admin),
        one.upkeep()
    );
    first.unwrap();
    second.unwrap();
    assert_eq!(read_lines(&world), 3);
    one.upkeep().await.unwrap();
    other.upkeep().await.unwrap();
    one.retire_roots(&admin).await.unwrap();
    assert_eq!(read_lines(&world), 1);
    let keys = world.open_file().await.unwrap();
    assert!(sealed.opens_under(&keys).await);
}

#[tokio::test]
async fn a_file_takes_so_many_root_keys_and_no_more() {
    let world = World::new().await;
    let admin = call("u1", "p1", &["admin"]);
    let keys = world.open_file().await.unwrap();
    for _ in 1..16 {
        keys.rotate_root(&admin).await.unwrap();
    }
    let full = keys.rotate_root(&admin).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Conflict);
    assert!(full.message().contains("retire"), "{full}");
    keys.upkeep().await.unwrap();
    keys.retire_roots(&admin).await.unwrap();
    keys.rotate_root(&admin).await.unwrap();
}

#[tokio::test]
async fn root_keys_from_outside_are_rotated_by_who_puts_them_there() {
    let world = World::new().await;
    let admin = call("u1", "p1", &["admin"]);
    let keys = world.open(environment(OLD)).await.unwrap();
    let sealed = Sealed::under(keys.as_ref()).await;
    let refused_here = keys.rotate_root(&admin).await.unwrap_err();
    assert_eq!(refused_here.kind(), ErrorKind::Conflict);
    assert!(refused_here.message().contains("CALOTYPE_ROOT_KEY"));

    let (old, both) = (OLD, format!("{NEW},{OLD}"));
    let keys = world.open(environment(&both)).await.unwrap();
    let status = keys.root_status(&admin).await.unwrap();
    assert_eq!(status.roots.len(), 2);
    // A node that was not started again can't go on with what needs the new one, and says so.
    keys.upkeep().await.unwrap();
    let error = world.open(environment(old)).await.unwrap_err();
    refused(&error, &[current(&status)]);
    // One that has both in the old order does not turn it back.
    let late = world.open(environment(&format!("{OLD} {NEW}"))).await;
    let late = late.unwrap();
    late.upkeep().await.unwrap();
    let after = late.root_status(&admin).await.unwrap();
    assert_eq!(current(&after), current(&status));
    assert_eq!(after.roots[0].record.versions, 2);

    late.retire_roots(&admin).await.unwrap();
    let keys = world.open(environment(NEW)).await.unwrap();
    assert!(sealed.opens_under(&keys).await);
    let error = world.open(environment(old)).await.unwrap_err();
    refused(&error, &[current(&status)]);
}

#[tokio::test]
async fn a_credential_is_read_whoever_may_read_its_file_and_never_made() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new().await;
    let path = world.directory.path().join("calotype-root-key");
    let source = || calotype_keys::RootSource::Credential(path.clone());
    let error = world.open(source()).await.unwrap_err();
    refused(&error, &["credential", "is not there"]);
    assert!(!path.exists());
    std::fs::write(&path, OLD).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o440)).unwrap();
    let keys = world.open(source()).await.unwrap();
    let sealed = Sealed::under(keys.as_ref()).await;
    std::fs::write(&path, format!("{NEW}\n{OLD}\n")).unwrap();
    assert!(
        sealed
            .opens_under(&world.open(source()).await.unwrap())
            .await
    );
}

#[tokio::test]
async fn material_that_was_changed_in_the_catalog_opens_nothing() {
    let world = World::new().await;
    world.open_file().await.unwrap();
    let mut stored = world.catalog.service_material().await.unwrap();
    let root = stored[0].root.clone();
    let (one, two) = stored.split_at_mut(1);
    // The keys change places.
    std::mem::swap(&mut one[0].wrapped, &mut two[0].wrapped);
    let swapped: Vec<_> = stored.into_iter().map(|own| (root.clone(), own)).collect();
    let _ = world.catalog.rewrap(&swapped).await.unwrap();
    let error = world.open_file().await.unwrap_err();
    assert!(error.chain().contains("does not authenticate"), "{error:?}");
}
