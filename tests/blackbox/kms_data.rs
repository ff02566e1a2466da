//! Data keys and short texts of the KMS API on the wire.

use calotype_tests::{Answer, Client, Options, Server, client, config};
use serde_json::{Value, json};

/// 64 zero bytes, and the SHA-256 of them, from the documents' own example.
const ZEROS_DIGEST: &str = "F5A5FD42D16A20302798EF6ED309979B43003D2320D9F0E8EA9831A92759FB4B";

fn zeros() -> String {
    format!("{}{ZEROS_DIGEST}", "00".repeat(64))
}

pub(crate) fn encrypted(client: &Client, key: &str, context: Value) -> String {
    let body = json!({"key_id": key, "plain_text": zeros(), "datakey_plain_length": "64",
        "encryption_context": context});
    let answer = client.kms("encrypt-datakey", body).expect(200).json();
    client::text(&answer["cipher_text"])
}

pub(crate) fn decrypt(client: &Client, key: &str, cipher: &str, context: Value) -> Answer {
    let body = json!({"key_id": key, "cipher_text": cipher, "datakey_cipher_length": "64",
        "encryption_context": context});
    client.kms("decrypt-datakey", body)
}

#[test]
fn a_data_key_comes_back_whatever_its_length_and_case_and_only_in_its_context() {
    let server = Server::with_own_keys();
    let client = server.user();
    let (key, other) = (client.create_key("k"), client.create_key("other"));
    for (length, bytes) in [(json!("8"), 1), (json!(512), 64), (json!("8192"), 1024)] {
        let body = json!({"key_id": "alias/k", "datakey_length": length});
        let made = client.kms("create-datakey", body).expect(200).json();
        assert_eq!(made["key_id"], key);
        let plain = client::text(&made["plain_text"]);
        assert_eq!(plain.len(), 2 * bytes);
        assert_eq!(plain, plain.to_uppercase());
        let cipher = client::text(&made["cipher_text"]).to_lowercase();
        let body = json!({"key_id": key, "cipher_text": cipher, "datakey_cipher_length": bytes});
        let opened = client.kms("decrypt-datakey", body).expect(200).json();
        assert_eq!(opened["data_key"], plain);
        assert_eq!(opened["datakey_length"], bytes.to_string());
    }
    for (spec, digits) in [
        (Value::Null, 64),
        (json!("AES_256"), 64),
        (json!("AES_128"), 32),
    ] {
        let made = client.kms("create-datakey", json!({"key_id": key, "key_spec": spec}));
        let made = made.expect(200).json();
        assert_eq!(client::text(&made["plain_text"]).len(), digits);
    }
    let hidden = client.kms("create-datakey-without-plaintext", json!({"key_id": key}));
    let hidden = hidden.expect(200).json();
    assert!(hidden.get("plain_text").is_none() && hidden["cipher_text"].is_string());

    let context = json!({"a": "1", "b": "2"});
    let cipher = encrypted(&client, &key, context.clone());
    for same in [
        context.clone(),
        json!({"b": "2", "a": "1"}),
        json!("{\"b\":\"2\",\"a\":\"1\"}"),
    ] {
        let opened = decrypt(&client, &key, &cipher, same).expect(200).json();
        let wanted = json!({"data_key": "00".repeat(64), "datakey_length": "64",
            "datakey_dgst": ZEROS_DIGEST});
        assert_eq!(opened, wanted);
    }
    for wrong in [Value::Null, json!({}), json!({"a": "1"}), json!("other")] {
        decrypt(&client, &key, &cipher, wrong).kms_refused(400, "KMS.2201");
    }
    decrypt(&client, &key, &cipher, json!(7)).kms_refused(400, "KMS.0208");
    decrypt(&client, &other, &cipher, context.clone()).kms_refused(400, "KMS.2201");
    decrypt(&client, &key, &cipher[2..], context.clone()).kms_refused(400, "KMS.2201");
    decrypt(&client, &key, "zz", context.clone()).kms_refused(400, "KMS.2201");
    let short = json!({"key_id": key, "cipher_text": cipher, "datakey_cipher_length": 63,
        "encryption_context": context});
    client
        .kms("decrypt-datakey", short)
        .kms_refused(400, "KMS.2204");

    let text = "a".repeat(128);
    let digest_of_text = "6836cf13bac400e9105071cd6af47084dfacad4e5e302c94bfed24e013afb73e";
    for (plain, length, code) in [
        (zeros().to_lowercase(), json!(64), ""),
        (
            format!("{}{}", "00".repeat(64), ZEROS_DIGEST.to_lowercase()),
            json!("64"),
            "",
        ),
        (format!("{text}{digest_of_text}"), json!(64), "KMS.2103"),
        (zeros(), json!(63), "KMS.2104"),
        (zeros(), json!(0), "KMS.2102"),
        (zeros(), json!(1025), "KMS.2102"),
        (zeros(), Value::Null, "KMS.0204"),
        (zeros().replacen('0', " ", 1), json!(64), "KMS.2101"),
        (zeros()[1..].to_owned(), json!(64), "KMS.2101"),
    ] {
        let body = json!({"key_id": key, "plain_text": plain, "datakey_plain_length": length});
        let answer = client.kms("encrypt-datakey", body);
        if code.is_empty() {
            assert_eq!(answer.expect(200).json()["datakey_length"], "64");
        } else {
            answer.kms_refused(400, code);
        }
    }
    for (length, code) in [("7", "KMS.1901"), ("8200", "KMS.1901"), ("9", "KMS.1903")] {
        let body = json!({"key_id": key, "datakey_length": length});
        client.kms("create-datakey", body).kms_refused(400, code);
    }
    let body = json!({"key_id": key, "key_spec": "AES_512"});
    client
        .kms("create-datakey", body)
        .kms_refused(400, "KMS.1902");
}

