//! Imports of several disks: jobs that end with their parts.

use std::time::Duration;

use calotype_core::ErrorKind;
use calotype_core::codes::ImsCode;
use calotype_core::id::{EnterpriseProjectId, JobId};
use calotype_core::image::ImageStatus;
use calotype_core::job::{Claim, Heartbeat, Job, JobStatus, JobType, Progress, Release};
use calotype_core::ports::{
    ByteLimit, ImageLimit, ImportPart, Jobs as _, LimitChange, NewDisksImport, OwnLimit,
    Quotas as _, Reconcile as _,
};
use calotype_core::size::ByteSize;

use crate::imports::{failure, import_of, new_image};
use crate::world::{
    LEASE, NO_LIMIT, PickJob as _, World, assert_kind, event, facts, project, trail,
};

/// An import of a system's disk and of this many others, each of 100 bytes.
pub(crate) fn disks_of(world: &World, others: usize) -> NewDisksImport {
    let types = std::iter::once(JobType::ImportImage)
        .chain(std::iter::repeat_n(JobType::ImportDataImage, others));
    let image = world.image("p1");
    let whole = import_of(
        world,
        JobType::ImportOvaImage,
        new_image(&image, NO_LIMIT),
        "p1",
    );
    let whole = Job {
        image: None,
        progress: Progress {
            total: ByteSize::new(100 * (others as u64 + 1)),
            ..Progress::default()
        },
        ..whole.job
    };
    let part = |job_type| {
        let image = world.image("p1");
        let import = import_of(world, job_type, new_image(&image, NO_LIMIT), "p1");
        ImportPart {
            job: Job {
                parent: Some(whole.id.clone()),
                progress: Progress {
                    total: ByteSize::new(100),
                    ..Progress::default()
                },
                ..import.job
            },
            image,
            import: import.import,
            line: event("createImage"),
        }
    };
    NewDisksImport {
        parts: types.map(part).collect(),
        store: None,
        job: whole,
        image_limit: NO_LIMIT,
        byte_limit: ByteLimit::NONE,
        concurrency: 40,
    }
}

async fn pick(world: &World) -> Claim {
    let picked = world.catalog.pick_job("w1", LEASE).await;
    picked.unwrap().unwrap()
}

async fn finish(world: &World, claim: &Claim) {
    let finished = world
        .catalog
        .finish_import(&claim.job.id, claim.attempt, &facts(100), None)
        .await;
    assert_eq!(finished.unwrap(), Release::Done);
}

async fn job(world: &World, id: &JobId) -> Job {
    world.catalog.job(id).await.unwrap().unwrap()
}

pub(crate) async fn a_job_with_parts_runs_with_the_first_and_ends_well_with_the_last(world: World) {
    let catalog = &world.catalog;
    let disks = disks_of(&world, 2);
    catalog.submit_disks(&disks, None).await.unwrap();
    let whole = &disks.job.id;
    assert_eq!(job(&world, whole).await, disks.job);
    let parts: Vec<_> = disks.parts.iter().map(|part| part.job.clone()).collect();
    assert_eq!(catalog.sub_jobs(whole).await.unwrap(), parts);
    assert_eq!(catalog.unfinished_jobs().await.unwrap(), (1, 0));
    let claims = [pick(&world).await, pick(&world).await, pick(&world).await];
    assert_eq!(catalog.pick_job("w1", LEASE).await.unwrap(), None);
    assert_eq!(job(&world, whole).await.status, JobStatus::Running);
    for (claim, done) in claims.iter().zip([10, 20, 30]) {
        let progress = Progress {
            done: ByteSize::new(done),
            ..claim.job.progress
        };
        let beat = catalog.heartbeat(&claim.job.id, 1, progress, LEASE).await;
        assert_eq!(beat.unwrap(), Heartbeat::Continue);
    }
    assert_eq!(job(&world, whole).await.progress.done, ByteSize::new(60));
    let listed = catalog.list_jobs(&project("p1"), None, None, 9).await;
    assert_eq!(listed.unwrap()[0].progress.done, ByteSize::new(60));
    for (claim, status) in
        claims
            .iter()
            .zip([JobStatus::Running, JobStatus::Running, JobStatus::Success])
    {
        finish(&world, claim).await;
        assert_eq!(job(&world, whole).await.status, status);
        world.assert_sound().await;
    }
    let ended = job(&world, whole).await;
    assert_eq!(ended.progress.done, ByteSize::new(300));
    assert!(ended.started_at.is_some() && ended.ended_at.is_some());
    for part in &disks.parts {
        assert_eq!(world.get(part.image.id).await.status, ImageStatus::Active);
    }
}

