//! Quotas: what is charged, what is reserved, and that neither is ever over a limit.

use std::sync::Arc;
use std::time::Duration;

use calotype_catalog::SqlCatalog;
use calotype_core::ErrorKind;
use calotype_core::codes::ImsCode;
use calotype_core::id::{BlobId, ImageId};
use calotype_core::image::{Image, ImageStatus, Member, MemberStatus, Visibility};
use calotype_core::job::{JobFailure, JobFamily, Release};
use calotype_core::ports::{
    ByteLimit, Directory as _, ImageLimit, Images as _, Jobs as _, LimitChange, NewReplica,
    OwnLimit, OwnLimits, ProjectRecord, Quotas as _, Reconcile as _, Reservation, SharedBlobs,
    Usage,
};
use calotype_core::size::ByteSize;
use tokio::task::JoinSet;

use crate::world::{
    LEASE, NO_LIMIT, PickJob as _, World, assert_kind, at_most, event, facts, open, project, trail,
};

mod model;

pub(crate) use model::usage_is_what_the_model_says_in_whatever_order_things_happen;

pub(crate) fn limit(most: u64) -> ByteLimit {
    ByteLimit {
        configured: Some(ByteSize::new(most)),
        shared: SharedBlobs::Once,
    }
}

pub(crate) fn needing(needed: u64, limit: ByteLimit) -> Reservation {
    Reservation {
        needed: ByteSize::new(needed),
        wanted: ByteSize::new(needed),
        limit,
    }
}

fn usage(images: u64, bytes: u64, blob_bytes: u64, reserved: u64) -> Usage {
    Usage {
        images,
        bytes: ByteSize::new(bytes),
        blob_bytes: ByteSize::new(blob_bytes),
        reserved: ByteSize::new(reserved),
    }
}

async fn has(world: &World, name: &str) -> Usage {
    world.catalog.usage(&project(name)).await.unwrap()
}

pub(crate) fn failure() -> JobFailure {
    JobFailure {
        code: ImsCode::IMG_0057,
        reason: "The source is damaged.".to_owned(),
    }
}

#[track_caller]
fn assert_no_room<T: std::fmt::Debug>(outcome: calotype_core::Result<T>) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(error.code(), Some(ImsCode::IMG_0059));
}

async fn delete(world: &World, id: ImageId) {
    let image = world.get(id).await;
    let deleted = world.catalog.delete_image(&image, Duration::ZERO, trail());
    deleted.await.unwrap();
}

async fn finish_upload(
    catalog: &SqlCatalog,
    id: ImageId,
    blob: BlobId,
    size: u64,
    most: u64,
) -> calotype_core::Result<()> {
    let (facts, limit) = (facts(size), limit(most));
    let finished = catalog.finish_upload(id, blob, &facts, None, limit, trail());
    finished.await.map(drop)
}

async fn finish(world: &World, replica: &NewReplica) {
    let claim = world.catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
    assert_eq!(claim.job.id, replica.job.id);
    let finished = world.catalog.finish_share(&claim.job.id, claim.attempt);
    assert_eq!(finished.await.unwrap(), Release::Done);
}

pub(crate) async fn a_shared_blob_is_paid_for_once_and_until_its_last_image_goes(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let replicas = [(), (), ()].map(|()| NewReplica {
        byte_limit: limit(100),
        ..world.replica(&source, "p2")
    });
    let [first, second, failed] = &replicas;
    // The first is paid for when it is accepted, the others not at all.
    catalog.submit_replica(first, trail()).await.unwrap();
    assert_eq!(has(&world, "p2").await, usage(1, 100, 100, 0));
    catalog.submit_replica(second, trail()).await.unwrap();
    assert_eq!(has(&world, "p2").await, usage(2, 200, 100, 0));
    finish(&world, first).await;
    finish(&world, second).await;
    assert_eq!(has(&world, "p2").await, usage(2, 200, 100, 0));
    world.assert_sound().await;

    delete(&world, first.image.id).await;
    assert_eq!(has(&world, "p2").await, usage(1, 100, 100, 0));
    // A replication that is not done holds the blob as an image does.
    catalog.submit_replica(failed, trail()).await.unwrap();
    delete(&world, second.image.id).await;
    assert_eq!(has(&world, "p2").await, usage(1, 100, 100, 0));
    world.assert_sound().await;
    let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
    let failure = failure();
    let ended = catalog.fail_job(&claim.job.id, claim.attempt, &failure);
    assert!(ended.await.unwrap());
    assert_eq!(has(&world, "p2").await, usage(0, 0, 0, 0));
    // Who has the source pays for no replica of it, whatever is left of its quota.
    let own = NewReplica {
        byte_limit: limit(0),
        ..world.replica(&source, "p1")
    };
    catalog.submit_replica(&own, trail()).await.unwrap();
    delete(&world, source.id).await;
    assert_eq!(has(&world, "p1").await, usage(1, 100, 100, 0));
    finish(&world, &own).await;
    assert_eq!(has(&world, "p1").await, usage(1, 100, 100, 0));
    world.assert_sound().await;
    delete(&world, own.image.id).await;
    assert_eq!(has(&world, "p1").await, usage(0, 0, 0, 0));
    world.assert_sound().await;
}

