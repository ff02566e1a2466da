//! Imports.

use std::time::Duration;

use calotype_core::ErrorKind;
use calotype_core::codes::ImsCode;
use calotype_core::id::JobId;
use calotype_core::image::{Image, ImageStatus};
use calotype_core::job::{Import, Job, JobFailure, JobType, Release, Work};
use calotype_core::object::ObjectAddress;
use calotype_core::ports::{
    BlobState, ByteLimit, ImageLimit, Images as _, ImportedImage, Jobs as _, LimitChange,
    NewImport, ObjectFacts, OwnLimit, Quotas as _, Reconcile as _, Reservation, Usage,
};
use calotype_core::size::ByteSize;

use crate::world::{
    LEASE, NO_LIMIT, PickJob as _, World, assert_kind, deletable, event, facts, project, trail,
    wrapped,
};

pub(crate) fn import_of(
    world: &World,
    job_type: JobType,
    image: ImportedImage,
    owner: &str,
) -> NewImport {
    let target = world.blob_id();
    let number = target.as_uuid().as_u128();
    let id: JobId = format!("{number:032x}").parse().unwrap();
    let about = match &image {
        ImportedImage::New { image, .. } => image.id,
        ImportedImage::Queued { id, .. } => *id,
    };
    let at = world.image(owner).created_at;
    let mut job = Job::accepted(id, project(owner), "u1".parse().unwrap(), job_type, at);
    job.image = Some(about);
    NewImport {
        byte_limit: ByteLimit::NONE,
        job,
        image,
        import: Import {
            object: ObjectAddress::parse("images:disk.raw").unwrap(),
            facts: ObjectFacts {
                size: ByteSize::new(100),
                version: "v1".to_owned(),
            },
            part: None,
            target,
            target_key: wrapped("k"),
            target_cmk: None,
            filled: [false; 2],
        },
        store: None,
        concurrency: 40,
    }
}

pub(crate) fn new_image(image: &Image, limit: ImageLimit) -> ImportedImage {
    ImportedImage::New {
        image: Box::new(image.clone()),
        limit,
    }
}

pub(crate) fn failure() -> JobFailure {
    JobFailure {
        code: ImsCode::IMG_0057,
        reason: "The image file changed while it was read.".to_owned(),
    }
}

pub(crate) async fn an_import_makes_its_image_and_leaves_nothing_where_it_fails(world: World) {
    let catalog = &world.catalog;
    for ends_well in [true, false] {
        let image = world.image("p1");
        let import = import_of(
            &world,
            JobType::ImportImage,
            new_image(&image, NO_LIMIT),
            "p1",
        );
        let before = catalog.usage(&project("p1")).await.unwrap();
        catalog.submit_import(&import, trail()).await.unwrap();
        assert_eq!(world.get(image.id).await.status, ImageStatus::Queued);
        let upload = catalog
            .begin_upload(image.id, world.blob_id(), LEASE, Reservation::NONE)
            .await;
        assert_kind(upload, ErrorKind::Conflict);
        let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
        assert_eq!(claim.work, Work::Import(import.import.clone()));
        assert_eq!(world.get(image.id).await.status, ImageStatus::Saving);
        let target = import.import.target;
        let blob = catalog.blob(target).await.unwrap().unwrap();
        assert_eq!(blob.state, BlobState::Writing);
        if ends_well {
            let size = Some(ByteSize::new(4096));
            let ended = catalog
                .finish_import(&claim.job.id, 1, &facts(100), size)
                .await;
            assert_eq!(ended.unwrap(), Release::Done);
            let again = catalog
                .finish_import(&claim.job.id, 1, &facts(100), size)
                .await;
            assert_eq!(again.unwrap(), Release::Lost);
            let done = world.get(image.id).await;
            assert_eq!(done.status, ImageStatus::Active);
            assert_eq!((done.blob, done.virtual_size), (Some(target), size));
            assert_eq!(done.digests, facts(100).digests);
            let usage = catalog.usage(&project("p1")).await.unwrap();
            let bytes = ByteSize::new(before.bytes.bytes() + 100);
            let images = before.images + 1;
            let blob_bytes = bytes;
            let now = Usage {
                images,
                bytes,
                blob_bytes,
                ..Usage::default()
            };
            assert_eq!(usage, now);
        } else {
            let failed = catalog.fail_job(&claim.job.id, 1, &failure()).await;
            assert!(failed.unwrap());
            assert_eq!(world.find(image.id).await, None);
            assert_eq!(catalog.usage(&project("p1")).await.unwrap(), before);
            let deletable = deletable(catalog, None, 10).await;
            assert_eq!(deletable, [target]);
        }
    }
    assert_eq!(catalog.violations().await.unwrap(), []);
}

