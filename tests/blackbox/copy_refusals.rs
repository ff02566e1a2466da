//! Every refusal of a replication (spec 3.3 and 3.4, decisions D1 to D5 and D15): its status, its code,
//! and that it changes nothing.

use calotype_tests::{Client, Options, Server, config};
use reqwest::Method;
use serde_json::{Value, json};

const UNKNOWN: &str = "11111111-2222-4333-8444-555555555555";

#[test]
fn a_body_that_breaks_a_rule_is_refused_with_its_code_and_changes_nothing() {
    let server = Server::with_defaults();
    let client = server.user();
    let image = client.image("source", 1, 1000);
    let long = "x".repeat(129);
    let story = "x".repeat(1025);
    let table = [
        (json!([]), "IMG.0001"),
        (json!("text"), "IMG.0001"),
        (json!(7), "IMG.0001"),
        (json!({"name": 7}), "IMG.0001"),
        (json!({"name": ["a"]}), "IMG.0001"),
        (json!({"name": "a", "description": 7}), "IMG.0001"),
        (json!({"name": "a", "cmk_id": 7}), "IMG.0001"),
        (
            json!({"name": "a", "enterprise_project_id": {}}),
            "IMG.0001",
        ),
        (json!({}), "IMG.0013"),
        (json!({"name": ""}), "IMG.0013"),
        (json!({"name": null}), "IMG.0013"),
        (json!({"description": "no name"}), "IMG.0013"),
        (json!({"name": long}), "IMG.0002"),
        (json!({"name": " a"}), "IMG.0003"),
        (json!({"name": "a "}), "IMG.0003"),
        (json!({"name": "a/b"}), "IMG.0003"),
        (json!({"name": "a\u{0}b"}), "IMG.0003"),
        (json!({"name": "a\nb"}), "IMG.0003"),
        (json!({"name": "Ünicode"}), "IMG.0003"),
        (json!({"name": "a", "description": story}), "IMG.0004"),
        (json!({"name": "a", "description": "<b>"}), "IMG.0054"),
        (json!({"name": "a", "description": "a\rb"}), "IMG.0054"),
        (json!({"name": "a", "description": "a\nb"}), "IMG.0054"),
        (json!({"name": "a", "cmk_id": UNKNOWN}), "IMG.0095"),
        (json!({"name": "a", "cmk_id": "no key at all"}), "IMG.0095"),
        (
            json!({"name": "a", "enterprise_project_id": UNKNOWN}),
            "IMG.0155",
        ),
        (
            json!({"name": "a", "enterprise_project_id": "nonsense"}),
            "IMG.0155",
        ),
    ];
    let before = client.state();
    for (body, code) in table {
        client.copy(&image, body).refused(400, code);
    }
    let path = format!("/v1/cloudimages/{image}/copy");
    let raw = |body: &'static str| client.raw(Method::POST, &path, "application/json", body);
    raw("").refused(400, "IMG.0007");
    raw("{").refused(400, "IMG.0001");
    raw("not json").refused(400, "IMG.0001");
    raw(r#"{"name":"a","name":"b"}trailing"#).refused(400, "IMG.0001");
    client.post(&path, Value::Null).refused(400, "IMG.0007");
    assert_eq!(client.state(), before, "a refused request changes nothing");
}

#[test]
fn the_first_broken_rule_in_the_order_of_the_spec_is_the_one_that_is_named() {
    let server = Server::with_defaults();
    let client = server.user();
    let reader =
        server
            .admin()
            .new_user("looker", client.project(), &project_name(&server), "reader");
    // Permission, then the body, then the id, then name, then description, then existence.
    reader
        .copy("no-uuid", json!("nonsense"))
        .refused(403, "IMG.0026");
    client
        .copy("no-uuid", json!({"name": 7}))
        .refused(400, "IMG.0001");
    client.copy("no-uuid", json!({})).refused(400, "IMG.0066");
    client
        .copy(UNKNOWN, json!({"description": "<"}))
        .refused(400, "IMG.0013");
    client
        .copy(UNKNOWN, json!({"name": "a", "description": "<"}))
        .refused(400, "IMG.0054");
    client
        .copy(UNKNOWN, json!({"name": "a"}))
        .refused(404, "IMG.0027");
}

#[test]
fn an_image_that_cannot_be_named_is_refused_by_its_id() {
    let server = Server::with_defaults();
    let client = server.user();
    let before = client.state();
    for id in [
        "1",
        "not-a-uuid",
        "11111111222243338444555555555555",
        "%7B%7D",
        "..%2f..%2fetc",
    ] {
        client
            .copy(id, json!({"name": "a"}))
            .refused(400, "IMG.0066");
    }
    client
        .copy(UNKNOWN, json!({"name": "a"}))
        .refused(404, "IMG.0027");
    assert_eq!(client.state(), before);
}

#[test]
fn who_may_not_see_an_image_learns_nothing_of_it_and_who_has_not_accepted_it_may_not_replicate_it()
{
    let server = Server::with_defaults();
    let owner = server.admin().new_project("owner", "member");
    let other = server.admin().new_project("other", "member");
    let image = owner.image("private", 1, 1000);
    let foreign = other.copy(&image, json!({"name": "a"}));
    let unknown = other.copy(UNKNOWN, json!({"name": "a"}));
    foreign.refused(404, "IMG.0027");
    assert_eq!(
        foreign.text().replace(&image, UNKNOWN),
        unknown.text(),
        "but for the id that was asked for, foreign and unknown look the same"
    );

    let members = format!("/v2/images/{image}/members");
    owner
        .post(&members, json!({"member": other.project()}))
        .expect(200);
    let before = other.state();
    other
        .copy(&image, json!({"name": "a"}))
        .refused(400, "IMG.0196");
    let mine = format!("{members}/{}", other.project());
    other.put(&mine, json!({"status": "rejected"})).expect(200);
    other
        .copy(&image, json!({"name": "a"}))
        .refused(400, "IMG.0196");
    assert_eq!(other.state(), before);
    other.put(&mine, json!({"status": "accepted"})).expect(200);
    let replica = other.replicate(&image, "mine");
    assert_eq!(other.show(&replica)["owner"], other.project());
    owner.delete(&mine).expect(204);
    other
        .copy(&image, json!({"name": "a"}))
        .refused(404, "IMG.0027");
}

#[test]
fn a_public_image_is_not_replicated() {
    let server = Server::with_defaults();
    let admin = server.admin();
    let member = admin.new_project("user", "member");
    let image = admin.image("public", 1, 1000);
    admin.set(&image, "visibility", "public");
    for client in [&admin, &member] {
        let before = client.state();
        client
            .copy(&image, json!({"name": "a"}))
            .refused(400, "IMG.0083");
        assert_eq!(client.state(), before);
    }
}

#[test]
fn a_deployment_may_let_public_images_be_replicated() {
    let server = Server::start(Options::config(config::public_replicas()));
    let (admin, user) = (server.admin(), server.user());
    let image = admin.image("public", 1, 1000);
    admin.set(&image, "visibility", "public");
    let replica = user.show(&user.replicate(&image, "mine"));
    assert_eq!(replica["owner"], user.project());
    assert_eq!(replica["visibility"], "private");
}

#[test]
fn an_image_that_is_too_large_to_replicate_is_refused_and_one_that_just_fits_is_not() {
    let server = Server::start(Options::config(config::replica_size(1000)));
    let client = server.user();
    let fits = client.image("fits", 1, 1000);
    let large = client.image("large", 1, 1001);
    let before = client.state();
    client
        .copy(&large, json!({"name": "a"}))
        .refused(400, "IMG.0059");
    assert_eq!(client.state(), before);
    client.replicate(&fits, "replica");
}

#[test]
fn an_image_whose_kind_or_state_forbids_it_is_not_replicated() {
    let server = Server::with_defaults();
    let admin = server.admin();
    let marked = |name: &str, key: &str, value: &str| {
        let mut body = json!({"name": name, "disk_format": "raw", "container_format": "bare"});
        body[key] = json!(value);
        admin.create_with(body)
    };
    let whole = marked("whole", "__whole_image", "true");
    let iso = marked("iso", "virtual_env_type", "IsoImage");
    let metal = marked("metal", "virtual_env_type", "Ironic");
    let queued = admin.create("queued");
    let before = admin.state();
    // The permanent reasons come before the state: these images have no bytes yet.
    admin
        .copy(&whole, json!({"name": "a"}))
        .refused(400, "IMG.0130");
    admin
        .copy(&iso, json!({"name": "a"}))
        .refused(400, "IMG.0167");
    admin
        .copy(&queued, json!({"name": "a"}))
        .refused(400, "IMG.0046");
    assert_eq!(admin.state(), before);

    admin.upload(&metal, "bytes").expect(204);
    admin
        .copy(&metal, json!({"name": "a", "cmk_id": UNKNOWN}))
        .refused(400, "IMG.0118");
    admin.replicate(&metal, "without a key it may be replicated");
}

#[test]
fn an_uploaded_iso_is_not_replicated() {
    let server = Server::with_defaults();
    let client = server.user();
    let iso = client.create_with(json!({
        "name": "iso", "disk_format": "iso", "container_format": "bare"}));
    let bytes = std::fs::read(calotype_tests::program::memtest_iso()).expect("the ISO");
    client.upload(&iso, bytes).expect(204);
    client
        .copy(&iso, json!({"name": "a"}))
        .refused(400, "IMG.0167");
}

#[test]
fn a_deactivated_image_is_not_replicated() {
    let server = Server::with_defaults();
    let client = server.user();
    let image = client.image("resting", 1, 1000);
    let path = format!("/v2/images/{image}/actions");
    client
        .post(&format!("{path}/deactivate"), Value::Null)
        .expect(204);
    let before = client.state();
    client
        .copy(&image, json!({"name": "a"}))
        .refused(400, "IMG.0046");
    assert_eq!(client.state(), before);
    client
        .post(&format!("{path}/reactivate"), Value::Null)
        .expect(204);
    client.replicate(&image, "awake");
}

#[test]
fn an_enterprise_project_takes_replicas_while_it_is_enabled() {
    let server = Server::with_defaults();
    let (admin, client) = (server.admin(), server.user());
    let made = admin
        .post(
            "/admin/v1/enterprise-projects",
            json!({"name": "department"}),
        )
        .json();
    let id = made["id"].as_str().expect("an id");
    let image = client.image("source", 1, 1000);
    let body = json!({"name": "a", "enterprise_project_id": id});
    let accepted = client.copy(&image, body.clone()).expect(200).json();
    let job = client.job(accepted["job_id"].as_str().expect("a job_id"));
    assert_eq!(client.show(&job.image())["enterprise_project_id"], id);
    let disable = format!("/admin/v1/enterprise-projects/{id}/disable");
    let disabled = admin.post(&disable, json!({}));
    assert!(disabled.status < 300, "{disabled}");
    let before = client.state();
    client.copy(&image, body).refused(400, "IMG.0155");
    assert_eq!(client.state(), before);
    for default in ["", "0"] {
        let body = json!({"name": "b", "enterprise_project_id": default});
        client.copy(&image, body).expect(200);
    }
}

#[test]
fn a_full_quota_refuses_the_next_image_and_deleting_one_makes_room() {
    let server = Server::start(Options::config(config::limits(2, 5)));
    let client = server.user();
    let image = client.image("first", 1, 1000);
    let second = client.replicate(&image, "second");
    let before = client.state();
    client
        .copy(&image, json!({"name": "third"}))
        .refused(400, "IMG.0015");
    assert_eq!(client.state(), before);
    client.delete(&format!("/v2/images/{second}")).expect(204);
    client.replicate(&image, "third");
}

#[test]
fn a_project_with_no_replication_to_spare_is_told_so() {
    let server = Server::start(Options::config(config::limits(100, 0)));
    let client = server.user();
    let image = client.image("source", 1, 1000);
    let before = client.state();
    client
        .copy(&image, json!({"name": "a"}))
        .refused(400, "IMG.0060");
    assert_eq!(client.state(), before);
}

#[test]
fn many_replications_at_once_are_each_done_or_refused_and_the_refused_succeed_later() {
    let server = Server::start(Options::config(config::limits(1000, 5)));
    let client = server.user();
    let image = client.image("source", 1, 1000);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let ask = |number: u32| client.copy(&image, json!({"name": format!("r{number}")}));
        let askers: Vec<_> = (0..40)
            .map(|number| scope.spawn(move || ask(number)))
            .collect();
        askers
            .into_iter()
            .map(|asker| asker.join().expect("an answer"))
            .collect()
    });
    let mut done = 0;
    for answer in answers {
        if answer.status == 200 {
            let job = client.job(answer.json()["job_id"].as_str().expect("a job_id"));
            assert_eq!(job.status(), "SUCCESS", "{}", job.document);
            done += 1;
        } else {
            answer.refused(400, "IMG.0060");
        }
    }
    assert!(done >= 5, "five fit at once");
    assert_eq!(
        client.list().len(),
        done + 1,
        "what was refused made nothing"
    );
    client.replicate(&image, "later");
}

