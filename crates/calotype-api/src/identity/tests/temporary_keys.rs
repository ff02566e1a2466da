//! Temporary access keys: got by a token, used with a signature and their security token.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::world::{Answer, Key, World, signed_a, signed_b};

const ORDER: &str = "/v3.0/OS-CREDENTIAL/securitytokens";
const PROJECTS: &str = "/identity/v3/auth/projects";

/// A temporary key, as the answer has it.
struct Temporary(Value);

impl Temporary {
    fn of(answer: &Answer) -> Self {
        assert_eq!(answer.status, 201, "{}", answer.body);
        assert_eq!(answer.headers["cache-control"], "no-store");
        Self(answer.body["credential"].clone())
    }

    async fn by(world: &World, token: &str, seconds: u64) -> Self {
        let answer = world.call(Method::POST, ORDER, Some(token), Some(order(seconds)));
        Self::of(&answer.await)
    }

    fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap()
    }

    fn key(&self) -> Key<'_> {
        Key {
            access: self.text("access"),
            secret: self.text("secret"),
        }
    }

    /// A request with the key: scheme A signs the security token, scheme B adds it afterwards.
    fn requests(&self, target: &str) -> [Request<Body>; 2] {
        self.requests_with(target, &[("x-security-token", self.text("securitytoken"))])
    }

    fn requests_with(&self, target: &str, headers: &[(&str, &str)]) -> [Request<Body>; 2] {
        [
            signed_a(self.key(), Method::GET, target, headers, ""),
            signed_b(self.key(), Method::GET, target, headers, ""),
        ]
    }

    async fn works(&self, world: &World) -> bool {
        let mut statuses = Vec::new();
        for request in self.requests(PROJECTS) {
            statuses.push(world.send(request).await.status);
        }
        assert_eq!(statuses.first(), statuses.last());
        match statuses[..] {
            [200, _] => true,
            [401, _] => false,
            _ => panic!("{statuses:?}"),
        }
    }
}

fn order(seconds: u64) -> Value {
    json!({ "auth": { "identity": {
        "methods": ["token"], "token": { "duration_seconds": seconds },
    } } })
}

fn identity(identity: &Value) -> Value {
    json!({ "auth": { "identity": identity } })
}

#[tokio::test]
async fn a_key_is_got_as_each_client_asks_for_it() {
    let world = World::new().await;
    let token = world.token(&world.first.demo).await;
    let (header, none) = (Some(&*token), None);
    let quarter = "2026-11-23T20:30:00.000000Z";
    let hour = "2026-11-23T21:15:00.000000Z";
    for (header, token, ends) in [
        (none, json!({ "id": token }), quarter),
        (none, json!({ "id": token, "duration_seconds": 3600 }), hour),
        (header, json!({ "id": "" }), quarter),
        (
            header,
            json!({ "id": "", "duration_seconds": "3600" }),
            hour,
        ),
        // The header's counts.
        (header, json!({ "id": "calo_other" }), quarter),
        (header, Value::Null, quarter),
    ] {
        let body = identity(&json!({ "methods": ["token"], "token": token }));
        let made = world.call(Method::POST, ORDER, header, Some(body)).await;
        let made = Temporary::of(&made);
        assert_eq!(made.0.as_object().unwrap().len(), 4);
        assert_eq!(made.text("expires_at"), ends);
        assert_eq!(
            (made.text("access").len(), made.text("secret").len()),
            (20, 40)
        );
        assert!(made.works(&world).await);
    }
    // Signed with a permanent key, as newer clients do.
    let body = order(900).to_string();
    let target = format!("/identity{ORDER}");
    let request = signed_a(&world.first.demo, Method::POST, &target, &[], &body);
    let made = Temporary::of(&world.send(request).await);
    assert!(made.works(&world).await);
}

