//! What is purged, and what is kept.

use std::time::Duration;

use calotype_catalog::Options;
use calotype_core::ErrorKind;
use calotype_core::job::{JobStatus, Release};
use calotype_core::ports::{
    AuditEvent, Directory as _, Images as _, Jobs as _, Ledger as _, Reconcile as _, RoleRecord,
    StoredAnswer, Trail,
};

use crate::world::{LEASE, NO_LIMIT, PickJob as _, World, assert_kind, event, project, trail};

const HOUR: Duration = Duration::from_secs(3600);
const KINDS: [&str; 3] = ["over", "young", "later"];

async fn purge(world: &World) -> u64 {
    let mut gone = 0;
    loop {
        match world.catalog.purge_expired().await.unwrap() {
            0 => return gone,
            some => gone += some,
        }
    }
}

pub(crate) async fn what_is_over_its_time_is_purged_and_nothing_else(world: World) {
    let catalog = &world.catalog;
    let now = world.now().await;
    // The last of each was written before the clock was set back.
    let times = |kept: Duration| {
        let times = [
            now.minus(kept + HOUR),
            now.minus(kept - HOUR),
            now.plus(HOUR),
        ];
        KINDS.into_iter().zip(times)
    };
    let Options {
        answers_kept,
        audit_kept,
        jobs_kept,
        ..
    } = Options::default();
    for (kind, at) in times(audit_kept) {
        let line = AuditEvent { at, ..event(kind) };
        let role = RoleRecord {
            id: kind.parse().unwrap(),
            name: kind.to_owned(),
        };
        catalog.insert_role(&role, Some(&line)).await.unwrap();
    }
    let source = world.active("p1", 100).await;
    let mut jobs = Vec::new();
    for (_, at) in times(jobs_kept) {
        let replica = world.replica(&source, "p1");
        catalog.submit_replica(&replica, trail()).await.unwrap();
        let job = replica.job.id;
        let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
        assert_eq!(
            catalog.finish_share(&job, claim.attempt).await.unwrap(),
            Release::Done
        );
        let at = at.as_micros();
        let sql = format!("update jobs set ended_at = {at} where id = '{job}'");
        world.tamper(sql).await;
        jobs.push(job);
    }
    let unfinished = world.replica(&source, "p1");
    catalog.submit_replica(&unfinished, trail()).await.unwrap();
    catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
    let old = "update jobs set created_at = 1, started_at = 1 where ended_at is null";
    world.tamper(old).await;
    for (kind, created_at) in times(answers_kept) {
        let answer = StoredAnswer {
            scope: "u1 p1 POST /v2/images".to_owned(),
            key: kind.to_owned(),
            fingerprint: "f".to_owned(),
            status: 201,
            body: "{}".to_owned(),
            location: None,
            created_at,
        };
        let trail = Trail {
            answer: Some(answer),
            ..trail()
        };
        let image = world.image("p1");
        let inserted = catalog.insert_image(&image, NO_LIMIT, trail);
        inserted.await.unwrap();
    }
    let burnt = world.image("p1");
    world.insert(&burnt).await;
    let deleted = catalog.delete_image(&burnt, Duration::ZERO, trail());
    deleted.await.unwrap();
    world
        .tamper("update burnt_image_ids set burnt_at = 1")
        .await;
    // Those of this test alone: the others are as old as the clock of the engine's server has it.
    let others = "delete from audit_events where trace not in ('over', 'young', 'later')";
    world.tamper(others).await;

    assert_eq!(purge(&world).await, 3);
    let trail_left = catalog.audit_trail(None, None, 9).await.unwrap();
    let left: Vec<_> = trail_left.iter().map(|(_, line)| &line.trace).collect();
    assert_eq!(left, ["later", "young"]);
    let mut found = Vec::new();
    for job in &jobs {
        found.push(catalog.job(job).await.unwrap().is_some());
    }
    assert_eq!(found, [false, true, true]);
    let running = catalog.job(&unfinished.job.id).await.unwrap().unwrap();
    assert_eq!(running.status, JobStatus::Running);
    for (kind, kept) in KINDS.into_iter().zip([false, true, true]) {
        let answer = catalog.answer("u1 p1 POST /v2/images", kind).await;
        assert_eq!(answer.unwrap().is_some(), kept, "{kind}");
    }
    let again = catalog.insert_image(&burnt, NO_LIMIT, trail()).await;
    assert_kind(again, ErrorKind::Conflict);
    let listed = catalog.list_jobs(&project("p1"), None, None, 9).await;
    assert_eq!(listed.unwrap().len(), 3);
    world.assert_sound().await;
}

pub(crate) async fn a_great_many_records_go_in_small_steps(world: World) {
    let catalog = &world.catalog;
    let fill = async || {
        let rows =
            "with recursive n (i) as (select 1 union all select i + 1 from n where i < 2500) ";
        let lines = "insert into audit_events \
             (at, trace, request_id, user_id, resource_type, resource_id, detail) \
             select i, 'old', 'r', 'u', 'image', '1', '{}' from n";
        let jobs = "insert into jobs (id, project, user_id, job_type, status, done_bytes, \
             total_bytes, attempt, due_at, cancelled, created_at, ended_at) \
             select cast(i as text), 'p', 'u', 'copy', 'SUCCESS', 0, 0, 1, 1, false, 1, i from n \
             where i <= 1500";
        for insert in [lines, jobs] {
            world.tamper(format!("{rows}{insert}")).await;
        }
    };
    fill().await;
    let mut steps = Vec::new();
    for _ in 0..5 {
        steps.push(catalog.purge_expired().await.unwrap());
    }
    assert_eq!(steps, [2000, 1500, 500, 0, 0]);

    // Two at once take turns, and none counts what the other took.
    fill().await;
    let other = World::open(&world.url).await;
    let (one, two) = tokio::join!(purge(&world), purge(&other));
    let left = purge(&world).await;
    assert_eq!(one + two + left, 4000);
    assert_eq!(catalog.audit_trail(None, None, 9).await.unwrap(), []);
}
