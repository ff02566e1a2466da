//! Jobs and replications.

use std::time::Duration;

use calotype_core::ErrorKind;
use calotype_core::codes::ImsCode;
use calotype_core::id::BlobId;
use calotype_core::image::ImageStatus;
use calotype_core::job::{
    Claim, Heartbeat, JobFailure, JobFamily, JobStatus, Progress, Release, ReplicaBytes,
    ResealPlan, Work,
};
use calotype_core::ports::{
    BlobState, ImageLimit, Images as _, Jobs as _, Ledger as _, NewReplica, Quotas as _,
    Reconcile as _, Reservation, Usage,
};
use calotype_core::size::ByteSize;

use crate::world::{
    LEASE, PickJob as _, World, assert_kind, deletable, facts, project, trail, with_bytes, wrapped,
};

fn failure() -> JobFailure {
    JobFailure {
        code: ImsCode::IMG_0057,
        reason: "The source is damaged.".to_owned(),
    }
}

pub(crate) async fn a_replica_shares_the_blob_and_takes_its_size(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let replica = world.replica(&source, "p2");
    catalog.submit_replica(&replica, trail()).await.unwrap();
    assert_eq!(world.get(replica.image.id).await, replica.image);
    assert_eq!(catalog.unfinished_jobs().await.unwrap(), (1, 0));
    let upload = catalog
        .begin_upload(replica.image.id, world.blob_id(), LEASE, Reservation::NONE)
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
    assert_eq!(
        catalog.finish_share(&claim.job.id, 1).await.unwrap(),
        Release::Done
    );
    assert_eq!(
        catalog.finish_share(&claim.job.id, 1).await.unwrap(),
        Release::Lost
    );
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
            {
                let mut stale = good.clone();
                stale.replication.source = other.blob.unwrap();
                stale
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
        noted: ByteSize::new(8),
        resumed: ByteSize::new(2),
    };
    let id = &first.job.id;
    let beat = catalog.heartbeat(id, 1, progress, Duration::ZERO).await;
    assert_eq!(beat.unwrap(), Heartbeat::Continue);
    let second = catalog.pick_job("w2", LEASE).await.unwrap().unwrap();
    assert_eq!(second.attempt, 2);
    let found = Progress {
        resumed: progress.done,
        ..progress
    };
    assert_eq!(second.job.progress, found);
    let beat = catalog.heartbeat(id, 1, Progress::default(), LEASE).await;
    assert_eq!(beat.unwrap(), Heartbeat::Lost);
    assert_eq!(catalog.finish_share(id, 1).await.unwrap(), Release::Lost);
    assert!(!catalog.fail_job(id, 1, &failure()).await.unwrap());
    let back = catalog.hand_back(id, 1, Duration::ZERO).await;
    assert_eq!(back.unwrap(), Release::Lost);
    assert_eq!(catalog.pick_job("w3", LEASE).await.unwrap(), None);
    let beat = catalog.heartbeat(id, 2, progress, LEASE).await.unwrap();
    assert_eq!(beat, Heartbeat::Continue);
    assert!(catalog.job(id).await.unwrap().unwrap().attempt_at.is_some());
    let back = catalog.hand_back(id, 2, LEASE).await;
    assert_eq!(back.unwrap(), Release::Done);
    assert_eq!(catalog.job(id).await.unwrap().unwrap().attempt_at, None);
    assert_eq!(catalog.pick_job("w3", LEASE).await.unwrap(), None);
    assert_eq!(catalog.finish_share(id, 2).await.unwrap(), Release::Lost);
    world.tamper("update jobs set due_at = 1").await;
    let third = catalog.pick_job("w3", LEASE).await.unwrap().unwrap();
    assert_eq!(third.attempt, 3);
    world.tamper("update jobs set cancelled = true").await;
    let beat = catalog.heartbeat(id, 3, progress, LEASE).await.unwrap();
    assert_eq!(beat, Heartbeat::Cancelled);
    assert_eq!(catalog.finish_share(id, 2).await.unwrap(), Release::Lost);
    assert!(catalog.fail_job(id, 3, &failure()).await.unwrap());
    world.assert_sound().await;
}