#[test]
fn otcs_habits_are_kept_where_the_operator_says_so() {
    let server = Server::start(Options::config(config::profile("otc")).with_own_keys());
    let client = server.user();
    let key = client.create_key("k");
    let make = |length: Value| {
        client.kms(
            "create-datakey",
            json!({"key_id": key, "datakey_length": length}),
        )
    };
    make(json!(512)).expect(200);
    make(json!("256")).kms_refused(400, "KMS.2001");
    make(Value::Null).kms_refused(400, "KMS.0204");
    let body = json!({"key_id": key, "plain_text": zeros(), "datakey_plain_length": 32});
    client
        .kms("encrypt-datakey", body)
        .kms_refused(400, "KMS.2102");
    let cipher = encrypted(&client, &key, Value::Null);
    let body = json!({"key_id": key, "cipher_text": cipher, "datakey_cipher_length": "32"});
    client
        .kms("decrypt-datakey", body)
        .kms_refused(400, "KMS.2202");
    client
        .kms("gen-random", json!({"random_data_length": 256}))
        .kms_refused(400, "KMS.1801");
    client
        .kms("gen-random", json!({"random_data_length": "512"}))
        .expect(200);
}

#[test]
fn a_short_text_names_its_key_when_it_is_encrypted() {
    let server = Server::with_own_keys();
    let client = server.user();
    let key = client.create_key("k");
    let text = "grüße".repeat(100);
    let body = json!({"key_id": key, "plain_text": text, "encryption_context": {"a": "b"}});
    let made = client.kms("encrypt-data", body).expect(200).json();
    assert_eq!(made["key_id"], key);
    let open = |named: Value, context: Value| {
        let body = json!({"key_id": named, "cipher_text": made["cipher_text"],
            "encryption_context": context});
        client.kms("decrypt-data", body)
    };
    for named in [Value::Null, json!(""), json!(key)] {
        let opened = open(named, json!({"a": "b"})).expect(200).json();
        assert_eq!(
            (&opened["plain_text"], &opened["key_id"]),
            (&json!(text), &json!(key))
        );
    }
    open(Value::Null, Value::Null).kms_refused(400, "KMS.2201");
    for bad in ["", "x", &"y".repeat(4097)] {
        let body = json!({"cipher_text": bad});
        client
            .kms("decrypt-data", body)
            .kms_refused(400, "KMS.2201");
    }
    for bad in ["", &"y".repeat(4097)] {
        let body = json!({"key_id": key, "plain_text": bad});
        client
            .kms("encrypt-data", body)
            .kms_refused(400, "KMS.2101");
    }
    let other = server.admin().new_project("other", "member");
    let body = json!({"cipher_text": made["cipher_text"], "encryption_context": {"a": "b"}});
    other.kms("decrypt-data", body).kms_refused(403, "KMS.0306");
}

#[test]
fn rotation_is_switched_on_and_off_and_done_by_hand() {
    let server = Server::with_own_keys();
    let client = server.user();
    let key = client.create_key("k");
    let cipher = encrypted(&client, &key, json!({}));
    let call = |call: &str, days: Value| {
        client.kms(call, json!({"key_id": key, "rotation_interval": days}))
    };
    let off = json!({"key_rotation_enabled": false, "rotation_interval": 365,
        "last_rotation_time": "", "number_of_rotations": 0});
    assert_eq!(
        call("get-key-rotation-status", json!(0)).expect(200).json(),
        off
    );
    call("disable-key-rotation", json!(0)).kms_refused(400, "KMS.0313");
    call("update-key-rotation-interval", json!(30)).kms_refused(400, "KMS.0313");
    assert_eq!(
        call("enable-key-rotation", json!(0)).expect(200).json(),
        json!({})
    );
    call("enable-key-rotation", json!(0)).kms_refused(400, "KMS.2901");
    call("update-key-rotation-interval", json!("183")).expect(200);
    assert_eq!(client.describe_key(&key)["key_rotation_enabled"], "true");
    let rotated = client.key_call("rotate-on-demand", &key);
    assert_eq!(rotated, json!({"key_id": key}));
    let status = client.key_call("get-key-rotation-status", &key);
    assert_eq!(status["key_rotation_enabled"], true);
    assert_eq!(
        (&status["rotation_interval"], &status["number_of_rotations"]),
        (&json!(183), &json!(1))
    );
    assert_eq!(client::text(&status["last_rotation_time"]).len(), 13);
    let newer = encrypted(&client, &key, json!({}));
    for cipher in [&cipher, &newer] {
        decrypt(&client, &key, cipher, json!({})).expect(200);
    }
    call("disable-key-rotation", json!(0)).expect(200);
    assert_eq!(client.key_call("get-key-rotation-status", &key), off);
}