pub(crate) async fn a_job_fails_as_its_first_bad_part_and_the_other_images_stay(world: World) {
    let catalog = &world.catalog;
    let disks = disks_of(&world, 1);
    catalog.submit_disks(&disks, None).await.unwrap();
    let (bad, good) = (pick(&world).await, pick(&world).await);
    let failed = catalog.fail_job(&bad.job.id, 1, &failure()).await;
    assert!(failed.unwrap());
    assert_eq!(job(&world, &disks.job.id).await.failure, None);
    finish(&world, &good).await;
    let ended = job(&world, &disks.job.id).await;
    assert_eq!(ended.status, JobStatus::Fail);
    assert_eq!(ended.failure, Some(failure()));
    assert_eq!(ended.progress.done, ByteSize::new(100));
    let there = good.job.image.unwrap();
    assert_eq!(world.get(there).await.status, ImageStatus::Active);
    assert_eq!(world.find(bad.job.image.unwrap()).await, None);
    let usage = catalog.usage(&project("p1")).await.unwrap();
    assert_eq!((usage.images, usage.bytes), (1, ByteSize::new(100)));
    assert_eq!(usage.reserved, ByteSize::ZERO);
    world.assert_sound().await;
}

pub(crate) async fn with_a_cancelled_job_go_its_parts(world: World) {
    let catalog = &world.catalog;
    let cancel = async |id: &JobId| {
        let cancelled = catalog
            .cancel_job(id, Some(&project("p1")), &failure(), trail())
            .await;
        cancelled.map(|job| job.unwrap())
    };
    let waiting = disks_of(&world, 2);
    catalog.submit_disks(&waiting, None).await.unwrap();
    let ended = cancel(&waiting.job.id).await.unwrap();
    assert_eq!(ended.failure, Some(failure()));
    assert_kind(cancel(&waiting.job.id).await, ErrorKind::Conflict);
    for part in &waiting.parts {
        assert_eq!(job(&world, &part.job.id).await.status, JobStatus::Fail);
        assert_eq!(world.find(part.image.id).await, None);
    }
    world.assert_sound().await;

    let running = disks_of(&world, 2);
    catalog.submit_disks(&running, None).await.unwrap();
    let (first, second) = (pick(&world).await, pick(&world).await);
    finish(&world, &first).await;
    let asked = cancel(&running.job.id).await.unwrap();
    assert_eq!(asked.status, JobStatus::Running);
    let beat = catalog
        .heartbeat(&second.job.id, 1, second.job.progress, LEASE)
        .await;
    assert_eq!(beat.unwrap(), Heartbeat::Cancelled);
    let failed = catalog.fail_job(&second.job.id, 1, &failure()).await;
    assert!(failed.unwrap());
    let ended = job(&world, &running.job.id).await;
    assert_eq!(ended.failure, Some(failure()));
    let there = first.job.image.unwrap();
    assert_eq!(world.get(there).await.status, ImageStatus::Active);
    assert_eq!(catalog.pick_job("w1", LEASE).await.unwrap(), None);
    world.assert_sound().await;

    let alone = disks_of(&world, 1);
    catalog.submit_disks(&alone, None).await.unwrap();
    cancel(&alone.parts[1].job.id).await.unwrap();
    let other = pick(&world).await;
    finish(&world, &other).await;
    let ended = job(&world, &alone.job.id).await;
    assert_eq!(ended.failure, Some(failure()));
    world.assert_sound().await;
}

