//! Members.

use calotype_core::app::{Limits, Settings};
use http::Method;
use serde_json::json;

use crate::harness::{ALICE, BOB, CAROL, Rig, pretty};

#[tokio::test]
async fn an_image_is_shared_answered_and_taken_back() {
    let rig = Rig::new().await;
    let id = rig.active(b"bytes").await;
    let members = format!("/v2/images/{id}/members");
    let bobs = format!("{members}/{BOB}");
    let share = json!({"member": BOB});
    rig.post("bob", &members, &share).await.expect(404);
    let member = rig.post("alice", &members, &share).await.expect(200).json();
    insta::assert_snapshot!("a_pending_member", pretty(&member, &id));
    rig.post("alice", &members, &share).await.expect(409);
    assert_eq!(rig.get("alice", &bobs).await.expect(200).json(), member);
    assert_eq!(rig.get("bob", &bobs).await.expect(200).json(), member);

    let answer = |status: &str| json!({"status": status});
    rig.put("alice", &bobs, &answer("accepted"))
        .await
        .expect(403);
    rig.put("bob", &bobs, &answer("maybe")).await.expect(400);
    rig.put("bob", &bobs, &json!({})).await.expect(400);
    for status in ["accepted", "rejected", "pending", "accepted"] {
        let member = rig.put("bob", &bobs, &answer(status)).await.expect(200);
        assert_eq!(member.json()["status"], status);
    }
    let image = format!("/v2/images/{id}");
    rig.get("bob", &image).await.expect(200);
    rig.delete("bob", &image).await.expect(403);
    rig.delete("bob", &bobs).await.expect(403);
    rig.delete("alice", &bobs).await.expect(204);
    rig.delete("alice", &bobs).await.expect(404);
    rig.get("bob", &image).await.expect(404);
    let traces = rig.traces().await;
    assert_eq!(traces[2], "addMember");
    assert_eq!(traces[3..7], ["updateMember"; 4]);
    assert_eq!(traces[7..], ["deleteMember"]);
}

#[tokio::test]
async fn a_member_does_not_learn_of_the_others() {
    let rig = Rig::new().await;
    let id = rig.queued().await;
    let members = format!("/v2/images/{id}/members");
    for project in [BOB, CAROL] {
        let body = json!({"member": project});
        rig.post("alice", &members, &body).await.expect(200);
    }
    let seen = async |who: &str| {
        let list = rig.get(who, &members).await.expect(200).json();
        assert_eq!(list["schema"], "/v2/schemas/members");
        let members = list["members"].as_array().unwrap().clone();
        members
            .iter()
            .map(|member| member["member_id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(seen("alice").await, [BOB, CAROL]);
    assert_eq!(seen("bob").await, [BOB]);
    assert_eq!(seen("admin").await, [BOB, CAROL]);
    let carols = format!("{members}/{CAROL}");
    rig.get("bob", &carols).await.expect(404);
    let answer = json!({"status": "accepted"});
    rig.put("bob", &carols, &answer).await.expect(404);
    rig.put("admin", &carols, &answer).await.expect(200);
    rig.get("rita", &members).await.expect(403);
}

#[tokio::test]
async fn only_a_shared_image_has_members() {
    let rig = Rig::new().await;
    let id = rig.queued().await;
    let image = format!("/v2/images/{id}");
    let members = format!("{image}/members");
    let bobs = format!("{members}/{BOB}");
    let share = json!({"member": BOB});
    rig.post("alice", &members, &share).await.expect(200);
    let become_ =
        |visibility: &str| json!([{"op": "replace", "path": "/visibility", "value": visibility}]);
    rig.patch("alice", &image, &become_("private"))
        .await
        .expect(200);
    rig.get("bob", &image).await.expect(404);
    rig.get("alice", &members).await.expect(403);
    rig.get("alice", &bobs).await.expect(404);
    rig.post("alice", &members, &json!({"member": CAROL}))
        .await
        .expect(403);
    rig.delete("alice", &bobs).await.expect(403);
    rig.patch("alice", &image, &become_("shared"))
        .await
        .expect(200);
    rig.get("bob", &image).await.expect(200);
}

#[tokio::test]
async fn a_member_is_another_project_and_there_is_a_limit() {
    let settings = Settings {
        limits: Limits {
            members_per_image: 1,
            ..Limits::default()
        },
        ..Settings::default()
    };
    let rig = Rig::with(settings).await;
    let id = rig.queued().await;
    let members = format!("/v2/images/{id}/members");
    for body in [
        json!({}),
        json!([]),
        json!({"member": ""}),
        json!({"member": 1}),
        json!({"member": "../x"}),
        json!({"member": ALICE}),
    ] {
        rig.post("alice", &members, &body).await.expect(400);
    }
    rig.post("alice", &members, &json!({"member": BOB}))
        .await
        .expect(200);
    rig.post("alice", &members, &json!({"member": CAROL}))
        .await
        .expect(413);
}

#[tokio::test]
async fn an_idempotency_key_adds_one_member_and_one_enterprise_project() {
    let rig = Rig::new().await;
    let id = rig.active(b"bytes").await;
    let send = async |who: &str, path: &str, body: String| {
        let headers = [
            ("content-type", "application/json"),
            ("idempotency-key", "once"),
        ];
        rig.send(who, Method::POST, path, &headers, body).await
    };
    let members = format!("/v2/images/{id}/members");
    let member = |project: &str| format!(r#"{{"member":"{project}"}}"#);
    let added = send("alice", &members, member(BOB)).await.expect(200);
    let again = send("alice", &members, member(BOB)).await.expect(200);
    assert_eq!(again.json(), added.json());
    assert_eq!(again.header("idempotency-replayed"), "true");
    send("alice", &members, member("other")).await.expect(409);

    let projects = "/admin/v1/enterprise-projects";
    let named = |name: &str| format!(r#"{{"name":"{name}"}}"#);
    let made = send("admin", projects, named("one")).await.expect(201);
    let again = send("admin", projects, named("one")).await.expect(201);
    assert_eq!(again.json(), made.json());
    send("admin", projects, named("two")).await.expect(409);
    send("alice", projects, named("one")).await.expect(403);
}
