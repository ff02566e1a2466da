//! The lists of both APIs.

use std::collections::BTreeMap;
use std::time::Duration;

use calotype_core::image::{Image, ImageStatus, MemberStatus, Visibility};
use serde_json::Value;

use crate::harness::{Answer, MEMBER, OTHER, OWN, World};

fn names(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = answer.json();
    let images = body["images"].as_array().unwrap().iter();
    images
        .map(|image| image["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Images with these names, each a second younger than the one before.
async fn populate(world: &World) {
    let named = async |name: &str, change: fn(&mut calotype_core::image::Image)| {
        let image = world
            .image(|image| {
                image.name = Some(name.to_owned());
                change(image);
            })
            .await;
        world.clock.advance(Duration::from_secs(1));
        image
    };
    named("plain", |_| ()).await;
    named("tagged, with comma", |i| {
        i.tags = vec!["a".to_owned(), "b=c".to_owned()];
        i.disk_format = Some("raw".to_owned());
    })
    .await;
    named("waiting", |i| i.status = ImageStatus::Queued).await;
    named("hidden", |i| i.hidden = true).await;
    named("data", |i| {
        i.properties
            .insert("virtual_env_type".to_owned(), "DataImage".to_owned());
        i.min_disk = 40;
    })
    .await;
    named("gold", |i| {
        i.owner = OTHER.parse().unwrap();
        i.visibility = Visibility::Public;
        i.protected = true;
    })
    .await;
    named("foreign", |i| i.owner = OTHER.parse().unwrap()).await;
    named("community", |i| {
        i.owner = OTHER.parse().unwrap();
        i.visibility = Visibility::Community;
    })
    .await;
    for (name, status) in [
        ("accepted", MemberStatus::Accepted),
        ("pending", MemberStatus::Pending),
    ] {
        let shared = named(name, |i| {
            i.owner = OTHER.parse().unwrap();
            i.visibility = Visibility::Shared;
        })
        .await;
        world.share(&shared, status).await;
    }
}

#[tokio::test]
async fn each_filter_finds_what_it_says_on_both_lists() {
    let world = World::new().await;
    populate(&world).await;
    let everything = [
        "accepted",
        "data",
        "gold",
        "plain",
        "tagged, with comma",
        "waiting",
    ];
    let cases: [(&str, &[&str]); 19] = [
        ("", &everything),
        ("name=plain", &["plain"]),
        ("name=Plain", &[]),
        ("status=queued", &["waiting"]),
        ("status=deleted", &[]),
        ("tag=a&tag=b%3Dc", &["tagged, with comma"]),
        ("tag=a&tag=x", &[]),
        ("disk_format=raw", &["tagged, with comma"]),
        ("min_disk=40", &["data"]),
        ("protected=true", &["gold"]),
        ("visibility=public", &["gold"]),
        (
            "__imagetype=gold&visibility=public&protected=true",
            &["gold"],
        ),
        ("visibility=shared", &["accepted"]),
        ("visibility=shared&member_status=pending", &["pending"]),
        (
            "__imagetype=private",
            &["data", "plain", "tagged, with comma", "waiting"],
        ),
        ("virtual_env_type=DataImage", &["data"]),
        (
            "virtual_env_type=FusionCompute",
            &["accepted", "gold", "plain", "tagged, with comma", "waiting"],
        ),
        ("os_hidden=true", &["hidden"]),
        ("__whole_image=true", &[]),
    ];
    for (query, expected) in cases {
        for list in ["/v2/images", "/v2/cloudimages"] {
            let mut found = names(&world.get(MEMBER, &format!("{list}?{query}")).await);
            found.sort();
            assert_eq!(found, expected, "{list}?{query}");
        }
    }
}

#[tokio::test]
async fn each_attribute_that_is_a_filter_finds_the_image_that_has_it() {
    let world = World::new().await;
    let attributes = [
        ("__os_bit", "64"),
        ("__os_type", "Linux"),
        ("__platform", "CentOS"),
        ("__support_kvm", "true"),
        ("__support_xen", "true"),
        ("__support_largememory", "true"),
        ("__support_diskintensive", "true"),
        ("__support_highperformance", "true"),
        ("__support_xen_gpu_type", "M60_vGPU"),
        ("__support_kvm_gpu_type", "P100"),
        ("__support_xen_hana", "true"),
        ("__support_kvm_infiniband", "true"),
    ];
    world
        .image(|image| image.name = Some("without".to_owned()))
        .await;
    for (name, value) in attributes {
        let has = |image: &mut Image| {
            image.name = Some(name.to_owned());
            image.properties = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        };
        world.image(has).await;
    }
    for (name, value) in attributes {
        for list in ["/v2/images", "/v2/cloudimages"] {
            let found = names(&world.get(MEMBER, &format!("{list}?{name}={value}")).await);
            assert_eq!(found, [name], "{list}");
            let none = names(&world.get(MEMBER, &format!("{list}?{name}=other")).await);
            assert_eq!(none, [""; 0], "{list} {name}");
        }
    }
}

#[tokio::test]
async fn owner_and_all_and_lists_of_names_work_as_in_glance() {
    let world = World::new().await;
    populate(&world).await;
    let cases: [(String, &[&str]); 4] = [
        (
            format!("owner={OWN}&sort_key=name&sort_dir=asc"),
            &["data", "plain", "tagged, with comma", "waiting"],
        ),
        ("visibility=community".to_owned(), &["community"]),
        (
            "name=in:%22tagged,+with+comma%22,plain&sort=name:desc".to_owned(),
            &["tagged, with comma", "plain"],
        ),
        (
            "created_at=lt:2024-01-02T03:04:07Z&sort=created_at:asc".to_owned(),
            &["plain", "tagged, with comma"],
        ),
    ];
    for (query, expected) in cases {
        let found = names(&world.get(MEMBER, &format!("/v2/images?{query}")).await);
        assert_eq!(found, expected, "{query}");
    }
}

#[tokio::test]
async fn an_image_is_found_by_the_time_that_it_shows() {
    let world = World::new().await;
    let image = world.image(|_| ()).await;
    let shown = image.created_at.to_seconds();
    for (operator, found) in [("eq", 1), ("gte", 1), ("lte", 1), ("gt", 0), ("lt", 0)] {
        for list in ["/v2/images", "/v2/cloudimages"] {
            let path = format!("{list}?created_at={operator}:{shown}");
            assert_eq!(
                names(&world.get(MEMBER, &path).await).len(),
                found,
                "{path}"
            );
        }
    }
}

/// Seven images, made in the same instant but for the last two.
async fn tied(world: &World) {
    for at in 0..7 {
        world
            .image(|image| image.name = Some(format!("i{at}")))
            .await;
        if at >= 4 {
            world.clock.advance(Duration::from_secs(1));
        }
    }
}

#[tokio::test]
async fn the_native_list_pages_by_its_links_without_loss_or_repetition() {
    let world = World::new().await;
    tied(&world).await;
    let mut pages = Vec::new();
    let mut seen = Vec::new();
    let mut next = Some("/v2/images?limit=3&status=active".to_owned());
    while let Some(path) = next {
        let answer = world.get(MEMBER, &path).await;
        let page = names(&answer);
        pages.push(page.len());
        seen.extend(page);
        let body = answer.json();
        assert_eq!(body["first"], "/v2/images?limit=3&status=active");
        assert_eq!(body["schema"], "/v2/schemas/images");
        next = body["next"].as_str().map(str::to_owned);
    }
    assert_eq!(pages, [3, 3, 1]);
    assert_eq!(seen[..2], ["i6", "i5"]);
    seen.sort();
    assert_eq!(seen, ["i0", "i1", "i2", "i3", "i4", "i5", "i6"]);
}

#[tokio::test]
async fn the_ims_list_pages_by_its_last_id_until_a_page_is_empty() {
    let world = World::new().await;
    tied(&world).await;
    let mut seen = Vec::new();
    let mut marker = String::new();
    let mut pages = 0;
    loop {
        let path = format!("/v2/cloudimages?limit=3&sort_key=name&sort_dir=asc{marker}");
        let answer = world.get(MEMBER, &path).await;
        let body = answer.json();
        assert_eq!(body.as_object().unwrap().len(), 1);
        let Some(last) = body["images"].as_array().unwrap().last().cloned() else {
            break;
        };
        marker = format!("&marker={}", last["id"].as_str().unwrap());
        seen.extend(names(&answer));
        pages += 1;
    }
    assert_eq!(pages, 3);
    assert_eq!(seen, ["i0", "i1", "i2", "i3", "i4", "i5", "i6"]);
}

#[tokio::test]
async fn an_empty_page_is_a_page() {
    let world = World::new().await;
    tied(&world).await;
    let zero = world.get(MEMBER, "/v2/images?limit=0").await.json();
    assert_eq!(zero["images"], Value::Array(Vec::new()));
    assert_eq!(zero.get("next"), None);
    let zero = world.get(MEMBER, "/v2/cloudimages?limit=0").await.json();
    assert_eq!(zero["images"], Value::Array(Vec::new()));
    assert_eq!(world.get(MEMBER, "/v2/images?").await.status, 200);
}

#[tokio::test]
async fn what_can_not_be_understood_is_refused_in_each_lists_form() {
    let world = World::new().await;
    let absent = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";
    let foreign = world.image(|i| i.owner = OTHER.parse().unwrap()).await.id;
    for marker in [absent.to_owned(), foreign.to_string()] {
        let native = world
            .get(MEMBER, &format!("/v2/images?marker={marker}"))
            .await;
        assert_eq!(native.status, 400);
        let ims = world
            .get(MEMBER, &format!("/v2/cloudimages?marker={marker}"))
            .await;
        assert_eq!(ims.refusal(), (400, "IMG.0027".to_owned()));
    }
    for bad in [
        "limit=-1",
        "limit=x",
        "sort_key=x",
        "sort_dir=x",
        "created_at=x",
        "marker=x",
    ] {
        let native = world.get(MEMBER, &format!("/v2/images?{bad}")).await;
        assert_eq!(native.status, 400, "{bad}");
        let ims = world.get(MEMBER, &format!("/v2/cloudimages?{bad}")).await;
        assert_eq!(ims.refusal(), (400, "IMG.0001".to_owned()), "{bad}");
    }
    for list in ["/v2/images", "/v2/cloudimages"] {
        assert_eq!(world.get("", list).await.status, 401);
        let nobody = format!("dave {OWN} nothing");
        assert_eq!(world.get(&nobody, list).await.status, 403);
        let unknown = world
            .get(MEMBER, &format!("{list}?no_such_property=1"))
            .await;
        assert_eq!(names(&unknown), Vec::<String>::new());
    }
}
