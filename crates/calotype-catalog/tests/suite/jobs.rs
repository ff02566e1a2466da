//! Jobs and replications.

use std::time::Duration;

use calotype_core::ErrorKind;
use calotype_core::codes::ImsCode;
use calotype_core::image::ImageStatus;
use calotype_core::job::{Heartbeat, JobFailure, JobStatus, Progress};
use calotype_core::ports::{
    ImageLimit, Images as _, Jobs as _, Ledger as _, NewReplica, Reconcile as _, Usage,
};
use calotype_core::size::ByteSize;

use crate::world::{LEASE, World, assert_kind, facts, project, trail};

fn failure() -> JobFailure {
    JobFailure {
        code: ImsCode::IMG_0057,
        reason: "The source is damaged.".to_owned(),
    }
}

pub(crate) async fn a_replica_shares_the_blob_and_takes_its_size(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let mut replica = world.replica(&source, "p2");
    replica.image.size = None;
    catalog.submit_replica(&replica, trail()).await.unwrap();
    assert_eq!(world.get(replica.image.id).await, replica.image);
    assert_eq!(catalog.unfinished_jobs().await.unwrap(), (1, 0));
    let upload = catalog
        .begin_upload(replica.image.id, world.blob_id(), LEASE)
        .await;
    assert_kind(upload, ErrorKind::Conflict);
    let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
    assert_eq!((claim.attempt, claim.job.status), (1, JobStatus::Running));
    assert_eq!(catalog.unfinished_jobs().await.unwrap(), (0, 1));
    let saving = world.get(replica.image.id).await;
    assert_eq!(saving.status, ImageStatus::Saving);
    let delete = catalog.delete_image(&saving, Duration::ZERO, trail()).await;
    assert_kind(delete, ErrorKind::Conflict);
    assert_eq!(catalog.pick_job("w2", LEASE).await.unwrap(), None);
    assert!(catalog.finish_share(&claim.job.id, 1).await.unwrap());
    assert!(!catalog.finish_share(&claim.job.id, 1).await.unwrap());
    let done = world.get(replica.image.id).await;
    assert_eq!(done.status, ImageStatus::Active);
    assert_eq!((done.blob, done.size), (source.blob, source.size));
    assert_eq!(done.digests, facts(100).digests);
    assert!(done.active_at.is_some());
    let usage = catalog.usage(&project("p2")).await.unwrap();
    assert_eq!(usage.bytes, ByteSize::new(100));
    let job = catalog.job(&claim.job.id).await.unwrap().unwrap();
    assert_eq!(job.status, JobStatus::Success);
    assert!(job.ended_at.is_some() && job.started_at.is_some());
    world.assert_sound().await;
}

pub(crate) async fn a_replication_that_breaks_a_rule_writes_nothing(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let good = world.replica(&source, "p1");
    let other = world.active("p1", 1).await;
    let disabled = uuid::Uuid::from_u128(5);
    let mut unknown_project = good.clone();
    unknown_project.image.enterprise_project = calotype_core::id::EnterpriseProjectId::Id(disabled);
    let cases: [(NewReplica, ImsCode); 5] = [
        (
            NewReplica {
                image_limit: ImageLimit(2),
                ..good.clone()
            },
            ImsCode::IMG_0015,
        ),
        (
            NewReplica {
                concurrency: 0,
                ..good.clone()
            },
            ImsCode::IMG_0060,
        ),
        (
            NewReplica {
                blob: other.blob.unwrap(),
                ..good.clone()
            },
            ImsCode::IMG_0144,
        ),
        (unknown_project, ImsCode::IMG_0155),
        (
            {
                let mut gone = good.clone();
                gone.job.source = Some(world.image("p1").id);
                gone
            },
            ImsCode::IMG_0144,
        ),
    ];
    let before = catalog.usage(&project("p1")).await.unwrap();
    for (replica, code) in cases {
        let refused = catalog.submit_replica(&replica, trail()).await;
        assert_eq!(refused.unwrap_err().code(), Some(code));
    }
    assert_eq!(catalog.usage(&project("p1")).await.unwrap(), before);
    assert_eq!(catalog.unfinished_jobs().await.unwrap(), (0, 0));
    assert_eq!(catalog.audit_trail(None, None, 99).await.unwrap().len(), 4);
    catalog.submit_replica(&good, trail()).await.unwrap();
    world.assert_sound().await;
}

pub(crate) async fn a_failed_job_leaves_only_its_record(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let replica = world.replica(&source, "p2");
    catalog.submit_replica(&replica, trail()).await.unwrap();
    let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
    assert!(
        catalog
            .fail_job(&claim.job.id, claim.attempt, &failure())
            .await
            .unwrap()
    );
    assert_eq!(world.find(replica.image.id).await, None);
    assert_eq!(
        catalog.usage(&project("p2")).await.unwrap(),
        Usage::default()
    );
    let job = catalog.job(&claim.job.id).await.unwrap().unwrap();
    assert_eq!(
        (job.status, job.failure),
        (JobStatus::Fail, Some(failure()))
    );
    let again = catalog.submit_replica(&replica, trail()).await;
    assert_kind(again, ErrorKind::Conflict);
    world.assert_sound().await;
}

