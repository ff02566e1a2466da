//! The identity API, spoken to as its clients do.

mod audit;
mod temporary_keys;
mod world;

use http::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::json;

use world::{BASE, World, login, signed_a, signed_b};

/// The endpoints that need no credential.
const PUBLIC: [(&str, &str); 5] = [
    ("GET", "/identity/"),
    ("GET", "/identity"),
    ("GET", "/identity/v3/"),
    ("GET", "/identity/v3"),
    ("POST", "/identity/v3/auth/tokens"),
];

/// Every endpoint, with `x` in place of each parameter.
fn endpoints() -> Vec<(String, String)> {
    let document = serde_json::to_value(router_document()).unwrap();
    let mut endpoints = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let parts: Vec<&str> = path
                .split('/')
                .map(|part| if part.starts_with('{') { "x" } else { part })
                .collect();
            endpoints.push((method.to_uppercase(), parts.join("/")));
        }
    }
    endpoints
}

fn router_document() -> utoipa::openapi::OpenApi {
    super::routes().split_for_parts().1
}

#[tokio::test]
async fn discovery_needs_no_credential() {
    let world = World::new().await;
    for path in ["", "/"] {
        let answer = world.call(Method::GET, path, None, None).await;
        assert_eq!(answer.status, 300);
        let version = &answer.body["versions"]["values"][0];
        assert_eq!(version["status"], "stable");
        let link = &version["links"][0];
        assert_eq!(link["href"], format!("{BASE}/identity/v3/"));
    }
    for path in ["/v3", "/v3/"] {
        let answer = world.call(Method::GET, path, None, None).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body["version"]["id"], "v3.14");
    }
}

#[tokio::test]
async fn every_other_endpoint_wants_a_good_credential() {
    let world = World::new().await;
    let endpoints = endpoints();
    assert!(endpoints.len() >= 33, "{}", endpoints.len());
    for (method, path) in endpoints {
        if PUBLIC.contains(&(method.as_str(), path.as_str())) {
            continue;
        }
        // What is served under `/admin` answers in that API's form.
        let Some(path) = path.strip_prefix("/identity") else {
            continue;
        };
        let method: Method = method.parse().unwrap();
        for token in [None, Some("x"), Some(&*format!("calo_{}", "0".repeat(64)))] {
            let answer = world.call(method.clone(), path, token, None).await;
            answer.assert_is_error(StatusCode::UNAUTHORIZED);
            let challenge = answer.headers.get("www-authenticate").unwrap();
            assert_eq!(challenge, &format!("Keystone uri=\"{BASE}/identity\""));
        }
    }
}

#[tokio::test]
async fn a_member_may_administer_nothing() {
    let world = World::new().await;
    let token = world.token(&world.first.demo).await;
    let project = json!({ "project": { "name": "p" } });
    let user = json!({ "user": { "name": "u" } });
    for (method, path, body) in [
        (Method::GET, "/v3/roles", None),
        (
            Method::POST,
            "/v3/roles",
            Some(json!({ "role": { "name": "r" } })),
        ),
        (Method::GET, "/v3/roles/x", None),
        (Method::DELETE, "/v3/roles/x", None),
        (Method::GET, "/v3/projects/x/users/x/roles", None),
        (Method::POST, "/v3/projects", Some(project)),
        (Method::POST, "/v3/users", Some(user)),
        (Method::PATCH, "/v3/projects/x", None),
        (Method::PATCH, "/v3/users/x", None),
        (Method::DELETE, "/v3/projects/x", None),
        (Method::DELETE, "/v3/users/x", None),
        (Method::PUT, "/v3/projects/x/users/x/roles/x", None),
        (Method::DELETE, "/v3/projects/x/users/x/roles/x", None),
        (Method::PUT, "/v3/domains/x/users/x/roles/x", None),
        (Method::DELETE, "/v3/domains/x/users/x/roles/x", None),
        (Method::PUT, "/v3/system/users/x/roles/x", None),
        (Method::DELETE, "/v3/system/users/x/roles/x", None),
    ] {
        let answer = world.call(method, path, Some(&token), body).await;
        answer.assert_is_error(StatusCode::FORBIDDEN);
    }
    let admin = world.token(&world.first.admin).await;
    let projects = world.get("/v3/projects", &admin).await;
    assert_eq!(projects.names("projects"), ["admin", "demo"]);
}

