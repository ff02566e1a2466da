//! Sharing many images with many projects at once: what recipients see and do, also under keys, and jobs whose workers
//! are killed.

use calotype_tests::{Client, Digests, Job, Options, Server, Worker, config, database};
use reqwest::Method;
use serde_json::{Value, json};

const PATH: &str = "/v1/cloudimages/members";
const LENGTH: u64 = 70_000;

/// Asks for a job about members and waits for its end.
fn job(client: &Client, method: Method, body: Value) -> Job {
    let asked = client.raw(method, PATH, "application/json", body.to_string());
    let accepted = asked.expect(200).json();
    let names: Vec<&String> = accepted.as_object().expect("an object").keys().collect();
    assert_eq!(names, ["job_id"]);
    client.job(accepted["job_id"].as_str().expect("a job_id"))
}

fn share(owner: &Client, image: &str, projects: &[&str]) -> Job {
    job(
        owner,
        Method::POST,
        json!({"images": [image], "projects": projects}),
    )
}

fn answer(recipient: &Client, image: &str, status: &str) -> Job {
    let body = json!({"images": [image], "project_id": recipient.project(), "status": status});
    job(recipient, Method::PUT, body)
}

/// The statuses of the results, or the codes of those that failed.
fn results(job: &Job) -> Vec<&str> {
    let results = job.document["entities"]["results"].as_array();
    let results = results.expect("results").iter();
    let told = results.map(|result| match result["status"].as_str() {
        Some("fail") => result["error_code"].as_str().expect("a code"),
        word => word.expect("a status"),
    });
    told.collect()
}

/// The ids of the images in an IMS list.
fn listed(client: &Client, query: &str) -> Vec<String> {
    let list = client.get(&format!("/v2/cloudimages?{query}")).expect(200);
    let images = list.json()["images"].as_array().expect("images").clone();
    let ids = images.iter().map(|image| image["id"].as_str());
    ids.map(|id| id.expect("an id").to_owned()).collect()
}

#[test]
fn a_shared_image_is_offered_accepted_replicated_and_taken_back() {
    let server = Server::with_defaults();
    let admin = server.admin();
    let (owner, other) = (server.user(), admin.new_project("other", "member"));
    let (third, image) = (
        admin.new_project("third", "member"),
        owner.image("golden", 1, LENGTH),
    );
    let wanted = owner.download(&image);
    other.get(&format!("/v2/images/{image}")).expect(404);

    let shared = share(&owner, &image, &[other.project(), third.project()]);
    assert_eq!(shared.status(), "SUCCESS", "{}", shared.document);
    assert_eq!(results(&shared), ["success", "success"]);
    assert_eq!(owner.show(&image)["__imagetype"], "shared");
    assert_eq!(listed(&owner, "__imagetype=shared"), [image.as_str()]);
    assert_eq!(listed(&other, ""), Vec::<String>::new());
    let offered = "member_status=pending&visibility=shared";
    assert_eq!(listed(&other, offered), [image.as_str()]);
    other
        .copy(&image, json!({"name": "a"}))
        .refused(400, "IMG.0196");

    let accepted = answer(&other, &image, "accepted");
    assert_eq!(accepted.status(), "SUCCESS", "{}", accepted.document);
    assert_eq!(accepted.document["job_type"], "imsUpdateImageMembersJob");
    assert_eq!(listed(&other, ""), [image.as_str()]);
    let replica = other.replicate(&image, "mine");
    assert_eq!(other.show(&replica)["owner"], other.project());
    answer(&other, &image, "rejected");
    other
        .copy(&image, json!({"name": "a"}))
        .refused(400, "IMG.0196");
    assert_eq!(listed(&other, ""), [replica.as_str()]);
    let foreign = json!({"images": [image], "project_id": other.project(), "status": "accepted"});
    let refused = third.put(PATH, foreign);
    refused.refused(400, "IMG.0030");

    let body = json!({"images": [image], "projects": [other.project(), third.project()]});
    let ended = job(&owner, Method::DELETE, body.clone());
    assert_eq!(results(&ended), ["success", "success"]);
    assert_eq!(ended.document["job_type"], "imsDelImageMembersJob");
    assert_eq!(owner.show(&image)["visibility"], "private");
    assert_eq!(owner.show(&image)["__imagetype"], "private");
    other.get(&format!("/v2/images/{image}")).expect(404);
    assert_eq!(
        other.download(&replica),
        wanted,
        "what was replicated stays"
    );
    let again = job(&owner, Method::DELETE, body);
    assert_eq!(again.status(), "FAIL");
    assert_eq!(again.document["error_code"], "IMG.0113");
    assert_eq!(results(&again), ["IMG.0113", "IMG.0113"]);
    assert_eq!(
        owner.audit("deleteMember").len(),
        4,
        "two jobs and two members"
    );
    admin.verify();
}

