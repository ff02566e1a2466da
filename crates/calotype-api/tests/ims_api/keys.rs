//! Replication under other keys: the tables of spec 3.4 and 3.5, decisions D6, D7 and D19.

use std::time::Duration;

use calotype_core::app::Settings;
use calotype_core::id::KeyId;
use calotype_core::image::{Image, MemberStatus, Visibility};
use calotype_core::job::{JobStatus, ReplicaBytes, Work};
use calotype_core::ports::{Images as _, Jobs as _, Ledger as _, Quotas as _, Reconcile as _};
use calotype_core::size::ByteSize;
use calotype_keys::{SERVICE, Wrong};
use serde_json::{Value, json};

use crate::harness::{Answer, BYTES, MEMBER, OTHER, OWN, World};

/// The source's key, and the replica's.
pub(crate) const S: &str = "aaaaaaaa-0000-0000-0000-000000000001";
pub(crate) const K: &str = "bbbbbbbb-0000-0000-0000-000000000002";

/// Longer than data keys are remembered.
pub(crate) const LATER: Duration = Duration::from_secs(400);

pub(crate) async fn copy(world: &World, token: &str, source: &Image, body: &Value) -> Answer {
    let path = format!("/v1/cloudimages/{}/copy", source.id);
    world.post(token, &path, &body.to_string()).await
}

pub(crate) fn under(key: Option<&str>) -> Value {
    match key {
        Some(key) => json!({"name": "replica", "cmk_id": key}),
        None => json!({"name": "replica"}),
    }
}

pub(crate) async fn plain(world: &World) -> Image {
    world.image(|_| ()).await
}

pub(crate) async fn sealed(world: &World) -> Image {
    world.image(|i| i.cmk_id = Some(S.parse().unwrap())).await
}

async fn shared_and_sealed(world: &World) -> Image {
    let foreign = |i: &mut Image| {
        i.owner = OTHER.parse().unwrap();
        i.visibility = Visibility::Shared;
        i.cmk_id = Some(S.parse().unwrap());
    };
    let image = world.image(foreign).await;
    world.share(&image, MemberStatus::Accepted).await;
    image
}

/// Replicates and works until the job has succeeded; returns the replica.
async fn replicate(world: &World, source: &Image, body: &Value) -> Image {
    let accepted = copy(world, MEMBER, source, body).await;
    assert_eq!(accepted.status, 200, "{}", accepted.text);
    let job = accepted.json()["job_id"].as_str().unwrap().to_owned();
    let ended = world.work_until(&job, |job| job.ended_at.is_some()).await;
    assert_eq!(ended.status, JobStatus::Success, "{:?}", ended.failure);
    image(world, &ended.image.unwrap().to_string()).await
}

async fn image(world: &World, id: &str) -> Image {
    let found = world.catalog.image(id.parse().unwrap(), None).await;
    found.unwrap().unwrap().image
}

async fn download(world: &World, token: &str, image: &Image) -> Answer {
    world
        .get(token, &format!("/v2/images/{}/file", image.id))
        .await
}

async fn audited(world: &World) -> Value {
    let trail = world.catalog.audit_trail(None, None, 1).await.unwrap();
    trail[0].1.detail.clone()
}

