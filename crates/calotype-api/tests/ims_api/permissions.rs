//! The permissions of spec section 1, row by row: which actions an operation takes, all of them, and whether they can be
//! had through an enterprise project.

use std::fmt::Write as _;

use calotype_core::access::Access;
use calotype_core::id::EnterpriseProjectId;
use calotype_core::image::{Image, ImageStatus, MemberStatus, Visibility};
use calotype_core::ports::{EnterpriseProject, Ledger as _};
use serde_json::json;

use crate::harness::{Answer, MEMBER, OTHER, OWN, World};

/// Two enterprise projects.
pub(crate) const ONE: &str = "11111111-0000-4000-8000-000000000001";
pub(crate) const TWO: &str = "22222222-0000-4000-8000-000000000002";

/// Through which enterprise projects an operation's actions can be had (spec 1, column EP).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Through {
    /// Any.
    Any,
    /// The default one alone.
    Default,
    /// None.
    None,
}
use Through::{Any, Default as OnlyDefault, None as Never};

/// What an operation is tried on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    /// No image.
    Nothing,
    /// An image with bytes and tags.
    Active,
    /// One without bytes.
    Queued,
    /// One that has a member.
    Shared,
    /// Another project's, shared with the caller's.
    Received,
}
use On::{Active, Nothing, Queued, Received, Shared};

/// A row: its number in spec 1, the operation, a body (`{ep}` and `{image}` are filled in), what it takes.
type Row = (
    u8,
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    Through,
    On,
);

const LIST: &[&str] = &["ims:images:list"];
const GET: &[&str] = &["ims:images:get"];
const UPDATE: &[&str] = &["ims:images:update"];
const TAG: &[&str] = &["ims:images:get", "ims:images:update"];
const SHARE: &[&str] = &["ims:images:get", "ims:images:share"];
const UPLOAD: &[&str] = &["ims:images:upload", "ims:images:get", "ims:images:update"];
const COPY: &[&str] = &["ims:images:copy", "ims:serverImages:create"];
const SERVER: &[&str] = &["ims:serverImages:create"];
const DATA: &[&str] = &["ims:dataImages:create"];
const WHOLE: &[&str] = &["ims:wholeImages:create"];

const FILE: &str = r#"{"name":"n","image_url":"bucket:o","min_disk":40,"os_version":"Debian GNU/Linux 12.0.0 64bit","enterprise_project_id":"{ep}"}"#;
const DATA_FILE: &str = r#"{"name":"n","image_url":"bucket:o","min_disk":40,"type":"DataImage","enterprise_project_id":"{ep}"}"#;
const SERVERS: &str = r#"{"name":"n","instance_id":"33333333-0000-4000-8000-000000000003","enterprise_project_id":"{ep}"}"#;
const MOVE: &str = r#"[{"op":"replace","path":"/enterprise_project_id","value":"{ep}"}]"#;
const RENAME: &str = r#"[{"op":"replace","path":"/name","value":"x"}]"#;
const ONE_TAG: &str = r#"{"tag":{"key":"k","value":"w"}}"#;
const TAGS: &str = r#"{"action":"create","tags":[{"key":"k","value":"w"}]}"#;

