//! The KMS API on the wire: what its clients send, every refusal with its code, and the states of a key.

use calotype_tests::{Client, Options, Server, client, config};
use reqwest::Method;
use serde_json::{Value, json};

use crate::kms_data::{decrypt, encrypted};

const UNKNOWN: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
#[test]
fn a_key_is_made_shown_and_listed_as_clients_read_it() {
    let mut server = Server::with_own_keys();
    // One clock tells when each was made.
    let client = server.user().at(server.nodes()[0].base());
    let made = client.kms(
        "create-key",
        json!({"key_alias": "k:1/_-", "key_description": "ü", "realm": "eu-de",
            "key_spec": "AES_256", "key_usage": "Encrypt_Decrypt", "origin": "kms",
            "keystore_id": "0", "enterprise_project_id": "0", "sequence": UNKNOWN,
            "key_type": "1", "key_policy": {"unknown": true}}),
    );
    let info = made.expect(200).json()["key_info"].clone();
    let key = client::text(&info["key_id"]);
    assert_eq!(info["domain_id"], "default");
    let region = server.clouds().get("region_name");
    assert_eq!(info["region_id"], region);
    let shown = client.describe_key(&key);
    let created = client::text(&shown["creation_date"]);
    assert!(
        created.len() == 13 && created.parse::<u64>().is_ok(),
        "{created}"
    );
    let wanted = json!({
        "key_id": key, "domain_id": "default", "key_alias": "k:1/_-", "realm": "eu-de",
        "key_description": "ü", "key_spec": "AES_256", "key_usage": "ENCRYPT_DECRYPT",
        "creation_date": created, "scheduled_deletion_date": "", "key_state": "2",
        "default_key_flag": "0", "key_type": "1", "expiration_time": "", "origin": "kms",
        "key_rotation_enabled": "false", "sys_enterprise_project_id": "0", "keystore_id": "0",
    });
    assert_eq!(shown, wanted);
    for name in ["alias/k:1/_-", "kms:eu-de:default:alias:k:1/_-"] {
        assert_eq!(client.describe_key(name), wanted);
    }
    assert_eq!(
        client.describe_key(&client.create_key("second"))["realm"],
        region
    );
    let listed = client.kms("list-keys", Value::Object(serde_json::Map::new()));
    let listed = listed.expect(200).json();
    assert_eq!(listed["key_details"][1], wanted, "newest first");
    assert_eq!(listed["keys"][1], key);
    let end = (
        &listed["next_marker"],
        &listed["truncated"],
        &listed["total"],
    );
    assert_eq!(end, (&json!(""), &json!("false"), &json!(2)));
}

#[test]
fn lists_are_paged_by_how_many_come_before() {
    let mut server = Server::with_own_keys();
    // One clock tells when each was made.
    let client = server.user().at(server.nodes()[0].base());
    let mut made: Vec<String> = (0..3)
        .map(|n| client.create_key(&format!("k{n}")))
        .collect();
    made.reverse();
    for as_number in [true, false] {
        let mut seen = Vec::new();
        let mut marker = String::new();
        loop {
            let limit = if as_number { json!(1) } else { json!("1") };
            let page = client.kms("list-keys", json!({"limit": limit, "marker": marker}));
            let page = page.expect(200).json();
            seen.push(client::text(&page["keys"][0]));
            marker = client::text(&page["next_marker"]);
            assert_eq!(page["truncated"] == "true", !marker.is_empty());
            assert_eq!(page["total"], 3);
            if marker.is_empty() {
                break;
            }
        }
        assert_eq!(seen, made);
    }
    client.key_call("disable-key", &made[0]);
    for (state, wanted) in [("2", 2), ("3", 1), ("4", 0), ("1", 0), ("5", 0)] {
        for state in [json!(state), json!(state.parse::<u64>().expect("a number"))] {
            let listed = client.kms("list-keys", json!({"key_state": state}));
            assert_eq!(listed.expect(200).json()["total"], wanted, "{state}");
        }
    }
    for (body, code) in [
        (json!({"limit": 0}), "KMS.1601"),
        (json!({"limit": "2001"}), "KMS.1601"),
        (json!({"limit": 1.5}), "KMS.1601"),
        (json!({"limit": "x"}), "KMS.1601"),
        (json!({"marker": -1}), "KMS.1602"),
        (json!({"marker": "-1"}), "KMS.1602"),
        (json!({"key_state": "6"}), "KMS.0308"),
    ] {
        client.kms("list-keys", body).kms_refused(400, code);
    }
    let far = client.kms("list-keys", json!({"marker": "99", "limit": 2000}));
    assert_eq!(far.expect(200).json()["keys"], json!([]));
}

