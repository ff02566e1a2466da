//! The calls that tag images.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::calls::encode;
use super::login::Session;
use super::transport::{Call, document};
use crate::exit::Failure;

/// Images that are asked for at once.
const PAGE: usize = 100;

impl Session {
    /// An image's tags: objects with a key and a value.
    pub(crate) async fn image_tags(&self, image: &str) -> Result<Value, Failure> {
        let path = self.tags_path(image)?;
        let mut answer = document(self.image(Call::get(path)).await?).await?;
        Ok(answer["tags"].take())
    }

    /// The tags of the project's images: objects with a key and its values.
    pub(crate) async fn project_tags(&self) -> Result<Value, Failure> {
        let path = format!("/v2/{}/images/tags", encode(self.project_id()?));
        let mut answer = document(self.image(Call::get(path)).await?).await?;
        Ok(answer["tags"].take())
    }

    /// Tags an image, in the place of tags with the same keys.
    pub(crate) async fn add_image_tags(&self, image: &str, tags: &Value) -> Result<(), Failure> {
        let path = format!("{}/action", self.tags_path(image)?);
        let body = json!({"action": "create", "tags": tags});
        self.image(Call::post(path, &body)).await.map(drop)
    }

    /// Takes a tag from an image.
    ///
    /// # Errors
    /// Not found, also where the image does not have it.
    pub(crate) async fn remove_image_tag(&self, image: &str, key: &str) -> Result<(), Failure> {
        let path = format!("{}/{}", self.tags_path(image)?, encode(key));
        self.image(Call::new(Method::DELETE, path)).await.map(drop)
    }

    /// The images of the project that meet these conditions of a request for them: objects with an id, a name and tags.
    pub(crate) async fn images_that_meet(
        &self,
        conditions: &Map<String, Value>,
    ) -> Result<Vec<Value>, Failure> {
        let project = encode(self.project_id()?);
        let path = format!("/v2/{project}/images/resource_instances/action");
        let mut found = Vec::new();
        loop {
            let mut body = conditions.clone();
            body.insert("action".to_owned(), "filter".into());
            body.insert("limit".to_owned(), PAGE.to_string().into());
            body.insert("offset".to_owned(), found.len().to_string().into());
            let body = Value::Object(body);
            let mut answer = document(self.image(Call::post(&*path, &body)).await?).await?;
            let Value::Array(page) = answer["resources"].take() else {
                return Err(Failure::new("the service's answer has no resources"));
            };
            let last = page.len() < PAGE;
            found.extend(page);
            if last {
                return Ok(found);
            }
        }
    }

    fn tags_path(&self, image: &str) -> Result<String, Failure> {
        let project = encode(self.project_id()?);
        Ok(format!("/v2/{project}/images/{}/tags", encode(image)))
    }
}