const ROWS: &[Row] = &[
    (1, "GET", "/v2/cloudimages", "", LIST, Any, Nothing),
    (
        2,
        "PATCH",
        "/v2/cloudimages/{image}",
        RENAME,
        UPDATE,
        Any,
        Active,
    ),
    (
        2,
        "PATCH",
        "/v2/cloudimages/{image}",
        MOVE,
        &["ims:images:update", "ims:serverImages:create"],
        Any,
        Active,
    ),
    (
        3,
        "POST",
        "/v2/cloudimages/action",
        FILE,
        SERVER,
        Any,
        Nothing,
    ),
    (
        3,
        "POST",
        "/v2/cloudimages/action",
        SERVERS,
        SERVER,
        Any,
        Nothing,
    ),
    (
        4,
        "POST",
        "/v2/cloudimages/quickimport/action",
        FILE,
        SERVER,
        Any,
        Nothing,
    ),
    (
        4,
        "POST",
        "/v2/cloudimages/quickimport/action",
        DATA_FILE,
        DATA,
        Any,
        Nothing,
    ),
    (
        5,
        "POST",
        "/v1/cloudimages/dataimages/action",
        DATA_FILE,
        DATA,
        Any,
        Nothing,
    ),
    (
        6,
        "POST",
        "/v1/cloudimages/wholeimages/action",
        SERVERS,
        WHOLE,
        Any,
        Nothing,
    ),
    (
        7,
        "PUT",
        "/v1/cloudimages/{image}/upload",
        r#"{"image_url":"bucket:o"}"#,
        UPLOAD,
        OnlyDefault,
        Queued,
    ),
    (
        8,
        "POST",
        "/v1/cloudimages/{image}/file",
        r#"{"bucket_url":"bucket:o","file_format":"qcow2"}"#,
        &["ims:images:export"],
        Any,
        Active,
    ),
    (
        9,
        "PUT",
        "/v1/cloudimages/tags",
        r#"{"image_id":"{image}","tag":"k.w"}"#,
        TAG,
        Never,
        Active,
    ),
    (10, "GET", "/v1/cloudimages/tags", "", LIST, Never, Nothing),
    (
        11,
        "POST",
        "/v2/{project}/images/resource_instances/action",
        r#"{"action":"count"}"#,
        LIST,
        Never,
        Nothing,
    ),
    (
        12,
        "POST",
        "/v2/{project}/images/{image}/tags/action",
        TAGS,
        UPDATE,
        Never,
        Active,
    ),
    (
        13,
        "POST",
        "/v2/{project}/images/{image}/tags",
        ONE_TAG,
        UPDATE,
        Never,
        Active,
    ),
    (
        14,
        "DELETE",
        "/v2/{project}/images/{image}/tags/k",
        "",
        UPDATE,
        Never,
        Active,
    ),
    (
        15,
        "GET",
        "/v2/{project}/images/{image}/tags",
        "",
        LIST,
        Never,
        Active,
    ),
    (
        16,
        "GET",
        "/v2/{project}/images/tags",
        "",
        LIST,
        Never,
        Nothing,
    ),
    (
        17,
        "POST",
        "/v1/cloudimages/members",
        r#"{"images":["{image}"],"projects":["{other}"]}"#,
        &["ims:images:share"],
        Never,
        Active,
    ),
    (
        18,
        "PUT",
        "/v1/cloudimages/members",
        r#"{"images":["{image}"],"project_id":"{project}","status":"accepted"}"#,
        &["ims:images:share"],
        Never,
        Received,
    ),
    (
        19,
        "DELETE",
        "/v1/cloudimages/members",
        r#"{"images":["{image}"],"projects":["{other}"]}"#,
        &["ims:images:share"],
        Never,
        Shared,
    ),
    (
        20,
        "POST",
        "/v1/cloudimages/{image}/copy",
        r#"{"name":"n","enterprise_project_id":"{ep}"}"#,
        COPY,
        Any,
        Active,
    ),
    (
        20,
        "POST",
        "/v2.1/cloudimages/{image}/copy",
        r#"{"name":"n","enterprise_project_id":"{ep}"}"#,
        COPY,
        Any,
        Active,
    ),
    (
        21,
        "GET",
        "/v1/cloudimages/quota",
        "",
        &["ims:quotas:get"],
        Any,
        Nothing,
    ),
    (
        23,
        "GET",
        "/v1/cloudimages/os_version",
        "",
        LIST,
        Never,
        Nothing,
    ),
    (24, "GET", "/v2/images", "", LIST, Never, Nothing),
    (25, "GET", "/v2/images/{image}", "", GET, Any, Active),
    (
        26,
        "PATCH",
        "/v2/images/{image}",
        RENAME,
        UPDATE,
        Any,
        Active,
    ),
    (
        27,
        "PUT",
        "/v2/images/{image}/file",
        "bytes",
        UPLOAD,
        Never,
        Queued,
    ),
    (
        28,
        "DELETE",
        "/v2/images/{image}",
        "",
        &["ims:images:delete"],
        Any,
        Active,
    ),
    (
        29,
        "POST",
        "/v2/images",
        r#"{"name":"n"}"#,
        &["ims:images:create"],
        Never,
        Nothing,
    ),
    (
        30,
        "PUT",
        "/v2/images/{image}/tags/new",
        "",
        TAG,
        Never,
        Active,
    ),
    (
        31,
        "DELETE",
        "/v2/images/{image}/tags/plain",
        "",
        TAG,
        Never,
        Active,
    ),
    (
        36,
        "POST",
        "/v2/images/{image}/members",
        r#"{"member":"{project}x"}"#,
        SHARE,
        Never,
        Shared,
    ),
    (
        37,
        "PUT",
        "/v2/images/{image}/members/{project}",
        r#"{"status":"accepted"}"#,
        SHARE,
        Never,
        Received,
    ),
    (
        38,
        "GET",
        "/v2/images/{image}/members/{other}",
        "",
        SHARE,
        Never,
        Shared,
    ),
    (
        39,
        "GET",
        "/v2/images/{image}/members",
        "",
        SHARE,
        Never,
        Shared,
    ),
    (
        40,
        "DELETE",
        "/v2/images/{image}/members/{other}",
        "",
        SHARE,
        Never,
        Shared,
    ),
    (43, "GET", "/v1.1/images/detail", "", LIST, Never, Nothing),
    (44, "HEAD", "/v1/images/{image}", "", GET, Any, Active),
    (
        45,
        "DELETE",
        "/v1.1/images/{image}",
        "",
        &["ims:images:delete"],
        Any,
        Active,
    ),
];

