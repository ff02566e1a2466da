//! Grants and tags on the wire.

use calotype_tests::{Answer, Client, Server, client};
use serde_json::{Value, json};

fn grant(by: &Client, key: &str, to: &str, operations: &[&str]) -> Answer {
    let body = json!({"key_id": key, "grantee_principal": to, "operations": operations});
    by.kms("create-grant", body)
}

fn grant_id(answer: Answer) -> String {
    client::text(&answer.expect(200).json()["grant_id"])
}

#[test]
fn a_grant_lets_another_projects_user_do_what_it_says_until_it_ends() {
    let server = Server::with_own_keys();
    let owner = server.user();
    let other = server.admin().new_project("other", "member");
    let key = owner.create_key("k");
    let made = owner.kms(
        "create-datakey",
        json!({"key_id": key, "datakey_length": 512}),
    );
    let made = made.expect(200).json();
    let open = || {
        let body = json!({"key_id": key, "cipher_text": made["cipher_text"],
            "datakey_cipher_length": 64});
        other.kms("decrypt-datakey", body)
    };
    open().kms_refused(403, "KMS.0306");
    let body = json!({"key_id": key, "grantee_principal": other.user(), "name": "g1",
        "operations": ["describe-key", "decrypt-datakey"],
        "retiring_principal": other.user(), "grantee_principal_type": "user"});
    let id = grant_id(owner.kms("create-grant", body));
    assert_eq!(id.len(), 64);
    assert_eq!(open().expect(200).json()["data_key"], made["plain_text"]);
    assert_eq!(other.describe_key(&key)["key_alias"], "k");
    let body = json!({"key_id": key, "datakey_length": 512});
    other
        .kms("create-datakey", body)
        .kms_refused(403, "KMS.0306");
    other
        .kms("disable-key", json!({"key_id": key}))
        .kms_refused(403, "KMS.0306");

    let listed = owner.kms(
        "list-grants",
        json!({"key_id": key, "limit": "", "marker": ""}),
    );
    let listed = listed.expect(200).json();
    let created = client::text(&listed["grants"][0]["creation_date"]);
    assert_eq!(created.len(), 13);
    let wanted = json!({
        "grants": [{"key_id": key, "grant_id": id, "grantee_principal": other.user(),
            "grantee_principal_type": "user", "operations": ["describe-key", "decrypt-datakey"],
            "issuing_principal": owner.user(), "creation_date": created, "name": "g1",
            "retiring_principal": other.user()}],
        "next_marker": "", "truncated": "false", "total": 1,
    });
    assert_eq!(listed, wanted);
    other
        .kms("list-grants", json!({"key_id": key}))
        .kms_refused(403, "KMS.0306");
    let retirable = other
        .kms("list-retirable-grants", json!({}))
        .expect(200)
        .json();
    assert_eq!(retirable, wanted);
    assert_eq!(
        owner.kms("list-retirable-grants", json!({})).json()["total"],
        0
    );

    let this = json!({"key_id": key, "grant_id": id});
    assert_eq!(
        other.kms("retire-grant", this.clone()).expect(200).json(),
        json!({})
    );
    open().kms_refused(403, "KMS.0306");
    owner.kms("revoke-grant", this).kms_refused(400, "KMS.2501");

    let id = grant_id(grant(&owner, &key, "default", &["describe-key"]));
    let this = json!({"key_id": key, "grant_id": id});
    other
        .kms("describe-key", json!({"key_id": key}))
        .kms_refused(403, "KMS.0306");
    let elsewhere = owner.create_key("elsewhere");
    let wrong = json!({"key_id": elsewhere, "grant_id": id});
    owner
        .kms("revoke-grant", wrong)
        .kms_refused(400, "KMS.2502");
    owner.kms("revoke-grant", this).expect(200);
}

