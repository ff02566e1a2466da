//! The server with the users and projects of a real Keystone.

use std::process::Command;

use calotype_tests::client::{Client, send};
use calotype_tests::keystone::Use;
use calotype_tests::openstack::User;
use calotype_tests::{Front, Keystone, Options, Server, program, until};
use reqwest::Method;
use serde_json::{Value, json};

use crate::clients::script_at;
use crate::command::{Terminal, exit};

/// The path of a validation.
const VALIDATION: &str = "/v3/auth/tokens?nocatalog";

fn start(keystone: &Keystone) -> Server {
    Server::start(Options::default().with_keystone(keystone))
}

/// A Keystone that a server reaches through a front, and believes for so long.
fn behind(front: &Front, cache_life: &str) -> Keystone {
    Keystone::used(Use {
        through: Some(front.url().to_owned()),
        cache_life: cache_life.to_owned(),
        ..Use::default()
    })
}

/// A Keystone that a server asks each time.
fn unbelieved() -> Keystone {
    Keystone::used(Use {
        cache_life: "0s".to_owned(),
        ..Use::default()
    })
}

/// What a list of images is answered with under a token.
fn status(server: &Server, token: &str) -> u16 {
    let client = Client::anonymous(server.base()).with_token(token);
    client.get("/v2/images").status
}