pub(crate) async fn each_image_of_a_shared_blob_is_paid_for_where_it_is_so_set(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let submitted = async |most| {
        let replica = NewReplica {
            byte_limit: ByteLimit {
                shared: SharedBlobs::Each,
                ..limit(most)
            },
            ..world.replica(&source, "p1")
        };
        catalog.submit_replica(&replica, trail()).await
    };
    assert_no_room(submitted(199).await);
    assert_eq!(has(&world, "p1").await, usage(1, 100, 100, 0));
    submitted(200).await.unwrap();
    assert_no_room(submitted(200).await);
    assert_eq!(has(&world, "p1").await, usage(2, 200, 100, 0));
    world.assert_sound().await;
}

pub(crate) async fn bytes_are_reserved_before_they_come_and_what_is_left_is_given_back(
    world: World,
) {
    let catalog = &world.catalog;
    let images = [(), (), ()].map(|()| world.image("p1"));
    let blobs = [(), (), ()].map(|()| world.blob_id());
    for image in &images {
        world.insert(image).await;
    }
    let begin = async |n: usize, needed| {
        let first = needing(needed, limit(100));
        let begun = catalog.begin_upload(images[n].id, blobs[n], LEASE, first);
        begun.await.map(|(_, reserved)| reserved.bytes())
    };
    assert_eq!(begin(0, 60).await.unwrap(), 60);
    assert_no_room(begin(1, 41).await);
    assert_eq!(world.get(images[1].id).await, images[1]);
    assert_eq!(catalog.blob(blobs[1]).await.unwrap(), None);
    assert_eq!(begin(1, 40).await.unwrap(), 40);
    assert_no_room(begin(2, 1).await);
    assert_eq!(has(&world, "p1").await, usage(3, 0, 0, 100));
    world.assert_sound().await;

    assert!(catalog.abort_upload(images[1].id, blobs[1]).await.unwrap());
    assert_eq!(has(&world, "p1").await, usage(3, 0, 0, 60));
    assert!(!catalog.abort_upload(images[1].id, blobs[1]).await.unwrap());
    assert_eq!(has(&world, "p1").await, usage(3, 0, 0, 60));
    // Less came than was said.
    let (id, blob) = (images[0].id, blobs[0]);
    finish_upload(catalog, id, blob, 50, 100).await.unwrap();
    assert_eq!(has(&world, "p1").await, usage(3, 50, 50, 0));
    assert_no_room(begin(2, 51).await);
    assert_eq!(begin(2, 50).await.unwrap(), 50);
    catalog.end_leases().await.unwrap();
    assert_eq!(catalog.expire_uploads().await.unwrap(), [blobs[2]]);
    assert_eq!(has(&world, "p1").await, usage(3, 50, 50, 0));
    world.assert_sound().await;
}

