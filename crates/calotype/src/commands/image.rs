//! `image`: images and their bytes.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::session;
use crate::cli::{
    Connection, CreateArgs, DownloadArgs, ImageCommand, ListArgs, ReplicateArgs, SetArgs,
};
use crate::client::{JobWait, Session, Target, Upload, encode};
use crate::config::Environment;
use crate::demo::digests_of;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Rows, cell};

/// Runs an `image` command.
pub(crate) async fn run(
    command: ImageCommand,
    connection: &Connection,
    environment: &Environment,
    output: &Output,
) -> Result<(), Failure> {
    let session = session(connection, environment).await?;
    match command {
        ImageCommand::Create(args) => create(&session, &args, output).await,
        ImageCommand::List(args) => {
            let images = session.list_images(&query(&args), args.limit).await?;
            output.result(&Value::Array(images), table)
        }
        ImageCommand::Show { image } => {
            let id = session.find_image(&image).await?;
            output.object(&session.show_image(&id).await?)
        }
        ImageCommand::Set(args) => set(&session, &args, output).await,
        ImageCommand::Download(args) => download(&session, &args, output).await,
        ImageCommand::Delete { images } => delete(&session, &images).await,
        ImageCommand::Deactivate { image } => act(&session, &image, "deactivate").await,
        ImageCommand::Reactivate { image } => act(&session, &image, "reactivate").await,
        ImageCommand::Replicate(args) => replicate(&session, &args, output).await,
        ImageCommand::Share(args) => super::image_members::share(&session, &args, output).await,
        ImageCommand::Unshare(args) => super::image_members::unshare(&session, &args, output).await,
        ImageCommand::Accept(args) => super::image_members::accept(&session, &args, output).await,
        ImageCommand::Reject(args) => super::image_members::reject(&session, &args, output).await,
        ImageCommand::Members { image, project } => {
            super::image_members::list(&session, &image, project.as_deref(), output).await
        }
        ImageCommand::Capture(args) => super::image_sources::capture(&session, &args, output).await,
        ImageCommand::Import(args) => super::image_imports::import(&session, &args, output).await,
        ImageCommand::Export(args) => super::image_imports::export(&session, &args, output).await,
        ImageCommand::Register(args) => {
            super::image_imports::register(&session, &args, output).await
        }
        ImageCommand::Quota => super::quota::show_own(&session, output).await,
        ImageCommand::OsVersions { tag } => {
            let versions = session.os_versions(tag.as_deref()).await?;
            output.result(&Value::Array(versions), table_of_versions)
        }
        ImageCommand::Schema { of } => output.object(&session.image_schema(&of).await?),
        ImageCommand::Versions => output.result(&session.image_versions().await?, table_of_apis),
        ImageCommand::Stores => output.result(&session.image_stores().await?, table_of_stores),
        ImageCommand::Tag(command) => super::image_tags::run(command, &session, output).await,
    }
}

async fn create(session: &Session, args: &CreateArgs, output: &Output) -> Result<(), Failure> {
    let upload = match &args.file {
        None => None,
        Some(path) if path == Path::new("-") && args.verify => {
            return Err(Failure::usage(
                "--verify needs a file: standard input is read once",
            ));
        }
        Some(path) if path == Path::new("-") => Some((Upload::Stdin, None)),
        Some(path) => {
            let named = |error| Failure::usage(format!("{}: {error}", path.display()));
            let size = std::fs::metadata(path).map_err(named)?.len();
            Some((Upload::File(path.clone()), Some(size)))
        }
    };
    let image = session.create_image(&new_image(args)?).await?;
    let id = image["id"].as_str().unwrap_or_default().to_owned();
    let Some((upload, size)) = upload else {
        return output.object(&image);
    };
    let bar = output.bytes_bar("uploading", size);
    let store = args.store.as_deref();
    let sent = session.upload(&id, &upload, store, &bar).await;
    bar.finish_and_clear();
    if let Err(failure) = sent {
        // Nobody asked for an image without bytes: it goes, unless that fails too.
        if session.delete_image(&id).await.is_err() {
            output.note(&format!("image {id} is left without bytes"));
        }
        return Err(failure.during("upload"));
    }
    let image = session.show_image(&id).await?;
    if args.verify
        && let Upload::File(path) = &upload
    {
        verify(path, &image).await?;
    }
    output.object(&image)
}

