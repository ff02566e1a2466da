//! `image share`, `unshare`, `accept`, `reject`, `members`: the projects that images are shared with.

use serde_json::{Value, json};

use crate::cli::{AcceptArgs, RejectArgs, ShareArgs, WaitArgs};
use crate::client::{JobWait, Session};
use crate::exit::{Exit, Failure};
use crate::output::{Output, Rows, cell};

/// Runs `image share`.
pub(super) async fn share(
    session: &Session,
    args: &ShareArgs,
    output: &Output,
) -> Result<(), Failure> {
    let images = ids(session, &args.images).await?;
    let job = session.share_images(&images, &args.project).await?;
    finish(session, &job, &args.wait, output).await
}

/// Runs `image unshare`.
pub(super) async fn unshare(
    session: &Session,
    args: &ShareArgs,
    output: &Output,
) -> Result<(), Failure> {
    let images = ids(session, &args.images).await?;
    let job = session.unshare_images(&images, &args.project).await?;
    finish(session, &job, &args.wait, output).await
}

/// Runs `image accept`.
pub(super) async fn accept(
    session: &Session,
    args: &AcceptArgs,
    output: &Output,
) -> Result<(), Failure> {
    let images = ids(session, &args.images).await?;
    let vault = args.vault.as_deref();
    let job = session.answer_images(&images, "accepted", vault).await?;
    finish(session, &job, &args.wait, output).await
}

/// Runs `image reject`.
pub(super) async fn reject(
    session: &Session,
    args: &RejectArgs,
    output: &Output,
) -> Result<(), Failure> {
    let images = ids(session, &args.images).await?;
    let job = session.answer_images(&images, "rejected", None).await?;
    finish(session, &job, &args.wait, output).await
}

/// Runs `image members`.
pub(super) async fn list(
    session: &Session,
    image: &str,
    project: Option<&str>,
    output: &Output,
) -> Result<(), Failure> {
    let id = session.find_image(image).await?;
    let members = match project {
        None => session.image_members(&id).await?,
        Some(project) => json!([session.image_member(&id, project).await?]),
    };
    output.result(&members, table)
}

async fn ids(session: &Session, images: &[String]) -> Result<Vec<String>, Failure> {
    let mut ids = Vec::with_capacity(images.len());
    for image in images {
        ids.push(session.find_image(image).await?);
    }
    Ok(ids)
}

/// Shows the job, or what became of each pair once it is done.
async fn finish(
    session: &Session,
    job: &str,
    wait: &WaitArgs,
    output: &Output,
) -> Result<(), Failure> {
    if !wait.wait {
        return output.object(&json!({"job_id": job}));
    }
    let bar = output.bytes_bar("members", Some(0));
    let wait = JobWait {
        timeout: wait.timeout,
        ..JobWait::default()
    };
    let ended = session.wait_job(job, wait, &bar).await;
    bar.finish_and_clear();
    let ended = ended.map_err(|failure| match failure.exit {
        Exit::JobFailed => {
            failure.with_hint(format!("what became of each: calotype job show {job}"))
        }
        _ => failure,
    });
    output.result(&ended?["entities"]["results"], pairs)
}

fn table(members: &Value) -> Rows {
    let mut rows = Rows::new(&["PROJECT", "STATUS", "CREATED", "UPDATED"]);
    for member in members.as_array().into_iter().flatten() {
        let names = ["member_id", "status", "created_at", "updated_at"];
        rows.push(names.map(|name| cell(member, name)));
    }
    rows
}

fn pairs(results: &Value) -> Rows {
    let mut rows = Rows::new(&["IMAGE", "PROJECT", "STATUS"]);
    for result in results.as_array().into_iter().flatten() {
        rows.push(["image_id", "project_id", "status"].map(|name| cell(result, name)));
    }
    rows
}
