//! One request over HTTP and its answer, and nothing more.
//!
//! # Guarantees
//! No redirect is followed: it would take credentials elsewhere. No proxy is taken from the environment. Certificates
//! are verified, against the system's authorities and those of the configured file. An answer is cut off at the
//! request's limit. The buffers of bodies are erased when dropped. What the HTTP library has of an answer's body is erased
//! once the library has given it up, which is when its connection reads on or ends: after [`IDLE`] at the latest. What the
//! TLS library copies is out of reach.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};
use reqwest::header::{DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{ClientBuilder, Method, Url};
use tokio::runtime::Handle;
use zeroize::{Zeroize as _, Zeroizing};

/// The largest answer that is read, in bytes.
pub const BODY_LIMIT: usize = 64 * 1024;

/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(10);

/// How often it is tried to erase what the HTTP library still has.
const ERASE: Duration = Duration::from_millis(500);

/// After how many attempts that is given up: a connection that is used without end reads on long before.
const ATTEMPTS: u32 = 600;

/// How a service elsewhere is reached.
#[derive(Debug, Clone)]
pub struct Connection {
    /// A file of certificates (PEM) that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// A proxy's URL. None: directly.
    pub proxy: Option<String>,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long one attempt may take, from the connection to the answer's last byte.
    pub attempt_timeout: Duration,
    /// How long all attempts together may take, with the waits between them.
    pub time_limit: Duration,
    /// How often a request is sent at most.
    pub attempts: u32,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            ca_file: None,
            proxy: None,
            connect_timeout: Duration::from_secs(2),
            attempt_timeout: Duration::from_secs(5),
            time_limit: Duration::from_secs(15),
            attempts: 4,
        }
    }
}

/// A request. It can be sent again.
#[derive(Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Where it goes.
    pub url: Url,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Option<Bytes>,
    /// The largest answer, in bytes.
    pub limit: usize,
}

impl Request {
    /// GET.
    pub fn get(url: Url) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: None,
            limit: BODY_LIMIT,
        }
    }

    /// POST of a JSON text.
    pub fn post(url: Url, json: Bytes) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(
            reqwest::header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        Self {
            method: Method::POST,
            url,
            headers,
            body: Some(json),
            limit: BODY_LIMIT,
        }
    }

    /// With a header that holds a credential.
    ///
    /// # Errors
    /// Unauthenticated where the text can't stand in a header.
    pub fn secret(mut self, name: &'static str, text: &str) -> Result<Self> {
        let mut value = HeaderValue::from_str(text).map_err(|_| {
            Error::new(
                calotype_core::ErrorKind::Unauthenticated,
                "The credential has characters that no header may have.",
            )
        })?;
        value.set_sensitive(true);
        self.headers.insert(HeaderName::from_static(name), value);
        Ok(self)
    }

    /// With a header.
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
        self
    }
}

/// An answer, whatever its status.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, whole.
    pub body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// What `Retry-After` asks for, where it is a number of seconds.
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?;
        text.trim().parse().ok().map(Duration::from_secs)
    }

    /// The other side's time when it answered.
    pub fn date(&self) -> Option<Timestamp> {
        let text = self.headers.get(DATE)?.to_str().ok()?;
        Timestamp::parse_http_date(text)
    }

    /// The id under which the other side knows the request, for the log.
    pub fn request_id(&self) -> &str {
        ["x-request-id", "x-openstack-request-id"]
            .iter()
            .find_map(|name| self.headers.get(*name)?.to_str().ok())
            .filter(|id| id.len() <= 128)
            .unwrap_or("-")
    }
}

/// Why there is no answer. The texts hold no address and nothing of a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// More than the request's limit came.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// There is no connection, or it ended early.
    #[error("the connection failed: {0}")]
    Connection(String),
}

/// What carries requests; tests have one that does as it is told.
#[async_trait::async_trait]
pub trait Transport: Send + Sync {
    /// Sends a request once.
    async fn send(&self, request: Request) -> std::result::Result<Answer, Trouble>;
}

/// HTTP/1.1, with TLS where the address says so.
pub struct Http(reqwest::Client);

impl Http {
    /// A client that is connected to nothing yet.
    ///
    /// # Errors
    /// InvalidRequest where the file of certificates or the proxy is none.
    pub fn new(connection: &Connection) -> Result<Self> {
        let client = client(
            connection.ca_file.as_deref(),
            connection.proxy.as_deref(),
            connection.connect_timeout,
            |builder| builder.pool_idle_timeout(IDLE),
        );
        Ok(Self(client?))
    }
}