#[tokio::test]
async fn each_row_of_the_table_gives_a_replica_under_the_key_that_was_asked_for() {
    for (from, to) in [
        (None, None),
        (None, Some(K)),
        (Some(S), None),
        (Some(S), Some("")),
        (Some(S), Some("  ")),
        (Some(S), Some(K)),
    ] {
        let world = World::new().await;
        let source = match from {
            None => plain(&world).await,
            Some(_) => sealed(&world).await,
        };
        let wanted = to.filter(|key| !key.trim().is_empty());
        let replica = replicate(&world, &source, &under(to)).await;
        let trail = audited(&world).await;
        assert_eq!(trail.get("source_key").and_then(Value::as_str), from);
        assert_eq!(trail.get("target_key").and_then(Value::as_str), wanted);
        let lowered = from.is_some() && wanted.is_none();
        assert_eq!(
            trail.get("protection"),
            lowered.then(|| json!("lowered")).as_ref()
        );

        assert_eq!(replica.cmk_id.as_ref().map(KeyId::as_str), wanted);
        assert_eq!(replica.digests, source.digests);
        let shared = from.is_none() && wanted.is_none();
        assert_eq!(replica.blob == source.blob, shared);
        let answer = download(&world, MEMBER, &replica).await;
        assert_eq!(answer.text.as_bytes(), BYTES);
        let shown = world
            .get(MEMBER, &format!("/v2/images/{}", replica.id))
            .await;
        assert_eq!(
            shown.json().get("__system__cmkid").and_then(Value::as_str),
            wanted
        );

        // It opens by its own key, whatever becomes of the source and of the source's.
        let trail = world.trail();
        let grace = Duration::ZERO;
        world
            .catalog
            .delete_image(&source, grace, trail)
            .await
            .unwrap();
        world.keys.set(S, Some(Wrong::Missing));
        assert_eq!(download(&world, MEMBER, &replica).await.status, 200);
    }
}

#[tokio::test]
async fn a_key_that_cant_be_used_is_refused_with_the_code_of_its_role_before_anything_is_written() {
    let cases = [
        (S, Wrong::Missing, 400, "IMG.0101"),
        (S, Wrong::Disabled, 400, "IMG.0102"),
        (S, Wrong::Throttled, 400, "IMG.0187"),
        (S, Wrong::Away, 503, "IMG.0061"),
        (K, Wrong::Missing, 400, "IMG.0095"),
        (K, Wrong::Disabled, 400, "IMG.0097"),
        (K, Wrong::Throttled, 400, "IMG.0187"),
        (K, Wrong::Away, 503, "IMG.0061"),
    ];
    let world = World::new().await;
    let source = sealed(&world).await;
    for (key, wrong, status, code) in cases {
        world.keys.set(key, Some(wrong));
        let answer = copy(&world, MEMBER, &source, &under(Some(K))).await;
        assert_eq!(
            answer.refusal(),
            (status, code.to_owned()),
            "{key} {wrong:?}"
        );
        let passes = matches!(wrong, Wrong::Throttled | Wrong::Away);
        assert_eq!(answer.headers.contains_key("retry-after"), passes);
        world.keys.set(key, None);
    }
    // The source's fault is told before the target's.
    world.keys.set(S, Some(Wrong::Disabled));
    world.keys.set(K, Some(Wrong::Missing));
    let answer = copy(&world, MEMBER, &source, &under(Some(K))).await;
    assert_eq!(answer.refusal().1, "IMG.0102");
    world.keys.set(S, None);
    world.keys.set(K, None);

    world.keys.own(K.parse().unwrap(), OTHER.parse().unwrap());
    let answer = copy(&world, MEMBER, &source, &under(Some(K))).await;
    assert_eq!(answer.refusal(), (400, "IMG.0099".to_owned()));
    world.keys.own(S.parse().unwrap(), OTHER.parse().unwrap());
    let answer = copy(&world, MEMBER, &source, &under(None)).await;
    assert_eq!(answer.refusal(), (400, "IMG.0103".to_owned()));

    for same in [S.to_owned(), S.to_ascii_uppercase(), format!(" {S} ")] {
        let answer = copy(&world, MEMBER, &source, &under(Some(&same))).await;
        assert_eq!(answer.refusal(), (400, "IMG.0096".to_owned()), "{same}");
    }
    let answer = copy(&world, MEMBER, &source, &under(Some("../key"))).await;
    assert_eq!(answer.refusal(), (400, "IMG.0095".to_owned()));
    let metal = world
        .image(|i| {
            i.cmk_id = Some(S.parse().unwrap());
            let ironic = ("virtual_env_type".to_owned(), "Ironic".to_owned());
            i.properties.extend([ironic]);
        })
        .await;
    let answer = copy(&world, MEMBER, &metal, &under(Some(S))).await;
    assert_eq!(answer.refusal(), (400, "IMG.0118".to_owned()));

    let project = OWN.parse().unwrap();
    let jobs = world
        .catalog
        .list_jobs(&project, None, None, 9)
        .await
        .unwrap();
    assert_eq!(jobs, []);
    assert_eq!(world.catalog.usage(&project).await.unwrap().images, 2);
}

