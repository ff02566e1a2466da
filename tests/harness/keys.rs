//! Master keys, as tests make and use them.

use serde_json::{Value, json};

use crate::client::{Answer, Client, text};

impl Client {
    /// A call of the KMS API in the caller's project.
    pub fn kms(&self, call: &str, body: Value) -> Answer {
        self.post(&format!("/kms/v1.0/{}/kms/{call}", self.project()), body)
    }

    /// A GET of the KMS API in the caller's project.
    pub fn kms_get(&self, path: &str) -> Answer {
        self.get(&format!("/kms/v1.0/{}/kms/{path}", self.project()))
    }

    /// Makes a key; the result is its id.
    #[track_caller]
    pub fn create_key(&self, alias: &str) -> String {
        let made = self.kms("create-key", json!({"key_alias": alias}));
        text(&made.expect(200).json()["key_info"]["key_id"])
    }

    /// A call about one key that must succeed.
    #[track_caller]
    pub fn key_call(&self, call: &str, key: &str) -> Value {
        self.kms(call, json!({"key_id": key})).expect(200).json()
    }

    /// A key's document.
    #[track_caller]
    pub fn describe_key(&self, key: &str) -> Value {
        self.key_call("describe-key", key)["key_info"].clone()
    }
}

impl Answer {
    /// The refusal in the KMS API's envelope: this status and this code, with a message.
    #[track_caller]
    pub fn kms_refused(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{code}: {self}");
        let body = self.json();
        assert_eq!(body["error"]["error_code"], code, "{self}");
        let message = body["error"]["error_msg"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "no message: {self}");
        assert!(!self.header("x-request-id").is_empty());
    }
}
