//! The catalogue of operating systems, and what is left of the Image API's first version.

use calotype_core::image::{ImageStatus, Visibility};
use serde_json::{Value, json};

use crate::harness::{MEMBER, OTHER, OWN, READER, World};

const UNKNOWN: &str = "11111111-2222-4333-8444-555555555555";

#[tokio::test]
async fn the_catalogue_is_told_platform_by_platform_and_by_its_tags() {
    let world = World::new().await;
    let versions = async |query: &str| -> Vec<Value> {
        let answer = world
            .get(READER, &format!("/v1/cloudimages/os_version{query}"))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let platforms = answer.json().as_array().unwrap().clone();
        let of = |platform: &Value| {
            let list = platform["version_list"].as_array().unwrap().clone();
            assert!(!list.is_empty());
            assert!(
                list.iter()
                    .all(|version| version["platform"] == platform["platform"])
            );
            list
        };
        platforms.iter().flat_map(of).collect()
    };
    let all = versions("").await;
    let suse = json!({
        "platform": "SUSE", "os_version_key": "SUSE Linux Enterprise Server 15 SP1 64bit",
        "os_version": "SUSE Linux Enterprise Server 15 SP1 64bit", "os_bit": 64, "os_type": "Linux",
    });
    assert!(all.contains(&suse));
    for (version, bits, system) in [
        ("Other(32 bit)", 32, "Other"),
        ("Other Linux(64 bit)", 64, "Other"),
        ("Windows 7 Professional 32bit", 32, "Windows"),
    ] {
        let found = all
            .iter()
            .find(|each| each["os_version"] == version)
            .unwrap();
        assert_eq!(
            (&found["os_bit"], &found["os_type"]),
            (&json!(bits), &json!(system))
        );
    }
    for query in ["?tag=uefi", "?tag=bms_otc"] {
        let wide: Vec<Value> = all
            .iter()
            .filter(|each| each["os_bit"] == 64)
            .cloned()
            .collect();
        assert!(
            versions(query).await == wide && wide.len() < all.len(),
            "{query}"
        );
    }
    for (token, query, status, code) in [
        ("", "", 401, "IMG.0087"),
        (
            "nobody 0123456789abcdef0123456789abcdef none",
            "?tag=x",
            403,
            "IMG.0026",
        ),
        (MEMBER, "?tag=x", 400, "IMG.0001"),
        (MEMBER, "?tag=", 400, "IMG.0001"),
    ] {
        let answer = world
            .get(token, &format!("/v1/cloudimages/os_version{query}"))
            .await;
        assert_eq!(answer.refusal(), (status, code.to_owned()), "{query}");
    }
}