#[tokio::test]
async fn what_is_not_understood_or_comes_without_a_credential_is_refused() {
    let world = World::new().await;
    let token = world.token(&world.first.demo).await;
    for body in [
        json!({}),
        identity(&json!({ "methods": [] })),
        identity(&json!({ "methods": ["password"] })),
        identity(&json!({ "methods": ["token", "totp"] })),
        identity(&json!({ "methods": ["assume_role"], "assume_role": { "agency_name": "a" } })),
        // What would narrow the key's rights is not passed over.
        identity(&json!({ "methods": ["token"], "policy": { "Version": "1.1", "Statement": [] } })),
        json!({ "auth": { "identity": { "methods": ["token"] }, "scope": { "project": {} } } }),
        order(899),
        order(86_401),
        identity(&json!({ "methods": ["token"], "token": { "duration_seconds": -1 } })),
        identity(&json!({ "methods": ["token"], "token": { "duration_seconds": "an hour" } })),
    ] {
        let refused = world.call(Method::POST, ORDER, Some(&token), Some(body));
        refused.await.assert_is_error(StatusCode::BAD_REQUEST);
    }
    let with = |id: &str| identity(&json!({ "methods": ["token"], "token": { "id": id } }));
    for (header, body) in [
        (None, None),
        (None, Some(json!([]))),
        (None, Some(order(900))),
        (None, Some(with("calo_other"))),
        (None, Some(with(""))),
        (Some("calo_other"), Some(with(&token))),
        (Some(""), Some(with(&token))),
    ] {
        let refused = world.call(Method::POST, ORDER, header, body).await;
        refused.assert_is_error(StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_key_is_good_with_its_own_security_token_alone() {
    let world = World::new().await;
    let token = world.token(&world.first.demo).await;
    let key = Temporary::by(&world, &token, 900).await;
    let other = Temporary::by(&world, &token, 900).await;
    assert!(key.works(&world).await);
    let own = key.text("securitytoken");
    let longer = format!("{own}0");
    let upper = own.to_uppercase();
    let spaced = format!("{own} {own}");
    for wrong in [
        "",
        "x",
        other.text("securitytoken"),
        &longer,
        &upper,
        &spaced,
        &token,
    ] {
        for request in key.requests_with(PROJECTS, &[("x-security-token", wrong)]) {
            let refused = world.send(request).await;
            refused.assert_is_error(StatusCode::UNAUTHORIZED);
        }
    }
    let twice = [("x-security-token", own), ("x-security-token", own)];
    for headers in [&[][..], &twice] {
        for request in key.requests_with(PROJECTS, headers) {
            let refused = world.send(request).await;
            refused.assert_is_error(StatusCode::UNAUTHORIZED);
        }
    }
    // It is no token, and no permanent key comes with one.
    let refused = world.get("/v3/auth/projects", own).await;
    refused.assert_is_error(StatusCode::UNAUTHORIZED);
    let demo = &world.first.demo;
    for (token, status) in [(own, 401), ("x", 401), ("", 200)] {
        let headers = [("x-security-token", token)];
        let request = signed_a(demo, Method::GET, PROJECTS, &headers, "");
        assert_eq!(world.send(request).await.status, status);
        let request = signed_b(demo, Method::GET, PROJECTS, &headers, "");
        assert_eq!(world.send(request).await.status, status);
    }
    // Nor is it good under another secret.
    let forged = Key {
        access: key.text("access"),
        secret: other.text("secret"),
    };
    let headers = [("x-security-token", own)];
    let request = signed_a(forged, Method::GET, PROJECTS, &headers, "");
    let refused = world.send(request).await;
    refused.assert_is_error(StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_key_ends_with_its_time() {
    let world = World::new().await;
    let token = world.token(&world.first.demo).await;
    let key = Temporary::by(&world, &token, 900).await;
    world.advance(899);
    assert!(key.works(&world).await);
    world.advance(1);
    assert!(!key.works(&world).await);
    let permanent = signed_a(&world.first.demo, Method::GET, PROJECTS, &[], "");
    assert_eq!(world.send(permanent).await.status, 200);
}

#[tokio::test]
async fn a_key_is_good_for_the_scope_that_it_was_got_in_and_for_no_other() {
    let world = World::new().await;
    let admin = &world.first.admin;
    // The administrator has a role in both projects, on the domain and on the system.
    let token = world.token(admin).await;
    let key = Temporary::by(&world, &token, 900).await;
    let own = ("x-security-token", key.text("securitytoken"));
    let demo = world.first.demo.project.id.as_str();
    for (asked, status) in [
        (("x-project-id", admin.project.id.as_str()), 200),
        (("x-project-id", demo), 403),
        (("x-domain-id", "default"), 403),
        (("x-project-id", "none"), 403),
    ] {
        for request in key.requests_with(PROJECTS, &[own, asked]) {
            assert_eq!(world.send(request).await.status, status, "{asked:?}");
        }
    }
    // What it is signed for is where it acts: the trail's line has the key's project.
    let body = json!({ "name": "research" }).to_string();
    let headers = [("content-type", "application/json"), own];
    let path = "/admin/v1/enterprise-projects";
    let request = signed_b(key.key(), Method::POST, path, &headers, &body);
    assert_eq!(world.send(request).await.status, 201);
    let [request, _] = key.requests("/admin/v1/audit");
    let trail = world.send(request).await.body;
    let line = &trail["events"][0];
    assert_eq!(line["trace_name"], "createEnterpriseProject");
    assert_eq!(line["project_id"], admin.project.id.as_str());
    assert_eq!(trail["events"][1]["trace_name"], "createTemporaryAccessKey");
    for hidden in ["secret", "securitytoken"] {
        assert!(!trail.to_string().contains(key.text(hidden)));
    }
}

#[tokio::test]
async fn a_key_ends_when_its_users_tokens_do_and_not_with_the_token_that_got_it() {
    let world = World::new().await;
    let (demo, admin) = (&world.first.demo, &world.first.admin);
    let by = world.token(admin).await;
    let call = async |method, path: &str, body| world.call(method, path, Some(&by), body).await;
    let user = format!("/v3/users/{}", demo.user.id);
    let project = format!("/v3/projects/{}", demo.project.id);
    let roles = format!("{project}/users/{}/roles", demo.user.id);
    let listed = call(Method::GET, &roles, None).await;
    let role = listed.body["roles"][0]["id"].as_str().unwrap().to_owned();
    let role = format!("{roles}/{role}");
    let switch = |kind: &str, on: bool| Some(json!({ kind: { "enabled": on } }));
    for (path, ends, mends) in [
        (
            &user,
            (Method::PATCH, switch("user", false)),
            (Method::PATCH, switch("user", true)),
        ),
        (
            &project,
            (Method::PATCH, switch("project", false)),
            (Method::PATCH, switch("project", true)),
        ),
        (&role, (Method::DELETE, None), (Method::PUT, None)),
    ] {
        let key = Temporary::by(&world, &world.token(demo).await, 900).await;
        assert!(key.works(&world).await);
        for (method, body) in [ends, mends] {
            assert!(call(method, path, body).await.status < 300);
            assert!(!key.works(&world).await, "{path}");
        }
    }
    let token = world.token(demo).await;
    let key = Temporary::by(&world, &token, 900).await;
    let logout = Request::builder()
        .method(Method::DELETE)
        .uri("/identity/v3/auth/tokens")
        .header("x-auth-token", &token)
        .header("x-subject-token", &token);
    let logout = world.send(logout.body(Body::empty()).unwrap()).await;
    assert_eq!(logout.status, 204);
    assert!(key.works(&world).await);
    let permanent = format!("{user}/credentials/OS-EC2/{}", demo.access_key.access);
    let removed = call(Method::DELETE, &permanent, None).await;
    assert_eq!(removed.status, 204);
    assert!(!key.works(&world).await);
    let key = Temporary::by(&world, &world.token(demo).await, 900).await;
    let password = json!({ "user": { "password": "another" } });
    let changed = call(Method::PATCH, &user, Some(password)).await;
    assert_eq!(changed.status, 200);
    assert!(!key.works(&world).await);
}

#[tokio::test]
async fn a_key_makes_nothing_that_outlives_it() {
    let world = World::new().await;
    let admin = &world.first.admin;
    let token = world.token(admin).await;
    let key = Temporary::by(&world, &token, 1200).await;
    let headers = [
        ("content-type", "application/json"),
        ("x-security-token", key.text("securitytoken")),
    ];
    let send = async |method, target: &str, body: Value| {
        let body = body.to_string();
        let request = signed_a(key.key(), method, target, &headers, &body);
        world.send(request).await
    };
    let own = format!("/identity/v3/users/{}/credentials/OS-EC2", admin.user.id);
    for (method, path, body) in [
        (Method::POST, own.clone(), json!({})),
        (
            Method::DELETE,
            format!("{own}/{}", admin.access_key.access),
            json!({}),
        ),
        (
            Method::POST,
            "/identity/v3/users".to_owned(),
            json!({ "user": { "name": "ada", "password": "p" } }),
        ),
        (
            Method::PATCH,
            format!("/identity/v3/users/{}", admin.user.id),
            json!({ "user": { "password": "p" } }),
        ),
        (
            Method::POST,
            "/identity/v3/roles".to_owned(),
            json!({ "role": { "name": "r" } }),
        ),
    ] {
        let refused = send(method, &path, body).await;
        refused.assert_is_error(StatusCode::FORBIDDEN);
    }
    // Its end stays, whatever is asked for, and through any number of keys.
    let order_path = format!("/identity{ORDER}");
    let next = Temporary::of(&send(Method::POST, &order_path, order(86_400)).await);
    assert_eq!(next.text("expires_at"), key.text("expires_at"));
    assert!(next.works(&world).await);
    let headers = [("x-security-token", next.text("securitytoken"))];
    let body = order(86_400).to_string();
    let request = signed_b(next.key(), Method::POST, &order_path, &headers, &body);
    let third = Temporary::of(&world.send(request).await);
    assert_eq!(third.text("expires_at"), key.text("expires_at"));
    // No login by a signature: a token can be got by a password or a token alone.
    let [request, _] = key.requests("/identity/v3/auth/tokens");
    world
        .send(request)
        .await
        .assert_is_error(StatusCode::BAD_REQUEST);
    let listed = world
        .get(own.strip_prefix("/identity").unwrap(), &token)
        .await;
    assert_eq!(listed.body["credentials"].as_array().unwrap().len(), 1);
}