#[test]
fn an_image_under_a_key_is_shared_once_its_key_is_granted_and_replicated_under_an_own_one() {
    // Of whom a key lets read the embedded identity alone knows beforehand.
    let server = Server::embedded();
    let admin = server.admin();
    let (owner, other) = (server.user(), admin.new_project("other", "member"));
    let source = owner.image("source", 1, LENGTH);
    let key = owner.create_key("sealing");
    let sealed = owner.replicate_with(&source, json!({"name": "sealed", "cmk_id": key}));
    let refused = |why: &str| {
        let refused = share(&owner, &sealed, &[other.project()]);
        assert_eq!(refused.status(), "FAIL", "{why}");
        assert_eq!(refused.document["error_code"], "IMG.0098", "{why}");
        assert_eq!(results(&refused), ["IMG.0098"], "{why}");
    };
    refused("nothing was granted");
    owner.set(&sealed, "visibility", "shared");
    let members = format!("/v2/images/{sealed}/members");
    let member = json!({"member": other.project()});
    owner.post(&members, member).expect(400);
    let grant = |operations: Value| {
        let body =
            json!({"key_id": key, "grantee_principal": other.user(), "operations": operations});
        owner.kms("create-grant", body).expect(200).json()["grant_id"].clone()
    };
    let part = grant(json!(["decrypt-datakey"]));
    refused("it may not describe the key");
    let revoked = json!({"key_id": key, "grant_id": part});
    owner.kms("revoke-grant", revoked).expect(200);
    grant(json!(["describe-key", "decrypt-datakey"]));
    owner.key_call("disable-key", &key);
    refused("the key is disabled");
    owner.key_call("enable-key", &key);
    let shared = share(&owner, &sealed, &[other.project()]);
    assert_eq!(shared.status(), "SUCCESS", "{}", shared.document);
    answer(&other, &sealed, "accepted");
    let wanted: Digests = owner.download(&source);
    assert_eq!(other.download(&sealed), wanted);
    let copy = |body: Value| other.copy(&sealed, body);
    copy(json!({"name": "plain"})).refused(400, "IMG.0197");
    let own = other.create_key("own");
    let replica = other.replicate_with(&sealed, json!({"name": "mine", "cmk_id": own}));
    assert_eq!(other.show(&replica)["__system__cmkid"], own.as_str());
    assert_eq!(other.download(&replica), wanted);
    admin.verify();
}

#[test]
fn under_otcs_profile_the_image_api_shares_a_private_image_too() {
    let server = Server::start(Options::config("[images]\nprofile = \"otc\"\n"));
    let (owner, other) = (server.user(), server.admin().new_project("other", "member"));
    let image = owner.image("image", 1, 1000);
    assert_eq!(owner.show(&image)["visibility"], "private");
    let members = format!("/v2/images/{image}/members");
    let added = owner.post(&members, json!({"member": other.project()}));
    assert_eq!(added.expect(200).json()["status"], "pending");
    assert_eq!(owner.show(&image)["visibility"], "shared");
    let mine = format!("{members}/{}", other.project());
    assert_eq!(other.get(&mine).expect(200).json()["status"], "pending");
    owner.delete(&mine).expect(204);
    assert_eq!(owner.show(&image)["visibility"], "private");
    owner.get(&members).expect(403);
}

/// Of so many images and projects each with each.
const IMAGES: usize = 100;
const PROJECTS: usize = 5;

#[test]
fn a_job_about_members_has_one_effect_although_its_workers_are_killed() {
    let url = database::fresh("members_kills");
    let store = tempfile::tempdir().expect("a directory");
    let shared = config::shared(&url, store.path());
    let server = Server::start(Options::config(shared.clone() + &config::jobs(0, 3)));
    let (admin, owner) = (server.admin(), server.user());
    let images: Vec<String> = (0..IMAGES)
        .map(|n| owner.image(&format!("image-{n}"), 1, 100))
        .collect();
    let projects: Vec<String> = (0..PROJECTS)
        .map(|n| {
            let body = json!({"project": {"name": format!("p{n}"), "domain_id": "default"}});
            let made = admin.post("/identity/v3/projects", body).expect(201).json();
            made["project"]["id"].as_str().expect("an id").to_owned()
        })
        .collect();
    let body = json!({"images": images, "projects": projects});
    let accepted = owner.post(PATH, body.clone()).expect(200).json();
    let job = accepted["job_id"].as_str().expect("a job_id");
    let done = || {
        let document = owner.show_job(job).expect(200).json();
        let results = document["entities"]["results"].as_array();
        results.map_or(0, Vec::len)
    };
    let worker = shared + &config::jobs(4, 3);
    let gate = database::Gate::on(&url, "image_members", "new.image_id");
    let mut before = 0;
    // Whoever goes on begins where the one before it got to.
    for image in [&images[10], &images[45], &images[80]] {
        gate.close(image);
        let mut doomed = Worker::start(&worker);
        gate.wait_until_held(|| ());
        doomed.kill9();
        gate.wait_until_left();
        assert!(done() > before, "each did something");
        before = done();
    }
    assert!(before < IMAGES * PROJECTS, "each was killed in the middle");
    gate.open();
    let _rest = Worker::start(&worker);
    let ended = owner.job(job);
    assert_eq!(ended.status(), "SUCCESS", "{}", ended.document);
    assert_eq!(results(&ended), vec!["success"; IMAGES * PROJECTS]);
    let count = |what: &str| {
        let count = database::sql(&url, &format!("select count(*) from {what}"));
        count.trim().parse::<usize>().expect("a number")
    };
    assert_eq!(
        count("image_members where status = 'pending'"),
        IMAGES * PROJECTS
    );
    let lines = "audit_events where trace = 'addMember'";
    assert_eq!(
        count(lines),
        IMAGES * PROJECTS + 1,
        "one for each, and the job's"
    );
    for image in [&images[0], &images[IMAGES - 1]] {
        assert_eq!(owner.show(image)["visibility"], "shared");
    }
    let ended = self::job(&owner, Method::DELETE, body);
    assert_eq!(ended.status(), "SUCCESS", "{}", ended.document);
    assert_eq!(count("image_members"), 0);
    admin.verify_rows();
}
