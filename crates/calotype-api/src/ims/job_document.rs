//! Jobs as the API shows them (spec 5.2, 3.7, 5.6; decision D17).
//!
//! Clients decode these strictly: `process_percent` is a number, every time a string or null, `status` one of four
//! words. A progress bar needs nothing but `process_percent`: it is right also for work that moves no bytes (a share),
//! whose `bytes_total` is 0, and it is 1 exactly when the job has succeeded.

use calotype_core::job::{Job, JobFamily, JobStatus, JobType, MemberResult};
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The most that an unfinished job shows of itself as done: committing is part of the work.
const ALMOST: f64 = 0.99;

/// A job's document, with those of its parts. `now` is the time of asking.
pub fn job_document(job: &Job, parts: &[Job], now: Timestamp) -> Map<String, Value> {
    document(job, parts, now, entities(job, parts, now))
}

/// As [`job_document`], as one of a list: without its results, which may be many.
pub fn listed_document(job: &Job, now: Timestamp) -> Map<String, Value> {
    let mut entities = entities(job, &[], now);
    entities.remove("results");
    document(job, &[], now, entities)
}

/// As [`job_document`], with what the progress API adds.
pub fn progress_document(job: &Job, parts: &[Job], now: Timestamp) -> Map<String, Value> {
    let mut entities = entities(job, parts, now);
    entities.insert("current_task".to_owned(), current_task(job).into());
    let running = parts.iter().find(|part| part.status == JobStatus::Running);
    let running = running.map(|part| part.id.as_str()).unwrap_or_default();
    entities.insert("subJobId".to_owned(), running.into());
    document(job, parts, now, entities)
}

fn document(
    job: &Job,
    parts: &[Job],
    now: Timestamp,
    entities: Map<String, Value>,
) -> Map<String, Value> {
    let failure = job.failure.as_ref();
    let mut document = Map::new();
    let mut put = |name: &str, value: Value| document.insert(name.to_owned(), value);
    put("job_id", job.id.as_str().into());
    put("job_type", job.job_type.as_str().into());
    put("status", job.status.as_str().into());
    put("begin_time", job.created_at.to_millis().into());
    put("end_time", json!(job.ended_at.map(Timestamp::to_millis)));
    put(
        "error_code",
        json!(failure.map(|failure| failure.code.to_string())),
    );
    put(
        "fail_reason",
        json!(failure.map(|failure| failure.reason.as_str())),
    );
    put("entities", entities.into());
    put("calotype", measures(job, parts, now));
    document
}

/// What a job is about (spec 5.5). A failed job names its error in place of the image (spec 3.7).
fn entities(job: &Job, parts: &[Job], now: Timestamp) -> Map<String, Value> {
    let mut entities = Map::new();
    let mut put = |name: &str, value: Value| entities.insert(name.to_owned(), value);
    if let Some(name) = &job.image_name {
        put("image_name", name.as_str().into());
    }
    // An export or a move makes no image: it names the one that it reads.
    let image = match job.job_type {
        JobType::NativeExportImage | JobType::MoveBlob => job.source,
        _ => job.image,
    };
    match (job.status, image, &job.failure) {
        (JobStatus::Running | JobStatus::Success, Some(image), _) => {
            put("image_id", image.to_string().into());
        }
        (JobStatus::Fail, _, Some(failure)) => {
            put("error_code", failure.code.to_string().into());
            put("error", failure.reason.as_str().into());
        }
        _ => {}
    }
    if job.job_type.family() == JobFamily::Membership {
        let results = job.results.iter().map(result);
        put("results", results.collect());
    }
    // A client that imports data disks looks for the image among the parts (clients' habits): the job stands for its one.
    let alone = job.parent.is_none() && job.job_type == JobType::ImportDataImage;
    if alone && let Some(image) = entities.get("image_id").cloned() {
        let part = json!({
            "job_id": job.id.as_str(),
            "job_type": job.job_type.as_str(),
            "status": job.status.as_str(),
            "entities": { "image_id": image, "image_name": job.image_name },
        });
        entities.insert("sub_jobs_list".to_owned(), json!([job.id.as_str()]));
        entities.insert("sub_jobs_result".to_owned(), json!([part]));
    }
    let mut put = |name: &str, value: Value| entities.insert(name.to_owned(), value);
    if !parts.is_empty() {
        let ids = parts.iter().map(|part| Value::from(part.id.as_str()));
        put("sub_jobs_list", ids.collect());
        let documents = parts.iter().map(|part| job_document(part, &[], now));
        put("sub_jobs_result", documents.map(Value::from).collect());
    }
    put("process_percent", json!(fraction(job)));
    entities
}

/// A row of a job about members. Its words are in lower case (spec 12, fact 1).
fn result(result: &MemberResult) -> Value {
    let mut row = json!({
        "image_id": result.image.to_string(),
        "project_id": result.project.as_str(),
        "status": if result.refused.is_none() { "success" } else { "fail" },
    });
    if let Some(code) = result.refused {
        row["error_code"] = code.to_string().into();
        row["fail_reason"] = code.message().into();
    }
    row
}

