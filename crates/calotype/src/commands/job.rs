//! `job`: following asynchronous work, and ending it.

use serde_json::Value;

use super::session;
use crate::cli::{Connection, JobCommand};
use crate::client::JobWait;
use crate::config::Environment;
use crate::exit::Failure;
use crate::output::{Output, Rows, cell};

/// Runs a `job` command.
pub(crate) async fn run(
    command: JobCommand,
    connection: &Connection,
    environment: &Environment,
    output: &Output,
) -> Result<(), Failure> {
    let session = session(connection, environment).await?;
    match command {
        JobCommand::Show { id } => output.result(&session.show_job(&id).await?, table),
        JobCommand::Wait { id, timeout } => {
            let bar = output.bytes_bar("job", Some(0));
            let ended = session
                .wait_job(
                    &id,
                    JobWait {
                        timeout,
                        ..JobWait::default()
                    },
                    &bar,
                )
                .await;
            bar.finish_and_clear();
            output.result(&ended?, table)
        }
        JobCommand::Cancel { id } => output.result(&session.cancel_job(&id).await?, table),
        JobCommand::List {
            status,
            limit,
            marker,
        } => {
            let status = status.map(|status| status.to_ascii_uppercase());
            let jobs = session
                .list_jobs(status.as_deref(), limit, marker.as_deref())
                .await?;
            output.result(&jobs, list)
        }
    }
}

fn list(document: &Value) -> Rows {
    let mut rows = Rows::new(&["ID", "TYPE", "STATUS", "BEGIN", "END", "ERROR"]);
    for job in document["jobs"].as_array().into_iter().flatten() {
        rows.push(
            [
                "job_id",
                "job_type",
                "status",
                "begin_time",
                "end_time",
                "error_code",
            ]
            .map(|name| cell(job, name)),
        );
    }
    rows
}

/// One job, its entities and progress beside its own fields.
pub(crate) fn table(document: &Value) -> Rows {
    let mut rows = Rows::new(&["FIELD", "VALUE"]);
    for (name, value) in document.as_object().into_iter().flatten() {
        match value {
            Value::Object(inner) => {
                for name in inner.keys() {
                    match value[name].as_array().filter(|_| name == PARTS) {
                        Some(parts) => parts.iter().for_each(|part| rows.push(disk(part))),
                        None => rows.push([name.clone(), cell(value, name)]),
                    }
                }
            }
            _ => rows.push([name.clone(), cell(document, name)]),
        }
    }
    rows
}

/// The images of a job with parts are its parts'.
const PARTS: &str = "sub_jobs_result";

fn disk(part: &Value) -> [String; 2] {
    let words = ["image_id", "image_name", "error_code"].map(|name| cell(&part["entities"], name));
    let words = words.iter().map(String::as_str);
    let status = part["status"].as_str().unwrap_or_default();
    let words = words.filter(|word| !word.is_empty()).chain([status]);
    ["disk".to_owned(), words.collect::<Vec<_>>().join(" ")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_job_is_shown_with_its_entities_and_progress() {
        let job = json!({
            "status": "RUNNING", "job_id": "0", "error_code": null,
            "entities": {"image_id": "1"},
            "calotype": {"bytes_total": 10, "bytes_done": 4},
        });
        insta::assert_snapshot!(table(&job).render(), @r"
        FIELD        VALUE
        status       RUNNING
        job_id       0
        error_code
        image_id     1
        bytes_total  10
        bytes_done   4
        ");
    }

    #[test]
    fn a_job_with_parts_shows_the_image_of_each() {
        let job = json!({"entities": {"sub_jobs_result": [
            {"status": "SUCCESS", "entities": {"image_id": "1", "image_name": "web"}},
            {"status": "FAIL", "entities": {"image_name": "web-1", "error_code": "IMG.0057"}},
        ]}});
        insta::assert_snapshot!(table(&job).render(), @r"
        FIELD  VALUE
        disk   1 web SUCCESS
        disk   web-1 IMG.0057 FAIL
        ");
    }
}
