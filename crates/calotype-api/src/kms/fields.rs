//! The fields of a request's body. Clients send numbers as texts and as numbers, and an empty text for nothing.

use axum::body::Body;
use bytes::Bytes;
use calotype_core::access::Principal;
use calotype_core::codes::KmsCode;
use calotype_core::ports::Window;
use calotype_core::{Error, ErrorKind, Result};
use calotype_keys::kms::{Context, KeyRef};
use serde_json::{Map, Value};

use super::{DEFAULT_LIMIT, KmsState, MAX_LIMIT};
use crate::errors::Failure;
use crate::idempotency::{IdempotencyKey, Slot};
use crate::json_body::collect;

/// The largest body, in bytes.
const BODY_LIMIT: usize = 64 << 10;
/// How long a client's own number of a request is, in bytes.
const SEQUENCE_LEN: usize = 36;

/// A request's body.
pub(super) struct Fields {
    object: Map<String, Value>,
    bytes: Bytes,
    key: IdempotencyKey,
}

impl Fields {
    /// Reads a body. An empty one has no fields.
    ///
    /// # Errors
    /// KMS.0203 where it is too long, KMS.0202 where it is not a JSON object.
    pub(super) async fn read(
        state: &KmsState,
        key: Result<IdempotencyKey, Failure>,
        body: Body,
    ) -> Result<Self, Failure> {
        let key = key?;
        let bytes = collect(body, BODY_LIMIT, state.body_idle_timeout).await;
        let bytes = bytes.map_err(|error| match error.kind() {
            ErrorKind::TooLarge => Error::kms(KmsCode::KMS_0203),
            _ => error.with_kms_code(KmsCode::KMS_0214),
        })?;
        let object = if bytes.trim_ascii().is_empty() {
            Map::new()
        } else {
            match serde_json::from_slice(&bytes) {
                Ok(Value::Object(object)) => object,
                _ => return Err(Error::kms(KmsCode::KMS_0202).into()),
            }
        };
        Ok(Self { object, bytes, key })
    }

    /// Where the answer to this request is kept, if the client wants it to be.
    pub(super) fn slot(&self, principal: &Principal) -> Option<Slot> {
        self.key.slot_of(principal, &self.bytes)
    }

    /// The client's own number of the request.
    ///
    /// # Errors
    /// KMS.0206.
    pub(super) fn sequence(&self) -> Result<Option<String>> {
        let sequence = self.text("sequence", KmsCode::KMS_0206)?;
        let sequence = sequence.filter(|text| !text.is_empty());
        if sequence.is_some_and(|text| text.len() != SEQUENCE_LEN || text.contains('\0')) {
            return Err(Error::kms(KmsCode::KMS_0206));
        }
        Ok(sequence.map(str::to_owned))
    }

    /// A field as it came; none where it is null.
    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// A text, if it is there.
    ///
    /// # Errors
    /// `code` where it is something else.
    pub(super) fn text(&self, name: &str, code: KmsCode) -> Result<Option<&str>> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Error::kms(code)),
        }
    }

    /// A text that is not empty, if there is one.
    ///
    /// # Errors
    /// As [`Fields::text`].
    pub(super) fn word(&self, name: &str, code: KmsCode) -> Result<Option<&str>> {
        Ok(self.text(name, code)?.filter(|text| !text.is_empty()))
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// KMS.0204 where it is not, `code` where it is something else.
    pub(super) fn required(&self, name: &str, code: KmsCode) -> Result<&str> {
        let text = self.text(name, code)?;
        text.ok_or_else(|| missing(name))
    }

    /// A whole number, as a number or as a text of digits; none where it is absent or an empty text.
    ///
    /// # Errors
    /// `code` where it is something else.
    pub(super) fn number(&self, name: &str, code: KmsCode) -> Result<Option<u64>> {
        let malformed = || Error::kms(code);
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => {
                let digits = text.bytes().all(|b| b.is_ascii_digit());
                let number = text.parse().ok().filter(|_| digits);
                number.map(Some).ok_or_else(malformed)
            }
            Some(Value::Number(number)) => number.as_u64().map(Some).ok_or_else(malformed),
            Some(_) => Err(malformed()),
        }
    }

    /// A list, if there is one.
    ///
    /// # Errors
    /// `code` where it is something else.
    pub(super) fn list(&self, name: &str, code: KmsCode) -> Result<Option<&[Value]>> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(_) => Err(Error::kms(code)),
        }
    }

    /// The key that the request is about, by its id alone.
    ///
    /// # Errors
    /// KMS.0204, KMS.0205.
    pub(super) fn key_id(&self) -> Result<KeyRef> {
        KeyRef::parse_id(self.required("key_id", KmsCode::KMS_0205)?)
    }

    /// The key that the request is about, by its id or its alias.
    ///
    /// # Errors
    /// KMS.0204, KMS.0205.
    pub(super) fn key(&self) -> Result<KeyRef> {
        KeyRef::parse(self.required("key_id", KmsCode::KMS_0205)?)
    }

    /// What a cipher text is bound to.
    ///
    /// # Errors
    /// KMS.0208.
    pub(super) fn context(&self) -> Result<Context> {
        Context::parse(
            self.value("encryption_context"),
            self.value("additional_authenticated_data"),
        )
    }

    /// Which part of a list is asked for. The marker is how many entries come before it.
    ///
    /// # Errors
    /// KMS.1601, KMS.1602.
    pub(super) fn window(&self) -> Result<Window> {
        let limit = self.number("limit", KmsCode::KMS_1601)?;
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Error::kms(KmsCode::KMS_1601));
        }
        let offset = self.number("marker", KmsCode::KMS_1602)?.unwrap_or(0);
        Ok(Window { offset, limit })
    }
}

pub(super) fn missing(name: &str) -> Error {
    let message = format!("The field {name} is missing.");
    Error::invalid(message).with_kms_code(KmsCode::KMS_0204)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn number(value: &Value) -> Result<Option<u64>, Option<KmsCode>> {
        let Value::Object(object) = json!({ "n": value }) else {
            panic!("an object");
        };
        let fields = Fields {
            object,
            bytes: Bytes::new(),
            key: IdempotencyKey::default(),
        };
        let number = fields.number("n", KmsCode::KMS_1601);
        number.map_err(|error| error.kms_code())
    }

    #[test]
    fn a_number_is_digits_in_a_text_or_a_whole_number() {
        for (value, wanted) in [
            (json!("7"), Some(7)),
            (json!(7), Some(7)),
            (json!(0), Some(0)),
            (json!("0010"), Some(10)),
            (json!(""), None),
            (json!(null), None),
        ] {
            assert_eq!(number(&value), Ok(wanted), "{value}");
        }
        for bad in [
            json!("+7"),
            json!("-1"),
            json!(-1),
            json!(7.5),
            json!("7.0"),
            json!(" 7"),
            json!("x"),
            json!(true),
            json!([7]),
            json!("99999999999999999999"),
        ] {
            assert_eq!(number(&bad), Err(Some(KmsCode::KMS_1601)), "{bad}");
        }
    }
}
