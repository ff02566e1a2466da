//! Images and jobs, as tests make and read them.

use std::io::Read;

use reqwest::Method;
use reqwest::blocking::Body;
use serde_json::{Value, json};

use crate::client::{Answer, Client, send, text, try_send};
use crate::content::{Content, Digests, expect_same};
use crate::until;

/// The media type of a change of an image's attributes.
pub const JSON_PATCH: &str = "application/openstack-images-v2.1-json-patch";

/// A job that has ended.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its document.
    pub document: Value,
}

impl Job {
    /// The status word.
    pub fn status(&self) -> &str {
        self.document["status"].as_str().unwrap_or_default()
    }

    /// The id of the image that it made.
    pub fn image(&self) -> String {
        text(&self.document["entities"]["image_id"])
    }
}

impl Client {
    /// Makes the record of an image without bytes; the result is its id.
    pub fn create(&self, name: &str) -> String {
        self.create_with(json!({"name": name, "disk_format": "raw", "container_format": "bare"}))
    }

    /// Makes the record of an image; the result is its id.
    pub fn create_with(&self, body: Value) -> String {
        let made = self.post("/v2/images", body).expect(201).json();
        text(&made["id"])
    }

    /// Gives an attribute that an image has another value.
    pub fn set(&self, image: &str, attribute: &str, value: impl Into<Value>) {
        let path = format!("/v2/images/{image}");
        let place = format!("/{attribute}");
        let change = json!([{"op": "replace", "path": place, "value": value.into()}]);
        self.patch(&path, JSON_PATCH, change).expect(200);
    }

    /// Sends an image's bytes.
    pub fn upload(&self, image: &str, body: impl Into<Body>) -> Answer {
        self.raw(
            Method::PUT,
            &format!("/v2/images/{image}/file"),
            "application/octet-stream",
            body,
        )
    }

    /// Sends an image's bytes from a stream of known length.
    pub fn upload_stream(
        &self,
        image: &str,
        stream: impl Read + Send + 'static,
        length: u64,
    ) -> Result<Answer, reqwest::Error> {
        let request = self
            .request(Method::PUT, &format!("/v2/images/{image}/file"))
            .header("Content-Type", "application/octet-stream");
        try_send(request.body(Body::sized(stream, length)))
    }

    /// An active image of `length` repeatable bytes; the result is its id.
    pub fn image(&self, name: &str, seed: u64, length: u64) -> String {
        let image = self.create(name);
        let answer = self.upload_stream(&image, Content::new(seed, length), length);
        answer.expect("an answer").expect(204);
        image
    }

    /// An image's document.
    pub fn show(&self, image: &str) -> Value {
        self.get(&format!("/v2/images/{image}")).expect(200).json()
    }

    /// An image's bytes, digested as they come.
    pub fn download(&self, image: &str) -> Digests {
        Digests::of(self.bytes_of(image))
    }

    /// Downloads an image's bytes, which must be those of a stream.
    pub fn download_same(&self, image: &str, wanted: impl Read) {
        expect_same(self.bytes_of(image), wanted);
    }

    fn bytes_of(&self, image: &str) -> impl Read {
        let request = self.request(Method::GET, &format!("/v2/images/{image}/file"));
        let response = request.send().expect("an answer");
        assert_eq!(response.status().as_u16(), 200, "the bytes of {image}");
        response
    }

    /// A part of an image's bytes, with a `Range` header.
    pub fn range(&self, image: &str, range: &str) -> Answer {
        let request = self.request(Method::GET, &format!("/v2/images/{image}/file"));
        send(request.header("Range", range))
    }

    /// Asks for a replica.
    pub fn copy(&self, image: &str, body: impl Into<Value>) -> Answer {
        self.post(&format!("/v1/cloudimages/{image}/copy"), body)
    }

    /// Makes a replica and waits for it; the result is its id.
    pub fn replicate(&self, image: &str, name: &str) -> String {
        self.replicate_with(image, json!({"name": name}))
    }

    /// As [`Client::replicate`], with any body.
    pub fn replicate_with(&self, image: &str, body: Value) -> String {
        let job = self.job(&self.begin_copy(image, body));
        assert_eq!(job.status(), "SUCCESS", "{}", job.document);
        job.image()
    }

    /// Asks for a replica, which must be accepted; the result is the job's id.
    pub fn begin_copy(&self, image: &str, body: Value) -> String {
        let accepted = self.copy(image, body).expect(200).json();
        text(&accepted["job_id"])
    }

    /// What the service tells of a job beyond the specification: its `calotype` object.
    pub fn progress(&self, job: &str) -> Value {
        let shown = self.get(&format!("/v1/cloudimages/job/{job}"));
        shown.expect(200).json()["calotype"].clone()
    }

    /// A job's document, now.
    pub fn show_job(&self, job: &str) -> Answer {
        self.get(&format!("/v1/{}/jobs/{job}", self.project()))
    }

    /// Waits for a job's end.
    pub fn job(&self, job: &str) -> Job {
        until("the job to end", || {
            let document = self.show_job(job).expect(200).json();
            matches!(document["status"].as_str(), Some("SUCCESS" | "FAIL"))
                .then_some(Job { document })
        })
    }

    /// All the caller's images as the IMS list shows them, in a stable order.
    pub fn list(&self) -> Vec<Value> {
        let listed = self
            .get("/v2/cloudimages?limit=1000&sort_key=id&sort_dir=asc")
            .expect(200)
            .json();
        listed["images"].as_array().expect("images").clone()
    }

    /// What a refused request must leave as it was: the images and the jobs.
    pub fn state(&self) -> (Vec<Value>, Value) {
        let jobs = self.get("/admin/v1/jobs?limit=1000").expect(200).json();
        (self.list(), jobs)
    }

    /// Proves that the invariants hold, asking a running server. The caller runs the service.
    pub fn verify(&self) {
        self.sound("/admin/v1/verify?deep=true");
    }

    /// As [`Client::verify`], without reading every byte, and that the store holds no bytes without a row.
    pub fn verify_rows(&self) {
        let report = self.sound("/admin/v1/verify");
        assert_eq!(report["orphans"], 0, "{report}");
    }

    /// Waits until the collector has removed all that nothing needs.
    pub fn collected(&self) {
        until("what nothing needs to go", || {
            let report = self.get("/admin/v1/verify").expect(200).json();
            (report["orphans"] == 0 && report["leftovers"] == 0).then_some(())
        });
    }

    fn sound(&self, path: &str) -> Value {
        let report = self.get(path).expect(200).json();
        let violations = report["violations"].as_array().expect("violations");
        assert!(violations.is_empty(), "{report}");
        report
    }

    /// Waits until no job of the caller's project is unfinished.
    pub fn idle(&self) {
        until("every job to end", || {
            let unfinished = |status| {
                let jobs = self.get(&format!("/admin/v1/jobs?status={status}"));
                jobs.expect(200).json()["jobs"]
                    .as_array()
                    .map_or(0, Vec::len)
            };
            (unfinished("INIT") + unfinished("RUNNING") == 0).then_some(())
        });
    }

    /// The audit trail's newest thousand lines of one trace name, as the caller may see them.
    pub fn audit(&self, trace: &str) -> Vec<Value> {
        let trail = self.get("/admin/v1/audit?limit=1000").expect(200).json();
        let events = trail["events"].as_array().expect("events").iter();
        events
            .filter(|event| event["trace_name"] == trace)
            .cloned()
            .collect()
    }
}
