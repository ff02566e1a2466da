//! Exports.

use std::time::Duration;

use calotype_core::codes::ImsCode;
use calotype_core::disk::DiskFormat;
use calotype_core::image::Image;
use calotype_core::job::{Export, JobFailure, JobStatus, JobType, Release, Work};
use calotype_core::object::ObjectAddress;
use calotype_core::ports::{
    BlobState, Images as _, Jobs as _, NewExport, Quotas as _, Reconcile as _,
};

use crate::world::{LEASE, PickJob as _, World, project, trail};

fn export_of(world: &World, image: &Image, owner: &str) -> NewExport {
    let number = world.image(owner).id;
    let mut job = world.job(number, JobType::NativeExportImage, owner);
    job.source = Some(image.id);
    NewExport {
        job,
        export: Export {
            source: image.blob.unwrap(),
            source_key: None,
            source_cmk: None,
            stored: DiskFormat::Raw,
            wanted: DiskFormat::Qcow2,
            object: ObjectAddress::parse("images:a.qcow2").unwrap(),
        },
        concurrency: 2,
    }
}

pub(crate) async fn an_image_is_exported_once_at_a_time(world: World) {
    let catalog = &world.catalog;
    let images = [
        world.active("p1", 100).await,
        world.active("p1", 100).await,
        world.active("p1", 100).await,
    ];
    let submit = async |image: &Image| {
        let export = export_of(&world, image, "p1");
        let submitted = catalog.submit_export(&export, trail()).await;
        submitted.map(|()| export)
    };
    let code = |refused: calotype_core::Result<NewExport>| refused.unwrap_err().code();
    let first = submit(&images[0]).await.unwrap();
    assert_eq!(code(submit(&images[0]).await), Some(ImsCode::IMG_0148));
    submit(&images[1]).await.unwrap();
    assert_eq!(code(submit(&images[2]).await), Some(ImsCode::IMG_0060));
    world.assert_sound().await;

    let claim = catalog.pick_job("w", LEASE).await.unwrap().unwrap();
    assert_eq!(claim.job.id, first.job.id);
    assert_eq!(claim.work, Work::Export(first.export.clone()));
    let ended = catalog.finish_steps(&claim.job.id, claim.attempt).await;
    assert_eq!(ended.unwrap(), Release::Done);
    let job = catalog.job(&first.job.id).await.unwrap().unwrap();
    assert_eq!(job.status, JobStatus::Success);
    assert_eq!(job.source, Some(images[0].id));

    let again = submit(&images[0]).await.unwrap();
    let picked = [
        catalog.pick_job("w", LEASE).await.unwrap().unwrap(),
        catalog.pick_job("w", LEASE).await.unwrap().unwrap(),
    ];
    let claim = picked.iter().find(|claim| claim.job.id == again.job.id);
    let failure = JobFailure {
        code: ImsCode::IMG_0071,
        reason: "The image can't be exported.".to_owned(),
    };
    let failed = catalog.fail_job(&again.job.id, claim.unwrap().attempt, &failure);
    assert!(failed.await.unwrap());
    assert_eq!(world.get(images[0].id).await, images[0]);
    submit(&images[0]).await.unwrap();
    world.assert_sound().await;
}

pub(crate) async fn an_export_holds_the_bytes_of_an_image_that_goes_and_nobody_pays(world: World) {
    let catalog = &world.catalog;
    let image = world.active("p1", 100).await;
    let export = export_of(&world, &image, "p1");
    catalog.submit_export(&export, trail()).await.unwrap();
    catalog
        .delete_image(&image, Duration::ZERO, trail())
        .await
        .unwrap();
    let usage = catalog.usage(&project("p1")).await.unwrap();
    assert_eq!(usage.bytes.bytes(), 0);
    world.assert_sound().await;
    let blob = export.export.source;
    assert!(!catalog.claim_deletion(blob).await.unwrap());
    let second = export_of(&world, &image, "p1");
    let refused = catalog.submit_export(&second, trail()).await.unwrap_err();
    assert_eq!(refused.code(), Some(ImsCode::IMG_0144));

    let claim = catalog.pick_job("w", LEASE).await.unwrap().unwrap();
    let ended = catalog.finish_steps(&claim.job.id, claim.attempt).await;
    assert_eq!(ended.unwrap(), Release::Done);
    assert!(catalog.claim_deletion(blob).await.unwrap());
    let record = catalog.blob(blob).await.unwrap().unwrap();
    assert_eq!(record.state, BlobState::Deleting);
    world.assert_sound().await;
}