/// An HTTP/1.1 client that takes no redirect, no proxy but this one, and no certificate but those of the system's authorities
/// and of a file (PEM). It is connected to nothing yet.
///
/// # Errors
/// InvalidRequest where the file of certificates or the proxy is none.
pub fn client(
    ca_file: Option<&Path>,
    proxy: Option<&str>,
    connect_timeout: Duration,
    also: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("calotype/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .connect_timeout(connect_timeout);
    if let Some(path) = ca_file {
        let wrong = |error: String| Error::invalid(format!("{}: {error}", path.display()));
        let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let certificates =
            reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| wrong(causes(&error)))?;
        if certificates.is_empty() {
            return Err(wrong("holds no certificate".to_owned()));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    if let Some(proxy) = proxy {
        let proxy = reqwest::Proxy::all(proxy)
            .map_err(|error| Error::invalid(format!("the proxy: {}", causes(&error))))?;
        builder = builder.proxy(proxy);
    }
    also(builder)
        .build()
        .map_err(|error| Error::invalid(format!("the HTTP client: {}", causes(&error))))
}

#[async_trait::async_trait]
impl Transport for Http {
    async fn send(&self, request: Request) -> std::result::Result<Answer, Trouble> {
        let broken = |error: reqwest::Error| Trouble::Connection(causes(&error));
        let mut building = self
            .0
            .request(request.method, request.url)
            .headers(request.headers);
        if let Some(body) = request.body {
            building = building.body(body);
        }
        let mut response = building.send().await.map_err(broken)?;
        // In one buffer of its full size: one that grows leaves copies behind.
        let expected = response.content_length().unwrap_or(request.limit as u64);
        let Some(room) = usize::try_from(expected)
            .ok()
            .filter(|room| *room <= request.limit)
        else {
            return Err(Trouble::TooLarge(request.limit));
        };
        let mut body = Zeroizing::new(Vec::with_capacity(room));
        let mut shared = Shared::default();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if chunk.len() > room - body.len() {
                return Err(Trouble::TooLarge(request.limit));
            }
            body.extend_from_slice(&chunk);
            shared.0.push(chunk);
        }
        Ok(Answer {
            status: response.status().as_u16(),
            headers: std::mem::take(response.headers_mut()),
            body,
        })
    }
}

/// Pieces of an answer whose memory the HTTP library has too. They are erased once it has given them up, also where the
/// answer is not read to its end.
#[derive(Default)]
struct Shared(Vec<Bytes>);

impl Drop for Shared {
    fn drop(&mut self) {
        let pieces = std::mem::take(&mut self.0);
        let left = erase(pieces);
        // Where the runtime is ending, so is the process.
        if !left.is_empty()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(erase_in_time(left));
        }
    }
}

/// Erases the pieces that nobody else has; returns the others.
fn erase(pieces: Vec<Bytes>) -> Vec<Bytes> {
    let erased = |piece: Bytes| match piece.try_into_mut() {
        Ok(mut piece) => {
            piece.zeroize();
            None
        }
        Err(piece) => Some(piece),
    };
    pieces.into_iter().filter_map(erased).collect()
}

async fn erase_in_time(mut pieces: Vec<Bytes>) {
    for _ in 0..ATTEMPTS {
        tokio::time::sleep(ERASE).await;
        pieces = erase(pieces);
        if pieces.is_empty() {
            return;
        }
    }
}

/// An error's causes without its address, whose path and query are nobody's business in a log.
fn causes(error: &reqwest::Error) -> String {
    let mut texts = Vec::new();
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(cause) = next {
        texts.push(cause.to_string());
        next = cause.source();
    }
    texts.dedup();
    if texts.is_empty() {
        "it ended early".to_owned()
    } else {
        texts.join(": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    #[tokio::test(start_paused = true)]
    async fn what_another_has_too_is_erased_when_that_one_is_done() {
        let mut whole = BytesMut::from(&b"secret, and more"[..]);
        let piece = whole.split_to(6).freeze();
        let left = erase(vec![piece]);
        assert_eq!(left, [Bytes::from_static(b"secret")]);
        let erasing = tokio::spawn(erase_in_time(left));
        tokio::time::sleep(2 * ERASE).await;
        assert!(!erasing.is_finished(), "the other still has it");
        drop(whole);
        tokio::time::sleep(2 * ERASE).await;
        assert!(erasing.is_finished());
    }
}