#[test]
fn a_malformed_request_is_refused_with_the_code_of_what_is_wrong() {
    let server = Server::with_own_keys();
    let client = server.user();
    let key = client.create_key("k");
    let path = format!("/kms/v1.0/{}/kms/describe-key", client.project());
    let raw = |body: &str| {
        client.raw(
            Method::POST,
            &path,
            "application/json;charset=utf-8",
            body.to_owned(),
        )
    };
    raw("{").kms_refused(400, "KMS.0202");
    raw("[]").kms_refused(400, "KMS.0202");
    raw(&format!("{{\"x\":\"{}\"}}", "x".repeat(65 << 10))).kms_refused(400, "KMS.0203");
    raw("").kms_refused(400, "KMS.0204");
    raw("{}").kms_refused(400, "KMS.0204");
    raw(&format!("{{\"key_id\":\"{key}\"}}\n")).expect(200);
    let bare = client
        .request(Method::POST, &path)
        .body(format!("{{\"key_id\":\"{key}\"}}"));
    client::send(bare).expect(200);

    let name = "x".repeat(256);
    for (call, body, code) in [
        ("describe-key", json!({"key_id": "my-alias"}), "KMS.0205"),
        ("describe-key", json!({"key_id": 7}), "KMS.0205"),
        (
            "describe-key",
            json!({"key_id": key.to_uppercase()}),
            "KMS.0205",
        ),
        ("enable-key", json!({"key_id": "alias/k"}), "KMS.0205"),
        (
            "describe-key",
            json!({"key_id": key, "sequence": "x".repeat(35)}),
            "KMS.0206",
        ),
        (
            "describe-key",
            json!({"key_id": key, "sequence": "x".repeat(37)}),
            "KMS.0206",
        ),
        ("create-key", json!({}), "KMS.0204"),
        ("create-key", json!({"key_alias": ""}), "KMS.1101"),
        ("create-key", json!({"key_alias": "a b"}), "KMS.1101"),
        ("create-key", json!({"key_alias": name}), "KMS.1101"),
        (
            "create-key",
            json!({"key_alias": "ims/default"}),
            "KMS.1101",
        ),
        ("create-key", json!({"key_alias": "k"}), "KMS.1104"),
        (
            "create-key",
            json!({"key_alias": "n", "key_description": name}),
            "KMS.1103",
        ),
        (
            "create-key",
            json!({"key_alias": "n", "realm": "a b"}),
            "KMS.1102",
        ),
        (
            "create-key",
            json!({"key_alias": "n", "key_spec": "RSA_2048"}),
            "KMS.1110",
        ),
        (
            "create-key",
            json!({"key_alias": "n", "key_usage": "SIGN_VERIFY"}),
            "KMS.0308",
        ),
        (
            "create-key",
            json!({"key_alias": "n", "origin": "external"}),
            "KMS.0340",
        ),
        (
            "create-key",
            json!({"key_alias": "n", "keystore_id": "1"}),
            "KMS.0340",
        ),
        (
            "create-key",
            json!({"key_alias": "n", "enterprise_project_id": "x"}),
            "KMS.0308",
        ),
        ("schedule-key-deletion", json!({"key_id": key}), "KMS.0204"),
        (
            "schedule-key-deletion",
            json!({"key_id": key, "pending_days": "6"}),
            "KMS.1401",
        ),
        (
            "schedule-key-deletion",
            json!({"key_id": key, "pending_days": 1097}),
            "KMS.1401",
        ),
        (
            "schedule-key-deletion",
            json!({"key_id": key, "pending_days": "x"}),
            "KMS.1401",
        ),
        (
            "update-key-alias",
            json!({"key_id": key, "key_alias": "a/default"}),
            "KMS.1101",
        ),
        (
            "update-key-description",
            json!({"key_id": key, "key_description": name}),
            "KMS.1103",
        ),
        (
            "update-key-rotation-interval",
            json!({"key_id": key, "rotation_interval": 29}),
            "KMS.3001",
        ),
        (
            "update-key-rotation-interval",
            json!({"key_id": key, "rotation_interval": "366"}),
            "KMS.3001",
        ),
        ("gen-random", json!({"random_data_length": "9"}), "KMS.1802"),
        (
            "gen-random",
            json!({"random_data_length": 8200}),
            "KMS.1801",
        ),
    ] {
        client.kms(call, body).kms_refused(400, code);
    }
    for missing in [UNKNOWN, "zd0466b0-e727-4d9c-b35d-f84bb474a37z"] {
        for call in [
            "describe-key",
            "enable-key",
            "disable-key",
            "cancel-key-deletion",
        ] {
            client
                .kms(call, json!({"key_id": missing}))
                .kms_refused(404, "KMS.0207");
        }
    }
    client
        .kms("no-such-call", json!({}))
        .kms_refused(404, "KMS.0201");
    client.get(&path).kms_refused(405, "KMS.0215");
    assert_eq!(client.kms("list-keys", json!({})).json()["total"], 1);
}

