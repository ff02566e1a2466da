//! The calls of the image service: native images, IMS replicas and jobs.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::TryStreamExt;
use indicatif::ProgressBar;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method, StatusCode};
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio_util::io::ReaderStream;

use super::login::Session;
use super::transport::{Call, asks_to_wait, document, join, retry_after, success, unreachable};
use crate::exit::{Exit, Failure};

/// Reads of a file that is uploaded. Small ones are what makes other clients slow.
const READ_SIZE: usize = 1 << 20;

/// What is not escaped in a path's part or a query's value (RFC 3986, unreserved).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// `text` as one part of a path, or one value of a query.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Where an image's bytes come from.
#[derive(Debug, Clone)]
pub(crate) enum Upload {
    /// A file.
    File(PathBuf),
    /// Standard input, of unknown length.
    Stdin,
}

/// How a job is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JobWait {
    /// Longer than this is a failure. None: for as long as it takes.
    pub(crate) timeout: Option<Duration>,
    /// The wait between the first looks; it grows to a second.
    pub(crate) first_look: Duration,
}

impl Default for JobWait {
    fn default() -> Self {
        Self {
            timeout: None,
            first_look: Duration::from_millis(50),
        }
    }
}

impl Session {
    /// Makes an image's record; its document comes back.
    pub(crate) async fn create_image(&self, fields: &Value) -> Result<Value, Failure> {
        document(self.image(Call::post("/v2/images", fields)).await?).await
    }

    /// An image's document.
    pub(crate) async fn show_image(&self, id: &str) -> Result<Value, Failure> {
        document(
            self.image(Call::get(format!("/v2/images/{}", encode(id))))
                .await?,
        )
        .await
    }

    /// The images that `query` (without a question mark) selects, at most `most`, over all pages.
    pub(crate) async fn list_images(
        &self,
        query: &str,
        most: Option<usize>,
    ) -> Result<Vec<Value>, Failure> {
        let mut images = Vec::new();
        let mut next = Some(format!("/v2/images?{query}"));
        while let Some(path) = next {
            let mut page = document(self.image(Call::get(path.clone())).await?).await?;
            if let Value::Array(found) = page["images"].take() {
                images.extend(found);
            }
            if most.is_some_and(|most| images.len() >= most) {
                images.truncate(most.unwrap_or(usize::MAX));
                break;
            }
            // A path, as Glance has it: never another host, to which the token would go.
            next = page["next"]
                .as_str()
                .filter(|next| next.starts_with("/v2/") && *next != path)
                .map(str::to_owned);
        }
        Ok(images)
    }

    /// The id of the image that `reference`, an id or a unique name, names.
    ///
    /// # Errors
    /// Not found, or refused where several have the name.
    pub(crate) async fn find_image(&self, reference: &str) -> Result<String, Failure> {
        if let Ok(id) = uuid::Uuid::parse_str(reference) {
            return Ok(id.to_string());
        }
        let query = format!("name={}", encode(reference));
        let found = self.list_images(&query, None).await?;
        let ids: Vec<&str> = found
            .iter()
            .filter(|image| image["name"] == reference)
            .filter_map(|image| image["id"].as_str())
            .collect();
        match ids.as_slice() {
            [id] => Ok((*id).to_owned()),
            [] => {
                Err(Failure::new(format!("there is no image {reference:?}"))
                    .with_exit(Exit::NotFound))
            }
            several => Err(Failure::new(format!(
                "{} images are named {reference:?}: {}",
                several.len(),
                several.join(", ")
            ))
            .with_exit(Exit::Refused)
            .with_hint("name one by its id")),
        }
    }

    /// Changes an image by a JSON patch; its document comes back.
    pub(crate) async fn patch_image(&self, id: &str, patch: &Value) -> Result<Value, Failure> {
        let call = Call::new(Method::PATCH, format!("/v2/images/{}", encode(id)))
            .json(patch, "application/openstack-images-v2.1-json-patch");
        document(self.image(call).await?).await
    }

    /// Deletes an image.
    pub(crate) async fn delete_image(&self, id: &str) -> Result<(), Failure> {
        let path = format!("/v2/images/{}", encode(id));
        self.image(Call::new(Method::DELETE, path)).await.map(drop)
    }

