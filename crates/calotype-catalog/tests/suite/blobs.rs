//! The life of blobs, and the verifier.

use std::time::Duration;

use calotype_core::image::ImageStatus;
use calotype_core::job::Release;
use calotype_core::ports::{
    BlobRecord, BlobState, ByteLimit, Images as _, Jobs as _, Reconcile as _, Reservation,
};
use calotype_core::time::Timestamp;

use crate::world::{LEASE, PickJob as _, World, deletable, facts, trail};

pub(crate) async fn a_shared_blob_goes_with_its_last_image_after_the_grace(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let blob = source.blob.unwrap();
    let replica = world.replica(&source, "p2");
    catalog.submit_replica(&replica, trail()).await.unwrap();
    let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
    assert_eq!(
        catalog
            .finish_share(&claim.job.id, claim.attempt)
            .await
            .unwrap(),
        Release::Done
    );
    assert_eq!(catalog.blobs(None, 9).await.unwrap()[0].images, 2);

    catalog
        .delete_image(&source, Duration::ZERO, trail())
        .await
        .unwrap();
    assert!(!catalog.claim_deletion(blob).await.unwrap());
    world.assert_sound().await;

    let last = world.get(replica.image.id).await;
    catalog
        .delete_image(&last, Duration::from_secs(3600), trail())
        .await
        .unwrap();
    assert_eq!(deletable(catalog, None, 9).await, []);
    assert!(!catalog.claim_deletion(blob).await.unwrap());
    world.tamper("update blobs set deletable_at = 1").await;
    assert_eq!(deletable(catalog, None, 9).await, [blob]);
    // Only a claim makes its row removable, and a claim can be made again after a crash.
    catalog.forget_blob(blob).await.unwrap();
    assert!(catalog.claim_deletion(blob).await.unwrap());
    assert!(catalog.claim_deletion(blob).await.unwrap());
    assert_eq!(deletable(catalog, None, 9).await, [blob]);
    assert_eq!(
        catalog.blobs(None, 9).await.unwrap()[0].state,
        BlobState::Deleting
    );
    catalog.forget_blob(blob).await.unwrap();
    assert_eq!(catalog.blobs(None, 9).await.unwrap(), []);
    assert!(!catalog.claim_deletion(blob).await.unwrap());
    world.assert_sound().await;
}

pub(crate) async fn what_was_read_the_longest_ago_is_scrubbed_first(world: World) {
    let catalog = &world.catalog;
    let late = Timestamp::from_micros(i64::MAX);
    assert_eq!(catalog.due_for_scrub(late, None, 9).await.unwrap(), []);
    assert_eq!(catalog.unread_since().await.unwrap(), None);
    let mut blobs = Vec::new();
    for _ in 0..3 {
        blobs.push(world.active("p1", 100).await.blob.unwrap());
    }
    let written = catalog.blobs(None, 9).await.unwrap();
    assert!(written.iter().all(|blob| blob.scrubbed_at.is_some()));
    for (blob, at) in blobs.iter().zip(["7", "null", "5"]) {
        let sql = format!("update blobs set scrubbed_at = {at} where id = '{blob}'");
        world.tamper(&sql).await;
    }
    let due = async |until, after: Option<&BlobRecord>, limit| {
        let due = catalog.due_for_scrub(Timestamp::from_micros(until), after, limit);
        due.await.unwrap()
    };
    let ids = |due: &[BlobRecord]| due.iter().map(|blob| blob.id).collect::<Vec<_>>();
    // What nobody knows of comes first.
    let all = due(7, None, 9).await;
    assert_eq!(ids(&all), [blobs[1], blobs[2], blobs[0]]);
    assert_eq!(ids(&due(6, None, 9).await), [blobs[1], blobs[2]]);
    assert_eq!(ids(&due(7, None, 1).await), [blobs[1]]);
    assert_eq!(ids(&due(7, Some(&all[0]), 1).await), [blobs[2]]);
    assert_eq!(ids(&due(7, Some(&all[1]), 9).await), [blobs[0]]);
    // It counts from when that began to be noted.
    assert!(catalog.unread_since().await.unwrap() > Some(Timestamp::from_micros(7)));
    catalog.note_scrub(blobs[1]).await.unwrap();
    let since = catalog.unread_since().await.unwrap();
    assert_eq!(since, Some(Timestamp::from_micros(5)));
    assert_eq!(ids(&due(7, None, 9).await), [blobs[2], blobs[0]]);

    // What is going or being written is left alone.
    world.tamper("update blobs set state = 'deleting'").await;
    assert_eq!(due(i64::MAX, None, 9).await, []);
    catalog.note_scrub(blobs[2]).await.unwrap();
    let left = catalog.blob(blobs[2]).await.unwrap().unwrap();
    assert_eq!(left.scrubbed_at, Some(Timestamp::from_micros(5)));
    world.tamper("update blobs set state = 'stored'").await;

    assert_eq!(catalog.damaged_blobs().await.unwrap(), 0);
    for blob in &blobs[..2] {
        catalog.mark_damaged(*blob).await.unwrap();
    }
    assert_eq!(catalog.damaged_blobs().await.unwrap(), 2);
    catalog.clear_damage(blobs[0]).await.unwrap();
    assert_eq!(catalog.damaged_blobs().await.unwrap(), 1);
    world.tamper("update blobs set state = 'deleting'").await;
    assert_eq!(catalog.damaged_blobs().await.unwrap(), 0);
}