#[tokio::test]
async fn the_first_versions_list_has_its_form_and_its_filters() {
    let world = World::new().await;
    let old = world
        .image(|image| {
            image.name = Some("old".to_owned());
            image.properties.insert("os".to_owned(), "x".to_owned());
        })
        .await;
    world.clock.advance(std::time::Duration::from_secs(10));
    world
        .image(|image| {
            image.name = Some("new".to_owned());
            image.status = ImageStatus::Queued;
            image.disk_format = Some("raw".to_owned());
        })
        .await;
    world
        .image(|image| {
            image.name = Some("gold".to_owned());
            image.owner = OTHER.parse().unwrap();
            image.visibility = Visibility::Public;
        })
        .await;
    world
        .image(|image| image.owner = OTHER.parse().unwrap())
        .await;
    let list = async |query: &str| {
        let answer = world
            .get(MEMBER, &format!("/v1.1/images/detail?{query}"))
            .await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text);
        let images = answer.json()["images"].as_array().unwrap().clone();
        let mut names: Vec<String> = images
            .iter()
            .map(|image| image["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort_unstable();
        (names.join(" "), images)
    };
    for (query, expected) in [
        ("", "gold new old"),
        ("name=old", "old"),
        ("status=queued", "new"),
        ("disk_format=raw", "new"),
        ("container_format=ovf", ""),
        ("size_min=1", "gold old"),
        ("size_max=4", ""),
        ("changes-since=2024-01-02T03:04:10Z", "gold new"),
        // What the list does not know means nothing to it.
        ("os=y&tag=z&visibility=private", "gold new old"),
    ] {
        assert_eq!(list(query).await.0, expected, "{query}");
    }
    let (_, images) = list("name=old").await;
    let expected = json!({
        "id": old.id.to_string(), "name": "old", "status": "active", "owner": OWN, "is_public": false,
        "protected": false, "container_format": "bare", "disk_format": "qcow2", "min_disk": 1, "min_ram": 0,
        "size": 5, "virtual_size": null, "checksum": "5d41402abc4b2a76b9719d911017c592",
        "created_at": "2024-01-02T03:04:05.678901", "updated_at": "2024-01-02T03:04:05.678901",
        "deleted": false, "deleted_at": null, "properties": {"os": "x"},
    });
    assert_eq!(images, [expected]);
    for query in [
        "changes-since=never",
        "size_min=x",
        "limit=-1",
        &format!("marker={UNKNOWN}"),
    ] {
        let answer = world
            .get(MEMBER, &format!("/v1.1/images/detail?{query}"))
            .await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(
            !answer.text.contains("IMG."),
            "Glance's form: {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn the_first_version_shows_an_image_in_headers() {
    let world = World::new().await;
    let image = world
        .image(|image| {
            image.name = Some("Größe\n".to_owned());
            image.protected = true;
            for (name, value) in [
                ("plain", "x y"),
                ("a/b", "no header"),
                ("big", &"x".repeat(5000)),
            ] {
                image.properties.insert(name.to_owned(), value.to_owned());
            }
        })
        .await;
    let path = format!("/v1/images/{}", image.id);
    let answer = world.head(MEMBER, &path).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, ""));
    let header = |name: &str| {
        answer
            .headers
            .get(name)
            .map(|value| value.to_str().unwrap())
    };
    for (name, expected) in [
        ("id", image.id.to_string().as_str()),
        ("name", "Gr%C3%B6%C3%9Fe%0A"),
        ("status", "active"),
        ("owner", OWN),
        ("size", "5"),
        ("is_public", "False"),
        ("protected", "True"),
        ("deleted", "False"),
        ("min_disk", "1"),
        ("min_ram", "0"),
        ("disk_format", "qcow2"),
        ("container_format", "bare"),
        ("checksum", "5d41402abc4b2a76b9719d911017c592"),
        ("created_at", "2024-01-02T03:04:05.678901"),
        ("updated_at", "2024-01-02T03:04:05.678901"),
        ("property-plain", "x y"),
    ] {
        assert_eq!(
            header(&format!("x-image-meta-{name}")),
            Some(expected),
            "{name}"
        );
    }
    assert_eq!(header("etag"), Some("5d41402abc4b2a76b9719d911017c592"));
    for name in ["virtual_size", "deleted_at", "property-a/b", "property-big"] {
        assert_eq!(header(&format!("x-image-meta-{name}")), None, "{name}");
    }
    for (token, path, status) in [
        ("", path.as_str(), 401),
        (MEMBER, &format!("/v1/images/{UNKNOWN}"), 404),
        (MEMBER, "/v1/images/x", 404),
    ] {
        assert_eq!(world.head(token, path).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn the_first_version_deletes_as_the_second_does() {
    let world = World::new().await;
    let image = world.image(|image| image.protected = true).await;
    let path = format!("/v1.1/images/{}", image.id);
    assert_eq!(world.call("DELETE", READER, &path, "").await.status, 403);
    assert_eq!(world.call("DELETE", MEMBER, &path, "").await.status, 403);
    let other = world.image(|_| ()).await;
    let path = format!("/v1.1/images/{}", other.id);
    let gone = world.call("DELETE", MEMBER, &path, "").await;
    assert_eq!((gone.status.as_u16(), gone.text.as_str()), (204, ""));
    assert_eq!(world.call("DELETE", MEMBER, &path, "").await.status, 404);
    assert_eq!(
        world
            .call("DELETE", MEMBER, "/v1.1/images/x", "")
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn the_image_apis_list_has_a_second_name_for_the_enterprise_project() {
    let world = World::new().await;
    let image = world.image(|_| ()).await;
    let listed = world.get(MEMBER, "/v2/images").await.json();
    assert_eq!(listed["images"][0]["_sys_enterprise_project_id"], "0");
    let shown = world
        .get(MEMBER, &format!("/v2/images/{}", image.id))
        .await
        .json();
    assert_eq!(shown.get("_sys_enterprise_project_id"), None);
}
