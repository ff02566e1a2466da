//! What a caller sees and may do whose roles are on an enterprise project alone, or on more than one.

use calotype_core::image::{Image, Visibility};
use serde_json::{Value, json};

use crate::harness::{BYTES, MEMBER, OTHER, OWN, World};
use crate::permissions::{ONE, TWO, enterprise_projects};

/// Full rights on the first enterprise project, and nothing else.
fn confined() -> String {
    format!("eve {OWN} nothing {ONE}=member")
}

async fn in_group(world: &World, group: &str, change: impl FnOnce(&mut Image)) -> Image {
    let group = group.parse().unwrap();
    let place = |image: &mut Image| {
        image.enterprise_project = group;
        change(image);
    };
    world.image(place).await
}

async fn ids(world: &World, token: &str, path: &str) -> Vec<String> {
    let listed = world.get(token, path).await;
    assert_eq!(listed.status, 200, "{path}: {}", listed.text);
    let listed = listed.json();
    let images = listed["images"].as_array().unwrap().iter();
    images
        .map(|image| image["id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_list_shows_the_images_of_the_granted_enterprise_projects_in_whole_pages() {
    let world = World::new().await;
    enterprise_projects(&world).await;
    let mut granted = Vec::new();
    for n in 0..7 {
        let name = move |image: &mut Image| image.name = Some(format!("image {n}"));
        granted.push(in_group(&world, ONE, name).await.id.to_string());
        in_group(&world, TWO, name).await;
        in_group(&world, "0", name).await;
    }
    let foreign = |image: &mut Image| image.owner = OTHER.parse().unwrap();
    in_group(&world, ONE, foreign).await;
    let public = |image: &mut Image| {
        image.owner = OTHER.parse().unwrap();
        image.visibility = Visibility::Public;
    };
    in_group(&world, ONE, public).await;

    let token = confined();
    let order = "sort_key=name&sort_dir=asc";
    assert_eq!(
        ids(&world, &token, &format!("/v2/cloudimages?{order}")).await,
        granted
    );
    let all_granted = format!("/v2/cloudimages?{order}&enterprise_project_id=all_granted_eps");
    assert_eq!(ids(&world, &token, &all_granted).await, granted);
    let mut paged: Vec<String> = Vec::new();
    loop {
        let marker = paged.last().map(|last| format!("&marker={last}"));
        let path = format!(
            "/v2/cloudimages?{order}&limit=3{}",
            marker.unwrap_or_default()
        );
        let page = ids(&world, &token, &path).await;
        if page.is_empty() {
            break;
        }
        assert_eq!(page.len(), 3.min(granted.len() - paged.len()));
        paged.extend(page);
    }
    assert_eq!(paged, granted);

    let of = |group: &str| format!("/v2/cloudimages?enterprise_project_id={group}");
    assert_eq!(ids(&world, &token, &of(ONE)).await.len(), 7);
    assert_eq!(ids(&world, &token, &of(TWO)).await.len(), 0);
    for visibility in ["public", "shared"] {
        let path = format!("/v2/cloudimages?visibility={visibility}");
        assert_eq!(ids(&world, &token, &path).await.len(), 0, "{visibility}");
    }
    let private = ids(&world, &token, "/v2/cloudimages?visibility=private").await;
    assert_eq!(private.len(), 7);
    let by_name = ids(&world, &token, "/v2/cloudimages?name=image%203").await;
    assert_eq!(by_name, [granted[3].clone()]);
    let by_id = format!("/v2/cloudimages?id={}", granted[0]);
    assert_eq!(ids(&world, &token, &by_id).await.len(), 1);

    let both = format!("eve {OWN} nothing {ONE}=reader {TWO}=member");
    assert_eq!(ids(&world, &both, "/v2/cloudimages").await.len(), 14);
    let whole = ids(&world, MEMBER, &all_granted).await;
    assert_eq!(whole.len(), 22, "who has the whole project sees all of it");
}

#[tokio::test]
async fn what_may_be_seen_and_not_changed_is_forbidden_and_what_may_not_be_seen_is_not_there() {
    let world = World::new().await;
    enterprise_projects(&world).await;
    let elsewhere = in_group(&world, TWO, |_| ()).await;
    let path = format!("/v2/cloudimages/{}", elsewhere.id);
    let body = r#"[{"op":"replace","path":"/name","value":"x"}]"#;
    let reads_all = format!("eve {OWN} reader {ONE}=member");
    let answer = world.call("PATCH", &reads_all, &path, body).await;
    assert_eq!(answer.refusal(), (403, "IMG.0026".to_owned()));
    let answer = world.call("PATCH", &confined(), &path, body).await;
    assert_eq!(answer.refusal(), (404, "IMG.0027".to_owned()));
    let native = format!("/v2/images/{}", elsewhere.id);
    assert_eq!(
        world.call("DELETE", &reads_all, &native, "").await.status,
        403
    );
    assert_eq!(
        world.call("DELETE", &confined(), &native, "").await.status,
        404
    );
    assert_eq!(world.record(&elsewhere).await, elsewhere);
}

#[tokio::test]
async fn an_image_moves_to_where_the_caller_may_make_one() {
    let world = World::new().await;
    enterprise_projects(&world).await;
    let both = format!("eve {OWN} nothing {ONE}=member {TWO}=member");
    let reads_two = format!("eve {OWN} nothing {ONE}=member {TWO}=reader");
    for (token, to, status) in [
        (confined(), TWO, 403),
        (confined(), "0", 403),
        (reads_two, TWO, 403),
        (both, TWO, 200),
        (confined(), ONE, 200),
    ] {
        for native in [false, true] {
            let image = in_group(&world, ONE, |_| ()).await;
            let body = json!([{"op": "replace", "path": "/enterprise_project_id", "value": to}]);
            let (path, media) = match native {
                true => ("/v2/images", "application/openstack-images-v2.1-json-patch"),
                false => ("/v2/cloudimages", "application/json"),
            };
            let request = http::Request::builder()
                .method("PATCH")
                .uri(format!("{path}/{}", image.id))
                .header("X-Auth-Token", &token)
                .header("Content-Type", media)
                .body(axum::body::Body::from(body.to_string()));
            let answer = world.send(request.unwrap()).await;
            assert_eq!(answer.status, status, "{token} to {to}: {}", answer.text);
            let now = world.record(&image).await.enterprise_project.to_string();
            assert_eq!(now, if status == 200 { to } else { ONE });
        }
    }
}

#[tokio::test]
async fn a_replica_takes_rights_on_both_enterprise_projects_and_its_maker_sees_its_job() {
    let world = World::new().await;
    enterprise_projects(&world).await;
    let source = in_group(&world, ONE, |_| ()).await;
    let shared = |image: &mut Image| {
        image.owner = OTHER.parse().unwrap();
        image.visibility = Visibility::Shared;
    };
    let received = in_group(&world, ONE, shared).await;
    world
        .share(&received, calotype_core::image::MemberStatus::Accepted)
        .await;
    let both = format!("eve {OWN} nothing {ONE}=member {TWO}=member");
    let reads_one = format!("eve {OWN} nothing {ONE}=reader {TWO}=member");
    let copy = async |token: &str, image: &Image, to: Value| {
        let mut body = json!({"name": "replica"});
        if !to.is_null() {
            body["enterprise_project_id"] = to;
        }
        let path = format!("/v1/cloudimages/{}/copy", image.id);
        world.post(token, &path, &body.to_string()).await
    };
    for (token, image, to, status, code) in [
        // Absent is the default one, which is not granted (spec 3.2, C22).
        (&confined(), &source, Value::Null, 403, "IMG.0026"),
        (&confined(), &source, json!(TWO), 403, "IMG.0026"),
        (&confined(), &source, json!("nonsense"), 400, "IMG.0155"),
        (&reads_one, &source, json!(TWO), 403, "IMG.0026"),
        // A shared image is copied by who has the whole project's permission (C23).
        (&confined(), &received, json!(ONE), 404, "IMG.0027"),
    ] {
        let answer = copy(token, image, to).await;
        assert_eq!(answer.refusal(), (status, code.to_owned()), "{token}");
    }
    for (token, to) in [(&confined(), ONE), (&both, TWO)] {
        let accepted = copy(token, &source, json!(to)).await;
        assert_eq!(accepted.status, 200, "{}", accepted.text);
        let job = accepted.json()["job_id"].as_str().unwrap().to_owned();
        world.work_until_ended(&job).await;
        let path = format!("/v1/{OWN}/jobs/{job}");
        let ended = world.get(token, &path).await.json();
        assert_eq!(ended["status"], "SUCCESS");
        let others = confined().replace("eve", "mallory");
        let unseen = world.get(&others, &path).await;
        assert_eq!(unseen.refusal(), (404, "IMG.0023".to_owned()));
        let replica = ended["entities"]["image_id"].as_str().unwrap();
        let bytes = world
            .get(token, &format!("/v2/images/{replica}/file"))
            .await;
        assert_eq!(bytes.text.as_bytes(), BYTES);
    }
}

#[tokio::test]
async fn rights_on_an_enterprise_project_cancel_no_one_elses_job() {
    let world = World::new().await;
    enterprise_projects(&world).await;
    // Sees each job of the project, and may make images in one of its enterprise projects.
    let reads_all = format!("eve {OWN} reader {ONE}=member");
    let of_two = in_group(&world, TWO, |_| ()).await;
    let of_one = in_group(&world, ONE, |_| ()).await;
    let copy = async |token: &str, image: &Image, to: &str| {
        let body = json!({"name": "replica", "enterprise_project_id": to});
        let path = format!("/v1/cloudimages/{}/copy", image.id);
        let accepted = world.post(token, &path, &body.to_string()).await;
        assert_eq!(accepted.status, 200, "{}", accepted.text);
        let job = accepted.json()["job_id"].as_str().unwrap().to_owned();
        format!("/admin/v1/jobs/{job}")
    };
    let others = copy(MEMBER, &of_two, TWO).await;
    let others_in_one = copy(MEMBER, &of_one, ONE).await;
    let own = copy(&reads_all, &of_one, ONE).await;
    for job in [&others, &others_in_one] {
        let refused = world.call("DELETE", &reads_all, job, "").await;
        assert_eq!(refused.status, 403, "{}", refused.text);
    }
    let cancelled = world.call("DELETE", &reads_all, &own, "").await;
    assert_eq!(cancelled.status, 202, "{}", cancelled.text);
}

#[tokio::test]
async fn rights_on_an_enterprise_project_share_its_images_with_nobody() {
    let world = World::new().await;
    enterprise_projects(&world).await;
    let image = in_group(&world, ONE, |_| ()).await;
    let path = format!("/v2/images/{}", image.id);
    for visibility in ["shared", "community", "public"] {
        let body = json!([{"op": "replace", "path": "/visibility", "value": visibility}]);
        let request = http::Request::builder()
            .method("PATCH")
            .uri(&path)
            .header("X-Auth-Token", confined())
            .header(
                "Content-Type",
                "application/openstack-images-v2.1-json-patch",
            )
            .body(axum::body::Body::from(body.to_string()));
        let refused = world.send(request.unwrap()).await;
        assert_eq!(refused.status, 403, "{visibility}: {}", refused.text);
        assert_eq!(world.record(&image).await.visibility, image.visibility);
    }
}
