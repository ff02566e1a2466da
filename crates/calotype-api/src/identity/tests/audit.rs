//! The audit trail of what an administrator does to the identity.

use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::world::{Answer, World, login};

/// The trail as the caller sees it, oldest first.
async fn trail(world: &World, token: &str) -> Vec<Value> {
    let request = Request::builder()
        .uri("/admin/v1/audit?limit=1000")
        .header("x-auth-token", token);
    let request = request.body(axum::body::Body::empty()).unwrap();
    let mut events = world.send(request).await.body["events"].take();
    let mut events = std::mem::take(events.as_array_mut().unwrap());
    events.reverse();
    events
}

fn id(answer: &Answer, kind: &str) -> String {
    assert_eq!(answer.status, 201);
    answer.body[kind]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_change_is_one_line_with_its_request_and_no_secret() {
    let world = World::new().await;
    let admin = world.token(&world.first.admin).await;
    let call = async |method, path: &str, body| world.call(method, path, Some(&admin), body).await;
    assert_eq!(trail(&world, &admin).await, Vec::<Value>::new());

    let body = json!({ "project": { "name": "research" } });
    let made = call(Method::POST, "/v3/projects", Some(body.clone())).await;
    let request = made.headers.get("x-openstack-request-id").cloned();
    let project = id(&made, "project");
    let taken = call(Method::POST, "/v3/projects", Some(body)).await;
    taken.assert_is_error(StatusCode::CONFLICT);
    let body = json!({ "user": { "name": "ada", "password": "canary-1" } });
    let user = id(&call(Method::POST, "/v3/users", Some(body)).await, "user");
    let body = json!({ "role": { "name": "auditor" } });
    let role = id(&call(Method::POST, "/v3/roles", Some(body)).await, "role");
    for target in [
        format!("projects/{project}"),
        "domains/default".to_owned(),
        "system".to_owned(),
    ] {
        let path = format!("/v3/{target}/users/{user}/roles/{role}");
        for _ in 0..2 {
            assert_eq!(call(Method::PUT, &path, None).await.status, 204);
        }
        assert_eq!(call(Method::DELETE, &path, None).await.status, 204);
        let again = call(Method::DELETE, &path, None).await;
        again.assert_is_error(StatusCode::NOT_FOUND);
    }
    let keys = format!("/v3/users/{user}/credentials/OS-EC2");
    let key = call(Method::POST, &keys, Some(json!({}))).await;
    let key = &key.body["credential"];
    let (access, secret) = (key["access"].as_str(), key["secret"].as_str());
    let (access, secret) = (access.unwrap(), secret.unwrap());
    let path = format!("{keys}/{access}");
    assert_eq!(call(Method::DELETE, &path, None).await.status, 204);
    let body = json!({ "user": { "password": "canary-2", "enabled": false } });
    let path = format!("/v3/users/{user}");
    assert_eq!(call(Method::PATCH, &path, Some(body)).await.status, 200);
    assert_eq!(call(Method::DELETE, &path, None).await.status, 204);
    let path = format!("/v3/roles/{role}");
    assert_eq!(call(Method::DELETE, &path, None).await.status, 204);
    let body = json!({ "project": { "enabled": false } });
    let path = format!("/v3/projects/{project}");
    assert_eq!(call(Method::PATCH, &path, Some(body)).await.status, 200);
    assert_eq!(call(Method::DELETE, &path, None).await.status, 204);

    let trail = trail(&world, &admin).await;
    let text = Value::from(trail.clone()).to_string();
    for hidden in ["canary", secret, "argon2", &admin] {
        assert!(!text.contains(hidden), "{hidden}");
    }
    let first = &trail[0];
    assert_eq!(first["request_id"], request.unwrap().to_str().unwrap());
    assert_eq!(first["user_id"], world.first.admin.user.id.as_str());
    assert_eq!(first["project_id"], world.first.admin.project.id.as_str());
    let told: Vec<_> = trail
        .iter()
        .map(|event| {
            assert_eq!(event["resource_type"], "identity");
            let text = json!([event["trace_name"], event["resource_id"], event["detail"]]);
            let mut text = text.to_string();
            for (id, name) in [
                (&*project, "PROJECT"),
                (&*user, "USER"),
                (&*role, "ROLE"),
                (access, "ACCESS"),
            ] {
                text = text.replace(id, name);
            }
            text
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    ["createProject","PROJECT",{"name":"research","domain":"default","enabled":true}]
    ["createUser","USER",{"name":"ada","domain":"default","enabled":true}]
    ["createRole","ROLE",{"name":"auditor"}]
    ["assignRole","USER",{"role":"auditor","project":"PROJECT"}]
    ["unassignRole","USER",{"role":"auditor","project":"PROJECT"}]
    ["assignRole","USER",{"role":"auditor","domain":"default"}]
    ["unassignRole","USER",{"role":"auditor","domain":"default"}]
    ["assignRole","USER",{"role":"auditor","system":"all"}]
    ["unassignRole","USER",{"role":"auditor","system":"all"}]
    ["createAccessKey","ACCESS",{"user":"USER","project":null}]
    ["deleteAccessKey","ACCESS",{"user":"USER"}]
    ["changePassword","USER",{}]
    ["updateUser","USER",{"enabled":false}]
    ["deleteUser","USER",{"name":"ada"}]
    ["deleteRole","ROLE",{"name":"auditor"}]
    ["updateProject","PROJECT",{"enabled":false}]
    ["deleteProject","PROJECT",{"name":"research"}]
    "#);
}

#[tokio::test]
async fn only_another_users_token_is_revoked_with_a_line() {
    let world = World::new().await;
    let admin = world.token(&world.first.admin).await;
    for user in [&world.first.demo, &world.first.admin] {
        let token = world.token(user).await;
        let request = Request::builder()
            .method(Method::DELETE)
            .uri("/identity/v3/auth/tokens")
            .header("x-auth-token", &admin)
            .header("x-subject-token", &token);
        let request = request.body(axum::body::Body::empty()).unwrap();
        assert_eq!(world.send(request).await.status, 204);
    }
    let trail = trail(&world, &admin).await;
    let [line] = &trail[..] else {
        panic!("{trail:?}");
    };
    assert_eq!(line["trace_name"], "revokeToken");
    assert_eq!(line["detail"]["user"], world.first.demo.user.id.as_str());
}

#[tokio::test]
async fn an_enterprise_project_is_made_and_switched_with_a_line_each() {
    let world = World::new().await;
    let admin = world.token(&world.first.admin).await;
    let post = async |path: &str, body: Value| {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/admin/v1/enterprise-projects{path}"))
            .header("x-auth-token", &admin)
            .header("content-type", "application/json");
        world
            .send(request.body(body.to_string().into()).unwrap())
            .await
    };
    let made = post("", json!({ "name": "research" })).await;
    let id = made.body["id"].as_str().unwrap();
    for _ in 0..2 {
        assert_eq!(post("", json!({ "name": "research" })).await.status, 409);
    }
    assert_eq!(post(&format!("/{id}/disable"), json!({})).await.status, 204);
    assert_eq!(post(&format!("/{id}/enable"), json!({})).await.status, 204);
    assert_eq!(post("/0/disable", json!({})).await.status, 409);
    let unknown = "11111111-2222-4333-8444-555555555555";
    let answer = post(&format!("/{unknown}/disable"), json!({})).await;
    assert_eq!(answer.status, 404);
    let trail = trail(&world, &admin).await;
    let told: Vec<_> = trail
        .iter()
        .map(|event| event["trace_name"].as_str().unwrap())
        .collect();
    assert_eq!(
        told,
        [
            "createEnterpriseProject",
            "disableEnterpriseProject",
            "enableEnterpriseProject"
        ]
    );
}

#[tokio::test]
async fn a_login_and_a_refused_change_are_no_lines() {
    let world = World::new().await;
    let demo = world.token(&world.first.demo).await;
    let admin = world.token(&world.first.admin).await;
    let scope = json!({ "project": { "name": "demo", "domain": { "id": "default" } } });
    world.login(login("demo", "wrong", &scope)).await;
    let body = json!({ "project": { "name": "p" } });
    let refused = world
        .call(Method::POST, "/v3/projects", Some(&demo), Some(body))
        .await;
    refused.assert_is_error(StatusCode::FORBIDDEN);
    assert_eq!(trail(&world, &admin).await, Vec::<Value>::new());
}