#[tokio::test]
async fn a_granted_key_is_as_good_as_an_own_one_while_the_grant_stands() {
    let world = World::new().await;
    let source = plain(&world).await;
    world.keys.own(K.parse().unwrap(), OTHER.parse().unwrap());
    let (key, user) = (K.parse().unwrap(), "alice".parse().unwrap());
    world.keys.grant(key, user, true);
    let replica = replicate(&world, &source, &under(Some(K))).await;
    assert_eq!(download(&world, MEMBER, &replica).await.status, 200);
    world
        .keys
        .grant(K.parse().unwrap(), "alice".parse().unwrap(), false);
    let answer = download(&world, MEMBER, &replica).await;
    assert_eq!(answer.status, 403, "{}", answer.text);
    let answer = copy(&world, MEMBER, &replica, &under(None)).await;
    assert_eq!(answer.refusal(), (400, "IMG.0103".to_owned()));
}

#[tokio::test]
async fn an_encrypted_image_that_is_shared_is_replicated_only_under_an_own_key_and_with_a_grant() {
    let world = World::new().await;
    let source = shared_and_sealed(&world).await;
    world.keys.own(S.parse().unwrap(), OTHER.parse().unwrap());
    world.keys.own(K.parse().unwrap(), OWN.parse().unwrap());
    for key in [None, Some(""), Some(" ")] {
        let answer = copy(&world, MEMBER, &source, &under(key)).await;
        assert_eq!(answer.refusal(), (400, "IMG.0197".to_owned()));
    }
    let answer = copy(&world, MEMBER, &source, &under(Some(K))).await;
    assert_eq!(answer.refusal(), (400, "IMG.0103".to_owned()));
    assert_eq!(download(&world, MEMBER, &source).await.status, 403);

    let (key, user) = (S.parse().unwrap(), "alice".parse().unwrap());
    world.keys.grant(key, user, true);
    let answer = copy(&world, MEMBER, &source, &under(Some(S))).await;
    assert_eq!(answer.refusal(), (400, "IMG.0096".to_owned()));
    assert_eq!(
        download(&world, MEMBER, &source).await.text.as_bytes(),
        BYTES
    );
    // One that was granted is not the caller's own.
    world.keys.own(K.parse().unwrap(), OTHER.parse().unwrap());
    let (key, user) = (K.parse().unwrap(), "alice".parse().unwrap());
    let answer = copy(&world, MEMBER, &source, &under(Some(K))).await;
    assert_eq!(answer.refusal(), (400, "IMG.0099".to_owned()));
    world.keys.grant(key, user, true);
    let answer = copy(&world, MEMBER, &source, &under(Some(K))).await;
    assert_eq!(answer.refusal(), (400, "IMG.0197".to_owned()));
    world.keys.own(K.parse().unwrap(), OWN.parse().unwrap());
    let replica = replicate(&world, &source, &under(Some(K))).await;
    assert_eq!(replica.owner.as_str(), OWN);
    assert_eq!(
        download(&world, MEMBER, &replica).await.text.as_bytes(),
        BYTES
    );

    let world = World::with(Settings {
        replicate_shared_encrypted: false,
        ..Settings::default()
    })
    .await;
    let source = shared_and_sealed(&world).await;
    let answer = copy(&world, MEMBER, &source, &under(Some(K))).await;
    assert_eq!(answer.refusal(), (400, "IMG.0197".to_owned()));
    let pending = world
        .image(|i| {
            i.owner = OTHER.parse().unwrap();
            i.visibility = Visibility::Shared;
            i.cmk_id = Some(S.parse().unwrap());
        })
        .await;
    world.share(&pending, MemberStatus::Pending).await;
    let answer = copy(&world, MEMBER, &pending, &under(Some(K))).await;
    assert_eq!(answer.refusal(), (400, "IMG.0196".to_owned()));
}

