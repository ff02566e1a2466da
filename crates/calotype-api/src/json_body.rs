//! Reading a JSON body: bounded in bytes and in time, before anything is parsed.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use calotype_core::codes::ImsCode;
use calotype_core::{Error, ErrorKind, Result};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::load::{full, read_off};
use crate::state::ApiState;

/// How long a whole body may take to arrive, in multiples of the time that a body may stand still.
const WHOLE_BODY: u32 = 2;

/// How long the rest of a body that is too large is read.
const REST: Duration = Duration::from_secs(5);

/// The whole body of a request, of at most `limit` bytes, within twice the time that a body may stand still: a
/// client that sends a byte now and then is not waited for.
///
/// # Errors
/// TooLarge; TimedOut; InvalidRequest where it breaks off.
pub(crate) async fn collect(mut body: Body, limit: usize, idle: Duration) -> Result<Bytes> {
    let known_too_large = http_body::Body::size_hint(&body).lower() > limit as u64;
    let collected = if known_too_large {
        Ok(None)
    } else {
        let whole = within(&mut body, limit, &LARGE);
        let late = |_| {
            Error::new(
                ErrorKind::TimedOut,
                "The request's body did not arrive in time.",
            )
        };
        tokio::time::timeout(idle * WHOLE_BODY, whole)
            .await
            .map_err(late)?
    };
    if let Some(bytes) = collected? {
        return Ok(bytes);
    }
    read_off(&mut body.into_data_stream(), REST).await;
    let message = format!("The request's body has at most {limit} bytes.");
    Err(Error::new(ErrorKind::TooLarge, message))
}

/// A body of at most `limit` bytes; none where it is longer, and then the rest of it is left.
async fn within(body: &mut Body, limit: usize, large: &Semaphore) -> Result<Option<Bytes>> {
    let mut body = Limited::new(body, limit);
    let (mut bytes, mut room) = (BytesMut::new(), Room::of(large));
    while let Some(frame) = body.frame().await {
        let data = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(error) if error.is::<LengthLimitError>() => return Ok(None),
            Err(error) => {
                let broken = Error::invalid("The request's body broke off.");
                return Err(broken.with_context(error));
            }
        };
        room.make(bytes.len() + data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok(Some(bytes.freeze()))
}

/// Bytes of a body that every request has room for.
const SMALL: usize = 64 << 10;

/// KiB that there are for the bytes beyond that, of all bodies that are being received.
static LARGE: Semaphore = Semaphore::const_new(256 << 10);

/// The room of a body: who has a connection, and no good credential yet, must not fill the memory.
struct Room<'a> {
    large: &'a Semaphore,
    taken: usize,
    permits: Vec<SemaphorePermit<'a>>,
}

impl<'a> Room<'a> {
    const fn of(large: &'a Semaphore) -> Self {
        Self {
            large,
            taken: 0,
            permits: Vec::new(),
        }
    }

    /// Makes room for so many bytes in all.
    fn make(&mut self, length: usize) -> Result<()> {
        let wanted = length.saturating_sub(SMALL).div_ceil(1 << 10);
        let more = wanted.saturating_sub(self.taken);
        if more == 0 {
            return Ok(());
        }
        // In steps, so that few places are kept.
        let more = more.max(SMALL >> 10);
        let count = u32::try_from(more).unwrap_or(u32::MAX);
        let permit = self.large.try_acquire_many(count);
        self.permits.push(permit.map_err(|_| full("bodies"))?);
        self.taken += more;
        Ok(())
    }
}

/// The whole body of an IMS request.
///
/// # Errors
/// As `collect` over [`ApiState::max_json_body`], with IMG.0001: on IMS paths that is status 400, as every code of
/// theirs.
pub async fn read_body(state: &ApiState, body: Body) -> Result<Bytes> {
    let collected = collect(body, state.max_json_body, state.body_idle_timeout).await;
    collected.map_err(|error| error.with_code(ImsCode::IMG_0001))
}

/// The body as a JSON object.
///
/// # Errors
/// IMG.0007 where it is empty, IMG.0001 where it is anything else.
pub fn json_object(body: &[u8]) -> Result<Map<String, Value>> {
    match json_value(body)? {
        Value::Object(object) => Ok(object),
        _ => Err(malformed("The request's body must be a JSON object.")),
    }
}

/// The body as JSON of any kind.
///
/// # Errors
/// IMG.0007 where it is empty, IMG.0001 where it is none.
pub fn json_value(body: &[u8]) -> Result<Value> {
    if body.trim_ascii().is_empty() {
        return Err(Error::ims(ImsCode::IMG_0007));
    }
    serde_json::from_slice(body).map_err(|_| malformed("The request's body is not JSON."))
}

/// A field that is a text, absent, or null, which means absent.
///
/// # Errors
/// IMG.0001 where it is anything else.
pub fn optional_text(object: &mut Map<String, Value>, name: &str) -> Result<Option<String>> {
    match object.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(malformed(&format!("The field '{name}' must be a string."))),
    }
}