pub(crate) async fn an_expired_upload_is_ended_once(world: World) {
    let catalog = &world.catalog;
    let (lapsed, alive, deleted) = (world.image("p1"), world.image("p1"), world.image("p1"));
    let blobs = [world.blob_id(), world.blob_id(), world.blob_id()];
    let leases = [Duration::ZERO, LEASE, Duration::ZERO];
    for ((image, blob), lease) in [&lapsed, &alive, &deleted]
        .into_iter()
        .zip(blobs)
        .zip(leases)
    {
        world.insert(image).await;
        catalog
            .begin_upload(image.id, blob, lease, Reservation::NONE)
            .await
            .unwrap();
    }
    let saving = world.get(deleted.id).await;
    catalog
        .delete_image(&saving, Duration::ZERO, trail())
        .await
        .unwrap();
    assert!(!catalog.extend_upload(blobs[0], LEASE).await.unwrap());
    let mut ended = catalog.expire_uploads().await.unwrap();
    ended.sort();
    assert_eq!(ended, [blobs[0], blobs[2]]);
    assert_eq!(catalog.expire_uploads().await.unwrap(), []);
    assert_eq!(world.get(lapsed.id).await.status, ImageStatus::Queued);
    assert_eq!(world.get(alive.id).await.status, ImageStatus::Saving);
    assert!(
        catalog
            .finish_upload(
                lapsed.id,
                blobs[0],
                &facts(1),
                None,
                ByteLimit::NONE,
                trail()
            )
            .await
            .is_err()
    );
    catalog
        .finish_upload(
            alive.id,
            blobs[1],
            &facts(1),
            None,
            ByteLimit::NONE,
            trail(),
        )
        .await
        .unwrap();
    assert_eq!(deletable(catalog, None, 9).await, [blobs[0], blobs[2]]);
    // Whoever can't remove the first goes on behind it.
    for (after, rest) in [
        (None, &[blobs[0]][..]),
        (Some(blobs[0]), &[blobs[2]]),
        (Some(blobs[2]), &[]),
    ] {
        assert_eq!(deletable(catalog, after, 1).await, rest);
    }
    world.assert_sound().await;
}

pub(crate) async fn a_broken_catalog_is_told_from_a_sound_one(world: World) {
    let source = world.active("p1", 100).await;
    let replica = world.replica(&source, "p2");
    world
        .catalog
        .submit_replica(&replica, trail())
        .await
        .unwrap();
    world.assert_sound().await;
    for (breaks, mends, invariant) in [
        (
            "update project_usage set bytes = bytes + 1",
            "update project_usage set bytes = bytes - 1",
            6,
        ),
        (
            "update project_usage set images = images + 1 where project = 'p2'",
            "update project_usage set images = images - 1 where project = 'p2'",
            6,
        ),
        (
            "update project_usage set blob_bytes = blob_bytes + 1 where project = 'p2'",
            "update project_usage set blob_bytes = blob_bytes - 1 where project = 'p2'",
            6,
        ),
        (
            "update project_usage set reserved = reserved + 1",
            "update project_usage set reserved = reserved - 1",
            6,
        ),
        (
            "update blobs set state = 'deleting'",
            "update blobs set state = 'stored'",
            4,
        ),
        (
            "insert into burnt_image_ids select id, 0 from images",
            "delete from burnt_image_ids",
            2,
        ),
        (
            "update jobs set blob = null",
            "update jobs set blob = (select id from blobs)",
            5,
        ),
        (
            "update jobs set status = 'SUCCESS', lease_owner = 'w1'",
            "update jobs set status = 'INIT', lease_owner = null",
            5,
        ),
        (
            "update blobs set size = size + 1",
            "update blobs set size = size - 1",
            2,
        ),
        (
            "update blobs set deletable_at = 1",
            "update blobs set deletable_at = null",
            4,
        ),
    ] {
        world.tamper(breaks).await;
        let found = world.catalog.violations().await.unwrap();
        assert!(
            found.iter().any(|found| found.invariant == invariant),
            "{breaks}: {found:?}"
        );
        world.tamper(mends).await;
        world.assert_sound().await;
    }
    assert!(world.catalog.ping().await.is_ok());
}