/// What a signed list of images is answered with.
fn signed(server: &Server, (id, secret): (&str, &str), project: &str) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/huawei_sdk_list.py");
    let output = Command::new(program::python())
        .args(["-B", script])
        .env("CALOTYPE_URL", server.base())
        .env("CALOTYPE_ACCESS_KEY", id)
        .env("CALOTYPE_SECRET_KEY", secret)
        .env("CALOTYPE_PROJECT", project)
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .expect("the interpreter runs");
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(
        output.status.success(),
        "{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

#[test]
fn openstacksdk_finds_it_in_keystones_catalog() {
    let server = start(&Keystone::new());
    script_at(&server, &program::python(), "openstacksdk_images.py", &[]);
}

#[test]
fn the_openstack_command_finds_it_in_keystones_catalog() {
    let server = start(&Keystone::new());
    script_at(&server, &program::python(), "openstack_command.py", &[]);
}

#[test]
fn the_huawei_sdk_signs_with_keystones_ec2_credentials() {
    let server = start(&Keystone::new());
    let directory = tempfile::tempdir().expect("a directory");
    let calls = directory.path().join("calls");
    let environment = [("CALOTYPE_CALLS", calls.as_path())];
    let name = "huawei_sdk_images.py";
    script_at(&server, &program::python(), name, &environment);
}

#[test]
fn keystones_roles_permit_what_their_names_say() {
    let keystone = Keystone::new();
    let server = start(&keystone);
    let (member, admin) = (server.user(), server.admin());
    let image = member.image("the member's", 1, 1000);

    let (demo, openstack) = (keystone.demo(), keystone.openstack());
    let reader = openstack.user_in(&demo.project, &demo.project_name, "reader");
    let reader = member.with_token(&reader.token);
    assert_eq!(reader.show(&image)["name"], "the member's");
    reader.post("/v2/images", json!({"name": "x"})).expect(403);
    reader.delete(&format!("/v2/images/{image}")).expect(403);

    let stranger = member.with_token(&openstack.user("member").token);
    stranger.get(&format!("/v2/images/{image}")).expect(404);
    let nobody = openstack.user_in(&demo.project, &demo.project_name, "service");
    let nobody = member.with_token(&nobody.token);
    nobody.get("/v2/images").expect(403);

    assert_eq!(admin.show(&image)["owner"], member.project());
    admin.delete(&format!("/v2/images/{image}")).expect(204);
}

#[test]
fn an_administrator_of_a_domain_is_none_of_every_image_and_one_of_the_system_is() {
    let keystone = Keystone::new();
    let server = start(&keystone);
    let image = server.user().image("the member's", 1, 1000);
    let openstack = keystone.openstack();
    let user = openstack.user("member");
    let role = openstack.role("admin");
    for target in ["domains/default", "system"] {
        let path = format!("{target}/users/{}/roles/{role}", user.id);
        openstack.admin(Method::PUT, &path, None);
    }
    let proof = json!({"methods": ["password"], "password": {"user": {
        "id": user.id, "password": user.password}}});
    let client = |scope: &Value| {
        let token = openstack.token(&proof, Some(scope));
        Client::anonymous(server.base()).with_token(&token)
    };
    let path = format!("/v2/images/{image}");
    let of_domain = client(&json!({"domain": {"id": "default"}}));
    of_domain.get(&path).expect(404);
    of_domain.get("/admin/v1/verify").expect(403);
    let of_system = client(&json!({"system": {"all": true}}));
    of_system.get(&path).expect(200);
    of_system.get("/admin/v1/verify").expect(200);
}

#[test]
fn tokens_that_are_made_up_or_have_ended_are_refused() {
    let keystone = unbelieved();
    let server = start(&keystone);
    let whole = &keystone.demo().token;
    let cut = &whole[..whole.len() - 8];
    for token in [
        "nonsense",
        "gAAAAABbad",
        cut,
        "../../v3/users",
        &"x".repeat(9000),
    ] {
        assert_eq!(status(&server, token), 401, "{token}");
    }
    let refused = Client::anonymous(server.base()).get("/v2/cloudimages");
    refused.refused(401, "IMG.0087");
    let uri = format!("Keystone uri=\"{}/v3\"", keystone.openstack().keystone());
    assert_eq!(refused.header("www-authenticate"), uri);

    let user = keystone.openstack().user("member");
    let made = keystone.openstack().now_plus(20);
    let short = keystone.openstack().short_token(&user, &made);
    assert_eq!(status(&server, &short), 200);
    until("the token to end", || {
        (status(&server, &short) == 401).then_some(())
    });
}

#[test]
fn a_service_token_lends_nothing_to_a_token_that_is_none() {
    let keystone = Keystone::new();
    let server = start(&keystone);
    let client = Client::anonymous(server.base()).with_token("gAAAAABbad");
    let request = client.request(Method::GET, "/v2/images");
    let request = request.header("X-Service-Token", &keystone.administrator().token);
    // Nor do the headers of a middleware that is not there.
    let request = request.header("X-Identity-Status", "Confirmed");
    send(request.header("X-Roles", "admin")).expect(401);
}

#[test]
fn a_token_that_is_revoked_works_until_the_caches_end_and_no_longer() {
    let keystone = Keystone::used(Use {
        cache_life: "2s".to_owned(),
        ..Use::default()
    });
    let server = start(&keystone);
    let user = keystone.openstack().user("member");
    assert_eq!(status(&server, &user.token), 200);
    keystone.openstack().end_tokens(&user);
    until("the revocation to be heard of", || {
        (status(&server, &user.token) == 401).then_some(())
    });
}

#[test]
fn thirty_two_at_once_with_one_new_token_ask_once() {
    let front = Front::open();
    let keystone = behind(&front, "60s");
    front.lead_to(keystone.openstack().keystone());
    let server = start(&keystone);
    let client = server.user();
    let asked = || front.asked(VALIDATION).len();
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| client.get("/v2/images").expect(200));
        }
    });
    assert_eq!(asked(), 1);
    assert_eq!(status(&server, "gAAAAABbad"), 401);
    assert_eq!(status(&server, "gAAAAABbad"), 401);
    assert_eq!(asked(), 2);
    let stranger = Client::anonymous(server.base()).with_token("gAAAAABmade-up");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(stranger.get(path).status, 200, "{path}");
    }
    assert_eq!(asked(), 2, "nobody's token is asked about there");
    let metrics = client.get("/metrics").text();
    let counted = |outcome: &str, times: u32| {
        let line = format!(
            "calotype_keystone_validations_total{{what=\"token\",outcome=\"{outcome}\"}} {times}\n"
        );
        assert!(metrics.contains(&line), "{line}{metrics}");
    };
    counted("good", 1);
    counted("refused", 1);
}

