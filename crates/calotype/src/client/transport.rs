//! Sending one request, repeating it where that is safe, and reading errors.

use std::path::Path;
use std::time::Duration;

use calotype_core::ports::Entropy;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};
use serde_json::Value;

use crate::exit::{Exit, Failure};
use calotype_keys::SystemEntropy;

use crate::system::fresh_name;

/// A small request's time, answer and all. Uploads and downloads have none.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// How often and how patiently a request is repeated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryPolicy {
    /// Times that it is sent in all.
    pub(crate) attempts: u32,
    /// The wait after the first; it doubles from one to the next.
    pub(crate) first_wait: Duration,
    /// No wait is longer, whatever the server asks.
    pub(crate) longest_wait: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
        }
    }
}

impl RetryPolicy {
    /// The wait after the `attempt`th try: what the server asks, else a growing one, each with up to
    /// a quarter more, so that clients that failed together don't return together.
    pub(crate) fn wait(&self, attempt: u32, asked: Option<Duration>) -> Duration {
        let growing = self
            .first_wait
            .saturating_mul(1 << attempt.saturating_sub(1).min(10));
        let wait = asked.unwrap_or(growing).min(self.longest_wait);
        let mut byte = [0];
        SystemEntropy::new().fill(&mut byte);
        wait + wait.mul_f64(f64::from(byte[0]) / 1024.0)
    }
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<(Vec<u8>, &'static str)>,
    patient: bool,
}

impl Call {
    /// A request for `path`, which starts with a slash.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: HeaderMap::new(),
            body: None,
            patient: false,
        }
    }

    /// GET.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// POST of a JSON document, under an `Idempotency-Key` of its own.
    pub(crate) fn post(path: impl Into<String>, document: &Value) -> Self {
        let mut call = Self::new(Method::POST, path).json(document, "application/json");
        if let Ok(key) = fresh_name().parse() {
            call.headers.insert("idempotency-key", key);
        }
        call
    }

    /// As [`Call::post`], with PUT.
    pub(crate) fn put(path: impl Into<String>, document: &Value) -> Self {
        Self {
            method: Method::PUT,
            ..Self::post(path, document)
        }
    }

    /// Waiting for the answer for as long as it takes.
    pub(crate) fn patient(self) -> Self {
        Self {
            patient: true,
            ..self
        }
    }

    /// With a JSON document of a media type.
    pub(crate) fn json(mut self, document: &Value, media_type: &'static str) -> Self {
        self.body = Some((document.to_string().into_bytes(), media_type));
        self
    }

    /// Whether sending it twice is the same as once.
    fn repeatable(&self) -> bool {
        let safe = [Method::GET, Method::HEAD, Method::PUT, Method::DELETE];
        safe.contains(&self.method) || self.headers.contains_key("idempotency-key")
    }
}

/// Two clients: what is on this machine is reached without the environment's proxies.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    direct: reqwest::Client,
    proxied: reqwest::Client,
    pub(super) retry: RetryPolicy,
}

impl Transport {
    /// With further certificates to trust from `ca_file`.
    ///
    /// # Errors
    /// Where the file can't be read or holds no certificates.
    pub(crate) fn new(
        ca_file: Option<&Path>,
        verify: bool,
        retry: RetryPolicy,
    ) -> Result<Self, Failure> {
        let mut certificates = Vec::new();
        if let Some(path) = ca_file {
            let wrong = |error: String| Failure::usage(format!("{}: {error}", path.display()));
            let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|error| wrong(error.to_string()))?;
        }
        let builder = || {
            let builder = reqwest::Client::builder()
                .user_agent(concat!("calotype/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .http1_only()
                .connect_timeout(Duration::from_secs(10))
                .tls_danger_accept_invalid_certs(!verify);
            builder.tls_certs_merge(certificates.clone())
        };
        let build = |builder: reqwest::ClientBuilder| {
            builder.build().map_err(|error| Failure::new(chain(&error)))
        };
        Ok(Self {
            direct: build(builder().no_proxy())?,
            proxied: build(builder())?,
            retry,
        })
    }

    /// The client for `url`.
    pub(super) fn client(&self, url: &Url) -> &reqwest::Client {
        let loopback = match url.host_str() {
            Some("localhost") => true,
            Some(host) => host
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback()),
            None => false,
        };
        if loopback {
            &self.direct
        } else {
            &self.proxied
        }
    }