async fn verify(path: &Path, image: &Value) -> Result<(), Failure> {
    let owned = path.to_owned();
    let digests = tokio::task::spawn_blocking(move || digests_of(&owned))
        .await
        .map_err(|error| Failure::new(error.to_string()))??;
    let hash = match image["os_hash_algo"].as_str() {
        Some("sha512") => image["os_hash_value"] != digests.sha512,
        Some("sha256") => image["os_hash_value"] != digests.sha256,
        _ => false,
    };
    let checksum = image["checksum"].as_str();
    if hash || checksum.is_some_and(|md5| md5 != digests.md5) {
        return Err(Failure::new(format!(
            "image {} does not match {}",
            cell(image, "id"),
            path.display()
        ))
        .with_exit(Exit::Damaged));
    }
    Ok(())
}

fn new_image(args: &CreateArgs) -> Result<Value, Failure> {
    let mut fields = Map::new();
    fields.insert("name".into(), json!(args.name));
    fields.insert("disk_format".into(), json!(args.disk_format));
    fields.insert("container_format".into(), json!(args.container_format));
    for (name, value) in [("min_disk", args.min_disk), ("min_ram", args.min_ram)] {
        if let Some(value) = value {
            fields.insert(name.into(), json!(value));
        }
    }
    if let Some(visibility) = args.visibility {
        fields.insert("visibility".into(), json!(visibility.word()));
    }
    if args.protected {
        fields.insert("protected".into(), json!(true));
    }
    if !args.tag.is_empty() {
        fields.insert("tags".into(), json!(args.tag));
    }
    for (name, value) in &args.property {
        if fields.insert(name.clone(), json!(value)).is_some() {
            return Err(Failure::usage(format!(
                "--property {name}: it has a flag of its own"
            )));
        }
    }
    Ok(Value::Object(fields))
}

fn query(args: &ListArgs) -> String {
    let word = |word: &str| Some(word.to_owned());
    let protected = [(args.protected, "true"), (args.unprotected, "false")];
    let protected = protected.iter().find(|(wanted, _)| *wanted);
    let once = [
        ("name", args.name.clone()),
        ("status", args.status.clone()),
        (
            "visibility",
            args.visibility.and_then(|seen| word(seen.word())),
        ),
        ("owner", args.owner.clone()),
        ("member_status", args.member_status.clone()),
        ("protected", protected.and_then(|(_, value)| word(value))),
        ("disk_format", args.disk_format.clone()),
        ("container_format", args.container_format.clone()),
        ("min_disk", args.min_disk.map(|gb| gb.to_string())),
        ("min_ram", args.min_ram.map(|mb| mb.to_string())),
        ("__system__cmkid", args.key.clone()),
        ("enterprise_project_id", args.enterprise_project.clone()),
        ("sort_key", args.sort.clone()),
        ("sort_dir", args.ascending.then(|| "asc".to_owned())),
    ];
    let once = once
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    let each = |name, values: &[String]| -> Vec<(&str, String)> {
        values.iter().map(|value| (name, value.clone())).collect()
    };
    let properties = args.property.iter();
    let properties = properties.map(|(name, value)| (name.as_str(), value.clone()));
    let most = args.limit.map_or(1000, |limit| limit.min(1000));
    once.chain(each("tag", &args.tag))
        .chain(properties)
        .chain(each("created_at", &args.created))
        .chain(each("updated_at", &args.updated))
        .chain([("limit", most.to_string())])
        .map(|(name, value)| format!("{}={}", encode(name), encode(&value)))
        .collect::<Vec<_>>()
        .join("&")
}

fn table(document: &Value) -> Rows {
    let columns = ["id", "name", "status", "visibility", "disk_format", "size"];
    let mut rows =
        Rows::new(&["ID", "NAME", "STATUS", "VISIBILITY", "FORMAT", "SIZE"]).numeric(&[5]);
    for image in document.as_array().into_iter().flatten() {
        rows.push(columns.map(|name| cell(image, name)));
    }
    rows
}

