//! Sharing many images with many projects, answering to it, and ending it.

use calotype_core::app::Settings;
use calotype_core::image::{Image, ImageStatus, MemberStatus, Visibility};
use calotype_core::ports::{Directory as _, Images as _, Jobs as _, Ledger as _, Reconcile as _};
use serde_json::{Value, json};

use crate::harness::{ADMIN, Answer, MEMBER, OTHER, OWN, READER, STRANGER, World, request};

const PATH: &str = "/v1/cloudimages/members";
const THIRD: &str = "33333333333333333333333333333333";
const NOBODY: &str = "99999999999999999999999999999999";
const UNKNOWN: &str = "11111111-2222-4333-8444-555555555555";
const K: &str = "key-1";

async fn world() -> World {
    with(Settings::default()).await
}

async fn with(settings: Settings) -> World {
    let world = World::with(settings).await;
    world.know(&[OWN, OTHER, THIRD]).await;
    world
}

async fn ask(world: &World, method: &str, token: &str, body: &Value) -> Answer {
    world.call(method, token, PATH, &body.to_string()).await
}

/// The document of a job that was accepted, when it has ended.
async fn done(world: &World, answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let job = answer.json()["job_id"].as_str().unwrap().to_owned();
    world.work_until_ended(&job).await;
    let shown = world
        .get(ADMIN, &format!("/v1/cloudimages/job/{job}"))
        .await;
    shown.json()
}

/// The status of the job, its code, and those of its results.
fn outcome(job: &Value) -> (String, String, Vec<String>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let results = job["entities"]["results"].as_array().unwrap().iter();
    let results = results.map(|result| match text(&result["status"]).as_str() {
        "success" => "success".to_owned(),
        "fail" => text(&result["error_code"]),
        other => panic!("{other}"),
    });
    (
        text(&job["status"]),
        text(&job["error_code"]),
        results.collect(),
    )
}

async fn share(world: &World, images: &[&Image], projects: &[&str]) -> Value {
    let images: Vec<String> = images.iter().map(|image| image.id.to_string()).collect();
    let body = json!({"images": images, "projects": projects});
    done(world, &ask(world, "POST", MEMBER, &body).await).await
}

async fn answer(world: &World, token: &str, image: &Image, project: &str, status: &str) -> Value {
    let body = json!({"images": [image.id.to_string()], "project_id": project, "status": status});
    done(world, &ask(world, "PUT", token, &body).await).await
}

async fn members(world: &World, image: &Image) -> Vec<(String, MemberStatus)> {
    let members = world.catalog.members(image.id).await.unwrap().into_iter();
    members
        .map(|member| (member.project.to_string(), member.status))
        .collect()
}

fn failed(codes: &[&str]) -> (String, String, Vec<String>) {
    let first = codes.iter().find(|code| **code != "success").unwrap();
    let codes = codes.iter().map(|code| (*code).to_owned());
    ("FAIL".to_owned(), (*first).to_owned(), codes.collect())
}

fn succeeded(pairs: usize) -> (String, String, Vec<String>) {
    let results = vec!["success".to_owned(); pairs];
    ("SUCCESS".to_owned(), String::new(), results)
}