fn plan(replica: &NewReplica) -> &ResealPlan {
    match &replica.replication.bytes {
        ReplicaBytes::Reseal(plan) => plan,
        ReplicaBytes::Share { .. } => panic!("it is resealed"),
    }
}

async fn state_of(world: &World, blob: BlobId) -> Option<BlobState> {
    let record = world.catalog.blob(blob).await.unwrap();
    record.map(|record| record.state)
}

pub(crate) async fn a_resealed_replica_gets_a_blob_of_its_own(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let replica = world.resealed_replica(&source, "p2");
    let target = plan(&replica).target;
    catalog.submit_replica(&replica, trail()).await.unwrap();
    assert_eq!(state_of(&world, target).await, Some(BlobState::Writing));
    world.assert_sound().await;
    // A blob that a job makes has no lease that could end.
    catalog.end_leases().await.unwrap();
    assert_eq!(catalog.expire_uploads().await.unwrap(), []);
    assert_eq!(deletable(catalog, None, 9).await, []);

    let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
    assert_eq!(claim.work, Work::Replicate(replica.replication.clone()));
    assert_eq!(claim.work.source_blob(), source.blob);
    assert_eq!(claim.work.target_blob(), Some(target));
    let id = &claim.job.id;
    assert_eq!(
        catalog.finish_reseal(id, 7, &facts(100)).await.unwrap(),
        Release::Lost
    );
    assert_eq!(
        catalog.finish_reseal(id, 1, &facts(100)).await.unwrap(),
        Release::Done
    );
    assert_eq!(
        catalog.finish_reseal(id, 1, &facts(100)).await.unwrap(),
        Release::Lost
    );
    let made = world.get(replica.image.id).await;
    assert_eq!(
        (made.status, made.blob),
        (ImageStatus::Active, Some(target))
    );
    assert_eq!((made.size, &made.digests), (source.size, &source.digests));
    assert_eq!(state_of(&world, target).await, Some(BlobState::Stored));
    world.assert_sound().await;
    for image in [source, made] {
        catalog
            .delete_image(&image, Duration::ZERO, trail())
            .await
            .unwrap();
        assert!(catalog.claim_deletion(image.blob.unwrap()).await.unwrap());
    }
}

pub(crate) async fn a_rewrapped_replica_shares_the_blob_under_a_wrap_of_its_own(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let bytes = ReplicaBytes::Share {
        wrapped: Some(wrapped("k2")),
    };
    let replica = with_bytes(world.replica(&source, "p1"), bytes);
    catalog.submit_replica(&replica, trail()).await.unwrap();
    assert_eq!(world.get(replica.image.id).await.wrapped_key, None);
    let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
    assert_eq!(
        catalog.finish_share(&claim.job.id, 1).await.unwrap(),
        Release::Done
    );
    let made = world.get(replica.image.id).await;
    assert_eq!(made.wrapped_key, Some(wrapped("k2")));
    assert_eq!(made.blob, source.blob);
    assert_eq!(world.get(source.id).await.wrapped_key, None);
    let blob = source.blob.unwrap();
    assert_eq!(catalog.wraps(blob).await.unwrap(), [wrapped("k2")]);
    assert_eq!(catalog.wraps(world.blob_id()).await.unwrap(), []);
    world.assert_sound().await;
}