fn table_of_versions(versions: &Value) -> Rows {
    let mut rows = Rows::new(&["PLATFORM", "VERSION", "TYPE", "BITS"]).numeric(&[3]);
    for version in versions.as_array().into_iter().flatten() {
        let columns = ["platform", "os_version", "os_type", "os_bit"];
        rows.push(columns.map(|name| cell(version, name)));
    }
    rows
}

fn table_of_apis(versions: &Value) -> Rows {
    let mut rows = Rows::new(&["VERSION", "STATUS", "URL"]);
    for version in versions.as_array().into_iter().flatten() {
        let url = cell(&version["links"][0], "href");
        rows.push([cell(version, "id"), cell(version, "status"), url]);
    }
    rows
}

fn table_of_stores(stores: &Value) -> Rows {
    let mut rows = Rows::new(&["STORE", "DEFAULT", "DESCRIPTION"]);
    for store in stores.as_array().into_iter().flatten() {
        rows.push(["id", "default", "description"].map(|name| cell(store, name)));
    }
    rows
}

async fn act(session: &Session, image: &str, action: &str) -> Result<(), Failure> {
    let id = session.find_image(image).await?;
    session.act_on_image(&id, action).await
}

async fn set(session: &Session, args: &SetArgs, output: &Output) -> Result<(), Failure> {
    let id = session.find_image(&args.image).await?;
    let mut patch = Vec::new();
    if !args.tag.is_empty() || !args.remove_tag.is_empty() {
        let image = session.show_image(&id).await?;
        let mut tags: Vec<String> = image["tags"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|tag| tag.as_str().map(str::to_owned))
            .filter(|tag| !args.remove_tag.contains(tag))
            .collect();
        for tag in &args.tag {
            if !tags.contains(tag) {
                tags.push(tag.clone());
            }
        }
        patch.push(json!({"op": "replace", "path": "/tags", "value": tags}));
    }
    patch.extend(changes(args));
    if patch.is_empty() {
        return Err(Failure::usage("nothing to change"));
    }
    output.object(&session.patch_image(&id, &Value::Array(patch)).await?)
}

/// The operations of a JSON patch (RFC 6902) that need not know the image.
fn changes(args: &SetArgs) -> Vec<Value> {
    let mut changes: Vec<(String, Value)> = Vec::new();
    if let Some(name) = &args.name {
        changes.push(("name".into(), json!(name)));
    }
    for (name, value) in [("min_disk", args.min_disk), ("min_ram", args.min_ram)] {
        if let Some(value) = value {
            changes.push((name.into(), json!(value)));
        }
    }
    if let Some(visibility) = args.visibility {
        changes.push(("visibility".into(), json!(visibility.word())));
    }
    if args.protected || args.unprotected {
        changes.push(("protected".into(), json!(args.protected)));
    }
    changes.extend(
        args.property
            .iter()
            .map(|(name, value)| (name.clone(), json!(value))),
    );
    // `add` replaces what is there.
    let add = changes
        .into_iter()
        .map(|(name, value)| json!({"op": "add", "path": pointer(&name), "value": value}));
    let remove = args
        .remove_property
        .iter()
        .map(|name| json!({"op": "remove", "path": pointer(name)}));
    add.chain(remove).collect()
}

/// A name as a JSON pointer (RFC 6901).
fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

async fn download(session: &Session, args: &DownloadArgs, output: &Output) -> Result<(), Failure> {
    let target = match &args.file {
        Some(path) if path != Path::new("-") => {
            if path.exists() && !args.force {
                return Err(Failure::new(format!("{} exists", path.display()))
                    .with_exit(Exit::Refused)
                    .with_hint("--force replaces it"));
            }
            Target::File(path.clone())
        }
        _ if std::io::stdout().is_terminal() => {
            return Err(Failure::usage(
                "an image's bytes are nothing for a terminal: give --file",
            ));
        }
        _ => Target::Stdout,
    };
    let id = session.find_image(&args.image).await?;
    let image = session.show_image(&id).await?;
    let bar = output.bytes_bar("downloading", image["size"].as_u64());
    let fetched = session.download(&image, &target, &bar).await;
    bar.finish_and_clear();
    let fetched = fetched?;
    let Target::File(path) = &target else {
        return Ok(());
    };
    output.object(&json!({
        "id": id,
        "file": path.display().to_string(),
        "bytes": fetched.bytes,
        "resumed_from": fetched.resumed_from,
        "verified": fetched.algorithm,
    }))
}

