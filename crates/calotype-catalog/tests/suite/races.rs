//! Many at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use calotype_core::ErrorKind;
use calotype_core::image::Image;
use calotype_core::job::Release;
use calotype_core::ports::{
    ImageLimit, Images as _, Jobs as _, Quotas as _, Reconcile as _, Reservation,
};
use tokio::task::JoinSet;

use crate::images::trail_with_answer;
use crate::world::{LEASE, NO_LIMIT, PickJob as _, World, open, project, trail};

async fn count_ok(mut set: JoinSet<calotype_core::Result<()>>, loser: ErrorKind) -> usize {
    let mut done = 0;
    while let Some(result) = set.join_next().await {
        match result.unwrap() {
            Ok(()) => done += 1,
            Err(error) => assert_eq!(error.kind(), loser, "{error:?}"),
        }
    }
    done
}

pub(crate) async fn many_inserts_at_once_stay_under_the_limit(world: World) {
    let mut set = JoinSet::new();
    for _ in 0..64 {
        let (catalog, image) = (Arc::clone(&world.catalog), world.image("p1"));
        set.spawn(async move { catalog.insert_image(&image, ImageLimit(10), trail()).await });
    }
    assert_eq!(count_ok(set, ErrorKind::LimitReached).await, 10);
    assert_eq!(
        world.catalog.usage(&project("p1")).await.unwrap().images,
        10
    );
    world.assert_sound().await;
}

pub(crate) async fn many_keys_at_once_stay_under_the_quota_and_share_no_alias(world: World) {
    use calotype_core::ports::{MasterKeys as _, Placed, Window};
    let other = Arc::new(open(&world.url).await.unwrap());
    assert!(world.catalog.begin_root("r1", None).await.unwrap());
    let mut set = JoinSet::new();
    for n in 0..64_usize {
        let catalog = Arc::clone([&world.catalog, &other][n % 2]);
        // Of two with the same alias one is made.
        let (key, material) = crate::master_keys::key(n as u128, &format!("k{}", n / 2));
        set.spawn(async move {
            let made = catalog.insert_master_key(&key, &material, 10, trail());
            made.await.map(|placed| assert_eq!(placed, Placed::Done))
        });
    }
    let mut refused = Vec::new();
    while let Some(result) = set.join_next().await {
        if let Err(error) = result.unwrap() {
            refused.push(error.kms_code().unwrap().to_string());
        }
    }
    assert_eq!(refused.len(), 54, "{refused:?}");
    assert!(
        refused
            .iter()
            .all(|code| code == "KMS.1105" || code == "KMS.1104")
    );
    let all = Window {
        offset: 0,
        limit: 100,
    };
    let keys = world.catalog.list_keys(&project("p1"), None, all).await;
    let keys = keys.unwrap();
    assert_eq!((keys.items.len(), keys.total), (10, 10));
    let aliases: HashSet<_> = keys.items.iter().map(|key| key.alias.as_str()).collect();
    assert_eq!(aliases.len(), 10);
    world.assert_sound().await;
}

pub(crate) async fn no_job_is_picked_twice(world: World) {
    let source = world.active("p1", 100).await;
    for n in 0..40 {
        let replica = world.replica(&source, ["p1", "p2", "p3"][n % 3]);
        world
            .catalog
            .submit_replica(&replica, trail())
            .await
            .unwrap();
    }
    let mut set = JoinSet::new();
    for n in 1..=8 {
        let catalog = Arc::clone(&world.catalog);
        set.spawn(async move {
            let worker = format!("w{n}");
            let mut picked = Vec::new();
            loop {
                let claims = catalog.pick_jobs(&worker, LEASE, n).await.unwrap();
                if claims.is_empty() {
                    break picked;
                }
                for claim in claims {
                    assert_eq!(claim.attempt, 1);
                    assert_eq!(
                        catalog.finish_share(&claim.job.id, 1).await.unwrap(),
                        Release::Done
                    );
                    picked.push(claim.job.id);
                }
            }
        });
    }
    let picked: Vec<_> = set.join_all().await.into_iter().flatten().collect();
    assert_eq!(picked.len(), 40);
    assert_eq!(picked.into_iter().collect::<HashSet<_>>().len(), 40);
    world.assert_sound().await;
}