/// Between 0 and 1, in steps of a hundredth of a percent.
fn fraction(job: &Job) -> f64 {
    let done = (job.progress.fraction() * 10_000.0).floor() / 10_000.0;
    match job.status {
        JobStatus::Success => 1.0,
        JobStatus::Init => 0.0,
        JobStatus::Running | JobStatus::Fail => done.min(ALMOST),
    }
}

fn current_task(job: &Job) -> &'static str {
    match job.status {
        JobStatus::Init => "waiting",
        JobStatus::Running if job.job_type.family() == JobFamily::Membership => "changing members",
        JobStatus::Running if job.job_type.family() == JobFamily::Import => "importing",
        JobStatus::Running if job.job_type.family() == JobFamily::Export => "exporting",
        JobStatus::Running if job.job_type.family() == JobFamily::Move => "moving",
        JobStatus::Running if job.progress.total == ByteSize::ZERO => "sharing",
        JobStatus::Running => "sealing",
        JobStatus::Success | JobStatus::Fail => "",
    }
}

/// The `calotype` object of decision D17. The rate is the mean since the latest attempt began, of the bytes that it
/// moved, and null where it moved none or the job waits for another; the expected end is null where there is no rate or
/// nothing left to expect. A job with parts moves what they move.
fn measures(job: &Job, parts: &[Job], now: Timestamp) -> Value {
    let (done, total) = (job.progress.done.bytes(), job.progress.total.bytes());
    let running = parts
        .iter()
        .filter(|part| part.status == JobStatus::Running);
    let rate = match parts.is_empty() {
        true => rate(job, now),
        false => running
            .filter_map(|part| rate(part, now))
            .reduce(u64::saturating_add),
    };
    let left = total.saturating_sub(done);
    let end = match (job.status, rate) {
        (JobStatus::Running, Some(rate)) => {
            Some(now.plus(Duration::from_secs(left.div_ceil(rate))))
        }
        _ => None,
    };
    json!({
        "bytes_total": total,
        "bytes_done": done,
        "bytes_per_second": rate,
        "estimated_end": end.map(Timestamp::to_millis),
        "attempt": job.attempt,
    })
}

/// Bytes in a second that the latest attempt moves, or moved.
fn rate(job: &Job, now: Timestamp) -> Option<u64> {
    let until = job.ended_at.unwrap_or(now);
    let elapsed = job.attempt_at.map(|start| until.since(start))?;
    let resumed = job.progress.resumed.bytes();
    per_second(job.progress.done.bytes().saturating_sub(resumed), elapsed)
}

fn per_second(bytes: u64, elapsed: Duration) -> Option<u64> {
    let micros = elapsed.as_micros();
    if micros == 0 || bytes == 0 {
        return None;
    }
    let rate = u128::from(bytes) * 1_000_000 / micros;
    u64::try_from(rate).ok().filter(|rate| *rate > 0)
}

#[cfg(test)]
mod tests {
    use calotype_core::codes::ImsCode;
    use calotype_core::job::{JobFailure, Progress};

    use super::*;

