//! The tables of the API reference, row by row: a field, what breaks its rule, and the code that says so. Each refusal
//! changes nothing.

use calotype_tests::client::text;
use calotype_tests::{Answer, Client, Content, Server, program};
use reqwest::Method;
use serde_json::{Map, Value, json};

/// A request that is taken as it is, before a row changes one field of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// Replication (spec 3.1).
    Replicate,
    /// An image from a file (spec 2.3, shape c).
    File,
    /// A quick import (spec 2.4).
    Quick,
    /// A data disk image (spec 2.5).
    Data,
    /// Registering (spec 2.7).
    Register,
}
use Call::{Data, File, Quick, Register, Replicate};

const MAKING: &[Call] = &[Replicate, File, Quick, Data];
const IMPORTS: &[Call] = &[File, Quick, Data];
const FROM_FILES: &[Call] = &[File, Quick, Data, Register];

/// A value that breaks a rule; `long(n)` are n letters.
fn long(n: usize) -> Value {
    "x".repeat(n).into()
}

fn tags(n: usize) -> Value {
    (0..n).map(|n| format!("key{n}=value")).collect()
}

/// The rows: where in the spec, of which calls, the field with its value (none: left out), the code.
fn fields() -> Vec<(
    &'static str,
    &'static [Call],
    &'static str,
    Value,
    &'static str,
)> {
    let unknown = "11111111-2222-4333-8444-555555555555";
    vec![
        ("[name] mandatory", MAKING, "name", Value::Null, "IMG.0013"),
        ("[name] not empty", MAKING, "name", json!(""), "IMG.0013"),
        ("[name] length", MAKING, "name", long(129), "IMG.0002"),
        ("[name] charset", MAKING, "name", json!("a/b"), "IMG.0003"),
        ("[name] charset", MAKING, "name", json!("ä"), "IMG.0003"),
        (
            "[name] no leading space",
            MAKING,
            "name",
            json!(" a"),
            "IMG.0003",
        ),
        (
            "[name] no trailing space",
            MAKING,
            "name",
            json!("a "),
            "IMG.0003",
        ),
        ("[name] type", MAKING, "name", json!(7), "IMG.0001"),
        (
            "[desc] length",
            MAKING,
            "description",
            long(1025),
            "IMG.0004",
        ),
        (
            "[desc] no <",
            MAKING,
            "description",
            json!("a<b"),
            "IMG.0054",
        ),
        (
            "[desc] no >",
            MAKING,
            "description",
            json!("a>b"),
            "IMG.0054",
        ),
        (
            "[desc] no LF",
            MAKING,
            "description",
            json!("a\nb"),
            "IMG.0054",
        ),
        (
            "[desc] no CR",
            MAKING,
            "description",
            json!("a\rb"),
            "IMG.0054",
        ),
        ("[desc] type", MAKING, "description", json!(7), "IMG.0001"),
        (
            "[ep] form",
            MAKING,
            "enterprise_project_id",
            json!("x"),
            "IMG.0155",
        ),
        (
            "[ep] known",
            MAKING,
            "enterprise_project_id",
            json!(unknown),
            "IMG.0155",
        ),
        (
            "[ep] type",
            MAKING,
            "enterprise_project_id",
            json!(7),
            "IMG.0001",
        ),
        (
            "[tags] charset",
            IMPORTS,
            "tags",
            json!(["a b"]),
            "IMG.0115",
        ),
        (
            "[tags] key length",
            IMPORTS,
            "tags",
            json!([long(37)]),
            "IMG.0115",
        ),
        ("[tags] number", IMPORTS, "tags", tags(11), "IMG.0116"),
        ("[tags] type", IMPORTS, "tags", json!("a"), "IMG.0001"),
        (
            "[itags] key empty",
            IMPORTS,
            "image_tags",
            json!([{"key": "", "value": "v"}]),
            "IMG.0115",
        ),
        (
            "[itags] key length",
            IMPORTS,
            "image_tags",
            json!([{"key": long(37), "value": "v"}]),
            "IMG.0115",
        ),
        (
            "[itags] value length",
            IMPORTS,
            "image_tags",
            json!([{"key": "k", "value": long(44)}]),
            "IMG.0115",
        ),
        (
            "[itags] type",
            IMPORTS,
            "image_tags",
            json!({"key": "k"}),
            "IMG.0001",
        ),
        (
            "[url] mandatory",
            FROM_FILES,
            "image_url",
            Value::Null,
            "IMG.0017",
        ),
        (
            "[url] one colon",
            FROM_FILES,
            "image_url",
            json!("disk.raw"),
            "IMG.0017",
        ),
        (
            "[url] bucket empty",
            FROM_FILES,
            "image_url",
            json!(":disk.raw"),
            "IMG.0068",
        ),
        (
            "[url] bucket charset",
            FROM_FILES,
            "image_url",
            json!("Images:disk.raw"),
            "IMG.0109",
        ),
        (
            "[url] bucket unknown",
            FROM_FILES,
            "image_url",
            json!("elsewhere:disk.raw"),
            "IMG.0069",
        ),
        (
            "[url] no spaces",
            FROM_FILES,
            "image_url",
            json!("images:a disk.raw"),
            "IMG.0175",
        ),
        (
            "[url] object missing",
            FROM_FILES,
            "image_url",
            json!("images:nothing"),
            "IMG.0057",
        ),
        (
            "[url] object empty",
            FROM_FILES,
            "image_url",
            json!("images:empty"),
            "IMG.0057",
        ),
        ("[url] type", FROM_FILES, "image_url", json!(7), "IMG.0001"),
        (
            "[ram] not negative",
            &[File],
            "min_ram",
            json!(-1),
            "IMG.0055",
        ),
        (
            "[ram] min above max",
            &[File],
            "max_ram",
            json!(1),
            "IMG.0055",
        ),
        ("[ram] type", &[File], "min_ram", json!({}), "IMG.0001"),
        (
            "2.3 min_disk mandatory",
            &[File],
            "min_disk",
            Value::Null,
            "IMG.0055",
        ),
        (
            "2.3 min_disk at least 1",
            &[File],
            "min_disk",
            json!(0),
            "IMG.0055",
        ),
        (
            "2.3 min_disk at most 1024",
            &[File],
            "min_disk",
            json!(1025),
            "IMG.0111",
        ),
        (
            "2.5 min_disk at most 2048",
            &[Data],
            "min_disk",
            json!(2049),
            "IMG.0055",
        ),
        (
            "2.3 type",
            &[File, Quick],
            "type",
            json!("Amiga"),
            "IMG.0024",
        ),
        (
            "2.3 ISO without a version",
            &[File],
            "type",
            json!("IsoImage"),
            "IMG.0166",
        ),
        (
            "2.3 os_version",
            &[File, Quick],
            "os_version",
            json!("Amiga 3"),
            "IMG.0056",
        ),
        (
            "2.3 os_type",
            &[File, Data],
            "os_type",
            json!("Amiga"),
            "IMG.0122",
        ),
        (
            "2.3 hw_firmware_type",
            &[File, Quick],
            "hw_firmware_type",
            json!("x"),
            "IMG.0141",
        ),
        (
            "2.3 architecture",
            &[File, Quick],
            "architecture",
            json!("mips"),
            "IMG.0212",
        ),
        (
            "2.4 os_version mandatory",
            &[Quick],
            "os_version",
            Value::Null,
            "IMG.0056",
        ),
        (
            "3.4 unknown key",
            &[Replicate, File, Data],
            "cmk_id",
            json!(unknown),
            "IMG.0095",
        ),
        (
            "3.4 malformed key",
            &[Replicate, File, Data],
            "cmk_id",
            json!("x"),
            "IMG.0095",
        ),
        (
            "3.1 key's type",
            &[Replicate, File, Data],
            "cmk_id",
            json!(7),
            "IMG.0001",
        ),
    ]
}