#[test]
fn a_reader_may_look_and_not_replicate() {
    let server = Server::with_defaults();
    let (admin, user) = (server.admin(), server.user());
    let image = user.image("source", 1, 1000);
    let reader = admin.new_user("looker", user.project(), &project_name(&server), "reader");
    let before = user.state();
    reader
        .copy(&image, json!({"name": "a"}))
        .refused(403, "IMG.0026");
    assert_eq!(reader.show(&image)["id"], image);
    assert_eq!(user.state(), before);
}

#[test]
fn who_shows_no_valid_token_is_told_where_to_get_one() {
    let server = Server::with_defaults();
    let anonymous = Client::anonymous(server.base());
    for caller in [
        anonymous.clone(),
        anonymous.with_token("nonsense"),
        anonymous.with_token(""),
    ] {
        let answer = caller.copy(UNKNOWN, json!({"name": "a"}));
        answer.refused(401, "IMG.0087");
        let where_to = answer.header("www-authenticate");
        assert!(where_to.starts_with("Keystone uri=\""), "{where_to}");
    }
}

#[test]
fn a_job_that_is_unknown_or_foreign_is_not_found() {
    let server = Server::with_defaults();
    let user = server.user();
    let other = server.admin().new_project("other", "member");
    let image = user.image("source", 1, 1000);
    let accepted = user.copy(&image, json!({"name": "a"})).expect(200).json();
    let job = accepted["job_id"].as_str().expect("a job_id");
    user.job(job);
    other.show_job(job).refused(404, "IMG.0023");
    user.show_job(&"0".repeat(32)).refused(404, "IMG.0023");
    // The path's project is not the token's: said of the project, whether there is such a job or not.
    for named in [job, &"0".repeat(32)] {
        other
            .get(&format!("/v1/{}/jobs/{named}", user.project()))
            .refused(400, "IMG.0030");
    }
}

