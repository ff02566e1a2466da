//! What the KMS' answers mean. Codes: OTC's "Error Codes" of the Key Management Service; the flat envelope is that of the
//! gateway in front of it.

use std::time::Duration;

use calotype_core::codes::ImsCode;
use calotype_core::keys::KeyFault;
use calotype_core::{Error, ErrorKind};
use serde_json::Value;

use crate::remote::{unavailable, unusable};
use calotype_remote::Answer;

/// When a retry makes sense where a busy KMS did not say.
const BUSY: Duration = Duration::from_secs(5);

/// With whose credential the KMS was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Service,
    Caller,
}

/// What an answer means.
#[derive(Debug)]
pub(super) enum Verdict {
    Done,
    /// The credential is not good any more.
    Stale,
    Refused(KeyFault),
}

pub(super) fn judge(answer: &Answer, asked: Asked) -> Verdict {
    if answer.status == 200 {
        return Verdict::Done;
    }
    let code = code_of(&answer.body);
    let code = code.as_str();
    if answer.status == 429 || is_throttling(code) {
        let retry_after = answer.retry_after().unwrap_or(BUSY);
        return Verdict::Refused(KeyFault::Throttled { retry_after });
    }
    let said = || {
        format!(
            "the KMS answered {} {code} ({})",
            answer.status,
            answer.request_id()
        )
    };
    Verdict::Refused(match (answer.status, code) {
        (401, _) | (403, "KMS.0301" | "KMS.0302" | "KMS.0303") => return Verdict::Stale,
        (404, "KMS.0207") | (400, "KMS.0205") => KeyFault::Missing,
        (400, "KMS.0209" | "KMS.0210" | "KMS.1301") => KeyFault::NotEnabled,
        // A key of another kind: it can't do what is asked of it.
        (400, "KMS.0325" | "KMS.0335" | "KMS.0341" | "KMS.2105") => KeyFault::NotEnabled,
        (403, "KMS.0304") => Error::ims(ImsCode::IMG_0100).into(),
        // The account is frozen, or the service's project is not what its credential is for: the operator's matter.
        (403, "KMS.0320" | "KMS.0321" | "KMS.0328") if asked == Asked::Service => {
            tracing::error!(
                kms.code = code,
                kms.request_id = answer.request_id(),
                "the KMS refuses the service"
            );
            unusable(said()).into()
        }
        (403, _) if asked == Asked::Caller || code.starts_with("KMS.") => KeyFault::Forbidden,
        (400, "KMS.2201" | "KMS.2203" | "KMS.2204") => Error::damaged(said()).into(),
        // A fault inside that the KMS reports as 400.
        (400, "KMS.0105") => unusable(said()).into(),
        (400, code) if code.starts_with("KMS.") => Error::internal(said()).into(),
        // Not the KMS' own words: a gateway, or an address where there is no KMS.
        _ => unusable(said()).into(),
    })
}

/// What a stale credential that can't be renewed means.
pub(super) fn stale(answer: &Answer, asked: Asked) -> KeyFault {
    match asked {
        Asked::Caller => Error::new(
            ErrorKind::Unauthenticated,
            "The key service does not take the request's token.",
        )
        .into(),
        Asked::Service => {
            tracing::error!(
                http.status = answer.status,
                kms.request_id = answer.request_id(),
                "the KMS does not take the service's credential"
            );
            unavailable(BUSY, "the KMS does not take the service's credential").into()
        }
    }
}

fn is_throttling(code: &str) -> bool {
    let code = code.to_ascii_lowercase();
    code == "apigw.0308"
        || [
            "throttled",
            "throttling",
            "toomanyrequests",
            "limitexceeded",
        ]
        .iter()
        .any(|word| code.ends_with(word))
}

fn code_of(body: &[u8]) -> String {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let nested = document.pointer("/error/error_code");
    let code = nested.or_else(|| document.get("error_code"));
    let code = code.and_then(Value::as_str).unwrap_or_default();
    // It goes into messages and the log.
    code.chars()
        .filter(char::is_ascii_graphic)
        .take(32)
        .collect()
}
