//! The calls that share images.

use reqwest::Method;
use serde_json::{Value, json};

use super::calls::{encode, job_of};
use super::login::Session;
use super::transport::{Call, document};
use crate::exit::Failure;

/// Where images are shared, many at once.
const MEMBERS: &str = "/v1/cloudimages/members";

impl Session {
    /// Shares images with projects; the job's id comes back.
    pub(crate) async fn share_images(
        &self,
        images: &[String],
        projects: &[String],
    ) -> Result<String, Failure> {
        let body = json!({"images": images, "projects": projects});
        self.members_job(Call::post(MEMBERS, &body)).await
    }

    /// Ends the sharing of images with projects; the job's id comes back.
    pub(crate) async fn unshare_images(
        &self,
        images: &[String],
        projects: &[String],
    ) -> Result<String, Failure> {
        let body = json!({"images": images, "projects": projects});
        let call = Call::new(Method::DELETE, MEMBERS).json(&body, "application/json");
        self.members_job(call).await
    }

    /// Answers to images being shared with the session's project; the job's id comes back.
    pub(crate) async fn answer_images(
        &self,
        images: &[String],
        status: &str,
        vault: Option<&str>,
    ) -> Result<String, Failure> {
        let project = self.project_id()?;
        let mut body = json!({"images": images, "project_id": project, "status": status});
        if let Some(vault) = vault {
            body["vault_id"] = vault.into();
        }
        let call = Call::new(Method::PUT, MEMBERS).json(&body, "application/json");
        self.members_job(call).await
    }

    /// The members of an image, as far as the caller may know of them.
    pub(crate) async fn image_members(&self, image: &str) -> Result<Value, Failure> {
        let path = format!("/v2/images/{}/members", encode(image));
        let mut answer = document(self.image(Call::get(path)).await?).await?;
        Ok(answer["members"].take())
    }

    /// One member of an image.
    pub(crate) async fn image_member(&self, image: &str, project: &str) -> Result<Value, Failure> {
        let path = format!("/v2/images/{}/members/{}", encode(image), encode(project));
        document(self.image(Call::get(path)).await?).await
    }

    async fn members_job(&self, call: Call) -> Result<String, Failure> {
        job_of(&document(self.image(call).await?).await?)
    }
}