pub(crate) async fn a_reservation_grows_by_steps_that_leave_room_for_others(world: World) {
    let catalog = &world.catalog;
    let image = world.image("p1");
    world.insert(&image).await;
    let blob = world.blob_id();
    let reservation = |needed, wanted, most| Reservation {
        needed: ByteSize::new(needed),
        wanted: ByteSize::new(wanted),
        limit: limit(most),
    };
    let first = reservation(0, 500, 1600);
    let begun = catalog.begin_upload(image.id, blob, LEASE, first).await;
    assert_eq!(begun.unwrap().1.bytes(), 100);
    for (needed, wanted, most, granted) in [
        (1, 10, 1600, Some(10)),
        (1, 1000, 1710, Some(100)),
        (300, 1000, 1600, Some(300)),
        (1091, 1091, 1600, None),
        (1090, 1091, 1600, Some(1090)),
        (0, 100, 1600, Some(0)),
        // A limit that is lower than what there is.
        (1, 1, 5, None),
    ] {
        let more = catalog.reserve(blob, reservation(needed, wanted, most));
        match (more.await, granted) {
            (Ok(more), Some(granted)) => assert_eq!(more.bytes(), granted),
            (outcome, _) => assert_no_room(outcome),
        }
    }
    assert_eq!(has(&world, "p1").await, usage(1, 0, 0, 1600));
    world.assert_sound().await;
    // What was granted once stays good.
    finish_upload(catalog, image.id, blob, 1600, 5)
        .await
        .unwrap();
    assert_eq!(has(&world, "p1").await, usage(1, 1600, 1600, 0));
    let late = catalog.reserve(blob, needing(1, ByteLimit::NONE)).await;
    assert_kind(late, ErrorKind::Gone);
    world.assert_sound().await;
}

pub(crate) async fn what_was_not_reserved_is_judged_at_the_end(world: World) {
    let catalog = &world.catalog;
    let image = world.image("p1");
    world.insert(&image).await;
    let blob = world.blob_id();
    let begun = catalog.begin_upload(image.id, blob, LEASE, needing(10, limit(100)));
    begun.await.unwrap();
    let finish = async |size| finish_upload(catalog, image.id, blob, size, 100).await;
    assert_no_room(finish(101).await);
    assert_eq!(has(&world, "p1").await, usage(1, 0, 0, 10));
    assert_eq!(world.get(image.id).await.status, ImageStatus::Saving);
    finish(100).await.unwrap();
    assert_eq!(has(&world, "p1").await, usage(1, 100, 100, 0));
    world.assert_sound().await;
}

pub(crate) async fn an_upload_keeps_its_reservation_until_it_has_ended_though_its_image_is_deleted(
    world: World,
) {
    let catalog = &world.catalog;
    for ends_by_itself in [true, false] {
        let image = world.image("p1");
        world.insert(&image).await;
        let blob = world.blob_id();
        let begun = catalog.begin_upload(image.id, blob, LEASE, needing(100, limit(100)));
        begun.await.unwrap();
        delete(&world, image.id).await;
        assert_eq!(has(&world, "p1").await, usage(0, 0, 0, 100));
        let more = catalog.reserve(blob, needing(1, ByteLimit::NONE)).await;
        assert_kind(more, ErrorKind::Gone);
        world.assert_sound().await;
        if ends_by_itself {
            assert!(catalog.abort_upload(image.id, blob).await.unwrap());
        } else {
            catalog.end_leases().await.unwrap();
            assert_eq!(catalog.expire_uploads().await.unwrap(), [blob]);
        }
        assert_eq!(has(&world, "p1").await, usage(0, 0, 0, 0));
        world.assert_sound().await;
    }
}

