//! What ends a reseal that runs: damage of its source, and keys that are closed meanwhile. Nothing is left of it.

use calotype_tests::{Options, Server, config, until};
use serde_json::{Value, json};

use crate::damage::{SLOT, body, flip};
use crate::reseal::{MIB, SEGMENT, UNBOUNDED, nothing_is_left, segments, under, upload};

#[test]
fn damage_of_the_source_fails_the_job_is_shown_and_leaves_nothing() {
    const SEGMENTS: u64 = 8;
    let text = config::reseal_pace(UNBOUNDED, 64 * MIB, 2);
    let mut server = Server::start(Options::config(text));
    let (client, admin) = (server.user(), server.admin());
    let key = client.create_key("key");
    let source = upload(&client, 1, SEGMENTS);
    let body = body(&server);
    for while_it_runs in [false, true] {
        // A page that the manifest's opening does not touch.
        let place = (SEGMENTS - 1) * SLOT + 1000;
        if !while_it_runs {
            flip(&body, place);
        }
        let job = client.begin_copy(&source, under(&key));
        until("the job to move", || {
            (client.progress(&job)["bytes_done"].as_u64() > Some(0)).then_some(())
        });
        if while_it_runs {
            flip(&body, place);
        }
        let ended = client.job(&job).document;
        assert_eq!(ended["status"], "FAIL", "{ended}");
        assert_eq!(ended["error_code"], "IMG.0057", "{ended}");
        let shown = client.show(&source);
        assert!(shown["calotype_damaged_at"].is_string(), "{shown}");
        nothing_is_left(&server, &client, 1);
        assert_eq!(server.stored(), 1, "the source's bytes");
        client.copy(&source, under(&key)).refused(400, "IMG.0057");
        let report = admin.get("/admin/v1/verify?deep=true").expect(200).json();
        let violations = report["violations"].as_array().expect("a list");
        assert_eq!(violations.len(), 1, "{report}");
        assert_eq!(violations[0]["invariant"], 1, "{report}");

        flip(&body, place);
        admin.verify();
        assert_eq!(client.show(&source)["calotype_damaged_at"], Value::Null);
    }
    let replica = client.replicate_with(&source, under(&key));
    client.download_same(&replica, segments(1, SEGMENTS));
    client.delete(&format!("/v2/images/{replica}")).expect(204);

    flip(&body, SLOT + 1000);
    let verify = server.verified_stopped();
    assert_eq!(verify.status.code(), Some(8), "damaged");
    let said = String::from_utf8_lossy(&verify.stdout);
    assert!(said.contains(body.blob()), "{said}");
}

#[test]
fn jobs_end_with_the_code_of_what_became_of_their_keys_while_they_ran() {
    let mut server = Server::with_own_keys();
    let client = server.user();
    let member = server.admin().new_project("member", "member");
    let plain = upload(&client, 1, 16);
    let [disabled, doomed, granted, target] =
        ["disabled", "doomed", "granted", "target"].map(|alias| client.create_key(alias));
    let own = member.create_key("own");
    let sealed =
        [&disabled, &doomed, &granted].map(|key| client.replicate_with(&plain, under(key)));
    let grant = json!({
        "key_id": granted,
        "grantee_principal": member.user(),
        "operations": ["describe-key", "decrypt-datakey"],
    });
    let grant = client.kms("create-grant", grant).expect(200).json();
    let shared = format!("/v2/images/{}", sealed[2]);
    client.set(&sealed[2], "visibility", "shared");
    let members = format!("{shared}/members");
    let body = json!({"member": member.project()});
    client.post(&members, body).expect(200);
    let accepted = json!({"status": "accepted"});
    member
        .put(&format!("{members}/{}", member.project()), accepted)
        .expect(200);

    // Slow from here on: each would take more than a minute.
    let slow = config::reseal_pace(UNBOUNDED, 16 * MIB, 4);
    server.try_restart(Options::config(slow)).expect("a start");
    let (client, member) = (client.at(server.base()), member.at(server.base()));
    let jobs = [
        (
            &client,
            client.begin_copy(&sealed[0], json!({"name": "plain"})),
            "IMG.0102",
        ),
        (
            &client,
            client.begin_copy(&sealed[1], json!({"name": "plain"})),
            "IMG.0102",
        ),
        (
            &client,
            client.begin_copy(&plain, under(&target)),
            "IMG.0097",
        ),
        (
            &member,
            member.begin_copy(&sealed[2], under(&own)),
            "IMG.0103",
        ),
    ];
    for (client, job, _) in &jobs {
        until("the job to move", || {
            (client.progress(job)["bytes_done"].as_u64() > Some(0)).then_some(())
        });
    }
    client.key_call("disable-key", &disabled);
    for key in [&doomed, &target] {
        let schedule = json!({"key_id": key, "pending_days": "7"});
        client.kms("schedule-key-deletion", schedule).expect(200);
    }
    let revoked = json!({"key_id": granted, "grant_id": grant["grant_id"]});
    client.kms("revoke-grant", revoked).expect(200);
    for (client, job, code) in &jobs {
        let ended = client.job(job).document;
        assert_eq!(ended["status"], "FAIL", "{ended}");
        assert_eq!(ended["error_code"], *code, "{ended}");
        let done = ended["calotype"]["bytes_done"].as_u64();
        assert!(done < Some(16 * SEGMENT), "{ended}");
    }
    nothing_is_left(&server, &client, 4);
    assert_eq!(member.list().len(), 1, "the image that is shared with it");
    assert_eq!(server.stored(), 4, "the sources' bytes");
    server.verify_stopped();
}
