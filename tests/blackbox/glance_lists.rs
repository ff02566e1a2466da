//! Lists of the OpenStack Image API v2: pages, order, filters and their refusals.

use calotype_tests::{Client, Server};
use serde_json::{Value, json};

fn names(client: &Client, query: &str) -> Vec<String> {
    let body = client
        .get(&format!("/v2/images?{query}"))
        .expect(200)
        .json();
    let images = body["images"].as_array().expect("images");
    images
        .iter()
        .filter_map(|image| Some(image["name"].as_str()?.to_owned()))
        .collect()
}

#[test]
fn pages_follow_one_another_without_a_gap_or_a_repetition() {
    let server = Server::with_defaults();
    let client = server.user();
    let wanted: Vec<String> = (0..33).map(|number| format!("image-{number:02}")).collect();
    for name in &wanted {
        client.create(name);
    }
    let mut path = "/v2/images?limit=5&sort_key=name&sort_dir=asc".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = client.get(&path).expect(200).json();
        let first = page["first"].as_str().expect("first");
        assert!(
            first.starts_with("/v2/images?") && !first.contains("marker"),
            "{first}"
        );
        assert_eq!(page["schema"], "/v2/schemas/images");
        let images = page["images"].as_array().expect("images");
        assert!(images.len() <= 5);
        seen.extend(
            images
                .iter()
                .filter_map(|image| Some(image["name"].as_str()?.to_owned())),
        );
        match page.get("next").and_then(Value::as_str) {
            Some(next) => {
                assert!(
                    next.starts_with("/v2/images?") && next.contains("marker="),
                    "{next}"
                );
                assert!(
                    next.contains("sort_key=name") && next.contains("limit=5"),
                    "{next}"
                );
                path = next.to_owned();
            }
            None => break,
        }
    }
    assert_eq!(seen, wanted);
    assert_eq!(
        names(&client, "").len(),
        25,
        "a page where no limit is given"
    );
    assert_eq!(names(&client, "limit=0").len(), 0);
    assert_eq!(names(&client, "limit=100000").len(), 33);
}

#[test]
fn images_come_in_the_order_that_was_asked_for() {
    let mut server = Server::with_defaults();
    // One clock tells when each was made.
    let client = server.user().at(server.nodes()[0].base());
    for (name, size) in [("b", 3), ("a", 2), ("c", 1)] {
        client.image(name, 1, size);
    }
    assert_eq!(names(&client, ""), ["c", "a", "b"], "the newest first");
    assert_eq!(
        names(&client, "sort_key=created_at&sort_dir=asc"),
        ["b", "a", "c"]
    );
    assert_eq!(
        names(&client, "sort_key=name&sort_dir=asc"),
        ["a", "b", "c"]
    );
    assert_eq!(names(&client, "sort=name:desc"), ["c", "b", "a"]);
    assert_eq!(names(&client, "sort=size:asc"), ["c", "a", "b"]);
    assert_eq!(names(&client, "sort=status:asc,name:asc"), ["a", "b", "c"]);
    assert_eq!(
        names(
            &client,
            "sort_key=status&sort_key=size&sort_dir=asc&sort_dir=desc"
        ),
        ["b", "a", "c"]
    );
}

#[test]
fn filters_leave_what_matches_them_all() {
    let mut server = Server::with_defaults();
    // One clock tells when each was made.
    let client = server.user().at(server.nodes()[0].base());
    client.create_with(
        json!({"name": "one", "disk_format": "raw", "container_format": "bare",
        "tags": ["web", "old"], "min_ram": 512, "os_distro": "debian"}),
    );
    client.create_with(
        json!({"name": "two", "disk_format": "qcow2", "container_format": "bare",
        "tags": ["web"], "protected": true, "os_distro": "fedora, core"}),
    );
    let three = client.image("three", 1, 5000);
    let table: [(&str, &[&str]); 19] = [
        ("name=one", &["one"]),
        ("name=On", &[]),
        ("name=in:one,two", &["two", "one"]),
        ("disk_format=qcow2", &["two"]),
        ("disk_format=in:raw,qcow2", &["three", "two", "one"]),
        ("tag=web", &["two", "one"]),
        ("tag=web&tag=old", &["one"]),
        ("tag=absent", &[]),
        ("protected=true", &["two"]),
        ("min_ram=512", &["one"]),
        ("os_distro=debian", &["one"]),
        ("os_distro=absent", &[]),
        ("status=active", &["three"]),
        ("status=queued&tag=old", &["one"]),
        ("size_min=4999", &["three"]),
        ("size_min=5001", &[]),
        ("visibility=public", &[]),
        (
            "created_at=gt:2020-01-01T00:00:00Z",
            &["three", "two", "one"],
        ),
        ("created_at=lt:2020-01-01T00:00:00Z", &[]),
    ];
    for (query, wanted) in table {
        assert_eq!(names(&client, query), wanted, "{query}");
    }
    assert_eq!(names(&client, &format!("id={three}")), ["three"]);
    assert_eq!(
        names(&client, &format!("owner={}", client.project())).len(),
        3
    );
}

#[test]
fn a_list_that_cannot_be_is_refused() {
    let server = Server::with_defaults();
    let client = server.user();
    client.create("one");
    for query in [
        "limit=-1",
        "limit=many",
        "sort_key=nonsense",
        "sort_dir=sideways",
        "sort=name:sideways",
        "sort=name:asc&sort_key=name",
        "marker=nonsense",
        "marker=11111111-2222-4333-8444-555555555555",
        "visibility=nonsense",
        "member_status=nonsense",
        "created_at=around:2020-01-01T00:00:00Z",
        "created_at=gt:yesterday",
        "size_min=many",
        "protected=maybe",
    ] {
        let answer = client.get(&format!("/v2/images?{query}"));
        assert_eq!(answer.status, 400, "{query}: {answer}");
    }
    assert_eq!(
        names(&client, "size_min=-1"),
        ["one"],
        "as in Glance, a bound that is no bound"
    );
    let hostile = "name=%27%20OR%201%3D1%20--";
    assert_eq!(names(&client, hostile), Vec::<String>::new());
    assert_eq!(
        names(&client, "name=%25"),
        Vec::<String>::new(),
        "no pattern, a name"
    );
}

#[test]
fn nobody_lists_another_projects_private_images() {
    let server = Server::with_defaults();
    let owner = server.user();
    let other = server.admin().new_project("other", "member");
    let image = owner.create("private");
    for query in [
        String::new(),
        format!("id={image}"),
        format!("owner={}", owner.project()),
        "name=private".to_owned(),
        "visibility=private".to_owned(),
        "visibility=all".to_owned(),
        "member_status=all&visibility=shared".to_owned(),
    ] {
        assert_eq!(names(&other, &query), Vec::<String>::new(), "{query}");
        let ims = other.get(&format!("/v2/cloudimages?{query}"));
        if ims.status == 200 {
            assert_eq!(ims.json()["images"], json!([]), "{query}");
        }
    }
    let marker = other.get(&format!("/v2/images?marker={image}"));
    assert_eq!(marker.status, 400, "another's image is no marker: {marker}");
}