pub(crate) async fn of_many_updates_of_one_version_one_wins(world: World) {
    let image = world.image("p1");
    world.insert(&image).await;
    let mut set = JoinSet::new();
    for n in 0..16 {
        let wanted = Image {
            name: Some(format!("n{n}")),
            tags: vec![format!("t{n}")],
            ..image.clone()
        };
        let catalog = Arc::clone(&world.catalog);
        set.spawn(async move { catalog.update_image(&wanted, trail()).await.map(|_| ()) });
    }
    assert_eq!(count_ok(set, ErrorKind::Conflict).await, 1);
    let after = world.get(image.id).await;
    assert_eq!(after.version, 2);
    assert_eq!(after.tags, [after.name.unwrap().replace('n', "t")]);
}

pub(crate) async fn of_many_requests_under_one_key_one_is_done(world: World) {
    let mut set = JoinSet::new();
    for _ in 0..16 {
        let (catalog, image) = (Arc::clone(&world.catalog), world.image("p1"));
        let trail = trail_with_answer("k1");
        set.spawn(async move { catalog.insert_image(&image, NO_LIMIT, trail).await });
    }
    assert_eq!(count_ok(set, ErrorKind::Conflict).await, 1);
    assert_eq!(world.catalog.usage(&project("p1")).await.unwrap().images, 1);
    world.assert_sound().await;
}

pub(crate) async fn images_that_share_a_blob_can_all_go_at_once(world: World) {
    let source = world.active("p1", 100).await;
    let mut images = vec![source.clone()];
    for n in 0..7 {
        let replica = world.replica(&source, ["p1", "p2"][n % 2]);
        world
            .catalog
            .submit_replica(&replica, trail())
            .await
            .unwrap();
        let claim = world.catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
        world
            .catalog
            .finish_share(&claim.job.id, claim.attempt)
            .await
            .unwrap();
        images.push(world.get(replica.image.id).await);
    }
    let mut set = JoinSet::new();
    for image in images {
        let catalog = Arc::clone(&world.catalog);
        set.spawn(async move { catalog.delete_image(&image, Duration::ZERO, trail()).await });
    }
    assert_eq!(count_ok(set, ErrorKind::Conflict).await, 8);
    world.assert_sound().await;
    assert!(
        world
            .catalog
            .claim_deletion(source.blob.unwrap())
            .await
            .unwrap()
    );
}

pub(crate) async fn replicas_that_end_while_their_source_goes_keep_its_blob(world: World) {
    for _ in 0..10 {
        let source = world.active("p1", 100).await;
        for owner in ["p2", "p2", "p3"] {
            let replica = world.replica(&source, owner);
            let taken = world.catalog.submit_replica(&replica, trail()).await;
            taken.unwrap();
        }
        let claims = world.catalog.pick_jobs("w1", LEASE, 3).await.unwrap();
        assert_eq!(claims.len(), 3);
        let blob = source.blob.unwrap();
        let mut set = JoinSet::new();
        for claim in claims {
            let catalog = Arc::clone(&world.catalog);
            set.spawn(async move {
                let ended = catalog.finish_share(&claim.job.id, claim.attempt).await;
                ended.map(|ended| assert_eq!(ended, Release::Done))
            });
        }
        let catalog = Arc::clone(&world.catalog);
        set.spawn(async move { catalog.delete_image(&source, Duration::ZERO, trail()).await });
        assert_eq!(count_ok(set, ErrorKind::Conflict).await, 4);
        assert!(!world.catalog.claim_deletion(blob).await.unwrap());
    }
    world.assert_sound().await;
}

pub(crate) async fn uploads_of_one_image_begin_once(world: World) {
    let image = world.image("p1");
    world.insert(&image).await;
    let mut set = JoinSet::new();
    for _ in 0..8 {
        let (catalog, blob, id) = (Arc::clone(&world.catalog), world.blob_id(), image.id);
        set.spawn(async move {
            catalog
                .begin_upload(id, blob, LEASE, Reservation::NONE)
                .await
                .map(|_| ())
        });
    }
    assert_eq!(count_ok(set, ErrorKind::Conflict).await, 1);
    assert_eq!(world.catalog.blobs(None, 99).await.unwrap().len(), 1);
    world.assert_sound().await;
}

pub(crate) async fn catalogs_that_open_at_once_all_come_up(world: World) {
    let tables = "drop schema public cascade; create schema public";
    let url = if world.url.starts_with("sqlite") {
        format!("{}.second", world.url)
    } else {
        world.tamper(tables).await;
        world.url.clone()
    };
    let mut set = JoinSet::new();
    for _ in 0..4 {
        let url = url.clone();
        set.spawn(async move { open(&url).await.map(|_| ()) });
    }
    assert_eq!(count_ok(set, ErrorKind::Internal).await, 4);
}