pub(crate) async fn several_disks_are_accepted_within_every_limit_or_not_at_all(world: World) {
    let catalog = &world.catalog;
    let p1 = project("p1");
    let refused = async |change: fn(&mut NewDisksImport)| {
        let mut disks = disks_of(&world, 2);
        change(&mut disks);
        let submitted = catalog.submit_disks(&disks, None).await;
        submitted.err().and_then(|error| error.code())
    };
    let before = catalog.usage(&p1).await.unwrap();
    let images = refused(|disks| disks.image_limit = ImageLimit(2)).await;
    assert_eq!(images, Some(ImsCode::IMG_0015));
    assert_eq!(
        refused(|disks| disks.concurrency = 0).await,
        Some(ImsCode::IMG_0060)
    );
    let unknown = refused(|disks| {
        let id = EnterpriseProjectId::Id(uuid::Uuid::from_u128(7));
        disks.parts[2].image.enterprise_project = id;
    });
    assert_eq!(unknown.await, Some(ImsCode::IMG_0155));
    let change = LimitChange {
        bytes: Some(OwnLimit::At(299)),
        ..LimitChange::default()
    };
    let set = catalog.set_limits(&p1, &change, &event("setQuota")).await;
    set.unwrap();
    assert_eq!(refused(|_| ()).await, Some(ImsCode::IMG_0059));
    assert_eq!(catalog.usage(&p1).await.unwrap(), before);
    assert_eq!(catalog.unfinished_jobs().await.unwrap(), (0, 0));
    let change = LimitChange {
        bytes: Some(OwnLimit::At(300)),
        ..LimitChange::default()
    };
    let set = catalog.set_limits(&p1, &change, &event("setQuota")).await;
    set.unwrap();
    // Counted with its parts as one.
    let accepted = refused(|disks| {
        disks.image_limit = ImageLimit(3);
        disks.concurrency = 1;
    });
    assert_eq!(accepted.await, None);
    let image = new_image(&world.image("p1"), NO_LIMIT);
    let mut import = import_of(&world, JobType::ImportImage, image, "p1");
    import.concurrency = 2;
    let refused = catalog.submit_import(&import, trail()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    world.assert_sound().await;
}

pub(crate) async fn what_dies_between_two_parts_leaves_a_job_that_ends(world: World) {
    let catalog = &world.catalog;
    let disks = disks_of(&world, 1);
    catalog.submit_disks(&disks, None).await.unwrap();
    let first = pick(&world).await;
    finish(&world, &first).await;
    let dead = pick(&world).await;
    catalog.end_leases().await.unwrap();
    assert_eq!(job(&world, &disks.job.id).await.status, JobStatus::Running);
    let again = pick(&world).await;
    assert_eq!((&again.job.id, again.attempt), (&dead.job.id, 2));
    let late = catalog
        .finish_import(&dead.job.id, dead.attempt, &facts(100), None)
        .await;
    assert_eq!(late.unwrap(), Release::Lost);
    assert_eq!(job(&world, &disks.job.id).await.status, JobStatus::Running);
    let back = catalog.hand_back(&again.job.id, 2, Duration::ZERO).await;
    assert_eq!(back.unwrap(), Release::Done);
    let last = pick(&world).await;
    finish(&world, &last).await;
    assert_eq!(job(&world, &disks.job.id).await.status, JobStatus::Success);
    world.assert_sound().await;
}

pub(crate) async fn of_two_who_end_the_last_parts_at_once_one_ends_the_job(world: World) {
    for _ in 0..8 {
        let disks = disks_of(&world, 3);
        world.catalog.submit_disks(&disks, None).await.unwrap();
        let mut ends = tokio::task::JoinSet::new();
        for number in 0..4 {
            let claim = pick(&world).await;
            let catalog = std::sync::Arc::clone(&world.catalog);
            ends.spawn(async move {
                let (id, attempt) = (&claim.job.id, claim.attempt);
                if number % 2 == 0 {
                    let ended = catalog.finish_import(id, attempt, &facts(100), None).await;
                    assert_eq!(ended.unwrap(), Release::Done);
                } else {
                    assert!(catalog.fail_job(id, attempt, &failure()).await.unwrap());
                }
            });
        }
        while let Some(ended) = ends.join_next().await {
            ended.unwrap();
        }
        let ended = job(&world, &disks.job.id).await;
        assert_eq!(ended.failure, Some(failure()));
    }
    world.assert_sound().await;
}

pub(crate) async fn a_job_whose_parts_have_ended_without_it_is_seen(world: World) {
    let disks = disks_of(&world, 1);
    world.catalog.submit_disks(&disks, None).await.unwrap();
    assert_eq!(world.catalog.violations().await.unwrap(), []);
    let sql = format!(
        "update jobs set parent = null where parent = '{}'",
        disks.job.id
    );
    world.tamper(sql).await;
    let violations = world.catalog.violations().await.unwrap();
    let [violation] = &violations[..] else {
        panic!("{violations:?}");
    };
    assert_eq!(violation.invariant, 5);
    assert!(violation.detail.contains(disks.job.id.as_str()));
}