pub(crate) async fn whether_there_is_room_is_told_as_the_submission_decides_it(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let submitted = async |limit, concurrency| {
        let replica = NewReplica {
            image_limit: ImageLimit(limit),
            concurrency,
            ..world.replica(&source, "p2")
        };
        catalog.submit_replica(&replica, trail()).await
    };
    for (limit, concurrency, code) in [
        (0, 9, Some(ImsCode::IMG_0015)),
        (9, 0, Some(ImsCode::IMG_0060)),
        (0, 0, Some(ImsCode::IMG_0015)),
        (1, 1, None),
        (1, 9, Some(ImsCode::IMG_0015)),
        (9, 1, Some(ImsCode::IMG_0060)),
        (2, 2, None),
    ] {
        let told = catalog
            .check_room(
                &project("p2"),
                Some(ImageLimit(limit)),
                JobFamily::Replication,
                concurrency,
            )
            .await;
        let code_of = |outcome: calotype_core::Result<()>| outcome.err().and_then(|e| e.code());
        assert_eq!(code_of(told), code, "{limit} {concurrency}");
        assert_eq!(code_of(submitted(limit, concurrency).await), code);
    }
    assert_eq!(catalog.unfinished_jobs().await.unwrap(), (2, 0));
}

pub(crate) async fn a_part_of_a_job_is_found_by_it_and_counts_with_it(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let whole = world.replica(&source, "p2");
    catalog.submit_replica(&whole, trail()).await.unwrap();
    let mut parts = Vec::new();
    for _ in 0..2 {
        let mut part = world.replica(&source, "p2");
        part.job.parent = Some(whole.job.id.clone());
        part.concurrency = 2;
        catalog.submit_replica(&part, trail()).await.unwrap();
        parts.push(part.job);
    }
    assert_eq!(catalog.sub_jobs(&whole.job.id).await.unwrap(), parts);
    assert_eq!(catalog.sub_jobs(&parts[0].id).await.unwrap(), []);
    let listed = catalog.list_jobs(&project("p2"), None, None, 9).await;
    assert_eq!(listed.unwrap(), [whole.job]);
    assert_eq!(catalog.unfinished_jobs().await.unwrap(), (1, 0));
    let second = NewReplica {
        concurrency: 2,
        ..world.replica(&source, "p2")
    };
    catalog.submit_replica(&second, trail()).await.unwrap();
    world.assert_sound().await;
}

pub(crate) async fn jobs_are_limited_with_those_of_their_family(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let replica = NewReplica {
        concurrency: 1,
        ..world.replica(&source, "p2")
    };
    catalog.submit_replica(&replica, trail()).await.unwrap();
    let room = async |family| {
        let owner = project("p2");
        let told = catalog
            .check_room(&owner, Some(ImageLimit(9)), family, 1)
            .await;
        told.err().and_then(|error| error.code())
    };
    assert_eq!(room(JobFamily::Replication).await, Some(ImsCode::IMG_0060));
    assert_eq!(room(JobFamily::Membership).await, None);
    world
        .tamper("update jobs set job_type = 'imsAddImageMembersJob'")
        .await;
    assert_eq!(room(JobFamily::Replication).await, None);
    assert_eq!(room(JobFamily::Membership).await, Some(ImsCode::IMG_0060));
}

pub(crate) async fn only_an_image_that_was_made_for_the_job_goes_with_its_failure(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let replica = world.replica(&source, "p2");
    catalog.submit_replica(&replica, trail()).await.unwrap();
    // A job that fills an image that was there before it.
    world
        .tamper("update jobs set job_type = 'imsUpdateImageMembersJob'")
        .await;
    let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
    let failed = catalog.fail_job(&claim.job.id, 1, &failure()).await;
    assert!(failed.unwrap());
    assert!(world.find(replica.image.id).await.is_some());
}

pub(crate) async fn a_reseal_that_failed_leaves_a_blob_to_be_collected(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let replica = world.resealed_replica(&source, "p2");
    let target = plan(&replica).target;
    catalog.submit_replica(&replica, trail()).await.unwrap();
    let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
    let failed = catalog.fail_job(&claim.job.id, 1, &failure()).await;
    assert!(failed.unwrap());
    assert_eq!(world.find(replica.image.id).await, None);
    assert_eq!(deletable(catalog, None, 9).await, [target]);
    assert!(catalog.claim_deletion(target).await.unwrap());
    catalog.forget_blob(target).await.unwrap();
    world.assert_sound().await;
}

