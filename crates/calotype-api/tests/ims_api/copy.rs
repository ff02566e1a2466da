//! Replication: what is refused, with which code and in which order, and what is made.

use axum::body::Body;
use calotype_core::app::{Limits, Settings};
use calotype_core::image::{Image, ImageStatus, MemberStatus, Visibility};
use calotype_core::ports::{Images as _, Jobs as _, Quotas as _};
use calotype_keys::Wrong;
use http::header;

use crate::harness::{Answer, MEMBER, OTHER, OWN, READER, STRANGER, World, request};

const NAMED: &str = r#"{"name":"replica"}"#;
const ABSENT: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";

async fn copy(world: &World, token: &str, id: &str, body: &str) -> Answer {
    let path = format!("/v1/cloudimages/{id}/copy");
    world.post(token, &path, body).await
}

fn set(image: &mut Image, name: &str, value: &str) {
    image.properties.insert(name.to_owned(), value.to_owned());
}

/// What the tests' project has: its images and its jobs.
async fn holdings(world: &World) -> (u64, usize) {
    let project = OWN.parse().unwrap();
    let usage = world.catalog.usage(&project).await.unwrap();
    let jobs = world.catalog.list_jobs(&project, None, None, 100).await;
    (usage.images, jobs.unwrap().len())
}

async fn assert_refused(world: &World, id: &str, body: &str, status: u16, code: &str) {
    let before = holdings(world).await;
    let answer = copy(world, MEMBER, id, body).await;
    assert_eq!(answer.refusal(), (status, code.to_owned()), "{body}");
    assert_eq!(holdings(world).await, before, "{body}");
}

#[tokio::test]
async fn a_replication_needs_a_credential_and_says_which() {
    let world = World::new().await;
    for token in ["", "nonsense"] {
        let answer = copy(&world, token, "not-an-id", "").await;
        assert_eq!(answer.refusal(), (401, "IMG.0087".to_owned()));
        let challenge = &answer.headers[header::WWW_AUTHENTICATE];
        assert!(challenge.to_str().unwrap().starts_with("Keystone uri="));
    }
}

#[tokio::test]
async fn a_reader_may_not_replicate_whatever_the_body_is() {
    let world = World::new().await;
    let source = world.image(|_| ()).await.id.to_string();
    for (id, body) in [(source.as_str(), NAMED), ("not-an-id", ""), (ABSENT, "{")] {
        let answer = copy(&world, READER, id, body).await;
        assert_eq!(answer.refusal(), (403, "IMG.0026".to_owned()));
    }
    assert_eq!(holdings(&world).await, (1, 0));
}

