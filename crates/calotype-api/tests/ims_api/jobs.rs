//! Following a job.

use calotype_core::job::JobStatus;

use crate::harness::{ADMIN, MEMBER, OTHER, OWN, Opening, READER, STRANGER, World};

async fn accepted(world: &World) -> String {
    let source = world.image(|_| ()).await.id;
    let path = format!("/v1/cloudimages/{source}/copy");
    let answer = world.post(MEMBER, &path, r#"{"name":"replica"}"#).await;
    answer.json()["job_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_job_is_shown_to_its_project_alone() {
    let world = World::new().await;
    let job = accepted(&world).await;
    for token in [MEMBER, READER, ADMIN] {
        let answer = world.get(token, &format!("/v1/{OWN}/jobs/{job}")).await;
        assert_eq!(answer.status, 200, "{token}");
        assert_eq!(answer.json()["job_id"], job.as_str());
    }
    let own = format!("/v1/{OWN}/jobs/{job}");
    let other = format!("/v1/{OTHER}/jobs/{job}");
    let progress = format!("/v1/cloudimages/job/{job}");
    let refusal = async |token: &str, path: &str| world.get(token, path).await.refusal();
    assert_eq!(refusal("", &own).await, (401, "IMG.0087".to_owned()));
    assert_eq!(refusal("", &progress).await, (401, "IMG.0087".to_owned()));
    assert_eq!(refusal(MEMBER, &other).await, (400, "IMG.0030".to_owned()));
    assert_eq!(refusal(STRANGER, &own).await, (400, "IMG.0030".to_owned()));
    assert_eq!(
        refusal(STRANGER, &other).await,
        (404, "IMG.0023".to_owned())
    );
    assert_eq!(refusal(ADMIN, &other).await, (404, "IMG.0023".to_owned()));
    assert_eq!(
        refusal(STRANGER, &progress).await,
        (404, "IMG.0023".to_owned())
    );
}

#[tokio::test]
async fn an_id_that_names_no_job_is_not_found_whatever_its_form() {
    let world = World::new().await;
    for id in [
        "0123456789abcdef0123456789abcdef",
        "x",
        "%ff",
        "..%2f..",
        "0",
    ] {
        for path in [
            format!("/v1/{OWN}/jobs/{id}"),
            format!("/v1/cloudimages/job/{id}"),
        ] {
            let answer = world.get(MEMBER, &path).await;
            assert_eq!(answer.refusal(), (404, "IMG.0023".to_owned()), "{path}");
        }
    }
}

#[tokio::test]
async fn a_job_goes_from_init_to_success_and_its_progress_from_0_to_1() {
    let world = World::new().await;
    let job = accepted(&world).await;
    let path = format!("/v1/cloudimages/job/{job}");
    let waiting = world.get(MEMBER, &path).await.json();
    assert_eq!(waiting["status"], "INIT");
    assert_eq!(waiting["entities"]["process_percent"], 0.0);
    assert_eq!(waiting["end_time"], serde_json::Value::Null);
    world.work_until_ended(&job).await;
    let done = world.get(MEMBER, &path).await.json();
    assert_eq!(done["status"], "SUCCESS");
    assert_eq!(done["entities"]["process_percent"], 1.0);
    assert_eq!(done["error_code"], serde_json::Value::Null);
    assert!(done["end_time"].is_string() && done["entities"]["image_id"].is_string());
}

#[tokio::test]
async fn the_operators_list_pages_through_the_projects_jobs() {
    let world = World::new().await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(accepted(&world).await);
        world.clock.advance(std::time::Duration::from_secs(1));
    }
    jobs.reverse();
    let mut seen = Vec::new();
    let mut path = "/admin/v1/jobs?limit=2".to_owned();
    loop {
        let page = world.get(READER, &path).await.json();
        for job in page["jobs"].as_array().unwrap() {
            seen.push(job["job_id"].as_str().unwrap().to_owned());
        }
        let Some(marker) = page["next_marker"].as_str() else {
            break;
        };
        path = format!("/admin/v1/jobs?limit=2&marker={marker}");
    }
    assert_eq!(seen, jobs);
    let none = world.get(MEMBER, "/admin/v1/jobs?status=FAIL").await.json();
    assert_eq!(none["jobs"], serde_json::json!([]));
    let foreign = world.get(STRANGER, "/admin/v1/jobs").await.json();
    assert_eq!(foreign["jobs"], serde_json::json!([]));
    for bad in ["status=DONE", "limit=0", "limit=x", "marker=x"] {
        let answer = world.get(MEMBER, &format!("/admin/v1/jobs?{bad}")).await;
        assert_eq!(answer.refusal(), (400, "IMG.0001".to_owned()), "{bad}");
    }
}

#[tokio::test]
async fn a_job_is_shown_only_to_who_may_see_images() {
    let world = World::new().await;
    let job = accepted(&world).await;
    let roleless = format!("somebody {OWN} nothing");
    for path in [
        format!("/v1/{OWN}/jobs/{job}"),
        format!("/v1/cloudimages/job/{job}"),
    ] {
        let answer = world.get(&roleless, &path).await;
        assert_eq!(answer.refusal(), (403, "IMG.0026".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn a_worker_that_is_stopped_hands_back_what_it_is_doing_and_the_next_one_ends_it() {
    let world = World::new().await;
    let job = accepted(&world).await;
    *world.opening.lock().unwrap() = Opening::NeverEnds;
    let running = |job: &calotype_core::job::Job| job.status == JobStatus::Running;
    let stopped = world.work_until(&job, running).await;
    assert_eq!((stopped.status, stopped.attempt), (JobStatus::Running, 1));

    // No lease is left to wait for: the clock stands still.
    *world.opening.lock().unwrap() = Opening::Succeeds;
    let ended = world.work_until(&job, |job| job.ended_at.is_some()).await;
    assert_eq!((ended.status, ended.attempt), (JobStatus::Success, 2));
}

#[tokio::test]
async fn a_job_whose_execution_panics_fails_and_its_replica_is_gone() {
    let world = World::new().await;
    let job = accepted(&world).await;
    *world.opening.lock().unwrap() = Opening::Panics;
    let ended = world.work_until(&job, |job| job.ended_at.is_some()).await;
    assert_eq!((ended.status, ended.attempt), (JobStatus::Fail, 1));
    let replica = format!("/v2/images/{}", ended.image.unwrap());
    assert_eq!(world.get(MEMBER, &replica).await.status, 404);
    let document = world
        .get(MEMBER, &format!("/v1/{OWN}/jobs/{job}"))
        .await
        .json();
    assert_eq!(document["error_code"], "IMG.0061");
    assert!(!document["fail_reason"].as_str().unwrap().contains("panic"));
}
