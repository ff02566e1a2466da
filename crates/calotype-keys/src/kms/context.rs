//! What a cipher text is bound to, beside its key: it opens in the context alone that it was made in.

use std::collections::BTreeMap;

use calotype_core::codes::KmsCode;
use calotype_core::{Error, Result};
use serde_json::Value;

/// The most characters of an encryption context.
const MAX_CONTEXT: usize = 8192;
/// The most bytes of additional authenticated data.
const MAX_ADDITIONAL: usize = 128;

/// The context of a cipher text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Context {
    /// None.
    #[default]
    None,
    /// `encryption_context`: pairs of texts, in one form however they came; or a plain text.
    Pairs(String),
    /// `additional_authenticated_data`: a plain text.
    Additional(String),
}

impl Context {
    /// Reads the two fields that a request may have for it. Clients give `encryption_context` as an object, or as a text,
    /// which may hold one. An empty one is none.
    ///
    /// # Errors
    /// KMS.0208.
    pub fn parse(pairs: Option<&Value>, additional: Option<&Value>) -> Result<Self> {
        let malformed = || Error::kms(KmsCode::KMS_0208);
        let additional = match additional {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.len() <= MAX_ADDITIONAL => Some(text.as_str()),
            Some(_) => return Err(malformed()),
        };
        let pairs = match pairs {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) if text.chars().count() <= MAX_CONTEXT => {
                match serde_json::from_str(text) {
                    Ok(Value::Object(object)) => canonical(&Value::Object(object))?,
                    _ => text.clone(),
                }
            }
            Some(object @ Value::Object(_)) => canonical(object)?,
            Some(_) => return Err(malformed()),
        };
        match (pairs.as_str(), additional.unwrap_or_default()) {
            ("", "") => Ok(Self::None),
            ("", text) => Ok(Self::Additional(text.to_owned())),
            (_, "") => Ok(Self::Pairs(pairs)),
            _ => Err(malformed()),
        }
    }

    /// The context as associated data: no two have the same.
    pub(super) fn append_to(&self, aad: &mut Vec<u8>) {
        let (kind, text) = match self {
            Self::None => (0, ""),
            Self::Pairs(text) => (1, text.as_str()),
            Self::Additional(text) => (2, text.as_str()),
        };
        aad.push(kind);
        aad.extend_from_slice(text.as_bytes());
    }
}

/// Pairs of texts, sorted; empty for none.
fn canonical(object: &Value) -> Result<String> {
    let malformed = || Error::kms(KmsCode::KMS_0208);
    let object = object.as_object().ok_or_else(malformed)?;
    let mut pairs = BTreeMap::new();
    for (name, value) in object {
        pairs.insert(name.as_str(), value.as_str().ok_or_else(malformed)?);
    }
    if pairs.is_empty() {
        return Ok(String::new());
    }
    let text = serde_json::to_string(&pairs).map_err(Error::internal)?;
    if text.chars().count() > MAX_CONTEXT {
        return Err(malformed());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pairs(value: &Value) -> Option<Context> {
        Context::parse(Some(value), None).ok()
    }

    #[test]
    fn the_same_pairs_are_one_context_in_whatever_form_and_order() {
        let one = pairs(&json!({"b": "2", "a": "1"})).unwrap();
        for same in [
            json!({"a": "1", "b": "2"}),
            json!(r#"{"b":"2","a":"1"}"#),
            json!(r#" { "a" : "1" , "b" : "2" } "#),
        ] {
            assert_eq!(pairs(&same), Some(one.clone()), "{same}");
        }
        for other in [
            json!({"a": "1"}),
            json!({"a": "1", "b": ""}),
            json!({"a1": "", "b": "2"}),
            json!("a=1,b=2"),
        ] {
            assert_ne!(pairs(&other), Some(one.clone()), "{other}");
        }
        for none in [json!({}), json!(""), json!("{}"), json!(null)] {
            assert_eq!(pairs(&none), Some(Context::None), "{none}");
        }
    }

    #[test]
    fn what_is_no_context_is_refused() {
        let long = "x".repeat(8192);
        for bad in [
            json!(1),
            json!([]),
            json!({"a": 1}),
            json!({"a": {"b": "c"}}),
            json!({ "a": long }),
            json!(format!("{long}x")),
        ] {
            assert_eq!(pairs(&bad), None);
        }
        let both = Context::parse(Some(&json!({"a": "b"})), Some(&json!("c")));
        assert!(both.is_err());
        let text = |length: usize| json!("x".repeat(length));
        assert!(Context::parse(None, Some(&text(128))).is_ok());
        assert!(Context::parse(None, Some(&text(129))).is_err());
        assert!(Context::parse(None, Some(&json!(1))).is_err());
    }

    #[test]
    fn no_two_contexts_are_bound_alike() {
        let bound = |context: &Context| {
            let mut aad = Vec::new();
            context.append_to(&mut aad);
            aad
        };
        let text = "x".to_owned();
        let all = [
            Context::None,
            Context::Pairs(text.clone()),
            Context::Additional(text),
            Context::Pairs(String::new()),
        ];
        for (at, one) in all.iter().enumerate() {
            for other in &all[at + 1..] {
                assert_ne!(bound(one), bound(other));
            }
        }
    }
}
