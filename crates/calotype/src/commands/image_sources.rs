//! `image capture`: images of servers, disks and backups.

use serde_json::{Value, json};

use super::image::follow;
use super::image_imports::put_made;
use crate::cli::{BackupService, CaptureArgs};
use crate::client::Session;
use crate::exit::Failure;
use crate::output::Output;

/// `image capture`
pub(super) async fn capture(
    session: &Session,
    args: &CaptureArgs,
    output: &Output,
) -> Result<(), Failure> {
    let job = session.start_job(path(args), &request(args)).await?;
    let waiting = args.wait.wait.then_some(args.wait.timeout);
    follow(session, &job, "capturing", waiting, output).await
}

/// A full-ECS image has an operation of its own.
fn path(args: &CaptureArgs) -> &'static str {
    if args.whole || args.backup.is_some() {
        "/v1/cloudimages/wholeimages/action"
    } else {
        "/v2/cloudimages/action"
    }
}

fn request(args: &CaptureArgs) -> Value {
    let mut request = json!({"name": args.name});
    let mut put = |field: &str, value: Value| request[field] = value;
    for (field, value) in [
        ("instance_id", &args.server),
        ("vault_id", &args.vault),
        ("volume_id", &args.volume),
        ("os_version", &args.os_version),
        ("backup_id", &args.backup),
    ] {
        if let Some(value) = value {
            put(field, json!(value));
        }
    }
    if args.backup.is_some() {
        let service = match args.backup_service {
            BackupService::Cbr => "CBR",
            BackupService::Csbs => "CSBS",
        };
        put("whole_image_type", json!(service));
    }
    let disks = args.data_volume.iter().map(|disk| {
        let name = disk.name.as_ref().unwrap_or(&args.name);
        json!({"volume_id": disk.volume, "name": name})
    });
    let disks: Vec<Value> = disks.collect();
    if !disks.is_empty() {
        put("data_images", json!(disks));
    }
    put_made(&mut request, &args.made);
    request
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command, ImageCommand};

    fn parsed(flags: &str) -> CaptureArgs {
        let line = format!("calotype image capture n {flags}");
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Image(ImageCommand::Capture(args)) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_become_the_request() {
        const ONE: &str = "/v2/cloudimages/action";
        const WHOLE: &str = "/v1/cloudimages/wholeimages/action";
        for (flags, wanted_path, wanted) in [
            (
                "--server s --min-ram 1 --max-ram 2 --tag a=b",
                ONE,
                json!({"name": "n", "instance_id": "s", "min_ram": 1, "max_ram": 2, "tags": ["a=b"]}),
            ),
            (
                "--server s --whole --vault v",
                WHOLE,
                json!({"name": "n", "instance_id": "s", "vault_id": "v"}),
            ),
            (
                "--volume v --os-version o --description d",
                ONE,
                json!({"name": "n", "volume_id": "v", "os_version": "o", "description": "d"}),
            ),
            (
                "--data-volume v --data-volume w,name=m --enterprise-project e",
                ONE,
                json!({"name": "n", "enterprise_project_id": "e", "data_images": [
                    {"volume_id": "v", "name": "n"}, {"volume_id": "w", "name": "m"},
                ]}),
            ),
            (
                "--backup b",
                WHOLE,
                json!({"name": "n", "backup_id": "b", "whole_image_type": "CBR"}),
            ),
            (
                "--backup b --backup-service csbs",
                WHOLE,
                json!({"name": "n", "backup_id": "b", "whole_image_type": "CSBS"}),
            ),
        ] {
            let args = parsed(flags);
            assert_eq!(
                (path(&args), request(&args)),
                (wanted_path, wanted),
                "{flags}"
            );
        }
    }

    #[test]
    fn an_image_is_made_of_one_thing() {
        for flags in [
            "--description d",
            "--server s --volume v --os-version o",
            "--server s --backup b",
            "--server s --data-volume v",
            "--volume v",
            "--server s --os-version o",
            "--server s --vault v",
            "--backup b --whole",
            "--server s --backup-service csbs",
            "--data-volume v,size=1",
        ] {
            let line = format!("calotype image capture n {flags}");
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{flags}");
        }
    }
}