#[test]
fn who_calls_is_checked_before_what_is_asked() {
    let server = Server::with_own_keys();
    let client = server.user();
    let other = server.admin().new_project("other", "member");
    let name = server.clouds().get("project_name");
    let reader = server
        .admin()
        .new_user("r", client.project(), &name, "reader");
    let path = |project: &str, call: &str| format!("/kms/v1.0/{project}/kms/{call}");
    let anonymous = Client::anonymous(server.base());
    let own = path(client.project(), "create-key");
    let refused = anonymous.raw(Method::POST, &own, "application/json", "{");
    refused.kms_refused(401, "KMS.0301");
    assert!(
        refused
            .header("www-authenticate")
            .starts_with("Keystone uri=")
    );
    client
        .with_token("bad")
        .post(&own, json!({}))
        .kms_refused(401, "KMS.0302");
    other
        .raw(Method::POST, &own, "application/json", "{")
        .kms_refused(403, "KMS.0321");
    reader
        .raw(Method::POST, &own, "application/json", "{")
        .kms_refused(403, "KMS.0307");
    client
        .raw(Method::POST, &own, "application/json", "{")
        .kms_refused(400, "KMS.0202");
    anonymous.get("/v1.0/x/y").kms_refused(401, "KMS.0301");

    let key = client.create_key("k");
    other
        .kms("describe-key", json!({"key_id": key}))
        .kms_refused(403, "KMS.0306");
    other
        .kms("describe-key", json!({"key_id": "alias/k"}))
        .kms_refused(404, "KMS.0207");
    reader
        .kms("describe-key", json!({"key_id": key}))
        .expect(200);
    reader
        .kms("create-datakey", json!({"key_id": key}))
        .kms_refused(403, "KMS.0307");
    for (document, wanted) in [("/kms", "versions"), ("/kms/v1.0", "version")] {
        let body = anonymous.get(document).expect(200).json();
        assert!(
            body[wanted].is_object() || body[wanted].is_array(),
            "{body}"
        );
    }
}