#[tokio::test]
async fn a_request_that_breaks_a_rule_makes_no_job() {
    let world = world().await;
    let image = world.image(|_| ()).await.id.to_string();
    let images: Vec<String> = (0..32)
        .map(|n| format!("11111111-2222-4333-8444-{n:012}"))
        .collect();
    let projects: Vec<String> = (0..32).map(|n| format!("p{n}")).collect();
    let shared = |images: Value, projects: Value| json!({"images": images, "projects": projects});
    let bodies = [
        (shared(json!([]), json!([OTHER])), "IMG.0001"),
        (shared(json!([image]), json!([])), "IMG.0001"),
        (shared(json!(image), json!([OTHER])), "IMG.0001"),
        (shared(json!([1]), json!([OTHER])), "IMG.0001"),
        (json!({"images": [image]}), "IMG.0001"),
        (json!({"projects": [OTHER]}), "IMG.0001"),
        (json!([]), "IMG.0001"),
        (shared(json!(["x"]), json!([OTHER])), "IMG.0066"),
        (shared(json!([image]), json!(["no project"])), "IMG.0067"),
        (shared(json!([image]), json!([""])), "IMG.0067"),
        (shared(json!(images), json!(projects)), "IMG.0001"),
    ];
    for (body, code) in &bodies {
        for method in ["POST", "DELETE"] {
            let refused = ask(&world, method, MEMBER, body).await.refusal();
            assert_eq!(refused, (400, (*code).to_owned()), "{method} {body}");
        }
    }
    let answers = [
        (json!({"images": [image], "status": "accepted"}), "IMG.0001"),
        (json!({"images": [image], "project_id": OWN}), "IMG.0001"),
        (json!({"project_id": OWN, "status": "accepted"}), "IMG.0001"),
        (
            json!({"images": [image], "project_id": OWN, "status": "pending"}),
            "IMG.0001",
        ),
        (
            json!({"images": [image], "project_id": OTHER, "status": "accepted"}),
            "IMG.0030",
        ),
        (
            json!({"images": ["x"], "project_id": OWN, "status": "rejected"}),
            "IMG.0066",
        ),
        (
            json!({"images": [image], "project_id": "a b", "status": "rejected"}),
            "IMG.0067",
        ),
    ];
    for (body, code) in answers {
        let refused = ask(&world, "PUT", MEMBER, &body).await.refusal();
        assert_eq!(refused, (400, code.to_owned()), "{body}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        let empty = world.call(method, MEMBER, PATH, "").await;
        assert_eq!(empty.refusal(), (400, "IMG.0007".to_owned()));
        // Who may not share is told so, whatever the body is.
        let reader = world.call(method, READER, PATH, "").await;
        assert_eq!(reader.refusal(), (403, "IMG.0026".to_owned()));
        let nobody = world.call(method, "", PATH, "").await;
        assert_eq!(nobody.refusal(), (401, "IMG.0087".to_owned()));
    }
    assert_eq!(world.catalog.unfinished_jobs().await.unwrap(), (0, 0));
}

#[tokio::test]
async fn images_are_shared_accepted_rejected_offered_again_and_taken_back() {
    let world = world().await;
    let (one, two) = (world.image(|_| ()).await, world.image(|_| ()).await);
    let job = share(&world, &[&one, &two], &[OTHER, THIRD, OTHER]).await;
    assert_eq!(outcome(&job), succeeded(4));
    assert_eq!(job["job_type"], "imsAddImageMembersJob");
    assert_eq!(job["entities"]["process_percent"], 1.0);
    let first = &job["entities"]["results"][0];
    let id = one.id.to_string();
    let wanted = json!({"image_id": id, "project_id": OTHER, "status": "success"});
    assert_eq!(*first, wanted);
    for image in [&one, &two] {
        let record = world.record(image).await;
        assert_eq!(record.visibility, Visibility::Shared);
        let pending = [THIRD, OTHER].map(|project| (project.to_owned(), MemberStatus::Pending));
        assert_eq!(members(&world, image).await, pending);
    }
    let shown = world.get(MEMBER, &format!("/v2/images/{}", one.id)).await;
    assert_eq!(shown.json()["__imagetype"], "shared");
    let listed = world
        .get(
            STRANGER,
            "/v2/cloudimages?member_status=pending&visibility=shared",
        )
        .await;
    assert_eq!(listed.json()["images"].as_array().unwrap().len(), 2);

    let status = async |image: &Image, project: &str| {
        let members = members(&world, image).await;
        let member = members.iter().find(|(name, _)| name == project);
        member.map(|(_, status)| *status)
    };
    for (word, wanted) in [
        ("accepted", MemberStatus::Accepted),
        ("accepted", MemberStatus::Accepted),
        ("rejected", MemberStatus::Rejected),
        ("accepted", MemberStatus::Accepted),
        ("rejected", MemberStatus::Rejected),
    ] {
        let job = answer(&world, STRANGER, &one, OTHER, word).await;
        assert_eq!(outcome(&job), succeeded(1));
        assert_eq!(job["job_type"], "imsUpdateImageMembersJob");
        assert_eq!(status(&one, OTHER).await, Some(wanted));
        assert_eq!(status(&two, OTHER).await, Some(MemberStatus::Pending));
    }
    answer(&world, STRANGER, &two, OTHER, "accepted").await;
    // Who rejected is asked again; who accepted has it still.
    let job = share(&world, &[&one, &two], &[OTHER]).await;
    assert_eq!(outcome(&job), succeeded(2));
    assert_eq!(status(&one, OTHER).await, Some(MemberStatus::Pending));
    assert_eq!(status(&two, OTHER).await, Some(MemberStatus::Accepted));

    let body = json!({"images": [one.id.to_string()], "projects": [OTHER, NOBODY, THIRD]});
    let job = done(&world, &ask(&world, "DELETE", MEMBER, &body).await).await;
    assert_eq!(outcome(&job), failed(&["success", "IMG.0113", "success"]));
    assert_eq!(job["job_type"], "imsDelImageMembersJob");
    assert_eq!(world.record(&one).await.visibility, Visibility::Private);
    assert_eq!(world.record(&two).await.visibility, Visibility::Shared);
    let gone = world.get(STRANGER, &format!("/v2/images/{}", one.id)).await;
    assert_eq!(gone.status, 404);
    let lines = world.catalog.audit_trail(None, None, 999).await.unwrap();
    let of = |trace: &str| {
        let lines = lines.iter().map(|(_, line)| line);
        let lines = lines.filter(|line| line.trace == trace && line.detail["member"].is_string());
        lines.count()
    };
    assert_eq!(
        of("addMember"),
        5,
        "four, and the one that was offered again"
    );
    assert_eq!(
        of("updateMember"),
        5,
        "one of six answers was given already"
    );
    assert_eq!(of("deleteMember"), 2);
    assert_eq!(world.catalog.violations().await.unwrap(), []);
}

#[tokio::test]
async fn each_pair_that_is_refused_says_why_and_does_not_hold_up_the_others() {
    let world = world().await;
    let disabled = "44444444444444444444444444444444";
    let record = calotype_core::ports::ProjectRecord {
        id: disabled.parse().unwrap(),
        domain: "default".parse().unwrap(),
        name: "disabled".to_owned(),
        description: String::new(),
        enabled: false,
    };
    world.catalog.insert_project(&record, None).await.unwrap();
    let good = world.image(|_| ()).await;
    let job = share(&world, &[&good], &[OWN, OTHER, NOBODY, disabled]).await;
    let codes = failed(&["IMG.0076", "success", "IMG.0108", "IMG.0108"]);
    assert_eq!(outcome(&job), codes);
    assert_eq!(
        job["fail_reason"],
        "You cannot share an image with yourself."
    );
    assert_eq!(members(&world, &good).await.len(), 1);

    let public = world.image(|i| i.visibility = Visibility::Public).await;
    let community = world.image(|i| i.visibility = Visibility::Community).await;
    let queued = world.image(|i| i.status = ImageStatus::Queued).await;
    let foreign = world.image(|i| i.owner = OTHER.parse().unwrap()).await;
    let seen = world
        .image(|i| {
            i.owner = OTHER.parse().unwrap();
            i.visibility = Visibility::Shared;
        })
        .await;
    world.share(&seen, MemberStatus::Pending).await;
    let all = [&public, &community, &queued, &foreign, &seen, &good];
    let mut ids: Vec<String> = all.iter().map(|image| image.id.to_string()).collect();
    ids.push(UNKNOWN.to_owned());
    let body = json!({"images": ids, "projects": [THIRD]});
    let job = done(&world, &ask(&world, "POST", MEMBER, &body).await).await;
    let codes = [
        "IMG.0089", "IMG.0089", "IMG.0046", "IMG.0027", "IMG.0047", "success", "IMG.0027",
    ];
    assert_eq!(outcome(&job), failed(&codes));
    let job = done(&world, &ask(&world, "DELETE", MEMBER, &body).await).await;
    let codes = [
        "IMG.0089", "IMG.0089", "IMG.0113", "IMG.0027", "IMG.0047", "success", "IMG.0027",
    ];
    assert_eq!(outcome(&job), failed(&codes));
    let body = json!({"images": ids, "project_id": OWN, "status": "accepted"});
    let job = done(&world, &ask(&world, "PUT", MEMBER, &body).await).await;
    let codes = [
        "IMG.0114", "IMG.0114", "IMG.0114", "IMG.0027", "success", "IMG.0114", "IMG.0027",
    ];
    assert_eq!(outcome(&job), failed(&codes));
    // An administrator shares what is another's, and answers for others.
    let body = json!({"images": [foreign.id.to_string()], "projects": [OWN]});
    let job = done(&world, &ask(&world, "POST", ADMIN, &body).await).await;
    assert_eq!(outcome(&job), succeeded(1));
    let job = answer(&world, ADMIN, &good, OTHER, "accepted").await;
    assert_eq!(outcome(&job), succeeded(1));
}

#[tokio::test]
async fn an_image_has_only_so_many_members_and_a_full_ecs_image_ten() {
    let mut settings = Settings::default();
    settings.limits.members_per_image = 11;
    let world = with(settings).await;
    let projects: Vec<String> = (0..12).map(|n| format!("a{n:031x}")).collect();
    for project in &projects {
        let record = calotype_core::ports::ProjectRecord {
            id: project.parse().unwrap(),
            domain: "default".parse().unwrap(),
            name: project.clone(),
            description: String::new(),
            enabled: true,
        };
        world.catalog.insert_project(&record, None).await.unwrap();
    }
    let projects: Vec<&str> = projects.iter().map(String::as_str).collect();
    let plain = world.image(|_| ()).await;
    let whole = world.image(of_backup).await;
    for (image, most) in [(&plain, 11), (&whole, 10)] {
        let job = share(&world, &[image], &projects).await;
        let (status, code, results) = outcome(&job);
        assert_eq!((status.as_str(), code.as_str()), ("FAIL", "IMG.0088"));
        let shared = results.iter().filter(|result| *result == "success");
        assert_eq!(shared.count(), most);
        assert_eq!(members(&world, image).await.len(), most);
        // Who is a member already takes no room.
        let job = share(&world, &[image], &projects[..most]).await;
        assert_eq!(outcome(&job), succeeded(most));
    }
}

/// Makes it a full-ECS image that may be shared.
fn of_backup(image: &mut Image) {
    for (name, value) in [("__whole_image", "true"), ("__backup_id", "b")] {
        image.properties.insert(name.to_owned(), value.to_owned());
    }
}

#[tokio::test]
async fn a_full_ecs_image_is_shared_only_where_it_is_of_a_backup() {
    let world = world().await;
    let whole = world
        .image(|i| {
            of_backup(i);
            i.visibility = Visibility::Shared;
            i.properties.remove("__backup_id");
        })
        .await;
    let job = share(&world, &[&whole], &[OTHER]).await;
    assert_eq!(outcome(&job), failed(&["IMG.0135"]));
    let path = format!("/v2/images/{}/members", whole.id);
    let body = json!({"member": OTHER}).to_string();
    assert_eq!(world.post(MEMBER, &path, &body).await.status, 400);
    assert!(members(&world, &whole).await.is_empty());
}

#[tokio::test]
async fn a_full_ecs_image_is_accepted_with_a_vault() {
    let world = world().await;
    let whole = world.image(of_backup).await;
    share(&world, &[&whole], &[OTHER]).await;
    let job = answer(&world, STRANGER, &whole, OTHER, "accepted").await;
    assert_eq!(outcome(&job), failed(&["IMG.0184"]));
    let mut body = json!({
        "images": [whole.id.to_string()], "project_id": OTHER, "status": "accepted", "vault_id": " ",
    });
    let job = done(&world, &ask(&world, "PUT", STRANGER, &body).await).await;
    assert_eq!(outcome(&job), failed(&["IMG.0184"]));
    body["vault_id"] = json!("4144d4d8-bd3f-4d5e-9d4e-0a8d7d7a5e7f");
    let job = done(&world, &ask(&world, "PUT", STRANGER, &body).await).await;
    assert_eq!(outcome(&job), succeeded(1));
    let job = answer(&world, STRANGER, &whole, OTHER, "rejected").await;
    assert_eq!(outcome(&job), succeeded(1));
}

#[tokio::test]
async fn an_image_under_a_key_is_shared_with_those_whom_the_key_lets_read() {
    let world = world().await;
    let sealed = world.image(|i| i.cmk_id = Some(K.parse().unwrap())).await;
    let native = |project: &str| {
        let path = format!("/v2/images/{}/members", sealed.id);
        let body = json!({"member": project}).to_string();
        let mut request = request("POST", MEMBER, &path, axum::body::Body::from(body));
        let json = http::HeaderValue::from_static("application/json");
        request.headers_mut().insert("content-type", json);
        world.send(request)
    };
    let job = share(&world, &[&sealed], &[OTHER, THIRD]).await;
    assert_eq!(outcome(&job), failed(&["IMG.0098", "IMG.0098"]));
    assert_eq!(world.record(&sealed).await.visibility, Visibility::Private);
    let let_read = |project: &str, granted| {
        let (key, project) = (K.parse().unwrap(), project.parse().unwrap());
        world.keys.let_read(key, project, granted);
    };
    let_read(OTHER, true);
    let job = share(&world, &[&sealed], &[OTHER, THIRD]).await;
    assert_eq!(outcome(&job), failed(&["success", "IMG.0098"]));
    let shared = world.record(&sealed).await;
    assert_eq!(shared.visibility, Visibility::Shared);
    assert_eq!(native(THIRD).await.status, 400);
    let_read(THIRD, true);
    assert_eq!(native(THIRD).await.status, 200);
    // A key service that is away is waited for.
    let_read(OTHER, false);
    world.keys.set(K, Some(calotype_keys::Wrong::Away));
    let body = json!({"images": [sealed.id.to_string()], "projects": [OTHER]});
    let accepted = ask(&world, "POST", MEMBER, &body).await.json();
    let job = accepted["job_id"].as_str().unwrap();
    let waits = world.work_until(job, |job| job.attempt == 1 && job.attempt_at.is_none());
    assert_eq!(waits.await.ended_at, None);
    world.keys.set(K, Some(calotype_keys::Wrong::Missing));
    world.clock.advance(std::time::Duration::from_secs(60));
    let ended = world.work_until(job, |job| job.ended_at.is_some()).await;
    assert_eq!(ended.failure.unwrap().code.to_string(), "IMG.0098");
}

#[tokio::test]
async fn a_project_has_only_so_many_jobs_about_members_at_once() {
    let mut settings = Settings::default();
    settings.limits.concurrent_member_jobs = 1;
    settings.limits.concurrent_replicas = 1;
    let world = with(settings).await;
    let image = world.image(|_| ()).await;
    let body = json!({"images": [image.id.to_string()], "projects": [OTHER]});
    let first = ask(&world, "POST", MEMBER, &body).await;
    assert_eq!(first.status, 200);
    for method in ["POST", "DELETE"] {
        let second = ask(&world, method, MEMBER, &body).await;
        assert_eq!(second.refusal(), (400, "IMG.0060".to_owned()));
    }
    // Replications are counted by themselves.
    let path = format!("/v1/cloudimages/{}/copy", image.id);
    let copied = world.post(MEMBER, &path, r#"{"name":"replica"}"#).await;
    assert_eq!(copied.status, 200);
    done(&world, &first).await;
    assert_eq!(ask(&world, "POST", MEMBER, &body).await.status, 200);
}

#[tokio::test]
async fn a_key_makes_one_job_and_a_sharer_may_cancel_it() {
    let world = world().await;
    let image = world.image(|_| ()).await;
    let body = json!({"images": [image.id.to_string()], "projects": [OTHER]}).to_string();
    let keyed = async |body: &str| {
        let body = axum::body::Body::from(body.to_owned());
        let mut request = request("POST", MEMBER, PATH, body);
        let key = http::HeaderValue::from_static("once");
        request.headers_mut().insert("idempotency-key", key);
        world.send(request).await
    };
    let first = keyed(&body).await;
    let second = keyed(&body).await;
    assert_eq!(first.text, second.text);
    assert_eq!(second.headers["idempotency-replayed"], "true");
    assert_eq!(keyed(&body.replace(OTHER, THIRD)).await.status, 409);
    assert_eq!(world.catalog.unfinished_jobs().await.unwrap(), (1, 0));

    let job = first.json()["job_id"].as_str().unwrap().to_owned();
    let cancel = async |token: &str| {
        let path = format!("/admin/v1/jobs/{job}");
        world.call("DELETE", token, &path, "").await
    };
    assert_eq!(cancel(READER).await.status, 403);
    assert_eq!(cancel(STRANGER).await.status, 404);
    let ended = cancel(MEMBER).await;
    assert_eq!(
        (ended.status.as_u16(), &ended.json()["status"]),
        (202, &json!("FAIL"))
    );
    assert_eq!(members(&world, &image).await, []);
}

#[tokio::test]
async fn whom_an_image_is_shared_with_is_told_in_pages_as_huaweis_sdks_ask() {
    let world = world().await;
    let image = world.image(|_| ()).await;
    let path = format!("/v1/{OWN}/cloudimages/{}/members", image.id);
    let projects = async |query: &str| {
        let answer = world.get(MEMBER, &format!("{path}{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let body = answer.json();
        let members = body["members"].as_array().unwrap().clone();
        assert_eq!(body["page_info"]["current_count"], members.len());
        let ids = members.iter().map(|member| member["member_id"].clone());
        (
            ids.collect::<Vec<_>>(),
            body["page_info"]["next_marker"].clone(),
        )
    };
    assert_eq!(projects("").await, (vec![], Value::Null));
    share(&world, &[&image], &[OTHER, THIRD]).await;
    assert_eq!(
        projects("").await,
        (vec![json!(THIRD), json!(OTHER)], Value::Null)
    );
    assert_eq!(
        projects("?limit=1").await,
        (vec![json!(THIRD)], json!(THIRD))
    );
    let rest = format!("?limit=2&marker={THIRD}");
    assert_eq!(projects(&rest).await, (vec![json!(OTHER)], Value::Null));
    let one = world.get(MEMBER, &format!("{path}/{OTHER}")).await.json();
    assert_eq!(
        (&one["member_id"], &one["status"]),
        (&json!(OTHER), &json!("pending"))
    );
    // A member knows of itself alone.
    let theirs = format!("/v1/{OTHER}/cloudimages/{}/members", image.id);
    let shown = world.get(STRANGER, &theirs).await.json();
    assert_eq!(shown["members"].as_array().unwrap().len(), 1);

    let unknown = format!("/v1/{OWN}/cloudimages/{UNKNOWN}/members");
    let malformed = format!("/v1/{OWN}/cloudimages/x/members");
    let nobody = format!("{path}/{NOBODY}");
    for (token, path, status, code) in [
        ("", &path, 401, "IMG.0087"),
        (READER, &path, 403, "IMG.0026"),
        (STRANGER, &path, 400, "IMG.0030"),
        (MEMBER, &format!("{path}?limit=0"), 400, "IMG.0001"),
        (MEMBER, &malformed, 400, "IMG.0066"),
        (MEMBER, &unknown, 404, "IMG.0027"),
        (MEMBER, &format!("{unknown}/{OTHER}"), 404, "IMG.0027"),
        (MEMBER, &nobody, 404, "IMG.0121"),
        (STRANGER, &format!("{theirs}/{THIRD}"), 404, "IMG.0121"),
    ] {
        let refused = world.get(token, path).await.refusal();
        assert_eq!(refused, (status, code.to_owned()), "{path}");
    }
}