#[test]
fn a_grant_to_a_domain_lets_all_of_its_users_in_where_the_service_knows_them() {
    let server = Server::embedded();
    let owner = server.user();
    let other = server.admin().new_project("other", "member");
    let key = owner.create_key("k");
    other
        .kms("describe-key", json!({"key_id": key}))
        .kms_refused(403, "KMS.0306");
    let made = json!({"key_id": key, "datakey_length": 512});
    let made = owner.kms("create-datakey", made).expect(200).json();
    let body = json!({"key_id": key, "grantee_principal": "default",
        "grantee_principal_type": "domain", "operations": ["describe-key", "decrypt-datakey"]});
    let id = grant_id(owner.kms("create-grant", body));
    assert_eq!(other.describe_key(&key)["key_alias"], "k");
    let sealed = json!({"key_id": key, "cipher_text": made["cipher_text"],
        "datakey_cipher_length": 64});
    let opened = other.kms("decrypt-datakey", sealed).expect(200).json();
    assert_eq!(opened["data_key"], made["plain_text"]);
    let this = json!({"key_id": key, "grant_id": id});
    owner.kms("revoke-grant", this).expect(200);
    other
        .kms("describe-key", json!({"key_id": key}))
        .kms_refused(403, "KMS.0306");
}

#[test]
fn a_grant_that_breaks_a_rule_is_refused_with_its_code() {
    let server = Server::with_own_keys();
    let owner = server.user();
    let key = owner.create_key("k");
    let with = |field: &str, value: Value| {
        let mut body =
            json!({"key_id": key, "grantee_principal": "u9", "operations": ["describe-key"]});
        body[field] = value;
        owner.kms("create-grant", body)
    };
    for (field, value, code) in [
        ("grantee_principal", Value::Null, "KMS.0204"),
        ("grantee_principal", json!(""), "KMS.2402"),
        ("grantee_principal", json!("a-b"), "KMS.2402"),
        ("grantee_principal", json!("a".repeat(65)), "KMS.2402"),
        ("retiring_principal", json!("a b"), "KMS.2402"),
        ("operations", Value::Null, "KMS.0204"),
        ("operations", json!([]), "KMS.0204"),
        ("operations", json!("describe-key"), "KMS.0308"),
        ("operations", json!(["decrypt-data-key"]), "KMS.0308"),
        ("operations", json!([7]), "KMS.0308"),
        ("operations", json!(["create-grant"]), "KMS.2401"),
        ("name", json!("a b"), "KMS.0308"),
        ("grantee_principal_type", json!("group"), "KMS.0308"),
    ] {
        with(field, value.clone()).kms_refused(400, code);
    }
    for number in 0..100 {
        grant(&owner, &key, &format!("u{number}"), &["describe-key"]).expect(200);
    }
    grant(&owner, &key, "u100", &["describe-key"]).kms_refused(400, "KMS.2404");
    let page = owner.key_call("list-grants", &key);
    assert_eq!(
        page["grants"].as_array().map(Vec::len),
        Some(100),
        "in one page"
    );
    for (grant, code) in [("x".to_owned(), "KMS.2501"), ("f".repeat(64), "KMS.2501")] {
        for call in ["revoke-grant", "retire-grant"] {
            let body = json!({"key_id": key, "grant_id": grant});
            owner.kms(call, body).kms_refused(400, code);
        }
    }
}