/// The roles: of each row what it takes, and what it takes but for one action.
fn roles() -> Access {
    let mut access = Access::default();
    let mut role = |name: String, actions: &[&str]| {
        let policy =
            json!({"Version": "1.1", "Statement": [{"Effect": "Allow", "Action": actions}]});
        access.set_role(name, serde_json::from_value(policy).unwrap());
    };
    for (at, row) in ROWS.iter().enumerate() {
        role(format!("all-of-{at}"), row.4);
        for (left_out, _) in row.4.iter().enumerate() {
            let mut rest = row.4.to_vec();
            rest.remove(left_out);
            role(format!("not-{left_out}-of-{at}"), &rest);
        }
    }
    access
}

pub(crate) async fn enterprise_projects(world: &World) {
    for (name, id) in [("one", ONE), ("two", TWO)] {
        let project = EnterpriseProject {
            id: id.parse().unwrap(),
            name: name.to_owned(),
            enabled: true,
            created_at: calotype_core::time::Timestamp::from_micros(0),
        };
        let inserted = world
            .catalog
            .insert_enterprise_project(&project, world.trail());
        inserted.await.unwrap();
    }
}

/// Tries a row with a fresh image in an enterprise project; what it makes or moves is for another one.
async fn try_row(world: &World, row: &Row, token: &str, of_image: &str, wanted: &str) -> Answer {
    let (_, method, path, body, _, _, on) = *row;
    let group: EnterpriseProjectId = of_image.parse().unwrap();
    let fresh = |image: &mut Image| {
        image.enterprise_project = group;
        image.tags = vec!["k=v".to_owned(), "plain".to_owned()];
        match on {
            Queued => image.status = ImageStatus::Queued,
            Shared => image.visibility = Visibility::Shared,
            Received => {
                image.visibility = Visibility::Shared;
                image.owner = OTHER.parse().unwrap();
            }
            Nothing | Active => {}
        }
    };
    let image = world.image(fresh).await;
    let path_of_members = format!("/v2/images/{}/members", image.id);
    if on == Shared {
        let member = json!({ "member": OTHER }).to_string();
        let added = world.post(MEMBER, &path_of_members, &member).await;
        assert_eq!(added.status, 200, "{}", added.text);
    }
    if on == Received {
        world.share(&image, MemberStatus::Pending).await;
    }
    let fill = |text: &str| {
        text.replace("{image}", &image.id.to_string())
            .replace("{project}x", "0000000000000000000000000000000f")
            .replace("{project}", OWN)
            .replace("{other}", OTHER)
            .replace("{ep}", wanted)
    };
    let media_type = match (method, path) {
        ("PATCH", "/v2/images/{image}") => "application/openstack-images-v2.1-json-patch",
        (_, "/v2/images/{image}/file") => "application/octet-stream",
        _ => "application/json",
    };
    let request = http::Request::builder()
        .method(method)
        .uri(fill(path))
        .header("X-Auth-Token", token)
        .header("Content-Type", media_type)
        .body(axum::body::Body::from(fill(body)));
    world.send(request.unwrap()).await
}

