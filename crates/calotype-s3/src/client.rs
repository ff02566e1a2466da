//! How a store is reached, and as whom.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use calotype_core::ports::Clock;
use calotype_core::{Error, Result};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::{ClientOptions, RetryConfig};
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use zeroize::Zeroizing;

use crate::sign::Signer;

/// How the store is reached, and as whom.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// Its URL, without a bucket.
    pub endpoint: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The access key that requests are signed with.
    pub access_key: AccessKey,
    /// Whether a bucket is a part of the path (`host/bucket/key`) or of the host's name (`bucket.host/key`).
    pub path_style: bool,
    /// Whether the endpoint may be plain HTTP.
    pub allow_http: bool,
    /// How connections are made.
    pub connection: Connection,
}

/// An access key.
#[derive(Clone)]
pub struct AccessKey {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: Zeroizing<String>,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// How connections are made.
#[derive(Debug, Clone)]
pub struct Connection {
    /// A file of certificates (PEM) that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// A proxy's URL. None: directly.
    pub proxy: Option<String>,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long an answer may stand still.
    pub idle_timeout: Duration,
    /// For how long a request is tried again.
    pub time_limit: Duration,
}

/// A store, by its address and an access key to it.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Url,
    options: S3Options,
    http: Http,
}

impl Client {
    /// Nothing is asked of the store yet. Requests are signed with the time of `clock`.
    ///
    /// # Errors
    /// InvalidRequest where the options can't work; says why.
    pub fn new(options: S3Options, clock: Arc<dyn Clock>) -> Result<Self> {
        let endpoint: Url = options
            .endpoint
            .parse()
            .map_err(|error| Error::invalid(format!("the endpoint is no URL: {error}")))?;
        match endpoint.scheme() {
            "https" => {}
            "http" if options.allow_http => {}
            "http" => {
                return Err(Error::invalid(
                    "the endpoint is plain HTTP, which allow_http permits",
                ));
            }
            _ => return Err(Error::invalid("the endpoint is no https:// URL")),
        }
        if endpoint.host_str().is_none() || endpoint.query().is_some() {
            return Err(Error::invalid("the endpoint is no URL of a host"));
        }
        let connection = &options.connection;
        let idle = connection.idle_timeout;
        let http = Http {
            answers: client(connection, idle)?,
            bodies: client(connection, idle.max(connection.time_limit))?,
            signer: Signer {
                access_key: options.access_key.clone(),
                region: options.region.clone(),
                clock,
            },
        };
        let client = Self {
            endpoint,
            options,
            http,
        };
        client.bucket("bucket", RetryConfig::default())?;
        Ok(client)
    }

    /// A bucket, whose requests are tried again as `retry` says.
    ///
    /// # Errors
    /// InvalidRequest where the name can't be one of the endpoint's.
    pub fn bucket(&self, name: &str, retry: RetryConfig) -> Result<AmazonS3> {
        let endpoint = self.host_of(name)?;
        AmazonS3Builder::new()
            .with_endpoint(endpoint.as_str().trim_end_matches('/'))
            .with_region(&self.options.region)
            .with_bucket_name(name)
            .with_access_key_id(&self.options.access_key.id)
            .with_secret_access_key(self.options.access_key.secret.as_str())
            .with_virtual_hosted_style_request(!self.options.path_style)
            .with_allow_http(self.options.allow_http)
            // TLS keeps the bytes as they were sent; without it the signature has to.
            .with_unsigned_payload(self.endpoint.scheme() == "https")
            // One request for each object: not every store deletes many at once.
            .with_disable_bulk_delete(true)
            .with_retry(retry)
            .with_http_connector(self.http.clone())
            .build()
            .map_err(|error| Error::invalid(format!("the store can't be spoken to: {error}")))
    }

    /// The endpoint, by the host that the bucket is a part of where it is one.
    fn host_of(&self, name: &str) -> Result<Url> {
        let mut endpoint = self.endpoint.clone();
        if !self.options.path_style {
            let host = endpoint.host_str().unwrap_or_default();
            let host = format!("{name}.{host}");
            endpoint.set_host(Some(&host)).map_err(|error| {
                Error::invalid(format!("the endpoint takes no bucket: {error}"))
            })?;
        }
        Ok(endpoint)
    }

    /// The URL of a bucket itself, without a slash at its end where it is a part of the path.
    pub(crate) fn url_of(&self, name: &str) -> Result<Url> {
        let mut url = self.host_of(name)?;
        if self.options.path_style {
            let path = format!("{}/{name}", url.path().trim_end_matches('/'));
            url.set_path(&path);
        }
        Ok(url)
    }

    /// For how long a request is tried again.
    pub fn time_limit(&self) -> Duration {
        self.options.connection.time_limit
    }

    /// How requests go out.
    pub(crate) const fn http(&self) -> &Http {
        &self.http
    }
}

/// Gives the library the clients that the options make, and signs what it sends with them. How long an answer may stand still
/// counts from the request's first byte on: one with a body needs the time to send that.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    answers: reqwest::Client,
    bodies: reqwest::Client,
    signer: Signer,
}

impl Http {
    /// Asks for something that the library has no call for.
    pub(crate) async fn get(&self, url: Url) -> reqwest::Result<reqwest::Response> {
        let mut headers = HeaderMap::new();
        self.signer.sign(&Method::GET, &url, &mut headers);
        self.answers.get(url).headers(headers).send().await
    }
}

#[async_trait::async_trait]
impl HttpService for Http {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let url = Url::parse(&request.uri().to_string())
            .map_err(|error| HttpError::new(HttpErrorKind::Request, error))?;
        let method = request.method().clone();
        self.signer.sign(&method, &url, request.headers_mut());
        match *request.method() {
            Method::PUT | Method::POST => self.bodies.call(request).await,
            _ => self.answers.call(request).await,
        }
    }
}

impl HttpConnector for Http {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

fn client(connection: &Connection, idle: Duration) -> Result<reqwest::Client> {
    calotype_remote::client(
        connection.ca_file.as_deref(),
        connection.proxy.as_deref(),
        connection.connect_timeout,
        |builder| builder.read_timeout(idle),
    )
}