struct Place {
    _server: Server,
    client: Client,
    /// What `{name}` in a path or body stands for.
    values: Vec<(&'static str, String)>,
}

impl Place {
    fn new() -> Self {
        // Whose keys a project may use the embedded identity alone knows beforehand.
        let server = Server::with_own_keys();
        let (admin, client) = (server.admin(), server.user());
        server.put_object("disk.raw", Content::new(1, 5000));
        server.put_object("other.raw", Content::new(2, 5000));
        server.put_object("disk.qcow2", &program::qcow2("1M")[..]);
        server.put_object("empty", &b""[..]);
        let values = [
            of_states(&admin, &client),
            of_kinds(&admin, &client),
            of_keys(&admin, &client),
            of_projects(&admin, &client),
        ];
        Self {
            client,
            values: values.into_iter().flatten().collect(),
            _server: server,
        }
    }

    fn value(&self, name: &str) -> &str {
        let found = self.values.iter().find(|(known, _)| *known == name);
        found.map_or_else(|| panic!("no {name}"), |(_, value)| value)
    }

    /// The method, the path and the body of a call that would be taken.
    fn good(&self, call: Call) -> (Method, String, Map<String, Value>) {
        let object = "images:disk.raw";
        let version = "CentOS 7.2 64bit";
        let (path, body) = match call {
            Replicate => (
                format!("/v1/cloudimages/{}/copy", self.value("active")),
                json!({"name": "n"}),
            ),
            File => (
                "/v2/cloudimages/action".to_owned(),
                json!({"name": "n", "image_url": object, "min_disk": 1, "min_ram": 2}),
            ),
            Quick => (
                "/v2/cloudimages/quickimport/action".to_owned(),
                json!({"name": "n", "image_url": object, "min_disk": 1, "os_version": version}),
            ),
            Data => (
                "/v1/cloudimages/dataimages/action".to_owned(),
                json!({"name": "n", "image_url": object, "min_disk": 40}),
            ),
            Register => {
                let path = format!("/v1/cloudimages/{}/upload", self.value("queued"));
                let body = json!({ "image_url": object });
                return (Method::PUT, path, body.as_object().expect("it").clone());
            }
        };
        (Method::POST, path, body.as_object().expect("it").clone())
    }

