//! What a replication gives: the job's document (spec 3.7) and what the replica inherits (spec 3.6).

use calotype_tests::image::JSON_PATCH;
use calotype_tests::{Options, Server, config, database, program};
use serde_json::{Value, json};

#[test]
fn the_jobs_document_has_the_types_that_clients_decode() {
    let server = Server::with_defaults();
    let client = server.user();
    let image = client.image("source", 1, 1000);
    let accepted = client
        .copy(&image, json!({"name": "replica"}))
        .expect(200)
        .json();
    let fields: Vec<_> = accepted.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["job_id"], "nothing but the job's id");
    let id = accepted["job_id"].as_str().expect("a text");
    let hexadecimal = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    assert!(id.len() == 32 && id.chars().all(hexadecimal), "{id}");

    let job = client.job(id).document;
    assert_eq!(job["job_id"], id);
    assert_eq!(job["job_type"], "imsCopyImageInRegionJob");
    assert_eq!(job["status"], "SUCCESS");
    for moment in ["begin_time", "end_time"] {
        let text = job[moment].as_str().expect("a time");
        assert!(is_job_time(text), "{moment} {text}");
    }
    assert!(job["begin_time"].as_str() <= job["end_time"].as_str());
    for absent in ["error_code", "fail_reason"] {
        assert!(
            job.as_object().expect("an object").contains_key(absent),
            "{job}"
        );
        assert_eq!(job[absent], Value::Null);
    }
    assert_eq!(job["entities"]["image_name"], "replica");
    let replica = job["entities"]["image_id"].as_str().expect("an image id");
    assert_eq!(replica.len(), 36);
    assert_ne!(replica, image);
    for kind in ["results", "sub_jobs_list", "sub_jobs_result"] {
        assert_eq!(job["entities"].get(kind), None, "not for this type");
    }
    let percent = &job["entities"]["process_percent"];
    assert!(
        percent.is_null() || percent.is_number(),
        "a number where it is there: {percent}"
    );

    let progress = client
        .get(&format!("/v1/cloudimages/job/{id}"))
        .expect(200)
        .json();
    assert_eq!(
        progress["entities"]["process_percent"].as_f64(),
        Some(1.0),
        "{progress}"
    );
    assert!(
        progress["entities"]["current_task"].is_string(),
        "{progress}"
    );
}

#[test]
fn a_replica_inherits_what_the_spec_says_and_nothing_else() {
    let server = Server::with_defaults();
    let client = server.user();
    let source = client.create_with(json!({
        "name": "source", "disk_format": "qcow2", "container_format": "bare",
        "min_disk": 10, "min_ram": 512, "protected": true, "tags": ["env=dev", "flag"],
        "__os_version": "Ubuntu 18.04 server 64bit", "hw_firmware_type": "uefi",
        "hw_vif_multiqueue_enabled": "true", "custom": "value", "__description": "the source's"}));
    client.upload(&source, program::qcow2("10M")).expect(204);
    let accepted = client
        .copy(
            &source,
            json!({"name": "replica", "description": "the replica's", "ignored": 1}),
        )
        .expect(200)
        .json();
    let job = client.job(accepted["job_id"].as_str().expect("a job_id"));
    let (was, is) = (client.show(&source), client.show(&job.image()));

    for same in [
        "disk_format",
        "container_format",
        "size",
        "virtual_size",
        "checksum",
        "os_hash_algo",
        "os_hash_value",
        "min_disk",
        "min_ram",
        "owner",
        "__os_type",
        "__os_version",
        "__os_bit",
        "__platform",
        "hw_firmware_type",
        "hw_vif_multiqueue_enabled",
        "custom",
        "__image_size",
        "__image_source_type",
        "virtual_env_type",
    ] {
        assert_eq!(is.get(same), was.get(same), "{same}\n{was}\n{is}");
    }
    assert_eq!(is["name"], "replica");
    assert_eq!(is["__description"], "the replica's");
    assert_eq!(is["protected"], false);
    assert_eq!(is["tags"], json!([]));
    assert_eq!(is["visibility"], "private");
    assert_eq!(is["__imagetype"], "private");
    assert_eq!(is["__isregistered"], "true");
    assert_eq!(is["__originalimagename"], source);
    assert_eq!(is["enterprise_project_id"], "0");
    assert_eq!(is.get("__system__cmkid"), None, "a plain replica");
    let origin = is["__data_origin"].as_str().expect("an origin");
    assert!(
        origin.starts_with("image,") && origin.ends_with(&source),
        "{origin}"
    );
    assert!(is["created_at"].as_str() >= was["created_at"].as_str());

    let bare = client
        .copy(&source, json!({"name": "bare"}))
        .expect(200)
        .json();
    let bare = client.show(
        &client
            .job(bare["job_id"].as_str().expect("a job_id"))
            .image(),
    );
    let described = bare
        .get("__description")
        .and_then(Value::as_str)
        .unwrap_or_default();
    assert_eq!(described, "", "a description is not inherited");
}

