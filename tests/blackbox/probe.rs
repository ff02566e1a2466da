//! Every operation that the server documents is probed with no, a bad, an expired, a foreign and a
//! reader's credential. `fixtures/endpoints.tsv` says what each needs; an operation without a row fails,
//! and so does a row without an operation, so that the table can only be complete.

use std::collections::BTreeSet;

use calotype_tests::{Answer, Client, Options, Server, config, until};
use reqwest::Method;
use serde_json::{Value, json};

const TABLE: &str = include_str!("../fixtures/endpoints.tsv");

/// What a deployment on engines leaves to others, by how the paths begin: users and their roles, keys, and what its balancer keeps
/// for operators.
pub(crate) const ELSEWHERE: [&str; 5] = [
    "/admin/v1/enterprise-projects/{id}/projects/",
    "/identity",
    "/kms/",
    "/metrics",
    "/readyz",
];

/// Whether a server is the one that answers to a path.
pub(crate) fn is_served(server: &Server, path: &str) -> bool {
    !server.is_on_engines() || !ELSEWHERE.iter().any(|begin| path.starts_with(begin))
}

struct Row {
    method: Method,
    path: &'static str,
    needs: &'static str,
    foreign: &'static str,
}

struct Ids {
    image: String,
    job: String,
    project: String,
    user: String,
    key: String,
}

impl Row {
    fn probe(&self, client: &Client, ids: &Ids) -> Answer {
        self.probe_at(self.path, client, ids)
    }

    fn probe_at(&self, path: &str, client: &Client, ids: &Ids) -> Answer {
        let path = path
            .replace("{image_id}", &ids.image)
            .replace("{job_id}", &ids.job)
            .replace("{project_id}", &ids.project)
            .replace("{user_id}", &ids.user)
            .replace("{member_id}", &ids.project)
            .replace("{role_id}", &"0".repeat(32))
            .replace("{key_id}", &ids.key)
            .replace("{blob_id}", "11111111-2222-4333-8444-555555555555")
            .replace("{store}", "main")
            .replace("{tag}", "probe")
            .replace("{key}", "probe")
            .replace("{domain_id}", "default")
            .replace("{access}", "PROBE")
            .replace("{version}", "v2.9")
            .replace("{id}", "11111111-2222-4333-8444-555555555555");
        assert!(
            !path.contains('{'),
            "no value is known for a part of {path}"
        );
        let request = client
            .request(self.method.clone(), &path)
            .header("Accept", "application/json");
        // Bodies that pass the edge, so that it is the permission that answers.
        let (media, body) = match (&self.method, self.path) {
            (&Method::PATCH, "/v2/images/{image_id}") => (
                "application/openstack-images-v2.1-json-patch",
                json!([{"op": "replace", "path": "/name", "value": "p"}]),
            ),
            (&Method::PATCH, "/v2/cloudimages/{image_id}") => (
                "application/json",
                json!([{"op": "replace", "path": "/name", "value": "p"}]),
            ),
            (_, "/v1/cloudimages/tags") => (
                "application/json",
                json!({"image_id": ids.image, "tag": "probe"}),
            ),
            (_, path) if path.starts_with("/v") && path.contains("/tags") => {
                let tag = json!({"key": "probe", "value": ""});
                (
                    "application/json",
                    json!({"action": "create", "tag": tag, "tags": [tag]}),
                )
            }
            (_, path)
                if path.ends_with("/resource_instances/action") && path.starts_with("/v2") =>
            {
                ("application/json", json!({"action": "count"}))
            }
            (_, path)
                if path.contains("/cloudimages")
                    && (path.ends_with("/action") || path.ends_with("/upload")) =>
            {
                (
                    "application/json",
                    json!({
                        "name": "probe", "image_url": "nowhere:probe", "min_disk": 40,
                        "os_version": "CentOS 7.2 64bit",
                    }),
                )
            }
            (&Method::POST, path) if path.ends_with("/file") => (
                "application/json",
                json!({"bucket_url": "nowhere:probe", "file_format": "qcow2"}),
            ),
            (_, path) if path.ends_with("/file") => ("application/octet-stream", json!({})),
            (_, path) if path.ends_with("/cross_region_copy") => (
                "application/json",
                json!({
                    "name": "probe", "region": "elsewhere", "project_name": "probe",
                    "agency_name": "probe",
                }),
            ),
            (_, path) if path.ends_with("/copy") => ("application/json", json!({"name": "probe"})),
            (_, "/v1/cloudimages/members") => (
                "application/json",
                json!({
                    "images": [ids.image], "projects": [ids.project],
                    "project_id": ids.project, "status": "rejected",
                }),
            ),
            (_, path) if path.ends_with("/members") => {
                ("application/json", json!({"member": ids.project}))
            }
            (_, path) if path.ends_with("/members/{member_id}") => {
                ("application/json", json!({"status": "accepted"}))
            }
            (_, path) if path.ends_with("/move") => ("application/json", json!({"store": "main"})),
            (&Method::POST, path) if path.starts_with("/kms/") => {
                ("application/json", key_body(path, ids))
            }
            _ => ("application/json", json!({})),
        };
        let bodyless = matches!(self.method, Method::GET | Method::HEAD | Method::DELETE)
            && !self.path.ends_with("/tags/delete")
            && self.path != "/v1/cloudimages/members";
        let request = if bodyless {
            request.header("X-Subject-Token", client.token())
        } else {
            request.header("Content-Type", media).body(body.to_string())
        };
        calotype_tests::client::send(request)
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn needs_action(&self) -> bool {
        self.needs.contains(':')
    }
}

/// A body with every field that some call of the KMS API must have. Unknown ones are ignored.
fn key_body(path: &str, ids: &Ids) -> Value {
    // Of one byte, which is zero.
    let digest = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
    let plain = if path.ends_with("encrypt-datakey") {
        format!("00{digest}")
    } else {
        "text".to_owned()
    };
    let action = if path.ends_with("tags/action") {
        "create"
    } else {
        "filter"
    };
    let tag = json!({"key": "probe", "value": "v"});
    json!({
        "key_id": ids.key, "key_alias": "probe", "key_description": "d", "pending_days": "7",
        "rotation_interval": 30, "datakey_length": "512", "plain_text": plain,
        "datakey_plain_length": "1", "cipher_text": "0000", "datakey_cipher_length": "1",
        "grantee_principal": ids.user, "operations": ["describe-key"], "grant_id": "a".repeat(64),
        "action": action, "tag": tag, "tags": if action == "create" { json!([tag]) } else { json!([]) },
    })
}

/// The rows of what a server answers to.
fn rows_of(server: &Server) -> Vec<Row> {
    let mut rows = rows();
    rows.retain(|row| is_served(server, row.path));
    rows
}

fn rows() -> Vec<Row> {
    let rows = TABLE.lines().skip(1).map(|line| {
        let fields: Vec<&'static str> = line.split('\t').collect();
        let [method, path, needs, foreign] = fields[..] else {
            panic!("not four fields: {line}");
        };
        Row {
            method: method.parse().expect("a method"),
            path,
            needs,
            foreign,
        }
    });
    rows.collect()
}

#[test]
fn every_operation_that_is_documented_has_a_row_and_every_row_an_operation() {
    let server = Server::with_defaults();
    let document = Client::anonymous(server.base())
        .get("/openapi.json")
        .expect(200)
        .json();
    assert!(
        document["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3."))
    );
    let documented: BTreeSet<String> = operations(&document).into_iter().collect();
    let known: BTreeSet<String> = rows().iter().map(Row::name).collect();
    let missing: Vec<_> = documented.difference(&known).collect();
    let stale: Vec<_> = known.difference(&documented).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "operations without a row: {missing:#?}\nrows without an operation: {stale:#?}"
    );
}