pub(crate) async fn a_cancelled_job_ends_at_once_or_when_its_worker_hears_of_it(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let (waiting, running) = (
        world.resealed_replica(&source, "p2"),
        world.resealed_replica(&source, "p3"),
    );
    catalog.submit_replica(&running, trail()).await.unwrap();
    let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
    catalog.submit_replica(&waiting, trail()).await.unwrap();
    let cancel = async |replica: &NewReplica, owner: Option<&str>| {
        let owner = owner.map(project);
        catalog
            .cancel_job(&replica.job.id, owner.as_ref(), &failure(), trail())
            .await
    };

    assert_eq!(cancel(&waiting, Some("p3")).await.unwrap(), None);
    let unknown = world.replica(&source, "p2");
    assert_eq!(cancel(&unknown, None).await.unwrap(), None);
    let before = catalog.audit_trail(None, None, 99).await.unwrap().len();

    let ended = cancel(&waiting, Some("p2")).await.unwrap().unwrap();
    assert_eq!(
        (ended.status, ended.failure),
        (JobStatus::Fail, Some(failure()))
    );
    assert_eq!(world.find(waiting.image.id).await, None);
    let target = plan(&waiting).target;
    assert_eq!(state_of(&world, target).await, Some(BlobState::Deleting));
    assert_kind(cancel(&waiting, None).await, ErrorKind::Conflict);

    let told = cancel(&running, None).await.unwrap().unwrap();
    assert_eq!(told.status, JobStatus::Running);
    let beat = catalog
        .heartbeat(&claim.job.id, 1, Progress::default(), LEASE)
        .await;
    assert_eq!(beat.unwrap(), Heartbeat::Cancelled);
    assert!(
        catalog
            .fail_job(&claim.job.id, 1, &failure())
            .await
            .unwrap()
    );
    let after = catalog.audit_trail(None, None, 99).await.unwrap().len();
    assert_eq!(after, before + 2, "a line for each that was cancelled");
    world.assert_sound().await;
}

pub(crate) async fn the_deaths_of_workers_are_counted_until_one_gets_further(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let replica = world.resealed_replica(&source, "p2");
    catalog.submit_replica(&replica, trail()).await.unwrap();
    let id = &replica.job.id;
    let pick = async || {
        catalog
            .pick_job("w", Duration::ZERO)
            .await
            .unwrap()
            .unwrap()
    };
    assert_eq!(pick().await.deaths, 0);
    assert_eq!(pick().await.deaths, 1, "its lease ended");
    catalog.end_leases().await.unwrap();
    assert_eq!(pick().await.deaths, 2, "another start took over");
    catalog.hand_back(id, 3, Duration::ZERO).await.unwrap();
    assert_eq!(pick().await.deaths, 2, "it was handed back");
    // What is only done is done again after a death; what was noted is not.
    let cases = [
        (0, 0, 3),
        (10, 0, 4),
        (20, 0, 5),
        (20, 10, 1),
        (30, 10, 2),
        (10, 5, 3),
        (10, 10, 4),
        (11, 11, 1),
    ];
    for (attempt, (done, noted, deaths)) in (4..).zip(cases) {
        let progress = Progress {
            done: ByteSize::new(done),
            total: ByteSize::new(100),
            noted: ByteSize::new(noted),
            resumed: ByteSize::ZERO,
        };
        let beat = catalog.heartbeat(id, attempt, progress, Duration::ZERO);
        assert_eq!(beat.await.unwrap(), Heartbeat::Continue);
        assert_eq!(pick().await.deaths, deaths, "after {noted} noted bytes");
    }
}