#[test]
fn tags_are_added_changed_found_and_removed() {
    let server = Server::with_own_keys();
    let client = server.user();
    let (key, other) = (client.create_key("disk-1"), client.create_key("Disk-2"));
    let tags = |key: &str| client.kms_get(&format!("{key}/tags")).expect(200).json();
    let none = json!({"tags": [], "sys_tags": [], "existTagsNum": 0});
    assert_eq!(tags(&key), none);
    let add = |key: &str, tag: Value| client.kms(&format!("{key}/tags"), json!({ "tag": tag }));
    let change = |body: Value| client.kms(&format!("{key}/tags/action"), body);
    let added = add(&key, json!({"key": "a", "value": "1"})).expect(204);
    assert!(added.bytes.is_empty());
    add(&other, json!({"key": "a"})).expect(204);
    let body = json!({"action": "create", "tags": [{"key": "b/c", "value": "2"}, {"key": "a", "value": "3"}]});
    change(body).expect(204);
    let both = json!({"tags": [{"key": "a", "value": "3"}, {"key": "b/c", "value": "2"}],
        "sys_tags": [], "existTagsNum": 2});
    assert_eq!(tags(&key), both);
    let project = client.kms_get("tags").expect(200).json();
    let wanted =
        json!({"tags": [{"key": "a", "values": ["", "3"]}, {"key": "b/c", "values": ["2"]}]});
    assert_eq!(project, wanted);

    let find = |body: Value| client.kms("resource_instances/action", body);
    let found = find(json!({"action": "filter", "tags": [{"key": "a", "values": ["3", "4"]}]}));
    let found = found.expect(200).json();
    assert_eq!(found["total_count"], 1);
    assert_eq!(found["resources"][0]["resource_id"], key);
    assert_eq!(found["resources"][0]["resource_name"], "disk-1");
    assert_eq!(
        found["resources"][0]["resource_detail"],
        client.describe_key(&key)
    );
    assert_eq!(found["resources"][0]["tags"], both["tags"]);
    let named = json!([{"key": "resource_name", "value": "DISK"}]);
    let page = find(json!({"action": "filter", "matches": named, "limit": "1", "offset": 1}));
    let page = page.expect(200).json();
    assert_eq!(
        (&page["total_count"], &page["resources"][0]["resource_id"]),
        (&json!(2), &json!(key))
    );
    let counted = find(json!({"action": "count", "matches": named}))
        .expect(200)
        .json();
    assert_eq!(counted, json!({"resources": [], "total_count": 2}));
    for (body, code) in [
        (json!({}), "KMS.0204"),
        (json!({"action": "list"}), "KMS.0404"),
        (json!({"action": "filter", "limit": 0}), "KMS.1601"),
        (json!({"action": "filter", "limit": 1001}), "KMS.1601"),
        (json!({"action": "filter", "offset": "x"}), "KMS.0417"),
        (json!({"action": "count", "offset": 1}), "KMS.0418"),
        (json!({"action": "filter", "tags": [{}]}), "KMS.0412"),
        (
            json!({"action": "filter", "matches": [{"key": "x", "value": "y"}]}),
            "KMS.0415",
        ),
    ] {
        find(body).kms_refused(400, code);
    }

    let long = "x".repeat(256);
    for (tag, code) in [
        (json!({"key": ""}), "KMS.0411"),
        (json!({"key": &long[..129]}), "KMS.0411"),
        (json!({"key": "a*"}), "KMS.0406"),
        (json!({"key": "a\u{1}"}), "KMS.0406"),
        (json!({"value": "x"}), "KMS.0406"),
        (json!({"key": "k", "value": long}), "KMS.0410"),
        (json!({"key": "k", "value": "a=b"}), "KMS.0405"),
        (json!({"key": "k", "value": 7}), "KMS.0405"),
        (json!([]), "KMS.0412"),
    ] {
        add(&key, tag).kms_refused(400, code);
    }
    client
        .kms(&format!("{key}/tags"), json!({}))
        .kms_refused(400, "KMS.0204");
    change(json!({"action": "create", "tags": []})).kms_refused(400, "KMS.0401");
    change(json!({"action": "other", "tags": []})).kms_refused(400, "KMS.0404");
    let many: Vec<Value> = (0..19).map(|n| json!({"key": format!("t{n}")})).collect();
    change(json!({"action": "create", "tags": many})).kms_refused(400, "KMS.0409");
    assert_eq!(tags(&key), both, "refusals change nothing");

    let path = |tag: &str| format!("/kms/v1.0/{}/kms/{key}/tags/{tag}", client.project());
    client.delete(&path("b%2Fc")).expect(204);
    client.delete(&path("b%2Fc")).kms_refused(404, "KMS.0416");
    change(
        json!({"action": "delete", "tags": [{"key": "a", "value": "whatever"}, {"key": "none"}]}),
    )
    .expect(204);
    assert_eq!(tags(&key), none);
}
