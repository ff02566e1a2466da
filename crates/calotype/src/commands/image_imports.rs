//! `image import`, `image register` and `image export`: images from objects in buckets, and objects from images.

use serde_json::{Value, json};

use super::image::follow;
use crate::cli::{DataDisk, ExportArgs, ImportArgs, ImportType, MadeArgs, RegisterArgs};
use crate::client::Session;
use crate::exit::Failure;
use crate::output::Output;

/// `image import`
pub(super) async fn import(
    session: &Session,
    args: &ImportArgs,
    output: &Output,
) -> Result<(), Failure> {
    let job = session.start_job(path(args), &request(args)).await?;
    let waiting = args.wait.wait.then_some(args.wait.timeout);
    follow(session, &job, "importing", waiting, output).await
}

/// `image register`
pub(super) async fn register(
    session: &Session,
    args: &RegisterArgs,
    output: &Output,
) -> Result<(), Failure> {
    let id = session.find_image(&args.image).await?;
    let request = json!({
        "image_url": args.bucket_object,
        "cmk_id": args.key,
        "store": args.store,
    });
    let job = session.register(&id, &request).await?;
    let waiting = args.wait.wait.then_some(args.wait.timeout);
    follow(session, &job, "importing", waiting, output).await
}

/// `image export`
pub(super) async fn export(
    session: &Session,
    args: &ExportArgs,
    output: &Output,
) -> Result<(), Failure> {
    let id = session.find_image(&args.image).await?;
    let job = session.export(&id, &export_request(args)).await?;
    let waiting = args.wait.wait.then_some(args.wait.timeout);
    follow(session, &job, "exporting", waiting, output).await
}

fn export_request(args: &ExportArgs) -> Value {
    let object = &args.bucket_file;
    match &args.format {
        Some(format) => json!({"bucket_url": object, "file_format": format}),
        None => json!({"bucket_url": object, "is_quick_export": true}),
    }
}

fn path(args: &ImportArgs) -> &'static str {
    match args.kind {
        ImportType::Iso => "/v2/cloudimages/action",
        _ if args.quick => "/v2/cloudimages/quickimport/action",
        ImportType::Data => "/v1/cloudimages/dataimages/action",
        ImportType::Ecs | ImportType::Bms => "/v2/cloudimages/action",
    }
}

fn request(args: &ImportArgs) -> Value {
    let mut request = json!({
        "name": args.name,
        "image_url": args.bucket_object,
        "min_disk": args.min_disk,
    });
    let mut put = |field: &str, value: Value| request[field] = value;
    match args.kind {
        ImportType::Ecs => put("type", json!("ECS")),
        ImportType::Bms => put("type", json!("BMS")),
        ImportType::Iso => put("type", json!("IsoImage")),
        ImportType::Data if args.quick => put("type", json!("DataImage")),
        ImportType::Data => {}
    }
    for (field, asked) in [
        ("is_config", args.configure),
        ("is_quick_import", args.quick),
    ] {
        if asked {
            put(field, json!(true));
        }
    }
    for (field, value) in [
        ("os_version", &args.os_version),
        ("os_type", &args.os_type),
        ("hw_firmware_type", &args.firmware),
        ("architecture", &args.architecture),
        ("cmk_id", &args.key),
        ("store", &args.store),
    ] {
        if let Some(value) = value {
            put(field, json!(value));
        }
    }
    let disks: Vec<Value> = args
        .data_disk
        .iter()
        .map(|disk| data_disk(args, disk))
        .collect();
    if !disks.is_empty() {
        put("data_images", json!(disks));
    }
    put_made(&mut request, &args.made);
    request
}

/// What is said of the image itself.
pub(super) fn put_made(request: &mut Value, made: &MadeArgs) {
    let mut put = |field: &str, value: Value| request[field] = value;
    for (field, value) in [
        ("description", &made.description),
        ("enterprise_project_id", &made.enterprise_project),
    ] {
        if let Some(value) = value {
            put(field, json!(value));
        }
    }
    for (field, value) in [("min_ram", made.min_ram), ("max_ram", made.max_ram)] {
        if let Some(value) = value {
            put(field, json!(value));
        }
    }
    if !made.tag.is_empty() {
        put("tags", json!(made.tag));
    }
}

fn data_disk(args: &ImportArgs, disk: &DataDisk) -> Value {
    let mut item = json!({
        "image_url": disk.object,
        "min_disk": disk.min_disk.unwrap_or(args.min_disk),
    });
    if let Some(name) = &disk.name {
        item["name"] = json!(name);
    }
    item
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command, ImageCommand};

    fn parsed(line: &str) -> ImportArgs {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Image(ImageCommand::Import(args)) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_become_the_request() {
        let args = parsed(
            "calotype image import n --bucket-object b:o --min-disk 4 --os-type Linux --firmware uefi --key k --tag a=b --max-ram 9",
        );
        assert_eq!(path(&args), "/v2/cloudimages/action");
        assert_eq!(
            request(&args),
            json!({
                "name": "n", "image_url": "b:o", "min_disk": 4, "type": "ECS", "os_type": "Linux",
                "hw_firmware_type": "uefi", "cmk_id": "k", "max_ram": 9, "tags": ["a=b"],
            })
        );
        let server = parsed(
            "calotype image import n --bucket-object b:o --min-disk 4 --data-disk b:d --data-disk b:e,min-disk=9,name=x",
        );
        assert_eq!(
            request(&server)["data_images"],
            json!([
                {"image_url": "b:d", "min_disk": 4},
                {"image_url": "b:e", "min_disk": 9, "name": "x"},
            ])
        );
        for wrong in ["b:d,min-disk=x", "b:d,size=1", "b:d,name"] {
            let line = format!(
                "calotype image import n --bucket-object b:o --min-disk 4 --data-disk {wrong}"
            );
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{wrong}");
        }
        let quick = parsed(
            "calotype image import n --bucket-object b:o --min-disk 4 --quick --configure --architecture arm",
        );
        assert_eq!(path(&quick), "/v2/cloudimages/quickimport/action");
        assert_eq!(
            request(&quick),
            json!({
                "name": "n", "image_url": "b:o", "min_disk": 4, "type": "ECS", "is_config": true,
                "is_quick_import": true, "architecture": "arm",
            })
        );
        let data =
            parsed("calotype image import n --bucket-object b:o --min-disk 4 --type data --quick");
        assert_eq!(path(&data), "/v2/cloudimages/quickimport/action");
        assert_eq!(request(&data)["type"], "DataImage");
        let data = parsed("calotype image import n --bucket-object b:o --min-disk 4 --type data");
        assert_eq!(path(&data), "/v1/cloudimages/dataimages/action");
        assert_eq!(request(&data).get("type"), None);
    }
}