pub(crate) async fn a_worker_that_lost_its_job_writes_nothing(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let replica = world.replica(&source, "p2");
    catalog.submit_replica(&replica, trail()).await.unwrap();
    // A lease of no time is over at once.
    let first = catalog
        .pick_job("w1", Duration::ZERO)
        .await
        .unwrap()
        .unwrap();
    let progress = Progress {
        done: ByteSize::new(10),
        total: ByteSize::new(100),
    };
    let id = &first.job.id;
    let beat = catalog
        .heartbeat(id, 1, progress, Some("segment 1"), Duration::ZERO)
        .await;
    assert_eq!(beat.unwrap(), Heartbeat::Continue);
    let second = catalog.pick_job("w2", LEASE).await.unwrap().unwrap();
    assert_eq!(
        (second.attempt, second.checkpoint.as_deref()),
        (2, Some("segment 1"))
    );
    assert_eq!(second.job.progress, progress);
    let beat = catalog
        .heartbeat(id, 1, Progress::default(), Some("zombie"), LEASE)
        .await;
    assert_eq!(beat.unwrap(), Heartbeat::Lost);
    assert!(!catalog.finish_share(id, 1).await.unwrap());
    assert!(!catalog.fail_job(id, 1, &failure()).await.unwrap());
    catalog.hand_back(id, 1, Duration::ZERO).await.unwrap();
    assert_eq!(catalog.pick_job("w3", LEASE).await.unwrap(), None);
    let beat = catalog
        .heartbeat(id, 2, progress, None, LEASE)
        .await
        .unwrap();
    assert_eq!(beat, Heartbeat::Continue);
    catalog.hand_back(id, 2, LEASE).await.unwrap();
    assert_eq!(catalog.pick_job("w3", LEASE).await.unwrap(), None);
    assert!(!catalog.finish_share(id, 2).await.unwrap());
    world.tamper("update jobs set due_at = 1").await;
    let third = catalog.pick_job("w3", LEASE).await.unwrap().unwrap();
    assert_eq!(
        (third.attempt, third.checkpoint.as_deref()),
        (3, Some("segment 1"))
    );
    world.tamper("update jobs set cancelled = true").await;
    let beat = catalog
        .heartbeat(id, 3, progress, None, LEASE)
        .await
        .unwrap();
    assert_eq!(beat, Heartbeat::Cancelled);
    assert!(catalog.finish_share(id, 3).await.unwrap());
    world.assert_sound().await;
}

pub(crate) async fn picking_is_fair_between_projects(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    for owner in ["many", "many", "many", "few"] {
        catalog
            .submit_replica(&world.replica(&source, owner), trail())
            .await
            .unwrap();
    }
    let mut order = Vec::new();
    while let Some(claim) = catalog.pick_job("w1", LEASE).await.unwrap() {
        order.push(claim.job.project.to_string());
    }
    assert_eq!(order, ["many", "few", "many", "many"]);
}

pub(crate) async fn jobs_are_paged_newest_first(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        let replica = world.replica(&source, "p1");
        catalog.submit_replica(&replica, trail()).await.unwrap();
        ids.insert(0, replica.job.id);
    }
    catalog
        .submit_replica(&world.replica(&source, "p2"), trail())
        .await
        .unwrap();
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let page = catalog
            .list_jobs(&project("p1"), None, seen.last(), 2)
            .await
            .unwrap();
        assert!(!page.is_empty());
        seen.extend(page.into_iter().map(|job| job.id));
    }
    assert_eq!(seen, ids);
    let page = catalog
        .list_jobs(&project("p1"), None, seen.last(), 2)
        .await
        .unwrap();
    assert_eq!(page, []);
    let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
    let running = Some(JobStatus::Running);
    let page = catalog
        .list_jobs(&project("p1"), running, None, 9)
        .await
        .unwrap();
    assert_eq!(page.len(), 1);
    assert_eq!(page[0].id, claim.job.id);
    let foreign = catalog
        .list_jobs(&project("p2"), None, seen.last(), 9)
        .await;
    assert_kind(foreign, ErrorKind::NotFound);
}

pub(crate) async fn a_deleted_source_keeps_its_blob_until_the_replica_is_done(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let blob = source.blob.unwrap();
    let (good, bad) = (world.replica(&source, "p2"), world.replica(&source, "p3"));
    catalog.submit_replica(&good, trail()).await.unwrap();
    catalog.submit_replica(&bad, trail()).await.unwrap();
    catalog
        .delete_image(&source, Duration::ZERO, trail())
        .await
        .unwrap();
    assert_eq!(catalog.deletable_blobs(9).await.unwrap(), []);
    assert!(!catalog.claim_deletion(blob).await.unwrap());
    for _ in 0..2 {
        let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
        if claim.job.id == good.job.id {
            assert!(
                catalog
                    .finish_share(&claim.job.id, claim.attempt)
                    .await
                    .unwrap()
            );
        } else {
            assert!(
                catalog
                    .fail_job(&claim.job.id, claim.attempt, &failure())
                    .await
                    .unwrap()
            );
        }
    }
    assert!(!catalog.claim_deletion(blob).await.unwrap());
    world.assert_sound().await;
    let made = world.get(good.image.id).await;
    catalog
        .delete_image(&made, Duration::ZERO, trail())
        .await
        .unwrap();
    assert!(catalog.claim_deletion(blob).await.unwrap());
}