/// Deletes all that can be; the first failure is the command's.
async fn delete(session: &Session, images: &[String]) -> Result<(), Failure> {
    let mut first = None;
    for image in images {
        let deleted = match session.find_image(image).await {
            Ok(id) => session.delete_image(&id).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = deleted {
            first.get_or_insert(failure.during(image));
        }
    }
    first.map_or(Ok(()), Err)
}

async fn replicate(
    session: &Session,
    args: &ReplicateArgs,
    output: &Output,
) -> Result<(), Failure> {
    let id = session.find_image(&args.image).await?;
    let mut request = json!({"name": args.name});
    for (field, value) in [
        ("description", &args.description),
        ("enterprise_project_id", &args.enterprise_project),
        ("cmk_id", &args.key),
        ("encryption_mode", &args.encryption_mode),
        ("store", &args.store),
        ("region", &args.region),
        ("project_name", &args.project_name),
        ("agency_name", &args.agency),
        ("vault_id", &args.vault),
    ] {
        if let Some(value) = value {
            request[field] = json!(value);
        }
    }
    let job_id = session.replicate(&id, &request).await?;
    let waiting = args.wait.then_some(args.timeout);
    follow(session, &job_id, "replicating", waiting, output).await
}

/// Shows the id of a job, or waits for the job and shows how it ended.
pub(super) async fn follow(
    session: &Session,
    job_id: &str,
    what: &'static str,
    waiting: Option<Option<Duration>>,
    output: &Output,
) -> Result<(), Failure> {
    let Some(timeout) = waiting else {
        return output.object(&json!({"job_id": job_id}));
    };
    let bar = output.bytes_bar(what, Some(0));
    let wait = JobWait {
        timeout,
        ..JobWait::default()
    };
    let ended = session.wait_job(job_id, wait, &bar).await;
    bar.finish_and_clear();
    output.result(&ended?, super::job::table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn parsed(line: &str) -> ImageCommand {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Image(command) => command,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_become_the_image_that_is_made() {
        let ImageCommand::Create(args) = parsed(
            "calotype image create n --property os_distro=debian --tag a --min-disk 4 --protected",
        ) else {
            panic!("another command");
        };
        insta::assert_snapshot!(new_image(&args).unwrap());
        let ImageCommand::Create(args) = parsed("calotype image create n --property name=x") else {
            panic!("another command");
        };
        assert_eq!(new_image(&args).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn flags_become_a_patch_with_escaped_pointers() {
        let ImageCommand::Set(args) = parsed(
            "calotype image set n --name m --property a/b~c=d --remove-property e --unprotected",
        ) else {
            panic!("another command");
        };
        insta::assert_snapshot!(Value::Array(changes(&args)));
    }

    #[test]
    fn flags_become_a_query_with_escaped_values() {
        let ImageCommand::List(args) =
            parsed("calotype image list --name a&b --tag x --tag y --limit 5000")
        else {
            panic!("another command");
        };
        assert_eq!(query(&args), "name=a%26b&tag=x&tag=y&limit=1000");
        let ImageCommand::List(args) = parsed(
            "calotype image list --property __os_type=Linux --owner p --member-status all --unprotected \
             --disk-format raw --container-format bare --min-disk 1 --min-ram 2 --key k --enterprise-project 0 \
             --created gt:2024-01-02 --created lt:2024-01-03 --updated eq:2024-01-02 --sort name --ascending",
        ) else {
            panic!("another command");
        };
        let wanted = "owner=p&member_status=all&protected=false&disk_format=raw&container_format=bare&min_disk=1&\
             min_ram=2&__system__cmkid=k&enterprise_project_id=0&sort_key=name&sort_dir=asc&__os_type=Linux&\
             created_at=gt%3A2024-01-02&created_at=lt%3A2024-01-03&updated_at=eq%3A2024-01-02&limit=1000";
        assert_eq!(query(&args), wanted);
    }

    #[test]
    fn images_are_listed_in_columns() {
        let images = json!([
            {"id": "1", "name": "debian", "status": "active", "visibility": "public",
             "disk_format": "raw", "size": 1024},
            {"id": "2", "name": null, "status": "queued", "visibility": "private"},
        ]);
        insta::assert_snapshot!(table(&images).render());
    }
}