#[test]
fn the_same_key_gives_the_same_answer_and_another_body_under_it_a_conflict() {
    let server = Server::with_defaults();
    let client = server.user();
    let image = client.image("source", 1, 1000);
    let ask = |key: &str, name: &str| {
        let request = client
            .request(Method::POST, &format!("/v1/cloudimages/{image}/copy"))
            .header("Idempotency-Key", key)
            .header("Content-Type", "application/json");
        calotype_tests::client::send(request.body(json!({"name": name}).to_string()))
    };
    let first = ask("one", "replica").expect(200).json();
    let again = ask("one", "replica").expect(200).json();
    assert_eq!(first, again);
    client.job(first["job_id"].as_str().expect("a job_id"));
    assert_eq!(
        ask("one", "replica").expect(200).json(),
        first,
        "after its end too"
    );
    assert_eq!(client.list().len(), 2, "one source, one replica");
    let before = client.state();
    ask("one", "another").expect(409);
    assert_eq!(client.state(), before);
    let other = ask("two", "replica").expect(200).json();
    assert_ne!(other, first);

    let at_once: Vec<Value> = std::thread::scope(|scope| {
        let ask = &ask;
        let askers: Vec<_> = (0..8)
            .map(|_| scope.spawn(move || ask("three", "third").expect(200).json()))
            .collect();
        askers
            .into_iter()
            .map(|asker| asker.join().expect("an answer"))
            .collect()
    });
    assert!(
        at_once.windows(2).all(|pair| pair[0] == pair[1]),
        "{at_once:?}"
    );
}

fn project_name(server: &Server) -> String {
    server.clouds().get("project_name")
}