pub(crate) async fn a_job_that_was_cancelled_ends_neither_well_nor_later(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let cancel = async |replica: &NewReplica| {
        let told = catalog
            .cancel_job(&replica.job.id, None, &failure(), trail())
            .await;
        assert_eq!(told.unwrap().unwrap().status, JobStatus::Running);
    };
    for resealed in [false, true] {
        let replica = match resealed {
            false => world.replica(&source, "p2"),
            true => world.resealed_replica(&source, "p2"),
        };
        catalog.submit_replica(&replica, trail()).await.unwrap();
        let claim = catalog.pick_job("w1", Duration::ZERO).await.unwrap();
        let claim = claim.unwrap();
        assert!(!claim.cancelled);
        cancel(&replica).await;
        // Its worker dies, and the next one knows at once.
        let claim = catalog.pick_job("w2", LEASE).await.unwrap().unwrap();
        assert!(claim.cancelled);
        let (id, attempt) = (&claim.job.id, claim.attempt);
        let finished = match resealed {
            false => catalog.finish_share(id, attempt).await,
            true => catalog.finish_reseal(id, attempt, &facts(100)).await,
        };
        assert_eq!(finished.unwrap(), Release::Cancelled);
        let back = catalog.hand_back(id, attempt, LEASE).await;
        assert_eq!(back.unwrap(), Release::Cancelled);
        assert_eq!(
            world.get(replica.image.id).await.status,
            ImageStatus::Saving
        );
        assert!(catalog.fail_job(id, attempt, &failure()).await.unwrap());
        let ended = catalog.job(id).await.unwrap().unwrap();
        assert_eq!(
            (ended.status, ended.failure),
            (JobStatus::Fail, Some(failure()))
        );
        assert_eq!(world.find(replica.image.id).await, None);
        if resealed {
            let target = plan(&replica).target;
            assert_eq!(state_of(&world, target).await, Some(BlobState::Deleting));
        }
        world.assert_sound().await;
    }
}

pub(crate) async fn damage_is_shown_by_every_image_of_the_blob(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let (before, after) = (world.replica(&source, "p2"), world.replica(&source, "p3"));
    for replica in [&before, &after] {
        catalog.submit_replica(replica, trail()).await.unwrap();
    }
    let share = async || {
        let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
        assert_eq!(
            catalog.finish_share(&claim.job.id, 1).await.unwrap(),
            Release::Done
        );
    };
    share().await;
    catalog.mark_damaged(source.blob.unwrap()).await.unwrap();
    let found = world.get(source.id).await.damaged_at;
    assert!(found.is_some());
    share().await;
    catalog.mark_damaged(source.blob.unwrap()).await.unwrap();
    for replica in [before, after] {
        assert_eq!(world.get(replica.image.id).await.damaged_at, found);
    }
    let marked = async || {
        let record = catalog.blob(source.blob.unwrap()).await.unwrap();
        record.is_some_and(|record| record.damaged)
    };
    assert!(marked().await);
    catalog.clear_damage(source.blob.unwrap()).await.unwrap();
    assert!(!marked().await);
    assert_eq!(world.get(source.id).await.damaged_at, None);
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

pub(crate) async fn picks_of_several_at_once_are_as_fair(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    for owner in ["many", "many", "many", "many", "few", "few", "one"] {
        catalog
            .submit_replica(&world.replica(&source, owner), trail())
            .await
            .unwrap();
    }
    let pick = async |most| {
        let claims = catalog.pick_jobs("w1", LEASE, most).await.unwrap();
        let of = |claim: &Claim| {
            assert_eq!((claim.attempt, claim.job.status), (1, JobStatus::Running));
            claim.job.project.to_string()
        };
        let mut of: Vec<_> = claims.iter().map(of).collect();
        of.sort();
        of
    };
    assert_eq!(pick(0).await, [""; 0]);
    assert_eq!(pick(1).await, ["many"]);
    assert_eq!(pick(4).await, ["few", "few", "many", "one"]);
    assert_eq!(pick(8).await, ["many", "many"]);
    assert_eq!(pick(8).await, [""; 0]);
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
    assert_eq!(deletable(catalog, None, 9).await, []);
    assert!(!catalog.claim_deletion(blob).await.unwrap());
    for _ in 0..2 {
        let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
        if claim.job.id == good.job.id {
            assert_eq!(
                catalog
                    .finish_share(&claim.job.id, claim.attempt)
                    .await
                    .unwrap(),
                Release::Done
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