    const BEGIN: i64 = 1_704_164_645_678_901;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(BEGIN + seconds * 1_000_000)
    }

    fn job(status: JobStatus) -> Job {
        let started = status != JobStatus::Init;
        let ended = matches!(status, JobStatus::Success | JobStatus::Fail);
        Job {
            status,
            source: Some("11111111-2222-3333-4444-555555555555".parse().unwrap()),
            image: Some("66666666-7777-8888-9999-000000000000".parse().unwrap()),
            image_name: Some("img-copy-1".to_owned()),
            attempt: i64::from(started),
            failure: (status == JobStatus::Fail).then(|| JobFailure {
                code: ImsCode::IMG_0144,
                reason: "The image does not exist.".to_owned(),
            }),
            started_at: started.then(|| at(1)),
            attempt_at: started.then(|| at(1)),
            ended_at: ended.then(|| at(121)),
            ..accepted(JobType::CopyImageInRegion)
        }
    }

    fn accepted(job_type: JobType) -> Job {
        Job::accepted(
            "0123456789abcdef0123456789abcdef".parse().unwrap(),
            "p1".parse().unwrap(),
            "u1".parse().unwrap(),
            job_type,
            at(0),
        )
    }

    fn moving(status: JobStatus, done: u64, total: u64) -> Job {
        Job {
            progress: Progress {
                done: ByteSize::new(done),
                total: ByteSize::new(total),
                ..Progress::default()
            },
            ..job(status)
        }
    }

    #[test]
    fn a_job_that_waits_has_no_end_no_error_and_no_image_yet() {
        insta::assert_json_snapshot!(job_document(&job(JobStatus::Init), &[], at(5)));
    }

    #[test]
    fn a_running_job_shows_its_bytes_its_rate_and_its_expected_end() {
        let job = moving(JobStatus::Running, 1 << 30, 4 << 30);
        insta::assert_json_snapshot!(progress_document(&job, &[], at(11)));
    }

    #[test]
    fn the_rate_is_that_of_the_attempt_that_is_on_and_there_is_none_while_the_job_waits() {
        let mut job = moving(JobStatus::Running, 900, 1000);
        job.progress.resumed = ByteSize::new(800);
        job.attempt_at = Some(at(1000));
        let document = job_document(&job, &[], at(1010));
        assert_eq!(document["calotype"]["bytes_per_second"], 10);
        let end = at(1020).to_millis();
        assert_eq!(document["calotype"]["estimated_end"], json!(end));
        job.attempt_at = None;
        let document = job_document(&job, &[], at(1010));
        assert_eq!(document["calotype"]["bytes_per_second"], Value::Null);
        assert_eq!(document["calotype"]["estimated_end"], Value::Null);
    }

    #[test]
    fn a_share_that_succeeded_is_wholly_done_though_no_bytes_moved() {
        insta::assert_json_snapshot!(job_document(&job(JobStatus::Success), &[], at(500)));
    }

    #[test]
    fn a_failed_job_shows_its_error_in_place_of_the_image() {
        insta::assert_json_snapshot!(job_document(&job(JobStatus::Fail), &[], at(500)));
    }

    #[test]
    fn only_a_job_that_succeeded_is_wholly_done() {
        let all_bytes = moving(JobStatus::Running, 100, 100);
        assert!(fraction(&all_bytes) < 1.0);
        assert!(fraction(&moving(JobStatus::Fail, 100, 100)) < 1.0);
        assert!(fraction(&moving(JobStatus::Running, u64::MAX, 1)) < 1.0);
        assert!((fraction(&moving(JobStatus::Success, 0, 0)) - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn extreme_numbers_neither_overflow_nor_divide_by_zero() {
        let job = moving(JobStatus::Running, u64::MAX, u64::MAX);
        for now in [at(0), at(1), at(2), Timestamp::from_micros(i64::MAX)] {
            let document = progress_document(&job, &[], now);
            assert!(document["entities"]["process_percent"].is_number());
        }
    }

    #[test]
    fn a_job_about_members_shows_what_became_of_each_pair() {
        let image = "11111111-2222-3333-4444-555555555555";
        let pair = |project: &str, refused| MemberResult {
            image: image.parse().unwrap(),
            project: project.parse().unwrap(),
            refused,
        };
        let mut shared = accepted(JobType::AddImageMembers);
        assert_eq!(
            job_document(&shared, &[], at(1))["entities"]["results"],
            json!([])
        );
        shared.results = vec![pair("p2", None), pair("p3", Some(ImsCode::IMG_0108))];
        let document = job_document(&shared, &[], at(1));
        let results = json!([
            {"image_id": image, "project_id": "p2", "status": "success"},
            {
                "image_id": image, "project_id": "p3", "status": "fail",
                "error_code": "IMG.0108", "fail_reason": ImsCode::IMG_0108.message(),
            },
        ]);
        assert_eq!(document["entities"]["results"], results);
        let listed = listed_document(&shared, at(1));
        assert!(listed["entities"].get("results").is_none());
        assert!(
            !document["entities"]
                .as_object()
                .unwrap()
                .contains_key("image_id")
        );
    }

    #[test]
    fn an_import_of_several_disks_shows_their_images_and_moves_what_they_move() {
        let part = |id: &str, job_type, status, done| Job {
            id: id.repeat(32).parse().unwrap(),
            parent: Some("0".repeat(32).parse().unwrap()),
            job_type,
            ..moving(status, done, 1000)
        };
        let parts = [
            part("a", JobType::ImportImage, JobStatus::Running, 100),
            part("b", JobType::ImportDataImage, JobStatus::Running, 200),
            part("c", JobType::ImportDataImage, JobStatus::Success, 1000),
        ];
        let mut whole = accepted(JobType::ImportOvaImage);
        whole.status = JobStatus::Running;
        whole.progress.total = ByteSize::new(3000);
        whole.progress.done = ByteSize::new(1300);
        insta::assert_json_snapshot!(progress_document(&whole, &parts, at(11)));
    }

    #[test]
    fn a_job_is_shown_with_its_parts() {
        let whole = accepted(JobType::CopyImageInRegion);
        let part = Job {
            id: "f".repeat(32).parse().unwrap(),
            parent: Some(whole.id.clone()),
            ..job(JobStatus::Running)
        };
        let document = progress_document(&whole, std::slice::from_ref(&part), at(9));
        let entities = &document["entities"];
        assert_eq!(entities["sub_jobs_list"], json!([part.id.as_str()]));
        assert_eq!(entities["subJobId"], part.id.as_str());
        let shown = json!([job_document(&part, &[], at(9))]);
        assert_eq!(entities["sub_jobs_result"], shown);
        assert!(
            !job_document(&part, &[], at(9))["entities"]
                .as_object()
                .unwrap()
                .contains_key("sub_jobs_list")
        );
    }
}
