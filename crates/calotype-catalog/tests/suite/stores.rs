//! Several stores, and moves between them.

use std::time::Duration;

use calotype_core::ErrorKind;
use calotype_core::codes::ImsCode;
use calotype_core::id::StoreName;
use calotype_core::image::Image;
use calotype_core::job::{BlobMove, JobFailure, JobStatus, JobType, Release, Work};
use calotype_core::ports::{
    Images as _, Jobs as _, NewDisksImport, NewImport, NewMove, NewReplica, Place, Places as _,
    Quotas as _, Reconcile as _, Reservation,
};

use crate::disks::disks_of;
use crate::imports::{import_of, new_image};
use crate::world::{LEASE, NO_LIMIT, PickJob as _, World, project, trail};

fn cold() -> StoreName {
    "cold".parse().unwrap()
}

fn move_of(world: &World, image: &Image, store: StoreName) -> NewMove {
    let number = world.image("p9").id;
    let mut job = world.job(number, JobType::MoveBlob, "p9");
    job.source = Some(image.id);
    let id = world.blob_id();
    NewMove {
        job,
        blob: image.blob.unwrap(),
        to: Place { store, id },
    }
}

fn home(image: &Image) -> Place {
    Place {
        store: StoreName::main(),
        id: image.blob.unwrap(),
    }
}