#[test]
fn while_keystone_is_away_those_who_are_known_go_on_and_others_come_again() {
    let front = Front::open();
    let keystone = behind(&front, "5m");
    front.lead_to(keystone.openstack().keystone());
    let server = start(&keystone);
    let (known, new) = (server.user(), keystone.openstack().user("member"));
    let image = known.image("an image", 1, 1000);

    front.lead_nowhere();
    let waits = Client::anonymous(server.base()).with_token(&new.token);
    for _ in 0..8 {
        let away = waits.get("/v2/cloudimages");
        away.refused(503, "IMG.0061");
        assert!(!away.header("retry-after").is_empty());
    }
    let labels = ["what=\"token\"", "outcome=\"away\""];
    let told = server.metric("calotype_keystone_validations_total", &labels);
    assert!(told > 0.0);
    // Once it is left alone there is no waiting, and those who are known notice nothing.
    known.get(&format!("/v2/images/{image}")).expect(200);
    let ready = waits.get("/readyz").expect(200);
    assert!(ready.text().contains("identity is away"), "{ready}");
    known.get("/v2/images").expect(200);

    front.lead_to(keystone.openstack().keystone());
    until("Keystone to be found again", || {
        (status(&server, &new.token) == 200).then_some(())
    });
    assert_eq!(waits.get("/readyz").expect(200).text(), "ready\n");
}

#[test]
fn a_server_starts_without_its_keystone_and_says_so() {
    let front = Front::open();
    let keystone = behind(&front, "60s");
    let server = start(&keystone);
    let anonymous = Client::anonymous(server.base());
    anonymous.get("/readyz").expect(503);
    anonymous.get("/healthz").expect(200);
    assert_eq!(status(&server, &keystone.demo().token), 503);
    front.lead_to(keystone.openstack().keystone());
    until("the server to be ready", || {
        (anonymous.get("/readyz").status == 200).then_some(())
    });
    assert_eq!(status(&server, &keystone.demo().token), 200);
}

#[test]
fn an_answer_that_is_not_keystones_makes_no_token_bad() {
    let front = Front::open();
    let keystone = behind(&front, "0s");
    front.lead_to(keystone.openstack().keystone());
    let server = start(&keystone);
    let token = &keystone.demo().token;
    assert_eq!(status(&server, token), 200);
    for (head, body) in [
        ("404 Not Found", "<html>no such page</html>"),
        ("200 OK", "{}"),
        ("503 Service Unavailable", ""),
        ("302 Found", ""),
    ] {
        front.answer_instead("/v3/auth/tokens?", head, body);
        assert_eq!(status(&server, token), 503, "{head}");
        front.let_through();
        until("Keystone to be asked again", || {
            (status(&server, token) == 200).then_some(())
        });
    }
}

#[test]
fn a_signature_is_good_in_its_keys_project_while_its_user_may_be_there() {
    let keystone = unbelieved();
    let server = start(&keystone);
    let openstack = keystone.openstack();
    let user = openstack.user("member");
    let (id, secret) = openstack.access_key(&user);
    let list = |secret: &str, project: &str| signed(&server, (&id, secret), project);
    assert_eq!(list(&secret, &user.project), "200");
    assert_eq!(list(&secret, &keystone.demo().project), "403");
    assert_eq!(list(&"0".repeat(32), &user.project), "401");
    let unknown = ("0123456789abcdef", secret.as_str());
    assert_eq!(signed(&server, unknown, &user.project), "401");

    let enable = |path: &str, kind: &str, enabled: bool| {
        let body = json!({kind: {"enabled": enabled}});
        openstack.admin(Method::PATCH, path, Some(&body));
    };
    for (path, kind) in [
        (format!("users/{}", user.id), "user"),
        (format!("projects/{}", user.project), "project"),
    ] {
        enable(&path, kind, false);
        assert_eq!(list(&secret, &user.project), "401", "{kind}");
        enable(&path, kind, true);
        assert_eq!(list(&secret, &user.project), "200", "{kind}");
    }
    let role = openstack.role("member");
    let path = format!("projects/{}/users/{}/roles/{role}", user.project, user.id);
    openstack.admin(Method::DELETE, &path, None);
    assert_eq!(list(&secret, &user.project), "401");
}

