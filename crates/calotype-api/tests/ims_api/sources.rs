//! Images of servers, disks and backups: what is checked before it is said that there is none such.

use std::sync::{Arc, Mutex};

use calotype_core::access::Access;
use calotype_core::app::Settings;
use calotype_core::codes::ImsCode;
use calotype_core::id::{BackupId, ProjectId, ServerId, VaultId, VolumeId};
use calotype_core::ports::{BackupKind, ComputeSource};
use calotype_core::{Error, Result};
use serde_json::{Value, json};

use super::harness::{ADMIN, MEMBER, READER, World};

const ACTION: &str = "/v2/cloudimages/action";
const OLDER: &str = "/v1/cloudimages/action";
const WHOLE: &str = "/v1/cloudimages/wholeimages/action";

async fn ask(world: &World, path: &str, body: &Value) -> (u16, String) {
    world.post(MEMBER, path, &body.to_string()).await.refusal()
}

fn with(body: &Value, more: &Value) -> Value {
    let mut body = body.clone();
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn a_server_a_disk_and_a_backup_that_nobody_knows_have_the_codes_of_the_spec() {
    let world = World::new().await;
    let id = "0f0e0d0c-1111-4222-8333-444444444444";
    let system = json!({"name": "n", "volume_id": id, "os_version": "CentOS 7.2 64bit"});
    let full = json!({
        "name": "n", "description": "d", "min_ram": 1024, "max_ram": 4096,
        "tags": ["env=dev"], "enterprise_project_id": "0",
    });
    for (path, body, code) in [
        (ACTION, json!({"name": "n", "instance_id": id}), "IMG.0005"),
        (ACTION, with(&full, &json!({"instance_id": id})), "IMG.0005"),
        (OLDER, json!({"name": "n", "instance_id": id}), "IMG.0005"),
        (ACTION, system.clone(), "IMG.0120"),
        (ACTION, with(&system, &json!({"type": "BMS"})), "IMG.0120"),
        (
            ACTION,
            json!({"data_images": [{"name": "d", "volume_id": id}]}),
            "IMG.0120",
        ),
        (WHOLE, json!({"name": "n", "instance_id": id}), "IMG.0005"),
        (
            WHOLE,
            with(&full, &json!({"instance_id": id, "vault_id": id})),
            "IMG.0005",
        ),
        (WHOLE, json!({"name": "n", "backup_id": id}), "IMG.0020"),
        (
            WHOLE,
            with(&full, &json!({"backup_id": id, "whole_image_type": "CBR"})),
            "IMG.0020",
        ),
    ] {
        assert_eq!(
            ask(&world, path, &body).await,
            (400, code.to_owned()),
            "{body}"
        );
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_comes_before_what_it_names() {
    let world = World::new().await;
    let bodies = [
        (ACTION, json!({"name": "n", "instance_id": "s"})),
        (
            ACTION,
            json!({"name": "n", "volume_id": "v", "os_version": "CentOS 7.2 64bit"}),
        ),
        (
            ACTION,
            json!({"data_images": [{"name": "d", "volume_id": "v"}]}),
        ),
        (WHOLE, json!({"name": "n", "instance_id": "s"})),
        (WHOLE, json!({"name": "n", "backup_id": "b"})),
    ];
    let eleven: Vec<String> = (0..11).map(|n| format!("t{n}")).collect();
    for (path, body) in &bodies {
        for (more, code) in [
            (json!({"min_ram": 2, "max_ram": 1}), "IMG.0055"),
            (json!({"max_ram": "many"}), "IMG.0055"),
            (json!({"tags": eleven}), "IMG.0116"),
            (json!({"tags": ["a b"]}), "IMG.0115"),
            (
                json!({"tags": ["a"], "image_tags": [{"key": "b", "value": ""}]}),
                "IMG.0001",
            ),
            (json!({"enterprise_project_id": "nope"}), "IMG.0155"),
            (json!({"description": "x".repeat(1025)}), "IMG.0004"),
        ] {
            let body = with(body, &more);
            assert_eq!(
                ask(&world, path, &body).await,
                (400, code.to_owned()),
                "{body}"
            );
        }
        assert_eq!(world.post(MEMBER, path, "").await.refusal().1, "IMG.0007");
        assert_eq!(world.post(MEMBER, path, "[]").await.refusal().1, "IMG.0001");
        let refused = world.post(READER, path, &body.to_string()).await;
        assert_eq!(refused.refusal(), (403, "IMG.0026".to_owned()));
    }
    for version in [json!(null), json!("Amiga 3")] {
        let body = with(&bodies[1].1, &json!({"os_version": version}));
        assert_eq!(ask(&world, ACTION, &body).await.1, "IMG.0056", "{body}");
    }
}

#[tokio::test]
async fn a_project_at_its_limits_is_told_so_first() {
    let mut settings = Settings::default();
    settings.limits.images_per_project = 0;
    let world = World::with(settings).await;
    let body = json!({"name": "n", "instance_id": "s"});
    assert_eq!(ask(&world, ACTION, &body).await.1, "IMG.0015");
    assert_eq!(ask(&world, WHOLE, &body).await.1, "IMG.0015");
}

/// Knows what is named `known`, and remembers what it was asked.
#[derive(Default)]
struct Script(Mutex<Vec<String>>);

impl Script {
    fn answer(&self, asked: String, known: bool, code: ImsCode) -> Result<()> {
        self.0.lock().unwrap().push(asked);
        match known {
            true => Ok(()),
            false => Err(Error::ims(code)),
        }
    }
}

#[async_trait::async_trait]
impl ComputeSource for Script {
    async fn check_server(&self, project: &ProjectId, server: &ServerId) -> Result<()> {
        let known = server.as_str() == "known";
        self.answer(format!("{project} {server}"), known, ImsCode::IMG_0005)
    }

    async fn check_volumes(&self, _: &ProjectId, volumes: &[VolumeId]) -> Result<()> {
        let known = volumes.iter().all(|volume| volume.as_str() == "known");
        self.answer(format!("{volumes:?}"), known, ImsCode::IMG_0120)
    }

    async fn check_whole_server(
        &self,
        _: &ProjectId,
        server: &ServerId,
        vault: Option<&VaultId>,
    ) -> Result<()> {
        let known = server.as_str() == "known";
        self.answer(format!("{server} {vault:?}"), known, ImsCode::IMG_0126)
    }

    async fn check_backup(&self, _: &ProjectId, backup: &BackupId, kind: BackupKind) -> Result<()> {
        let known = backup.as_str() == "known";
        self.answer(format!("{backup} {kind:?}"), known, ImsCode::IMG_0032)
    }
}

#[tokio::test]
async fn the_service_that_has_them_is_asked_and_what_it_knows_is_not_supported_yet() {
    let script = Arc::new(Script::default());
    let world = World::beside(script.clone(), Settings::default(), Access::default()).await;
    let data = |other: &str| {
        json!({"data_images": [
            {"name": "d", "volume_id": "known"}, {"name": "e", "volume_id": other},
        ]})
    };
    let cases = [
        (
            ACTION,
            json!({"name": "n", "instance_id": "known"}),
            "IMG.0105",
        ),
        (
            ACTION,
            json!({"name": "n", "instance_id": "other"}),
            "IMG.0005",
        ),
        (ACTION, data("known"), "IMG.0105"),
        (ACTION, data("other"), "IMG.0120"),
        (
            WHOLE,
            json!({"name": "n", "instance_id": "known", "vault_id": "v"}),
            "IMG.0105",
        ),
        (
            WHOLE,
            json!({"name": "n", "instance_id": "other"}),
            "IMG.0126",
        ),
        (
            WHOLE,
            json!({"name": "n", "backup_id": "known", "whole_image_type": "CBR"}),
            "IMG.0105",
        ),
        (
            WHOLE,
            json!({"name": "n", "backup_id": "other"}),
            "IMG.0032",
        ),
    ];
    for (path, body, code) in &cases {
        assert_eq!(ask(&world, path, body).await.1, *code, "{body}");
    }
    let project = super::harness::OWN;
    assert_eq!(
        *script.0.lock().unwrap(),
        [
            format!("{project} known"),
            format!("{project} other"),
            "[VolumeId(known), VolumeId(known)]".to_owned(),
            "[VolumeId(known), VolumeId(other)]".to_owned(),
            "known Some(VaultId(v))".to_owned(),
            "other None".to_owned(),
            "known Cbr".to_owned(),
            "other Csbs".to_owned(),
        ]
    );
}

#[tokio::test]
async fn an_operator_registers_a_full_ecs_image_and_says_of_which_backup_it_is() {
    let world = World::new().await;
    let body = r#"{"name": "whole", "__whole_image": "true", "__backup_id": "b"}"#;
    let refused = r#"{"name": "whole", "__backup_id": "b"}"#;
    assert_eq!(world.post(MEMBER, "/v2/images", refused).await.status, 403);
    let made = world.post(ADMIN, "/v2/images", body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let image = &made.json();
    assert_eq!(image["__whole_image"], "true");
    assert_eq!(image["__backup_id"], "b");
    let list = "/v2/cloudimages?__whole_image=true";
    let listed = world.get(MEMBER, list).await.json();
    assert_eq!(listed["images"][0]["id"], image["id"]);
    let path = format!("/v1/cloudimages/{}/copy", image["id"].as_str().unwrap());
    let copied = world.post(MEMBER, &path, r#"{"name": "copy"}"#).await;
    assert_eq!(copied.refusal(), (400, "IMG.0130".to_owned()));
}
