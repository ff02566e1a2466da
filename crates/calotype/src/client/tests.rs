//! Repetition, resumption and errors, against a service that does wrong on demand.

use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::json;

use super::download::Verified;
use super::*;
use crate::exit::{Exit, Failure};
use crate::testing::Service;

const ID: &str = "00000000-0000-0000-0000-0000000000aa";

/// Repeats at once.
const EAGER: RetryPolicy = RetryPolicy {
    attempts: 3,
    first_wait: Duration::ZERO,
    longest_wait: Duration::ZERO,
};

async fn session(service: &Service) -> Session {
    Session::open(service.cloud(), EAGER).await.unwrap()
}

fn hidden() -> ProgressBar {
    ProgressBar::hidden()
}

#[tokio::test]
async fn a_busy_service_is_asked_again_under_the_same_idempotency_key() {
    let service = Service::start().await;
    let session = session(&service).await;
    service.state().busy = 2;
    session.create_image(&json!({"name": "n"})).await.unwrap();
    let state = service.state();
    let keys: Vec<_> = state
        .requests
        .iter()
        .filter(|seen| seen.line == "POST /v2/images")
        .map(|seen| seen.idempotency_key.clone().unwrap())
        .collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[tokio::test]
async fn a_service_that_stays_busy_is_a_failure_after_the_last_attempt() {
    let service = Service::start().await;
    let session = session(&service).await;
    service.state().busy = 100;
    let failure = session.show_image(ID).await.unwrap_err();
    assert_eq!(
        (failure.exit, failure.code.as_deref()),
        (Exit::Failure, Some("IMG.0061"))
    );
    assert_eq!(service.state().busy, 97);
}

#[tokio::test]
async fn a_patch_is_not_repeated() {
    let service = Service::start().await;
    let session = session(&service).await;
    service.state().busy = 100;
    session.patch_image(ID, &json!([])).await.unwrap_err();
    assert_eq!(service.state().busy, 99);
}

#[tokio::test]
async fn an_expired_token_is_replaced_once() {
    let service = Service::start().await;
    service.hold(ID, "n", b"x");
    let session = session(&service).await;
    service.state().refuse_tokens = 1;
    session.show_image(ID).await.unwrap();
    service.state().refuse_tokens = 2;
    let failure = session.show_image(ID).await.unwrap_err();
    assert_eq!(failure.exit, Exit::NotAuthorised);
}

async fn failure_of(answer: (u16, &'static str)) -> Failure {
    let service = Service::start().await;
    let session = session(&service).await;
    service.state().answer = Some(answer);
    session.show_image(ID).await.unwrap_err()
}

#[tokio::test]
async fn every_envelope_is_shown_with_code_message_and_request_id() {
    let mut shown = Vec::new();
    for answer in [
        (
            400,
            r#"{"error":{"code":"IMG.0066","message":"The image ID is wrong"}}"#,
        ),
        (
            404,
            r#"{"code":"404 Not Found","title":"Not Found","message":"No image found"}"#,
        ),
        (
            403,
            r#"{"error":{"code":403,"message":"You may not","title":"Forbidden"}}"#,
        ),
        (
            409,
            r#"{"error_code":"APIGW.1","error_msg":"Conflict it is"}"#,
        ),
        (413, "<html>too large</html>"),
        (500, r#"{"error":"#),
    ] {
        let failure = failure_of(answer).await;
        shown.push(format!("{}: {failure}", failure.exit.code()));
    }
    insta::assert_snapshot!(shown.join("\n"));
}

#[tokio::test]
async fn an_image_is_found_by_id_or_by_a_name_that_only_one_has() {
    let service = Service::start().await;
    service.hold(ID, "one", b"x");
    service.hold("00000000-0000-0000-0000-0000000000b1", "two", b"x");
    service.hold("00000000-0000-0000-0000-0000000000b2", "two", b"x");
    let session = session(&service).await;
    assert_eq!(session.find_image(ID).await.unwrap(), ID);
    assert_eq!(session.find_image("one").await.unwrap(), ID);
    assert_eq!(
        session.find_image("two").await.unwrap_err().exit,
        Exit::Refused
    );
    assert_eq!(
        session.find_image("three").await.unwrap_err().exit,
        Exit::NotFound
    );
    assert_eq!(session.list_images("", None).await.unwrap().len(), 3);
    assert_eq!(session.list_images("", Some(2)).await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_upload_says_its_size_and_is_sent_again_where_the_service_is_busy() {
    let service = Service::start().await;
    let session = session(&service).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"bytes of an image").unwrap();
    let image = session.create_image(&json!({"name": "n"})).await.unwrap();
    let id = image["id"].as_str().unwrap();
    service.state().busy = 1;
    session
        .upload(id, &Upload::File(file.path().into()), None, &hidden())
        .await
        .unwrap();
    assert_eq!(&service.state().images[id].1[..], b"bytes of an image");
    assert_eq!(
        service
            .state()
            .requests
            .last()
            .unwrap()
            .size_hint
            .as_deref(),
        Some("17")
    );
}

struct Fetch {
    service: Service,
    session: Session,
    place: tempfile::TempDir,
    bytes: Vec<u8>,
}

impl Fetch {
    async fn prepare() -> Self {
        let service = Service::start().await;
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        service.hold(ID, "n", &bytes);
        let session = session(&service).await;
        Self {
            service,
            session,
            place: tempfile::tempdir().unwrap(),
            bytes,
        }
    }

    async fn run(&self) -> Result<Verified, Failure> {
        let image = self.session.show_image(ID).await?;
        let target = Target::File(self.place.path().join("f"));
        self.session.download(&image, &target, &hidden()).await
    }

    fn file(&self) -> Option<Vec<u8>> {
        std::fs::read(self.place.path().join("f")).ok()
    }

    fn part(&self) -> std::path::PathBuf {
        self.place.path().join(format!("f.{ID}.part"))
    }

    fn ranges(&self) -> Vec<Option<String>> {
        let state = self.service.state();
        let files = state
            .requests
            .iter()
            .filter(|seen| seen.line.ends_with("/file"));
        files.map(|seen| seen.range.clone()).collect()
    }
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_broke() {
    let fetch = Fetch::prepare().await;
    fetch.service.state().breaks = vec![100_000, 50_000];
    let verified = fetch.run().await.unwrap();
    assert_eq!((verified.bytes, verified.resumed_from), (300_000, 0));
    assert_eq!(verified.algorithm.as_deref(), Some("sha512"));
    assert!(fetch.file().unwrap() == fetch.bytes);
    let ranges = fetch.ranges();
    assert_eq!(ranges[0], None);
    assert!(
        ranges.len() > 1 && ranges[1..].iter().all(Option::is_some),
        "{ranges:?}"
    );
}

#[tokio::test]
async fn a_download_that_gave_up_is_resumed_by_the_next_one() {
    let fetch = Fetch::prepare().await;
    std::fs::write(fetch.part(), &fetch.bytes[..200_000]).unwrap();
    let verified = fetch.run().await.unwrap();
    assert_eq!(verified.resumed_from, 200_000);
    assert!(fetch.file().unwrap() == fetch.bytes && !fetch.part().exists());
    assert_eq!(fetch.ranges(), [Some("bytes=200000-".to_owned())]);
}

#[tokio::test]
async fn a_service_without_ranges_is_resumed_from_all_the_same() {
    let fetch = Fetch::prepare().await;
    fetch.service.state().no_ranges = true;
    std::fs::write(fetch.part(), &fetch.bytes[..200_000]).unwrap();
    fetch.run().await.unwrap();
    assert!(fetch.file().unwrap() == fetch.bytes);
}

#[tokio::test]
async fn damaged_bytes_never_get_the_files_name() {
    let fetch = Fetch::prepare().await;
    std::fs::write(fetch.place.path().join("f"), b"before").unwrap();
    fetch.service.state().damage = true;
    let failure = fetch.run().await.unwrap_err();
    assert_eq!(failure.exit, Exit::Damaged);
    assert_eq!(fetch.file().unwrap(), b"before");
    assert!(!fetch.part().exists());
}

#[tokio::test]
async fn a_damaged_part_is_found_and_removed() {
    let fetch = Fetch::prepare().await;
    std::fs::write(fetch.part(), vec![0; 1000]).unwrap();
    assert_eq!(fetch.run().await.unwrap_err().exit, Exit::Damaged);
    fetch.run().await.unwrap();
    assert!(fetch.file().unwrap() == fetch.bytes);
}

#[tokio::test]
async fn an_empty_image_is_an_empty_file() {
    let fetch = Fetch::prepare().await;
    fetch.service.hold(ID, "n", b"");
    assert_eq!(fetch.run().await.unwrap().bytes, 0);
    assert_eq!(fetch.file().unwrap(), b"");
}

#[tokio::test]
async fn a_job_is_waited_for_and_its_progress_shown() {
    let service = Service::start().await;
    let session = session(&service).await;
    service.state().running_looks = 2;
    let wait = JobWait {
        timeout: None,
        first_look: Duration::ZERO,
    };
    let bar = hidden();
    let job = session.wait_job("j1", wait, &bar).await.unwrap();
    assert_eq!(job["status"], "SUCCESS");
    assert_eq!((bar.length(), bar.position()), (Some(10), 4));
}

#[tokio::test]
async fn a_job_that_failed_says_why_and_one_that_goes_on_is_a_timeout() {
    let service = Service::start().await;
    let session = session(&service).await;
    service.fail_jobs();
    let failure = session
        .wait_job("j1", JobWait::default(), &hidden())
        .await
        .unwrap_err();
    assert_eq!(
        failure.to_string(),
        "job j1 failed: the source is gone [IMG.0144]"
    );
    assert_eq!(failure.exit, Exit::JobFailed);
    service.state().fail_jobs = false;
    service.state().running_looks = u32::MAX;
    let wait = JobWait {
        timeout: Some(Duration::ZERO),
        first_look: Duration::ZERO,
    };
    let failure = session.wait_job("j1", wait, &hidden()).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Timeout);
}

#[test]
fn waits_grow_are_bounded_and_heed_the_service() {
    let policy = RetryPolicy::default();
    let second = Duration::from_secs(1);
    assert!(policy.wait(1, None) >= second / 2);
    assert!(policy.wait(2, None) >= second);
    assert!(policy.wait(1, Some(7 * second)) >= 7 * second);
    assert!(policy.wait(30, Some(9999 * second)) <= policy.longest_wait.mul_f64(1.25));
}

#[test]
fn who_is_busy_or_has_a_limit_is_asked_again_and_nobody_else() {
    let again = (100..600).filter(|status| {
        let status = reqwest::StatusCode::from_u16(*status).unwrap();
        super::transport::asks_to_wait(status)
    });
    assert_eq!(again.collect::<Vec<u16>>(), [429, 503]);
}
