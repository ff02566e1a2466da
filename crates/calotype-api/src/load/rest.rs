//! What a client sends that is refused.
//!
//! A server that answers and closes while its client still sends makes the client's system throw the answer away
//! (RFC 9112, section 9.6): the client would see a broken connection, and not that the store is full. So the rest
//! of a refused body is read and thrown away, within bounds, before the answer goes out.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt as _;
use http::{HeaderMap, header};
use tokio::time::timeout;

/// How long a client that sends an image is listened to, and how long any client may be silent: nginx's `lingering_time`
/// and `lingering_timeout`.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(5);

/// Reads what a client sends that was refused before its body was looked at, and throws it away.
pub(crate) async fn throw_away(headers: &HeaderMap, body: Body) {
    if !headers.contains_key(header::EXPECT) && !http_body::Body::is_end_stream(&body) {
        read_off(&mut body.into_data_stream(), LONGEST).await;
    }
}

/// Reads a body to its end, for so long at the most.
pub(crate) async fn read_off(frames: &mut BodyDataStream, longest: Duration) {
    let reading = async { while let Ok(Some(Ok(_))) = timeout(SILENCE, frames.next()).await {} };
    // Who still sends then has its connection broken.
    let _ = timeout(longest, reading).await;
}