#[test]
fn each_state_allows_what_the_documents_say() {
    let server = Server::with_own_keys();
    let client = server.user();
    let key = client.create_key("k");
    let cipher = encrypted(&client, &key, json!({}));
    let day = json!({"key_id": key, "pending_days": 7});
    let grant = json!({"key_id": key, "grantee_principal": "u9", "operations": ["describe-key"]});
    let granted = client.kms("create-grant", grant.clone()).expect(200).json();
    let data_key = |call: &str| client.kms(call, json!({"key_id": key, "datakey_length": 512}));

    let disabled = client.key_call("disable-key", &key);
    assert_eq!(
        disabled,
        json!({"key_info": {"key_id": key, "key_state": "3"}})
    );
    let in_the_way = |code: &str| {
        data_key("create-datakey").kms_refused(400, code);
        data_key("create-datakey-without-plaintext").kms_refused(400, code);
        decrypt(&client, &key, &cipher, json!({})).kms_refused(400, code);
        let plain = json!({"key_id": key, "plain_text": "x"});
        client.kms("encrypt-data", plain).kms_refused(400, code);
        client
            .kms("create-grant", grant.clone())
            .kms_refused(400, code);
        client
            .kms("rotate-on-demand", json!({"key_id": key}))
            .kms_refused(400, code);
    };
    in_the_way("KMS.0209");
    client
        .kms("disable-key", json!({"key_id": key}))
        .kms_refused(400, "KMS.1301");
    client
        .kms("cancel-key-deletion", json!({"key_id": key}))
        .kms_refused(400, "KMS.1501");

    let scheduled = client
        .kms("schedule-key-deletion", day.clone())
        .expect(200)
        .json();
    assert_eq!(scheduled, json!({"key_id": key, "key_state": "4"}));
    let shown = client.describe_key(&key);
    assert_eq!(client::text(&shown["scheduled_deletion_date"]).len(), 13);
    in_the_way("KMS.0210");
    client
        .kms("schedule-key-deletion", day.clone())
        .kms_refused(400, "KMS.1402");
    client
        .kms("enable-key", json!({"key_id": key}))
        .kms_refused(400, "KMS.1201");
    let alias = json!({"key_id": key, "key_alias": "other"});
    client
        .kms("update-key-alias", alias)
        .kms_refused(400, "KMS.0210");
    client.key_call("get-key-rotation-status", &key);
    client.key_call("list-grants", &key);
    let revoked = json!({"key_id": key, "grant_id": granted["grant_id"]});
    assert_eq!(
        client.kms("revoke-grant", revoked).expect(200).json(),
        json!({})
    );

    // Its alias is free meanwhile, and then another's.
    let heir = client.create_key("k");
    client
        .kms("cancel-key-deletion", json!({"key_id": key}))
        .kms_refused(400, "KMS.1104");
    let renamed = client.kms(
        "update-key-alias",
        json!({"key_id": heir, "key_alias": "heir"}),
    );
    let wanted = json!({"key_info": {"key_id": heir, "key_alias": "heir"}});
    assert_eq!(renamed.expect(200).json(), wanted);
    let cancelled = client.key_call("cancel-key-deletion", &key);
    assert_eq!(cancelled, json!({"key_id": key, "key_state": "3"}));
    let enabled = client.key_call("enable-key", &key);
    assert_eq!(
        enabled,
        json!({"key_info": {"key_id": key, "key_state": "2"}})
    );
    decrypt(&client, &key, &cipher, json!({})).expect(200);
    client
        .kms("enable-key", json!({"key_id": key}))
        .kms_refused(400, "KMS.1201");
    let text = json!({"key_id": key, "key_description": ""});
    let described = client
        .kms("update-key-description", text)
        .expect(200)
        .json();
    assert_eq!(
        described,
        json!({"key_info": {"key_id": key, "key_description": ""}})
    );
}

#[test]
fn quotas_are_shown_and_kept() {
    let server = Server::start(Options::config(config::keys(3)).with_own_keys());
    let client = server.user();
    let keys: Vec<_> = (0..3)
        .map(|n| client.create_key(&format!("k{n}")))
        .collect();
    client
        .kms("create-key", json!({"key_alias": "over"}))
        .kms_refused(400, "KMS.1105");
    let days = json!({"key_id": keys[0], "pending_days": "7"});
    client.kms("schedule-key-deletion", days).expect(200);
    client
        .kms("create-key", json!({"key_alias": "over"}))
        .kms_refused(400, "KMS.1105");
    let grant =
        json!({"key_id": keys[1], "grantee_principal": "u9", "operations": ["describe-key"]});
    client.kms("create-grant", grant).expect(200);
    let quotas = client.kms_get("user-quotas").expect(200).json();
    let wanted = json!({"quotas": {"resources": [
        {"type": "CMK", "used": 3, "quota": 3},
        {"type": "grant_per_CMK", "used": 1, "quota": 100},
    ]}});
    assert_eq!(quotas, wanted);
    assert_eq!(
        client.kms_get("user-instances").expect(200).json(),
        json!({"instance_num": 3})
    );
    let other = server.admin().new_project("other", "member");
    other.create_key("k0");
}

