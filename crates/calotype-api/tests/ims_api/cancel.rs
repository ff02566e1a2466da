//! Cancelling jobs: whatever they are about, they end as failed, with their reason, and leave nothing.

use std::sync::Arc;
use std::time::Duration;

use calotype_core::job::{Job, JobStatus};
use calotype_core::ports::{Images as _, Jobs as _, Reconcile as _};
use calotype_keys::Wrong;

use crate::harness::{ADMIN, MEMBER, Opening, STRANGER, World};
use crate::keys::{K, LATER, S, copy, plain, sealed, under};

/// Cancels a job as its owner does.
async fn cancel(world: &World, job: &str) {
    let path = format!("/admin/v1/jobs/{job}");
    let request = crate::harness::request("DELETE", MEMBER, &path, axum::body::Body::empty());
    let answer = world.send(request).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.json()["status"], "RUNNING");
}

/// It ended as one that was cancelled does, and left nothing.
async fn assert_cancelled(world: &World, job: &Job) {
    let failure = job.failure.clone().unwrap();
    assert_eq!(failure.code.to_string(), "IMG.0014");
    assert_eq!(failure.reason, "The job was cancelled.");
    let replica = world.catalog.image(job.image.unwrap(), None).await;
    assert_eq!(replica.unwrap(), None);
    world.service.reconcile().await.unwrap();
    assert_eq!(world.stored().await.len(), 1, "the source's");
    assert_eq!(world.staged().await, []);
    assert_eq!(world.catalog.violations().await.unwrap(), []);
}

#[tokio::test]
async fn a_job_that_is_cancelled_just_before_its_end_does_not_succeed() {
    for key in [None, Some(K)] {
        let world = Arc::new(World::new().await);
        let source = plain(&world).await;
        let accepted = copy(&world, MEMBER, &source, &under(key)).await;
        let job = accepted.json()["job_id"].as_str().unwrap().to_owned();
        let (there, id) = (Arc::clone(&world), job.clone());
        world
            .blobs
            .meanwhile(async move { cancel(&there, &id).await });
        let ended = world.work_until(&job, |job| job.ended_at.is_some()).await;
        assert_cancelled(&world, &ended).await;
    }
}

#[tokio::test]
async fn a_cancelled_job_is_not_put_off_for_a_key_service_that_is_away() {
    let world = Arc::new(World::new().await);
    let source = sealed(&world).await;
    let accepted = copy(&world, MEMBER, &source, &under(Some(K))).await;
    let job = accepted.json()["job_id"].as_str().unwrap().to_owned();
    let (there, id) = (Arc::clone(&world), job.clone());
    world.blobs.meanwhile(async move {
        cancel(&there, &id).await;
        there.keys.set(S, Some(Wrong::Away));
        there.clock.advance(LATER);
    });
    let ended = world.work_until(&job, |job| job.ended_at.is_some()).await;
    assert_eq!(ended.attempt, 1);
    assert_cancelled(&world, &ended).await;
}

#[tokio::test]
async fn a_job_whose_worker_died_ends_at_the_next_one_where_it_was_cancelled() {
    let world = World::new().await;
    let source = sealed(&world).await;
    let accepted = copy(&world, MEMBER, &source, &under(Some(K))).await;
    let job = accepted.json()["job_id"].as_str().unwrap().to_owned();
    let claims = world.catalog.pick_jobs("dies", Duration::ZERO, 1).await;
    assert_eq!(claims.unwrap().len(), 1);
    cancel(&world, &job).await;
    world.keys.set(S, Some(Wrong::Away));
    let ended = world.work_until(&job, |job| job.ended_at.is_some()).await;
    assert_eq!(ended.attempt, 2);
    assert_cancelled(&world, &ended).await;
}

#[tokio::test]
async fn a_worker_lives_and_hears_of_a_cancellation_while_a_key_service_does_not_answer() {
    let world = Arc::new(World::new().await);
    let source = sealed(&world).await;
    let accepted = copy(&world, MEMBER, &source, &under(Some(K))).await;
    let job = accepted.json()["job_id"].as_str().unwrap().to_owned();
    let before = world.keys.checked();
    world.keys.set(S, Some(Wrong::Silent));
    let asked = async {
        while world.keys.checked() == before {
            tokio::task::yield_now().await;
        }
        cancel(&world, &job).await;
    };
    let (ended, ()) = tokio::join!(world.work_until(&job, |job| job.ended_at.is_some()), asked);
    assert_eq!(ended.attempt, 1);
    assert_cancelled(&world, &ended).await;
}

#[tokio::test]
async fn a_running_job_can_be_cancelled_and_leaves_nothing() {
    let world = World::new().await;
    let source = plain(&world).await;
    let accepted = copy(&world, MEMBER, &source, &under(Some(K))).await;
    let job = accepted.json()["job_id"].as_str().unwrap().to_owned();
    let path = format!("/admin/v1/jobs/{job}");
    let delete = async |token: &str, path: &str| {
        let request = crate::harness::request("DELETE", token, path, axum::body::Body::empty());
        world.send(request).await
    };
    assert_eq!(
        delete("", &path).await.refusal(),
        (401, "IMG.0087".to_owned())
    );
    assert_eq!(
        delete(STRANGER, &path).await.refusal(),
        (404, "IMG.0023".to_owned())
    );
    for unknown in ["x", "0123456789abcdef0123456789abcdef"] {
        let answer = delete(MEMBER, &format!("/admin/v1/jobs/{unknown}")).await;
        assert_eq!(answer.refusal(), (404, "IMG.0023".to_owned()));
    }

    *world.opening.lock().unwrap() = Opening::NeverEnds;
    let running = world
        .work_until(&job, |job| job.status == JobStatus::Running)
        .await;
    let replica = running.image.unwrap();
    // It was handed back, so no worker has it: it ends at once.
    let answer = delete(ADMIN, &path).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.json()["status"], "FAIL");
    assert_eq!(answer.json()["fail_reason"], "The job was cancelled.");
    assert_eq!(world.catalog.image(replica, None).await.unwrap(), None);
    assert_eq!(delete(MEMBER, &path).await.status, 409);
}