/// A field that is a boolean, absent, or null, which means absent.
///
/// # Errors
/// IMG.0001 where it is anything else.
pub fn optional_bool(object: &mut Map<String, Value>, name: &str) -> Result<Option<bool>> {
    match object.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(yes)) => Ok(Some(yes)),
        Some(_) => Err(malformed(&format!("The field '{name}' must be a boolean."))),
    }
}

/// A field that is a list, absent, or null, which means absent.
///
/// # Errors
/// IMG.0001 where it is anything else.
pub fn optional_list(object: &mut Map<String, Value>, name: &str) -> Result<Option<Vec<Value>>> {
    match object.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list)),
        Some(_) => Err(malformed(&format!("The field '{name}' must be a list."))),
    }
}

/// A request whose form is wrong (IMG.0001).
pub fn malformed(message: &str) -> Error {
    Error::invalid(message).with_code(ImsCode::IMG_0001)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[tokio::test]
    async fn a_body_is_waited_for_and_taken_only_within_its_bounds() {
        use futures_util::{StreamExt as _, stream};
        let idle = Duration::from_millis(1);
        let chunk = || Ok::<_, std::io::Error>(Bytes::from_static(b"ab"));
        let kind = async |body: Body| {
            let refused = collect(body, 3, idle).await;
            refused.unwrap_err().kind()
        };
        let stalled = Body::from_stream(stream::iter([chunk()]).chain(stream::pending()));
        assert_eq!(kind(stalled).await, ErrorKind::TimedOut);
        let broken = stream::iter([chunk(), Err(std::io::Error::other("reset"))]);
        let broken = Body::from_stream(broken);
        assert_eq!(kind(broken).await, ErrorKind::InvalidRequest);
        let long = Body::from_stream(stream::iter([chunk(), chunk()]));
        assert_eq!(kind(long).await, ErrorKind::TooLarge);
        assert_eq!(kind(Body::from("abcd")).await, ErrorKind::TooLarge);
        assert_eq!(collect(Body::from("abc"), 3, idle).await.unwrap(), "abc");
    }

    #[tokio::test]
    async fn large_bodies_share_a_room_and_small_ones_need_none_of_it() {
        use futures_util::{StreamExt as _, stream};
        let large = Semaphore::new(128);
        let of = |bytes: usize| Bytes::from(vec![b'a'; bytes]);
        let whole = async |bytes: usize| within(&mut Body::from(of(bytes)), MIB, &large).await;
        let piece = stream::iter([Ok::<_, std::io::Error>(of(SMALL + 1))]);
        let mut held = Body::from_stream(piece.chain(stream::pending()));
        let mut receiving = Box::pin(within(&mut held, MIB, &large));
        assert!(futures_util::poll!(&mut receiving).is_pending());
        assert_eq!(large.available_permits(), 64, "it has a step of it");
        assert!(whole(2 * SMALL).await.is_ok());
        let refused = whole(2 * SMALL + 1).await.unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::Unavailable { .. }));
        assert!(whole(SMALL).await.is_ok());
        assert_eq!(large.available_permits(), 64, "what ended gave it back");
        drop(receiving);
        assert!(whole(3 * SMALL).await.is_ok());
        assert!(whole(3 * SMALL + 1).await.is_err());
    }

    #[test]
    fn only_an_object_is_accepted_and_an_empty_body_has_its_own_code() {
        let code = |body: &str| json_object(body.as_bytes()).unwrap_err().code();
        assert_eq!(code(""), Some(ImsCode::IMG_0007));
        assert_eq!(code(" \r\n"), Some(ImsCode::IMG_0007));
        for bad in [
            "null",
            "[]",
            "1",
            "\"a\"",
            "{",
            "{}x",
            "{'a':1}",
            &"[".repeat(5000),
        ] {
            assert_eq!(code(bad), Some(ImsCode::IMG_0001), "{bad}");
        }
    }

    #[test]
    fn a_field_has_its_type_or_is_absent() {
        let mut object = json_object(br#"{"a":"x","b":null,"c":1,"d":["x"],"e":true}"#).unwrap();
        assert_eq!(
            optional_text(&mut object, "a").unwrap().as_deref(),
            Some("x")
        );
        assert_eq!(optional_text(&mut object, "b").unwrap(), None);
        assert_eq!(optional_text(&mut object, "z").unwrap(), None);
        for name in ["c", "d", "e"] {
            let refused = optional_text(&mut object, name).unwrap_err();
            assert_eq!(refused.code(), Some(ImsCode::IMG_0001), "{name}");
        }
        let text = br#"{"a":true,"b":[1],"c":null,"d":"true","e":{}}"#;
        let mut object = json_object(text).unwrap();
        assert_eq!(optional_bool(&mut object, "a").unwrap(), Some(true));
        assert_eq!(optional_list(&mut object, "b").unwrap().unwrap().len(), 1);
        assert_eq!(optional_bool(&mut object, "c").unwrap(), None);
        assert!(optional_bool(&mut object, "d").is_err());
        assert!(optional_list(&mut object, "e").is_err());
    }
}