#[test]
fn roles_through_groups_count_for_signatures_too() {
    let keystone = unbelieved();
    let server = start(&keystone);
    let openstack = keystone.openstack();
    let user = openstack.user("service");
    let (id, secret) = openstack.access_key(&user);
    assert_eq!(signed(&server, (&id, &secret), &user.project), "403");
    let body = json!({"group": {"name": user.name, "domain_id": "default"}});
    let group = openstack.admin(Method::POST, "groups", Some(&body));
    let group = group["group"]["id"].as_str().expect("an id");
    let role = openstack.role("member");
    for path in [
        format!("groups/{group}/users/{}", user.id),
        format!("projects/{}/groups/{group}/roles/{role}", user.project),
    ] {
        openstack.admin(Method::PUT, &path, None);
    }
    assert_eq!(signed(&server, (&id, &secret), &user.project), "200");
}

#[test]
fn with_the_role_service_alone_tokens_are_validated_and_nothing_is_looked_up() {
    let keystone = Keystone::used(Use {
        role: "service",
        ..Use::default()
    });
    let server = start(&keystone);
    let client = server.user();
    let image = client.image("an image", 1, 1000);
    let project = client.project();
    assert_eq!(signed(&server, keystone.access_key(), project), "401");
    // It may not know which projects there are: all are.
    let nobodys = "0123456789abcdef0123456789abcdef";
    assert_eq!(share(&client, &image, nobodys)["status"], "SUCCESS");
}

