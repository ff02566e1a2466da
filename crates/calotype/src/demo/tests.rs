//! The demo's steps against a service in memory.

use super::*;
use crate::output::Format;
use crate::testing::Service;

async fn walk_against(service: &Service) -> Result<Vec<Step>, Failure> {
    let place = tempfile::tempdir().unwrap();
    let clouds = service.write_clouds(place.path());
    walk(
        &clouds,
        disk::LEAST,
        place.path(),
        &Output::new(Format::Table),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_is_done_and_measured() {
    let service = Service::start().await;
    let steps = walk_against(&service).await.unwrap();
    let names: Vec<_> = steps.iter().map(|step| step.name).collect();
    assert_eq!(
        names,
        [
            "make a disk image",
            "cp and fsync, for comparison",
            "upload",
            "replicate",
            "download the replica",
            "compare every byte",
            "replicate under a key",
            "download the encrypted replica",
            "compare every byte of it",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_step_that_fails_is_named() {
    let service = Service::start().await;
    service.fail_jobs();
    let failure = walk_against(&service).await.unwrap_err();
    assert!(failure.message.starts_with("replicate: job "), "{failure}");
    assert_eq!(failure.exit, Exit::JobFailed);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_on_the_way_is_found() {
    let service = Service::start().await;
    service.damage_downloads();
    let failure = walk_against(&service).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Damaged);
}