pub(crate) async fn an_image_that_waits_gets_its_bytes_from_one_job_and_waits_again_where_it_fails(
    world: World,
) {
    let catalog = &world.catalog;
    let mut image = world.image("p1");
    image.disk_format = None;
    image.container_format = None;
    world.insert(&image).await;
    let submit = || {
        let queued = ImportedImage::Queued {
            id: image.id,
            formats: ["vhd", "bare"],
        };
        import_of(&world, JobType::NativeImportImage, queued, "p1")
    };
    let refused = |result: calotype_core::Result<()>, code| {
        assert_eq!(result.unwrap_err().code(), Some(code));
    };
    let usage = catalog.usage(&project("p1")).await.unwrap();
    let mut first = submit();
    first.import.target_cmk = Some("k1".parse().unwrap());
    catalog.submit_import(&first, trail()).await.unwrap();
    let second = catalog.submit_import(&submit(), trail()).await;
    refused(second, ImsCode::IMG_0046);
    let waiting = world.get(image.id).await;
    assert_eq!(waiting.disk_format.as_deref(), Some("vhd"));
    assert_eq!(waiting.container_format.as_deref(), Some("bare"));
    assert_eq!(waiting.cmk_id, first.import.target_cmk);
    let upload = catalog
        .begin_upload(image.id, world.blob_id(), LEASE, Reservation::NONE)
        .await;
    assert_kind(upload, ErrorKind::Conflict);
    let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
    assert_eq!(world.get(image.id).await.status, ImageStatus::Saving);
    let delete = catalog
        .delete_image(&world.get(image.id).await, Duration::ZERO, trail())
        .await;
    assert_kind(delete, ErrorKind::Conflict);
    assert!(
        catalog
            .fail_job(&claim.job.id, 1, &failure())
            .await
            .unwrap()
    );
    let again = world.get(image.id).await;
    assert_eq!(again.status, ImageStatus::Queued);
    assert_eq!((again.disk_format, again.container_format), (None, None));
    assert_eq!(again.cmk_id, None);
    assert_eq!(catalog.usage(&project("p1")).await.unwrap(), usage);
    assert_eq!(catalog.violations().await.unwrap(), []);

    catalog.submit_import(&submit(), trail()).await.unwrap();
    let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
    let ended = catalog
        .finish_import(&claim.job.id, 1, &facts(100), None)
        .await;
    assert_eq!(ended.unwrap(), Release::Done);
    assert_eq!(world.get(image.id).await.status, ImageStatus::Active);
    let after = catalog.submit_import(&submit(), trail()).await;
    refused(after, ImsCode::IMG_0046);
    let gone = ImportedImage::Queued {
        id: world.image("p1").id,
        formats: ["vhd", "bare"],
    };
    let gone = import_of(&world, JobType::NativeImportImage, gone, "p1");
    refused(
        catalog.submit_import(&gone, trail()).await,
        ImsCode::IMG_0027,
    );
    assert_eq!(catalog.violations().await.unwrap(), []);
}

pub(crate) async fn imports_are_counted_by_themselves(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 100).await;
    let mut replica = world.replica(&source, "p1");
    replica.concurrency = 1;
    catalog.submit_replica(&replica, trail()).await.unwrap();
    let submit = async |limit, concurrency| {
        let image = new_image(&world.image("p1"), limit);
        let mut import = import_of(&world, JobType::ImportDataImage, image, "p1");
        import.concurrency = concurrency;
        let submitted = catalog.submit_import(&import, trail()).await;
        submitted.err().and_then(|error| error.code())
    };
    assert_eq!(submit(NO_LIMIT, 1).await, None);
    assert_eq!(submit(NO_LIMIT, 1).await, Some(ImsCode::IMG_0060));
    assert_eq!(submit(ImageLimit(3), 9).await, Some(ImsCode::IMG_0015));
    assert_eq!(submit(ImageLimit(4), 9).await, None);
}

pub(crate) async fn an_import_has_its_bytes_reserved_when_it_is_accepted(world: World) {
    let catalog = &world.catalog;
    let p1 = project("p1");
    let change = LimitChange {
        bytes: Some(OwnLimit::At(199)),
        ..LimitChange::default()
    };
    let set = catalog.set_limits(&p1, &change, &event("setQuota")).await;
    set.unwrap();
    let queued = world.image("p1");
    world.insert(&queued).await;
    let submit = async |job_type, image| {
        let import = import_of(&world, job_type, image, "p1");
        catalog.submit_import(&import, trail()).await
    };
    let new = || new_image(&world.image("p1"), NO_LIMIT);
    submit(JobType::ImportImage, new()).await.unwrap();
    let before = catalog.usage(&p1).await.unwrap();
    assert_eq!(before.reserved, ByteSize::new(100));
    assert_kind(
        submit(JobType::ImportImage, new()).await,
        ErrorKind::TooLarge,
    );
    let waits = ImportedImage::Queued {
        id: queued.id,
        formats: ["raw", "bare"],
    };
    let register = submit(JobType::NativeImportImage, waits.clone()).await;
    assert_kind(register, ErrorKind::TooLarge);
    assert_eq!(catalog.usage(&p1).await.unwrap(), before);

    let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
    let failed = catalog.fail_job(&claim.job.id, 1, &failure()).await;
    assert!(failed.unwrap());
    assert_eq!(catalog.usage(&p1).await.unwrap().reserved, ByteSize::ZERO);
    let register = submit(JobType::NativeImportImage, waits).await;
    register.unwrap();
    world.assert_sound().await;
}