pub(crate) async fn a_reseal_has_its_bytes_reserved_when_it_is_accepted(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let order = |most| NewReplica {
        byte_limit: limit(most),
        ..world.resealed_replica(&source, "p1")
    };
    let told = async |most| {
        let (p1, size) = (project("p1"), ByteSize::new(100));
        catalog.check_bytes(&p1, size, limit(most)).await
    };
    assert_no_room(told(199).await);
    told(200).await.unwrap();
    let refused = order(199);
    assert_no_room(catalog.submit_replica(&refused, trail()).await);
    assert_eq!(world.find(refused.image.id).await, None);
    assert_eq!(has(&world, "p1").await, usage(1, 100, 100, 0));
    let ends: [&str; 3] = ["done", "failed", "cancelled"];
    for end in ends {
        let replica = order(200);
        catalog.submit_replica(&replica, trail()).await.unwrap();
        assert_eq!(has(&world, "p1").await, usage(2, 100, 100, 100));
        assert_no_room(catalog.submit_replica(&order(200), trail()).await);
        world.assert_sound().await;
        let id = &replica.job.id;
        if end == "cancelled" {
            let cancelled = catalog.cancel_job(id, None, &failure(), trail()).await;
            assert!(cancelled.unwrap().is_some());
        } else {
            let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
            if end == "failed" {
                assert!(
                    catalog
                        .fail_job(id, claim.attempt, &failure())
                        .await
                        .unwrap()
                );
            } else {
                let done = catalog.finish_reseal(id, claim.attempt, &facts(100)).await;
                assert_eq!(done.unwrap(), Release::Done);
                assert_eq!(has(&world, "p1").await, usage(2, 200, 200, 0));
                delete(&world, replica.image.id).await;
            }
        }
        assert_eq!(has(&world, "p1").await, usage(1, 100, 100, 0), "{end}");
        world.assert_sound().await;
    }
}

pub(crate) async fn limits_of_a_projects_own_go_before_the_configurations(world: World) {
    let catalog = &world.catalog;
    let p1 = project("p1");
    assert_eq!(catalog.quota(&p1).await.unwrap().own, OwnLimits::default());
    assert!(
        !catalog
            .reset_limits(&p1, &event("resetQuota"))
            .await
            .unwrap()
    );
    let set = async |images, members, bytes| {
        let change = LimitChange {
            images,
            members,
            bytes,
        };
        let line = event("setQuota");
        catalog.set_limits(&p1, &change, &line).await.unwrap()
    };
    let set_once = set(Some(OwnLimit::At(1)), Some(OwnLimit::At(1)), None).await;
    assert_eq!(set_once.bytes, OwnLimit::Configured);
    let own = set(None, None, Some(OwnLimit::At(70))).await;
    assert_eq!(own.images, OwnLimit::At(1));
    assert_eq!(catalog.quota(&p1).await.unwrap().own, own);

    let image = Image {
        visibility: Visibility::Shared,
        ..world.image("p1")
    };
    world.insert(&image).await;
    let second = world.image("p1");
    let over = catalog.insert_image(&second, NO_LIMIT, trail()).await;
    assert_eq!(over.unwrap_err().code(), Some(ImsCode::IMG_0015));
    let room = catalog
        .check_room(&p1, Some(NO_LIMIT), JobFamily::Replication, 9)
        .await;
    assert_eq!(room.unwrap_err().code(), Some(ImsCode::IMG_0015));
    // What fills an image that is there needs no room for one.
    let room = catalog.check_room(&p1, None, JobFamily::Import, 9).await;
    room.unwrap();
    let blob = world.blob_id();
    let begin = async |needed| {
        let first = needing(needed, ByteLimit::NONE);
        catalog.begin_upload(image.id, blob, LEASE, first).await
    };
    assert_no_room(begin(71).await);
    begin(70).await.unwrap();

    let member = |name: &str| Member {
        image: image.id,
        project: project(name),
        status: MemberStatus::Pending,
        created_at: image.created_at,
        updated_at: image.created_at,
    };
    let add = async |name: &str, limit| {
        let added = catalog.add_member(&member(name), limit, trail()).await;
        added.map_err(|error| error.code())
    };
    let full = Err(Some(ImsCode::IMG_0088));
    assert_eq!(add("m1", at_most(9)).await, Ok(()));
    assert_eq!(add("m2", at_most(9)).await, full);
    set(None, Some(OwnLimit::Unlimited), None).await;
    assert_eq!(add("m2", at_most(0)).await, Ok(()));
    let mut of_whole = at_most(9);
    of_whole.at_most = Some(2);
    assert_eq!(add("m3", of_whole).await, full);
    let quota = catalog.quota(&p1).await.unwrap();
    assert_eq!((quota.shared_images, quota.most_members), (1, 2));
    assert_eq!(quota.usage, usage(1, 0, 0, 70));

    // Below what there is: it stays, and only growth is refused.
    set(Some(OwnLimit::At(0)), None, Some(OwnLimit::At(0))).await;
    finish_upload(catalog, image.id, blob, 70, 0).await.unwrap();
    world.assert_sound().await;
    assert!(
        catalog
            .reset_limits(&p1, &event("resetQuota"))
            .await
            .unwrap()
    );
    let more = catalog.insert_image(&second, ImageLimit(2), trail());
    more.await.unwrap();
    assert_eq!(add("m3", at_most(2)).await, full);
    world.assert_sound().await;
}

