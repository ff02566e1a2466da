//! Images, uploads, members, trail.

use std::time::Duration;

use calotype_core::ErrorKind;
use calotype_core::codes::ImsCode;
use calotype_core::id::EnterpriseProjectId;
use calotype_core::image::{Image, ImageStatus, Member, MemberStatus, Visibility};
use calotype_core::ports::{
    ByteLimit, Directory as _, EnterpriseProject, ImageLimit, Images as _, Ledger as _,
    Quotas as _, Reservation, RoleRecord, StoredAnswer, Trail, Usage,
};
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;

use crate::world::{
    DAY, LEASE, NO_LIMIT, World, assert_kind, at_most, event, facts, project, trail,
};

pub(crate) async fn an_image_comes_back_as_it_was_written(world: World) {
    let mut image = world.image("p1");
    image
        .properties
        .insert("__os_type".to_owned(), "Linux".to_owned());
    image
        .properties
        .insert("ä' or 1=1 --".to_owned(), String::new());
    let texts = [
        r#"{"a": [1, null]}"#,
        r#"\\" \u0041 / </script>"#,
        "line\nbreak\ttab\u{1}\u{7f}\u{2028}\u{feff}🖼",
        "null",
        "[]",
        "1",
    ];
    for text in texts {
        image.properties.insert(text.to_owned(), text.to_owned());
    }
    image.name = Some(texts.concat());
    image.size = Some(ByteSize::new(i64::MAX.cast_unsigned()));
    image.tags = vec!["a".to_owned(), "b'".to_owned(), r#"{"c\"#.to_owned()];
    image.cmk_id = Some("key-1".parse().unwrap());
    world.insert(&image).await;
    assert_eq!(world.get(image.id).await, image);
    let nameless = Image {
        name: None,
        disk_format: None,
        container_format: None,
        ..world.image("p1")
    };
    world.insert(&nameless).await;
    assert_eq!(world.get(nameless.id).await, nameless);
    world.assert_sound().await;
}

pub(crate) async fn an_id_is_never_used_again(world: World) {
    let image = world.image("p1");
    world.insert(&image).await;
    let again = world.catalog.insert_image(&image, NO_LIMIT, trail()).await;
    assert_kind(again, ErrorKind::Conflict);
    world
        .catalog
        .delete_image(&image, Duration::ZERO, trail())
        .await
        .unwrap();
    assert_eq!(world.find(image.id).await, None);
    let again = world.catalog.insert_image(&image, NO_LIMIT, trail()).await;
    assert_kind(again, ErrorKind::Conflict);
    let gone = world
        .catalog
        .delete_image(&image, Duration::ZERO, trail())
        .await;
    assert_kind(gone, ErrorKind::NotFound);
    assert_eq!(
        world.catalog.usage(&project("p1")).await.unwrap(),
        Usage::default()
    );
    world.assert_sound().await;
}

pub(crate) async fn an_update_of_a_stale_record_is_refused_and_changes_nothing(world: World) {
    let mut image = world.image("p1");
    image.tags = vec!["old".to_owned()];
    world.insert(&image).await;
    let mut wanted = image.clone();
    wanted.name = Some("new".to_owned());
    wanted.tags = vec!["new".to_owned()];
    wanted.visibility = Visibility::Public;
    wanted.properties.insert("k".to_owned(), "v".to_owned());
    // What an update does not write stays as it is.
    wanted.status = ImageStatus::Active;
    wanted.owner = project("p2");
    wanted.size = Some(ByteSize::new(1));
    let after = world.catalog.update_image(&wanted, trail()).await.unwrap();
    let expected = Image {
        owner: image.owner.clone(),
        status: image.status,
        size: None,
        version: 2,
        updated_at: trail().event.at,
        ..wanted.clone()
    };
    assert_eq!(after, expected);
    assert_eq!(world.get(image.id).await, expected);
    let stale = world.catalog.update_image(&image, trail()).await;
    assert_kind(stale, ErrorKind::Conflict);
    let stale = world
        .catalog
        .delete_image(&image, Duration::ZERO, trail())
        .await;
    assert_kind(stale, ErrorKind::Conflict);
    assert_eq!(world.get(image.id).await, expected);
    let never = world
        .catalog
        .update_image(&world.image("p1"), trail())
        .await;
    assert_kind(never, ErrorKind::NotFound);

    let active = world.active("p1", 10).await;
    let off = Image {
        status: ImageStatus::Deactivated,
        ..active
    };
    let off = world.catalog.update_image(&off, trail()).await.unwrap();
    assert_eq!(off.status, ImageStatus::Deactivated);
    let queued = Image {
        status: ImageStatus::Queued,
        ..off
    };
    let still = world.catalog.update_image(&queued, trail()).await.unwrap();
    assert_eq!(still.status, ImageStatus::Deactivated);
    world.assert_sound().await;
}

pub(crate) async fn usage_follows_the_images_and_never_passes_the_limit(world: World) {
    let limit = ImageLimit(2);
    let image = world.active("p1", 100).await;
    world
        .catalog
        .insert_image(&world.image("p1"), limit, trail())
        .await
        .unwrap();
    let over = world
        .catalog
        .insert_image(&world.image("p1"), limit, trail())
        .await;
    assert_eq!(over.unwrap_err().code(), Some(ImsCode::IMG_0015));
    world
        .catalog
        .insert_image(&world.image("p2"), limit, trail())
        .await
        .unwrap();
    let usage = |images, bytes| Usage {
        images,
        bytes: ByteSize::new(bytes),
        blob_bytes: ByteSize::new(bytes),
        reserved: ByteSize::ZERO,
    };
    assert_eq!(
        world.catalog.usage(&project("p1")).await.unwrap(),
        usage(2, 100)
    );
    world
        .catalog
        .delete_image(&image, Duration::ZERO, trail())
        .await
        .unwrap();
    assert_eq!(
        world.catalog.usage(&project("p1")).await.unwrap(),
        usage(1, 0)
    );
    world
        .catalog
        .insert_image(&world.image("p1"), limit, trail())
        .await
        .unwrap();
    world.assert_sound().await;
}

pub(crate) fn answer(key: &str) -> StoredAnswer {
    StoredAnswer {
        scope: "u1 p1 POST /v2/images".to_owned(),
        key: key.to_owned(),
        fingerprint: "f1".to_owned(),
        status: 201,
        body: "{}".to_owned(),
        location: None,
        // Younger than what both engines' clocks forget.
        created_at: Timestamp::from_micros(4_000_000_000_000_000),
    }
}

pub(crate) fn trail_with_answer(key: &str) -> Trail {
    Trail {
        event: event("createImage"),
        answer: Some(answer(key)),
    }
}

pub(crate) async fn an_idempotency_key_is_taken_once(world: World) {
    let (first, second) = (world.image("p1"), world.image("p1"));
    let scope = answer("k1").scope;
    assert_eq!(world.catalog.answer(&scope, "k1").await.unwrap(), None);
    world
        .catalog
        .insert_image(&first, NO_LIMIT, trail_with_answer("k1"))
        .await
        .unwrap();
    let taken = world
        .catalog
        .insert_image(&second, NO_LIMIT, trail_with_answer("k1"))
        .await;
    assert_kind(taken, ErrorKind::Conflict);
    assert_eq!(world.find(second.id).await, None);
    assert_eq!(
        world.catalog.answer(&scope, "k1").await.unwrap(),
        Some(answer("k1"))
    );
    world
        .catalog
        .insert_image(&second, NO_LIMIT, trail_with_answer("k2"))
        .await
        .unwrap();
    assert_eq!(
        world
            .catalog
            .audit_trail(None, None, 10)
            .await
            .unwrap()
            .len(),
        2
    );
    world.assert_sound().await;
}

pub(crate) async fn members_are_counted_answered_and_removed(world: World) {
    let image = world.image("p1");
    world.insert(&image).await;
    let member = |name: &str| Member {
        image: image.id,
        project: project(name),
        status: MemberStatus::Pending,
        created_at: image.created_at,
        updated_at: image.created_at,
    };
    let catalog = &world.catalog;
    catalog
        .add_member(&member("m2"), at_most(2), trail())
        .await
        .unwrap();
    catalog
        .add_member(&member("m1"), at_most(2), trail())
        .await
        .unwrap();
    let accepted = MemberStatus::Accepted;
    let set = catalog
        .set_member_status(image.id, &project("m1"), accepted, trail())
        .await;
    assert_eq!(set.unwrap().unwrap().status, accepted);
    assert_kind(
        catalog.add_member(&member("m1"), at_most(2), trail()).await,
        ErrorKind::Conflict,
    );
    let full = catalog.add_member(&member("m3"), at_most(2), trail()).await;
    assert_eq!(full.unwrap_err().code(), Some(ImsCode::IMG_0088));
    let set = catalog
        .set_member_status(image.id, &project("m3"), accepted, trail())
        .await;
    assert_eq!(set.unwrap(), None);
    let names: Vec<(String, MemberStatus)> = catalog
        .members(image.id)
        .await
        .unwrap()
        .into_iter()
        .map(|member| (member.project.to_string(), member.status))
        .collect();
    let expected = [
        ("m1".to_owned(), accepted),
        ("m2".to_owned(), MemberStatus::Pending),
    ];
    assert_eq!(names, expected);
    let seen = catalog
        .image(image.id, Some(&project("m1")))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(seen.membership, Some(accepted));
    let seen = catalog
        .image(image.id, Some(&project("m3")))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(seen.membership, None);
    assert_eq!(world.get(image.id).await.visibility, Visibility::Shared);
    let remove = async |name: &str, emptied| {
        let member = project(name);
        let removed = catalog.remove_member(image.id, &member, emptied, trail());
        removed.await.unwrap()
    };
    assert!(remove("m1", Visibility::Private).await);
    assert!(!remove("m1", Visibility::Private).await);
    assert_eq!(world.get(image.id).await.visibility, Visibility::Shared);
    assert!(remove("m2", Visibility::Private).await);
    assert_eq!(world.get(image.id).await.visibility, Visibility::Private);
    let again = member("m2");
    let added = catalog.add_member(&again, at_most(2), trail());
    added.await.unwrap();
    assert!(remove("m2", Visibility::Shared).await);
    assert_eq!(world.get(image.id).await.visibility, Visibility::Shared);
    let orphan = Member {
        image: world.image("p1").id,
        ..member("m1")
    };
    assert_kind(
        catalog.add_member(&orphan, at_most(9), trail()).await,
        ErrorKind::NotFound,
    );
    catalog
        .delete_image(&world.get(image.id).await, Duration::ZERO, trail())
        .await
        .unwrap();
    assert_eq!(catalog.members(image.id).await.unwrap(), []);
}

pub(crate) async fn an_upload_makes_the_image_active_once(world: World) {
    let image = world.image("p1");
    world.insert(&image).await;
    let (blob, other) = (world.blob_id(), world.blob_id());
    let catalog = &world.catalog;
    // What the image says at the beginning is what its bytes are judged by: as changed after it was read.
    let changed = Image {
        disk_format: Some("raw".to_owned()),
        ..image.clone()
    };
    catalog.update_image(&changed, trail()).await.unwrap();
    let (begun, _) = catalog
        .begin_upload(image.id, blob, LEASE, Reservation::NONE)
        .await
        .unwrap();
    assert_eq!(begun.disk_format.as_deref(), Some("raw"));
    assert_eq!(begun.status, ImageStatus::Saving);
    assert_eq!(world.get(image.id).await, begun);
    assert_kind(
        catalog
            .begin_upload(image.id, other, LEASE, Reservation::NONE)
            .await,
        ErrorKind::Conflict,
    );
    assert!(catalog.extend_upload(blob, LEASE).await.unwrap());
    assert!(!catalog.extend_upload(other, LEASE).await.unwrap());
    let foreign = catalog
        .finish_upload(image.id, other, &facts(1), None, ByteLimit::NONE, trail())
        .await;
    assert_kind(foreign, ErrorKind::Conflict);
    let done = catalog
        .finish_upload(image.id, blob, &facts(77), None, ByteLimit::NONE, trail())
        .await
        .unwrap();
    assert_eq!(done.status, ImageStatus::Active);
    assert_eq!(
        (done.size, done.blob),
        (Some(ByteSize::new(77)), Some(blob))
    );
    assert_eq!(done.digests, facts(77).digests);
    assert_eq!(done.active_at, Some(trail().event.at));
    assert_eq!(world.get(image.id).await, done);
    let twice = catalog
        .finish_upload(image.id, blob, &facts(78), None, ByteLimit::NONE, trail())
        .await;
    assert_kind(twice, ErrorKind::Conflict);
    // Whoever would end it now must know that the bytes are an image's.
    assert!(!catalog.abort_upload(image.id, blob).await.unwrap());
    assert_eq!(world.get(image.id).await, done);
    assert_kind(
        catalog
            .begin_upload(image.id, other, LEASE, Reservation::NONE)
            .await,
        ErrorKind::Conflict,
    );
    world.assert_sound().await;
}

pub(crate) async fn an_aborted_upload_leaves_a_queued_image(world: World) {
    let image = world.image("p1");
    world.insert(&image).await;
    let (blob, next) = (world.blob_id(), world.blob_id());
    world
        .catalog
        .begin_upload(image.id, blob, LEASE, Reservation::NONE)
        .await
        .unwrap();
    assert!(world.catalog.abort_upload(image.id, blob).await.unwrap());
    assert!(!world.catalog.abort_upload(image.id, blob).await.unwrap());
    assert_eq!(world.get(image.id).await.status, ImageStatus::Queued);
    assert!(!world.catalog.extend_upload(blob, LEASE).await.unwrap());
    let late = world
        .catalog
        .finish_upload(image.id, blob, &facts(1), None, ByteLimit::NONE, trail())
        .await;
    assert_kind(late, ErrorKind::Conflict);
    world
        .catalog
        .begin_upload(image.id, next, LEASE, Reservation::NONE)
        .await
        .unwrap();
    world
        .catalog
        .finish_upload(image.id, next, &facts(1), None, ByteLimit::NONE, trail())
        .await
        .unwrap();
    world.assert_sound().await;
}

pub(crate) async fn an_upload_whose_image_was_deleted_is_gone(world: World) {
    let image = world.image("p1");
    world.insert(&image).await;
    let blob = world.blob_id();
    world
        .catalog
        .begin_upload(image.id, blob, LEASE, Reservation::NONE)
        .await
        .unwrap();
    let saving = world.get(image.id).await;
    world
        .catalog
        .delete_image(&saving, Duration::ZERO, trail())
        .await
        .unwrap();
    assert!(!world.catalog.extend_upload(blob, LEASE).await.unwrap());
    let late = world
        .catalog
        .finish_upload(image.id, blob, &facts(1), None, ByteLimit::NONE, trail())
        .await;
    assert_kind(late, ErrorKind::Gone);
    world.catalog.abort_upload(image.id, blob).await.unwrap();
    world.assert_sound().await;
}

pub(crate) async fn the_audit_trail_is_read_backwards(world: World) {
    for trace in ["one", "two", "three"] {
        let role = RoleRecord {
            id: trace.parse().unwrap(),
            name: trace.to_owned(),
        };
        let line = event(trace);
        let inserted = world.catalog.insert_role(&role, Some(&line));
        inserted.await.unwrap();
    }
    let page = world
        .catalog
        .audit_trail(Some(&project("p1")), None, 2)
        .await
        .unwrap();
    let traces: Vec<&str> = page.iter().map(|(_, event)| event.trace.as_str()).collect();
    assert_eq!(traces, ["three", "two"]);
    let rest = world
        .catalog
        .audit_trail(None, Some(page[1].0), 9)
        .await
        .unwrap();
    assert_eq!(rest[0].1, event("one"));
    assert_eq!(
        world
            .catalog
            .audit_trail(Some(&project("p2")), None, 9)
            .await
            .unwrap(),
        []
    );
}

pub(crate) async fn enterprise_projects_are_made_and_disabled(world: World) {
    let id = EnterpriseProjectId::Id(uuid::Uuid::from_u128(9));
    let made = EnterpriseProject {
        id,
        name: "research".to_owned(),
        enabled: true,
        created_at: Timestamp::from_micros(DAY),
    };
    let catalog = &world.catalog;
    let line = event("change");
    let inserted = catalog.insert_enterprise_project(&made, trail()).await;
    inserted.unwrap();
    let same_name = EnterpriseProject {
        id: EnterpriseProjectId::Id(uuid::Uuid::from_u128(10)),
        ..made.clone()
    };
    assert_kind(
        catalog.insert_enterprise_project(&same_name, trail()).await,
        ErrorKind::Conflict,
    );
    assert_eq!(catalog.enterprise_project(id).await.unwrap(), Some(made));
    assert!(
        catalog
            .set_enterprise_project_enabled(id, false, &line)
            .await
            .unwrap()
    );
    assert!(
        !catalog
            .enterprise_project(id)
            .await
            .unwrap()
            .unwrap()
            .enabled
    );
    assert!(
        !catalog
            .set_enterprise_project_enabled(same_name.id, false, &line)
            .await
            .unwrap()
    );
    let default = EnterpriseProjectId::Default;
    assert!(
        catalog
            .enterprise_project(default)
            .await
            .unwrap()
            .unwrap()
            .enabled
    );
    let refused = catalog.set_enterprise_project_enabled(default, false, &line);
    assert_kind(refused.await, ErrorKind::Conflict);
    assert_eq!(catalog.enterprise_projects().await.unwrap().len(), 2);
    // A line for each of the two changes, and none for what was refused.
    assert_eq!(catalog.audit_trail(None, None, 9).await.unwrap().len(), 2);
}