/// The complaints about answers that are not as wanted.
struct Complaints(String);

impl Complaints {
    fn check(&mut self, right: bool, row: &Row, case: &str, answer: &Answer) {
        if !right {
            let (number, method, path, ..) = row;
            let _ = writeln!(
                self.0,
                "row {number}, {method} {path}, {case}: {} {}",
                answer.status, answer.text
            );
        }
    }
}

fn forbidden(answer: &Answer) -> bool {
    answer.status == 403
}

/// Neither forbidden nor unseen.
fn admitted(answer: &Answer) -> bool {
    ![401, 403, 404].contains(&answer.status.as_u16())
}

#[tokio::test]
async fn every_operation_takes_each_of_its_actions_and_no_other() {
    let world = World::with_access(roles()).await;
    enterprise_projects(&world).await;
    let mut complaints = Complaints(String::new());
    for (at, row) in ROWS.iter().enumerate() {
        let exactly = format!("eve {OWN} all-of-{at}");
        let answer = try_row(&world, row, &exactly, ONE, TWO).await;
        complaints.check(admitted(&answer), row, "with its actions", &answer);
        for (left_out, action) in row.4.iter().enumerate() {
            let without = format!("eve {OWN} not-{left_out}-of-{at}");
            let answer = try_row(&world, row, &without, ONE, TWO).await;
            let case = format!("without {action}");
            complaints.check(forbidden(&answer), row, &case, &answer);
        }
    }
    assert!(complaints.0.is_empty(), "{}", complaints.0);
}

#[tokio::test]
async fn an_enterprise_project_permits_what_the_table_says_on_its_own_images_alone() {
    let world = World::with_access(roles()).await;
    enterprise_projects(&world).await;
    let mut complaints = Complaints(String::new());
    for (at, row) in ROWS.iter().enumerate() {
        let on = |group: &str| format!("eve {OWN} nothing {group}=all-of-{at}");
        let (one, default) = (on(ONE), on("0"));
        let (through, tried_on) = (row.5, row.6);
        let there = try_row(&world, row, &one, ONE, ONE).await;
        let in_default = try_row(&world, row, &default, "0", "0").await;
        let right = match through {
            Any => admitted(&there) && admitted(&in_default),
            OnlyDefault => forbidden(&there) && admitted(&in_default),
            Never => forbidden(&there) && forbidden(&in_default),
        };
        let answer = if admitted(&there) {
            &in_default
        } else {
            &there
        };
        complaints.check(right, row, "on its own images", answer);
        if through == Any && tried_on != Nothing {
            let unseen = try_row(&world, row, &one, TWO, ONE).await;
            complaints.check(unseen.status == 404, row, "on another's images", &unseen);
        }
        let names_one = row.3.contains("{ep}");
        if through == Any && names_one {
            let elsewhere = try_row(&world, row, &one, ONE, TWO).await;
            complaints.check(forbidden(&elsewhere), row, "to another", &elsewhere);
        }
        let nothing = format!("eve {OWN} nothing {ONE}=nothing");
        let answer = try_row(&world, row, &nothing, ONE, ONE).await;
        complaints.check(forbidden(&answer), row, "without any role", &answer);
    }
    assert!(complaints.0.is_empty(), "{}", complaints.0);
}
