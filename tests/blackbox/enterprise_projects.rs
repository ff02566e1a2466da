//! Roles on enterprise projects, from their being given to their being taken away, as an administrator and a client meet
//! them. What they permit is proved row by row beside the API.

use calotype_tests::client::text;
use calotype_tests::{Client, Server};
use serde_json::{Value, json};

/// A user without any role, and the path under which roles on an enterprise project are given to it.
fn newcomer(admin: &Client, group: &str, project: &str) -> String {
    let user = json!({"name": "ada", "domain_id": "default", "password": "a phrase of ada's"});
    let made = admin.post("/identity/v3/users", json!({ "user": user }));
    let made = text(&made.expect(201).json()["user"]["id"]);
    format!("/admin/v1/enterprise-projects/{group}/projects/{project}/users/{made}/roles")
}

#[test]
fn a_role_on_an_enterprise_project_opens_its_images_until_it_is_taken_away() {
    let mut server = Server::embedded();
    let (admin, owner) = (server.admin(), server.user());
    let name = server.clouds().get("project_name");
    let group = admin.post("/admin/v1/enterprise-projects", json!({"name": "finance"}));
    let group = text(&group.expect(201).json()["id"]);
    let inside = owner.image("inside", 1, 1000);
    let outside = owner.image("outside", 2, 1000);
    let body = json!([{"op": "replace", "path": "/enterprise_project_id", "value": group}]);
    owner
        .patch(
            &format!("/v2/cloudimages/{inside}"),
            "application/json",
            body,
        )
        .expect(200);

    let roles = newcomer(&admin, &group, owner.project());
    let role = admin
        .get("/identity/v3/roles?name=member")
        .expect(200)
        .json();
    let role = text(&role["roles"][0]["id"]);
    let one = format!("{roles}/{role}");
    for _ in 0..2 {
        admin.put(&one, Value::Null).expect(204);
    }
    let given = admin.get(&roles).expect(200).json();
    assert_eq!(given["roles"][0]["name"], "member");
    assert_eq!(given["links"]["self"], format!("{}{roles}", server.base()));
    let unknown = roles.replace(&group, "11111111-2222-4333-8444-555555555555");
    let refused = admin.put(&format!("{unknown}/{role}"), Value::Null);
    refused.refused(404, "IMG.0121");
    owner.put(&one, Value::Null).refused(403, "IMG.0026");

    let login = |server: &Server| Client::login(server.base(), "ada", "a phrase of ada's", &name);
    let ada = login(&server);
    let listed = ada.get("/v2/cloudimages").expect(200).json();
    let listed = listed["images"].as_array().expect("a list").clone();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["id"], inside);
    ada.get(&format!("/v2/images/{outside}")).expect(404);
    ada.get("/v2/images").expect(403);
    let copy = |client: &Client| {
        let body = json!({"name": "replica", "enterprise_project_id": group});
        client.copy(&inside, body).expect(200).json()
    };
    ada.job(&text(&copy(&ada)["job_id"]));
    server.restart();
    let (admin, ada) = (admin.at(server.base()), ada.at(server.base()));
    let after = ada.get("/v2/cloudimages").expect(200).json();
    assert_eq!(after["images"].as_array().map(Vec::len), Some(2));

    let before = admin.get("/admin/v1/audit?limit=100").expect(200).json();
    assert!(before.to_string().contains("\"enterprise_project\""));
    admin.delete(&one).expect(204);
    admin.delete(&one).refused(404, "IMG.0121");
    ada.get("/v2/cloudimages").expect(401);
    server.verify();
}
