//! What every handler can reach.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use calotype_core::Result;
use calotype_core::access::Principal;
use calotype_core::app::Service;
use calotype_identity::Standing;
use http::request::Parts;

use crate::load::Admission;

/// Turns a request's credential into a principal.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// Who is calling.
    ///
    /// `body` yields the request's whole body where the credential signs it. It is asked for at most once.
    ///
    /// # Errors
    /// Unauthenticated; Unavailable where the identity service is away.
    async fn authenticate(&self, parts: &Parts, body: &mut dyn SignedBody) -> Result<Principal>;

    /// How the identity stands.
    ///
    /// # Errors
    /// Unavailable where nobody can be authenticated.
    async fn standing(&self) -> Result<Standing> {
        Ok(Standing::Whole)
    }

    /// Where clients log in; none: at the service itself.
    fn login_url(&self) -> Option<&str> {
        None
    }
}

/// A body that a signature may cover. Reading it for the signature keeps it for the handler.
#[async_trait]
pub trait SignedBody: Send {
    /// The whole body.
    ///
    /// # Errors
    /// TooLarge over the limit of signed bodies (12 MB; spec, "General wire facts").
    async fn bytes(&mut self) -> Result<bytes::Bytes>;
}

/// Whether this node is about to stop. Clones tell the same.
#[derive(Debug, Clone, Default)]
pub struct Leaving(Arc<AtomicBool>);

impl Leaving {
    /// Says it: from now on the node is not ready, and goes on answering.
    pub fn announce(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was said.
    pub fn is_announced(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The state of the API: cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// The use cases.
    pub service: Arc<Service>,
    /// Who is calling.
    pub authenticator: Arc<dyn Authenticator>,
    /// The URL under which clients reach the service, without a trailing slash; none: as the request's `Host`
    /// says.
    pub public_url: Option<Arc<str>>,
    /// Renders the metrics in Prometheus' text form.
    pub render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// The largest JSON body that is read, in bytes.
    pub max_json_body: usize,
    /// How long a body may stand still while it is received.
    pub body_idle_timeout: std::time::Duration,
    /// What holds the service up under load.
    pub admission: Arc<Admission>,
    /// Whether this node is about to stop.
    pub leaving: Leaving,
}

impl ApiState {
    /// The URL under which this request's client reaches the service, without a trailing slash.
    pub fn base_url(&self, headers: &http::HeaderMap) -> String {
        base_url(self.public_url.as_deref(), headers)
    }
}

/// The public URL where one is set, else what the request's `Host` says.
pub(crate) fn base_url(public_url: Option<&str>, headers: &http::HeaderMap) -> String {
    if let Some(url) = public_url {
        return url.to_owned();
    }
    let host = headers
        .get(http::header::HOST)
        .and_then(|host| host.to_str().ok());
    let plain = |host: &&str| {
        host.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-.:[]_".contains(&b))
    };
    format!("http://{}", host.filter(plain).unwrap_or("localhost"))
}