/// Shares an image as a job; the result is its document.
fn share(client: &Client, image: &str, project: &str) -> Value {
    let body = json!({"images": [image], "projects": [project]});
    let accepted = client.post("/v1/cloudimages/members", body).expect(200);
    let job = accepted.json()["job_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    client.job(&job).document
}

#[test]
fn images_are_shared_with_keystones_projects_and_no_others() {
    let keystone = Keystone::new();
    let server = start(&keystone);
    let client = server.user();
    let image = client.image("an image", 1, 1000);
    let other: User = keystone.openstack().user("member");
    let shared = share(&client, &image, &other.project);
    assert_eq!(shared["status"], "SUCCESS", "{shared}");
    let member = client.with_token(&other.token);
    let accepted = json!({"status": "accepted"});
    let path = format!("/v2/images/{image}/members/{}", other.project);
    member.put(&path, accepted).expect(200);
    assert_eq!(member.download(&image), client.download(&image));

    let nobodys = share(&client, &image, "0123456789abcdef0123456789abcdef");
    assert_eq!(nobodys["status"], "FAIL", "{nobodys}");
    assert_eq!(nobodys["error_code"], "IMG.0108", "{nobodys}");
}

#[test]
fn an_image_under_a_key_is_read_by_those_of_a_project_to_whom_the_key_was_granted() {
    let keystone = Keystone::new();
    let server = start(&keystone);
    let owner = server.user();
    let source = owner.image("source", 1, 70_000);
    let key = owner.create_key("sealing");
    let sealed = owner.replicate_with(&source, json!({"name": "sealed", "cmk_id": key}));
    let openstack = keystone.openstack();
    let grantee = openstack.user("member");
    let colleague = openstack.user_in(&grantee.project, &grantee.project_name, "member");
    let shared = share(&owner, &sealed, &grantee.project);
    assert_eq!(shared["status"], "SUCCESS", "{shared}");

    let reader = owner.with_token(&grantee.token);
    let path = format!("/v2/images/{sealed}/members/{}", grantee.project);
    reader.put(&path, json!({"status": "accepted"})).expect(200);
    let file = format!("/v2/images/{sealed}/file");
    reader.get(&file).expect(403);
    let operations = json!(["describe-key", "decrypt-datakey"]);
    let grant = json!({"key_id": key, "grantee_principal": grantee.id, "operations": operations});
    owner.kms("create-grant", grant).expect(200);
    assert_eq!(reader.download(&sealed), owner.download(&source));
    let other = owner.with_token(&colleague.token);
    other.get(&file).expect(403);

    owner.key_call("disable-key", &key);
    let third = openstack.user("member");
    let refused = share(&owner, &sealed, &third.project);
    assert_eq!(refused["error_code"], "IMG.0098", "{refused}");
}

#[test]
fn the_identity_api_is_keystones_and_says_so() {
    let keystone = Keystone::new();
    let server = start(&keystone);
    let admin = server.admin().direct();
    let url = format!("{}/v3", keystone.openstack().keystone());
    for path in [
        "/identity",
        "/identity/",
        "/identity/v3",
        "/identity/v3/users",
    ] {
        let told = admin.get(path).expect(404);
        assert!(told.text().contains(&url), "{told}");
    }
    let login = json!({"auth": {}});
    let told = Client::anonymous(server.base()).direct();
    let told = told.post("/identity/v3/auth/tokens", login).expect(404);
    assert!(told.text().contains(&url), "{told}");

    // Enterprise projects are the service's own; roles on them are for users of its own.
    let path = "/admin/v1/enterprise-projects";
    let made = admin
        .post(path, json!({"name": "finance"}))
        .expect(201)
        .json();
    let id = made["id"].as_str().expect("an id");
    let (user, project) = (admin.user(), admin.project());
    let roles = format!("{path}/{id}/projects/{project}/users/{user}/roles");
    let told = admin.get(&roles);
    told.refused(404, "IMG.0121");
    assert!(told.text().contains(&url), "{told}");
    Client::anonymous(server.base()).get(&roles).expect(401);
}

#[test]
fn the_command_logs_in_at_keystone_and_shows_its_projects() {
    let keystone = Keystone::new();
    let server = start(&keystone);
    server.user().image("by-command", 1, 1000);
    let user = Terminal::new(&server, "calotype", "json");
    let listed = user.ok(&["image", "list"]);
    assert!(listed.list("name", "by-command").1, "{}", listed.text);
    let admin = Terminal::new(&server, "calotype-admin", "json");
    let (name, project) = (&keystone.demo().name, &keystone.demo().project_name);
    let projects = admin.ok(&["admin", "project", "list"]);
    assert!(projects.list("name", project).1, "{}", projects.text);
    let made = admin.ok(&["admin", "enterprise-project", "create", "finance"]);
    let grant = [
        "admin",
        "role",
        "grant",
        "member",
        "--user",
        name,
        "--project",
        project,
    ];
    let id = made.field("id");
    let on = ["--enterprise-project", id.as_str()];
    let told = admin.fails(&[&grant[..], &on].concat(), exit::NOT_FOUND);
    assert!(told.contains("Keystone"), "{told}");
}

#[test]
fn no_credential_is_in_the_log_at_its_most_talkative() {
    let keystone = Keystone::new();
    let options = Options::config(calotype_tests::config::log("trace"));
    let server = Server::start(options.with_keystone(&keystone));
    let client = server.user();
    let access_key = keystone.access_key();
    assert_eq!(signed(&server, access_key, client.project()), "200");
    client.get("/v2/images").expect(200);
    let log = server.log();
    assert!(log.contains(" TRACE "), "{log}");
    for secret in [&keystone.service().password, access_key.1, "gAAAA"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