#[tokio::test]
async fn a_token_document_has_what_the_clients_read() {
    let world = World::new().await;
    let demo = &world.first.demo;
    let password = demo.password.expose_secret();
    let scope = json!({ "project": { "name": "demo", "domain": { "id": "default" } } });
    let answer = world.login(login("demo", password, &scope)).await;
    assert_eq!(answer.status, 201);
    let token = &answer.body["token"];
    assert_eq!(token["methods"], json!(["password"]));
    assert_eq!(token["issued_at"], "2026-11-23T20:15:00.000000Z");
    assert_eq!(token["expires_at"], "2026-11-24T20:15:00.000000Z");
    assert_eq!(token["user"]["domain"]["name"], "Default");
    assert_eq!(token["project"]["id"].as_str().unwrap().len(), 32);
    assert_eq!(token["project"]["domain"]["id"], "default");
    assert_eq!(token["roles"][0]["name"], "member");
    let image = &token["catalog"][1];
    assert_eq!(image["type"], "image");
    let interfaces = ["public", "internal", "admin"];
    for (endpoint, interface) in image["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .zip(interfaces)
    {
        assert_eq!(endpoint["interface"], interface);
        assert_eq!(endpoint["url"], BASE);
        assert_eq!(endpoint["region"], "calotype");
        assert_eq!(endpoint["region_id"], "calotype");
    }
    let identity = &token["catalog"][0]["endpoints"][0]["url"];
    assert_eq!(identity, &format!("{BASE}/identity/v3"));

    let domain = world
        .login(login(
            "demo",
            password,
            &json!({ "domain": { "name": "Default" } }),
        ))
        .await;
    assert_eq!(domain.body["token"]["domain"]["id"], "default");
    let unscoped = world
        .login(login("demo", password, &json!("unscoped")))
        .await;
    assert_eq!(unscoped.status, 201);
    assert!(unscoped.body["token"].get("catalog").is_none());
    let admin = world.first.admin.password.expose_secret();
    let system = world
        .login(login("admin", admin, &json!({ "system": { "all": true } })))
        .await;
    assert_eq!(system.body["token"]["system"]["all"], true);
}

#[tokio::test]
async fn a_login_that_is_wrong_or_malformed_says_so_and_no_more() {
    let world = World::new().await;
    let scope = json!({ "project": { "name": "demo", "domain": { "id": "default" } } });
    let wrong = world.login(login("demo", "canary-password", &scope)).await;
    wrong.assert_is_error(StatusCode::UNAUTHORIZED);
    let password = world.first.demo.password.expose_secret();
    for foreign in [
        json!({ "project": { "id": world.first.admin.project.id } }),
        json!({ "project": { "id": "../../etc" } }),
        json!({ "domain": { "name": "none" } }),
        json!({ "system": { "all": true } }),
    ] {
        let answer = world.login(login("demo", password, &foreign)).await;
        answer.assert_is_error(StatusCode::UNAUTHORIZED);
        assert_eq!(answer.body, wrong.body);
    }
    for malformed in [
        json!({}),
        json!([]),
        json!({ "auth": { "identity": { "methods": ["password"] } } }),
        json!({ "auth": { "identity": { "methods": ["password"], "password": "canary-password" } } }),
        login("demo", "canary-password", &json!({ "project": {} })),
    ] {
        let answer = world.login(malformed).await;
        answer.assert_is_error(StatusCode::BAD_REQUEST);
        assert!(!answer.body.to_string().contains("canary"));
    }
    let huge = login("demo", &"x".repeat(70_000), &scope);
    let answer = world.login(huge).await;
    answer.assert_is_error(StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_token_is_exchanged_validated_and_revoked() {
    let world = World::new().await;
    let token = world.token(&world.first.demo).await;
    let identity = json!({ "methods": ["token"], "token": { "id": token } });
    let again = world
        .login(json!({ "auth": { "identity": identity } }))
        .await;
    assert_eq!(again.status, 201);
    let other = again.token();

    let validate = async |method: Method, caller: &str, subject: &str| {
        let request = http::Request::builder()
            .method(method)
            .uri("/identity/v3/auth/tokens")
            .header("x-auth-token", caller)
            .header("x-subject-token", subject);
        world
            .send(request.body(axum::body::Body::empty()).unwrap())
            .await
    };
    let own = validate(Method::GET, &token, &other).await;
    assert_eq!(own.status, 200);
    assert_eq!(own.body["token"]["user"]["name"], "demo");
    assert_eq!(own.token(), other);
    let head = validate(Method::HEAD, &token, &other).await;
    assert_eq!((head.status, head.body), (200, serde_json::Value::Null));

    let admin = world.token(&world.first.admin).await;
    let foreign = validate(Method::GET, &token, &admin).await;
    foreign.assert_is_error(StatusCode::FORBIDDEN);
    assert_eq!(validate(Method::GET, &admin, &token).await.status, 200);

    assert_eq!(validate(Method::DELETE, &token, &other).await.status, 204);
    let gone = validate(Method::GET, &admin, &other).await;
    gone.assert_is_error(StatusCode::NOT_FOUND);
    let refused = world.get("/v3/auth/projects", &other).await;
    refused.assert_is_error(StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_project_that_a_user_may_not_see_by_its_name_is_forbidden_whether_it_is_there_or_not() {
    let world = World::new().await;
    let admin = world.token(&world.first.admin).await;
    let demo = world.token(&world.first.demo).await;
    for name in ["admin", "no-such-project"] {
        let path = format!("/v3/projects?name={name}");
        let answer = world.get(&path, &demo).await;
        answer.assert_is_error(StatusCode::FORBIDDEN);
    }
    let own = world.get("/v3/projects?name=demo", &demo).await;
    assert_eq!(own.names("projects"), ["demo"]);
    let none = world.get("/v3/projects?name=no-such-project", &admin).await;
    assert_eq!(none.status, 200);
    assert!(none.names("projects").is_empty());
}

#[tokio::test]
async fn a_role_is_made_given_shown_and_removed_from_all_who_have_it() {
    let world = World::new().await;
    let admin = world.token(&world.first.admin).await;
    let demo = world.token(&world.first.demo).await;
    let call = async |method, path: &str, body| world.call(method, path, Some(&admin), body).await;
    let body = json!({ "role": { "name": "auditor" } });
    let made = call(Method::POST, "/v3/roles", Some(body.clone())).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.body["role"]["name"], "auditor");
    call(Method::POST, "/v3/roles", Some(body))
        .await
        .assert_is_error(StatusCode::CONFLICT);
    let role = format!("/v3/roles/{}", made.body["role"]["id"].as_str().unwrap());
    assert_eq!(call(Method::GET, &role, None).await.body, made.body);

    let id = |list: &serde_json::Value| list[0]["id"].as_str().unwrap().to_owned();
    let users = call(Method::GET, "/v3/users?name=demo", None).await;
    let projects = call(Method::GET, "/v3/projects?name=demo", None).await;
    let (user, project) = (id(&users.body["users"]), id(&projects.body["projects"]));
    let has = format!("/v3/projects/{project}/users/{user}/roles");
    let gives = format!("{has}/{}", made.body["role"]["id"].as_str().unwrap());
    assert_eq!(call(Method::PUT, &gives, None).await.status, 204);
    assert_eq!(
        call(Method::GET, &has, None).await.names("roles"),
        ["auditor", "member", "reader"]
    );
    assert_eq!(world.get("/v3/auth/projects", &demo).await.status, 200);
    assert_eq!(call(Method::DELETE, &role, None).await.status, 204);
    assert_eq!(
        call(Method::GET, &has, None).await.names("roles"),
        ["member", "reader"]
    );
    world
        .get("/v3/auth/projects", &demo)
        .await
        .assert_is_error(StatusCode::UNAUTHORIZED);
    for method in [Method::GET, Method::DELETE] {
        call(method, &role, None)
            .await
            .assert_is_error(StatusCode::NOT_FOUND);
    }
    for path in [
        format!("/v3/projects/{project}/users/x/roles"),
        format!("/v3/projects/x/users/{user}/roles"),
    ] {
        call(Method::GET, &path, None)
            .await
            .assert_is_error(StatusCode::NOT_FOUND);
    }
    let roles = call(Method::GET, "/v3/roles", None).await;
    for role in roles.body["roles"].as_array().unwrap() {
        let path = format!("/v3/roles/{}", role["id"].as_str().unwrap());
        call(Method::DELETE, &path, None)
            .await
            .assert_is_error(StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn an_administrator_makes_a_user_that_works_in_its_project_and_removes_both() {
    let world = World::new().await;
    let admin = world.token(&world.first.admin).await;
    let call = async |method, path: &str, body| world.call(method, path, Some(&admin), body).await;

    let domains = call(Method::GET, "/v3/domains?name=Default", None).await;
    assert_eq!(domains.names("domains"), ["Default"]);
    let roles = call(Method::GET, "/v3/roles?name=member", None).await;
    assert_eq!(roles.names("roles"), ["member"]);
    let role = roles.body["roles"][0]["id"].as_str().unwrap();
    let body =
        json!({ "project": { "name": "tempest-1", "domain_id": "default", "description": "d" } });
    let project = call(Method::POST, "/v3/projects", Some(body.clone())).await;
    assert_eq!(project.status, 201);
    let taken = call(Method::POST, "/v3/projects", Some(body)).await;
    taken.assert_is_error(StatusCode::CONFLICT);
    let project = project.body["project"]["id"].as_str().unwrap();
    let body = json!({ "user": { "name": "tempest-u", "domain_id": "default", "password": "pw-1", "email": "e" } });
    let user = call(Method::POST, "/v3/users", Some(body)).await;
    assert_eq!(user.status, 201);
    assert!(!user.body.to_string().contains("pw-1"));
    let user = user.body["user"]["id"].as_str().unwrap();

    let scope = json!({ "project": { "id": project } });
    let body = login("tempest-u", "pw-1", &scope);
    world
        .login(body.clone())
        .await
        .assert_is_error(StatusCode::UNAUTHORIZED);
    let path = format!("/v3/projects/{project}/users/{user}/roles/{role}");
    assert_eq!(call(Method::PUT, &path, None).await.status, 204);
    let token = world.login(body.clone()).await.token();
    assert_eq!(
        world.get("/v3/projects", &token).await.names("projects"),
        ["tempest-1"]
    );

    assert_eq!(call(Method::DELETE, &path, None).await.status, 204);
    world
        .get("/v3/projects", &token)
        .await
        .assert_is_error(StatusCode::UNAUTHORIZED);
    call(Method::DELETE, &path, None)
        .await
        .assert_is_error(StatusCode::NOT_FOUND);
    for path in [
        format!("/v3/system/users/{user}/roles/{role}"),
        format!("/v3/domains/default/users/{user}/roles/{role}"),
    ] {
        assert_eq!(call(Method::PUT, &path, None).await.status, 204);
        assert_eq!(call(Method::DELETE, &path, None).await.status, 204);
    }

    let path = format!("/v3/users/{user}");
    let off = json!({ "user": { "enabled": false } });
    let off = call(Method::PATCH, &path, Some(off)).await;
    assert_eq!(off.body["user"]["enabled"], false);
    assert_eq!(call(Method::DELETE, &path, None).await.status, 204);
    call(Method::DELETE, &path, None)
        .await
        .assert_is_error(StatusCode::NOT_FOUND);
    let path = format!("/v3/projects/{project}");
    assert_eq!(call(Method::DELETE, &path, None).await.status, 204);
    call(Method::GET, &path, None)
        .await
        .assert_is_error(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_user_sees_itself_and_what_is_its_own() {
    let world = World::new().await;
    let (demo, admin) = (&world.first.demo, &world.first.admin);
    let token = world.token(demo).await;
    assert_eq!(
        world.get("/v3/users", &token).await.names("users"),
        ["demo"]
    );
    assert!(
        world
            .get("/v3/users?name=admin", &token)
            .await
            .names("users")
            .is_empty()
    );
    assert_eq!(
        world
            .get("/v3/projects?name=demo", &token)
            .await
            .names("projects"),
        ["demo"]
    );
    world
        .get("/v3/projects?name=admin", &token)
        .await
        .assert_is_error(StatusCode::FORBIDDEN);
    assert_eq!(
        world
            .get("/v3/auth/domains?name=Default", &token)
            .await
            .names("domains"),
        ["Default"]
    );
    assert_eq!(world.get("/v3/domains/default", &token).await.status, 200);
    let own = format!("/v3/users/{}", demo.user.id);
    assert_eq!(world.get(&own, &token).await.body["user"]["name"], "demo");
    let catalog = world.get("/v3/auth/catalog", &token).await;
    assert_eq!(catalog.body["catalog"][1]["type"], "image");
    for hidden in [
        format!("/v3/users/{}", admin.user.id),
        format!("/v3/projects/{}", admin.project.id),
        format!("/v3/users/{}/credentials/OS-EC2", admin.user.id),
        "/v3/projects/demo".to_owned(),
        "/v3/projects/%2e%2e".to_owned(),
        "/v3/domains/none".to_owned(),
    ] {
        world
            .get(&hidden, &token)
            .await
            .assert_is_error(StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn an_access_keys_secret_is_shown_once_and_the_key_ends_when_removed() {
    let world = World::new().await;
    let demo = &world.first.demo;
    let token = world.token(demo).await;
    let path = format!("/v3/users/{}/credentials/OS-EC2", demo.user.id);
    let foreign = json!({ "tenant_id": world.first.admin.project.id });
    let refused = world
        .call(Method::POST, &path, Some(&token), Some(foreign))
        .await;
    refused.assert_is_error(StatusCode::FORBIDDEN);
    let body = json!({ "tenant_id": demo.project.id });
    let made = world
        .call(Method::POST, &path, Some(&token), Some(body))
        .await;
    assert_eq!(made.status, 201);
    let secret = made.body["credential"]["secret"].as_str().unwrap();
    let listed = world.get(&path, &token).await;
    assert_eq!(listed.body["credentials"].as_array().unwrap().len(), 2);
    assert!(!listed.body.to_string().contains(secret));

    let key = &demo.access_key.access;
    let target = "/identity/v3/auth/projects";
    let signed = || signed_a(demo, Method::GET, target, &[], "");
    assert_eq!(world.send(signed()).await.status, 200);
    let path = format!("{path}/{key}");
    assert_eq!(world.get(&path, &token).await.status, 200);
    for (enabled, status) in [(false, 401), (true, 200)] {
        let body = json!({ "credential": { "enabled": enabled } });
        let set = world
            .call(Method::PATCH, &path, Some(&token), Some(body))
            .await;
        assert_eq!(set.body["credential"]["enabled"], enabled);
        assert_eq!(world.send(signed()).await.status, status);
    }
    let admin = &world.first.admin;
    let elsewhere = format!("/v3/users/{}/credentials/OS-EC2/{key}", admin.user.id);
    let admin = world.token(admin).await;
    let missed = world
        .call(Method::DELETE, &elsewhere, Some(&admin), None)
        .await;
    missed.assert_is_error(StatusCode::NOT_FOUND);
    assert_eq!(
        world
            .call(Method::DELETE, &path, Some(&token), None)
            .await
            .status,
        204
    );
    world
        .send(signed())
        .await
        .assert_is_error(StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn signed_requests_of_both_schemes_are_served() {
    let world = World::new().await;
    let (demo, admin) = (&world.first.demo, &world.first.admin);
    let target = "/identity/v3/projects?name=demo";
    let project = demo.project.id.as_str();
    for request in [
        signed_a(demo, Method::GET, target, &[], ""),
        signed_a(demo, Method::GET, target, &[("x-project-id", project)], ""),
        signed_b(demo, Method::GET, target, &[], ""),
        signed_b(demo, Method::GET, target, &[("x-project-id", project)], ""),
        signed_b(demo, Method::GET, target, &[("x-domain-id", "default")], ""),
    ] {
        let answer = world.send(request).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.names("projects"), ["demo"]);
    }
    // The body that was read for the signature reaches the handler.
    let body = r#"{"project":{"name":"signed"}}"#;
    let request = signed_b(admin, Method::POST, "/identity/v3/projects", &[], body);
    assert_eq!(world.send(request).await.body["project"]["name"], "signed");
}

#[tokio::test]
async fn a_signed_request_that_was_altered_is_refused_and_changes_nothing() {
    let world = World::new().await;
    let admin = &world.first.admin;
    let body = r#"{"project":{"name":"signed"}}"#;
    let good = || signed_a(admin, Method::POST, "/identity/v3/projects", &[], body);

    let (parts, _) = good().into_parts();
    let other_body = http::Request::from_parts(parts, axum::body::Body::from("{}"));
    let mut other_method = good();
    *other_method.method_mut() = Method::GET;
    let mut other_path = good();
    *other_path.uri_mut() = "/identity/v3/users".parse().unwrap();
    let mut late = good();
    let date = "20261123T203001Z".parse().unwrap();
    late.headers_mut().insert("x-sdk-date", date);
    let mut unsigned = good();
    let word = "UNSIGNED-PAYLOAD".parse().unwrap();
    unsigned.headers_mut().insert("x-sdk-content-sha256", word);
    for request in [other_body, other_method, other_path, late, unsigned] {
        world
            .send(request)
            .await
            .assert_is_error(StatusCode::UNAUTHORIZED);
    }
    let token = world.token(admin).await;
    let projects = world.get("/v3/projects", &token).await;
    assert_eq!(projects.names("projects"), ["admin", "demo"]);
}

#[tokio::test]
async fn the_project_that_scheme_b_leaves_unsigned_gives_no_rights_of_others() {
    let world = World::new().await;
    let demo = &world.first.demo;
    let target = "/identity/v3/auth/projects";
    let foreign = world.first.admin.project.id.as_str();
    let nowhere = "0".repeat(32);
    let mut answers = Vec::new();
    for project in [foreign, &nowhere] {
        let late = [("x-project-id", project)];
        let answer = world
            .send(signed_b(demo, Method::GET, target, &late, ""))
            .await;
        answer.assert_is_error(StatusCode::FORBIDDEN);
        answers.push(answer.body);
    }
    assert_eq!(answers.first(), answers.last());
    let twice = [
        ("x-project-id", demo.project.id.as_str()),
        ("x-project-id", foreign),
    ];
    let answer = world
        .send(signed_b(demo, Method::GET, target, &twice, ""))
        .await;
    assert_ne!(answer.status, 200);
}

#[tokio::test]
async fn what_a_client_says_about_its_own_identity_is_not_believed() {
    let world = World::new().await;
    let token = world.token(&world.first.demo).await;
    let request = http::Request::builder()
        .uri("/identity/v3/roles")
        .header("x-auth-token", &token)
        .header("x-project-id", world.first.admin.project.id.as_str())
        .header("x-user-id", world.first.admin.user.id.as_str())
        .header("x-roles", "admin")
        .header("x-is-admin-project", "True")
        .header("x-identity-status", "Confirmed");
    let answer = world
        .send(request.body(axum::body::Body::empty()).unwrap())
        .await;
    answer.assert_is_error(StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_project_whose_description_not_every_engine_can_keep_is_not_made() {
    let world = World::new().await;
    let admin = world.token(&world.first.admin).await;
    let body = json!({ "project": { "name": "p", "description": "a\u{0}b" } });
    let answer = world
        .call(Method::POST, "/v3/projects", Some(&admin), Some(body))
        .await;
    answer.assert_is_error(StatusCode::BAD_REQUEST);
    let projects = world.get("/v3/projects", &admin).await;
    assert_eq!(projects.names("projects"), ["admin", "demo"]);
}