    /// Sends an image's bytes, counting them on `bar`. A file is sent again where the service asks
    /// to come back later; standard input can't be. They go to `store`, or where all do.
    pub(crate) async fn upload(
        &self,
        id: &str,
        from: &Upload,
        store: Option<&str>,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        let url = join(self.endpoint(), &format!("/v2/images/{}/file", encode(id)))?;
        let mut attempt = 1;
        loop {
            let token = self.token().await;
            let request = self
                .transport
                .client(&url)
                .put(url.clone())
                .header("accept", "application/json")
                .header("x-auth-token", token.expose_secret())
                .header(CONTENT_TYPE, "application/octet-stream");
            let request = match store {
                Some(store) => request.header("x-image-meta-store", store),
                None => request,
            };
            bar.set_position(0);
            let counted = bar.clone();
            let count = move |chunk: &bytes::Bytes| counted.inc(chunk.len() as u64);
            let request = match from {
                Upload::File(path) => {
                    let named = |error: std::io::Error| {
                        Failure::new(format!("{}: {error}", path.display()))
                    };
                    let file = tokio::fs::File::open(path).await.map_err(named)?;
                    let size = file.metadata().await.map_err(named)?.len();
                    let stream = ReaderStream::with_capacity(file, READ_SIZE).inspect_ok(count);
                    request
                        .header("x-openstack-image-size", size)
                        .header(CONTENT_LENGTH, size)
                        .body(Body::wrap_stream(stream))
                }
                Upload::Stdin => {
                    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
                    let input = tokio::fs::File::from_std(input.into());
                    let stream = ReaderStream::with_capacity(input, READ_SIZE);
                    request.body(Body::wrap_stream(stream.inspect_ok(count)))
                }
            };
            let response = request
                .send()
                .await
                .map_err(|error| unreachable(&url, &error))?;
            let status = response.status();
            let repeatable =
                matches!(from, Upload::File(_)) && attempt < self.transport.retry.attempts;
            if repeatable && asks_to_wait(status) {
                let wait = self
                    .transport
                    .retry
                    .wait(attempt, retry_after(response.headers()));
                tokio::time::sleep(wait).await;
            } else if repeatable
                && attempt == 1
                && status == StatusCode::UNAUTHORIZED
                && self.renew().await?
            {
                // With a new token, at once.
            } else {
                return success(response).await.map(drop);
            }
            attempt += 1;
        }
    }

    /// Takes an action on an image that has no body: deactivates or reactivates it.
    pub(crate) async fn act_on_image(&self, id: &str, action: &str) -> Result<(), Failure> {
        let path = format!("/v2/images/{}/actions/{action}", encode(id));
        let call = Call::new(Method::POST, path);
        self.image(call).await.map(drop)
    }

    /// The JSON schema of an image, a member, or a list of them.
    pub(crate) async fn image_schema(&self, of: &str) -> Result<Value, Failure> {
        document(self.image(Call::get(format!("/v2/schemas/{of}"))).await?).await
    }

    /// The versions of the Image API.
    pub(crate) async fn image_versions(&self) -> Result<Value, Failure> {
        let mut answer = document(self.image(Call::get("/versions")).await?).await?;
        Ok(answer["versions"].take())
    }

    /// The stores that images are kept in.
    pub(crate) async fn image_stores(&self) -> Result<Value, Failure> {
        let mut answer = document(self.image(Call::get("/v2/info/stores")).await?).await?;
        Ok(answer["stores"].take())
    }

    /// The versions of operating systems that the service knows, for one use if one is given.
    pub(crate) async fn os_versions(&self, tag: Option<&str>) -> Result<Vec<Value>, Failure> {
        let query = tag.map(|tag| format!("?tag={}", encode(tag)));
        let path = format!("/v1/cloudimages/os_version{}", query.unwrap_or_default());
        let platforms = document(self.image(Call::get(path)).await?).await?;
        let lists = platforms.as_array().into_iter().flatten();
        let versions = lists.filter_map(|platform| platform["version_list"].as_array());
        Ok(versions.flatten().cloned().collect())
    }

    /// Starts a replication, to another region where the request names one; the job's id comes back.
    pub(crate) async fn replicate(&self, id: &str, request: &Value) -> Result<String, Failure> {
        let elsewhere = request.get("region").is_some();
        let operation = if elsewhere {
            "cross_region_copy"
        } else {
            "copy"
        };
        let path = format!("/v1/cloudimages/{}/{operation}", encode(id));
        job_of(&document(self.image(Call::post(path, request)).await?).await?)
    }