    /// Sends `call` to `base`, repeating it where that is safe; any status comes back.
    ///
    /// # Errors
    /// Where no answer came.
    pub(super) async fn send(
        &self,
        base: &str,
        call: &Call,
        token: Option<&str>,
    ) -> Result<Response, Failure> {
        let url = join(base, &call.path)?;
        let mut attempt = 1;
        loop {
            let mut request = self
                .client(&url)
                .request(call.method.clone(), url.clone())
                .header("accept", "application/json")
                .headers(call.headers.clone());
            if !call.patient {
                request = request.timeout(ANSWER_TIMEOUT);
            }
            if let Some(token) = token {
                request = request.header("x-auth-token", token);
            }
            if let Some((body, media_type)) = &call.body {
                request = request
                    .header("content-type", *media_type)
                    .body(body.clone());
            }
            let outcome = request.send().await;
            let again = match &outcome {
                Ok(response) => asks_to_wait(response.status()),
                Err(error) => error.is_connect() || error.is_request(),
            };
            if !again || !call.repeatable() || attempt >= self.retry.attempts {
                return outcome.map_err(|error| unreachable(&url, &error));
            }
            let asked = outcome
                .ok()
                .and_then(|response| retry_after(response.headers()));
            tokio::time::sleep(self.retry.wait(attempt, asked)).await;
            attempt += 1;
        }
    }
}

/// An absolute address from a base and a path.
///
/// # Errors
/// A usage failure where that is no http or https address.
pub(super) fn join(base: &str, path: &str) -> Result<Url, Failure> {
    let text = format!("{}{path}", base.trim_end_matches('/'));
    let url = Url::parse(&text)
        .map_err(|error| Failure::usage(format!("{base:?} is no address: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Failure::usage(format!(
            "{base:?} is no http or https address"
        )));
    }
    Ok(url)
}

/// What `Retry-After` asks for, in seconds; its date form is not used by image services.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
        .map(Duration::from_secs)
}

/// A failure of the connection.
pub(super) fn unreachable(url: &Url, error: &reqwest::Error) -> Failure {
    let place = url.origin().ascii_serialization();
    let exit = if error.is_timeout() {
        Exit::Timeout
    } else {
        Exit::Failure
    };
    Failure::new(format!("{place} did not answer: {}", chain(error))).with_exit(exit)
}

/// An error with its causes, without addresses: their queries can be long.
fn chain(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes.dedup();
    if causes.is_empty() {
        "the connection failed".to_owned()
    } else {
        causes.join(": ")
    }
}

/// Whether a service that answers so has done nothing, and wants to be asked again later.
pub(super) fn asks_to_wait(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    )
}

/// The response where it is a success.
///
/// # Errors
/// What the service said, in whichever of its envelopes.
pub(super) async fn success(response: Response) -> Result<Response, Failure> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let request_id = header("x-openstack-request-id").or_else(|| header("x-request-id"));
    let body = limited(response, 64 * 1024).await;
    let (code, message) = envelope(&body).unwrap_or((None, None));
    let message = message.unwrap_or_else(|| {
        format!("the service answered {status}")
            .trim_end()
            .to_owned()
    });
    Err(Failure {
        exit: Exit::of_status(status.as_u16()),
        code: code.or_else(|| Some(status.as_str().to_owned())),
        request_id,
        ..Failure::new(message)
    })
}

/// Code and message of an error's body: IMS' envelope, Keystone's, the native one.
fn envelope(body: &[u8]) -> Option<(Option<String>, Option<String>)> {
    let document: Value = serde_json::from_slice(body).ok()?;
    let text = |value: Option<&Value>| match value? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let inner = document
        .get("error")
        .filter(|inner| inner.is_object())
        .unwrap_or(&document);
    Some((
        text(inner.get("code")).or_else(|| text(inner.get("error_code"))),
        text(inner.get("message"))
            .or_else(|| text(inner.get("error_msg")))
            .or_else(|| text(inner.get("title"))),
    ))
}

async fn limited(mut response: Response, most: usize) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() >= most {
            body.truncate(most);
            break;
        }
    }
    body
}

/// The response's JSON document.
///
/// # Errors
/// Where it is none.
pub(super) async fn document(response: Response) -> Result<Value, Failure> {
    let url = response.url().path().to_owned();
    response
        .json()
        .await
        .map_err(|_| Failure::new(format!("{url}: the service's answer is no JSON document")))
}
