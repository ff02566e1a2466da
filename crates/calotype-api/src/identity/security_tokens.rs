//! Temporary access keys, as OTC's `OS-CREDENTIAL` has them. Clients find the path by putting `v3.0` in the place of
//! `v3` in the identity's endpoint.

use axum::Json;
use axum::extract::{FromRequestParts as _, Request, State};
use axum::response::IntoResponse;
use calotype_core::{Error, Result};
use calotype_identity::keystone;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::IdentityState;
use super::refusals::Refusals;
use super::request::json;
use crate::caller::Caller;
use crate::errors::Reply;

/// How many seconds a key lasts where none are asked for.
const DEFAULT_SECONDS: u64 = 900;

/// A field that is not known may be meant to narrow the key's rights (`policy`, `scope`): it is refused, as are agencies.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderBody {
    auth: Auth,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Auth {
    identity: Identity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    methods: Vec<String>,
    token: Option<TokenBody>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenBody {
    id: Option<SecretString>,
    duration_seconds: Option<Seconds>,
}

/// Huawei's own example sends a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

/// What is asked for.
struct Order {
    seconds: u64,
    /// A token in the body. Clients that have it in a header send an empty one.
    token: Option<SecretString>,
}

impl OrderBody {
    fn into_order(self) -> Result<Order> {
        let Identity { methods, token } = self.auth.identity;
        if methods != ["token"] {
            return Err(Error::invalid("Only the method token is supported."));
        }
        let (id, seconds) = token.map_or((None, None), |body| (body.id, body.duration_seconds));
        Ok(Order {
            seconds: match seconds {
                None => DEFAULT_SECONDS,
                Some(Seconds::Number(seconds)) => seconds,
                Some(Seconds::Text(text)) => text
                    .parse()
                    .map_err(|_| Error::invalid("duration_seconds is no number."))?,
            },
            token: id.filter(|id| !id.expose_secret().is_empty()),
        })
    }
}

/// Makes a temporary access key. Its secrets are shown this once. The caller's token may be in the body instead.
#[utoipa::path(post, path = "/identity/v3.0/OS-CREDENTIAL/securitytokens", tag = "Identity", operation_id = "createTemporaryAccessKey",
    security(("token" = []), ("signature" = [])),
    responses((status = 201, description = "The access key, with its security token and its end"), Refusals))]
pub(super) async fn create_security_token(
    State(state): State<IdentityState>,
    request: Request,
) -> Reply {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await;
    let order = json::<OrderBody>(body)
        .await
        .and_then(OrderBody::into_order);
    let call = match (caller, &order) {
        (Ok(Caller(call)), _) => call,
        // A credential in a header counts, good or bad, whatever the body has.
        (
            Err(_),
            Ok(Order {
                token: Some(token), ..
            }),
        ) if !carries_credential(&parts.headers) => {
            let session = state.identity.session(token).await?;
            Caller::by(session.principal.clone(), &parts)
        }
        (Err(refusal), _) => return Err(refusal),
    };
    let key = state
        .identity
        .create_temporary_key(&call, order?.seconds)
        .await?;
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    let document = keystone::temporary_credential(&key);
    Ok((StatusCode::CREATED, no_store, Json(document)).into_response())
}

fn carries_credential(headers: &HeaderMap) -> bool {
    headers.contains_key("x-auth-token") || headers.contains_key(header::AUTHORIZATION)
}