pub(crate) async fn a_project_that_is_deleted_takes_limits_and_reservations_along(world: World) {
    let catalog = &world.catalog;
    let record = ProjectRecord {
        id: project("p1"),
        domain: "default".parse().unwrap(),
        name: "one".to_owned(),
        description: String::new(),
        enabled: true,
    };
    world
        .tamper("insert into domains (id, name, enabled) values ('default', 'Default', true)")
        .await;
    catalog.insert_project(&record, None).await.unwrap();
    let change = LimitChange {
        images: Some(OwnLimit::At(1)),
        ..LimitChange::default()
    };
    let p1 = project("p1");
    let set = catalog.set_limits(&p1, &change, &event("setQuota")).await;
    set.unwrap();
    let image = world.image("p1");
    world.insert(&image).await;
    let blob = world.blob_id();
    let begun = catalog.begin_upload(image.id, blob, LEASE, needing(9, ByteLimit::NONE));
    begun.await.unwrap();
    delete(&world, image.id).await;
    assert!(
        catalog
            .delete_project(&p1, &event("deleteProject"))
            .await
            .unwrap()
    );
    world.assert_sound().await;
    let more = catalog.reserve(blob, needing(1, ByteLimit::NONE)).await;
    assert_kind(more, ErrorKind::Gone);
    assert!(catalog.abort_upload(image.id, blob).await.unwrap());
    assert_eq!(catalog.quota(&p1).await.unwrap().own, OwnLimits::default());
    world.assert_sound().await;
}

/// An upload of ten bytes that come one by one. Whether there was room.
async fn upload(catalog: &SqlCatalog, world: &World, most: u64) -> bool {
    let image = world.image("p1");
    world.insert(&image).await;
    let (id, blob) = (image.id, world.blob_id());
    let first = needing(0, limit(most));
    catalog.begin_upload(id, blob, LEASE, first).await.unwrap();
    for _ in 0..10 {
        if let Err(error) = catalog.reserve(blob, needing(1, limit(most))).await {
            assert_eq!(error.code(), Some(ImsCode::IMG_0059), "{error:?}");
            assert!(catalog.abort_upload(id, blob).await.unwrap());
            return false;
        }
    }
    finish_upload(catalog, id, blob, 10, most).await.unwrap();
    true
}

pub(crate) async fn many_at_once_fill_a_project_to_the_byte_and_no_further(world: World) {
    const MOST: u64 = 100;
    let world = Arc::new(world);
    let other = Arc::new(open(&world.url).await.unwrap());
    let source = world.active("p2", 10).await;
    let mut set = JoinSet::new();
    for n in 0..40_usize {
        let catalog = Arc::clone([&world.catalog, &other][n % 2]);
        let (world, source) = (Arc::clone(&world), source.clone());
        set.spawn(async move {
            let done = match n % 4 {
                0 => {
                    let replica = NewReplica {
                        byte_limit: limit(MOST),
                        ..world.resealed_replica(&source, "p1")
                    };
                    catalog.submit_replica(&replica, trail()).await.is_ok()
                }
                _ => upload(&catalog, &world, MOST).await,
            };
            let usage = world.catalog.usage(&project("p1")).await.unwrap();
            assert!(usage.blob_bytes.bytes() + usage.reserved.bytes() <= MOST);
            done
        });
    }
    let done = set
        .join_all()
        .await
        .into_iter()
        .filter(|done| *done)
        .count();
    assert!(done <= 10, "{done}");
    // What the losers held meanwhile is there again: it is filled up to the last byte.
    let mut left = 10 - done;
    while upload(&world.catalog, &world, MOST).await {
        left -= 1;
    }
    assert_eq!(left, 0);
    let usage = has(&world, "p1").await;
    assert_eq!(usage.blob_bytes.bytes() + usage.reserved.bytes(), MOST);
    world.assert_sound().await;
}