#[test]
fn the_ims_list_shows_a_replica_with_the_types_that_clients_decode() {
    let server = Server::with_defaults();
    let client = server.user();
    let source = client.image("source", 1, 1000);
    let replica = client.replicate(&source, "replica");
    let queued = client.create("queued");
    for id in [&source, &replica, &queued] {
        let listed = client
            .get(&format!("/v2/cloudimages?id={id}"))
            .expect(200)
            .json();
        let images = listed["images"].as_array().expect("images");
        assert_eq!(images.len(), 1, "visible at once, whatever its state");
        for (name, value) in images[0].as_object().expect("an object") {
            if name.starts_with("__") && name != "__system_support_market" {
                assert!(value.is_string(), "{name} = {value}");
            }
        }
        assert!(images[0]["min_disk"].is_number() && images[0]["min_ram"].is_number());
        assert!(images[0]["protected"].is_boolean());
        for moment in ["created_at", "updated_at"] {
            let text = images[0][moment].as_str().expect("a time");
            assert!(text.len() == 20 && text.ends_with('Z'), "{text}");
        }
        assert_eq!(images[0].get("properties"), None);
    }
}

#[test]
fn the_same_replica_is_made_on_postgresql() {
    let url = database::fresh("copy_results");
    let server = Server::start(Options::config(config::postgres(&url)));
    let client = server.user();
    let source = client.image("source", 1, 100_000);
    let replica = client.replicate(&source, "replica");
    assert_eq!(client.download(&replica), client.download(&source));
    let shown = client.show(&replica);
    assert_eq!(shown["__originalimagename"], source);
    let share = json!([{"op": "add", "path": "/custom", "value": "x"}]);
    client
        .patch(&format!("/v2/images/{replica}"), JSON_PATCH, share)
        .expect(200);
    server.verify();
}

#[test]
fn a_replica_is_in_the_audit_trail_once() {
    let server = Server::with_defaults();
    let client = server.user();
    let source = client.image("source", 1, 1000);
    let replica = client.replicate(&source, "replica");
    let copies = client.audit("copyImage");
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert_eq!(copies[0]["resource_type"], "ims");
    assert_eq!(copies[0]["project_id"], client.project());
    let mentions = copies[0].to_string();
    assert!(
        mentions.contains(&replica) && mentions.contains(&source),
        "{mentions}"
    );
    assert!(
        !copies[0]["request_id"]
            .as_str()
            .unwrap_or_default()
            .is_empty()
    );
}

/// `yyyy-MM-ddTHH:mm:ss.SSSZ`
fn is_job_time(text: &str) -> bool {
    let form = b"0000-00-00T00:00:00.000Z";
    text.len() == form.len()
        && text.bytes().zip(form).all(|(byte, wanted)| match wanted {
            b'0' => byte.is_ascii_digit(),
            other => byte == *other,
        })
}
