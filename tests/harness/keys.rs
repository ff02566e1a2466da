//! Master keys, as tests make and use them.

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};

use crate::client::{Answer, Client, text, try_send};
use crate::engines::fresh_name;

/// Where a server's customers have their keys.
#[derive(Debug, Clone)]
pub(crate) struct Barbican {
    /// Where customers reach it.
    pub(crate) url: String,
    /// The id of the user that the service reads keys as.
    pub(crate) reader: String,
}

impl Client {
    /// A call of the KMS API in the caller's project.
    #[track_caller]
    pub fn kms(&self, call: &str, body: Value) -> Answer {
        assert!(
            self.barbican.is_none(),
            "keys are in Barbican: a test of the KMS API says `with_own_keys`"
        );
        self.post(&format!("/kms/v1.0/{}/kms/{call}", self.project()), body)
    }

    /// A GET of the KMS API in the caller's project.
    pub fn kms_get(&self, path: &str) -> Answer {
        self.get(&format!("/kms/v1.0/{}/kms/{path}", self.project()))
    }

    /// Makes a key that the service may use; the result is its id.
    #[track_caller]
    pub fn create_key(&self, alias: &str) -> String {
        if let Some(barbican) = &self.barbican {
            return self.create_secret(barbican, alias);
        }
        let made = self.kms("create-key", json!({"key_alias": alias}));
        text(&made.expect(200).json()["key_info"]["key_id"])
    }

    /// A master key in Barbican, as its customers make and share one.
    fn create_secret(&self, barbican: &Barbican, name: &str) -> String {
        let send = |method, url: &str, body: Value| {
            let request = self.http(method, url).json(&body);
            try_send(request).expect("an answer")
        };
        // Hexadecimal digits are letters of Base64 too: 43 of them and a sign are 32 bytes.
        let digits = hex::encode(Sha512::digest(fresh_name(name)));
        let made = send(
            Method::POST,
            &format!("{}/v1/secrets", barbican.url),
            json!({"name": name, "secret_type": "symmetric", "algorithm": "aes", "bit_length": 256,
                "payload": format!("{}=", &digits[..43]),
                "payload_content_type": "application/octet-stream",
                "payload_content_encoding": "base64"}),
        );
        let reference = text(&made.expect(201).json()["secret_ref"]);
        let id = reference.rsplit('/').next().expect("an id").to_owned();
        let readers = json!({"read": {"users": [barbican.reader], "project-access": true}});
        let acl = format!("{}/v1/secrets/{id}/acl", barbican.url);
        send(Method::PUT, &acl, readers).expect(200);
        id
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