#[test]
fn no_operation_but_the_public_ones_answers_without_a_valid_token() {
    let server = Server::start(Options::config(config::token_lifetime(3600)));
    let (client, ids) = place(&server);
    let anonymous = Client::anonymous(server.base());
    for row in rows_of(&server) {
        for (what, caller) in [
            ("no token", anonymous.clone()),
            ("a bad token", client.with_token("gAAAA-not-a-token")),
            ("an empty token", client.with_token("")),
            (
                "a longer token",
                client.with_token(&format!("{}x", client.token())),
            ),
        ] {
            let answer = row.probe(&caller, &ids);
            let refused = answer.status == 401;
            assert_eq!(
                refused,
                row.needs != "public",
                "{} with {what}: {answer}",
                row.name()
            );
            assert!(answer.status < 500, "{} with {what}: {answer}", row.name());
        }
    }
    assert_eq!(
        client.show(&ids.image)["name"],
        "probed",
        "nothing was changed"
    );
}

#[test]
fn an_expired_token_opens_nothing() {
    let server = Server::start(Options::config(config::token_lifetime(1)).embedded());
    let client = server.user();
    until("the token to expire", || {
        (client.get("/v2/images").status == 401).then_some(())
    });
    let ids = Ids {
        image: "11111111-2222-4333-8444-555555555555".to_owned(),
        job: "0".repeat(32),
        project: client.project().to_owned(),
        user: client.user().to_owned(),
        key: "11111111-2222-4333-8444-555555555555".to_owned(),
    };
    for row in rows().iter().filter(|row| row.needs != "public") {
        row.probe(&client, &ids).expect(401);
    }
}

#[test]
fn another_projects_token_reaches_none_of_this_projects_things() {
    let server = Server::with_defaults();
    let (client, ids) = place(&server);
    let stranger = server.admin().new_project("stranger", "member");
    // Paths that name a project name the caller's own: what is foreign is the image and the job.
    let theirs = Ids {
        project: stranger.project().to_owned(),
        ..ids
    };
    let before = client.state();
    for row in rows_of(&server).iter().filter(|row| row.foreign != "-") {
        let answer = row.probe(&stranger, &theirs);
        assert_eq!(
            answer.status.to_string(),
            row.foreign,
            "{}: {answer}",
            row.name()
        );
    }
    assert_eq!(client.state(), before);
}