#[tokio::test]
async fn headers_that_a_proxy_would_set_give_no_rights() {
    let world = World::new().await;
    let source = world.image(|_| ()).await.id;
    let path = format!("/v1/cloudimages/{source}/copy");
    let mut request = request("POST", READER, &path, Body::from(NAMED));
    for (name, value) in [
        ("x-roles", "admin"),
        ("x-project-id", OTHER),
        ("x-identity-status", "Confirmed"),
        ("x-is-admin-project", "True"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    assert_eq!(world.send(request).await.refusal().1, "IMG.0026");
}

#[tokio::test]
async fn each_check_comes_before_the_next() {
    let world = World::new().await;
    let cases = [
        ("not-an-id", "", 400, "IMG.0007"),
        ("not-an-id", "[]", 400, "IMG.0001"),
        ("not-an-id", r#"{"name":1}"#, 400, "IMG.0001"),
        (
            "not-an-id",
            r#"{"name":"ok","description":[]}"#,
            400,
            "IMG.0001",
        ),
        ("not-an-id", r#"{"name":"ok","cmk_id":{}}"#, 400, "IMG.0001"),
        (
            "not-an-id",
            r#"{"enterprise_project_id":0}"#,
            400,
            "IMG.0001",
        ),
        ("not-an-id", "{}", 400, "IMG.0066"),
        ("%ff", "{}", 400, "IMG.0066"),
        (ABSENT, "{}", 400, "IMG.0013"),
        (ABSENT, r#"{"name":null}"#, 400, "IMG.0013"),
        (ABSENT, r#"{"name":""}"#, 400, "IMG.0013"),
        (
            ABSENT,
            r#"{"name":" a","description":"<"}"#,
            400,
            "IMG.0003",
        ),
        (
            ABSENT,
            r#"{"name":"a","description":"a<b"}"#,
            400,
            "IMG.0054",
        ),
        (ABSENT, NAMED, 404, "IMG.0027"),
    ];
    for (id, body, status, code) in cases {
        assert_refused(&world, id, body, status, code).await;
    }
    let long_name = format!(r#"{{"name":"{}"}}"#, "x".repeat(129));
    assert_refused(&world, ABSENT, &long_name, 400, "IMG.0002").await;
    let long_text = format!(r#"{{"name":"a","description":"{}"}}"#, "x".repeat(1025));
    assert_refused(&world, ABSENT, &long_text, 400, "IMG.0004").await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_malformed_request() {
    let world = World::new().await;
    let body = format!(r#"{{"name":"a","more":"{}"}}"#, "x".repeat(5000));
    assert_refused(&world, ABSENT, &body, 400, "IMG.0001").await;
}

#[tokio::test]
async fn every_relation_kind_and_state_that_bars_a_source_has_its_code() {
    let world = World::new().await;
    type Change = fn(&mut Image);
    let cases: [(Change, Option<MemberStatus>, u16, &str); 12] = [
        (|i| i.owner = OTHER.parse().unwrap(), None, 404, "IMG.0027"),
        (
            |i| {
                i.owner = OTHER.parse().unwrap();
                i.visibility = Visibility::Public;
            },
            None,
            400,
            "IMG.0083",
        ),
        (|i| i.visibility = Visibility::Public, None, 400, "IMG.0083"),
        (foreign_shared, Some(MemberStatus::Pending), 400, "IMG.0196"),
        (
            foreign_shared,
            Some(MemberStatus::Rejected),
            400,
            "IMG.0196",
        ),
        (
            |i| {
                foreign_shared(i);
                i.cmk_id = Some("key-1".parse().unwrap());
            },
            Some(MemberStatus::Accepted),
            400,
            "IMG.0197",
        ),
        (|i| set(i, "__whole_image", "true"), None, 400, "IMG.0130"),
        (
            |i| set(i, "virtual_env_type", "IsoImage"),
            None,
            400,
            "IMG.0167",
        ),
        (|i| i.status = ImageStatus::Queued, None, 400, "IMG.0046"),
        (|i| i.status = ImageStatus::Saving, None, 400, "IMG.0046"),
        // The lasting reason comes before the passing one.
        (
            |i| {
                i.status = ImageStatus::Queued;
                set(i, "__whole_image", "true");
                set(i, "virtual_env_type", "IsoImage");
            },
            None,
            400,
            "IMG.0130",
        ),
        (
            |i| {
                i.status = ImageStatus::Queued;
                set(i, "virtual_env_type", "IsoImage");
            },
            None,
            400,
            "IMG.0167",
        ),
    ];
    for (at, (change, membership, status, code)) in cases.into_iter().enumerate() {
        let source = world.image(change).await;
        if let Some(membership) = membership {
            world.share(&source, membership).await;
        }
        let before = holdings(&world).await;
        let answer = copy(&world, MEMBER, &source.id.to_string(), NAMED).await;
        assert_eq!(answer.refusal(), (status, code.to_owned()), "case {at}");
        assert_eq!(holdings(&world).await, before, "case {at}");
    }
}

fn foreign_shared(image: &mut Image) {
    image.owner = OTHER.parse().unwrap();
    image.visibility = Visibility::Shared;
}

#[tokio::test]
async fn keys_and_enterprise_projects_that_do_not_exist_are_refused() {
    let world = World::new().await;
    let plain = world.image(|_| ()).await.id.to_string();
    let metal = world.image(|i| set(i, "virtual_env_type", "Ironic")).await;
    world.keys.set(ABSENT, Some(Wrong::Missing));
    let keyed = r#"{"name":"a","cmk_id":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"}"#;
    assert_refused(&world, &plain, keyed, 400, "IMG.0095").await;
    let malformed = r#"{"name":"a","cmk_id":"../key"}"#;
    assert_refused(&world, &plain, malformed, 400, "IMG.0095").await;
    assert_refused(&world, &metal.id.to_string(), keyed, 400, "IMG.0118").await;
    for project in ["nonsense", ABSENT] {
        let body = format!(r#"{{"name":"a","enterprise_project_id":"{project}"}}"#);
        assert_refused(&world, &plain, &body, 400, "IMG.0155").await;
    }
}

#[tokio::test]
async fn limits_refuse_what_is_over_them() {
    let limits = |change: fn(&mut Limits)| {
        let mut settings = Settings::default();
        change(&mut settings.limits);
        settings
    };
    let cases = [
        (limits(|l| l.images_per_project = 1), "IMG.0015"),
        (limits(|l| l.concurrent_replicas = 0), "IMG.0060"),
        (
            limits(|l| l.max_replica_size = Some(calotype_core::size::ByteSize::new(4))),
            "IMG.0059",
        ),
    ];
    for (settings, code) in cases {
        let world = World::with(settings).await;
        let source = world.image(|_| ()).await.id.to_string();
        assert_refused(&world, &source, NAMED, 400, code).await;
    }
}

#[tokio::test]
async fn unknown_fields_and_nulls_are_passed_over() {
    let world = World::new().await;
    let source = world.image(|_| ()).await.id.to_string();
    let body = r#"{"name":"a b","description":null,"cmk_id":"","enterprise_project_id":"","tags":1,"x":{}}"#;
    let answer = copy(&world, MEMBER, &source, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let job = answer.json()["job_id"].as_str().unwrap().to_owned();
    assert_eq!(answer.text, format!(r#"{{"job_id":"{job}"}}"#));
    assert_eq!((job.len(), holdings(&world).await), (32, (2, 1)));
}

#[tokio::test]
async fn a_replica_has_the_sources_bytes_and_only_the_attributes_that_replicas_inherit() {
    let world = World::new().await;
    let source = world
        .image(|i| {
            i.tags = vec!["env=dev".to_owned()];
            i.protected = true;
            i.min_ram = 512;
            for (name, value) in [
                ("__os_type", "Linux"),
                ("hw_firmware_type", "uefi"),
                ("custom", "kept"),
                ("__description", "the source's"),
                ("__originalimagename", "the source's"),
                ("__system__enableam", "x"),
                ("__backup_id", "x"),
            ] {
                set(i, name, value);
            }
        })
        .await;
    let body = r#"{"name":"replica","description":"nightly"}"#;
    let answer = copy(&world, MEMBER, &source.id.to_string(), body).await;
    let job = answer.json()["job_id"].as_str().unwrap().to_owned();
    world.work_until_ended(&job).await;

    let shown = world
        .get(MEMBER, &format!("/v1/{OWN}/jobs/{job}"))
        .await
        .json();
    assert_eq!(shown["status"], "SUCCESS", "{shown}");
    let id = shown["entities"]["image_id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let replica = world.catalog.image(id, None).await.unwrap().unwrap().image;
    assert_ne!(replica.id, source.id);
    assert_eq!(replica.name.as_deref(), Some("replica"));
    assert_eq!(replica.status, ImageStatus::Active);
    assert_eq!(replica.visibility, Visibility::Private);
    assert_eq!(replica.owner.as_str(), OWN);
    assert_eq!((replica.size, replica.blob), (source.size, source.blob));
    assert_eq!(replica.digests, source.digests);
    assert_eq!(replica.disk_format, source.disk_format);
    assert_eq!((replica.min_disk, replica.min_ram), (1, 512));
    assert!(!replica.protected && replica.tags.is_empty());
    let expected = [
        ("__data_origin", format!("image,calotype,{}", source.id)),
        ("__description", "nightly".to_owned()),
        ("__originalimagename", source.id.to_string()),
        ("__os_type", "Linux".to_owned()),
        ("custom", "kept".to_owned()),
        ("hw_firmware_type", "uefi".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    assert_eq!(replica.properties, expected.into());
}

#[tokio::test]
async fn a_shared_image_that_was_accepted_becomes_the_recipients_own() {
    let world = World::new().await;
    let source = world.image(foreign_shared).await;
    world.share(&source, MemberStatus::Accepted).await;
    let answer = copy(&world, MEMBER, &source.id.to_string(), NAMED).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(holdings(&world).await, (1, 1));
}

async fn copy_once(world: &World, token: &str, id: &str, key: &str, body: &str) -> Answer {
    let path = format!("/v1/cloudimages/{id}/copy");
    let mut request = request("POST", token, &path, Body::from(body.to_owned()));
    let headers = request.headers_mut();
    headers.insert("idempotency-key", key.parse().unwrap());
    world.send(request).await
}

#[tokio::test]
async fn the_same_idempotency_key_gives_the_same_job() {
    let world = World::new().await;
    let source = world.image(|_| ()).await.id.to_string();
    let first = copy_once(&world, MEMBER, &source, "k", NAMED).await;
    let again = copy_once(&world, MEMBER, &source, "k", NAMED).await;
    assert_eq!((first.status, &first.text), (again.status, &again.text));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(holdings(&world).await, (2, 1));
    let other = copy_once(&world, MEMBER, &source, "k", r#"{"name":"other"}"#).await;
    assert_eq!(other.status, 409);
    let next = copy_once(&world, MEMBER, &source, "k2", NAMED).await;
    assert_ne!(next.text, first.text);
    assert_eq!(holdings(&world).await, (3, 2));
}

#[tokio::test]
async fn a_key_is_judged_after_the_permission_and_is_the_callers_own() {
    let world = World::new().await;
    let source = world
        .image(|i| i.visibility = Visibility::Community)
        .await
        .id
        .to_string();
    let long = "k".repeat(300);
    let refused = copy_once(&world, READER, &source, &long, NAMED).await;
    assert_eq!(refused.refusal().1, "IMG.0026");
    let malformed = copy_once(&world, MEMBER, &source, &long, NAMED).await;
    assert_eq!(malformed.refusal().1, "IMG.0001");
    let own = copy_once(&world, MEMBER, &source, "k", NAMED).await;
    assert_eq!(own.status, 200);
    let foreign = copy_once(&world, STRANGER, &source, "k", NAMED).await;
    assert_eq!(foreign.refusal().1, "IMG.0083");
}

#[tokio::test]
async fn a_refusal_is_not_kept_under_its_key() {
    let world = World::new().await;
    let source = world.image(|i| i.status = ImageStatus::Queued).await;
    let id = source.id.to_string();
    let refused = copy_once(&world, MEMBER, &id, "k", NAMED).await;
    assert_eq!(refused.refusal().1, "IMG.0046");
    let ready = world.image(|_| ()).await.id.to_string();
    let accepted = copy_once(&world, MEMBER, &ready, "k", NAMED).await;
    assert_eq!(accepted.status, 200);
}