#[tokio::test]
async fn the_safe_mode_asks_for_the_callers_own_permissions_on_keys_too() {
    let world = World::new().await;
    let (plain, sealed) = (plain(&world).await, sealed(&world).await);
    let safely = async |token: &str, source: &Image, key: Option<&str>| {
        let path = format!("/v2.1/cloudimages/{}/copy", source.id);
        world.post(token, &path, &under(key).to_string()).await
    };
    let reader = format!("eve {OWN} reader");
    assert_eq!(safely(&reader, &plain, None).await.refusal().1, "IMG.0026");
    // A role that may replicate and has no rights on keys.
    let copier = format!("eve {OWN} ims-only");
    assert_eq!(safely(&copier, &plain, None).await.status, 200);
    let answer = safely(&copier, &plain, Some(K)).await;
    assert_eq!(answer.refusal(), (400, "IMG.0099".to_owned()));
    let answer = safely(&copier, &sealed, None).await;
    assert_eq!(answer.refusal(), (400, "IMG.0103".to_owned()));
    let plainly = copy(&world, &copier, &plain, &under(Some(K))).await;
    assert_eq!(plainly.status, 200, "as v1 does it: {}", plainly.text);
    for source in [&plain, &sealed] {
        let answer = safely(MEMBER, source, Some(K)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}

#[tokio::test]
async fn an_import_in_safe_mode_asks_for_the_callers_own_permission_on_the_key() {
    let world = World::new().await;
    let ask = async |token: &str, version: &str, path: &str| {
        let path = format!("/{version}/cloudimages/{path}action");
        let mut body = serde_json::json!({
            "name": "n", "image_url": "nowhere:disk", "min_disk": 40, "os_version": "CentOS 7.2 64bit",
        });
        body["cmk_id"] = K.into();
        world.post(token, &path, &body.to_string()).await.refusal()
    };
    let importer = format!("eve {OWN} ims-only");
    // What comes after the key is asked for: there is no bucket here.
    let later = (400, "IMG.0069".to_owned());
    for (path, older) in [("", "v2"), ("quickimport/", "v2"), ("dataimages/", "v1")] {
        let strict = ask(&importer, "v2.1", path).await;
        assert_eq!(strict, (400, "IMG.0099".to_owned()), "{path}");
        assert_eq!(ask(&importer, older, path).await, later, "{path}");
        assert_eq!(ask(MEMBER, "v2.1", path).await, later, "{path}");
        let reader = format!("eve {OWN} reader");
        assert_eq!(ask(&reader, "v2.1", path).await.0, 403, "{path}");
    }
}

#[tokio::test]
async fn a_job_waits_for_a_key_service_that_went_away_and_fails_for_a_key_that_was_closed() {
    let world = World::new().await;
    let source = sealed(&world).await;
    let start = async || {
        let accepted = copy(&world, MEMBER, &source, &under(Some(K))).await;
        accepted.json()["job_id"].as_str().unwrap().to_owned()
    };
    let later = || world.clock.advance(LATER);

    let job = start().await;
    later();
    world.keys.set(S, Some(Wrong::Away));
    let before = world.keys.checked();
    let waits = world
        .work_until(&job, |_| world.keys.checked() > before)
        .await;
    assert_eq!((waits.status, waits.failure), (JobStatus::Running, None));
    later();
    world.keys.set(S, None);
    let ended = world.work_until(&job, |job| job.ended_at.is_some()).await;
    assert_eq!(ended.status, JobStatus::Success);

    for (key, wrong, code) in [
        (S, Wrong::Disabled, "IMG.0102"),
        (S, Wrong::Missing, "IMG.0101"),
        (K, Wrong::Disabled, "IMG.0097"),
        (K, Wrong::Missing, "IMG.0095"),
    ] {
        let job = start().await;
        later();
        world.keys.set(key, Some(wrong));
        let ended = world.work_until(&job, |job| job.ended_at.is_some()).await;
        assert_eq!(ended.status, JobStatus::Fail);
        assert_eq!(ended.failure.unwrap().code.to_string(), code);
        let gone = world
            .catalog
            .image(ended.image.unwrap(), None)
            .await
            .unwrap();
        assert_eq!(gone, None);
        world.keys.set(key, None);
    }
    // The service's own key is never a way out.
    assert_eq!(
        world
            .catalog
            .usage(&OWN.parse().unwrap())
            .await
            .unwrap()
            .images,
        2
    );
}

#[tokio::test]
async fn an_image_whose_key_is_closed_is_withheld_and_comes_back() {
    let world = World::new().await;
    let image = sealed(&world).await;
    for (wrong, status) in [
        (Wrong::Missing, 403),
        (Wrong::Disabled, 403),
        (Wrong::Throttled, 503),
        (Wrong::Away, 503),
    ] {
        world.keys.set(S, Some(wrong));
        let answer = download(&world, MEMBER, &image).await;
        assert_eq!(answer.status, status, "{wrong:?}");
        world.keys.set(S, None);
        assert_eq!(download(&world, MEMBER, &image).await.status, 200);
    }
    world.keys.set(SERVICE, Some(Wrong::Missing));
    assert_eq!(download(&world, MEMBER, &image).await.status, 200);
}

#[tokio::test]
async fn rewrapping_takes_the_operators_leave_and_two_keys_of_the_images_own_project() {
    let rewrap = |key: Option<&str>| {
        let mut body = under(key);
        body["encryption_mode"] = "rewrap".into();
        body
    };
    let world = World::new().await;
    let source = sealed(&world).await;
    let answer = copy(&world, MEMBER, &source, &rewrap(Some(K))).await;
    assert_eq!(
        answer.refusal(),
        (400, "IMG.0001".to_owned()),
        "{}",
        answer.text
    );

    let world = World::with(Settings {
        allow_rewrap: true,
        ..Settings::default()
    })
    .await;
    let (plain, sealed) = (plain(&world).await, sealed(&world).await);
    for (source, key) in [(&plain, None), (&plain, Some(K)), (&sealed, None)] {
        let answer = copy(&world, MEMBER, source, &rewrap(key)).await;
        assert_eq!(answer.refusal(), (400, "IMG.0001".to_owned()));
    }
    let mut body = under(Some(K));
    body["encryption_mode"] = "recipher".into();
    let answer = copy(&world, MEMBER, &sealed, &body).await;
    assert_eq!(answer.refusal(), (400, "IMG.0001".to_owned()));
    world.keys.own(K.parse().unwrap(), OTHER.parse().unwrap());
    let (key, user) = (K.parse().unwrap(), "alice".parse().unwrap());
    world.keys.grant(key, user, true);
    let answer = copy(&world, MEMBER, &sealed, &rewrap(Some(K))).await;
    assert_eq!(
        answer.refusal(),
        (400, "IMG.0001".to_owned()),
        "a granted key"
    );

    world.keys.own(K.parse().unwrap(), OWN.parse().unwrap());
    let replica = replicate(&world, &sealed, &rewrap(Some(K))).await;
    assert_eq!(audited(&world).await["encryption_mode"], "rewrap");
    assert_eq!(replica.blob, sealed.blob, "it shares the bytes");
    assert_eq!(replica.cmk_id.as_ref().unwrap().as_str(), K);
    world.keys.set(S, Some(Wrong::Missing));
    assert_eq!(
        download(&world, MEMBER, &replica).await.text.as_bytes(),
        BYTES
    );
    assert_eq!(download(&world, MEMBER, &sealed).await.status, 403);
    // And from there under the service's own.
    let plain = replicate(&world, &replica, &under(None)).await;
    world.keys.set(K, Some(Wrong::Missing));
    assert_eq!(
        download(&world, MEMBER, &plain).await.text.as_bytes(),
        BYTES
    );
}

#[tokio::test]
async fn a_rewrapped_image_is_verified_by_its_own_wrap_when_the_former_key_is_gone() {
    let world = World::with(Settings {
        allow_rewrap: true,
        ..Settings::default()
    })
    .await;
    let source = sealed(&world).await;
    let mut body = under(Some(K));
    body["encryption_mode"] = "rewrap".into();
    let replica = replicate(&world, &source, &body).await;
    let blob = source.blob.unwrap();
    world.catalog.mark_damaged(blob).await.unwrap();
    world.keys.set(S, Some(Wrong::Missing));
    world.clock.advance(LATER);
    let seen = world.service.verify(true).await.unwrap();
    assert_eq!((seen.blobs_checked, seen.closed), (1, 0));
    assert_eq!(seen.violations, []);
    let replica = image(&world, &replica.id.to_string()).await;
    assert_eq!(replica.damaged_at, None, "every byte was found whole");

    world.keys.set(K, Some(Wrong::Disabled));
    world.clock.advance(LATER);
    let seen = world.service.verify(true).await.unwrap();
    assert_eq!((seen.closed, seen.violations), (1, vec![]));
}

#[tokio::test]
async fn a_rewrap_whose_key_is_closed_meanwhile_fails_with_the_targets_code() {
    for (wrong, code) in [(Wrong::Disabled, "IMG.0097"), (Wrong::Missing, "IMG.0095")] {
        let world = World::with(Settings {
            allow_rewrap: true,
            ..Settings::default()
        })
        .await;
        let source = sealed(&world).await;
        let mut body = under(Some(K));
        body["encryption_mode"] = "rewrap".into();
        let accepted = copy(&world, MEMBER, &source, &body).await;
        let job = accepted.json()["job_id"].as_str().unwrap().to_owned();
        world.keys.set(K, Some(wrong));
        let ended = world.work_until(&job, |job| job.ended_at.is_some()).await;
        assert_eq!(ended.failure.unwrap().code.to_string(), code);
    }
}

#[tokio::test]
async fn who_is_over_a_limit_gives_the_key_service_nothing_to_wrap() {
    let little = Some(ByteSize::new(1));
    let limits = [
        (0, 9, None, "IMG.0015"),
        (9, 0, None, "IMG.0060"),
        (9, 9, little, "IMG.0059"),
    ];
    for (images_per_project, concurrent_replicas, bytes_per_project, code) in limits {
        let mut settings = Settings::default();
        settings.limits.images_per_project = images_per_project;
        settings.limits.concurrent_replicas = concurrent_replicas;
        settings.limits.bytes_per_project = bytes_per_project;
        let world = World::with(settings).await;
        let source = sealed(&world).await;
        let before = world.keys.wrapped();
        let answer = copy(&world, MEMBER, &source, &under(Some(K))).await;
        assert_eq!(answer.refusal(), (400, code.to_owned()));
        assert_eq!(world.keys.wrapped(), before);
    }
}

#[tokio::test]
async fn a_resealed_job_tells_its_bytes_and_keeps_its_plan_to_itself() {
    let world = World::new().await;
    let source = plain(&world).await;
    let accepted = copy(&world, MEMBER, &source, &under(Some(K))).await;
    let job = accepted.json()["job_id"].as_str().unwrap().to_owned();
    let shown = world.get(MEMBER, &format!("/v1/{OWN}/jobs/{job}")).await;
    assert_eq!(shown.json()["calotype"]["bytes_total"], BYTES.len());
    let lease = Duration::from_secs(9);
    let claims = world.catalog.pick_jobs("w", lease, 1).await.unwrap();
    let Work::Replicate(replication) = &claims[0].work else {
        panic!("it replicates");
    };
    let ReplicaBytes::Reseal(plan) = &replication.bytes else {
        panic!("it is resealed");
    };
    let secret = hex::encode(&plan.target_key.sealed);
    let shown = world.get(MEMBER, &format!("/v1/{OWN}/jobs/{job}")).await;
    assert!(!shown.text.contains(&secret));
}