#[test]
fn a_reader_may_do_what_reads_and_nothing_else() {
    let server = Server::with_defaults();
    let (client, ids) = place(&server);
    let name = server.clouds().get("project_name");
    let reader = server
        .admin()
        .new_user("looker", client.project(), &name, "reader");
    let before = client.state();
    for row in rows_of(&server).iter().filter(|row| row.needs_action()) {
        let (_, verb) = row.needs.rsplit_once(':').expect("an action");
        let reads = verb.starts_with("list") || verb.starts_with("get");
        let answer = row.probe(&reader, &ids);
        assert_eq!(answer.status == 403, !reads, "{}: {answer}", row.name());
    }
    assert_eq!(client.state(), before);
}

#[test]
fn every_call_of_the_kms_api_is_answered_at_the_root_too() {
    let server = Server::with_own_keys();
    let (client, ids) = place(&server);
    let name = server.clouds().get("project_name");
    let reader = server
        .admin()
        .new_user("looker", client.project(), &name, "reader");
    for row in rows() {
        let Some(path) = row.path.strip_prefix("/kms/v1.0/{project_id}") else {
            continue;
        };
        let path = format!("/v1.0/{{project_id}}{path}");
        let (here, there) = (row.probe(&reader, &ids), row.probe_at(&path, &reader, &ids));
        assert_eq!(here.status, there.status, "{there}");
        assert!(![404, 405].contains(&there.status), "{there}");
    }
}

#[test]
fn a_user_administers_nothing() {
    let server = Server::with_defaults();
    let (client, ids) = place(&server);
    for row in rows_of(&server)
        .iter()
        .filter(|row| row.needs.ends_with(":administer"))
    {
        row.probe(&client, &ids).expect(403);
    }
}

#[test]
fn a_user_lists_itself_its_own_projects_and_nobody_elses() {
    let server = Server::embedded();
    let admin = server.admin();
    let one = admin.new_project("one", "member");
    let other = admin.new_project("other", "member");
    let ids = |path: &str, kind: &str| -> Vec<Value> {
        let list = one.get(path).expect(200).json();
        let found = list[kind].as_array().expect("a list").iter();
        found.map(|each| each["id"].clone()).collect()
    };
    assert_eq!(ids("/identity/v3/users", "users"), [json!(one.user())]);
    let named = ids("/identity/v3/users?name=other-member", "users");
    assert_eq!(named, Vec::<Value>::new());
    let projects = ids("/identity/v3/projects", "projects");
    assert_eq!(projects, [json!(one.project())]);
    for path in [
        format!("users/{}", other.user()),
        format!("users/{}/credentials/OS-EC2", other.user()),
        format!("projects/{}", other.project()),
    ] {
        one.get(&format!("/identity/v3/{path}")).expect(404);
    }
}

#[test]
fn who_guesses_a_password_shuts_out_itself_alone() {
    let server = Server::embedded();
    let clouds = server.clouds();
    let (name, right) = (clouds.get("username"), clouds.get("password"));
    let login = |address: [u8; 4], password: &str| {
        let http = reqwest::blocking::Client::builder()
            .no_proxy()
            .local_address(std::net::IpAddr::from(address))
            .build()
            .expect("an HTTP client");
        let user = json!({"name": name, "domain": {"id": "default"}, "password": password});
        let identity = json!({"methods": ["password"], "password": {"user": user}});
        let request = http
            .post(format!("{}/identity/v3/auth/tokens", server.base()))
            .json(&json!({"auth": {"identity": identity}}));
        request.send().expect("an answer").status().as_u16()
    };
    let (guesser, user) = ([127, 0, 0, 2], [127, 0, 0, 3]);
    for _ in 0..5 {
        assert_eq!(login(guesser, "a guess"), 401);
    }
    assert_eq!(login(user, &right), 201);
    until("the guesser's door to open", || {
        (login(guesser, &right) == 201).then_some(())
    });
}

#[test]
fn headers_that_claim_an_identity_are_not_believed() {
    let server = Server::with_defaults();
    let anonymous = Client::anonymous(server.base());
    let claim = anonymous
        .request(Method::GET, "/v2/images")
        .header("X-Identity-Status", "Confirmed")
        .header("X-Roles", "admin")
        .header("X-User-Id", "0")
        .header("X-Project-Id", server.user().project().to_owned());
    calotype_tests::client::send(claim).expect(401);
}

/// A user with an image and a job.
fn place(server: &Server) -> (Client, Ids) {
    let client = server.user();
    let image = client.image("probed", 1, 100);
    let accepted = client
        .copy(&image, json!({"name": "replica"}))
        .expect(200)
        .json();
    let job = accepted["job_id"].as_str().expect("a job_id").to_owned();
    client.job(&job);
    let ids = Ids {
        image,
        job,
        project: client.project().to_owned(),
        user: client.user().to_owned(),
        key: client.create_key("probed"),
    };
    (client, ids)
}

pub(crate) fn operations(document: &Value) -> Vec<String> {
    const METHODS: [&str; 6] = ["get", "head", "post", "put", "patch", "delete"];
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().expect("an item").keys();
        methods
            .filter(|method| METHODS.contains(&method.as_str()))
            .map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    operations.collect()
}