    /// Sends a body, as JSON unless a word behind the method says otherwise.
    fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        let (method, media_type) = match method.split_once(' ') {
            None => (method, "application/json"),
            Some((method, "bytes")) => (method, "application/octet-stream"),
            Some((method, "v2.0")) => (method, "application/openstack-images-v2.0-json-patch"),
            Some((method, "v2.1")) => (method, "application/openstack-images-v2.1-json-patch"),
            Some(_) => panic!("an unknown media type: {method}"),
        };
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        self.client.raw(method, path, media_type, body.to_owned())
    }

    /// A path or body with what its names stand for.
    fn fill(&self, text: &str) -> String {
        let filled = self
            .values
            .iter()
            .fold(text.to_owned(), |text, (name, value)| {
                text.replace(&format!("{{{name}}}"), value)
            });
        let filled = filled.replace("{unknown}", "11111111-2222-4333-8444-555555555555");
        let too_long = [
            ("36", 37),
            ("43", 44),
            ("128", 129),
            ("255", 256),
            ("1024", 1025),
        ];
        too_long.iter().fold(filled, |text, (limit, length)| {
            text.replace(&format!("{{long{limit}}}"), &"v".repeat(*length))
        })
    }
}

/// Images in each state that is refused somewhere.
fn of_states(admin: &Client, client: &Client) -> Vec<(&'static str, String)> {
    let public = admin.image("golden", 1, 100);
    admin.set(&public, "visibility", "public");
    let received = admin.image("theirs", 2, 100);
    share(admin, &received, client);
    let private = client.create("private");
    client.set(&private, "visibility", "private");
    let protected = client.create("protected");
    client.set(&protected, "protected", true);
    vec![
        ("active", client.image("active", 3, 100)),
        ("queued", client.create("queued")),
        ("public", public),
        ("received", received),
        ("private", private),
        ("protected", protected),
    ]
}

/// Images of each kind that is refused somewhere, which an administrator makes.
fn of_kinds(admin: &Client, client: &Client) -> Vec<(&'static str, String)> {
    let kinds = [
        ("whole", "__whole_image", "true"),
        ("iso", "virtual_env_type", "IsoImage"),
        ("metal", "virtual_env_type", "Ironic"),
        ("kvm", "__support_kvm", "true"),
    ];
    let made = kinds.map(|(kind, attribute, value)| {
        let image = json!({
            "name": kind, "disk_format": "raw", "container_format": "bare",
            "owner": client.project(), attribute: value,
        });
        let image = admin.create_with(image);
        client.upload(&image, "bytes of an image").expect(204);
        (kind, image)
    });
    made.into()
}