#[test]
fn a_key_and_a_grant_that_are_asked_for_twice_under_one_idempotency_key_are_made_once() {
    let server = Server::with_own_keys();
    let client = server.user();
    let ask = |call: &str, body: Value, key: &str| {
        let path = format!("/kms/v1.0/{}/kms/{call}", client.project());
        let request = client
            .request(Method::POST, &path)
            .header("Idempotency-Key", key);
        client::send(request.body(body.to_string()))
    };
    let body = json!({"key_alias": "k"});
    let first = ask("create-key", body.clone(), "one").expect(200);
    let again = ask("create-key", body, "one").expect(200);
    assert_eq!(first.bytes, again.bytes);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(
        ask("create-key", json!({"key_alias": "l"}), "one").status,
        409
    );
    let key = &first.json()["key_info"]["key_id"];
    let grant = json!({"key_id": key, "grantee_principal": "u9", "operations": ["describe-key"]});
    let first = ask("create-grant", grant.clone(), "two").expect(200);
    assert_eq!(
        ask("create-grant", grant, "two").expect(200).bytes,
        first.bytes
    );
    let listed = client.kms("list-grants", json!({"key_id": key})).json();
    assert_eq!(listed["total"], 1);
}

#[test]
fn terraforms_calls_in_terraforms_order_leave_nothing_to_change() {
    let server = Server::with_own_keys();
    let client = server.user();
    let apply = |alias: &str| {
        let body = json!({"key_alias": alias, "key_description": "tf", "realm": "eu-de"});
        let made = client.kms("create-key", body).expect(200).json();
        let key = client::text(&made["key_info"]["key_id"]);
        assert_eq!(client.describe_key(&key)["key_state"], "2");
        client.key_call("get-key-rotation-status", &key);
        client.key_call("enable-key-rotation", &key);
        let days = json!({"key_id": key, "rotation_interval": 183});
        client.kms("update-key-rotation-interval", days).expect(200);
        let tags = json!({"action": "create", "tags": [{"key": "a", "value": "b"}]});
        client.kms(&format!("{key}/tags/action"), tags).expect(204);
        key
    };
    let key = apply("tf");
    // What a plan compares with what was asked for.
    let shown = client.describe_key(&key);
    let planned =
        ["key_alias", "key_description", "realm", "key_state"].map(|name| shown[name].clone());
    assert_eq!(json!(planned), json!(["tf", "tf", "eu-de", "2"]));
    let tags = client.kms_get(&format!("{key}/tags")).expect(200).json();
    assert_eq!(tags["tags"], json!([{"key": "a", "value": "b"}]));
    let status = client.key_call("get-key-rotation-status", &key);
    assert_eq!(status["rotation_interval"], 183);

    // Changed, and destroyed.
    let disabled = client.key_call("disable-key", &key);
    assert_eq!(disabled["key_info"]["key_state"], "3");
    let tags = json!({"action": "delete", "tags": [{"key": "a", "value": "b"}]});
    client.kms(&format!("{key}/tags/action"), tags).expect(204);
    let tags = json!({"action": "create", "tags": [{"key": "c"}]});
    client.kms(&format!("{key}/tags/action"), tags).expect(204);
    let status = client.key_call("get-key-rotation-status", &key);
    assert_eq!(status["key_rotation_enabled"], true, "disabling keeps it");
    client.key_call("disable-key-rotation", &key);
    let days = json!({"key_id": key, "pending_days": "7"});
    let gone = client.kms("schedule-key-deletion", days).expect(200).json();
    assert_eq!(gone["key_state"], "4");
    // And made again under the same alias, as another key.
    assert_ne!(apply("tf"), key);
}