pub(crate) async fn a_blob_is_where_it_was_until_its_move_ends_well(world: World) {
    let catalog = &world.catalog;
    let image = world.active("p1", 100).await;
    let blob = image.blob.unwrap();
    let usage = catalog.usage(&project("p1")).await.unwrap();
    let order = move_of(&world, &image, cold());
    catalog.submit_move(&order, trail()).await.unwrap();
    for (again, what) in [
        (move_of(&world, &image, cold()), "being moved"),
        (
            move_of(&world, &image, "warm".parse().unwrap()),
            "being moved",
        ),
        (move_of(&world, &image, StoreName::main()), "in this store"),
    ] {
        let refused = catalog.submit_move(&again, trail()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert!(refused.message().contains(what), "{refused}");
    }
    let claim = catalog.pick_job("w", LEASE).await.unwrap().unwrap();
    let expected = BlobMove {
        blob,
        from: home(&image),
        to: order.to.clone(),
    };
    assert_eq!(claim.work, Work::Move(expected));
    assert_eq!(catalog.place(blob).await.unwrap(), Some(home(&image)));
    assert_eq!(
        catalog.copies(None, 9).await.unwrap(),
        std::slice::from_ref(&order.to)
    );
    assert_eq!(catalog.deletable_copies(None, 9).await.unwrap(), []);
    assert!(!catalog.claim_copy(&order.to).await.unwrap());
    let content = catalog.store_content(&cold()).await.unwrap();
    assert_eq!((content.blobs, content.arriving), (0, 1));
    world.assert_sound().await;

    let grace = Duration::from_secs(60);
    let stale = catalog.finish_move(&order.job.id, claim.attempt - 1, grace);
    assert_eq!(stale.await.unwrap(), Release::Lost);
    let ended = catalog.finish_move(&order.job.id, claim.attempt, grace);
    assert_eq!(ended.await.unwrap(), Release::Done);
    assert_eq!(catalog.place(blob).await.unwrap(), Some(order.to.clone()));
    assert_eq!(
        catalog.copies(None, 9).await.unwrap(),
        std::slice::from_ref(&home(&image))
    );
    assert!(!catalog.claim_copy(&home(&image)).await.unwrap());
    let stores = catalog.stores_in_use().await.unwrap();
    assert_eq!(stores, [cold(), StoreName::main()]);
    let record = catalog.blob(blob).await.unwrap().unwrap();
    assert_eq!(record.place, order.to);
    let other = world.active("p2", 100).await.blob.unwrap();
    let stores = catalog.stores_of(&[blob, other, world.blob_id()]).await;
    assert_eq!(
        stores.unwrap(),
        [(blob, cold()), (other, StoreName::main())].into()
    );
    assert_eq!(catalog.stores_of(&[]).await.unwrap(), [].into());
    assert_eq!(catalog.usage(&project("p1")).await.unwrap(), usage);
    let job = catalog.job(&order.job.id).await.unwrap().unwrap();
    assert_eq!(job.status, JobStatus::Success);
    assert_eq!(world.get(image.id).await, image);
    world.assert_sound().await;
}

pub(crate) async fn a_copy_that_a_blob_has_left_goes_after_the_grace(world: World) {
    let catalog = &world.catalog;
    let image = world.active("p1", 100).await;
    let order = move_of(&world, &image, cold());
    catalog.submit_move(&order, trail()).await.unwrap();
    let claim = catalog.pick_job("w", LEASE).await.unwrap().unwrap();
    let ended = catalog.finish_move(&order.job.id, claim.attempt, Duration::ZERO);
    assert_eq!(ended.await.unwrap(), Release::Done);
    let left = home(&image);
    assert_eq!(
        catalog.deletable_copies(None, 9).await.unwrap(),
        std::slice::from_ref(&left)
    );
    // A second one that does the same, and a crash in between, are no matter.
    for _ in 0..2 {
        assert!(catalog.claim_copy(&left).await.unwrap());
    }
    catalog.forget_copy(&left).await.unwrap();
    assert!(!catalog.claim_copy(&left).await.unwrap());
    assert_eq!(catalog.copies(None, 9).await.unwrap(), []);
    assert_eq!(catalog.stores_in_use().await.unwrap(), [cold()]);

    let back = move_of(&world, &image, StoreName::main());
    catalog.submit_move(&back, trail()).await.unwrap();
    let claim = catalog.pick_job("w", LEASE).await.unwrap().unwrap();
    let ended = catalog.finish_move(&back.job.id, claim.attempt, Duration::ZERO);
    assert_eq!(ended.await.unwrap(), Release::Done);
    let place = catalog.place(back.blob).await.unwrap();
    assert_eq!(place, Some(back.to.clone()));
    assert_ne!(back.to, left, "no name in a store is used twice");
    world.assert_sound().await;
}

pub(crate) async fn a_move_that_ends_badly_leaves_the_blob_and_its_copy_goes(world: World) {
    let catalog = &world.catalog;
    let image = world.active("p1", 100).await;
    let blob = image.blob.unwrap();
    let failure = JobFailure {
        code: ImsCode::IMG_0014,
        reason: "The job was cancelled.".to_owned(),
    };
    let mut given_up = Vec::new();
    // By its worker, and before one has it.
    for picked in [true, false] {
        let order = move_of(&world, &image, cold());
        catalog.submit_move(&order, trail()).await.unwrap();
        let id = &order.job.id;
        if picked {
            let claim = catalog.pick_job("w", LEASE).await.unwrap().unwrap();
            let failed = catalog.fail_job(id, claim.attempt, &failure);
            assert!(failed.await.unwrap());
            let late = catalog.finish_move(id, claim.attempt, Duration::ZERO);
            assert_eq!(late.await.unwrap(), Release::Lost);
        } else {
            let cancelled = catalog.cancel_job(id, None, &failure, trail());
            assert!(cancelled.await.unwrap().is_some());
        }
        given_up.push(order.to);
        assert_eq!(catalog.place(blob).await.unwrap(), Some(home(&image)));
        world.assert_sound().await;
    }
    given_up.sort();
    assert_eq!(catalog.deletable_copies(None, 9).await.unwrap(), given_up);
    let second = catalog.deletable_copies(given_up.first(), 9).await;
    assert_eq!(second.unwrap(), given_up[1..]);
}

pub(crate) async fn a_move_holds_its_blob_though_every_image_goes(world: World) {
    let catalog = &world.catalog;
    let image = world.active("p1", 100).await;
    let blob = image.blob.unwrap();
    let order = move_of(&world, &image, cold());
    catalog.submit_move(&order, trail()).await.unwrap();
    let deleted = catalog.delete_image(&image, Duration::ZERO, trail());
    deleted.await.unwrap();
    assert!(!catalog.claim_deletion(blob).await.unwrap());
    world.assert_sound().await;
    let claim = catalog.pick_job("w", LEASE).await.unwrap().unwrap();
    let ended = catalog.finish_move(&order.job.id, claim.attempt, Duration::ZERO);
    assert_eq!(ended.await.unwrap(), Release::Done);
    assert_eq!(
        catalog.blobs_in(&cold(), None, 9).await.unwrap(),
        [],
        "nothing refers to it"
    );
    assert!(catalog.claim_deletion(blob).await.unwrap());
    let record = catalog.blob(blob).await.unwrap().unwrap();
    assert_eq!(record.place, order.to, "there its bytes are removed");
    let refused = catalog
        .submit_move(&move_of(&world, &image, StoreName::main()), trail())
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    world.assert_sound().await;
}

pub(crate) async fn an_upload_goes_where_it_was_placed_and_to_no_other_store_later(world: World) {
    let catalog = &world.catalog;
    let image = world.image("p1");
    world.insert(&image).await;
    let blob = world.blob_id();
    let begun = catalog.begin_upload(image.id, blob, LEASE, Reservation::NONE);
    begun.await.unwrap();
    assert!(catalog.place_upload(blob, &cold()).await.unwrap());
    let listed = catalog.blobs_in(&cold(), None, 9).await.unwrap();
    assert_eq!(listed.len(), 1);
    let content = catalog.store_content(&cold()).await.unwrap();
    assert_eq!((content.blobs, content.writing), (0, 1));
    assert!(catalog.abort_upload(image.id, blob).await.unwrap());
    assert!(
        !catalog
            .place_upload(blob, &StoreName::main())
            .await
            .unwrap()
    );
    let place = catalog.place(blob).await.unwrap().unwrap();
    assert_eq!(place.store, cold(), "there its bytes are removed");
    world.assert_sound().await;
}

pub(crate) async fn what_a_job_makes_goes_where_it_was_placed(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let replica = NewReplica {
        store: Some(cold()),
        ..world.resealed_replica(&source, "p1")
    };
    catalog.submit_replica(&replica, trail()).await.unwrap();
    let import = |store| {
        let image = new_image(&world.image("p1"), NO_LIMIT);
        NewImport {
            store,
            ..import_of(&world, JobType::ImportImage, image, "p1")
        }
    };
    for store in [Some(cold()), None] {
        let import = import(store.clone());
        catalog.submit_import(&import, trail()).await.unwrap();
        let place = catalog.place(import.import.target).await.unwrap().unwrap();
        assert_eq!(place.store, store.unwrap_or_else(StoreName::main));
    }
    let disks = NewDisksImport {
        store: Some(cold()),
        ..disks_of(&world, 2)
    };
    catalog.submit_disks(&disks, None).await.unwrap();
    let listed = catalog.blobs_in(&cold(), None, 9).await.unwrap();
    assert_eq!(listed.len(), 5, "a replica, an import and three disks");
    world.assert_sound().await;
}