/// Keys that can be used, and that can't, and images under them.
fn of_keys(admin: &Client, client: &Client) -> Vec<(&'static str, String)> {
    let sealed = |owner: &Client, key: &str| {
        let image = owner.image("plain", 4, 100);
        owner.replicate_with(&image, json!({"name": "sealed", "cmk_id": key}))
    };
    let (key, disabled) = (client.create_key("own"), client.create_key("disabled"));
    let foreign = admin.create_key("foreign");
    let closed = sealed(client, &disabled);
    client.key_call("disable-key", &disabled);
    let granted = json!({
        "key_id": foreign, "grantee_principal": client.user(),
        "operations": ["describe-key", "decrypt-datakey"],
    });
    let locked = sealed(admin, &foreign);
    let of_grant = admin.kms("create-grant", granted).expect(200);
    share(admin, &locked, client);
    let answer = json!({
        "images": [&locked], "project_id": client.project(), "status": "accepted",
    });
    changed_members(client, Method::PUT, answer);
    let grant = text(&of_grant.json()["grant_id"]);
    let revoked = json!({"key_id": foreign, "grant_id": grant});
    admin.kms("revoke-grant", revoked).expect(200);
    let own = sealed(client, &key);
    client.set(&own, "visibility", "shared");
    vec![
        ("sealed", own),
        ("closed", closed),
        ("locked", locked),
        ("key", key),
        ("disabled_key", disabled),
        ("foreign_key", foreign),
    ]
}

/// Projects, and an image that is shared with one.
fn of_projects(admin: &Client, client: &Client) -> Vec<(&'static str, String)> {
    let shared = client.image("shared", 5, 100);
    share(client, &shared, admin);
    vec![
        ("shared", shared),
        ("member", admin.project().to_owned()),
        ("project", client.project().to_owned()),
        ("other", "0".repeat(32)),
    ]
}

/// Shares an image with another's project.
fn share(owner: &Client, image: &str, with: &Client) {
    let body = json!({"images": [image], "projects": [with.project()]});
    changed_members(owner, Method::POST, body);
}

fn changed_members(client: &Client, method: Method, body: Value) {
    let path = "/v1/cloudimages/members";
    let accepted = client.raw(method, path, "application/json", body.to_string());
    let job = client.job(&text(&accepted.expect(200).json()["job_id"]));
    assert_eq!(job.status(), "SUCCESS", "{}", job.document);
}

#[test]
fn each_fields_rule_has_its_code_in_every_call_that_has_the_field() {
    let place = Place::new();
    let before = place.client.state();
    let mut wrong = Vec::new();
    for (rule, calls, field, value, code) in fields() {
        for call in calls {
            let (method, path, mut body) = place.good(*call);
            match &value {
                Value::Null => body.remove(field),
                value => body.insert(field.to_owned(), value.clone()),
            };
            let body = Value::Object(body).to_string();
            let answer = place.send(method.as_str(), &path, &body);
            let given = answer.json()["error"]["code"].clone();
            if answer.status != 400 || given != code {
                wrong.push(format!("{rule}, {call:?}: wanted {code}: {answer}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(place.client.state(), before);
}

#[test]
fn no_call_takes_a_body_that_is_none() {
    let place = Place::new();
    let before = place.client.state();
    for call in [Replicate, File, Quick, Data, Register] {
        let (method, path, _) = place.good(call);
        for (body, code) in [
            ("", "IMG.0007"),
            ("{", "IMG.0001"),
            ("[]", "IMG.0001"),
            ("null", "IMG.0001"),
            ("\"name\"", "IMG.0001"),
        ] {
            let answer = place.send(method.as_str(), &path, body);
            answer.refused(400, code);
        }
    }
    assert_eq!(place.client.state(), before);
}

#[test]
fn each_row_of_the_other_tables_has_its_status_and_code() {
    let place = Place::new();
    let before = place.client.state();
    let mut wrong = Vec::new();
    let rows = include_str!("../fixtures/conformance.tsv").lines();
    let mut rows = rows
        .filter(|line| !line.starts_with('#'))
        .skip(1)
        .peekable();
    assert!(rows.peek().is_some());
    for row in rows {
        let [rule, method, path, body, status, code] = row
            .split('\t')
            .collect::<Vec<_>>()
            .try_into()
            .unwrap_or_else(|_| panic!("not six columns: {row}"));
        let answer = place.send(method, &place.fill(path), &place.fill(body));
        // Refusals of the Image API have no code.
        let given = answer.json()["error"]["code"].clone();
        if answer.status.to_string() != status || given.as_str().unwrap_or("-") != code {
            wrong.push(format!("{rule}: wanted {status} {code}: {answer}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(place.client.state(), before);
}