    /// Asks for what a job does; its id comes back.
    pub(crate) async fn start_job(&self, path: &str, request: &Value) -> Result<String, Failure> {
        let call = Call::post(path, request);
        job_of(&document(self.image(call).await?).await?)
    }

    /// Starts to give an image the bytes of an object; the job's id comes back.
    pub(crate) async fn register(&self, id: &str, request: &Value) -> Result<String, Failure> {
        let path = format!("/v1/cloudimages/{}/upload", encode(id));
        job_of(&document(self.image(Call::put(path, request)).await?).await?)
    }

    /// Starts to write an image into a bucket; the job's id comes back.
    pub(crate) async fn export(&self, id: &str, request: &Value) -> Result<String, Failure> {
        let path = format!("/v1/cloudimages/{}/file", encode(id));
        job_of(&document(self.image(Call::post(path, request)).await?).await?)
    }

    /// A job's document.
    pub(crate) async fn show_job(&self, id: &str) -> Result<Value, Failure> {
        let path = format!("/v1/{}/jobs/{}", encode(self.project_id()?), encode(id));
        document(self.image(Call::get(path)).await?).await
    }

    /// The project's jobs, newest first as the service has them.
    pub(crate) async fn list_jobs(
        &self,
        status: Option<&str>,
        limit: u32,
        marker: Option<&str>,
    ) -> Result<Value, Failure> {
        let mut path = format!("/admin/v1/jobs?limit={limit}");
        for (name, value) in [("status", status), ("marker", marker)] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encode(value)));
            }
        }
        document(self.image(Call::get(path)).await?).await
    }

    /// Cancels a job; its document comes back. It ends now or in a few seconds.
    pub(crate) async fn cancel_job(&self, id: &str) -> Result<Value, Failure> {
        let path = format!("/admin/v1/jobs/{}", encode(id));
        document(self.image(Call::new(Method::DELETE, path)).await?).await
    }

    /// Waits until a job has ended, showing its progress on `bar`; its last document comes back.
    ///
    /// # Errors
    /// [`Exit::JobFailed`] where it ended in FAIL, [`Exit::Timeout`] where it goes on after
    /// `wait.timeout`.
    pub(crate) async fn wait_job(
        &self,
        id: &str,
        wait: JobWait,
        bar: &ProgressBar,
    ) -> Result<Value, Failure> {
        let looking = self.look_until_ended(id, wait.first_look, bar);
        let Some(timeout) = wait.timeout else {
            return looking.await;
        };
        tokio::time::timeout(timeout, looking)
            .await
            .unwrap_or_else(|_| {
                Err(Failure::new(format!(
                    "job {id} has not ended after {} s",
                    timeout.as_secs()
                ))
                .with_exit(Exit::Timeout)
                .with_hint(format!("it goes on: calotype job wait {id}")))
            })
    }

    async fn look_until_ended(
        &self,
        id: &str,
        first_look: Duration,
        bar: &ProgressBar,
    ) -> Result<Value, Failure> {
        let mut pause = first_look;
        loop {
            let job = self.show_job(id).await?;
            show_progress(&job, bar);
            match job["status"].as_str() {
                Some("INIT" | "RUNNING") => {}
                Some("SUCCESS") => return Ok(job),
                Some("FAIL") => {
                    let text = |name: &str| job[name].as_str().map(str::to_owned);
                    let reason = text("fail_reason").unwrap_or_else(|| "no reason given".into());
                    return Err(Failure {
                        code: text("error_code"),
                        ..Failure::new(format!("job {id} failed: {reason}"))
                            .with_exit(Exit::JobFailed)
                    });
                }
                other => {
                    return Err(Failure::new(format!(
                        "job {id} has an unknown status {other:?}"
                    )));
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}

/// The job that an answer names.
pub(super) fn job_of(answer: &Value) -> Result<String, Failure> {
    answer["job_id"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| Failure::new("the service's answer names no job"))
}

/// Moves `bar` to where the job says it is (decision D17). One that moves no bytes leaves it as it is.
fn show_progress(job: &Value, bar: &ProgressBar) {
    let progress = &job["calotype"];
    let total = progress["bytes_total"].as_u64();
    let Some(total) = total.filter(|total| *total > 0) else {
        return;
    };
    bar.set_length(total);
    if let Some(done) = progress["bytes_done"].as_u64() {
        bar.set_position(done);
    }
}
