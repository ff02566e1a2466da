//! The calls of the key management service.

use reqwest::Method;
use serde_json::{Value, json};

use super::login::Session;
use super::transport::{Call, document};
use crate::exit::Failure;

/// Keys and grants that come in one page.
const PAGE: u32 = 1000;

impl Session {
    /// Makes a key; its id comes back.
    pub(crate) async fn create_key(&self, fields: &Value) -> Result<String, Failure> {
        let made = document(self.kms(Call::post("/kms/create-key", fields)).await?).await?;
        text(&made["key_info"]["key_id"])
    }

    /// A key's document.
    pub(crate) async fn describe_key(&self, key: &str) -> Result<Value, Failure> {
        let call = Call::post("/kms/describe-key", &json!({"key_id": key}));
        let mut shown = document(self.kms(call).await?).await?;
        Ok(shown["key_info"].take())
    }

    /// The id of the key that `reference`, an id or an alias, names.
    ///
    /// # Errors
    /// Not found, where there is none for the caller.
    pub(crate) async fn find_key(&self, reference: &str) -> Result<String, Failure> {
        if let Ok(id) = uuid::Uuid::parse_str(reference) {
            return Ok(id.to_string());
        }
        let found = self.describe_key(&format!("alias/{reference}")).await?;
        text(&found["key_id"])
    }

    /// The project's keys, in one state if one is given, over all pages.
    pub(crate) async fn list_keys(&self, state: Option<&str>) -> Result<Vec<Value>, Failure> {
        let mut body = json!({});
        if let Some(state) = state {
            body["key_state"] = state.into();
        }
        self.pages("/kms/list-keys", body, "key_details").await
    }

    /// The grants on a key, over all pages.
    pub(crate) async fn list_grants(&self, key: &str) -> Result<Vec<Value>, Failure> {
        let body = json!({"key_id": key});
        self.pages("/kms/list-grants", body, "grants").await
    }

    /// Makes a grant; its document comes back.
    pub(crate) async fn create_grant(&self, fields: &Value) -> Result<Value, Failure> {
        document(self.kms(Call::post("/kms/create-grant", fields)).await?).await
    }

    /// Changes something by a call, which is not repeated: done twice it would be refused.
    pub(crate) async fn change_key(&self, call: &str, body: &Value) -> Result<Value, Failure> {
        let call = Call::new(Method::POST, format!("/kms/{call}")).json(body, "application/json");
        document(self.kms(call).await?).await
    }

    async fn pages(&self, path: &str, mut body: Value, list: &str) -> Result<Vec<Value>, Failure> {
        let mut all = Vec::new();
        body["limit"] = PAGE.to_string().into();
        loop {
            let mut page = document(self.kms(Call::post(path, &body)).await?).await?;
            if let Value::Array(found) = page[list].take() {
                all.extend(found);
            }
            let next = page["next_marker"].as_str().unwrap_or_default();
            if next.is_empty() || body["marker"] == next {
                return Ok(all);
            }
            body["marker"] = next.into();
        }
    }
}

fn text(value: &Value) -> Result<String, Failure> {
    let text = value.as_str().map(str::to_owned);
    text.ok_or_else(|| Failure::new("the service's answer names no key"))
}
